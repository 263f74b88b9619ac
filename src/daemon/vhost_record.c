/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A later word takes the place of an earlier one about the same thing, so that the order stays that
 * of the first time: negotiation, memory, rings.  What is about the same thing is said by a table.
 * A slot that was dropped takes its addition along; a new table takes all slots along; a reset
 * stops all rings.
 *
 * Where a ring stood is known from the back-end that stopped it (vhost_record_stopped), and from
 * the VMM that set it; of one that died it is in the inflight region, which is in force like the
 * rest.
 */
#include "config.h"
#include "daemon/vhost_record.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "core/guard.h"
#include "sys/mem.h"

/* When are two requests of one number about the same thing? */
enum topic {
	TOPIC_ACT,	/* an act that is over when it is done: not in force */
	TOPIC_ALWAYS,
	TOPIC_RING,	/* of the same ring */
	TOPIC_SLOT,	/* the same region */
	TOPIC_CONFIG,	/* the same bytes of configuration */
};

static const uint8_t topics[] = {
	[VHOSTMSG_SET_FEATURES] = TOPIC_ALWAYS,
	[VHOSTMSG_SET_OWNER] = TOPIC_ALWAYS,
	[VHOSTMSG_SET_MEM_TABLE] = TOPIC_ALWAYS,
	[VHOSTMSG_SET_LOG_BASE] = TOPIC_ALWAYS,
	[VHOSTMSG_SET_LOG_FD] = TOPIC_ALWAYS,
	[VHOSTMSG_SET_VRING_NUM] = TOPIC_RING,
	[VHOSTMSG_SET_VRING_ADDR] = TOPIC_RING,
	[VHOSTMSG_SET_VRING_BASE] = TOPIC_RING,
	[VHOSTMSG_SET_VRING_KICK] = TOPIC_RING,
	[VHOSTMSG_SET_VRING_CALL] = TOPIC_RING,
	[VHOSTMSG_SET_VRING_ERR] = TOPIC_RING,
	[VHOSTMSG_SET_PROTOCOL_FEATURES] = TOPIC_ALWAYS,
	[VHOSTMSG_SET_VRING_ENABLE] = TOPIC_RING,
	[VHOSTMSG_NET_SET_MTU] = TOPIC_ALWAYS,
	[VHOSTMSG_SET_BACKEND_REQ_FD] = TOPIC_ALWAYS,
	[VHOSTMSG_SET_VRING_ENDIAN] = TOPIC_RING,
	[VHOSTMSG_SET_CONFIG] = TOPIC_CONFIG,
	[VHOSTMSG_SET_INFLIGHT_FD] = TOPIC_ALWAYS,
	[VHOSTMSG_GPU_SET_SOCKET] = TOPIC_ALWAYS,
	[VHOSTMSG_ADD_MEM_REG] = TOPIC_SLOT,
	[VHOSTMSG_SET_STATUS] = TOPIC_ALWAYS,
};

static enum topic topic_of(uint32_t request)
{
	return request < ARRAY_LEN(topics) ? (enum topic)topics[request] : TOPIC_ACT;
}

/*
 * -1: it is not about one ring.  A state and an address begin with the ring, the descriptors'
 * number has it in a byte.
 */
static int ring_of(const struct vhostmsg *m)
{
	if (topic_of(m->head.request) != TOPIC_RING)
		return -1;
	return m->head.size == sizeof(m->body.u64) && m->head.request >= VHOSTMSG_SET_VRING_KICK &&
			       m->head.request <= VHOSTMSG_SET_VRING_ERR ?
		       (int)(m->body.u64 & (VHOSTMSG_RINGS - 1)) :
		       (int)m->body.state.index;
}

static bool same_slot(const struct vhostmsg *a, const struct vhostmsg *b)
{
	const struct vhostmsg_region *x = &a->body.memreg.region, *y = &b->body.memreg.region;

	return x->gpa == y->gpa && x->size == y->size && x->va == y->va;
}

static bool same_topic(const struct vhostmsg *a, const struct vhostmsg *b)
{
	if (a->head.request != b->head.request)
		return false;
	switch (topic_of(a->head.request)) {
	case TOPIC_ALWAYS:
		return true;
	case TOPIC_RING:
		return ring_of(a) == ring_of(b);
	case TOPIC_SLOT:
		return same_slot(a, b);
	case TOPIC_CONFIG:
		return a->body.config.offset == b->body.config.offset &&
		       a->body.config.size == b->body.config.size;
	case TOPIC_ACT:
		break;
	}
	return false;
}

/**
 * vhost_record_init - nothing was said
 */
void vhost_record_init(struct vhost_record *r)
{
	r->frames = g_ptr_array_new_with_free_func((GDestroyNotify)vhost_frame_free);
}

/**
 * vhost_record_deinit - close every descriptor that is kept; idempotent
 */
void vhost_record_deinit(struct vhost_record *r)
{
	g_clear_pointer(&r->frames, g_ptr_array_unref);
}

static struct vhost_frame *at(const struct vhost_record *r, unsigned i)
{
	return g_ptr_array_index(r->frames, i);
}

