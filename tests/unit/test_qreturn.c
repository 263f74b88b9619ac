/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The return path: F07 (block names left out per connection), S1-18 to S1-20. */
#include "config.h"

#include "wire/qreturn.h"

#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "golden.h"
#include "wire/cursor.h"

static const uint8_t pc_bios_request[] = {0, 3, 0,    0x14, 0, 0,   0,	 0,   0,   0,	0x10, 0,
					  0, 0, 0x10, 0,    7, 'p', 'c', '.', 'b', 'i', 'o',  's'};

Test(qreturn, request_names_the_block_once_per_connection)
{
	struct qreturn_writer w;
	uint8_t out[QRETURN_MESSAGE_MAX];

	qreturn_writer_init(&w);
	cr_assert_eq(qreturn_request(&w, out, 3, "pc.bios", 0x1000, 4096), sizeof(pc_bios_request));
	cr_assert_eq(qreturn_request(&w, out, 3, "pc.bios", 0x2000, 4096), 16);
	cr_assert_arr_eq(out, ((uint8_t[]){0, 4, 0, 12, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0x10, 0}),
			 16);
	cr_assert_eq(qreturn_request(&w, out, 0, "pc.ram", 0, 4096), 4 + 13 + 6, "another block");
	cr_assert_eq(qreturn_request(&w, out, 3, "pc.bios", 0, 4096), 4 + 13 + 7, "and back");
	qreturn_writer_init(&w);
	cr_assert_eq(qreturn_request(&w, out, 3, "pc.bios", 0x1000, 4096), 4 + 13 + 7,
		     "a new connection knows no block (S1-20)");
}

Test(qreturn, request_is_what_qemu_writes)
{
	struct qreturn_writer w;
	uint8_t out[QRETURN_MESSAGE_MAX];

	qreturn_writer_init(&w);
	size_t len = qreturn_request(&w, out, 0, "pc.bios", 0x1000, 4096);

	cr_assert_eq(len, 4 + 13 + 7);
	cr_assert_arr_eq(out, pc_bios_request, sizeof(pc_bios_request));
}

Test(qreturn, the_longest_message_fits)
{
	struct qreturn_writer w;
	struct qreturn_reader r;
	struct qreturn_message m;
	uint8_t out[QRETURN_MESSAGE_MAX];
	char name[256];

	memset(name, 'n', 255);
	name[255] = '\0';
	qreturn_writer_init(&w);
	qreturn_reader_init(&r);
	size_t len = qreturn_request(&w, out, 0, name, UINT64_MAX - 4096, 4096);

	cr_assert_eq(len, QRETURN_MESSAGE_MAX);
	cr_assert_eq(qreturn_next(&r, out, len, &m), QRETURN_REQ_PAGES_ID);
	cr_assert_str_eq(m.name, name);
	cr_assert_eq(m.start, UINT64_MAX - 4096);
	cr_assert_eq(m.length, 4096);
	len = qreturn_bitmap_head(out, name, 8);
	cr_assert_eq(qreturn_next(&r, out, len, &m), QRETURN_RECV_BITMAP);
}

Test(qreturn, fixed_messages_round_trip)
{
	struct qreturn_reader r;
	struct qreturn_message m;
	uint8_t out[QRETURN_MESSAGE_MAX];

	qreturn_reader_init(&r);
	cr_assert_eq(qreturn_next(&r, out, qreturn_pong(out, 0x42), &m), QRETURN_PONG);
	cr_assert_eq(m.value, 0x42);
	cr_assert_eq(qreturn_next(&r, out, qreturn_resume_ack(out), &m), QRETURN_RESUME_ACK);
	cr_assert_eq(m.value, 1);
	cr_assert_eq(qreturn_next(&r, out, qreturn_switchover_ack(out), &m),
		     QRETURN_SWITCHOVER_ACK);
	cr_assert_arr_eq(out, ((uint8_t[]){0, 7, 0, 0}), 4);
	cr_assert_eq(qreturn_next(&r, out, qreturn_shut(out, 0xffffffff), &m), QRETURN_SHUT);
	cr_assert_eq(m.value, 0xffffffff);
	cr_assert_eq(r.position, 8 + 8 + 4 + 8);
}

/* Reads all of @g; writes every message again and expects the same bytes. */
static unsigned replay(const struct golden *g, unsigned counts[8])
{
	struct qreturn_reader r;
	struct qreturn_writer w;
	struct qreturn_message m;
	uint8_t again[QRETURN_MESSAGE_MAX];
	size_t at = 0, len = 0;
	unsigned total = 0;
	int what;

	qreturn_reader_init(&r);
	qreturn_writer_init(&w);
	for (; (what = qreturn_next(&r, g->bytes + at, g->len - at, &m)) > 0; total++) {
		counts[what]++;
		if (what == QRETURN_REQ_PAGES_ID)
			len = qreturn_request(&w, again, w.last_block + 1, m.name, m.start,
					      m.length);
		else if (what == QRETURN_REQ_PAGES)
			len = qreturn_request(&w, again, w.last_block, m.name, m.start, m.length);
		else if (what == QRETURN_PONG)
			len = qreturn_pong(again, m.value);
		else if (what == QRETURN_SHUT)
			len = qreturn_shut(again, m.value);
		else if (what == QRETURN_RESUME_ACK)
			len = qreturn_resume_ack(again);
		else if (what == QRETURN_RECV_BITMAP)
			len = qreturn_bitmap_head(again, m.name, m.bitmap_size);
		cr_assert_eq(len, m.used);
		cr_assert_arr_eq(again, g->bytes + at, len);
		at += m.used;
		if (what != QRETURN_RECV_BITMAP)
			continue;
		struct cursor c = cursor_init(g->bytes + at + m.bitmap_size, 8);

		cr_assert_eq(cursor_be64(&c), QRETURN_BITMAP_END);
		cr_assert_eq(qreturn_next(&r, g->bytes + at, g->len - at, &m), QRETURN_NEED_MORE);
		at += r.body_left;
		qreturn_took(&r, r.body_left);
	}
	cr_assert_eq(what, QRETURN_NEED_MORE, "%s at %lu", r.reason, (unsigned long)r.position);
	cr_assert_eq(at, g->len);
	cr_assert_eq(r.position, g->len);
	return total;
}

