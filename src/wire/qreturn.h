/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_WIRE_QRETURN_H
#define PC_WIRE_QRETURN_H
/*
 * The return path: destination to source, on the main connection's other direction.
 *
 * The writer keeps the one piece of connection state there is: the block of the last request, which
 * lets a request leave its name out (REQ_PAGES instead of REQ_PAGES_ID).  A new connection needs a
 * new writer.  The reader is for the source side and for tests.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum qreturn_type {
	QRETURN_SHUT = 1,
	QRETURN_PONG = 2,
	QRETURN_REQ_PAGES_ID = 3,
	QRETURN_REQ_PAGES = 4,
	QRETURN_RECV_BITMAP = 5,
	QRETURN_RESUME_ACK = 6,
	QRETURN_SWITCHOVER_ACK = 7,
};
#define QRETURN_MESSAGE_MAX (4 + 13 + 255) /* longest message the writer makes */
#define QRETURN_NEED_MORE   0
#define QRETURN_BITMAP_END  0x0123456789abcdefull /* be64 after the bitmap */

struct qreturn_writer {
	int last_block; /* caller's block number; -1: none on this connection */
};

void qreturn_writer_init(struct qreturn_writer *w);
/*
 * Each writes one whole message to @out (QRETURN_MESSAGE_MAX bytes) and returns its length.
 * @start, @len: bytes, multiples of the block's page size, within the block; len fits 32 bits.
 */
size_t qreturn_request(struct qreturn_writer *w, uint8_t *out, int block, const char *name,
		       uint64_t start, uint32_t len);
size_t qreturn_pong(uint8_t *out, uint32_t value);
size_t qreturn_shut(uint8_t *out, uint32_t error);
size_t qreturn_resume_ack(uint8_t *out);
size_t qreturn_switchover_ack(uint8_t *out);
/* @size bytes of bitmap and QRETURN_BITMAP_END follow, by the caller. */
size_t qreturn_bitmap_head(uint8_t *out, const char *name, uint64_t size);

struct qreturn_message {
	enum qreturn_type type;
	size_t used;	/* bytes of the window it took */
	uint32_t value; /* SHUT, PONG, RESUME_ACK */
	uint64_t start; /* REQ_PAGES: bytes in the block */
	uint32_t length;
	uint64_t bitmap_size; /* RECV_BITMAP: bytes, without QRETURN_BITMAP_END */
	char name[256];	      /* REQ_PAGES_ID, RECV_BITMAP; for REQ_PAGES the last one's */
};

struct qreturn_reader {
	char last_name[256]; /* "": none yet */
	uint64_t position;   /* bytes consumed since the connection began */
	uint64_t body_left;  /* bytes of a bitmap and its end mark not yet taken */
	const char *reason;
};

void qreturn_reader_init(struct qreturn_reader *r);
/* enum qreturn_type, QRETURN_NEED_MORE, or -EPROTO (for good) with r->reason. */
int qreturn_next(struct qreturn_reader *r, const uint8_t *buf, size_t len,
		 struct qreturn_message *m);
/* @n bytes of what follows a RECV_BITMAP (m->bitmap_size + 8) are out of the window. */
void qreturn_took(struct qreturn_reader *r, uint64_t n);

#endif
