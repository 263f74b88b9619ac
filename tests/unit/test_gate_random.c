/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A gate against a list of ranges that is gone through from its beginning each time, and a byte for
 * each page: at no time is a range given out that has a page missing, and none is forgotten (F47,
 * S0-08, S2-10).
 */
#include "config.h"

#include "core/gate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "lib/rng.h"

#define P UINT64_C(4096)

enum { SMALL = 96, HUGE = 8, PAGES = SMALL + HUGE, RANGES = 12, IOVAS = 160, HUGE_PAGES = 4 };

struct naive_range {
	bool used;
	struct gate_span span;
	enum gate_stage stage;
};

struct world {
	struct rng rng;
	struct block_table blocks;
	struct ledger ledger;
	struct gate gate;
	void *pages, *memory;
	struct naive_range range[RANGES];
	bool there[PAGES];	/* in the ledger */
	bool known[PAGES];	/* heard of */
	bool serving, sealed, told;
	unsigned long ready, opened, busy, refused;
};

/* Which pages a span needs: block 1 has pages of HUGE_PAGES small ones. */
static void pages_of(const struct gate_span *s, uint64_t *first, uint64_t *end)
{
	uint64_t size = s->block ? HUGE_PAGES * P : P;

	*first = s->offset / size;
	*end = (s->offset + s->length + size - 1) / size;
	if (s->block) {
		*first += SMALL;
		*end += SMALL;
	}
}

static unsigned missing_of(const struct world *w, const struct naive_range *r)
{
	uint64_t first, end;
	unsigned n = 0;

	pages_of(&r->span, &first, &end);
	for (; first < end; first++)
		n += !w->known[first];
	return n;
}

static bool has_page(const struct naive_range *r, uint64_t page)
{
	uint64_t first, end;

	pages_of(&r->span, &first, &end);
	return r->used && page >= first && page < end;
}

static struct naive_range *naive_find(struct world *w, uint64_t iova)
{
	for (unsigned i = 0; i < RANGES; i++)
		if (w->range[i].used && w->range[i].span.iova == iova)
			return &w->range[i];
	return NULL;
}

static int naive_may_run(const struct world *w)
{
	for (unsigned i = 0; i < RANGES; i++)
		if (w->range[i].used && w->range[i].stage != GATE_MAPPED)
			return -EBUSY;
	return w->serving && w->sealed ? 0 : -EBUSY;
}

/* --- events --- */

static struct gate_span random_span(struct world *w)
{
	struct gate_span s = { .block = (unsigned)rng_below(&w->rng, 2) };
	uint64_t limit = s.block ? HUGE * HUGE_PAGES : SMALL;
	uint64_t from = rng_below(&w->rng, limit);

	s.iova = rng_below(&w->rng, IOVAS) * P;
	s.offset = from * P;
	s.length = rng_between(&w->rng, 1, rng_percent(&w->rng, 10) ? limit - from : 4) * P;
	if (s.offset + s.length > limit * P)
		s.length = limit * P - s.offset;
	s.directions = (unsigned)rng_between(&w->rng, 1, 3);
	return s;
}

static bool overlaps(const struct gate_span *a, uint64_t iova, uint64_t length)
{
	return a->iova < iova + length && iova < a->iova + a->length;
}

static int naive_map(struct world *w, const struct gate_span *s)
{
	struct naive_range *free = NULL;
	uint64_t first, end;

	for (unsigned i = 0; i < RANGES; i++) {
		if (w->range[i].used && overlaps(&w->range[i].span, s->iova, s->length))
			return -EEXIST;
		if (!w->range[i].used)
			free = &w->range[i];
	}
	if (!free)
		return -ENOSPC;
	*free = (struct naive_range){ true, *s, GATE_WAITING };
	pages_of(s, &first, &end);
	for (; first < end; first++)
		w->known[first] |= w->there[first];
	w->told = false;
	return 0;
}

static void do_map(struct world *w)
{
	struct gate_span s = random_span(w);
	int err = gate_map(&w->gate, &s);

	cr_assert_eq(err, naive_map(w, &s));
	w->refused += err != 0;
}

