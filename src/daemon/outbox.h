/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_OUTBOX_H
#define PC_DAEMON_OUTBOX_H
/*
 * Bytes on their way to the source: whole return-path messages in a bounded queue, sent by the
 * ring, one send at a time.  A full queue is back-pressure: requests wait in the ledger, where they
 * are anyway.
 */
#include <stdbool.h>
#include <stdint.h>
#include "core/engine.h"
#include "sys/mem.h"
#include "wire/qreturn.h"

#define OUTBOX_SIZE 65536
#define OUTBOX_KEPT (16 * QRETURN_MESSAGE_MAX)

struct outbox {
	struct mem_ring queue;
	struct qreturn_writer writer;
	uint64_t sent;			/* bytes */
	/* the peer takes no more: nothing is sent; the receiving side tells when it ended */
	bool broken;
	/* a send is in the kernel's hands: its bytes stay where they are */
	bool sending;
};

int outbox_init(struct outbox *o);
void outbox_deinit(struct outbox *o);
/* A new connection: forget what the old one was told. */
void outbox_reset(struct outbox *o);
/* Is there room for one more message?  Some is always kept for PONG and SHUT. */
static inline bool outbox_room(const struct outbox *o)
{
	return mem_ring_room(&o->queue) >= OUTBOX_KEPT;
}
static inline bool outbox_empty(const struct outbox *o)
{
	return mem_ring_used(&o->queue) == 0;
}
void outbox_request(struct outbox *o, const struct block_table *blocks,
		    const struct engine_request *r);
void outbox_pong(struct outbox *o, uint32_t value);
void outbox_shut(struct outbox *o, uint32_t error);
void outbox_switchover_ack(struct outbox *o);
void outbox_resume_ack(struct outbox *o);
/*
 * What came of a block: its head, when there is outbox_room(), then @size bytes and the end mark by
 * outbox_space() and outbox_put(), with no message between them.
 */
void outbox_bitmap(struct outbox *o, const char *name, uint64_t size);
/* Where bytes may be written now; *@room: how many, beside what is kept for messages. */
uint8_t *outbox_space(const struct outbox *o, size_t *room);
void outbox_put(struct outbox *o, size_t n);
/* Where what was put in last ends: for outbox_arrived(). */
static inline uint64_t outbox_mark(const struct outbox *o)
{
	return o->sent + mem_ring_used(&o->queue);
}
/* Has the peer's end of @fd everything up to @mark? */
bool outbox_arrived(const struct outbox *o, int fd, uint64_t mark);
/* @n bytes went out. */
void outbox_took(struct outbox *o, size_t n);

#endif
