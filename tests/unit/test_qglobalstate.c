/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The source's run state: in recorded packages, in sections made by hand, and in hostile ones. */
#include "config.h"

#include "wire/qglobalstate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "golden.h"
#include "wire/cursor.h"
#include "wire/qstream.h"

#define FOOTER "\x7e\0\0\0\1"

struct part {
	uint8_t bytes[1024];
	struct pen pen;
};

static void begin(struct part *p)
{
	p->pen = pen_init(p->bytes, sizeof(p->bytes));
}

#define PUT(part, text) pen_bytes(&(part)->pen, (text), sizeof(text) - 1)

/* A section globalstate; @size counts the NUL. */
static void put_section(struct part *p, uint32_t id, const char *text, uint32_t size)
{
	uint8_t field[100] = {0};

	memcpy(field, text, strlen(text));
	pen_u8(&p->pen, 4);
	pen_be32(&p->pen, id);
	pen_cstr(&p->pen, "globalstate");
	pen_be32(&p->pen, 0);
	pen_be32(&p->pen, 1);
	pen_be32(&p->pen, size);
	pen_bytes(&p->pen, field, sizeof(field));
	pen_u8(&p->pen, 0x7e);
	pen_be32(&p->pen, id);
	cr_assert_not(p->pen.bad);
}

static void put_state(struct part *p, const char *text)
{
	put_section(p, 7, text, (uint32_t)strlen(text) + 1);
}

/* In a buffer of its exact size, so that a read past its end is seen. */
static struct qglobalstate find(const struct part *p)
{
	size_t len = pen_used(&p->pen);
	cleanup_free uint8_t *exact = malloc(len ? len : 1);
	struct qglobalstate s;

	memcpy(exact, p->bytes, len);
	cr_assert_eq(qglobalstate_find(exact, len, &s), s.run);
	cr_assert_eq(s.run == QGLOBALSTATE_UNKNOWN, s.reason != NULL);
	return s;
}

static void expect_unknown(const struct part *p, const char *part)
{
	struct qglobalstate s = find(p);

	cr_assert_eq(s.run, QGLOBALSTATE_UNKNOWN, "%s", s.text);
	cr_assert_str_eq(s.text, "unknown");
	cr_assert_not_null(strstr(s.reason, part), "%s", s.reason);
	cr_assert_not(s.was_suspended);
}

/* F54: the guests of the recordings ran. */
Test(qglobalstate, recorded_packages)
{
	static const struct {
		const char *name;
		size_t at, len; /* of the package's body */
	} recorded[] = {
		{"q72-plain.c0.s2d", 196952, 12876},
		{"q100-preempt-recover.c0.s2d", 1222163, 12876},
	};

	for (size_t i = 0; i < ARRAY_LEN(recorded); i++) {
		cleanup_golden struct golden g = golden_load(recorded[i].name);
		struct qstream_package package;
		struct qglobalstate s;

		cr_assert_eq(qstream_package(g.bytes + recorded[i].at, recorded[i].len, &package),
			     0);
		cr_assert_eq(qglobalstate_find(package.device, package.device_len, &s),
			     QGLOBALSTATE_RUNNING, "%s: %s", recorded[i].name, s.reason);
		cr_assert_str_eq(s.text, "running");
		cr_assert_eq(qglobalstate_find(package.device, package.device_len - 1, &s),
			     QGLOBALSTATE_UNKNOWN, "its footer is cut");
	}
}

Test(qglobalstate, every_state_has_a_meaning)
{
	static const char *const stopped[] = {"paused",	       "suspended",	 "shutdown",
					      "prelaunch",     "debug",		 "io-error",
					      "internal-error", "watchdog",	 "guest-panicked",
					      "postmigrate",   "finish-migrate", "inmigrate"};
	struct part p;

	begin(&p);
	PUT(&p, "other" FOOTER);
	put_state(&p, "running");
	cr_assert_eq(find(&p).run, QGLOBALSTATE_RUNNING);
	for (size_t i = 0; i < ARRAY_LEN(stopped); i++) {
		struct qglobalstate s;

		begin(&p);
		put_state(&p, stopped[i]);
		PUT(&p, "\4next");
		s = find(&p);
		cr_assert_eq(s.run, QGLOBALSTATE_STOPPED, "%s: %s", stopped[i], s.reason);
		cr_assert_str_eq(s.text, stopped[i]);
	}
}

