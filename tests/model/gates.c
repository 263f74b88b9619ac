/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Devices, held by gates of the engine, and the naive map of what they reach: at every step the
 * gate misses as many pages as the map says, nothing is given to be mapped while a page of it is
 * not PRESENT (I1), no discard takes a page from a device (I2), and no gate opens before all is
 * mapped (I3).
 */
#include "config.h"

#include "world.h"

#include <errno.h>
#include <stdlib.h>

#define GATE_ADDRESSES (1ull << 32)
#define BLOCK_SPACE    (1ull << 40)	/* device addresses that one block may take */

/* --- the naive map ---------------------------------------------------------------------------- */

/* What the gate was told by now: all that is counted.  What it read itself stays known. */
static void hear(struct world *w, struct naive_gate *n)
{
	for (uint64_t page = 0; page < w->engine->blocks.pages; page++)
		n->known[page] |= w->naive.page[page].counted == PAGE_PRESENT;
}

static uint64_t missing(const struct naive_gate *n, const struct naive_range *r)
{
	uint64_t count = 0;

	for (uint64_t page = r->page; page < r->page + r->n; page++)
		count += !n->known[page];
	return count;
}

/* A place of the gate's ranges that nobody has asked for. */
static struct naive_range *unasked(struct naive_gate *n)
{
	for (unsigned i = 0; i < WORLD_RANGES; i++)
		if (n->range[i].used && !n->range[i].wanted && missing(n, &n->range[i]))
			return &n->range[i];
	return NULL;
}

/* Is something wanted that was not worked off, or will be as soon as somebody looks? */
bool gates_want(const struct world *w)
{
	bool want = w->engine->requests.n_wants;

	for (unsigned i = 0; i < w->engine->n_gates; i++)
		for (unsigned at = 0; at < WORLD_RANGES; at++) {
			const struct naive_range *r = &w->naive.gate[i].range[at];

			want |= r->used && !r->wanted && missing(&w->naive.gate[i], r);
		}
	return want;
}

/* What the engine wants for devices before it looks at what is wanted. */
void naive_want_gates(struct world *w)
{
	struct naive_range *r;

	for (unsigned i = 0; i < w->engine->n_gates; i++) {
		struct naive_gate *n = &w->naive.gate[i];

		hear(w, n);
		while (w->naive.want_n < REQUEST_WANTS / 2 && (r = unasked(n))) {
			r->wanted = true;
			naive_wants(w, r->page, r->n, CLASS_DMA);
		}
	}
}

/* Is all of it there, whatever was told? */
static bool all_present(const struct world *w, const struct naive_range *r)
{
	for (uint64_t page = r->page; page < r->page + r->n; page++)
		if (w->naive.page[page].is != PAGE_PRESENT)
			return false;
	return true;
}

/* --- events ----------------------------------------------------------------------------------- */

static struct naive_range *find(struct naive_gate *n, const struct gate *g, uint64_t iova)
{
	const struct gate_range *r = gate_find(g, iova);

	return r ? &n->range[r - g->range] : NULL;
}

static struct naive_range *any_range(struct world *w, struct naive_gate *n, enum gate_stage stage)
{
	unsigned first = (unsigned)rng_below(&w->rng, WORLD_RANGES);

	for (unsigned i = 0; i < WORLD_RANGES; i++) {
		struct naive_range *r = &n->range[(first + i) % WORLD_RANGES];

		if (r->used && r->stage == stage)
			return r;
	}
	return NULL;
}

