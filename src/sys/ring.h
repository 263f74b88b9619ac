/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_SYS_RING_H
#define PC_SYS_RING_H
/*
 * One thread's wait point (io_uring), without a liburing type in sight so that it could be written
 * twice.  A completion carries the cookie that the caller gave: {kind, index, generation}.
 *
 * Multishot polls are edge-like: after a ready completion the fd must be drained to a short read,
 * or remembered by the caller.  A poll that the kernel ended (completion with more == false) is
 * re-armed by the caller with ring_poll().
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What to say where there is none. */
extern const char ring_needs[];

struct ring;

struct ring_cookie {
	uint8_t kind;	     /* caller's */
	uint8_t spare;	     /* not carried: comes back as zero */
	uint16_t index;	     /* caller's */
	uint32_t generation; /* caller's */
};

struct ring_done {
	struct ring_cookie cookie;
	int32_t result; /* poll: revents; recv/send: bytes; or -errno */
	bool more;	/* a multishot goes on */
};

/*
 * SINGLE_ISSUER | DEFER_TASKRUN where the kernel has them; so it is called on the thread that will
 * use the ring.  0 or -errno.
 */
int ring_new(struct ring **out, unsigned entries);
void ring_free(struct ring *r);

/* All of these queue; nothing reaches the kernel before ring_wait()/ring_poke().  0 or -EBUSY. */
int ring_poll(struct ring *r, int fd, struct ring_cookie c); /* multishot POLLIN */
int ring_recv(struct ring *r, int fd, void *buf, size_t len, struct ring_cookie c);
/* As ring_recv(), cheaper, for the one socket that is received from most; see ring.c. */
int ring_stream(struct ring *r, int fd, void *buf, size_t len, struct ring_cookie c);
/*
 * The socket of ring_stream() is to be forgotten: true when nothing of it comes any more, and
 * another can take its place.  Until then call again behind the next ring_wait().
 */
bool ring_stream_forget(struct ring *r);
/* As send(2) with MSG_NOSIGNAL. */
int ring_send(struct ring *r, int fd, const void *buf, size_t len, struct ring_cookie c);
int ring_cancel(struct ring *r, struct ring_cookie c); /* ends every operation with this cookie */

/* Submit what is queued now; completions stay for ring_wait().  0 or -errno. */
int ring_poke(struct ring *r);

/*
 * Submit what is queued and wait for at least one completion, at most @timeout_ns (<0: for ever; 0:
 * do not wait).  Copies up to @max completions out.  Their number (0 on timeout), or -errno; EINTR
 * is retried.
 */
int ring_wait(struct ring *r, struct ring_done *out, unsigned max, int64_t timeout_ns);
/* Is anything completed, or completable without waiting?  Cheap; for spinning and fairness. */
bool ring_ready(struct ring *r);
/* Number of system calls this ring has made (for the cost bench). */
uint64_t ring_syscalls(const struct ring *r);

#endif
