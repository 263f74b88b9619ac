/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What postcopyctl makes of a hand-over: where it is, what it waits for, how it came there (F65).
 */
#include "config.h"
#include "tools/ctl_render.h"
#include <string.h>
#include <criterion/criterion.h>

static void read_part(struct ctl_view *v, const char *text)
{
	const char *why = NULL;
	struct jsonmsg *from cleanup_jsonmsg = NULL;

	cr_assert_eq(jsonmsg_parse(&from, text, strlen(text), &why), 0, "%s", why);
	ctl_view_read(v, CTL_HANDOVER, from);
}

static void expect(const char *text, const char *part)
{
	cr_assert(strstr(text, part), "no '%s' in:\n%s", part, text);
}

Test(ctl_handover, text)
{
	g_autofree struct ctl_view *v = g_new0(struct ctl_view, 1);
	g_autoptr(GString) out = g_string_new(NULL), failed = g_string_new(NULL);

	read_part(
		v,
		"{\"now_ns\":5000000000,\"phase\":\"loading\",\"since_ns\":3000000000,\"waits_for\":\"QEMU to load\","
		"\"deadline_ns\":null,\"deadline_reason\":\"it is ours\",\"error\":null,\"advice\":null,\"not_continued\":null,"
		"\"qemu\":{\"attempt\":2,\"pid\":77,\"version\":\"10.0.2\",\"status\":\"inmigrate\",\"ran_at_source\":\"running\","
		"\"stream_bytes\":2048},\"blocks\":[{\"name\":\"pc.ram\",\"class\":\"shared\",\"why\":null},"
		"{\"name\":\"pc.bios\",\"class\":\"in-stream\",\"why\":\"small\"}],"
		"\"timeline\":[{\"phase\":\"wait-qmp\",\"at_ns\":1000000000},{\"phase\":\"loading\",\"at_ns\":3000000000}]}");
	ctl_render_handover(out, v);
	cr_assert_str_eq(out->str, "phase          loading for 2.0 s\n"
				   "waits for      QEMU to load\n"
				   "no limit       it is ours\n"
				   "QEMU           10.0.2, process 77, inmigrate\n"
				   "attempt        2\n"
				   "at the source  running\n"
				   "stream         2 KiB\n"
				   "\n"
				   "BLOCK    CLASS      BECAUSE\n"
				   "pc.ram   shared\n"
				   "pc.bios  in-stream  small\n"
				   "\n"
				   "PHASE        AT   TOOK\n"
				   "wait-qmp      -  2.0 s\n"
				   "loading   2.0 s  2.0 s\n");
	read_part(
		v,
		"{\"now_ns\":5000000000,\"phase\":\"retry\",\"since_ns\":4000000000,\"waits_for\":\"the monitor\","
		"\"deadline_ns\":9000000000,\"deadline_reason\":\"retry=\",\"error\":\"QEMU is lost\",\"advice\":\"start it\","
		"\"qemu\":{\"pid\":null}}");
	ctl_render_handover(failed, v);
	expect(failed->str, "gives up    in 4.0 s (retry=)\n");
	expect(failed->str, "error       QEMU is lost\n");
	expect(failed->str, "what to do  start it\n");
	cr_assert(!strstr(failed->str, "QEMU  "), "%s", failed->str);
}