/* Forget what @f puts out of force and is not about the same thing. */
static void forget(struct vhost_record *r, const struct vhost_frame *f)
{
	uint32_t request = f->m.head.request;

	for (unsigned i = r->frames->len; i-- > 0;) {
		const struct vhostmsg *m = &at(r, i)->m;
		bool slot = m->head.request == VHOSTMSG_ADD_MEM_REG;
		bool kick = m->head.request == VHOSTMSG_SET_VRING_KICK;

		if ((request == VHOSTMSG_SET_MEM_TABLE && slot) ||
		    (request == VHOSTMSG_REM_MEM_REG && slot && same_slot(m, &f->m)) ||
		    ((request == VHOSTMSG_RESET_DEVICE || request == VHOSTMSG_RESET_OWNER) && kick))
			g_ptr_array_remove_index(r->frames, i);
	}
}

/**
 * vhost_record_note - @f was said; it is taken over
 */
void vhost_record_note(struct vhost_record *r, struct vhost_frame *f)
{
	forget(r, f);
	if (topic_of(f->m.head.request) == TOPIC_ACT) {
		vhost_frame_free(f);
		return;
	}
	f->done = 0;
	for (unsigned i = 0; i < r->frames->len; i++) {
		if (!same_topic(&at(r, i)->m, &f->m))
			continue;
		vhost_frame_free(at(r, i));
		r->frames->pdata[i] = f;
		return;
	}
	g_ptr_array_add(r->frames, f);
}

/**
 * vhost_record_stopped - the back-end stopped a ring
 * @base: where
 * @for_good: its kick is not in force any more; the rest of it is, for the VMM may start it again
 */
void vhost_record_stopped(struct vhost_record *r, unsigned ring, uint32_t base, bool for_good)
{
	struct vhost_frame *f = vhost_frame_new();

	for (unsigned i = r->frames->len; for_good && i-- > 0;)
		if (at(r, i)->m.head.request == VHOSTMSG_SET_VRING_KICK &&
		    ring_of(&at(r, i)->m) == (int)ring)
			g_ptr_array_remove_index(r->frames, i);
	vhostmsg_ask(&f->m, VHOSTMSG_SET_VRING_BASE, 0);
	f->m.body.state = (struct vhostmsg_state){ .index = ring, .num = base };
	vhost_record_note(r, f);
}

/**
 * vhost_record_copy - put copies behind what is in @feed
 * @ring: of this ring only; -1: all
 *
 * Return: false when there are no descriptors left; some may have been put there.
 */
bool vhost_record_copy(const struct vhost_record *r, int ring, GQueue *feed)
{
	for (unsigned i = 0; i < r->frames->len; i++) {
		struct vhost_frame *copy;

		if (ring >= 0 && ring_of(&at(r, i)->m) != ring)
			continue;
		copy = vhost_frame_copy(at(r, i));
		if (!copy)
			return false;
		g_queue_push_tail(feed, copy);
	}
	return true;
}

/**
 * vhost_record_has - is such a request in force?
 */
bool vhost_record_has(const struct vhost_record *r, uint32_t request)
{
	for (unsigned i = 0; i < r->frames->len; i++)
		if (at(r, i)->m.head.request == request)
			return true;
	return false;
}

static bool same_file(int a, int b)
{
	struct stat x, y;

	return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev &&
	       x.st_ino == y.st_ino;
}

/**
 * vhost_record_is_table - is @f the table in force, again?
 *
 * DPDK answers nothing to one that changes nothing.
 */
bool vhost_record_is_table(const struct vhost_record *r, const struct vhost_frame *f)
{
	for (unsigned i = 0; i < r->frames->len; i++) {
		const struct vhost_frame *have = at(r, i);
		bool same = have->m.head.request == VHOSTMSG_SET_MEM_TABLE &&
			    have->m.head.size == f->m.head.size && have->m.fds == f->m.fds &&
			    memcmp(&have->m.body, &f->m.body, f->m.head.size) == 0;

		for (unsigned k = 0; same && k < f->m.fds; k++)
			same = same_file(have->fd[k], f->fd[k]);
		if (same)
			return true;
	}
	return false;
}

static int add_regions(const struct vhost_frame *f, struct vhost_region *out, int n)
{
	for (unsigned i = 0; i < vhostmsg_regions(&f->m); i++) {
		const struct vhostmsg_region *told = vhostmsg_region(&f->m, i);
		struct mem_identity id;

		if (f->fd[i] < 0 || mem_identify(f->fd[i], &id) < 0)
			continue;
		if (n == VHOST_RECORD_REGIONS)
			return -E2BIG;
		out[n++] = (struct vhost_region){
			.dev = id.dev,
			.inode = id.inode,
			.offset = told->offset,
			.length = told->size,
			.va = told->va,
		};
	}
	return n;
}

/**
 * vhost_record_regions - the memory that is in force when @f is said
 * @f: a table or a slot; NULL: nothing more is said
 *
 * Return: how many, or -E2BIG.
 */
int vhost_record_regions(const struct vhost_record *r, const struct vhost_frame *f,
			 struct vhost_region *out)
{
	bool anew = f && f->m.head.request == VHOSTMSG_SET_MEM_TABLE;
	int n = 0;

	for (unsigned i = 0; !anew && n >= 0 && i < r->frames->len; i++) {
		uint32_t request = at(r, i)->m.head.request;

		if (request == VHOSTMSG_SET_MEM_TABLE || request == VHOSTMSG_ADD_MEM_REG)
			n = add_regions(at(r, i), out, n);
	}
	return n < 0 || !f ? n : add_regions(f, out, n);
}
