/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The stream decoder on hand-made streams: what it accepts beyond the recorded ones, and its
 * limits. */
#include "config.h"

#include "script.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"

static void expect_block(const struct script *s, const struct qstream_block *want)
{
	cr_assert_str_eq(s->rec.block.name, want->name);
	cr_assert_eq(s->rec.block.length, want->length);
	cr_assert_eq(s->rec.block.page_size, want->page_size);
}

Test(qstream, block_list_with_two_page_sizes)
{
	cleanup_free struct script *s = script_begin(ADVISED);

	script_put_step(s, PRECOPY);
	cr_assert_eq(script_next(s), QSTREAM_SECTION);
	for (size_t i = 0; i < SCRIPT_BLOCKS; i++) {
		cr_assert_eq(script_next(s), QSTREAM_BLOCK);
		expect_block(s, &script_blocks[i]);
	}
	cr_assert_eq(script_next(s), QSTREAM_BLOCKS_END);
	cr_assert(s->q.footers);
	cr_assert_eq(s->q.ram_section, SCRIPT_SECTION);
	cr_assert_eq(s->q.default_page, 4096);
}

/* Then every block carries its size, also the smallest one (the source's host page is smaller). */
Test(qstream, block_list_of_huge_pages_only)
{
	static const struct qstream_block huge[] = {
		{.name = "m0", .length = 2 * MIB, .page_size = 2 * MIB},
		{.name = "m1", .length = 2048 * MIB, .page_size = 1024 * MIB},
	};
	cleanup_free struct script *s = script_begin(FRESH);

	script_put_step(s, SETUP);
	qstream_put_advise(&s->pen, 1026 * MIB, 4096);
	qstream_put_blocks(&s->pen, SCRIPT_SECTION, huge, 2, 4096);
	cr_assert_eq(script_next(s), QSTREAM_HEADER);
	cr_assert_eq(script_next(s), QSTREAM_ADVISE);
	cr_assert_eq(script_next(s), QSTREAM_SECTION);
	cr_assert_eq(script_next(s), QSTREAM_BLOCK);
	expect_block(s, &huge[0]);
	cr_assert_eq(script_next(s), QSTREAM_BLOCK);
	expect_block(s, &huge[1]);
	cr_assert_eq(script_next(s), QSTREAM_BLOCKS_END);
}

/* A 64 KiB host: the lowest bit of the summary is the default, though target pages are smaller. */
Test(qstream, default_page_size_is_the_smallest_one)
{
	static const struct qstream_block block = {"m", 1 * MIB, 65536};
	cleanup_free struct script *s = script_begin(FRESH);

	script_put_step(s, SETUP);
	qstream_put_advise(&s->pen, 65536, 4096);
	qstream_put_blocks(&s->pen, SCRIPT_SECTION, &block, 1, 65536);
	cr_assert_eq(script_next(s), QSTREAM_HEADER);
	cr_assert_eq(script_next(s), QSTREAM_ADVISE);
	cr_assert_eq(script_next(s), QSTREAM_SECTION);
	cr_assert_eq(script_next(s), QSTREAM_BLOCK);
	expect_block(s, &block);
}

Test(qstream, page_sizes_of_the_list_are_those_of_advise)
{
	cleanup_free struct script *s = script_begin(ADVISED);

	qstream_put_blocks(&s->pen, SCRIPT_SECTION, script_blocks, 1, 4096);
	cr_assert_eq(script_next(s), QSTREAM_SECTION);
	cr_assert_eq(script_next(s), QSTREAM_BLOCK);
	cr_assert_eq(script_next(s), -EPROTO);
	cr_assert_not_null(strstr(s->q.reason, "not those of ADVISE"));
}

static void refuse_list_end(const char *bytes, size_t len, const char *reason)
{
	cleanup_free struct script *s = script_begin(IN_LIST);

	pen_cstr(&s->pen, "all");
	pen_be64(&s->pen, 8 * 4096);
	pen_bytes(&s->pen, bytes, len);
	cr_assert_eq(script_next(s), QSTREAM_BLOCK);
	cr_assert_eq(script_next(s), -EPROTO);
	cr_assert_not_null(strstr(s->q.reason, reason), "%s", s->q.reason);
}

