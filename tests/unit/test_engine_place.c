/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Placements in detail: runs, carriers, counters between claim and report.
 */
#include "config.h"

#include "core/engine.h"

#include <criterion/criterion.h>

#include "engine_rig.h"

static const struct engine_carrier nobody;

Test(engine_place, a_run_of_stored_pages_goes_on_with_its_own_bytes)
{
	with_rig r;
	struct engine_action a;

	rig_open(&r, 16, 4);
	for (unsigned i = 0; i < RIG_BLOCKS; i++)
		engine_discard(r.e, i, 0, r.e->blocks.block[i].length);
	for (uint64_t page = 5; page < 15; page++)
		engine_received(r.e, PRIV, page * 4096, 4096, false);
	rig_serve(&r);
	rig_join(&r, true, 1u << PRIV);
	cr_assert_eq(engine_push(r.e, 8, r.now), 8);
	a = rig_next(&r, ENGINE_PLACE, PRIV_FIRST + 5);
	cr_assert(a.n == 8 && a.from == PAGE_STORED && a.data == r.store + 5 * 4096);
	cr_assert_eq(engine_placed(r.e, &a, 3, PLACED, &nobody, r.now), 5);
	cr_assert_eq(a.data, r.store + 8 * 4096);
	cr_assert_eq(engine_placed(r.e, &a, 0, PLACED_NOWHERE, &nobody, r.now), 4);
	cr_assert_eq(a.data, r.store + 9 * 4096, "the lost page's bytes are skipped");
	rig_next(&r, ENGINE_UNPLACED, PRIV_FIRST + 8);
	cr_assert_eq(engine_placed(r.e, &a, 4, PLACED, &nobody, r.now), 0);
	cr_assert_eq(r.e->stored_left, 2);
	cr_assert_eq(r.e->stats.lane[LANE_STORE].pages[HOW_COPY], 7);
	cr_assert_eq(engine_push(r.e, 8, r.now), 2);
}

Test(engine_place, each_page_of_a_run_has_its_own_address)
{
	with_rig r;
	struct sharer_ref vmm;
	struct engine_action run, a;
	struct engine_carrier c;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, RIG_ALIAS);
	engine_zero_run(r.e, LANE_MAIN, 10, 4, r.now);
	run = rig_next(&r, ENGINE_PLACE, 10);
	for (uint64_t page = 10; page < 14; page++)
		rig_fault(&r, vmm, page, (uint32_t)page);
	c = (struct engine_carrier){ true, vmm, RAM_ALIAS + 10 * 4096 };
	cr_assert_eq(engine_placed(r.e, &run, 4, PLACED, &c, r.now), 0);
	for (uint64_t page = 10; page < 14; page++) {
		a = rig_next(&r, ENGINE_WAKE, page);
		cr_assert_eq(a.address, RAM_ALIAS + page * 4096,
			     "awake there, not at the other alias");
		engine_woken(r.e, &a, r.now);
	}
}

/* The address space that carried a page and whoever has its slot now are not the same. */
Test(engine_place, O10_a_carrier_that_ended_woke_nobody_of_its_successor)
{
	with_rig r;
	struct sharer_ref vmm;
	struct engine_action a;
	struct engine_carrier c;

	for (unsigned i = 0; i < 2; i++) {
		rig_open(&r, 16, 4);
		rig_owe_all(&r);
		vmm = rig_join(&r, true, 0);
		rig_fault(&r, vmm, 7, 1);
		rig_page(&r, 7);
		a = rig_next(&r, ENGINE_PLACE, 7);
		c = (struct engine_carrier){ i == 0, vmm, RAM_BASE + 7 * 4096 };
		c.sharer.generation += i == 0;
		cr_assert_eq(engine_placed(r.e, &a, 1, PLACED, &c, r.now), 0);
		a = rig_next(&r, ENGINE_WAKE, 7);
		cr_assert_eq(a.address, 0);
		if (i == 0)
			rig_close(&r);
	}
}

