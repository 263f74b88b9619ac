/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a device reaches, and in which of three ways it comes to it (4.4):
 *
 *   gate	A range is mapped for it when all its pages are there: by descriptor (a server), by
 *		our own mapping (the kernel, which pins what it finds).  The device is started when
 *		all are.  A server takes mappings in RESUMING and RUNNING, not in STOP.
 *   messages	A range is mapped without a descriptor before the device is loaded.  It is started
 *		with the VM; what it asks for, its thread does for it, once the pages are there
 *		(devices_ask.c).  When everything is there the ranges are mapped anew, by
 *		descriptor.
 *   sharer	The server is a sharer like any other, of the device's name: it has a userfaultfd
 *		of its own and waits for pages by itself.  So everything is mapped by descriptor as
 *		soon as it is proven, and there is no gate.
 *
 * With --dma-map the set is what the options say, and whole.  Without, it is declared by the VMM,
 * for the gate of the device's name.
 *
 * Our mappings of blocks here are registered with no userfaultfd: a missing page that is touched
 * would be there, zero, for everybody.  So they are touched where the gate has said that all is
 * there, and nowhere else.
 */
#include "config.h"
#include "daemon/devices_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "core/guard.h"
#include "sys/fd.h"

#define PIECE (UINT64_C(1) << 30) /* bytes of a range, at most */

/* --- blocks ----------------------------------------------------------------------------------- */

void devices_take_blocks(struct devices *all)
{
	const struct snapshot *s = all->snapshot;

	for (; all->n_blocks < s->n_blocks; all->n_blocks++) {
		struct device_block *b = &all->block[all->n_blocks];
		int fd;

		*b = (struct device_block){ .length = s->block[all->n_blocks].length };
		fd = door_block_file(all->config.door, all->n_blocks, &b->file_offset);
		b->fd = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
	}
}

void devices_drop_blocks(struct devices *all)
{
	for (unsigned i = 0; i < all->n_blocks; i++) {
		if (all->block[i].map)
			munmap(all->block[i].map, all->block[i].length);
		close_fd(&all->block[i].fd);
	}
	all->n_blocks = 0;
}

/* NULL: it cannot be mapped. */
uint8_t *devices_block_map(struct devices *all, unsigned block)
{
	struct device_block *b = &all->block[block];
	void *at;

	if (b->map || b->fd < 0)
		return b->map;
	at = mmap(NULL, b->length, PROT_READ | PROT_WRITE, MAP_SHARED, b->fd,
		  (off_t)b->file_offset);
	b->map = at == MAP_FAILED ? NULL : at;
	return b->map;
}

static int find_block(const struct devices *all, const char *name)
{
	for (unsigned i = 0; i < all->n_blocks; i++)
		if (strcmp(all->snapshot->block[i].name, name) == 0)
			return (int)i;
	return -ENOENT;
}

/* --- the gate --------------------------------------------------------------------------------- */

static struct device_range *find(const struct device *d, uint64_t iova)
{
	for (unsigned i = 0; i < d->ranges->len; i++) {
		struct device_range *r = &g_array_index(d->ranges, struct device_range, i);

		if (r->span.iova == iova)
			return r;
	}
	return NULL;
}

static void add_range(struct device *d, const struct gate_span *span, bool there)
{
	struct device_range r = { .span = *span, .there = there };

	g_array_append_val(d->ranges, r);
}

/* All of it is there. */
static void on_map(void *ctx, const struct gate_span *span)
{
	struct device *d = ctx;
	struct device_range *r = find(d, span->iova);

	if (d->o->dma == OPTIONS_DMA_MESSAGES) {
		if (r)
			r->there = true;
		gatekeeper_mapped(d->all->config.gates, d->gate, span->iova, r ? 0 : -ENOTSUP);
	} else if (r) {
		*r = (struct device_range){ .span = *span, .there = true };
	} else {
		add_range(d, span, true);
	}
	devices_state_changed(d->all);
}

