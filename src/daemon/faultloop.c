/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Theory of operation
 *
 * One thread, one wait point (the ring), one turn after the other:
 *
 *   wait       submit what is queued (a send, re-armed receives), sleep until something completes
 *   dispatch   completions only set flags: this descriptor is readable, these bytes came, that send
 *              is done
 *   faults     read a batch from every userfaultfd that is ready, one batch each, so that none
 *              starves another
 *   lanes      take pages out of the receive buffers, the urgent lane first, a bounded number each
 *              turn (O5)
 *   perform    do what the engine decided, after every step that can make it decide something
 *   ask        put requests into the outbox while it has room; the ring sends them
 *
 * Nothing in a turn waits or allocates once faults are served.  A lane whose page the kernel wants
 * retried stands still (its bytes are the page); waiters that find no room stay in the kernel's
 * queue; requests that find no room stay in the ledger.
 *
 * With a single lane this thread reads it, so that a demanded page never crosses threads.  With an
 * urgent lane beside it the main lane is handed to the bulk thread as soon as the VM faults, or a
 * moment after faults are served (holdback.c).
 *
 * The main thread is told that something changed, never what: it then asks for a snapshot.
 */
#include "config.h"
#include "daemon/faultloop.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "core/guard.h"
#include "core/probe.h"
#include "daemon/inject_desk.h"
#include "daemon/memoir.h"
#include "daemon/removals.h"
#include "sys/clock.h"
#include "sys/sock.h"

#define RING_ENTRIES	256
#define COMPLETIONS	64
#define TICK_NS		1000000
#define PUSH_PAGES	32		/* stored pages handed over in a turn */

/**
 * faultloop_feed - feed the session; a change is told to the main thread
 *
 * Return: as session_feed().
 */
int faultloop_feed(struct faultloop *f, enum session_event event)
{
	int ret = session_feed(&f->engine.session, event);

	if (ret > 0) {
		f->times.state = clock_ns();
		if (!session_is_paused(&f->engine.session))
			f->times.paused = 0;
		else if (f->times.paused == 0)
			f->times.paused = f->times.state;
		faultloop_changed(f);
		if (f->desk)
			inject_state(f, event);
	}
	return ret;
}

/* --- faults ----------------------------------------------------------------------------------- */

/*
 * One message of a userfaultfd; what it tells of memory that goes is done already (removals.c).  Of
 * FORK the child's descriptor must not leak.
 */
static void take_event(struct faultloop *f, struct member *m, const struct uffd_event *e,
		       uint64_t now)
{
	if (e->kind == UFFD_FORK && !roster_keep_child(&f->roster, e->fd))
		verdict_member(f, m, SHARER_DISABLED, EMFILE,
			       "it forks too often: use MADV_DONTFORK on guest memory");
	if (e->kind == UFFD_FAULT && !(f->desk && inject_holds_fault(f, m, e, now)))
		faultloop_fault(f, m, e, now);
}

/**
 * faultloop_fault - a fault of a sharer
 * @now: when its message was read
 */
void faultloop_fault(struct faultloop *f, struct member *m, const struct uffd_event *e,
		     uint64_t now)
{
	uint64_t page;
	enum engine_outcome outcome;

	if (m->reports && removals_later(f, m))
		return;
	PROBE3(fault, m->ref.slot, e->address, e->tid);
	if (f->times.first_fault == 0)
		f->times.first_fault = now;
	f->times.fault = now;
	outcome = engine_fault(&f->engine, m->ref, e->address, e->tid, e->flags, now);
	if (outcome != ENGINE_OUTSIDE) {
		inject_fault(f, FAULTPLAN_AT_FAULT_PARKED, m, e->address);
		return;
	}
	/*
	 * What was told before it was touched may still lie in the inbox: it is to fault once more,
	 * behind that.
	 */
	page = (uint64_t)sysconf(_SC_PAGESIZE);
	if (!mailbox_empty(&f->inbox))
		(void)perform_wake(f, m, e->address & ~(page - 1), page);
	else
		verdict_member(f, m, SHARER_DISABLED, EFAULT,
			       "fault at 0x%" PRIx64 ", outside of every mapping it "
			       "declared",
			       e->address);
}

