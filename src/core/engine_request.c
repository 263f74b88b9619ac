/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the engine asks of the source, and in which order.
 *
 * Requests are pulled, one at a time, when the socket can take one: the order is decided as late as
 * it can be, and what came by itself meanwhile is not asked for.  A page is asked for once (O4).
 * QEMU drops a request for a page that it has sent already and answers nothing, so no timer ever
 * repeats one; only a lost lane makes everything outstanding open again, and that is found by
 * walking the ledger, not by keeping a list.
 *
 * Always whole pages of the block: a source that sends urgent pages on a channel of their own ends
 * in an assertion when a request is shorter than a huge page.
 *
 * A device does not fault: what it can reach has to be there, known zeroes included.  So a range
 * for dma has them placed as it is worked off, a few at a time; a page of it that is asked for is
 * placed whatever it turns out to be.  What the gates miss is wanted without being said.
 *
 * Ahead of need (dma, prefetch) no more than a window is outstanding, so that a thread that sleeps
 * meanwhile is never behind a long row of pages that nobody waits for (O5).  It is filled up again
 * when a part of it is empty, not page by page: a request of one page costs both sides as much as
 * one of a hundred, and what is still outstanding keeps the source busy meanwhile.
 */
#include "config.h"
#include "core/engine.h"

#include <errno.h>

#include "core/guard.h"

/* ranges of gates that are remembered at a time: others find a place, too */
#define GATE_WANTS  (REQUEST_WANTS / 2)
#define REQUEST_RUN 256		/* pages one REQ_PAGES may ask for ahead of need */
#define WINDOW_PARTS 4		/* of the window; so much is empty before it is filled up again */

static void make_request(struct engine *e, struct engine_request *r, uint64_t page, uint64_t n,
			 enum request_class class)
{
	const struct block *b = block_of_page(&e->blocks, page);

	r->block = (uint16_t)(b - e->blocks.block);
	r->offset = block_offset(b, page);
	r->length = n << b->page_shift;
	r->class = class;
	e->stats.requests++;
	e->stats.requested_pages += n;
}

/* All who wait for the page wait on the wire from here on; their samples are split at @now. */
static void mark_sent(struct engine *e, uint64_t page, uint64_t now)
{
	for (uint32_t i = waiter_first(&e->waiters, page); i != WAITER_NONE;
	     i = waiter_next(&e->waiters, i))
		e->waiters.entry[i].sent_ns = now;
}

static bool next_demand(struct engine *e, struct engine_request *r, uint64_t now)
{
	uint64_t page;

	while (request_next_demand(&e->requests, &page)) {
		if (ledger_get(&e->ledger, page) != PAGE_REQUESTED)
			continue;	/* it came by itself meanwhile */
		mark_sent(e, page, now);
		make_request(e, r, page, 1, CLASS_DEMAND);
		return true;
	}
	return false;
}

/*
 * Was the page asked for since the walk began?  Its oldest waiter knows; of a page that nobody
 * waits for it is not known.
 */
static bool asked_again(const struct engine *e, uint64_t page)
{
	uint32_t first = waiter_first(&e->waiters, page);

	return first != WAITER_NONE && e->waiters.entry[first].sent_ns != 0;
}

static bool next_replay(struct engine *e, struct engine_request *r, uint64_t now)
{
	struct request_queue *q = &e->requests;
	uint64_t page;

	do {
		page = ledger_find(&e->ledger, q->replay_at, q->replay_end, PAGE_REQUESTED);
		if (page >= q->replay_end)
			return q->replay_at = q->replay_end = 0, false;
		q->replay_at = page + 1;
	} while (asked_again(e, page));
	e->stats.rerequested++;
	mark_sent(e, page, now);
	make_request(e, r, page, 1, CLASS_DEMAND);
	return true;
}

/*
 * Have the known zeroes of a range for dma placed, as far as @end, below which nothing is missing.
 * The bulk lane notes what it has claimed unless that is contested: first nothing may be left that
 * can still become zero, then what is zero is found.  What the kernel gave back is found again, for
 * the range is only left behind as far as everything is placed.
 *
 * False: not yet, there are actions to be done first.
 */
static bool fill_want(struct engine *e, struct request_want *w, uint64_t end, uint64_t now)
{
	uint64_t page = w->at, queued = 0;

	if (e->actions.n)
		return false;
	while ((page = ledger_find(&e->ledger, page, end, PAGE_PLACING)) < end)
		ledger_move(&e->ledger, page++, PAGE_PLACING, PAGE_CONTESTED);
	w->at = page = ledger_find(&e->ledger, w->at, end, PAGE_ZERO);
	for (; page < end && queued < ENGINE_RUN;
	     page = ledger_find(&e->ledger, page, end, PAGE_ZERO)) {
		uint64_t n = engine_fill(e, page, end, now);

		page += n;
		queued += n;
	}
	return w->at == end;
}

