/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who connects is a guest in the hall until its greeting names our session; then it is let in, and
 * its bytes go to the spool.  Guests are few, each costs a greeting's bytes, and none stays for
 * long: the one that has been silent for longest makes room for the next.  So strangers can neither
 * take memory nor keep the source out.
 *
 * One is inside at a time.  Another one that knows the session takes its place, and what was not
 * whole of the first is dropped: a source that comes again has lost its connection, whatever ours
 * looks like.  What it sends is the next attempt.
 *
 * When a sender has ended its direction, and every device it began is whole, we send its greeting
 * back.  Without that answer its devices are not here, and it can still go on with them; that a
 * connection was closed says nothing.
 *
 * The session is no secret that protects anything on its way, but who does not know it gets
 * nothing into the spool.
 */
#include "config.h"

#include "daemon/devchannel.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <glib-unix.h>

#include "sys/fd.h"
#include "sys/sock.h"

#define GUESTS	   16
#define SILENT_MS  30000    /* for the greeting */
#define BUFFER	   65536
#define AT_ONCE	   16	    /* buffers, before the main loop may look at something else */
#define PAUSE_US   10000    /* when there are no descriptors */

/* A connection: a guest, or the one inside. */
struct link {
	struct devchannel *channel;
	int fd;
	guint watch, age;
	uint8_t greeting[DEVSTATE_GREETING];
	size_t greeted; /* bytes of it that came */
	char peer[128];
};

struct devchannel {
	int listen_fd;
	guint watch;
	struct devspool *spool;
	uint8_t session[DEVSTATE_SESSION];
	char *shown, *uuid;
	GPtrArray *guests; /* struct link, in order of arrival */
	struct link *inside; /* NULL: nobody */
	struct devspool_stream *stream; /* of who is inside */
	uint8_t *buffer; /* of BUFFER bytes, @filled of them not taken yet */
	size_t filled;
	uint64_t bytes; /* of streams that are over */
	uint64_t connections, refused;
	char problem[256]; /* of the last one that was refused or broke */
};

static void link_free(struct link *l)
{
	g_clear_handle_id(&l->watch, g_source_remove);
	g_clear_handle_id(&l->age, g_source_remove);
	close_fd(&l->fd);
	g_free(l);
}

static void complain(struct devchannel *c, const struct link *l, const char *why)
{
	snprintf(c->problem, sizeof(c->problem), "%s: %s", l->peer, why);
	g_warning("device channel: %s", c->problem);
}

/* --- guests ----------------------------------------------------------------------------------- */

static void turn_away(struct link *l, const char *why)
{
	struct devchannel *c = l->channel;

	c->refused++;
	complain(c, l, why);
	g_ptr_array_remove(c->guests, l);
	link_free(l);
}

static gboolean on_silent(gpointer data)
{
	struct link *l = data;

	l->age = 0;
	turn_away(l, "it did not say whose devices it has");
	return G_SOURCE_REMOVE;
}

/* --- who is inside ---------------------------------------------------------------------------- */

/* The stream goes first: what it did not end is dropped with it. */
static void show_out(struct devchannel *c)
{
	if (c->stream)
		c->bytes += devspool_stream_bytes(c->stream);
	devspool_stream_free(c->stream);
	c->stream = NULL;
	c->filled = 0;
	if (c->inside)
		link_free(c->inside);
	c->inside = NULL;
}

static void throw_out(struct devchannel *c, const char *why)
{
	complain(c, c->inside, why);
	show_out(c);
}

/* Its last byte came.  All of it is there, and it is told so; or nothing is said. */
static void end(struct devchannel *c)
{
	struct link *l = c->inside;

	if (c->filled) {
		throw_out(c, "it ended inside a record");
	} else if (devspool_stream_end(c->stream) < 0) {
		throw_out(c, devspool_stream_reason(c->stream));
	} else {
		g_message("device channel: all that %s sent is here", l->peer);
		if (sock_send(l->fd, l->greeting, sizeof(l->greeting)) != sizeof(l->greeting))
			complain(c, l, "it could not be told that all is here");
		show_out(c);
	}
}

/* False: nobody is inside any more. */
static bool take(struct devchannel *c)
{
	ssize_t n = devspool_stream_feed(c->stream, c->buffer, c->filled);

	if (n < 0) {
		throw_out(c, devspool_stream_reason(c->stream));
		return false;
	}
	c->filled -= (size_t)n;
	memmove(c->buffer, c->buffer + n, c->filled);
	return true;
}

static gboolean on_bytes(gint fd, GIOCondition condition, gpointer data)
{
	struct devchannel *c = data;

	(void)condition;
	for (unsigned i = 0; i < AT_ONCE; i++) {
		ssize_t n = recv(fd, c->buffer + c->filled, BUFFER - c->filled, MSG_DONTWAIT);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		if (n < 0)
			throw_out(c, g_strerror(errno));
		else if (n == 0)
			end(c);
		if (n <= 0)
			return G_SOURCE_REMOVE;
		c->filled += (size_t)n;
		if (!take(c))
			return G_SOURCE_REMOVE;
	}
	return G_SOURCE_CONTINUE;
}

