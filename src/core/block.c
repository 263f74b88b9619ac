/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"
#include "core/block.h"

#include <errno.h>
#include <string.h>

#include "core/guard.h"

#define PAGE_MAX  (1ull << 31)		/* a request for one page carries its length in 32 bits */
#define PAGES_MAX (1ull << 40)		/* 4 PiB of 4 KiB pages: keeps page arithmetic far from overflow */

int block_add(struct block_table *t, const char *name, uint64_t length, uint64_t page_size, enum block_kind kind)
{
	struct block *b = &t->block[t->n];
	size_t name_len = strlen(name);

	if (name_len == 0 || name_len >= BLOCK_NAME)
		return -EINVAL;
	if (!is_power_of_two(page_size) || page_size > PAGE_MAX || length == 0 || length % page_size != 0)
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

int block_find(const struct block_table *t, const char *name)
{
	for (unsigned i = 0; i < t->n; i++)
		if (strcmp(t->block[i].name, name) == 0)
			return (int)i;
	return -ENOENT;
}

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
