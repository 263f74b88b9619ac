/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A sharer is named by slot and generation everywhere: in waiters, in actions under way, in
 * messages of other threads, in the cookies of the ring.  sharer_get() is the one place where a
 * name becomes a pointer again, and a stale one becomes NULL (O10).  Nothing else may keep a
 * pointer across events.
 *
 * Mappings are sorted by address, so a fault is located by a binary search; the way back, from a
 * page to all its addresses, walks the array, since aliases of one page need not be neighbours.
 * They are declared when the sharer joins, or when it maps more, and go with it, or when it was
 * seen (always whole) or is told (any part) that they are gone.  A thread that waited in one that
 * was seen to be gone is not heard of again.
 *
 * Descriptors, process ids and policy are not here: they belong to the daemon's roster.
 */
#include "config.h"
#include "core/sharer.h"

#include <errno.h>
#include <string.h>

/**
 * sharer_table_init - nobody is here, and nobody ever was
 */
void sharer_table_init(struct sharer_table *t)
{
	memset(t, 0, sizeof(*t));
	t->main = -1;
}

/*
 * Slots that were never used come first, so that what is known of an ended sharer stays visible for
 * long.
 */
static int free_slot(const struct sharer_table *t)
{
	int best = -1;

	for (int i = 0; i < SHARER_MAX; i++)
		if (!t->sharer[i].active &&
		    (best < 0 || t->sharer[i].generation < t->sharer[best].generation))
			best = i;
	return best;
}

/**
 * sharer_add - an address space joins
 * @main: it is the VMM's, of which there is one at a time
 * @ref: set to its name
 *
 * Return: 0; -EEXIST for a second main sharer, -ENOSPC when all slots are taken.
 */
int sharer_add(struct sharer_table *t, bool main, struct sharer_ref *ref)
{
	struct sharer *s;
	uint32_t generation;
	int slot;

	if (main && t->main >= 0)
		return -EEXIST;
	slot = free_slot(t);
	if (slot < 0)
		return -ENOSPC;
	s = &t->sharer[slot];
	generation = s->generation + 1;
	memset(s, 0, sizeof(*s));
	/* 0 is the generation of a slot that nobody ever had: skip it when the counter wraps. */
	s->generation = generation ? generation : 1;
	s->active = true;
	s->main = main;
	if (main)
		t->main = slot;
	*ref = (struct sharer_ref){ .slot = (uint16_t)slot, .generation = s->generation };
	return 0;
}

/**
 * sharer_get - the sharer of that name
 *
 * Return: NULL when it ended, also when its slot has a new occupant.
 */
struct sharer *sharer_get(struct sharer_table *t, struct sharer_ref ref)
{
	struct sharer *s = ref.slot < SHARER_MAX ? &t->sharer[ref.slot] : NULL;

	return s && s->active && s->generation == ref.generation ? s : NULL;
}

/**
 * sharer_remove - a sharer ended; its slot is free and @ref is stale from here on
 *
 * A stale @ref changes nothing.  The statistics stay readable in the slot until it is taken again.
 */
void sharer_remove(struct sharer_table *t, struct sharer_ref ref)
{
	struct sharer *s = sharer_get(t, ref);

	if (!s)
		return;
	s->active = false;
	s->n_mappings = 0;
	if (t->main == ref.slot)
		t->main = -1;
}

