/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One function per answer, all alike: a view in, text out.  They know nothing of sockets and JSON,
 * so a test feeds them a view and compares text.  Ages are computed from the daemon's own clock in
 * the same answer.
 */
#include "config.h"
#include "tools/ctl_render.h"
#include <inttypes.h>
#include "core/guard.h"
#include "tools/ctl_format.h"
#include "tools/ctl_table.h"

/**
 * ctl_render_age - time between two moments of the daemon's clock; 0 when @since is 0 or later
 */
uint64_t ctl_render_age(uint64_t now, uint64_t since)
{
	return since && now > since ? now - since : 0;
}

/* --- status ------------------------------------------------------------------------------- */

/**
 * ctl_render_state - "running for 12.3 s"; returns @buf->s
 */
const char *ctl_render_state(struct ctl_text *buf, const struct ctl_status *s)
{
	uint64_t age = ctl_render_age(s->now_ns, s->state_since_ns);
	struct ctl_text t;

	g_snprintf(buf->s, sizeof(buf->s), age ? "%s for %s" : "%s", s->state,
		   ctl_format_time(&t, age));
	return buf->s;
}

static void add_times(struct ctl_table *t, const struct ctl_status *s)
{
	const struct {
		const char *name;
		uint64_t when;
	} moments[] = {
		{"connected", s->started_ns},	      {"switch-over", s->switchover_ns},
		{"listening", s->listening_ns},	      {"first fault", s->first_fault_ns},
		{"first served", s->first_served_ns}, {"running", s->running_ns},
		{"complete", s->complete_ns},
	};

	for (size_t i = 0; i < ARRAY_LEN(moments); i++) {
		struct ctl_text age;

		if (!moments[i].when)
			continue;
		ctl_format_time(&age, ctl_render_age(s->now_ns, moments[i].when));
		ctl_table_pair(t, moments[i].name, "%s ago", age.s);
	}
}

/* The question an operator has first: where does this VM live? */
static const char *ownership(const struct ctl_status *s)
{
	if (s->ownership_unknown)
		return "unknown: the source may run the VM again; decide before it runs here";
	if (s->committed)
		return "here (committed)";
	return s->started_ns ? "at the source (not committed)" : "none yet";
}

static void add_numbers(struct ctl_table *t, const struct ctl_status *s)
{
	struct ctl_text a, b;

	ctl_table_pair(t, "owed", "%" PRIu64 " of %" PRIu64 " pages left", s->owed_left, s->owed);
	ctl_table_pair(t, "in flight", "%" PRIu64 " faults, %" PRIu64 " requested pages",
		 s->faults_in_flight, s->requests_in_flight);
	ctl_table_pair(t, "package", "%s, device state %s", ctl_format_bytes(&a, s->package_bytes),
		 ctl_format_bytes(&b, s->package_device_bytes));
	ctl_table_pair(t, "extra memory", "%s", ctl_format_bytes(&a, s->store_bytes));
	ctl_table_pair(t, "blocks", "%" PRIu64, s->n_blocks);
	ctl_table_pair(t, "sharers", "%" PRIu64, s->n_sharers);
}

static void add_device_state(struct ctl_table *t, const struct ctl_device_state *d)
{
	struct ctl_text bytes;

	ctl_table_pair(t, "device", "%s: %s (%s), %s in %" PRIu64 " segments, attempt %" PRIu64,
		       d->id, d->state, d->kind, ctl_format_bytes(&bytes, d->received), d->segments,
		       d->attempts);
}

static void add_devices(struct ctl_table *t, const struct ctl_status *s)
{
	struct ctl_text bytes;

	if (*s->channel) {
		ctl_table_pair(t, "device channel", "%s", s->channel);
		ctl_table_pair(t, "its session", "%s", s->channel_session);
		ctl_table_pair(t, "its sender", "%s, %s so far",
			       *s->channel_peer ? s->channel_peer : "none",
			       ctl_format_bytes(&bytes, s->channel_bytes));
		ctl_table_pair(t, "its last problem", "%s", s->channel_problem);
	}
	for (unsigned i = 0; i < s->n_device_states; i++)
		add_device_state(t, &s->device_state[i]);
}

static void add_link(struct ctl_table *t, const struct ctl_status *s)
{
	struct ctl_text age;

	if (*s->path) {
		ctl_format_time(&age, ctl_render_age(s->now_ns, s->path_since_ns));
		ctl_table_pair(t, "link", "%s for %s%s%s", s->path, age.s, *s->cause ? ": " : "",
			       s->cause);
		ctl_table_pair(t, "its way", "%s, from %s to %s%s%s", s->interface, s->local,
			       s->peer, *s->via ? " via " : "", s->via);
	}
	if (s->rtt_us)
		ctl_table_pair(t, "its round trip",
			       "%" PRIu64 " us, give or take %" PRIu64 " us; sent again %" PRIu64,
			       s->rtt_us, s->rttvar_us, s->retransmits);
	ctl_table_pair(t, "at the source", "%s", s->resume);
	ctl_table_pair(t, "its monitor", "%s", s->source_qmp_text);
}

