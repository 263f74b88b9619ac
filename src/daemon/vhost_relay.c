/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Between a VMM and its vhost-user back-end, neither of which knows.
 *
 * A message of the VMM is received whole, checked, and heard by core/vhostfront, which says what is
 * to be done (vhost_relay_do.c); the next is heard when that is done and the back-end's socket has
 * taken it, and the VMM's the answer to the one before.  So there is at most one message on its way
 * in each direction, and one that waits; what is behind it waits in the socket, where it would have
 * waited for a slow back-end, too.
 *
 * Both peers are judged.  What the VMM must not say ends both connections, as a back-end would have
 * ended them; what the back-end must not say puts it into quarantine: its connection is closed, and
 * the VMM's stays, unless it waits for an answer that nobody will give any more.  Nothing waits
 * longer than the limit for answers: not for an answer, not for a back-end that does not read, not
 * for one that is to come back.  Who waits for a page of ours is not late.
 *
 * Whatever may change what can be done next ends in vhost_relay_go_on(), which may be called from
 * inside itself, by way of the owner's functions.
 */
#include "config.h"
#include "daemon/vhost_relay.h"

#include <errno.h>
#include <string.h>

#include <glib-unix.h>

#include "core/guard.h"
#include "daemon/vhost_relay_parts.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "wire/vhostsaid.h"

#define TICK_MS 100

static void clear_queue(GQueue *q)
{
	struct vhost_frame *f;

	while ((f = g_queue_pop_head(q)))
		vhost_frame_free(f);
}

void vhost_relay_close_back(struct vhost_relay *r)
{
	g_clear_handle_id(&r->back_in, g_source_remove);
	g_clear_handle_id(&r->back_out, g_source_remove);
	close_fd(&r->back);
	clear_queue(&r->to_back);
	vhost_frame_clear(r->answer);
	r->finding = false;
	r->unsent_since = 0;
}

/* What is queued for the VMM still leaves, as far as its socket takes it. */
void vhost_relay_end(struct vhost_relay *r, const char *why)
{
	if (r->over)
		return;
	vhost_relay_send(r);
	if (r->over)
		return;
	r->over = true;
	vhost_relay_close_back(r);
	g_clear_handle_id(&r->front_in, g_source_remove);
	g_clear_handle_id(&r->front_out, g_source_remove);
	g_clear_handle_id(&r->deadline, g_source_remove);
	close_fd(&r->front);
	r->ops->over(r->ctx, why);
}

/* --- hearing ---------------------------------------------------------------------------------- */

/* Which of its three meanings has a table now? */
static enum vhostmsg_form form_now(const struct vhost_relay *r)
{
	if (!r->v.config.repair || !r->v.listening)
		return VHOSTMSG_PLAIN;
	return r->ack_due ? VHOSTMSG_BASES_ACK : VHOSTMSG_BASES;
}

static bool tells_memory(const struct vhost_frame *f)
{
	return f->m.head.request == VHOSTMSG_SET_MEM_TABLE ||
	       f->m.head.request == VHOSTMSG_ADD_MEM_REG ||
	       f->m.head.request == VHOSTMSG_REM_MEM_REG;
}

/* Memory is told only while nobody looks at what the back-end has mapped. */
static bool may_hear(struct vhost_relay *r, const struct vhost_frame *f)
{
	if (r->v.config.repair || r->v.resident || !tells_memory(f))
		return true;
	if (!r->ops->may_tell(r->ctx))
		return false;
	r->telling = true;
	return true;
}

static void settle(struct vhost_relay *r)
{
	if (!r->telling || (!r->v.reason && r->v.busy))
		return;
	r->telling = false;
	r->ops->settled(r->ctx);
}

static void hear(struct vhost_relay *r, struct vhost_frame *f, bool fed)
{
	/* Fed may be what came before the VMM chose: this back-end has not heard of that yet. */
	const struct vhostmsg_terms terms = { .protocol = fed ? r->v.agreed : r->protocol,
					      .form = fed ? VHOSTMSG_PLAIN : form_now(r) };
	struct vhostfront_said said;
	const char *why = NULL;

	vhost_frame_free(r->request);
	r->request = f;
	r->number = f->m.head.request;
	if (!fed && vhostmsg_check(&f->m, VHOSTMSG_TO_BACKEND, &terms, &why) < 0) {
		vhost_relay_end(r, why);
		return;
	}
	said = vhostsaid_read(&f->m, &terms);
	said.fed = fed;
	said.same = !fed && said.what == VHOSTFRONT_TABLE && vhost_record_is_table(&r->record, f);
	if (vhostfront_hear(&r->v, &said, clock_ns()) < 0)
		vhost_relay_end(r, r->v.refusal);
	else if (said.what == VHOSTFRONT_SET_PROTOCOL)
		r->protocol = said.value;
}

