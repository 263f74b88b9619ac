/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two threads and one ledger, with nothing else between them: a plain program, so that TSan can
 * watch.
 *
 * The fault side requests pages at random; the bulk side claims and publishes all of them, in
 * another order.  Afterwards both tell what they saw, and for every page it must fit: publish said
 * "somebody waits" for exactly those pages that were requested before they were present.  A waiter
 * that is missed there would sleep for ever (O1, O2).
 *
 * The same where the bulk side leaves holes: what it notes is the fault side's to place, and what
 * somebody waits for is not noted (O9).
 */
#include "config.h"

#include "core/ledger.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/guard.h"
#include "lib/rng.h"

#define PAGES  20000
#define ROUNDS 120

struct arena {
	struct ledger ledger;
	pthread_barrier_t barrier;
	uint64_t seed;
	unsigned lead;			/* pages the fault side is behind or ahead of the other */
	bool *waits;			/* fault side: a fault found the page not present */
	bool *told;			/* bulk side: publish said that somebody waits */
	uint64_t placed;		/* bulk side: or noted */
	bool notes;			/* bulk side: everything is zeroes */
	uint64_t holes;			/* fault side: noted pages it found, and placed */
};

static void *fault_side(void *arg)
{
	struct arena *a = arg;
	struct rng rng = { .state = a->seed };

	pthread_barrier_wait(&a->barrier);
	for (uint64_t i = 0; i < PAGES; i++) {
		uint64_t page = (i + rng_below(&rng, a->lead)) % PAGES;
		enum page_state found = ledger_request(&a->ledger, page);

		if (found == PAGE_ZERO)
			a->holes += ledger_move(&a->ledger, page, PAGE_ZERO, PAGE_CONTESTED) &&
				    ledger_publish(&a->ledger, page);
		else if (found != PAGE_PRESENT)
			a->waits[page] = true;
	}
	return NULL;
}

static void *bulk_side(void *arg)
{
	struct arena *a = arg;

	pthread_barrier_wait(&a->barrier);
	for (uint64_t page = 0; page < PAGES; page++) {
		if (!ledger_claimed(ledger_claim(&a->ledger, page)))
			continue;
		a->placed++;
		if (a->notes && ledger_note(&a->ledger, page))
			continue;
		a->told[page] = ledger_publish(&a->ledger, page);
	}
	return NULL;
}

/* The pages of a word are claimed by both sides: each page by exactly one. */
static void *other_lane(void *arg)
{
	struct arena *a = arg;
	uint64_t placed = 0;

	pthread_barrier_wait(&a->barrier);
	for (uint64_t page = PAGES; page-- > 0;) {
		if (!ledger_claimed(ledger_claim(&a->ledger, page)))
			continue;
		placed++;
		ledger_publish(&a->ledger, page);
	}
	return (void *)(uintptr_t)placed;
}

static uint64_t both(struct arena *a, void *(*one)(void *), void *(*two)(void *))
{
	pthread_t thread;
	void *result;

	ledger_set(&a->ledger, 0, PAGES, PAGE_MISSING);
	memset(a->waits, 0, PAGES);
	memset(a->told, 0, PAGES);
	a->placed = a->holes = 0;
	if (pthread_create(&thread, NULL, one, a) != 0) {
		printf("Bail out! no thread\n");
		exit(EXIT_FAILURE);
	}
	two(a);
	pthread_join(thread, &result);
	return (uintptr_t)result;
}

static const char *waiters_fit(struct arena *a, uint64_t *contested)
{
	both(a, fault_side, bulk_side);
	if (a->placed != PAGES)
		return "a page was not placed, or twice";
	for (uint64_t page = 0; page < PAGES; page++) {
		enum page_state is = ledger_get(&a->ledger, page);

		if (is != PAGE_PRESENT && !(is == PAGE_ZERO && a->notes))
			return "a page is not present";
		if (is == PAGE_ZERO && a->waits[page])
			return "a page that somebody waits for is a hole";
		if (a->waits[page] && !a->told[page])
			return "a waiter was lost";
		if (!a->waits[page] && a->told[page])
			return "nobody waits, and somebody was announced";
		*contested += a->told[page];
	}
	return NULL;
}

static void result(unsigned number, const char *what, const char *error)
{
	printf("%sok %u - %s\n", error ? "not " : "", number, what);
	if (error)
		printf("# %s\n", error);
}

static const char *all_waiters(struct arena *a, bool notes)
{
	struct rng rng = { .state = a->seed };
	const char *error = NULL;
	uint64_t contested = 0, holes = 0;

	a->notes = notes;

	for (unsigned round = 0; round < ROUNDS && !error; round++) {
		a->seed = rng_next(&rng);
		a->lead = 1u << (round % 12);
		error = waiters_fit(a, &contested);
		holes += a->holes;
	}
	printf("# %lu of %u pages were waited for, %lu found as holes\n", contested, ROUNDS * PAGES,
	       holes);
	if (!error && (contested == 0 || (notes && holes == 0)))
		error = "the sides never met";
	return error;
}

static const char *all_claims(struct arena *a)
{
	for (unsigned round = 0; round < ROUNDS; round++) {
		uint64_t others = both(a, other_lane, bulk_side);

		if (a->placed + others != PAGES)
			return "a page was claimed by nobody, or by both";
	}
	return NULL;
}

int main(void)
{
	cleanup_free void *memory = calloc(1, ledger_size(PAGES));
	cleanup_free bool *waits = calloc(PAGES, 1);
	cleanup_free bool *told = calloc(PAGES, 1);
	struct arena a = { .seed = rng_seed(), .waits = waits, .told = told };
	const char *error;
	int status;

	printf("1..3\n");
	if (!memory || !waits || !told ||
	    ledger_init(&a.ledger, memory, ledger_size(PAGES), PAGES) != 0 ||
	    pthread_barrier_init(&a.barrier, NULL, 2) != 0) {
		printf("Bail out! no memory\n");
		return EXIT_FAILURE;
	}
	error = all_waiters(&a, false);
	result(1, "no waiter is lost between two lanes (O1 O2)", error);
	status = error != NULL;
	error = all_waiters(&a, true);
	result(2, "no waiter is lost where zeroes stay holes (O1 O9)", error);
	status |= error != NULL;
	a.notes = false;
	error = all_claims(&a);
	result(3, "every page is claimed by exactly one lane (O2)", error);
	pthread_barrier_destroy(&a.barrier);
	return status || error ? EXIT_FAILURE : EXIT_SUCCESS;
}
