/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What core/vhostfront wants done, one function for each.
 *
 * A request is passed on with the bytes it came with, but for three things: what
 * SET_PROTOCOL_FEATURES says, which has our own features in it; the mark that asks for a reply,
 * where we want one and the VMM did not, or the other way round; and the features and addresses in
 * answers.
 */
#include "config.h"
#include "daemon/vhost_relay_parts.h"

#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "core/guard.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "wire/vhostsaid.h"

typedef void doer(struct vhost_relay *r, const struct vhostfront_action *a);

/* --- to the back-end -------------------------------------------------------------------------- */

/* @f is taken over; NULL: it could not be made. */
static void tell(struct vhost_relay *r, struct vhost_frame *f, enum vhostmsg_form form)
{
	if (!f) {
		vhostfront_lost(&r->v, "this daemon may have no more descriptors", clock_ns());
		return;
	}
	r->asked = f->m;
	r->asked_terms = (struct vhostmsg_terms){ .protocol = r->v.agreed, .form = form };
	g_queue_push_tail(&r->to_back, f);
}

static void relay_as(struct vhost_relay *r, const struct vhostfront_action *a,
		     enum vhostmsg_form form)
{
	struct vhost_frame *f = vhost_frame_copy(r->request);

	if (f && r->v.said.what == VHOSTFRONT_SET_PROTOCOL)
		f->m.body.u64 = a->value;
	/* Of a request with an answer of its own the mark says nothing. */
	if (f && !r->v.said.data && a->urged)
		f->m.head.flags |= VHOSTMSG_NEED_REPLY;
	else if (f && (!r->v.said.data || form == VHOSTMSG_BASES))
		f->m.head.flags &= ~(uint32_t)VHOSTMSG_NEED_REPLY;
	tell(r, f, form);
}

/*
 * A ring begins anew, and what the guest said to who had it before may have been read and not acted
 * on: have it looked at.  A kick too many is harmless.  Whatever the VMM calls one, nothing waits.
 */
static void kick(const struct vhost_frame *f)
{
	struct pollfd p = { .fd = f->fd[0], .events = POLLOUT };
	uint64_t one = 1;

	if (f->m.fds && poll(&p, 1, 0) == 1 && p.revents == POLLOUT)
		(void)!write(p.fd, &one, sizeof(one));
}

static void do_relay(struct vhost_relay *r, const struct vhostfront_action *a)
{
	relay_as(r, a, VHOSTMSG_PLAIN);
	if (r->v.said.fed && r->v.said.what == VHOSTFRONT_RING_KICK)
		kick(r->request);
}

static void do_relay_bases(struct vhost_relay *r, const struct vhostfront_action *a)
{
	relay_as(r, a, VHOSTMSG_BASES);
}

static void ask(struct vhost_relay *r, enum vhostmsg_request request, uint32_t need_reply)
{
	struct vhost_frame *f = vhost_frame_new();

	vhostmsg_ask(&f->m, request, need_reply);
	tell(r, f, VHOSTMSG_PLAIN);
}

static void do_advise(struct vhost_relay *r, const struct vhostfront_action *a)
{
	(void)a;
	ask(r, VHOSTMSG_POSTCOPY_ADVISE, 0);
}

static void do_listen(struct vhost_relay *r, const struct vhostfront_action *a)
{
	(void)a;
	ask(r, VHOSTMSG_POSTCOPY_LISTEN, VHOSTMSG_NEED_REPLY);
}

static void do_end(struct vhost_relay *r, const struct vhostfront_action *a)
{
	(void)a;
	ask(r, VHOSTMSG_POSTCOPY_END, VHOSTMSG_NEED_REPLY);
}

static void do_barrier(struct vhost_relay *r, const struct vhostfront_action *a)
{
	(void)a;
	ask(r, VHOSTMSG_GET_FEATURES, 0);
}

static void do_stop_ring(struct vhost_relay *r, const struct vhostfront_action *a)
{
	struct vhost_frame *f = vhost_frame_new();

	vhostmsg_ask(&f->m, VHOSTMSG_GET_VRING_BASE, 0);
	f->m.body.state.index = a->ring;
	r->stopped[a->ring / 64] |= UINT64_C(1) << (a->ring % 64);
	tell(r, f, VHOSTMSG_PLAIN);
}

static void do_ack_bases(struct vhost_relay *r, const struct vhostfront_action *a)
{
	struct vhost_frame *f = vhost_frame_new();

	(void)a;
	vhostmsg_ask_u64(&f->m, VHOSTMSG_SET_MEM_TABLE, 0, 0);
	r->ack_due = false;
	tell(r, f, VHOSTMSG_PLAIN);
}

/* --- by us ------------------------------------------------------------------------------------ */

static void do_prove(struct vhost_relay *r, const struct vhostfront_action *a)
{
	struct vhost_region told[VHOST_RECORD_REGIONS];
	bool tells = r->v.said.what == VHOSTFRONT_TABLE || r->v.said.what == VHOSTFRONT_ADD_SLOT;
	int n = vhost_record_regions(&r->record, tells ? r->request : NULL, told);

	(void)a; /* registering once more what the back-end registered itself is harmless */
	if (n < 0)
		vhostfront_proved(&r->v, "more memory regions than can be looked at", clock_ns());
	else
		r->ops->prove(r->ctx, told, (unsigned)n);
}

static void do_keep(struct vhost_relay *r, const struct vhostfront_action *a)
{
	(void)a;
	if (r->request)
		vhost_record_note(&r->record, steal_ptr(&r->request));
}

static void do_hold(struct vhost_relay *r, const struct vhostfront_action *a)
{
	(void)a;
	g_queue_push_tail(&r->held, steal_ptr(&r->request));
}

