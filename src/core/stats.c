/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A histogram costs 2.4 KiB and one increment a sample, whatever the range: below 16 ns each value
 * has a bucket of its own, above it the four bits behind the leading one choose among 16 buckets
 * per power of two.  No sample is kept, so two histograms of different sharers add up to that of
 * both, and a snapshot is a plain copy.
 */
#include "config.h"
#include "core/stats.h"

#include "core/guard.h"

#define STEPS_SHIFT 4			/* 16 steps per power of two */
#define STEPS	    (1u << STEPS_SHIFT)

const char *const stats_stage_names[STAGE_COUNT] = { "total", "queue", "wire", "placement",
						     "wake" };
const char *const stats_lane_names[LANE_COUNT] = { "main", "urgent", "store" };
const char *const stats_how_names[HOW_COUNT] = { "copy", "zero", "already", "noted" };

static unsigned bucket_of(uint64_t ns)
{
	unsigned power, index;

	if (ns < STEPS)
		return (unsigned)ns;
	power = 63 - (unsigned)__builtin_clzll(ns);
	index = (power - STEPS_SHIFT + 1) * STEPS +
		(unsigned)((ns >> (power - STEPS_SHIFT)) & (STEPS - 1));
	return index < HISTOGRAM_BUCKETS ? index : HISTOGRAM_BUCKETS - 1;
}

/* Largest value that falls into the bucket; the last one takes everything beyond. */
static uint64_t bucket_end(unsigned index)
{
	unsigned power = index / STEPS + STEPS_SHIFT - 1;

	if (index < STEPS)
		return index;
	if (index == HISTOGRAM_BUCKETS - 1)
		return UINT64_MAX;
	return (1ull << power) + ((uint64_t)(index % STEPS + 1) << (power - STEPS_SHIFT)) - 1;
}

/**
 * histogram_add - count one value, nanoseconds
 */
void histogram_add(struct histogram *h, uint64_t ns)
{
	h->count++;
	h->sum += ns;
	if (ns > h->max)
		h->max = ns;
	h->bucket[bucket_of(ns)]++;
}

/**
 * histogram_merge - count all values of @from in @into as well
 */
void histogram_merge(struct histogram *into, const struct histogram *from)
{
	into->count += from->count;
	into->sum += from->sum;
	if (from->max > into->max)
		into->max = from->max;
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		into->bucket[i] += from->bucket[i];
}

/**
 * histogram_percentile - the value that @permille of a thousand samples do not exceed
 *
 * Return: nanoseconds, at most 6 % above the true sample and never above the largest; 0 when there
 * is none.
 */
uint64_t histogram_percentile(const struct histogram *h, unsigned permille)
{
	uint64_t want = (h->count * permille + 999) / 1000, seen = 0;

	if (h->count == 0)
		return 0;
	/* The 0th permille is the smallest value, which is the first. */
	if (want == 0)
		want = 1;
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += h->bucket[i];
		if (seen >= want)
			return bucket_end(i) < h->max ? bucket_end(i) : h->max;
	}
	return h->max;
}

/**
 * sharer_stats_add - add every counter and histogram of @from to @into
 */
void sharer_stats_add(struct sharer_stats *into, const struct sharer_stats *from)
{
	into->faults += from->faults;
	into->reads += from->reads;
	into->writes += from->writes;
	into->duplicates += from->duplicates;
	into->refaults += from->refaults;
	into->present += from->present;
	into->requests += from->requests;
	into->wakes += from->wakes;
	into->spurious += from->spurious;
	into->blocked_ns += from->blocked_ns;
	into->blocked_threads_ns += from->blocked_threads_ns;
	for (unsigned i = 0; i < STAGE_COUNT; i++)
		histogram_merge(&into->stage[i], &from->stage[i]);
}
