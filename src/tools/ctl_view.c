/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The daemon's answers as structs.  The tables are the twins of those in daemon/report.c: a member
 * that is missing (an older daemon) reads as 0 or "", one that is new is not looked at.  Lists
 * longer than ours are cut.
 */
#include "config.h"
#include "tools/ctl_view.h"
#include <stddef.h>
#include <string.h>
#include <glib.h>
#include "core/guard.h"
#include "tools/ctl_format.h"

/* A uint64_t of some struct under the name it has in JSON. */
struct count {
	const char *name;
	size_t at;
};

static void get_counts(void *base, const struct count *counts, size_t n, const struct jsonmsg *from)
{
	for (size_t i = 0; i < n; i++)
		*(uint64_t *)((char *)base + counts[i].at) = jsonmsg_u64(from, counts[i].name, 0);
}
#define GET_COUNTS(base, counts, from) get_counts(base, counts, ARRAY_LEN(counts), from)

/* Copy the whole characters that fit. */
static void get_text(char *out, size_t size, const struct jsonmsg *from, const char *key)
{
	g_autofree char *plain = ctl_format_plain(jsonmsg_text(from, key, ""));
	const char *end = plain;

	while (*end && (size_t)(g_utf8_next_char(end) - plain) < size)
		end = g_utf8_next_char(end);
	memcpy(out, plain, (size_t)(end - plain));
	out[end - plain] = '\0';
}
#define GET_TEXT(array, from, key) get_text(array, sizeof(array), from, key)

#define ST(field) offsetof(struct ctl_status, field)
#define BL(field) offsetof(struct ctl_block, field)
#define SH(field) offsetof(struct ctl_sharer, field)
#define LA(field) offsetof(struct ctl_latency, field)
#define SS(field) offsetof(struct ctl_sharer_stats, field)
#define GS(field) offsetof(struct ctl_stats, field)

static void get_device_states(struct ctl_status *s, const struct jsonmsg *from)
{
	static const struct count counts[] = {
		{"attempts", offsetof(struct ctl_device_state, attempts)},
		{"segments", offsetof(struct ctl_device_state, segments)},
		{"bytes", offsetof(struct ctl_device_state, bytes)},
		{"received", offsetof(struct ctl_device_state, received)},
	};

	s->n_device_states = MIN(jsonmsg_count(from), CTL_VIEW_DEVICES);
	for (unsigned i = 0; i < s->n_device_states; i++) {
		const struct jsonmsg *one = jsonmsg_element(from, i);
		struct ctl_device_state *d = &s->device_state[i];

		GET_COUNTS(d, counts, one);
		GET_TEXT(d->id, one, "id");
		GET_TEXT(d->kind, one, "kind");
		GET_TEXT(d->state, one, "state");
	}
}

static void get_faults(struct ctl_status *s, const struct jsonmsg *from)
{
	s->injects = jsonmsg_kind(from) == JSONMSG_OBJECT;
	s->fault_rules = jsonmsg_u64(from, "rules", 0);
	s->fault_fires = jsonmsg_u64(from, "fires", 0);
}

static void get_device_channel(struct ctl_status *s, const struct jsonmsg *from)
{
	GET_TEXT(s->channel, from, "address");
	GET_TEXT(s->channel_session, from, "session");
	GET_TEXT(s->channel_peer, from, "peer");
	GET_TEXT(s->channel_problem, from, "problem");
	s->channel_bytes = jsonmsg_u64(from, "bytes", 0);
}

static void get_link(struct ctl_status *s, const struct jsonmsg *from)
{
	static const struct count counts[] = {
		{"since_ns", ST(path_since_ns)},
		{"rtt_us", ST(rtt_us)},
		{"rttvar_us", ST(rttvar_us)},
		{"retransmits", ST(retransmits)},
	};

	GET_COUNTS(s, counts, from);
	GET_TEXT(s->path, from, "path");
	GET_TEXT(s->interface, from, "interface");
	GET_TEXT(s->local, from, "local");
	GET_TEXT(s->peer, from, "peer");
	GET_TEXT(s->via, from, "via");
	GET_TEXT(s->cause, from, "cause");
}

