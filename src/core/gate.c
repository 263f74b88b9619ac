/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A device writes to memory by its address on the bus, asks nobody, and cannot wait for a page: on
 * its way there is an IOMMU at best, which knows frames that were pinned.  So before it runs
 * everything it can reach must be there, and stay the same pages from then on:
 *
 *   - a range is mapped after its last page is there, and not before (I1): mapping pins, and a
 *     missing page makes that fail, or be filled with zeroes, or wait page by page;
 *   - no page is discarded that a device reaches, or may be given to it right now (I2): the device
 *     would keep the old one and the guest get another.  All discards are done before gate_serve(),
 *     all mappings are made behind it;
 *   - the gate opens when the set is whole and every range of it is mapped (I3).
 *
 * A page counts as there when it is PRESENT in the ledger.  A hole known to be zero (ZERO), or a
 * page that is held elsewhere (STORED), is missing.  Each range is to be wanted once, as CLASS_DMA
 * (gate_want()): then what is missing comes, what is zero is placed, and what is stored is placed
 * in any case, by and by.  The ledger is read once for each range, when it
 * is declared; from then on gate_present() tells.  With a bulk thread a page can be PRESENT there
 * before it is told here, so there is a bit for each page, by which it is counted once, whichever
 * way it is heard of.
 *
 * A range passes from WAITING to MAPPING when the caller is told to map it, and only its answer
 * ends that; what it answers late is about that very mapping, since the addresses cannot be given
 * away meanwhile.
 *
 * Without an IOMMU a set is what a driver says it is.  Then one that comes after the device ran
 * comes late: what it wrote before is known to nobody.  The range is counted all the same, but the
 * gate is tainted, until the device was reset.
 */
#include "config.h"
#include "core/gate_parts.h"

#include <assert.h>
#include <errno.h>

#include "core/guard.h"

#define WORD_BITS 64

/* --- memory --- */

static uint64_t words_for(uint64_t pages)
{
	return (pages + WORD_BITS - 1) / WORD_BITS;
}

/**
 * gate_size - bytes of memory for a gate
 *
 * Of the blocks the number of pages is final, as it is once there is a ledger.
 */
size_t gate_size(uint32_t ranges, uint64_t pages)
{
	size_t each = sizeof(struct gate_range) + sizeof(uint64_t) + 2 * sizeof(uint32_t);

	return ranges * each + words_for(pages) * sizeof(uint64_t);
}

/**
 * gate_init - a closed gate, with nothing in its set
 * @memory: zeroed, gate_size() bytes; stays the caller's
 */
void gate_init(struct gate *g, void *memory, const struct gate_config *config)
{
	uint32_t n = config->ranges;

	*g = (struct gate){ .config = *config, .range = memory };
	g->reach = (uint64_t *)(g->range + n);
	g->known = g->reach + n;
	g->by_iova = (uint32_t *)(g->known + words_for(config->blocks->pages));
	g->by_page = g->by_iova + n;
	for (uint32_t i = 0; i < n; i++)
		g->range[i].next = i + 1 < n ? i + 1 : GATE_NONE;
	g->free = n ? 0 : GATE_NONE;
	g->head = g->tail = GATE_NONE;
}

/* --- what is ready --- */

static void enqueue(struct gate *g, uint32_t index)
{
	struct gate_range *r = &g->range[index];

	if (r->missing || r->stage != GATE_WAITING || r->queued)
		return;
	r->queued = true;
	r->next = GATE_NONE;
	if (g->head == GATE_NONE)
		g->head = index;
	else
		g->range[g->tail].next = index;
	g->tail = index;
}

static struct gate_range *dequeue(struct gate *g)
{
	struct gate_range *r = &g->range[g->head];

	g->head = r->next;
	r->queued = false;
	return r;
}

/* Rare: a range that is ready goes away before it was taken. */
static void unqueue(struct gate *g, uint32_t index)
{
	uint32_t *link = &g->head, last = GATE_NONE;

	while (*link != index) {
		last = *link;
		link = &g->range[last].next;
	}
	*link = g->range[index].next;
	if (g->tail == index)
		g->tail = last;
	g->range[index].queued = false;
}

/* --- pages --- */

/* How many pages from @page on, below @end, are known, or are not. */
static uint64_t run_of(const struct gate *g, uint64_t page, uint64_t end, bool known)
{
	uint64_t at = page;

	while (at < end) {
		uint64_t word = g->known[at / WORD_BITS] ^ (known ? ~UINT64_C(0) : 0);

		word >>= at % WORD_BITS;
		if (word) {
			at += (uint64_t)__builtin_ctzll(word);
			break;
		}
		at += WORD_BITS - at % WORD_BITS;
	}
	return (at < end ? at : end) - page;
}

