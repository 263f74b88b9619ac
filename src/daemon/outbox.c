/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"
#include "daemon/outbox.h"

#include <assert.h>

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

void outbox_reset(struct outbox *o)
{
	o->queue.head = o->queue.tail = 0;
	o->sending = false;
	qreturn_writer_init(&o->writer);
}

/* Where the next message may be written.  A PING storm is bounded by the 16 messages that outbox_room() keeps. */
static uint8_t *space(struct outbox *o)
{
	assert(mem_ring_room(&o->queue) >= QRETURN_MESSAGE_MAX);
	return mem_ring_write(&o->queue);
}

void outbox_request(struct outbox *o, const struct block_table *blocks, const struct engine_request *r)
{
	o->queue.tail += qreturn_request(&o->writer, space(o), r->block, blocks->block[r->block].name, r->offset,
					 (uint32_t)r->length);
}

void outbox_pong(struct outbox *o, uint32_t value)
{
	o->queue.tail += qreturn_pong(space(o), value);
}

void outbox_shut(struct outbox *o, uint32_t error)
{
	o->queue.tail += qreturn_shut(space(o), error);
}

void outbox_switchover_ack(struct outbox *o)
{
	o->queue.tail += qreturn_switchover_ack(space(o));
}

void outbox_took(struct outbox *o, size_t n)
{
	o->queue.head += n;
	o->sent += n;
}
