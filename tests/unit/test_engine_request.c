/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the engine asks the source for: once, the most urgent first, never far ahead (O4, O5).
 */
#include "config.h"

#include "core/engine.h"

#include <errno.h>

#include <criterion/criterion.h>

#include "engine_rig.h"

Test(engine_request, O4_a_page_is_asked_for_once)
{
	with_rig r;
	struct sharer_ref vmm, other;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	other = rig_join(&r, false, 0);
	rig_fault(&r, vmm, 7, 1);
	rig_fault(&r, vmm, 7, 2);
	rig_fault(&r, other, 7, 1);
	rig_asks(&r, RAM, 7, 1, CLASS_DEMAND);
	rig_fault(&r, other, 7, 2);
	rig_asks_nothing(&r);
	cr_assert_eq(r.e->stats.requests, 1);
	cr_assert_eq(r.e->stats.requested_pages, 1);
	cr_assert_eq(r.e->sharers.sharer[vmm.slot].stats.requests, 1);
	cr_assert_eq(r.e->sharers.sharer[other.slot].stats.duplicates, 2);
}

Test(engine_request, a_page_that_came_by_itself_is_not_asked_for)
{
	with_rig r;
	struct sharer_ref vmm;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	rig_fault(&r, vmm, 7, 1);
	rig_fault(&r, vmm, 8, 2);
	rig_page(&r, 7);
	rig_settle(&r);
	rig_asks(&r, RAM, 8, 1, CLASS_DEMAND);
	rig_asks_nothing(&r);
}

Test(engine_request, O4_after_a_lost_lane_everything_outstanding_is_asked_for_again)
{
	with_rig r;
	struct sharer_ref vmm;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	for (unsigned i = 0; i < 6; i++)
		rig_fault(&r, vmm, 60 - i * 10, i + 1);
	for (unsigned i = 0; i < 4; i++)
		rig_asks(&r, RAM, 60 - i * 10, 1, CLASS_DEMAND);
	rig_page(&r, 50);
	rig_settle(&r);
	engine_replay(r.e);
	for (uint64_t page = 10; page <= 60; page += 10)
		if (page != 50)
			rig_asks(&r, RAM, page, 1, CLASS_DEMAND);
	rig_asks_nothing(&r);
	cr_assert_eq(r.e->stats.rerequested, 5);
}

Test(engine_request, O5_demand_before_replay_before_dma_before_prefetch)
{
	with_rig r;
	struct sharer_ref vmm;

	rig_open(&r, 16, 100);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	rig_fault(&r, vmm, 50, 1);
	rig_asks(&r, RAM, 50, 1, CLASS_DEMAND);
	cr_assert_eq(engine_want(r.e, RAM, 0, 4 * 4096, CLASS_PREFETCH), 0);
	cr_assert_eq(engine_want(r.e, RAM, 20 * 4096, 4 * 4096, CLASS_DMA), 0);
	engine_replay(r.e);
	rig_fault(&r, vmm, 60, 2);
	rig_asks(&r, RAM, 60, 1, CLASS_DEMAND);
	rig_asks(&r, RAM, 50, 1, CLASS_DEMAND);
	rig_asks(&r, RAM, 20, 4, CLASS_DMA);
	rig_asks(&r, RAM, 0, 4, CLASS_PREFETCH);
	rig_asks_nothing(&r);
}

Test(engine_request, never_more_than_the_window_ahead)
{
	with_rig r;
	struct sharer_ref vmm;

	rig_open(&r, 16, 5);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	engine_want(r.e, RAM, 0, 20 * 4096, CLASS_DMA);
	rig_fault(&r, vmm, 100, 1);
	rig_asks(&r, RAM, 100, 1, CLASS_DEMAND);
	rig_asks(&r, RAM, 0, 4, CLASS_DMA);
	rig_asks_nothing(&r);
	rig_fault(&r, vmm, 101, 2);
	rig_asks(&r, RAM, 101, 1, CLASS_DEMAND);
	rig_page(&r, 0);
	rig_settle(&r);
	rig_asks_nothing(&r);
	rig_page(&r, 1);
	rig_settle(&r);
	rig_asks(&r, RAM, 4, 1, CLASS_DMA);
	rig_asks_nothing(&r);
}