static void on_open(void *ctx)
{
	devices_state_changed(((struct device *)ctx)->all);
}

int device_dma_init(struct device *d)
{
	const struct gatekeeper_user user = { on_map, on_open, d };

	if (d->o->dma == OPTIONS_DMA_SHARER)
		return 0;
	d->gate = gatekeeper_add(d->all->config.gates, d->o->id, true, &user);
	return d->gate < 0 ? d->gate : 0;
}

/* --- what the options declare ----------------------------------------------------------------- */

static void on_declared(void *ctx, int error, uint64_t written)
{
	struct device *d = ctx;

	(void)written;
	d->declaring--;
	if (error)
		device_lose(d, -error, "--dma-map: a range cannot be declared: %s",
			    g_strerror(-error));
	devices_state_changed(d->all);
}

static void declare_span(struct device *d, const struct gate_span *span)
{
	if (d->o->dma != OPTIONS_DMA_GATE)
		add_range(d, span, false);
	if (d->gate < 0)
		return;
	d->declaring++;
	gatekeeper_map(d->all->config.gates, d->gate, NULL, span, on_declared, d);
}

static bool declare(struct device *d, const struct options_dma_map *m)
{
	int index = find_block(d->all, m->block);
	struct gate_span span = {
		.iova = m->iova, .offset = m->offset, .block = (unsigned)index,
		.class = m->coherent ? GATE_COHERENT : GATE_STREAMING,
		.directions = GATE_READS | GATE_WRITES,
	};
	uint64_t left, length;

	if (index < 0 || d->all->block[index].fd < 0) {
		device_lose(d, ENOENT, "--dma-map: the VM has no shared block %s", m->block);
		return false;
	}
	length = d->all->block[index].length;
	left = m->length ? m->length : m->offset < length ? length - m->offset : 0;
	if (!left || !range_inside(m->offset, left, length)) {
		device_lose(d, ERANGE, "--dma-map: block %s ends at %" PRIu64, m->block, length);
		return false;
	}
	for (; left; left -= span.length) {
		span.length = MIN(left, PIECE);
		declare_span(d, &span);
		span.iova += span.length;
		span.offset += span.length;
	}
	return true;
}

static bool is_whole(const struct device *d)
{
	const GPtrArray *maps = d->all->config.options->dma_map;

	for (unsigned i = 0; i < maps->len; i++)
		if (strcmp(((struct options_dma_map *)g_ptr_array_index(maps, i))->device,
			   d->o->id) == 0)
			return true;
	return false;
}

void device_declare(struct device *d)
{
	const GPtrArray *maps = d->all->config.options->dma_map;

	if (d->declared || d->all->n_blocks == 0)
		return;
	d->declared = true;
	for (unsigned i = 0; i < maps->len; i++) {
		const struct options_dma_map *m = g_ptr_array_index(maps, i);

		if (strcmp(m->device, d->o->id) == 0 && !declare(d, m))
			return;
	}
	if (d->gate >= 0 && is_whole(d))
		gatekeeper_seal(d->all->config.gates, d->gate);
}

/* --- mapping ---------------------------------------------------------------------------------- */

static bool is_proven(const struct device *d)
{
	const struct snapshot *s = d->all->snapshot;

	for (unsigned i = 0; i < s->n_sharers; i++)
		if (strcmp(s->sharer[i].name, d->o->id) == 0 &&
		    s->sharer[i].state == SHARER_ACTIVE)
			return true;
	return false;
}

static bool is_all_there(const struct device *d)
{
	return d->gate >= 0 && d->declaring == 0 && gatekeeper_open(d->all->config.gates, d->gate);
}

