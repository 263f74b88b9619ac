/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Histograms against sorted arrays: never below the true percentile, at most a sixteenth above it.
 */
#include "config.h"

#include "core/stats.h"

#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "lib/rng.h"

#define VALUES 4000

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* The smallest value such that @permille of all are not above it. */
static uint64_t exact(const uint64_t *sorted, size_t n, unsigned permille)
{
	size_t rank = (n * permille + 999) / 1000;

	return sorted[rank ? rank - 1 : 0];
}

static void compare(const struct histogram *h, const uint64_t *sorted, size_t n)
{
	for (unsigned permille = 0; permille <= 1000; permille++) {
		uint64_t want = exact(sorted, n, permille), got = histogram_percentile(h, permille);

		cr_assert_geq(got, want, "permille %u: %lu is below %lu", permille, got, want);
		cr_assert_leq(got - want, want / 16, "permille %u: %lu is too far above %lu",
			      permille, got, want);
		cr_assert_leq(got, h->max);
	}
	cr_assert_eq(histogram_percentile(h, 1000), sorted[n - 1]);
}

Test(histogram, empty)
{
	struct histogram h = { 0 };

	for (unsigned permille = 0; permille <= 1000; permille += 500)
		cr_expect_eq(histogram_percentile(&h, permille), 0);
}

Test(histogram, one_value_is_every_percentile)
{
	for (unsigned power = 0; power < 64; power++) {
		struct histogram h = { 0 };
		uint64_t value = (1ull << power) + (power > 3 ? 3 : 0);

		histogram_add(&h, value);
		for (unsigned permille = 0; permille <= 1000; permille++)
			cr_assert_eq(histogram_percentile(&h, permille), value, "2^%u", power);
	}
}

Test(histogram, small_values_are_exact)
{
	struct histogram h = { 0 };

	for (uint64_t v = 0; v < 16; v++)
		histogram_add(&h, v);
	for (unsigned i = 1; i <= 16; i++)
		cr_expect_eq(histogram_percentile(&h, i * 1000 / 16), i - 1);
}

Test(histogram, count_sum_and_max)
{
	struct histogram h = { 0 };

	histogram_add(&h, 5);
	histogram_add(&h, 0);
	histogram_add(&h, 1ull << 50);
	histogram_add(&h, 7);
	cr_expect_eq(h.count, 4);
	cr_expect_eq(h.sum, 12 + (1ull << 50));
	cr_expect_eq(h.max, 1ull << 50);
}

/* Every bucket is entered at both of its ends and by no neighbour's value. */
Test(histogram, buckets_follow_each_other)
{
	unsigned last = 0;

	for (uint64_t v = 0; v < 1 << 16; v++) {
		struct histogram h = { 0 };
		unsigned at = 0;

		histogram_add(&h, v);
		while (!h.bucket[at])
			at++;
		cr_assert(at == last || at == last + 1, "%lu in bucket %u after %u", v, at, last);
		last = at;
	}
}

Test(histogram, values_beyond_the_last_bucket_are_not_understated)
{
	static const uint64_t values[] = { 1ull << 20, 1ull << 42, 1ull << 43, 1ull << 60 };
	struct histogram h = { 0 };

	for (size_t i = 0; i < ARRAY_LEN(values); i++)
		histogram_add(&h, values[i]);
	for (unsigned permille = 0; permille <= 1000; permille++)
		cr_assert_geq(histogram_percentile(&h, permille), exact(values, 4, permille));
}

Test(histogram, percentiles_against_a_sorted_array)
{
	struct rng rng = { .state = rng_seed() };
	uint64_t value[VALUES];

	for (unsigned round = 0; round < 20; round++) {
		size_t n = round ? rng_between(&rng, 1, VALUES) : VALUES;
		struct histogram h = { 0 };

		for (size_t i = 0; i < n; i++) {
			value[i] = rng_next(&rng) >> (24 + rng_below(&rng, 40));
			histogram_add(&h, value[i]);
		}
		qsort(value, n, sizeof(value[0]), by_value);
		compare(&h, value, n);
	}
}

Test(histogram, a_merge_is_the_histogram_of_both)
{
	struct rng rng = { .state = rng_seed() };
	struct histogram a = { 0 }, b = { 0 }, both = { 0 };

	for (unsigned i = 0; i < VALUES; i++) {
		uint64_t v = rng_next(&rng) >> (24 + rng_below(&rng, 40));

		histogram_add(rng_percent(&rng, 30) ? &a : &b, v);
		histogram_add(&both, v);
	}
	histogram_merge(&a, &b);
	cr_expect_arr_eq(&a, &both, sizeof(a));
	memset(&b, 0, sizeof(b));
	histogram_merge(&a, &b);
	cr_expect_arr_eq(&a, &both, sizeof(a), "nothing more");
	histogram_merge(&b, &a);
	cr_expect_arr_eq(&b, &both, sizeof(a), "into nothing");
}

/* Every counter is added, none into another: the fields before the histograms have 64 bits each. */
Test(stats, sharers_add_up_field_by_field)
{
	enum { FIELDS = offsetof(struct sharer_stats, stage) / sizeof(uint64_t) };
	struct sharer_stats a, b, sum;
	uint64_t *x = (uint64_t *)&a, *y = (uint64_t *)&b;

	memset(&a, 0, sizeof(a));
	memset(&b, 0, sizeof(b));
	for (unsigned i = 0; i < FIELDS; i++) {
		x[i] = 1ull << i;
		y[i] = 1000ull << (2 * i);
	}
	for (unsigned i = 0; i < STAGE_COUNT; i++) {
		histogram_add(&a.stage[i], i + 1);
		histogram_add(&b.stage[i], 100 * (i + 1));
	}
	sum = a;
	sharer_stats_add(&sum, &b);
	for (unsigned i = 0; i < FIELDS; i++)
		cr_expect_eq(((uint64_t *)&sum)[i], x[i] + y[i], "field %u", i);
	for (unsigned i = 0; i < STAGE_COUNT; i++) {
		cr_expect_eq(sum.stage[i].count, 2);
		cr_expect_eq(sum.stage[i].sum, 101 * (i + 1));
		cr_expect_eq(sum.stage[i].max, 100 * (i + 1));
	}
}

static void all_named(const char *const *names, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		cr_assert(names[i] && *names[i], "name %u", i);
		for (unsigned k = 0; k < i; k++)
			cr_assert_str_neq(names[i], names[k]);
	}
}

Test(stats, everything_has_a_name_of_its_own)
{
	all_named(stats_stage_names, STAGE_COUNT);
	all_named(stats_lane_names, LANE_COUNT);
	all_named(stats_how_names, HOW_COUNT);
}
