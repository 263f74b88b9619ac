/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_SYS_DIRTY_CPU_H
#define PC_SYS_DIRTY_CPU_H
/*
 * What CPUs wrote, by page tables: asynchronous write protection and PAGEMAP_SCAN (both 6.7).
 *
 * It sees stores of threads and of the kernel for them, in this process.  It does not see what a
 * device, or anybody else, writes through a pin or through another mapping: their trackers do, or
 * what they reach is dirty.
 */
#include <stdbool.h>
#include <stdint.h>

#include "core/dirtymark.h"

enum dirty_cpu_fitness {
	DIRTY_CPU_FIT,
	DIRTY_CPU_NO_WP_ASYNC, /* a kernel before 6.7 */
	DIRTY_CPU_NO_SCAN,     /* one that has no PAGEMAP_SCAN */
	DIRTY_CPU_NO_UFFD,     /* no right to a userfaultfd */
	DIRTY_CPU_NO_PAGEMAP,  /* /proc is not there, or not ours to read */
};

struct dirty_cpu {
	int uffd, pagemap; /* -1: none */
};

/* Can it be done here, and if not, why?  Fills @d when it can. */
enum dirty_cpu_fitness dirty_cpu_init(struct dirty_cpu *d);
const char *dirty_cpu_text(enum dirty_cpu_fitness f);
void dirty_cpu_deinit(struct dirty_cpu *d);
/* Watch [addr, addr + len), whole pages; what is written from now on is found.  0 or -errno. */
int dirty_cpu_watch(struct dirty_cpu *d, uint64_t addr, uint64_t len);
/*
 * What was written to since it was asked before, at @start + (address - addr) of the log; it is
 * watched on.  0; or -errno, with all of it marked.
 */
int dirty_cpu_collect(struct dirty_cpu *d, uint64_t addr, uint64_t len, uint64_t start,
		      struct dirtymark *m);

#endif
