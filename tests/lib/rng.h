/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TESTS_RNG_H
#define PC_TESTS_RNG_H
/*
 * Numbers that look random and come again: one 64-bit state (splitmix64), seeded by POSTCOPY_SEED
 * or, without it, by the kernel.  Whoever seeds from rng_seed() prints the seed.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

struct rng {
	uint64_t state;
};

static inline uint64_t rng_next(struct rng *r)
{
	uint64_t z = r->state += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

/* One of [0, n); n is small, so the bias does not matter. */
static inline uint64_t rng_below(struct rng *r, uint64_t n)
{
	return rng_next(r) % n;
}

/* One of [low, high]. */
static inline uint64_t rng_between(struct rng *r, uint64_t low, uint64_t high)
{
	return low + rng_below(r, high - low + 1);
}

static inline bool rng_percent(struct rng *r, unsigned percent)
{
	return rng_below(r, 100) < percent;
}

static inline uint64_t rng_seed(void)
{
	const char *text = getenv("POSTCOPY_SEED");
	uint64_t seed = 1;

	if (text && *text)
		seed = strtoull(text, NULL, 0);
	else if (getrandom(&seed, sizeof(uint32_t), 0) != sizeof(uint32_t))
		seed = 1;
	fprintf(stderr, "# POSTCOPY_SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

#endif
