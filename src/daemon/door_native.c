/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Connections of sharers, and how each of them ends.
 *
 * A sharer has three lines to us, and they tell different things when they break: its socket (it
 * has nothing more to say), its process (the pidfd: its threads are gone), its userfaultfd (never
 * asked: an open one tells nothing).  A socket that closes without LEAVE may be a death whose pidfd
 * has not been polled yet, so it lingers for a moment; a living process that just hung up keeps its
 * userfaultfd open, because closing it would turn missing pages into zeroes (O11).
 *
 * Peers are not trusted.  Who they are is SO_PEERCRED's to say.  What they say, door_request.c
 * hears.
 */
#include "config.h"
#include "daemon/door_parts.h"

#include <errno.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <glib-unix.h>

#include "core/guard.h"
#include "daemon/faultloop.h"
#include "daemon/inject.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "sys/fdpass.h"

#define ACCEPT_PAUSE_US 10000
/* between a closed socket and the verdict, so that a death is told from a departure */
#define LINGER_MS 100
#define SILENT_MAX 32		/* connections that have not said HELLO */

/* --- answers ---------------------------------------------------------------------------------- */

/* A registration that takes long, or is the last thing we do. */
static void say_late(const struct peer *p)
{
	struct faultplan_event e = { .page = FAULTPLAN_NO_PAGE, .sharer = p->client->name };
	struct faultplan_order order;

	if (p->door->loop)
		(void)inject_at(p->door->loop->options.faults, FAULTPLAN_AT_REGISTER, &e, &order);
}

/**
 * door_send - one packet to a sharer, never waiting
 * @fd: goes along, stays ours; -1: none
 *
 * A full socket belongs to somebody who does not read: it ends as if it had hung up.  What is
 * answered here is known to a successor.
 */
void door_send(struct peer *p, const union regmsg *m, size_t len, int fd)
{
	ssize_t n;

	if (p->sock < 0)
		return;
	door_put(p->door, p->client);
	say_late(p);
	n = fdpass_send(p->sock, m, len, &fd, fd >= 0 ? 1 : 0);
	if (n >= 0 || n == -EPIPE || n == -ECONNRESET)
		return;
	g_warning("sharer %s: cannot send %s: %s", p->client->name, regmsg_type_name(m->head.type),
		  strerror((int)-n));
	shutdown(p->sock, SHUT_RDWR);
}

/**
 * door_send_text - a packet of a type that carries an error (positive errno) and its text
 */
void door_send_text(struct peer *p, enum regmsg_type type, uint32_t serial, int error,
		    const char *text)
{
	union regmsg m;
	size_t len = regmsg_text(&m, type, serial, error, "%s", text);

	door_send(p, &m, len, -1);
}

/**
 * door_result - the answer to a request; @error: 0, or an errno of either sign
 */
void door_result(struct peer *p, uint32_t serial, int error, const char *text)
{
	door_send_text(p, REGMSG_RESULT, serial, error < 0 ? -error : error, text);
}

/**
 * door_peer_of - the connection of a client
 */
struct peer *door_peer_of(const struct door *d, const struct client *c)
{
	for (unsigned i = 0; i < d->peers->len; i++) {
		struct peer *p = g_ptr_array_index(d->peers, i);

		if (p->client == c)
			return p;
	}
	return NULL;
}

/**
 * door_wait - a proof is under way: nothing more is read of its socket
 *
 * Only its process's death is still seen.
 */
void door_wait(struct door *d, struct client *c)
{
	struct peer *p = door_peer_of(d, c);

	g_clear_handle_id(&p->watch, g_source_remove);
}

static gboolean on_readable(gint fd, GIOCondition condition, gpointer data);
static gboolean on_death(gint fd, GIOCondition condition, gpointer data);
static gboolean on_linger(gpointer data);

/**
 * door_watch - hear what comes on its socket, and of the death of its process
 */
void door_watch(struct peer *p)
{
	if (!p->watch && p->sock >= 0)
		p->watch = g_unix_fd_add(p->sock, G_IO_IN | G_IO_HUP, on_readable, p);
	if (!p->death && p->client->pidfd >= 0 && p->client->state != CLIENT_ENDED)
		p->death = g_unix_fd_add(p->client->pidfd, G_IO_IN, on_death, p);
}

/**
 * door_answer - the proof is over: answer the request that waits for it, if any, and read on
 * @error: 0 or -errno; @text: why, ignored when it is 0
 */
void door_answer(struct door *d, struct client *c, int error, const char *text)
{
	struct peer *p = door_peer_of(d, c);

	if (p->awaited)
		door_result(p, p->awaited, error, error ? text : "");
	p->awaited = 0;
	door_request_over(p);
	door_watch(p);
}

/* --- ends ------------------------------------------------------------------------------------- */

