/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory that its owner gives back, unmaps or moves (O12).
 */
#include "config.h"

#include "core/engine.h"

#include <errno.h>

#include <criterion/criterion.h>

#include "engine_rig.h"

#define PAGE 4096ull

static uint64_t remove_ram(struct rig *r, struct sharer_ref ref, uint64_t page, uint64_t n)
{
	return engine_removed(r->e, ref, RAM_BASE + page * PAGE, RAM_BASE + (page + n) * PAGE);
}

Test(engine_removed, O12_owed_pages_are_zero_and_owed_no_more)
{
	with_rig r;
	struct sharer_ref vmm;
	uint64_t owed;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	owed = r.e->owed_left;
	rig_page(&r, 3);
	rig_settle(&r);
	cr_assert_eq(remove_ram(&r, vmm, 0, 8), 7, "one is here, and the kernel's");
	cr_assert_eq(r.e->owed_left, owed - 8);
	cr_assert_eq(r.e->blocks.block[RAM].zero, 7);
	cr_assert_eq(rig_state(&r, 3), PAGE_PRESENT);
	cr_assert_eq(rig_state(&r, 0), PAGE_ZERO);
	cr_assert_eq(r.e->stats.removed, 7);
	cr_assert_eq(engine_page(r.e, LANE_MAIN, 0, r.store, r.now), ENGINE_DUPLICATE,
		     "what comes of it is left out");
	rig_fault(&r, vmm, 0, 1);
	rig_asks_nothing(&r);
	cr_assert_eq(rig_next(&r, ENGINE_PLACE, 0).how, PLACE_ZERO);
}

Test(engine_removed, O12_who_waits_gets_zeroes)
{
	with_rig r;
	struct sharer_ref vmm;
	struct engine_action a;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	rig_fault(&r, vmm, 5, 1);
	rig_asks(&r, RAM, 5, 1, CLASS_DEMAND);
	cr_assert_eq(remove_ram(&r, vmm, 5, 1), 1);
	cr_assert_eq(r.e->requested, 0);
	rig_none(&r);
	cr_assert_eq(engine_retry(r.e, 16, r.now), 1);
	a = rig_next(&r, ENGINE_PLACE, 5);
	cr_assert(a.how == PLACE_ZERO && !a.data);
	rig_placed(&r, &a, &vmm);
	rig_none(&r);
	cr_assert_eq(waiter_first(&r.e->waiters, 5), WAITER_NONE);
}

Test(engine_removed, O12_what_we_hold_is_dropped)
{
	with_rig r;
	struct sharer_ref vmm;

	rig_open(&r, 16, 4);
	for (unsigned i = 0; i < RIG_BLOCKS; i++)
		engine_discard(r.e, i, 0, r.e->blocks.block[i].length);
	for (uint64_t page = 0; page < 4; page++)
		engine_received(r.e, PRIV, page * PAGE, PAGE, false);
	rig_serve(&r);
	vmm = rig_join(&r, true, 1u << PRIV);
	cr_assert_eq(engine_removed(r.e, vmm, PRIV_BASE, PRIV_BASE + 2 * PAGE), 2);
	cr_assert_eq(r.e->stored_left, 2);
	cr_assert_eq(engine_push(r.e, 16, r.now), 2);
	cr_assert_eq(rig_next(&r, ENGINE_PLACE, PRIV_FIRST + 2).n, 2);
}

Test(engine_removed, whole_pages_of_what_is_mapped)
{
	with_rig r;
	struct sharer_ref vmm, stale;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	stale = vmm;
	stale.generation++;
	cr_assert_eq(engine_removed(r.e, vmm, RAM_BASE + 1, RAM_BASE + PAGE), 0);
	cr_assert_eq(engine_removed(r.e, vmm, RAM_BASE + 1, RAM_BASE + 2 * PAGE + 1), 1);
	cr_assert_eq(rig_state(&r, 1), PAGE_ZERO);
	cr_assert_eq(engine_removed(r.e, vmm, 0, RAM_BASE), 0, "in no mapping");
	cr_assert_eq(engine_removed(r.e, stale, RAM_BASE, RAM_BASE + PAGE), 0);
	cr_assert_eq(engine_removed(r.e, vmm, HUGE_BASE, HUGE_BASE + PAGE), 0, "a part of one");
	cr_assert_eq(engine_removed(r.e, vmm, HUGE_BASE, HUGE_BASE + (2u << 20)), 1);
	cr_assert_eq(rig_state(&r, HUGE_FIRST), PAGE_ZERO);
}