/* QEMU >= 9.0: two bytes behind a text of 32. */
Test(qglobalstate, tells_that_the_guest_slept)
{
	const size_t flags = 1 + 4 + 12 + 8 + 4 + 32;
	struct part p;

	for (unsigned bits = 0; bits < 4; bits++) {
		begin(&p);
		put_state(&p, "paused");
		p.bytes[flags] = bits & 1;
		p.bytes[flags + 1] = bits >> 1;
		cr_assert_eq(find(&p).run, QGLOBALSTATE_STOPPED);
		cr_assert_eq(find(&p).was_suspended, bits == 3);
	}
}

Test(qglobalstate, none)
{
	struct part p;

	begin(&p);
	expect_unknown(&p, "too short");
	PUT(&p, "\4\0\0\0\7\x0bglobalstate");
	expect_unknown(&p, "too short");
	for (int i = 0; i < 200; i++)
		pen_u8(&p.pen, 0);
	expect_unknown(&p, "no section");
}

/* A guest can fill a device's buffers with what looks like the section. */
Test(qglobalstate, two_are_none)
{
	struct part p;

	begin(&p);
	put_state(&p, "paused");
	put_state(&p, "running");
	expect_unknown(&p, "two sections");
	begin(&p);
	PUT(&p, "buffer" FOOTER);
	put_state(&p, "running");
	PUT(&p, "\4 more of the buffer" FOOTER);
	put_state(&p, "running");
	expect_unknown(&p, "two sections");
}

Test(qglobalstate, stands_where_a_section_can)
{
	struct part p;

	begin(&p);
	PUT(&p, "x");
	put_state(&p, "running");
	expect_unknown(&p, "no section");
	begin(&p);
	PUT(&p, "xxxxxxxxxxxx");
	put_state(&p, "running");
	expect_unknown(&p, "no section");
	begin(&p);
	PUT(&p, FOOTER); /* a footer of nothing */
	put_state(&p, "running");
	expect_unknown(&p, "no section");
	begin(&p);
	put_state(&p, "running");
	PUT(&p, "\3");
	expect_unknown(&p, "no section");
}

Test(qglobalstate, every_byte_of_its_frame_counts)
{
	const size_t frame = 1 + 4 + 12 + 8;
	struct part p;

	for (size_t i = 0; i < frame + 4 + 100 + 5; i++) {
		struct qglobalstate s;

		begin(&p);
		put_state(&p, "running");
		p.bytes[i] ^= 0x80;
		s = find(&p);
		if (i < frame + 4 + 32 || i >= frame + 4 + 100)
			cr_assert_eq(s.run, QGLOBALSTATE_UNKNOWN, "byte %zu: %s", i, s.text);
		else
			cr_assert_eq(s.run, QGLOBALSTATE_RUNNING, "byte %zu: %s", i, s.reason);
	}
}

Test(qglobalstate, the_text_is_whole)
{
	static const struct {
		const char *text;
		uint32_t size;
		const char *part;
	} bad[] = {
		{"running", 0, "no text"},	    {"running", 1, "no text"},
		{"running", 7, "no text"},	    {"running", 9, "no text"},
		{"running", 33, "no text"},	    {"running", 0xffffffff, "no text"},
		{"running!", 9, "none that is known"}, {"Running", 8, "none that is known"},
		{"a state of thirty-one characters", 33, "no text"},
		{"", 1, "no text"},
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct part p;

		begin(&p);
		put_section(&p, 3, bad[i].text, bad[i].size);
		expect_unknown(&p, bad[i].part);
	}
}