/* What was kept or held.  False: nothing was done. */
static bool feed(struct vhost_relay *r)
{
	struct vhost_frame *f = g_queue_peek_head(&r->feed);

	if (!r->v.feeding || !vhostfront_ready(&r->v, true))
		return false;
	if (!f)
		vhostfront_fed(&r->v, clock_ns());
	else if (!may_hear(r, f))
		return false;
	else
		hear(r, g_queue_pop_head(&r->feed), true);
	return true;
}

static bool hear_vmm(struct vhost_relay *r)
{
	struct vhost_frame *f = r->heard;

	if (!r->whole || !g_queue_is_empty(&r->to_front) || !vhostfront_ready(&r->v, false) ||
	    !may_hear(r, f))
		return false;
	r->whole = false;
	g_clear_handle_id(&r->front_in, g_source_remove);
	r->requests++;
	r->heard = vhost_frame_new();
	hear(r, f, false);
	return true;
}

/* One thing of all that can be done now. */
static bool step(struct vhost_relay *r)
{
	vhost_relay_act(r);
	if (r->over)
		return false;
	settle(r);
	vhost_relay_send(r);
	if (r->over || !g_queue_is_empty(&r->to_back))
		return r->v.n_actions > 0 && !r->over;
	return feed(r) || hear_vmm(r) || r->v.n_actions > 0;
}

/* --- sockets ---------------------------------------------------------------------------------- */

/* 1: all of it has gone; 0: not yet; -errno. */
static int send_queue(GQueue *q, int sock)
{
	struct vhost_frame *f;

	while ((f = g_queue_peek_head(q))) {
		int ret = vhost_frame_send(f, sock);

		if (ret <= 0)
			return ret;
		vhost_frame_free(g_queue_pop_head(q));
	}
	return 1;
}

void vhost_relay_send(struct vhost_relay *r)
{
	int ret = r->back >= 0 ? send_queue(&r->to_back, r->back) : 1;

	if (ret < 0)
		vhostfront_lost(&r->v, "the back-end hung up", clock_ns());
	else if (ret == 1)
		r->unsent_since = 0;
	else if (!r->unsent_since)
		r->unsent_since = clock_ns();
	if (send_queue(&r->to_front, r->front) < 0) {
		clear_queue(&r->to_front);
		vhost_relay_end(r, "the VMM hung up");
	}
}

static gboolean on_front(gint fd, GIOCondition condition, gpointer data)
{
	struct vhost_relay *r = data;
	const char *why = "the VMM hung up";
	int ret = vhost_frame_recv(r->heard, fd, false, &why);

	(void)condition;
	if (ret < 0) {
		r->front_in = 0;
		vhost_relay_end(r, why);
		return G_SOURCE_REMOVE;
	}
	if (ret == 0)
		return G_SOURCE_CONTINUE;
	r->whole = true;
	r->whole_since = clock_ns();
	r->front_in = 0;
	vhost_relay_go_on(r);
	return G_SOURCE_REMOVE;
}

/*
 * What it said last cannot be heard yet, and nothing more is read; that it goes is seen all the
 * same.
 */
static gboolean on_front_gone(gint fd, GIOCondition condition, gpointer data)
{
	struct vhost_relay *r = data;

	(void)fd;
	(void)condition;
	r->front_in = 0;
	vhost_relay_end(r, "the VMM hung up");
	return G_SOURCE_REMOVE;
}

/* What an answer means here, before it is judged as an answer.  NULL, or what is wrong with it. */
static const char *take_answer(struct vhost_relay *r)
{
	const char *why = NULL;

	if (r->v.wait != VHOSTFRONT_AWAITS_ANSWER)
		return NULL; /* nobody asked: vhostfront says so */
	if (vhostmsg_check_reply(&r->answer->m, &r->asked, VHOSTMSG_TO_BACKEND, &r->asked_terms,
				 &why) < 0)
		return why;
	if (r->asked.head.request == VHOSTMSG_GET_VRING_BASE)
		vhost_record_stopped(&r->record, r->asked.body.state.index,
				     r->answer->m.body.state.num,
				     r->v.said.what == VHOSTFRONT_RING_STOP);
	if (r->asked.head.request == VHOSTMSG_POSTCOPY_ADVISE && !r->v.config.repair)
		return r->ops->advised(r->ctx, steal_fd(&r->answer->fd[0]));
	return NULL;
}

