/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Theory of operation
 *
 * One thread, one wait point (the ring), one turn after the other:
 *
 *   wait       submit what is queued (a send, re-armed receives) and sleep until something completes
 *   dispatch   completions only set flags: this descriptor is readable, these bytes came, that send is done
 *   faults     read a batch from every userfaultfd that is ready, one batch each, so that none starves another
 *   lanes      take pages out of the receive buffers, the urgent lane first, a bounded number each turn (O5)
 *   perform    do what the engine decided, after every step that can make it decide something
 *   ask        put requests into the outbox while it has room; the ring sends them
 *
 * Nothing in a turn waits or allocates once faults are served.  A lane whose page the kernel wants retried stands still (its bytes
 * are the page); waiters that find no room stay in the kernel's queue; requests that find no room stay in the ledger.
 *
 * With a single lane this thread reads it, so that a demanded page never crosses threads.  With an urgent lane beside it the main
 * lane is handed to the bulk thread as soon as faults are served.
 *
 * The main thread is told that something changed, never what: it then asks for a snapshot.
 */
#include "config.h"
#include "daemon/faultloop.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "core/guard.h"
#include "core/probe.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "sys/sock.h"
#include "wire/regmsg.h"

#define RING_ENTRIES	256
#define COMPLETIONS	64
#define TICK_NS		1000000
#define RECEIVE_MOST	(256u << 10)
#define LANE_BUDGET	16		/* steps a lane may take in a turn */
#define PUSH_PAGES	32		/* stored pages handed over in a turn */
#define INBOX_SLOTS	256
#define REPORT_SLOTS	1024

enum cookie { COOKIE_DOORBELL = 1, COOKIE_UFFD, COOKIE_MAIN, COOKIE_URGENT, COOKIE_SEND };

/* --- the session ----------------------------------------------------------------------------------- */

int faultloop_feed(struct faultloop *f, enum session_event event)
{
	int ret = session_feed(&f->engine.session, event);

	if (ret > 0) {
		f->times.state = clock_ns();
		faultloop_changed(f);
	}
	return ret;
}

static bool halted(const struct faultloop *f)
{
	return f->engine.session.state == SESSION_FAILED || f->engine.session.state == SESSION_PAUSED;
}

static bool serving(const struct faultloop *f)
{
	return f->engine.session.state >= SESSION_LOADING && f->engine.session.state <= SESSION_PAUSED;
}

static void set_reason(struct faultloop *f, int error, const char *fmt, va_list args)
{
	f->error = error;
	vsnprintf(f->reason, sizeof(f->reason), fmt, args);
	faultloop_changed(f);
}

/* The peer must see the end now; the descriptors stay until nothing in the ring refers to them. */
static void hang_up(struct faultloop *f)
{
	if (f->return_fd >= 0)
		shutdown(f->return_fd, SHUT_RDWR);
	if (f->urgent.fd >= 0)
		shutdown(f->urgent.fd, SHUT_RDWR);
}

void faultloop_halt(struct faultloop *f, int error, const char *fmt, ...)
{
	bool refuse = session_may_refuse(&f->engine.session);
	va_list args;

	if (halted(f) || f->closing)
		return;
	va_start(args, fmt);
	set_reason(f, error, fmt, args);
	va_end(args);
	faultloop_feed(f, refuse ? SESSION_REFUSE : SESSION_SOURCE_LOST);
	if (refuse)
		hang_up(f);
}

/* What is left where, for the operator. */
static const char *loss_text(const struct faultloop *f, bool unknown)
{
	const struct session *s = &f->engine.session;

	if (session_may_refuse(s))
		return "the source resumes its VM, nothing is lost; start a new migration";
	if (unknown)
		return "ownership unknown: a source >= 10.0 has restarted its VM; end one of the two by hand before the other goes on";
	return "the rest of the memory is only at the source, which keeps its VM stopped (postcopy-paused, or postcopy-active "
	       "with 7.2): do not restart it there while this VM has run";
}

static void lost(struct faultloop *f, int error)
{
	const struct session *s = &f->engine.session;
	bool unknown = !session_may_refuse(s) && (f->main_eof || (s->answer_commits && !f->running_told));

	if (f->closing || halted(f))
		return;
	f->error = error ? error : ECONNRESET;
	snprintf(f->reason, sizeof(f->reason), "source lost in state %s, %" PRIu64 " of %" PRIu64 " owed pages missing (%s): %s",
		 session_state_name(s->state), f->engine.owed_left, f->engine.owed,
		 error ? strerror(error) : "connection closed", loss_text(f, unknown));
	f->ownership_unknown = unknown;
	faultloop_feed(f, SESSION_SOURCE_LOST);
	faultloop_changed(f);
}

