/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"
#include "tools/ctl_render.h"
#include <string.h>
#include "core/guard.h"
#include "tools/ctl_format.h"

/* Rows of a table under construction; put_table() prints and forgets them. */
G_GNUC_PRINTF(2, 3)
static void add_row(GPtrArray *rows, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	g_ptr_array_add(rows, g_strdup_vprintf(fmt, ap));
	va_end(ap);
}

static GPtrArray *begin_table(void)
{
	return g_ptr_array_new_with_free_func(g_free);
}

static void put_table(GString *out, GPtrArray *rows)
{
	g_ptr_array_add(rows, NULL);
	ctl_format_table(out, (char **)rows->pdata);
	g_ptr_array_set_size(rows, 0);
}

uint64_t ctl_render_age(uint64_t now, uint64_t since)
{
	return since && now > since ? now - since : 0;
}

/* --- status ------------------------------------------------------------------------------- */

const char *ctl_render_state(struct ctl_text *buf, const struct ctl_status *s)
{
	uint64_t age = ctl_render_age(s->now_ns, s->state_since_ns);
	struct ctl_text t;

	g_snprintf(buf->s, sizeof(buf->s), age ? "%s for %s" : "%s", s->state, ctl_format_time(&t, age));
	return buf->s;
}

static void add_moment(GPtrArray *rows, const char *name, uint64_t now, uint64_t when)
{
	struct ctl_text t;

	if (when)
		add_row(rows, "%s\t%s ago", name, ctl_format_time(&t, ctl_render_age(now, when)));
}

static void add_times(GPtrArray *rows, const struct ctl_status *s)
{
	const struct {
		const char *name;
		uint64_t when;
	} moments[] = {
		{"connected", s->started_ns}, {"switch-over", s->switchover_ns}, {"listening", s->listening_ns},
		{"first fault", s->first_fault_ns}, {"first served", s->first_served_ns},
		{"running", s->running_ns}, {"complete", s->complete_ns},
	};

	for (size_t i = 0; i < ARRAY_LEN(moments); i++)
		add_moment(rows, moments[i].name, s->now_ns, moments[i].when);
}

static const char *ownership(const struct ctl_status *s)
{
	if (s->ownership_unknown)
		return "unknown: the source may run the VM again; decide before it runs here";
	if (s->committed)
		return "here (committed)";
	return s->started_ns ? "at the source (not committed)" : "none yet";
}

void ctl_render_status(GString *out, const struct ctl_view *v)
{
	g_autoptr(GPtrArray) rows = begin_table();
	const struct ctl_status *s = &v->status;
	struct ctl_text a, b;

	add_row(rows, "state\t%s", ctl_render_state(&a, s));
	if (*s->reason)
		add_row(rows, "reason\t%s", s->reason);
	add_row(rows, "source\t%s%s%s", *s->source ? s->source : "not connected", *s->machine ? ", machine " : "",
		s->machine);
	add_row(rows, "VM\t%s", ownership(s));
	add_row(rows, "lanes\t%s", s->urgent_lane ? "main and urgent" : "main");
	add_times(rows, s);
	add_row(rows, "owed\t%" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT " pages left", s->owed_left, s->owed);
	add_row(rows, "in flight\t%" G_GUINT64_FORMAT " faults, %" G_GUINT64_FORMAT " requested pages",
		s->faults_in_flight, s->requests_in_flight);
	add_row(rows, "package\t%s, device state %s", ctl_format_bytes(&a, s->package_bytes),
		ctl_format_bytes(&b, s->package_device_bytes));
	add_row(rows, "extra memory\t%s", ctl_format_bytes(&a, s->store_bytes));
	add_row(rows, "blocks\t%" G_GUINT64_FORMAT, s->n_blocks);
	add_row(rows, "sharers\t%" G_GUINT64_FORMAT, s->n_sharers);
	put_table(out, rows);
}

/* --- sharers ------------------------------------------------------------------------------ */

