/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Capabilities of regions and containers: what real devices and kernels answer, then each way in
 * which a chain can lie.  (F29, F38, F39, S3-33, S4-16, S4-20)
 */
#include "config.h"

#include "wire/vfiocaps.h"

#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"

/* A chain under construction: the struct it hangs on, then the capabilities one after the other. */
struct answer {
	uint8_t bytes[4096];
	size_t len, last; /* last: where the newest capability begins; 0: none yet */
	size_t link;	  /* where the offset of the first one is kept */
};

static void put(struct answer *a, size_t at, uint64_t v, size_t width)
{
	memcpy(a->bytes + at, &v, width);
}

static void set_argsz(struct answer *a)
{
	put(a, 0, a->len, 4);
}

/* Index 9 of 0x5000 bytes at 0x3000, everything allowed. */
static void region(struct answer *a)
{
	*a = (struct answer){ .len = 32, .link = 12 };
	put(a, 4, 0xf, 4);
	put(a, 8, 9, 4);
	put(a, 16, 0x5000, 8);
	put(a, 24, 0x3000, 8);
	set_argsz(a);
}

static void container(struct answer *a)
{
	*a = (struct answer){ .len = 24, .link = 16 };
	put(a, 4, 3, 4);
	put(a, 8, 0x1000, 8);
	set_argsz(a);
}

/* Another capability; returns where its content begins. */
static size_t add(struct answer *a, unsigned id, unsigned version, size_t content)
{
	size_t at = a->len;

	put(a, a->last ? a->last + 4 : a->link, at, 4);
	put(a, at, id, 2);
	put(a, at + 2, version, 2);
	put(a, at + 4, 0, 4);
	a->last = at;
	a->len = at + 8 + content;
	set_argsz(a);
	return at + 8;
}

static size_t add_pairs(struct answer *a, const uint64_t (*pairs)[2], uint32_t n)
{
	size_t at = add(a, 1, 1, 8 + n * 16);

	put(a, at, n, 4);
	memcpy(a->bytes + at + 8, pairs, n * 16);
	return at;
}

static void expect_region(const struct answer *a, int err, const char *text)
{
	struct vfiocaps_region r;
	const char *why = "";
	size_t need = 0;
	int got = vfiocaps_region(&r, a->bytes, a->len, &need, &why);

	cr_expect_eq(got, err, "%s: %d, not %d (%s)", text, got, err, why);
	cr_expect_eq(*why != '\0', err < 0, "%s: '%s'", text, why);
}

static void expect_container(const struct answer *a, int err, const char *text)
{
	struct vfiocaps_iommu io;
	const char *why = "";
	size_t need = 0;
	int got = vfiocaps_iommu(&io, a->bytes, a->len, &need, &why);

	cr_expect_eq(got, err, "%s: %d, not %d (%s)", text, got, err, why);
}

/* As a vfio-user server of the first generation answered, byte for byte. */
Test(vfiocaps, S3_33_a_real_migration_region)
{
	static const uint8_t bytes[] = {
		0x50, 0, 0, 0, 0xf, 0, 0, 0, 9, 0, 0, 0, 0x20, 0, 0, 0,
		0, 0x50, 0, 0, 0, 0, 0, 0, 0, 0x30, 0, 0, 0, 0, 0, 0,
		2, 0, 1, 0, 0x30, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0,
		1, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,
		0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0,
	};
	struct vfiocaps_region r;
	size_t need = 0;

	cr_assert_eq(vfiocaps_region(&r, bytes, sizeof(bytes), &need, NULL), 0);
	cr_expect(vfiocaps_is_migration(&r));
	cr_expect_eq(r.index, 9);
	cr_expect_eq(r.flags, 0xf);
	cr_expect_eq(r.size, 0x5000);
	cr_expect_eq(r.offset, 0x3000);
	cr_expect_not(r.ndma);
	cr_expect(r.sparse);
	cr_assert_eq(r.n_areas, 1);
	cr_expect_eq(r.areas[0].offset, 0x1000);
	cr_expect_eq(r.areas[0].size, 0x4000);
}