static uint64_t overlap(const struct gate_range *r, uint64_t page, uint64_t n)
{
	uint64_t from = r->first > page ? r->first : page;
	uint64_t to = r->first + r->pages < page + n ? r->first + r->pages : page + n;

	return to - from;
}

static void flip(struct gate *g, uint64_t page, uint64_t n)
{
	while (n) {
		unsigned from = page % WORD_BITS;
		uint64_t some = n < WORD_BITS - from ? n : WORD_BITS - from;

		g->known[page / WORD_BITS] ^= ~UINT64_C(0) >> (WORD_BITS - some) << from;
		page += some;
		n -= some;
	}
}

static unsigned shift_of(const struct gate *g, const struct gate_range *r)
{
	return g->config.blocks->block[r->span.block].page_shift;
}

/* So many pages more of a range are missing; less, modulo 2^64. */
static void add_missing(struct gate *g, struct gate_range *r, uint64_t pages)
{
	r->missing += pages;
	g->missing += pages;
	g->missing_bytes += pages << shift_of(g, r);
}

/* All of them come, or go: the ranges they are in hear of it. */
static void turn(struct gate *g, uint64_t page, uint64_t n, bool known)
{
	uint32_t at = 0, index;

	flip(g, page, n);
	while ((at = gate_index_pages(g, page, n, at, &index)) != 0) {
		struct gate_range *r = &g->range[index];
		uint64_t pages = overlap(r, page, n);

		add_missing(g, r, known ? -pages : pages);
		r->wanted &= known;
		if (!r->wanted && index < g->want)
			g->want = index;
		enqueue(g, index);
	}
}

static void turn_all(struct gate *g, uint64_t page, uint64_t n, bool known)
{
	uint64_t end = page + n;

	while (page < end) {
		uint64_t other = run_of(g, page, end, known);
		uint64_t run = run_of(g, page + other, end, !known);

		turn(g, page + other, run, known);
		page += other + run;
	}
}

/**
 * gate_present - pages are there, with the content they will have
 */
void gate_present(struct gate *g, uint64_t page, uint64_t n)
{
	turn_all(g, page, n, true);
}

/**
 * gate_reached - does a device reach one of these pages, or may it be given to one right now?
 */
bool gate_reached(struct gate *g, uint64_t page, uint64_t n)
{
	uint32_t at = 0, index;

	while ((at = gate_index_pages(g, page, n, at, &index)) != 0) {
		enum gate_stage stage = g->range[index].stage;

		if (stage == GATE_MAPPING || stage == GATE_MAPPED)
			return true;
	}
	return false;
}

/**
 * gate_discard - may pages go?
 *
 * Return: 0, and they count as missing from now on; -EBUSY: a device reaches one of them, or is
 * about to.
 */
int gate_discard(struct gate *g, uint64_t page, uint64_t n)
{
	if (gate_reached(g, page, n))
		return -EBUSY;
	turn_all(g, page, n, false);
	return 0;
}

/**
 * gate_want - the next range to ask for ahead of need
 * @page, @n: all of it, also what is there already
 *
 * Each once; again when pages of it were discarded since.
 *
 * Return: false: everything was told of.
 */
bool gate_want(struct gate *g, uint64_t *page, uint64_t *n)
{
	for (; g->want < g->used; g->want++) {
		struct gate_range *r = &g->range[g->want];

		if (r->wanted || r->missing == 0)
			continue;
		r->wanted = true;
		*page = r->first;
		*n = r->pages;
		return true;
	}
	return false;
}

/* What the ledger says is there: heard of now, if it was not before. */
static void read_ledger(struct gate *g, uint64_t page, uint64_t end)
{
	const struct ledger *l = g->config.ledger;

	while (page < end) {
		uint64_t from = ledger_find(l, page, end, PAGE_PRESENT);
		uint64_t n = ledger_run(l, from, end, PAGE_PRESENT);

		gate_present(g, from, n);
		page = from + n;
	}
}

static uint64_t count_missing(const struct gate *g, uint64_t page, uint64_t end)
{
	uint64_t missing = 0;

	while (page < end) {
		uint64_t n = run_of(g, page, end, false);

		missing += n;
		page += n;
		page += run_of(g, page, end, true);
	}
	return missing;
}

/* --- the set --- */

