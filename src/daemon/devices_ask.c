/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bytes that a device asks for by messages.  Its thread does that through our mapping of the block,
 * which must not be touched where a page is missing.  So the thread asks first and sleeps, as a
 * vCPU does that faults:
 *
 *	thread		says which bytes (ASKED), rings the main loop, waits for its own bell
 *	main		declares them as a range of a gate that is there for that alone (OUT); its
 *			pages are fetched like those that any device will reach
 *	gate		tells when all of them are there: ANSWERED, and the range is forgotten
 *
 * A page that was there stays: discards are over.  Once all the device reaches is there, nothing is
 * asked any more.
 *
 * No time limits the wait: a lane that is down keeps vCPUs waiting, too.  It ends when the device
 * is lost, or the daemon ends.
 */
#include "config.h"
#include "daemon/devices_parts.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>

#include "core/guard.h"
#include "daemon/mailbox.h"

#define GATE_NAME "dma-messages"
#define SLOT	  32 /* bits of the addresses of one device's questions */

/* --- the device's thread ---------------------------------------------------------------------- */

/* The range that has all of it; ranges do not change once the device may ask. */
static const struct gate_span *find(const struct device *d, uint64_t iova, uint64_t len)
{
	for (unsigned i = 0; i < d->ranges->len; i++) {
		const struct gate_span *s =
			&g_array_index(d->ranges, struct device_range, i).span;

		if (iova >= s->iova && range_inside(iova - s->iova, len, s->length))
			return s;
	}
	return NULL;
}

static int ask(struct device *d, unsigned block, uint64_t offset, uint64_t len)
{
	struct device_ask *a = &d->ask;
	uint64_t from = offset & ~(uint64_t)(GATE_PAGE - 1);

	a->block = block;
	a->offset = from;
	a->length = (offset + len - from + GATE_PAGE - 1) & ~(uint64_t)(GATE_PAGE - 1);
	atomic_store_explicit(&a->state, ASK_ASKED, memory_order_release);
	doorbell_ring(d->all->doorbell);
	while (atomic_load_explicit(&a->state, memory_order_acquire) != ASK_ANSWERED) {
		struct pollfd p = { .fd = a->bell, .events = POLLIN };

		if (atomic_load_explicit(&a->closed, memory_order_acquire))
			return -ECANCELED;
		poll(&p, 1, -1);
		doorbell_clear(a->bell);
	}
	atomic_store_explicit(&a->state, ASK_NONE, memory_order_relaxed);
	return a->error;
}

/* Where it is, once it is there. */
static int reach(struct device *d, uint64_t iova, size_t len, uint8_t **at)
{
	const struct gate_span *s = find(d, iova, len);
	uint64_t offset;
	int err = 0;

	if (!s || len == 0)
		return -EFAULT;
	offset = s->offset + (iova - s->iova);
	if (!atomic_load_explicit(&d->ask.everything, memory_order_acquire))
		err = ask(d, s->block, offset, len);
	*at = d->all->block[s->block].map + offset;
	return err;
}

int device_ask_read(void *ctx, uint64_t iova, void *buf, size_t len)
{
	uint8_t *at;
	int err = reach(ctx, iova, len, &at);

	if (!err)
		memcpy(buf, at, len);
	return err;
}

int device_ask_write(void *ctx, uint64_t iova, const void *buf, size_t len)
{
	uint8_t *at;
	int err = reach(ctx, iova, len, &at);

	if (!err)
		memcpy(at, buf, len);
	return err;
}

/* --- main ------------------------------------------------------------------------------------- */

static void answer(struct device *d, int error)
{
	if (atomic_load_explicit(&d->ask.state, memory_order_relaxed) != ASK_OUT)
		return;
	d->ask.error = error;
	atomic_store_explicit(&d->ask.state, ASK_ANSWERED, memory_order_release);
	doorbell_ring(d->ask.bell);
}

static void on_wanted(void *ctx, int error, uint64_t written)
{
	struct device *d = ctx;

	(void)written;
	if (!error)
		return;
	d->ask.unmapping = false;
	answer(d, error);
}

static void on_forgotten(void *ctx, int error, uint64_t written)
{
	struct device *d = ctx;

	(void)error;
	(void)written;
	d->ask.unmapping = false;
	device_ask_look(d);
}

static void on_there(void *ctx, const struct gate_span *span)
{
	struct devices *all = ctx;
	struct gatekeeper *gates = all->config.gates;
	struct device *d = all->device[span->iova >> SLOT];

	gatekeeper_mapped(gates, all->asks, span->iova, 0);
	gatekeeper_unmap(gates, all->asks, span->iova, span->length, on_forgotten, d);
	answer(d, 0);
}

/* One for all devices. */
static int make_gate(struct devices *all)
{
	const struct gatekeeper_user user = { on_there, NULL, all };

	if (all->asks >= 0)
		return 0;
	all->asks = gatekeeper_add(all->config.gates, GATE_NAME, true, &user);
	if (all->asks < 0)
		return all->asks;
	gatekeeper_seal(all->config.gates, all->asks);
	return 0;
}

void device_ask_look(struct device *d)
{
	struct device_ask *a = &d->ask;
	struct gate_span span;

	if (d->lost || a->unmapping ||
	    atomic_load_explicit(&a->state, memory_order_acquire) != ASK_ASKED)
		return;
	span = (struct gate_span){
		.iova = (uint64_t)d->index << SLOT, .length = a->length, .block = a->block,
		.offset = a->offset, .directions = GATE_READS | GATE_WRITES,
	};
	atomic_store_explicit(&a->state, ASK_OUT, memory_order_relaxed);
	a->unmapping = true;
	if (!devices_block_map(d->all, a->block))
		on_wanted(d, -ENOMEM, 0);
	else
		gatekeeper_map(d->all->config.gates, d->all->asks, NULL, &span, on_wanted, d);
}

int device_ask_init(struct device *d)
{
	d->ask.bell = doorbell_new();
	if (d->ask.bell < 0)
		return d->ask.bell;
	return d->o->dma == OPTIONS_DMA_MESSAGES ? make_gate(d->all) : 0;
}

void device_ask_close(struct device *d)
{
	atomic_store_explicit(&d->ask.closed, true, memory_order_release);
	doorbell_ring(d->ask.bell);
}
