/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What comes from the source, made wrong where it lies: in the receive buffer, before it is looked
 * at.  That of a page is content, which nobody but the reader can tell from what was sent: a QEMU
 * migration stream has no digest of pages.
 */
#include "config.h"
#include "daemon/inject_desk.h"

#include <sys/socket.h>

#include "sys/clock.h"

static void flip(uint8_t *byte)
{
	*byte = (uint8_t)~*byte;
}

/**
 * inject_received - bytes came, the last @n in the buffer
 *
 * Return: milliseconds for which they are not to be looked at.
 */
uint64_t inject_received(struct faultplan *plan, struct lane *l, size_t n)
{
	enum faultplan_point point = l->id == LANE_MAIN ? FAULTPLAN_AT_RECEIVE_MAIN :
							  FAULTPLAN_AT_RECEIVE_URGENT;
	struct faultplan_event e = { .page = FAULTPLAN_NO_PAGE };
	struct faultplan_order order;
	size_t used = mem_ring_used(&l->in);

	if (n == 0 || !inject_at(plan, point, &e, &order))
		return 0;
	if (order.action == FAULTPLAN_DISCONNECT)
		shutdown(l->fd, SHUT_RDWR);
	if (order.action == FAULTPLAN_CORRUPT)
		flip(mem_ring_read(&l->in) + used - n + order.arg % n);
	return order.action == FAULTPLAN_DELAY ? order.arg : 0;
}

/**
 * inject_record - the next record is about to be decoded
 *
 * Once for each: not again when more of it was waited for.
 */
void inject_record(struct faultplan *plan, struct lane *l)
{
	struct faultplan_event e = { .page = FAULTPLAN_NO_PAGE };
	size_t used = mem_ring_used(&l->in);
	struct faultplan_order order;

	if (used == 0 || l->need || l->used || l->has_ahead ||
	    !inject_at(plan, FAULTPLAN_AT_RECORD, &e, &order))
		return;
	flip(mem_ring_read(&l->in) + (order.arg < used ? order.arg : used - 1));
}

/**
 * inject_content - a page with data is about to be placed
 */
void inject_content(struct faultplan *plan, const struct lane_page *p, uint64_t page_size)
{
	struct faultplan_event e = { .page = p->page, .n = p->n };
	struct faultplan_order order;

	if (p->data && inject_at(plan, FAULTPLAN_AT_PAGE, &e, &order))
		flip((uint8_t *)p->data + order.arg % page_size);
}

/**
 * inject_arrived - the same, for the fault thread: the lane then rests
 */
void inject_arrived(struct faultloop *f, struct lane *l, int n)
{
	uint64_t ms = n > 0 ? inject_received(f->faults, l, (size_t)n) : 0;

	if (ms)
		f->desk->lane_due[l->id] = clock_ns() + ms * 1000000;
}

/**
 * inject_return - bytes are about to be sent to the source
 */
void inject_return(struct faultplan *plan, int fd)
{
	struct faultplan_event e = { .page = FAULTPLAN_NO_PAGE };
	struct faultplan_order order;

	if (inject_at(plan, FAULTPLAN_AT_RETURN, &e, &order))
		shutdown(fd, SHUT_RDWR);
}