static void add_sharer(GPtrArray *rows, const struct ctl_sharer *s, uint64_t now)
{
	struct ctl_text age, mapped, oldest;

	add_row(rows, "%" G_GUINT64_FORMAT ".%" G_GUINT64_FORMAT "\t%s\t%" G_GINT64_FORMAT "\t%s\t%s\t%s\t%s\t%"
		G_GUINT64_FORMAT "\t%s\t%" G_GUINT64_FORMAT "\t%s\t%s", s->id, s->generation, s->name, s->pid,
		s->main ? "main" : "sharer", s->policy, s->state,
		ctl_format_time(&age, ctl_render_age(now, s->state_since_ns)), s->mappings,
		ctl_format_bytes(&mapped, s->mapped_bytes), s->waiting, ctl_format_time(&oldest, s->oldest_wait_ns),
		s->reason);
}

void ctl_render_sharers(GString *out, const struct ctl_view *v)
{
	g_autoptr(GPtrArray) rows = begin_table();

	add_row(rows, ">ID\tNAME\t>PID\tROLE\tPOLICY\tSTATE\t>FOR\t>MAPPINGS\t>BYTES\t>WAITING\t>OLDEST\tREASON");
	for (unsigned i = 0; i < v->n_sharers; i++)
		add_sharer(rows, &v->sharer[i], v->status.now_ns);
	put_table(out, rows);
}

/* --- blocks ------------------------------------------------------------------------------- */

static void add_block(GPtrArray *rows, const struct ctl_block *b)
{
	struct ctl_text length, page, percent;

	add_row(rows, "%s\t%s\t%" G_GUINT64_FORMAT "\t%s\t%s\t%" G_GUINT64_FORMAT "\t%" G_GUINT64_FORMAT "\t%s\t%"
		G_GUINT64_FORMAT "\t%" G_GUINT64_FORMAT "\t%" G_GUINT64_FORMAT "\t%" G_GUINT64_FORMAT "\t%"
		G_GUINT64_FORMAT, b->name, b->kind, b->sharers, ctl_format_bytes(&length, b->length),
		ctl_format_bytes(&page, b->page_size), b->owed, b->present,
		ctl_format_percent(&percent, b->present, b->pages), b->missing, b->requested, b->stored, b->zero,
		b->lost);
}

void ctl_render_blocks(GString *out, const struct ctl_view *v)
{
	g_autoptr(GPtrArray) rows = begin_table();

	add_row(rows, "BLOCK\tKIND\t>SHARERS\t>LENGTH\t>PAGE\t>OWED\t>PRESENT\t>%%\t>MISSING\t>REQUESTED\t>STORED\t>ZERO"
		      "\t>LOST");
	for (unsigned i = 0; i < v->n_blocks; i++)
		add_block(rows, &v->block[i]);
	put_table(out, rows);
}

/* --- stats -------------------------------------------------------------------------------- */

static void add_latency(GPtrArray *rows, const char *who, const char *stage, const struct ctl_latency *l)
{
	struct ctl_text mean, p50, p90, p99, max;

	add_row(rows, "%s\t%s\t%" G_GUINT64_FORMAT "\t%s\t%s\t%s\t%s\t%s", who, stage, l->count,
		ctl_format_time(&mean, l->mean_ns), ctl_format_time(&p50, l->p50_ns), ctl_format_time(&p90, l->p90_ns),
		ctl_format_time(&p99, l->p99_ns), ctl_format_time(&max, l->max_ns));
}

#define LATENCY_HEAD "LATENCY\tSTAGE\t>FAULTS\t>MEAN\t>P50\t>P90\t>P99\t>MAX"

void ctl_render_latency(GString *out, const struct ctl_view *v)
{
	g_autoptr(GPtrArray) rows = begin_table();

	add_row(rows, LATENCY_HEAD);
	add_latency(rows, "all", stats_stage_names[STAGE_TOTAL], &v->stats.total.latency[STAGE_TOTAL]);
	for (unsigned i = 0; i < v->stats.n_sharers; i++)
		add_latency(rows, v->stats.sharer[i].name, stats_stage_names[STAGE_TOTAL],
			    &v->stats.sharer[i].latency[STAGE_TOTAL]);
	put_table(out, rows);
}

static void add_stages(GPtrArray *rows, const char *who, const struct ctl_sharer_stats *s)
{
	for (unsigned i = 0; i < STAGE_COUNT; i++)
		add_latency(rows, i ? "" : who, stats_stage_names[i], &s->latency[i]);
}

