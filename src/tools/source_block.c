// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Content by page number, and three bitmaps.  Relaxed atomics are enough: a bit decides who sends a
 * page and says nothing about other memory; the content is made anew by whoever sends it.
 */
#include "config.h"

#include "source_block.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <xxhash.h>

#include "core/guard.h"
#include "sys/fd.h"

#define WORD_BITS 64

static uint64_t n_words(const struct source_block *b)
{
	return (b->n_pages + WORD_BITS - 1) / WORD_BITS;
}

static uint64_t bit_of(uint64_t page)
{
	return UINT64_C(1) << (page % WORD_BITS);
}

/* Returns whether the bit was clear before. */
static bool set_bit(_Atomic uint64_t *map, uint64_t page)
{
	uint64_t bit = bit_of(page);

	return !(atomic_fetch_or_explicit(&map[page / WORD_BITS], bit, memory_order_relaxed) & bit);
}

/**
 * source_block_init - lay out one block and open its file
 * @spec: copied; its file name is not ours
 *
 * Return: 0 or -errno; source_block_deinit() after either.
 */
int source_block_init(struct source_block *b, const struct source_block_spec *spec)
{
	*b = (struct source_block){
		.spec = *spec,
		.key = source_pattern_key(spec->seed, spec->name),
		.n_pages = spec->length / spec->page_size,
		.file = -1,
	};
	b->claimed = calloc(n_words(b), sizeof(*b->claimed));
	b->asked = calloc(n_words(b), sizeof(*b->asked));
	b->sent = calloc(n_words(b), sizeof(*b->sent));
	if (!b->claimed || !b->asked || !b->sent)
		return -ENOMEM;
	if (!spec->file)
		return 0;
	b->file = open(spec->file, O_RDONLY | O_CLOEXEC);
	return b->file < 0 ? -errno : 0;
}

/**
 * source_block_deinit - once more is harmless
 */
void source_block_deinit(struct source_block *b)
{
	free((void *)steal_ptr(&b->claimed));
	free((void *)steal_ptr(&b->asked));
	free((void *)steal_ptr(&b->sent));
	close_fd(&b->file);
}

/**
 * source_block_claim - true for exactly one caller per page: that one sends it
 */
bool source_block_claim(struct source_block *b, uint64_t page)
{
	return set_bit(b->claimed, page);
}

/**
 * source_block_settle - the page was sent before the switch-over and is clean: nobody will claim it
 */
void source_block_settle(struct source_block *b, uint64_t page)
{
	set_bit(b->claimed, page);
	set_bit(b->sent, page);
}

/**
 * source_block_ask - count a request; false when that page was asked for before
 */
bool source_block_ask(struct source_block *b, uint64_t page)
{
	return set_bit(b->asked, page);
}

/**
 * source_block_note_sent - the page is about to leave; false when it has left before
 */
bool source_block_note_sent(struct source_block *b, uint64_t page)
{
	return set_bit(b->sent, page);
}

/**
 * source_block_was_sent - it left, or was to: a connection can be lost with it under way
 */
bool source_block_was_sent(const struct source_block *b, uint64_t page)
{
	return atomic_load_explicit(&b->sent[page / WORD_BITS], memory_order_relaxed) &
	       bit_of(page);
}

/**
 * source_block_start_over - nothing is claimed, nothing was asked for
 *
 * No thread sends.  What the destination has is to be claimed before one does.
 */
void source_block_start_over(struct source_block *b)
{
	for (uint64_t w = 0; w < n_words(b); w++) {
		atomic_store_explicit(&b->claimed[w], 0, memory_order_relaxed);
		atomic_store_explicit(&b->asked[w], 0, memory_order_relaxed);
	}
}

/* First page at or after @from whose bit differs from @flip's, word by word. */
static uint64_t scan(const struct source_block *b, uint64_t from, uint64_t flip)
{
	for (uint64_t w = from / WORD_BITS; w < n_words(b); w++) {
		uint64_t found = flip ^ atomic_load_explicit(&b->claimed[w], memory_order_relaxed);
		uint64_t page;

		if (w == from / WORD_BITS)
			found &= ~UINT64_C(0) << (from % WORD_BITS);
		if (!found)
			continue;
		page = w * WORD_BITS + (unsigned)__builtin_ctzll(found);
		return page < b->n_pages ? page : b->n_pages;
	}
	return b->n_pages;
}

