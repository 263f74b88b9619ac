/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_WIRE_QPRECOPY_H
#define PC_WIRE_QPRECOPY_H
/*
 * A migration stream that looks finished as precopy, for a destination QEMU whose memory is
 * somebody else's business: it lists every block, carries the pages of the few that must be there
 * before the device state is loaded, and then the device state of the source's package as it came.
 *
 * The writer hands out pieces to be sent, in order; it copies no page and no device state, and
 * holds no more than the heads between them.  What the plan and the callback point at must stay
 * until those bytes were sent.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/qstream.h"

struct qprecopy_block {
	const char *name; /* idstr as the destination knows it, 1 to 255 bytes */
	uint64_t length;  /* used_length, bytes, a multiple of the target page size */
	bool in_stream;	  /* every page of it is sent; else none */
};

/* What to send.  All of it is the caller's and must outlive the writer. */
struct qprecopy_plan {
	const char *machine;  /* machine type as received: a destination compares it with its own */
	/* of the source's header (qstream_record.header); 0: none was there */
	uint32_t page_bits;
	/*
	 * the source's own section id of ram (qstream.ram_section), so that it is none of the
	 * device part's
	 */
	uint32_t ram_section;
	uint64_t target_page; /* bytes */
	const struct qprecopy_block *blocks;
	unsigned n_blocks; /* 1 to QSTREAM_MAX_BLOCKS */
	const uint8_t *early; /* whole records that go before the block list, or NULL */
	size_t early_len;
	const uint8_t *device; /* struct qstream_package: the device part, unchanged */
	size_t device_len;
	/*
	 * The content of a page of an in-stream block: *data is set to target_page bytes, or left
	 * NULL for zeroes.  0, or -errno, which ends the stream.  Asked for once a page, in order.
	 */
	int (*page)(void *ctx, unsigned block, uint64_t offset, const uint8_t **data);
	void *ctx;
};

struct qprecopy_piece {
	const uint8_t *at;
	size_t len;
};

#define QPRECOPY_PIECES 64	  /* as many as the writer has ready at most */
#define QPRECOPY_HEADS	(8 * 1024) /* bytes of heads it can hold */

struct qprecopy {
	const struct qprecopy_plan *plan;
	int step;	 /* private: enum step in qprecopy.c */
	unsigned block;	 /* where the step stands */
	uint64_t offset;
	int last_block;	 /* of the page before; -1: none yet */
	int error;	 /* -errno of the callback, for good */
	uint64_t sent;	 /* bytes */
	unsigned first, n; /* pieces not sent yet: first to n - 1 */
	size_t heads_used;
	struct qprecopy_piece pieces[QPRECOPY_PIECES];
	uint8_t heads[QPRECOPY_HEADS];
};

/* 0, or -EINVAL with *why (static text): the plan cannot be written. */
int qprecopy_init(struct qprecopy *w, const struct qprecopy_plan *plan, const char **why);

/*
 * What is to be sent next, at most @max pieces, which stay as they are until qprecopy_sent().
 * Their number; 0 the stream is complete and sent; the callback's -errno.
 */
int qprecopy_next(struct qprecopy *w, struct qprecopy_piece *out, unsigned max);

/* @bytes of what qprecopy_next() last gave are gone; a part of a piece is fine. */
void qprecopy_sent(struct qprecopy *w, size_t bytes);

#endif
