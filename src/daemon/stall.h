/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_STALL_H
#define PC_DAEMON_STALL_H
/*
 * How long the main sharer's address space keeps who places through it, as both lanes find: what
 * holds one of them up is passed over by both.  One for a session; written by the fault thread and
 * the bulk thread without a lock.
 */
#include <stdbool.h>
#include <stdint.h>
#include "core/stats.h"

/* LANE_MAIN: the bulk thread's; LANE_URGENT: the fault thread's, whatever it reads */
#define STALL_THREADS 2

struct stall {
	uint64_t own_until;		/* atomic, CLOCK_MONOTONIC: our own mapping goes first */
	/* atomic: when a thread that is in there is held up; 0: it is not in there */
	uint64_t due[STALL_THREADS];
};

/* Is the main sharer to be passed over now? */
bool stall_passes(const struct stall *s, uint64_t now);
/* A thread asks the kernel to place @length bytes through the main sharer, and has its answer. */
void stall_enter(struct stall *s, enum stats_lane thread, uint64_t now, uint64_t length);
void stall_leave(struct stall *s, enum stats_lane thread, uint64_t before, uint64_t now);

#endif
