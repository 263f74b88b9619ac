/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory that its owner gives back, takes away or moves, and says so (EVENT_REMOVE, EVENT_UNMAP,
 * EVENT_REMAP).
 *
 * What is given back reads as zero from then on, and never as what it was before.  Of a page that
 * is here the kernel sees to that: it is missing when it is touched next, and the answer is a
 * ZEROPAGE (O3).  Of a page that is still owed, or that we hold, it is ours: it becomes a ZERO, and
 * what comes of it later finds nothing to claim.  Nobody owes it any more.
 *
 * A page that somebody waits for becomes a ZERO as well, with its waiters parked: engine_retry()
 * places it, as it does content that the kernel did not take before.
 *
 * All this is true only where the owner of the engine is the only one who places: a page that
 * another lane had claimed would be placed behind its removal.  Whoever has claimed pages of its
 * own that wait to be placed asks engine_forgets() of each.
 */
#include "config.h"
#include "core/engine.h"

#include <errno.h>

/* A piece of a block. */
struct piece {
	struct block *block;
	uint64_t page, end;		/* whole pages */
};

/* The whole pages of mapping @m in [start, end) of its sharer's space; false: there are none. */
static bool find_piece(struct engine *e, const struct mapping *m, uint64_t start, uint64_t end,
		       struct piece *p)
{
	uint64_t last = m->address + m->length, mask;

	p->block = &e->blocks.block[m->block];
	mask = p->block->page_size - 1;
	start = start < m->address ? m->address : (start + mask) & ~mask;
	end = end > last ? last : end & ~mask;
	if (start >= end)
		return false;
	p->page = block_page(p->block, start - m->address + m->offset);
	p->end = p->page + ((end - start) >> p->block->page_shift);
	return true;
}

/* True when the page was owed or held, and is a known zero now. */
static bool give_up(struct engine *e, struct block *b, uint64_t page)
{
	if (ledger_move(&e->ledger, page, PAGE_REQUESTED, PAGE_ZERO))
		engine_left(e, b, PAGE_REQUESTED, 1);
	else if (ledger_move(&e->ledger, page, PAGE_MISSING, PAGE_ZERO))
		engine_left(e, b, PAGE_MISSING, 1);
	else if (ledger_move(&e->ledger, page, PAGE_STORED, PAGE_ZERO))
		engine_left(e, b, PAGE_STORED, 1);
	else
		return false;
	b->zero++;
	return true;
}

/**
 * engine_removed - a sharer gave memory back
 * @start, @end: in its space; what of it is no whole page, or in no mapping of it, stays
 *
 * Its caller then has engine_retry() look for who waits.
 *
 * Return: pages that are known to be zero now, and were owed or held.
 */
uint64_t engine_removed(struct engine *e, struct sharer_ref ref, uint64_t start, uint64_t end)
{
	const struct sharer *s = sharer_get(&e->sharers, ref);
	uint64_t n = 0;

	for (unsigned i = 0; s && i < s->n_mappings; i++) {
		struct piece p;

		if (!find_piece(e, &s->mapping[i], start, end, &p))
			continue;
		for (uint64_t page = p.page; page < p.end; page++)
			n += give_up(e, p.block, page);
	}
	e->stats.removed += n;
	return n;
}

/**
 * engine_forgets - a PLACE that waits for its turn: was its page given back meanwhile?
 * @a: of one page, with data or without
 * @start, @end: as engine_removed() was told
 *
 * Return: true, and @a places zeroes now.
 */
bool engine_forgets(struct engine *e, struct sharer_ref ref, uint64_t start, uint64_t end,
		    struct engine_action *a)
{
	const struct sharer *s = sharer_get(&e->sharers, ref);

	if (a->verb != ENGINE_PLACE || a->how != PLACE_COPY)
		return false;
	for (unsigned i = 0; s && i < s->n_mappings; i++) {
		struct piece p;

		if (!find_piece(e, &s->mapping[i], start, end, &p) || a->page < p.page ||
		    a->page >= p.end)
			continue;
		a->how = PLACE_ZERO;
		a->data = NULL;
		return true;
	}
	return false;
}

/**
 * engine_cut - a sharer unmapped a range, whole mappings or parts of them
 *
 * Of private memory nobody can see the pages any more: they count as given back.
 *
 * Return: 0; -ENOENT for a stale @ref, -ENOSPC as sharer_cut().
 */
int engine_cut(struct engine *e, struct sharer_ref ref, uint64_t start, uint64_t end)
{
	struct sharer *s = sharer_get(&e->sharers, ref);

	if (!s)
		return -ENOENT;
	for (unsigned i = 0; i < s->n_mappings; i++) {
		const struct mapping *m = &s->mapping[i];
		uint64_t from = start > m->address ? start : m->address;
		uint64_t to = end < m->address + m->length ? end : m->address + m->length;

		if (from < to && e->blocks.block[m->block].kind == BLOCK_PRIVATE)
			engine_removed(e, ref, from, to);
	}
	return sharer_cut(s, start, end, NULL);
}

/**
 * engine_moved - a sharer moved what it maps in [@from, @from + @length) to @to
 *
 * Return: 0; -ENOENT for a stale @ref, -ENOSPC, or -EINVAL when something else is declared there.
 */
int engine_moved(struct engine *e, struct sharer_ref ref, uint64_t from, uint64_t to,
		 uint64_t length)
{
	struct sharer *s = sharer_get(&e->sharers, ref);
	struct sharer_pieces pieces;
	int ret;

	if (!s)
		return -ENOENT;
	ret = sharer_cut(s, from, from + length, &pieces);
	for (unsigned i = 0; ret == 0 && i < pieces.n; i++) {
		struct mapping m = pieces.mapping[i];

		m.address = m.address - from + to;
		ret = sharer_map(s, &m);
	}
	return ret;
}
