/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_CHANNEL_H
#define PC_DAEMON_CHANNEL_H
/*
 * The source's connections: which is the main channel, which the urgent one.  Main thread only.
 *
 * The source says nothing that tells them apart but the magic at the start of the main channel; the
 * urgent channel is silent until its first page, and may arrive before the main channel has spoken.
 * So a connection is held until its first bytes tell.
 */
#include <glib.h>
#include "daemon/faultloop.h"

struct channel;

struct channel_ops {
	/* A connection was refused; the text says why. */
	void (*refused)(void *ctx, const char *text);
	/* A connection is the source's, and still ours; NULL. */
	void (*assigned)(void *ctx, bool urgent, int fd);
	/* The last snapshot, for the blocks that there are; NULL: none yet. */
	const struct snapshot *(*snapshot)(void *ctx);
	/* The source comes again, though its connection has not ended for us: pause. */
	void (*returned)(void *ctx);
	void *ctx;
	/* that a connection may say nothing while no main channel is known; 0: the default */
	unsigned silent_ms;
};

/* @listen_fd: listening stream socket, owned from here on. */
struct channel *channel_new(int listen_fd, struct faultloop *loop, const struct channel_ops *ops);
/*
 * What became of the session: while it is paused, and not held, one resumed source at a time is
 * accepted, from wherever it comes.
 */
void channel_see(struct channel *c, const struct snapshot *s);
/* Accept on this listening socket, too, instead of the one that was added before; owned. */
void channel_add(struct channel *c, int listen_fd);
/* While a resumed source is waited for: whether one is let in. */
void channel_open(struct channel *c, bool open);
/* No urgent channel is needed any more: who has not spoken goes. */
void channel_over(struct channel *c);
void channel_free(struct channel *c);
/* Each main connection that goes to the fault thread: for a look at it, not to be kept. */
void channel_on_main(struct channel *c, void (*seen)(void *ctx, int fd), void *ctx);

#endif