static void answered(struct vhost_relay *r, const char *wrong)
{
	uint64_t value = 0;

	if (!wrong && r->v.wait == VHOSTFRONT_AWAITS_ANSWER)
		value = vhostsaid_answer(&r->answer->m, &r->asked, &r->asked_terms);
	vhostfront_answered(&r->v, wrong, value, clock_ns());
	vhost_relay_act(r); /* the answer is passed on, if it is, before the next one comes */
	if (!r->over)
		vhost_frame_clear(r->answer);
	vhost_relay_go_on(r);
}

static void find_bases(struct vhost_relay *r)
{
	struct vhost_region told[VHOST_RECORD_REGIONS];
	int n = vhost_record_regions(&r->record, r->request, told);

	r->finding = true;
	r->ops->find(r->ctx, told, n < 0 ? 0 : (unsigned)n);
}

static gboolean on_back(gint fd, GIOCondition condition, gpointer data)
{
	struct vhost_relay *r = data;
	const char *why = "the back-end hung up", *wrong;
	int ret = vhost_frame_recv(r->answer, fd, true, &why);

	(void)condition;
	if (ret == 0)
		return G_SOURCE_CONTINUE;
	r->back_in = 0;
	wrong = ret > 0 ? take_answer(r) : NULL;
	if (ret < 0) {
		vhostfront_lost(&r->v, why, clock_ns());
		vhost_relay_go_on(r);
	} else if (!wrong && r->v.config.repair && r->asked_terms.form == VHOSTMSG_BASES &&
		   vhostmsg_bases_echoed(&r->answer->m, &r->asked)) {
		find_bases(r);
	} else {
		answered(r, wrong);
	}
	return G_SOURCE_REMOVE;
}

static gboolean on_writable(gint fd, GIOCondition condition, gpointer data)
{
	struct vhost_relay *r = data;

	(void)condition;
	if (fd == r->back)
		r->back_out = 0;
	else
		r->front_out = 0;
	vhost_relay_go_on(r);
	return G_SOURCE_REMOVE;
}

/* --- time ------------------------------------------------------------------------------------- */

static bool has_passed(const struct vhost_relay *r, uint64_t since, uint64_t now)
{
	return since && now - since > r->v.config.answer_limit;
}

static gboolean on_tick(gpointer data)
{
	struct vhost_relay *r = data;
	uint64_t now = clock_ns();
	bool forsaken = r->whole && r->v.reason && has_passed(r, r->whole_since, now);

	r->deadline = 0;
	if (r->v.wait == VHOSTFRONT_AWAITS_ANSWER && now >= r->v.deadline && !r->finding &&
	    r->ops->waits(r->ctx))
		vhostfront_excuse(&r->v, now);
	vhostfront_tick(&r->v, now);
	if (has_passed(r, r->unsent_since, now))
		vhostfront_lost(&r->v, "the back-end does not read what it is told", now);
	if (forsaken)
		vhost_relay_end(r, r->v.reason);
	else
		vhost_relay_go_on(r);
	return G_SOURCE_REMOVE;
}

/*
 * Listen to whom there is something to hear from, and look at the clock while something is awaited.
 */
static void watch(struct vhost_relay *r)
{
	bool timed = r->v.wait != VHOSTFRONT_IDLE || r->unsent_since || r->whole;

	if (!r->whole && !r->front_in)
		r->front_in = g_unix_fd_add(r->front, G_IO_IN | G_IO_HUP, on_front, r);
	/* Without a back-end it may wait for ever. */
	if (r->whole && r->v.reason && !r->front_in)
		r->front_in = g_unix_fd_add(r->front, G_IO_HUP, on_front_gone, r);
	if (!g_queue_is_empty(&r->to_front) && !r->front_out)
		r->front_out = g_unix_fd_add(r->front, G_IO_OUT, on_writable, r);
	if (r->back >= 0 && !r->finding && !r->back_in)
		r->back_in = g_unix_fd_add(r->back, G_IO_IN | G_IO_HUP, on_back, r);
	if (r->back >= 0 && !g_queue_is_empty(&r->to_back) && !r->back_out)
		r->back_out = g_unix_fd_add(r->back, G_IO_OUT, on_writable, r);
	if (timed && !r->deadline)
		r->deadline = g_timeout_add(TICK_MS, on_tick, r);
	if (!timed)
		g_clear_handle_id(&r->deadline, g_source_remove);
}

/* --- for the owner ---------------------------------------------------------------------------- */

/**
 * vhost_relay_go_on - do all that can be done now
 *
 * The relay may be over afterwards, but is still there.
 */
void vhost_relay_go_on(struct vhost_relay *r)
{
	r->again = true;
	if (r->going || r->over)
		return;
	r->going = true;
	while (r->again && !r->over) {
		r->again = false;
		while (step(r))
			;
	}
	r->going = false;
	if (!r->over)
		watch(r);
}

/**
 * vhost_relay_new - both are connected, and neither has said anything
 */
