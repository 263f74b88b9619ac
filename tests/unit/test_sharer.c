/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sharers: slots and generations (O10), mappings in pieces and aliases (O13).
 */
#include "config.h"

#include "core/sharer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "lib/rng.h"

static struct sharer_table *new_table(void)
{
	struct sharer_table *t = malloc(sizeof(*t));

	cr_assert_not_null(t);
	sharer_table_init(t);
	return t;
}

static struct mapping map(uint64_t address, uint64_t length, unsigned block, uint64_t offset)
{
	return (struct mapping){ .address = address, .length = length, .block = (uint16_t)block,
				 .offset = offset };
}

Test(sharer, an_empty_table_knows_nobody)
{
	cleanup_free struct sharer_table *t = new_table();

	cr_assert_eq(t->main, -1);
	for (unsigned slot = 0; slot < 2 * SHARER_MAX; slot++)
		for (uint32_t generation = 0; generation < 3; generation++)
			cr_assert_null(
				sharer_get(t, (struct sharer_ref){ (uint16_t)slot, generation }));
}

Test(sharer, all_slots_then_full)
{
	cleanup_free struct sharer_table *t = new_table();
	struct sharer_ref ref[SHARER_MAX], more = { 7, 7 };
	bool seen[SHARER_MAX] = { false };

	for (unsigned i = 0; i < SHARER_MAX; i++) {
		cr_assert_eq(sharer_add(t, false, &ref[i]), 0);
		cr_assert_not(seen[ref[i].slot]);
		seen[ref[i].slot] = true;
		cr_assert(sharer_get(t, ref[i])->active);
	}
	cr_assert_eq(sharer_add(t, false, &more), -ENOSPC);
	cr_assert_eq(more.slot, 7, "untouched");
	sharer_remove(t, ref[13]);
	cr_assert_eq(sharer_add(t, false, &more), 0);
	cr_assert_eq(more.slot, ref[13].slot);
}

Test(sharer, O10_a_reused_slot_has_a_new_generation)
{
	cleanup_free struct sharer_table *t = new_table();
	struct sharer_ref old[4 * SHARER_MAX];

	for (unsigned i = 0; i < ARRAY_LEN(old); i++) {
		cr_assert_eq(sharer_add(t, false, &old[i]), 0);
		for (unsigned k = 0; k < i; k++) {
			cr_assert_null(sharer_get(t, old[k]), "%u is stale", k);
			cr_assert(old[k].slot != old[i].slot ||
				  old[k].generation != old[i].generation);
		}
		sharer_get(t, old[i])->stats.faults = i + 1;
		sharer_remove(t, old[i]);
		cr_assert_eq(t->sharer[old[i].slot].stats.faults, i + 1, "statistics stay");
		sharer_remove(t, old[i]);
	}
	cr_assert_eq(old[SHARER_MAX].generation, 2, "slots that were never used come first");
}

Test(sharer, a_new_occupant_inherits_nothing)
{
	cleanup_free struct sharer_table *t = new_table();
	struct sharer_ref ref;
	struct mapping m = map(4096, 4096, 0, 0);
	struct sharer *s;

	for (unsigned i = 0; i < SHARER_MAX + 1; i++) {
		cr_assert_eq(sharer_add(t, false, &ref), 0);
		s = sharer_get(t, ref);
		cr_assert_eq(s->n_mappings, 0);
		cr_assert_eq(s->waiting, 0);
		cr_assert_eq(s->stats.faults, 0);
		cr_assert_eq(sharer_map(s, &m), 0);
		s->waiting = 3;
		s->stats.faults = 9;
		sharer_remove(t, ref);
		cr_assert_eq(s->n_mappings, 0, "an ended sharer maps nothing");
	}
}

Test(sharer, the_generation_zero_is_skipped_when_it_wraps)
{
	cleanup_free struct sharer_table *t = new_table();
	struct sharer_ref ref;

	for (unsigned i = 0; i < SHARER_MAX; i++)
		t->sharer[i].generation = UINT32_MAX;
	cr_assert_eq(sharer_add(t, false, &ref), 0);
	cr_assert_eq(ref.generation, 1);
}

