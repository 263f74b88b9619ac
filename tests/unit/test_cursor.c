/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "wire/cursor.h"

#include <string.h>

#include <criterion/criterion.h>

Test(cursor, reads_every_width_big_endian)
{
	static const uint8_t bytes[] = {0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08,
					0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0xff};
	struct cursor c = cursor_init(bytes, sizeof(bytes));

	cr_expect_eq(cursor_be64(&c), 0x0102030405060708u);
	cr_expect_eq(cursor_be32(&c), 0x090a0b0cu);
	cr_expect_eq(cursor_be16(&c), 0x0d0e);
	cr_expect_eq(cursor_left(&c), 1);
	cr_expect_eq(cursor_u8(&c), 0xff);
	cr_expect_eq(cursor_left(&c), 0);
	cr_expect_not(c.bad);
}

Test(cursor, a_short_read_is_bad_for_ever_and_consumes_nothing)
{
	static const uint8_t bytes[] = {0xaa, 0xbb, 0xcc};
	struct cursor c = cursor_init(bytes, sizeof(bytes));

	cr_expect_eq(cursor_be32(&c), 0);
	cr_expect(c.bad);
	cr_expect_eq(c.at, bytes);
	cr_expect_eq(cursor_u8(&c), 0, "a byte is there, but the record is over");
	cr_expect_null(cursor_bytes(&c, 0));
	cr_expect_eq(cursor_left(&c), 0);
}

Test(cursor, an_empty_buffer_has_nothing)
{
	struct cursor c = cursor_init(NULL, 0);

	cr_expect_eq(cursor_left(&c), 0);
	cr_expect_not(c.bad);
	cr_expect_eq(cursor_u8(&c), 0);
	cr_expect(c.bad);
}

Test(cursor, a_length_near_the_top_of_the_address_space_is_short)
{
	static const uint8_t bytes[8];
	struct cursor c = cursor_init(bytes, sizeof(bytes));

	cr_expect_null(cursor_bytes(&c, SIZE_MAX));
	cr_expect(c.bad);
}

Test(cursor, bytes_point_into_the_buffer)
{
	static const uint8_t bytes[] = {1, 2, 3};
	struct cursor c = cursor_init(bytes, sizeof(bytes));

	cr_expect_eq(cursor_bytes(&c, 2), bytes);
	cr_expect_eq(cursor_bytes(&c, 1), bytes + 2);
}

Test(cursor, cstr_of_every_length)
{
	uint8_t bytes[256];
	char out[256];

	memset(bytes, 'x', sizeof(bytes));
	for (unsigned len = 0; len < 256; len++) {
		bytes[0] = (uint8_t)len;
		struct cursor c = cursor_init(bytes, 1 + len);

		cursor_cstr(&c, out);
		cr_assert_not(c.bad);
		cr_assert_eq(strlen(out), len);
		c = cursor_init(bytes, len);
		cursor_cstr(&c, out);
		cr_assert(c.bad, "one byte short of %u", len);
		cr_assert_str_empty(out);
	}
}

Test(cursor, cstr_with_an_embedded_nul_is_bad)
{
	struct cursor c = cursor_init("\3a\0b", 4);
	char out[256] = "before";

	cursor_cstr(&c, out);
	cr_expect(c.bad);
	cr_expect_str_empty(out);
}

Test(pen, writes_what_the_cursor_reads)
{
	uint8_t buf[64];
	char name[256];
	struct pen p = pen_init(buf, sizeof(buf));

	pen_u8(&p, 0x7e);
	pen_be16(&p, 0x1234);
	pen_be32(&p, 0x89abcdefu);
	pen_be64(&p, 0xfedcba9876543210u);
	pen_cstr(&p, "pc.ram");
	pen_bytes(&p, "tail", 4);
	cr_assert_not(p.bad);
	cr_assert_eq(pen_used(&p), 1 + 2 + 4 + 8 + 7 + 4);

	struct cursor c = cursor_init(buf, pen_used(&p));

	cr_expect_eq(cursor_u8(&c), 0x7e);
	cr_expect_eq(cursor_be16(&c), 0x1234);
	cr_expect_eq(cursor_be32(&c), 0x89abcdefu);
	cr_expect_eq(cursor_be64(&c), 0xfedcba9876543210u);
	cursor_cstr(&c, name);
	cr_expect_str_eq(name, "pc.ram");
	cr_expect_arr_eq(cursor_bytes(&c, 4), "tail", 4);
	cr_expect_eq(cursor_left(&c), 0);
}

Test(pen, what_does_not_fit_is_bad_for_ever_and_writes_nothing)
{
	uint8_t buf[4] = {0, 0, 0, 0x55};
	struct pen p = pen_init(buf, 3);

	pen_be32(&p, 0xffffffffu);
	cr_expect(p.bad);
	cr_expect_eq(pen_used(&p), 0);
	pen_u8(&p, 1);
	cr_expect_eq(pen_used(&p), 0);
	cr_expect_arr_eq(buf, ((uint8_t[]){0, 0, 0, 0x55}), 4);
}

Test(pen, a_name_longer_than_its_length_byte_is_bad)
{
	char name[257];
	uint8_t buf[512];
	struct pen p = pen_init(buf, sizeof(buf));

	memset(name, 'n', 256);
	name[256] = '\0';
	pen_cstr(&p, name + 1);
	cr_expect_eq(pen_used(&p), 256);
	pen_cstr(&p, name);
	cr_expect(p.bad);
	cr_expect_eq(pen_used(&p), 256);
}
