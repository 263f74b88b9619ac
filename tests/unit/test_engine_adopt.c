/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An engine that goes on with the ledger of an earlier process: any ledger that one can have left,
 * and what is none.  (F59)
 */
#include "config.h"

#include "core/engine.h"

#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "engine_rig.h"
#include "lib/rng.h"

static const enum page_state left[] = {
	PAGE_MISSING, PAGE_REQUESTED, PAGE_PLACING, PAGE_CONTESTED, PAGE_PRESENT,
	PAGE_STORED, PAGE_ZERO, PAGE_UNPLACED,
};
static const enum page_state verdicts[] = {
	PAGE_PRESENT, PAGE_MISSING, PAGE_STORED, PAGE_ZERO, PAGE_UNPLACED,
};

struct counters {
	uint64_t owed_left, stored_left, requested;
	uint64_t block[RIG_BLOCKS][6];
};

static struct counters counters_of(const struct engine *e)
{
	struct counters c = { e->owed_left, e->stored_left, e->requested, { { 0 } } };

	for (unsigned i = 0; i < RIG_BLOCKS; i++) {
		const struct block *b = &e->blocks.block[i];
		const uint64_t n[6] = { b->present, b->missing, b->requested,
					b->stored, b->zero, b->unplaced };

		memcpy(c.block[i], n, sizeof(n));
	}
	return c;
}

/* A ledger in any state, over the blocks of the rig. */
static void anything(struct rig *r, struct rng *rng)
{
	for (uint64_t page = 0; page < RIG_PAGES; page++)
		ledger_set(&r->e->ledger, page, 1, left[rng_below(rng, ARRAY_LEN(left))]);
	ledger_commit(&r->e->ledger);
	cr_assert_eq(engine_adopt_ledger(r->e, r->e->ledger.header, ledger_size(RIG_PAGES)), 0);
	engine_recount(r->e);
}

static bool claimed(struct rig *r, uint64_t page)
{
	return rig_state(r, page) == PAGE_PLACING || rig_state(r, page) == PAGE_CONTESTED;
}

Test(engine_adopt, F59_any_ledger_and_any_verdict_count_right)
{
	struct rng rng = { rng_seed() };

	for (unsigned round = 0; round < 200; round++) {
		struct counters now, again;
		with_rig r;

		rig_open(&r, 4, 4);
		anything(&r, &rng);
		for (uint64_t page = 0; page < RIG_PAGES; page++) {
			enum page_state is = verdicts[rng_below(&rng, ARRAY_LEN(verdicts))];

			if (!claimed(&r, page))
				continue;
			engine_judged(r.e, page, is, 1);
			cr_assert_eq(rig_state(&r, page), is);
		}
		now = counters_of(r.e);
		engine_recount(r.e);
		again = counters_of(r.e);
		cr_assert_eq(memcmp(&now, &again, sizeof(now)), 0, "round %u", round);
	}
}

/* Who came to wait for a page in hand is woken when it proves to be there. */
Test(engine_adopt, F59_waiters_of_what_is_there_are_woken)
{
	struct sharer_ref main;
	struct engine_action a;
	with_rig r;

	rig_open(&r, 4, 4);
	rig_owe_all(&r);
	main = rig_join(&r, true, 0);
	ledger_set(&r.e->ledger, 3, 1, PAGE_PLACING);
	ledger_set(&r.e->ledger, 4, 1, PAGE_PLACING);
	rig_fault(&r, main, 3, 1);
	rig_fault(&r, main, 4, 2);
	rig_none(&r);
	engine_judged(r.e, 4, PAGE_MISSING, 5);
	rig_none(&r);
	engine_judged(r.e, 3, PAGE_PRESENT, 5);
	a = rig_next(&r, ENGINE_WAKE, 3);
	engine_woken(r.e, &a, 6);
	rig_none(&r);
	cr_assert_eq(r.e->sharers.sharer[main.slot].waiting, 1);
	/* The other touches its page again, and now it is asked for. */
	rig_fault(&r, main, 4, 2);
	rig_asks(&r, RAM, 4, 1, CLASS_DEMAND);
	cr_assert_eq(r.e->sharers.sharer[main.slot].waiting, 1);
}

Test(engine_adopt, F59_another_ledger_is_refused)
{
	uint64_t more[64] = { 0 };
	struct ledger l;
	with_rig r;

	rig_open(&r, 4, 4);
	rig_owe_all(&r);
	cr_assert_eq(ledger_init(&l, more, sizeof(more), 20), 0);
	ledger_set(&l, 0, 20, PAGE_MISSING);
	cr_assert_eq(engine_adopt_ledger(r.e, more, sizeof(more)), -EBADMSG);
	cr_assert_eq(r.e->ledger.pages, RIG_PAGES);
	ledger_set(&r.e->ledger, RIG_PAGES - 1, 1, PAGE_NEVER);
	cr_assert_eq(engine_adopt_ledger(r.e, r.e->ledger.header, ledger_size(RIG_PAGES)),
		     -EBADMSG);
}
