/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_CORE_DIRTYMARK_H
#define PC_CORE_DIRTYMARK_H
/*
 * What several trackers know, in one log: a bitmap as dirtylog.h has it, into which each of them
 * adds what it found.  Bits are only ever set here; dirtylog_walk() takes them.
 *
 * No tracker sees everything.  Write protection sees the CPUs, and nothing of what a device writes
 * through a pin; the IOMMU's or a device's own bitmap sees the device, and no CPU.  Dirty is what
 * any of them says, and where one cannot say, all it is asked about.
 */
#include <stdint.h>

struct dirtymark {
	uint64_t *words; /* the log; others may set bits in it, and walk it, at any time */
	uint64_t pages;	 /* bits */
	uint64_t strays; /* pages that were told of and are not in the log */
};

void dirtymark_init(struct dirtymark *m, uint64_t *words, uint64_t bytes);
/* All pages that [start, start + length) touches. */
void dirtymark_range(struct dirtymark *m, uint64_t start, uint64_t length);
/*
 * Bit i of @bits stands for the @page bytes at @start + i * @page; @n bits.  @start: whole pages of
 * the log; @page: a power of two, not smaller than one of them.
 */
void dirtymark_bitmap(struct dirtymark *m, uint64_t start, uint64_t page, const uint64_t *bits,
		      uint64_t n);

#endif
