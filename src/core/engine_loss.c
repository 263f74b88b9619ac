/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pages that will not come: their source is gone for good, and somebody decided that who needs such
 * a page is to be told, instead of sleeping on.
 *
 * Given up is what somebody waits for, and nothing else: a page that nobody touches stays owed, and
 * comes if the source does.  The page is claimed like one that came (REQUESTED -> CONTESTED), so
 * the content and the giving up exclude each other, and LOST is left by nothing: content that
 * comes later finds nothing to claim.  It never becomes zeroes.
 *
 * The marker that says so is one of an address space.  The caller puts it into all mappings there
 * are, with one action; who maps the page later faults on it, is found to touch what is LOST, and
 * has the marker put where it faulted.  Nobody is parked for that.
 */
#include "config.h"
#include "core/engine.h"

static uint64_t give_up(struct engine *e, uint64_t page, uint64_t now)
{
	if (!ledger_move(&e->ledger, page, PAGE_REQUESTED, PAGE_CONTESTED))
		return 0;
	engine_place(e, LANE_STORE, page, 1, NULL, PAGE_REQUESTED, now)->how = PLACE_POISON;
	return 1;
}

/**
 * engine_poison - give up what threads wait for too long
 * @before: those that wait since then, or longer
 * @max: pages to queue at most
 *
 * Only what was asked for: a page that is being placed is here, whatever time it takes.  What the
 * kernel does not take now is given back (engine_give_back()), and found again.
 *
 * Return: the pages queued.
 */
uint64_t engine_poison(struct engine *e, uint64_t before, uint64_t max, uint64_t now)
{
	const struct waiter_table *t = &e->waiters;
	uint64_t queued = 0;

	for (uint32_t chain = 0; t->used && chain <= t->mask && queued < max; chain++)
		for (uint32_t i = t->chain[chain]; i != WAITER_NONE; i = t->entry[i].next)
			if (t->entry[i].read_ns <= before && e->actions.n < ENGINE_RUN)
				queued += give_up(e, t->entry[i].page, now);
	return queued;
}

/**
 * engine_longest - since when does somebody wait for a page that was asked for?
 *
 * Return: when the message of the first of them was read; 0: nobody does.
 */
uint64_t engine_longest(const struct engine *e)
{
	const struct waiter_table *t = &e->waiters;
	uint64_t longest = 0;

	for (uint32_t chain = 0; t->used && chain <= t->mask; chain++)
		for (uint32_t i = t->chain[chain]; i != WAITER_NONE; i = t->entry[i].next) {
			const struct waiter *w = &t->entry[i];

			if ((longest == 0 || w->read_ns < longest) &&
			    ledger_get(&e->ledger, w->page) == PAGE_REQUESTED)
				longest = w->read_ns;
		}
	return longest;
}
