/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_PLACER_H
#define PC_DAEMON_PLACER_H
/*
 * Executes one placement: the ladder of address spaces through which the kernel can be asked to put
 * a page where it belongs.
 *
 * There are two: the main sharer's, then our own mapping, which cannot die; a private block has the
 * first only.  Never that of another sharer: see perform.c.
 *
 * Used by the fault thread and by the bulk lane, each with a placer of its own.
 */
#include <stdbool.h>
#include <stdint.h>
#include "core/engine.h"
#include "core/faultplan.h"
#include "daemon/stall.h"
#include "sys/uffd.h"

#define PLACER_RUNGS 2

struct placer_rung {
	int uffd;
	uint64_t address;		/* of the run's first byte in that address space */
	uint64_t room;			/* bytes from there that the mapping covers */
	bool can_zero;
	bool is_sharer;
	int32_t pid;			/* of the sharer */
	struct sharer_ref sharer;
};

struct placer {
	const struct uffd_ops *ops;
	/* as long as the longest page in use; for ranges without ZEROPAGE */
	const uint8_t *zeroes;
	uint64_t page_size;		/* of the block at hand */
	struct faultplan *faults;	/* borrowed; NULL: nothing is injected */
	struct stall *stall;		/* of the main sharer; borrowed, NULL: nobody minds */
	enum stats_lane thread;		/* who we are there */
	/* CLOCK_MONOTONIC before a run, set by the owner or 0; after it, the time after it */
	uint64_t now;
	bool dry;			/* the last RETRY is for want of a huge page */
	uint64_t fallbacks, again, calls;	/* statistics, taken by the owner */
};

struct placer_job {
	const uint8_t *data;		/* NULL: zeroes */
	uint64_t length;		/* bytes, whole pages */
	uint64_t page;			/* number of the first, for faults that are injected */
	/* of a fault on a page that is there: EEXIST is what is expected */
	bool answer;
	unsigned n;
	struct placer_rung rung[PLACER_RUNGS];
};

enum placer_outcome {
	PLACER_DONE,		/* all of it */
	PLACER_EXISTS,		/* the page after *done is there already */
	/* nothing wrong that time does not mend: again from *done, in a while */
	PLACER_RETRY,
	PLACER_NOWHERE,		/* no address space takes it */
};

/* One call to the kernel; @page: the number of its first. */
struct placer_call {
	enum uffd_how how;
	int uffd;
	uint64_t dst, len, page;
	const void *src;
};
/* inject_place.c: with faults in between. */
enum uffd_outcome inject_place(struct placer *p, const struct placer_call *c,
			       struct uffd_result *result);

/*
 * Put the pages where they belong; *done bytes placed, the last of them through rung *used.  May
 * change the order of the rungs.
 */
enum placer_outcome placer_run(struct placer *p, struct placer_job *job, uint64_t *done, int *used);

#endif