static void let_in(struct link *l)
{
	struct devchannel *c = l->channel;

	if (c->inside)
		throw_out(c, "another connection of the same session takes its place");
	g_ptr_array_remove(c->guests, l);
	g_clear_handle_id(&l->age, g_source_remove);
	c->inside = l;
	c->connections++;
	c->stream = devspool_stream_new(c->spool, c->session);
	l->watch = g_unix_fd_add(l->fd, G_IO_IN | G_IO_HUP, on_bytes, c);
	g_message("device channel: %s sends the state of devices", l->peer);
}

/* --- the hall --------------------------------------------------------------------------------- */

/* NULL: all of a greeting is there, and it is ours; "": not all of it. */
static const char *greeting_fault(const struct link *l)
{
	uint8_t session[DEVSTATE_SESSION];
	const char *why = "";
	int n = devstate_greeting(l->greeting, l->greeted, session, &why);

	if (n <= 0)
		return why;
	if (memcmp(session, l->channel->session, sizeof(session)) != 0)
		return "it has the devices of another session";
	return NULL;
}

static gboolean on_greeting(gint fd, GIOCondition condition, gpointer data)
{
	struct link *l = data;
	ssize_t n = recv(fd, l->greeting + l->greeted, sizeof(l->greeting) - l->greeted,
			 MSG_DONTWAIT);
	const char *why;

	(void)condition;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return G_SOURCE_CONTINUE;
	l->greeted += n > 0 ? (size_t)n : 0;
	why = n > 0 ? greeting_fault(l) : "it was closed before its greeting";
	if (why && !*why)
		return G_SOURCE_CONTINUE;
	l->watch = 0;
	if (why)
		turn_away(l, why);
	else
		let_in(l);
	return G_SOURCE_REMOVE;
}

static gboolean on_connection(gint listen_fd, GIOCondition condition, gpointer data)
{
	struct devchannel *c = data;
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
	struct link *l;

	(void)condition;
	if (fd < 0 && (errno == EMFILE || errno == ENFILE))
		g_usleep(PAUSE_US); /* it stays in the backlog, to be looked at all the time */
	if (fd < 0)
		return G_SOURCE_CONTINUE;
	if (c->guests->len == GUESTS)
		turn_away(c->guests->pdata[0], "too many connections that say nothing");
	sock_tune(fd);
	l = g_new0(struct link, 1);
	l->channel = c;
	l->fd = fd;
	sock_peer(fd, l->peer, sizeof(l->peer));
	l->watch = g_unix_fd_add(fd, G_IO_IN | G_IO_HUP, on_greeting, l);
	l->age = g_timeout_add(SILENT_MS, on_silent, l);
	g_ptr_array_add(c->guests, l);
	return G_SOURCE_CONTINUE;
}

/* --- from outside ----------------------------------------------------------------------------- */

/**
 * devchannel_new - begin to listen
 *
 * Nothing can come before the main loop runs.
 */
struct devchannel *devchannel_new(const struct devchannel_config *config, struct devspool *spool)
{
	struct devchannel *c = g_new0(struct devchannel, 1);

	c->listen_fd = config->listen_fd;
	c->spool = spool;
	c->shown = g_strdup(config->shown);
	c->uuid = config->session ? g_ascii_strdown(config->session, -1) :
				    g_uuid_string_random();
	(void)devstate_session(c->uuid, c->session); /* the options have seen that it is one */
	c->guests = g_ptr_array_new();
	c->buffer = g_malloc(BUFFER);
	c->watch = g_unix_fd_add(c->listen_fd, G_IO_IN, on_connection, c);
	g_message("listening for the state of devices on %s, session %s", c->shown, c->uuid);
	return c;
}

/**
 * devchannel_free - end it
 */
void devchannel_free(struct devchannel *c)
{
	if (!c)
		return;
	g_source_remove(c->watch);
	show_out(c);
	for (guint i = 0; i < c->guests->len; i++)
		link_free(c->guests->pdata[i]);
	g_ptr_array_free(c->guests, TRUE);
	close_fd(&c->listen_fd);
	g_free(c->buffer);
	g_free(c->shown);
	g_free(c->uuid);
	g_free(c);
}

/**
 * devchannel_fill - how far it is, for reports
 */
void devchannel_fill(const struct devchannel *c, struct snapshot_device_channel *out)
{
	memset(out, 0, sizeof(*out));
	if (!c)
		return;
	g_strlcpy(out->address, c->shown, sizeof(out->address));
	g_strlcpy(out->session, c->uuid, sizeof(out->session));
	g_strlcpy(out->problem, c->problem, sizeof(out->problem));
	out->bytes = c->bytes;
	out->connections = c->connections;
	out->refused = c->refused;
	if (!c->inside)
		return;
	g_strlcpy(out->peer, c->inside->peer, sizeof(out->peer));
	out->bytes += devspool_stream_bytes(c->stream);
}