Test(engine_place, a_second_fault_on_stored_content_waits_for_the_first_one_s_placement)
{
	with_rig r;
	struct sharer_ref vmm;
	struct engine_action a;

	rig_open(&r, 16, 4);
	for (unsigned i = 0; i < RIG_BLOCKS; i++)
		engine_discard(r.e, i, 0, r.e->blocks.block[i].length);
	engine_received(r.e, PRIV, 0, 4096, false);
	engine_received(r.e, RAM, 0, 4096, true);
	rig_serve(&r);
	vmm = rig_join(&r, true, 1u << PRIV);
	rig_fault(&r, vmm, PRIV_FIRST, 1);
	rig_fault(&r, vmm, PRIV_FIRST, 2);
	a = rig_next(&r, ENGINE_PLACE, PRIV_FIRST);
	rig_none(&r);
	rig_placed(&r, &a, &vmm);
	cr_assert_eq(engine_room(r.e), 16, "both are awake");
	rig_fault(&r, vmm, 0, 1);
	a = rig_next(&r, ENGINE_PLACE, 0);
	cr_assert(a.how == PLACE_ZERO && a.from == PAGE_ZERO);
	cr_assert_eq(r.e->blocks.block[RAM].zero, 1);
	rig_placed(&r, &a, &vmm);
	cr_assert_eq(r.e->blocks.block[RAM].zero, 0);
	cr_assert_eq(engine_room(r.e), 16);
}

/*
 * The caller may place through whatever takes the page: only who slept where it went is awake with
 * it.
 */
Test(engine_place, O13_whoever_does_not_sleep_where_the_page_went_is_woken)
{
	with_rig r;
	struct sharer_ref vmm, other;
	struct engine_action a;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	other = rig_join(&r, false, 0);
	rig_fault(&r, other, 4, 1);
	rig_page(&r, 4);
	a = rig_next(&r, ENGINE_PLACE, 4);
	rig_placed(&r, &a, &vmm);
	a = rig_next(&r, ENGINE_WAKE, 4);
	cr_assert(a.sharer.slot == other.slot && a.address == 0, "it waited first, elsewhere");
	engine_woken(r.e, &a, r.now);
	rig_fault(&r, vmm, 5, 1);
	rig_page(&r, 5);
	a = rig_next(&r, ENGINE_PLACE, 5);
	rig_placed(&r, &a, NULL);
	a = rig_next(&r, ENGINE_WAKE, 5);
	cr_assert(a.sharer.slot == vmm.slot && a.address == 0, "our own mapping wakes nobody");
	engine_woken(r.e, &a, r.now);
	rig_none(&r);
	cr_assert_eq(engine_room(r.e), 16);
}

/*
 * A shared page may be zeroed through another address space, which does not wake who faulted on it.
 */
Test(engine_place, O3_a_page_that_was_zeroed_elsewhere_needs_a_wake)
{
	with_rig r;
	struct sharer_ref vmm, other;
	struct engine_action a;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	other = rig_join(&r, false, RIG_ALIAS);
	rig_page(&r, 7);
	rig_settle(&r);
	rig_fault(&r, other, 7, 1);
	a = rig_next(&r, ENGINE_PLACE, 7);
	rig_placed(&r, &a, &vmm);
	a = rig_next(&r, ENGINE_WAKE, 7);
	cr_assert(a.sharer.slot == other.slot && a.address == 0);
	engine_woken(r.e, &a, r.now);
	engine_fault(r.e, other, RAM_ALIAS + 7 * 4096, 2, 0, r.now);
	a = rig_next(&r, ENGINE_PLACE, 7);
	rig_placed(&r, &a, &other);
	a = rig_next(&r, ENGINE_WAKE, 7);
	cr_assert_eq(a.sharer.slot, other.slot, "it sleeps at its other address");
	engine_woken(r.e, &a, r.now);
	rig_none(&r);
}

