/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_WIRE_QMAPPED_H
#define PC_WIRE_QMAPPED_H
/*
 * The migration file of a QEMU with the capability mapped-ram (9.0 and later): a stream in which
 * the pages of each block stand at a place of their own, so that it can be written, and read, in
 * any order.
 *
 * This says where what stands, and writes the heads; bitmaps, pages and the device part are the
 * caller's to put into the file.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/cursor.h"

struct qmapped_block {
	const char *name;	/* idstr, 1 to 255 bytes */
	uint64_t length;	/* used_length, bytes, a multiple of the target page size */
	/*
	 * set by qmapped_lay(): where its head, its bitmap (bit i of byte i / 8: page i is stored)
	 * and its first page stand in the file
	 */
	uint64_t head_at, bitmap_at, bitmap_len, pages_at;
};

/* All of it is the caller's and must outlive its use. */
struct qmapped_plan {
	const char *machine;
	uint32_t page_bits;	/* of the source's header; 0: none was there */
	uint32_t ram_section;
	uint64_t target_page;	/* bytes */
	struct qmapped_block *blocks;
	unsigned n_blocks;	/* 1 to QSTREAM_MAX_BLOCKS */
	/* set by qmapped_lay(): where the memory ends; qmapped_put_ram_end() goes there */
	uint64_t end_at;
};

#define QMAPPED_HEAD_MAX 512	/* bytes of what one of those below writes */
#define QMAPPED_PAGES_ALIGN (1u << 20)

/* Give everything its place.  0, or -EINVAL with *why (static text). */
int qmapped_lay(struct qmapped_plan *plan, const char **why);
/* What stands at the beginning of the file. */
void qmapped_put_head(struct pen *p, const struct qmapped_plan *plan);
/* What stands at a block's head_at. */
void qmapped_put_block(struct pen *p, const struct qmapped_plan *plan, unsigned block);
/* What stands at end_at; the device part follows. */
void qmapped_put_ram_end(struct pen *p, const struct qmapped_plan *plan);
/* What stands behind the device part: the end of the file. */
void qmapped_put_tail(struct pen *p);

#endif