static void read_status(struct ctl_view *v, const struct jsonmsg *from)
{
	static const struct count counts[] = {
		{"now_ns", ST(now_ns)},
		{"state_since_ns", ST(state_since_ns)},
		{"owed_pages", ST(owed)},
		{"owed_pages_left", ST(owed_left)},
		{"faults_in_flight", ST(faults_in_flight)},
		{"requests_in_flight", ST(requests_in_flight)},
		{"store_bytes", ST(store_bytes)},
		{"blocks", ST(n_blocks)},
		{"sharers", ST(n_sharers)},
	};
	static const struct count times[] = {
		{"started_ns", ST(started_ns)},
		{"switchover_ns", ST(switchover_ns)},
		{"listening_ns", ST(listening_ns)},
		{"first_fault_ns", ST(first_fault_ns)},
		{"first_served_ns", ST(first_served_ns)},
		{"running_ns", ST(running_ns)},
		{"complete_ns", ST(complete_ns)},
	};
	static const struct count package[] = {
		{"bytes", ST(package_bytes)},
		{"device_bytes", ST(package_device_bytes)},
	};
	struct ctl_status *s = &v->status;

	GET_COUNTS(s, counts, from);
	GET_COUNTS(s, times, jsonmsg_member(from, "times"));
	GET_COUNTS(s, package, jsonmsg_member(from, "package"));
	GET_TEXT(s->state, from, "state");
	GET_TEXT(s->machine, from, "machine");
	GET_TEXT(s->source, from, "source");
	GET_TEXT(s->reason, jsonmsg_member(from, "error"), "reason");
	get_link(s, jsonmsg_member(from, "link"));
	GET_TEXT(s->resume, jsonmsg_member(from, "recover"), "command");
	GET_TEXT(s->source_qmp, jsonmsg_member(from, "source_qmp"), "step");
	GET_TEXT(s->source_qmp_text, jsonmsg_member(from, "source_qmp"), "text");
	get_device_channel(s, jsonmsg_member(from, "device_channel"));
	get_faults(s, jsonmsg_member(from, "faults"));
	get_device_states(s, jsonmsg_member(from, "device_states"));
	s->committed = jsonmsg_bool(from, "committed", false);
	s->commit_ping = jsonmsg_bool(from, "commit_ping", false);
	s->urgent_lane = jsonmsg_bool(from, "urgent_lane", false);
	s->ownership_unknown = jsonmsg_bool(from, "ownership_unknown", false);
}

static void get_block(struct ctl_block *b, const struct jsonmsg *from)
{
	static const struct count counts[] = {
		{"sharers", BL(sharers)},
		{"length", BL(length)},
		{"page_size", BL(page_size)},
		{"pages", BL(pages)},
		{"owed", BL(owed)},
		{"present", BL(present)},
		{"missing", BL(missing)},
		{"requested", BL(requested)},
		{"stored", BL(stored)},
		{"zero", BL(zero)},
		{"lost", BL(lost)},
		{"unplaced", BL(unplaced)},
	};

	GET_COUNTS(b, counts, from);
	GET_TEXT(b->name, from, "name");
	GET_TEXT(b->kind, from, "kind");
}

static void read_blocks(struct ctl_view *v, const struct jsonmsg *from)
{
	v->n_blocks = MIN(jsonmsg_count(from), CTL_VIEW_BLOCKS);
	for (unsigned i = 0; i < v->n_blocks; i++)
		get_block(&v->block[i], jsonmsg_element(from, i));
}

static void get_sharer(struct ctl_sharer *s, const struct jsonmsg *from)
{
	static const struct count counts[] = {
		{"id", SH(id)},
		{"generation", SH(generation)},
		{"state_since_ns", SH(state_since_ns)},
		{"mappings", SH(mappings)},
		{"mapped_bytes", SH(mapped_bytes)},
		{"waiting", SH(waiting)},
		{"oldest_wait_ns", SH(oldest_wait_ns)},
	};

	GET_COUNTS(s, counts, from);
	GET_TEXT(s->name, from, "name");
	GET_TEXT(s->policy, from, "policy");
	GET_TEXT(s->state, from, "state");
	GET_TEXT(s->reason, jsonmsg_member(from, "error"), "reason");
	s->main = jsonmsg_bool(from, "main", false);
	s->pid = jsonmsg_i64(from, "pid", 0);
}