/*
 * One batch of a sharer.  Multishot polls are edge-like, so a full batch leaves it ready: there may
 * be more.
 */
static void read_faults(struct faultloop *f, struct member *m)
{
	struct uffd_event events[UFFD_READ_MAX];
	unsigned most = removals_room(f, m);
	int n;

	if (most == 0 || (f->desk && inject_wedges(f, m)))
		return;
	n = uffd_read(m->uffd, events, most);
	f->engine.stats.other_syscalls++;
	if (n < 0) {
		verdict_member(f, m, SHARER_DISABLED, -n, "reading its userfaultfd: %s",
			       n == -EBADMSG ? "short message, alignment lost" : strerror(-n));
		return;
	}
	if (n == 0)
		f->engine.sharers.sharer[m->ref.slot].stats.spurious++;
	m->ready = n == (int)most;
	f->placer.now = clock_ns();
	removals_take(f, m, events, n);
	for (int i = 0; i < n; i++)
		take_event(f, m, &events[i], f->placer.now);
	perform_actions(f);
}

/* May this one be read now?  One that reports always: others would wait for it (removals.c). */
static bool readable(const struct faultloop *f, const struct member *m)
{
	return m->state == SHARER_ACTIVE && m->ready &&
	       (m->reports ||
		(engine_room(&f->engine) > 0 && f->n_pending < FAULTLOOP_PENDING));
}

/* Are there messages that could be read now? */
static bool faults_wait(const struct faultloop *f)
{
	for (unsigned i = 0; faultloop_serving(f) && !adopt_waits(f) &&
			     i < f->roster.used; i++)
		if (readable(f, &f->roster.member[i]))
			return true;
	return false;
}

/* One batch from each that is ready. */
static void serve_faults(struct faultloop *f)
{
	unsigned used = f->roster.used, first = f->next_member;

	if (!faultloop_serving(f) || adopt_waits(f))
		return;
	for (unsigned i = 0; i < used; i++) {
		struct member *m = &f->roster.member[(first + i) % used];
		uint32_t room = engine_room(&f->engine);

		if (readable(f, m))
			read_faults(f, m);
		/*
		 * Room may run out here: the one behind whoever took it last is then the first to
		 * get some.
		 */
		if (engine_room(&f->engine) < room)
			f->next_member = (first + i + 1) % used;
	}
}

/* Polls begin with serving, not with joining: what faults earlier waits in the kernel. */
static void arm_members(struct faultloop *f)
{
	if (!faultloop_serving(f))
		return;
	for (unsigned i = 0; i < f->roster.used; i++) {
		struct member *m = &f->roster.member[i];

		if (m->id && m->state == SHARER_ACTIVE && !m->armed && !m->maps_due)
			m->armed = ring_poll(f->ring, m->uffd,
					     (struct ring_cookie){ COOKIE_UFFD, 0, m->ref.slot,
								   m->ref.generation }) == 0;
	}
}

static void arm_receive(struct faultloop *f, struct lane *l, bool *receiving,
			enum faultloop_cookie kind)
{
	const struct ring_cookie cookie = { (uint8_t)kind, 0, 0, 0 };
	size_t room;

	if (l->fd < 0 || *receiving || l->eof)
		return;
	if (l->hasten) {
		sock_acknowledge(l->fd);
		f->engine.stats.other_syscalls++;
	}
	room = holdback_room(f, l);
	if (room == 0)
		return;
	if (kind == COOKIE_URGENT)
		*receiving = ring_stream(f->ring, l->fd, mem_ring_write(&l->in), room, cookie) == 0;
	else
		*receiving = ring_recv(f->ring, l->fd, mem_ring_write(&l->in), room, cookie) == 0;
}

