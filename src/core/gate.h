/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_CORE_GATE_H
#define PC_CORE_GATE_H
/*
 * A gate holds devices until the memory they can reach is there: which ranges they reach (their DMA
 * set), how many pages of each are missing, which may be mapped now, and whether the devices may
 * run.  One gate for each space of device addresses (a container, an IOAS, a vfio-user connection);
 * gate.c has the theory.
 *
 * It belongs to the thread that owns the engine.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "core/block.h"
#include "core/ledger.h"

/* What no mapping of a device is smaller than. */
#define GATE_PAGE 4096

enum gate_class {
	GATE_STREAMING,		/* buffers, mapped for one transfer or for long */
	GATE_COHERENT,		/* rings: both sides at any time, whatever directions were said */
	GATE_CLASSES,
};

enum {
	GATE_READS = 1 << 0,	/* the device does */
	GATE_WRITES = 1 << 1,
};

/* Where a device reaches a part of a block. */
struct gate_span {
	uint64_t iova, length;	/* bytes, whole pages of GATE_PAGE */
	unsigned block;
	uint64_t offset;
	enum gate_class class;
	unsigned directions;	/* GATE_READS, GATE_WRITES */
};

enum gate_stage {
	GATE_WAITING,		/* pages are missing, or nobody asked what to map yet */
	GATE_MAPPING,		/* somebody was told to map it, and may be at it */
	GATE_MAPPED,		/* the device reaches it; pinned, if there is pinning */
	GATE_FAILED,		/* it was there, and could not be mapped */
};

struct gate_range {
	struct gate_span span;
	uint64_t first, pages;	/* of the row of all pages */
	uint64_t missing;
	enum gate_stage stage;
	int error;		/* FAILED: why */
	bool queued;
	bool wanted;		/* gate_want() has told of it */
	uint32_t next;		/* of the queue of ready ones, or of the free ones */
};

struct gate_config {
	const struct ledger *ledger;
	const struct block_table *blocks;
	uint32_t ranges;	/* at a time */
	/*
	 * What is not mapped cannot be reached: there is an IOMMU, or messages.  Without, a set is
	 * what somebody says it is.
	 */
	bool enforced;
};

struct gate {
	struct gate_config config;
	struct gate_range *range;
	uint32_t *by_iova;	/* in use, ascending */
	uint32_t *by_page;	/* the same, by first page */
	uint64_t *reach;	/* of the tree over by_page */
	uint64_t *known;	/* a bit for each page: told to be present */
	uint32_t n, free, head, tail;
	uint32_t mapped, failed; /* ranges */
	uint32_t want, used;	/* where gate_want() goes on; behind the last that was in use */
	/* of all ranges, in pages and in their bytes; those in two ranges count twice */
	uint64_t pages, missing, bytes, missing_bytes;
	bool stale;		/* the tree */
	bool serving, sealed, ran, tainted, told;
};

enum gate_outcome {
	GATE_NOTHING = 0,
	GATE_READY,		/* map it, then gate_mapped() */
	GATE_OPENED,		/* the devices may run */
};

/* Memory is the caller's: zeroed, gate_size() bytes, for 64-bit numbers.  @pages: of all blocks. */
size_t gate_size(uint32_t ranges, uint64_t pages);
void gate_init(struct gate *g, void *memory, const struct gate_config *config);

/* --- the set: map and coherent, unmap, sync --- */

/* 0; -EINVAL, -ENOSPC, -EEXIST: its addresses are in use. */
int gate_map(struct gate *g, const struct gate_span *span);
/*
 * Of what is about to be unmapped the caller walks what was written first.  How many ranges that
 * were; -EINVAL: it would cut one; -EBUSY: one is being mapped.
 */
int gate_unmap(struct gate *g, uint64_t iova, uint64_t length);
/* Begin anew: whoever declared all this is gone, and what it mapped with it. */
void gate_clear(struct gate *g);
/* The set is whole.  Before that the gate does not open, whatever is in it. */
void gate_seal(struct gate *g);

struct gate_piece {
	unsigned block;
	uint64_t offset, length;
};

struct gate_walk {
	const struct gate *gate;
	uint64_t iova, last;
	uint32_t at;
};

/* What devices may have written of these addresses: all of it counts as dirty (sync, unmap). */
void gate_walk(struct gate_walk *w, const struct gate *g, uint64_t iova, uint64_t length);
bool gate_written(struct gate_walk *w, struct gate_piece *piece);

/* --- pages --- */

/* They are there, final.  Told twice counts once. */
void gate_present(struct gate *g, uint64_t page, uint64_t n);
/* Does a device reach one of them, or is it about to? */
bool gate_reached(struct gate *g, uint64_t page, uint64_t n);
/* They shall go.  0, and they count as missing; -EBUSY: a device reaches some, nothing changed. */
int gate_discard(struct gate *g, uint64_t page, uint64_t n);

/* A range that nobody asked for yet: some of its pages are missing.  False: there is none. */
bool gate_want(struct gate *g, uint64_t *page, uint64_t *n);

/* --- devices --- */

/* Every discard is done, and faults are answered: ranges may be mapped. */
void gate_serve(struct gate *g);
enum gate_outcome gate_next(struct gate *g, uint64_t *iova);
/* 0; -ENOENT: nobody was told to.  @err: 0 or why it could not be. */
int gate_mapped(struct gate *g, uint64_t iova, int err);
/* A FAILED one is to be tried again.  0; -ENOENT. */
int gate_retry(struct gate *g, uint64_t iova);
/* 0; -EBUSY: not everything that devices reach is there and mapped; -EPERM: see gate_blocker(). */
int gate_may_run(const struct gate *g);
/* A device began to run, or every one was reset. */
void gate_ran(struct gate *g);
void gate_reset(struct gate *g);
/* The name of what is in the way of migration for good, or NULL; static. */
const char *gate_blocker(const struct gate *g);
const struct gate_range *gate_find(const struct gate *g, uint64_t iova);

#endif
