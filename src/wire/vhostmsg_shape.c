/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Bodies of vhost-user messages.  A shape has a least and a greatest size, and a check of what its
 * fields promise each other; alignment, and whether a number means anything to the device, are for
 * the back-end to judge.
 */
#include "config.h"

#include "wire/vhostmsg_parts.h"

#include <errno.h>
#include <stddef.h>

#include "core/guard.h"

_Static_assert(sizeof(struct vhostmsg_head) == 12, "head");
_Static_assert(sizeof(struct vhostmsg_region) == 32, "region");
_Static_assert(sizeof(struct vhostmsg_memory) == 8 + 32 * VHOSTMSG_REGIONS, "memory");
_Static_assert(offsetof(struct vhostmsg_config, data) == 12, "config");
_Static_assert(sizeof(union vhostmsg_body) == VHOSTMSG_BODY_MAX, "body");

#define MEMORY_HEAD offsetof(struct vhostmsg_memory, regions)
#define CONFIG_HEAD offsetof(struct vhostmsg_config, data)

static bool sum_fits(uint64_t a, uint64_t b)
{
	uint64_t sum;

	return add_u64(a, b, &sum);
}

static int check_region(const struct vhostmsg_region *r, const char **why)
{
	if (r->size == 0)
		return vhostmsg_refuse(-EBADMSG, "region has no bytes", why);
	if (!sum_fits(r->gpa, r->size) || !sum_fits(r->va, r->size) ||
	    !sum_fits(r->offset, r->size))
		return vhostmsg_refuse(
			-EBADMSG, "region wraps: an address or offset and the size overflow", why);
	return 0;
}

static bool regions_meet(const struct vhostmsg_region *a, const struct vhostmsg_region *b)
{
	return a->gpa < b->gpa + b->size && b->gpa < a->gpa + a->size;
}

static bool meets_earlier(const struct vhostmsg_memory *t, uint32_t i)
{
	for (uint32_t k = 0; k < i; k++)
		if (regions_meet(&t->regions[k], &t->regions[i]))
			return true;
	return false;
}

static int check_memory(const struct vhostmsg *m, const char **why)
{
	const struct vhostmsg_memory *t = &m->body.memory;

	if (t->n > VHOSTMSG_REGIONS)
		return vhostmsg_refuse(-E2BIG, "table has more than 8 regions", why);
	if (m->head.size != MEMORY_HEAD + t->n * sizeof(t->regions[0]))
		return vhostmsg_refuse(-EPROTO, "table has not the size of its regions", why);
	if (t->n == 0) /* the end of an exchange of addresses, where none began, looks like this */
		return vhostmsg_refuse(-EBADMSG, "table has no regions", why);
	for (uint32_t i = 0; i < t->n; i++) {
		int err = check_region(&t->regions[i], why);

		if (err)
			return err;
		if (meets_earlier(t, i))
			return vhostmsg_refuse(-EBADMSG, "regions of the table overlap", why);
	}
	return 0;
}

static int check_memreg(const struct vhostmsg *m, const char **why)
{
	return check_region(&m->body.memreg.region, why);
}

static int check_state(const struct vhostmsg *m, const char **why)
{
	return m->body.state.index < VHOSTMSG_RINGS ?
		       0 :
		       vhostmsg_refuse(-EBADMSG, "no ring has that number", why);
}

static int check_addr(const struct vhostmsg *m, const char **why)
{
	return m->body.addr.index < VHOSTMSG_RINGS ?
		       0 :
		       vhostmsg_refuse(-EBADMSG, "no ring has that number", why);
}

static int check_ring_fd(const struct vhostmsg *m, const char **why)
{
	if (m->body.u64 & ~(VHOSTMSG_NO_FD | (VHOSTMSG_RINGS - 1)))
		return vhostmsg_refuse(
			-EBADMSG, "bits beside the ring's number and its mark for no descriptor",
			why);
	return 0;
}

static int check_log(const struct vhostmsg *m, const char **why)
{
	if (m->head.size != sizeof(m->body.log)) /* a u64: a log without a descriptor */
		return m->head.size == 8 ?
			       0 :
			       vhostmsg_refuse(-EPROTO, "size is not that of a log", why);
	if (m->body.log.size == 0 || !sum_fits(m->body.log.size, m->body.log.offset))
		return vhostmsg_refuse(-EBADMSG, "log is empty, or its offset and size overflow",
				       why);
	return 0;
}