static void note_first_served(struct faultloop *f)
{
	if (f->times.first_served || !f->times.first_fault)
		return;
	for (unsigned i = 0; i < f->roster.used; i++)
		if (f->engine.sharers.sharer[i].stats.stage[STAGE_TOTAL].count)
			f->times.first_served = clock_ns();
}

/* That pages wait for the pool is told when it begins and when it ends. */
static void note_pool(struct faultloop *f)
{
	bool waits = faultloop_pool_waits(f) > 0;

	if (waits != f->pool_told)
		faultloop_changed(f);
	f->pool_told = waits;
}

/*
 * Somebody may wait for what we hold ourselves: the last page of it is told, whichever lane brought
 * it.  Looked for until then only.
 */
static void note_held(struct faultloop *f)
{
	if (!f->held_left)
		return;
	for (unsigned i = 0; i < f->engine.blocks.n; i++)
		if (f->engine.blocks.block[i].kind == BLOCK_HELD &&
		    f->engine.blocks.block[i].missing)
			return;
	f->held_left = false;
	faultloop_changed(f);
}

/* --- one turn --------------------------------------------------------------------------------- */

/* Has a send of @n bytes taken that mark with it? */
static bool passed(const struct faultloop *f, uint64_t mark, size_t n)
{
	return f->outbox.sent >= mark && f->outbox.sent - n < mark;
}

/**
 * faultloop_sent - bytes of the outbox went out to the source
 *
 * That what commits, and SHUT, has left is written down.
 */
void faultloop_sent(struct faultloop *f, size_t n)
{
	bool answered, shut;

	outbox_took(&f->outbox, n);
	answered = passed(f, f->answer_mark, n);
	shut = f->closing && passed(f, f->shut_mark, n);
	if (answered || shut)
		faultloop_changed(f);
	if (answered)
		inject_moment(f->faults, FAULTPLAN_AT_AFTER_PONG);
	if (shut)
		inject_moment(f->faults, FAULTPLAN_AT_AFTER_SHUT);
}

/*
 * A request usually fits the socket: sending it directly saves a completion, which would cost
 * another round through the wait.  What does not fit is left to the ring, one send at a time.
 */
static void flush(struct faultloop *f)
{
	struct mem_ring *q = &f->outbox.queue;
	ssize_t n;

	if (f->dirty)
		memoir_write(f);
	if (f->outbox.sending || f->outbox.broken || outbox_empty(&f->outbox) || f->return_fd < 0)
		return;
	inject_return(f->faults, f->return_fd);
	n = sock_send(f->return_fd, mem_ring_read(q), mem_ring_used(q));
	f->engine.stats.other_syscalls++;
	/*
	 * What the source sent before it went is still to be read, perhaps a whole package: only
	 * then is it lost.
	 */
	f->outbox.broken = n < 0;
	if (n >= 0)
		faultloop_sent(f, (size_t)n);
	if (n >= 0 && !outbox_empty(&f->outbox))
		f->outbox.sending = ring_send(f->ring, f->return_fd, mem_ring_read(q),
					      mem_ring_used(q),
					      (struct ring_cookie){ COOKIE_SEND, 0, 0, 0 }) == 0;
}

/*
 * Known zeroes that a device wants are placed on the way to the next request, as far as the kernel
 * takes them now, and a few in a turn: whoever faults meanwhile goes before the rest (O5).
 */
static bool next_request(struct faultloop *f, struct engine_request *r)
{
	bool found = engine_next_request(&f->engine, r, faultloop_now(f));

	f->filling = !found && f->engine.actions.n > 0;
	perform_actions(f);
	f->filling &= f->engine.actions.n == 0 && !f->given_back;
	return found;
}

/*
 * Nobody sleeps for a page before faults are served, but once the package is here the source gives
 * pages, and what is ours alone may be asked for: the hand-over does.
 */
static bool may_ask(const struct faultloop *f)
{
	return !faultloop_halted(f) && !f->closing && (faultloop_serving(f) || f->need == NEED_ARM);
}

