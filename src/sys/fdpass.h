/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_SYS_FDPASS_H
#define PC_SYS_FDPASS_H
/*
 * Messages with file descriptors over UNIX SOCK_SEQPACKET sockets.  What is received is owned from
 * the moment recvmsg() returns; a truncated message or truncated descriptors are refused and
 * closed. (LGPL: libpostcopy carries it.)
 */
#include <stddef.h>
#include <sys/types.h>

#define FDPASS_MAX 4

struct fdpass {
	int fd[FDPASS_MAX]; /* -1: none */
	unsigned n;
};

void fdpass_init(struct fdpass *p);
void fdpass_close(struct fdpass *p);
int fdpass_steal(struct fdpass *p, unsigned i); /* -1 when there is none */
#define cleanup_fdpass __attribute__((cleanup(fdpass_close)))

/* A SOCK_SEQPACKET connection (CLOEXEC) to a path.  The socket or -errno. */
int fdpass_connect(const char *path, unsigned limit_ms);

/* One message, never blocking (MSG_DONTWAIT|MSG_NOSIGNAL).  Bytes sent or -errno. */
ssize_t fdpass_send(int sock, const void *buf, size_t len, const int *fds, unsigned n_fds);
/* One message.  Length, 0 at EOF, -EMSGSIZE truncated, or -errno.  Descriptors are CLOEXEC. */
ssize_t fdpass_recv(int sock, void *buf, size_t len, struct fdpass *fds);

struct fdpass_peer {
	pid_t pid;
	uid_t uid;
	gid_t gid;
};
int fdpass_peer(int sock, struct fdpass_peer *peer); /* SO_PEERCRED */

#endif
