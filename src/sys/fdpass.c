/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "sys/fdpass.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>

#include "sys/fd.h"

/* A control buffer that holds exactly FDPASS_MAX descriptors: a fifth one sets MSG_CTRUNC. */
union fdpass_control {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(FDPASS_MAX * sizeof(int))];
};
_Static_assert(CMSG_SPACE(FDPASS_MAX * sizeof(int)) == CMSG_LEN(FDPASS_MAX * sizeof(int)),
	       "padding would let one descriptor too many in");

/**
 * fdpass_init - an empty set: every slot is -1
 */
void fdpass_init(struct fdpass *p)
{
	for (unsigned i = 0; i < FDPASS_MAX; i++)
		p->fd[i] = -1;
	p->n = 0;
}

/**
 * fdpass_close - close what has not been stolen; idempotent
 */
void fdpass_close(struct fdpass *p)
{
	for (unsigned i = 0; i < p->n; i++)
		close_fd(&p->fd[i]);
	p->n = 0;
}

/**
 * fdpass_steal - take descriptor @i out of the set
 *
 * Returns the descriptor, owned by the caller, or -1 when there is none (any more).
 */
int fdpass_steal(struct fdpass *p, unsigned i)
{
	return i < p->n ? steal_fd(&p->fd[i]) : -1;
}

/**
 * fdpass_connect - connect to a listening SOCK_SEQPACKET socket
 * @limit_ms: connect() itself waits only for room in the listener's backlog, and one that accepts
 *   nobody must not hold us for ever
 *
 * Return: the socket (CLOEXEC); -ETIMEDOUT, -ENAMETOOLONG or another -errno.
 */
int fdpass_connect(const char *path, unsigned limit_ms)
{
	cleanup_fd int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct timeval limit = { .tv_sec = limit_ms / 1000, .tv_usec = limit_ms % 1000 * 1000 };
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	if (sock < 0)
		return -errno;
	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	strcpy(addr.sun_path, path);
	if (setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0)
		return -errno;
	if (connect(sock, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	return steal_fd(&sock);
}

/**
 * fdpass_send - send one message with up to FDPASS_MAX descriptors
 *
 * The descriptors stay the caller's.  An empty message is refused (-EINVAL): the receiver could not
 * tell it from the end.  Returns the bytes sent or -errno; never blocks, never raises SIGPIPE.
 */
ssize_t fdpass_send(int sock, const void *buf, size_t len, const int *fds, unsigned n_fds)
{
	struct iovec iov = { .iov_base = (void *)buf, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	union fdpass_control control;
	ssize_t n;

	if (len == 0 || n_fds > FDPASS_MAX)
		return -EINVAL;
	if (n_fds > 0) {
		struct cmsghdr *c = &control.align;

		memset(&control, 0, sizeof(control));
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
	}
	do
		n = sendmsg(sock, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

/* Everything that came with @msg becomes ours; the control buffer bounds the number. */
static void fdpass_collect(struct msghdr *msg, struct fdpass *got)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		unsigned n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(&got->fd[got->n], CMSG_DATA(c), n * sizeof(int));
		got->n += n;
	}
}

/**
 * fdpass_recv - receive one message and its descriptors
 *
 * @fds is an output: what it held before is forgotten, so close it first.  It is valid (empty)
 * after every outcome but a positive length, too.  Descriptors of a message that is refused are
 * closed here.
 *
 * Returns the length, 0 at EOF, -EMSGSIZE when the message or its descriptors were truncated,
 * -EAGAIN when nothing is there, or another -errno.
 */
ssize_t fdpass_recv(int sock, void *buf, size_t len, struct fdpass *fds)
{
	struct iovec iov = { .iov_base = buf, .iov_len = len };
	union fdpass_control control;
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = &control,
			      .msg_controllen = sizeof(control) };
	ssize_t n;

	fdpass_init(fds);
	do
		n = recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	fdpass_collect(&msg, fds);
	if (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
		n = -EMSGSIZE;
	if (n <= 0)
		fdpass_close(fds);
	return n;
}

/**
 * fdpass_peer - who connected @sock (SO_PEERCRED: as it was at connect() or socketpair() time)
 *
 * The pid is 0 for a peer whose pid namespace we cannot see.  Returns 0 or -errno; -ENOTCONN when
 * the kernel names nobody.
 */
int fdpass_peer(int sock, struct fdpass_peer *peer)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return -errno;
	if (len != sizeof(cred) || cred.uid == (uid_t)-1)
		return -ENOTCONN;
	*peer = (struct fdpass_peer){ .pid = cred.pid, .uid = cred.uid, .gid = cred.gid };
	return 0;
}
