/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Pages that are given up: which, who is told, and what comes of the content.
 */
#include "config.h"

#include "core/engine.h"

#include <criterion/criterion.h>

#include "engine_rig.h"

static const struct engine_carrier nobody;

/* Give up what has waited, and have the kernel say so. */
static void lose(struct rig *r, uint64_t page)
{
	struct engine_action a;

	cr_assert_eq(engine_poison(r->e, r->now, 64, r->now), 1);
	a = rig_next(r, ENGINE_PLACE, page);
	cr_assert_eq(a.how, PLACE_POISON);
	cr_assert_eq(a.from, PAGE_REQUESTED);
	cr_assert_eq(engine_placed(r->e, &a, 1, PLACED, &nobody, r->now), 0);
}

Test(engine_loss, F59_who_waits_is_told_and_what_comes_later_is_dropped)
{
	with_rig r;
	struct sharer_ref vmm, other;
	struct engine_action a;
	uint64_t owed;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	other = rig_join(&r, false, 0);
	rig_fault(&r, vmm, 7, 1);
	rig_fault(&r, other, 7, 2);
	owed = r.e->owed_left;
	lose(&r, 7);
	for (unsigned i = 0; i < 2; i++) {
		a = rig_next(&r, ENGINE_WAKE, 7);
		cr_assert_eq(a.address, 0, "all addresses");
		engine_woken(r.e, &a, r.now);
	}
	rig_none(&r);
	cr_expect_eq(rig_state(&r, 7), PAGE_LOST);
	cr_expect_eq(r.e->owed_left, owed - 1);
	cr_expect_eq(r.e->blocks.block[RAM].lost, 1);
	cr_expect_eq(r.e->stats.lost, 1);
	cr_expect_eq(r.e->requested, 0);
	cr_expect_eq(engine_room(r.e), 16, "nobody waits");
	cr_expect_eq(r.e->sharers.sharer[vmm.slot].stats.stage[STAGE_TOTAL].count, 0,
		     "it is no page that came");
	cr_expect_eq(engine_page(r.e, LANE_MAIN, 7, (const uint8_t *)"", r.now), ENGINE_DUPLICATE);
	engine_zero_run(r.e, LANE_MAIN, 7, 1, r.now);
	rig_none(&r);
	cr_expect_eq(r.e->stats.lane[LANE_MAIN].duplicates, 2);
	rig_asks_nothing(&r);
	engine_replay(r.e);
	rig_asks_nothing(&r);
	cr_expect_eq(engine_longest(r.e), 0);
}

Test(engine_loss, F59_only_what_somebody_waits_for_long_enough)
{
	with_rig r;
	struct sharer_ref vmm;
	struct engine_action a;
	uint64_t since;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 1 << PRIV);
	r.now += 1000;
	since = r.now;
	rig_fault(&r, vmm, 7, 1);
	r.now += 1000;
	rig_fault(&r, vmm, 8, 2);
	cr_expect_eq(engine_longest(r.e), since);
	cr_expect_eq(engine_poison(r.e, since - 1, 64, r.now), 0);
	cr_expect_eq(engine_poison(r.e, since, 64, r.now), 1);
	a = rig_next(&r, ENGINE_PLACE, 7);
	/* the kernel does not take it now: it may still come */
	engine_give_back(r.e, &a);
	cr_expect_eq(rig_state(&r, 7), PAGE_REQUESTED);
	rig_page(&r, 7);
	a = rig_next(&r, ENGINE_PLACE, 7);
	cr_expect_eq(engine_poison(r.e, since, 64, r.now), 0, "it is here");
	rig_placed(&r, &a, &vmm);
	cr_expect_eq(rig_state(&r, 7), PAGE_PRESENT);
	cr_expect_eq(engine_longest(r.e), r.now);
}

Test(engine_loss, F59_who_comes_later_is_told_where_it_faulted)
{
	with_rig r;
	struct sharer_ref vmm, late;
	struct engine_action a;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	rig_fault(&r, vmm, 7, 1);
	lose(&r, 7);
	a = rig_next(&r, ENGINE_WAKE, 7);
	engine_woken(r.e, &a, r.now);
	late = rig_join(&r, false, RIG_ALIAS);
	for (unsigned i = 0; i < 3; i++) {
		static const enum engine_result results[] = { PLACED, PLACED_EXISTS,
							      PLACED_NOWHERE };

		rig_fault(&r, late, 7, 3);
		cr_assert_eq(engine_room(r.e), 16, "nobody is parked on it");
		a = rig_next(&r, ENGINE_PLACE, 7);
		cr_assert_eq(a.how, PLACE_POISON);
		cr_assert_eq(a.from, PAGE_LOST);
		cr_assert_eq(a.sharer.slot, late.slot);
		cr_assert_eq(a.address, RAM_BASE + 7 * 4096);
		engine_placed(r.e, &a, 0, results[i], &nobody, r.now);
		if (results[i] != PLACED_NOWHERE)
			rig_next(&r, ENGINE_WAKE, 7);
		rig_none(&r);
	}
	cr_expect_eq(rig_state(&r, 7), PAGE_LOST);
	cr_expect_eq(r.e->blocks.block[RAM].lost, 1);
	cr_expect_eq(r.e->sharers.sharer[late.slot].stats.present, 0);
}

Test(engine_loss, F59_content_that_nobody_placed_is_an_alarm_and_not_given_up)
{
	with_rig r;
	struct sharer_ref vmm;
	struct engine_action a;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	rig_fault(&r, vmm, 7, 1);
	cr_assert_eq(engine_poison(r.e, r.now, 64, r.now), 1);
	a = rig_next(&r, ENGINE_PLACE, 7);
	cr_assert_eq(engine_placed(r.e, &a, 0, PLACED_EXISTS, &nobody, r.now), 0);
	rig_next(&r, ENGINE_ALARM, 7);
	rig_none(&r);
	cr_expect_eq(rig_state(&r, 7), PAGE_UNPLACED);
	cr_expect_eq(r.e->blocks.block[RAM].lost, 0);
	cr_expect_eq(r.e->stats.lost, 0);
	cr_expect_not(engine_drained(r.e));
}

Test(engine_loss, F59_a_session_with_lost_pages_completes)
{
	with_rig r;
	struct sharer_ref vmm;
	struct engine_action a;

	rig_open(&r, 16, 4);
	for (uint64_t page = 0; page < RIG_PAGES; page++) {
		const struct block *b = block_of_page(&r.e->blocks, page);

		if (page != 5)
			engine_received(r.e, (unsigned)(b - r.e->blocks.block),
					block_offset(b, page), b->page_size, true);
	}
	cr_assert_eq(engine_discard(r.e, RAM, 5 * 4096, 4096), 0);
	rig_serve(&r);
	vmm = rig_join(&r, true, 0);
	rig_fault(&r, vmm, 5, 1);
	cr_assert_not(engine_drained(r.e));
	lose(&r, 5);
	a = rig_next(&r, ENGINE_WAKE, 5);
	engine_woken(r.e, &a, r.now);
	cr_expect(engine_drained(r.e));
	engine_recount(r.e);
	cr_expect(engine_drained(r.e), "and so it says when it is counted again");
	cr_expect_eq(r.e->blocks.block[RAM].lost, 1);
}
