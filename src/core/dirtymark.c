/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A tracker's bitmap begins where its mapping does, and its pages may be larger than those of the
 * log.  It is taken run by run: what is dirty mostly is so in runs, and what is clean costs a
 * comparison for 64 pages.
 */
#include "config.h"

#include "core/dirtymark.h"

#include <assert.h>

#include "core/dirtylog.h"
#include "core/guard.h"

#define WORD_BITS 64

/**
 * dirtymark_init - add to a log of @bytes, which is whole words
 */
void dirtymark_init(struct dirtymark *m, uint64_t *words, uint64_t bytes)
{
	*m = (struct dirtymark){ .words = words, .pages = bytes * 8 };
}

/* Bits [first, end) of the word that has them; whoever takes them sees what was written before. */
static void set_in_word(struct dirtymark *m, uint64_t first, uint64_t end)
{
	uint64_t ones = ~UINT64_C(0) >> (WORD_BITS - (end - first)) << first % WORD_BITS;

	__atomic_fetch_or(&m->words[first / WORD_BITS], ones, __ATOMIC_RELEASE);
}

static void set_pages(struct dirtymark *m, uint64_t first, uint64_t end)
{
	uint64_t last = end < m->pages ? end : m->pages;

	m->strays += end - (first < last ? last : first);
	while (first < last) {
		uint64_t stop = (first / WORD_BITS + 1) * WORD_BITS;

		stop = stop < last ? stop : last;
		set_in_word(m, first, stop);
		first = stop;
	}
}

/**
 * dirtymark_range - a part of memory is dirty, whatever is in it
 *
 * What reaches past the end of the addresses ends there.
 */
void dirtymark_range(struct dirtymark *m, uint64_t start, uint64_t length)
{
	uint64_t end;

	if (length == 0)
		return;
	if (!add_u64(start, length - 1, &end))
		end = UINT64_MAX;
	set_pages(m, start / DIRTYLOG_PAGE, end / DIRTYLOG_PAGE + 1);
}

static bool is_set(const uint64_t *bits, uint64_t i)
{
	return bits[i / WORD_BITS] >> i % WORD_BITS & 1;
}

/* The first set bit from @i on, or @n. */
static uint64_t next_set(const uint64_t *bits, uint64_t i, uint64_t n)
{
	while (i < n) {
		uint64_t rest = bits[i / WORD_BITS] >> i % WORD_BITS;

		if (rest)
			return i + (unsigned)__builtin_ctzll(rest);
		i = (i / WORD_BITS + 1) * WORD_BITS;
	}
	return n;
}

/**
 * dirtymark_bitmap - what a tracker found
 * @bits: whole words; what is behind @n is not looked at
 */
void dirtymark_bitmap(struct dirtymark *m, uint64_t start, uint64_t page, const uint64_t *bits,
		      uint64_t n)
{
	uint64_t first, end, bytes;

	assert(is_power_of_two(page) && page >= DIRTYLOG_PAGE && start % DIRTYLOG_PAGE == 0);
	assert(mul_u64(n, page, &bytes) && add_u64(start, bytes, &end));
	for (first = next_set(bits, 0, n); first < n; first = next_set(bits, end, n)) {
		for (end = first + 1; end < n && is_set(bits, end);)
			end++;
		dirtymark_range(m, start + first * page, (end - first) * page);
	}
}
