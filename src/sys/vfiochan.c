/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Messages on a stream.  A message that came in part stays in the buffer when its reader runs out
 * of time, so a late answer is still found whole; one that went out in part cannot be taken back.
 *
 * The tail of an answer that is waited for goes where it is wanted, without a copy of it between.
 * Who waits no longer takes that place back; then the rest goes where it would have gone, and only
 * the head can be believed: that is enough to throw the message away.
 */
#include "config.h"

#include "sys/vfiochan.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "core/guard.h"
#include "sys/clock.h"
#include "sys/fd.h"

union control {
	char bytes[CMSG_SPACE(VFIOMSG_FDS * sizeof(int))];
	struct cmsghdr align;
};

/**
 * vfiochan_init - messages on a connected socket
 */
int vfiochan_init(struct vfiochan *c, int fd, size_t room)
{
	int flags = fcntl(fd, F_GETFL);

	*c = (struct vfiochan){ .fd = fd, .room = room };
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK))
		return -errno;
	c->buf = malloc(room);
	return c->buf ? 0 : -ENOMEM;
}

/**
 * vfiochan_done - forget the message in hand
 */
void vfiochan_done(struct vfiochan *c)
{
	for (unsigned i = 0; i < c->n_fds; i++)
		close_fd(&c->fds[i]);
	c->n_fds = 0;
	c->have = 0;
}

/**
 * vfiochan_deinit - hang up
 */
void vfiochan_deinit(struct vfiochan *c)
{
	vfiochan_done(c);
	close_fd(&c->fd);
	free(c->buf);
	c->buf = NULL;
}

/* What was received is owned from now on; more than a message may have is a breach. */
static int keep_fds(struct vfiochan *c, struct msghdr *msg)
{
	bool lost = msg->msg_flags & MSG_CTRUNC;

	for (struct cmsghdr *h = CMSG_FIRSTHDR(msg); h; h = CMSG_NXTHDR(msg, h)) {
		size_t n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(h) + i * sizeof(fd), sizeof(fd));
			if (c->n_fds < VFIOMSG_FDS) {
				c->fds[c->n_fds++] = fd;
				continue;
			}
			close_fd(&fd);
			lost = true;
		}
	}
	return lost ? -EPROTO : 0;
}

static bool is_expected(const struct vfiochan *c, const struct vfiomsg_head *head)
{
	return c->into.to && head->id == c->into.id && !(head->flags & VFIOMSG_ERROR) &&
	       (head->flags & VFIOMSG_TYPE) == VFIOMSG_REPLY;
}

/* Where the bytes from c->have to @want go; how many pieces that is. */
static unsigned place(const struct vfiochan *c, bool elsewhere, size_t want, struct iovec iov[3])
{
	const struct vfiochan_into *into = &c->into;
	size_t ends[3] = { want, want, want }, at = c->have;
	unsigned n = 0;

	if (elsewhere) {
		ends[0] = into->at < want ? into->at : want;
		ends[1] = into->len < want - ends[0] ? ends[0] + into->len : want;
	}
	for (unsigned i = 0; i < 3; i++) {
		if (at >= ends[i])
			continue;
		iov[n].iov_base = i == 1 ? into->to + (at - into->at) : c->buf + at;
		iov[n++].iov_len = ends[i] - at;
		at = ends[i];
	}
	return n;
}

