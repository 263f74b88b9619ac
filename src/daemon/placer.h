/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_PLACER_H
#define PC_DAEMON_PLACER_H
/*
 * Executes one placement: the ladder of address spaces through which the kernel can be asked to put a page where it belongs.
 *
 * Any sharer's userfaultfd fills the page cache of a shared block for everybody; the kernel charges the page to the owner of
 * that address space and wakes who sleeps there.  So the order is: the first waiter's (placed and awake in one call), then the
 * main sharer's (guest memory is the VMM's to pay for), then our own mapping, which cannot die.  A private block has one address space.
 *
 * Used by the fault thread and by the bulk lane, each with a placer of its own.
 */
#include <stdbool.h>
#include <stdint.h>
#include "core/engine.h"
#include "sys/uffd.h"

#define PLACER_RUNGS 3

struct placer_rung {
	int uffd;
	uint64_t address;		/* of the run's first byte in that address space */
	uint64_t room;			/* bytes from there that the mapping covers */
	bool can_zero;
	bool is_sharer;
	struct sharer_ref sharer;
};

struct placer {
	const struct uffd_ops *ops;
	const uint8_t *zeroes;		/* as long as the longest page in use; for ranges without ZEROPAGE */
	uint64_t page_size;		/* of the block at hand */
	uint64_t fallbacks, again, calls;	/* statistics, taken by the owner */
};

struct placer_job {
	const uint8_t *data;		/* NULL: zeroes */
	uint64_t length;		/* bytes, whole pages */
	bool answer;			/* of a fault on a page that is there: EEXIST is what is expected */
	unsigned n;
	struct placer_rung rung[PLACER_RUNGS];
};

enum placer_outcome {
	PLACER_DONE,		/* all of it */
	PLACER_EXISTS,		/* the page after *done is there already */
	PLACER_RETRY,		/* nothing wrong that time does not mend: again from *done, in a while */
	PLACER_NOWHERE,		/* no address space takes it */
};

/* Put the pages where they belong; *done bytes placed, the last of them through rung *used. */
enum placer_outcome placer_run(struct placer *p, const struct placer_job *job, uint64_t *done, int *used);

#endif
