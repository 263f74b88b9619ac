/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Names and order of the members are an interface (postcopyd-control(7)), so they stand in tables:
 * a counter gets into a report by one row.  Members are only ever added.  Times are nanoseconds of
 * CLOCK_MONOTONIC beside a now_ns, so that a reader needs no clock of ours; what has not happened
 * yet is null, not 0.
 */
#include "config.h"
#include "daemon/report.h"
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include "core/guard.h"
#include "core/stats.h"
#include "wire/regmsg.h"

/* A uint64_t of some struct under the name it has in JSON. */
struct count {
	const char *name;
	size_t at;
};

static void put_counts(struct jsonmsg_writer *w, const struct count *counts, size_t n,
		       const void *base)
{
	for (size_t i = 0; i < n; i++)
		jsonmsg_put_u64(w, counts[i].name,
				*(const uint64_t *)((const char *)base + counts[i].at));
}

/* A value that this build has no name for is reported as unknown, not left out. */
static const char *name_of(const char *const *names, size_t n, unsigned value)
{
	return value < n && names[value] ? names[value] : "unknown";
}
#define NAME_OF(names, value) name_of(names, ARRAY_LEN(names), (unsigned)(value))

/* 0 means "not yet" in a snapshot; JSON has null for it. */
static void put_moment(struct jsonmsg_writer *w, const char *key, uint64_t ns)
{
	if (ns)
		jsonmsg_put_u64(w, key, ns);
	else
		jsonmsg_put_value(w, key, NULL);
}

static void put_error(struct jsonmsg_writer *w, int error, const char *reason)
{
	if (!error && !*reason) {
		jsonmsg_put_value(w, "error", NULL);
		return;
	}
	jsonmsg_begin_object(w, "error");
	jsonmsg_put_i64(w, "errno", error);
	jsonmsg_put_text(w, "reason", reason);
	jsonmsg_end(w);
}

/* --- status ------------------------------------------------------------------------------- */

static void put_times(struct jsonmsg_writer *w, const struct snapshot *s)
{
	static const struct count times[] = {
		{"started_ns", offsetof(struct snapshot, started_ns)},
		{"switchover_ns", offsetof(struct snapshot, switchover_ns)},
		{"listening_ns", offsetof(struct snapshot, listening_ns)},
		{"first_fault_ns", offsetof(struct snapshot, first_fault_ns)},
		{"first_served_ns", offsetof(struct snapshot, first_served_ns)},
		{"running_ns", offsetof(struct snapshot, running_ns)},
		{"complete_ns", offsetof(struct snapshot, complete_ns)},
	};

	jsonmsg_begin_object(w, "times");
	for (size_t i = 0; i < ARRAY_LEN(times); i++)
		put_moment(w, times[i].name, *(const uint64_t *)((const char *)s + times[i].at));
	jsonmsg_end(w);
}

static void put_flags(struct jsonmsg_writer *w, const struct snapshot *s)
{
	jsonmsg_put_bool(w, "committed", s->committed);
	jsonmsg_put_bool(w, "commit_ping", s->commit_ping);
	jsonmsg_put_bool(w, "urgent_lane", s->urgent_lane);
	jsonmsg_put_bool(w, "ownership_unknown", s->ownership_unknown);
	jsonmsg_put_bool(w, "held", s->held);
	jsonmsg_put_bool(w, "running_told", s->running_told);
	jsonmsg_put_bool(w, "main_eof", s->main_eof);
	jsonmsg_put_bool(w, "shut_sent", s->shut_sent);
	jsonmsg_put_bool(w, "source_closed", s->source_closed);
}

static void put_package(struct jsonmsg_writer *w, const struct snapshot *s)
{
	jsonmsg_begin_object(w, "package");
	jsonmsg_put_u64(w, "bytes", s->package_bytes);
	jsonmsg_put_u64(w, "device_offset", s->package_device_offset);
	jsonmsg_put_u64(w, "device_bytes", s->package_device_bytes);
	jsonmsg_end(w);
}