struct vhost_relay *vhost_relay_new(int front, int back, const struct vhostfront_config *config,
				    const struct vhost_relay_ops *ops, void *ctx)
{
	struct vhost_relay *r = g_new0(struct vhost_relay, 1);

	r->ops = ops;
	r->ctx = ctx;
	r->front = front;
	r->back = back;
	r->heard = vhost_frame_new();
	r->answer = vhost_frame_new();
	vhost_record_init(&r->record);
	vhostfront_init(&r->v, config);
	watch(r);
	return r;
}

/**
 * vhost_relay_free - close both connections; NULL is fine
 */
void vhost_relay_free(struct vhost_relay *r)
{
	if (!r)
		return;
	vhost_relay_close_back(r);
	g_clear_handle_id(&r->front_in, g_source_remove);
	g_clear_handle_id(&r->front_out, g_source_remove);
	g_clear_handle_id(&r->deadline, g_source_remove);
	close_fd(&r->front);
	clear_queue(&r->to_front);
	clear_queue(&r->held);
	clear_queue(&r->feed);
	vhost_frame_free(r->heard);
	vhost_frame_free(r->request);
	vhost_frame_free(r->answer);
	vhost_record_deinit(&r->record);
	g_free(r);
}

/**
 * vhost_relay_proved - what the back-end maps was looked at
 * @wrong: static text, or the owner's for as long as the relay lives; NULL: all of it is registered
 */
void vhost_relay_proved(struct vhost_relay *r, const char *wrong)
{
	if (r->over || r->v.wait != VHOSTFRONT_AWAITS_PROOF)
		return;
	vhostfront_proved(&r->v, wrong, clock_ns());
	vhost_relay_go_on(r);
}

/* The answer says where each region is; the VMM compares it with what it sent. */
static void repair(struct vhost_relay *r, const uint64_t *address)
{
	struct vhost_region told[VHOST_RECORD_REGIONS];
	int n = vhost_record_regions(&r->record, r->request, told);

	for (unsigned i = 0; i < vhostmsg_regions(&r->answer->m); i++) {
		const struct vhostmsg_region *asked = vhostmsg_region(&r->asked, i);

		for (int k = 0; k < n; k++)
			if (told[k].va == asked->va && told[k].length == asked->size)
				r->answer->m.body.memory.regions[i].va = address[k];
	}
}

/**
 * vhost_relay_found - where the back-end has mapped what it was told
 * @wrong: as in vhost_relay_proved()
 * @address: of each region, in the order of find()
 */
void vhost_relay_found(struct vhost_relay *r, const char *wrong, const uint64_t *address)
{
	if (r->over || !r->finding)
		return;
	r->finding = false;
	if (!wrong)
		repair(r, address);
	answered(r, wrong);
}

/**
 * vhost_relay_serving - faults are answered from now on
 */
void vhost_relay_serving(struct vhost_relay *r)
{
	if (r->over || !r->v.early)
		return;
	vhostfront_serving(&r->v, clock_ns());
	vhost_relay_go_on(r);
}

/**
 * vhost_relay_resident - every page is there
 */
void vhost_relay_resident(struct vhost_relay *r)
{
	if (r->over || r->v.resident)
		return;
	vhostfront_resident(&r->v, clock_ns());
	vhost_relay_go_on(r);
}

/**
 * vhost_relay_lost - the back-end is not to be talked to any more
 * @why: as in vhost_relay_proved()
 */
void vhost_relay_lost(struct vhost_relay *r, const char *why)
{
	if (r->over)
		return;
	vhostfront_lost(&r->v, why, clock_ns());
	vhost_relay_go_on(r);
}

/**
 * vhost_relay_join - there is a back-end again: it is told all that is in force
 * @back: owned from here on, in any case
 */
int vhost_relay_join(struct vhost_relay *r, int back, const char **why)
{
	cleanup_fd int owned = back;

	if (r->over || vhostfront_joined(&r->v) < 0) {
		*why = r->v.refusal;
		return -EPROTO;
	}
	r->back = steal_fd(&owned);
	vhost_relay_go_on(r);
	return 0;
}

/**
 * vhost_relay_hang_up - end both connections
 */
void vhost_relay_hang_up(struct vhost_relay *r, const char *why)
{
	vhost_relay_end(r, why);
}

/**
 * vhost_relay_state - what is known of both
 */
const struct vhostfront *vhost_relay_state(const struct vhost_relay *r)
{
	return &r->v;
}

/**
 * vhost_relay_count - requests that the VMM made, and answers that it got
 */
void vhost_relay_count(const struct vhost_relay *r, uint64_t *requests, uint64_t *answers)
{
	*requests = r->requests;
	*answers = r->answers;
}