Test(qstream, list_ends_where_its_total_says)
{
	refuse_list_end(BYTES("\1b\0\0\0\0\0\0\x10\0\0\0\0\0\0\0"), "does not end");
	refuse_list_end(BYTES("\0\0\0\0\0\0\2\0"), "turn off the multifd capability");
}

/* At the end of a list of one block, its last 13 bytes yet to come. */
static struct script *at_list_end(void)
{
	struct script *s = script_begin(FRESH);

	script_put_step(s, SETUP);
	qstream_put_advise(&s->pen, 4096, 4096);
	script_put_list_head(&s->pen, 4096);
	pen_cstr(&s->pen, "all");
	pen_be64(&s->pen, 4096);
	pen_be64(&s->pen, 0x10);
	while (s->q.list_left || !s->q.n_blocks)
		cr_assert_gt(script_next(s), 0);
	return s;
}

/* Whether there are footers shows only behind the last word, so that is no end yet. */
Test(qstream, the_end_of_the_list_waits_for_the_footer)
{
	static const size_t wanted[] = {8, 8, 8, 8, 8, 8, 8, 8, 9, 13, 13, 13, 13};
	cleanup_free struct script *s = at_list_end();

	pen_u8(&s->pen, 0x7e);
	pen_be32(&s->pen, SCRIPT_SECTION);
	for (size_t len = 0; len < 13; len++) {
		cr_assert_eq(qstream_next(&s->q, s->buf + s->at, len, &s->rec), QSTREAM_NEED_MORE);
		cr_assert_eq(s->rec.need, wanted[len], "%zu bytes", len);
	}
	cr_assert_eq(script_next(s), QSTREAM_BLOCKS_END);
}

Test(qstream, the_footer_of_the_list_is_its_own)
{
	cleanup_free struct script *s = at_list_end();

	pen_u8(&s->pen, 0x7e);
	pen_be32(&s->pen, SCRIPT_SECTION + 1);
	cr_assert_eq(script_next(s), -EPROTO);
	cr_assert_not_null(strstr(s->q.reason, "footer"));
}

Test(qstream, a_block_is_listed_once)
{
	cleanup_free struct script *s = script_begin(IN_LIST);

	for (int i = 0; i < 2; i++) {
		pen_cstr(&s->pen, "twin");
		pen_be64(&s->pen, 4 * 4096);
	}
	pen_be64(&s->pen, 0x10);
	cr_assert_eq(script_next(s), QSTREAM_BLOCK);
	cr_assert_eq(script_next(s), -EPROTO);
	cr_assert_not_null(strstr(s->q.reason, "listed twice"));
	cr_assert_str_eq(s->q.detail, "twin");
}

/* @n blocks of one page; returns what the list ended with. */
static int list_of(unsigned n, size_t name_len)
{
	cleanup_free struct qstream_block *many = calloc(n, sizeof(*many));
	cleanup_free struct script *s = script_begin(FRESH);
	int what;

	cr_assert_not_null(many);
	for (unsigned i = 0; i < n; i++) {
		memset(many[i].name, 'n', name_len);
		many[i].name[0] = (char)('!' + i);
		many[i].length = many[i].page_size = 4096;
	}
	script_put_step(s, SETUP);
	qstream_put_advise(&s->pen, 4096, 4096);
	qstream_put_blocks(&s->pen, SCRIPT_SECTION, many, n, 4096);
	cr_assert_not(s->pen.bad);
	while ((what = script_next(s)) > 0 && what != QSTREAM_BLOCKS_END)
		if (what == QSTREAM_BLOCK)
			expect_block(s, &many[s->q.n_blocks - 1]);
	if (what < 0)
		cr_assert_not_null(strstr(s->q.reason, "more blocks than"));
	return what;
}

Test(qstream, limits_of_the_block_list)
{
	cr_assert_eq(list_of(QSTREAM_MAX_BLOCKS, 255), QSTREAM_BLOCKS_END);
	cr_assert_eq(list_of(QSTREAM_MAX_BLOCKS, 1), QSTREAM_BLOCKS_END);
	cr_assert_eq(list_of(QSTREAM_MAX_BLOCKS + 1, 1), -EPROTO);
}

