/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The engine before faults are served: what precopy brings, what the switch-over takes back, who
 * joins.
 *
 * One thread has the engine then, and the VM still runs at the source, so nothing is final: a page
 * may come any number of times, and a discard takes back what came.  The ledger keeps the last word
 * on each page and the counters are not kept at all; engine_package() computes them once, when the
 * package is whole.
 *
 * From there on what is owed is exactly what was discarded (O15).  QEMU names every page that it
 * will still send by POSTCOPY_RAM_DISCARD, before the package; a request for any other page it
 * drops without an answer, so a thread that touched one would sleep for ever.  That is why a page
 * that was neither received nor discarded is refused here by its name, while the source can still
 * resume its VM.
 */
#include "config.h"
#include "core/engine.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/guard.h"

/**
 * engine_init - an engine without blocks, sharers or a ledger
 * @limits: what is bounded for its whole life
 *
 * The caller then adds blocks (block_add()), and gives a ledger over all of them with
 * engine_use_ledger().  The memory for waiters and requests is allocated here; later calls allocate
 * nothing.
 *
 * Return: 0 or -ENOMEM; engine_deinit() is fine after either.
 */
int engine_init(struct engine *e, const struct engine_limits *limits)
{
	cleanup_free void *waiters = calloc(1, waiter_table_size(limits->waiters));
	cleanup_free void *demands = calloc(1, request_queue_size(limits->waiters));

	memset(e, 0, sizeof(*e));
	if (!waiters || !demands)
		return -ENOMEM;
	session_init(&e->session);
	sharer_table_init(&e->sharers);
	waiter_table_init(&e->waiters, steal_ptr(&waiters), limits->waiters);
	request_queue_init(&e->requests, steal_ptr(&demands), limits->waiters);
	e->window = limits->window;
	return 0;
}

/**
 * engine_deinit - free what engine_init() allocated; once more is harmless
 *
 * The ledger's memory and the stores of blocks are the caller's.
 */
void engine_deinit(struct engine *e)
{
	free(e->waiters.entry);
	free(e->requests.demand);
	e->waiters.entry = NULL;
	e->requests.demand = NULL;
}

/**
 * engine_use_ledger - lay a fresh ledger over all blocks
 * @memory: zeroed, @size bytes, at least ledger_size(e->blocks.pages); stays the caller's
 *
 * Return: 0, or -EINVAL as ledger_init().
 */
int engine_use_ledger(struct engine *e, void *memory, size_t size)
{
	return ledger_init(&e->ledger, memory, size, e->blocks.pages);
}

/**
 * engine_adopt_ledger - go on with a ledger that an earlier process left behind its package
 * @memory: may hold anything; stays the caller's
 *
 * Return: 0; -EBADMSG when it is no ledger, not over these blocks, or has pages of which nobody
 * said that they come.
 */
int engine_adopt_ledger(struct engine *e, void *memory, size_t size)
{
	struct ledger l;
	int ret = ledger_adopt(&l, memory, size);

	if (ret < 0)
		return ret;
	if (l.pages != e->blocks.pages || ledger_find(&l, 0, l.pages, PAGE_NEVER) < l.pages)
		return -EBADMSG;
	e->ledger = l;
	return 0;
}

/**
 * engine_judged - what became of a page that an earlier process had claimed
 * @page: PLACING or CONTESTED, and counted as missing (engine_recount())
 * @is: PRESENT; or MISSING, STORED, ZERO: what it was before, for the claim was not carried out; or
 *   UNPLACED: nobody can tell, and it stays owed
 *
 * Who waits for a page that is there is woken; who waits for another has to fault again.
 */
void engine_judged(struct engine *e, uint64_t page, enum page_state is, uint64_t now)
{
	struct block *b = block_of_page(&e->blocks, page);
	struct engine_report r = {
		.page = page, .n = 1, .lane = LANE_STORE, .how = HOW_COPY, .from = PAGE_MISSING,
		.result = PLACED, .arrived_ns = now, .placed_ns = now,
	};

	if (is == PAGE_PRESENT) {
		r.contested = ledger_publish(&e->ledger, page);
		engine_report(e, &r, now);
		return;
	}
	ledger_unclaim(&e->ledger, page, is);
	if (is == PAGE_MISSING)
		return;
	b->missing--;
	b->unplaced += is == PAGE_UNPLACED;
	b->stored += is == PAGE_STORED;
	b->zero += is == PAGE_ZERO;
	e->stored_left += is == PAGE_STORED;
	e->owed_left -= is != PAGE_UNPLACED;
}

