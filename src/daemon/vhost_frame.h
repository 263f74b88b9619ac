/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_VHOST_FRAME_H
#define PC_DAEMON_VHOST_FRAME_H
/*
 * One vhost-user message with its descriptors, on its way through a stream socket that never waits.
 */
#include <stdbool.h>
#include <stddef.h>
#include "wire/vhostmsg.h"

struct vhost_frame {
	struct vhostmsg m;		/* m.fds of them came, or go, with it */
	int fd[VHOSTMSG_REGIONS];	/* owned; -1 */
	size_t done;			/* bytes that have passed the socket */
};

struct vhost_frame *vhost_frame_new(void);
void vhost_frame_free(struct vhost_frame *f);
/* With descriptors of its own; NULL: there are none left. */
struct vhost_frame *vhost_frame_copy(const struct vhost_frame *f);
/* Empty, to receive the next one. */
void vhost_frame_clear(struct vhost_frame *f);
/*
 * 1: a whole message is in it, its head checked; 0: not yet; -ECONNRESET at the end of the stream;
 * another -errno with @why.
 * @reply: an answer is awaited, not a request.
 */
int vhost_frame_recv(struct vhost_frame *f, int sock, bool reply, const char **why);
/* 1: it has gone; 0: the socket takes no more now; -errno. */
int vhost_frame_send(struct vhost_frame *f, int sock);

#endif
