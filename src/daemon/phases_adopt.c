/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What this process leaves to the next one, and what it takes from the one before.
 *
 * Who kept the descriptors (vault.h) has the record, which says how far everything was, the ledger
 * and what backs the blocks (the door has them kept when it announces the blocks), the package, and
 * the connections of the source and of the sharers.  Each is written by whoever knows it; here is
 * what belongs to nobody else: the source's connections, the hand-over, and what hooks were told.
 *
 * A connection that is kept does not end when it is closed here: it is dropped from the vault when
 * the session is over with it, or the source would wait for ever.
 *
 * A successor begins with everything at once, in phases_new(): the fault thread from the record,
 * then the door, which hands it the sharers.  One that cannot does not try to do with less: it
 * ends, and what was kept stays kept for another try.
 *
 * A QEMU that was being handed its VM knows only what its monitor was told.  When that is over a
 * successor has nothing to do with the monitor any more; when it was not, nobody knows what QEMU
 * made of it, and a person has to look.
 */
#include "config.h"
#include "daemon/phases_parts.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <gio/gio.h>

#include "daemon/record.h"
#include "sys/fd.h"

enum handover_mark { HANDOVER_NOT_BEGUN, HANDOVER_BEGUN, HANDOVER_DONE };

struct phases_record {
	uint32_t size;
	uint32_t handover;		/* enum handover_mark */
	uint32_t hooks_told;
};

static bool fail(GError **error, int code, const char *what, const char *why)
{
	g_set_error(error, G_IO_ERROR, (gint)g_io_error_from_errno(-code), "%s: %s", what,
		    why && *why ? why : g_strerror(-code));
	return false;
}

/* --- what is left ----------------------------------------------------------------------------- */

/**
 * phases_keep_lane - a connection is the source's: have it kept
 * @ctx: a struct phases
 */
void phases_keep_lane(void *ctx, bool urgent, int fd)
{
	struct phases *p = ctx;
	const char *name = urgent ? "urgent" : "main";
	int ret = vault_keep(p->vault, name, fd);

	if (ret < 0)
		g_warning("the source's %s connection would not survive this process: %s", name,
			  g_strerror(-ret));
}

/* Once for each time that it is so: a source that came again has connections of its own. */
static void drop_lanes(struct phases *p, const struct snapshot *s)
{
	bool over = s->state == SESSION_FAILED ||
		    (s->state == SESSION_PAUSED && !s->held) ||
		    (s->state == SESSION_COMPLETE && (s->source_closed || s->shut_sent));

	if (over && !p->lanes_dropped) {
		vault_drop(p->vault, "main");
		vault_drop(p->vault, "urgent");
	}
	p->lanes_dropped = over;
}

static void put(struct phases *p, const struct snapshot *s)
{
	struct phases_record r = { .size = sizeof(r), .hooks_told = hooks_told(p->hooks) };

	if (p->handover_done || (p->handover && handover_done(p->handover)))
		r.handover = HANDOVER_DONE;
	else if (p->handover && s->state >= SESSION_LISTENING)
		r.handover = HANDOVER_BEGUN;
	if (r.handover == p->put_handover && r.hooks_told == p->put_hooks)
		return;
	p->put_handover = r.handover;
	p->put_hooks = r.hooks_told;
	record_put(p->record, RECORD_PHASES, 0, &r, sizeof(r));
}

/* Has this process done anything that a successor would not have to do again? */
static bool is_of_use(struct phases *p, const struct snapshot *s)
{
	if (!p->looked) {
		p->looked = true;
		p->first_state = s->state;
		p->first_left = s->owed_left;
	}
	return s->state != p->first_state || s->owed_left != p->first_left;
}

/**
 * phases_keep - a snapshot was looked at, and what it asks for was done: leave it to a successor
 */
void phases_keep(struct phases *p, const struct snapshot *s)
{
	if (is_of_use(p, s))
		vault_served(p->vault);
	if (!p->record)
		return;
	drop_lanes(p, s);
	put(p, s);
}

/* --- what was left ---------------------------------------------------------------------------- */

static bool make_record(struct phases *p, GError **error)
{
	int ret = record_new(&p->record);

	if (ret == 0)
		ret = vault_keep(p->vault, "record", record_fd(p->record));
	return ret == 0 || fail(error, ret, "no record can be kept for a successor", NULL);
}

static unsigned take_blocks(struct phases *p, int file[BLOCK_MAX])
{
	unsigned n = 0;
	char name[32];

	while (n < BLOCK_MAX) {
		snprintf(name, sizeof(name), "block-%u", n);
		file[n] = vault_take(p->vault, name);
		if (file[n] < 0)
			break;
		n++;
	}
	return n;
}

/* What the fault thread needs: its own, also when it cannot be used. */
static void take_session(struct phases *p)
{
	struct faultloop_adopt *a = &p->adopt;

	a->ledger = vault_take(p->vault, "ledger");
	a->package = vault_take(p->vault, "package");
	a->main = vault_take(p->vault, "main");
	a->n_blocks = take_blocks(p, a->file);
}

static void recall(struct phases *p)
{
	struct phases_record r;

	if (record_get(p->record, RECORD_PHASES, 0, &r, sizeof(r)) != sizeof(r) ||
	    r.size != sizeof(r))
		return;
	hooks_recall(p->hooks, r.hooks_told);
	p->put_hooks = r.hooks_told;
	p->put_handover = r.handover;
	p->handover_done = r.handover == HANDOVER_DONE;
}

/**
 * phases_take_record - the record: a fresh one, or the one that an earlier process left
 *
 * Return: false with *error, when we should leave something to a successor and cannot, or when what
 * was left is not for us.
 */
bool phases_take_record(struct phases *p, GError **error)
{
	int ret;

	if (!vault_keeps(p->vault))
		return true;
	if (!vault_again(p->vault))
		return make_record(p, error);
	ret = record_adopt(&p->record, vault_take(p->vault, "record"));
	if (ret < 0)
		return fail(error, ret, "cannot take over from an earlier postcopyd",
			    ret == -EBADMSG ? "its record is of another version of the program" :
					      NULL);
	take_session(p);
	recall(p);
	return true;
}

/**
 * phases_adopt - the sharers of an earlier process; nothing when there was none
 *
 * Behind everything that they may ask for.  Return: false with *error.
 */
bool phases_adopt(struct phases *p, GError **error)
{
	const struct vault_past *past = vault_past(p->vault);

	if (!p->record || !vault_again(p->vault))
		return true;
	g_message("taking over from an earlier process, the %u. of this session (the last one: %s)",
		  past->generation, past->last);
	if (door_adopt(p->door, p->vault, p->record, error) < 0)
		return false;
	if (p->state_fd >= 0 &&
	    (lseek(p->state_fd, 0, SEEK_SET) < 0 || ftruncate(p->state_fd, 0) < 0))
		g_warning("the file for the device state: %s", g_strerror(errno));
	vault_forget_rest(p->vault);
	return true;
}

/**
 * phases_adopt_handover - may a hand-over begin?
 *
 * Return: false when one was over, or had begun, in an earlier process; the session is held then.
 */
bool phases_adopt_handover(struct phases *p)
{
	if (p->put_handover == HANDOVER_BEGUN)
		phases_stop_session(p, ERESTART,
				    "postcopyd was restarted while it handed the VM over to its QEMU, "
				    "and nobody knows how far that QEMU is.  Look at it (QMP query-status, "
				    "query-migrate): if it has loaded its state, continue it there (cont); "
				    "its pages go on being served from what is here");
	return p->put_handover == HANDOVER_NOT_BEGUN;
}
