/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Points of the fault thread that are about a sharer and its page.
 */
#include "config.h"
#include "daemon/faultloop.h"
#include "daemon/inject.h"

/* The page of an address as that sharer declared it. */
static uint64_t page_at(const struct faultloop *f, const struct member *m, uint64_t address)
{
	const struct sharer *s = sharer_get((struct sharer_table *)&f->engine.sharers, m->ref);
	const struct mapping *map = s ? sharer_locate(s, address) : NULL;

	if (!map)
		return FAULTPLAN_NO_PAGE;
	return block_page(&f->engine.blocks.block[map->block],
			  address - map->address + map->offset);
}

/**
 * inject_fault_met - a fault of a sharer comes past a point where nothing but to die is possible
 */
void inject_fault_met(struct faultloop *f, enum faultplan_point point, const struct member *m,
		      uint64_t address)
{
	struct faultplan_event e = { .n = 1, .sharer = m->name };
	struct faultplan_order order;

	if (!faultplan_watches(f->faults, point))
		return;
	e.page = page_at(f, m, address);
	(void)inject_meet(f->faults, point, &e, &order);
}
