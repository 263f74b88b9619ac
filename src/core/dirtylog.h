/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_CORE_DIRTYLOG_H
#define PC_CORE_DIRTYLOG_H
/*
 * The dirty log of vhost-user back-ends: a bitmap over guest physical addresses that they set bits
 * in, and what its bits mean in blocks.
 *
 * A bit is 4 KiB of guest physical address, whatever pages the memory is made of: page n is bit
 * n % 64 of the 64-bit word n / 64.  Back-ends set bits atomically, at any time; who reads takes a
 * word's bits by exchanging it with zero, so each is found once, and none is lost.
 */
#include <stdbool.h>
#include <stdint.h>

enum {
	DIRTYLOG_PAGE = 4096,
	DIRTYLOG_REGIONS = 512, /* what back-ends have as memory slots */
};

/* As a back-end is told it, and where it lies in its block. */
struct dirtylog_region {
	uint64_t gpa, size, va;
	unsigned block;
	uint64_t offset;
};

struct dirtylog {
	unsigned n;
	struct dirtylog_region region[DIRTYLOG_REGIONS]; /* by gpa */
};

/*
 * 0; -EINVAL: not whole pages of 4 KiB, empty, or beyond the end of the addresses; -EEXIST:
 * overlaps another one; -ENOSPC.  What cannot be added cannot be logged: all of it is dirty.
 */
int dirtylog_add(struct dirtylog *d, const struct dirtylog_region *region);
/* How large a log must be: whole words.  0 without regions. */
uint64_t dirtylog_bytes(const struct dirtylog *d);
/* Guest physical address of one of the front-end's: that of a used ring.  False: nowhere. */
bool dirtylog_gpa(const struct dirtylog *d, uint64_t va, uint64_t *gpa);

/* --- taking what is in it --- */

struct dirtylog_range {
	unsigned block;
	uint64_t offset, length; /* bytes, whole pages of 4 KiB */
};

/* One pass over a log.  What it took is in it only, so it is walked to its end. */
struct dirtylog_walk {
	const struct dirtylog *log;
	uint64_t *words;
	uint64_t n, at;	     /* words; the next one */
	uint64_t bits;	     /* taken, and not looked at yet; of the word before */
	uint64_t start, end; /* addresses of a run of bits, what is left of it */
	unsigned region;     /* where the next address is, or behind */
	uint64_t strays;     /* pages that are in no region: the back-end or its log is broken */
};

void dirtylog_walk(struct dirtylog_walk *w, const struct dirtylog *log, uint64_t *words,
		   uint64_t bytes);
/* The next range, ascending by guest physical address, as long as its region and the bits allow. */
bool dirtylog_next(struct dirtylog_walk *w, struct dirtylog_range *range);

#endif
