/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What `watch' shows: trouble before progress, progress before detail, because what does not fit is
 * cut at the end.  The page is composed as if there was room for all of it and then fitted, so no
 * part has to know how high the screen is.
 */
#include "config.h"
#include "tools/ctl_screen.h"
#include <inttypes.h>
#include <string.h>
#include "tools/ctl_format.h"
#include "tools/ctl_render.h"
#include "tools/ctl_table.h"

#define NAME_COLUMNS 20 /* of a block's name */
#define MIN_BAR	     10
#define MAX_BAR	     60

/* --- head --------------------------------------------------------------------------------- */

static void put_head(GString *out, const struct ctl_status *s, const struct ctl_rates *r)
{
	struct ctl_text state, eta;

	g_string_append(out, ctl_render_state(&state, s));
	if (r->eta_ns)
		g_string_append_printf(out, "  ETA %s", ctl_format_time(&eta, r->eta_ns));
	g_string_append(out, s->committed ? "  committed" : "  not committed");
	if (*s->source)
		g_string_append_printf(out, "  from %s", s->source);
	if (*s->machine)
		g_string_append_printf(out, "  %s", s->machine);
	g_string_append_c(out, '\n');
	if (s->ownership_unknown)
		g_string_append(out, "OWNERSHIP UNKNOWN: the source may run this VM again\n");
	if (*s->reason)
		g_string_append_printf(out, "%s\n", s->reason);
}

/* --- blocks ------------------------------------------------------------------------------- */

/* How many of the columns; rounded down, so that a full bar means all of it. */
static unsigned share(uint64_t part, uint64_t whole, unsigned columns)
{
	return whole ? (unsigned)((double)MIN(part, whole) * columns / (double)whole) : columns;
}

/* A page that is known to be zero needs no more than to be touched. */
static uint64_t here(const struct ctl_block *b)
{
	return b->present + b->zero;
}

/*
 * '#' present, '+' requested, '.' missing.  Whatever is requested shows, and a bar is full only
 * when the block is.
 */
static void put_bar(GString *out, const struct ctl_block *b, unsigned columns)
{
	unsigned asked = share(b->requested, b->pages, columns);
	unsigned full = share(here(b), b->pages, columns);

	if (b->requested && !asked && full < columns)
		asked = 1;
	asked = MIN(asked, columns - full);
	g_string_append_c(out, '[');
	for (unsigned i = 0; i < columns; i++)
		g_string_append_c(out, i < full ? '#' : i < full + asked ? '+' : '.');
	g_string_append_c(out, ']');
}

static void put_name(GString *out, const char *name, unsigned columns)
{
	unsigned used = 0;

	for (; *name && used < columns; name = g_utf8_next_char(name)) {
		unsigned width = g_unichar_iswide(g_utf8_get_char(name)) ? 2 : 1;

		if (used + width > columns)
			break;
		g_string_append_unichar(out, g_utf8_get_char(name));
		used += width;
	}
	for (; used < columns; used++)
		g_string_append_c(out, ' ');
}

static void put_block(GString *out, const struct ctl_block *b, unsigned bar)
{
	struct ctl_text percent, page;

	put_name(out, b->name, NAME_COLUMNS);
	g_string_append_c(out, ' ');
	put_bar(out, b, bar);
	g_string_append_printf(out, " %6s %10" PRIu64 " %10" PRIu64 " %8s\n",
			       ctl_format_percent(&percent, here(b), b->pages), here(b),
			       b->pages - MIN(here(b), b->pages),
			       ctl_format_bytes(&page, b->page_size));
}

static void put_blocks(GString *out, const struct ctl_view *v, unsigned bar)
{
	g_string_append_printf(out, "%-*s %-*s %6s %10s %10s %8s\n", NAME_COLUMNS, "BLOCK",
			       (int)bar + 2, "", "", "PRESENT", "MISSING", "PAGE");
	for (unsigned i = 0; i < v->n_blocks; i++)
		put_block(out, &v->block[i], bar);
}

/* --- lanes, faults, latency, blockers ----------------------------------------------------- */

static void put_lanes(GString *out, const struct ctl_stats *s, const struct ctl_rates *r)
{
	struct ctl_table t cleanup_ctl_table;

	ctl_table_init(
		&t,
		"LANE\t>MB/s\t>PAGES/s\t>RECEIVED\t>COPY\t>ZERO\t>ALREADY\t>NOTED\t>DUPLICATES");
	for (unsigned i = 0; i < LANE_COUNT; i++) {
		const struct ctl_lane *lane = &s->lane[i];
		struct ctl_text pages;

		ctl_table_row(&t);
		ctl_table_text(&t, stats_lane_names[i]);
		ctl_table_printf(&t, "%.1f", r->bytes[i] / 1e6);
		ctl_table_text(&t, ctl_format_rate(&pages, r->pages[i]));
		ctl_table_bytes(&t, lane->bytes);
		ctl_table_counts(&t, lane->pages, HOW_COUNT);
		CTL_TABLE_COUNTS(&t, lane->duplicates);
	}
	ctl_table_print(&t, out);
}

static void put_faults(GString *out, const struct ctl_view *v, const struct ctl_rates *r)
{
	const struct ctl_status *s = &v->status;
	struct ctl_text rate;

	g_string_append_printf(out,
			       "faults %" PRIu64 " (%s/s)  in flight %" PRIu64
			       "  requested %" PRIu64 "  owed %" PRIu64 " of %" PRIu64,
			       v->stats.total.faults, ctl_format_rate(&rate, r->faults),
			       s->faults_in_flight, s->requests_in_flight, s->owed_left, s->owed);
	if (v->stats.alarms)
		g_string_append_printf(out, "  INTEGRITY ALARMS %" PRIu64, v->stats.alarms);
	g_string_append_c(out, '\n');
}

/* Whoever is not served, and whatever the session waits for, with its reason. */
static void put_trouble(GString *out, const struct ctl_view *v)
{
	for (unsigned i = 0; i < v->n_sharers; i++) {
		const struct ctl_sharer *s = &v->sharer[i];

		if (*s->reason)
			g_string_append_printf(out, "sharer %s is %s: %s\n", s->name, s->state,
					       s->reason);
	}
	for (unsigned i = 0; i < v->n_blockers; i++) {
		const struct ctl_blocker *b = &v->blocker[i];
		struct ctl_text t;

		g_string_append_printf(
			out, "%s blocks %s for %s: %s\n", b->name, b->step,
			ctl_format_time(&t, ctl_render_age(v->status.now_ns, b->since_ns)),
			b->text);
	}
}

/* --- fitting it in ------------------------------------------------------------------------ */

/* How many bytes of a line fit, whole characters only. */
static size_t fitting_bytes(const char *line, size_t len, unsigned columns)
{
	const char *at = line;
	unsigned used = 0;

	while (at < line + len) {
		gunichar c = g_utf8_get_char(at);

		used += g_unichar_iszerowidth(c) ? 0 : g_unichar_iswide(c) ? 2 : 1;
		if (used > columns)
			break;
		at = g_utf8_next_char(at);
	}
	return (size_t)(at - line);
}

/* Cut what is too wide, and leave out the end when there are too many lines. */
static void put_fitting(GString *out, const char *text, const struct ctl_size *size)
{
	unsigned rows = size->rows ? size->rows : G_MAXUINT;

	for (const char *nl; rows && (nl = strchr(text, '\n')); text = nl + 1, rows--) {
		g_string_append_len(
			out, text, (gssize)fitting_bytes(text, (size_t)(nl - text), size->columns));
		g_string_append_c(out, '\n');
	}
}

static unsigned bar_columns(unsigned columns)
{
	const unsigned others =
		NAME_COLUMNS + sizeof(" [] 100.0% 1234567890 1234567890    4 KiB") - 1;

	return columns > others ? CLAMP(columns - others, MIN_BAR, MAX_BAR) : MIN_BAR;
}

/**
 * ctl_screen_page - the whole picture
 * @size: at most so many lines of so many columns; rows 0: as long as it takes
 */
void ctl_screen_page(GString *out, const struct ctl_view *v, const struct ctl_rates *r,
		     const struct ctl_size *size)
{
	g_autoptr(GString) page = g_string_new(NULL);

	put_head(page, &v->status, r);
	put_trouble(page, v);
	g_string_append_c(page, '\n');
	put_blocks(page, v, bar_columns(size->columns));
	g_string_append_c(page, '\n');
	put_faults(page, v, r);
	g_string_append_c(page, '\n');
	put_lanes(page, &v->stats, r);
	g_string_append_c(page, '\n');
	ctl_render_latency(page, v);
	put_fitting(out, page->str, size);
}

/* --- one line ----------------------------------------------------------------------------- */

static void put_line_lanes(GString *out, const struct ctl_rates *r)
{
	for (unsigned i = 0; i < LANE_COUNT; i++) {
		struct ctl_text pages;

		if (r->pages[i] > 0 || r->bytes[i] > 0)
			g_string_append_printf(out, "  %s %.1f MB/s %s pages/s",
					       stats_lane_names[i], r->bytes[i] / 1e6,
					       ctl_format_rate(&pages, r->pages[i]));
	}
}

static void put_line_latency(GString *out, const struct ctl_latency *l)
{
	struct ctl_text p50, p90, p99, max;

	if (l->count)
		g_string_append_printf(
			out, "  latency p50 %s p90 %s p99 %s max %s",
			ctl_format_time(&p50, l->p50_ns), ctl_format_time(&p90, l->p90_ns),
			ctl_format_time(&p99, l->p99_ns), ctl_format_time(&max, l->max_ns));
}

static void put_line_blockers(GString *out, const struct ctl_view *v)
{
	for (unsigned i = 0; i < v->n_blockers; i++)
		g_string_append_printf(out, "%s%s", i ? "," : "  blocked by ", v->blocker[i].name);
}

/**
 * ctl_screen_line - the same in one line, for logs and pipes
 */
void ctl_screen_line(GString *out, const struct ctl_view *v, const struct ctl_rates *r)
{
	const struct ctl_status *s = &v->status;
	uint64_t present = 0, pages = 0;
	struct ctl_text state, percent, rate, eta;

	for (unsigned i = 0; i < v->n_blocks; i++) {
		present += here(&v->block[i]) * v->block[i].page_size;
		pages += v->block[i].pages * v->block[i].page_size;
	}
	g_string_append_printf(out, "%s  present %s  owed %" PRIu64 " of %" PRIu64,
			       ctl_render_state(&state, s),
			       ctl_format_percent(&percent, present, pages), s->owed_left, s->owed);
	put_line_lanes(out, r);
	g_string_append_printf(out, "  faults %" PRIu64 " (%s/s) in flight %" PRIu64,
			       v->stats.total.faults, ctl_format_rate(&rate, r->faults),
			       s->faults_in_flight);
	put_line_latency(out, &v->stats.total.latency[STAGE_TOTAL]);
	if (r->eta_ns)
		g_string_append_printf(out, "  ETA %s", ctl_format_time(&eta, r->eta_ns));
	put_line_blockers(out, v);
	if (*s->reason)
		g_string_append_printf(out, "  %s", s->reason);
	g_string_append_c(out, '\n');
}