static void do_release(struct vhost_relay *r, const struct vhostfront_action *a)
{
	struct vhost_frame *f;

	(void)a;
	r->replaying = false;
	while ((f = g_queue_pop_head(&r->held)))
		g_queue_push_tail(&r->feed, f);
}

static void copy_record(struct vhost_relay *r, int ring)
{
	if (!vhost_record_copy(&r->record, ring, &r->feed))
		vhostfront_lost(&r->v, "this daemon may have no more descriptors", clock_ns());
}

static void do_replay(struct vhost_relay *r, const struct vhostfront_action *a)
{
	(void)a;
	r->replaying = true;
	copy_record(r, -1);
}

static void do_restart(struct vhost_relay *r, const struct vhostfront_action *a)
{
	(void)a;
	for (unsigned ring = 0; ring < VHOSTFRONT_RINGS; ring++)
		if (r->stopped[ring / 64] & UINT64_C(1) << (ring % 64))
			copy_record(r, (int)ring);
	memset(r->stopped, 0, sizeof(r->stopped));
}

static void do_drop(struct vhost_relay *r, const struct vhostfront_action *a)
{
	(void)a;
	r->ops->drop(r->ctx);
}

static void do_drop_orphans(struct vhost_relay *r, const struct vhostfront_action *a)
{
	(void)a;
	r->ops->drop_orphans(r->ctx);
}

/*
 * Where a ring of a back-end that died stood is in its inflight region, or nobody knows, and what
 * it had done would be done again.
 */
static bool resumable(const struct vhost_relay *r)
{
	return !vhost_record_has(&r->record, VHOSTMSG_SET_VRING_KICK) ||
	       vhost_record_has(&r->record, VHOSTMSG_SET_INFLIGHT_FD);
}

/* What was held, or released and not heard yet, is in force: the VMM believes that it was done. */
static void do_quarantine(struct vhost_relay *r, const struct vhostfront_action *a)
{
	struct vhost_frame *f;

	vhost_relay_close_back(r);
	while ((f = g_queue_pop_head(&r->feed)))
		if (r->replaying)
			vhost_frame_free(f);
		else
			vhost_record_note(&r->record, f);
	while ((f = g_queue_pop_head(&r->held)))
		vhost_record_note(&r->record, f);
	memset(r->stopped, 0, sizeof(r->stopped));
	r->ops->quarantined(r->ctx);
	/* Its end is the only answer that the VMM can get. */
	if (a->urged || !resumable(r))
		vhost_relay_end(r, r->v.reason);
}

/* --- to the VMM ------------------------------------------------------------------------------- */

static void answer(struct vhost_relay *r, struct vhost_frame *f)
{
	f->done = 0;
	r->answers++;
	g_queue_push_tail(&r->to_front, f);
}

static void do_answer(struct vhost_relay *r, const struct vhostfront_action *a)
{
	struct vhost_frame *f = vhost_frame_new();

	vhostmsg_reply_u64(&f->m, r->number, a->value);
	answer(r, f);
}

static void do_answer_base(struct vhost_relay *r, const struct vhostfront_action *a)
{
	struct vhost_frame *f = vhost_frame_new();

	vhostmsg_reply_u64(&f->m, r->number, 0);
	f->m.body.state = (struct vhostmsg_state){ .index = a->ring, .num = (uint32_t)a->value };
	answer(r, f);
}

static void do_pass_answer(struct vhost_relay *r, const struct vhostfront_action *a)
{
	struct vhost_frame *f = steal_ptr(&r->answer);

	r->answer = vhost_frame_new();
	if (r->v.said.what == VHOSTFRONT_GET_PROTOCOL)
		f->m.body.u64 = a->value;
	answer(r, f);
}

static void do_pass_repaired(struct vhost_relay *r, const struct vhostfront_action *a)
{
	do_pass_answer(r, a);
	r->ack_due = true;
}

static doer *const doers[VHOSTFRONT_VERBS] = {
	[VHOSTFRONT_DO_RELAY] = do_relay,
	[VHOSTFRONT_DO_RELAY_BASES] = do_relay_bases,
	[VHOSTFRONT_DO_ADVISE] = do_advise,
	[VHOSTFRONT_DO_LISTEN] = do_listen,
	[VHOSTFRONT_DO_END] = do_end,
	[VHOSTFRONT_DO_BARRIER] = do_barrier,
	[VHOSTFRONT_DO_STOP_RING] = do_stop_ring,
	[VHOSTFRONT_DO_ACK_BASES] = do_ack_bases,
	[VHOSTFRONT_DO_PROVE] = do_prove,
	[VHOSTFRONT_DO_KEEP] = do_keep,
	[VHOSTFRONT_DO_HOLD] = do_hold,
	[VHOSTFRONT_DO_RELEASE] = do_release,
	[VHOSTFRONT_DO_REPLAY] = do_replay,
	[VHOSTFRONT_DO_RESTART] = do_restart,
	[VHOSTFRONT_DO_DROP] = do_drop,
	[VHOSTFRONT_DO_DROP_ORPHANS] = do_drop_orphans,
	[VHOSTFRONT_DO_QUARANTINE] = do_quarantine,
	[VHOSTFRONT_DO_ANSWER] = do_answer,
	[VHOSTFRONT_DO_ANSWER_BASE] = do_answer_base,
	[VHOSTFRONT_DO_PASS_ANSWER] = do_pass_answer,
	[VHOSTFRONT_DO_PASS_REPAIRED] = do_pass_repaired,
};

void vhost_relay_act(struct vhost_relay *r)
{
	struct vhostfront_action a;

	while (!r->over && vhostfront_next(&r->v, &a))
		doers[a.verb](r, &a);
}
