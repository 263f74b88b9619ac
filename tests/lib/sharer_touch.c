/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Threads take numbers from one counter; a bijection of [0, 2^bits) turns a number into a page
 * (numbers beyond the last page are skipped).  So every page is touched exactly once by the
 * process, in an order that the seed decides, without a table that would be as large as the memory
 * is.
 */
#include "config.h"

#include "sharer.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "core/guard.h"

/* A page that is there costs its mapping at most; measured 0.3 to 1.5 us here. */
#define FAULT_NS 2000

/* Log-linear: 64 steps per power of two, 1.6 % wide. */
#define STEP_BITS 6
#define STEPS (1 << STEP_BITS)
#define BUCKETS ((65 - STEP_BITS) * STEPS)

struct histogram {
	uint64_t count[BUCKETS];
	uint64_t n, max_ns;
};

struct worker {
	struct sharer_touch *touch;
	pthread_t thread;
	uint64_t pages;
	struct histogram faults;
};

struct sharer_touch {
	const struct sharer_options *options;
	uint64_t total;			/* pages of all blocks */
	unsigned bits;			/* 2^bits >= total */
	uint64_t mul[3], add[3];	/* of the bijection */
	uint64_t start_ns;
	int done_fd;
	unsigned n_workers;
	_Atomic uint64_t next;		/* number to take */
	_Atomic uint64_t taken;		/* touches promised */
	_Atomic uint64_t last_ns;	/* end of the last touch */
	_Atomic unsigned running;
	atomic_flag told_first;
	struct worker worker[];
};

/* --- histogram --- */

static unsigned bucket_of(uint64_t ns)
{
	unsigned top;

	if (ns < STEPS)
		return (unsigned)ns;
	top = 63 - (unsigned)__builtin_clzll(ns);
	return (top - STEP_BITS + 1) * STEPS + (unsigned)(ns >> (top - STEP_BITS)) - STEPS;
}

/* Lower edge of a bucket, in ns. */
static uint64_t bucket_ns(unsigned i)
{
	if (i < 2 * STEPS)
		return i;
	return (uint64_t)(STEPS + i % STEPS) << (i / STEPS - 1);
}

static void histogram_add(struct histogram *h, uint64_t ns)
{
	h->count[bucket_of(ns)]++;
	h->n++;
	if (ns > h->max_ns)
		h->max_ns = ns;
}

static void histogram_merge(struct histogram *h, const struct histogram *from)
{
	for (unsigned i = 0; i < BUCKETS; i++)
		h->count[i] += from->count[i];
	h->n += from->n;
	if (from->max_ns > h->max_ns)
		h->max_ns = from->max_ns;
}

static double histogram_us(const struct histogram *h, double part)
{
	uint64_t rank = (uint64_t)(part * (double)h->n), seen = 0;

	for (unsigned i = 0; i < BUCKETS; i++) {
		seen += h->count[i];
		if (seen > rank)
			return (double)bucket_ns(i) / 1000;
	}
	return (double)h->max_ns / 1000;
}

/* --- order --- */

