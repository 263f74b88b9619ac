/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_LANE_H
#define PC_DAEMON_LANE_H
/*
 * One connection of a source, receiving: socket, receive buffer, decoder, and the landing slot in
 * which the pieces of a huge page are gathered.  Owned by one thread at a time; the main lane is
 * handed to the bulk thread when an urgent lane stands beside it.
 *
 * 4 KiB pages are placed straight from the receive buffer: it is mapped twice in a row, so every
 * record is contiguous.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "core/engine.h"
#include "sys/mem.h"
#include "wire/qstream.h"

#define LANE_BUFFER (4u << 20)

struct lane {
	int fd;				/* owned; -1 */
	enum stats_lane id;
	struct mem_ring in;
	struct qstream stream;
	bool eof;			/* the peer sent its last byte */
	bool ended;			/* the stream's own end was decoded (EOF record, EOS) */
	/* the step at hand is not consumed: its page waits to be placed */
	bool holding;
	bool hasten;			/* acknowledge at once: the source waits for it */
	int error;			/* of the socket, positive errno */
	/* bytes the next record needs at least; fewer are not looked at again */
	size_t need;
	uint64_t arrived_ns;		/* when the bytes at hand were received */
	/* received; taken into the statistics by the engine's owner */
	uint64_t bytes, batches;
	/* the record at hand, and one that was decoded while looking for the end of a zero run */
	int event;			/* enum qstream_event */
	struct qstream_record rec;
	size_t used;			/* bytes that the step at hand takes */
	bool has_ahead;
	int ahead_event;
	struct qstream_record ahead;
	/* gathering a huge page */
	uint8_t *slot;			/* slot_size bytes, NULL while no block needs it */
	uint64_t slot_size;
	uint64_t gather_page;		/* page number; valid while gathered > 0 */
	uint64_t gathered;		/* bytes */
	bool gathered_data;		/* some piece was not zero */
};

/*
 * What is complete and can be placed: one page with data, or up to ENGINE_RUN zero pages in a row.
 */
struct lane_page {
	uint64_t page, n;
	const uint8_t *data;		/* NULL: zeroes */
};

enum lane_step {
	LANE_MORE,		/* nothing complete in the buffer */
	/* l->event and l->rec: the caller handles it, then lane_consume() */
	LANE_RECORD,
	LANE_PAGE,		/* *page is complete: place it, then lane_consume() */
};

int lane_open(struct lane *l, enum stats_lane id, int fd);
void lane_close(struct lane *l);
/* Another connection, with the same buffer and slot; the decoder is the caller's to begin anew. */
void lane_reopen(struct lane *l, int fd);
/*
 * Landing slot for pages of up to @page_size bytes (no-op for 4 KiB).  Before the first postcopy
 * page.
 */
int lane_use_pages(struct lane *l, uint64_t page_size);
/* Look at what is next: enum lane_step, or -EPROTO with the reason in l->stream. */
int lane_next(struct lane *l, const struct block_table *blocks, bool postcopy,
	      struct lane_page *page);
void lane_consume(struct lane *l);
/* Account @n bytes received at @now (0: end of the connection, negative: -errno). */
void lane_received(struct lane *l, ssize_t n, uint64_t now);
/*
 * Contiguous space to receive into, now the place to write to.  Not while a receive is under way.
 */
size_t lane_space(struct lane *l);

#endif