/* Up to @want bytes in hand.  1: so it is; 0: there are no more now. */
static int fill(struct vfiochan *c, bool elsewhere, size_t want)
{
	while (c->have < want) {
		union control control;
		struct iovec iov[3];
		struct msghdr msg = { .msg_iov = iov,
				      .msg_iovlen = place(c, elsewhere, want, iov),
				      .msg_control = control.bytes,
				      .msg_controllen = sizeof(control.bytes) };
		ssize_t n = recvmsg(c->fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return 0;
		if (n <= 0)
			return -ECONNRESET;
		c->have += (size_t)n;
		if (keep_fds(c, &msg))
			return -EPROTO;
	}
	return 1;
}

/**
 * vfiochan_pump - read what is there
 */
int vfiochan_pump(struct vfiochan *c, const struct vfiomsg_terms *terms)
{
	struct vfiomsg_head head;
	int ret = fill(c, false, VFIOMSG_HEAD);

	if (ret <= 0)
		return ret;
	memcpy(&head, c->buf, sizeof(head));
	if (vfiomsg_check_head(&head, terms, NULL) || head.size > c->room)
		return -EPROTO;
	return fill(c, is_expected(c, &head), head.size);
}

/**
 * vfiochan_message - the message in hand
 */
const uint8_t *vfiochan_message(const struct vfiochan *c, struct vfiomsg *m)
{
	assert(c->have >= VFIOMSG_HEAD);
	memset(m, 0, sizeof(*m));
	memcpy(&m->head, c->buf, VFIOMSG_HEAD);
	m->fds = c->n_fds;
	return c->buf + VFIOMSG_HEAD;
}

/**
 * vfiochan_steal - the first descriptor of the message in hand
 */
int vfiochan_steal(struct vfiochan *c)
{
	return c->n_fds ? steal_fd(&c->fds[0]) : -1;
}

static int remaining_ms(uint64_t until)
{
	uint64_t now = clock_ns(), ms;

	if (until == VFIOCHAN_NEVER)
		return -1;
	if (until <= now)
		return 0;
	ms = (until - now + 999999) / 1000000;
	return ms < 1000000 ? (int)ms : 1000000;
}

/* A signal, or a poll that is shorter than the time that is left, is no event. */
static int poll_until(struct pollfd *p, nfds_t n, uint64_t until)
{
	for (;;) {
		int ret = poll(p, n, remaining_ms(until));

		if (ret > 0)
			return 0;
		if (ret < 0 && errno != EINTR)
			return -errno;
		if (until != VFIOCHAN_NEVER && clock_ns() >= until)
			return -ETIMEDOUT;
	}
}

/**
 * vfiochan_wait - until something can be read, or a peer has gone
 */
int vfiochan_wait(struct vfiochan *const *c, unsigned n, uint64_t until)
{
	struct pollfd p[2];

	assert(n <= ARRAY_LEN(p));
	for (unsigned i = 0; i < n; i++)
		p[i] = (struct pollfd){ .fd = c[i]->fd, .events = POLLIN };
	return poll_until(p, n, until);
}

static void put_fd(struct msghdr *msg, union control *control, int fd)
{
	struct cmsghdr *h;

	memset(control, 0, sizeof(*control));
	msg->msg_control = control->bytes;
	msg->msg_controllen = CMSG_SPACE(sizeof(fd));
	h = CMSG_FIRSTHDR(msg);
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(h), &fd, sizeof(fd));
}

/* @n bytes have gone; the tail may be none at all, and has no address then. */
static void advance(struct iovec iov[2], size_t n)
{
	for (unsigned i = 0; i < 2 && n; i++) {
		size_t part = n < iov[i].iov_len ? n : iov[i].iov_len;

		iov[i].iov_base = (uint8_t *)iov[i].iov_base + part;
		iov[i].iov_len -= part;
		n -= part;
	}
}

/**
 * vfiochan_send - a message, all of it
 *
 * The front and the tail leave together when the socket takes them: there are servers that want a
 * head in one piece.
 */
int vfiochan_send(struct vfiochan *c, struct vfiomsg *m, int fd, uint64_t until)
{
	uint8_t front[VFIOMSG_FRONT];
	union control control;
	struct iovec iov[2] = { { front, vfiomsg_front(m, front) }, { (void *)m->data, m->len } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	int err = 0;

	if (fd >= 0)
		put_fd(&msg, &control, fd);
	while (err == 0 && iov[0].iov_len + iov[1].iov_len) {
		ssize_t n = sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n >= 0) {
			advance(iov, (size_t)n);
			msg.msg_control = NULL;
			msg.msg_controllen = 0;
		} else if (errno == EAGAIN) {
			struct pollfd p = { .fd = c->fd, .events = POLLOUT };

			err = poll_until(&p, 1, until);
		} else if (errno != EINTR) {
			err = -ECONNRESET;
		}
	}
	return err;
}
