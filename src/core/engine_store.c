/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Content that we hold ourselves: what precopy brought for a private block (STORED), and pages that
 * are known to be zero (ZERO).
 *
 * It is placed when somebody touches the page, zeroes also when a device will (engine_fill()), and
 * the stored part by and by in the background.  It cannot get lost while it is not placed, so a
 * placement that the kernel does not take now is not kept and waited for: the page is what it was
 * before (engine_give_back()), with its waiters parked on it.  The next fault on it tries again,
 * and so does engine_retry(), for all who sleep.  Nothing else stands still meanwhile.
 */
#include "config.h"
#include "core/engine.h"

#define PUSH_RUN 16		/* pages one COPY of stored content may have */

/**
 * engine_serve_own - somebody sleeps on a page whose content we have: place it
 * @state: STORED or ZERO, which is what the page is
 */
void engine_serve_own(struct engine *e, uint64_t page, enum page_state state, uint64_t now)
{
	const struct block *b = block_of_page(&e->blocks, page);
	const uint8_t *data = state == PAGE_STORED ? b->store + block_offset(b, page) : NULL;

	ledger_move(&e->ledger, page, state, PAGE_CONTESTED);
	engine_place(e, LANE_STORE, page, 1, data, state, now);
}

/*
 * Who sleeps on a page that was given back is woken by its placement, as if the fault had come just
 * now.
 */
static enum page_state claimed_as(const struct engine *e, uint64_t page)
{
	return waiter_first(&e->waiters, page) == WAITER_NONE ? PAGE_PLACING : PAGE_CONTESTED;
}

/* One COPY's worth of stored content from where the last push ended. */
static uint64_t push_run(struct engine *e, struct block *b, uint64_t max, uint64_t now)
{
	uint64_t end = b->first + b->pages, from = e->push_at > b->first ? e->push_at : b->first;
	uint64_t page = ledger_find(&e->ledger, from, end, PAGE_STORED);
	uint64_t n = ledger_run(&e->ledger, page, page + PUSH_RUN < end ? page + PUSH_RUN : end,
				PAGE_STORED);

	if (n > max)
		n = max;
	for (uint64_t i = 0; i < n; i++)
		ledger_move(&e->ledger, page + i, PAGE_STORED, claimed_as(e, page + i));
	if (n)
		engine_place(e, LANE_STORE, page, n, b->store + block_offset(b, page), PAGE_STORED,
			     now);
	e->push_at = n ? page + n : end;
	return n;
}

/**
 * engine_fill - place known zeroes before somebody touches them, in one go
 * @page: known to be zero
 * @end: page number, in the same block
 *
 * Return: the pages queued, at most ENGINE_RUN.
 */
uint64_t engine_fill(struct engine *e, uint64_t page, uint64_t end, uint64_t now)
{
	uint64_t n = 0;

	while (n < ENGINE_RUN && page + n < end &&
	       ledger_move(&e->ledger, page + n, PAGE_ZERO, claimed_as(e, page + n)))
		n++;
	if (n)
		engine_place(e, LANE_STORE, page, n, NULL, PAGE_ZERO, now);
	return n;
}

/**
 * engine_push - hand stored pages of private blocks over, in order of their number
 * @max: pages to queue at most
 *
 * In small runs: a thread that faults meanwhile waits for no more than one of them.  Behind the
 * last it begins anew, for those that were given back.
 *
 * Return: the pages queued; the caller performs them and calls again.
 */
uint64_t engine_push(struct engine *e, uint64_t max, uint64_t now)
{
	uint64_t queued = 0;

	for (unsigned i = 0; i < e->blocks.n && queued < max; i++) {
		struct block *b = &e->blocks.block[i];

		while (b->kind == BLOCK_PRIVATE && b->stored && queued < max &&
		       e->actions.n < ENGINE_RUN && e->push_at < b->first + b->pages)
			queued += push_run(e, b, max - queued, now);
	}
	if (queued < max && e->actions.n < ENGINE_RUN)
		e->push_at = 0;
	return queued;
}

/**
 * engine_give_back - the kernel does not take content of ours now, or does not give a page up: its
 * pages are again what they were
 * @a: a PLACE of LANE_STORE, no ANSWER, and none from LOST; nothing of what is left of it was
 * placed, and it is over
 *
 * Who waits stays parked: engine_retry(), or the next fault on the page, places it.
 */
void engine_give_back(struct engine *e, const struct engine_action *a)
{
	for (uint64_t page = a->page; page < a->page + a->n; page++)
		ledger_unclaim(&e->ledger, page, a->from);
}

/**
 * engine_retry - place what was given back and is waited for
 * @max: pages to queue at most; the next call goes on behind them, so that those which never go in
 * keep nobody else waiting
 *
 * Walks the parked threads: once in a while, and only after something was given back.
 *
 * Return: the pages queued.
 */
uint64_t engine_retry(struct engine *e, uint64_t max, uint64_t now)
{
	const struct waiter_table *t = &e->waiters;
	uint64_t queued = 0;

	for (uint32_t chains = 0; chains <= t->mask && queued < max; chains++) {
		for (uint32_t i = t->chain[e->retry_at]; i != WAITER_NONE; i = t->entry[i].next) {
			enum page_state state = ledger_get(&e->ledger, t->entry[i].page);

			if ((state != PAGE_STORED && state != PAGE_ZERO) ||
			    e->actions.n >= ENGINE_RUN)
				continue;
			engine_serve_own(e, t->entry[i].page, state, now);
			queued++;
		}
		e->retry_at = (e->retry_at + 1) & t->mask;
	}
	return queued;
}