/* Is it of whole pages, inside its block and the addresses, and for something? */
static bool is_possible(const struct gate *g, const struct gate_span *s)
{
	uint64_t last;

	if ((s->iova | s->length | s->offset) % GATE_PAGE != 0 || s->block >= g->config.blocks->n)
		return false;
	if (!range_inside(s->offset, s->length, g->config.blocks->block[s->block].length))
		return false;
	return add_u64(s->iova, s->length - 1, &last) && s->class < GATE_CLASSES &&
	       !(s->directions & ~(unsigned)(GATE_READS | GATE_WRITES)) &&
	       (s->directions || s->class == GATE_COHERENT);
}

static struct gate_range new_range(const struct gate *g, const struct gate_span *s)
{
	const struct block *b = &g->config.blocks->block[s->block];
	uint64_t first = block_page(b, s->offset);
	uint64_t last = block_page(b, s->offset + (s->length - 1));
	struct gate_range r = { .span = *s, .first = first, .pages = last - first + 1 };

	if (s->class == GATE_COHERENT)
		r.span.directions = GATE_READS | GATE_WRITES;
	return r;
}

/**
 * gate_map - devices shall reach a part of a block
 *
 * Of huge pages it needs all that it has a part of.  The caller asks for what is missing, as
 * CLASS_DMA, before anybody maps (S2-09).
 *
 * Return: 0, then or later gate_next() says that it is ready; -EINVAL: no device can have that
 * range; -EEXIST: some of its addresses are in use; -ENOSPC.
 */
int gate_map(struct gate *g, const struct gate_span *span)
{
	struct gate_range *r;
	uint32_t at, index = g->free;

	if (!is_possible(g, span))
		return -EINVAL;
	at = gate_index_iova(g, span->iova);
	if (at < g->n && g->range[g->by_iova[at]].span.iova <= span->iova + (span->length - 1))
		return -EEXIST;
	if (index == GATE_NONE)
		return -ENOSPC;
	r = &g->range[index];
	g->free = r->next;
	*r = new_range(g, span);
	read_ledger(g, r->first, r->first + r->pages);
	add_missing(g, r, count_missing(g, r->first, r->first + r->pages));
	g->pages += r->pages;
	g->bytes += r->pages << shift_of(g, r);
	if (index < g->want)
		g->want = index;
	if (index >= g->used)
		g->used = index + 1;
	gate_index_add(g, index);
	enqueue(g, index);
	g->tainted |= g->ran && !g->config.enforced;
	g->told = false;
	return 0;
}

/* Ranges [from, to) of by_iova are all there is between two addresses, and none of them is cut. */
static bool whole_ranges(const struct gate *g, uint64_t iova, uint64_t last, uint32_t *from,
			 uint32_t *to)
{
	*from = *to = gate_index_iova(g, iova);
	while (*to < g->n) {
		const struct gate_span *s = &g->range[g->by_iova[*to]].span;

		if (s->iova > last)
			break;
		if (s->iova < iova || s->iova + (s->length - 1) > last)
			return false;
		++*to;
	}
	return true;
}

static void drop(struct gate *g, uint32_t index)
{
	struct gate_range *r = &g->range[index];

	if (r->queued)
		unqueue(g, index);
	gate_index_remove(g, index);
	add_missing(g, r, -r->missing);
	g->pages -= r->pages;
	g->bytes -= r->pages << shift_of(g, r);
	g->mapped -= r->stage == GATE_MAPPED;
	g->failed -= r->stage == GATE_FAILED;
	r->next = g->free;
	g->free = index;
}

/**
 * gate_unmap - devices reach these addresses no more
 *
 * Called after the mapping is gone: from now on its pages may be discarded.
 *
 * Return: how many ranges that were, also none; -EINVAL: it would cut one in two; -EBUSY: somebody
 * was told to map one, and has not said how that ended.  Nothing changes then.
 */
int gate_unmap(struct gate *g, uint64_t iova, uint64_t length)
{
	uint32_t from, to;
	uint64_t last;

	if (length == 0 || !add_u64(iova, length - 1, &last) ||
	    !whole_ranges(g, iova, last, &from, &to))
		return -EINVAL;
	for (uint32_t at = from; at < to; at++)
		if (g->range[g->by_iova[at]].stage == GATE_MAPPING)
			return -EBUSY;
	for (uint32_t left = to - from; left > 0; left--)
		drop(g, g->by_iova[from]);
	return (int)(to - from);
}

/**
 * gate_clear - nothing is reached any more, and nobody said what will be
 *
 * For whoever comes after one who took all its mappings along; those under way count as gone, too.
 */
void gate_clear(struct gate *g)
{
	while (g->n > 0)
		drop(g, g->by_iova[g->n - 1]);
	g->sealed = false;
	gate_reset(g);
}

/**
 * gate_seal - everything that devices reach is in the set
 *
 * Ranges may come and go after it.
 */
