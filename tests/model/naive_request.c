/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What must be asked for next: threads that sleep first, in the order of their faults; then what a
 * lost lane left open; then dma; then prefetch, never with more than the window outstanding (O4,
 * O5).
 */
#include "config.h"

#include "world.h"

#include <errno.h>
#include <string.h>

#define REQUEST_RUN 256 /* pages one request may ask for ahead of need: engine_request.c */

static void start_walk(struct world *w)
{
	w->naive.demand_n = 0;
	w->naive.replay_at = 0;
	w->naive.replay_end = w->engine->blocks.pages;
	w->naive.epoch++;
}

/* Nobody asked for the page yet.  A full queue becomes a walk over everything asked for. */
void naive_ask(struct world *w, uint64_t page)
{
	if (w->naive.demand_n == w->waiters)
		start_walk(w);
	else
		w->naive.demand[w->naive.demand_n++] = page;
}

void naive_replay(struct world *w)
{
	start_walk(w);
	for (unsigned i = 0; i < w->naive.n_waiters; i++)
		w->naive.waiter[i].sent = false;
}

int naive_wants(struct world *w, uint64_t page, uint64_t n, enum request_class class)
{
	struct naive *v = &w->naive;
	unsigned at = 0;

	if (v->want_n == REQUEST_WANTS)
		return -ENOSPC;
	while (at < v->want_n && v->want[at].class <= class)
		at++;
	memmove(&v->want[at + 1], &v->want[at], (v->want_n - at) * sizeof(v->want[0]));
	v->want[at] = (struct naive_want){ page, page + n, class };
	v->want_n++;
	return 0;
}

/* The page's oldest thread knows that it was asked for. */
static bool known_sent(const struct world *w, uint64_t page)
{
	for (unsigned i = 0; i < w->naive.n_waiters; i++)
		if (w->naive.waiter[i].page == page)
			return w->naive.waiter[i].sent;
	return false;
}

static void asked(struct world *w, struct engine_request *r, uint64_t page, uint64_t n,
		  enum request_class class)
{
	const struct block *b = world_block(w, page);

	for (uint64_t i = page; i < page + n; i++) {
		struct naive_page *p = &w->naive.page[i];

		must(w, p->epoch != w->naive.epoch || (p->orphan && w->naive.replay_end),
		     "page %lu asked for twice (O4)", i);
		p->epoch = w->naive.epoch;
		p->orphan = true;
	}
	for (unsigned i = 0; i < w->naive.n_waiters; i++)
		if (w->naive.waiter[i].page == page) {
			w->naive.waiter[i].sent = true;
			w->naive.page[page].orphan = false;
		}
	w->naive.stats.requests++;
	w->naive.stats.requested_pages += n;
	w->asked += n;
	*r = (struct engine_request){
		.block = (uint16_t)(b - w->engine->blocks.block),
		.offset = block_offset(b, page),
		.length = n << b->page_shift,
		.class = class,
	};
}

static bool demand(struct world *w, struct engine_request *r)
{
	struct naive *v = &w->naive;

	while (v->demand_n > 0) {
		uint64_t page = v->demand[0];

		memmove(&v->demand[0], &v->demand[1], --v->demand_n * sizeof(v->demand[0]));
		if (v->page[page].is != PAGE_REQUESTED)
			continue;
		asked(w, r, page, 1, CLASS_DEMAND);
		return true;
	}
	return false;
}

static bool replay(struct world *w, struct engine_request *r)
{
	struct naive *v = &w->naive;

	for (; v->replay_at < v->replay_end; v->replay_at++) {
		uint64_t page = v->replay_at;

		if (v->page[page].is != PAGE_REQUESTED || known_sent(w, page))
			continue;
		v->replay_at++;
		v->stats.rerequested++;
		asked(w, r, page, 1, CLASS_DEMAND);
		return true;
	}
	v->replay_at = v->replay_end = 0;
	return false;
}

static uint64_t outstanding(const struct world *w)
{
	uint64_t n = 0;

	for (uint64_t page = 0; page < w->engine->blocks.pages; page++)
		n += w->naive.page[page].counted == PAGE_REQUESTED;
	return n;
}

/*
 * What a device can reach must be there: below @end nothing is missing, and nothing may stay a
 * hole.  What the kernel gives back is found again.  False: not yet.
 */
static bool fill(struct world *w, struct naive_want *x, uint64_t end)
{
	struct naive *v = &w->naive;
	uint64_t queued = 0;

	for (uint64_t page = x->at; page < end; page++)
		if (v->page[page].is == PAGE_PLACING)
			v->page[page].is = PAGE_CONTESTED;
	for (; x->at < end && v->page[x->at].is != PAGE_ZERO; x->at++)
		v->page[x->at].dma = true;
	for (uint64_t page = x->at; page < end && queued < ENGINE_RUN; page++) {
		uint64_t n = v->page[page].is == PAGE_ZERO ? naive_fill(w, page, end) : 0;

		queued += n;
		page += n ? n - 1 : 0;
	}
	return x->at == end;
}

static bool ahead(struct world *w, struct engine_request *r)
{
	struct naive *v = &w->naive;

	for (;;) {
		struct naive_want *x = &v->want[0];
		uint64_t room = outstanding(w), n = 0, at;
		enum request_class class;

		if (room >= w->engine->window || w->engine->window - room < w->engine->window / 4)
			return false;
		naive_want_gates(w);
		if (v->want_n == 0)
			return false;
		class = x->class;
		room = w->engine->window - room;
		at = x->at;
		while (at < x->end && v->page[at].is != PAGE_MISSING)
			at++;
		if (class == CLASS_DMA && !fill(w, x, at))
			return false;
		x->at = at;
		while (x->at < x->end && n < room && n < REQUEST_RUN &&
		       v->page[x->at].is == PAGE_MISSING) {
			v->page[x->at].is = v->page[x->at].counted = PAGE_REQUESTED;
			x->at++;
			n++;
		}
		if (n)
			asked(w, r, x->at - n, n, class);
		if (x->at == x->end)
			memmove(&v->want[0], &v->want[1], --v->want_n * sizeof(v->want[0]));
		if (n)
			return true;
	}
}

bool naive_request(struct world *w, struct engine_request *r)
{
	return demand(w, r) || replay(w, r) || ahead(w, r);
}
