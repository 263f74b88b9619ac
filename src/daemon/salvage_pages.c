/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The pages of one block, as the ledger says where each is.
 *
 *   present           in the file of a shared block, in the process of a private one, in our store
 *                     of a held one
 *   stored            in our store, until it is handed over: looked at again behind the copy
 *   zero              a hole, which may have been written to since the session is complete: of a
 *                     shared block the file says, of a private one the process, but only then, for
 *                     a look at a page that is registered would wait for us
 *   never, removed    zeroes
 *   everything else   missing, whatever is there
 *
 * The fault thread goes on meanwhile, and so may the VM: a page that comes behind us is missing
 * here, and one that is written to is as it was in some moment.
 */
#include "config.h"
#include "daemon/salvage_parts.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/guard.h"

enum where { IS_MISSING, IS_ZERO, IS_THERE, IS_STORED };

static enum where where_is(const struct salvage_job *j, const struct salvage_block *b,
			   uint64_t page)
{
	enum page_state state = ledger_get(j->ledger, b->first + page);

	switch (state) {
	case PAGE_PRESENT:
		return IS_THERE;
	case PAGE_STORED:
		return IS_STORED;
	case PAGE_ZERO:
		if (b->kind == BLOCK_HELD)
			return IS_THERE;
		return b->kind == BLOCK_SHARED || j->state == SESSION_COMPLETE ? IS_THERE : IS_ZERO;
	case PAGE_NEVER:
	case PAGE_REMOVED:
		return IS_ZERO;
	default:
		return IS_MISSING;
	}
}

/* @len bytes of a block that are there.  False: they cannot be got at. */
static bool fetch(const struct salvage_job *j, const struct salvage_block *b, uint64_t offset,
		  size_t len)
{
	struct iovec to = { j->buffer, len };
	struct iovec from = { (void *)(uintptr_t)(b->address + offset), len };

	if (b->kind == BLOCK_HELD) {
		memcpy(j->buffer, b->store + offset, len);
		return true;
	}
	if (b->kind == BLOCK_SHARED)
		return pread(b->file, j->buffer, len, (off_t)(b->file_offset + offset)) ==
		       (ssize_t)len;
	return b->address && j->pid &&
	       process_vm_readv(j->pid, &to, 1, &from, 1, 0) == (ssize_t)len;
}

static void set_bit(uint8_t *map, uint64_t i)
{
	map[i / 8] |= (uint8_t)(1u << i % 8);
}

static void mark_missing(struct salvage_block *b, uint64_t offset, uint64_t len)
{
	for (uint64_t at = offset; at < offset + len; at += SALVAGE_PAGE)
		set_bit(b->missing_map, at / SALVAGE_PAGE);
	b->missing += len / SALVAGE_PAGE;
}

static bool is_zero(const uint8_t *page)
{
	return page[0] == 0 && memcmp(page, page + 1, SALVAGE_PAGE - 1) == 0;
}

/* What is in the buffer: pages of zeroes stay holes, the others go in runs. */
static int put(struct salvage_job *j, unsigned block, uint64_t offset, size_t len)
{
	struct salvage_block *b = &j->block[block];
	uint64_t base = j->layout[block].pages_at + offset;
	size_t from = 0, at = 0;

	for (; at < len; at += SALVAGE_PAGE) {
		if (!is_zero(j->buffer + at)) {
			set_bit(b->bitmap, (offset + at) / SALVAGE_PAGE);
			b->stored++;
			continue;
		}
		b->zero++;
		if (salvage_write(j, j->out, j->buffer + from, at - from, base + from) < 0)
			return -1;
		from = at + SALVAGE_PAGE;
	}
	return salvage_write(j, j->out, j->buffer + from, at - from, base + from);
}

/* A piece of a block that is there as a whole, and no larger than the buffer. */
static int save(struct salvage_job *j, unsigned block, uint64_t offset, size_t len)
{
	struct salvage_block *b = &j->block[block];

	if (fetch(j, b, offset, len))
		return put(j, block, offset, len);
	/* as much of it as there is */
	for (uint64_t at = offset; at < offset + len; at += SALVAGE_PAGE)
		if (len == SALVAGE_PAGE || !fetch(j, b, at, SALVAGE_PAGE))
			mark_missing(b, at, SALVAGE_PAGE);
		else if (put(j, block, at, SALVAGE_PAGE) < 0)
			return -1;
	return 0;
}

/* Of our store; it may be handed over while we look. */
static int save_stored(struct salvage_job *j, unsigned block, uint64_t page)
{
	struct salvage_block *b = &j->block[block];
	uint64_t offset = page * b->page_size;

	for (uint64_t at = 0; at < b->page_size; at += SALVAGE_BUFFER) {
		size_t len = MIN(b->page_size - at, SALVAGE_BUFFER);

		memcpy(j->buffer, b->store + offset + at, len);
		if (put(j, block, offset + at, len) < 0)
			return -1;
	}
	return 0;
}

static int save_run(struct salvage_job *j, unsigned block, uint64_t page, uint64_t n,
		    enum where is)
{
	struct salvage_block *b = &j->block[block];
	uint64_t offset = page * b->page_size, end = offset + n * b->page_size;
	int ret = 0;

	if (is == IS_MISSING)
		mark_missing(b, offset, end - offset);
	if (is == IS_ZERO)
		b->zero += (end - offset) / SALVAGE_PAGE;
	if (is == IS_STORED)
		for (; n && ret == 0; page++, n--)
			ret = save_stored(j, block, page);
	if (is != IS_THERE)
		return ret;
	for (; offset < end && ret == 0; offset += MIN(end - offset, SALVAGE_BUFFER))
		ret = save(j, block, offset, MIN(end - offset, SALVAGE_BUFFER));
	return ret;
}

/**
 * salvage_pages - get the pages of a block into the file, and note what is missing
 *
 * Content that is in our store stays there for as long as we run, so a copy of it is whole; what
 * the VM writes behind the hand-over is not in it, as it is not in any page that was saved before.
 *
 * Return: 0, or -1 with the error told.
 */
int salvage_pages(struct salvage_job *j, unsigned block)
{
	struct salvage_block *b = &j->block[block];
	uint64_t pages = b->length / b->page_size, most = SALVAGE_BUFFER / SALVAGE_PAGE, page = 0;

	while (page < pages) {
		enum where is = where_is(j, b, page);
		uint64_t n = 1;

		if (__atomic_load_n(&j->cancelled, __ATOMIC_RELAXED))
			return salvage_fail(j, ECANCELED, "given up");
		while (page + n < pages && n < most && where_is(j, b, page + n) == is)
			n++;
		if (save_run(j, block, page, n, is) < 0)
			return -1;
		page += n;
		__atomic_fetch_add(&j->bytes_done, n * b->page_size, __ATOMIC_RELAXED);
	}
	return 0;
}
