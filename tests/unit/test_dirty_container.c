/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A container's dirty pages, against a container of the test's own that has the kernel's rules
 * (F41, F43, F45, S4-01 to S4-18, S4-32, S4-35; F68), and the union of what trackers know (S2-08).
 */
#include "config.h"

#include "sys/dirty_container.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/vfio.h>

#include <criterion/criterion.h>

#include "core/dirtylog.h"
#include "core/guard.h"
#include "lib/fakecontainer.h"
#include "lib/rng.h"

#define P UINT64_C(4096)

enum { LOG_WORDS = 64, LOG_PAGES = LOG_WORDS * 64, GUARD = 8 };

/* A container, who asks it, and a log that must not be written behind its end. */
struct bench {
	struct fake_container fake;
	struct dirty_container c;
	struct dirtymark mark;
	uint64_t words[LOG_WORDS + GUARD];
};

static void clear(struct bench *b)
{
	memset(b->words, 0, LOG_WORDS * sizeof(b->words[0]));
	memset(b->words + LOG_WORDS, 0x5a, GUARD * sizeof(b->words[0]));
	dirtymark_init(&b->mark, b->words, LOG_WORDS * sizeof(b->words[0]));
}

static struct bench *bench(void)
{
	struct bench *b = malloc(sizeof(*b));

	cr_assert_not_null(b);
	fake_container_init(&b->fake);
	cr_assert_eq(dirty_container_init(&b->c, &fake_container_ops, &b->fake), 0);
	clear(b);
	return b;
}

static bool is_dirty(const struct bench *b, uint64_t page)
{
	return b->words[page / 64] >> page % 64 & 1;
}

/* Pages [first, first + n) are dirty, and no other; the log is clean again. */
static void expect_dirty(struct bench *b, uint64_t first, uint64_t n)
{
	for (uint64_t i = 0; i < LOG_PAGES; i++)
		cr_assert_eq(is_dirty(b, i), i - first < n, "page %lu", (unsigned long)i);
	for (unsigned i = 0; i < GUARD; i++)
		cr_assert_eq(b->words[LOG_WORDS + i], 0x5a5a5a5a5a5a5a5a);
	clear(b);
}

static int collect(struct bench *b, uint64_t first, uint64_t pages)
{
	struct dirty_span span = { first * P, pages * P };

	return dirty_container_collect(&b->c, &span, 1, &b->mark);
}

Test(dirty_container, S4_16_what_the_container_says)
{
	cleanup_free struct bench *b = bench();

	cr_assert_eq(b->c.page, P);
	cr_assert_eq(b->c.bitmap_max, 256 << 20);
	b->fake.no_migration = true;
	cr_assert_eq(dirty_container_refresh(&b->c), -EOPNOTSUPP);
	b->fake.no_migration = false;
	b->fake.pgsizes = 0;
	cr_assert_lt(dirty_container_refresh(&b->c), 0, "no page size at all");
	b->fake.pgsizes = 512 | 4096;
	cr_assert_eq(dirty_container_refresh(&b->c), -EOPNOTSUPP, "less than a page of the log");
}

Test(dirty_container, S4_02_pinned_is_dirty_every_time)
{
	cleanup_free struct bench *b = bench();

	fake_container_map(&b->fake, 10 * P, 10);
	cr_assert_eq(dirty_container_start(&b->c), 0);
	fake_container_pin(&b->fake, 12 * P, 3);
	for (unsigned round = 0; round < 3; round++) {
		cr_assert_eq(collect(b, 10, 10), 0);
		expect_dirty(b, 12, 3);
	}
}

Test(dirty_container, S4_03_behind_the_iommu_all_is_dirty)
{
	cleanup_free struct bench *b = bench();

	b->fake.whole = true;
	fake_container_map(&b->fake, 10 * P, 10);
	cr_assert_eq(dirty_container_start(&b->c), 0);
	cr_assert_eq(collect(b, 10, 10), 0);
	expect_dirty(b, 10, 10);
	/* a driver that pins for itself has only that counted (S4-04) */
	b->fake.whole = false;
	fake_container_pin(&b->fake, 10 * P, 1);
	cr_assert_eq(collect(b, 10, 10), 0);
	expect_dirty(b, 10, 1);
}

