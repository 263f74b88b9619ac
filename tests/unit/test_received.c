/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a resumed source is told that came: against a bit at a time, for pages of every size and in
 * every state, in pieces of every length.  What is lost with a lane is owed again.
 */
#include "config.h"

#include "core/received.h"

#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "engine_rig.h"

static bool is_here(enum page_state state)
{
	return state == PAGE_PRESENT || state == PAGE_STORED || state == PAGE_ZERO ||
	       state == PAGE_LOST || state == PAGE_REMOVED;
}

/* All blocks of the rig, each page in a state of its own. */
static void fill(struct rig *r)
{
	for (uint64_t page = 0; page < RIG_PAGES; page++)
		ledger_set(&r->e->ledger, page, 1, (enum page_state)(page * 7 % PAGE_STATES));
}

Test(received, F59_every_state_and_page_size_in_any_piece)
{
	with_rig r;

	rig_open(&r, 16, 4);
	fill(&r);
	for (unsigned i = 0; i < RIG_BLOCKS; i++) {
		const struct block *b = &r.e->blocks.block[i];
		uint64_t bits = b->length / 4096, size = received_size(b, 4096);
		cleanup_free uint8_t *all = malloc(size);

		cr_assert(all);
		cr_assert_eq(size % 8, 0);
		cr_assert(size * 8 >= bits && size * 8 < bits + 64);
		for (uint64_t piece = 1; piece <= size; piece = piece * 3 + 1) {
			memset(all, 0xaa, size);
			for (uint64_t at = 0; at < size; at += piece)
				received_fill(&r.e->ledger, b, 4096, at, all + at,
					      size - at < piece ? size - at : piece);
			for (uint64_t bit = 0; bit < size * 8; bit++) {
				bool want = bit < bits &&
					    is_here(rig_state(&r, block_page(b, bit * 4096)));

				cr_assert_eq(all[bit / 8] >> bit % 8 & 1, want, "%s bit %lu",
					     b->name, (unsigned long)bit);
			}
		}
	}
}

Test(received, a_block_that_is_no_whole_words)
{
	struct block b = { .length = 65 * 4096, .page_size = 4096 };

	cr_assert_eq(received_size(&b, 4096), 16);
	b.length = 64 * 4096;
	cr_assert_eq(received_size(&b, 4096), 8);
	b.length = 4096;
	cr_assert_eq(received_size(&b, 4096), 8);
}

/* The counters stay what a count of the ledger says. */
static void counted(struct rig *r)
{
	uint64_t left = r->e->owed_left, requested = r->e->requested;

	engine_recount(r->e);
	cr_assert_eq(r->e->owed_left, left);
	cr_assert_eq(r->e->requested, requested);
}

Test(received, O4_what_was_lost_with_a_lane_is_owed_and_asked_for_again)
{
	with_rig r;
	struct sharer_ref vmm;
	uint8_t data[4096] = { 1 };

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	rig_fault(&r, vmm, 1, 1);
	rig_asks(&r, RAM, 1, 1, CLASS_DEMAND);
	engine_page(r.e, LANE_URGENT, 1, data, r.now);		/* asked for */
	engine_page(r.e, LANE_MAIN, 2, data, r.now);		/* came by itself */
	engine_zero_run(r.e, LANE_MAIN, 8, 4, r.now);
	rig_fault(&r, vmm, 9, 2);				/* while it is claimed */
	engine_lanes_lost(r.e);
	rig_none(&r);
	cr_assert_eq(rig_state(&r, 1), PAGE_REQUESTED);
	cr_assert_eq(rig_state(&r, 2), PAGE_MISSING);
	cr_assert_eq(rig_state(&r, 8), PAGE_MISSING);
	cr_assert_eq(rig_state(&r, 9), PAGE_REQUESTED);
	counted(&r);
	engine_replay(r.e);
	rig_asks(&r, RAM, 1, 1, CLASS_DEMAND);
	rig_asks(&r, RAM, 9, 1, CLASS_DEMAND);
	rig_asks_nothing(&r);
	rig_page(&r, 1);
	rig_page(&r, 9);
	rig_settle(&r);
	cr_assert_eq(rig_state(&r, 9), PAGE_PRESENT);
	counted(&r);
}

/* Content of ours is no lane's. */
Test(received, what_we_hold_is_not_lost_with_a_lane)
{
	with_rig r;
	struct engine_action a;

	rig_open(&r, 16, 4);
	for (unsigned i = 0; i < RIG_BLOCKS; i++)
		engine_discard(r.e, i, 0, r.e->blocks.block[i].length);
	engine_received(r.e, PRIV, 0, 4096, false);
	rig_serve(&r);
	rig_join(&r, true, 1u << PRIV);
	cr_assert_eq(engine_push(r.e, 8, r.now), 1);
	engine_lanes_lost(r.e);
	a = rig_next(&r, ENGINE_PLACE, PRIV_FIRST);
	cr_assert_not(engine_lane_lost(r.e, &a));
	cr_assert_eq(a.lane, LANE_STORE);
}

Test(received, O4_what_the_bulk_lane_gave_up_is_owed_again)
{
	with_rig r;
	struct sharer_ref vmm;
	struct engine_report report = { .page = 4, .n = 3, .lane = LANE_MAIN,
					.from = PAGE_MISSING, .result = PLACED_NOT };

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	for (uint64_t page = 4; page < 7; page++)
		cr_assert_eq(ledger_claim(&r.e->ledger, page), PAGE_MISSING);
	rig_fault(&r, vmm, 5, 1);
	engine_report(r.e, &report, r.now);
	cr_assert_eq(rig_state(&r, 4), PAGE_MISSING);
	cr_assert_eq(rig_state(&r, 5), PAGE_REQUESTED);
	cr_assert_eq(rig_state(&r, 6), PAGE_MISSING);
	counted(&r);
	engine_replay(r.e);
	rig_asks(&r, RAM, 5, 1, CLASS_DEMAND);
	rig_asks_nothing(&r);
}