/* Asked with 32 bytes, the answer has the flag, no offset, and its true length. */
Test(vfiocaps, a_short_buffer_is_asked_again)
{
	struct answer a;
	struct vfiocaps_region r;
	size_t need = 0;

	region(&a);
	put(&a, 0, 80, 4);
	cr_expect_eq(vfiocaps_region(&r, a.bytes, 32, &need, NULL), VFIOCAPS_AGAIN);
	cr_expect_eq(need, 80);
	put(&a, 0, VFIOCAPS_MAX, 4);
	cr_expect_eq(vfiocaps_region(&r, a.bytes, 32, &need, NULL), VFIOCAPS_AGAIN);
	cr_expect_eq(need, VFIOCAPS_MAX);
	put(&a, 0, VFIOCAPS_MAX + 1, 4);
	expect_region(&a, -EPROTO, "longer than any");
	put(&a, 0, 31, 4);
	expect_region(&a, -EPROTO, "shorter than the struct");
}

Test(vfiocaps, a_region_without_capabilities)
{
	struct answer a;
	struct vfiocaps_region r;
	size_t need;

	region(&a);
	put(&a, 4, 3, 4);
	put(&a, 12, 0xdead, 4); /* says nothing without the flag */
	cr_assert_eq(vfiocaps_region(&r, a.bytes, 32, &need, NULL), 0);
	cr_expect_not(r.typed || r.sparse || r.ndma || r.n_areas);
	cr_expect_not(vfiocaps_is_migration(&r));
}

Test(vfiocaps, S3_19_ndma_is_told_by_its_presence)
{
	struct answer a;
	struct vfiocaps_region r;
	size_t need, at;

	region(&a);
	at = add(&a, 2, 1, 8);
	put(&a, at, 3, 4);
	put(&a, at + 4, 2, 4);
	add(&a, 6, 1, 0);
	cr_assert_eq(vfiocaps_region(&r, a.bytes, a.len, &need, NULL), 0);
	cr_expect(r.ndma);
	cr_expect_not(vfiocaps_is_migration(&r), "another subtype");
	put(&a, at + 4, 1, 4);
	cr_assert_eq(vfiocaps_region(&r, a.bytes, a.len, &need, NULL), 0);
	cr_expect(vfiocaps_is_migration(&r));
	put(&a, at, 2, 4);
	cr_assert_eq(vfiocaps_region(&r, a.bytes, a.len, &need, NULL), 0);
	cr_expect_not(vfiocaps_is_migration(&r), "another type");
}

Test(vfiocaps, strangers_are_passed_over_in_any_version)
{
	struct answer a;
	struct vfiocaps_region r;
	size_t need, at;

	region(&a);
	add(&a, 77, 9, 40);
	add(&a, 3, 1, 0); /* what has to do with interrupts */
	at = add(&a, 2, 1, 8);
	put(&a, at, 3, 4);
	put(&a, at + 4, 1, 4);
	add(&a, 0xffff, 0, 3);
	cr_assert_eq(vfiocaps_region(&r, a.bytes, a.len, &need, NULL), 0);
	cr_expect(vfiocaps_is_migration(&r));
}

Test(vfiocaps, F38_areas_lie_inside_their_region)
{
	static const struct {
		uint64_t pair[2];
		int err;
		const char *text;
	} rows[] = {
		{ { 0, 0x5000 }, 0, "all of it" },
		{ { 0x4fff, 1 }, 0, "the last byte" },
		{ { 0x4fff, 2 }, -EPROTO, "one byte behind the end" },
		{ { 0x5000, 0x1000 }, -EPROTO, "behind the end" },
		{ { 0x1000, UINT64_MAX }, -EPROTO, "wraps" },
		{ { UINT64_MAX, 1 }, -EPROTO, "far away" },
		{ { 0x7000, 0 }, 0, "empty: not listed" },
	};
	struct answer a;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		region(&a);
		add_pairs(&a, &rows[i].pair, 1);
		expect_region(&a, rows[i].err, rows[i].text);
	}
}