Test(engine_place, requested_pages_stay_counted_until_they_are_there)
{
	with_rig r;
	struct sharer_ref vmm;
	struct engine_action a;
	struct block *ram;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	ram = &r.e->blocks.block[RAM];
	vmm = rig_join(&r, true, 0);
	rig_fault(&r, vmm, 7, 1);
	cr_assert(ram->requested == 1 && ram->missing == RAM_PAGES && r.e->requested == 1);
	rig_page(&r, 7);
	cr_assert(ram->requested == 1 && ram->missing == RAM_PAGES && r.e->requested == 1);
	a = rig_next(&r, ENGINE_PLACE, 7);
	rig_placed(&r, &a, &vmm);
	cr_assert(ram->requested == 0 && ram->missing == RAM_PAGES - 1 && r.e->requested == 0);
	cr_assert(ram->present == 1 && r.e->owed_left == RIG_PAGES - 1 && ram->owed == RAM_PAGES);
}

Test(engine_place, who_joins_a_wait_knows_when_the_page_was_asked_for)
{
	with_rig r;
	struct sharer_ref vmm;
	struct engine_action a;
	const struct histogram *queue, *wire;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	queue = &r.e->sharers.sharer[vmm.slot].stats.stage[STAGE_QUEUE];
	wire = &r.e->sharers.sharer[vmm.slot].stats.stage[STAGE_WIRE];
	rig_fault(&r, vmm, 7, 1);
	r.now += 10;
	rig_asks(&r, RAM, 7, 1, CLASS_DEMAND);
	r.now += 20;
	rig_fault(&r, vmm, 7, 2);
	r.now += 40;
	rig_page(&r, 7);
	a = rig_next(&r, ENGINE_PLACE, 7);
	rig_placed(&r, &a, &vmm);
	cr_assert_eq(queue->sum, 10, "the second did not queue");
	cr_assert_eq(wire->sum, 60 + 40);
	cr_assert_eq(wire->max, 60);
}

Test(engine_place, wakes_leave_before_the_placements_that_are_queued_and_in_order)
{
	with_rig r;
	struct sharer_ref ref[3];
	struct engine_action a;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	for (unsigned i = 0; i < 3; i++)
		ref[i] = rig_join(&r, i == 0, 0);
	for (unsigned i = 3; i-- > 0;)
		for (uint64_t page = 7; page < 9; page++)
			rig_fault(&r, ref[i], page, 1);
	engine_zero_run(r.e, LANE_MAIN, 7, 2, r.now);
	for (uint64_t page = 7; page < 9; page++) {
		a = rig_next(&r, ENGINE_PLACE, page);
		rig_placed(&r, &a, NULL);
		for (unsigned i = 3; i-- > 0;) {
			a = rig_next(&r, ENGINE_WAKE, page);
			cr_assert_eq(a.sharer.slot, ref[i].slot,
				     "who waited longest is woken first");
			engine_woken(r.e, &a, r.now);
		}
	}
	rig_none(&r);
}

/*
 * What the kernel does not take now is as if it had not been tried, and who waits is not forgotten.
 */
Test(engine_place, O6_content_of_ours_is_given_back_and_tried_again)
{
	with_rig r;
	struct sharer_ref vmm;
	struct engine_action a;

	rig_open(&r, 16, 4);
	for (unsigned i = 0; i < RIG_BLOCKS; i++)
		engine_discard(r.e, i, 0, r.e->blocks.block[i].length);
	for (uint64_t page = 0; page < 4; page++)
		engine_received(r.e, PRIV, page * 4096, 4096, false);
	engine_received(r.e, RAM, 0, 4096, true);
	rig_serve(&r);
	vmm = rig_join(&r, true, 1u << PRIV);
	rig_fault(&r, vmm, 0, 1);
	a = rig_next(&r, ENGINE_PLACE, 0);
	engine_give_back(r.e, &a);
	cr_assert_eq(rig_state(&r, 0), PAGE_ZERO);
	rig_fault(&r, vmm, PRIV_FIRST + 2, 2);
	a = rig_next(&r, ENGINE_PLACE, PRIV_FIRST + 2);
	engine_give_back(r.e, &a);
	cr_assert_eq(rig_state(&r, PRIV_FIRST + 2), PAGE_STORED);
	cr_assert_eq(engine_room(r.e), 14, "both sleep");
	/* handed over in the background, it wakes whoever waits */
	cr_assert_eq(engine_push(r.e, 8, r.now), 4);
	a = rig_next(&r, ENGINE_PLACE, PRIV_FIRST);
	rig_placed(&r, &a, &vmm);
	cr_assert_eq(engine_room(r.e), 15);
	cr_assert_eq(engine_retry(r.e, 8, r.now), 1);
	a = rig_next(&r, ENGINE_PLACE, 0);
	cr_assert(a.how == PLACE_ZERO && a.from == PAGE_ZERO);
	rig_placed(&r, &a, &vmm);
	cr_assert_eq(engine_room(r.e), 16);
	cr_assert_eq(engine_retry(r.e, 8, r.now), 0);
	cr_assert(r.e->stored_left == 0 && r.e->blocks.block[RAM].zero == 0);
}

