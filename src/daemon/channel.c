/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An acceptor that lets connections speak for themselves.
 *
 * The main channel begins with the magic.  The urgent one begins with a page, maybe minutes later:
 * a source from 8.0 on dials it at the switch-over, 7.2 at once, before or after the main one, and
 * neither says anything on it until a page is asked for.  So a connection that says nothing is a
 * candidate, and stays one until the first bytes of some candidate are those of an urgent channel,
 * about a page that there is.  Bytes are only peeked at: they belong to the decoder.  The fault
 * thread learns at once that an urgent lane is to be expected, and gets the connection when it has
 * spoken.
 *
 * A candidate comes from where the main channel does: the same address, on a UNIX socket the same
 * user.  There are a few dozen at a time.  While no main channel is known the one that is silent
 * for longest makes room, and none is silent for long; afterwards the first stays (7.2's, which may
 * never speak) and the second of them makes room, so that one more can always come.  More strangers
 * than that, from where the source is and behind its urgent channel, cost the source that channel.
 *
 * When the session is paused the first connection that begins as a resumed source's does becomes
 * its main channel, from wherever it comes: `migrate' may be given another way.  The next may
 * become it when the fault thread has said, by its count, that it is done with that one.  A source
 * can be paused before we are, where a dead connection does not show: one that begins so, from
 * where the main channel came, has the session paused first.
 *
 * Nobody here is authenticated: whoever speaks as a source does from where the source is, is
 * believed.  Where the network is not trusted, the address to listen on is what keeps strangers
 * out.  Once main and urgent are there every further connection is refused with its reason.
 */
#include "config.h"
#include "daemon/channel.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <glib-unix.h>

#include "sys/fd.h"
#include "sys/sock.h"
#include "wire/qstream.h"

#define ACCEPT_PAUSE_US 10000
#define CANDIDATES    32
#define SILENT_MS     30000	/* a connection may say nothing while no main channel is known */
#define LOOK_MS	      20	/* between looks at a connection that has sent part of what tells */
#define LOOKS_MAX     100
#define LISTENERS     2

/* Where a connection comes from. */
struct origin {
	sa_family_t family;
	uint8_t address[16];		/* IPv4 as IPv6 writes it */
	uid_t uid;			/* UNIX */
};

/* A connection whose kind is not known yet. */
struct candidate {
	struct channel *channel;
	int fd;
	guint watch, age;
	unsigned looks;
	struct origin origin;
	char peer[128];
};

struct channel {
	int listen_fd[LISTENERS];	/* where the source came, and is told to come; -1 */
	guint watch[LISTENERS];
	struct faultloop *loop;
	struct channel_ops ops;
	void (*main_seen)(void *ctx, int fd);	/* NULL: nobody looks */
	void *main_ctx;
	bool has_main, expecting, has_urgent;
	bool waits;			/* for a resumed source */
	bool shut;			/* but none is let in */
	uint64_t resumed;		/* main channels of resumed sources so far */
	struct origin origin;		/* of the main channel */
	unsigned n;
	struct candidate *candidate[CANDIDATES];	/* in order of arrival */
};

/* Forget a connection; its descriptor is closed unless assign() took it. */
static void drop(struct candidate *u)
{
	struct channel *c = u->channel;
	unsigned i = 0;

	while (i < c->n && c->candidate[i] != u)
		i++;
	if (i < c->n)
		memmove(&c->candidate[i], &c->candidate[i + 1],
			(--c->n - i) * sizeof(c->candidate[0]));
	g_clear_handle_id(&u->watch, g_source_remove);
	g_clear_handle_id(&u->age, g_source_remove);
	close_fd(&u->fd);
	g_free(u);
}

static void refuse(struct candidate *u, const char *why)
{
	char text[256];

	snprintf(text, sizeof(text), "connection from %s refused: %s", u->peer, why);
	u->channel->ops.refused(u->channel->ops.ctx, text);
	drop(u);
}

static void post_lane(struct channel *c, bool urgent, int fd, const char *peer)
{
	struct message m = { .kind = MESSAGE_LANE };

	m.lane.urgent = urgent;
	m.lane.recovery = c->resumed > 0;
	m.lane.fd = fd;
	g_strlcpy(m.lane.peer, peer, sizeof(m.lane.peer));
	faultloop_post(c->loop, &m);
}

/* From another place than the main channel, or too late: NULL when it may be the urgent one. */
static const char *unfit(const struct channel *c, const struct candidate *u)
{
	if (c->has_urgent)
		return "a migration is running already";
	if (memcmp(&u->origin, &c->origin, sizeof(u->origin)) != 0)
		return c->origin.family == AF_UNIX ?
			       "it is another user's than the main channel, and a migration is running already" :
			       "it comes from another address than the main channel, and a migration is running already";
	return NULL;
}

/*
 * With the main channel known: who cannot be the urgent one goes; if anybody is left, one is to be
 * expected.
 */
static void settle(struct channel *c)
{
	for (unsigned i = c->has_main ? c->n : 0; i-- > 0;) {
		const char *why = unfit(c, c->candidate[i]);

		if (why) {
			refuse(c->candidate[i], why);
			continue;
		}
		g_clear_handle_id(&c->candidate[i]->age, g_source_remove);
	}
	if (c->has_main && c->n > 0 && !c->expecting) {
		c->expecting = true;
		post_lane(c, true, -1, "");
	}
}

/* It is decided: the connection goes to the fault thread. */
static void assign(struct candidate *u, bool urgent)
{
	struct channel *c = u->channel;

	if (!urgent && c->main_seen)
		c->main_seen(c->main_ctx, u->fd);
	if (urgent) {
		c->has_urgent = true;
	} else {
		c->has_main = true;
		c->origin = u->origin;
		c->resumed += c->waits;
		c->waits = false;
	}
	if (c->ops.assigned)
		c->ops.assigned(c->ops.ctx, urgent, u->fd);
	post_lane(c, urgent, steal_fd(&u->fd), u->peer);
	drop(u);
	settle(c);
}

/* Is there such a page?  Nobody is asked for one before the blocks are known. */
static bool has_page(const struct channel *c, const struct qstream_opening_page *page)
{
	const struct snapshot *s = c->ops.snapshot(c->ops.ctx);

	for (unsigned i = 0; s && i < s->n_blocks; i++)
		if (strcmp(s->block[i].name, page->name) == 0)
			return page->offset < s->block[i].length;
	return false;
}

/* The same of the main channel of a resumed source. */
static const char *problem_of_resumed(const struct channel *c)
{
	if (c->waits)
		return c->shut ? "the time to wait for the source is over (--recover-timeout): "
				 "postcopyctl recover" :
				 NULL;
	return c->has_main ? "the session is not paused" : "there is nothing to recover";
}

/* Why a connection that begins like this is refused; NULL: it is what it says. */
static const char *problem_of(const struct channel *c, enum qstream_opening what,
			      const struct qstream_opening_page *page)
{
	if (what == QSTREAM_OPENS_MULTIFD)
		return "it is a multifd channel: turn the source's multifd capability off";
	if (what == QSTREAM_OPENS_RECOVERY)
		return problem_of_resumed(c);
	if (c->waits)
		return "a paused session waits for its source to be resumed (migrate with resume)";
	if (what == QSTREAM_OPENS_MAIN)
		return c->has_main ? "a migration is running already" : NULL;
	if (!c->has_main)
		return "it does not begin as a QEMU migration";
	if (what != QSTREAM_OPENS_URGENT || (page->name[0] && !has_page(c, page)))
		return "it does not begin as the urgent channel of the migration that is running already";
	return NULL;
}

/*
 * Faults are served, and nobody else is left who could be the urgent channel: then what is wrong
 * with it is for the decoder to say, which does not let the session wait for a lane that will never
 * be there.
 */
static bool is_last_hope(const struct channel *c, enum qstream_opening what)
{
	const struct snapshot *s = c->ops.snapshot(c->ops.ctx);

	return c->has_main && c->n == 1 && s && s->state >= SESSION_LOADING && !s->paused_ns &&
	       what != QSTREAM_OPENS_MAIN && what != QSTREAM_OPENS_MULTIFD &&
	       what != QSTREAM_OPENS_RECOVERY;
}

/*
 * Its connection has not ended for us, or not long ago: it will be let in when the session is
 * paused.
 */
static bool came_too_early(const struct channel *c, const struct candidate *u,
			   enum qstream_opening what)
{
	if (what != QSTREAM_OPENS_RECOVERY || !c->has_main || u->looks >= LOOKS_MAX ||
	    memcmp(&u->origin, &c->origin, sizeof(u->origin)) != 0)
		return false;
	if (u->looks == 0)
		c->ops.returned(c->ops.ctx);
	return true;
}

static gboolean on_bytes(gint fd, GIOCondition condition, gpointer data);

/*
 * Bytes that do not tell yet stay readable whether more come or not, so polling for them would
 * spin.
 */
static gboolean look_again(gpointer data)
{
	struct candidate *u = data;

	u->watch = g_unix_fd_add(u->fd, G_IO_IN | G_IO_HUP, on_bytes, u);
	return G_SOURCE_REMOVE;
}

static gboolean on_bytes(gint fd, GIOCondition condition, gpointer data)
{
	struct candidate *u = data;
	struct channel *c = u->channel;
	struct qstream_opening_page page = { .name = "" };
	uint8_t first[QSTREAM_OPENING_MAX];
	ssize_t n = recv(fd, first, sizeof(first), MSG_PEEK | MSG_DONTWAIT);
	enum qstream_opening what = qstream_opening(first, n > 0 ? (size_t)n : 0, &page);
	const char *problem;

	(void)condition;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return G_SOURCE_CONTINUE;
	if (n > 0 && ((what == QSTREAM_OPENS_MORE && u->looks < LOOKS_MAX) ||
		      came_too_early(c, u, what))) {
		u->looks++;
		u->watch = g_timeout_add(LOOK_MS, look_again, u);
		return G_SOURCE_REMOVE;
	}
	u->watch = 0;
	problem = n <= 0 ? "it was closed before it said anything" : problem_of(c, what, &page);
	if (!problem || (n > 0 && is_last_hope(c, what)))
		assign(u, what != QSTREAM_OPENS_MAIN && what != QSTREAM_OPENS_RECOVERY);
	else
		refuse(u, problem);
	return G_SOURCE_REMOVE;
}

static gboolean on_silent(gpointer data)
{
	struct candidate *u = data;

	u->age = 0;
	refuse(u, "it said nothing");
	return G_SOURCE_REMOVE;
}

static struct origin origin_of(int fd)
{
	struct sockaddr_storage addr = { 0 };
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&addr;
	const struct sockaddr_in *in = (const struct sockaddr_in *)&addr;
	socklen_t len = sizeof(addr);
	struct ucred cred = { .uid = (uid_t)-1 };
	struct origin o;

	/* compared as bytes */
	memset(&o, 0, sizeof(o));
	if (getpeername(fd, (struct sockaddr *)&addr, &len) < 0)
		return o;
	o.family = addr.ss_family == AF_INET ? AF_INET6 : addr.ss_family;
	if (addr.ss_family == AF_INET6) {
		memcpy(o.address, &in6->sin6_addr, 16);
	} else if (addr.ss_family == AF_INET) {
		o.address[10] = o.address[11] = 0xff;
		memcpy(o.address + 12, &in->sin_addr, 4);
	} else if (addr.ss_family == AF_UNIX) {
		len = sizeof(cred);
		(void)getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len);
		o.uid = cred.uid;
	}
	return o;
}

/**
 * channel_on_main - who looks at main connections, from here on
 */
void channel_on_main(struct channel *c, void (*seen)(void *ctx, int fd), void *ctx)
{
	c->main_seen = seen;
	c->main_ctx = ctx;
}

/* One more is there than may be kept. */
static void make_room(struct channel *c)
{
	if (c->n == CANDIDATES)
		refuse(c->candidate[c->has_main ? 1 : 0], "too many connections that say nothing");
}

static gboolean on_connection(gint listen_fd, GIOCondition condition, gpointer data)
{
	struct channel *c = data;
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
	struct candidate *u;

	(void)condition;
	/*
	 * Out of descriptors: the connection stays in the backlog, and must not be looked at all
	 * the time.
	 */
	if (fd < 0 && (errno == EMFILE || errno == ENFILE))
		g_usleep(ACCEPT_PAUSE_US);
	if (fd < 0)
		return G_SOURCE_CONTINUE;
	sock_tune(fd);
	(void)sock_bound_backlog(fd);
	u = g_new0(struct candidate, 1);
	u->channel = c;
	u->fd = fd;
	u->origin = origin_of(fd);
	sock_peer(fd, u->peer, sizeof(u->peer));
	if (c->has_main && unfit(c, u)) {
		refuse(u, unfit(c, u));
		return G_SOURCE_CONTINUE;
	}
	make_room(c);
	c->candidate[c->n++] = u;
	u->watch = g_unix_fd_add(fd, G_IO_IN | G_IO_HUP, on_bytes, u);
	if (!c->has_main)
		u->age = g_timeout_add(c->ops.silent_ms, on_silent, u);
	settle(c);
	return G_SOURCE_CONTINUE;
}

/**
 * channel_new - accept a source's connections
 * @listen_fd: a listening stream socket, owned from here on
 * @loop: gets a MESSAGE_LANE for each that is accepted, and one without a descriptor when an urgent
 * one is to be expected
 * @ops: copied
 */
struct channel *channel_new(int listen_fd, struct faultloop *loop, const struct channel_ops *ops)
{
	struct channel *c = g_new0(struct channel, 1);

	c->listen_fd[0] = listen_fd;
	c->listen_fd[1] = -1;
	c->loop = loop;
	c->ops = *ops;
	if (c->ops.silent_ms == 0)
		c->ops.silent_ms = SILENT_MS;
	c->watch[0] = g_unix_fd_add(listen_fd, G_IO_IN, on_connection, c);
	return c;
}

/* Nobody has the session now: who said nothing so far may say that he is the source. */
static void wait_for_resumed(struct channel *c)
{
	c->has_main = c->expecting = c->has_urgent = false;
	c->waits = true;
	c->shut = false;
	for (unsigned i = 0; i < c->n; i++)
		if (!c->candidate[i]->age)
			c->candidate[i]->age =
				g_timeout_add(c->ops.silent_ms, on_silent, c->candidate[i]);
}

/**
 * channel_see - what became of the session
 *
 * A snapshot that does not know yet of the resumed source that was let in last tells nothing.
 */
void channel_see(struct channel *c, const struct snapshot *s)
{
	if (s->state == SESSION_PAUSED && !s->held && s->resumed == c->resumed && !c->waits)
		wait_for_resumed(c);
	else if (s->held)
		c->waits = false;
}

/**
 * channel_add - accept on another listening socket, too
 * @listen_fd: owned from here on; the one that was added before is closed
 */
void channel_add(struct channel *c, int listen_fd)
{
	g_clear_handle_id(&c->watch[1], g_source_remove);
	close_fd(&c->listen_fd[1]);
	c->listen_fd[1] = listen_fd;
	c->watch[1] = g_unix_fd_add(listen_fd, G_IO_IN, on_connection, c);
}

/**
 * channel_open - is a resumed source let in?  Each pause begins with yes
 */
void channel_open(struct channel *c, bool open)
{
	c->shut = !open;
}

/**
 * channel_over - the session needs no urgent channel any more: whoever has not spoken goes
 */
void channel_over(struct channel *c)
{
	while (c->n)
		drop(c->candidate[0]);
}

/**
 * channel_free - stop accepting and drop who is undecided; NULL is fine
 */
void channel_free(struct channel *c)
{
	if (!c)
		return;
	channel_over(c);
	for (unsigned i = 0; i < LISTENERS; i++) {
		g_clear_handle_id(&c->watch[i], g_source_remove);
		close_fd(&c->listen_fd[i]);
	}
	g_free(c);
}