/* The range to work on now, behind those that gates have not told of yet. */
static struct request_want *first_want(struct engine *e)
{
	uint64_t page, n;

	for (unsigned i = 0; i < e->n_gates; i++)
		while (e->requests.n_wants < GATE_WANTS && gate_want(e->gate[i], &page, &n))
			request_want(&e->requests, page, n, CLASS_DMA);
	return request_first_want(&e->requests);
}

/* Is so much of the window empty that it is worth a request? */
static bool window_is_open(const struct engine *e)
{
	return e->requested < e->window && e->window - e->requested >= e->window / WINDOW_PARTS;
}

/*
 * The next run of missing pages in the range that was wanted first, as far as the window reaches.
 */
static bool next_want(struct engine *e, struct engine_request *r, uint64_t now)
{
	struct request_want *w;

	while (window_is_open(e) && (w = first_want(e))) {
		uint64_t page = ledger_find(&e->ledger, w->at, w->end, PAGE_MISSING), n = 0;
		struct block *b = block_of_page(&e->blocks, page < w->end ? page : w->at);
		uint64_t most = REQUEST_RUN < UINT32_MAX >> b->page_shift ?
					REQUEST_RUN :
					UINT32_MAX >> b->page_shift;

		if (w->class == CLASS_DMA && !fill_want(e, w, page, now))
			return false;
		/*
		 * Not ledger_request(): nobody waits for this page, so one that is being placed is
		 * not contested.
		 */
		while (page + n < w->end && n < most && e->requested < e->window &&
		       ledger_move(&e->ledger, page + n, PAGE_MISSING, PAGE_REQUESTED)) {
			n++;
			b->requested++;
			e->requested++;
		}
		w->at = page + n;
		if (n)
			make_request(e, r, page, n, w->class);
		if (w->at >= w->end)
			request_want_done(&e->requests);
		if (n)
			return true;
	}
	return false;
}

/**
 * engine_next_request - the next thing to ask the source for
 * @r: set when there is one; the caller hands it to the socket at once, it is not offered again
 * @now: becomes the time the request was sent
 *
 * Known zeroes that a device will want are queued to be placed: perform the actions before the next
 * event, and ask again while there were some.
 *
 * Return: false when there is nothing to ask now.
 */
bool engine_next_request(struct engine *e, struct engine_request *r, uint64_t now)
{
	return next_demand(e, r, now) || (e->requests.replay_end && next_replay(e, r, now)) ||
	       next_want(e, r, now);
}

/**
 * engine_want - a range is wanted before somebody touches it
 * @offset: bytes in the block; pages that the range touches in part are wanted whole
 * @class: CLASS_DMA or CLASS_PREFETCH
 *
 * Pages that are there, on their way or asked for are skipped when the range is worked off; known
 * zeroes are placed for CLASS_DMA.
 *
 * Return: 0; -EINVAL for a block or range that does not exist, -ENOSPC when too many ranges wait:
 * try later.
 */
int engine_want(struct engine *e, unsigned block, uint64_t offset, uint64_t length,
		enum request_class class)
{
	const struct block *b;
	uint64_t page, last;

	if (block >= e->blocks.n)
		return -EINVAL;
	b = &e->blocks.block[block];
	if (!range_inside(offset, length, b->length))
		return -EINVAL;
	page = block_page(b, offset);
	last = block_page(b, offset + length - 1);
	return request_want(&e->requests, page, last - page + 1, class);
}

/**
 * engine_want_owed - the source sends nothing by itself any more: want all that is owed and was not
 * asked for
 *
 * Behind what was wanted before; what comes meanwhile is skipped when the range is worked off.
 *
 * Return: 0; -ENOSPC when too many ranges wait: call again; to want a range twice is harmless.
 */
int engine_want_owed(struct engine *e)
{
	for (unsigned i = 0; i < e->blocks.n; i++) {
		const struct block *b = &e->blocks.block[i];
		uint64_t end = b->first + b->pages,
			 page = ledger_find(&e->ledger, b->first, end, PAGE_MISSING);

		if (page < end && request_want(&e->requests, page, end - page, CLASS_PREFETCH) < 0)
			return -ENOSPC;
	}
	return 0;
}

/**
 * engine_replay - a lane was lost and is back: ask again for everything outstanding (O4)
 */
void engine_replay(struct engine *e)
{
	waiter_unsend(&e->waiters);
	request_replay(&e->requests, e->blocks.pages);
}