Test(dirty_container, S4_06_unpinned_is_dirty_once)
{
	cleanup_free struct bench *b = bench();

	fake_container_map(&b->fake, 0, 128);
	fake_container_pin(&b->fake, 5 * P, 1);
	fake_container_unpin(&b->fake, 5 * P, 1);
	cr_assert_eq(dirty_container_start(&b->c), 0);
	cr_assert_eq(collect(b, 0, 128), 0);
	expect_dirty(b, 0, 0);
	fake_container_pin(&b->fake, 64 * P, 2);
	fake_container_unpin(&b->fake, 64 * P, 2);
	cr_assert_eq(collect(b, 0, 128), 0);
	expect_dirty(b, 64, 2);
	/* the bitmap begins anew with what is pinned (S4-07) */
	fake_container_pin(&b->fake, 9 * P, 1);
	cr_assert_eq(collect(b, 0, 128), 0);
	expect_dirty(b, 9, 1);
}

Test(dirty_container, S4_35c_mapped_while_tracking)
{
	cleanup_free struct bench *b = bench();

	cr_assert_eq(dirty_container_start(&b->c), 0);
	fake_container_map(&b->fake, 3 * P, 2);
	fake_container_pin(&b->fake, 4 * P, 1);
	cr_assert_eq(collect(b, 3, 2), 0);
	expect_dirty(b, 4, 1);
}

Test(dirty_container, S4_17_twice_is_harmless)
{
	cleanup_free struct bench *b = bench();

	cr_assert_eq(dirty_container_start(&b->c), 0);
	cr_assert_eq(dirty_container_start(&b->c), 0);
	cr_assert_eq(dirty_container_stop(&b->c), 0);
	cr_assert_eq(dirty_container_stop(&b->c), 0);
	b->fake.fail_start = -ENOMEM;
	cr_assert_eq(dirty_container_start(&b->c), -ENOMEM);
	cr_assert_not(b->c.tracking);
	b->fake.v1 = true;
	cr_assert_eq(dirty_container_start(&b->c), -EACCES);
}

Test(dirty_container, S4_08_unmapped_with_what_was_dirty)
{
	cleanup_free struct bench *b = bench();
	struct dirty_span span = { 10 * P, 10 * P };

	fake_container_map(&b->fake, 10 * P, 10);
	cr_assert_eq(dirty_container_start(&b->c), 0);
	fake_container_pin(&b->fake, 12 * P, 3);
	cr_assert_eq(dirty_container_unmap(&b->c, &span, &b->mark), 0);
	expect_dirty(b, 12, 3);
	cr_assert_eq(b->fake.n, 0);
	cr_assert_eq(dirty_container_unmap(&b->c, &span, &b->mark), -ENOENT);
	expect_dirty(b, 10, 10);
}

Test(dirty_container, S4_08_unmapped_without_an_answer_is_dirty)
{
	cleanup_free struct bench *b = bench();
	struct dirty_span span = { 10 * P, 10 * P }, part = { 10 * P, 4 * P };

	fake_container_map(&b->fake, 10 * P, 10);
	cr_assert_eq(dirty_container_unmap(&b->c, &span, &b->mark), 0, "not tracking");
	expect_dirty(b, 10, 10);
	fake_container_map(&b->fake, 10 * P, 10);
	cr_assert_eq(dirty_container_start(&b->c), 0);
	b->c.page = 2 * P; /* what the kernel refuses with a bitmap it does without */
	cr_assert_eq(dirty_container_unmap(&b->c, &span, &b->mark), 0);
	expect_dirty(b, 10, 10);
	cr_assert_eq(b->fake.unmaps, 3);
	fake_container_map(&b->fake, 10 * P, 10);
	cr_assert_eq(dirty_container_unmap(&b->c, &part, &b->mark), -EINVAL, "cuts a mapping");
	expect_dirty(b, 10, 4);
	cr_assert_eq(b->fake.n, 1);
}

Test(dirty_container, S4_09_what_cuts_a_mapping_is_dirty)
{
	static const uint64_t spans[][2] = { { 11, 9 }, { 10, 9 }, { 5, 10 }, { 15, 10 } };
	cleanup_free struct bench *b = bench();

	fake_container_map(&b->fake, 10 * P, 10);
	cr_assert_eq(dirty_container_start(&b->c), 0);
	for (unsigned i = 0; i < ARRAY_LEN(spans); i++) {
		cr_assert_eq(collect(b, spans[i][0], spans[i][1]), -EINVAL, "row %u", i);
		expect_dirty(b, spans[i][0], spans[i][1]);
	}
	fake_container_map(&b->fake, 30 * P, 5);
	fake_container_pin(&b->fake, 30 * P, 1);
	cr_assert_eq(collect(b, 0, 64), 0, "a hole in the middle");
	expect_dirty(b, 30, 1);
}

