/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What postcopyctl makes of a daemon's answers: the view, the rates and every text (F55, F64). */
#include "config.h"
#include "tools/ctl_format.h"
#include "tools/ctl_pace.h"
#include "tools/ctl_render.h"
#include "tools/ctl_screen.h"
#include "tools/ctl_table.h"
#include "tools/ctl_view.h"
#include <stdio.h>
#include <string.h>
#include <criterion/criterion.h>
#include "core/guard.h"

#define S 1000000000ull

static struct jsonmsg *json(const char *text)
{
	const char *why = NULL;
	struct jsonmsg *v;

	cr_assert_eq(jsonmsg_parse(&v, text, strlen(text), &why), 0, "%s", why);
	return v;
}

static struct ctl_view *new_view(void)
{
	return g_new0(struct ctl_view, 1);
}

static void read_part(struct ctl_view *v, enum ctl_part part, const char *text)
{
	struct jsonmsg *from cleanup_jsonmsg = json(text);

	ctl_view_read(v, part, from);
}

/* --- numbers ------------------------------------------------------------------------------ */

Test(ctl_format, bytes)
{
	static const struct {
		uint64_t v;
		const char *text;
	} rows[] = {
		{0, "0 B"},
		{1023, "1023 B"},
		{1024, "1 KiB"},
		{1025, "1.00 KiB"},
		{1536, "1.50 KiB"},
		{4096, "4 KiB"},
		{10240 + 102, "10.1 KiB"},
		{123456, "121 KiB"},
		{1048575, "1.00 MiB"},
		{2 << 20, "2 MiB"},
		{1ull << 30, "1 GiB"},
		{3ull << 40, "3 TiB"},
		{UINT64_MAX, "16 EiB"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct ctl_text t;

		cr_assert_str_eq(ctl_format_bytes(&t, rows[i].v), rows[i].text, "%s", t.s);
	}
}

Test(ctl_format, time)
{
	static const struct {
		uint64_t ns;
		const char *text;
	} rows[] = {
		{0, "-"},
		{1, "1 ns"},
		{999, "999 ns"},
		{1000, "1.00 us"},
		{12345, "12.3 us"},
		{999499, "999 us"},
		{999500, "1.00 ms"},
		{123 * S / 1000, "123 ms"},
		{999499999, "999 ms"},
		{999500000, "1.0 s"},
		{59 * S, "59.0 s"},
		{60 * S, "1m00s"},
		{3599 * S, "59m59s"},
		{3600 * S, "1h00m"},
		{100 * 3600 * S + 61 * S, "100h01m"},
		{UINT64_MAX, "5124095h34m"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct ctl_text t;

		cr_assert_str_eq(ctl_format_time(&t, rows[i].ns), rows[i].text, "%s", t.s);
	}
}

Test(ctl_format, rate_and_percent)
{
	struct ctl_text t;

	cr_assert_str_eq(ctl_format_rate(&t, 0), "0");
	cr_assert_str_eq(ctl_format_rate(&t, 999.4), "999");
	cr_assert_str_eq(ctl_format_rate(&t, 1000), "1.00k");
	cr_assert_str_eq(ctl_format_rate(&t, 12345), "12.3k");
	cr_assert_str_eq(ctl_format_rate(&t, 999600), "1.00M");
	cr_assert_str_eq(ctl_format_rate(&t, 3e15), "3000T");
	cr_assert_str_eq(ctl_format_percent(&t, 0, 0), "-");
	cr_assert_str_eq(ctl_format_percent(&t, 0, 5), "0.0%");
	cr_assert_str_eq(ctl_format_percent(&t, 999999, 1000000), "99.9%", "not all, so not 100");
	cr_assert_str_eq(ctl_format_percent(&t, 5, 5), "100.0%");
}

Test(ctl_table, columns_fit_their_cells)
{
	struct ctl_table t cleanup_ctl_table;
	g_autoptr(GString) out = g_string_new(NULL);

	ctl_table_init(&t, "NAME\t>N\tX");
	ctl_table_row(&t);
	ctl_table_text(&t, "a");
	CTL_TABLE_COUNTS(&t, 1);
	ctl_table_text(&t, "long");
	ctl_table_row(&t);
	ctl_table_text(&t, "\303\274\345\255\227");
	ctl_table_printf(&t, "%d", 12345);
	ctl_table_text(&t, "");
	ctl_table_row(&t);
	ctl_table_text(&t, ">b");
	ctl_table_row(&t);
	ctl_table_print(&t, out);
	cr_assert_str_eq(out->str, "NAME      N  X\n"
				   "a         1  long\n"
				   "\303\274\345\255\227   12345\n"
				   ">b\n"
				   "\n");
}

Test(ctl_table, without_a_head)
{
	struct ctl_table t cleanup_ctl_table;
	g_autoptr(GString) out = g_string_new(NULL);

	ctl_table_init(&t, NULL);
	ctl_table_row(&t);
	ctl_table_bytes(&t, 4096);
	ctl_table_time(&t, 1500);
	ctl_table_print(&t, out);
	cr_assert_str_eq(out->str, "4 KiB  1.50 us\n");
	ctl_table_clear(&t);
}

/* --- the view ----------------------------------------------------------------------------- */

Test(ctl_view, an_empty_answer_is_zero)
{
	g_autofree struct ctl_view *v = new_view(), *zero = new_view();

	for (int part = 0; part < CTL_PARTS; part++) {
		read_part(v, part, "{}");
		read_part(v, part, "[]");
		read_part(v, part, "null");
		ctl_view_read(v, part, NULL);
	}
	cr_assert_eq(memcmp(v, zero, sizeof(*v)), 0);
}

Test(ctl_view, answers_of_the_wrong_kind_are_zero)
{
	g_autofree struct ctl_view *v = new_view();

	read_part(v, CTL_STATUS,
		  "{\"state\":7,\"now_ns\":\"x\",\"times\":[],\"error\":3,\"committed\":1}");
	read_part(v, CTL_BLOCKS, "[1,[],{\"name\":[],\"pages\":-5}]");
	read_part(v, CTL_STATS,
		  "{\"sharers\":{},\"lanes\":[],\"total\":{\"latency\":{\"total\":9}}}");
	cr_assert_str_eq(v->status.state, "");
	cr_assert_not(v->status.committed);
	cr_assert_eq(v->n_blocks, 3);
	cr_assert_eq(v->block[2].pages, 0);
	cr_assert_eq(v->stats.n_sharers, 0);
}

/* A sharer's name could otherwise write anywhere on the operator's screen. */
Test(ctl_view, texts_cannot_command_the_terminal)
{
	g_autofree struct ctl_view *v = new_view();

	read_part(v, CTL_SHARERS,
		  "[{\"name\":\"a\\u001b[2Jb\\tc\\nd\\u007f\\u009b1m\\u202ee\\u00fc\",\"error\":{"
		  "\"reason\":\"\\r\\u0007x\"}}]");
	cr_assert_str_eq(v->sharer[0].name, "a?[2Jb?c?d??1m?e\303\274");
	cr_assert_str_eq(v->sharer[0].reason, "??x");
}

Test(ctl_view, long_texts_are_cut_between_characters)
{
	g_autofree struct ctl_view *v = new_view();
	g_autoptr(GString) text = g_string_new("[{\"name\":\"");

	for (int i = 0; i < 100; i++)
		g_string_append(text, "\342\202\254");
	g_string_append(text, "\"}]");
	read_part(v, CTL_SHARERS, text->str);
	cr_assert_eq(strlen(v->sharer[0].name), 63);
	cr_assert(g_utf8_validate(v->sharer[0].name, -1, NULL));
}

Test(ctl_view, too_many_rows_are_left_out)
{
	g_autofree struct ctl_view *v = new_view();
	g_autoptr(GString) text = g_string_new("[{}");

	for (int i = 0; i < 300; i++)
		g_string_append(text, ",{}");
	g_string_append_c(text, ']');
	read_part(v, CTL_BLOCKS, text->str);
	read_part(v, CTL_SHARERS, text->str);
	read_part(v, CTL_BLOCKERS, text->str);
	cr_assert_eq(v->n_blocks, CTL_VIEW_BLOCKS);
	cr_assert_eq(v->n_sharers, CTL_VIEW_SHARERS);
	cr_assert_eq(v->n_blockers, CTL_VIEW_BLOCKERS);
}

/* --- rates -------------------------------------------------------------------------------- */

static void pace(struct ctl_pace *p, uint64_t now_ms, uint64_t pages, uint64_t owed_left)
{
	g_autofree struct ctl_view *v = new_view();

	v->stats.now_ns = now_ms * 1000000;
	v->stats.lane[LANE_MAIN].bytes = pages * 4096;
	v->stats.lane[LANE_MAIN].pages[HOW_COPY] = pages / 2;
	v->stats.lane[LANE_MAIN].pages[HOW_ZERO] = pages - pages / 2;
	v->stats.lane[LANE_URGENT].pages[HOW_ALREADY] = pages / 10;
	v->stats.total.faults = pages / 100;
	v->status.owed_left = owed_left;
	ctl_pace_add(p, v);
}

Test(ctl_pace, rates_and_eta)
{
	struct ctl_pace p = {0};
	struct ctl_rates r = ctl_pace_rates(&p);

	cr_assert_eq(r.eta_ns, 0);
	pace(&p, 1000, 0, 100000);
	cr_assert_eq(ctl_pace_rates(&p).pages[LANE_MAIN], 0, "one view has no rate");
	pace(&p, 1500, 10000, 90000);
	r = ctl_pace_rates(&p);
	cr_assert_float_eq(r.pages[LANE_MAIN], 20000, 1);
	cr_assert_float_eq(r.bytes[LANE_MAIN], 20000 * 4096.0, 1);
	cr_assert_float_eq(r.pages[LANE_URGENT], 2000, 1);
	cr_assert_float_eq(r.pages[LANE_STORE], 0, 0.1);
	cr_assert_float_eq(r.faults, 200, 1);
	cr_assert_float_eq((double)r.eta_ns / S, 4.5, 0.01);
}

Test(ctl_pace, looks_back_two_seconds)
{
	struct ctl_pace p = {0};
	uint64_t pages = 0;

	for (uint64_t ms = 1000; ms <= 11000; ms += 250)
		pace(&p, ms, pages += ms <= 6000 ? 1000 : 10, 1);
	cr_assert_float_eq(ctl_pace_rates(&p).pages[LANE_MAIN], 40, 1,
			   "what was long ago still counts");
	cr_assert_leq(p.n, 10);
}

Test(ctl_pace, many_views_fit)
{
	struct ctl_pace p = {0};

	for (uint64_t ms = 1; ms <= 1000; ms++)
		pace(&p, ms, ms, 1);
	cr_assert_leq(p.n, CTL_PACE_SAMPLES);
	cr_assert_float_eq(ctl_pace_rates(&p).pages[LANE_MAIN], 1000, 1);
}

Test(ctl_pace, time_that_stands_and_counters_that_shrink)
{
	struct ctl_pace p = {0};

	pace(&p, 1000, 500, 10);
	pace(&p, 1000, 900, 5);
	pace(&p, 900, 900, 5);
	cr_assert_eq(p.n, 1);
	pace(&p, 2000, 100, 20);
	struct ctl_rates r = ctl_pace_rates(&p);

	cr_assert_eq(r.pages[LANE_MAIN], 0);
	cr_assert_eq(r.eta_ns, 0);
}

Test(ctl_pace, an_eta_beyond_reason_is_none)
{
	struct ctl_pace p = {0};

	pace(&p, 1000, 0, UINT64_MAX);
	pace(&p, 3000, 0, UINT64_MAX - 1);
	cr_assert_eq(ctl_pace_rates(&p).eta_ns, 0);
}

/* --- answers ------------------------------------------------------------------------------ */

static void fill(struct ctl_view *v)
{
	read_part(v, CTL_STATUS,
		  "{\"now_ns\":100000000000,\"state\":\"running\",\"state_since_ns\":88000000000,"
		  "\"committed\":true,"
		  "\"urgent_lane\":true,\"machine\":\"pc\",\"source\":\"10.0.0.1:7\",\"times\":{"
		  "\"started_ns\":70000000000},"
		  "\"package\":{\"bytes\":2048,\"device_bytes\":1024},\"owed_pages\":1000,\"owed_"
		  "pages_left\":250,"
		  "\"faults_in_flight\":3,\"requests_in_flight\":4,\"store_bytes\":4096,\"blocks\":"
		  "2,\"sharers\":1}");
	read_part(v, CTL_BLOCKS,
		  "[{\"name\":\"pc.ram\",\"kind\":\"shared\",\"sharers\":1,\"length\":4096000,"
		  "\"page_size\":4096,"
		  "\"pages\":1000,\"owed\":1000,\"present\":750,\"missing\":246,\"requested\":4},"
		  "{\"name\":\"rom\",\"kind\":\"held\",\"length\":40960,\"page_size\":4096,"
		  "\"pages\":10,\"present\":10}]");
	read_part(v, CTL_SHARERS,
		  "[{\"id\":1,\"generation\":2,\"name\":\"vmm\",\"pid\":77,\"main\":true,"
		  "\"policy\":\"fail\","
		  "\"state\":\"active\",\"state_since_ns\":98000000000,\"mappings\":1,\"mapped_"
		  "bytes\":4096,\"waiting\":3,"
		  "\"oldest_wait_ns\":1500}]");
	read_part(v, CTL_STATS,
		  "{\"now_ns\":100000000000,\"total\":{\"faults\":42,\"latency\":{\"total\":{"
		  "\"count\":42,\"mean_ns\":9000,"
		  "\"p50_ns\":10000,\"p90_ns\":20000,\"p99_ns\":30000,\"max_ns\":40000}}},"
		  "\"sharers\":[{\"name\":\"vmm\","
		  "\"faults\":42,\"latency\":{\"total\":{\"count\":41,\"p50_ns\":11000}}}],"
		  "\"lanes\":{\"main\":{\"bytes\":1048576,"
		  "\"pages\":{\"copy\":700,\"zero\":50,\"already\":2},\"duplicates\":1,\"batches\":"
		  "9}},\"alarms\":0}");
}

static void expect(const GString *out, const char *part)
{
	cr_assert(strstr(out->str, part), "expected '%s' in:\n%s", part, out->str);
}

static void expect_not(const GString *out, const char *part)
{
	cr_assert_not(strstr(out->str, part), "unexpected '%s' in:\n%s", part, out->str);
}

Test(ctl_render, status)
{
	g_autofree struct ctl_view *v = new_view();
	g_autoptr(GString) out = g_string_new(NULL);

	fill(v);
	ctl_render_status(out, v);
	cr_assert_str_eq(out->str, "state         running for 12.0 s\n"
				   "source        10.0.0.1:7, machine pc\n"
				   "VM            here (committed)\n"
				   "lanes         main and urgent\n"
				   "connected     30.0 s ago\n"
				   "owed          250 of 1000 pages left\n"
				   "in flight     3 faults, 4 requested pages\n"
				   "package       2 KiB, device state 1 KiB\n"
				   "extra memory  4 KiB\n"
				   "blocks        2\n"
				   "sharers       1\n");
}

Test(ctl_render, status_tells_who_owns_the_vm)
{
	g_autofree struct ctl_view *v = new_view();
	g_autoptr(GString) none = g_string_new(NULL), there = g_string_new(NULL),
			   unknown = g_string_new(NULL);

	ctl_render_status(none, v);
	expect(none, "VM            none yet\n");
	expect(none, "source        not connected\n");
	read_part(v, CTL_STATUS, "{\"times\":{\"started_ns\":5}}");
	ctl_render_status(there, v);
	expect(there, "VM            at the source (not committed)\n");
	read_part(v, CTL_STATUS,
		  "{\"committed\":true,\"ownership_unknown\":true,\"error\":{\"reason\":\"lane "
		  "lost\"}}");
	ctl_render_status(unknown, v);
	expect(unknown, "VM            unknown");
	expect(unknown, "reason        lane lost\n");
}

Test(ctl_render, sharers)
{
	g_autofree struct ctl_view *v = new_view();
	g_autoptr(GString) out = g_string_new(NULL);

	fill(v);
	strcpy(v->sharer[0].reason, "why");
	ctl_render_sharers(out, v);
	cr_assert_str_eq(out->str, " ID  NAME  PID  ROLE  POLICY  STATE     FOR  MAPPINGS  BYTES  "
				   "WAITING   OLDEST  REASON\n"
				   "1.2  vmm    77  main  fail    active  2.0 s         1  4 KiB   "
				   "     3  1.50 us  why\n");
}

Test(ctl_render, blocks)
{
	g_autofree struct ctl_view *v = new_view();
	g_autoptr(GString) out = g_string_new(NULL);

	fill(v);
	ctl_render_blocks(out, v);
	cr_assert_str_eq(out->str, "BLOCK   KIND    SHARERS    LENGTH   PAGE  OWED  PRESENT       "
				   "%  MISSING  REQUESTED  STORED  ZERO  LOST  UNPLACED\n"
				   "pc.ram  shared        1  3.91 MiB  4 KiB  1000      750   "
				   "75.0%      246          4       0     0     0         0\n"
				   "rom     held          0    40 KiB  4 KiB     0       10  "
				   "100.0%        0          0       0     0     0         0\n");
}

Test(ctl_render, stats)
{
	g_autofree struct ctl_view *v = new_view();
	g_autoptr(GString) out = g_string_new(NULL);

	fill(v);
	ctl_render_stats(out, v);
	expect(out, "all      total          42  9.00 us  10.0 us  20.0 us  30.0 us  40.0 us\n");
	expect(out, "vmm      total          41        -  11.0 us        -        -        -\n");
	expect(out, "main       1 MiB   700    50        2      0           1        9\n");
	expect(out, "integrity alarms        0\n");
	for (int i = 0; i < STAGE_COUNT; i++)
		expect(out, stats_stage_names[i]);
	for (int i = 0; i < LANE_COUNT; i++)
		expect(out, stats_lane_names[i]);
}

Test(ctl_render, blockers)
{
	g_autofree struct ctl_view *v = new_view();
	g_autoptr(GString) none = g_string_new(NULL), some = g_string_new(NULL);

	fill(v);
	ctl_render_blockers(none, v);
	cr_assert_str_eq(none->str, "nothing blocks\n");
	read_part(v, CTL_BLOCKERS,
		  "[{\"name\":\"sharer:net\",\"step\":\"listening\",\"text\":\"no "
		  "hello\",\"since_ns\":95000000000}]");
	ctl_render_blockers(some, v);
	cr_assert_str_eq(some->str, "BLOCKER     BLOCKS       FOR  BECAUSE\n"
				    "sharer:net  listening  5.0 s  no hello\n");
}

/* --- watch -------------------------------------------------------------------------------- */

Test(ctl_screen, page)
{
	static const struct ctl_size size = {100, 0};
	g_autofree struct ctl_view *v = new_view();
	struct ctl_rates rates = {
		.bytes = {12.5e6}, .pages = {3000}, .faults = 55, .eta_ns = 90 * S};
	g_autoptr(GString) out = g_string_new(NULL);

	fill(v);
	ctl_screen_page(out, v, &rates, &size);
	expect(out, "running for 12.0 s  ETA 1m30s  committed  from 10.0.0.1:7  pc\n");
	expect(out, "pc.ram               [#############################+.........]  75.0%        "
		    "750        250    4 KiB\n");
	expect(out, "rom                  [#######################################] 100.0%         "
		    "10          0    4 KiB\n");
	expect(out, "faults 42 (55/s)  in flight 3  requested 4  owed 250 of 1000\n");
	expect(out, "main    12.5    3.00k     1 MiB   700    50        2      0           1\n");
	expect(out, "all      total      42  9.00 us  10.0 us  20.0 us  30.0 us  40.0 us\n");
	expect(out, "vmm      total      41        -  11.0 us        -        -        -\n");
	expect_not(out, "ALARM");
	expect_not(out, "blocks listening");
}

Test(ctl_screen, trouble_is_shown)
{
	static const struct ctl_size size = {200, 0};
	g_autofree struct ctl_view *v = new_view();
	struct ctl_rates rates = {0};
	g_autoptr(GString) out = g_string_new(NULL);

	fill(v);
	v->stats.alarms = 2;
	v->status.ownership_unknown = true;
	strcpy(v->status.reason, "the source is lost");
	strcpy(v->sharer[0].reason, "killed");
	read_part(v, CTL_BLOCKERS,
		  "[{\"name\":\"load\",\"step\":\"running\",\"text\":\"still loading\"}]");
	ctl_screen_page(out, v, &rates, &size);
	expect(out, "INTEGRITY ALARMS 2");
	expect(out, "OWNERSHIP UNKNOWN");
	expect(out, "the source is lost\n");
	expect(out, "sharer vmm is active: killed\n");
	expect(out, "load blocks running for -: still loading\n");
}

Test(ctl_screen, fits_any_terminal)
{
	g_autofree struct ctl_view *v = new_view();
	struct ctl_rates rates = {.pages = {1e9}, .bytes = {1e12}};

	fill(v);
	strcpy(v->block[0].name, "\345\255\227\345\255\227\345\255\227\345\255\227\345\255\227\345"
				 "\255\227\345\255\227\345\255\227"
				 "\345\255\227\345\255\227\345\255\227\345\255\227");
	strcpy(v->status.machine, "\345\255\227\345\255\227\345\255\227\345\255\227\345\255\227\345"
				  "\255\227\345\255\227\345\255\227");
	for (unsigned columns = 1; columns < 150; columns++) {
		for (unsigned rows = 1; rows < 30; rows++) {
			struct ctl_size size = {columns, rows};
			g_autoptr(GString) out = g_string_new(NULL);
			g_auto(GStrv) lines = NULL;

			ctl_screen_page(out, v, &rates, &size);
			cr_assert(g_utf8_validate(out->str, -1, NULL));
			lines = g_strsplit(out->str, "\n", -1);
			cr_assert_leq(g_strv_length(lines) - 1, rows);
			for (char **line = lines; *line; line++)
				cr_assert_leq(ctl_format_width(*line), columns);
		}
	}
}

Test(ctl_screen, a_bar_is_full_only_when_everything_is_there)
{
	static const struct ctl_size size = {80, 0};
	g_autofree struct ctl_view *v = new_view();
	struct ctl_rates rates = {0};
	g_autoptr(GString) almost = g_string_new(NULL), all = g_string_new(NULL),
			   holes = g_string_new(NULL), none = g_string_new(NULL);

	v->n_blocks = 1;
	v->block[0] = (struct ctl_block){.name = "r",
					 .pages = 1000000,
					 .present = 999999,
					 .requested = 1,
					 .page_size = 4096};
	ctl_screen_page(almost, v, &rates, &size);
	expect(almost, "#+]  99.9%     999999          1");
	v->block[0].present = 1000000;
	v->block[0].requested = 0;
	ctl_screen_page(all, v, &rates, &size);
	expect(all, "##] 100.0%");
	v->block[0].present = 400000;
	v->block[0].zero = 600000;
	ctl_screen_page(holes, v, &rates, &size);
	expect(holes, "##] 100.0%    1000000          0");
	v->block[0].zero = 0;
	v->block[0].present = 0;
	ctl_screen_page(none, v, &rates, &size);
	expect(none, "[....");
	expect_not(none, "#");
}

Test(ctl_screen, line)
{
	g_autofree struct ctl_view *v = new_view();
	struct ctl_rates rates = {
		.bytes = {12.5e6}, .pages = {3000}, .faults = 55, .eta_ns = 90 * S};
	g_autoptr(GString) out = g_string_new(NULL), idle = g_string_new(NULL);

	fill(v);
	read_part(v, CTL_BLOCKERS, "[{\"name\":\"a\"},{\"name\":\"b\"}]");
	ctl_screen_line(out, v, &rates);
	cr_assert_str_eq(
		out->str,
		"running for 12.0 s  present 75.2%  owed 250 of 1000  main 12.5 MB/s 3.00k pages/s"
		"  faults 42 (55/s) in flight 3  latency p50 10.0 us p90 20.0 us p99 30.0 us max "
		"40.0 us"
		"  ETA 1m30s  blocked by a,b\n");
	memset(v, 0, sizeof(*v));
	strcpy(v->status.state, "idle");
	memset(&rates, 0, sizeof(rates));
	ctl_screen_line(idle, v, &rates);
	cr_assert_str_eq(idle->str, "idle  present -  owed 0 of 0  faults 0 (0/s) in flight 0\n");
}