static void read_sharers(struct ctl_view *v, const struct jsonmsg *from)
{
	v->n_sharers = MIN(jsonmsg_count(from), CTL_VIEW_SHARERS);
	for (unsigned i = 0; i < v->n_sharers; i++)
		get_sharer(&v->sharer[i], jsonmsg_element(from, i));
}

static void get_sharer_stats(struct ctl_sharer_stats *s, const struct jsonmsg *from)
{
	static const struct count counts[] = {
		{"id", SS(id)},
		{"faults", SS(faults)},
		{"reads", SS(reads)},
		{"writes", SS(writes)},
		{"duplicates", SS(duplicates)},
		{"refaults", SS(refaults)},
		{"present", SS(present)},
		{"requests", SS(requests)},
		{"wakes", SS(wakes)},
		{"spurious", SS(spurious)},
		{"blocked_ns", SS(blocked_ns)},
		{"blocked_threads_ns", SS(blocked_threads_ns)},
	};
	static const struct count latency[] = {
		{"count", LA(count)},
		{"mean_ns", LA(mean_ns)},
		{"p50_ns", LA(p50_ns)},
		{"p90_ns", LA(p90_ns)},
		{"p99_ns", LA(p99_ns)},
		{"max_ns", LA(max_ns)},
	};

	GET_COUNTS(s, counts, from);
	GET_TEXT(s->name, from, "name");
	for (unsigned i = 0; i < STAGE_COUNT; i++)
		GET_COUNTS(&s->latency[i], latency,
			   jsonmsg_member(jsonmsg_member(from, "latency"), stats_stage_names[i]));
}

static void get_lane(struct ctl_lane *lane, const struct jsonmsg *from)
{
	const struct jsonmsg *pages = jsonmsg_member(from, "pages");

	lane->bytes = jsonmsg_u64(from, "bytes", 0);
	lane->duplicates = jsonmsg_u64(from, "duplicates", 0);
	lane->batches = jsonmsg_u64(from, "batches", 0);
	for (unsigned i = 0; i < HOW_COUNT; i++)
		lane->pages[i] = jsonmsg_u64(pages, stats_how_names[i], 0);
}

static void read_stats(struct ctl_view *v, const struct jsonmsg *from)
{
	static const struct count counts[] = {
		{"now_ns", GS(now_ns)},
		{"requests", GS(requests)},
		{"requested_pages", GS(requested_pages)},
		{"rerequested", GS(rerequested)},
		{"removed", GS(removed)},
		{"alarms", GS(alarms)},
		{"lost", GS(lost)},
		{"again", GS(again)},
		{"place_fallbacks", GS(place_fallbacks)},
		{"return_bytes", GS(return_bytes)},
	};
	const struct jsonmsg *sharers = jsonmsg_member(from, "sharers");
	const struct jsonmsg *calls = jsonmsg_member(from, "syscalls");
	struct ctl_stats *s = &v->stats;

	GET_COUNTS(s, counts, from);
	s->ring_syscalls = jsonmsg_u64(calls, "ring", 0);
	s->other_syscalls = jsonmsg_u64(calls, "other", 0);
	get_sharer_stats(&s->total, jsonmsg_member(from, "total"));
	s->n_sharers = MIN(jsonmsg_count(sharers), CTL_VIEW_SHARERS);
	for (unsigned i = 0; i < s->n_sharers; i++)
		get_sharer_stats(&s->sharer[i], jsonmsg_element(sharers, i));
	for (unsigned i = 0; i < LANE_COUNT; i++)
		get_lane(&s->lane[i],
			 jsonmsg_member(jsonmsg_member(from, "lanes"), stats_lane_names[i]));
}

