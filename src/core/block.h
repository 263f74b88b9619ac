/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_CORE_BLOCK_H
#define PC_CORE_BLOCK_H
/*
 * Blocks: named pieces of guest RAM (QEMU's RAMBlocks).  All pages of all blocks are numbered in
 * one row, which is how the ledger, the waiters and the requests name them; the unit is the block's
 * own page size.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BLOCK_NAME 256
#define BLOCK_MAX  64

enum block_kind {
	BLOCK_HELD,		/* nobody registered it: its content stays in the caller's store */
	BLOCK_SHARED,		/* a file that any number of sharers map */
	BLOCK_PRIVATE,		/* anonymous memory of exactly one sharer */
};

struct block {
	char name[BLOCK_NAME];
	enum block_kind kind;
	uint64_t length;	/* bytes */
	uint64_t page_size;	/* bytes, power of two */
	unsigned page_shift;
	uint64_t first;		/* number of its first page */
	uint64_t pages;
	/* SHARED: the caller can tell its holes from data, so pages of zeroes may stay holes */
	bool sparse;
	/* HELD and PRIVATE: caller's memory of @length bytes; core never looks inside */
	uint8_t *store;
	/* pages by state, kept by the engine */
	uint64_t owed, present, missing, requested, stored, zero, lost, unplaced;
};

struct block_table {
	unsigned n;
	uint64_t pages;		/* of all blocks */
	struct block block[BLOCK_MAX];
};

/* Append a block: its index or -errno. */
int block_add(struct block_table *t, const char *name, uint64_t length, uint64_t page_size,
	      enum block_kind kind);
/* By name: its index or -ENOENT. */
int block_find(const struct block_table *t, const char *name);
/* The block that owns a page number. */
struct block *block_of_page(struct block_table *t, uint64_t page);
/* Page number of a byte offset, which must be inside. */
static inline uint64_t block_page(const struct block *b, uint64_t offset)
{
	return b->first + (offset >> b->page_shift);
}
/* Byte offset of a page number. */
static inline uint64_t block_offset(const struct block *b, uint64_t page)
{
	return (page - b->first) << b->page_shift;
}

#endif