/* O5, F48: a window that is nearly full is left so until a quarter of it is empty. */
Test(engine_request, F48_a_window_is_filled_up_again_by_parts_of_it)
{
	with_rig r;
	struct sharer_ref vmm;

	rig_open(&r, 16, 8);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	engine_want(r.e, RAM, 0, 20 * 4096, CLASS_DMA);
	rig_asks(&r, RAM, 0, 8, CLASS_DMA);
	rig_page(&r, 0);
	rig_settle(&r);
	rig_asks_nothing(&r);
	rig_fault(&r, vmm, 100, 1);
	rig_asks(&r, RAM, 100, 1, CLASS_DEMAND);
	rig_page(&r, 1);
	rig_settle(&r);
	rig_asks_nothing(&r);
	rig_page(&r, 2);
	rig_settle(&r);
	rig_asks(&r, RAM, 8, 2, CLASS_DMA);
	rig_asks_nothing(&r);
}

Test(engine_request, a_wanted_range_skips_what_is_there_and_what_was_asked_for)
{
	with_rig r;
	struct sharer_ref vmm;

	rig_open(&r, 16, 100);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	rig_page(&r, 3);
	rig_settle(&r);
	rig_fault(&r, vmm, 6, 1);
	rig_asks(&r, RAM, 6, 1, CLASS_DEMAND);
	engine_want(r.e, RAM, 0, 10 * 4096, CLASS_PREFETCH);
	rig_asks(&r, RAM, 0, 3, CLASS_PREFETCH);
	rig_asks(&r, RAM, 4, 2, CLASS_PREFETCH);
	rig_asks(&r, RAM, 7, 3, CLASS_PREFETCH);
	rig_asks_nothing(&r);
	rig_fault(&r, vmm, 8, 2);
	rig_asks_nothing(&r);
	cr_assert_eq(engine_room(r.e), 14, "it waits for what was asked for already");
}

/* Pages 2 to 5 and 8 are known to be zero, 6 and 7 are missing. */
static void known_zeroes(struct rig *r)
{
	rig_open(r, 16, 100);
	for (unsigned i = 0; i < RIG_BLOCKS; i++)
		engine_discard(r->e, i, 0, r->e->blocks.block[i].length);
	for (uint64_t page = 2; page < 9; page++)
		if (page < 6 || page == 8)
			engine_received(r->e, RAM, page * 4096, 4096, true);
	rig_serve(r);
	rig_join(r, true, 0);
}

Test(engine_request, O9_known_zeroes_are_placed_for_a_device_and_for_nobody_else)
{
	with_rig r;
	struct engine_action a;

	known_zeroes(&r);
	engine_want(r.e, RAM, 2 * 4096, 7 * 4096, CLASS_PREFETCH);
	rig_asks(&r, RAM, 6, 2, CLASS_PREFETCH);
	rig_asks_nothing(&r);
	rig_none(&r);
	engine_want(r.e, RAM, 3 * 4096, 7 * 4096, CLASS_DMA);
	rig_asks_nothing(&r);
	a = rig_next(&r, ENGINE_PLACE, 3);
	cr_assert(a.how == PLACE_ZERO && a.n == 3 && a.lane == LANE_STORE && a.from == PAGE_ZERO);
	rig_placed(&r, &a, NULL);
	a = rig_next(&r, ENGINE_PLACE, 8);
	cr_assert_eq(a.n, 1);
	rig_placed(&r, &a, NULL);
	rig_none(&r);
	rig_asks(&r, RAM, 9, 1, CLASS_DMA);
	rig_asks_nothing(&r);
	cr_assert_eq(rig_state(&r, 2), PAGE_ZERO, "nobody wants that one");
	cr_assert_eq(r.e->blocks.block[RAM].zero, 1);
}