static void declare(struct world *w, struct gate *g, struct naive_gate *n)
{
	unsigned at = (unsigned)rng_below(&w->rng, w->engine->blocks.n);
	const struct block *b = &w->engine->blocks.block[at];
	uint64_t units = b->length / GATE_PAGE, from = rng_below(&w->rng, units);
	struct gate_span span = {
		.iova = at * BLOCK_SPACE + rng_below(&w->rng, 4) * GATE_ADDRESSES +
			from * GATE_PAGE,
		.length = rng_between(&w->rng, 1, units - from) * GATE_PAGE,
		.block = at, .offset = from * GATE_PAGE, .directions = GATE_READS,
	};
	int ret = gate_map(g, &span);
	struct naive_range *r = ret == 0 ? find(n, g, span.iova) : NULL;

	must(w, ret == 0 || ret == -EEXIST || ret == -ENOSPC, "declare: %d", ret);
	if (!r)
		return;
	must(w, !r->used, "a range in the place of another");
	*r = (struct naive_range){
		.used = true, .iova = span.iova, .length = span.length,
		.page = block_page(b, span.offset),
	};
	r->n = block_page(b, span.offset + span.length - 1) - r->page + 1;
	for (uint64_t page = r->page; page < r->page + r->n; page++)
		n->known[page] |= w->naive.page[page].is == PAGE_PRESENT;
}

static void undeclare(struct world *w, struct gate *g, struct naive_gate *n)
{
	struct naive_range *r = any_range(w, n, (enum gate_stage)rng_below(&w->rng, 4));
	int want;

	if (!r)
		return;
	want = r->stage == GATE_MAPPING ? -EBUSY : 1;
	must(w, gate_unmap(g, r->iova, r->length) == want, "unmap: not %d", want);
	r->used = want < 0;
}

/* What is next; everything that is ready comes before there is nothing. */
static bool next(struct world *w, struct gate *g, struct naive_gate *n)
{
	uint64_t iova;
	enum gate_outcome outcome = gate_next(g, &iova);
	struct naive_range *r = outcome == GATE_READY ? find(n, g, iova) : NULL;

	if (r) {
		must(w, r->used && r->stage == GATE_WAITING, "a range that nobody waits for");
		must(w, all_present(w, r), "a range is ready and misses pages (I1)");
		r->stage = GATE_MAPPING;
		return true;
	}
	for (unsigned i = 0; i < WORLD_RANGES; i++) {
		r = &n->range[i];
		must(w, !r->used || r->stage != GATE_WAITING || missing(n, r),
		     "a range that is there is not ready");
		must(w, outcome != GATE_OPENED || !r->used ||
			     (r->stage == GATE_MAPPED && all_present(w, r)),
		     "the gate opens and something is not mapped (I3)");
	}
	return false;
}

static void answer(struct world *w, struct gate *g, struct naive_gate *n)
{
	struct naive_range *r = any_range(w, n, GATE_MAPPING);
	int error = !w->ending && rng_percent(&w->rng, 20) ? -ENOMEM : 0;

	if (!r)
		return;
	must(w, gate_mapped(g, r->iova, error) == 0, "mapped");
	r->stage = error ? GATE_FAILED : GATE_MAPPED;
}

static void again(struct world *w, struct gate *g, struct naive_gate *n)
{
	struct naive_range *r = any_range(w, n, GATE_FAILED);

	if (!r)
		return;
	must(w, gate_retry(g, r->iova) == 0, "retry");
	r->stage = GATE_WAITING;
}

/* One thing that happens to a gate. */
void gates_event(struct world *w)
{
	unsigned roll = (unsigned)rng_below(&w->rng, 100), at;
	struct naive_gate *n;
	struct gate *g;

	if (w->engine->n_gates == 0)
		return;
	at = (unsigned)rng_below(&w->rng, w->engine->n_gates);
	g = w->engine->gate[at];
	n = &w->naive.gate[at];
	hear(w, n);
	if (roll < 30)
		declare(w, g, n);
	else if (roll < 35)
		undeclare(w, g, n);
	else if (roll < 60)
		next(w, g, n);
	else if (roll < 85)
		answer(w, g, n);
	else if (roll < 95)
		again(w, g, n);
	else
		gate_seal(g);
}

/* --- the beginning and the end --------------------------------------------------------------- */

static void add(struct world *w)
{
	const struct gate_config config = {
		.ledger = &w->engine->ledger, .blocks = &w->engine->blocks,
		.ranges = (uint32_t)rng_between(&w->rng, 1, WORLD_RANGES), .enforced = true,
	};
	struct gate *g = calloc(1, sizeof(*g) + gate_size(config.ranges, KERNEL_PAGES));

	must(w, g, "no memory for a gate");
	gate_init(g, g + 1, &config);
	must(w, engine_add_gate(w->engine, g) == 0, "a gate");
}

