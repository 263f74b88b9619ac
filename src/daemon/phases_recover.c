/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What can be done about a source that is lost, from the main thread: pause on purpose, listen for
 * the resumed source, give up.
 *
 * Whether a step may be taken is decided by the fault thread, which alone knows the session as it
 * is now.  What is refused here is what the last snapshot refuses already, so that whoever asks
 * hears why.
 */
#include "config.h"
#include "daemon/phases_parts.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include <gio/gio.h>

#include "daemon/listen.h"
#include "sys/clock.h"

/**
 * phases_pause - end the connections of the source on purpose; see phases_parts.h
 */
void phases_pause(struct phases *p, const char *reason)
{
	struct message m = { .kind = MESSAGE_PAUSE };

	g_strlcpy(m.pause.reason, reason, sizeof(m.pause.reason));
	faultloop_post(p->loop, &m);
	phases_refresh(p);
}

/**
 * phases_pause_problem - why a pause would do nothing, by the last snapshot; NULL: it would
 */
const char *phases_pause_problem(const struct phases *p)
{
	const struct snapshot *s = p->snapshot;

	if (!s || !s->committed || s->state == SESSION_FAILED)
		return "the VM is the source's still: cancel, and it resumes it";
	if (s->state == SESSION_COMPLETE)
		return "everything is here";
	if (s->held)
		return "it is held already";
	if (s->state == SESSION_PAUSED)
		return "it is paused already";
	if (s->main_eof || s->owed_left == 0 || s->shut_sent)
		return "the source has sent everything, and would restart its VM";
	return NULL;
}

/* The socket of an address that was given before. */
static void remove_made(struct phases *p)
{
	if (p->recovery.made)
		unlink(p->recovery.made);
	g_clear_pointer(&p->recovery.made, g_free);
}

static bool fail(GError **error, const char *text)
{
	g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_FAILED, text);
	return false;
}

/* Back to who looks at snapshots, when the time is over. */
static gboolean on_time(gpointer data)
{
	struct phases *p = data;

	p->recovery.timer = 0;
	phases_refresh(p);
	return G_SOURCE_REMOVE;
}

static void set_limit(struct phases *p, uint64_t now)
{
	struct phases_recovery *r = &p->recovery;
	unsigned seconds = p->options->recover_timeout_s;

	g_clear_handle_id(&r->timer, g_source_remove);
	r->over = false;
	r->until_ns = seconds ? now + seconds * 1000000000ull : 0;
	if (seconds)
		r->timer = g_timeout_add(seconds * 1000 + 1, on_time, p);
}

/**
 * phases_recover - listen for the resumed source; see phases_parts.h
 *
 * The time to wait (--recover-timeout) begins anew.
 */
bool phases_recover(struct phases *p, const struct options_address *where, GError **error)
{
	const struct snapshot *s = p->snapshot;
	g_autofree char *shown = NULL;
	int fd;

	if (!s || !s->paused_ns)
		return fail(error, "nothing is paused");
	if (s->held)
		return fail(error, "the session is held: no source can mend what happened");
	if (where) {
		fd = listen_incoming(where, &shown, error);
		if (fd < 0)
			return false;
		remove_made(p);
		if (where->transport == OPTIONS_UNIX)
			p->recovery.made = g_strdup(where->path);
		g_free(p->recovery.there);
		p->recovery.there = listen_uri(fd);
		channel_add(p->channel, fd);
	}
	set_limit(p, clock_ns());
	channel_open(p->channel, true);
	phases_refresh(p);
	return true;
}

/* Where the source can come; where it came before is how it reaches us. */
static const char *uri(const struct phases *p)
{
	const char *came = linkwatch_uri(p->link);

	if (p->recovery.there)
		return p->recovery.there;
	return came ? came : p->recovery.here;
}

/**
 * phases_recover_see - what a snapshot says of the source, and what we say of it in there
 */
void phases_recover_see(struct phases *p, struct snapshot *s)
{
	struct phases_recovery *r = &p->recovery;
	struct snapshot_recover *out = &s->recover;

	channel_see(p->channel, s);
	if (s->paused_ns != r->pause && s->paused_ns)
		set_limit(p, s->paused_ns);
	else if (!s->paused_ns)
		g_clear_handle_id(&r->timer, g_source_remove);
	r->pause = s->paused_ns;
	if (!s->paused_ns || s->held)
		return;
	r->over = r->until_ns && clock_ns() >= r->until_ns;
	if (r->over)
		channel_open(p->channel, false);
	out->listening = !r->over;
	out->until_ns = r->until_ns;
	g_strlcpy(out->address, uri(p), sizeof(out->address));
	snprintf(out->command, sizeof(out->command),
		 "{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"%s\",\"resume\":true}}",
		 out->address);
}

/**
 * phases_recover_blockers - what the operator is to do about a session that is paused
 */
void phases_recover_blockers(struct phases *p, const struct snapshot *s)
{
	p->blockers.since_ns = s->paused_ns;
	if (s->held)
		blockers_add(&p->blockers, "held", "complete", "%s", s->reason);
	else if (s->state == SESSION_RECOVERING)
		blockers_add(&p->blockers, "source", "complete",
			     "a resumed source is here and asks what came");
	else if (!s->recover.listening)
		blockers_add(&p->blockers, "source", "complete",
			     "the source is lost and is not waited for any more "
			     "(--recover-timeout): postcopyctl recover, then resume it");
	else
		blockers_add(&p->blockers, "source", "complete",
			     "the source is lost; say to its QMP: %s", s->recover.command);
}

/**
 * phases_recover_free - what was made for it
 */
void phases_recover_free(struct phases *p)
{
	g_clear_handle_id(&p->recovery.timer, g_source_remove);
	remove_made(p);
	g_free(p->recovery.here);
	g_free(p->recovery.there);
}

/**
 * phases_cancel - give the session up; see phases_parts.h
 */
bool phases_cancel(struct phases *p, bool force, GError **error)
{
	const struct snapshot *s = p->snapshot;

	if (s && s->state == SESSION_COMPLETE)
		return fail(error, "everything is here: there is nothing to cancel");
	if (s && s->committed && s->state != SESSION_FAILED && !force)
		return fail(error, "the VM is ours: to cancel loses it (--force)");
	if (s && s->committed && s->state != SESSION_FAILED)
		phases_end(p, 1);
	else
		phases_refuse(p, ECANCELED, "cancelled by the operator");
	return true;
}
