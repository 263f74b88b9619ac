// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The bitmap decides what is sent again, so nothing in it is taken on trust that can be checked:
 * its size is exact, its end mark is there, its padding is empty, a large page is there as a whole
 * or not at all, and nobody can have received what was never sent.  A wrong size or end mark leaves
 * the return path unreadable; the rest is counted as a breach, and the page in question is sent.
 */
#include "config.h"

#include "source_bitmap.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/guard.h"
#include "wire/cursor.h"
#include "wire/qreturn.h"

#define END_MARK 8u /* bytes */

void source_bitmap_deinit(struct source_bitmap *m)
{
	free(steal_ptr(&m->bytes));
	m->block = NULL;
}

static uint64_t target_pages(const struct source_block *b)
{
	return b->n_pages * source_block_fan(b);
}

/**
 * source_bitmap_size - a bit a target page, in whole 64-bit words
 */
uint64_t source_bitmap_size(const struct source_block *b)
{
	return (target_pages(b) + 63) / 64 * 8;
}

/**
 * source_bitmap_begin - the head of an answer came
 * @size: what it says that follows, without the end mark
 *
 * Return: 0, -EPROTO for another size than the block's, or -ENOMEM.
 */
int source_bitmap_begin(struct source_bitmap *m, struct source_check *check, struct source_block *b,
			uint64_t size)
{
	if (size != source_bitmap_size(b)) {
		source_check_violation(check,
				       "bitmap of %.100s has %" PRIu64 " bytes, not %" PRIu64,
				       b->spec.name, size, source_bitmap_size(b));
		return -EPROTO;
	}
	source_bitmap_deinit(m);
	*m = (struct source_bitmap){.check = check, .block = b, .len = (size_t)size + END_MARK};
	m->bytes = malloc(m->len);
	return m->bytes ? 0 : -ENOMEM;
}

/**
 * source_bitmap_take - bytes of the return path, as far as they belong to it
 */
size_t source_bitmap_take(struct source_bitmap *m, const uint8_t *bytes, size_t n)
{
	size_t wanted = m->len - m->have;

	if (n > wanted)
		n = wanted;
	memcpy(m->bytes + m->have, bytes, n);
	m->have += n;
	return n;
}

/**
 * source_bitmap_is_whole - with its end mark
 */
bool source_bitmap_is_whole(const struct source_bitmap *m)
{
	return m->block && m->have == m->len;
}

static bool is_set(const struct source_bitmap *m, uint64_t bit)
{
	return m->bytes[bit / 8] >> (bit % 8) & 1;
}

static bool good_end(const struct source_bitmap *m)
{
	struct cursor c = cursor_init(m->bytes + m->len - END_MARK, END_MARK);
	uint64_t mark = cursor_be64(&c);

	if (mark == QRETURN_BITMAP_END)
		return true;
	source_check_violation(m->check, "bitmap of %.100s ends with %#" PRIx64 ", not its mark",
			       m->block->spec.name, mark);
	return false;
}

static void check_padding(const struct source_bitmap *m)
{
	for (uint64_t bit = target_pages(m->block); bit < (m->len - END_MARK) * 8; bit++) {
		if (!is_set(m, bit))
			continue;
		source_check_violation(m->check, "bitmap of %.100s goes on behind the block",
				       m->block->spec.name);
		return;
	}
}

/* How many target pages of @page are received. */
static uint64_t count_set(const struct source_bitmap *m, uint64_t page, uint64_t fan)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < fan; i++)
		n += is_set(m, page * fan + i);
	return n;
}

static bool is_received(const struct source_bitmap *m, uint64_t page, uint64_t fan)
{
	uint64_t n = count_set(m, page, fan);
	const char *problem = NULL;

	if (n && n < fan)
		problem = "a part of page";
	else if (n && !source_block_was_sent(m->block, page))
		problem = "the never sent page";
	if (problem)
		source_check_violation(m->check, "bitmap has %s %.100s+%#" PRIx64, problem,
				       m->block->spec.name, page * m->block->spec.page_size);
	return n && !problem;
}

/**
 * source_bitmap_apply - the complement of what is received is owed
 *
 * No thread sends pages.  Return: 0; -EPROTO when the end mark is wrong, nothing being changed.
 */
int source_bitmap_apply(struct source_bitmap *m)
{
	struct source_block *b = m->block;
	uint64_t fan = source_block_fan(b);

	if (!good_end(m))
		return -EPROTO;
	check_padding(m);
	source_block_start_over(b);
	for (uint64_t page = 0; page < b->n_pages; page++)
		if (is_received(m, page, fan))
			source_block_claim(b, page);
	source_bitmap_deinit(m);
	return 0;
}
