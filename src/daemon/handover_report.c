/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The hand-over as the control socket shows it; names and order of the members are an interface
 * (postcopyd-control(7)).
 */
#include "config.h"
#include "daemon/handover_parts.h"

#include <inttypes.h>
#include <stdio.h>

#include "sys/clock.h"

/* --- what it waits for ------------------------------------------------------------------------ */

static uint64_t held_missing(const struct snapshot *s)
{
	uint64_t missing = 0;

	for (unsigned i = 0; s && i < s->n_blocks; i++)
		missing += s->block[i].kind == BLOCK_HELD ? s->block[i].missing : 0;
	return missing;
}

static void wait_preload(const struct handover *h, char *out, size_t len)
{
	if (h->stranger)
		snprintf(
			out, len,
			"one QEMU: the preload said hello from process %d, but process %d answers at %s",
			(int)h->stranger, h->qmp ? (int)qmp_peer_pid(h->qmp) : 0,
			h->options->qemu.monitor);
	else
		snprintf(
			out, len,
			"the preload in the QEMU at %s (LD_PRELOAD=libpostcopy-preload.so, role=main)",
			h->options->qemu.monitor);
}

/**
 * handover_waits - what it waits for, "" when for nothing any more
 */
const char *handover_waits(const struct handover *h, char *out, size_t len)
{
	const struct snapshot *s = h->ops.snapshot(h->ops.ctx);
	int pid = (int)h->pid;

	out[0] = '\0';
	if (s && s->state == SESSION_PAUSED && h->state < HANDOVER_COMPLETE)
		snprintf(out, len, "nothing: the session is held: %s", s->reason);
	else if (h->state == HANDOVER_WAIT_QMP || h->state == HANDOVER_RETRY)
		snprintf(out, len, "the monitor of QEMU at %s (%s)", h->options->qemu.monitor,
			 *h->monitor_said ? h->monitor_said : "start it with -incoming defer -S");
	else if (h->state == HANDOVER_WAIT_PRELOAD)
		wait_preload(h, out, len);
	else if (h->state == HANDOVER_INMIGRATE)
		snprintf(out, len,
			 h->prepared ? "the source's list of blocks" :
				       "QEMU (process %d) to get ready for a migration",
			 pid);
	else if (h->state == HANDOVER_DECLARED)
		snprintf(out, len, "the source to switch over");
	else if (h->state == HANDOVER_PRIVATE)
		snprintf(out, len, "%" PRIu64 " pages that must be here before QEMU can load",
			 held_missing(s));
	else if (h->state == HANDOVER_STREAMING || h->state == HANDOVER_LOADING)
		snprintf(out, len, "QEMU (process %d) to load the device state", pid);
	else if (h->state == HANDOVER_LOADED)
		snprintf(out, len, "the source to have our answer");
	else if (h->state == HANDOVER_CONT)
		snprintf(out, len, "QEMU (process %d) to go on", pid);
	else if (h->state == HANDOVER_FAILED)
		snprintf(out, len, "nothing: %s", h->reason);
	else if (h->state == HANDOVER_RUNNING)
		snprintf(out, len, "the rest of the memory");
	return out;
}

static bool is_loading(const struct handover *h)
{
	return h->state == HANDOVER_PRIVATE || h->state == HANDOVER_STREAMING ||
	       h->state == HANDOVER_LOADING;
}

/* When the attempt is given up; 0: there is no limit. */
static uint64_t deadline(const struct handover *h, const struct snapshot *s)
{
	if (is_loading(h) && s && !s->committed && h->options->load_timeout_s)
		return s->state_ns + h->options->load_timeout_s * 1000000000ull;
	return h->state < HANDOVER_DECLARED || h->state == HANDOVER_RETRY ? h->retry_until_ns : 0;
}