Test(qstream, lengths_near_the_top_of_the_address_space)
{
	cleanup_free struct script *s = script_begin(ADVISED);

	script_put_list_head(&s->pen, -8192ull);
	pen_cstr(&s->pen, "a");
	pen_be64(&s->pen, -12288ull);
	pen_cstr(&s->pen, "b");
	pen_be64(&s->pen, 8192);
	pen_be64(&s->pen, 0x10);
	cr_assert_eq(script_next(s), QSTREAM_SECTION);
	cr_assert_eq(script_next(s), QSTREAM_BLOCK);
	cr_assert_eq(script_next(s), -EPROTO, "the sum must not wrap");
	cr_assert_not_null(strstr(s->q.reason, "longer together"));
}

/* Old machine types: no configuration, no footers (their absence is seen once, behind the list). */
Test(qstream, machine_types_without_configuration_and_footers)
{
	cleanup_free struct script *s = script_begin(FRESH);

	pen_be32(&s->pen, 0x5145564d);
	pen_be32(&s->pen, 3);
	qstream_put_advise(&s->pen, 4096, 4096);
	script_put_list_head(&s->pen, 4096);
	pen_cstr(&s->pen, "ram0");
	pen_be64(&s->pen, 4096);
	pen_be64(&s->pen, 0x10);
	qstream_put_ram_begin(&s->pen, false, SCRIPT_SECTION);
	script_put_page(&s->pen, 0, "ram0");
	pen_be64(&s->pen, 0x10);
	script_put_package(&s->pen);
	cr_assert_eq(script_next(s), QSTREAM_HEADER);
	cr_assert_str_empty(s->rec.header.machine);
	cr_assert_eq(script_next(s), QSTREAM_ADVISE);
	cr_assert_eq(script_next(s), QSTREAM_SECTION);
	cr_assert_eq(script_next(s), QSTREAM_BLOCK);
	cr_assert_eq(script_next(s), QSTREAM_BLOCKS_END);
	cr_assert_not(s->q.footers);
	cr_assert_eq(script_next(s), QSTREAM_SECTION);
	cr_assert_eq(script_next(s), QSTREAM_PAGE);
	cr_assert_eq(script_next(s), QSTREAM_SECTION);
	cr_assert_eq(s->rec.used, 8);
	cr_assert_eq(script_next(s), QSTREAM_PACKAGED);
}

Test(qstream, configuration_with_every_part)
{
	cleanup_free struct script *s = script_begin(AT_CONFIGURATION);
	static const char parts[] = "\5\036configuration/target-page-bits\0\0\0\1\0\0\0\14"
				    "\5\032configuration/capabilities\0\0\0\1\0\0\0\0"
				    "\5\022configuration/uuid\0\0\0\1"
				    "0123456789abcdef";

	pen_bytes(&s->pen, parts, sizeof(parts) - 1);
	for (size_t len = 0; len < pen_used(&s->pen); len++)
		cr_assert_eq(qstream_next(&s->q, s->buf, len, &s->rec), QSTREAM_NEED_MORE);
	cr_assert_eq(script_next(s), QSTREAM_NEED_MORE, "another part may follow");
	cr_assert_eq(s->rec.need, pen_used(&s->pen) + 1);
	qstream_put_advise(&s->pen, 4096, 16384);
	cr_assert_eq(script_next(s), QSTREAM_HEADER);
	cr_assert_str_eq(s->rec.header.machine, "pc-q35-9.2");
	cr_assert_eq(s->rec.header.page_bits, 12);
	cr_assert(s->rec.header.has_uuid);
	cr_assert_arr_eq(s->rec.header.uuid, "0123456789abcdef", 16);
	cr_assert_eq(script_next(s), -EPROTO);
	cr_assert_not_null(strstr(s->q.reason, "not that of the header"));
}

Test(qstream, a_configuration_without_an_end_is_refused)
{
	cleanup_free struct script *s = script_begin(AT_CONFIGURATION);
	static const char uuid[] = "\5\022configuration/uuid\0\0\0\1"
				   "0123456789abcdef";
	int what = QSTREAM_NEED_MORE;

	while (what == QSTREAM_NEED_MORE &&
	       pen_used(&s->pen) <= QSTREAM_RECORD_MAX + sizeof(uuid)) {
		pen_bytes(&s->pen, uuid, sizeof(uuid) - 1);
		what = script_next(s);
	}
	cr_assert_eq(what, -EPROTO);
	cr_assert_not_null(strstr(s->q.reason, "longer than any"));
}

