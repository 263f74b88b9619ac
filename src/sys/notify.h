/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_SYS_NOTIFY_H
#define PC_SYS_NOTIFY_H
/* The service manager's notification socket, as sd_notify(3) describes it. */
#include <sys/socket.h>
#include <sys/un.h>

struct notify {
	int fd;			/* -1: no manager listens */
	struct sockaddr_un to;
	socklen_t to_len;
};

/* Where the environment says ($NOTIFY_SOCKET, which is removed from it). */
void notify_init(struct notify *n);
void notify_deinit(struct notify *n);
/*
 * Lines of NAME=VALUE, with a descriptor unless it is -1.  In the manager's queue when this
 * returns 0, also when no manager listens; -errno.
 */
int notify_send(const struct notify *n, const char *lines, int fd);

#endif
