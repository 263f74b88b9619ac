/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How a world begins (blocks, a precopy with gaps, the switch-over) and how it ends (everything
 * arrives).
 */
#include "config.h"

#include "world.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define BLOCK_ROOM ((uint64_t)KERNEL_PAGES << 21) /* bytes of address space one block may take */

const uint8_t *world_content(struct world *w, uint64_t page)
{
	const struct block *b = world_block(w, page);

	return w->image + (uint64_t)(b - w->engine->blocks.block) * BLOCK_ROOM +
	       block_offset(b, page);
}

/* --- blocks -------------------------------------------------------------------------------- */

static enum block_kind any_kind(struct world *w)
{
	unsigned roll = (unsigned)rng_below(&w->rng, 100);

	if (roll < w->profile->shared)
		return BLOCK_SHARED;
	return roll < w->profile->shared + w->profile->private ? BLOCK_PRIVATE : BLOCK_HELD;
}

static void add_blocks(struct world *w)
{
	unsigned n = (unsigned)rng_between(&w->rng, 1, w->profile->blocks);
	struct block_table *t = &w->engine->blocks;

	for (unsigned i = 0; i < n; i++) {
		uint64_t size = rng_percent(&w->rng, 30) ? 2 << 20 : 4096;
		uint64_t pages = rng_between(&w->rng, 1, w->profile->pages);
		char name[16];
		int index;

		snprintf(name, sizeof(name), "block%u", i);
		index = block_add(t, name, pages * size, size, any_kind(w));
		must(w, index == (int)i, "block_add: %d", index);
		t->block[i].store = w->store + i * BLOCK_ROOM;
		t->block[i].sparse = t->block[i].kind == BLOCK_SHARED && rng_percent(&w->rng, 60);
	}
	must(w, t->pages <= KERNEL_PAGES, "the profile makes too many pages");
}

/* --- precopy and switch-over ----------------------------------------------------------------- */

static void receive(struct world *w, uint64_t page, uint64_t length, bool zero)
{
	struct block *b = world_block(w, page);
	struct naive_page *p = &w->naive.page[page];
	bool whole = length == b->page_size;

	engine_received(w->engine, (unsigned)(b - w->engine->blocks.block),
			block_offset(b, page) + rng_below(&w->rng, b->page_size / length) * length,
			length, zero);
	if (zero && b->kind != BLOCK_HELD && (whole || p->is == PAGE_NEVER || p->is == PAGE_ZERO))
		p->is = PAGE_ZERO;
	else
		p->is = b->kind == BLOCK_PRIVATE ? PAGE_STORED : PAGE_PRESENT;
	w->kernel.page[page].present = p->is == PAGE_PRESENT;
}

static void receive_some(struct world *w, uint64_t page)
{
	uint64_t size = world_block(w, page)->page_size;
	unsigned parts = size == 4096 ? 1 : (unsigned)rng_between(&w->rng, 1, 4);

	for (unsigned i = 0; i < parts; i++)
		receive(w, page, parts == 1 ? size : 4096, rng_percent(&w->rng, 40));
}

static void discard_some(struct world *w)
{
	unsigned at = (unsigned)rng_below(&w->rng, w->engine->blocks.n);
	struct block *b = &w->engine->blocks.block[at];
	uint64_t first = rng_below(&w->rng, b->pages),
		 n = rng_between(&w->rng, 1, b->pages - first);

	must(w, engine_discard(w->engine, at, first << b->page_shift, n << b->page_shift) == 0,
	     "discard");
	must(w, engine_discard(w->engine, at, b->length, b->page_size) == -EINVAL,
	     "discard behind the end");
	must(w, engine_discard(w->engine, at, 1, b->page_size) == -EINVAL,
	     "discard of parts of pages");
	for (uint64_t page = b->first + first; page < b->first + first + n; page++) {
		w->naive.page[page].is = PAGE_MISSING;
		w->kernel.page[page].present = false;
	}
}

/* O15: refused while a page is neither received nor discarded. */
static void switch_over(struct world *w)
{
	uint64_t page, found;

	for (page = 0; page < w->engine->blocks.pages; page++) {
		if (w->naive.page[page].is != PAGE_NEVER)
			continue;
		must(w, engine_package(w->engine, &found) == -ENODATA && found == page,
		     "page %lu was never sent, and %lu is named", page, found);
		receive_some(w, page);
	}
	must(w, engine_package(w->engine, &found) == 0, "package");
	must(w, engine_package(w->engine, &found) == -EPROTO, "a second package");
	for (page = 0; page < w->engine->blocks.pages; page++)
		w->naive.page[page].counted = w->naive.page[page].is;
	must(w, engine_discard(w->engine, 0, 0, w->engine->blocks.block[0].page_size) == -EPROTO,
	     "a discard after the package (O7)");
	must(w, session_feed(&w->engine->session, SESSION_ARMED) == 1, "armed");
	if (rng_percent(&w->rng, 50))
		must(w, session_feed(&w->engine->session, SESSION_LOADED) == 1, "loaded");
}