static void put_tcp(struct jsonmsg_writer *w, const struct inetdiag *t)
{
	jsonmsg_put_u64(w, "rtt_us", t->rtt_us);
	jsonmsg_put_u64(w, "rttvar_us", t->rttvar_us);
	jsonmsg_put_u64(w, "retransmits", t->retransmits);
	jsonmsg_put_u64(w, "retrying", t->retrying);
	jsonmsg_put_u64(w, "unacked", t->unacked);
	jsonmsg_put_u64(w, "ack_age_ms", t->ack_age_ms);
	jsonmsg_put_u64(w, "data_age_ms", t->data_age_ms);
	jsonmsg_put_text(w, "congestion", inetdiag_congestion(t));
}

static void put_link(struct jsonmsg_writer *w, const struct snapshot_link *l)
{
	jsonmsg_begin_object(w, "link");
	jsonmsg_put_text(w, "path", !l->on ? NULL : l->up ? "up" : "down");
	if (l->on) {
		put_moment(w, "since_ns", l->since_ns);
		jsonmsg_put_text(w, "cause", *l->cause ? l->cause : NULL);
		jsonmsg_put_text(w, "interface", l->interface);
		jsonmsg_put_text(w, "local", l->local);
		jsonmsg_put_text(w, "peer", l->peer);
		jsonmsg_put_text(w, "via", *l->via ? l->via : NULL);
	}
	if (l->measured)
		put_tcp(w, &l->tcp);
	jsonmsg_end(w);
}

static void put_source_qmp(struct jsonmsg_writer *w, const struct snapshot_source_qmp *q)
{
	static const char *const steps[SOURCE_STEPS] = {
		[SOURCE_OFF] = "off",
		[SOURCE_CONNECTING] = "connecting",
		[SOURCE_LOOKING] = "looking",
		[SOURCE_WAITING] = "waiting",
		[SOURCE_PAUSING] = "pausing",
		[SOURCE_ASKED] = "asked",
		[SOURCE_REFUSES] = "refused",
		[SOURCE_RUNS] = "runs",
	};

	if (!*q->path) {
		jsonmsg_put_value(w, "source_qmp", NULL);
		return;
	}
	jsonmsg_begin_object(w, "source_qmp");
	jsonmsg_put_text(w, "socket", q->path);
	jsonmsg_put_text(w, "step", NAME_OF(steps, q->step));
	jsonmsg_put_u64(w, "tries", q->tries);
	jsonmsg_put_text(w, "text", q->text);
	jsonmsg_end(w);
}

static void put_device_channel(struct jsonmsg_writer *w, const struct snapshot_device_channel *c)
{
	if (!*c->address) {
		jsonmsg_put_value(w, "device_channel", NULL);
		return;
	}
	jsonmsg_begin_object(w, "device_channel");
	jsonmsg_put_text(w, "address", c->address);
	jsonmsg_put_text(w, "session", c->session);
	jsonmsg_put_text(w, "peer", *c->peer ? c->peer : NULL);
	jsonmsg_put_u64(w, "bytes", c->bytes);
	jsonmsg_put_u64(w, "connections", c->connections);
	jsonmsg_put_u64(w, "refused", c->refused);
	jsonmsg_put_text(w, "problem", *c->problem ? c->problem : NULL);
	jsonmsg_end(w);
}

static void put_faults(struct jsonmsg_writer *w, const struct snapshot_faults *f)
{
	if (!f->enabled) {
		jsonmsg_put_value(w, "faults", NULL);
		return;
	}
	jsonmsg_begin_object(w, "faults");
	jsonmsg_put_u64(w, "rules", f->rules);
	jsonmsg_put_u64(w, "fires", f->fires);
	jsonmsg_end(w);
}

static void put_loss(struct jsonmsg_writer *w, const struct snapshot_loss *l)
{
	jsonmsg_begin_object(w, "on_loss");
	jsonmsg_put_text(w, "policy", l->policy);
	jsonmsg_put_u64(w, "after_s", l->after_s);
	jsonmsg_put_text(w, "stage", l->stage);
	put_moment(w, "due_ns", l->due_ns);
	jsonmsg_put_text(w, "text", *l->text ? l->text : NULL);
	jsonmsg_end(w);
}

