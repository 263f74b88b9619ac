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

static int check_shared(struct backing *b, uint64_t file_offset)
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
	return 0;
}

static int map_file(struct backing *b)
{
	b->map = mem_map_shared(b->file, b->file_offset, b->length);
	return b->map ? 0 : -errno;
}

static int open_shared(struct backing *b, uint64_t file_offset)
{
	int ret = check_shared(b, file_offset);

	if (ret == 0)
		ret = mem_punch(b->file, file_offset, b->length);
	return ret < 0 ? ret : map_file(b);
}

/* A store in a file outlives us; like one in memory of our own it costs what is written. */
static int open_store(struct backing *b)
{
	int ret;

	if (b->file >= 0) {
		ret = mem_kept_size(b->file, b->length);
		return ret < 0 ? ret : map_file(b);
	}
	b->map = mem_map_private(b->length);
	return b->map ? 0 : -errno;
}

static void describe(struct backing *b, const struct block *block, int file)
{
	*b = (struct backing){
		.kind = block->kind,
		.file = file,
		.length = block->length,
		.page_size = block->page_size,
	};
}

/**
 * backing_open - make the place for a block's content
 * @file: of a SHARED block; for the store of another an empty memfd, or -1; owned from here on,
 *   also on failure
 * @file_offset: bytes, a multiple of the block's page size
 *
 * Empties the file's range: nothing that was there before counts, and whoever wrote it has no
 * business there.
 *
 * Return: 0 or -errno; backing_close() after either.
 */
int backing_open(struct backing *b, const struct block *block, int file, uint64_t file_offset)
{
	describe(b, block, file);
	return b->kind == BLOCK_SHARED ? open_shared(b, file_offset) : open_store(b);
}

/**
 * backing_adopt - take the place over that an earlier process made, with what is in it
 * @file: as it was given to backing_open() there; owned from here on, also on failure
 *
 * Return: 0; -EBADMSG when it is not what that made of it, or another -errno; backing_close() after
 * any.
 */
int backing_adopt(struct backing *b, const struct block *block, int file, uint64_t file_offset)
{
	int ret;

	describe(b, block, file);
	if (b->kind == BLOCK_SHARED)
		ret = check_shared(b, file_offset);
	else
		ret = mem_is_kept(b->file, b->length) ? 0 : -EBADMSG;
	if (ret < 0)
		return ret == -EINVAL ? -EBADMSG : ret;
	return map_file(b);
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
	if (b->file >= 0)
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

/* Where a page is, CONTINUE maps it, or finds it mapped; where none is, it makes none. */
static int huge_is_there(const struct backing *b, uint64_t offset, int uffd,
			 const struct uffd_ops *ops)
{
	struct uffd_result result;

	switch (uffd_place(ops, uffd, UFFD_CONTINUE, (uint64_t)(uintptr_t)b->map + offset,
			   b->page_size, NULL, false, &result)) {
	case UFFD_DONE:
	case UFFD_EXISTS:
		return 1;
	default:
		return result.err == EFAULT ? 0 : -EIO;
	}
}

/**
 * backing_has - is a page of a shared block there, in the file?
 * @offset: bytes in the block
 * @uffd: of our own address space; the block is armed with it
 *
 * Also one that nobody has mapped, or that was swapped out.
 *
 * Return: 1 it is, 0 it is not, -errno when it cannot be told.
 */
int backing_has(const struct backing *b, uint64_t offset, int uffd, const struct uffd_ops *ops)
{
	return b->hugetlb ? huge_is_there(b, offset, uffd, ops) :
			    mem_has_data(b->file, b->file_offset + offset, b->page_size);
}

/**
 * backing_stores - has the store of a private block content for a page?
 *
 * What was discarded has none, so content says that it came before the switch-over.
 *
 * Return: as backing_has().
 */
int backing_stores(const struct backing *b, uint64_t offset)
{
	return mem_has_data(b->file, offset, b->page_size);
}
