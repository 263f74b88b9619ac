/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"
#include "toucher.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "core/guard.h"
#include "sys/clock.h"

static uint64_t next_random(uint64_t *state)
{
	/* splitmix64: enough to defeat any order the kernel or the daemon could follow */
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static void shuffle(uint64_t *order, uint64_t n, uint64_t seed)
{
	for (uint64_t i = 0; i < n; i++)
		order[i] = i;
	for (uint64_t i = n - 1; i > 0; i--) {
		uint64_t j = next_random(&seed) % (i + 1), t = order[i];

		order[i] = order[j];
		order[j] = t;
	}
}

/*
 * Is it in the file already?  Shared memory only; what arrives after the look makes one sample
 * short.
 */
static bool is_there(volatile const uint8_t *at)
{
	static const uintptr_t host_page = 4096;
	unsigned char there = 0;

	return mincore((void *)((uintptr_t)at & ~(host_page - 1)), 1, &there) == 0 && (there & 1);
}

static void touch(struct toucher *t, volatile const uint8_t *at)
{
	uint64_t before;

	if (t->only_absent && is_there(at)) {
		(void)*at;
		return;
	}
	if (t->together)
		pthread_barrier_wait(t->together);
	before = clock_ns();
	(void)*at;
	t->sample[t->samples++] = clock_ns() - before;
}

int toucher_run(struct toucher *t)
{
	cleanup_free uint64_t *order = calloc(t->count, sizeof(*order));
	uint64_t step = t->pages / t->count, start;

	t->sample = calloc(t->count, sizeof(*t->sample));
	if (!order || !t->sample)
		return -ENOMEM;
	/* Faults of our own bookkeeping must not be measured. */
	for (uint64_t i = 0; i < t->count; i++)
		t->sample[i] = 1;
	shuffle(order, t->count, t->seed);
	start = clock_ns();
	for (uint64_t i = 0; i < t->count; i++)
		touch(t, t->base + order[i] * step * t->page_size);
	t->elapsed_ns = clock_ns() - start;
	return 0;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t percentile(const struct toucher *t, unsigned percent)
{
	return t->samples ? t->sample[(t->samples - 1) * percent / 100] : 0;
}

void toucher_print(struct toucher *t, const char *row)
{
	uint64_t n = t->samples, sum = 0;

	qsort(t->sample, n, sizeof(*t->sample), by_value);
	for (uint64_t i = 0; i < n; i++)
		sum += t->sample[i];
	printf("%s p50 %" PRIu64 " p90 %" PRIu64 " p99 %" PRIu64 " max %" PRIu64 " mean %" PRIu64
	       " samples %" PRIu64 " faults_per_s %" PRIu64 "\n",
	       row, percentile(t, 50), percentile(t, 90), percentile(t, 99), percentile(t, 100),
	       n ? sum / n : 0, n, t->elapsed_ns ? n * 1000000000u / t->elapsed_ns : 0);
	fflush(stdout);
}

void toucher_pin(int cpu)
{
	cpu_set_t set;

	if (cpu < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		perror("sched_setaffinity");
}
