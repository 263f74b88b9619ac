/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a lane takes with it when it is lost.
 *
 * A page that it brought is claimed until the kernel has placed it, and its bytes are in the lane's
 * buffer.  When that goes the claim is given back: the page is owed as before, and a thread that
 * came to wait for it meanwhile makes it one that is to be asked for.  Nothing of it was counted
 * yet, so the counters stay right, but for that.  Waiters are not touched: they wait for the page,
 * not for the lane.
 */
#include "config.h"
#include "core/engine.h"

/* As missing as it was, unless somebody waits. */
static void give_up(struct engine *e, struct block *b, uint64_t page, enum page_state from)
{
	if (from == PAGE_MISSING &&
	    ledger_move(&e->ledger, page, PAGE_PLACING, PAGE_MISSING))
		return;
	ledger_unclaim(&e->ledger, page, PAGE_REQUESTED);
	if (from == PAGE_MISSING) {
		b->requested++;
		e->requested++;
	}
}

/**
 * engine_give_up - the bytes of claimed pages went with their lane: they are owed again
 * @page, @n: all of one block
 * @from: what they were when they were claimed, MISSING or REQUESTED
 *
 * They are asked for by the replay that follows (engine_replay()).
 */
void engine_give_up(struct engine *e, uint64_t page, uint64_t n, enum page_state from)
{
	struct block *b = block_of_page(&e->blocks, page);

	for (uint64_t end = page + n; page < end; page++)
		give_up(e, b, page, from);
}

/**
 * engine_lane_lost - is it a placement whose bytes went with a lane?  Then it is given up
 * @a: not done, or done in part and moved on; over, when this says yes
 */
bool engine_lane_lost(struct engine *e, const struct engine_action *a)
{
	if (a->verb != ENGINE_PLACE || a->lane == LANE_STORE)
		return false;
	engine_give_up(e, a->page, a->n, a->from);
	return true;
}

/**
 * engine_lanes_lost - every lane of the fault thread is gone: give up what is queued of them
 */
void engine_lanes_lost(struct engine *e)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < e->actions.n; i++) {
		struct engine_action *a = &e->action[(e->actions.first + i) % ENGINE_ACTIONS];

		if (!engine_lane_lost(e, a))
			e->action[(e->actions.first + kept++) % ENGINE_ACTIONS] = *a;
	}
	e->actions.n = kept;
}
