/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A private block is filled from LISTENING on, not before: userfaultfd can place only into mappings
 * that are registered, and what precopy brings has to lie somewhere until then.  That is the store,
 * one extra copy of the block's present part.  A shared block needs none: precopy is written into
 * its file, through a mapping of ours without huge pages, so that one 4 KiB page instantiates one
 * page and a discard leaves a hole.
 *
 * A hole is what faults, and what zero pages are left as.  So the file's range is emptied before
 * anything else, discards punch, whole pages of zeroes stay holes, and what is found in the file at
 * LISTENING that did not come from the source is punched again.
 */
#include "config.h"
#include "daemon/backing.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/guard.h"
#include "sys/fd.h"
#include "sys/mem.h"
#include "sys/uffd.h"
#include "wire/qstream.h"

/* content comes in pieces of this size, whatever the block's pages are */
#define TARGET_PAGE 4096u

static int open_shared(struct backing *b, uint64_t file_offset)
{
	struct mem_identity id;
	int ret = mem_identify(b->file, &id);

	if (ret < 0)
		return ret;
	if (id.page_size != b->page_size || !range_inside(file_offset, b->length, id.size) ||
	    file_offset % b->page_size)
		return -EINVAL;
	b->hugetlb = id.hugetlb;
	b->file_offset = file_offset;
	ret = mem_punch(b->file, file_offset, b->length);
	if (ret < 0)
		return ret;
	b->map = mem_map_shared(b->file, file_offset, b->length);
	return b->map ? 0 : -errno;
}

/**
 * backing_open - make the place for a block's content
 * @file: of a SHARED block, -1 otherwise; owned from here on, also on failure
 * @file_offset: bytes, a multiple of the block's page size
 *
 * Empties the file's range: nothing that was there before counts, and whoever wrote it has no
 * business there.
 *
 * Return: 0 or -errno; backing_close() after either.
 */
int backing_open(struct backing *b, const struct block *block, int file, uint64_t file_offset)
{
	*b = (struct backing){
		.kind = block->kind,
		.file = file,
		.length = block->length,
		.page_size = block->page_size,
	};
	if (b->kind == BLOCK_SHARED)
		return open_shared(b, file_offset);
	b->map = mem_map_private(b->length);
	return b->map ? 0 : -errno;
}

/**
 * backing_close - our mapping or store and the file; sharers keep theirs
 */
void backing_close(struct backing *b)
{
	if (b->map)
		mem_unmap(b->map, b->length);
	b->map = NULL;
	close_fd(&b->file);
}

static const uint8_t zero_page[TARGET_PAGE];

/* Others have the file of a shared block, too, and may truncate it. */
static int store(struct backing *b, uint64_t offset, const uint8_t *data, uint64_t len)
{
	assert(len <= TARGET_PAGE);
	if (b->kind == BLOCK_SHARED)
		return mem_write(b->map + offset, data, len);
	memcpy(b->map + offset, data, len);
	return 0;
}

/**
 * backing_write - precopy content of (a part of) a page
 * @offset, @len: bytes in the block, all within one page of it
 * @data: NULL: zeroes
 * @had_data: something was written to this page before, so zeroes have to undo it
 *
 * Return: 0 or -errno.
 */
int backing_write(struct backing *b, uint64_t offset, const uint8_t *data, uint64_t len,
		  bool had_data)
{
	if (data)
		return store(b, offset, data, len);
	if (!had_data)
		return 0;
	/* Part of a huge page keeps the rest; a whole page goes back to being a hole. */
	if (len < b->page_size)
		return store(b, offset, zero_page, len);
	return backing_discard(b, offset, len);
}

/**
 * backing_discard - drop the content of whole pages: they are holes again
 * @offset, @len: bytes in the block
 *
 * Return: 0 or -errno.
 */
int backing_discard(struct backing *b, uint64_t offset, uint64_t len)
{
	if (b->kind == BLOCK_SHARED)
		return mem_punch(b->file, b->file_offset + offset, len);
	return mem_drop(b->map + offset, len);
}

