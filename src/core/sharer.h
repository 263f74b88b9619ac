/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_CORE_SHARER_H
#define PC_CORE_SHARER_H
/*
 * Sharers: address spaces whose mappings of the blocks fault to us.  A slot plus a generation names
 * one; the generation is bumped when it ends, so that what comes late is recognised (O10).
 *
 * Mappings translate both ways.  A block may be mapped in pieces, and a piece more than once
 * (aliases).
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "core/block.h"
#include "core/stats.h"

#define SHARER_MAX	64
#define SHARER_MAPPINGS 128

struct mapping {
	uint64_t address;	/* in the sharer's space; page aligned */
	uint64_t length;	/* bytes */
	uint64_t offset;	/* bytes in the block */
	uint16_t block;
	bool can_zero;		/* the range offers ZEROPAGE */
};

struct sharer_ref {
	uint16_t slot;
	uint32_t generation;
};

struct sharer {
	uint32_t generation;	/* of the present or last occupant; 0 never */
	bool active;		/* its faults are served */
	bool main;
	unsigned n_mappings;
	struct mapping mapping[SHARER_MAPPINGS];	/* by address */
	uint64_t waiting;	/* threads parked */
	uint64_t blocked_since;	/* when waiting became non-zero */
	struct sharer_stats stats;
};

struct sharer_table {
	int main;		/* slot of the main sharer; -1 */
	struct sharer sharer[SHARER_MAX];
};

void sharer_table_init(struct sharer_table *t);
/* A free slot with a new generation; -ENOSPC; -EEXIST for a second main one. */
int sharer_add(struct sharer_table *t, bool main, struct sharer_ref *ref);
/* NULL when the reference is stale or the sharer not active. */
struct sharer *sharer_get(struct sharer_table *t, struct sharer_ref ref);
/* The slot is free again afterwards; its statistics stay until it is reused. */
void sharer_remove(struct sharer_table *t, struct sharer_ref ref);
/* Declare a mapping; -EINVAL empty, wraps or overlaps, -ENOSPC. */
int sharer_map(struct sharer *s, const struct mapping *m);
/* Undeclare a whole mapping; -ENOENT when it was not declared like that. */
int sharer_unmap(struct sharer *s, const struct mapping *m);
/* What was cut out of mappings, each as it was declared, but for what lies outside of the cut. */
struct sharer_pieces {
	unsigned n;
	struct mapping mapping[SHARER_MAPPINGS];
};

/*
 * Nothing is mapped in [start, end) any more; @cut may be NULL.  -ENOSPC: a mapping would become
 * two, and there is no room; nothing is changed then.
 */
int sharer_cut(struct sharer *s, uint64_t start, uint64_t end, struct sharer_pieces *cut);
/* The mapping that holds @address, or NULL. */
const struct mapping *sharer_locate(const struct sharer *s, uint64_t address);
/* The next mapping, from *from on, that shows the page at @offset of @block; NULL at the end. */
const struct mapping *sharer_alias(const struct sharer *s, unsigned block, uint64_t offset,
				   unsigned *from);
static inline uint64_t mapping_address(const struct mapping *m, uint64_t offset)
{
	return m->address + (offset - m->offset);
}

#endif