static void add_faults(GPtrArray *rows, const char *who, const struct ctl_sharer_stats *s)
{
	struct ctl_text blocked, threads;

	add_row(rows, "%s\t%" G_GUINT64_FORMAT "\t%" G_GUINT64_FORMAT "\t%" G_GUINT64_FORMAT "\t%" G_GUINT64_FORMAT "\t%"
		G_GUINT64_FORMAT "\t%" G_GUINT64_FORMAT "\t%" G_GUINT64_FORMAT "\t%" G_GUINT64_FORMAT "\t%"
		G_GUINT64_FORMAT "\t%s\t%s", who, s->faults, s->reads, s->writes, s->duplicates, s->refaults,
		s->present, s->requests, s->wakes, s->spurious, ctl_format_time(&blocked, s->blocked_ns),
		ctl_format_time(&threads, s->blocked_threads_ns));
}

static void add_lane(GPtrArray *rows, const char *name, const struct ctl_lane *lane)
{
	struct ctl_text bytes;

	add_row(rows, "%s\t%s\t%" G_GUINT64_FORMAT "\t%" G_GUINT64_FORMAT "\t%" G_GUINT64_FORMAT "\t%" G_GUINT64_FORMAT
		"\t%" G_GUINT64_FORMAT, name, ctl_format_bytes(&bytes, lane->bytes), lane->pages[HOW_COPY],
		lane->pages[HOW_ZERO], lane->pages[HOW_ALREADY], lane->duplicates, lane->batches);
}

static void put_counters(GString *out, const struct ctl_stats *s)
{
	g_autoptr(GPtrArray) rows = begin_table();
	const struct {
		const char *name;
		uint64_t value;
	} counters[] = {
		{"requests sent", s->requests}, {"pages requested", s->requested_pages},
		{"requested again", s->rerequested}, {"return path bytes", s->return_bytes},
		{"placements retried", s->again}, {"placed through another", s->place_fallbacks},
		{"integrity alarms", s->alarms}, {"ring system calls", s->ring_syscalls},
		{"other system calls", s->other_syscalls},
	};

	for (size_t i = 0; i < ARRAY_LEN(counters); i++)
		add_row(rows, "%s\t%" G_GUINT64_FORMAT, counters[i].name, counters[i].value);
	put_table(out, rows);
}

void ctl_render_stats(GString *out, const struct ctl_view *v)
{
	g_autoptr(GPtrArray) rows = begin_table();
	const struct ctl_stats *s = &v->stats;

	add_row(rows, "FAULTS\t>ALL\t>READS\t>WRITES\t>DUPLICATES\t>REFAULTS\t>PRESENT\t>REQUESTS\t>WAKES\t>SPURIOUS"
		      "\t>BLOCKED\t>THREADS");
	add_faults(rows, "all", &s->total);
	for (unsigned i = 0; i < s->n_sharers; i++)
		add_faults(rows, s->sharer[i].name, &s->sharer[i]);
	put_table(out, rows);
	g_string_append_c(out, '\n');
	add_row(rows, LATENCY_HEAD);
	add_stages(rows, "all", &s->total);
	for (unsigned i = 0; i < s->n_sharers; i++)
		add_stages(rows, s->sharer[i].name, &s->sharer[i]);
	put_table(out, rows);
	g_string_append_c(out, '\n');
	add_row(rows, "LANE\t>RECEIVED\t>COPY\t>ZERO\t>ALREADY\t>DUPLICATES\t>BATCHES");
	for (unsigned i = 0; i < LANE_COUNT; i++)
		add_lane(rows, stats_lane_names[i], &s->lane[i]);
	put_table(out, rows);
	g_string_append_c(out, '\n');
	put_counters(out, s);
}

/* --- blockers ----------------------------------------------------------------------------- */

void ctl_render_blockers(GString *out, const struct ctl_view *v)
{
	g_autoptr(GPtrArray) rows = begin_table();

	if (v->n_blockers == 0) {
		g_string_append(out, "nothing blocks\n");
		return;
	}
	add_row(rows, "BLOCKER\tBLOCKS\t>FOR\tBECAUSE");
	for (unsigned i = 0; i < v->n_blockers; i++) {
		const struct ctl_blocker *b = &v->blocker[i];
		struct ctl_text t;

		add_row(rows, "%s\t%s\t%s\t%s", b->name, b->step,
			ctl_format_time(&t, ctl_render_age(v->status.now_ns, b->since_ns)), b->text);
	}
	put_table(out, rows);
}