/* --- zeroes that stay holes ------------------------------------------------------------- */

/* RAM is a file whose holes can be told. */
static void sparse(struct rig *r)
{
	rig_open(r, 16, 4);
	r->e->blocks.block[RAM].sparse = true;
	rig_owe_all(r);
}

Test(engine_place, O9_zeroes_that_nobody_waits_for_are_noted)
{
	with_rig r;
	struct sharer_ref vmm;
	struct engine_action a;
	struct block *ram;

	sparse(&r);
	ram = &r.e->blocks.block[RAM];
	vmm = rig_join(&r, true, 0);
	rig_fault(&r, vmm, 12, 1);
	engine_zero_run(r.e, LANE_MAIN, 10, 8, r.now);
	a = rig_next(&r, ENGINE_PLACE, 10);
	cr_assert(a.how == PLACE_NOTE && a.n == 2);
	cr_assert_eq(engine_placed(r.e, &a, 2, PLACED, &nobody, r.now), 0);
	a = rig_next(&r, ENGINE_PLACE, 12);
	cr_assert(a.how == PLACE_ZERO && a.n == 1, "somebody waits");
	rig_placed(&r, &a, &vmm);
	a = rig_next(&r, ENGINE_PLACE, 13);
	cr_assert(a.how == PLACE_NOTE && a.n == 5);
	cr_assert_eq(engine_placed(r.e, &a, 5, PLACED, &nobody, r.now), 0);
	rig_none(&r);
	cr_assert(rig_state(&r, 10) == PAGE_ZERO && rig_state(&r, 17) == PAGE_ZERO &&
		  rig_state(&r, 12) == PAGE_PRESENT);
	cr_assert(ram->zero == 7 && ram->present == 1 && ram->missing == RAM_PAGES - 8);
	cr_assert_eq(r.e->owed_left, RIG_PAGES - 8);
	cr_assert_eq(r.e->stats.lane[LANE_MAIN].pages[HOW_NOTED], 7);
	cr_assert_eq(engine_page(r.e, LANE_MAIN, 10, NULL, r.now), ENGINE_DUPLICATE);
	rig_fault(&r, vmm, 10, 1);
	a = rig_next(&r, ENGINE_PLACE, 10);
	cr_assert(a.how == PLACE_ZERO && a.lane == LANE_STORE && a.from == PAGE_ZERO);
	rig_placed(&r, &a, &vmm);
	cr_assert(ram->zero == 6 && ram->present == 2);
	rig_asks_nothing(&r);
}

Test(engine_place, O9_only_zeroes_of_a_sparse_block_are_noted)
{
	with_rig r;
	struct engine_action a;

	sparse(&r);
	rig_join(&r, true, 1u << PRIV);
	rig_page(&r, 3);
	cr_assert_eq(rig_next(&r, ENGINE_PLACE, 3).how, PLACE_COPY);
	engine_page(r.e, LANE_URGENT, 4, NULL, r.now);
	cr_assert_eq(rig_next(&r, ENGINE_PLACE, 4).how, PLACE_NOTE);
	engine_page(r.e, LANE_MAIN, PRIV_FIRST, NULL, r.now);
	cr_assert_eq(rig_next(&r, ENGINE_PLACE, PRIV_FIRST).how, PLACE_ZERO);
	engine_page(r.e, LANE_MAIN, ROM_FIRST, NULL, r.now);
	cr_assert_eq(rig_next(&r, ENGINE_PLACE, ROM_FIRST).how, PLACE_KEEP);
	engine_page(r.e, LANE_MAIN, HUGE_FIRST, NULL, r.now);
	a = rig_next(&r, ENGINE_PLACE, HUGE_FIRST);
	cr_assert_eq(a.how, PLACE_ZERO);
	rig_none(&r);
}

