/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From received bytes to whole pages.
 *
 * Bytes are looked at where they were received: the buffer is mapped twice in a row, so a record
 * never wraps, and a 4 KiB page is placed from there without a copy of ours.  A step leaves its
 * bytes in the buffer until lane_consume(): a page that has to be placed again later is still
 * there, and the lane stands still with it.
 *
 * Pages of a huge page's size come in pieces and have to be placed whole, so those are gathered in
 * a slot.  The source sends the pieces of one page in ascending order with no other page between
 * them on that connection, but sections may end in the middle (7.2 with a preempt channel
 * interrupts itself), so the slot outlives a section.
 */
#include "config.h"
#include "daemon/lane.h"

#include <errno.h>
#include <string.h>

#include "sys/fd.h"

/**
 * lane_open - begin to receive on a connection
 * @fd: owned from here on, also on failure
 *
 * Return: 0 or -ENOMEM; lane_close() after either.
 */
int lane_open(struct lane *l, enum stats_lane id, int fd)
{
	*l = (struct lane){ .fd = fd, .id = id };
	qstream_init(&l->stream, QSTREAM_MAIN, NULL);
	return mem_ring_init(&l->in, LANE_BUFFER);
}

/**
 * lane_close - the connection, the buffer and the slot; once more is harmless
 */
void lane_close(struct lane *l)
{
	close_fd(&l->fd);
	if (l->in.base)
		mem_ring_deinit(&l->in);
	if (l->slot)
		mem_unmap(l->slot, l->slot_size);
	l->slot = NULL;
}

/**
 * lane_reopen - begin to receive on another connection
 * @fd: owned from here on; -1: it is still to come
 *
 * The old one is closed.  What was gathered of a huge page, and what was received and not looked
 * at, went with it; nothing is allocated.  No receive may be under way.
 */
void lane_reopen(struct lane *l, int fd)
{
	close_fd(&l->fd);
	l->fd = fd;
	l->in.head = l->in.tail = 0;
	l->eof = l->ended = l->holding = l->hasten = l->has_ahead = l->gathered_data = false;
	l->error = 0;
	l->need = l->used = 0;
	l->gathered = l->bytes = l->batches = 0;
}

/**
 * lane_use_pages - have a landing slot for pages of up to @page_size bytes
 *
 * Nothing for 4 KiB pages.  Before the first postcopy page.
 *
 * Return: 0 or -errno.
 */
int lane_use_pages(struct lane *l, uint64_t page_size)
{
	if (page_size <= l->stream.target_page || page_size <= l->slot_size)
		return 0;
	if (l->slot)
		mem_unmap(l->slot, l->slot_size);
	l->slot_size = page_size;
	l->slot = mem_map_private(page_size);
	return l->slot ? 0 : -errno;
}

/*
 * Put one piece of a huge page into the slot.  True when the page is complete, false when more is
 * to come, -EPROTO when the pieces come in an order that no source uses.  The slot is written from
 * the first piece with data on: most huge pages that are zero never touch it.
 */
static int gather(struct lane *l, const struct block *b, const uint8_t *data, struct lane_page *out)
{
	uint64_t offset = l->rec.page.offset, page = block_page(b, offset),
		 at = offset & (b->page_size - 1);

	if (at != l->gathered || (l->gathered && page != l->gather_page)) {
		l->stream.reason = "pieces of a huge page out of order";
		return -EPROTO;
	}
	if (at == 0)
		l->gathered_data = false;
	l->gather_page = page;
	if (data) {
		if (!l->gathered_data)
			memset(l->slot, 0, at);
		memcpy(l->slot + at, data, l->rec.page.len);
		l->gathered_data = true;
	} else if (l->gathered_data) {
		memset(l->slot + at, 0, l->stream.target_page);
	}
	l->gathered += l->stream.target_page;
	if (l->gathered < b->page_size)
		return false;
	l->gathered = 0;
	*out = (struct lane_page){ .page = page,
				   .n = 1,
				   .data = l->gathered_data ? l->slot : NULL };
	return true;
}