static void precopy(struct world *w)
{
	unsigned density = (unsigned)rng_below(&w->rng, 101);

	session_feed(&w->engine->session, SESSION_ADVISE);
	for (uint64_t page = 0; page < w->engine->blocks.pages; page++)
		if (rng_percent(&w->rng, density))
			receive_some(w, page);
	for (uint64_t i = rng_between(&w->rng, 1, 5 * w->engine->blocks.n); i > 0; i--)
		discard_some(w);
	switch_over(w);
}

/* --- sharers ------------------------------------------------------------------------------- */

static void map_piece(struct world *w, struct space *s, unsigned at, uint64_t *address)
{
	const struct block *b = &w->engine->blocks.block[at];
	uint64_t first = rng_percent(&w->rng, 50) ? 0 : rng_below(&w->rng, b->pages);
	uint64_t n = rng_percent(&w->rng, 50) ? b->pages - first
					      : rng_between(&w->rng, 1, b->pages - first);
	struct mapping m = { .block = (uint16_t)at,
			     .offset = first << b->page_shift,
			     .length = n << b->page_shift,
			     .can_zero = b->page_size == 4096 };

	if (s->n_pieces == KERNEL_PIECES)
		return;
	*address = (*address + b->page_size - 1) & ~(b->page_size - 1);
	m.address = *address;
	must(w, engine_map(w->engine, s->ref, &m) == 0, "map");
	*address += m.length + rng_below(&w->rng, 3) * b->page_size;
	s->piece[s->n_pieces++] = m;
	must(w, engine_map(w->engine, s->ref, &m) != 0, "the same mapping twice");
	m.address += b->page_size / 2;
	must(w, engine_map(w->engine, s->ref, &m) == -EINVAL, "a mapping between pages");
	m.address = (*address + (4 << 20)) & ~(b->page_size - 1);
	m.offset = b->length;
	must(w, engine_map(w->engine, s->ref, &m) == -EINVAL,
	     "a mapping behind the end of its block");
}

static bool private_taken(struct world *w, const struct space *me, unsigned at)
{
	for (unsigned i = 0; i < KERNEL_SPACES; i++) {
		const struct space *s = &w->kernel.space[i];

		for (unsigned p = 0; s != me && s->life != SPACE_NONE && p < s->n_pieces; p++)
			if (s->piece[p].block == at)
				return true;
	}
	return false;
}

static void map_block(struct world *w, struct space *s, unsigned at, uint64_t *address)
{
	const struct block *b = &w->engine->blocks.block[at];
	struct mapping m = { .block = (uint16_t)at, .length = b->page_size };

	m.address = (*address + (4 << 20)) & ~(b->page_size - 1);
	if (b->kind == BLOCK_HELD) {
		must(w, engine_map(w->engine, s->ref, &m) == -EINVAL, "a mapping of a held block");
	} else if (b->kind == BLOCK_PRIVATE && private_taken(w, s, at)) {
		must(w, engine_map(w->engine, s->ref, &m) == -EBUSY,
		     "a second sharer of a private block");
	} else {
		map_piece(w, s, at, address);
		while (b->kind == BLOCK_SHARED && rng_percent(&w->rng, w->profile->alias))
			map_piece(w, s, at, address);
	}
}

static struct space *free_space(struct world *w)
{
	unsigned used = 0;
	struct space *s = NULL;

	for (unsigned i = 0; i < KERNEL_SPACES; i++) {
		used += w->kernel.space[i].life != SPACE_NONE;
		if (w->kernel.space[i].life == SPACE_NONE)
			s = &w->kernel.space[i];
	}
	return used < w->profile->spaces ? s : NULL;
}

void world_join(struct world *w)
{
	struct space *s = free_space(w);
	bool main = w->engine->sharers.main < 0, tells = rng_percent(&w->rng, 70);
	uint64_t address = 0x7f0000000000;
	struct sharer_ref second;

	if (!s)
		return;
	memset(s, 0, sizeof(*s));
	must(w, engine_join(w->engine, main, &s->ref) == 0, "join");
	must(w, engine_join(w->engine, true, &second) == -EEXIST || !main, "two main sharers");
	s->life = SPACE_ALIVE;
	s->n_threads = (unsigned)rng_between(&w->rng, 1, KERNEL_THREADS);
	for (unsigned i = 0; tells && i < s->n_threads; i++)
		s->thread[i].tid = 100 + i;
	for (unsigned at = 0; at < w->engine->blocks.n; at++)
		if (rng_percent(&w->rng, 80))
			map_block(w, s, at, &address);
}