Test(sharer, there_is_one_main_sharer_at_a_time)
{
	cleanup_free struct sharer_table *t = new_table();
	struct sharer_ref main, other, next;

	cr_assert_eq(sharer_add(t, false, &other), 0);
	cr_assert_eq(sharer_add(t, true, &main), 0);
	cr_assert_eq(t->main, main.slot);
	cr_assert_eq(sharer_add(t, true, &next), -EEXIST);
	sharer_remove(t, other);
	cr_assert_eq(t->main, main.slot);
	sharer_remove(t, main);
	cr_assert_eq(t->main, -1);
	cr_assert_eq(sharer_add(t, true, &next), 0);
	cr_assert_eq(t->main, next.slot);
}

Test(sharer, mappings_refuse_overlap_and_wrap)
{
	static const struct {
		uint64_t address, length;
		int ret;
	} rows[] = {
		{ 0x10000, 0x4000, 0 },
		{ 0x20000, 0x4000, 0 },
		{ 0x10000, 0x4000, -EINVAL },		/* the same */
		{ 0x11000, 0x1000, -EINVAL },		/* inside */
		{ 0xf000, 0x1001, -EINVAL },		/* its first byte */
		{ 0x13fff, 0x1000, -EINVAL },		/* its last byte */
		{ 0xf000, 0x20000, -EINVAL },		/* around both */
		{ 0x18000, 0x8001, -EINVAL },		/* into the next */
		{ 0x14000, 0xc000, 0 },			/* exactly between */
		{ 0xf000, 0x1000, 0 },			/* exactly before */
		{ 0x30000, 0, -EINVAL },
		{ 0x30000, UINT64_MAX, -EINVAL },
		{ UINT64_MAX - 4095, 4096, -EINVAL },	/* the sum wraps to 0 */
		{ UINT64_MAX - 8191, 4096, 0 },
	};
	cleanup_free struct sharer_table *t = new_table();
	struct sharer_ref ref;
	struct sharer *s;

	sharer_add(t, false, &ref);
	s = sharer_get(t, ref);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct mapping m = map(rows[i].address, rows[i].length, 0, 0);
		unsigned before = s->n_mappings;

		cr_expect_eq(sharer_map(s, &m), rows[i].ret, "row %zu", i);
		cr_expect_eq(s->n_mappings, before + (rows[i].ret == 0), "row %zu", i);
	}
}

Test(sharer, as_many_mappings_as_there_is_room_for)
{
	cleanup_free struct sharer_table *t = new_table();
	struct sharer_ref ref;
	struct sharer *s;
	struct mapping m;

	sharer_add(t, false, &ref);
	s = sharer_get(t, ref);
	for (unsigned i = 0; i < SHARER_MAPPINGS; i++) {
		/* from the middle outwards, so that every place of the array is inserted at */
		m = map(0x100000 + (i % 2 ? i : SHARER_MAPPINGS * 2 - i) * 0x2000ull, 0x1000, i, 0);
		cr_assert_eq(sharer_map(s, &m), 0);
	}
	m = map(0x1000, 0x1000, 0, 0);
	cr_assert_eq(sharer_map(s, &m), -ENOSPC);
	for (unsigned i = 1; i < SHARER_MAPPINGS; i++)
		cr_assert_lt(s->mapping[i - 1].address, s->mapping[i].address);
}