void gate_seal(struct gate *g)
{
	g->sealed = true;
}

/**
 * gate_walk - go through what devices may have written
 * @length: not 0, and inside the addresses
 */
void gate_walk(struct gate_walk *w, const struct gate *g, uint64_t iova, uint64_t length)
{
	*w = (struct gate_walk){ .gate = g, .iova = iova, .last = iova + (length - 1) };
	w->at = gate_index_iova(g, iova);
}

/**
 * gate_written - the next part of a block, ascending by device addresses
 *
 * Return: false: that was all.  The set must not change meanwhile.
 */
bool gate_written(struct gate_walk *w, struct gate_piece *piece)
{
	while (w->at < w->gate->n) {
		const struct gate_span *s = &w->gate->range[w->gate->by_iova[w->at]].span;
		uint64_t end = s->iova + (s->length - 1);
		uint64_t from = s->iova > w->iova ? s->iova : w->iova;
		uint64_t to = end < w->last ? end : w->last;

		if (s->iova > w->last)
			return false;
		w->at++;
		if (!(s->directions & GATE_WRITES))
			continue;
		*piece = (struct gate_piece){ s->block, s->offset + (from - s->iova),
					      to - from + 1 };
		return true;
	}
	return false;
}

/* --- devices --- */

/**
 * gate_serve - from now on ranges may be mapped
 */
void gate_serve(struct gate *g)
{
	g->serving = true;
}

/**
 * gate_next - the next thing to do
 * @iova: of a READY range, which the caller maps
 *
 * A range can have been ready and have lost a page again, before anybody was told; it comes again
 * when the page does.
 */
enum gate_outcome gate_next(struct gate *g, uint64_t *iova)
{
	while (g->serving && g->head != GATE_NONE) {
		struct gate_range *r = dequeue(g);

		if (r->missing)
			continue;
		r->stage = GATE_MAPPING;
		*iova = r->span.iova;
		return GATE_READY;
	}
	if (g->told || gate_may_run(g) != 0)
		return GATE_NOTHING;
	g->told = true;
	return GATE_OPENED;
}

static struct gate_range *find(const struct gate *g, uint64_t iova)
{
	uint32_t at = gate_index_iova(g, iova);

	if (at == g->n || g->range[g->by_iova[at]].span.iova != iova)
		return NULL;
	return &g->range[g->by_iova[at]];
}

/**
 * gate_find - the range that begins at a device address, or NULL
 */
const struct gate_range *gate_find(const struct gate *g, uint64_t iova)
{
	return find(g, iova);
}

/**
 * gate_mapped - how the mapping of a READY range ended
 * @err: 0 or -errno: the gate stays closed, until gate_retry() or gate_unmap()
 *
 * Return: 0; -ENOENT: nobody was told to map such a range.
 */
int gate_mapped(struct gate *g, uint64_t iova, int err)
{
	struct gate_range *r = find(g, iova);

	if (!r || r->stage != GATE_MAPPING)
		return -ENOENT;
	r->stage = err ? GATE_FAILED : GATE_MAPPED;
	r->error = err;
	g->mapped += !err;
	g->failed += err != 0;
	return 0;
}

/**
 * gate_retry - a range that could not be mapped is to be mapped
 *
 * Return: 0; -ENOENT: there is none there that failed.
 */
int gate_retry(struct gate *g, uint64_t iova)
{
	struct gate_range *r = find(g, iova);

	if (!r || r->stage != GATE_FAILED)
		return -ENOENT;
	r->stage = GATE_WAITING;
	r->error = 0;
	g->failed--;
	enqueue(g, (uint32_t)(r - g->range));
	return 0;
}

/**
 * gate_may_run - may a device leave STOP or RESUMING for a state in which it reaches memory?
 *
 * Return: 0; -EPERM: never, before a reset; -EBUSY: not yet, g->missing pages are missing, or what
 * is there is not mapped, or nobody said that the set is whole.
 */
int gate_may_run(const struct gate *g)
{
	if (g->tainted)
		return -EPERM;
	return g->serving && g->sealed && g->mapped == g->n ? 0 : -EBUSY;
}

/**
 * gate_ran - a device was given a state in which it reaches memory
 */
void gate_ran(struct gate *g)
{
	g->ran = true;
}

/**
 * gate_reset - no device of this gate does anything any more
 */
void gate_reset(struct gate *g)
{
	g->ran = g->tainted = g->told = false;
}

/**
 * gate_blocker - why there can be no migration, or NULL
 */
const char *gate_blocker(const struct gate *g)
{
	return g->tainted ? "untracked-dma" : NULL;
}