void faultloop_end_member(struct faultloop *f, struct member *m, enum snapshot_sharer_state how, int error,
			  const char *fmt, ...)
{
	bool fatal = how != SHARER_LEFT && m->policy == REGMSG_POLICY_FAIL && f->engine.session.state < SESSION_COMPLETE;
	char reason[256];
	va_list args;

	if (m->state != SHARER_ACTIVE)
		return;
	va_start(args, fmt);
	vsnprintf(reason, sizeof(reason), fmt, args);
	va_end(args);
	if (m->armed)
		ring_cancel(f->ring, (struct ring_cookie){ COOKIE_UFFD, 0, m->ref.slot, m->ref.generation });
	m->armed = false;
	engine_gone(&f->engine, m->ref, clock_ns());
	roster_end(m, how, error, reason, clock_ns());
	faultloop_changed(f);
	if (fatal)
		faultloop_halt(f, error, "sharer %s: %s", m->name, reason);
}

/* --- faults ---------------------------------------------------------------------------------------------- */

static void take_event(struct faultloop *f, struct member *m, const struct uffd_event *e, uint64_t now)
{
	enum engine_outcome outcome;

	if (e->kind == UFFD_FORK) {
		int child = e->fd;

		close_fd(&child);
		return;
	}
	/* A page that its owner gave back is answered with zeroes when it is touched again (O3): reading the event is enough. */
	if (e->kind != UFFD_FAULT)
		return;
	PROBE3(fault, m->ref.slot, e->address, e->tid);
	if (f->times.first_fault == 0)
		f->times.first_fault = now;
	outcome = engine_fault(&f->engine, m->ref, e->address, e->tid, e->flags, now);
	if (outcome == ENGINE_OUTSIDE)
		faultloop_end_member(f, m, SHARER_DISABLED, EFAULT, "fault at 0x%" PRIx64 ", outside of every mapping it "
				     "declared", e->address);
}

static void read_faults(struct faultloop *f, struct member *m)
{
	struct uffd_event events[UFFD_READ_MAX];
	uint32_t room = engine_room(&f->engine);
	unsigned most = room < UFFD_READ_MAX ? room : UFFD_READ_MAX;
	uint64_t now;
	int n;

	if (most == 0)
		return;
	n = uffd_read(m->uffd, events, most);
	f->engine.stats.other_syscalls++;
	if (n < 0) {
		faultloop_end_member(f, m, SHARER_DISABLED, -n, "reading its userfaultfd: %s",
				     n == -EBADMSG ? "short message, alignment lost" : strerror(-n));
		return;
	}
	if (n == 0)
		f->engine.sharers.sharer[m->ref.slot].stats.spurious++;
	m->ready = n == (int)most;
	now = clock_ns();
	for (int i = 0; i < n; i++)
		take_event(f, m, &events[i], now);
	perform_actions(f);
}

/* One batch from each that is ready.  True when some may have more. */
static bool serve_faults(struct faultloop *f)
{
	bool more = false;

	if (!serving(f) || f->n_pending == FAULTLOOP_PENDING)
		return false;
	for (unsigned i = 0; i < SHARER_MAX; i++) {
		struct member *m = &f->roster.member[i];

		if (m->state == SHARER_ACTIVE && m->ready)
			read_faults(f, m);
		more |= m->ready && m->state == SHARER_ACTIVE;
	}
	return more && engine_room(&f->engine) > 0;
}

static void arm_members(struct faultloop *f)
{
	if (!serving(f))
		return;
	for (unsigned i = 0; i < SHARER_MAX; i++) {
		struct member *m = &f->roster.member[i];

		if (m->id && m->state == SHARER_ACTIVE && !m->armed)
			m->armed = ring_poll(f->ring, m->uffd, (struct ring_cookie){ COOKIE_UFFD, 0, m->ref.slot,
										    m->ref.generation }) == 0;
	}
}

/* --- lanes ---------------------------------------------------------------------------------------------- */

static bool stalled(const struct faultloop *f, const struct lane *l)
{
	return l->id == LANE_MAIN ? f->stalled_main : f->stalled_urgent;
}

