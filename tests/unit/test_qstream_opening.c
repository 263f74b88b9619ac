/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which channel begins with these bytes, and with how many of them it can be told. */
#include "config.h"

#include <endian.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "wire/qstream.h"

#define BYTES(text) (const uint8_t *)(text), sizeof(text) - 1
#define ZERO 0x02u
#define PAGE 0x08u
#define EOS  0x10u

/*
 * How a page of the urgent channel begins: offset and flags, the length of the name, the name.  Its
 * length in bytes.
 */
static size_t begin(uint8_t *buf, uint64_t word, const char *name)
{
	uint64_t be = htobe64(word);

	memcpy(buf, &be, sizeof(be));
	buf[8] = (uint8_t)strlen(name);
	memcpy(buf + 9, name, strlen(name));
	return 9 + strlen(name);
}

/* All of a beginning tells @what; every shorter one only that more is needed. */
static void tells(const uint8_t *buf, size_t len, size_t least, enum qstream_opening what)
{
	struct qstream_opening_page page = { .name = "" };

	for (size_t n = 0; n < least; n++)
		cr_assert_eq(qstream_opening(buf, n, &page), QSTREAM_OPENS_MORE, "%zu of %zu bytes",
			     n, least);
	for (size_t n = least; n <= len; n++)
		cr_assert_eq(qstream_opening(buf, n, &page), what, "%zu bytes", n);
}

Test(opening, A1_by_magic)
{
	tells(BYTES("QEVM\0\0\0\3"), 4, QSTREAM_OPENS_MAIN);
	tells(BYTES("\x11\x22\x33\x44\0\0\0\1"), 4, QSTREAM_OPENS_MULTIFD);
}

/* Three bytes say it, but what is looked at is four. */
Test(opening, F59_a_resumed_source_asks_what_came)
{
	static const uint8_t first[] = { 8, 0, 10, 0, 2, 1, 'm' };
	static const uint8_t other[] = { 8, 0, 9, 0, 0, 0, 0, 0 };

	tells(first, sizeof(first), 4, QSTREAM_OPENS_RECOVERY);
	tells(other, sizeof(other), 8, QSTREAM_OPENS_NOTHING);
}

Test(opening, A1_a_page_names_itself)
{
	static const unsigned flags[] = { PAGE, ZERO };
	char longest[256];
	uint8_t buf[QSTREAM_OPENING_MAX];

	memset(longest, 'n', 255);
	longest[255] = '\0';
	for (size_t i = 0; i < ARRAY_LEN(flags); i++) {
		const char *const names[] = { "m", "pc.ram", longest };

		for (size_t j = 0; j < ARRAY_LEN(names); j++) {
			struct qstream_opening_page page = { .name = "left of before" };
			size_t len = begin(buf, 0x7ffff000u | flags[i], names[j]);

			cr_assert_leq(len, QSTREAM_OPENING_MAX);
			tells(buf, len, len, QSTREAM_OPENS_URGENT);
			qstream_opening(buf, len, &page);
			cr_assert_str_eq(page.name, names[j]);
			cr_assert_eq(page.offset, 0x7ffff000u);
		}
	}
}

Test(opening, A1_one_that_ends_at_once)
{
	struct qstream_opening_page page = { .name = "left of before", .offset = 1 };
	uint8_t buf[QSTREAM_OPENING_MAX];

	begin(buf, EOS, "");
	tells(buf, 8, 8, QSTREAM_OPENS_URGENT);
	qstream_opening(buf, 8, &page);
	cr_assert_str_empty(page.name);
	cr_assert_eq(page.offset, 0);
}

/*
 * Flags that an urgent channel does not begin with, alone and beside those it does; a page without
 * a name; another protocol.
 */
Test(opening, A1_nothing_that_we_know)
{
	static const uint64_t words[] = {
		0,	     0x20,
		0x40,	     0x100,
		0x200,	     0x1000 | EOS,
		0x1000,	     PAGE | ZERO,
		PAGE | 0x20, 0x1000 | PAGE | EOS,
		PAGE | 0x40, PAGE | 0x800,
	};
	uint8_t buf[QSTREAM_OPENING_MAX];

	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		size_t len = begin(buf, words[i], "m");

		tells(buf, len, 8, QSTREAM_OPENS_NOTHING);
	}
	tells(buf, begin(buf, 0x1000 | PAGE, ""), 9, QSTREAM_OPENS_NOTHING);
	tells(BYTES("GET / HTTP/1.1\r\n"), 8, QSTREAM_OPENS_NOTHING);
	tells(BYTES("\x16\x03\x01\x02\0\1\0\1\xfc"), 8, QSTREAM_OPENS_NOTHING);
}