Test(engine_request, O6_zeroes_for_a_device_that_were_given_back_are_placed_in_the_end)
{
	with_rig r;
	struct engine_action a;

	known_zeroes(&r);
	engine_want(r.e, RAM, 2 * 4096, 4 * 4096, CLASS_DMA);
	for (unsigned i = 0; i < 3; i++) {
		rig_asks_nothing(&r);
		a = rig_next(&r, ENGINE_PLACE, 2);
		cr_assert_eq(a.n, 4);
		engine_give_back(r.e, &a);
	}
	rig_asks_nothing(&r);
	rig_asks_nothing(&r);
	a = rig_next(&r, ENGINE_PLACE, 2);
	rig_placed(&r, &a, NULL);
	rig_asks_nothing(&r);
	rig_none(&r);
	cr_assert_eq(r.e->blocks.block[RAM].zero, 1);
}

/* What the bulk lane has claimed may become a hole yet, unless somebody waits for it. */
Test(engine_request, O9_what_is_on_its_way_is_placed_for_a_device)
{
	with_rig r;

	rig_open(&r, 4, 100);
	rig_owe_all(&r);
	ledger_claim(&r.e->ledger, 4);
	engine_want(r.e, RAM, 4 * 4096, 2 * 4096, CLASS_DMA);
	rig_asks(&r, RAM, 5, 1, CLASS_DMA);
	cr_assert_not(ledger_note(&r.e->ledger, 4));
	cr_assert(ledger_publish(&r.e->ledger, 4));
}

Test(engine_request, wants_of_bytes_are_wants_of_their_pages)
{
	with_rig r;

	rig_open(&r, 16, 100);
	rig_owe_all(&r);
	cr_assert_eq(engine_want(r.e, RAM, 4095, 2, CLASS_DMA), 0);
	rig_asks(&r, RAM, 0, 2, CLASS_DMA);
	cr_assert_eq(engine_want(r.e, HUGE, (2 << 20) + 5, 1, CLASS_DMA), 0);
	rig_asks(&r, HUGE, HUGE_FIRST + 1, 1, CLASS_DMA);
	cr_assert_eq(engine_want(r.e, RAM, 0, 0, CLASS_DMA), -EINVAL);
	cr_assert_eq(engine_want(r.e, RAM, RAM_PAGES * 4096, 1, CLASS_DMA), -EINVAL);
	cr_assert_eq(engine_want(r.e, RAM, 1, RAM_PAGES * 4096, CLASS_DMA), -EINVAL);
	cr_assert_eq(engine_want(r.e, RAM, UINT64_MAX, 2, CLASS_DMA), -EINVAL);
	cr_assert_eq(engine_want(r.e, RAM, 1, UINT64_MAX, CLASS_DMA), -EINVAL);
	cr_assert_eq(engine_want(r.e, RIG_BLOCKS, 0, 1, CLASS_DMA), -EINVAL);
	for (unsigned i = 0; i < REQUEST_WANTS; i++)
		cr_assert_eq(engine_want(r.e, RAM, 0, 1, CLASS_DMA), 0);
	cr_assert_eq(engine_want(r.e, RAM, 0, 1, CLASS_DMA), -ENOSPC);
	rig_asks_nothing(&r);
	cr_assert_eq(engine_want(r.e, RAM, 0, 1, CLASS_DMA), 0, "those were worked off");
}