/* --- before faults are served ---------------------------------------------------------------- */

/* The gates hear what became of pages; no device reaches any before they are final. */
static void tell_gates(struct engine *e, uint64_t page, uint64_t n, enum page_state are)
{
	for (unsigned i = 0; i < e->n_gates; i++)
		if (are == PAGE_PRESENT)
			gate_present(e->gate[i], page, n);
		else
			(void)gate_discard(e->gate[i], page, n);
}

/**
 * engine_received - precopy content of one page, or of a part of it, arrived
 * @offset: bytes in the block
 * @length: bytes, all within one page of the block; less than a page where the source sends 4 KiB
 *   of a huge page
 * @zero: they are zeroes
 *
 * The caller has put the content where it belongs: into the memory of a SHARED block, into the
 * store of the others.  Known zeroes of a block that somebody maps are not even that: the page
 * stays a hole until it is touched.
 */
void engine_received(struct engine *e, unsigned block, uint64_t offset, uint64_t length, bool zero)
{
	const struct block *b = &e->blocks.block[block];
	uint64_t page = block_page(b, offset);
	enum page_state now = ledger_get(&e->ledger, page);
	enum page_state to = b->kind == BLOCK_PRIVATE ? PAGE_STORED : PAGE_PRESENT;

	/* A zero part of a bigger page that has data does not make the page zero. */
	if (zero && b->kind != BLOCK_HELD &&
	    (length == b->page_size || now == PAGE_NEVER || now == PAGE_ZERO))
		to = PAGE_ZERO;
	ledger_set(&e->ledger, page, 1, to);
	tell_gates(e, page, 1, to);
}

static bool reached(const struct engine *e, uint64_t page, uint64_t n)
{
	for (unsigned i = 0; i < e->n_gates; i++)
		if (gate_reached(e->gate[i], page, n))
			return true;
	return false;
}

/**
 * engine_discard - the source will send these pages again: they are owed
 * @start: bytes in the block, like @length a multiple of its page size
 *
 * The caller drops the content, so that a touch faults.
 *
 * Return: 0; -EPROTO after the package (O7: what runs here cannot be taken back), -EINVAL for a
 * block or range that does not exist, -EBUSY: a device reaches some of it.
 */
int engine_discard(struct engine *e, unsigned block, uint64_t start, uint64_t length)
{
	const struct block *b;
	uint64_t page, n;
	int ret;

	if (block >= e->blocks.n)
		return -EINVAL;
	b = &e->blocks.block[block];
	if (!range_inside(start, length, b->length) || (start | length) & (b->page_size - 1))
		return -EINVAL;
	page = block_page(b, start);
	n = length >> b->page_shift;
	if (reached(e, page, n))
		return -EBUSY;
	ret = session_feed(&e->session, SESSION_DISCARD);
	if (ret < 0)
		return ret;
	ledger_set(&e->ledger, page, n, PAGE_MISSING);
	tell_gates(e, page, n, PAGE_MISSING);
	return 0;
}

/**
 * engine_recount - compute all counters of blocks and engine from the ledger
 */
void engine_recount(struct engine *e)
{
	uint64_t count[PAGE_STATES];

	e->owed_left = e->stored_left = e->requested = 0;
	for (unsigned i = 0; i < e->blocks.n; i++) {
		struct block *b = &e->blocks.block[i];

		ledger_count(&e->ledger, b->first, b->first + b->pages, count);
		b->requested = count[PAGE_REQUESTED];
		b->missing = count[PAGE_MISSING] + b->requested + count[PAGE_PLACING] +
			     count[PAGE_CONTESTED];
		b->present = count[PAGE_PRESENT];
		b->stored = count[PAGE_STORED];
		b->zero = count[PAGE_ZERO];
		b->lost = count[PAGE_LOST];
		b->unplaced = count[PAGE_UNPLACED];
		e->owed_left += b->missing + b->unplaced;
		e->stored_left += b->stored;
		e->requested += b->requested;
	}
}

/**
 * engine_package - the package is whole: from here on what is owed is known
 * @page: set to the first page that is neither received nor discarded, when there is one
 *
 * Return: 0; -ENODATA when there is such a page (O15), -EPROTO in this state of the session.
 */