/*
 * A client is over as a sharer.  The fault thread knows only those that joined; of them one that is
 * merely disabled stays JOINED here: its memory is still mapped, and its userfaultfd stays until
 * the process ends.
 */
void door_end(struct peer *p, enum snapshot_sharer_state how, int error, const char *reason)
{
	struct client *c = p->client;
	struct message m = { .kind = MESSAGE_GONE };

	p->door->epoch++;
	if (c->state == CLIENT_JOINED) {
		m.gone.id = c->id;
		m.gone.how = how;
		m.gone.error = error;
		g_strlcpy(m.gone.reason, reason, sizeof(m.gone.reason));
		faultloop_post(p->door->loop, &m);
	}
	if (c->state != CLIENT_ENDED && c->state != CLIENT_NEW)
		g_message("sharer %s (process %d): %s", c->name, (int)c->pid, reason);
	if (how != SHARER_DISABLED || c->state != CLIENT_JOINED)
		c->state = CLIENT_ENDED;
	door_put(p->door, c);
	p->door->ops.changed(p->door->ops.ctx);
}

static void close_socket(struct peer *p)
{
	g_clear_handle_id(&p->watch, g_source_remove);
	if (p->sock >= 0)
		door_drop_socket(p->door, p->client);
	close_fd(&p->sock);
	door_dma_forget(p->door, p->client);
}

static void peer_free(gpointer data)
{
	struct peer *p = data;

	close_socket(p);
	door_mapped_forget(p->door, p->client);
	g_clear_handle_id(&p->death, g_source_remove);
	g_clear_handle_id(&p->linger, g_source_remove);
	g_clear_handle_id(&p->rest, g_source_remove);
	g_ptr_array_remove(p->door->clients, p->client);
	door_drop(p->door, p->client);
	client_free(p->client);
	g_free(p);
}

/**
 * door_maybe_forget - nothing refers to it any more: no socket, and a process that is gone or never
 * mattered?
 */
void door_maybe_forget(struct peer *p)
{
	if (p->sock < 0 && p->client->state == CLIENT_ENDED)
		g_ptr_array_remove(p->door->peers, p);
}

/**
 * door_died - its process has ended
 *
 * The caller does not use @p any more.
 */
void door_died(struct peer *p)
{
	if (p->client->unaware && !p->client->main && p->client->n_proven == 0)
		door_end(p, SHARER_LEFT, 0, "its process ended, with none of the memory mapped");
	else
		door_end(p, SHARER_DEAD, EOWNERDEAD, "its process ended");
	p->client->state = CLIENT_ENDED;
	door_put(p->door, p->client);
	close_socket(p);
	door_maybe_forget(p);
}

static gboolean on_death(gint fd, GIOCondition condition, gpointer data)
{
	struct peer *p = data;

	(void)fd;
	(void)condition;
	p->death = 0;
	door_died(p);
	return G_SOURCE_REMOVE;
}

/* The process outlived its socket. */
static gboolean on_linger(gpointer data)
{
	struct peer *p = data;
	struct client *c = p->client;

	if (c->asked && !c->overdue)
		return G_SOURCE_CONTINUE;
	p->linger = 0;
	if (!c->unaware || c->main || door_ask(p->door, c, DOOR_MAPS_NOTHING, NULL) < 0)
		door_lingered(p->door, c, false);
	return G_SOURCE_REMOVE;
}

/**
 * door_linger - a closed socket: whether its process is gone, too, is known in a moment
 */
void door_linger(struct peer *p)
{
	p->linger = g_timeout_add(LINGER_MS, on_linger, p);
}

static bool may_be_registered(const struct client *c)
{
	return c->n_proven || c->asked || c->adrift;
}

/**
 * door_hung_up - the socket is over, by the peer or by what it sent
 *
 * While pages are owed the pidfd gets a moment
 * to say whether this was a death; after the end of the session it does not matter.
 */
void door_hung_up(struct peer *p)
{
	close_socket(p);
	if (p->client->state == CLIENT_JOINED &&
	    !(p->client->told & (TOLD_COMPLETE | TOLD_FAILED))) {
		door_linger(p);
		return;
	}
	/*
	 * Of a refused one with registered memory the userfaultfd is kept as long as its process
	 * lives (O11).
	 */
	if (p->client->state != CLIENT_REFUSED || !may_be_registered(p->client) || !p->death)
		p->client->state = CLIENT_ENDED;
	door_put(p->door, p->client);
	p->door->epoch++;
	p->door->ops.changed(p->door->ops.ctx);
	door_maybe_forget(p);
}

/**
 * door_left - it has unmapped everything
 */
void door_left(struct door *d, struct client *c)
{
	door_end(door_peer_of(d, c), SHARER_LEFT, 0, "left");
}

/**
 * door_reconsider - it was refused, and now it is known what is registered of it
 *
 * The caller does not use @c any more.
 */