void ctl_render_status(GString *out, const struct ctl_view *v)
{
	struct ctl_table t cleanup_ctl_table;
	const struct ctl_status *s = &v->status;
	struct ctl_text state;

	ctl_table_init(&t, NULL);
	ctl_table_pair(&t, "state", "%s", ctl_render_state(&state, s));
	ctl_table_pair(&t, "reason", "%s", s->reason);
	ctl_table_pair(&t, "source", "%s%s%s", *s->source ? s->source : "not connected",
		 *s->machine ? ", machine " : "", s->machine);
	ctl_table_pair(&t, "VM", "%s", ownership(s));
	ctl_table_pair(&t, "lanes", "%s", s->urgent_lane ? "main and urgent" : "main");
	add_link(&t, s);
	add_times(&t, s);
	add_numbers(&t, s);
	add_devices(&t, s);
	if (s->injects)
		ctl_table_pair(&t, "FAULTS", "are injected: %" PRIu64 " rules, fired %" PRIu64 " times",
			       s->fault_rules, s->fault_fires);
	ctl_table_print(&t, out);
}

/* --- sharers ------------------------------------------------------------------------------ */

static void add_sharer(struct ctl_table *t, const struct ctl_sharer *s, uint64_t now)
{
	ctl_table_row(t);
	ctl_table_printf(t, "%" PRIu64 ".%" PRIu64, s->id, s->generation);
	ctl_table_text(t, s->name);
	ctl_table_printf(t, "%" PRId64, s->pid);
	ctl_table_text(t, s->main ? "main" : "sharer");
	ctl_table_text(t, s->policy);
	ctl_table_text(t, s->state);
	ctl_table_time(t, ctl_render_age(now, s->state_since_ns));
	CTL_TABLE_COUNTS(t, s->mappings);
	ctl_table_bytes(t, s->mapped_bytes);
	CTL_TABLE_COUNTS(t, s->waiting);
	ctl_table_time(t, s->oldest_wait_ns);
	ctl_table_text(t, s->reason);
}

void ctl_render_sharers(GString *out, const struct ctl_view *v)
{
	struct ctl_table t cleanup_ctl_table;

	ctl_table_init(&t, ">ID\tNAME\t>PID\tROLE\tPOLICY\tSTATE\t>FOR\t>MAPPINGS\t>BYTES"
			   "\t>WAITING\t>OLDEST\tREASON");
	for (unsigned i = 0; i < v->n_sharers; i++)
		add_sharer(&t, &v->sharer[i], v->status.now_ns);
	ctl_table_print(&t, out);
}

/* --- blocks ------------------------------------------------------------------------------- */

static void add_block(struct ctl_table *t, const struct ctl_block *b)
{
	struct ctl_text percent;

	ctl_table_row(t);
	ctl_table_text(t, b->name);
	ctl_table_text(t, b->kind);
	CTL_TABLE_COUNTS(t, b->sharers);
	ctl_table_bytes(t, b->length);
	ctl_table_bytes(t, b->page_size);
	CTL_TABLE_COUNTS(t, b->owed, b->present);
	ctl_table_text(t, ctl_format_percent(&percent, b->present, b->pages));
	CTL_TABLE_COUNTS(t, b->missing, b->requested, b->stored, b->zero, b->lost,
			 b->unplaced);
}

void ctl_render_blocks(GString *out, const struct ctl_view *v)
{
	struct ctl_table t cleanup_ctl_table;

	ctl_table_init(&t, "BLOCK\tKIND\t>SHARERS\t>LENGTH\t>PAGE\t>OWED\t>PRESENT\t>%\t>MISSING"
			   "\t>REQUESTED\t>STORED\t>ZERO\t>LOST\t>UNPLACED");
	for (unsigned i = 0; i < v->n_blocks; i++)
		add_block(&t, &v->block[i]);
	ctl_table_print(&t, out);
}

/* --- stats -------------------------------------------------------------------------------- */

#define LATENCY_HEAD "LATENCY\tSTAGE\t>FAULTS\t>MEAN\t>P50\t>P90\t>P99\t>MAX"

static void add_latency(struct ctl_table *t, const char *who, const struct ctl_sharer_stats *s,
			enum stats_stage stage)
{
	const struct ctl_latency *l = &s->latency[stage];

	ctl_table_row(t);
	ctl_table_text(t, who);
	ctl_table_text(t, stats_stage_names[stage]);
	CTL_TABLE_COUNTS(t, l->count);
	ctl_table_time(t, l->mean_ns);
	ctl_table_time(t, l->p50_ns);
	ctl_table_time(t, l->p90_ns);
	ctl_table_time(t, l->p99_ns);
	ctl_table_time(t, l->max_ns);
}

