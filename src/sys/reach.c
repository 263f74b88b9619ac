/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A TCP connection is begun to the port that the peer had, from our address.  Nobody listens there:
 * a host that is reached says so (RST), which is all that is wanted.  A firewall may say nothing;
 * then there is no answer, as if the host were away.
 */
#include "config.h"
#include "sys/reach.h"

#include <errno.h>
#include <poll.h>

#include "sys/fd.h"

/**
 * reach_ask - have the peer's host answer
 * @e: networked; of a connection that is over
 */
int reach_ask(const struct ends *e)
{
	socklen_t len = e->peer.any.sa_family == AF_INET ? sizeof(e->peer.in) : sizeof(e->peer.in6);
	union ends_address from = e->local;
	cleanup_fd int fd = socket(e->peer.any.sa_family,
				   SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	from.in.sin_port = 0;
	if (fd < 0 || bind(fd, &from.any, len) < 0)
		return -1;
	if (connect(fd, &e->peer.any, len) < 0 && errno != EINPROGRESS && errno != ECONNREFUSED)
		return -1;
	return steal_fd(&fd);
}

int reach_answer(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	socklen_t len = sizeof(int);
	int error = 0;

	if (poll(&p, 1, 0) <= 0)
		return 0;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		return -1;
	return error == 0 || error == ECONNREFUSED ? 1 : -1;
}
