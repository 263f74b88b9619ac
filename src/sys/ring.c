/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every system call of a ring is made in one of two places here, ring_submit() and ring_enter(),
 * and each makes exactly one: liburing is asked only when it is known that it must enter the
 * kernel, and never for an endless wait, which it would repeat by itself.
 *
 * With DEFER_TASKRUN the kernel completes nothing behind our back: it raises IORING_SQ_TASKRUN in
 * the shared ring, and the next enter that asks for events does the work.
 */
#include "config.h"

#include "sys/ring.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include <liburing.h>

#include "core/guard.h"
#include "sys/mem.h"

#define NS_PER_S    1000000000ll
#define STREAM_PAGE 4096	/* what the kernel wants a ring of buffers to be aligned to */

/*
 * The one operation that receives again and again.  The kernel takes the place for each receive
 * from a ring of buffers, which has room for one: bytes land where the caller said last and nowhere
 * else, and while it has said nothing they stay in the socket.
 *
 * After bytes the kernel looks again only when the socket says that there are more, and an end that
 * came with the bytes is not more (a reset of TCP, and every end of a UNIX socket): it would never
 * be told.  So the end is watched for by an operation of its own, and where there is one, bytes or
 * not, receives are armed one by one from then on.
 */
struct ring_stream {
	struct io_uring_buf_ring *buffers; /* NULL: receives are armed one by one */
	int fd;				   /* -1: none yet */
	uint64_t cookie;
	bool armed;   /* the operation is the kernel's */
	bool offered; /* the buffer is the kernel's */
	bool watched; /* the end is, or was */
	bool watching; /* and was not met yet */
	bool ended;
	bool stop; /* the operation is still to be cancelled */
};

struct ring {
	struct io_uring uring;
	struct ring_stream stream;
	uint64_t syscalls;
};

/* --- cookies -----------------------------------------------------------------------------------
 */

/* The caller leaves `spare` zero; this mark in it tells our own operations from the caller's. */
#define RING_OWN   (1ull << 8)
#define RING_WATCH (1ull << 9)	/* of our own: a stream's end */

static uint64_t cookie_pack(struct ring_cookie c)
{
	return c.kind | (uint64_t)c.index << 16 | (uint64_t)c.generation << 32;
}

static struct ring_cookie cookie_unpack(uint64_t v)
{
	return (struct ring_cookie){ .kind = (uint8_t)v,
				     .index = (uint16_t)(v >> 16),
				     .generation = (uint32_t)(v >> 32) };
}

/* For whoever has to get it. */
const char ring_needs[] =
	"Linux 5.11 or later with CONFIG_IO_URING is needed, and the sysctl kernel.io_uring_disabled at "
	"0; a sandbox or container must allow io_uring_setup(2), io_uring_enter(2) and "
	"io_uring_register(2)";

/* --- life --------------------------------------------------------------------------------------
 */

/*
 * A kernel with DEFER_TASKRUN (6.1) can receive again and again, too.  Where it refuses the ring of
 * buffers (a sandbox, no more locked memory) nothing is lost but time.
 */
static void ring_stream_setup(struct ring *r)
{
	struct io_uring_buf_reg reg = { .ring_entries = 1 };
	void *page;

	r->stream.fd = -1;
	if (!(r->uring.flags & IORING_SETUP_DEFER_TASKRUN))
		return;
	page = mem_map_private(STREAM_PAGE);
	reg.ring_addr = (uint64_t)(uintptr_t)page;
	if (page && io_uring_register_buf_ring(&r->uring, &reg, 0) == 0)
		r->stream.buffers = page;
	else
		mem_unmap(page, STREAM_PAGE);
}

static int ring_setup(struct io_uring *uring, unsigned entries)
{
	/* The best first; an older kernel says EINVAL to a flag it does not know. */
	static const unsigned flags[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
			IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,
		0,
	};
	int rc = -EINVAL;

	for (size_t i = 0; i < ARRAY_LEN(flags) && rc == -EINVAL; i++)
		rc = io_uring_queue_init(entries, uring, flags[i]);
	return rc;
}

