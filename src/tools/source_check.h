/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_SOURCE_CHECK_H
#define PC_TOOLS_SOURCE_CHECK_H
/*
 * The referee of the return path: what a destination may say, and when.  No socket, no thread; the
 * return path's thread calls, others only read the atomics until it is joined.
 *
 * Every function records a breach (the first one keeps its text) and returns false for it.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "tools/source_block.h"

enum source_phase {
	SOURCE_SETUP,	/* until the package begins to leave */
	SOURCE_PACKAGE, /* it is being sent: LISTEN may have been processed */
	SOURCE_ACTIVE,	/* it was sent */
	SOURCE_ENDED,	/* the end of the stream was sent */
	SOURCE_RESUMING, /* connected again: until RESUME_ACK */
};

struct source_check {
	atomic_uint pings_out; /* bit per value of the ping table */
	unsigned pongs_in;
	atomic_uint pongs;     /* how many came */
	atomic_bool committed; /* PONG 0x42 came */
	atomic_bool has_shut;
	uint32_t shut;
	uint64_t requested; /* pages */
	uint64_t requested_twice;
	unsigned acks; /* SWITCHOVER_ACK */
	unsigned violations;
	char first[192], last[192];
};

void source_check_violation(struct source_check *c, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* To be called before the ping leaves.  @value: 1 to 4 or 0x42. */
void source_check_ping(struct source_check *c, uint32_t value);
bool source_check_pong(struct source_check *c, uint32_t value);
/* @block: NULL when nobody knows @name. */
bool source_check_request(struct source_check *c, enum source_phase phase,
			  const struct source_block *block, const char *name, uint64_t start,
			  uint32_t length);
/* Counts the page; false when it was asked for before. */
bool source_check_page(struct source_check *c, struct source_block *block, uint64_t page);
bool source_check_shut(struct source_check *c, enum source_phase phase, uint32_t value);
bool source_check_switchover_ack(struct source_check *c);
/* A connection was lost, and PONGs with it: what was not answered is not waited for. */
void source_check_forget_pings(struct source_check *c);
/* After a migration that ended with SHUT 0: was everything answered? */
bool source_check_complete(struct source_check *c);

#endif