int engine_package(struct engine *e, uint64_t *page)
{
	int ret;

	*page = ledger_find(&e->ledger, 0, e->blocks.pages, PAGE_NEVER);
	if (*page < e->blocks.pages)
		return -ENODATA;
	ret = session_feed(&e->session, SESSION_PACKAGE);
	if (ret < 0)
		return ret;
	engine_recount(e);
	for (unsigned i = 0; i < e->blocks.n; i++)
		e->blocks.block[i].owed = e->blocks.block[i].missing;
	e->owed = e->owed_left;
	return 0;
}

/**
 * engine_add_gate - a gate is told of every page from now on
 * @g: made with the ledger and the blocks of this engine, and with nothing in its set; stays the
 *   caller's, for as long as the engine is used
 *
 * What is in the ledger already is read when a range is declared.
 *
 * Return: 0 or -ENOSPC.
 */
int engine_add_gate(struct engine *e, struct gate *g)
{
	assert(g->n == 0 && g->config.ledger == &e->ledger && g->config.blocks == &e->blocks);
	if (e->n_gates == ENGINE_GATES)
		return -ENOSPC;
	e->gate[e->n_gates++] = g;
	return 0;
}

/* --- sharers ---------------------------------------------------------------------------------- */

/**
 * engine_join - a sharer joins; sharer_add()
 */
int engine_join(struct engine *e, bool main, struct sharer_ref *ref)
{
	return sharer_add(&e->sharers, main, ref);
}

/* Does another sharer than @s map @block? */
static bool mapped_elsewhere(const struct engine *e, const struct sharer *s, unsigned block)
{
	for (unsigned i = 0; i < SHARER_MAX; i++) {
		const struct sharer *other = &e->sharers.sharer[i];

		if (!other->active || other == s)
			continue;
		for (unsigned m = 0; m < other->n_mappings; m++)
			if (other->mapping[m].block == block)
				return true;
	}
	return false;
}

/* Private memory at a second address is other memory, which nobody would fill. */
static bool mapped_twice(const struct sharer *s, const struct mapping *m)
{
	for (unsigned i = 0; i < s->n_mappings; i++) {
		const struct mapping *other = &s->mapping[i];

		if (other->block == m->block && m->offset < other->offset + other->length &&
		    other->offset < m->offset + m->length)
			return true;
	}
	return false;
}

/**
 * engine_map - a sharer shows where it maps (a piece of) a block
 * @m: address, length and offset are multiples of the block's page size
 *
 * Return: 0; -ENOENT for a stale @ref; -EBUSY for private pages that another sharer has; -ENOSPC;
 * -EINVAL for a mapping that is not inside its block, misaligned, of a held block, overlapping in
 * the sharer's space, or the second one of private pages.
 */
int engine_map(struct engine *e, struct sharer_ref ref, const struct mapping *m)
{
	struct sharer *s = sharer_get(&e->sharers, ref);
	const struct block *b;

	if (!s)
		return -ENOENT;
	if (m->block >= e->blocks.n)
		return -EINVAL;
	b = &e->blocks.block[m->block];
	if (!range_inside(m->offset, m->length, b->length) ||
	    ((m->offset | m->length | m->address) & (b->page_size - 1)) != 0)
		return -EINVAL;
	if (b->kind == BLOCK_HELD)
		return -EINVAL;
	if (b->kind == BLOCK_PRIVATE && mapped_elsewhere(e, s, m->block))
		return -EBUSY;
	if (b->kind == BLOCK_PRIVATE && mapped_twice(s, m))
		return -EINVAL;
	return sharer_map(s, m);
}

/**
 * engine_unmap - a sharer unmapped what it had shown
 * @m: as it was given to engine_map()
 *
 * From here on its addresses mean nothing: no page is placed or woken through them, so the sharer
 * may have other memory there.  Threads that waited there are the sharer's loss: it took the memory
 * away under them.
 *
 * Return: 0, -ENOENT for a stale @ref or a mapping that was not declared like that.
 */
int engine_unmap(struct engine *e, struct sharer_ref ref, const struct mapping *m)
{
	struct sharer *s = sharer_get(&e->sharers, ref);

	return s ? sharer_unmap(s, m) : -ENOENT;
}
