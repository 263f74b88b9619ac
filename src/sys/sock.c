/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sockets as the fault thread needs them: what the peer has, and sending without waiting.
 */
#include "config.h"
#include "sys/sock.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/**
 * sock_unsent - what the peer has not acknowledged yet
 *
 * SIOCOUTQ: for TCP bytes not acknowledged, for a UNIX socket bytes not read.
 *
 * Return: bytes, or -errno.
 */
int sock_unsent(int fd)
{
	int n = 0;

	return ioctl(fd, SIOCOUTQ, &n) < 0 ? -errno : n;
}

/**
 * sock_ended - has the peer closed its side, as far as the kernel knows now?
 *
 * Bytes it sent before may still be unread.
 */
bool sock_ended(int fd)
{
	struct pollfd end = { .fd = fd, .events = POLLRDHUP };

	return poll(&end, 1, 0) > 0;
}

/**
 * sock_send - send what the socket takes at once
 *
 * Return: bytes, 0 when it takes none now, or -errno.  Never waits, never raises SIGPIPE.
 */
ssize_t sock_send(int fd, const void *buf, size_t len)
{
	ssize_t n = send(fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n >= 0)
		return n;
	return errno == EAGAIN || errno == EINTR ? 0 : -errno;
}

/**
 * sock_acknowledge - acknowledge now what was received and read
 *
 * TCP puts an acknowledgement off by 40 ms where it can, and a peer that has not set TCP_NODELAY sends
 * nothing small meanwhile.  Holds for what was received so far only.  Nothing on UNIX sockets.
 */
void sock_acknowledge(int fd)
{
	int one = 1;

	(void)setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &one, sizeof(one));
}

/**
 * sock_tune - a long-lived connection to another host
 *
 * No delay for small messages (a request is one), and a peer that vanished is noticed within half a
 * minute: QEMU has no heartbeat of its own, and a source that waits for SHUT may say nothing for
 * long.  Does nothing on UNIX sockets.
 */
void sock_tune(int fd)
{
	static const struct {
		int level, name, value;
	} options[] = {
		{ IPPROTO_TCP, TCP_NODELAY, 1 },
		{ SOL_SOCKET, SO_KEEPALIVE, 1 },
		{ IPPROTO_TCP, TCP_KEEPIDLE, 5 },	/* seconds */
		{ IPPROTO_TCP, TCP_KEEPINTVL, 5 },
		{ IPPROTO_TCP, TCP_KEEPCNT, 6 },
		{ IPPROTO_TCP, TCP_USER_TIMEOUT, 30000 },	/* milliseconds */
	};

	/* Best effort: each of them fails on a UNIX socket, and none is needed for correctness. */
	for (unsigned i = 0; i < sizeof(options) / sizeof(options[0]); i++)
		(void)setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof(int));
}
