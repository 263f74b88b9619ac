/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_CORE_REQUEST_H
#define PC_CORE_REQUEST_H
/*
 * What is still to be asked of the source, most urgent first:
 *
 *   demand    single pages that a thread sleeps on; a queue, because each page enters it once
 *             (the ledger says so)
 *   replay    after a lost lane: every page that the ledger says was asked for, found by walking it
 *   dma, prefetch   ranges that somebody wants before touching them, worked off while few
 *             requests are outstanding
 *
 * The queue holds page numbers only.  What was asked is in the ledger, so nothing here has to
 * survive.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Values of the wire (regmsg.h). */
enum request_class { CLASS_DEMAND = 1, CLASS_DMA, CLASS_PREFETCH };

#define REQUEST_WANTS 64		/* ranges remembered at a time */

struct request_want {
	uint64_t at, end;		/* pages; at moves */
	enum request_class class;
};

struct request_queue {
	uint64_t *demand;		/* ring of page numbers */
	uint32_t capacity, head, n;
	uint64_t replay_at, replay_end;	/* pages still to be looked at */
	unsigned n_wants;
	/* dma before prefetch, else in order of arrival */
	struct request_want want[REQUEST_WANTS];
};

size_t request_queue_size(uint32_t capacity);
void request_queue_init(struct request_queue *q, void *memory, uint32_t capacity);
/* 0, or -ENOSPC: the caller's waiters are bounded by the same capacity, so this is our bug */
int request_demand(struct request_queue *q, uint64_t page);
/* False when the queue is empty. */
bool request_next_demand(struct request_queue *q, uint64_t *page);
/* Start the walk over all of [0, pages); queued demands are covered by it and dropped. */
void request_replay(struct request_queue *q, uint64_t pages);
/* 0 or -ENOSPC (ask again later). */
int request_want(struct request_queue *q, uint64_t page, uint64_t n, enum request_class class);
/* The range to work on now, NULL when there is none; drop it with request_want_done(). */
struct request_want *request_first_want(struct request_queue *q);
void request_want_done(struct request_queue *q);

#endif
