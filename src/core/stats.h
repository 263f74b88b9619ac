/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_CORE_STATS_H
#define PC_CORE_STATS_H
/*
 * Counters and latency histograms: plain data, copied by value, no clock.
 *
 * A histogram is log-linear: 16 steps per power of two, so a percentile is at most 6 % off.  Values
 * are nanoseconds.
 */
#include <stdint.h>

#define HISTOGRAM_BUCKETS 608		/* up to 2^41 ns (36 minutes), the last beyond */

struct histogram {
	uint64_t count, sum, max;
	uint32_t bucket[HISTOGRAM_BUCKETS];
};

void histogram_add(struct histogram *h, uint64_t ns);
void histogram_merge(struct histogram *into, const struct histogram *from);
/* The value that @permille of a thousand samples do not exceed; 0 when empty. */
uint64_t histogram_percentile(const struct histogram *h, unsigned permille);

/* The way of one fault.  TOTAL is the sum of the others. */
enum stats_stage {
	STAGE_TOTAL,		/* fault message read -> faulting thread woken */
	STAGE_QUEUE,		/* fault message read -> request handed to the socket */
	STAGE_WIRE,		/* request handed to the socket -> page received */
	STAGE_PLACEMENT,	/* page received -> the kernel said it is there */
	STAGE_WAKE,		/* there -> this sharer woken */
	STAGE_COUNT,
};
extern const char *const stats_stage_names[STAGE_COUNT];

enum stats_lane {
	/* the main channel: everything, or the background stream beside an urgent lane */
	LANE_MAIN,
	LANE_URGENT,		/* the preempt channel: demanded pages only */
	LANE_STORE,		/* pages that we had held back (private blocks) */
	LANE_COUNT,
};
extern const char *const stats_lane_names[LANE_COUNT];

enum stats_how {
	HOW_COPY,
	HOW_ZERO,
	HOW_ALREADY,
	/* zeroes, left a hole; counted again, in the store's lane, if they are placed later */
	HOW_NOTED,
	HOW_COUNT,
};
extern const char *const stats_how_names[HOW_COUNT];

struct sharer_stats {
	uint64_t faults;		/* fault messages read */
	uint64_t reads, writes;		/* of them by kind of access */
	uint64_t duplicates;		/* of them for a page somebody waited for already */
	/* of them by a thread that was parked on that page already */
	uint64_t refaults;
	uint64_t present;		/* of them for a page that was there by then */
	uint64_t requests;		/* page requests these faults caused */
	uint64_t wakes;			/* WAKE calls made for this sharer */
	uint64_t spurious;		/* ready descriptor, nothing to read */
	uint64_t blocked_ns;		/* time with at least one thread parked */
	uint64_t blocked_threads_ns;	/* sum over parked threads */
	struct histogram stage[STAGE_COUNT];
};

void sharer_stats_add(struct sharer_stats *into, const struct sharer_stats *from);

struct lane_stats {
	uint64_t bytes;			/* received on the connection */
	uint64_t pages[HOW_COUNT];	/* block pages placed (or found there, or noted) */
	uint64_t duplicates;		/* pages that came although they were there: ignored */
	uint64_t batches;		/* receives */
};

struct stats {
	struct lane_stats lane[LANE_COUNT];
	uint64_t requests;		/* REQ_PAGES messages */
	uint64_t requested_pages;
	uint64_t rerequested;		/* asked again after a lost lane */
	/* owed or held by us when their owner gave them back: zero since */
	uint64_t removed;
	/* EEXIST on data of a page we never placed: memory integrity lost */
	uint64_t alarms;
	uint64_t lost;			/* pages given up (PAGE_LOST) */
	uint64_t again;			/* placements the kernel told us to retry */
	/* placements that went through another address space than the first choice */
	uint64_t place_fallbacks;
	uint64_t return_bytes;		/* sent on the return path */
	uint64_t ring_syscalls, other_syscalls;	/* made by the fault thread */
};

#endif