static uint64_t splitmix(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

static void order_init(struct sharer_touch *t)
{
	uint64_t state = t->options->seed;

	for (unsigned i = 0; i < ARRAY_LEN(t->mul); i++) {
		t->mul[i] = splitmix(&state) | 1;
		t->add[i] = splitmix(&state);
	}
	while (t->bits < 63 && (UINT64_C(1) << t->bits) < t->total)
		t->bits++;
}

/* Odd multiplication, addition and a right xor-shift are one-to-one modulo 2^bits. */
static uint64_t order_page(const struct sharer_touch *t, uint64_t i)
{
	uint64_t mask = (UINT64_C(1) << t->bits) - 1;

	if (t->options->linear)
		return i;
	for (unsigned r = 0; r < ARRAY_LEN(t->mul); r++) {
		i = (i * t->mul[r] + t->add[r]) & mask;
		i ^= i >> (t->bits / 2 + 1);
	}
	return i;
}

/* --- threads --- */

static uint8_t *page_address(const struct sharer_options *o, uint64_t page)
{
	for (unsigned i = 0; i < o->n_blocks; i++) {
		const struct sharer_block *b = &o->block[i];
		uint64_t pages = b->size / b->page_size;

		if (page < pages)
			return (b->alias && page % 2 ? b->alias : b->address) + page * b->page_size;
		page -= pages;
	}
	abort();
}

/*
 * A write that changes nothing: 0 takes the place of 0 and of nothing else.  (On x86 the attempt
 * itself is a write access to the page.)
 */
static void touch_page(uint8_t *p, bool write)
{
	uint8_t zero = 0;

	if (write)
		__atomic_compare_exchange_n(p, &zero, 0, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	else
		(void)*(volatile uint8_t *)p;
}

static void tell_first(struct sharer_touch *t, uint64_t ns)
{
	if (!atomic_flag_test_and_set(&t->told_first))
		sharer_report("first-touch", ",\"us\":%.3f", (double)ns / 1000);
}

static void measure(struct worker *w, uint64_t page)
{
	struct sharer_touch *t = w->touch;
	uint8_t *p = page_address(t->options, page);
	uint64_t start = sharer_report_now_ns(), end;

	touch_page(p, t->options->write);
	end = sharer_report_now_ns();
	w->pages++;
	if (end - start > FAULT_NS)
		histogram_add(&w->faults, end - start);
	tell_first(t, end - start);
	atomic_store_explicit(&t->last_ns, end, memory_order_relaxed);
}

static void *work(void *arg)
{
	struct worker *w = arg;
	struct sharer_touch *t = w->touch;
	const uint64_t numbers = UINT64_C(1) << t->bits;
	const uint64_t limit = t->options->leave_after ? t->options->leave_after : UINT64_MAX;

	for (;;) {
		uint64_t page, i = atomic_fetch_add(&t->next, 1);

		if (i >= numbers)
			break;
		page = order_page(t, i);
		if (page >= t->total)
			continue;
		if (atomic_fetch_add(&t->taken, 1) >= limit)
			break;
		measure(w, page);
	}
	if (atomic_fetch_sub(&t->running, 1) == 1)
		eventfd_write(t->done_fd, 1);
	return NULL;
}

static int start_worker(struct sharer_touch *t)
{
	struct worker *w = &t->worker[t->n_workers];
	int err;

	w->touch = t;
	atomic_fetch_add(&t->running, 1);
	err = pthread_create(&w->thread, NULL, work, w);
	if (err) {
		atomic_fetch_sub(&t->running, 1);
		return -err;
	}
	t->n_workers++;
	return 0;
}

int sharer_touch_start(struct sharer_touch **out, const struct sharer_options *o, int done_fd)
{
	struct sharer_touch *t = calloc(1, sizeof(*t) + o->threads * sizeof(t->worker[0]));
	int err = 0;

	if (!t)
		return -ENOMEM;
	t->options = o;
	t->done_fd = done_fd;
	for (unsigned i = 0; i < o->n_blocks; i++)
		t->total += o->block[i].size / o->block[i].page_size;
	order_init(t);
	t->start_ns = sharer_report_now_ns();
	/* One is kept back until all run, so that "all have ended" is said once. */
	atomic_store(&t->running, 1);
	for (unsigned i = 0; i < o->threads && !err; i++)
		err = start_worker(t);
	if (atomic_fetch_sub(&t->running, 1) == 1)
		eventfd_write(done_fd, 1);
	*out = t;
	return err;
}

void sharer_touch_finish(struct sharer_touch *t, struct sharer_touched *result)
{
	struct histogram *all = &t->worker[0].faults;

	memset(result, 0, sizeof(*result));
	for (unsigned i = 0; i < t->n_workers; i++) {
		pthread_join(t->worker[i].thread, NULL);
		result->pages += t->worker[i].pages;
		if (i > 0)
			histogram_merge(all, &t->worker[i].faults);
	}
	if (t->n_workers > 0) {
		result->faulted = all->n;
		result->p50_us = histogram_us(all, 0.50);
		result->p99_us = histogram_us(all, 0.99);
		result->max_us = (double)all->max_ns / 1000;
		result->elapsed_us = (double)(atomic_load(&t->last_ns) - t->start_ns) / 1000;
	}
	free(t);
}