Test(sharer, what_is_unmapped_is_found_no_more)
{
	cleanup_free struct sharer_table *t = new_table();
	struct mapping first = map(0x1000, 0x2000, 0, 0), second = map(0x3000, 0x1000, 0, 0x5000);
	struct mapping third = map(0x8000, 0x1000, 1, 0);
	struct mapping other = first;
	struct sharer_ref ref;
	struct sharer *s;

	sharer_add(t, false, &ref);
	s = sharer_get(t, ref);
	cr_assert_eq(sharer_unmap(s, &first), -ENOENT);
	cr_assert_eq(sharer_map(s, &third), 0);
	cr_assert_eq(sharer_map(s, &first), 0);
	cr_assert_eq(sharer_map(s, &second), 0);
	/* Only as it was declared: not another part, not other content. */
	other.length = 0x1000;
	cr_assert_eq(sharer_unmap(s, &other), -ENOENT);
	other = first, other.offset = 0x1000;
	cr_assert_eq(sharer_unmap(s, &other), -ENOENT);
	other = first, other.block = 1;
	cr_assert_eq(sharer_unmap(s, &other), -ENOENT);
	other = first, other.address = 0x2000;
	cr_assert_eq(sharer_unmap(s, &other), -ENOENT);
	cr_assert_eq(sharer_unmap(s, &first), 0);
	cr_assert_null(sharer_locate(s, 0x1000));
	cr_assert_null(sharer_locate(s, 0x2fff));
	cr_assert_eq(sharer_locate(s, 0x3000)->offset, 0x5000);
	cr_assert_eq(sharer_locate(s, 0x8fff)->block, 1);
	/* The place is free for something else. */
	other = map(0x1000, 0x2000, 1, 0x7000);
	cr_assert_eq(sharer_map(s, &other), 0);
	cr_assert_eq(sharer_locate(s, 0x1000)->offset, 0x7000);
	cr_assert_eq(sharer_unmap(s, &third), 0);
	cr_assert_eq(sharer_unmap(s, &third), -ENOENT);
	cr_assert_eq(s->n_mappings, 2);
}

Test(sharer, locate_at_every_edge)
{
	cleanup_free struct sharer_table *t = new_table();
	struct sharer_ref ref;
	struct sharer *s;
	struct mapping a = map(0x10000, 0x2000, 1, 0), b = map(0x12000, 0x1000, 2, 0x5000);

	sharer_add(t, false, &ref);
	s = sharer_get(t, ref);
	cr_expect_null(sharer_locate(s, 0x10000), "nothing is mapped");
	sharer_map(s, &b);
	sharer_map(s, &a);
	cr_expect_null(sharer_locate(s, 0));
	cr_expect_null(sharer_locate(s, 0xffff));
	cr_expect_eq(sharer_locate(s, 0x10000)->block, 1);
	cr_expect_eq(sharer_locate(s, 0x11fff)->block, 1);
	cr_expect_eq(sharer_locate(s, 0x12000)->block, 2);
	cr_expect_eq(sharer_locate(s, 0x12fff)->block, 2);
	cr_expect_null(sharer_locate(s, 0x13000));
	cr_expect_null(sharer_locate(s, UINT64_MAX));
	cr_expect_eq(mapping_address(&b, 0x5000), 0x12000);
	cr_expect_eq(mapping_address(&b, 0x5abc), 0x12abc);
}

Test(sharer, locate_against_a_loop)
{
	cleanup_free struct sharer_table *t = new_table();
	struct rng rng = { .state = rng_seed() };
	struct sharer_ref ref;
	struct sharer *s;

	sharer_add(t, false, &ref);
	s = sharer_get(t, ref);
	for (unsigned i = 0; i < 500; i++) {
		struct mapping m = map(rng_below(&rng, 1000), rng_between(&rng, 1, 40), i, 0);

		sharer_map(s, &m);
	}
	for (uint64_t address = 0; address < 1100; address++) {
		const struct mapping *found = NULL;

		for (unsigned i = 0; i < s->n_mappings; i++)
			if (address >= s->mapping[i].address &&
			    address < s->mapping[i].address + s->mapping[i].length)
				found = &s->mapping[i];
		cr_assert_eq(sharer_locate(s, address), found, "at %lu", address);
	}
}