static int naive_unmap(struct world *w, uint64_t iova, uint64_t length)
{
	bool busy = false, cut = false;
	int n = 0;

	for (unsigned i = 0; i < RANGES; i++) {
		const struct naive_range *r = &w->range[i];

		if (!r->used || !overlaps(&r->span, iova, length))
			continue;
		cut |= r->span.iova < iova ||
		       r->span.iova + r->span.length > iova + length;
		busy |= r->stage == GATE_MAPPING;
	}
	if (cut || busy)
		return cut ? -EINVAL : -EBUSY;
	for (unsigned i = 0; i < RANGES; i++)
		if (w->range[i].used && overlaps(&w->range[i].span, iova, length)) {
			w->range[i].used = false;
			n++;
		}
	return n;
}

static void do_unmap(struct world *w)
{
	uint64_t iova = rng_below(&w->rng, IOVAS) * P;
	uint64_t length = rng_between(&w->rng, 1, 24) * P;
	const struct naive_range *r = &w->range[rng_below(&w->rng, RANGES)];

	if (r->used && rng_percent(&w->rng, 70)) {
		iova = r->span.iova;
		length = r->span.length;
	}
	cr_assert_eq(gate_unmap(&w->gate, iova, length), naive_unmap(w, iova, length));
}

/* The ledger has it first; the gate is told then, later, or again. */
static void do_place(struct world *w)
{
	uint64_t page = rng_below(&w->rng, PAGES);

	w->there[page] = true;
	ledger_set(&w->ledger, page, 1, PAGE_PRESENT);
}

static void do_tell(struct world *w)
{
	uint64_t page = rng_below(&w->rng, PAGES), n = 0;

	while (n < 16 && page + n < PAGES && w->there[page + n])
		w->known[page + n++] = true;
	gate_present(&w->gate, page, n);
}

static void do_discard(struct world *w)
{
	uint64_t page = rng_below(&w->rng, PAGES), n = rng_between(&w->rng, 1, 12);
	bool busy = false;

	if (page + n > PAGES)
		n = PAGES - page;
	for (unsigned i = 0; i < RANGES; i++)
		for (uint64_t p = page; p < page + n; p++)
			busy |= has_page(&w->range[i], p) && (w->range[i].stage == GATE_MAPPING ||
							      w->range[i].stage == GATE_MAPPED);
	cr_assert_eq(gate_discard(&w->gate, page, n), busy ? -EBUSY : 0);
	w->busy += busy;
	if (busy)
		return;
	memset(&w->known[page], false, n);
	memset(&w->there[page], false, n);
	ledger_set(&w->ledger, page, n, PAGE_MISSING);
}

static void do_next(struct world *w)
{
	uint64_t iova = 0;
	enum gate_outcome out = gate_next(&w->gate, &iova);
	struct naive_range *r = naive_find(w, iova);
	unsigned ready = 0;

	for (unsigned i = 0; i < RANGES; i++)
		ready += w->serving && w->range[i].used && w->range[i].stage == GATE_WAITING &&
			 missing_of(w, &w->range[i]) == 0;
	if (out == GATE_READY) {
		cr_assert(ready && r && r->stage == GATE_WAITING && missing_of(w, r) == 0);
		r->stage = GATE_MAPPING;
		w->ready++;
		return;
	}
	cr_assert_eq(ready, 0, "a range is forgotten");
	cr_assert_eq(out == GATE_OPENED, !w->told && naive_may_run(w) == 0);
	w->told |= out == GATE_OPENED;
	w->opened += out == GATE_OPENED;
}

static void do_mapped(struct world *w)
{
	struct naive_range *r = &w->range[rng_below(&w->rng, RANGES)];
	bool ours = r->used && r->stage == GATE_MAPPING;
	int err = rng_percent(&w->rng, 10) ? -ENOMEM : 0;

	if (!r->used)
		return;
	cr_assert_eq(gate_mapped(&w->gate, r->span.iova, err), ours ? 0 : -ENOENT);
	if (ours)
		r->stage = err ? GATE_FAILED : GATE_MAPPED;
}

static void do_retry(struct world *w)
{
	struct naive_range *r = &w->range[rng_below(&w->rng, RANGES)];
	bool failed = r->used && r->stage == GATE_FAILED;

	if (!r->used)
		return;
	cr_assert_eq(gate_retry(&w->gate, r->span.iova), failed ? 0 : -ENOENT);
	if (failed)
		r->stage = GATE_WAITING;
}

