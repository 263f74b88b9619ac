/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The order rules of design.md section 5 that the engine can hold, one test each (O11, O12 and O14
 * are the daemon's), and what the model does not force: full rings, clocks that disagree, sharers
 * that end at the worst moment.
 */
#include "config.h"

#include "core/engine.h"

#include <errno.h>

#include <criterion/criterion.h>

#include "engine_rig.h"

static const uint8_t bytes[1];
static const struct engine_carrier nobody;

Test(engine, O1_a_fault_is_parked_before_the_engine_returns)
{
	with_rig r;
	struct sharer_ref vmm;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	cr_assert_eq(rig_fault(&r, vmm, 7, 11), ENGINE_OK);
	rig_none(&r);
	cr_assert_eq(engine_room(r.e), 15);
	cr_assert_eq(r.e->waiters.entry[waiter_first(&r.e->waiters, 7)].tid, 11);
	cr_assert_eq(rig_state(&r, 7), PAGE_REQUESTED);
}

Test(engine, O1_a_fault_on_a_page_that_is_being_placed_is_parked_and_drained)
{
	with_rig r;
	struct sharer_ref vmm, other;
	struct engine_action a;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	other = rig_join(&r, false, 0);
	rig_page(&r, 7);
	a = rig_next(&r, ENGINE_PLACE, 7);
	rig_fault(&r, other, 7, 11);
	rig_none(&r);
	rig_placed(&r, &a, &vmm);
	a = rig_next(&r, ENGINE_WAKE, 7);
	cr_assert_eq(a.sharer.slot, other.slot);
	engine_woken(r.e, &a, r.now);
	cr_assert_eq(engine_room(r.e), 16);
}

Test(engine, O2_present_only_after_the_kernel_said_so)
{
	with_rig r;
	struct sharer_ref vmm;
	struct engine_action a;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	rig_page(&r, 7);
	a = rig_next(&r, ENGINE_PLACE, 7);
	cr_assert_eq(rig_state(&r, 7), PAGE_PLACING);
	cr_assert_eq(r.e->blocks.block[RAM].present, 0);
	cr_assert_eq(engine_page(r.e, LANE_URGENT, 7, bytes, r.now), ENGINE_DUPLICATE,
		     "never twice");
	rig_none(&r);
	rig_placed(&r, &a, &vmm);
	cr_assert_eq(rig_state(&r, 7), PAGE_PRESENT);
	cr_assert_eq(r.e->blocks.block[RAM].present, 1);
	cr_assert_eq(r.e->stats.lane[LANE_URGENT].duplicates, 1);
}

Test(engine, O2_content_that_nobody_placed_is_an_alarm)
{
	with_rig r;
	struct sharer_ref vmm;
	struct engine_action a;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	rig_fault(&r, vmm, 7, 1);
	rig_page(&r, 7);
	a = rig_next(&r, ENGINE_PLACE, 7);
	cr_assert_eq(engine_placed(r.e, &a, 0, PLACED_EXISTS, &nobody, r.now), 0);
	rig_next(&r, ENGINE_ALARM, 7);
	rig_none(&r);
	cr_assert_eq(r.e->stats.alarms, 1);
	cr_assert_eq(rig_state(&r, 7), PAGE_UNPLACED);
	cr_assert_eq(engine_room(r.e), 15, "it sleeps on: no wake on a page we cannot answer for");
	rig_fault(&r, vmm, 7, 2);
	rig_none(&r);
	rig_asks_nothing(&r);
}

Test(engine, O2_a_page_that_cannot_be_placed_never_completes_the_session)
{
	with_rig r;
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
	cr_assert_eq(r.e->owed, 1);
	rig_page(&r, 5);
	a = rig_next(&r, ENGINE_PLACE, 5);
	cr_assert_eq(engine_placed(r.e, &a, 0, PLACED_NOWHERE, &nobody, r.now), 0);
	rig_next(&r, ENGINE_UNPLACED, 5);
	cr_assert_not(engine_drained(r.e));
	cr_assert_eq(r.e->owed_left, 1);
	cr_assert_eq(r.e->blocks.block[RAM].unplaced, 1);
}

Test(engine, O3_a_message_for_a_present_page_is_answered)
{
	with_rig r;
	struct sharer_ref vmm, other;
	struct engine_action a;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	other = rig_join(&r, false, 0);
	rig_page(&r, 7);
	rig_settle(&r);
	rig_fault(&r, other, 7, 1);
	a = rig_next(&r, ENGINE_PLACE, 7);
	cr_assert_eq(a.how, PLACE_ANSWER);
	cr_assert_eq(a.sharer.slot, other.slot);
	cr_assert_eq(a.address, RAM_BASE + 7 * 4096);
	cr_assert_eq(engine_placed(r.e, &a, 0, PLACED_EXISTS, &nobody, r.now), 0);
	a = rig_next(&r, ENGINE_WAKE, 7);
	cr_assert_eq(a.sharer.slot, other.slot);
	engine_woken(r.e, &a, r.now);
	cr_assert_eq(engine_room(r.e), 16);
	cr_assert_neq(vmm.slot, other.slot);
}

Test(engine, O3_a_page_that_the_owner_gave_back_is_zeroed_and_that_wakes)
{
	with_rig r;
	struct sharer_ref vmm;
	struct engine_action a;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	rig_page(&r, 7);
	rig_settle(&r);
	rig_fault(&r, vmm, 7, 1);
	a = rig_next(&r, ENGINE_PLACE, 7);
	rig_placed(&r, &a, &vmm);
	rig_none(&r);
	cr_assert_eq(r.e->blocks.block[RAM].present, 1, "counted once");
}

Test(engine, O3_stored_content_answers_its_fault)
{
	with_rig r;
	struct sharer_ref vmm;
	struct engine_action a;

	rig_open(&r, 16, 4);
	for (unsigned i = 0; i < RIG_BLOCKS; i++)
		if (i != PRIV)
			engine_discard(r.e, i, 0, r.e->blocks.block[i].length);
	for (uint64_t page = 0; page < PRIV_PAGES; page++)
		engine_received(r.e, PRIV, page * 4096, 4096, page == 3);
	rig_serve(&r);
	vmm = rig_join(&r, true, 1u << PRIV);
	rig_fault(&r, vmm, PRIV_FIRST + 2, 1);
	a = rig_next(&r, ENGINE_PLACE, PRIV_FIRST + 2);
	cr_assert_eq(a.how, PLACE_COPY);
	cr_assert_eq(a.data, r.store + 2 * 4096);
	cr_assert_eq(a.lane, LANE_STORE);
	rig_placed(&r, &a, &vmm);
	rig_fault(&r, vmm, PRIV_FIRST + 3, 1);
	a = rig_next(&r, ENGINE_PLACE, PRIV_FIRST + 3);
	cr_assert_eq(a.how, PLACE_ZERO);
	rig_placed(&r, &a, &vmm);
	rig_asks_nothing(&r);
	cr_assert_eq(r.e->stored_left, PRIV_PAGES - 2);
	cr_assert_eq(engine_push(r.e, 1000, r.now), PRIV_PAGES - 2);
	rig_settle(&r);
	cr_assert_eq(r.e->stored_left, 0);
}

Test(engine, O6_a_partial_placement_goes_on_at_the_first_page_not_done)
{
	with_rig r;
	struct engine_action a;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	rig_join(&r, true, 0);
	engine_zero_run(r.e, LANE_MAIN, 10, 20, r.now);
	a = rig_next(&r, ENGINE_PLACE, 10);
	cr_assert_eq(a.n, 20);
	cr_assert_eq(engine_placed(r.e, &a, 7, PLACED, &nobody, r.now), 13);
	cr_assert_eq(a.page, 17);
	cr_assert_eq(rig_state(&r, 16), PAGE_PRESENT);
	cr_assert_eq(rig_state(&r, 17), PAGE_PLACING);
	cr_assert_eq(engine_placed(r.e, &a, 3, PLACED_NOWHERE, &nobody, r.now), 9);
	cr_assert_eq(a.page, 21);
	cr_assert_eq(rig_state(&r, 20), PAGE_UNPLACED);
	cr_assert_eq(engine_placed(r.e, &a, 9, PLACED, &nobody, r.now), 0);
	cr_assert_eq(r.e->blocks.block[RAM].present, 19);
}

Test(engine, O6_O10_a_sharer_ends_once_and_late_messages_are_dropped)
{
	with_rig r;
	struct sharer_ref vmm, other, next;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	other = rig_join(&r, false, 0);
	rig_fault(&r, other, 7, 1);
	rig_fault(&r, vmm, 7, 1);
	engine_gone(r.e, other, r.now);
	engine_gone(r.e, other, r.now);
	cr_assert_eq(r.e->gone.faults, 1, "counted once");
	cr_assert_eq(engine_room(r.e), 15);
	cr_assert_eq(rig_fault(&r, other, 8, 1), ENGINE_STALE);
	cr_assert_eq(rig_state(&r, 8), PAGE_MISSING);
	next = rig_join(&r, false, 0);
	cr_assert(next.slot != other.slot || next.generation != other.generation);
	rig_page(&r, 7);
	rig_settle(&r);
	cr_assert_eq(engine_room(r.e), 16);
}

Test(engine, O8_faults_are_served_while_the_device_state_loads_and_when_the_source_is_lost)
{
	with_rig r;
	struct sharer_ref vmm;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	cr_assert_eq(r.e->session.state, SESSION_LOADING);
	rig_fault(&r, vmm, 1, 1);
	rig_asks(&r, RAM, 1, 1, CLASS_DEMAND);
	rig_page(&r, 1);
	rig_settle(&r);
	session_feed(&r.e->session, SESSION_SOURCE_LOST);
	cr_assert_eq(r.e->session.state, SESSION_PAUSED);
	rig_fault(&r, vmm, 1, 1);
	cr_assert_eq(rig_next(&r, ENGINE_PLACE, 1).how, PLACE_ANSWER);
	rig_fault(&r, vmm, 2, 1);
	cr_assert_eq(rig_state(&r, 2), PAGE_REQUESTED, "waits for the recovery");
}

Test(engine, O9_zero_pages_are_placed_as_zeroes_in_one_go_where_nobody_waits)
{
	with_rig r;
	struct sharer_ref vmm;
	struct engine_action a;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	rig_fault(&r, vmm, 12, 1);
	rig_page(&r, 14);
	a = rig_next(&r, ENGINE_PLACE, 14);
	rig_placed(&r, &a, &vmm);
	engine_zero_run(r.e, LANE_MAIN, 10, 8, r.now);
	a = rig_next(&r, ENGINE_PLACE, 10);
	cr_assert(a.n == 2 && a.how == PLACE_ZERO && !a.data);
	a = rig_next(&r, ENGINE_PLACE, 12);
	cr_assert(a.n == 1 && a.how == PLACE_ZERO && a.from == PAGE_REQUESTED);
	a = rig_next(&r, ENGINE_PLACE, 13);
	cr_assert_eq(a.n, 1);
	a = rig_next(&r, ENGINE_PLACE, 15);
	cr_assert_eq(a.n, 3);
	rig_none(&r);
	cr_assert_eq(r.e->stats.lane[LANE_MAIN].duplicates, 1);
}

Test(engine, O13_every_sharer_is_woken_once_and_all_its_aliases)
{
	with_rig r;
	struct sharer_ref vmm, alias, plain;
	struct engine_action a;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	alias = rig_join(&r, false, RIG_ALIAS);
	plain = rig_join(&r, false, 0);
	rig_fault(&r, alias, 7, 1);
	engine_fault(r.e, alias, RAM_ALIAS + 7 * 4096, 2, 1, r.now);
	rig_fault(&r, plain, 7, 1);
	rig_fault(&r, plain, 7, 2);
	rig_fault(&r, vmm, 7, 1);
	rig_page(&r, 7);
	a = rig_next(&r, ENGINE_PLACE, 7);
	rig_placed(&r, &a, &alias);
	a = rig_next(&r, ENGINE_WAKE, 7);
	cr_assert(a.sharer.slot == alias.slot && a.address == RAM_BASE + 7 * 4096,
		  "its other alias sleeps");
	engine_woken(r.e, &a, r.now);
	a = rig_next(&r, ENGINE_WAKE, 7);
	cr_assert(a.sharer.slot == plain.slot && a.address == 0);
	engine_woken(r.e, &a, r.now);
	a = rig_next(&r, ENGINE_WAKE, 7);
	cr_assert(a.sharer.slot == vmm.slot);
	engine_woken(r.e, &a, r.now);
	rig_none(&r);
	cr_assert_eq(r.e->sharers.sharer[alias.slot].stats.stage[STAGE_TOTAL].count, 2);
	cr_assert_eq(engine_room(r.e), 16);
}

Test(engine, a_sharer_with_one_mapping_is_woken_by_the_placement_itself)
{
	with_rig r;
	struct sharer_ref vmm;
	struct engine_action a;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	rig_fault(&r, vmm, 7, 1);
	rig_page(&r, 7);
	a = rig_next(&r, ENGINE_PLACE, 7);
	rig_placed(&r, &a, &vmm);
	rig_none(&r);
	cr_assert_eq(r.e->sharers.sharer[vmm.slot].stats.stage[STAGE_TOTAL].count, 1);
	cr_assert_eq(engine_room(r.e), 16);
}

Test(engine, the_way_of_a_fault_is_measured_in_stages)
{
	with_rig r;
	struct sharer_ref vmm, other;
	struct engine_action a;
	struct sharer_stats *s;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	other = rig_join(&r, false, 0);
	s = &r.e->sharers.sharer[other.slot].stats;
	rig_fault(&r, other, 7, 1);
	r.now += 5;
	rig_asks(&r, RAM, 7, 1, CLASS_DEMAND);
	r.now += 40;
	rig_page(&r, 7);
	r.now += 3;
	a = rig_next(&r, ENGINE_PLACE, 7);
	rig_placed(&r, &a, &vmm);
	r.now += 2;
	a = rig_next(&r, ENGINE_WAKE, 7);
	engine_woken(r.e, &a, r.now);
	cr_assert_eq(s->stage[STAGE_QUEUE].sum, 5);
	cr_assert_eq(s->stage[STAGE_WIRE].sum, 40);
	cr_assert_eq(s->stage[STAGE_PLACEMENT].sum, 3);
	cr_assert_eq(s->stage[STAGE_WAKE].sum, 2);
	cr_assert_eq(s->stage[STAGE_TOTAL].sum, 50);
	cr_assert_eq(s->blocked_ns, 50);
	cr_assert_eq(s->blocked_threads_ns, 50);
}

Test(engine, faults_that_make_no_sense_change_nothing)
{
	with_rig r;
	struct sharer_ref vmm, never = { 40, 1 }, beyond = { SHARER_MAX, 1 };

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	cr_assert_eq(engine_fault(r.e, vmm, RAM_BASE - 1, 1, 0, r.now), ENGINE_OUTSIDE);
	cr_assert_eq(engine_fault(r.e, vmm, RAM_BASE + RAM_PAGES * 4096, 1, 0, r.now),
		     ENGINE_OUTSIDE);
	cr_assert_eq(rig_fault(&r, never, 1, 1), ENGINE_STALE);
	cr_assert_eq(rig_fault(&r, beyond, 1, 1), ENGINE_STALE);
	rig_none(&r);
	rig_asks_nothing(&r);
	cr_assert_eq(engine_room(r.e), 16);
	cr_assert_eq(r.e->owed_left, RIG_PAGES);
}

Test(engine, the_bulk_lane_reports_what_it_placed)
{
	with_rig r;
	struct sharer_ref vmm;
	struct engine_report plain = { .page = 20, .n = 3, .lane = LANE_MAIN, .how = HOW_ZERO,
				       .from = PAGE_MISSING, .placed_ns = 900, .arrived_ns = 800 };
	struct engine_report waited = { .page = 30, .n = 1, .lane = LANE_MAIN, .how = HOW_COPY,
					.from = PAGE_REQUESTED, .contested = true };
	struct engine_action a;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	for (uint64_t page = 20; page < 23; page++) {
		cr_assert_eq(ledger_claim(&r.e->ledger, page), PAGE_MISSING);
		cr_assert_not(ledger_publish(&r.e->ledger, page));
	}
	rig_fault(&r, vmm, 30, 1);
	cr_assert_eq(ledger_claim(&r.e->ledger, 30), PAGE_REQUESTED);
	cr_assert(ledger_publish(&r.e->ledger, 30));
	cr_assert_eq(r.e->owed_left, RIG_PAGES, "nobody has told yet");
	engine_report(r.e, &plain, r.now);
	rig_none(&r);
	cr_assert_eq(r.e->stats.lane[LANE_MAIN].pages[HOW_ZERO], 3);
	engine_report(r.e, &waited, r.now);
	a = rig_next(&r, ENGINE_WAKE, 30);
	engine_woken(r.e, &a, r.now);
	cr_assert_eq(r.e->owed_left, RIG_PAGES - 4);
	cr_assert_eq(r.e->requested, 0);
	cr_assert_eq(engine_room(r.e), 16);
}

Test(engine, threads_that_repeat_themselves_are_parked_once)
{
	with_rig r;
	struct sharer_ref vmm;
	struct sharer_stats *s;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	s = &r.e->sharers.sharer[vmm.slot].stats;
	for (unsigned i = 0; i < 20; i++)
		rig_fault(&r, vmm, 7, 5);
	cr_assert_eq(engine_room(r.e), 15);
	cr_assert_eq(s->refaults, 19);
	cr_assert_eq(s->requests, 1);
	rig_fault(&r, vmm, 7, 0);
	rig_fault(&r, vmm, 7, 0);
	cr_assert_eq(engine_room(r.e), 13,
		     "a sharer that does not tell its threads cannot be told apart");
}
Test(engine, a_page_placed_before_its_waiter_was_parked_blocked_nobody)
{
	with_rig r;
	struct sharer_ref vmm;
	struct engine_report report = {
		.page = 7, .n = 1, .from = PAGE_MISSING, .contested = true
	};

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	ledger_claim(&r.e->ledger, 7);
	report.carrier = (struct engine_carrier){ true, vmm, RAM_BASE + 7 * 4096 };
	report.placed_ns = r.now - 100;		/* the other lane was done, but had not published */
	rig_fault(&r, vmm, 7, 1);
	cr_assert(ledger_publish(&r.e->ledger, 7));
	engine_report(r.e, &report, r.now + 50);
	rig_none(&r);
	cr_assert_eq(r.e->sharers.sharer[vmm.slot].stats.blocked_ns, 0);
	cr_assert_eq(r.e->sharers.sharer[vmm.slot].stats.stage[STAGE_TOTAL].sum, 0);
}

Test(engine, O10_a_sharer_that_ends_with_a_wake_under_way_was_blocked_until_then)
{
	with_rig r;
	struct sharer_ref vmm, other;
	struct engine_action a;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	other = rig_join(&r, false, 0);
	rig_fault(&r, other, 7, 1);
	r.now += 30;
	rig_page(&r, 7);
	a = rig_next(&r, ENGINE_PLACE, 7);
	rig_placed(&r, &a, &vmm);
	a = rig_next(&r, ENGINE_WAKE, 7);
	r.now += 4;
	engine_gone(r.e, other, r.now);
	cr_assert_eq(r.e->gone.blocked_ns, 34);
	engine_woken(r.e, &a, r.now + 5);
	cr_assert_eq(engine_room(r.e), 16, "the entry comes back");
	cr_assert_eq(r.e->gone.stage[STAGE_TOTAL].count, 0, "it was not woken");
}

/* The most that one event can cause: a run of pages, each waited for in every sharer. */
Test(engine, every_wake_of_a_run_has_room)
{
	with_rig r;
	struct sharer_ref ref[SHARER_MAX];
	struct engine_action a;
	unsigned woken = 0;

	rig_open(&r, ENGINE_RUN * SHARER_MAX, 4);
	rig_owe_all(&r);
	for (unsigned i = 0; i < SHARER_MAX; i++)
		ref[i] = rig_join(&r, i == 0, 0);
	engine_zero_run(r.e, LANE_MAIN, 0, ENGINE_RUN, r.now);
	a = rig_next(&r, ENGINE_PLACE, 0);
	cr_assert_eq(a.n, ENGINE_RUN);
	for (unsigned i = 0; i < SHARER_MAX; i++)
		for (uint64_t page = 0; page < ENGINE_RUN; page++)
			rig_fault(&r, ref[i], page, 1);
	rig_placed(&r, &a, NULL);
	while (engine_next(r.e, &a)) {
		cr_assert_eq(a.verb, ENGINE_WAKE);
		engine_woken(r.e, &a, r.now);
		woken++;
	}
	cr_assert_eq(woken, ENGINE_RUN * SHARER_MAX);
	cr_assert_eq(engine_room(r.e), ENGINE_RUN * SHARER_MAX);
}

Test(engine, every_wake_of_a_run_that_was_asked_for_has_room)
{
	with_rig r;
	struct sharer_ref ref[SHARER_MAX];

	rig_open(&r, ENGINE_RUN * SHARER_MAX, 4);
	rig_owe_all(&r);
	for (unsigned i = 0; i < SHARER_MAX; i++)
		ref[i] = rig_join(&r, i == 0, 0);
	for (unsigned i = 0; i < SHARER_MAX; i++)
		for (uint64_t page = 0; page < ENGINE_RUN; page++)
			rig_fault(&r, ref[i], page, 1);
	engine_zero_run(r.e, LANE_MAIN, 0, ENGINE_RUN, r.now);
	cr_assert_eq(r.e->actions.n, ENGINE_RUN);
	rig_settle(&r);
	cr_assert_eq(engine_room(r.e), ENGINE_RUN * SHARER_MAX);
}

/* Stored and missing pages take turns, so that no two are handed over in one go. */
Test(engine, a_push_leaves_room_for_what_it_causes)
{
	with_rig r;
	uint64_t pushed;

	rig_open(&r, 4, 4);
	for (unsigned i = 0; i < RIG_BLOCKS; i++)
		engine_discard(r.e, i, 0, r.e->blocks.block[i].length);
	for (uint64_t page = 0; page < PRIV_PAGES; page += 2)
		engine_received(r.e, PRIV, page * 4096, 4096, false);
	rig_serve(&r);
	rig_join(&r, true, 1u << PRIV);
	for (unsigned i = 0; i < ENGINE_ACTIONS; i++) {
		pushed = engine_push(r.e, UINT64_MAX, r.now);
		cr_assert_leq(r.e->actions.n, ENGINE_RUN);
		if (!pushed)
			break;
	}
	rig_settle(&r);
	while (engine_push(r.e, UINT64_MAX, r.now))
		rig_settle(&r);
	cr_assert_eq(r.e->stored_left, 0);
}

Test(engine, a_failed_report_of_many_pages_loses_all_of_them)
{
	with_rig r;
	struct engine_report report = {
		.page = 7, .n = 3, .from = PAGE_MISSING, .result = PLACED_NOWHERE
	};

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	for (uint64_t page = 7; page < 10; page++)
		ledger_claim(&r.e->ledger, page);
	engine_report(r.e, &report, r.now);
	for (uint64_t page = 7; page < 10; page++) {
		rig_next(&r, ENGINE_UNPLACED, page);
		cr_assert_eq(rig_state(&r, page), PAGE_UNPLACED);
	}
	rig_none(&r);
	cr_assert_eq(r.e->owed_left, RIG_PAGES);
}