Test(engine_place, O1_who_comes_while_zeroes_are_looked_at_has_them_placed)
{
	with_rig r;
	struct sharer_ref vmm;
	struct engine_action run, a;

	sparse(&r);
	vmm = rig_join(&r, true, 0);
	engine_zero_run(r.e, LANE_MAIN, 10, 4, 77);
	run = rig_next(&r, ENGINE_PLACE, 10);
	rig_fault(&r, vmm, 11, 1);
	cr_assert_eq(engine_placed(r.e, &run, 4, PLACED, &nobody, r.now), 0);
	a = rig_next(&r, ENGINE_PLACE, 11);
	cr_assert(a.how == PLACE_ZERO && a.n == 1 && a.from == PAGE_MISSING &&
		  a.lane == LANE_MAIN && a.arrived_ns == 77);
	cr_assert(rig_state(&r, 10) == PAGE_ZERO && rig_state(&r, 11) == PAGE_CONTESTED);
	cr_assert_eq(r.e->owed_left, RIG_PAGES - 3);
	rig_placed(&r, &a, &vmm);
	rig_none(&r);
	cr_assert_eq(engine_room(r.e), 16, "it goes on");
	cr_assert_eq(r.e->owed_left, RIG_PAGES - 4);
	cr_assert_eq(r.e->stats.lane[LANE_MAIN].pages[HOW_NOTED], 3);
	cr_assert_eq(r.e->stats.lane[LANE_MAIN].pages[HOW_ZERO], 1);
}

/* The ledger is ahead of the counters: what the bulk lane noted is touched before it has told. */
Test(engine_place, a_noted_page_that_is_touched_before_it_is_told_is_counted_once)
{
	with_rig r;
	struct sharer_ref vmm;
	struct engine_report report = {
		.page = 20, .n = 3, .lane = LANE_MAIN, .how = HOW_NOTED, .from = PAGE_MISSING
	};
	struct engine_action a;
	struct block *ram;

	sparse(&r);
	ram = &r.e->blocks.block[RAM];
	vmm = rig_join(&r, true, 0);
	for (uint64_t page = 20; page < 23; page++) {
		ledger_claim(&r.e->ledger, page);
		cr_assert(ledger_note(&r.e->ledger, page));
	}
	rig_fault(&r, vmm, 21, 1);
	a = rig_next(&r, ENGINE_PLACE, 21);
	rig_placed(&r, &a, &vmm);
	cr_assert_eq(ram->present + ram->zero + ram->missing, RAM_PAGES);
	cr_assert_eq(r.e->owed_left, RIG_PAGES, "not over before it is told");
	engine_report(r.e, &report, r.now);
	rig_none(&r);
	cr_assert(ram->zero == 2 && ram->present == 1 && ram->missing == RAM_PAGES - 3);
	cr_assert_eq(r.e->owed_left, RIG_PAGES - 3);
	engine_recount(r.e);
	cr_assert(ram->zero == 2 && ram->present == 1 && ram->missing == RAM_PAGES - 3);
}

Test(engine_place, held_pages_go_into_the_store)
{
	with_rig r;
	struct engine_action a;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	rig_page(&r, ROM_FIRST);
	a = rig_next(&r, ENGINE_PLACE, ROM_FIRST);
	cr_assert_eq(a.how, PLACE_KEEP);
	rig_placed(&r, &a, NULL);
	engine_zero_run(r.e, LANE_MAIN, ROM_FIRST + 1, ROM_PAGES - 1, r.now);
	a = rig_next(&r, ENGINE_PLACE, ROM_FIRST + 1);
	cr_assert(a.how == PLACE_KEEP && !a.data && a.n == ROM_PAGES - 1);
	rig_placed(&r, &a, NULL);
	cr_assert_eq(r.e->blocks.block[ROM].present, ROM_PAGES);
}
