/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The hand-over for people: where it is and what it waits for, then how each block gets there, then
 * the way it came, each phase with the time it took.
 */
#include "config.h"
#include "tools/ctl_render.h"
#include <inttypes.h>
#include "tools/ctl_format.h"
#include "tools/ctl_table.h"

static void add_deadline(struct ctl_table *t, const struct ctl_handover *h)
{
	struct ctl_text left;

	if (h->deadline_ns)
		ctl_table_pair(t, "gives up", "in %s (%s)",
			       ctl_format_time(&left, ctl_render_age(h->deadline_ns, h->now_ns)),
			       h->deadline_reason);
	else if (*h->deadline_reason)
		ctl_table_pair(t, "no limit", "%s", h->deadline_reason);
}

static void add_qemu(struct ctl_table *t, const struct ctl_handover *h)
{
	if (h->pid)
		ctl_table_pair(t, "QEMU", "%s, process %" PRId64 ", %s",
			       *h->version ? h->version : "version unknown", h->pid,
			       *h->status ? h->status : "not asked yet");
	if (h->attempt > 1)
		ctl_table_pair(t, "attempt", "%" PRIu64, h->attempt);
	ctl_table_pair(t, "at the source", "%s", h->ran_at_source);
	ctl_table_pair(t, "not continued", "%s", h->not_continued);
}

static void put_state(GString *out, const struct ctl_handover *h)
{
	struct ctl_table t cleanup_ctl_table;
	struct ctl_text age, bytes;

	ctl_table_init(&t, NULL);
	ctl_table_pair(&t, "phase", "%s for %s", h->phase,
		       ctl_format_time(&age, ctl_render_age(h->now_ns, h->since_ns)));
	ctl_table_pair(&t, "waits for", "%s", h->waits_for);
	add_deadline(&t, h);
	ctl_table_pair(&t, "error", "%s", h->error);
	ctl_table_pair(&t, "what to do", "%s", h->advice);
	add_qemu(&t, h);
	if (h->stream_bytes)
		ctl_table_pair(&t, "stream", "%s", ctl_format_bytes(&bytes, h->stream_bytes));
	ctl_table_print(&t, out);
}

static void put_blocks(GString *out, const struct ctl_handover *h)
{
	struct ctl_table t cleanup_ctl_table = {NULL};

	if (h->n_blocks == 0)
		return;
	g_string_append_c(out, '\n');
	ctl_table_init(&t, "BLOCK\tCLASS\tBECAUSE");
	for (unsigned i = 0; i < h->n_blocks; i++) {
		ctl_table_row(&t);
		ctl_table_text(&t, h->block[i].name);
		ctl_table_text(&t, h->block[i].class);
		ctl_table_text(&t, h->block[i].why);
	}
	ctl_table_print(&t, out);
}

static void put_timeline(GString *out, const struct ctl_handover *h)
{
	struct ctl_table t cleanup_ctl_table;

	g_string_append_c(out, '\n');
	ctl_table_init(&t, "PHASE\t>AT\t>TOOK");
	for (unsigned i = 0; i < h->n_phases; i++) {
		uint64_t end = i + 1 < h->n_phases ? h->timeline[i + 1].at_ns : h->now_ns;

		ctl_table_row(&t);
		ctl_table_text(&t, h->timeline[i].name);
		ctl_table_time(&t, ctl_render_age(h->timeline[i].at_ns, h->timeline[0].at_ns));
		ctl_table_time(&t, ctl_render_age(end, h->timeline[i].at_ns));
	}
	ctl_table_print(&t, out);
}

void ctl_render_handover(GString *out, const struct ctl_view *v)
{
	put_state(out, &v->handover);
	put_blocks(out, &v->handover);
	put_timeline(out, &v->handover);
}
