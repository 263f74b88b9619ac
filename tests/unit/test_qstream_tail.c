/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The package, the naked device state and its end, XBZRLE deltas; and the encoders' limits. */
#include "config.h"

#include "wire/qstream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "golden.h"
#include "wire/cursor.h"

#define BYTES(text) (const uint8_t *)(text), sizeof(text) - 1
#define LISTEN	    "\x08\0\4\0\0"
#define RUN	    "\x08\0\5\0\0"
#define PING	    "\x08\0\2\0\4\0\0\0"
#define FOOTER	    "\x7e\0\0\0\4"

Test(package, is_what_was_put_in)
{
	uint8_t buf[256];
	struct qstream_package out;

	for (int commit = 0; commit < 2; commit++) {
		struct pen p = pen_init(buf, sizeof(buf));

		qstream_put_package(&p, "state", 5, commit);
		cr_assert_not(p.bad);
		cr_assert_eq(qstream_package(buf + 9, pen_used(&p) - 9, &out), 0);
		cr_assert_eq(out.device_len, 5);
		cr_assert_arr_eq(out.device, "state", 5);
		cr_assert_eq(out.has_commit_ping, commit == 1);
		cr_assert_eq(out.n_pings, commit ? 2u : 1u);
		cr_assert_eq(out.pings[0], 3);
		cr_assert(!commit || out.pings[1] == QSTREAM_COMMIT_PING);
	}
}

Test(package, without_devices_or_pings)
{
	struct qstream_package out;

	cr_assert_eq(qstream_package(BYTES(LISTEN RUN), &out), 0);
	cr_assert_eq(out.device_len, 0);
	cr_assert_eq(out.n_pings, 0);
	cr_assert_not(out.has_commit_ping);
	cr_assert_eq(qstream_package(BYTES(LISTEN PING "\x42" RUN), &out), 0);
	cr_assert_eq(out.device_len, 0);
	cr_assert(out.has_commit_ping);
}

/* The footer of the last device keeps its bytes from looking like a PING. */
Test(package, a_ping_inside_the_device_state_stays_there)
{
	static const uint8_t body[] = LISTEN PING "\x42" FOOTER PING "\3" RUN;
	struct qstream_package out;

	cr_assert_eq(qstream_package(body, sizeof(body) - 1, &out), 0);
	cr_assert_eq(out.n_pings, 1);
	cr_assert_eq(out.device_len, 9 + 5);
	cr_assert_not(out.has_commit_ping);
}

Test(package, eight_pings_and_not_nine)
{
	uint8_t buf[128];
	struct qstream_package out;

	for (unsigned n = 8; n <= 9; n++) {
		struct pen p = pen_init(buf, sizeof(buf));

		pen_bytes(&p, LISTEN, 5);
		for (unsigned i = 0; i < n; i++)
			qstream_put_ping(&p, 10 + i);
		pen_bytes(&p, RUN, 5);
		cr_assert_eq(qstream_package(buf, pen_used(&p), &out), n == 8 ? 0 : -EPROTO);
		for (unsigned i = 0; n == 8 && i < n; i++)
			cr_assert_eq(out.pings[i], 10 + i, "in the order of the stream");
	}
}

Test(package, refusals)
{
	struct qstream_package out;

	cr_assert_eq(qstream_package(NULL, 0, &out), -EPROTO);
	cr_assert_eq(qstream_package(BYTES(LISTEN), &out), -EPROTO);
	cr_assert_eq(qstream_package(BYTES(RUN LISTEN), &out), -EPROTO);
	cr_assert_eq(qstream_package(BYTES(LISTEN "state"), &out), -EPROTO);
	cr_assert_eq(qstream_package(BYTES("state" RUN), &out), -EPROTO);
	cr_assert_eq(qstream_package(BYTES(LISTEN RUN "x"), &out), -EPROTO);
	cr_assert_eq(qstream_package(BYTES("\x08\0\4\0\1" RUN), &out), -EPROTO);
	cr_assert_null(out.device);
}

/* A decoder that stands at the tail of a recorded precopy; returns where that is. */
static size_t find_tail(const struct golden *g)
{
	struct qstream q;
	struct qstream_record rec;
	size_t at = 0;
	int what;

	qstream_init(&q, QSTREAM_MAIN, NULL);
	while ((what = qstream_next(&q, g->bytes + at, g->len - at, &rec)) != QSTREAM_TAIL) {
		cr_assert_gt(what, 0, "%s", q.reason);
		at += rec.used;
	}
	return at;
}