static void put_salvage(struct jsonmsg_writer *w, const struct snapshot_salvage *v)
{
	if (!v->stage) {
		jsonmsg_put_value(w, "salvage", NULL);
		return;
	}
	jsonmsg_begin_object(w, "salvage");
	jsonmsg_put_text(w, "dir", v->dir);
	jsonmsg_put_text(w, "stage", v->stage);
	jsonmsg_put_u64(w, "bytes_done", v->bytes_done);
	jsonmsg_put_u64(w, "bytes_total", v->bytes_total);
	jsonmsg_put_text(w, "text", *v->text ? v->text : NULL);
	jsonmsg_end(w);
}

static void put_device_state(struct jsonmsg_writer *w, const struct snapshot_device_state *d)
{
	static const struct count counts[] = {
		{"attempts", offsetof(struct snapshot_device_state, attempts)},
		{"segments", offsetof(struct snapshot_device_state, segments)},
		{"bytes", offsetof(struct snapshot_device_state, bytes)},
		{"rounds", offsetof(struct snapshot_device_state, rounds)},
		{"received", offsetof(struct snapshot_device_state, received)},
	};
	char digest[17];

	snprintf(digest, sizeof(digest), "%016" PRIx64, d->digest);
	jsonmsg_begin_object(w, NULL);
	jsonmsg_put_text(w, "id", d->id);
	jsonmsg_put_text(w, "compat", d->compat);
	jsonmsg_put_text(w, "kind", d->region ? "region" : "stream");
	jsonmsg_put_text(w, "state", d->complete ? "complete" : d->coming ? "coming" : "dropped");
	put_counts(w, counts, ARRAY_LEN(counts), d);
	jsonmsg_put_text(w, "digest", d->complete ? digest : NULL);
	jsonmsg_end(w);
}

static void put_device_states(struct jsonmsg_writer *w, const struct snapshot *s)
{
	jsonmsg_begin_array(w, "device_states");
	for (unsigned i = 0; i < s->n_device_states; i++)
		put_device_state(w, &s->device_state[i]);
	jsonmsg_end(w);
}

static void put_worker(struct jsonmsg_writer *w, const struct snapshot_worker *s)
{
	jsonmsg_begin_object(w, "worker");
	jsonmsg_put_u64(w, "pid", (uint64_t)s->pid);
	jsonmsg_put_text(w, "keeper", s->keeper);
	jsonmsg_put_u64(w, "generation", s->generation);
	jsonmsg_put_u64(w, "restarts", s->restarts);
	jsonmsg_put_text(w, "last", s->last);
	jsonmsg_put_text(w, "upgrade", *s->upgrade ? s->upgrade : NULL);
	jsonmsg_end(w);
}

static void put_recover(struct jsonmsg_writer *w, const struct snapshot *s)
{
	if (!*s->recover.address) {
		jsonmsg_put_value(w, "recover", NULL);
		return;
	}
	jsonmsg_begin_object(w, "recover");
	jsonmsg_put_bool(w, "listening", s->recover.listening);
	jsonmsg_put_text(w, "address", s->recover.address);
	put_moment(w, "since_ns", s->paused_ns);
	put_moment(w, "until_ns", s->recover.until_ns);
	jsonmsg_put_u64(w, "attempts", s->resumed);
	jsonmsg_put_text(w, "command", s->recover.command);
	jsonmsg_end(w);
}

/**
 * report_status - where the session stands, when it got there, what went wrong
 */