static int check_inflight(const struct vhostmsg *m, const char **why)
{
	if (!sum_fits(m->body.inflight.size, m->body.inflight.offset))
		return vhostmsg_refuse(-EBADMSG, "inflight region wraps: offset and size overflow",
				       why);
	return 0;
}

static int check_config(const struct vhostmsg *m, const char **why)
{
	if (m->body.config.size > VHOSTMSG_CONFIG)
		return vhostmsg_refuse(-EBADMSG, "more configuration than any device has", why);
	if (m->head.size != CONFIG_HEAD + m->body.config.size)
		return vhostmsg_refuse(-EPROTO, "configuration has not the size it says", why);
	return 0;
}

/* A device without configuration answers with nothing. */
static int check_config_answer(const struct vhostmsg *m, const char **why)
{
	if (m->head.size == 0)
		return 0;
	if (m->head.size < CONFIG_HEAD)
		return vhostmsg_refuse(-EPROTO, "size is too small for configuration", why);
	return check_config(m, why);
}

static int check_transfer(const struct vhostmsg *m, const char **why)
{
	if (m->body.transfer.direction > 1 || m->body.transfer.phase != 0)
		return vhostmsg_refuse(-EBADMSG, "device state: direction is 0 or 1, phase is 0",
				       why);
	return 0;
}

static int check_ack(const struct vhostmsg *m, const char **why)
{
	return m->body.u64 == 0 ? 0 : vhostmsg_refuse(-EBADMSG, "addresses were not accepted", why);
}

static const struct {
	uint16_t least, most;
	int (*check)(const struct vhostmsg *m, const char **why);
} shapes[SHAPES] = {
	[SHAPE_EMPTY] = { 0, 0, NULL },
	[SHAPE_U64] = { 8, 8, NULL },
	[SHAPE_STATE] = { sizeof(struct vhostmsg_state), sizeof(struct vhostmsg_state),
			  check_state },
	[SHAPE_ADDR] = { sizeof(struct vhostmsg_addr), sizeof(struct vhostmsg_addr), check_addr },
	[SHAPE_RING_FD] = { 8, 8, check_ring_fd },
	/* The most is left to the check, which can say that there are too many. */
	[SHAPE_MEMORY] = { MEMORY_HEAD, VHOSTMSG_BODY_MAX, check_memory },
	[SHAPE_MEMREG] = { sizeof(struct vhostmsg_memreg), sizeof(struct vhostmsg_memreg),
			   check_memreg },
	[SHAPE_LOG] = { 8, sizeof(struct vhostmsg_log), check_log },
	[SHAPE_LOG_ANSWER] = { 0, sizeof(struct vhostmsg_log), NULL },
	[SHAPE_INFLIGHT] = { sizeof(struct vhostmsg_inflight), sizeof(struct vhostmsg_inflight),
			     check_inflight },
	[SHAPE_CONFIG] = { CONFIG_HEAD, sizeof(struct vhostmsg_config), check_config },
	[SHAPE_CONFIG_ANSWER] = { 0, sizeof(struct vhostmsg_config), check_config_answer },
	[SHAPE_IOTLB] = { sizeof(struct vhostmsg_iotlb), sizeof(struct vhostmsg_iotlb), NULL },
	[SHAPE_AREA] = { sizeof(struct vhostmsg_area), sizeof(struct vhostmsg_area), NULL },
	[SHAPE_TRANSFER] = { sizeof(struct vhostmsg_transfer), sizeof(struct vhostmsg_transfer),
			     check_transfer },
	[SHAPE_ACK] = { 8, 8, check_ack },
	[SHAPE_UUID] = { 16, 16, NULL },
	[SHAPE_OPAQUE] = { 0, VHOSTMSG_BODY_MAX, NULL },
};

int vhostmsg_shape_check(enum vhostmsg_shape shape, const struct vhostmsg *m, const char **why)
{
	if (m->head.size < shapes[shape].least)
		return vhostmsg_refuse(-EPROTO, "size is too small for the request", why);
	if (m->head.size > shapes[shape].most)
		return vhostmsg_refuse(-EPROTO, "size is too large for the request", why);
	return shapes[shape].check ? shapes[shape].check(m, why) : 0;
}

uint32_t vhostmsg_shape_size(enum vhostmsg_shape shape)
{
	return shapes[shape].least;
}
