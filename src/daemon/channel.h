/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_CHANNEL_H
#define PC_DAEMON_CHANNEL_H
/*
 * The source's connections: which is the main channel, which the urgent one.  Main thread only.
 *
 * The source says nothing that tells them apart but the magic at the start of the main channel; the urgent channel is silent
 * until its first page, and may arrive before the main channel has spoken.  So a connection is held until either it shows the magic,
 * or another one has and it has stayed silent.
 */
#include <glib.h>
#include "daemon/faultloop.h"

struct channel;

struct channel_ops {
	/* A connection was refused; the text says why. */
	void (*refused)(void *ctx, const char *text);
	void *ctx;
};

/* @listen_fd: listening stream socket, owned from here on. */
struct channel *channel_new(int listen_fd, struct faultloop *loop, const struct channel_ops *ops);
void channel_free(struct channel *c);

#endif