/* A neighbour that begins where the range ends is no part of it. */
Test(dirty_container, S4_10_no_page_behind_the_end)
{
	cleanup_free struct bench *b = bench();

	fake_container_map(&b->fake, (LOG_PAGES - 10) * P, 10);
	fake_container_map(&b->fake, LOG_PAGES * P, 10);
	fake_container_pin(&b->fake, LOG_PAGES * P, 10);
	fake_container_pin(&b->fake, (LOG_PAGES - 1) * P, 1);
	cr_assert_eq(dirty_container_start(&b->c), 0);
	cr_assert_eq(collect(b, LOG_PAGES - 10, 10), 0);
	cr_assert_eq(b->mark.strays, 0);
	expect_dirty(b, LOG_PAGES - 1, 1);
	cr_assert_eq(collect(b, LOG_PAGES, 10), 0);
	cr_assert_eq(b->mark.strays, 10, "what is in no log is counted");
	expect_dirty(b, 0, 0);
}

Test(dirty_container, S4_11_bitmaps_of_few_pages)
{
	static const uint64_t pages[] = { 1, 3, 7, 8, 63, 64, 65, 127, 128, 129 };

	for (unsigned i = 0; i < ARRAY_LEN(pages); i++) {
		cleanup_free struct bench *b = bench();

		fake_container_map(&b->fake, 0xca * P, pages[i]);
		fake_container_pin(&b->fake, (0xca + pages[i] - 1) * P, 1);
		cr_assert_eq(dirty_container_start(&b->c), 0);
		cr_assert_eq(collect(b, 0xca, pages[i]), 0, "%lu pages", (unsigned long)pages[i]);
		expect_dirty(b, 0xca + pages[i] - 1, 1);
	}
}

/* What the kernel says EINVAL to, asked of it as nobody here would ask (S4-12). */
static int raw_get(struct bench *b, uint64_t iova, uint64_t size, uint64_t pgsize, uint64_t bytes)
{
	static uint64_t bits[64];
	struct {
		uint32_t argsz, flags;
		struct vfio_iommu_type1_dirty_bitmap_get get;
	} d = { .argsz = sizeof(d),
		.flags = VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
		.get = { .iova = iova,
			 .size = size,
			 .bitmap = { .pgsize = pgsize, .size = bytes, .data = (__u64 *)bits } } };

	return fake_container_ops.call(&b->fake, VFIO_IOMMU_DIRTY_PAGES, &d);
}

Test(dirty_container, F68_the_fake_has_the_rules_of_the_kernel)
{
	static const struct {
		uint64_t iova, size, pgsize, bytes;
	} rows[] = {
		{ 0, 64 * P, 8192, 8 },	     { 0, 64 * P, 0, 8 },  { 0, 65 * P, P, 8 },
		{ 0, 64 * P, P, 512 << 20 }, { 1, 64 * P, P, 8 },  { 0, 64 * P + 1, P, 16 },
		{ 0, 0, P, 8 },		     { -P, 2 * P, P, 8 },  { 0, 32 * P, P, 8 },
		{ P, 64 * P, P, 16 },	     { 0, 64 * P, P, 0 },
	};
	cleanup_free struct bench *b = bench();
	struct vfio_iommu_type1_dirty_bitmap d = { .argsz = sizeof(d) };

	fake_container_map(&b->fake, 0, 64);
	cr_assert_eq(raw_get(b, 0, 64 * P, P, 8), -EINVAL, "before START");
	for (d.flags = 0; d.flags <= 8; d.flags++) {
		bool known = d.flags == VFIO_IOMMU_DIRTY_PAGES_FLAG_START ||
			     d.flags == VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP;

		cr_assert_eq(fake_container_ops.call(&b->fake, VFIO_IOMMU_DIRTY_PAGES, &d),
			     known ? 0 : -EINVAL, "flags %u", d.flags);
	}
	cr_assert_eq(dirty_container_start(&b->c), 0);
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++)
		cr_assert_eq(raw_get(b, rows[i].iova, rows[i].size, rows[i].pgsize, rows[i].bytes),
			     -EINVAL, "row %u", i);
	cr_assert_eq(raw_get(b, 0, 64 * P, P, 8), 0);
	cr_assert_eq(raw_get(b, 0, 4096 * P, P, 512), 0, "larger than what is mapped");
}