Test(qstream, the_longest_records_fit_their_limit)
{
	cleanup_free struct script *s = script_begin(FRESH);
	static const uint8_t page[65536];
	struct qstream_block block = {.length = 65536, .page_size = 65536};

	memset(block.name, 'b', 255);
	script_put_step(s, SETUP);
	qstream_put_advise(&s->pen, 65536, 65536);
	qstream_put_blocks(&s->pen, SCRIPT_SECTION, &block, 1, 65536);
	qstream_put_ram_begin(&s->pen, false, SCRIPT_SECTION);
	qstream_put_page_head(&s->pen, 0, block.name, false);
	for (int what = 1; what > 0;)
		what = script_next(s);
	cr_assert_null(s->q.reason);
	cr_assert_eq(s->rec.need, 8 + 256 + 65536);
	cr_assert_lt(s->rec.need, QSTREAM_RECORD_MAX);
	pen_bytes(&s->pen, page, sizeof(page));
	cr_assert_eq(script_next(s), QSTREAM_PAGE);
	cr_assert_eq(s->rec.page.len, 65536);
	cr_assert_eq(s->rec.page.data, s->buf + s->at - 65536);
}

Test(qstream, discard_yields_its_ranges_one_by_one)
{
	cleanup_free struct script *s = script_begin(PRECOPY);
	uint64_t ranges[12][2];

	for (unsigned i = 0; i < 12; i++) {
		ranges[i][0] = 4096 * (i % 8);
		ranges[i][1] = 4096;
	}
	qstream_put_discard(&s->pen, "small", ranges, 12);
	qstream_put_discard(&s->pen, "/objects/huge", &(uint64_t[2]){0, 4 * MIB}, 1);
	qstream_put_ping(&s->pen, 2);
	for (unsigned i = 0; i < 12; i++) {
		cr_assert_eq(script_next(s), QSTREAM_DISCARD, "%s", s->q.reason);
		cr_assert_eq(s->rec.discard.block, 0);
		cr_assert_eq(s->rec.discard.start, ranges[i][0]);
		cr_assert_eq(s->rec.discard.length, ranges[i][1]);
		cr_assert_eq(s->q.discard_left, 11 - i);
	}
	cr_assert_eq(script_next(s), QSTREAM_DISCARD);
	cr_assert_eq(s->rec.discard.block, 1);
	cr_assert_eq(s->rec.discard.length, 4 * MIB);
	cr_assert_eq(script_next(s), QSTREAM_PING);
	cr_assert_eq(s->rec.ping, 2);
}

Test(qstream, a_bad_range_is_refused_where_it_stands)
{
	cleanup_free struct script *s = script_begin(PRECOPY);
	static const uint64_t ranges[][2] = {{0, 4096}, {4096, 4096}, {8 * 4096, 4096}};

	qstream_put_discard(&s->pen, "small", ranges, 3);
	cr_assert_eq(script_next(s), QSTREAM_DISCARD);
	cr_assert_eq(script_next(s), QSTREAM_DISCARD);
	uint64_t position = s->q.position;

	cr_assert_eq(script_next(s), -EPROTO);
	cr_assert_eq(s->q.position, position);
	cr_assert_str_eq(s->q.detail, "small");
}

Test(qstream, pages_of_every_kind)
{
	cleanup_free struct script *s = script_begin(IN_PART);

	script_put_page(&s->pen, 7 * 4096, "small");
	qstream_put_page_head(&s->pen, 6 * 4096, NULL, true);
	qstream_put_page_head(&s->pen, 0, "rom", true);
	script_put_page(&s->pen, 0, NULL);
	pen_be64(&s->pen, 0x60);
	pen_bytes(&s->pen, "\1\0\3abc", 6);
	cr_assert_eq(script_next(s), QSTREAM_PAGE);
	cr_assert_eq(s->rec.page.block, 0);
	cr_assert_eq(s->rec.page.offset, 7 * 4096);
	cr_assert_eq(s->rec.page.len, 4096);
	cr_assert_eq(s->rec.page.data[0], 1);
	cr_assert_eq(script_next(s), QSTREAM_ZERO);
	cr_assert_eq(s->rec.page.block, 0);
	cr_assert_eq(s->rec.page.offset, 6 * 4096);
	cr_assert_null(s->rec.page.data);
	cr_assert_eq(script_next(s), QSTREAM_ZERO);
	cr_assert_eq(s->rec.page.block, 2);
	cr_assert_eq(script_next(s), QSTREAM_PAGE);
	cr_assert_eq(s->rec.page.block, 2);
	cr_assert_eq(script_next(s), QSTREAM_XBZRLE);
	cr_assert_eq(s->rec.page.len, 3);
	cr_assert_arr_eq(s->rec.page.data, "abc", 3);
}

