/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is said to QEMU before anything can go wrong with a guest, one command after the other:
 *
 *   query-status          it must wait for a migration, and never have run
 *   stop                  it must not run when it has loaded, but when we say so.  -S is what
 *                         people give; in this state `stop' says the same, and whoever forgot it is
 *                         safe, too
 *   events                so that the end of loading is told
 *   migrate-incoming      it listens
 *
 * And when the source has listed its memory, hence as late as nothing is lost yet (a manager sets
 * what it likes when it likes):
 *
 *   capabilities          what has to be at both ends of a stream, and is not in ours, is
 *                         switched off
 *
 * A refusal of any of them ends the attempt: the source runs its VM, and nothing was touched.
 */
#include "config.h"
#include "daemon/handover_parts.h"

#include <errno.h>
#include <string.h>

#include "core/guard.h"

static const char start_text[] = "start the QEMU anew with -incoming defer -S";
static const char capability_text[] = "switch the migration capability off before the migration";

typedef void preparation(struct handover *h, struct qmp_call call);

static void ask_status(struct handover *h, struct qmp_call call)
{
	qmp_query_status(h->qmp, call);
}

static void ask_stop(struct handover *h, struct qmp_call call)
{
	qmp_stop(h->qmp, call);
}

static void ask_events(struct handover *h, struct qmp_call call)
{
	qmp_set_capability(h->qmp, "events", true, call);
}

static void ask_incoming(struct handover *h, struct qmp_call call)
{
	g_autofree char *uri = g_strdup_printf("unix:%s", h->options->qemu.incoming);

	qmp_migrate_incoming(h->qmp, uri, call);
}

/* Waiting for a migration?  Anything else has run, or was started for something else. */
static bool take_status(struct handover *h, const struct qmp_answer *a)
{
	g_strlcpy(h->status, qmp_status(a), sizeof(h->status));
	if (!strcmp(h->status, "inmigrate"))
		return true;
	handover_fail(h, EINVAL, start_text,
		      "QEMU (process %d) does not wait for a migration: it is %s", (int)h->pid,
		      h->status);
	return false;
}

static const struct {
	preparation *ask;
	/* NULL: any answer will do */
	bool (*take)(struct handover *h, const struct qmp_answer *a);
	const char *advice;
} preparations[] = {
	{ ask_status, take_status, start_text },
	{ ask_stop, NULL, start_text },
	{ ask_events, NULL, start_text },
	{ ask_incoming, NULL,
	  "QEMU must have been started with -incoming defer, and be able to make a socket at the path of "
	  "--qemu incoming=unix:PATH" },
	{ ask_status, take_status, start_text },
};

static void on_prepared(void *ctx, const struct qmp_answer *a)
{
	struct handover *h = ctx;
	unsigned at = h->preparation;

	if (h->state != HANDOVER_INMIGRATE || a->outcome == QMP_CLOSED)
		return;
	if (a->outcome != QMP_OK) {
		handover_fail(h, ECANCELED, preparations[at].advice, "QEMU (process %d): %s",
			      (int)h->pid, a->text);
		return;
	}
	if (preparations[at].take && !preparations[at].take(h, a))
		return;
	if (++h->preparation < ARRAY_LEN(preparations)) {
		handover_prepare(h);
		return;
	}
	h->prepared = true;
	h->asked = false;
	g_message("QEMU %s (process %d) waits for the VM", h->version, (int)h->pid);
	handover_step(h);
}

/**
 * handover_prepare - make QEMU ready to take a stream: the next step
 *
 * From the first to the last without a pause; then h->prepared is set, or handover_fail() was
 * called.
 */
void handover_prepare(struct handover *h)
{
	struct qmp_call call = { on_prepared, h, QMP_PATIENCE_MS };

	preparations[h->preparation].ask(h, call);
}

/* --- capabilities ----------------------------------------------------------------------------- */

static void on_switched_off(void *ctx, const struct qmp_answer *a)
{
	struct handover *h = ctx;

	if (h->state == HANDOVER_INMIGRATE && a->outcome != QMP_OK && a->outcome != QMP_CLOSED)
		handover_fail(h, ECANCELED, capability_text, "QEMU (process %d): %s", (int)h->pid,
			      a->text);
}

/*
 * QEMU exits when one end of a stream has these and the other does not; the last makes it wait for
 * connections that never come.
 */
static void switch_off(struct handover *h, const struct jsonmsg *capabilities)
{
	static const char *const off[] = {
		"x-ignore-shared", "validate-uuid", "postcopy-ram", "postcopy-preempt",
		"mapped-ram", "x-colo", "multifd",
	};

	for (unsigned i = 0; i < jsonmsg_count(capabilities); i++) {
		const struct jsonmsg *c = jsonmsg_element(capabilities, i);
		const char *name = jsonmsg_text(c, "capability", "");

		for (unsigned k = 0; k < ARRAY_LEN(off); k++)
			if (!strcmp(name, off[k]) && jsonmsg_bool(c, "state", false)) {
				g_message(
					"QEMU (process %d): the migration capability %s is switched off",
					(int)h->pid, name);
				qmp_set_capability(
					h->qmp, name, false,
					(struct qmp_call){ on_switched_off, h, QMP_PATIENCE_MS });
			}
	}
}

static void on_capabilities(void *ctx, const struct qmp_answer *a)
{
	struct handover *h = ctx;

	if (h->state != HANDOVER_INMIGRATE || a->outcome == QMP_CLOSED)
		return;
	if (a->outcome == QMP_OK) {
		switch_off(h, a->value);
		handover_query_ram(h);
	} else {
		handover_fail(h, ECANCELED, start_text, "QEMU (process %d): %s", (int)h->pid,
			      a->text);
	}
}

/**
 * handover_settle - make sure that QEMU expects no more of a stream than ours has, then ask it for
 * its memory
 *
 * Ends in handover_query_ram() or handover_fail().
 */
void handover_settle(struct handover *h)
{
	qmp_send(h->qmp, "query-migrate-capabilities", NULL,
		 (struct qmp_call){ on_capabilities, h, QMP_PATIENCE_MS });
}
