/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Before faults are served: what precopy brings, what is owed (O7, O15), who may map what.
 */
#include "config.h"

#include "core/engine.h"

#include <errno.h>

#include <criterion/criterion.h>

#include "engine_rig.h"

#define FAIL(x) cr_assert_eq((x), -EINVAL)

Test(engine_setup, O7_discard_only_before_the_package)
{
	with_rig r;

	rig_open(&r, 4, 4);
	rig_owe_all(&r);
	cr_assert_eq(engine_discard(r.e, RAM, 0, 4096), -EPROTO);
	cr_assert_eq(rig_state(&r, 0), PAGE_MISSING);
	rig_page(&r, 0);
	rig_settle(&r);
	cr_assert_eq(engine_discard(r.e, RAM, 0, 4096), -EPROTO);
	cr_assert_eq(rig_state(&r, 0), PAGE_PRESENT);
}

Test(engine_setup, O15_owed_is_exactly_what_was_discarded)
{
	with_rig r;

	rig_open(&r, 4, 4);
	for (uint64_t page = 0; page < RIG_PAGES; page++) {
		const struct block *b = block_of_page(&r.e->blocks, page);

		engine_received(r.e, (unsigned)(b - r.e->blocks.block), block_offset(b, page),
				b->page_size, false);
	}
	cr_assert_eq(engine_discard(r.e, RAM, 3 * 4096, 5 * 4096), 0);
	cr_assert_eq(engine_discard(r.e, RAM, 7 * 4096, 2 * 4096), 0);
	cr_assert_eq(engine_discard(r.e, HUGE, 2 << 20, 2 << 20), 0);
	rig_serve(&r);
	cr_assert_eq(r.e->owed, 7);
	cr_assert_eq(r.e->owed_left, 7);
	cr_assert_eq(r.e->blocks.block[RAM].owed, 6);
	cr_assert_eq(r.e->blocks.block[HUGE].owed, 1);
	for (uint64_t page = 0; page < RAM_PAGES; page++)
		cr_assert_eq(rig_state(&r, page),
			     page >= 3 && page < 9 ? PAGE_MISSING : PAGE_PRESENT);
	cr_assert_eq(r.e->stored_left, PRIV_PAGES);
	cr_assert_not(engine_drained(r.e));
}

Test(engine_setup, O15_a_page_neither_received_nor_discarded_is_refused_by_name)
{
	with_rig r;
	uint64_t page = 1;

	rig_open(&r, 4, 4);
	cr_assert_eq(engine_package(r.e, &page), -ENODATA);
	cr_assert_eq(page, 0);
	for (unsigned i = 0; i < RIG_BLOCKS; i++)
		if (i != ROM)
			engine_discard(r.e, i, 0, r.e->blocks.block[i].length);
	cr_assert_eq(engine_package(r.e, &page), -ENODATA);
	cr_assert_eq(page, ROM_FIRST);
	engine_discard(r.e, ROM, 0, (ROM_PAGES - 1) * 4096);
	cr_assert_eq(engine_package(r.e, &page), -ENODATA);
	cr_assert_eq(page, ROM_FIRST + ROM_PAGES - 1);
	cr_assert_eq(r.e->session.state, SESSION_DISCARDING, "nothing happened");
	engine_received(r.e, ROM, (ROM_PAGES - 1) * 4096, 4096, true);
	cr_assert_eq(engine_package(r.e, &page), 0);
	cr_assert_eq(engine_package(r.e, &page), -EPROTO);
}

Test(engine_setup, discard_refusals)
{
	with_rig r;

	rig_open(&r, 4, 4);
	FAIL(engine_discard(r.e, RAM, 1, 4096));
	FAIL(engine_discard(r.e, RAM, 0, 4095));
	FAIL(engine_discard(r.e, RAM, 0, 0));
	FAIL(engine_discard(r.e, RAM, RAM_PAGES * 4096, 4096));
	FAIL(engine_discard(r.e, RAM, 4096, RAM_PAGES * 4096));
	FAIL(engine_discard(r.e, RAM, 4096, UINT64_MAX & ~4095ull));
	FAIL(engine_discard(r.e, RAM, UINT64_MAX & ~4095ull, 8192));
	FAIL(engine_discard(r.e, HUGE, 4096, 2 << 20));
	FAIL(engine_discard(r.e, RIG_BLOCKS, 0, 4096));
	cr_assert_eq(r.e->session.state, SESSION_ADVISED, "a refused range is no switch-over");
	cr_assert_eq(rig_state(&r, 0), PAGE_NEVER);
}

