/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Three sources of work, and none of them is the truth: that is the ledger, where a page is
 * REQUESTED until it comes.  So what stands here may be stale (a page that came by itself) or
 * dropped (the queue, by a replay), and the worst that follows is a look at the ledger.  Who takes
 * from the queue checks there before it asks (engine_request.c).
 *
 * The ring of demands has as many places as there can be waiters.  Memory is the caller's; nothing
 * is allocated.
 */
#include "config.h"
#include "core/request.h"

#include <errno.h>
#include <string.h>

/**
 * request_queue_size - bytes of memory for @capacity queued demands
 */
size_t request_queue_size(uint32_t capacity)
{
	return capacity * sizeof(uint64_t);
}

/**
 * request_queue_init - an empty queue
 * @memory: request_queue_size(@capacity) bytes, 8-byte aligned; stays the caller's
 */
void request_queue_init(struct request_queue *q, void *memory, uint32_t capacity)
{
	*q = (struct request_queue){ .demand = memory, .capacity = capacity };
}

/**
 * request_demand - a thread sleeps on @page and nobody asked for it yet
 *
 * Return: 0, or -ENOSPC: pages that came by themselves still stand in the queue.  A replay then
 * finds in the ledger what the queue had no place for.
 */
int request_demand(struct request_queue *q, uint64_t page)
{
	if (q->n == q->capacity)
		return -ENOSPC;
	q->demand[(q->head + q->n++) % q->capacity] = page;
	return 0;
}

/**
 * request_next_demand - take the demand that waits longest
 * @page: set when there is one
 *
 * Return: false when the queue is empty.
 */
bool request_next_demand(struct request_queue *q, uint64_t *page)
{
	if (q->n == 0)
		return false;
	*page = q->demand[q->head];
	/* mostly short: stay in the same cache lines */
	q->head = --q->n ? (q->head + 1) % q->capacity : 0;
	return true;
}

/**
 * request_replay - find again what is outstanding
 * @pages: of all blocks; the walk goes over [0, @pages)
 *
 * For a lost lane (O4) and for a full queue.  Queued demands are dropped: the ledger says REQUESTED
 * of each, so the walk comes by.
 */
void request_replay(struct request_queue *q, uint64_t pages)
{
	q->n = 0;
	q->replay_at = 0;
	q->replay_end = pages;
}

/**
 * request_want - @n pages from @page on are wanted before somebody touches them
 * @class: CLASS_DMA (a device may reach them) or CLASS_PREFETCH; the first goes before the second
 *   (O5)
 *
 * Return: 0, or -ENOSPC when REQUEST_WANTS ranges wait already.
 */
int request_want(struct request_queue *q, uint64_t page, uint64_t n, enum request_class class)
{
	unsigned at = q->n_wants;

	if (q->n_wants == REQUEST_WANTS)
		return -ENOSPC;
	while (at > 0 && q->want[at - 1].class > class)
		at--;
	memmove(&q->want[at + 1], &q->want[at], (q->n_wants - at) * sizeof(q->want[0]));
	q->want[at] = (struct request_want){ .at = page, .end = page + n, .class = class };
	q->n_wants++;
	return 0;
}

/**
 * request_first_want - the range to work on now, NULL when there is none
 *
 * The caller moves .at on as it asks; the range stays first until request_want_done(), so one that
 * came later with a higher class waits for no more than the requests that were made already.
 */
struct request_want *request_first_want(struct request_queue *q)
{
	return q->n_wants ? &q->want[0] : NULL;
}

/**
 * request_want_done - drop the first range; there must be one
 */
void request_want_done(struct request_queue *q)
{
	q->n_wants--;
	memmove(&q->want[0], &q->want[1], q->n_wants * sizeof(q->want[0]));
}