/* False when the lane must not be read further now. */
static bool take_page(struct faultloop *f, struct lane *l, const struct lane_page *p)
{
	uint64_t now = clock_ns();

	PROBE3(page, l->id, p->page, p->n);
	if (p->n == 1)
		engine_page(&f->engine, l->id, p->page, p->data, now);
	else
		engine_zero_run(&f->engine, l->id, p->page, p->n, now);
	perform_actions(f);
	l->holding = stalled(f, l);
	return !l->holding;
}

static bool take_urgent_record(struct faultloop *f, struct lane *l)
{
	if (l->event != QSTREAM_EOF) {
		faultloop_halt(f, EPROTO, "urgent channel, byte %" PRIu64 ": not a page", l->stream.position);
		return false;
	}
	l->ended = true;
	return true;
}

/* One step; false when there is nothing more to do now. */
static bool step_lane(struct faultloop *f, struct lane *l)
{
	struct lane_page page;
	bool go_on;
	int step;

	if (l->id == LANE_MAIN && intake_wants_body(f)) {
		intake_body(f, l);
		return !intake_wants_body(f);
	}
	step = lane_next(l, &f->engine.blocks, serving(f), &page);
	if (step == LANE_MORE)
		return false;
	if (step < 0) {
		faultloop_halt(f, EPROTO, "%s channel, byte %" PRIu64 ": %s%s%s", l->id == LANE_MAIN ? "main" : "urgent",
			       l->stream.position, l->stream.reason, l->stream.detail[0] ? ": " : "", l->stream.detail);
		return false;
	}
	if (step == LANE_PAGE)
		go_on = take_page(f, l, &page);
	else
		go_on = l->id == LANE_MAIN ? intake_record(f, l) : take_urgent_record(f, l);
	if (!l->holding)
		lane_consume(l);
	return go_on;
}

static bool may_read(const struct faultloop *f, const struct lane *l)
{
	if (l->fd < 0 || halted(f) || f->n_pending == FAULTLOOP_PENDING || stalled(f, l))
		return false;
	return l->id == LANE_MAIN ? f->need == NEED_NOTHING : serving(f);
}

void faultloop_lane_closed(struct faultloop *f, int error)
{
	f->main_closed = true;
	lost(f, error);
}

static void lane_ended(struct faultloop *f, struct lane *l)
{
	if (l->id == LANE_MAIN) {
		faultloop_lane_closed(f, l->error);
	} else if (!l->ended) {
		l->ended = true;
		/* After the main stream's end the source closes it; before, the main connection tells what happened. */
		faultloop_changed(f);
	}
}

/* True when there is more in the buffer than one turn may take. */
static bool work_lane(struct faultloop *f, struct lane *l)
{
	unsigned budget = LANE_BUDGET;

	if (l->holding && !stalled(f, l)) {
		lane_consume(l);
		l->holding = false;
	}
	while (may_read(f, l) && budget > 0) {
		if (!step_lane(f, l)) {
			if (l->eof && !l->holding && f->need == NEED_NOTHING)
				lane_ended(f, l);
			return false;
		}
		budget--;
	}
	/* Waiting for the main thread must not hide that the source is gone. */
	if (l->eof && l->fd >= 0 && f->need != NEED_NOTHING)
		lane_ended(f, l);
	return budget == 0;
}

static void arm_receive(struct faultloop *f, struct lane *l, bool *receiving, enum cookie kind)
{
	size_t room;

	if (l->fd < 0 || *receiving || l->eof)
		return;
	room = lane_space(l, RECEIVE_MOST);
	if (room == 0)
		return;
	*receiving = ring_recv(f->ring, l->fd, mem_ring_write(&l->in), room,
			       (struct ring_cookie){ (uint8_t)kind, 0, 0, 0 }) == 0;
}

/* --- the bulk lane ------------------------------------------------------------------------------------ */

static void fill_carrier(struct faultloop *f, struct bulk_carrier *c)
{
	int main = f->engine.sharers.main;

	*c = (struct bulk_carrier){ .main_uffd = -1, .own_uffd = f->own_uffd };
	if (main >= 0) {
		const struct sharer *s = &f->engine.sharers.sharer[main];

		c->main_uffd = dup(f->roster.member[main].uffd);
		c->main = f->roster.member[main].ref;
		c->n_mappings = s->n_mappings;
		memcpy(c->mapping, s->mapping, s->n_mappings * sizeof(s->mapping[0]));
	}
	for (unsigned i = 0; i < f->n_backings; i++) {
		const struct backing *b = &f->backing[i];

		if (b->armed) {
			c->own[i].address = (uint64_t)(uintptr_t)b->map;
			c->own[i].can_zero = b->can_zero;
		}
		c->own[i].store = b->kind == BLOCK_SHARED ? NULL : b->map;
	}
}

