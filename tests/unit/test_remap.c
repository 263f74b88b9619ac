/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two looks at the mappings of a sharer: what went, what came.
 */
#include "config.h"

#include "daemon/remap.h"

#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "lib/rng.h"

#define PAGE 4096ull

static struct mapping map(uint64_t page, uint64_t pages, uint64_t at, unsigned block)
{
	return (struct mapping){ .address = page * PAGE,
				 .length = pages * PAGE,
				 .offset = at * PAGE,
				 .block = (uint16_t)block };
}

static void is(const struct mapping *m, struct mapping want)
{
	cr_assert(m->address == want.address && m->length == want.length &&
			  m->offset == want.offset && m->block == want.block,
		  "0x%lx+0x%lx at 0x%lx of %u", m->address, m->length, m->offset, m->block);
}

Test(remap, nothing_changed)
{
	const struct mapping had[] = { map(16, 8, 0, 0), map(32, 4, 8, 0), map(64, 4, 0, 1) };
	struct remap r;

	cr_assert(remap_compare(&r, had, 3, had, 3));
	cr_assert_eq(r.n_gone + r.n_added, 0);
	cr_assert(remap_compare(&r, had, 0, had, 0));
	cr_assert_eq(r.n_gone + r.n_added, 0);
}

Test(remap, what_came_and_what_went)
{
	const struct mapping had[] = { map(16, 8, 0, 0), map(32, 4, 8, 0) };
	const struct mapping now[] = { map(32, 4, 8, 0), map(100, 2, 0, 0) };
	struct remap r;

	cr_assert(remap_compare(&r, had, 2, now, 2));
	cr_assert_eq(r.n_gone, 1);
	is(&r.gone[0], had[0]);
	cr_assert_eq(r.n_added, 1);
	is(&r.added[0], now[1]);
}

/* The kernel joins and splits: what shows the same bytes at the same addresses stays. */
Test(remap, joined_and_split)
{
	const struct mapping halves[] = { map(16, 4, 0, 0), map(20, 4, 4, 0) };
	const struct mapping whole[] = { map(16, 8, 0, 0) };
	struct remap r;

	cr_assert(remap_compare(&r, halves, 2, whole, 1));
	cr_assert_eq(r.n_gone + r.n_added, 0);
	cr_assert(remap_compare(&r, whole, 1, halves, 2));
	cr_assert_eq(r.n_gone + r.n_added, 0);
}

/* Grown at both ends: only what is new is new. */
Test(remap, grown)
{
	const struct mapping had[] = { map(16, 8, 4, 0) };
	const struct mapping now[] = { map(12, 16, 0, 0) };
	struct remap r;

	cr_assert(remap_compare(&r, had, 1, now, 1));
	cr_assert_eq(r.n_gone, 0);
	cr_assert_eq(r.n_added, 2);
	is(&r.added[0], map(12, 4, 0, 0));
	is(&r.added[1], map(24, 4, 12, 0));
}

/* A hole in the middle: the old one goes as a whole, what is left of it is new. */
Test(remap, a_part_went)
{
	const struct mapping had[] = { map(16, 8, 0, 0) };
	const struct mapping now[] = { map(16, 2, 0, 0), map(20, 4, 4, 0) };
	struct remap r;

	cr_assert(remap_compare(&r, had, 1, now, 2));
	cr_assert_eq(r.n_gone, 1);
	cr_assert_eq(r.n_added, 2);
	is(&r.added[0], now[0]);
	is(&r.added[1], now[1]);
}

/* Same place, other content; and same content of another block. */
Test(remap, a_place_used_again)
{
	const struct mapping had[] = { map(16, 8, 0, 0) };
	const struct mapping other_part[] = { map(16, 8, 8, 0) },
			     other_block[] = { map(16, 8, 0, 1) };
	struct remap r;

	cr_assert(remap_compare(&r, had, 1, other_part, 1));
	cr_assert(r.n_gone == 1 && r.n_added == 1);
	cr_assert(remap_compare(&r, had, 1, other_block, 1));
	cr_assert(r.n_gone == 1 && r.n_added == 1);
}

Test(remap, too_many)
{
	struct mapping had[SHARER_MAPPINGS], now[SHARER_MAPPINGS];
	struct remap r;

	for (unsigned i = 0; i < SHARER_MAPPINGS; i++) {
		had[i] = map(4 * i + 4, 2, 2 * i, 0);
		now[i] = map(4 * i + 3, 4, 2 * i + 1, 1);
	}
	cr_assert(remap_compare(&r, had, SHARER_MAPPINGS, now, SHARER_MAPPINGS));
	cr_assert(r.n_gone == SHARER_MAPPINGS && r.n_added == SHARER_MAPPINGS);
	/* All stay and each has grown at both ends. */
	for (unsigned i = 0; i < SHARER_MAPPINGS; i++)
		had[i].offset += 8 * PAGE;
	for (unsigned i = 0; i < SHARER_MAPPINGS; i++)
		now[i] = map(4 * i + 3, 4, 2 * i + 7, 0);
	cr_assert_not(remap_compare(&r, had, SHARER_MAPPINGS, now, SHARER_MAPPINGS));
}

#define SPACE 64u

/* What page @at shows: block and offset as one number; 0: nothing. */
static unsigned shown(const struct mapping *m, unsigned n, unsigned at)
{
	for (unsigned i = 0; i < n; i++)
		if (at * PAGE >= m[i].address && at * PAGE < m[i].address + m[i].length)
			return 1 + m[i].block * 1000 +
			       (unsigned)(m[i].offset / PAGE + at - m[i].address / PAGE);
	return 0;
}

/* Any mappings that do not overlap. */
static unsigned any(struct rng *rng, struct mapping *m)
{
	unsigned n = 0;

	for (unsigned at = 1; at < SPACE;) {
		unsigned pages = 1 + (unsigned)(rng_next(rng) % 6);

		if (rng_next(rng) % 3)
			m[n++] = map(at, pages, rng_next(rng) % 3 ? at : rng_next(rng) % SPACE,
				     rng_next(rng) % 2);
		at += pages;
	}
	return n;
}

/* What stays and what came is what is there, page by page; what went was not wholly there. */
Test(remap, against_a_page_at_a_time)
{
	struct mapping had[SPACE], now[SPACE], after[3 * SPACE];
	struct rng rng = { rng_seed() };

	for (unsigned round = 0; round < 20000; round++) {
		unsigned n_had = any(&rng, had), n_now = any(&rng, now), n = 0;
		struct remap r;

		cr_assert(remap_compare(&r, had, n_had, now, n_now));
		for (unsigned i = 0; i < n_had; i++) {
			bool gone = false;

			for (unsigned j = 0; j < r.n_gone; j++)
				gone |= memcmp(&had[i], &r.gone[j], sizeof(had[i])) == 0;
			if (!gone)
				after[n++] = had[i];
		}
		cr_assert_eq(n + r.n_gone, n_had);
		memcpy(&after[n], r.added, r.n_added * sizeof(after[0]));
		n += r.n_added;
		for (unsigned at = 0; at < SPACE + 8; at++)
			cr_assert_eq(shown(after, n, at), shown(now, n_now, at), "round %u page %u",
				     round, at);
		for (unsigned i = 0; i < n; i++)
			for (unsigned j = i + 1; j < n; j++)
				cr_assert(after[i].address + after[i].length <= after[j].address ||
					  after[j].address + after[j].length <= after[i].address);
	}
}