static void read_blockers(struct ctl_view *v, const struct jsonmsg *from)
{
	v->n_blockers = MIN(jsonmsg_count(from), CTL_VIEW_BLOCKERS);
	for (unsigned i = 0; i < v->n_blockers; i++) {
		const struct jsonmsg *b = jsonmsg_element(from, i);

		GET_TEXT(v->blocker[i].name, b, "name");
		GET_TEXT(v->blocker[i].step, b, "step");
		GET_TEXT(v->blocker[i].text, b, "text");
		v->blocker[i].since_ns = jsonmsg_u64(b, "since_ns", 0);
	}
}

static void get_qemu(struct ctl_handover *h, const struct jsonmsg *from)
{
	h->attempt = jsonmsg_u64(from, "attempt", 0);
	h->pid = jsonmsg_i64(from, "pid", 0);
	h->stream_bytes = jsonmsg_u64(from, "stream_bytes", 0);
	GET_TEXT(h->version, from, "version");
	GET_TEXT(h->status, from, "status");
	GET_TEXT(h->ran_at_source, from, "ran_at_source");
}

static void get_handover_lists(struct ctl_handover *h, const struct jsonmsg *blocks,
			       const struct jsonmsg *timeline)
{
	h->n_blocks = MIN(jsonmsg_count(blocks), CTL_VIEW_BLOCKS);
	for (unsigned i = 0; i < h->n_blocks; i++) {
		const struct jsonmsg *b = jsonmsg_element(blocks, i);

		GET_TEXT(h->block[i].name, b, "name");
		GET_TEXT(h->block[i].class, b, "class");
		GET_TEXT(h->block[i].why, b, "why");
	}
	h->n_phases = MIN(jsonmsg_count(timeline), CTL_VIEW_PHASES);
	for (unsigned i = 0; i < h->n_phases; i++) {
		GET_TEXT(h->timeline[i].name, jsonmsg_element(timeline, i), "phase");
		h->timeline[i].at_ns = jsonmsg_u64(jsonmsg_element(timeline, i), "at_ns", 0);
	}
}

static void read_handover(struct ctl_view *v, const struct jsonmsg *from)
{
	struct ctl_handover *h = &v->handover;

	h->now_ns = jsonmsg_u64(from, "now_ns", 0);
	h->since_ns = jsonmsg_u64(from, "since_ns", 0);
	h->deadline_ns = jsonmsg_u64(from, "deadline_ns", 0);
	GET_TEXT(h->phase, from, "phase");
	GET_TEXT(h->waits_for, from, "waits_for");
	GET_TEXT(h->deadline_reason, from, "deadline_reason");
	GET_TEXT(h->error, from, "error");
	GET_TEXT(h->advice, from, "advice");
	GET_TEXT(h->not_continued, from, "not_continued");
	get_qemu(h, jsonmsg_member(from, "qemu"));
	get_handover_lists(h, jsonmsg_member(from, "blocks"), jsonmsg_member(from, "timeline"));
}

static const struct {
	const char *command;
	void (*read)(struct ctl_view *v, const struct jsonmsg *from);
} parts[] = {
	[CTL_STATUS] = {"status", read_status},
	[CTL_SHARERS] = {"sharers", read_sharers},
	[CTL_BLOCKS] = {"blocks", read_blocks},
	[CTL_STATS] = {"stats", read_stats},
	[CTL_BLOCKERS] = {"blockers", read_blockers},
	[CTL_HANDOVER] = {"handover", read_handover},
};
_Static_assert(ARRAY_LEN(parts) == CTL_PARTS, "every part has a command");

/**
 * ctl_view_command - the command that asks for a part of the view
 */
const char *ctl_view_command(enum ctl_part part)
{
	return parts[part].command;
}

/**
 * ctl_view_read - read the "return" of that command into its part of @v
 * @from: may be NULL, which reads as nothing there
 *
 * Texts are copied plain: they can be written to a terminal.
 */
void ctl_view_read(struct ctl_view *v, enum ctl_part part, const struct jsonmsg *from)
{
	parts[part].read(v, from);
}