Test(qstream, last_block_outlives_its_section)
{
	cleanup_free struct script *s = script_begin(IN_LATER_PART);

	script_put_page(&s->pen, 4096, NULL);
	cr_assert_eq(script_next(s), QSTREAM_PAGE);
	cr_assert_eq(s->rec.page.block, 0);
	cr_assert_eq(s->rec.page.offset, 4096);
}

/* A page is short until its last byte; then it wants exactly the bytes of the record. */
Test(qstream, a_page_in_pieces)
{
	cleanup_free struct script *s = script_begin(IN_PART);

	script_put_page(&s->pen, 0, "small");
	for (size_t len = 0; len < 8 + 6 + 4096; len++) {
		cr_assert_eq(qstream_next(&s->q, s->buf + s->at, len, &s->rec), QSTREAM_NEED_MORE);
		cr_assert_eq(s->rec.used, 0);
		if (len >= 8 + 6)
			cr_assert_eq(s->rec.need, 8 + 6 + 4096);
	}
	cr_assert_eq(script_next(s), QSTREAM_PAGE);
}

/* QEMU >= 10.1 flushes with one; a source whose pages all go to the urgent channel sends many. */
Test(qstream, empty_sections_give_their_bytes_back)
{
	cleanup_free struct script *s = script_begin(PRECOPY);

	for (unsigned i = 0; i < 2; i++) {
		qstream_put_ram_begin(&s->pen, false, SCRIPT_SECTION);
		qstream_put_ram_end(&s->pen, SCRIPT_SECTION);
		cr_assert_eq(script_next(s), QSTREAM_SECTION);
		cr_assert_eq(s->rec.used, 5);
		cr_assert_eq(script_next(s), QSTREAM_SECTION);
		cr_assert_eq(s->rec.used, 13);
		cr_assert_eq(script_next(s), QSTREAM_NEED_MORE);
	}
}

Test(qstream, package_waits_for_its_body)
{
	cleanup_free struct script *s = script_begin(PRECOPY);

	script_put_package(&s->pen);
	qstream_put_ping(&s->pen, 4);
	cr_assert_eq(script_next(s), QSTREAM_PACKAGED);
	cr_assert_eq(s->rec.packaged, 5 + 6 + 9 + 9 + 5);
	cr_assert(s->q.packaged);
	cr_assert_eq(script_next(s), QSTREAM_NEED_MORE);
	cr_assert_eq(s->rec.need, s->q.body_left);
	qstream_took(&s->q, 30);
	s->at += 30;
	cr_assert_eq(script_next(s), QSTREAM_NEED_MORE);
	cr_assert_eq(s->rec.need, 4);
	qstream_took(&s->q, 4);
	s->at += 4;
	cr_assert_eq(script_next(s), QSTREAM_PING);
	cr_assert_eq(s->q.position, s->at);
}

Test(qstream, the_largest_package_does_not_ask_for_more_than_a_window)
{
	cleanup_free struct script *s = script_begin(PRECOPY);

	qstream_put_command(&s->pen, QCMD_PACKAGED, "\377\377\377\377", 4);
	cr_assert_eq(script_next(s), QSTREAM_PACKAGED);
	cr_assert_eq(s->rec.packaged, UINT32_MAX);
	cr_assert_eq(script_next(s), QSTREAM_NEED_MORE);
	cr_assert_eq(s->rec.need, QSTREAM_RECORD_MAX);
	qstream_took(&s->q, UINT32_MAX);
	script_put_step(s, DONE);
	s->at = s->pen.at - s->buf - 18;
	cr_assert_eq(script_next(s), QSTREAM_SECTION);
	cr_assert_eq(script_next(s), QSTREAM_RAM_END);
	cr_assert_gt(s->q.position, UINT32_MAX);
}

