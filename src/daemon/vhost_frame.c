/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Descriptors travel with the head of a message, by its first byte, and nowhere else.  What comes
 * with a body, or too many of them, ends the connection: nobody could tell what they are for.  A
 * message is sent as it was received, byte for byte, unless who holds it changed it.
 */
#include "config.h"
#include "daemon/vhost_frame.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <glib.h>

#include "core/guard.h"
#include "sys/fd.h"

#define HEAD sizeof(struct vhostmsg_head)

union control {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(VHOSTMSG_REGIONS * sizeof(int))];
};
_Static_assert(CMSG_SPACE(VHOSTMSG_REGIONS * sizeof(int)) ==
		       CMSG_LEN(VHOSTMSG_REGIONS * sizeof(int)),
	       "padding would let one descriptor too many in");

/**
 * vhost_frame_new - an empty one
 */
struct vhost_frame *vhost_frame_new(void)
{
	struct vhost_frame *f = g_new0(struct vhost_frame, 1);

	memset(f->fd, -1, sizeof(f->fd));
	return f;
}

/**
 * vhost_frame_clear - close its descriptors and begin anew
 */
void vhost_frame_clear(struct vhost_frame *f)
{
	for (unsigned i = 0; i < ARRAY_LEN(f->fd); i++)
		close_fd(&f->fd[i]);
	f->m.fds = 0;
	f->m.head.size = 0;
	f->done = 0;
}

/**
 * vhost_frame_free - NULL is fine
 */
void vhost_frame_free(struct vhost_frame *f)
{
	if (!f)
		return;
	vhost_frame_clear(f);
	g_free(f);
}

/**
 * vhost_frame_copy - the same message, not sent yet, with descriptors of its own
 *
 * Return: NULL when this process may have no more descriptors.
 */
struct vhost_frame *vhost_frame_copy(const struct vhost_frame *f)
{
	struct vhost_frame *copy = vhost_frame_new();

	copy->m = f->m;
	for (unsigned i = 0; i < f->m.fds; i++) {
		copy->fd[i] = fcntl(f->fd[i], F_DUPFD_CLOEXEC, 0);
		if (copy->fd[i] < 0) {
			vhost_frame_free(copy);
			return NULL;
		}
	}
	return copy;
}

/* Whatever came is ours, wherever it came. */
static void collect(struct vhost_frame *f, struct msghdr *msg)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		f->m.fds = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(f->fd, CMSG_DATA(c), f->m.fds * sizeof(int));
	}
}

/* Some of the bytes that are missing.  Their number; 0: none now; -errno. */
static ssize_t take(struct vhost_frame *f, int sock, void *to, size_t len)
{
	struct iovec iov = { .iov_base = to, .iov_len = len };
	union control control;
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	if (f->done == 0) {
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
	}
	do
		n = recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? 0 : -errno;
	if (f->done == 0)
		collect(f, &msg);
	if (msg.msg_flags & MSG_CTRUNC)
		return -EMSGSIZE;
	f->done += (size_t)n;
	return n > 0 ? n : -ECONNRESET;
}

/**
 * vhost_frame_recv - go on receiving
 * @why: what is wrong, static text; untouched at the end of the stream
 *
 * The stream may end between two messages only, but who is gone is gone: that is for the caller to
 * tell by f->done.
 */
int vhost_frame_recv(struct vhost_frame *f, int sock, bool reply, const char **why)
{
	for (;;) {
		bool head = f->done < HEAD;
		size_t whole = head ? HEAD : HEAD + f->m.head.size;
		uint8_t *to = head ? (uint8_t *)&f->m.head + f->done :
				     f->m.body.bytes + (f->done - HEAD);
		ssize_t n;
		int ret;

		if (f->done == whole)
			return 1;
		n = take(f, sock, to, whole - f->done);
		if (n == -EMSGSIZE)
			*why = "descriptors where none may come, or too many";
		if (n <= 0)
			return (int)n;
		ret = f->done == HEAD ?
			      vhostmsg_check_head(&f->m.head, VHOSTMSG_TO_BACKEND, reply, why) :
			      0;
		if (ret < 0)
			return ret;
	}
}

/**
 * vhost_frame_send - go on sending
 */
int vhost_frame_send(struct vhost_frame *f, int sock)
{
	while (f->done < HEAD + f->m.head.size) {
		size_t in_head = f->done < HEAD ? HEAD - f->done : 0,
		       in_body = f->done + in_head - HEAD;
		struct iovec iov[2] = {
			{ .iov_base = (uint8_t *)&f->m.head + f->done, .iov_len = in_head },
			{ .iov_base = f->m.body.bytes + in_body,
			  .iov_len = f->m.head.size - in_body },
		};
		struct msghdr msg = { .msg_iov = iov + !in_head, .msg_iovlen = in_head ? 2 : 1 };
		union control control = { 0 };
		ssize_t n;

		if (f->done == 0 && f->m.fds) {
			struct cmsghdr *c = &control.align;

			msg.msg_control = &control;
			msg.msg_controllen = CMSG_SPACE(f->m.fds * sizeof(int));
			c->cmsg_level = SOL_SOCKET;
			c->cmsg_type = SCM_RIGHTS;
			c->cmsg_len = CMSG_LEN(f->m.fds * sizeof(int));
			memcpy(CMSG_DATA(c), f->fd, f->m.fds * sizeof(int));
		}
		n = sendmsg(sock, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno != EINTR)
			return errno == EAGAIN ? 0 : -errno;
		f->done += n > 0 ? (size_t)n : 0;
	}
	return 1;
}