/* Rows for everybody together, then for each sharer: @stages of them, the whole way first. */
static void put_latency(GString *out, const struct ctl_stats *s, unsigned stages)
{
	struct ctl_table t cleanup_ctl_table;

	ctl_table_init(&t, LATENCY_HEAD);
	for (unsigned i = 0; i < stages; i++)
		add_latency(&t, i ? "" : "all", &s->total, i);
	for (unsigned who = 0; who < s->n_sharers; who++)
		for (unsigned i = 0; i < stages; i++)
			add_latency(&t, i ? "" : s->sharer[who].name, &s->sharer[who], i);
	ctl_table_print(&t, out);
}

/**
 * ctl_render_latency - the whole way only: one row for all, one for each sharer
 */
void ctl_render_latency(GString *out, const struct ctl_view *v)
{
	_Static_assert(STAGE_TOTAL == 0, "the whole way is the first stage");

	put_latency(out, &v->stats, 1);
}

static void add_faults(struct ctl_table *t, const char *who, const struct ctl_sharer_stats *s)
{
	ctl_table_row(t);
	ctl_table_text(t, who);
	CTL_TABLE_COUNTS(t, s->faults, s->reads, s->writes, s->duplicates, s->refaults, s->present,
			 s->requests, s->wakes, s->spurious);
	ctl_table_time(t, s->blocked_ns);
	ctl_table_time(t, s->blocked_threads_ns);
}

static void put_faults(GString *out, const struct ctl_stats *s)
{
	struct ctl_table t cleanup_ctl_table;

	ctl_table_init(&t, "FAULTS\t>ALL\t>READS\t>WRITES\t>DUPLICATES\t>REFAULTS\t>PRESENT"
			   "\t>REQUESTS\t>WAKES\t>SPURIOUS\t>BLOCKED\t>THREADS");
	add_faults(&t, "all", &s->total);
	for (unsigned i = 0; i < s->n_sharers; i++)
		add_faults(&t, s->sharer[i].name, &s->sharer[i]);
	ctl_table_print(&t, out);
}

static void put_lanes(GString *out, const struct ctl_stats *s)
{
	struct ctl_table t cleanup_ctl_table;

	ctl_table_init(&t,
		       "LANE\t>RECEIVED\t>COPY\t>ZERO\t>ALREADY\t>NOTED\t>DUPLICATES\t>BATCHES");
	for (unsigned i = 0; i < LANE_COUNT; i++) {
		const struct ctl_lane *lane = &s->lane[i];

		ctl_table_row(&t);
		ctl_table_text(&t, stats_lane_names[i]);
		ctl_table_bytes(&t, lane->bytes);
		ctl_table_counts(&t, lane->pages, HOW_COUNT);
		CTL_TABLE_COUNTS(&t, lane->duplicates, lane->batches);
	}
	ctl_table_print(&t, out);
}

static void put_counters(GString *out, const struct ctl_stats *s)
{
	struct ctl_table t cleanup_ctl_table;
	const struct {
		const char *name;
		uint64_t value;
	} counters[] = {
		{"requests sent", s->requests},
		{"pages requested", s->requested_pages},
		{"requested again", s->rerequested},
		{"pages given back", s->removed},
		{"return path bytes", s->return_bytes},
		{"placements retried", s->again},
		{"placed through another", s->place_fallbacks},
		{"integrity alarms", s->alarms},
		{"lost pages", s->lost},
		{"ring system calls", s->ring_syscalls},
		{"other system calls", s->other_syscalls},
	};

	ctl_table_init(&t, NULL);
	for (size_t i = 0; i < ARRAY_LEN(counters); i++)
		ctl_table_pair(&t, counters[i].name, "%" PRIu64, counters[i].value);
	ctl_table_print(&t, out);
}

void ctl_render_stats(GString *out, const struct ctl_view *v)
{
	put_faults(out, &v->stats);
	g_string_append_c(out, '\n');
	put_latency(out, &v->stats, STAGE_COUNT);
	g_string_append_c(out, '\n');
	put_lanes(out, &v->stats);
	g_string_append_c(out, '\n');
	put_counters(out, &v->stats);
}

/* --- blockers ----------------------------------------------------------------------------- */

void ctl_render_blockers(GString *out, const struct ctl_view *v)
{
	struct ctl_table t cleanup_ctl_table = {NULL};

	if (v->n_blockers == 0) {
		g_string_append(out, "nothing blocks\n");
		return;
	}
	ctl_table_init(&t, "BLOCKER\tBLOCKS\t>FOR\tBECAUSE");
	for (unsigned i = 0; i < v->n_blockers; i++) {
		const struct ctl_blocker *b = &v->blocker[i];

		ctl_table_row(&t);
		ctl_table_text(&t, b->name);
		ctl_table_text(&t, b->step);
		ctl_table_time(&t, ctl_render_age(v->status.now_ns, b->since_ns));
		ctl_table_text(&t, b->text);
	}
	ctl_table_print(&t, out);
}
