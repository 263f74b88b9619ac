/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "engine_rig.h"

#include <stdlib.h>

#include <criterion/criterion.h>

static uint8_t content[1];		/* stands for the bytes of a page: never read */

void rig_open(struct rig *r, uint32_t waiters, uint32_t window)
{
	struct engine_limits limits = { .waiters = waiters, .window = window };
	struct block_table *t;

	*r = (struct rig){ .e = calloc(1, sizeof(struct engine)),
			   .ledger = calloc(1, ledger_size(RIG_PAGES)),
			   .store = malloc(PRIV_PAGES * 4096),
			   .now = 1000 };
	cr_assert(r->e && r->ledger && r->store);
	cr_assert_eq(engine_init(r->e, &limits), 0);
	t = &r->e->blocks;
	cr_assert_eq(block_add(t, "ram", RAM_PAGES * 4096, 4096, BLOCK_SHARED), RAM);
	cr_assert_eq(block_add(t, "priv", PRIV_PAGES * 4096, 4096, BLOCK_PRIVATE), PRIV);
	cr_assert_eq(block_add(t, "rom", ROM_PAGES * 4096, 4096, BLOCK_HELD), ROM);
	cr_assert_eq(block_add(t, "huge", HUGE_PAGES << 21, 2 << 20, BLOCK_SHARED), HUGE);
	t->block[PRIV].store = r->store;
	cr_assert_eq(t->pages, RIG_PAGES);
	cr_assert_eq(engine_use_ledger(r->e, r->ledger, ledger_size(RIG_PAGES)), 0);
	cr_assert_eq(session_feed(&r->e->session, SESSION_ADVISE), 1);
}

void rig_close(struct rig *r)
{
	engine_deinit(r->e);
	free(r->e);
	free(r->ledger);
	free(r->store);
}

void rig_serve(struct rig *r)
{
	uint64_t page;

	cr_assert_eq(engine_package(r->e, &page), 0, "page %lu", page);
	cr_assert_eq(session_feed(&r->e->session, SESSION_ARMED), 1);
}

void rig_owe_all(struct rig *r)
{
	for (unsigned i = 0; i < RIG_BLOCKS; i++)
		cr_assert_eq(engine_discard(r->e, i, 0, r->e->blocks.block[i].length), 0);
	rig_serve(r);
}

static void map(struct rig *r, struct sharer_ref ref, unsigned block, uint64_t address)
{
	struct mapping m = { .address = address, .length = r->e->blocks.block[block].length,
			     .block = (uint16_t)block, .can_zero = true };

	cr_assert_eq(engine_map(r->e, ref, &m), 0);
}

struct sharer_ref rig_join(struct rig *r, bool main, unsigned mask)
{
	struct sharer_ref ref;

	cr_assert_eq(engine_join(r->e, main, &ref), 0);
	map(r, ref, RAM, RAM_BASE);
	map(r, ref, HUGE, HUGE_BASE);
	if (mask & (1u << PRIV))
		map(r, ref, PRIV, PRIV_BASE);
	if (mask & RIG_ALIAS)
		map(r, ref, RAM, RAM_ALIAS);
	return ref;
}

static uint64_t address_of(uint64_t page)
{
	if (page < PRIV_FIRST)
		return RAM_BASE + page * 4096;
	if (page < ROM_FIRST)
		return PRIV_BASE + (page - PRIV_FIRST) * 4096;
	return HUGE_BASE + ((page - HUGE_FIRST) << 21);
}

enum engine_outcome rig_fault(struct rig *r, struct sharer_ref ref, uint64_t page, uint32_t tid)
{
	return engine_fault(r->e, ref, address_of(page) + 8, tid, 0, r->now);
}

struct engine_action rig_next(struct rig *r, enum engine_verb verb, uint64_t page)
{
	struct engine_action a = { 0 };

	cr_assert(engine_next(r->e, &a), "no action");
	cr_assert_eq(a.verb, verb);
	cr_assert_eq(a.page, page, "page %lu, not %lu", a.page, page);
	return a;
}

void rig_none(struct rig *r)
{
	struct engine_action a;

	if (engine_next(r->e, &a))
		cr_assert_fail("verb %d on page %lu", a.verb, a.page);
}

void rig_placed(struct rig *r, struct engine_action *a, const struct sharer_ref *via)
{
	struct engine_carrier c = { .is_sharer = via != NULL };

	if (via)
		c = (struct engine_carrier){ true, *via, address_of(a->page) };
	cr_assert_eq(engine_placed(r->e, a, a->n, PLACED, &c, r->now), 0);
}

void rig_settle(struct rig *r)
{
	const struct sharer_table *t = &r->e->sharers;
	bool main = t->main >= 0;
	struct sharer_ref ref = { 0 };
	struct engine_action a;

	if (main)
		ref = (struct sharer_ref){ (uint16_t)t->main, t->sharer[t->main].generation };

	while (engine_next(r->e, &a)) {
		if (a.verb == ENGINE_WAKE)
			engine_woken(r->e, &a, r->now);
		else if (a.verb == ENGINE_PLACE)
			rig_placed(r, &a, main && a.how != PLACE_KEEP ? &ref : NULL);
	}
}

void rig_page(struct rig *r, uint64_t page)
{
	cr_assert_eq(engine_page(r->e, LANE_MAIN, page, content, r->now), ENGINE_OK, "page %lu",
		     page);
}

void rig_asks(struct rig *r, unsigned block, uint64_t page, uint64_t n, enum request_class class)
{
	const struct block *b = &r->e->blocks.block[block];
	struct engine_request q = { 0 };

	cr_assert(engine_next_request(r->e, &q, r->now), "no request");
	cr_assert_eq(q.block, block);
	cr_assert_eq(q.offset, block_offset(b, page), "page %lu, not %lu", block_page(b, q.offset),
		     page);
	cr_assert_eq(q.length, n << b->page_shift, "%lu bytes", q.length);
	cr_assert_eq(q.class, class);
}

void rig_asks_nothing(struct rig *r)
{
	struct engine_request q;

	if (engine_next_request(r->e, &q, r->now))
		cr_assert_fail("block %u offset %lx", q.block, q.offset);
}

enum page_state rig_state(struct rig *r, uint64_t page)
{
	return ledger_get(&r->e->ledger, page);
}
