/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The geometry of dirty logs, and a pass over one, against a map that has a byte for each page
 * (S4-07, S4-11, S4-15, F41, F45).
 */
#include "config.h"

#include "core/dirtylog.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "lib/rng.h"

#define KIB UINT64_C(1024)
#define GIB (UINT64_C(1) << 30)
#define P   UINT64_C(4096)

Test(dirtylog, size_of_a_log)
{
	static const struct {
		uint64_t gpa, size, bytes;
	} rows[] = {
		{ 0, P, 8 },
		{ 0, 63 * P, 8 },
		{ 0, 64 * P, 8 }, /* the last address is in the first word */
		{ 0, 65 * P, 16 },
		{ 256 * KIB, P, 16 },
		{ 0, GIB, GIB / (256 * KIB) * 8 },
		{ 4 * GIB, GIB, 5 * GIB / (256 * KIB) * 8 },
		{ 0, 4 * GIB + P, 4 * GIB / (256 * KIB) * 8 + 8 },
		{ UINT64_MAX - P + 1 - P, P, UINT64_MAX / (256 * KIB) * 8 + 8 },
	};

	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		struct dirtylog d = { .n = 0 };

		cr_assert_eq(dirtylog_bytes(&d), 0);
		cr_assert_eq(dirtylog_add(&d, &(struct dirtylog_region){ .gpa = rows[i].gpa,
									 .size = rows[i].size }),
			     0);
		cr_assert_eq(dirtylog_bytes(&d), rows[i].bytes, "row %u: %lu", i,
			     dirtylog_bytes(&d));
	}
}

Test(dirtylog, what_cannot_be_added)
{
	static const struct {
		struct dirtylog_region r;
		int error;
	} rows[] = {
		{ { .gpa = 4 * P, .size = 0 }, -EINVAL },
		{ { .gpa = 4 * P + 1, .size = P }, -EINVAL },
		{ { .gpa = 4 * P, .size = P + 512 }, -EINVAL },
		{ { .gpa = 4 * P, .size = P, .offset = 512 }, -EINVAL },
		{ { .gpa = UINT64_MAX - P + 1, .size = P }, -EINVAL },
		{ { .gpa = 4 * P, .size = P, .offset = UINT64_MAX - P + 1 }, -EINVAL },
		{ { .gpa = UINT64_MAX - P + 1, .size = 2 * P }, -EINVAL },
		{ { .gpa = 9 * P, .size = 2 * P }, -EEXIST },
		{ { .gpa = 11 * P, .size = P }, -EEXIST },
		{ { .gpa = 0, .size = 64 * P }, -EEXIST },
		{ { .gpa = 10 * P, .size = 2 * P }, -EEXIST },
		{ { .gpa = 8 * P, .size = 2 * P }, 0 },
		{ { .gpa = 12 * P, .size = P }, 0 },
	};
	struct dirtylog d = { .n = 0 };
	struct dirtylog_region r = { .gpa = 10 * P, .size = 2 * P };

	cr_assert_eq(dirtylog_add(&d, &r), 0);
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++)
		cr_assert_eq(dirtylog_add(&d, &rows[i].r), rows[i].error, "row %u", i);
	cr_assert_eq(d.n, 3);
	for (r.gpa = 100 * P; d.n < DIRTYLOG_REGIONS; r.gpa += 2 * P)
		cr_assert_eq(dirtylog_add(&d, &r), 0);
	cr_assert_eq(dirtylog_add(&d, &r), -ENOSPC);
}

Test(dirtylog, address_of_a_used_ring)
{
	struct dirtylog d = { .n = 0 };
	uint64_t gpa;

	cr_assert_eq(dirtylog_add(&d, &(struct dirtylog_region){ .gpa = 64 * P,
								 .size = 2 * P,
								 .va = 0x7f0000000000 }),
		     0);
	cr_assert_eq(dirtylog_add(&d, &(struct dirtylog_region){ .gpa = 0,
								 .size = 2 * P,
								 .va = 0x7f0000100000 }),
		     0);
	cr_assert(dirtylog_gpa(&d, 0x7f0000001234, &gpa));
	cr_assert_eq(gpa, 64 * P + 0x1234);
	cr_assert(dirtylog_gpa(&d, 0x7f0000101fff, &gpa));
	cr_assert_eq(gpa, 0x1fff);
	cr_assert_not(dirtylog_gpa(&d, 0x7f0000002000, &gpa));
	cr_assert_not(dirtylog_gpa(&d, 0x7effffffffff, &gpa));
}

/* --- against a map --- */

enum { PAGES = 1024, BLOCKS = 4 };

