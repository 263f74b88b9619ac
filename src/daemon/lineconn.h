/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_LINECONN_H
#define PC_DAEMON_LINECONN_H
/*
 * One peer that talks in lines, on the default GLib main context, bounded both ways: a line that
 * does not end and a peer that does not read cost a fixed amount of memory, then the connection.
 */
#include <stdbool.h>
#include <stddef.h>

#define LINECONN_LINE_MAX  65536      /* bytes of a line from the peer, '\n' not counted */
#define LINECONN_QUEUE_MAX (1u << 20) /* bytes the peer has not read yet */

struct lineconn;

struct lineconn_ops {
	/* One line, not terminated, without its '\n'. */
	void (*line)(void *ctx, const char *line, size_t len);
	/* The peer will send no more; it may still read. */
	void (*eof)(void *ctx);
	/*
	 * The connection is over.  Called once, from the main loop and never out of a call of ours;
	 * the callee frees the connection.  @why: static text.
	 */
	void (*closed)(void *ctx, const char *why);
};

/* @fd: connected stream socket, owned from here on; made non-blocking. */
struct lineconn *lineconn_new(int fd, const struct lineconn_ops *ops, void *ctx);
/* Longer lines than LINECONN_LINE_MAX are fine: @bytes. */
void lineconn_set_line_max(struct lineconn *c, size_t bytes);
/* Sends what the socket takes at once and closes; `closed` is not called. */
void lineconn_free(struct lineconn *c);
/* Has the peer ever sent a byte? */
bool lineconn_heard(const struct lineconn *c);
/* Queue @len bytes.  A peer that is too far behind is closed soon after. */
void lineconn_send(struct lineconn *c, const char *text, size_t len);
/* Read no more; close when everything queued was sent. */
void lineconn_finish(struct lineconn *c);

#endif