/**
 * backing_delta - an XBZRLE delta onto the target page at @offset
 *
 * Return: 0, -EPROTO as qstream_xbzrle(), or -EFAULT as backing_write().
 */
int backing_delta(struct backing *b, uint64_t offset, uint64_t page, const uint8_t *delta,
		  uint64_t len)
{
	uint8_t copy[TARGET_PAGE];
	int ret = 0;

	assert(page == sizeof(copy));
	if (b->kind == BLOCK_SHARED)
		ret = mem_read(copy, b->map + offset, page);
	else
		memcpy(copy, b->map + offset, page);
	if (ret == 0)
		ret = qstream_xbzrle(copy, page, delta, len);
	return ret < 0 ? ret : store(b, offset, copy, page);
}

struct sweep {
	struct backing *backing;
	const struct block *block;
	const struct ledger *ledger;
	uint64_t strays;
};

/* One extent of data: punch its pages that were not received. */
static int sweep_extent(void *ctx, uint64_t start, uint64_t length)
{
	struct sweep *s = ctx;
	uint64_t first = block_page(s->block, start - s->backing->file_offset);
	uint64_t end = block_page(s->block, start + length - 1 - s->backing->file_offset) + 1;

	for (uint64_t page = first; page < end; page++) {
		int ret;

		page += ledger_run(s->ledger, page, end, PAGE_PRESENT);
		if (page >= end)
			break;
		ret = backing_discard(s->backing, block_offset(s->block, page),
				      s->block->page_size);
		if (ret < 0)
			return ret;
		s->strays++;
	}
	return 0;
}

/**
 * backing_sweep - find and punch what nobody should have written
 * @strays: so many pages are added
 *
 * What has data in the file must be a page that was received; the rest got there by somebody who
 * must not have touched it.  hugetlbfs cannot tell data from holes; its file was emptied at the
 * start.
 *
 * Return: 0 or -errno.
 */
int backing_sweep(struct backing *b, const struct block *block, const struct ledger *ledger,
		  uint64_t *strays)
{
	struct sweep s = { .backing = b, .block = block, .ledger = ledger };
	int ret = 0;

	if (b->kind == BLOCK_SHARED && !b->hugetlb)
		ret = mem_each_extent(b->file, b->file_offset, b->length, sweep_extent, &s);
	*strays += s.strays;
	return ret;
}

/**
 * backing_is_hole - is nothing in the file there?
 * @b: a sparse one
 * @offset, @len: bytes in the block, whole pages
 *
 * A page that a stranger wrote and the kernel has swapped out since is overlooked, as one that he
 * writes a moment later: such a one is found (EEXIST) when it is touched.
 */
bool backing_is_hole(const struct backing *b, uint64_t offset, uint64_t len)
{
	return mem_is_hole(b->map + offset, len);
}

/*
 * Punching a huge page gives its reservation back to the pool, where anybody may take it: a new
 * mapping reserves again what the discards gave away, or tells now that the pool is too small.
 */
static int reserve_again(struct backing *b)
{
	uint8_t *map = mem_map_shared(b->file, b->file_offset, b->length);

	if (!map)
		return -errno;
	mem_unmap(b->map, b->length);
	b->map = map;
	return 0;
}

/**
 * backing_arm - register our own mapping of a shared block
 * @uffd: of our own address space
 *
 * From here on a write of ours through it would sleep instead of instantiating a page (O14); and a
 * page can be placed through it when no sharer's address space will do.
 *
 * Return: 0 or -errno.
 */
int backing_arm(struct backing *b, int uffd)
{
	unsigned can = 0;
	int ret;

	if (b->kind != BLOCK_SHARED)
		return 0;
	ret = b->hugetlb ? reserve_again(b) : 0;
	if (ret < 0)
		return ret;
	ret = uffd_register(uffd, (uint64_t)(uintptr_t)b->map, b->length, &can);
	if (ret < 0)
		return ret;
	b->armed = true;
	b->can_zero = can & UFFD_CAN_ZERO;
	return 0;
}