Test(vfiocaps, empty_areas_leave_no_gap)
{
	static const uint64_t pairs[][2] = { { 0x1000, 0 }, { 0x2000, 0x1000 }, { 0, 0 } };
	struct answer a;
	struct vfiocaps_region r;
	size_t need;

	region(&a);
	add_pairs(&a, pairs, 3);
	cr_assert_eq(vfiocaps_region(&r, a.bytes, a.len, &need, NULL), 0);
	cr_expect(r.sparse);
	cr_assert_eq(r.n_areas, 1);
	cr_expect_eq(r.areas[0].offset, 0x2000);
}

Test(vfiocaps, S4_25_counts_are_bounded)
{
	static const uint64_t pairs[VFIOCAPS_AREAS + 1][2];
	struct answer a;
	size_t at;

	region(&a);
	at = add_pairs(&a, pairs, VFIOCAPS_AREAS);
	expect_region(&a, 0, "as many as there is room");
	put(&a, at, VFIOCAPS_AREAS + 1, 4);
	expect_region(&a, -EPROTO, "one more than there are bytes");
	put(&a, at, UINT32_MAX, 4);
	expect_region(&a, -EPROTO, "four thousand million");
	region(&a);
	add_pairs(&a, pairs, VFIOCAPS_AREAS + 1);
	expect_region(&a, -E2BIG, "one more than there is room");
	container(&a);
	add_pairs(&a, pairs, VFIOCAPS_RANGES + 1);
	expect_container(&a, -E2BIG, "one more range than there is room");
}

/* What a list holds has to end where the next capability begins, not where the answer does. */
Test(vfiocaps, a_capability_ends_where_the_next_begins)
{
	static const uint64_t pairs[2][2] = { { 0, 0x1000 }, { 0x1000, 0x1000 } };
	struct answer a;
	size_t at;

	region(&a);
	at = add_pairs(&a, pairs, 2);
	add(&a, 6, 1, 0);
	expect_region(&a, 0, "two areas");
	put(&a, at, 3, 4);
	expect_region(&a, -EPROTO, "the third would be the next capability");
	region(&a);
	add(&a, 2, 1, 4);
	add(&a, 6, 1, 16);
	expect_region(&a, -EPROTO, "a type of four bytes");
}

Test(vfiocaps, chains_that_lie)
{
	static const struct {
		uint32_t first, next; /* of the first capability */
		const char *text;
	} rows[] = {
		{ 0, 0, "none, in spite of the flag" },
		{ 8, 0, "inside the struct" },
		{ 31, 0, "begins inside the struct" },
		{ 56, 0, "at the end" },
		{ 49, 0, "its head does not fit" },
		{ UINT32_MAX, 0, "far away" },
		{ 32, 32, "points to itself" },
		{ 32, 39, "the next begins in its head" },
		{ 32, 8, "points into the struct" },
		{ 32, 1, "points before the struct's end" },
		{ 32, 56, "the next is at the end" },
		{ 32, 57, "the next is behind the end" },
		{ 32, UINT32_MAX, "the next is far away" },
	};
	struct answer a;

	region(&a);
	add(&a, 2, 1, 8);
	add(&a, 6, 1, 0);
	expect_region(&a, 0, "as it should be");
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		put(&a, 12, rows[i].first, 4);
		put(&a, 36, rows[i].next, 4);
		expect_region(&a, -EPROTO, rows[i].text);
	}
}

/* Two that point at each other: each hop alone is inside the answer. */
Test(vfiocaps, a_loop_of_two)
{
	struct answer a;

	region(&a);
	add(&a, 50, 1, 8);
	add(&a, 51, 1, 8);
	put(&a, a.last + 4, 32, 4);
	expect_region(&a, -EPROTO, "the second leads back to the first");
}

Test(vfiocaps, known_ones_stand_once_and_in_version_1)
{
	struct answer a;

	region(&a);
	add(&a, 6, 1, 0);
	add(&a, 6, 1, 0);
	expect_region(&a, -EPROTO, "twice");
	for (unsigned id = 1; id <= 6; id += id == 2 ? 4 : 1) {
		region(&a);
		add(&a, id, 2, 32);
		expect_region(&a, -EOPNOTSUPP, "of a later version");
	}
}

