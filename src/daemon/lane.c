/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"
#include "daemon/lane.h"

#include <errno.h>
#include <string.h>

#include "sys/fd.h"

int lane_open(struct lane *l, enum stats_lane id, int fd)
{
	*l = (struct lane){ .fd = fd, .id = id };
	qstream_init(&l->stream, QSTREAM_MAIN, NULL);
	return mem_ring_init(&l->in, LANE_BUFFER);
}

void lane_close(struct lane *l)
{
	close_fd(&l->fd);
	if (l->in.base)
		mem_ring_deinit(&l->in);
	if (l->slot)
		mem_unmap(l->slot, l->slot_size);
	l->slot = NULL;
}

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
 * The pieces of one host page come in ascending order without others between (wire specification, section 10).  True when the
 * page is complete.
 */
static int gather(struct lane *l, const struct block *b, const uint8_t *data, struct lane_page *out)
{
	uint64_t offset = l->rec.page.offset, page = block_page(b, offset), at = offset & (b->page_size - 1);

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
	*out = (struct lane_page){ .page = page, .n = 1, .data = l->gathered_data ? l->slot : NULL };
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

/* Zero pages come in long rows; the kernel places a row in one call.  What ends the row is kept for the next step. */
static void extend_zero_run(struct lane *l, const struct block *b, struct lane_page *page)
{
	unsigned block = l->rec.page.block;
	uint64_t next = l->rec.page.offset + b->page_size;

	while (page->n < ENGINE_RUN) {
		int event = decode(l);

		if (event != QSTREAM_ZERO || l->rec.page.block != block || l->rec.page.offset != next) {
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

int lane_next(struct lane *l, const struct block_table *blocks, bool postcopy, struct lane_page *page)
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
			*page = (struct lane_page){ .page = block_page(b, l->rec.page.offset), .n = 1, .data = data };
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

void lane_consume(struct lane *l)
{
	l->in.head += l->used;
	l->used = 0;
}

void lane_received(struct lane *l, ssize_t n)
{
	if (n > 0) {
		l->in.tail += (size_t)n;
		l->bytes += (uint64_t)n;
		l->batches++;
		return;
	}
	l->eof = true;
	l->error = n < 0 ? (int)-n : 0;
}

size_t lane_space(const struct lane *l, size_t most)
{
	size_t room = mem_ring_room(&l->in);

	return room < most ? room : most;
}
