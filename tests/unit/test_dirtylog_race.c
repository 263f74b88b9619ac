/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writers and a reader of one dirty log: a plain program, so that TSan can watch.
 *
 * A writer changes a page, then sets its bit, as back-ends do.  The reader copies each page whose
 * bit it takes, pass after pass, and once more when the writers are gone.  Then its copy must be
 * what the memory is: a bit that is lost, or taken without what was written before it, is a page
 * that the destination would have from the day before.  And it took as many bits as there were set
 * that were not, so each was found once, whatever was written later.  (F41, S4-07)
 */
#include "config.h"

#include "core/dirtylog.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/guard.h"
#include "lib/rng.h"

enum { PAGES = 512, WRITERS = 2, WRITES_MAX = 20000000, ENOUGH = 5000, ROUNDS = 2 };

struct arena {
	struct dirtylog log;
	uint64_t words[PAGES / 64];
	uint64_t page[PAGES], copy[PAGES]; /* a page is a word here */
	unsigned writing;
	bool enough; /* the reader met them so often */
	uint64_t set, passes, taken, strays;
	pthread_barrier_t barrier;
};

struct writer {
	struct arena *arena;
	struct rng rng;
	unsigned spread;
};

static void *write_pages(void *data)
{
	struct writer *w = data;
	struct arena *a = w->arena;

	pthread_barrier_wait(&a->barrier);
	for (unsigned i = 0; i < WRITES_MAX && !__atomic_load_n(&a->enough, __ATOMIC_RELAXED);
	     i++) {
		uint64_t page = rng_below(&w->rng, w->spread), bit = UINT64_C(1) << (page % 64);

		__atomic_fetch_add(&a->page[page], 1, __ATOMIC_RELAXED);
		if (!(__atomic_fetch_or(&a->words[page / 64], bit, __ATOMIC_RELEASE) & bit))
			__atomic_fetch_add(&a->set, 1, __ATOMIC_RELAXED);
	}
	__atomic_fetch_sub(&a->writing, 1, __ATOMIC_RELEASE);
	return NULL;
}

static void pass(struct arena *a)
{
	struct dirtylog_range range;
	struct dirtylog_walk w;

	dirtylog_walk(&w, &a->log, a->words, sizeof(a->words));
	while (dirtylog_next(&w, &range))
		for (uint64_t at = range.offset; at < range.offset + range.length;
		     at += DIRTYLOG_PAGE) {
			uint64_t page = at / DIRTYLOG_PAGE;

			a->copy[page] = __atomic_load_n(&a->page[page], __ATOMIC_RELAXED);
			a->taken++;
		}
	a->strays += w.strays;
	a->passes++;
}

/* NULL, or what went wrong. */
static const char *race(struct arena *a, struct rng *rng, unsigned spread)
{
	struct writer writer[WRITERS];
	pthread_t thread[WRITERS];

	memset(a->page, 0, sizeof(a->page));
	memset(a->copy, 0, sizeof(a->copy));
	a->writing = WRITERS;
	a->enough = false;
	a->set = a->taken = 0;
	for (unsigned i = 0; i < WRITERS; i++) {
		writer[i] = (struct writer){ a, { .state = rng_next(rng) }, spread };
		if (pthread_create(&thread[i], NULL, write_pages, &writer[i]) != 0)
			return "no thread";
	}
	pthread_barrier_wait(&a->barrier);
	while (__atomic_load_n(&a->writing, __ATOMIC_ACQUIRE) > 0) {
		pass(a);
		__atomic_store_n(&a->enough, a->taken >= ENOUGH, __ATOMIC_RELAXED);
	}
	for (unsigned i = 0; i < WRITERS; i++)
		pthread_join(thread[i], NULL);
	pass(a);
	if (a->strays)
		return "a page is in no region";
	if (a->taken == 0)
		return "nothing was found at all";
	if (a->taken != a->set)
		return "a bit was lost, or found twice";
	return memcmp(a->page, a->copy, sizeof(a->page)) ? "a page was missed" : NULL;
}

int main(void)
{
	static const unsigned spreads[] = { PAGES, 64, 3 };
	struct rng rng = { .state = rng_seed() };
	struct arena a = { .log.n = 0 };
	int status = EXIT_SUCCESS;

	printf("1..%zu\n", ARRAY_LEN(spreads));
	if (pthread_barrier_init(&a.barrier, NULL, WRITERS + 1) != 0 ||
	    dirtylog_add(&a.log,
			 &(struct dirtylog_region){ .size = (uint64_t)PAGES * DIRTYLOG_PAGE }) != 0)
		return EXIT_FAILURE;
	for (unsigned i = 0; i < ARRAY_LEN(spreads); i++) {
		const char *error = NULL;

		for (unsigned round = 0; round < ROUNDS && !error; round++)
			error = race(&a, &rng, spreads[i]);
		printf("%sok %u - two writers of %u pages and a reader of their log (F41)\n",
		       error ? "not " : "", i + 1, spreads[i]);
		printf("# %lu passes, %lu of %lu in the last; %s\n", a.passes, a.taken, a.set,
		       error ? error : "none was missed");
		if (error)
			status = EXIT_FAILURE;
		a.passes = 0;
	}
	pthread_barrier_destroy(&a.barrier);
	return status;
}