/* Every prefix of a good answer: what is cut off is never read. */
Test(vfiocaps, F39_truncation_anywhere)
{
	static const uint64_t pairs[2][2] = { { 0, 0x1000 }, { 0x1000, 0x1000 } };
	struct answer a;

	region(&a);
	add_pairs(&a, pairs, 2);
	add(&a, 2, 1, 8);
	for (size_t len = 0; len < a.len; len++) {
		cleanup_free uint8_t *cut = malloc(len ? len : 1); /* ASan sees its end */
		struct vfiocaps_region r;
		size_t need = 0;
		int err;

		memcpy(cut, a.bytes, len);
		err = vfiocaps_region(&r, cut, len, &need, NULL);
		cr_expect_eq(err, len < 32 ? -EPROTO : VFIOCAPS_AGAIN, "%zu bytes: %d", len, err);
		if (len < 32)
			continue;
		memcpy(cut, &(uint32_t){ (uint32_t)len }, 4);
		cr_expect_eq(vfiocaps_region(&r, cut, len, &need, NULL), -EPROTO,
			     "%zu bytes that say so", len);
	}
}

Test(vfiocaps, S4_16_a_container_that_tracks_dirty_pages)
{
	static const uint64_t pairs[2][2] = { { 0, 0xfedfffff }, { 0xfef00000, UINT64_MAX } };
	struct answer a;
	struct vfiocaps_iommu io;
	size_t need, at;

	container(&a);
	add_pairs(&a, pairs, 2);
	at = add(&a, 2, 1, 24);
	put(&a, at + 8, 0x1000, 8);
	put(&a, at + 16, 268435456, 8);
	at = add(&a, 3, 1, 4);
	put(&a, at, 65535, 4);
	cr_assert_eq(vfiocaps_iommu(&io, a.bytes, a.len, &need, NULL), 0);
	cr_expect(io.migration);
	cr_expect_eq(io.pgsizes, 0x1000);
	cr_expect_eq(io.dirty_pgsizes, 0x1000);
	cr_expect_eq(io.dirty_bitmap_max, 268435456);
	cr_expect(io.limited);
	cr_expect_eq(io.dma_avail, 65535);
	cr_assert_eq(io.n_ranges, 2);
	cr_expect_eq(io.ranges[1].first, 0xfef00000);
	cr_expect_eq(io.ranges[1].last, UINT64_MAX);
}

/* A kernel from before capabilities fills sixteen bytes. */
Test(vfiocaps, an_old_container)
{
	struct answer a;
	struct vfiocaps_iommu io;
	size_t need;

	container(&a);
	put(&a, 0, 16, 4);
	put(&a, 4, 1, 4);
	cr_assert_eq(vfiocaps_iommu(&io, a.bytes, 24, &need, NULL), 0);
	cr_expect_eq(io.pgsizes, 0x1000);
	cr_expect_not(io.migration || io.limited || io.n_ranges);
	put(&a, 4, 0, 4);
	cr_assert_eq(vfiocaps_iommu(&io, a.bytes, 24, &need, NULL), 0);
	cr_expect_eq(io.pgsizes, 0, "not told");
	put(&a, 4, 3, 4);
	expect_container(&a, -EPROTO, "capabilities in sixteen bytes");
}

Test(vfiocaps, containers_that_lie)
{
	static const struct {
		uint64_t pairs[2][2];
		const char *text;
	} rows[] = {
		{ { { 1, 0 }, { 2, 3 } }, "ends before it begins" },
		{ { { 0, 9 }, { 9, 12 } }, "they meet" },
		{ { { 8, 9 }, { 0, 1 } }, "they descend" },
	};
	struct answer a;
	size_t at;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		container(&a);
		add_pairs(&a, rows[i].pairs, 2);
		expect_container(&a, -EPROTO, rows[i].text);
	}
	container(&a);
	at = add(&a, 2, 1, 24);
	expect_container(&a, -EPROTO, "tracks in no size");
	put(&a, at + 8, 0x1000, 8);
	expect_container(&a, -EPROTO, "tracks in no bitmap");
	put(&a, at + 16, 1, 8);
	expect_container(&a, 0, "tracks");
}
