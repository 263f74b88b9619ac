/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"
#include "tools/ctl_devices.h"
#include "tools/ctl_format.h"
#include "tools/ctl_table.h"

static void put_plain(struct ctl_table *t, const char *text)
{
	g_autofree char *plain = ctl_format_plain(text);

	ctl_table_text(t, plain);
}

/* Names and reasons come from others: they are made plain. */
static void put_gate(struct ctl_table *t, const struct jsonmsg *gate)
{
	int64_t eta = jsonmsg_i64(gate, "eta_ms", -1);

	if (!gate) {
		ctl_table_text(t, "-");
		ctl_table_text(t, "-");
		ctl_table_text(t, "-");
		return;
	}
	ctl_table_printf(t, "%" G_GUINT64_FORMAT "/%" G_GUINT64_FORMAT,
			 (guint64)jsonmsg_u64(gate, "mapped", 0),
			 (guint64)jsonmsg_u64(gate, "ranges", 0));
	ctl_table_printf(t, "%" G_GUINT64_FORMAT,
			 (guint64)jsonmsg_u64(gate, "pages_missing", 0));
	if (jsonmsg_bool(gate, "open", false) || eta < 0)
		ctl_table_text(t, "-");
	else
		ctl_table_time(t, (uint64_t)eta * 1000000);
}

static void put_device(struct ctl_table *t, const struct jsonmsg *d)
{
	const char *call = jsonmsg_text(d, "call", NULL);

	ctl_table_row(t);
	put_plain(t, jsonmsg_text(d, "id", "?"));
	put_plain(t, jsonmsg_text(d, "dma", "?"));
	put_plain(t, jsonmsg_text(d, "stage", "?"));
	ctl_table_time(t, jsonmsg_u64(d, "stage_ns", 0));
	put_plain(t, jsonmsg_text(d, "state", "-"));
	if (call)
		ctl_table_printf(t, "%s %.1f s", call,
				 (double)jsonmsg_u64(d, "call_ns", 0) / 1e9);
	else
		ctl_table_text(t, "-");
	ctl_table_printf(t, "%" G_GUINT64_FORMAT "/%" G_GUINT64_FORMAT,
			 (guint64)jsonmsg_u64(d, "loaded", 0), (guint64)jsonmsg_u64(d, "bytes", 0));
	ctl_table_printf(t, "%" G_GUINT64_FORMAT, (guint64)jsonmsg_u64(d, "segments", 0));
	put_gate(t, jsonmsg_member(d, "gate"));
	put_plain(t, jsonmsg_text(d, "reason", ""));
}

/**
 * ctl_devices_render - a table, a device in each row
 */
void ctl_devices_render(GString *out, const struct jsonmsg *devices)
{
	struct ctl_table t cleanup_ctl_table = { NULL };

	ctl_table_init(&t, "ID\tDMA\tSTAGE\t>FOR\tSTATE\tCALL\t>LOADED\t>SEGMENTS\t>MAPPED\t"
			   ">MISSING\t>ETA\tREASON");
	for (unsigned i = 0; i < jsonmsg_count(devices); i++)
		put_device(&t, jsonmsg_element(devices, i));
	ctl_table_print(&t, out);
}