/* Which option sets it, or why there is none. */
static const char *deadline_reason(const struct handover *h, const struct snapshot *s)
{
	static const char *const reasons[HANDOVER_STATES] = {
		[HANDOVER_WAIT_QMP] =
			"the source runs its VM meanwhile; --expect-timeout refuses one that waits",
		[HANDOVER_WAIT_PRELOAD] =
			"the source runs its VM meanwhile; --expect-timeout refuses one that waits",
		[HANDOVER_INMIGRATE] = "the source runs its VM meanwhile",
		[HANDOVER_DECLARED] = "the source decides when it switches over",
		[HANDOVER_LOADED] = "until the source has our answer it may run the VM",
		[HANDOVER_CONT] = "QEMU answers when its main thread has the page it waits for",
		[HANDOVER_RUNNING] = "the source decides how fast the rest comes",
		[HANDOVER_RETRY] = "no source would go on instead: waiting is all there is",
	};

	if (deadline(h, s))
		return is_loading(h) ? "--load-timeout" : "retry= of --qemu";
	if (is_loading(h))
		return s && s->committed ?
			       "the source has given the VM away: giving up would leave none" :
			       "no --load-timeout was given";
	return reasons[h->state];
}

/* --- as JSON ---------------------------------------------------------------------------------- */

static void put_moment(struct jsonmsg_writer *w, const char *key, uint64_t ns)
{
	if (ns)
		jsonmsg_put_u64(w, key, ns);
	else
		jsonmsg_put_value(w, key, NULL);
}

static void put_text(struct jsonmsg_writer *w, const char *key, const char *text)
{
	jsonmsg_put_text(w, key, *text ? text : NULL);
}

static void put_timeline(struct jsonmsg_writer *w, const struct handover *h)
{
	jsonmsg_begin_array(w, "timeline");
	for (unsigned i = 0; i < h->n_moments; i++) {
		jsonmsg_begin_object(w, NULL);
		jsonmsg_put_text(w, "phase", handover_state_name(h->moment[i].state));
		jsonmsg_put_u64(w, "at_ns", h->moment[i].at_ns);
		jsonmsg_end(w);
	}
	jsonmsg_end(w);
}

static void put_blocks(struct jsonmsg_writer *w, const struct handover_blocks *b)
{
	jsonmsg_begin_array(w, "blocks");
	for (unsigned i = 0; i < b->n; i++) {
		jsonmsg_begin_object(w, NULL);
		jsonmsg_put_text(w, "name", b->block[i].name);
		jsonmsg_put_text(w, "class", handover_class_name(b->block[i].class));
		put_text(w, "why", b->block[i].why);
		jsonmsg_end(w);
	}
	jsonmsg_end(w);
}

static void put_qemu(struct jsonmsg_writer *w, const struct handover *h)
{
	jsonmsg_begin_object(w, "qemu");
	jsonmsg_put_u64(w, "attempt", h->attempt);
	if (h->pid)
		jsonmsg_put_i64(w, "pid", h->pid);
	else
		jsonmsg_put_value(w, "pid", NULL);
	put_text(w, "version", h->version);
	put_text(w, "status", h->status);
	put_text(w, "ran_at_source", h->run.text);
	jsonmsg_put_u64(w, "stream_bytes",
			h->stream ? handover_stream_bytes(h->stream) : h->stream_bytes);
	jsonmsg_end(w);
}

/**
 * handover_done - is the VM QEMU's, with nothing left to do for us?
 */
bool handover_done(const struct handover *h)
{
	return h->state == HANDOVER_RUNNING || h->state == HANDOVER_COMPLETE;
}

/**
 * handover_report - the phase, what it waits for since when, and how it came there
 */
void handover_report(const struct handover *h, struct jsonmsg_writer *w, const char *key)
{
	const struct snapshot *s = h->ops.snapshot(h->ops.ctx);
	char waits[1024];

	jsonmsg_begin_object(w, key);
	jsonmsg_put_u64(w, "now_ns", clock_ns());
	jsonmsg_put_text(w, "phase", handover_state_name(h->state));
	jsonmsg_put_u64(w, "since_ns", h->since_ns);
	put_text(w, "waits_for", handover_waits(h, waits, sizeof(waits)));
	put_moment(w, "deadline_ns", deadline(h, s));
	jsonmsg_put_text(w, "deadline_reason", deadline_reason(h, s));
	put_text(w, "error", h->reason);
	put_text(w, "advice", h->advice);
	put_text(w, "not_continued", h->left);
	put_qemu(w, h);
	put_blocks(w, &h->blocks);
	put_timeline(w, h);
	jsonmsg_end(w);
}