/* As soon as faults are served and an urgent lane is there, the main lane goes to its own thread. */
static void maybe_hand_over(struct faultloop *f)
{
	struct bulk_carrier carrier;
	int ret;

	if (f->bulk || !f->has_urgent || f->main.fd < 0 || !serving(f) || halted(f) || f->main.holding || f->tail)
		return;
	if (f->main_receiving) {
		ring_cancel(f->ring, (struct ring_cookie){ COOKIE_MAIN, 0, 0, 0 });
		return;
	}
	f->engine.stats.lane[LANE_MAIN].bytes += f->main.bytes;
	f->engine.stats.lane[LANE_MAIN].batches += f->main.batches;
	fill_carrier(f, &carrier);
	ret = bulklane_start(&f->bulk, &f->main, &f->engine, &carrier, &f->placer, &f->reports);
	if (ret < 0)
		faultloop_halt(f, -ret, "cannot start the bulk thread: %s", strerror(-ret));
}

/* --- the end ----------------------------------------------------------------------------------------------- */

static bool lanes_exhausted(const struct faultloop *f)
{
	return f->main_eof && (!f->has_urgent || f->urgent.ended) && f->n_pending == 0;
}

/* SHUT(0) goes out with the last owed placement, never before it and with no delay after it. */
static void maybe_end(struct faultloop *f)
{
	if (halted(f) || !f->main_eof || f->closing || f->engine.session.state < SESSION_LOADING)
		return;
	if (engine_drained(&f->engine) && f->n_pending == 0) {
		if (f->engine.session.state != SESSION_RUNNING)
			return;
		outbox_shut(&f->outbox, 0);
		f->closing = true;
		/* No more requests: the urgent lane is ours to end (the source only waits for it). */
		if (f->urgent.fd >= 0)
			shutdown(f->urgent.fd, SHUT_RDWR);
		f->times.complete = clock_ns();
		faultloop_feed(f, SESSION_OWED_NOTHING);
	} else if (f->engine.owed_left && lanes_exhausted(f)) {
		faultloop_halt(f, EPROTO, "the source ended its stream with %" PRIu64 " pages still owed; its connection is kept "
			       "open and no success is reported, so that it keeps its copy", f->engine.owed_left);
	}
}

/* Our answer must have reached the source before the VM runs here: until then it may resume its own. */
static void maybe_tell_running(struct faultloop *f)
{
	enum session_state state = f->engine.session.state;
	bool answered = f->tail ? state == SESSION_COMPLETE : state == SESSION_RUNNING || state == SESSION_COMPLETE;

	if (f->running_told || !answered || !outbox_empty(&f->outbox))
		return;
	if (f->engine.session.answer_commits && sock_unsent(f->return_fd) > 0)
		return;
	f->running_told = true;
	f->times.running = clock_ns();
	faultloop_changed(f);
}

static void note_first_served(struct faultloop *f)
{
	if (f->times.first_served || !f->times.first_fault)
		return;
	for (unsigned i = 0; i < SHARER_MAX; i++)
		if (f->engine.sharers.sharer[i].stats.stage[STAGE_TOTAL].count)
			f->times.first_served = clock_ns();
}

/* --- one turn ------------------------------------------------------------------------------------------- */

static void ask(struct faultloop *f)
{
	struct engine_request r;

	if (!halted(f) && !f->closing && serving(f))
		while (outbox_room(&f->outbox) && engine_next_request(&f->engine, &r, clock_ns())) {
			PROBE3(request, r.block, r.offset, r.length);
			outbox_request(&f->outbox, &f->engine.blocks, &r);
		}
	if (!f->outbox.sending && !outbox_empty(&f->outbox) && f->return_fd >= 0)
		f->outbox.sending = ring_send(f->ring, f->return_fd, mem_ring_read(&f->outbox.queue),
					      mem_ring_used(&f->outbox.queue),
					      (struct ring_cookie){ COOKIE_SEND, 0, 0, 0 }) == 0;
}

