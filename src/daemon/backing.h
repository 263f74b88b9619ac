/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_BACKING_H
#define PC_DAEMON_BACKING_H
/*
 * Where a block's content lives on our side: the file of a shared block with our own mapping of it,
 * or a store for a block that is private to its sharer, or that nobody registered.
 *
 * Before LISTENING a shared block is written and punched here.  From then on our mapping is
 * registered with a userfaultfd of our own, so that nothing but UFFDIO_* writes guest memory (O14),
 * not even a bug of ours, and so that a page can be placed through it when no sharer's address
 * space will do.
 */
#include <stdbool.h>
#include <stdint.h>
#include "core/block.h"
#include "core/ledger.h"
#include "sys/uffd.h"

struct backing {
	enum block_kind kind;
	/* SHARED; the store's, where it is to outlive us: owned; -1 */
	int file;
	uint64_t file_offset;
	uint64_t length, page_size;
	bool hugetlb;
	uint8_t *map;			/* SHARED: our mapping.  PRIVATE, HELD: the store */
	bool can_zero;			/* SHARED, armed: our registration offers ZEROPAGE */
	bool armed;
};

/* Takes @file over (also on failure) and empties its range.  0 or -errno. */
int backing_open(struct backing *b, const struct block *block, int file, uint64_t file_offset);
/* The same place, made by an earlier process: nothing of it is emptied.  0, -EBADMSG, -errno. */
int backing_adopt(struct backing *b, const struct block *block, int file, uint64_t file_offset);
void backing_close(struct backing *b);
/* Precopy content; @data NULL: zeroes.  0 or -errno. */
int backing_write(struct backing *b, uint64_t offset, const uint8_t *data, uint64_t len,
		  bool had_data);
int backing_discard(struct backing *b, uint64_t offset, uint64_t len);
/* Precopy delta (XBZRLE) onto the target page at @offset. */
int backing_delta(struct backing *b, uint64_t offset, uint64_t page, const uint8_t *delta,
		  uint64_t len);
/* Punch pages that have data and were not received, counted in *strays (not on hugetlbfs). */
int backing_sweep(struct backing *b, const struct block *block, const struct ledger *ledger,
		  uint64_t *strays);
/* Can its holes be told from data (backing_is_hole())? */
static inline bool backing_sparse(const struct backing *b)
{
	return b->kind == BLOCK_SHARED && !b->hugetlb;
}
/* Of a sparse one: is nothing there in this range? */
bool backing_is_hole(const struct backing *b, uint64_t offset, uint64_t len);
/* Is a page of a shared, armed one there?  1, 0, -errno: it cannot be told. */
int backing_has(const struct backing *b, uint64_t offset, int uffd, const struct uffd_ops *ops);
/* Has a store in a file content for a page?  The same. */
int backing_stores(const struct backing *b, uint64_t offset);
/* Register our own mapping of a shared block with @uffd. */
int backing_arm(struct backing *b, int uffd);

#endif
