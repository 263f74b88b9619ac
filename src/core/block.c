/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Blocks are added before the ledger is laid out and never after it, so the row of page numbers has
 * no holes and "which block owns page N" is a search in an array sorted by construction.  Nothing
 * is ever removed: a block outlives every page number that was handed out.
 *
 * Names and lengths come from a peer (the block list of the stream, a sharer's BLOCK message) and
 * are checked here once; behind this file a page number is trusted.
 */
#include "config.h"
#include "core/block.h"

#include <errno.h>
#include <string.h>

#include "core/guard.h"

#define PAGE_MAX  (1ull << 31)		/* a request for one page carries its length in 32 bits */
/* 4 PiB of 4 KiB pages: keeps page arithmetic far from overflow */
#define PAGES_MAX (1ull << 40)

/**
 * block_add - append a block to the row of pages
 * @name: as the source names it (QEMU's idstr), 1 to BLOCK_NAME - 1 bytes; copied
 * @length: bytes, a multiple of @page_size
 * @page_size: bytes, a power of two; what the kernel places at once: 4 KiB, or the size of a huge
 *   page
 *
 * Its pages get the next @length / @page_size numbers.  The caller sets the store of a HELD or
 * PRIVATE block afterwards, and whether a SHARED one is sparse.
 *
 * Return: the index of the new block; -EEXIST for a name that is there already, -EINVAL for a name,
 * length or page size that no block can have, -ENOSPC when the table or the row of page numbers is
 * full.  After a failure the table is as before.
 */
int block_add(struct block_table *t, const char *name, uint64_t length, uint64_t page_size,
	      enum block_kind kind)
{
	struct block *b = &t->block[t->n];
	size_t name_len = strlen(name);

	if (name_len == 0 || name_len >= BLOCK_NAME)
		return -EINVAL;
	if (!is_power_of_two(page_size) || page_size > PAGE_MAX || length == 0 ||
	    length % page_size != 0)
		return -EINVAL;
	if (block_find(t, name) >= 0)
		return -EEXIST;
	if (t->n == BLOCK_MAX || length / page_size > PAGES_MAX - t->pages)
		return -ENOSPC;
	*b = (struct block){
		.kind = kind, .length = length, .page_size = page_size,
		.page_shift = (unsigned)__builtin_ctzll(page_size),
		.first = t->pages, .pages = length / page_size,
	};
	memcpy(b->name, name, name_len + 1);
	t->pages += b->pages;
	return (int)t->n++;
}

/**
 * block_find - the block of that name
 *
 * Return: its index, or -ENOENT.
 */
int block_find(const struct block_table *t, const char *name)
{
	for (unsigned i = 0; i < t->n; i++)
		if (strcmp(t->block[i].name, name) == 0)
			return (int)i;
	return -ENOENT;
}

/**
 * block_of_page - the block that owns a page number
 * @page: below t->pages; there is no outcome for one that is not
 */
struct block *block_of_page(struct block_table *t, uint64_t page)
{
	unsigned low = 0, high = t->n;

	while (high - low > 1) {
		unsigned middle = (low + high) / 2;

		if (t->block[middle].first <= page)
			low = middle;
		else
			high = middle;
	}
	return &t->block[low];
}