Test(engine_request, O4_a_fault_during_a_replay_is_asked_for_once)
{
	with_rig r;
	struct sharer_ref vmm;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	rig_fault(&r, vmm, 10, 1);
	rig_fault(&r, vmm, 90, 2);
	rig_asks(&r, RAM, 10, 1, CLASS_DEMAND);
	rig_asks(&r, RAM, 90, 1, CLASS_DEMAND);
	engine_replay(r.e);
	rig_asks(&r, RAM, 10, 1, CLASS_DEMAND);
	rig_fault(&r, vmm, 50, 3);
	rig_asks(&r, RAM, 50, 1, CLASS_DEMAND);
	rig_asks(&r, RAM, 90, 1, CLASS_DEMAND);
	rig_asks_nothing(&r);
	cr_assert_eq(r.e->stats.rerequested, 2);
}

Test(engine_request, O4_a_queue_full_of_pages_that_came_repeats_nothing)
{
	with_rig r;
	struct sharer_ref vmm;

	rig_open(&r, 4, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	rig_fault(&r, vmm, 100, 1);
	rig_asks(&r, RAM, 100, 1, CLASS_DEMAND);
	/* The socket takes nothing for a while; the stream brings what is waited for. */
	for (uint64_t page = 0; page < 10; page++) {
		rig_fault(&r, vmm, page, 2);
		rig_page(&r, page);
		rig_settle(&r);
	}
	rig_fault(&r, vmm, 50, 2);
	rig_asks(&r, RAM, 50, 1, CLASS_DEMAND);
	rig_asks_nothing(&r);
	cr_assert_eq(engine_room(r.e), 2);
}

Test(engine_request, all_that_is_owed_and_was_not_asked_for)
{
	with_rig r;
	struct sharer_ref vmm;

	rig_open(&r, 16, 1000);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	rig_fault(&r, vmm, 7, 1);
	rig_asks(&r, RAM, 7, 1, CLASS_DEMAND);
	rig_page(&r, 0);
	rig_settle(&r);
	cr_assert_eq(engine_want_owed(r.e), 0);
	rig_asks(&r, RAM, 1, 6, CLASS_PREFETCH);
	rig_asks(&r, RAM, 8, RAM_PAGES - 8, CLASS_PREFETCH);
	rig_asks(&r, PRIV, PRIV_FIRST, PRIV_PAGES, CLASS_PREFETCH);
	rig_asks(&r, ROM, ROM_FIRST, ROM_PAGES, CLASS_PREFETCH);
	rig_asks(&r, HUGE, HUGE_FIRST, HUGE_PAGES, CLASS_PREFETCH);
	rig_asks_nothing(&r);
	cr_assert_eq(engine_want_owed(r.e), 0);
	rig_asks_nothing(&r);
	while (engine_want(r.e, RAM, 0, 4096, CLASS_DMA) == 0)
		;
	rig_page(&r, PRIV_FIRST);
	cr_assert_eq(engine_want_owed(r.e), 0, "nothing is missing: no place is needed");
}

Test(engine_request, all_that_is_owed_finds_no_place)
{
	with_rig r;

	rig_open(&r, 16, 1000);
	rig_owe_all(&r);
	while (engine_want(r.e, RAM, 0, 4096, CLASS_DMA) == 0)
		;
	cr_assert_eq(engine_want_owed(r.e), -ENOSPC);
	rig_asks(&r, RAM, 0, 1, CLASS_DMA);
	rig_asks_nothing(&r);
	cr_assert_eq(engine_want_owed(r.e), 0);
	rig_asks(&r, RAM, 1, RAM_PAGES - 1, CLASS_PREFETCH);
}

Test(engine_request, a_page_wanted_ahead_does_not_contest_the_bulk_lane)
{
	with_rig r;

	rig_open(&r, 4, 100);
	rig_owe_all(&r);
	cr_assert_eq(ledger_claim(&r.e->ledger, 4), PAGE_MISSING);
	engine_want(r.e, RAM, 0, 10 * 4096, CLASS_PREFETCH);
	rig_asks(&r, RAM, 0, 4, CLASS_PREFETCH);
	rig_asks(&r, RAM, 5, 5, CLASS_PREFETCH);
	cr_assert_not(ledger_publish(&r.e->ledger, 4), "nobody waits");
}