void report_status(struct jsonmsg_writer *w, const char *key, const struct snapshot *s)
{
	static const struct count counts[] = {
		{"owed_pages", offsetof(struct snapshot, owed)},
		{"owed_pages_left", offsetof(struct snapshot, owed_left)},
		{"faults_in_flight", offsetof(struct snapshot, faults_in_flight)},
		{"requests_in_flight", offsetof(struct snapshot, requests_in_flight)},
		{"store_bytes", offsetof(struct snapshot, store_bytes)},
		{"stray_pages", offsetof(struct snapshot, strays)},
		{"pool_waits", offsetof(struct snapshot, pool_waits)},
		{"recoveries", offsetof(struct snapshot, recoveries)},
	};

	jsonmsg_begin_object(w, key);
	jsonmsg_put_u64(w, "now_ns", s->now_ns);
	jsonmsg_put_text(w, "state", session_state_name(s->state));
	put_moment(w, "state_since_ns", s->state_ns);
	put_moment(w, "paused_since_ns", s->paused_ns);
	put_times(w, s);
	put_flags(w, s);
	put_error(w, s->error, s->reason);
	jsonmsg_put_text(w, "machine", s->machine);
	jsonmsg_put_text(w, "source", s->source);
	put_package(w, s);
	put_link(w, &s->link);
	put_source_qmp(w, &s->source_qmp);
	put_counts(w, counts, ARRAY_LEN(counts), s);
	put_recover(w, s);
	jsonmsg_put_u64(w, "blocks", s->n_blocks);
	jsonmsg_put_u64(w, "sharers", s->n_sharers);
	if (s->loss.policy)
		put_loss(w, &s->loss);
	put_salvage(w, &s->salvage);
	put_device_channel(w, &s->device_channel);
	put_faults(w, &s->faults);
	put_device_states(w, s);
	put_worker(w, &s->worker);
	jsonmsg_end(w);
}

/* --- sharers and blocks ------------------------------------------------------------------- */

static void put_sharer(struct jsonmsg_writer *w, const struct snapshot_sharer *s)
{
	static const char *const policies[] = {
		[REGMSG_POLICY_IGNORE] = "ignore",
		[REGMSG_POLICY_DISABLE] = "disable",
		[REGMSG_POLICY_FAIL] = "fail",
	};
	static const char *const states[] = {
		[SHARER_JOINING] = "joining",
		[SHARER_ACTIVE] = "active",
		[SHARER_DISABLED] = "disabled",
		[SHARER_LEFT] = "left",
		[SHARER_DEAD] = "dead",
	};
	static const struct count counts[] = {
		{"mappings", offsetof(struct snapshot_sharer, mappings)},
		{"mapped_bytes", offsetof(struct snapshot_sharer, mapped_bytes)},
		{"waiting", offsetof(struct snapshot_sharer, waiting)},
		{"oldest_wait_ns", offsetof(struct snapshot_sharer, oldest_wait_ns)},
	};

	jsonmsg_begin_object(w, NULL);
	jsonmsg_put_u64(w, "id", s->id);
	jsonmsg_put_u64(w, "generation", s->generation);
	jsonmsg_put_text(w, "name", s->name);
	jsonmsg_put_i64(w, "pid", s->pid);
	jsonmsg_put_bool(w, "main", s->main);
	jsonmsg_put_text(w, "policy", NAME_OF(policies, s->policy));
	jsonmsg_put_text(w, "state", NAME_OF(states, s->state));
	put_moment(w, "state_since_ns", s->state_ns);
	put_error(w, s->error, s->reason);
	put_counts(w, counts, ARRAY_LEN(counts), s);
	jsonmsg_end(w);
}

/**
 * report_sharers - who shares the memory, in what state, and how long its threads wait
 */
void report_sharers(struct jsonmsg_writer *w, const char *key, const struct snapshot *s)
{
	jsonmsg_begin_array(w, key);
	for (unsigned i = 0; i < s->n_sharers && i < SNAPSHOT_SHARERS; i++)
		put_sharer(w, &s->sharer[i]);
	jsonmsg_end(w);
}