Test(engine_removed, a_placement_that_waits_places_zeroes)
{
	with_rig r;
	struct sharer_ref vmm;
	struct engine_action a, other;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	rig_page(&r, 7);
	a = rig_next(&r, ENGINE_PLACE, 7);
	rig_page(&r, 8);
	other = rig_next(&r, ENGINE_PLACE, 8);
	cr_assert_eq(remove_ram(&r, vmm, 7, 1), 0, "it is claimed");
	cr_assert(engine_forgets(r.e, vmm, RAM_BASE + 7 * PAGE, RAM_BASE + 8 * PAGE, &a));
	cr_assert(a.how == PLACE_ZERO && !a.data);
	cr_assert_not(engine_forgets(r.e, vmm, RAM_BASE + 7 * PAGE, RAM_BASE + 8 * PAGE, &a));
	cr_assert_not(engine_forgets(r.e, vmm, RAM_BASE + 7 * PAGE, RAM_BASE + 8 * PAGE, &other));
	rig_placed(&r, &a, &vmm);
	cr_assert_eq(rig_state(&r, 7), PAGE_PRESENT);
}

Test(engine_removed, private_pages_unmapped_are_given_back)
{
	with_rig r;
	struct sharer_ref vmm;
	uint64_t owed;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 1u << PRIV);
	owed = r.e->owed_left;
	cr_assert_eq(engine_cut(r.e, vmm, RAM_BASE, RAM_BASE + 4 * PAGE), 0);
	cr_assert_eq(r.e->owed_left, owed, "others may have shared memory");
	cr_assert_eq(rig_fault(&r, vmm, 2, 1), ENGINE_OUTSIDE);
	cr_assert_eq(rig_fault(&r, vmm, 4, 1), ENGINE_OK);
	cr_assert_eq(engine_cut(r.e, vmm, PRIV_BASE + PAGE, PRIV_BASE + 3 * PAGE), 0);
	cr_assert_eq(r.e->owed_left, owed - 2);
	vmm.generation++;
	cr_assert_eq(engine_cut(r.e, vmm, RAM_BASE, RAM_BASE + PAGE), -ENOENT);
	cr_assert_eq(engine_moved(r.e, vmm, RAM_BASE, RAM_ALIAS, PAGE), -ENOENT);
}

Test(engine_removed, moved_memory_is_served_where_it_is)
{
	with_rig r;
	struct sharer_ref vmm;
	struct engine_action a;

	rig_open(&r, 16, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	cr_assert_eq(engine_moved(r.e, vmm, RAM_BASE + 8 * PAGE, RAM_ALIAS, 4 * PAGE), 0);
	cr_assert_eq(rig_fault(&r, vmm, 8, 1), ENGINE_OUTSIDE);
	cr_assert_eq(engine_fault(r.e, vmm, RAM_ALIAS + PAGE, 1, 0, r.now), ENGINE_OK);
	rig_asks(&r, RAM, 9, 1, CLASS_DEMAND);
	rig_page(&r, 9);
	a = rig_next(&r, ENGINE_PLACE, 9);
	rig_placed(&r, &a, NULL);
	a = rig_next(&r, ENGINE_WAKE, 9);
	engine_woken(r.e, &a, r.now);
	cr_assert_eq(engine_moved(r.e, vmm, RAM_ALIAS, RAM_BASE, 4 * PAGE), -EINVAL,
		     "something else is there");
}
