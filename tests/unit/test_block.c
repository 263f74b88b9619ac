/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Blocks: names, lengths and page sizes come from peers (F18), so every refusal is here.
 */
#include "config.h"

#include "core/block.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "lib/rng.h"

#define GIB (1ull << 30)

Test(block, pages_of_all_blocks_are_one_row)
{
	struct block_table t = { 0 };

	cr_assert_eq(block_add(&t, "ram", 8 * 4096, 4096, BLOCK_SHARED), 0);
	cr_assert_eq(block_add(&t, "huge", 6 << 20, 2 << 20, BLOCK_PRIVATE), 1);
	cr_assert_eq(block_add(&t, "rom", 4096, 4096, BLOCK_HELD), 2);
	cr_assert_eq(t.n, 3);
	cr_assert_eq(t.pages, 8 + 3 + 1);
	cr_assert_eq(t.block[1].first, 8);
	cr_assert_eq(t.block[1].pages, 3);
	cr_assert_eq(t.block[1].page_shift, 21);
	cr_assert_eq(t.block[1].kind, BLOCK_PRIVATE);
	cr_assert_eq(t.block[2].first, 11);
	cr_assert_str_eq(t.block[2].name, "rom");
}

Test(block, offsets_and_page_numbers_translate_both_ways)
{
	struct block_table t = { 0 };
	struct block *b;

	block_add(&t, "ram", 8 * 4096, 4096, BLOCK_SHARED);
	block_add(&t, "huge", 6 << 20, 2 << 20, BLOCK_SHARED);
	b = &t.block[1];
	cr_assert_eq(block_page(b, 0), 8);
	cr_assert_eq(block_page(b, (2 << 20) - 1), 8);
	cr_assert_eq(block_page(b, 2 << 20), 9);
	cr_assert_eq(block_page(b, (6 << 20) - 1), 10);
	for (uint64_t page = 8; page < 11; page++)
		cr_assert_eq(block_page(b, block_offset(b, page)), page);
}

Test(block, every_page_has_its_block)
{
	struct block_table t = { 0 };
	struct rng rng = { .state = rng_seed() };
	uint64_t page = 0;

	for (unsigned i = 0; i < BLOCK_MAX; i++) {
		char name[16];

		snprintf(name, sizeof(name), "%u", i);
		cr_assert_eq(
			block_add(&t, name, rng_between(&rng, 1, 50) * 4096, 4096, BLOCK_SHARED),
			(int)i);
	}
	for (unsigned i = 0; i < BLOCK_MAX; i++)
		for (uint64_t k = 0; k < t.block[i].pages; k++)
			cr_assert_eq(block_of_page(&t, page++), &t.block[i]);
	cr_assert_eq(page, t.pages);
}

Test(block, names)
{
	struct block_table t = { 0 };
	char name[BLOCK_NAME + 1];

	memset(name, 'n', sizeof(name) - 1);
	name[BLOCK_NAME] = '\0';
	cr_expect_eq(block_add(&t, name, 4096, 4096, BLOCK_SHARED), -EINVAL, "no room for the end");
	name[BLOCK_NAME - 1] = '\0';
	cr_expect_eq(block_add(&t, name, 4096, 4096, BLOCK_SHARED), 0);
	cr_expect_eq(block_add(&t, name, 4096, 4096, BLOCK_SHARED), -EEXIST);
	cr_expect_eq(block_add(&t, "", 4096, 4096, BLOCK_SHARED), -EINVAL);
	cr_expect_eq(block_find(&t, name), 0);
	cr_expect_eq(block_find(&t, "pc.ram"), -ENOENT);
	cr_expect_eq(block_find(&t, ""), -ENOENT);
	cr_expect_eq(t.n, 1);
	cr_expect_eq(t.pages, 1);
}

Test(block, lengths_and_page_sizes)
{
	static const struct {
		uint64_t length, page_size;
		int ret;
	} rows[] = {
		{ 4096, 4096, 0 },
		{ GIB, GIB, 0 },
		{ 4096, 0, -EINVAL },
		{ 4096, 4095, -EINVAL },
		{ 4096, 6144, -EINVAL },
		{ 0, 4096, -EINVAL },
		{ 4097, 4096, -EINVAL },
		{ 4096, 8192, -EINVAL },
		{ 1ull << 63, 1ull << 63, -EINVAL },
		{ 4 * GIB, 4 * GIB, -EINVAL },
		{ 2 * GIB, 2 * GIB, 0 },
		{ UINT64_MAX, 1, -ENOSPC },
		{ UINT64_MAX & ~4095ull, 4096, -ENOSPC },
		{ 1ull << 52, 4096, 0 },
		{ (1ull << 52) + 4096, 4096, -ENOSPC },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct block_table t = { 0 };

		cr_expect_eq(block_add(&t, "x", rows[i].length, rows[i].page_size, BLOCK_SHARED),
			     rows[i].ret, "row %zu", i);
		cr_expect_eq(t.n, rows[i].ret == 0, "row %zu", i);
	}
}

Test(block, the_sum_of_pages_does_not_wrap)
{
	struct block_table t = { 0 };

	cr_assert_eq(block_add(&t, "a", 1ull << 51, 4096, BLOCK_SHARED), 0);
	cr_assert_eq(block_add(&t, "b", 1ull << 51, 4096, BLOCK_SHARED), 1);
	cr_assert_eq(block_add(&t, "c", 4096, 4096, BLOCK_SHARED), -ENOSPC);
	cr_assert_eq(t.pages, 1ull << 40);
}

Test(block, a_full_table_refuses_and_keeps_what_it_has)
{
	struct block_table t = { 0 };
	char name[16];

	for (unsigned i = 0; i < BLOCK_MAX; i++) {
		snprintf(name, sizeof(name), "%u", i);
		cr_assert_eq(block_add(&t, name, 4096, 4096, BLOCK_SHARED), (int)i);
	}
	cr_assert_eq(block_add(&t, "more", 4096, 4096, BLOCK_SHARED), -ENOSPC);
	cr_assert_eq(block_add(&t, "63", 4096, 4096, BLOCK_SHARED), -EEXIST);
	cr_assert_eq(t.n, BLOCK_MAX);
	cr_assert_eq(block_find(&t, "63"), 63);
}