/**
 * ring_new - make a ring of at least @entries queued operations
 *
 * Called on the thread that will use it: the kernel ties a SINGLE_ISSUER ring to its creator, and
 * refuses operations of any other thread with EEXIST.  -ENOSYS also for a kernel before 5.11, whose
 * waits take no timeout.
 */
int ring_new(struct ring **out, unsigned entries)
{
	cleanup_free struct ring *r = calloc(1, sizeof(*r));
	int rc;

	if (!r)
		return -ENOMEM;
	rc = ring_setup(&r->uring, entries);
	if (rc < 0)
		return rc;
	if (!(r->uring.features & IORING_FEAT_EXT_ARG)) {
		io_uring_queue_exit(&r->uring);
		return -ENOSYS;
	}
	/* Spares each enter the look-up of the descriptor; a kernel before 5.18 cannot. */
	(void)io_uring_register_ring_fd(&r->uring);
	ring_stream_setup(r);
	*out = steal_ptr(&r);
	return 0;
}

/**
 * ring_free - end all operations and the ring; NULL is fine
 *
 * The kernel ends what is in flight by itself, but not before this returns: whoever wants to reuse
 * a buffer cancels its operation and takes the completion first.
 */
void ring_free(struct ring *r)
{
	if (!r)
		return;
	io_uring_queue_exit(&r->uring);
	mem_unmap(r->stream.buffers, STREAM_PAGE);
	free(r);
}

/**
 * ring_syscalls - how many system calls the ring has made: what a fault costs is counted
 * (tests/flow/cost.c)
 */
uint64_t ring_syscalls(const struct ring *r)
{
	return r->syscalls;
}

/* --- queueing ----------------------------------------------------------------------------------
 */

static int ring_submit(struct ring *r)
{
	int rc;

	r->syscalls++;
	rc = io_uring_submit(&r->uring);
	return rc < 0 ? rc : 0;
}

/* A free entry, after handing a full queue to the kernel; NULL when that did not help. */
static struct io_uring_sqe *ring_entry(struct ring *r)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&r->uring);

	if (!sqe && ring_submit(r) == 0)
		sqe = io_uring_get_sqe(&r->uring);
	return sqe;
}

/**
 * ring_poll - tell each time @fd becomes readable (or fails)
 */
int ring_poll(struct ring *r, int fd, struct ring_cookie c)
{
	struct io_uring_sqe *sqe = ring_entry(r);

	if (!sqe)
		return -EBUSY;
	io_uring_prep_poll_multishot(sqe, fd, POLLIN);
	sqe->user_data = cookie_pack(c);
	return 0;
}

/**
 * ring_recv - receive once, as recv(2); @buf is the kernel's until the completion
 */
int ring_recv(struct ring *r, int fd, void *buf, size_t len, struct ring_cookie c)
{
	struct io_uring_sqe *sqe = ring_entry(r);

	if (!sqe)
		return -EBUSY;
	io_uring_prep_recv(sqe, fd, buf, len, 0);
	/*
	 * Re-armed when the socket was just emptied: a first try would find nothing, and costs as
	 * much as the poll.
	 */
	sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
	sqe->user_data = cookie_pack(c);
	return 0;
}

static void ring_stream_offer(struct ring_stream *s, void *buf, size_t len)
{
	struct io_uring_buf *b = &s->buffers->bufs[0];

	b->addr = (uint64_t)(uintptr_t)buf;
	b->len = len < UINT32_MAX ? (uint32_t)len : UINT32_MAX;
	b->bid = 0;
	if (!s->offered)
		io_uring_buf_ring_advance(s->buffers, 1);
	s->offered = true;
}

static int ring_stream_watch(struct ring *r)
{
	struct ring_stream *s = &r->stream;
	struct io_uring_sqe *sqe = s->watched ? NULL : ring_entry(r);

	if (!sqe)
		return s->watched ? 0 : -EBUSY;
	io_uring_prep_poll_add(sqe, s->fd, POLLRDHUP);
	sqe->user_data = RING_OWN | RING_WATCH;
	s->watched = s->watching = true;
	return 0;
}

static int ring_stream_arm(struct ring *r)
{
	struct ring_stream *s = &r->stream;
	struct io_uring_sqe *sqe = s->armed ? NULL : ring_entry(r);

	if (!sqe)
		return s->armed ? 0 : -EBUSY;
	io_uring_prep_recv_multishot(sqe, s->fd, NULL, 0, 0);
	sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
	sqe->flags |= IOSQE_BUFFER_SELECT;
	sqe->user_data = s->cookie;
	s->armed = true;
	return 0;
}