/* Index of the first mapping that begins above @address. */
static unsigned upper_bound(const struct sharer *s, uint64_t address)
{
	unsigned low = 0, high = s->n_mappings;

	while (low < high) {
		unsigned middle = (low + high) / 2;

		if (s->mapping[middle].address <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/**
 * sharer_map - declare a mapping
 * @m: copied; alignment and the range in the block were checked by engine_map()
 *
 * Return: 0; -EINVAL for one that is empty, wraps or overlaps another in the sharer's space,
 * -ENOSPC.
 */
int sharer_map(struct sharer *s, const struct mapping *m)
{
	unsigned at = upper_bound(s, m->address);

	if (m->length == 0 || m->address + m->length < m->address)
		return -EINVAL;
	if (at > 0 && s->mapping[at - 1].address + s->mapping[at - 1].length > m->address)
		return -EINVAL;
	if (at < s->n_mappings && m->address + m->length > s->mapping[at].address)
		return -EINVAL;
	if (s->n_mappings == SHARER_MAPPINGS)
		return -ENOSPC;
	memmove(&s->mapping[at + 1], &s->mapping[at], (s->n_mappings - at) * sizeof(*m));
	s->mapping[at] = *m;
	s->n_mappings++;
	return 0;
}

/**
 * sharer_unmap - a mapping is there no longer
 * @m: as it was declared
 *
 * Return: 0; -ENOENT when there is none at that address with that length and content.
 */
int sharer_unmap(struct sharer *s, const struct mapping *m)
{
	unsigned at = upper_bound(s, m->address);
	struct mapping *have = at > 0 ? &s->mapping[at - 1] : NULL;

	if (!have || have->address != m->address || have->length != m->length ||
	    have->block != m->block || have->offset != m->offset)
		return -ENOENT;
	memmove(have, have + 1, (s->n_mappings - at) * sizeof(*have));
	s->n_mappings--;
	return 0;
}

/* The part of @m below (above) an address, empty when there is none. */
static struct mapping part(const struct mapping *m, uint64_t from, uint64_t to)
{
	struct mapping p = *m;

	if (from < m->address)
		from = m->address;
	if (to > m->address + m->length)
		to = m->address + m->length;
	p.length = from < to ? to - from : 0;
	p.offset += from - m->address;
	p.address = from;
	return p;
}

/**
 * sharer_cut - nothing is mapped in [@start, @end) any more, wherever that lies in mappings
 * @cut: what was there, in order of address; may be NULL
 *
 * Return: 0; -ENOSPC when a mapping would become two and there is no room for them.
 */
int sharer_cut(struct sharer *s, uint64_t start, uint64_t end, struct sharer_pieces *cut)
{
	struct sharer_pieces left = { .n = 0 }, gone = { .n = 0 };

	for (unsigned i = 0; i < s->n_mappings; i++) {
		const struct mapping *m = &s->mapping[i];
		const struct mapping below = part(m, m->address, start),
				     inside = part(m, start, end),
				     above = part(m, end, m->address + m->length);

		if (left.n + (below.length > 0) + (above.length > 0) > SHARER_MAPPINGS)
			return -ENOSPC;
		if (below.length)
			left.mapping[left.n++] = below;
		if (above.length)
			left.mapping[left.n++] = above;
		if (inside.length)
			gone.mapping[gone.n++] = inside;
	}
	s->n_mappings = left.n;
	memcpy(s->mapping, left.mapping, left.n * sizeof(left.mapping[0]));
	if (cut)
		*cut = gone;
	return 0;
}

/**
 * sharer_locate - the mapping that holds @address, or NULL
 */
const struct mapping *sharer_locate(const struct sharer *s, uint64_t address)
{
	unsigned at = upper_bound(s, address);

	if (at == 0 || address - s->mapping[at - 1].address >= s->mapping[at - 1].length)
		return NULL;
	return &s->mapping[at - 1];
}

/**
 * sharer_alias - step through the mappings that show one page
 * @offset: of the page, bytes in @block
 * @from: index to begin at, 0 at first; moved behind the one that is returned
 *
 * Return: the next mapping, in order of address, or NULL at the end.
 */
const struct mapping *sharer_alias(const struct sharer *s, unsigned block, uint64_t offset,
				   unsigned *from)
{
	for (unsigned i = *from; i < s->n_mappings; i++) {
		const struct mapping *m = &s->mapping[i];

		if (m->block == block && offset >= m->offset && offset - m->offset < m->length) {
			*from = i + 1;
			return m;
		}
	}
	*from = s->n_mappings;
	return NULL;
}