/* Some are there before precopy, and some ranges too; some come when it is over. */
void gates_begin(struct world *w)
{
	while (w->engine->n_gates < WORLD_GATES && rng_percent(&w->rng, 60))
		add(w);
	for (unsigned i = 0; i < w->engine->n_gates; i++)
		declare(w, w->engine->gate[i], &w->naive.gate[i]);
}

/* The last discard is done. */
void gates_serve(struct world *w)
{
	uint64_t iova;

	for (unsigned i = 0; i < w->engine->n_gates; i++)
		must(w, gate_next(w->engine->gate[i], &iova) == GATE_NOTHING,
		     "something is ready before faults are served");
	gates_begin(w);
	for (unsigned i = 0; i < w->engine->n_gates; i++)
		gate_serve(w->engine->gate[i]);
}

static bool reaches_lost(const struct world *w, const struct naive_gate *n)
{
	for (unsigned i = 0; i < WORLD_RANGES; i++)
		for (uint64_t page = n->range[i].page;
		     n->range[i].used && page < n->range[i].page + n->range[i].n; page++)
			if (w->naive.page[page].is == PAGE_LOST ||
			    w->naive.page[page].is == PAGE_UNPLACED)
				return true;
	return false;
}

/* Nothing is missing any more but what was lost: all the others open. */
void gates_end(struct world *w)
{
	for (unsigned i = 0; i < w->engine->n_gates; i++) {
		struct naive_gate *n = &w->naive.gate[i];
		struct gate *g = w->engine->gate[i];

		hear(w, n);
		gate_seal(g);
		while (any_range(w, n, GATE_FAILED))
			again(w, g, n);
		do
			answer(w, g, n);
		while (next(w, g, n) || any_range(w, n, GATE_MAPPING));
		if (w->engine->window)
			must(w, (gate_may_run(g) == 0) == !reaches_lost(w, n),
			     "gate %u stays closed, %lu pages missing", i, g->missing);
		free(g);
	}
}

/* --- at every step ---------------------------------------------------------------------------- */

static void check_gate(struct world *w, struct gate *g, struct naive_gate *n)
{
	uint64_t pages = 0, sum = 0, bytes = 0;

	hear(w, n);
	for (unsigned i = 0; i < WORLD_RANGES; i++) {
		struct naive_range *r = &n->range[i];
		uint64_t count = r->used ? missing(n, r) : 0;

		if (!r->used)
			continue;
		must(w, gate_find(g, r->iova)->missing == count, "a range misses %lu, not %lu",
		     gate_find(g, r->iova)->missing, count);
		pages += r->n;
		sum += count;
		bytes += count << world_block(w, r->page)->page_shift;
		if (r->stage == GATE_MAPPING || r->stage == GATE_MAPPED)
			must(w, all_present(w, r), "a device reaches what is not there (I1)");
	}
	must(w, g->missing == sum && g->pages == pages && g->missing_bytes == bytes,
	     "%lu of %lu pages missing (%lu bytes), not %lu of %lu (%lu)", g->missing, g->pages,
	     g->missing_bytes, sum, pages, bytes);
}

/* I2, O7: also here, where the session refuses all discards. */
static void check_discard(struct world *w, struct gate *g, struct naive_gate *n)
{
	struct naive_range *r = any_range(w, n, GATE_MAPPED);
	const struct block *b = r ? world_block(w, r->page) : NULL;

	if (!r || w->engine->session.state < SESSION_LOADING)
		return;
	must(w,
	     engine_discard(w->engine, (unsigned)(b - w->engine->blocks.block),
			    block_offset(b, r->page), b->page_size) == -EBUSY &&
		     gate_find(g, r->iova)->missing == 0,
	     "a page was taken from a device (I2)");
}

void check_gates(struct world *w)
{
	for (unsigned i = 0; i < w->engine->n_gates; i++) {
		check_gate(w, w->engine->gate[i], &w->naive.gate[i]);
		check_discard(w, w->engine->gate[i], &w->naive.gate[i]);
	}
}