/* --- the beginning and the end --------------------------------------------------------------- */

/* As if most slots had been used often, so that the others come again soon (O10). */
static void few_slots(struct world *w)
{
	if (rng_percent(&w->rng, 50))
		for (unsigned i = w->profile->spaces; i < SHARER_MAX; i++)
			w->engine->sharers.sharer[i].generation = 1u << 20;
}

void world_begin(struct world *w)
{
	struct engine_limits limits = {
		.waiters = (uint32_t)rng_between(&w->rng, 2, w->profile->waiters),
		.window = (uint32_t)rng_between(&w->rng, 0, w->profile->window),
	};

	memset(&w->kernel, 0, sizeof(w->kernel));
	memset(&w->naive, 0, sizeof(w->naive));
	w->naive.epoch = 1;
	w->n_batch = w->n_later = w->n_items = w->n_reports = 0;
	w->ending = false;
	w->now = 1 + rng_below(&w->rng, 1000000);
	w->waiters = limits.waiters;
	w->doing = "begin";
	must(w, engine_init(w->engine, &limits) == 0, "engine_init");
	w->kernel.blocks = &w->engine->blocks;
	add_blocks(w);
	memset(w->ledger, 0, ledger_size(KERNEL_PAGES));
	must(w, engine_use_ledger(w->engine, w->ledger, ledger_size(KERNEL_PAGES)) == 0, "ledger");
	if (w->profile->weight[EVENT_GATE])
		gates_begin(w);
	precopy(w);
	if (w->profile->weight[EVENT_GATE])
		gates_serve(w);
	few_slots(w);
	for (uint64_t i = rng_between(&w->rng, 1, w->profile->spaces); i > 0; i--)
		world_join(w);
	check_world(w);
}

static bool mail_waits(struct world *w)
{
	if (w->n_batch)
		return true;
	for (unsigned i = 0; i < KERNEL_SPACES && engine_room(w->engine); i++)
		for (unsigned t = 0; t < w->kernel.space[i].n_threads; t++)
			if (w->kernel.space[i].thread[t].message == MESSAGE_QUEUED)
				return true;
	return false;
}

static void all_pages(struct world *w)
{
	w->doing = "all pages";
	for (uint64_t page = 0; page < w->engine->blocks.pages; page++) {
		enum stats_lane lane = rng_percent(&w->rng, 50) ? LANE_MAIN : LANE_URGENT;
		bool zero = rng_percent(&w->rng, 30);
		enum engine_outcome want;

		w->now += 100;
		want = naive_page(w, lane, page, zero);
		must(w,
		     engine_page(w->engine, lane, page, zero ? NULL : world_content(w, page),
				 w->now) == want,
		     "page %lu at the end", page);
		daemon_act(w);
		check_world(w);
	}
}

static bool dead_left(const struct world *w)
{
	for (unsigned i = 0; i < KERNEL_SPACES; i++)
		if (w->kernel.space[i].life == SPACE_DEAD)
			return true;
	return false;
}

/* Does somebody sleep on content of ours that the kernel did not take? */
static bool given_back_waits(const struct world *w)
{
	for (unsigned i = 0; i < w->naive.n_waiters; i++) {
		enum page_state is = w->naive.page[w->naive.waiter[i].page].is;

		if (is == PAGE_STORED || is == PAGE_ZERO)
			return true;
	}
	return false;
}

/* Everything that was begun ends, and everything that is owed arrives. */
void world_end(struct world *w)
{
	w->ending = true;
	while (dead_left(w))
		world_event(w, EVENT_BURY);
	while (w->n_later)
		world_event(w, EVENT_LATER);
	while (given_back_waits(w))
		world_event(w, EVENT_RETRY);
	while (w->n_items || w->n_reports) {
		bulk_advance(w);
		world_event(w, EVENT_REPORT);
	}
	while (mail_waits(w)) {
		world_event(w, EVENT_READ);
		world_event(w, EVENT_TELL);
	}
	while (w->engine->requests.n || w->engine->requests.replay_end)
		world_event(w, EVENT_REQUEST);
	all_pages(w);
	while (w->engine->stored_left)
		world_event(w, EVENT_PUSH);
	while (mail_waits(w)) {
		world_event(w, EVENT_READ);
		world_event(w, EVENT_TELL);
	}
	while (w->engine->n_gates && w->engine->window && gates_want(w))
		world_event(w, EVENT_REQUEST);
	w->doing = "end";
	check_end(w);
	gates_end(w);
	engine_deinit(w->engine);
	engine_deinit(w->engine);
}