/* Of random addresses, byte by byte of a page's first. */
static void do_walk(struct world *w)
{
	uint64_t iova = rng_below(&w->rng, IOVAS) * P, length = rng_between(&w->rng, 1, 30) * P;
	unsigned written = 0;
	struct gate_piece piece;
	struct gate_walk walk;

	for (unsigned i = 0; i < RANGES; i++)
		for (uint64_t at = iova; at < iova + length; at += P)
			written += w->range[i].used && (w->range[i].span.directions & 2) &&
				   overlaps(&w->range[i].span, at, P);
	gate_walk(&walk, &w->gate, iova, length);
	while (gate_written(&walk, &piece))
		written -= (unsigned)(piece.length / P);
	cr_assert_eq(written, 0);
}

/* All pages come; whoever maps is quick and has luck, mostly. */
static void do_flood(struct world *w)
{
	if (!rng_percent(&w->rng, 10))
		return;
	for (uint64_t page = 0; page < PAGES; page++) {
		w->there[page] = w->known[page] = true;
		ledger_set(&w->ledger, page, 1, PAGE_PRESENT);
	}
	gate_present(&w->gate, 0, PAGES);
	for (unsigned i = 0; i < 200; i++) {
		do_next(w);
		do_mapped(w);
		do_retry(w);
	}
}

static void check(struct world *w)
{
	unsigned missing = 0, n = 0;

	for (unsigned i = 0; i < RANGES; i++) {
		const struct naive_range *r = &w->range[i];
		const struct gate_range *got = gate_find(&w->gate, r->span.iova);

		if (!r->used)
			continue;
		n++;
		missing += missing_of(w, r);
		cr_assert_not_null(got);
		cr_assert_eq(got->missing, missing_of(w, r));
		cr_assert_eq(got->stage, r->stage);
		if (r->stage == GATE_MAPPING || r->stage == GATE_MAPPED)
			cr_assert_eq(got->missing, 0, "a device reaches what is not there");
	}
	cr_assert_eq(w->gate.n, n);
	cr_assert_eq(w->gate.missing, missing);
	cr_assert_eq(gate_may_run(&w->gate), naive_may_run(w));
}

static void set_up(struct world *w)
{
	struct gate_config config = {
		.ledger = &w->ledger, .blocks = &w->blocks, .ranges = RANGES, .enforced = true,
	};

	block_add(&w->blocks, "small", SMALL * P, P, BLOCK_SHARED);
	block_add(&w->blocks, "huge", HUGE * HUGE_PAGES * P, HUGE_PAGES * P, BLOCK_SHARED);
	w->pages = calloc(1, ledger_size(PAGES));
	cr_assert_eq(ledger_init(&w->ledger, w->pages, ledger_size(PAGES), PAGES), 0);
	ledger_set(&w->ledger, 0, PAGES, PAGE_MISSING);
	w->memory = calloc(1, gate_size(config.ranges, config.blocks->pages));
	gate_init(&w->gate, w->memory, &config);
}

static void one_session(struct world *w, unsigned events)
{
	static void (*const doings[])(struct world *w) = {
		do_map, do_map, do_unmap, do_place, do_place, do_place, do_place, do_tell, do_tell,
		do_tell, do_discard, do_next, do_next, do_mapped, do_mapped, do_retry, do_walk,
		do_flood,
	};

	set_up(w);
	for (unsigned i = 0; i < events; i++) {
		doings[rng_below(&w->rng, ARRAY_LEN(doings))](w);
		if (i == events / 8) {
			gate_serve(&w->gate);
			w->serving = true;
		}
		if (i == events / 4) {
			gate_seal(&w->gate);
			w->sealed = true;
		}
		check(w);
	}
	free(w->pages);
	free(w->memory);
}

Test(gate, against_a_naive_one, .timeout = 300)
{
	bool more = getenv("POSTCOPY_TESTS_LONG") != NULL;
	unsigned long ready = 0, opened = 0, busy = 0, refused = 0;
	struct rng rng = { .state = rng_seed() };

	for (unsigned i = 0; i < (more ? 4000 : 200); i++) {
		struct world w = { .rng = { .state = rng_next(&rng) } };

		one_session(&w, 2000);
		ready += w.ready;
		opened += w.opened;
		busy += w.busy;
		refused += w.refused;
	}
	cr_assert(ready > 1000 && opened > 10 && busy > 1000 && refused > 1000,
		  "ready %lu, opened %lu, busy %lu, refused %lu", ready, opened, busy, refused);
}