Test(dirty_container, S4_12_what_cannot_be_asked_is_dirty)
{
	cleanup_free struct bench *b = bench();
	struct dirty_span spans[] = { { 3 * P + 512, P }, { 8 * P, 512 }, { 12 * P, 0 } };

	fake_container_map(&b->fake, 0, 64);
	cr_assert_eq(collect(b, 0, 64), -EINVAL, "not tracking");
	cr_assert_eq(b->fake.gets, 0);
	expect_dirty(b, 0, 64);
	cr_assert_eq(dirty_container_start(&b->c), 0);
	cr_assert_eq(dirty_container_collect(&b->c, &spans[0], 1, &b->mark), -EINVAL);
	expect_dirty(b, 3, 2);
	cr_assert_eq(dirty_container_collect(&b->c, &spans[1], 1, &b->mark), -EINVAL);
	expect_dirty(b, 8, 1);
	cr_assert_eq(dirty_container_collect(&b->c, &spans[2], 1, &b->mark), -EINVAL);
	expect_dirty(b, 0, 0);
}

/* A section of a device that ends inside of a page is asked for as it was mapped, or not at all. */
Test(dirty_container, S4_13_a_section_is_asked_as_it_was_mapped)
{
	cleanup_free struct bench *b = bench();
	struct dirty_span section = { 0x11000, 0x3fb0 }, mapped = { 0x11000, 4 * P };

	fake_container_map(&b->fake, 0x11000, 4);
	fake_container_map(&b->fake, 0x15000, 1);
	fake_container_pin(&b->fake, 0x12000, 1);
	cr_assert_eq(dirty_container_start(&b->c), 0);
	cr_assert_eq(dirty_container_collect(&b->c, &section, 1, &b->mark), -EINVAL);
	cr_assert_eq(b->fake.gets, 0, "the kernel was asked for it");
	expect_dirty(b, 0x11, 4);
	cr_assert_eq(dirty_container_unmap(&b->c, &section, &b->mark), -EINVAL);
	expect_dirty(b, 0x11, 4);
	cr_assert_eq(dirty_container_collect(&b->c, &mapped, 1, &b->mark), 0);
	expect_dirty(b, 0x12, 1);
}

/* What is mapped between two pieces of memory, and is none, is not asked for. */
Test(dirty_container, S4_14_no_question_goes_over_what_is_no_memory)
{
	cleanup_free struct bench *b = bench();
	struct dirty_span memory[] = { { 10 * P, 10 * P }, { 24 * P, 10 * P } };

	b->fake.whole = true; /* or the registers would look clean */
	fake_container_map(&b->fake, 10 * P, 10);
	fake_container_map(&b->fake, 20 * P, 4);
	fake_container_map(&b->fake, 24 * P, 10);
	cr_assert_eq(dirty_container_start(&b->c), 0);
	cr_assert_eq(dirty_container_collect(&b->c, memory, 2, &b->mark), 0);
	cr_assert_eq(b->fake.gets, 2);
	for (uint64_t i = 20; i < 24; i++)
		cr_assert_not(is_dirty(b, i), "a register is no page");
	cr_assert(is_dirty(b, 19) && is_dirty(b, 24));
}

Test(dirty_container, F45_one_question_for_neighbours)
{
	cleanup_free struct bench *b = bench();
	struct dirty_span spans[FAKE_MAPPINGS];

	for (unsigned i = 0; i < FAKE_MAPPINGS; i++) {
		spans[i] = (struct dirty_span){ i * P, P };
		fake_container_map(&b->fake, i * P, 1);
	}
	fake_container_pin(&b->fake, 40 * P, 3);
	cr_assert_eq(dirty_container_start(&b->c), 0);
	cr_assert_eq(dirty_container_collect(&b->c, spans, FAKE_MAPPINGS, &b->mark), 0);
	expect_dirty(b, 40, 3);
	cr_assert_eq(b->fake.gets, 1, "one for the area, not one for each page (S4-32)");
	spans[32].iova = 2000 * P; /* a gap: what follows it is another area */
	cr_assert_eq(dirty_container_collect(&b->c, spans, 33, &b->mark), 0);
	cr_assert_eq(b->fake.gets, 3);
}

Test(dirty_container, S4_15_split_at_the_longest_answer)
{
	cleanup_free struct bench *b = bench();
	struct dirty_span spans[] = { { 0, 100 * P }, { 100 * P, 28 * P }, { 128 * P, 64 * P },
				      { 192 * P, 200 * P }, { 392 * P, P } };

	b->fake.bitmap_max = 16; /* 128 pages */
	cr_assert_eq(dirty_container_refresh(&b->c), 0);
	for (unsigned i = 0; i < ARRAY_LEN(spans); i++)
		fake_container_map(&b->fake, spans[i].iova, spans[i].size / P);
	fake_container_pin(&b->fake, 127 * P, 2);
	cr_assert_eq(dirty_container_start(&b->c), 0);
	cr_assert_eq(dirty_container_collect(&b->c, spans, 3, &b->mark), 0);
	expect_dirty(b, 127, 2);
	cr_assert_eq(b->fake.gets, 2, "between mappings, never inside of one");
	cr_assert_eq(dirty_container_collect(&b->c, spans, 5, &b->mark), -E2BIG);
	cr_assert(is_dirty(b, 192) && is_dirty(b, 391) && is_dirty(b, 128));
	cr_assert_not(is_dirty(b, 129) || is_dirty(b, 392));
}