void door_reconsider(struct door *d, struct client *c)
{
	struct peer *p = door_peer_of(d, c);

	/* What an orphan may have registered itself is not known here. */
	if (p->sock >= 0 || c->state != CLIENT_REFUSED || c->n_proven || c->orphan || c->adrift)
		return;
	c->state = CLIENT_ENDED;
	door_maybe_forget(p);
}

/* --- what comes ------------------------------------------------------------------------------- */

static gboolean on_readable(gint fd, GIOCondition condition, gpointer data)
{
	struct peer *p = data;
	cleanup_fdpass struct fdpass fds;
	union regmsg m;
	ssize_t n;

	(void)condition;
	fdpass_init(&fds);
	door_note_request(p);
	n = fdpass_recv(fd, &m, sizeof(m), &fds);
	if (n == -EAGAIN)
		return G_SOURCE_CONTINUE;
	if (n <= 0 || door_handle(p, &m, (size_t)n, &fds) < 0) {
		p->watch = 0;
		door_hung_up(p);
		return G_SOURCE_REMOVE;
	}
	if (!p->awaited)
		door_request_over(p);
	return G_SOURCE_CONTINUE;
}

/*
 * A sharer says HELLO as soon as it is connected.  Of those that do not the one that has been
 * silent longest goes, so that no number of them costs more than a few descriptors, or keeps a
 * sharer out.
 */
static void limit_silent(struct door *d)
{
	struct peer *oldest = NULL;
	unsigned n = 0;

	for (unsigned i = d->peers->len; i-- > 0;) {
		struct peer *p = g_ptr_array_index(d->peers, i);

		if (p->client->state != CLIENT_NEW)
			continue;
		oldest = p;
		n++;
	}
	if (n > SILENT_MAX)
		door_hung_up(oldest);
}

/**
 * door_add_peer - one more, of whom nothing is known but its process
 * @sock: owned from here on; -1: it has none, somebody here speaks for it
 */
struct peer *door_add_peer(struct door *d, pid_t pid, int sock)
{
	struct peer *p = g_new0(struct peer, 1);

	p->door = d;
	p->client = client_new();
	p->client->id = ++d->next_id;
	p->client->pid = pid;
	if (getrandom(&p->client->token, sizeof(p->client->token), 0) < 0)
		p->client->token = clock_ns();
	p->client->pidfd = pidfd_open(pid, 0);
	p->sock = sock;
	g_ptr_array_add(d->clients, p->client);
	g_ptr_array_add(d->peers, p);
	door_keep_peer(d, p);
	door_watch(p);
	return p;
}

static gboolean on_connection(gint fd, GIOCondition condition, gpointer data)
{
	struct door *d = data;
	cleanup_fd int sock = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct fdpass_peer cred;

	(void)condition;
	/*
	 * Out of descriptors: the connection stays in the backlog, and must not be looked at all
	 * the time.
	 */
	if (sock < 0 && (errno == EMFILE || errno == ENFILE))
		g_usleep(ACCEPT_PAUSE_US);
	if (sock < 0 || fdpass_peer(sock, &cred) < 0)
		return G_SOURCE_CONTINUE;
	door_add_peer(d, cred.pid, steal_fd(&sock));
	limit_silent(d);
	return G_SOURCE_CONTINUE;
}

/**
 * door_new - open the door
 * @listen_fd: a listening SOCK_SEQPACKET socket, owned from here on
 * @ops: copied; called from the main loop
 * @vault, @record: where what a successor needs is kept, both or none; they must outlive the door
 */
struct door *door_new(int listen_fd, const struct door_limits *limits, struct faultloop *loop,
		      const struct door_ops *ops, struct vault *vault, struct record *record)
{
	struct door *d = g_new0(struct door, 1);

	d->listen_fd = listen_fd;
	d->max_sharers = limits->max_sharers;
	d->prover = prover_new(limits->prove_timeout_s, d);
	d->loop = loop;
	d->ops = *ops;
	d->vault = vault;
	d->record = record;
	d->clients = g_ptr_array_new();
	d->peers = g_ptr_array_new_with_free_func(peer_free);
	d->wards = g_ptr_array_new();
	d->watch = g_unix_fd_add(listen_fd, G_IO_IN, on_connection, d);
	return d;
}

/**
 * door_free - end every connection and close every userfaultfd that the door holds; NULL is fine
 */
void door_free(struct door *d)
{
	if (!d)
		return;
	g_source_remove(d->watch);
	close_fd(&d->listen_fd);
	prover_free(d->prover);
	for (unsigned i = 0; d->owns_files && i < d->n_matched; i++)
		close_fd(&d->matched[i].offer.file);
	g_ptr_array_unref(d->peers);
	g_ptr_array_unref(d->clients);
	g_ptr_array_unref(d->wards);
	g_clear_pointer(&d->dma, g_ptr_array_unref);
	g_free(d);
}
