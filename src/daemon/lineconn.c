/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Lines in, lines out, and one way to end.  The peer may be slow, silent, endless or gone, and none
 * of it may stop the main loop or grow without bound: one read a turn, a longest line, a longest
 * queue.
 *
 * What is sent goes to the socket at once as far as it takes it; a source for writability exists
 * only while something is queued.
 */
#include "config.h"
#include "daemon/lineconn.h"
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <glib-unix.h>
#include "sys/fd.h"

/*
 * `over` is the only way out: whoever finds that the connection has ended sets it, and the idle
 * source that goes with it makes the one call of ops->closed.  So no caller of lineconn_send() can
 * find its connection freed.
 */
struct lineconn {
	int fd;
	const struct lineconn_ops *ops;
	void *ctx;
	GByteArray *in;	 /* a line that has not ended yet */
	GByteArray *out; /* not taken by the socket yet */
	guint in_source, out_source, over_source;
	const char *over; /* why it ended */
	bool finishing;
	bool heard;	  /* the peer has sent something */
	size_t line_max;
};

static gboolean tell_closed(gpointer data)
{
	struct lineconn *c = data;

	c->over_source = 0;
	c->ops->closed(c->ctx, c->over);
	return G_SOURCE_REMOVE;
}

/*
 * From here on nothing is read or written.  The sources go now, the owner is told from the main
 * loop.
 */
static void end(struct lineconn *c, const char *why)
{
	if (c->over)
		return;
	c->over = why;
	g_clear_handle_id(&c->in_source, g_source_remove);
	g_clear_handle_id(&c->out_source, g_source_remove);
	c->over_source = g_idle_add_full(G_PRIORITY_DEFAULT, tell_closed, c, NULL);
}

/* --- out ---------------------------------------------------------------------------------- */

/* Send what the socket takes; with nothing left to send a connection that is finishing ends. */
static void flush_queue(struct lineconn *c)
{
	while (!c->over && c->out->len > 0) {
		ssize_t n = send(c->fd, c->out->data, c->out->len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n > 0)
			g_byte_array_remove_range(c->out, 0, (guint)n);
		else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return;
		else if (n < 0 && errno != EINTR)
			end(c, "the peer is gone");
	}
	if (c->finishing && c->out->len == 0)
		end(c, "the peer is done");
}

static gboolean on_writable(gint fd, GIOCondition condition, gpointer data)
{
	struct lineconn *c = data;

	(void)fd;
	(void)condition;
	flush_queue(c);
	if (c->over || c->out->len > 0)
		return G_SOURCE_CONTINUE; /* end() has removed the source itself */
	c->out_source = 0;
	return G_SOURCE_REMOVE;
}

/**
 * lineconn_send - queue @len bytes, whole lines
 *
 * A peer that is too far behind is closed soon after, from the main loop: the connection outlives
 * this call.
 */
void lineconn_send(struct lineconn *c, const char *text, size_t len)
{
	if (c->over)
		return;
	if (len > LINECONN_QUEUE_MAX - c->out->len) {
		end(c, "the peer does not read");
		return;
	}
	g_byte_array_append(c->out, (const guint8 *)text, (guint)len);
	if (!c->out_source)
		flush_queue(c);
	if (!c->over && c->out->len > 0 && !c->out_source)
		c->out_source = g_unix_fd_add(c->fd, G_IO_OUT, on_writable, c);
}

/**
 * lineconn_finish - read no more; close when everything queued was sent
 */
void lineconn_finish(struct lineconn *c)
{
	c->finishing = true;
	g_clear_handle_id(&c->in_source, g_source_remove);
	flush_queue(c);
}

/* --- in ----------------------------------------------------------------------------------- */

static void give_lines(struct lineconn *c)
{
	const char *start = (const char *)c->in->data, *limit = start + c->in->len;
	const char *at = start, *nl;

	while (!c->over && !c->finishing && (nl = memchr(at, '\n', (size_t)(limit - at)))) {
		if ((size_t)(nl - at) > c->line_max) {
			end(c, "a line is too long");
			return;
		}
		c->ops->line(c->ctx, at, (size_t)(nl - at));
		at = nl + 1;
	}
	g_byte_array_remove_range(c->in, 0, (guint)(at - start));
	if (c->in->len > c->line_max)
		end(c, "a line is too long");
}

/* Only the end is of interest once the peer has said everything. */
static gboolean on_hangup(gint fd, GIOCondition condition, gpointer data)
{
	(void)fd;
	(void)condition;
	end(data, "the peer is gone");
	return G_SOURCE_CONTINUE;
}

static void reach_eof(struct lineconn *c)
{
	g_clear_handle_id(&c->in_source, g_source_remove);
	c->in_source = g_unix_fd_add(c->fd, G_IO_HUP | G_IO_ERR, on_hangup, c);
	c->ops->eof(c->ctx);
}

/* One read a turn: a peer that talks without pause shares the loop with the others. */
static gboolean on_readable(gint fd, GIOCondition condition, gpointer data)
{
	struct lineconn *c = data;
	char buf[16384];
	ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);

	(void)condition;
	if (n > 0) {
		c->heard = true;
		g_byte_array_append(c->in, (const guint8 *)buf, (guint)n);
		give_lines(c);
	} else if (n == 0) {
		reach_eof(c);
	} else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
		end(c, "the peer is gone");
	}
	return G_SOURCE_CONTINUE;
}

/* --- life --------------------------------------------------------------------------------- */

/**
 * lineconn_new - talk in lines on a socket
 * @fd: a connected stream socket, owned from here on; made non-blocking
 * @ops, @ctx: must outlive it
 */
struct lineconn *lineconn_new(int fd, const struct lineconn_ops *ops, void *ctx)
{
	struct lineconn *c = g_new0(struct lineconn, 1);

	c->fd = fd;
	c->ops = ops;
	c->ctx = ctx;
	c->line_max = LINECONN_LINE_MAX;
	c->in = g_byte_array_new();
	c->out = g_byte_array_new();
	(void)g_unix_set_fd_nonblocking(fd, TRUE, NULL); /* every call says MSG_DONTWAIT as well */
	c->in_source = g_unix_fd_add(fd, G_IO_IN | G_IO_HUP | G_IO_ERR, on_readable, c);
	return c;
}

/**
 * lineconn_set_line_max - let the peer's lines be of another length at most
 */
void lineconn_set_line_max(struct lineconn *c, size_t bytes)
{
	c->line_max = bytes;
}

/**
 * lineconn_heard - has the peer ever sent a byte?
 */
bool lineconn_heard(const struct lineconn *c)
{
	return c->heard;
}

/**
 * lineconn_free - send what the socket takes at once, and close; ops->closed is not called
 *
 * NULL is fine.
 */
void lineconn_free(struct lineconn *c)
{
	if (!c)
		return;
	flush_queue(c);
	g_clear_handle_id(&c->in_source, g_source_remove);
	g_clear_handle_id(&c->out_source, g_source_remove);
	g_clear_handle_id(&c->over_source, g_source_remove);
	g_byte_array_unref(c->in);
	g_byte_array_unref(c->out);
	close_fd(&c->fd);
	g_free(c);
}
