/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A mapped-ram file: its bytes against those that QEMU writes, the places of everything, and what
 * cannot be written.
 */
#include "config.h"

#include "wire/qmapped.h"

#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "wire/qstream.h"

#define PAGE 4096u

static struct qmapped_plan plan_of(struct qmapped_block *blocks, unsigned n)
{
	return (struct qmapped_plan){ .machine = "pc", .ram_section = 2, .target_page = PAGE,
				      .blocks = blocks, .n_blocks = n };
}

/* header, configuration with its capability, START of ram */
static const uint8_t golden_head[] = {
	'Q', 'E', 'V', 'M', 0, 0, 0, 3, 7, 0, 0, 0, 2, 'p', 'c',
	5, 26, 'c', 'o', 'n', 'f', 'i', 'g', 'u', 'r', 'a', 't', 'i', 'o', 'n', '/',
	'c', 'a', 'p', 'a', 'b', 'i', 'l', 'i', 't', 'i', 'e', 's', 0, 0, 0, 1,
	0, 0, 0, 1, 10, 'm', 'a', 'p', 'p', 'e', 'd', '-', 'r', 'a', 'm',
	1, 0, 0, 0, 2, 3, 'r', 'a', 'm', 0, 0, 0, 0, 0, 0, 0, 4,
	0, 0, 0, 0, 0, 0x11, 0x00, 0x04,
};

Test(qmapped, the_bytes_of_the_heads)
{
	struct qmapped_block blocks[] = { { .name = "m", .length = 16 * PAGE },
					  { .name = "rom", .length = 256 * PAGE } };
	struct qmapped_plan plan = plan_of(blocks, 2);
	const uint8_t golden_block[] = {
		1, 'm', 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x10, 0,
		0, 0, 0, 0, 0, 0, 0, sizeof(golden_head) + 38, 0, 0, 0, 0, 0, 0x10, 0, 0,
	};
	const uint8_t golden_end[] = {
		0, 0, 0, 0, 0, 0, 0, 0x10, 0x7e, 0, 0, 0, 2,
		2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0x10, 0x7e, 0, 0, 0, 2,
		3, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0x10, 0x7e, 0, 0, 0, 2,
	};
	uint8_t bytes[QMAPPED_HEAD_MAX];
	struct pen p = pen_init(bytes, sizeof(bytes));
	const char *why;

	cr_assert_eq(qmapped_lay(&plan, &why), 0, "%s", why);
	qmapped_put_head(&p, &plan);
	cr_assert_not(p.bad);
	cr_assert_eq(pen_used(&p), sizeof(golden_head));
	cr_expect_arr_eq(bytes, golden_head, sizeof(golden_head));
	p = pen_init(bytes, sizeof(bytes));
	qmapped_put_block(&p, &plan, 0);
	cr_assert_eq(pen_used(&p), sizeof(golden_block));
	cr_expect_arr_eq(bytes, golden_block, sizeof(golden_block));
	p = pen_init(bytes, sizeof(bytes));
	qmapped_put_ram_end(&p, &plan);
	cr_assert_eq(pen_used(&p), sizeof(golden_end));
	cr_expect_arr_eq(bytes, golden_end, sizeof(golden_end));
	p = pen_init(bytes, sizeof(bytes));
	qmapped_put_tail(&p);
	cr_assert_eq(pen_used(&p), 8);
	cr_expect_arr_eq(bytes, "\0\6\0\0\0\2{}", 8);
}

Test(qmapped, everything_has_a_place_of_its_own)
{
	struct qmapped_block blocks[] = {
		{ .name = "one", .length = PAGE }, { .name = "a", .length = 64 * PAGE },
		{ .name = "much", .length = 1ull << 40 }, { .name = "last", .length = 65 * PAGE },
	};
	struct qmapped_plan plan = plan_of(blocks, 4);
	uint64_t at = 0;
	const char *why;

	cr_assert_eq(qmapped_lay(&plan, &why), 0);
	for (unsigned i = 0; i < 4; i++) {
		const struct qmapped_block *b = &blocks[i];
		uint64_t pages = b->length / PAGE;

		cr_expect(i == 0 ? b->head_at > 0 : b->head_at == at);
		cr_expect_eq(b->bitmap_at, b->head_at + 1 + strlen(b->name) + 8 + 28);
		cr_expect_eq(b->bitmap_len % 8, 0);
		cr_expect(b->bitmap_len * 8 >= pages && b->bitmap_len * 8 < pages + 64);
		cr_expect_eq(b->pages_at % QMAPPED_PAGES_ALIGN, 0);
		cr_expect(b->pages_at >= b->bitmap_at + b->bitmap_len);
		cr_expect(b->pages_at < b->bitmap_at + b->bitmap_len + QMAPPED_PAGES_ALIGN);
		at = b->pages_at + b->length;
	}
	cr_expect_eq(plan.end_at, at);
}

Test(qmapped, the_longest_names_fit)
{
	char name[256], machine[256];
	struct qmapped_block block = { .name = name, .length = PAGE };
	struct qmapped_plan plan = plan_of(&block, 1);
	uint8_t bytes[QMAPPED_HEAD_MAX];
	struct pen p = pen_init(bytes, sizeof(bytes));
	const char *why;

	memset(name, 'n', 255);
	memset(machine, 'm', 255);
	name[255] = machine[255] = '\0';
	plan.machine = machine;
	plan.page_bits = 12;
	cr_assert_eq(qmapped_lay(&plan, &why), 0);
	qmapped_put_head(&p, &plan);
	cr_expect_not(p.bad);
	p = pen_init(bytes, sizeof(bytes));
	qmapped_put_block(&p, &plan, 0);
	cr_expect_not(p.bad);
}

Test(qmapped, what_cannot_be_written)
{
	struct qmapped_block two[] = { { .name = "m", .length = PAGE },
				       { .name = "n", .length = PAGE } };
	struct qmapped_plan good = plan_of(two, 2), plan;
	const char *why;

#define REFUSED(change, text)                                                                      \
	do {                                                                                       \
		two[0] = (struct qmapped_block){ .name = "m", .length = PAGE };                    \
		two[1] = (struct qmapped_block){ .name = "n", .length = PAGE };                    \
		plan = good;                                                                       \
		change;                                                                            \
		cr_expect_eq(qmapped_lay(&plan, &why), -EINVAL, #change);                          \
		cr_expect(why && strstr(why, text), #change);                                      \
	} while (0)
	REFUSED(plan.machine = "", "machine");
	REFUSED(plan.machine = NULL, "machine");
	REFUSED(plan.target_page = 0, "page size");
	REFUSED(plan.target_page = 4097, "page size");
	REFUSED(plan.n_blocks = 0, "no block");
	REFUSED(plan.n_blocks = QSTREAM_MAX_BLOCKS + 1, "more than");
	REFUSED(two[1].name = "m", "same name");
	REFUSED(two[1].name = "", "name of a block");
	REFUSED(two[0].length = 0, "whole pages");
	REFUSED(two[0].length = PAGE + 1, "whole pages");
	REFUSED(two[0].length = INT64_MAX & ~(PAGE - 1ull), "larger than");
	REFUSED(two[0].length = UINT64_MAX & ~(PAGE - 1ull), "larger than");
}