/* F54: never guessed: no prefix of it is taken for the whole. */
Test(tail, recorded_device_state_ends_with_the_stream)
{
	static const char *const names[] = {"q72-precopy.c0.s2d", "q72-xbzrle.c0.s2d"};

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		cleanup_golden struct golden g = golden_load(names[i]);
		size_t from = find_tail(&g), device_len = 0;

		for (size_t end = from; end < g.len; end++)
			cr_assert_eq(qstream_tail(g.bytes + from, end - from, &device_len), 0,
				     "%s cut to %zu", names[i], end);
		cr_assert_eq(qstream_tail(g.bytes + from, g.len - from, &device_len), 1);
		cr_assert_eq(device_len, 12857, "found by a second decoder");
		cr_assert_eq(g.bytes[from], 4, "a FULL section");
	}
}

static int tail_of(const char *bytes, size_t len)
{
	size_t device_len = SIZE_MAX;
	cleanup_free uint8_t *exact = malloc(len ? len : 1);
	int ends;

	memcpy(exact, bytes, len);
	ends = qstream_tail(exact, len, &device_len);
	cr_assert_eq(ends, device_len != SIZE_MAX);
	return ends ? (int)device_len : -1;
}
#define TAIL_OF(text) tail_of(text, sizeof(text) - 1)

Test(tail, is_eof_and_a_whole_object)
{
	cr_assert_eq(TAIL_OF("\0\6\0\0\0\2{}"), 0, "no device at all");
	cr_assert_eq(TAIL_OF("dev\0\6\0\0\0\2{}"), 3);
	cr_assert_eq(TAIL_OF("dev\0\6\0\0\0\13{\"a\":[1,2]}"), 3);
	cr_assert_eq(TAIL_OF("dev\0\6\0\0\0\x09{\"a\":\"]\"}"), 3, "brackets in a string");
	cr_assert_eq(TAIL_OF("dev\0\6\0\0\0\x0a{\"a\":\"\\\"\"}"), 3, "a quote in a string");
	cr_assert_eq(TAIL_OF("d\0\6\0\0\0\0\6\0\0\0\2{}"), 6, "not the first that looks like it");
}

Test(tail, is_nothing_else)
{
	cr_assert_eq(tail_of("", 0), -1);
	cr_assert_eq(TAIL_OF("{}"), -1);
	cr_assert_eq(TAIL_OF("\6\0\0\0\2{}"), -1, "no EOF");
	cr_assert_eq(TAIL_OF("\0\7\0\0\0\2{}"), -1);
	cr_assert_eq(TAIL_OF("\0\6\0\0\0\1}"), -1);
	cr_assert_eq(TAIL_OF("\0\6\0\0\0\3{}"), -1, "a byte is missing");
	cr_assert_eq(TAIL_OF("\0\6\0\0\0\1{}"), -1, "a byte too many");
	cr_assert_eq(TAIL_OF("\0\6\377\377\377\377{}"), -1);
	cr_assert_eq(TAIL_OF("\0\6\0\0\0\3{}\0"), -1, "QEMU writes no NUL behind it");
	cr_assert_eq(TAIL_OF("\0\6\0\0\0\3{}}"), -1);
	cr_assert_eq(TAIL_OF("\0\6\0\0\0\3{{}"), -1);
	cr_assert_eq(TAIL_OF("\0\6\0\0\0\4{[}}"), -1, "brackets in pairs");
	cr_assert_eq(TAIL_OF("\0\6\0\0\0\4{}{}"), -1, "one object");
	cr_assert_eq(TAIL_OF("\0\6\0\0\0\3{\"}"), -1, "an open string");
	cr_assert_eq(TAIL_OF("\0\6\0\0\0\3{\n}"), -1, "control characters");
	cr_assert_eq(TAIL_OF("\0\6\0\0\0\2[]"), -1);
	cr_assert_eq(TAIL_OF("\0\6\0\0\0\2[}"), -1);
}

/* An object that begins in a device's bytes cannot reach over the real one's head. */
Test(tail, a_device_cannot_forge_an_earlier_end)
{
	cr_assert_eq(TAIL_OF("\0\6\0\0\0\x0e{ \"a\" \0\6\0\0\0\2{}"), 12);
}

Test(tail, depth_has_a_limit)
{
	for (unsigned depth = 64; depth <= 65; depth++) {
		char text[6 + 2 * 65];
		struct pen p = pen_init(text, sizeof(text));

		pen_be16(&p, 6);
		pen_be32(&p, 2 * depth);
		for (unsigned i = 0; i < depth; i++)
			pen_u8(&p, i % 2 ? '[' : '{');
		for (unsigned i = depth; i > 0; i--)
			pen_u8(&p, (i - 1) % 2 ? ']' : '}');
		cr_assert_eq(tail_of(text, pen_used(&p)), depth == 64 ? 0 : -1);
	}
}

