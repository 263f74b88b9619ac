/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A dozen lines of a protocol that its makers promise to keep and invite others to speak, instead
 * of a library that not every host has.
 */
#include "config.h"
#include "sys/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "sys/fd.h"

/**
 * notify_init - remember where the service manager listens, if anywhere
 */
void notify_init(struct notify *n)
{
	const char *path = getenv("NOTIFY_SOCKET");
	size_t len = path ? strlen(path) : 0;

	*n = (struct notify){ .fd = -1, .to.sun_family = AF_UNIX };
	if (len > 1 && len < sizeof(n->to.sun_path) && (path[0] == '/' || path[0] == '@')) {
		memcpy(n->to.sun_path, path, len);
		/* a path is sent with its end, an abstract name has none */
		n->to_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len +
					(path[0] == '/'));
		if (path[0] == '@')
			n->to.sun_path[0] = '\0';
		n->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	}
	unsetenv("NOTIFY_SOCKET");
}

/**
 * notify_deinit - say no more; once more is harmless
 */
void notify_deinit(struct notify *n)
{
	close_fd(&n->fd);
}

/**
 * notify_send - tell the service manager
 * @lines: NAME=VALUE, separated by newlines
 * @fd: goes along, and stays the caller's; -1
 *
 * Waits while the manager's queue is full.
 *
 * Return: 0, also when there is no manager; -errno.
 */
int notify_send(const struct notify *n, const char *lines, int fd)
{
	struct iovec iov = { .iov_base = (void *)lines, .iov_len = strlen(lines) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_name = (void *)&n->to,
			      .msg_namelen = n->to_len };
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	ssize_t sent;

	if (n->fd < 0)
		return 0;
	if (fd >= 0) {
		struct cmsghdr *c = &control.align;

		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(int));
	}
	do
		sent = sendmsg(n->fd, &msg, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : 0;
}
