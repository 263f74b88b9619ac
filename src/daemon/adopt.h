/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_ADOPT_H
#define PC_DAEMON_ADOPT_H
/*
 * A session that an earlier process began, taken over by a fault thread of ours.  The record says
 * how far it was, the ledger what every page is; the descriptors are what was kept (vault.h).
 */
#include <stdbool.h>
#include <stdint.h>
#include "core/block.h"

struct record;

/*
 * What was kept beside the record; -1: nothing.  The descriptors are the fault thread's from
 * faultloop_start() on, also when that fails.
 */
struct faultloop_adopt {
	int ledger;
	int package;
	int main;		/* the source's main connection, on which a SHUT may be owed */
	unsigned n_blocks;
	int file[BLOCK_MAX];	/* by number: of a SHARED block, or the store of another */
	char *why;		/* 256 bytes, for why it cannot be; NULL */
};

/* Closes all of them. */
void adopt_close(struct faultloop_adopt *a);

/* How far the fault thread is with it. */
struct adoption {
	bool begun;		/* it is no fresh session */
	bool told;		/* every sharer has been told of again */
	bool over;		/* and every thread of theirs was woken */
	unsigned at;		/* of the roster: whose threads are to be woken next */
	uint64_t judged, there;	/* pages that were claimed, and of those that were placed */
};

#endif