/* What a page is after its parts came in some order. */
Test(engine_setup, parts_of_pages)
{
	static const struct {
		unsigned block;
		const char *parts;	/* z zero, d data, Z a whole page of zeroes */
		enum page_state state;
	} rows[] = {
		{ RAM, "d", PAGE_PRESENT },   { RAM, "Z", PAGE_ZERO },
		{ RAM, "dZ", PAGE_ZERO },     { RAM, "Zd", PAGE_PRESENT },
		{ PRIV, "d", PAGE_STORED },   { PRIV, "Z", PAGE_ZERO },
		{ PRIV, "dZ", PAGE_ZERO },    { PRIV, "Zd", PAGE_STORED },
		{ ROM, "Z", PAGE_PRESENT },   { ROM, "d", PAGE_PRESENT },
		{ HUGE, "zzzz", PAGE_ZERO },  { HUGE, "zdz", PAGE_PRESENT },
		{ HUGE, "dz", PAGE_PRESENT }, { HUGE, "dzZ", PAGE_ZERO },
		{ HUGE, "Zzz", PAGE_ZERO },   { HUGE, "Zzd", PAGE_PRESENT },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		with_rig r;
		const struct block *b;

		rig_open(&r, 4, 4);
		b = &r.e->blocks.block[rows[i].block];
		for (const char *p = rows[i].parts; *p; p++)
			engine_received(
				r.e, rows[i].block,
				*p == 'Z' ? 0 : (uint64_t)(p - rows[i].parts) * 4096 % b->page_size,
				*p == 'Z' ? b->page_size : 4096, *p != 'd');
		cr_expect_eq(rig_state(&r, b->first), rows[i].state, "%s: %s", rows[i].parts,
			     ledger_state_name(rig_state(&r, b->first)));
	}
}

Test(engine_setup, mapping_refusals)
{
	static const struct {
		struct mapping m;
		int ret;
	} rows[] = {
		{ { .block = RIG_BLOCKS, .length = 4096 }, -EINVAL },
		{ { .block = UINT16_MAX, .length = 4096 }, -EINVAL },
		{ { .block = ROM, .length = 4096 }, -EINVAL },
		{ { .block = RAM, .length = 0 }, -EINVAL },
		{ { .block = RAM, .length = 4095 }, -EINVAL },
		{ { .block = RAM, .length = (RAM_PAGES + 1) * 4096 }, -EINVAL },
		{ { .block = RAM, .length = 4096, .offset = RAM_PAGES * 4096 }, -EINVAL },
		{ { .block = RAM, .length = 4096, .offset = 1 }, -EINVAL },
		{ { .block = RAM, .length = 4096, .address = 0x1001 }, -EINVAL },
		{ { .block = RAM, .length = UINT64_MAX & ~4095ull, .offset = 4096 }, -EINVAL },
		{ { .block = RAM, .length = 4096, .address = UINT64_MAX & ~4095ull }, -EINVAL },
		{ { .block = RAM, .length = 4096, .address = RAM_BASE }, -EINVAL },
		{ { .block = HUGE, .length = 2 << 20, .address = 4096 }, -EINVAL },
		{ { .block = HUGE, .length = 4096, .address = 2 << 20 }, -EINVAL },
		{ { .block = HUGE, .length = 2 << 20, .address = 2 << 20, .offset = 6 << 20 }, 0 },
		{ { .block = RAM,
		    .length = 4096,
		    .address = 4096,
		    .offset = (RAM_PAGES - 1) * 4096 },
		  0 },
	};
	struct sharer_ref vmm, stale;
	with_rig r;

	rig_open(&r, 4, 4);
	vmm = rig_join(&r, true, 0);
	stale = (struct sharer_ref){ vmm.slot, vmm.generation + 1 };
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		cr_expect_eq(engine_map(r.e, vmm, &rows[i].m), rows[i].ret, "row %zu", i);
		cr_expect_eq(engine_map(r.e, stale, &rows[i].m), -ENOENT, "row %zu", i);
	}
}

Test(engine_setup, an_unmapped_place_can_show_something_else)
{
	struct mapping m = { .block = RAM, .address = 4096, .length = 4096, .offset = 3 * 4096 };
	struct mapping other = {
		.block = RAM, .address = 4096, .length = 4096, .offset = 9 * 4096
	};
	struct sharer_ref vmm, stale;
	with_rig r;

	rig_open(&r, 4, 4);
	rig_owe_all(&r);
	vmm = rig_join(&r, true, 0);
	stale = (struct sharer_ref){ vmm.slot, vmm.generation + 1 };
	cr_assert_eq(engine_map(r.e, vmm, &m), 0);
	cr_assert_eq(engine_map(r.e, vmm, &other), -EINVAL);
	cr_assert_eq(engine_unmap(r.e, stale, &m), -ENOENT);
	cr_assert_eq(engine_unmap(r.e, vmm, &other), -ENOENT);
	cr_assert_eq(engine_unmap(r.e, vmm, &m), 0);
	cr_assert_eq(engine_fault(r.e, vmm, 4096, 1, 0, r.now), ENGINE_OUTSIDE);
	cr_assert_eq(engine_map(r.e, vmm, &other), 0);
	cr_assert_eq(engine_fault(r.e, vmm, 4096, 1, 0, r.now), ENGINE_OK);
	rig_asks(&r, RAM, 9, 1, CLASS_DEMAND);
}

