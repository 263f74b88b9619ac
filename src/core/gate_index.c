/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Two orders of the same ranges, each an array of indexes, sorted: they change by moving what is
 * behind, which is rare beside the pages that come.
 *
 * Pages of different ranges may overlap, as a guest may map a page at any number of addresses.  So
 * the order by page is a tree as well, in the manner of an interval tree: the middle of an array is
 * its root, the halves beside it are subtrees, and reach[] of a root is how far any range of its
 * tree goes.  A subtree that does not reach far enough is passed over as one, and what overlaps is
 * found in the order of the array.  It is made anew when something was added or removed and it is
 * needed again.
 */
#include "config.h"
#include "core/gate_parts.h"

#include <assert.h>
#include <string.h>

static uint64_t end_of(const struct gate *g, uint32_t position)
{
	const struct gate_range *r = &g->range[g->by_page[position]];

	return r->first + r->pages;
}

/* The depth is that of halving 32-bit positions. */
static uint64_t make_tree(struct gate *g, uint32_t low, uint32_t high)
{
	uint32_t middle = low + (high - low) / 2;
	uint64_t reach, left, right;

	if (low == high)
		return 0;
	reach = end_of(g, middle);
	left = make_tree(g, low, middle);
	right = make_tree(g, middle + 1, high);
	if (left > reach)
		reach = left;
	if (right > reach)
		reach = right;
	return g->reach[middle] = reach;
}

/* The first position in [low, high), not before @from, whose range overlaps; GATE_NONE. */
static uint32_t search(const struct gate *g, uint32_t low, uint32_t high, uint32_t from,
		       uint64_t page, uint64_t end)
{
	uint32_t middle = low + (high - low) / 2, found;

	if (low >= high || high <= from || g->reach[middle] <= page)
		return GATE_NONE;
	found = search(g, low, middle, from, page, end);
	if (found != GATE_NONE || g->range[g->by_page[middle]].first >= end)
		return found;
	if (middle >= from && end_of(g, middle) > page)
		return middle;
	return search(g, middle + 1, high, from, page, end);
}

/* Ranges with some of these pages. */
uint32_t gate_index_pages(struct gate *g, uint64_t page, uint64_t n, uint32_t after,
			  uint32_t *index)
{
	uint32_t position;

	if (g->stale)
		make_tree(g, 0, g->n);
	g->stale = false;
	position = search(g, 0, g->n, after, page, page + n);
	if (position == GATE_NONE)
		return 0;
	*index = g->by_page[position];
	return position + 1;
}

/* The first range that ends behind an address. */
uint32_t gate_index_iova(const struct gate *g, uint64_t iova)
{
	uint32_t low = 0, high = g->n;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		const struct gate_span *s = &g->range[g->by_iova[middle]].span;

		if (s->iova + (s->length - 1) < iova)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Where in by_page a range that begins there stands, or would. */
static uint32_t page_position(const struct gate *g, uint64_t first)
{
	uint32_t low = 0, high = g->n;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (g->range[g->by_page[middle]].first < first)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static void put(uint32_t *order, uint32_t n, uint32_t at, uint32_t index)
{
	memmove(&order[at + 1], &order[at], (n - at) * sizeof(*order));
	order[at] = index;
}

static void take(uint32_t *order, uint32_t n, uint32_t at)
{
	memmove(&order[at], &order[at + 1], (n - at - 1) * sizeof(*order));
}

/* A range whose place in its record is final is to be found from now on. */
void gate_index_add(struct gate *g, uint32_t index)
{
	const struct gate_range *r = &g->range[index];

	put(g->by_iova, g->n, gate_index_iova(g, r->span.iova), index);
	put(g->by_page, g->n, page_position(g, r->first), index);
	g->n++;
	g->stale = true;
}

/* It is not to be found any more. */
void gate_index_remove(struct gate *g, uint32_t index)
{
	const struct gate_range *r = &g->range[index];
	uint32_t at = page_position(g, r->first);

	while (at < g->n && g->by_page[at] != index)
		at++;
	assert(at < g->n);
	take(g->by_page, g->n, at);
	take(g->by_iova, g->n, gate_index_iova(g, r->span.iova));
	g->n--;
	g->stale = true;
}