Test(qstream, end_of_ram_may_carry_pages)
{
	cleanup_free struct script *s = script_begin(POSTCOPY);

	qstream_put_ram_begin(&s->pen, true, SCRIPT_SECTION);
	script_put_page(&s->pen, 0, "rom");
	qstream_put_ram_end(&s->pen, SCRIPT_SECTION);
	qstream_put_ping(&s->pen, 9);
	pen_u8(&s->pen, 0);
	cr_assert_eq(script_next(s), QSTREAM_SECTION);
	cr_assert_eq(script_next(s), QSTREAM_PAGE);
	cr_assert_eq(script_next(s), QSTREAM_RAM_END);
	cr_assert_eq(script_next(s), QSTREAM_PING);
	cr_assert_eq(script_next(s), QSTREAM_EOF);
	cr_assert_eq(script_next(s), QSTREAM_NEED_MORE);
}

static void expect_tail(const char *bytes, size_t len)
{
	cleanup_free struct script *s = script_begin(PRECOPY_DONE);
	size_t at = s->at;

	pen_bytes(&s->pen, bytes, len);
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(script_next(s), QSTREAM_TAIL, "for ever");
		cr_assert_eq(s->rec.used, 0);
		cr_assert_eq(s->at, at);
	}
}

Test(qstream, precopy_ends_in_the_tail)
{
	expect_tail(BYTES("\4"));
	expect_tail(BYTES("\4\0\0\0\0\5timer"));
	expect_tail(BYTES("\0\6\0\0\0\2{}"));
}

Test(qstream, recovery_keeps_section_and_blocks)
{
	cleanup_free struct script *s = script_begin(RECOVERY);

	qstream_put_command(&s->pen, QCMD_RECV_BITMAP, "\3rom", 4);
	qstream_put_command(&s->pen, QCMD_RESUME, NULL, 0);
	qstream_put_ram_begin(&s->pen, false, SCRIPT_SECTION);
	script_put_page(&s->pen, 0, "rom");
	cr_assert_eq(s->q.position, 0);
	cr_assert_eq(script_next(s), QSTREAM_RECV_BITMAP);
	cr_assert_eq(s->rec.recv_bitmap.block, 2);
	cr_assert_eq(script_next(s), QSTREAM_RESUME);
	cr_assert_eq(script_next(s), QSTREAM_SECTION);
	cr_assert_eq(script_next(s), QSTREAM_PAGE);
}

Test(qstream, the_last_block_is_forgotten_with_the_connection)
{
	cleanup_free struct script *first = script_begin(POSTCOPY);
	cleanup_free struct script *s = script_begin(FRESH);

	qstream_put_ram_begin(&first->pen, false, SCRIPT_SECTION);
	script_put_page(&first->pen, 0, "small");
	cr_assert_eq(script_next(first), QSTREAM_SECTION);
	cr_assert_eq(script_next(first), QSTREAM_PAGE);
	qstream_init(&s->q, QSTREAM_URGENT, &first->q);
	script_put_page(&s->pen, 0, NULL);
	cr_assert_eq(script_next(s), -EPROTO);
	cr_assert_not_null(strstr(s->q.reason, "before any with one"));
}

Test(qstream, urgent_channel_ends_with_its_word)
{
	cleanup_free struct script *s = script_begin(URGENT);

	qstream_put_page_head(&s->pen, 0, "rom", true);
	script_put_page(&s->pen, 0, NULL);
	script_put_page(&s->pen, 0, "small");
	pen_be64(&s->pen, 0x10);
	cr_assert_eq(script_next(s), QSTREAM_ZERO);
	cr_assert_eq(script_next(s), QSTREAM_PAGE);
	cr_assert_eq(s->rec.page.block, 2);
	cr_assert_eq(script_next(s), QSTREAM_PAGE);
	cr_assert_eq(script_next(s), QSTREAM_EOF);
	cr_assert_eq(script_next(s), QSTREAM_NEED_MORE);
	pen_u8(&s->pen, 0);
	cr_assert_eq(script_next(s), -EPROTO);
}