/**
 * ring_stream - receive once from a socket that will be received from again and again
 *
 * As ring_recv(), but the kernel goes on looking at the socket: a call after the first only says
 * where the next bytes go, which saves it arming a receive each time.  A call is followed by one
 * completion before the next call; -EAGAIN there says that nothing was received.
 *
 * There is one such socket: the first for which this is called, until the ring is freed.  Nothing
 * else carries its cookie.  For any other, and where the kernel cannot do this, it is ring_recv().
 */
int ring_stream(struct ring *r, int fd, void *buf, size_t len, struct ring_cookie c)
{
	struct ring_stream *s = &r->stream;

	if (s->buffers && s->fd < 0) {
		s->fd = fd;
		s->cookie = cookie_pack(c);
	}
	if (!s->buffers || fd != s->fd || (s->ended && !s->armed))
		return ring_recv(r, fd, buf, len, c);
	if (ring_stream_watch(r) < 0 || ring_stream_arm(r) < 0)
		return -EBUSY;
	ring_stream_offer(s, buf, len);
	return 0;
}

static int ring_end(struct ring *r, uint64_t cookie);

/**
 * ring_stream_forget - end the operations on the one socket of ring_stream(), for another to come
 *
 * Waits for nothing; the buffer of a call that is under way is the kernel's until its completion,
 * which may be -EAGAIN now.
 *
 * Return: true when they have ended, also when there never were any.
 */
bool ring_stream_forget(struct ring *r)
{
	struct ring_stream *s = &r->stream;

	if (s->fd < 0)
		return true;
	if (s->armed || s->watching) {
		s->ended = true;
		s->stop = s->armed;
		if (s->watching)
			(void)ring_end(r, RING_OWN | RING_WATCH);
		return false;
	}
	s->fd = -1;
	s->watched = s->ended = s->stop = false;
	return true;
}

/**
 * ring_send - send once, as send(2), possibly less than @len; @buf stays until the completion
 */
int ring_send(struct ring *r, int fd, const void *buf, size_t len, struct ring_cookie c)
{
	struct io_uring_sqe *sqe = ring_entry(r);

	if (!sqe)
		return -EBUSY;
	io_uring_prep_send(sqe, fd, buf, len, MSG_NOSIGNAL);
	sqe->user_data = cookie_pack(c);
	return 0;
}

static int ring_end(struct ring *r, uint64_t cookie)
{
	struct io_uring_sqe *sqe = ring_entry(r);

	if (!sqe)
		return -EBUSY;
	io_uring_prep_cancel64(sqe, cookie, IORING_ASYNC_CANCEL_ALL);
	sqe->user_data = RING_OWN;
	return 0;
}

/**
 * ring_cancel - end every operation that carries cookie @c
 *
 * Each still completes, usually with -ECANCELED; the cancellation itself is not reported.
 */
int ring_cancel(struct ring *r, struct ring_cookie c)
{
	return ring_end(r, cookie_pack(c));
}

/**
 * ring_poke - hand what is queued to the kernel now, without looking at completions
 */
int ring_poke(struct ring *r)
{
	return io_uring_sq_ready(&r->uring) ? ring_submit(r) : 0;
}

/* --- waiting -----------------------------------------------------------------------------------
 */

/* Does the kernel hold completions back until it is entered? */
static bool ring_held_back(const struct ring *r)
{
	return IO_URING_READ_ONCE(*r->uring.sq.kflags) &
	       (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN);
}

bool ring_ready(struct ring *r)
{
	return io_uring_cq_ready(&r->uring) > 0 || ring_held_back(r);
}