Test(engine_setup, a_private_block_has_one_sharer_at_a_time)
{
	struct mapping m = { .block = PRIV, .address = PRIV_BASE, .length = 8 * 4096 };
	struct mapping rest = { .block = PRIV, .address = PRIV_BASE + 8 * 4096, .offset = 8 * 4096,
				.length = 8 * 4096 };
	struct sharer_ref vmm, other;
	with_rig r;

	rig_open(&r, 4, 4);
	vmm = rig_join(&r, true, 0);
	other = rig_join(&r, false, 0);
	cr_assert_eq(engine_map(r.e, vmm, &m), 0);
	cr_assert_eq(engine_map(r.e, other, &m), -EBUSY);
	cr_assert_eq(engine_map(r.e, other, &rest), -EBUSY, "not even another part of it");
	cr_assert_eq(engine_map(r.e, vmm, &rest), 0, "in pieces is fine");
	engine_gone(r.e, vmm, r.now);
	cr_assert_eq(engine_map(r.e, other, &m), 0);
}

Test(engine_setup, a_drained_session_owes_nothing_and_stores_nothing)
{
	with_rig r;

	rig_open(&r, 4, 4);
	rig_owe_all(&r);
	rig_join(&r, true, 1u << PRIV);
	for (uint64_t page = 0; page < RIG_PAGES; page++) {
		cr_assert_not(engine_drained(r.e));
		rig_page(&r, page);
		rig_settle(&r);
	}
	cr_assert(engine_drained(r.e));
	cr_assert_eq(engine_push(r.e, 10, r.now), 0);
}

Test(engine_setup, deinit_twice)
{
	with_rig r;

	rig_open(&r, 4, 4);
	engine_deinit(r.e);
	cr_assert_null(r.e->waiters.entry);
}

Test(engine_setup, a_recount_keeps_owed_what_could_not_be_placed)
{
	with_rig r;

	rig_open(&r, 4, 4);
	rig_owe_all(&r);
	ledger_set(&r.e->ledger, 3, 2, PAGE_UNPLACED);
	ledger_set(&r.e->ledger, 5, RIG_PAGES - 5, PAGE_PRESENT);
	ledger_set(&r.e->ledger, 0, 3, PAGE_REQUESTED);
	engine_recount(r.e);
	cr_assert_eq(r.e->owed_left, 5);
	cr_assert_eq(r.e->requested, 3);
	cr_assert_eq(r.e->blocks.block[RAM].unplaced, 2);
	ledger_set(&r.e->ledger, 0, 3, PAGE_PRESENT);
	engine_recount(r.e);
	cr_assert_not(engine_drained(r.e));
}

/* An index from a peer may be anything; UBSan ends the program where one is used unchecked. */
Test(engine_setup, blocks_that_do_not_exist)
{
	with_rig r;

	rig_open(&r, 4, 4);
	FAIL(engine_discard(r.e, BLOCK_MAX + 1, 0, 4096));
	FAIL(engine_discard(r.e, UINT32_MAX, 0, 4096));
	FAIL(engine_want(r.e, BLOCK_MAX + 1, 0, 4096, CLASS_DMA));
	FAIL(engine_want(r.e, UINT32_MAX, 0, 4096, CLASS_DMA));
}

/* Private memory at a second address is other memory, which nobody would fill. */
Test(engine_setup, a_private_page_is_mapped_once)
{
	struct mapping m = {
		.block = PRIV, .address = PRIV_BASE, .offset = 8 * 4096, .length = 8 * 4096
	};
	struct sharer_ref vmm;
	with_rig r;

	rig_open(&r, 4, 4);
	vmm = rig_join(&r, true, 0);
	cr_assert_eq(engine_map(r.e, vmm, &m), 0);
	m.address += 64 * 4096;
	FAIL(engine_map(r.e, vmm, &m));
	m.offset = 0;
	m.length = 9 * 4096;
	FAIL(engine_map(r.e, vmm, &m));
	m.offset = 15 * 4096;
	m.length = 4096;
	FAIL(engine_map(r.e, vmm, &m));
	m.offset = 16 * 4096;
	cr_assert_eq(engine_map(r.e, vmm, &m), 0);
	m.offset = 0;
	m.address += 64 * 4096;
	m.length = 8 * 4096;
	cr_assert_eq(engine_map(r.e, vmm, &m), 0);
}