static void put_block(struct jsonmsg_writer *w, const struct snapshot_block *b)
{
	static const char *const kinds[] = {
		[BLOCK_HELD] = "held",
		[BLOCK_SHARED] = "shared",
		[BLOCK_PRIVATE] = "private",
	};
	static const struct count counts[] = {
		{"length", offsetof(struct snapshot_block, length)},
		{"page_size", offsetof(struct snapshot_block, page_size)},
		{"pages", offsetof(struct snapshot_block, pages)},
		{"owed", offsetof(struct snapshot_block, owed)},
		{"present", offsetof(struct snapshot_block, present)},
		{"missing", offsetof(struct snapshot_block, missing)},
		{"requested", offsetof(struct snapshot_block, requested)},
		{"stored", offsetof(struct snapshot_block, stored)},
		{"zero", offsetof(struct snapshot_block, zero)},
		{"lost", offsetof(struct snapshot_block, lost)},
		{"unplaced", offsetof(struct snapshot_block, unplaced)},
	};

	jsonmsg_begin_object(w, NULL);
	jsonmsg_put_text(w, "name", b->name);
	jsonmsg_put_text(w, "kind", NAME_OF(kinds, b->kind));
	jsonmsg_put_u64(w, "sharers", b->sharers);
	put_counts(w, counts, ARRAY_LEN(counts), b);
	jsonmsg_end(w);
}

/**
 * report_blocks - the blocks and their pages by state
 */
void report_blocks(struct jsonmsg_writer *w, const char *key, const struct snapshot *s)
{
	jsonmsg_begin_array(w, key);
	for (unsigned i = 0; i < s->n_blocks && i < SNAPSHOT_BLOCKS; i++)
		put_block(w, &s->block[i]);
	jsonmsg_end(w);
}

/* --- stats -------------------------------------------------------------------------------- */

/* Percentiles are made here: buckets are ours, and may change. */
static void put_histogram(struct jsonmsg_writer *w, const char *key, const struct histogram *h)
{
	jsonmsg_begin_object(w, key);
	jsonmsg_put_u64(w, "count", h->count);
	jsonmsg_put_u64(w, "mean_ns", h->count ? h->sum / h->count : 0);
	jsonmsg_put_u64(w, "p50_ns", histogram_percentile(h, 500));
	jsonmsg_put_u64(w, "p90_ns", histogram_percentile(h, 900));
	jsonmsg_put_u64(w, "p99_ns", histogram_percentile(h, 990));
	jsonmsg_put_u64(w, "max_ns", h->max);
	jsonmsg_end(w);
}

/* Members of the object that is open. */
static void put_sharer_stats(struct jsonmsg_writer *w, const struct sharer_stats *s)
{
	static const struct count counts[] = {
		{"faults", offsetof(struct sharer_stats, faults)},
		{"reads", offsetof(struct sharer_stats, reads)},
		{"writes", offsetof(struct sharer_stats, writes)},
		{"duplicates", offsetof(struct sharer_stats, duplicates)},
		{"refaults", offsetof(struct sharer_stats, refaults)},
		{"present", offsetof(struct sharer_stats, present)},
		{"requests", offsetof(struct sharer_stats, requests)},
		{"wakes", offsetof(struct sharer_stats, wakes)},
		{"spurious", offsetof(struct sharer_stats, spurious)},
		{"blocked_ns", offsetof(struct sharer_stats, blocked_ns)},
		{"blocked_threads_ns", offsetof(struct sharer_stats, blocked_threads_ns)},
	};

	put_counts(w, counts, ARRAY_LEN(counts), s);
	jsonmsg_begin_object(w, "latency");
	for (unsigned i = 0; i < STAGE_COUNT; i++)
		put_histogram(w, stats_stage_names[i], &s->stage[i]);
	jsonmsg_end(w);
}

static void put_lane(struct jsonmsg_writer *w, const char *key, const struct lane_stats *lane)
{
	jsonmsg_begin_object(w, key);
	jsonmsg_put_u64(w, "bytes", lane->bytes);
	jsonmsg_begin_object(w, "pages");
	for (unsigned i = 0; i < HOW_COUNT; i++)
		jsonmsg_put_u64(w, stats_how_names[i], lane->pages[i]);
	jsonmsg_end(w);
	jsonmsg_put_u64(w, "duplicates", lane->duplicates);
	jsonmsg_put_u64(w, "batches", lane->batches);
	jsonmsg_end(w);
}

