/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The size of a log is what QEMU's vhost makes of the same regions, 8 bytes for each 256 KiB up to
 * the last address that is begun: back-ends check the bits they set against it.
 *
 * A walk reads a word before it exchanges it: most are zero, and a log that is only read stays in
 * the caches of those who write.
 */
#include "config.h"

#include "core/dirtylog.h"

#include <errno.h>
#include <stddef.h>

#include "core/guard.h"

#define WORD_BITS 64
#define WORD_SPAN ((uint64_t)DIRTYLOG_PAGE * WORD_BITS)

static bool is_whole(const struct dirtylog_region *r)
{
	uint64_t end;

	return r->size && add_u64(r->gpa, r->size, &end) && add_u64(r->offset, r->size, &end) &&
	       (r->gpa | r->size | r->offset) % DIRTYLOG_PAGE == 0;
}

/**
 * dirtylog_add - the back-ends are told of a region
 */
int dirtylog_add(struct dirtylog *d, const struct dirtylog_region *region)
{
	unsigned at = 0;

	if (!is_whole(region))
		return -EINVAL;
	if (d->n == DIRTYLOG_REGIONS)
		return -ENOSPC;
	while (at < d->n && d->region[at].gpa < region->gpa)
		at++;
	if (at > 0 && d->region[at - 1].gpa + d->region[at - 1].size > region->gpa)
		return -EEXIST;
	if (at < d->n && region->gpa + region->size > d->region[at].gpa)
		return -EEXIST;
	for (unsigned i = d->n++; i > at; i--)
		d->region[i] = d->region[i - 1];
	d->region[at] = *region;
	return 0;
}

/**
 * dirtylog_bytes - how large a log of these regions must be
 */
uint64_t dirtylog_bytes(const struct dirtylog *d)
{
	const struct dirtylog_region *last;

	if (d->n == 0)
		return 0;
	last = &d->region[d->n - 1];
	return ((last->gpa + last->size - 1) / WORD_SPAN + 1) * sizeof(uint64_t);
}

/**
 * dirtylog_gpa - what a front-end's address is to the guest
 *
 * A used ring is told by the former and logged at the latter.
 */
bool dirtylog_gpa(const struct dirtylog *d, uint64_t va, uint64_t *gpa)
{
	for (unsigned i = 0; i < d->n; i++) {
		const struct dirtylog_region *r = &d->region[i];

		if (va < r->va || va - r->va >= r->size)
			continue;
		*gpa = r->gpa + (va - r->va);
		return true;
	}
	return false;
}

/**
 * dirtylog_walk - begin a pass
 * @words: the log, which others write
 * @bytes: whole words
 */
void dirtylog_walk(struct dirtylog_walk *w, const struct dirtylog *log, uint64_t *words,
		   uint64_t bytes)
{
	*w = (struct dirtylog_walk){ .log = log, .words = words, .n = bytes / sizeof(*words) };
}

/* The release of who set a bit makes what it wrote before visible to who takes the bit. */
static uint64_t take(uint64_t *word)
{
	if (__atomic_load_n(word, __ATOMIC_RELAXED) == 0)
		return 0;
	return __atomic_exchange_n(word, 0, __ATOMIC_ACQ_REL);
}

/* The next word has been taken.  False at the end of the log. */
static bool next_word(struct dirtylog_walk *w)
{
	while (w->bits == 0 && w->at < w->n)
		w->bits = take(&w->words[w->at++]);
	return w->bits != 0;
}

/* The first run of ones in what is left of the word, which loses it: pages [*first, *end). */
static void cut_run(struct dirtylog_walk *w, uint64_t *first, uint64_t *end)
{
	unsigned from = (unsigned)__builtin_ctzll(w->bits);
	uint64_t rest = ~(w->bits >> from);
	unsigned ones = rest ? (unsigned)__builtin_ctzll(rest) : WORD_BITS;

	*first = (w->at - 1) * WORD_BITS + from;
	*end = *first + ones;
	w->bits &= from + ones < WORD_BITS ? ~UINT64_C(0) << (from + ones) : 0;
}

/* The run goes on where the next word begins with ones. */
static void extend_run(struct dirtylog_walk *w, uint64_t *end)
{
	uint64_t first, more;

	while (w->bits == 0 && *end == w->at * WORD_BITS && w->at < w->n) {
		w->bits = take(&w->words[w->at++]);
		if (!(w->bits & 1))
			return;
		cut_run(w, &first, &more);
		*end = more;
	}
}

static bool next_run(struct dirtylog_walk *w)
{
	uint64_t first, end;

	if (!next_word(w))
		return false;
	cut_run(w, &first, &end);
	extend_run(w, &end);
	w->start = first * DIRTYLOG_PAGE;
	w->end = end * DIRTYLOG_PAGE;
	return true;
}

/* Go on to the region that holds w->start, or begins behind it.  NULL: there is none. */
static const struct dirtylog_region *find_region(struct dirtylog_walk *w)
{
	while (w->region < w->log->n) {
		const struct dirtylog_region *r = &w->log->region[w->region];

		if (w->start - r->gpa < r->size || w->start < r->gpa)
			return r;
		w->region++;
	}
	return NULL;
}

/* The first part of the run that is in a region; the run loses what is before and what is given. */
static bool cut_range(struct dirtylog_walk *w, struct dirtylog_range *range)
{
	const struct dirtylog_region *r = find_region(w);
	uint64_t from = r && r->gpa > w->start ? r->gpa : w->start, to;

	if (!r || from >= w->end) {
		w->strays += (w->end - w->start) / DIRTYLOG_PAGE;
		w->start = w->end;
		return false;
	}
	w->strays += (from - w->start) / DIRTYLOG_PAGE;
	to = w->end - r->gpa < r->size ? w->end : r->gpa + r->size;
	*range = (struct dirtylog_range){ r->block, r->offset + (from - r->gpa), to - from };
	w->start = to;
	return true;
}

/**
 * dirtylog_next - the next part of a block that somebody wrote to
 *
 * Return: false at the end of the pass; w->strays is how many pages were in no region.
 */
bool dirtylog_next(struct dirtylog_walk *w, struct dirtylog_range *range)
{
	do {
		while (w->start < w->end)
			if (cut_range(w, range))
				return true;
	} while (next_run(w));
	return false;
}