/* One enter, if there is any use in one.  0 or -errno; a timeout is no error. */
static int ring_enter(struct ring *r, int64_t wait_ns)
{
	bool queued = io_uring_sq_ready(&r->uring) > 0;
	bool wait = wait_ns != 0 && io_uring_cq_ready(&r->uring) == 0;
	struct __kernel_timespec ts;
	struct io_uring_cqe *cqe;
	int rc;

	if (!wait && !queued && !ring_held_back(r))
		return 0;
	r->syscalls++;
	if (!wait) {
		rc = io_uring_submit_and_get_events(&r->uring);
		return rc < 0 ? rc : 0;
	}
	/*
	 * Without a timeout no timer is armed, which in a virtual machine costs more than the rest
	 * of the call.
	 */
	if (wait_ns < 0) {
		rc = io_uring_submit_and_wait(&r->uring, 1);
		return rc < 0 ? rc : 0;
	}
	ts.tv_sec = wait_ns / NS_PER_S;
	ts.tv_nsec = wait_ns % NS_PER_S;
	rc = io_uring_submit_and_wait_timeout(&r->uring, &cqe, 1, &ts, NULL);
	return rc < 0 && rc != -ETIME ? rc : 0;
}

/*
 * A completion of the stream: true when the caller hears of it.  The operation ends when bytes meet
 * no buffer, and because we said so, and the next call begins anew; that is news only if the call
 * was made already, while this completion was still to be taken.
 */
static bool ring_stream_took(struct ring_stream *s, const struct io_uring_cqe *cqe, int32_t *result)
{
	if (cqe->flags & IORING_CQE_F_BUFFER)
		s->offered = false;
	s->armed = cqe->flags & IORING_CQE_F_MORE;
	if (cqe->res != -ENOBUFS && (cqe->res != -ECANCELED || !s->ended))
		return true;
	*result = -EAGAIN;
	return s->offered;
}

/* The end of the stream, or of watching for it: whatever it is, plain receives will tell. */
static void ring_stream_end(struct ring_stream *s)
{
	s->ended = true;
	s->watching = false;
	s->stop = s->armed;
}

/* One completion: true when the caller hears of it. */
static bool ring_take(struct ring *r, const struct io_uring_cqe *cqe, struct ring_done *out)
{
	if (cqe->user_data & RING_WATCH)
		ring_stream_end(&r->stream);
	if (cqe->user_data & RING_OWN)
		return false;
	*out = (struct ring_done){ .cookie = cookie_unpack(cqe->user_data),
				   .result = cqe->res,
				   .more = cqe->flags & IORING_CQE_F_MORE };
	return !r->stream.armed || cqe->user_data != r->stream.cookie ||
	       ring_stream_took(&r->stream, cqe, &out->result);
}

/* Copy out up to @max completions that are the caller's; ours vanish here. */
static unsigned ring_harvest(struct ring *r, struct ring_done *out, unsigned max)
{
	struct io_uring_cqe *cqe;
	unsigned head, seen = 0, n = 0;

	io_uring_for_each_cqe(&r->uring, head, cqe)
	{
		if (n == max)
			break;
		seen++;
		n += ring_take(r, cqe, &out[n]);
	}
	io_uring_cq_advance(&r->uring, seen);
	return n;
}

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

/* What is left of a wait: 0 when it is over; endless waits and polls stay what they are. */
static int64_t ring_left(int64_t timeout_ns, int64_t deadline)
{
	int64_t left = timeout_ns > 0 ? deadline - now_ns() : timeout_ns;

	return timeout_ns > 0 && left < 0 ? 0 : left;
}

/**
 * ring_wait - submit, wait, and take completions, by at most one system call when one is there
 *
 * Completions that are there already are taken without a system call, unless something is queued or
 * the kernel holds some back.  An error of the kernel is reported only when there is no completion
 * to report.
 */
int ring_wait(struct ring *r, struct ring_done *out, unsigned max, int64_t timeout_ns)
{
	int64_t left = timeout_ns, deadline = 0;

	assert(max > 0);
	if (timeout_ns > 0 && __builtin_add_overflow(now_ns(), timeout_ns, &deadline))
		timeout_ns = left = -1;
	for (;;) {
		unsigned n;
		int rc;

		if (r->stream.stop)
			r->stream.stop = ring_end(r, r->stream.cookie) < 0;
		rc = ring_enter(r, left);
		n = ring_harvest(r, out, max);
		if (n > 0)
			return (int)n;
		if (rc < 0 && rc != -EINTR)
			return rc;
		if (left == 0 && rc == 0)
			return 0;
		left = ring_left(timeout_ns, deadline);
	}
}