static void put_lanes(struct jsonmsg_writer *w, const struct stats *s)
{
	static const struct count counts[] = {
		{"requests", offsetof(struct stats, requests)},
		{"requested_pages", offsetof(struct stats, requested_pages)},
		{"rerequested", offsetof(struct stats, rerequested)},
		{"removed", offsetof(struct stats, removed)},
		{"alarms", offsetof(struct stats, alarms)},
		{"lost", offsetof(struct stats, lost)},
		{"again", offsetof(struct stats, again)},
		{"place_fallbacks", offsetof(struct stats, place_fallbacks)},
		{"return_bytes", offsetof(struct stats, return_bytes)},
	};

	jsonmsg_begin_object(w, "lanes");
	for (unsigned i = 0; i < LANE_COUNT; i++)
		put_lane(w, stats_lane_names[i], &s->lane[i]);
	jsonmsg_end(w);
	put_counts(w, counts, ARRAY_LEN(counts), s);
	jsonmsg_begin_object(w, "syscalls");
	jsonmsg_put_u64(w, "ring", s->ring_syscalls);
	jsonmsg_put_u64(w, "other", s->other_syscalls);
	jsonmsg_end(w);
}

/**
 * report_stats - counters and latencies, in total, by sharer and by lane
 */
void report_stats(struct jsonmsg_writer *w, const char *key, const struct snapshot *s)
{
	jsonmsg_begin_object(w, key);
	jsonmsg_put_u64(w, "now_ns", s->now_ns);
	jsonmsg_begin_object(w, "total");
	put_sharer_stats(w, &s->total);
	jsonmsg_end(w);
	jsonmsg_begin_array(w, "sharers");
	for (unsigned i = 0; i < s->n_sharers && i < SNAPSHOT_SHARERS; i++) {
		jsonmsg_begin_object(w, NULL);
		jsonmsg_put_u64(w, "id", s->sharer[i].id);
		jsonmsg_put_text(w, "name", s->sharer[i].name);
		put_sharer_stats(w, &s->sharer[i].stats);
		jsonmsg_end(w);
	}
	jsonmsg_end(w);
	put_lanes(w, &s->stats);
	jsonmsg_end(w);
}

/* --- blockers ----------------------------------------------------------------------------- */

/**
 * report_blockers - what stands in the way of the next step, since when, and what to do
 */
void report_blockers(struct jsonmsg_writer *w, const char *key, const struct control_blocker *b,
		     unsigned n)
{
	jsonmsg_begin_array(w, key);
	for (unsigned i = 0; i < n; i++) {
		jsonmsg_begin_object(w, NULL);
		jsonmsg_put_text(w, "name", b[i].name);
		jsonmsg_put_text(w, "step", b[i].step);
		jsonmsg_put_text(w, "text", b[i].text);
		put_moment(w, "since_ns", b[i].since_ns);
		jsonmsg_end(w);
	}
	jsonmsg_end(w);
}

/* --- events ------------------------------------------------------------------------------- */

/**
 * report_event - something happened, in which state, when
 */
void report_event(struct jsonmsg_writer *w, const char *name, const char *text,
		  const struct snapshot *s)
{
	gint64 now = g_get_real_time();

	jsonmsg_put_text(w, "event", name);
	jsonmsg_begin_object(w, "data");
	jsonmsg_put_text(w, "state", s ? session_state_name(s->state) : NULL);
	jsonmsg_put_text(w, "text", text);
	jsonmsg_end(w);
	jsonmsg_begin_object(w, "timestamp");
	jsonmsg_put_i64(w, "seconds", now / G_USEC_PER_SEC);
	jsonmsg_put_i64(w, "microseconds", now % G_USEC_PER_SEC);
	jsonmsg_end(w);
}