Test(sharer, O13_all_aliases_of_a_page_in_pieces)
{
	cleanup_free struct sharer_table *t = new_table();
	struct sharer_ref ref;
	struct sharer *s;
	struct mapping m[] = {
		map(0x90000, 0x4000, 3, 0),
		map(0x10000, 0x2000, 3, 0x1000),
		map(0x50000, 0x1000, 3, 0x3000),
		map(0x70000, 0x4000, 4, 0),
	};
	unsigned from = 0;

	sharer_add(t, false, &ref);
	s = sharer_get(t, ref);
	for (size_t i = 0; i < ARRAY_LEN(m); i++)
		cr_assert_eq(sharer_map(s, &m[i]), 0);
	cr_expect_eq(sharer_alias(s, 3, 0x2000, &from)->address, 0x10000);
	cr_expect_eq(sharer_alias(s, 3, 0x2000, &from)->address, 0x90000);
	cr_expect_null(sharer_alias(s, 3, 0x2000, &from));
	cr_expect_null(sharer_alias(s, 3, 0x2000, &from), "the end stays the end");
	from = 0;
	cr_expect_eq(sharer_alias(s, 3, 0, &from)->address, 0x90000);
	cr_expect_null(sharer_alias(s, 3, 0, &from));
	from = 0;
	cr_expect_eq(sharer_alias(s, 3, 0x3fff, &from)->address, 0x50000);
	from = 0;
	cr_expect_null(sharer_alias(s, 3, 0x4000, &from));
	from = 0;
	cr_expect_null(sharer_alias(s, 5, 0, &from));
}

enum { CUT_PAGES = 64 };

/* Some mappings at random; *@is: which block each page shows, counted from 1. */
static void map_some(struct sharer *s, struct rng *rng, unsigned is[CUT_PAGES])
{
	for (unsigned i = 0; i < 6; i++) {
		unsigned at = (unsigned)rng_below(rng, CUT_PAGES),
			 len = 1 + (unsigned)rng_below(rng, 12);
		struct mapping m = map(at * 0x1000, len * 0x1000, i, at * 0x2000);

		if (at + len > CUT_PAGES || sharer_map(s, &m) < 0)
			continue;
		for (unsigned k = at; k < at + len; k++)
			is[k] = 1 + i;
	}
}

/* Of each page: is it mapped, and what is it? */
Test(sharer, cut_against_a_map_of_pages)
{
	struct rng rng = { .state = rng_seed() };

	for (unsigned round = 0; round < 500; round++) {
		cleanup_free struct sharer_table *t = new_table();
		struct sharer_pieces cut;
		struct sharer_ref ref;
		struct sharer *s;
		unsigned is[CUT_PAGES] = { 0 }, from, to, n = 0;

		sharer_add(t, false, &ref);
		s = sharer_get(t, ref);
		map_some(s, &rng, is);
		from = (unsigned)rng_below(&rng, CUT_PAGES);
		to = from + (unsigned)rng_below(&rng, CUT_PAGES - from);
		cr_assert_eq(sharer_cut(s, from * 0x1000, to * 0x1000, &cut), 0);
		for (unsigned k = 0; k < CUT_PAGES; k++) {
			const struct mapping *m = sharer_locate(s, k * 0x1000);
			bool gone = k >= from && k < to;

			cr_assert_eq(m ? m->block + 1u : 0, gone ? 0 : is[k], "page %u", k);
			if (m)
				cr_assert(k * 0x1000 - m->address + m->offset >= k * 0x1000);
			n += gone && is[k];
		}
		for (unsigned i = 0; i < cut.n; i++)
			n -= (unsigned)(cut.mapping[i].length / 0x1000);
		cr_assert_eq(n, 0, "what was cut is told");
	}
}

Test(sharer, a_cut_that_finds_no_room_changes_nothing)
{
	cleanup_free struct sharer_table *t = new_table();
	struct sharer_ref ref;
	struct sharer *s;

	sharer_add(t, false, &ref);
	s = sharer_get(t, ref);
	for (unsigned i = 0; i < SHARER_MAPPINGS; i++) {
		struct mapping m = map(i * 0x10000, 0x3000, 0, i * 0x3000);

		cr_assert_eq(sharer_map(s, &m), 0);
	}
	cr_assert_eq(sharer_cut(s, 0x1000, 0x2000, NULL), -ENOSPC);
	cr_assert_eq(s->n_mappings, SHARER_MAPPINGS);
	cr_assert_eq(s->mapping[0].length, 0x3000);
	cr_assert_eq(sharer_cut(s, 0, 0x1000, NULL), 0, "at an end none is added");
	cr_assert_eq(s->mapping[0].address, 0x1000);
	cr_assert_eq(s->mapping[0].offset, 0x1000);
}
