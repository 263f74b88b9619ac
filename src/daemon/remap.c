/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two mappings show the same bytes at the same addresses when block and (address - offset) agree;
 * their ends need not.  The kernel joins neighbours and splits what somebody changes a part of, so
 * a mapping that stays is one whose every byte is still shown, by however many mappings now.
 */
#include "config.h"
#include "daemon/remap.h"

#include <assert.h>

/* Do both put the bytes of the block at the same addresses? */
static bool aligned(const struct mapping *a, const struct mapping *b)
{
	return a->block == b->block && a->address - a->offset == b->address - b->offset;
}

/*
 * How far the bytes of @m from @at on are shown by mappings of @by; @at itself when that byte is
 * not.  Then *next is where the first of them begins that does, or the end of @m.
 */
static uint64_t shown_to(const struct mapping *m, uint64_t at, const struct mapping *by, unsigned n,
			 uint64_t *next)
{
	uint64_t end = m->address + m->length;

	*next = end;
	for (unsigned i = 0; i < n; i++) {
		uint64_t by_end = by[i].address + by[i].length;

		if (!aligned(m, &by[i]) || by_end <= at || by[i].address >= end)
			continue;
		if (by[i].address <= at)
			return by_end < end ? by_end : end;
		if (by[i].address < *next)
			*next = by[i].address;
	}
	return at;
}

static bool all_shown(const struct mapping *m, const struct mapping *by, unsigned n)
{
	uint64_t at = m->address, end = m->address + m->length, next;

	while (at < end) {
		uint64_t to = shown_to(m, at, by, n, &next);

		if (to == at)
			return false;
		at = to;
	}
	return true;
}

/* The parts of @m that no mapping of @by shows. */
static bool add_hidden(struct remap *r, const struct mapping *m, const struct mapping *by,
		       unsigned n)
{
	uint64_t at = m->address, end = m->address + m->length, next;

	while (at < end) {
		uint64_t to = shown_to(m, at, by, n, &next);

		if (to == at) {
			struct mapping part = *m;

			if (r->n_added == SHARER_MAPPINGS)
				return false;
			part.address = at;
			part.offset = m->offset + (at - m->address);
			part.length = next - at;
			r->added[r->n_added++] = part;
			to = next;
		}
		at = to;
	}
	return true;
}

/**
 * remap_compare - what is gone, and what is new
 * @had: what was known; at most SHARER_MAPPINGS
 * @now: what is there
 *
 * Return: false when there are more new ones than there is room for.
 */
bool remap_compare(struct remap *r, const struct mapping *had, unsigned n_had,
		   const struct mapping *now, unsigned n_now)
{
	struct mapping stay[SHARER_MAPPINGS];
	unsigned n_stay = 0;

	assert(n_had <= SHARER_MAPPINGS);
	r->n_gone = r->n_added = 0;
	for (unsigned i = 0; i < n_had; i++)
		if (all_shown(&had[i], now, n_now))
			stay[n_stay++] = had[i];
		else
			r->gone[r->n_gone++] = had[i];
	for (unsigned i = 0; i < n_now; i++)
		if (!add_hidden(r, &now[i], stay, n_stay))
			return false;
	return n_stay + r->n_added <= SHARER_MAPPINGS;
}