/**
 * source_block_next_owed - first page at or after @from that nobody has claimed, or n_pages
 */
uint64_t source_block_next_owed(const struct source_block *b, uint64_t from)
{
	return scan(b, from, ~UINT64_C(0));
}

/**
 * source_block_next_claimed - first page at or after @from that was claimed or settled, or n_pages
 */
uint64_t source_block_next_claimed(const struct source_block *b, uint64_t from)
{
	return scan(b, from, 0);
}

/**
 * source_block_count_owed - how many pages nobody has claimed
 */
uint64_t source_block_count_owed(const struct source_block *b)
{
	uint64_t n = 0, from, to = 0;

	while ((from = source_block_next_owed(b, to)) < b->n_pages) {
		to = source_block_next_claimed(b, from);
		n += to - from;
	}
	return n;
}

/**
 * source_block_fan - target pages in one page of the block
 */
uint64_t source_block_fan(const struct source_block *b)
{
	return b->spec.page_size / SOURCE_TARGET_PAGE;
}

static bool all_zero(const uint8_t *p, size_t len)
{
	return p[0] == 0 && memcmp(p, p + 1, len - 1) == 0;
}

/* What lies beyond the end of the file is zero.  A stale page is the inverted one. */
static int read_file(const struct source_block *b, uint64_t tpage, enum source_stage stage,
		     uint8_t *out)
{
	size_t got = 0;

	while (got < SOURCE_TARGET_PAGE) {
		ssize_t n = pread(b->file, out + got, SOURCE_TARGET_PAGE - got,
				  (off_t)(tpage * SOURCE_TARGET_PAGE + got));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		got += (size_t)n;
	}
	memset(out + got, 0, SOURCE_TARGET_PAGE - got);
	if (stage == SOURCE_STALE)
		for (size_t i = 0; i < SOURCE_TARGET_PAGE; i++)
			out[i] ^= 0xff;
	return all_zero(out, SOURCE_TARGET_PAGE);
}

/*
 * Which pages of a pattern are zero.  Of a block with large pages, the given share of those is zero
 * throughout, and of what is left the same share of target pages: all three kinds occur.
 */
static bool is_zero(const struct source_block *b, uint64_t tpage)
{
	uint64_t fan = source_block_fan(b);

	if (source_pattern_zero(b->key, b->spec.page_size, tpage / fan, b->spec.zero_percent))
		return true;
	return fan > 1 &&
	       source_pattern_zero(b->key, SOURCE_TARGET_PAGE, tpage, b->spec.zero_percent);
}

/**
 * source_block_read - content of a target page
 * @stage: SOURCE_STALE: what it held before it was dirtied again
 * @out: SOURCE_TARGET_PAGE bytes, not written for a page of zeroes
 *
 * Return: 1 all zero, 0 @out is filled, -errno when the file cannot be read.
 */
int source_block_read(const struct source_block *b, uint64_t tpage, enum source_stage stage,
		      uint8_t *out)
{
	if (b->file >= 0)
		return read_file(b, tpage, stage, out);
	if (stage == SOURCE_FINAL && is_zero(b, tpage))
		return 1;
	source_pattern_fill(b->key, tpage, stage, out);
	return 0;
}

/**
 * source_block_digest - XXH3-128 of the whole final content, high half first
 *
 * Return: 0 or -errno.
 */
int source_block_digest(const struct source_block *b, uint64_t out[2])
{
	static const uint8_t zero[SOURCE_TARGET_PAGE];
	XXH3_state_t *state = XXH3_createState();
	uint8_t page[SOURCE_TARGET_PAGE];
	XXH128_hash_t h;
	int r = 0;

	if (!state)
		return -ENOMEM;
	XXH3_128bits_reset(state);
	for (uint64_t t = 0; t < b->spec.length / SOURCE_TARGET_PAGE && r >= 0; t++) {
		r = source_block_read(b, t, SOURCE_FINAL, page);
		XXH3_128bits_update(state, r == 1 ? zero : page, SOURCE_TARGET_PAGE);
	}
	h = XXH3_128bits_digest(state);
	XXH3_freeState(state);
	out[0] = h.high64;
	out[1] = h.low64;
	return r < 0 ? r : 0;
}