Test(dirty_container, S4_35b_the_page_size_changes)
{
	cleanup_free struct bench *b = bench();

	fake_container_map(&b->fake, 0, 64);
	fake_container_pin(&b->fake, 17 * P, 1);
	cr_assert_eq(dirty_container_start(&b->c), 0);
	b->fake.pgsizes = ~UINT64_C(0xffff);
	cr_assert_eq(collect(b, 0, 64), 0);
	cr_assert_eq(b->c.page, 65536);
	expect_dirty(b, 16, 16);
	b->fake.pgsizes = ~UINT64_C(0xfff);
	cr_assert_eq(collect(b, 0, 64), 0);
	expect_dirty(b, 17, 1);
}

/* --- the union --- */

/* CPUs, a pinned set and a device's own bitmap: each page that any of them names, once (S4-05). */
Test(dirtymark, S2_08_dirty_is_what_any_tracker_says)
{
	cleanup_free struct bench *b = bench();
	uint64_t cpu[2] = { 1 | UINT64_C(1) << 63, 1 }, device[1] = { 6 };
	struct dirtylog log = { .n = 0 };
	struct dirtylog_region all = { .size = LOG_PAGES * P, .block = 3 };
	struct dirtylog_walk walk;
	struct dirtylog_range range;

	fake_container_map(&b->fake, 64 * P, 64);
	fake_container_pin(&b->fake, 65 * P, 2);
	cr_assert_eq(dirty_container_start(&b->c), 0);
	cr_assert_eq(collect(b, 64, 64), 0);
	dirtymark_bitmap(&b->mark, 0, P, cpu, 128);
	dirtymark_bitmap(&b->mark, 66 * P, P, device, 3);
	cr_assert_eq(dirtylog_add(&log, &all), 0);
	dirtylog_walk(&walk, &log, b->words, LOG_WORDS * 8);
	cr_assert(dirtylog_next(&walk, &range));
	cr_assert(range.block == 3 && range.offset == 0 && range.length == P);
	cr_assert(dirtylog_next(&walk, &range));
	cr_assert(range.offset == 63 * P && range.length == 6 * P, "%lu pages from %lu on",
		  (unsigned long)(range.length / P), (unsigned long)(range.offset / P));
	cr_assert_not(dirtylog_next(&walk, &range));
}

Test(dirtymark, F43_against_a_map)
{
	struct rng rng = { rng_seed() };

	for (unsigned run = 0; run < 500; run++) {
		cleanup_free struct bench *b = bench();
		uint64_t bits[8], start = rng_below(&rng, LOG_PAGES), n = rng_below(&rng, 512);
		uint64_t per = UINT64_C(1) << rng_below(&rng, 4), strays = 0;
		bool want[LOG_PAGES] = { false };

		for (unsigned i = 0; i < ARRAY_LEN(bits); i++)
			bits[i] = rng_next(&rng) & rng_next(&rng) & rng_next(&rng);
		for (uint64_t i = 0; i < n * per; i++) {
			bool set = bits[i / per / 64] >> i / per % 64 & 1;

			if (start + i < LOG_PAGES)
				want[start + i] = set;
			else
				strays += set;
		}
		dirtymark_bitmap(&b->mark, start * P, per * P, bits, n);
		for (uint64_t i = 0; i < LOG_PAGES; i++)
			cr_assert_eq(is_dirty(b, i), want[i], "page %lu", (unsigned long)i);
		cr_assert_eq(b->mark.strays, strays);
	}
}

Test(dirtymark, ranges_at_the_edges)
{
	cleanup_free struct bench *b = bench();

	dirtymark_range(&b->mark, 100, 0);
	expect_dirty(b, 0, 0);
	dirtymark_range(&b->mark, P - 1, 2);
	expect_dirty(b, 0, 2);
	dirtymark_range(&b->mark, 63 * P, 66 * P);
	expect_dirty(b, 63, 66);
	dirtymark_range(&b->mark, 0, UINT64_MAX);
	expect_dirty(b, 0, LOG_PAGES);
	dirtymark_range(&b->mark, 9 * P, UINT64_MAX);
	expect_dirty(b, 9, LOG_PAGES - 9);
}