/* Behind the end of a session nothing is owed, so nothing is found to ask for but known zeroes. */
static void ask(struct faultloop *f)
{
	struct engine_request r;

	f->filling = false;
	if (may_ask(f))
		while (outbox_room(&f->outbox) && next_request(f, &r)) {
			PROBE3(request, r.block, r.offset, r.length);
			if (!f->desk || !inject_holds_request(f, &r))
				outbox_request(&f->outbox, &f->engine.blocks, &r);
		}
	else if (f->closing && faultloop_serving(f))
		(void)next_request(f, &r);
	flush(f);
}

/* Stored content is handed over when nothing more urgent was found in this turn. */
static void push(struct faultloop *f)
{
	if (!faultloop_serving(f) || f->engine.stored_left == 0 || f->retry_ns)
		return;
	engine_push(&f->engine, PUSH_PAGES, clock_ns());
	perform_actions(f);
}

/* Everything that can be done without waiting.  True when there is more of it. */
static bool turn(struct faultloop *f)
{
	bool recovers, more, main_more;

	f->placer.now = 0;
	/*
	 * First, for a lane that stood still goes on in this turn: nothing else would wake us for
	 * the bytes it has.
	 */
	perform_pending(f);
	removals_again(f);
	if (f->desk)
		inject_turn(f);
	serve_faults(f);
	recovers = recovery_turn(f);
	more = lanework_run(f, &f->urgent);
	main_more = lanework_run(f, &f->main);
	more |= main_more;
	if (!more)
		push(f);
	loss_turn(f);
	verdict_end(f);
	verdict_tell_running(f);
	note_first_served(f);
	note_pool(f);
	note_held(f);
	lanework_hand_over(f);
	ask(f);
	gates_turn(f);
	more |= f->filling || (recovers && !f->outbox.sending);
	more |= adopt_turn(f);
	arm_members(f);
	arm_receive(f, &f->urgent, &f->urgent_receiving, COOKIE_URGENT);
	/* Large receives are what makes it fast: not before its buffer is worked off. */
	if (!main_more && lanework_has_main(f) && !holdback_rests(f))
		arm_receive(f, &f->main, &f->main_receiving, COOKIE_MAIN);
	/*
	 * Looked at last: the lanes may have made the room that a message of before waits for, and
	 * no completion tells.
	 */
	more |= faults_wait(f);
	return more || (faultloop_serving(f) && f->engine.stored_left && !f->retry_ns &&
			!faultloop_halted(f));
}

/**
 * faultloop_tell_main - fill the snapshot in hand, and ring: what changed is in it, or in the next
 * one
 */
void faultloop_tell_main(struct faultloop *f)
{
	struct snapshot *s = steal_ptr(&f->snapshot);

	if (f->dirty)
		memoir_write(f);
	if (s) {
		fill_snapshot(f, s, clock_ns());
		__atomic_store_n(&f->filled, s, __ATOMIC_RELEASE);
	}
	if (s || f->dirty)
		doorbell_ring(f->notify);
	f->dirty = false;
}

/* --- completions ------------------------------------------------------------------------------ */

static void on_doorbell(struct faultloop *f, const struct ring_done *d)
{
	f->doorbell_armed = d->more;
	doorbell_clear(f->doorbell);
	f->engine.stats.other_syscalls++;
	errands_reports(f);
	errands_inbox(f);
}