Test(qreturn, golden_return_paths)
{
	static const struct {
		const char *name;
		unsigned counts[8]; /* by type */
	} rows[] = {
		{"q72-plain.c0.d2s", {[1] = 1, [2] = 4, [3] = 1}},
		{"q72-preempt.c0.d2s", {[1] = 1, [2] = 4, [3] = 2, [4] = 44}},
		{"q72-preempt.c1.d2s", {0}},
		{"q100-preempt-recover.c0.d2s", {[2] = 4, [3] = 1, [4] = 128}},
		{"q100-preempt-recover.c1.d2s", {0}},
		{"q100-preempt-recover.rec.c0.d2s", {[1] = 1, [5] = 6, [6] = 1}},
		{"q100-preempt-recover.rec.c1.d2s", {0}},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		cleanup_golden struct golden g = golden_load(rows[i].name);
		unsigned counts[8] = {0};

		replay(&g, counts);
		cr_assert_arr_eq(counts, rows[i].counts, sizeof(counts), "%s", rows[i].name);
	}
}

Test(qreturn, short_messages_consume_nothing)
{
	struct qreturn_reader r;
	struct qreturn_message m;
	uint8_t out[QRETURN_MESSAGE_MAX];
	size_t len = qreturn_bitmap_head(out, "pc.ram", 128);

	qreturn_reader_init(&r);
	for (size_t n = 0; n < len; n++) {
		cr_assert_eq(qreturn_next(&r, out, n, &m), QRETURN_NEED_MORE, "%zu bytes", n);
		cr_assert_eq(m.used, 0);
		cr_assert_eq(r.position, 0);
	}
	cr_assert_eq(qreturn_next(&r, out, len, &m), QRETURN_RECV_BITMAP);
	cr_assert_eq(r.body_left, 128 + 8);
}

struct refusal {
	const char *reason;
	const char *bytes;
	size_t len;
};
#define BYTES(s) (s), sizeof(s) - 1

static const struct refusal refusals[] = {
	{"unknown message type", BYTES("\0\0\0\0")},
	{"unknown message type", BYTES("\0\10\0\0")},
	{"unknown message type", BYTES("\377\377\377\377")},
	{"wrong length", BYTES("\0\1\0\3")},
	{"wrong length", BYTES("\0\2\0\5")},
	{"wrong length", BYTES("\0\3\0\15")},
	{"wrong length", BYTES("\0\3\1\15")},
	{"wrong length", BYTES("\0\4\0\13")},
	{"wrong length", BYTES("\0\7\0\1")},
	{"without a block name", BYTES("\0\4\0\14"
				       "\0\0\0\0\0\0\0\0"
				       "\0\0\20\0")},
	{"no bytes", BYTES("\0\3\0\16"
			   "\0\0\0\0\0\0\0\0"
			   "\0\0\0\0"
			   "\1a")},
	{"end of the address space", BYTES("\0\3\0\16"
					   "\377\377\377\377\377\377\360\0"
					   "\0\0\20\0"
					   "\1a")},
	{"malformed block name", BYTES("\0\3\0\16"
				       "\0\0\0\0\0\0\0\0"
				       "\0\0\20\0"
				       "\2a")},
	{"malformed block name", BYTES("\0\3\0\17"
				       "\0\0\0\0\0\0\0\0"
				       "\0\0\20\0"
				       "\1ab")},
	{"malformed block name", BYTES("\0\3\0\17"
				       "\0\0\0\0\0\0\0\0"
				       "\0\0\20\0"
				       "\2a\0")},
	{"malformed block name", BYTES("\0\3\0\16"
				       "\0\0\0\0\0\0\0\0"
				       "\0\0\20\0"
				       "\0a")},
	{"value other than 1", BYTES("\0\6\0\4"
				     "\0\0\0\0")},
	{"multiple of 8", BYTES("\0\5\0\2\1a"
				"\0\0\0\0\0\0\0\0")},
	{"multiple of 8", BYTES("\0\5\0\2\1a"
				"\0\0\0\0\0\0\0\1")},
	{"end of the address space", BYTES("\0\5\0\2\1a"
					   "\377\377\377\377\377\377\377\370")},
};

Test(qreturn, refusals)
{
	for (size_t i = 0; i < ARRAY_LEN(refusals); i++) {
		struct qreturn_reader r;
		struct qreturn_message m;

		qreturn_reader_init(&r);
		cr_assert_eq(
			qreturn_next(&r, (const uint8_t *)refusals[i].bytes, refusals[i].len, &m),
			-EPROTO, "row %zu (%s)", i, refusals[i].reason);
		cr_assert_not_null(strstr(r.reason, refusals[i].reason), "row %zu: %s", i,
				   r.reason);
		cr_assert_eq(r.position, 0);
		cr_assert_eq(qreturn_next(&r, pc_bios_request, sizeof(pc_bios_request), &m),
			     -EPROTO, "an error is for ever");
	}
}