/* Applies every record of the stream to memory, as a destination does. */
static void apply(uint8_t *ram, size_t ram_len, const struct qstream_record *rec, int what)
{
	size_t at = rec->page.offset;

	if (what < QSTREAM_PAGE || what > QSTREAM_XBZRLE || rec->page.block != 0 || at >= ram_len)
		return;
	if (what == QSTREAM_PAGE)
		memcpy(ram + at, rec->page.data, rec->page.len);
	else if (what == QSTREAM_ZERO)
		memset(ram + at, 0, 4096);
	else
		cr_assert_eq(qstream_xbzrle(ram + at, 4096, rec->page.data, rec->page.len), 0);
}

Test(xbzrle, recorded_deltas_make_the_source_s_memory)
{
	const size_t ram_len = 640 << 10;
	cleanup_golden struct golden g = golden_load("q72-xbzrle.c0.s2d");
	cleanup_free uint8_t *ram = calloc(1, ram_len);
	uint64_t hash = 14695981039346656037u;
	struct qstream_record rec;
	struct qstream q;
	int what;

	qstream_init(&q, QSTREAM_MAIN, NULL);
	for (size_t at = 0;; at += rec.used) {
		what = qstream_next(&q, g.bytes + at, g.len - at, &rec);
		if (what == QSTREAM_TAIL)
			break;
		cr_assert_gt(what, 0);
		apply(ram, ram_len, &rec, what);
	}
	for (size_t i = 0; i < ram_len; i++)
		hash = (hash ^ ram[i]) * 1099511628211u;
	cr_assert_eq(hash, 0xf326d700467c7d95, "%lx: see tests/fixtures/README.md",
		     (unsigned long)hash);
}

static int delta(uint8_t *page, size_t page_len, const char *bytes, size_t len)
{
	cleanup_free uint8_t *exact = malloc(len ? len : 1);

	memcpy(exact, bytes, len);
	return qstream_xbzrle(page, page_len, exact, len);
}
#define DELTA(page, text) delta(page, sizeof(page), text, sizeof(text) - 1)

Test(xbzrle, runs)
{
	uint8_t page[256];

	memset(page, '.', sizeof(page));
	cr_assert_eq(DELTA(page, "\0\3abc\2\1X"), 0);
	cr_assert_arr_eq(page, "abc..X....", 10);
	cr_assert_eq(DELTA(page, "\377\1\1Z"), 0, "a run of 255 in two bytes");
	cr_assert_eq(page[255], 'Z');
	cr_assert_eq(page[254], '.');
	cr_assert_eq(DELTA(page, ""), 0, "nothing changed");
}

Test(xbzrle, refusals)
{
	uint8_t page[256] = {0};
	uint8_t room[256 + 16];

	memset(room, 0x55, sizeof(room));
	cr_assert_eq(DELTA(page, "\0"), -EPROTO, "no second run");
	cr_assert_eq(DELTA(page, "\0\0"), -EPROTO, "nothing changes");
	cr_assert_eq(DELTA(page, "\0\2a"), -EPROTO, "a byte is missing");
	cr_assert_eq(DELTA(page, "\0\1a\0\1b"), -EPROTO, "a later run of nothing");
	cr_assert_eq(DELTA(page, "\200"), -EPROTO);
	cr_assert_eq(DELTA(page, "\200\200\1\1a"), -EPROTO, "three bytes");
	cr_assert_eq(DELTA(page, "\0\377\377\1a"), -EPROTO);
	cr_assert_eq(DELTA(page, "\200\2\1a"), -EPROTO, "behind the page");
	cr_assert_eq(DELTA(page, "\377\1\2ab"), -EPROTO, "across its end");
	cr_assert_eq(DELTA(page, "\377\177\1a"), -EPROTO);
	cr_assert_eq(delta(room, 256, "\377\1\2ab", 5), -EPROTO);
	for (size_t i = 256; i < sizeof(room); i++)
		cr_assert_eq(room[i], 0x55, "nothing is written behind the page");
}

Test(encoders, what_does_not_fit_is_bad)
{
	uint8_t buf[64];
	struct pen p = pen_init(buf, 8);

	qstream_put_page_head(&p, 0, "rom", false);
	cr_assert(p.bad);
	p = pen_init(buf, sizeof(buf));
	qstream_put_package(&p, buf, UINT32_MAX - 20, true);
	cr_assert(p.bad, "the length of a package has 32 bits");
	cr_assert_eq(pen_used(&p), 0);
}

Test(encoders, words_are_what_qemu_writes)
{
	uint8_t buf[64];
	struct pen p = pen_init(buf, sizeof(buf));

	qstream_put_page_head(&p, 0x3000, "m", true);
	qstream_put_page_head(&p, 0x4000, NULL, false);
	qstream_put_page_head(&p, 0x5000, NULL, true);
	cr_assert_eq(pen_used(&p), 11 + 8 + 9);
	cr_assert_arr_eq(buf,
			 "\0\0\0\0\0\0\x30\2\1m\0"
			 "\0\0\0\0\0\0\x40\x28"
			 "\0\0\0\0\0\0\x50\x22\0",
			 28);
}