static void push(struct faultloop *f)
{
	if (!serving(f) || f->engine.stored_left == 0 || f->n_pending)
		return;
	engine_push(&f->engine, PUSH_PAGES, clock_ns());
	perform_actions(f);
}

/* Everything that can be done without waiting.  True when there is more of it. */
static bool turn(struct faultloop *f)
{
	bool more = serve_faults(f);

	more |= work_lane(f, &f->urgent);
	more |= work_lane(f, &f->main);
	if (!more)
		push(f);
	perform_pending(f, clock_ns());
	maybe_end(f);
	maybe_tell_running(f);
	note_first_served(f);
	maybe_hand_over(f);
	ask(f);
	arm_members(f);
	arm_receive(f, &f->urgent, &f->urgent_receiving, COOKIE_URGENT);
	if (!(f->has_urgent && serving(f)))
		arm_receive(f, &f->main, &f->main_receiving, COOKIE_MAIN);
	return more || (serving(f) && f->engine.stored_left && !f->n_pending && !halted(f));
}

static void tell_main(struct faultloop *f)
{
	struct snapshot *s = steal_ptr(&f->snapshot);

	if (s) {
		fill_snapshot(f, s, clock_ns());
		__atomic_store_n(&f->filled, s, __ATOMIC_RELEASE);
	}
	if (s || f->dirty)
		doorbell_ring(f->notify);
	f->dirty = false;
}

/* --- completions ----------------------------------------------------------------------------------------- */

static void on_doorbell(struct faultloop *f, const struct ring_done *d)
{
	f->round_trip = d->more;
	doorbell_clear(f->doorbell);
	f->engine.stats.other_syscalls++;
	errands_reports(f);
	errands_inbox(f);
}

static void on_uffd(struct faultloop *f, const struct ring_done *d)
{
	struct member *m = roster_active(&f->roster, (struct sharer_ref){ d->cookie.index, d->cookie.generation });

	if (!m)
		return;
	m->armed = d->more;
	if (d->result < 0 || d->result & POLLERR)
		faultloop_end_member(f, m, SHARER_DISABLED, EBADF, "its userfaultfd was made blocking, or closed under us "
				     "(POLLERR); it must stay O_NONBLOCK");
	else
		m->ready = true;
}

static void on_received(struct faultloop *f, const struct ring_done *d)
{
	bool main = d->cookie.kind == COOKIE_MAIN;

	*(main ? &f->main_receiving : &f->urgent_receiving) = false;
	if (d->result == -ECANCELED || d->result == -EINTR || d->result == -EAGAIN)
		return;
	lane_received(main ? &f->main : &f->urgent, d->result);
}

static void on_sent(struct faultloop *f, const struct ring_done *d)
{
	f->outbox.sending = false;
	if (d->result > 0)
		outbox_took(&f->outbox, (size_t)d->result);
	else if (d->result != -EINTR && d->result != -EAGAIN)
		lost(f, -d->result);
}

static void dispatch(struct faultloop *f, const struct ring_done *d)
{
	static void (*const handlers[])(struct faultloop *, const struct ring_done *) = {
		[COOKIE_DOORBELL] = on_doorbell, [COOKIE_UFFD] = on_uffd, [COOKIE_MAIN] = on_received,
		[COOKIE_URGENT] = on_received, [COOKIE_SEND] = on_sent,
	};

	if (d->cookie.kind < ARRAY_LEN(handlers) && handlers[d->cookie.kind])
		handlers[d->cookie.kind](f, d);
}

/* How long may the turn's wait be? */
static int64_t patience(const struct faultloop *f, bool more)
{
	enum session_state state = f->engine.session.state;

	if (more)
		return 0;
	if (f->n_pending || (!f->running_told && (state == SESSION_RUNNING || state == SESSION_COMPLETE)))
		return TICK_NS;
	return -1;
}

/* Busy-poll for a while before sleeping, when asked to: saves the wake-up of another CPU. */
static void spin(struct faultloop *f)
{
	uint64_t until = clock_ns() + f->options.spin_us * 1000ull;

	while (!ring_ready(f->ring) && clock_ns() < until)
		__builtin_ia32_pause();
}

