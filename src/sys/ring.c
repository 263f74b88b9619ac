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

#define NS_PER_S    1000000000ll

struct ring {
	struct io_uring uring;
	uint64_t syscalls;
};

/* --- cookies -----------------------------------------------------------------------------------
 */

/* The caller leaves `spare` zero; this mark in it tells our own operations from the caller's. */
#define RING_OWN (1ull << 8)

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

/* --- life --------------------------------------------------------------------------------------
 */

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
	/* Re-armed when the socket was just emptied: a first try would find nothing, and costs as much as the poll. */
	sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
	sqe->user_data = cookie_pack(c);
	return 0;
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

/**
 * ring_cancel - end every operation that carries cookie @c
 *
 * Each still completes, usually with -ECANCELED; the cancellation itself is not reported.
 */
int ring_cancel(struct ring *r, struct ring_cookie c)
{
	struct io_uring_sqe *sqe = ring_entry(r);

	if (!sqe)
		return -EBUSY;
	io_uring_prep_cancel64(sqe, cookie_pack(c), IORING_ASYNC_CANCEL_ALL);
	sqe->user_data = RING_OWN;
	return 0;
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
	/* Without a timeout no timer is armed, which in a virtual machine costs more than the rest of the call. */
	if (wait_ns < 0) {
		rc = io_uring_submit_and_wait(&r->uring, 1);
		return rc < 0 ? rc : 0;
	}
	ts.tv_sec = wait_ns / NS_PER_S;
	ts.tv_nsec = wait_ns % NS_PER_S;
	rc = io_uring_submit_and_wait_timeout(&r->uring, &cqe, 1, &ts, NULL);
	return rc < 0 && rc != -ETIME ? rc : 0;
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
		if (cqe->user_data & RING_OWN)
			continue;
		out[n++] = (struct ring_done){ .cookie = cookie_unpack(cqe->user_data),
					       .result = cqe->res,
					       .more = cqe->flags & IORING_CQE_F_MORE };
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
		int rc = ring_enter(r, left);
		unsigned n = ring_harvest(r, out, max);

		if (n > 0)
			return (int)n;
		if (rc < 0 && rc != -EINTR)
			return rc;
		if (left == 0 && rc == 0)
			return 0;
		left = ring_left(timeout_ns, deadline);
	}
}