/* One page of guest physical address: where it lies, and whether it was written. */
struct naive {
	bool known[PAGES], dirty[PAGES];
	unsigned block[PAGES];
	uint64_t offset[PAGES];
};

static void random_regions(struct rng *rng, struct dirtylog *d, struct naive *map)
{
	for (unsigned tries = 0; tries < 12; tries++) {
		uint64_t first = rng_below(rng, PAGES);
		struct dirtylog_region r = {
			.gpa = first * P,
			.size = rng_between(rng, 1, tries % 3 ? 16 : 300) * P,
			.block = (unsigned)rng_below(rng, BLOCKS),
			.offset = rng_below(rng, 1000) * P,
		};

		if (first + r.size / P > PAGES || dirtylog_add(d, &r) != 0)
			continue;
		for (uint64_t i = 0; i < r.size / P; i++) {
			map->known[first + i] = true;
			map->block[first + i] = r.block;
			map->offset[first + i] = r.offset + i * P;
		}
	}
}

static void random_bits(struct rng *rng, uint64_t *words, struct naive *map)
{
	for (unsigned runs = (unsigned)rng_below(rng, 20); runs-- > 0;) {
		uint64_t first = rng_below(rng, PAGES), n = rng_between(rng, 1, 200);

		for (uint64_t i = first; i < first + n && i < PAGES; i++) {
			words[i / 64] |= UINT64_C(1) << (i % 64);
			map->dirty[i] = true;
		}
	}
}

/* The page of the map that a range goes on with is the next dirty one, and it is this one. */
static uint64_t follow(struct naive *map, const struct dirtylog_range *range, uint64_t at)
{
	while (at < PAGES && !(map->known[at] && map->dirty[at]))
		at++;
	for (uint64_t i = 0; i < range->length / P; i++, at++) {
		cr_assert_lt(at, PAGES);
		cr_assert(map->known[at] && map->dirty[at], "page %lu is clean", at);
		cr_assert_eq(map->block[at], range->block);
		cr_assert_eq(map->offset[at], range->offset + i * P);
	}
	return at;
}

static uint64_t pass(const struct dirtylog *d, uint64_t *words, struct naive *map)
{
	struct dirtylog_range range;
	struct dirtylog_walk w;
	uint64_t at = 0, strays = 0, ranges = 0;

	dirtylog_walk(&w, d, words, PAGES / 8);
	for (; dirtylog_next(&w, &range); ranges++)
		at = follow(map, &range, at);
	for (uint64_t i = 0; i < PAGES; i++) {
		cr_assert(i < at || !map->known[i] || !map->dirty[i], "page %lu was missed", i);
		strays += map->dirty[i] && !map->known[i];
	}
	cr_assert_eq(w.strays, strays);
	cr_assert_not(dirtylog_next(&w, &range));
	return ranges;
}

Test(dirtylog, a_pass_against_a_map)
{
	struct rng rng = { .state = rng_seed() };
	uint64_t ranges = 0;

	for (unsigned round = 0; round < 20000; round++) {
		uint64_t words[PAGES / 64] = { 0 };
		struct dirtylog d = { .n = 0 };
		struct naive map;

		memset(&map, 0, sizeof(map));
		random_regions(&rng, &d, &map);
		random_bits(&rng, words, &map);
		ranges += pass(&d, words, &map);
		for (unsigned i = 0; i < ARRAY_LEN(words); i++)
			cr_assert_eq(words[i], 0, "what was taken is still there");
		memset(map.dirty, 0, sizeof(map.dirty));
		cr_assert_eq(pass(&d, words, &map), 0, "found twice");
	}
	cr_assert_gt(ranges, 20000);
}

/* One range, however many words it goes over. */
Test(dirtylog, ranges_are_whole)
{
	uint64_t words[4] = { 0 };
	struct dirtylog d = { .n = 0 };
	struct dirtylog_range range;
	struct dirtylog_walk w;

	cr_assert_eq(dirtylog_add(&d, &(struct dirtylog_region){ .size = 256 * P,
								 .block = 3,
								 .offset = 8 * P }),
		     0);
	memset(words, 0xff, sizeof(words));
	words[0] = ~UINT64_C(1);
	words[3] = 1;
	dirtylog_walk(&w, &d, words, sizeof(words));
	cr_assert(dirtylog_next(&w, &range));
	cr_assert_eq(range.block, 3);
	cr_assert_eq(range.offset, 9 * P);
	cr_assert_eq(range.length, 192 * P);
	cr_assert_not(dirtylog_next(&w, &range));
	cr_assert_eq(w.strays, 0);
}