static int loop(struct faultloop *f)
{
	struct ring_done done[COMPLETIONS];

	while (!f->quit) {
		bool more = turn(f);
		int64_t wait = patience(f, more);
		int n;

		if (f->snapshot || f->dirty)
			tell_main(f);
		if (!f->round_trip)
			f->round_trip = ring_poll(f->ring, f->doorbell, (struct ring_cookie){ COOKIE_DOORBELL, 0, 0, 0 }) == 0;
		if (f->options.spin_us && wait != 0 && serving(f)) {
			n = ring_wait(f->ring, done, COMPLETIONS, 0);
			if (n == 0)
				spin(f);
			if (n == 0)
				n = ring_wait(f->ring, done, COMPLETIONS, wait);
		} else {
			n = ring_wait(f->ring, done, COMPLETIONS, wait);
		}
		if (n < 0)
			return n;
		for (int i = 0; i < n; i++)
			dispatch(f, &done[i]);
	}
	return 0;
}

static void *run(void *arg)
{
	struct faultloop *f = arg;
	int ret = ring_new(&f->ring, RING_ENTRIES);

	if (ret == 0)
		ret = loop(f);
	if (ret < 0) {
		faultloop_halt(f, -ret, "the fault thread's io_uring failed: %s", strerror(-ret));
		tell_main(f);
	}
	if (f->ring)
		ring_free(f->ring);
	f->ring = NULL;
	return NULL;
}

/* --- for the main thread ------------------------------------------------------------------------------- */

static int set_up(struct faultloop *f, const struct faultloop_options *options)
{
	struct engine_limits limits = { .waiters = options->max_waiters, .window = 512 };
	int ret;

	f->options = *options;
	f->placer.ops = options->uffd_ops ? options->uffd_ops : &uffd_kernel_ops;
	f->placer.page_size = 4096;
	f->doorbell = doorbell_new();
	f->notify = doorbell_new();
	f->own_uffd = uffd_open(0, false);
	if (f->doorbell < 0 || f->notify < 0)
		return -EMFILE;
	if (f->own_uffd < 0)
		return f->own_uffd;
	ret = engine_init(&f->engine, &limits);
	if (ret == 0)
		ret = outbox_init(&f->outbox);
	if (ret == 0)
		ret = mailbox_init(&f->inbox, sizeof(struct message), INBOX_SLOTS, f->doorbell);
	if (ret == 0)
		ret = mailbox_init(&f->reports, sizeof(struct bulk_message), REPORT_SLOTS, f->doorbell);
	return ret;
}

static void tear_down(struct faultloop *f)
{
	bulklane_stop(f->bulk);
	for (unsigned i = 0; i < f->n_backings; i++)
		backing_close(&f->backing[i]);
	lane_close(&f->main);
	lane_close(&f->urgent);
	roster_deinit(&f->roster);
	outbox_deinit(&f->outbox);
	engine_deinit(&f->engine);
	mailbox_deinit(&f->inbox);
	mailbox_deinit(&f->reports);
	if (f->ledger_memory)
		mem_unmap(f->ledger_memory, f->ledger_size);
	if (f->zeroes)
		mem_unmap(f->zeroes, f->zeroes_size);
	close_fd(&f->return_fd);
	close_fd(&f->package_fd);
	close_fd(&f->own_uffd);
	close_fd(&f->doorbell);
	close_fd(&f->notify);
	free(f);
}

int faultloop_start(struct faultloop **out, const struct faultloop_options *options)
{
	struct faultloop *f = calloc(1, sizeof(*f));
	int ret;

	if (!f)
		return -ENOMEM;
	f->main.fd = f->urgent.fd = f->return_fd = f->package_fd = f->own_uffd = -1;
	f->urgent.id = LANE_URGENT;
	roster_init(&f->roster);
	ret = set_up(f, options);
	if (ret == 0)
		ret = -pthread_create(&f->thread, NULL, run, f);
	if (ret < 0) {
		tear_down(f);
		return ret;
	}
	*out = f;
	return 0;
}

void faultloop_post(struct faultloop *f, const struct message *m)
{
	while (!mailbox_put(&f->inbox, m)) {
		mailbox_ring(&f->inbox);
		usleep(100);
	}
	mailbox_ring(&f->inbox);
}

int faultloop_notify_fd(const struct faultloop *f)
{
	return f->notify;
}

struct snapshot *faultloop_collect(struct faultloop *f)
{
	doorbell_clear(f->notify);
	return __atomic_exchange_n(&f->filled, NULL, __ATOMIC_ACQUIRE);
}

void faultloop_stop(struct faultloop *f)
{
	const struct message quit = { .kind = MESSAGE_QUIT };

	faultloop_post(f, &quit);
	pthread_join(f->thread, NULL);
	tear_down(f);
}