/* Does the device take mappings now? */
static bool takes(const struct device *d)
{
	if (!d->o->user)
		return true;
	if (d->group.goal == DEVGROUP_REST)
		return d->o->dma != OPTIONS_DMA_GATE;
	return d->group.goal >= DEVGROUP_MAPPABLE && d->group.goal <= DEVGROUP_RUNNING &&
	       devgroup_done(&d->group);
}

static bool may_take(const struct device *d, const struct device_range *r)
{
	switch (d->o->dma) {
	case OPTIONS_DMA_SHARER:
		return is_proven(d);
	case OPTIONS_DMA_MESSAGES:
		return true;
	default:
		return r->there;
	}
}

static void order(struct device *d, struct device_range *r, enum devthread_verb verb, bool direct)
{
	const struct gate_span *span = &r->span;
	struct device_block *b = &d->all->block[span->block];
	bool ours = !d->o->user || d->o->dma == OPTIONS_DMA_MESSAGES;
	uint8_t *map = ours ? devices_block_map(d->all, span->block) : NULL;
	struct devthread_order o = {
		.verb = verb, .fd = -1,
		.dma = {
			.iova = span->iova, .size = span->length,
			.prot = (span->directions & GATE_READS ? PROT_READ : 0) |
				(span->directions & GATE_WRITES ? PROT_WRITE : 0),
			.address = map ? map + span->offset : NULL,
			.fd = direct ? b->fd : -1,
			.offset = b->file_offset + span->offset,
		},
	};

	d->mapping++;
	if (!devthread_put(d->thread, &o))
		d->mapping--;
	else if (verb == DEVTHREAD_MAP) {
		r->taken = true;
		r->direct = direct;
	}
}

/*
 * It asks for nothing any more: from now on it may reach all by itself.  One range after the other:
 * between the two orders it reaches nothing there.
 */
static void upgrade(struct device *d)
{
	atomic_store_explicit(&d->ask.everything, true, memory_order_release);
	if (d->mapping || d->group.goal != DEVGROUP_RUNNING || !devgroup_done(&d->group))
		return;
	for (unsigned i = 0; i < d->ranges->len; i++) {
		struct device_range *r = &g_array_index(d->ranges, struct device_range, i);

		if (r->direct)
			continue;
		order(d, r, DEVTHREAD_UNMAP, false);
		order(d, r, DEVTHREAD_MAP, true);
		return;
	}
}

void device_map(struct device *d)
{
	if (!takes(d))
		return;
	for (unsigned i = 0; i < d->ranges->len; i++) {
		struct device_range *r = &g_array_index(d->ranges, struct device_range, i);

		if (!r->taken && may_take(d, r))
			order(d, r, DEVTHREAD_MAP, d->o->dma != OPTIONS_DMA_MESSAGES);
	}
	if (d->o->dma == OPTIONS_DMA_MESSAGES && is_all_there(d))
		upgrade(d);
}

void device_went_dma(struct device *d, const struct devthread_result *r)
{
	struct gatekeeper *gates = d->all->config.gates;

	d->mapping--;
	if (r->verb == DEVTHREAD_MAP && d->o->dma == OPTIONS_DMA_GATE && !d->lost)
		gatekeeper_mapped(gates, d->gate, r->iova, r->error);
	if (r->error)
		device_lose(d, -r->error, "its memory at %#" PRIx64 " cannot be %s: %s", r->iova,
			    r->verb == DEVTHREAD_MAP ? "mapped" : "unmapped",
			    r->why ? r->why : g_strerror(-r->error));
}

bool device_premapped(const struct device *d)
{
	if (d->o->dma == OPTIONS_DMA_GATE)
		return true;
	for (unsigned i = 0; i < d->ranges->len; i++)
		if (!g_array_index(d->ranges, struct device_range, i).taken)
			return false;
	return d->declared && d->mapping == 0;
}

bool device_mapped(const struct device *d)
{
	if (d->o->dma == OPTIONS_DMA_GATE)
		return is_all_there(d) && d->mapping == 0;
	return device_premapped(d);
}
