/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What waits to be sent is bytes, not messages: a send may stop anywhere.  The writer's memory of
 * the last block lives here too, since it is true of a connection, not of a request.
 *
 * Requests are not stored here for long: they are taken from the ledger when there is room.  Only
 * PONG, SHUT and the like have no other place, so some room is kept for them.
 */
#include "config.h"
#include "daemon/outbox.h"

#include <assert.h>

#include "sys/sock.h"

/**
 * outbox_init - an empty queue; 0 or -errno
 */
int outbox_init(struct outbox *o)
{
	*o = (struct outbox){ 0 };
	qreturn_writer_init(&o->writer);
	return mem_ring_init(&o->queue, OUTBOX_SIZE);
}

void outbox_deinit(struct outbox *o)
{
	mem_ring_deinit(&o->queue);
}

/**
 * outbox_reset - a new connection: forget what the old one was told, and what of it was still to be
 * sent
 */
void outbox_reset(struct outbox *o)
{
	o->queue.head = o->queue.tail = 0;
	o->sending = o->broken = false;
	qreturn_writer_init(&o->writer);
}

/*
 * Where the next message may be written.  A PING storm is bounded by the 16 messages that
 * outbox_room() keeps.
 */
static uint8_t *space(struct outbox *o)
{
	assert(mem_ring_room(&o->queue) >= QRETURN_MESSAGE_MAX);
	return mem_ring_write(&o->queue);
}

/**
 * outbox_request - ask for pages; outbox_room() must have said yes
 */
void outbox_request(struct outbox *o, const struct block_table *blocks,
		    const struct engine_request *r)
{
	o->queue.tail += qreturn_request(&o->writer, space(o), r->block,
					 blocks->block[r->block].name, r->offset,
					 (uint32_t)r->length);
}

/**
 * outbox_pong - answer a PING; uses the room that is kept
 */
void outbox_pong(struct outbox *o, uint32_t value)
{
	o->queue.tail += qreturn_pong(space(o), value);
}

/**
 * outbox_shut - the last message of all
 */
void outbox_shut(struct outbox *o, uint32_t error)
{
	o->queue.tail += qreturn_shut(space(o), error);
}

/**
 * outbox_switchover_ack - the source may switch over; only where the operator says that it waits
 * for this
 */
void outbox_switchover_ack(struct outbox *o)
{
	o->queue.tail += qreturn_switchover_ack(space(o));
}

/**
 * outbox_resume_ack - the resumed source may send; outbox_room() must have said yes
 */
void outbox_resume_ack(struct outbox *o)
{
	o->queue.tail += qreturn_resume_ack(space(o));
}

/**
 * outbox_bitmap - the head of what came of a block; outbox_room() must have said yes
 */
void outbox_bitmap(struct outbox *o, const char *name, uint64_t size)
{
	o->queue.tail += qreturn_bitmap_head(space(o), name, size);
}

/**
 * outbox_space - where bytes may be written that follow a head
 * @room: set to how many
 */
uint8_t *outbox_space(const struct outbox *o, size_t *room)
{
	size_t all = mem_ring_room(&o->queue);

	*room = all > OUTBOX_KEPT ? all - OUTBOX_KEPT : 0;
	return mem_ring_write(&o->queue);
}

/**
 * outbox_put - @n bytes were written there
 */
void outbox_put(struct outbox *o, size_t n)
{
	o->queue.tail += n;
}

/**
 * outbox_took - @n bytes went out, whether by a send of ours or by the ring's
 */
void outbox_took(struct outbox *o, size_t n)
{
	o->queue.head += n;
	o->sent += n;
}

/**
 * outbox_arrived - does the peer have everything up to @mark?
 * @fd: the connection
 *
 * What the kernel still holds (SIOCOUTQ) counts from the end, so what was sent behind the mark may
 * still be on its way.  Bytes that TCP has acknowledged, or that a local peer has read; a UNIX
 * socket reports more than its bytes, never less.
 */
bool outbox_arrived(const struct outbox *o, int fd, uint64_t mark)
{
	int unsent = sock_unsent(fd);

	return o->sent >= mark && (unsent <= 0 || (uint64_t)unsent <= o->sent - mark);
}
