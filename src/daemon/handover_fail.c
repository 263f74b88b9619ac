/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A QEMU was lost, or will not do: what now?
 *
 *   the source runs its VM         before the switch-over nothing is lost: wait for another QEMU,
 *                                  as for the first
 *   the source would run it again  from LISTENING on, PING 0x42 not answered (>= 10.2, or the end
 *                                  of a precopy): another QEMU may come for retry= seconds, else
 *                                  refuse
 *   nobody would                   the package of an older source is here: another QEMU may come at
 *                                  any time; where it cannot, hold what we have and say so
 *   it had loaded                  the commit is made, the VM may have run: it is over, and the
 *                                  source keeps its copy (verdict.c)
 *
 * Another QEMU can come only when nothing died with the first (handover_blocks_mortal()).
 */
#include "config.h"
#include "daemon/handover_parts.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "sys/clock.h"

static const char again_text[] =
	"start the QEMU of the destination again, with the same command line; what has come is kept";

static void tell_session(struct handover *h, int error)
{
	g_autofree char *text = g_strdup_printf("%s; %s", h->reason, h->advice);

	h->stopped = true;
	h->ops.stop(h->ops.ctx, error, text);
}

static bool session_is_open(const struct snapshot *s)
{
	return s && s->started_ns && s->state != SESSION_COMPLETE && s->state != SESSION_FAILED;
}

/**
 * handover_fail - this QEMU will not do, and no other would: refuse the session, or hold it
 * @error: positive errno
 * @advice: what to do
 * @fmt: what happened
 *
 * Without a source yet, the one that comes is refused.
 */
void handover_fail(struct handover *h, int error, const char *advice, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(h->reason, sizeof(h->reason), fmt, args);
	va_end(args);
	g_strlcpy(h->advice, advice, sizeof(h->advice));
	handover_enter(h, HANDOVER_FAILED);
	if (session_is_open(h->ops.snapshot(h->ops.ctx)))
		tell_session(h, error);
}

static void begin_again(struct handover *h)
{
	handover_drop_qemu(h);
	h->attempt++;
	handover_enter(h, h->retrying ? HANDOVER_RETRY : HANDOVER_WAIT_QMP);
}

/* Nobody else can take it over: where is the VM then? */
static const char *give_up_advice(const struct snapshot *s)
{
	if (!s->committed)
		return "the source goes on running its VM; migrate again when the cause is removed";
	return "the VM has run nowhere since, but its source (older than 10.2) has no way back: its connection is kept open, "
	       "so that what it has is not lost";
}

/* The source's list was matched, but QEMU has not loaded: may another come? */
static void retry_or_give_up(struct handover *h, const struct snapshot *s, const char *how)
{
	const struct handover_block *mortal = handover_blocks_mortal(&h->blocks);
	bool stands = s->state >= SESSION_LISTENING;
	unsigned limit = h->options->qemu.retry_s;

	if (mortal) {
		handover_fail(
			h, EOWNERDEAD, give_up_advice(s),
			"QEMU (process %d) is lost before it had loaded the device state: %s; "
			"no other can go on, as block %s was %s",
			(int)h->pid, how, mortal->name,
			mortal->class == HANDOVER_LAZY ? "its private memory" :
							 "a file without a name");
		return;
	}
	if (stands && !s->committed && !limit) {
		handover_fail(h, EOWNERDEAD, give_up_advice(s),
			      "QEMU (process %d) is lost before it had loaded the device state: %s",
			      (int)h->pid, how);
		return;
	}
	snprintf(h->reason, sizeof(h->reason),
		 "QEMU (process %d) is lost before it had loaded the device state: %s", (int)h->pid,
		 how);
	g_strlcpy(h->advice, again_text, sizeof(h->advice));
	h->retrying = true;
	h->retry_until_ns = stands && !s->committed ? clock_ns() + limit * 1000000000ull : 0;
	g_warning("%s; %s", h->reason, h->advice);
	begin_again(h);
}

/**
 * handover_lost - the QEMU at hand is gone, or cannot load any more
 * @how: in words
 */
void handover_lost(struct handover *h, const struct snapshot *s, const char *how)
{
	if (h->state >= HANDOVER_LOADED && h->state != HANDOVER_RETRY) {
		handover_fail(
			h, EOWNERDEAD,
			"its memory is as it left it, here and at the source: decide where the VM is started "
			"again, and start it in one place only",
			"QEMU (process %d) ended after it had loaded the device state: %s",
			(int)h->pid, how);
	} else if (h->state < HANDOVER_DECLARED && !h->retrying) {
		g_message("QEMU (process %d) is gone: %s", (int)h->pid, how);
		begin_again(h);
	} else {
		retry_or_give_up(h, s, how);
	}
}

/**
 * handover_at_failed - in the phase FAILED
 *
 * A source that comes afterwards is told at once.  Before any came the next QEMU is as good as the
 * first.
 */
void handover_at_failed(struct handover *h, const struct snapshot *s)
{
	const struct client *c = handover_client(h);
	bool gone = !c || c->state == CLIENT_ENDED;

	if (session_is_open(s) && !h->stopped)
		tell_session(h, ECANCELED);
	else if (!s->started_ns && h->client && gone)
		begin_again(h);
}
