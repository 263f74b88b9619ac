/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TESTS_BENCH_TOUCHER_H
#define PC_TESTS_BENCH_TOUCHER_H
/*
 * The thread whose page faults are measured: the same code in every row, so that rows differ only
 * in who serves it.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct toucher {
	volatile const uint8_t *base;
	uint64_t pages;			/* of @page_size */
	uint64_t page_size;
	uint64_t count;			/* pages to touch, each once, in random order */
	uint64_t seed;
	/* beside a background stream: measure those pages only that are not there yet */
	bool only_absent;
	/* waited at before each touch; NULL: nobody else touches */
	pthread_barrier_t *together;
	/* of each measured touch, nanoseconds; sorted by toucher_print() */
	uint64_t *sample;
	uint64_t samples;
	uint64_t elapsed_ns;
};

/* 0 or -ENOMEM. */
int toucher_run(struct toucher *t);
/* One line: `ROW p50 N p90 N p99 N max N mean N samples N faults_per_s N` (nanoseconds). */
void toucher_print(struct toucher *t, const char *row);
/* Pin the calling process to a CPU; negative: leave it. */
void toucher_pin(int cpu);

#endif