/* A poll that found something, or ended; what comes of an earlier generation is dropped (O10). */
static void on_uffd(struct faultloop *f, const struct ring_done *d)
{
	struct member *m = roster_active(
		&f->roster, (struct sharer_ref){ d->cookie.index, d->cookie.generation });

	if (!m)
		return;
	m->armed = d->more;
	if (d->result < 0 || d->result & POLLERR)
		verdict_member(f, m, SHARER_DISABLED, EBADF,
			       "its userfaultfd was made blocking, or closed under us "
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
	lane_received(main ? &f->main : &f->urgent, d->result, clock_ns());
	if (f->desk)
		inject_arrived(f, main ? &f->main : &f->urgent, d->result);
}

static void on_sent(struct faultloop *f, const struct ring_done *d)
{
	f->outbox.sending = false;
	if (d->result > 0)
		faultloop_sent(f, (size_t)d->result);
	else if (d->result != -EINTR && d->result != -EAGAIN)
		f->outbox.broken = true;
}

static void dispatch(struct faultloop *f, const struct ring_done *d)
{
	static void (*const handlers[])(struct faultloop *, const struct ring_done *) = {
		[COOKIE_DOORBELL] = on_doorbell, [COOKIE_UFFD] = on_uffd,
		[COOKIE_MAIN] = on_received,	 [COOKIE_URGENT] = on_received,
		[COOKIE_SEND] = on_sent,
	};

	if (d->cookie.kind < ARRAY_LEN(handlers) && handlers[d->cookie.kind])
		handlers[d->cookie.kind](f, d);
}

/* How long may the turn's wait be? */
static int64_t patience(const struct faultloop *f, bool more)
{
	enum session_state state = f->engine.session.state;
	int64_t rest, lost;

	if (more)
		return 0;
	if (f->desk && inject_wait(f) >= 0)
		return inject_wait(f) < TICK_NS ? inject_wait(f) : TICK_NS;
	/* No descriptor tells when an answer has arrived. */
	if (f->retry_ns || recovery_waits(f) ||
	    (state == SESSION_RUNNING && (f->closing || !f->running_told)))
		return TICK_NS;
	rest = holdback_wait(f);
	if (rest < 0)
		rest = arrears_wait(f);
	lost = loss_wait(f);
	return rest < 0 || (lost >= 0 && lost < rest) ? lost : rest;
}

/*
 * Busy-poll for a while before sleeping, when asked to: saves the wake-up of another CPU.  Whoever
 * else wants this CPU may have it; it may be the one we wait for.
 */
static void spin(struct faultloop *f)
{
	uint64_t until = clock_ns() + f->options.spin_us * 1000ull;

	while (!ring_ready(f->ring) && clock_ns() < until)
		sched_yield();
}

static int loop(struct faultloop *f)
{
	struct ring_done done[COMPLETIONS];

	while (!f->quit) {
		bool more = turn(f);
		int64_t wait = patience(f, more);
		int n;

		if (f->snapshot || f->dirty)
			faultloop_tell_main(f);
		if (!f->doorbell_armed)
			f->doorbell_armed = ring_poll(f->ring, f->doorbell,
						      (struct ring_cookie){ COOKIE_DOORBELL, 0, 0,
									    0 }) == 0;
		if (f->options.spin_us && wait != 0 && faultloop_serving(f)) {
			n = ring_wait(f->ring, done, COMPLETIONS, 0);
			if (n == 0)
				spin(f);
			if (n == 0)
				n = ring_wait(f->ring, done, COMPLETIONS, wait);
		} else {
			n = ring_wait(f->ring, done, COMPLETIONS, wait);
		}
		/* The kernel is short of memory for a while: too little to give a VM up for. */
		if (n == -EAGAIN || n == -EBUSY) {
			usleep(TICK_NS / 1000);
			continue;
		}
		if (n < 0)
			return n;
		for (int i = 0; i < n; i++)
			dispatch(f, &done[i]);
	}
	return 0;
}

/**
 * faultloop_run - the thread: turns until it is told to quit, or its ring fails
 */
void *faultloop_run(void *arg)
{
	struct faultloop *f = arg;
	int ret = ring_new(&f->ring, RING_ENTRIES);

	pthread_setname_np(pthread_self(), "postcopyd-fault");
	f->begun_error = ret;
	sem_post(&f->begun);
	if (ret < 0)
		return NULL;
	ret = loop(f);
	if (ret < 0) {
		verdict_halt(f, -ret, "the fault thread's io_uring failed: %s", strerror(-ret));
		faultloop_tell_main(f);
	}
	ring_free(f->ring);
	f->ring = NULL;
	__atomic_store_n(&f->over, ret < 0, __ATOMIC_RELEASE);
	doorbell_ring(f->notify);
	return NULL;
}
