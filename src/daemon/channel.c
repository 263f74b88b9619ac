/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An acceptor that may have to wait for the second connection to know the first.
 *
 * The main channel begins with the magic.  The urgent one begins with a page, maybe seconds later:
 * a source from 8.0 on dials it at the switch-over, 7.2 at once, when neither has said anything.
 * So whoever has not spoken yet is kept, up to a handful, and bytes are only peeked at: they belong
 * to the decoder.
 *
 * Nobody here is authenticated.  Where the network is not trusted, the address to listen on is what
 * keeps strangers out.  Once main and urgent are there every further connection is refused with its
 * reason.
 */
#include "config.h"
#include "daemon/channel.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <glib-unix.h>

#include "sys/fd.h"
#include "sys/sock.h"

#define ACCEPT_PAUSE_US 10000
#define UNDECIDED_MAX 4
#define LOOK_MS	      20	/* between looks at a connection that has sent part of the magic */
#define LOOKS_MAX     100

/* A connection whose kind is not known yet. */
struct undecided {
	struct channel *channel;
	int fd;
	guint watch;
	unsigned looks;
	char peer[128];
};

struct channel {
	int listen_fd;
	guint watch;
	struct faultloop *loop;
	struct channel_ops ops;
	bool has_main, has_urgent;
	unsigned n;
	struct undecided *waiting[UNDECIDED_MAX];
};

/* Forget a connection; its descriptor is closed unless assign() took it. */
static void drop(struct undecided *u)
{
	struct channel *c = u->channel;

	for (unsigned i = 0; i < c->n; i++)
		if (c->waiting[i] == u)
			c->waiting[i] = c->waiting[--c->n];
	if (u->watch)
		g_source_remove(u->watch);
	close_fd(&u->fd);
	g_free(u);
}

static void refuse(struct undecided *u, const char *why)
{
	char text[256];

	snprintf(text, sizeof(text), "connection from %s refused: %s", u->peer, why);
	u->channel->ops.refused(u->channel->ops.ctx, text);
	drop(u);
}

/* It is decided: the connection goes to the fault thread. */
static void assign(struct undecided *u, bool urgent)
{
	struct message m = { .kind = MESSAGE_LANE };

	m.lane.urgent = urgent;
	m.lane.fd = steal_fd(&u->fd);
	memcpy(m.lane.peer, u->peer, sizeof(m.lane.peer));
	if (urgent)
		u->channel->has_urgent = true;
	else
		u->channel->has_main = true;
	faultloop_post(u->channel->loop, &m);
	drop(u);
}

/* With the main channel known, a silent connection is the urgent one. */
static void settle(struct channel *c)
{
	while (c->has_main && c->n > 0) {
		if (c->has_urgent)
			refuse(c->waiting[0], "a migration is running already");
		else
			assign(c->waiting[0], true);
	}
}

/* What the first bytes say: NULL and is it the main channel, or why it is refused. */
static const char *judge(const uint8_t *first, ssize_t n, bool *is_main)
{
	static const uint8_t magic[4] = { 'Q', 'E', 'V', 'M' };
	static const uint8_t multifd[4] = { 0x11, 0x22, 0x33, 0x44 };

	*is_main = n == 4 && memcmp(first, magic, 4) == 0;
	if (*is_main)
		return NULL;
	if (n == 4 && memcmp(first, multifd, 4) == 0)
		return "it is a multifd channel: turn the source's multifd capability off";
	return "it does not begin as a QEMU migration";
}

static gboolean on_bytes(gint fd, GIOCondition condition, gpointer data);

/* Less than four bytes stay readable whether the rest comes or not, so polling for it would spin. */
static gboolean look_again(gpointer data)
{
	struct undecided *u = data;

	u->watch = g_unix_fd_add(u->fd, G_IO_IN | G_IO_HUP, on_bytes, u);
	return G_SOURCE_REMOVE;
}

static gboolean on_bytes(gint fd, GIOCondition condition, gpointer data)
{
	struct undecided *u = data;
	struct channel *c = u->channel;
	uint8_t first[4];
	ssize_t n = recv(fd, first, sizeof(first), MSG_PEEK | MSG_DONTWAIT);
	const char *problem;
	bool is_main;

	(void)condition;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return G_SOURCE_CONTINUE;
	if (n > 0 && n < 4 && u->looks++ < LOOKS_MAX) {
		u->watch = g_timeout_add(LOOK_MS, look_again, u);
		return G_SOURCE_REMOVE;
	}
	u->watch = 0;
	problem = n <= 0 ? "it was closed before it said anything" : judge(first, n, &is_main);
	if (problem) {
		refuse(u, problem);
		return G_SOURCE_REMOVE;
	}
	assign(u, false);
	settle(c);
	return G_SOURCE_REMOVE;
}

static void describe_peer(int fd, char *out, size_t len)
{
	struct sockaddr_storage addr;
	socklen_t addr_len = sizeof(addr);
	char host[96], port[16];

	if (getpeername(fd, (struct sockaddr *)&addr, &addr_len) == 0 && addr.ss_family != AF_UNIX &&
	    getnameinfo((struct sockaddr *)&addr, addr_len, host, sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV) == 0)
		snprintf(out, len, "%s port %s", host, port);
	else
		snprintf(out, len, "a local process");
}

static gboolean on_connection(gint listen_fd, GIOCondition condition, gpointer data)
{
	struct channel *c = data;
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
	struct undecided *u;

	(void)condition;
	/* Out of descriptors: the connection stays in the backlog, and must not be looked at all the time. */
	if (fd < 0 && (errno == EMFILE || errno == ENFILE))
		g_usleep(ACCEPT_PAUSE_US);
	if (fd < 0)
		return G_SOURCE_CONTINUE;
	sock_tune(fd);
	u = g_new0(struct undecided, 1);
	u->channel = c;
	u->fd = fd;
	describe_peer(fd, u->peer, sizeof(u->peer));
	if (c->n == UNDECIDED_MAX) {
		refuse(u, "too many connections that say nothing");
		return G_SOURCE_CONTINUE;
	}
	c->waiting[c->n++] = u;
	if (!c->has_main)
		u->watch = g_unix_fd_add(fd, G_IO_IN | G_IO_HUP, on_bytes, u);
	settle(c);
	return G_SOURCE_CONTINUE;
}

/**
 * channel_new - accept a source's connections
 * @listen_fd: a listening stream socket, owned from here on
 * @loop: gets a MESSAGE_LANE for each that is accepted
 * @ops: copied
 */
struct channel *channel_new(int listen_fd, struct faultloop *loop, const struct channel_ops *ops)
{
	struct channel *c = g_new0(struct channel, 1);

	c->listen_fd = listen_fd;
	c->loop = loop;
	c->ops = *ops;
	c->watch = g_unix_fd_add(listen_fd, G_IO_IN, on_connection, c);
	return c;
}

/**
 * channel_free - stop accepting and drop who is undecided; NULL is fine
 */
void channel_free(struct channel *c)
{
	if (!c)
		return;
	g_source_remove(c->watch);
	while (c->n)
		drop(c->waiting[0]);
	close_fd(&c->listen_fd);
	g_free(c);
}