/* Decode the record behind those that the step at hand has taken. */
static int decode(struct lane *l)
{
	size_t left = mem_ring_used(&l->in) - l->used;
	int event;

	if (l->has_ahead) {
		l->has_ahead = false;
		l->event = l->ahead_event;
		l->rec = l->ahead;
		return l->event;
	}
	if (left == 0 || left < l->need)
		return QSTREAM_NEED_MORE;
	event = qstream_next(&l->stream, mem_ring_read(&l->in) + l->used, left, &l->rec);
	l->need = event == QSTREAM_NEED_MORE ? l->rec.need : 0;
	l->event = event;
	return event;
}

/*
 * Zero pages come in long rows; the kernel places a row in one call.  What ends the row is kept for
 * the next step.
 */
static void extend_zero_run(struct lane *l, const struct block *b, struct lane_page *page)
{
	unsigned block = l->rec.page.block;
	uint64_t next = l->rec.page.offset + b->page_size;

	while (page->n < ENGINE_RUN) {
		int event = decode(l);

		if (event != QSTREAM_ZERO || l->rec.page.block != block ||
		    l->rec.page.offset != next) {
			l->has_ahead = event > QSTREAM_NEED_MORE;
			l->ahead_event = event;
			l->ahead = l->rec;
			return;
		}
		page->n++;
		next += b->page_size;
		l->used += l->rec.used;
	}
}

/**
 * lane_next - look at what is next in the buffer
 * @blocks: the session's blocks, in the order of the stream's list
 * @postcopy: pages come whole (LANE_PAGE); before, as records
 * @page: set for LANE_PAGE
 *
 * Each step is consumed before the next is asked for.
 *
 * Return: enum lane_step; -EPROTO with the reason in l->stream.
 */
int lane_next(struct lane *l, const struct block_table *blocks, bool postcopy,
	      struct lane_page *page)
{
	for (;;) {
		int event = decode(l), ret;
		const struct block *b;
		const uint8_t *data;

		if (event < 0)
			return event;
		if (event == QSTREAM_NEED_MORE)
			return LANE_MORE;
		l->used += l->rec.used;
		if (!postcopy || (event != QSTREAM_PAGE && event != QSTREAM_ZERO))
			return LANE_RECORD;
		b = &blocks->block[l->rec.page.block];
		data = event == QSTREAM_PAGE ? l->rec.page.data : NULL;
		if (b->page_size == l->stream.target_page) {
			*page = (struct lane_page){ .page = block_page(b, l->rec.page.offset),
						    .n = 1,
						    .data = data };
			if (!data)
				extend_zero_run(l, b, page);
			return LANE_PAGE;
		}
		ret = gather(l, b, data, page);
		if (ret != false)
			return ret < 0 ? ret : LANE_PAGE;
		lane_consume(l);
	}
}

/**
 * lane_consume - the step at hand is done with: its bytes may be overwritten
 */
void lane_consume(struct lane *l)
{
	l->in.head += l->used;
	l->used = 0;
}

/**
 * lane_received - account @n bytes received at @now; 0: end of the connection, negative: -errno
 */
void lane_received(struct lane *l, ssize_t n, uint64_t now)
{
	l->arrived_ns = now;
	if (n > 0) {
		l->in.tail += (size_t)n;
		l->bytes += (uint64_t)n;
		l->batches++;
		return;
	}
	l->eof = true;
	l->error = n < 0 ? (int)-n : 0;
}

/**
 * lane_space - contiguous bytes that can be received into now
 *
 * All of it, for each receive costs acknowledgements, and on the back of those the kernel sends for
 * the source.  An empty buffer begins anew, so that a lane that is kept up with stays in a few
 * cache lines.  Not while a receive is under way: it was told another place.
 */
size_t lane_space(struct lane *l)
{
	mem_ring_rewind(&l->in);
	return mem_ring_room(&l->in);
}
