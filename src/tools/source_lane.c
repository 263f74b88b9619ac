// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A turn is handed out, not raced for: a background that takes the mutex again at once would starve
 * whoever answers, since nothing makes a plain mutex fair.
 *
 * Ends come in four manners because destinations must tell them apart: our direction finished, both
 * closed with everything delivered, both closed, both reset.
 */
#include "config.h"

#include "source_lane.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "core/guard.h"
#include "sys/fd.h"

/**
 * source_lane_init - not open
 */
void source_lane_init(struct source_lane *l)
{
	memset(l, 0, sizeof(*l));
	l->fd = -1;
	pthread_mutex_init(&l->mutex, NULL);
	pthread_cond_init(&l->cond, NULL);
}

void source_lane_deinit(struct source_lane *l)
{
	close_fd(&l->fd);
	pthread_cond_destroy(&l->cond);
	pthread_mutex_destroy(&l->mutex);
}

/* --- connecting ----------------------------------------------------------------------------- */

/*
 * How long connect() may take; 0: as long as it likes.  It is the socket's time limit to send, too,
 * so it is lifted again.
 */
static void limit_connect(int fd, unsigned ms)
{
	struct timeval limit = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000};

	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
}

static int connect_within(int fd, const struct sockaddr *address, socklen_t len, unsigned ms)
{
	limit_connect(fd, ms);
	if (connect(fd, address, len) < 0)
		return errno == EINPROGRESS || errno == EAGAIN ? -ETIMEDOUT : -errno;
	limit_connect(fd, 0);
	return 0;
}

static int dial_unix(const char *path, unsigned ms)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int fd cleanup_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int r;

	if (fd < 0)
		return -errno;
	if (strlen(path) >= sizeof(sun.sun_path))
		return -ENAMETOOLONG;
	strcpy(sun.sun_path, path);
	r = connect_within(fd, (struct sockaddr *)&sun, sizeof(sun), ms);
	return r < 0 ? r : steal_fd(&fd);
}

static int dial_one(const struct addrinfo *ai, unsigned ms)
{
	int fd cleanup_fd = socket(ai->ai_family, ai->ai_socktype | SOCK_CLOEXEC, ai->ai_protocol);
	int on = 1, r;

	if (fd < 0)
		return -errno;
	r = connect_within(fd, ai->ai_addr, ai->ai_addrlen, ms);
	if (r < 0)
		return r;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	return steal_fd(&fd);
}

static void free_list(struct addrinfo **list)
{
	if (*list)
		freeaddrinfo(*list);
}

/* Every address of the name, in the resolver's order. */
static int dial_host(const char *host, const char *port, unsigned ms)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
	struct addrinfo *list __attribute__((cleanup(free_list))) = NULL;
	int fd = -EHOSTUNREACH;

	if (getaddrinfo(host, port, &hints, &list) != 0)
		return -EHOSTUNREACH;
	for (struct addrinfo *ai = list; ai && fd < 0; ai = ai->ai_next)
		fd = dial_one(ai, ms);
	return fd;
}

static int dial_tcp(const char *text, unsigned ms)
{
	cleanup_free char *copy = strdup(text);
	char *host = copy, *port, *end;

	if (!copy)
		return -ENOMEM;
	port = strrchr(copy, ':');
	if (!port || !port[1] || port == copy)
		return -EINVAL;
	*port++ = '\0';
	end = host + strlen(host) - 1;
	if (*host == '[' && *end == ']') {
		host++;
		*end = '\0';
	}
	return dial_host(host, port, ms);
}

static const struct {
	const char *prefix;
	int (*dial)(const char *rest, unsigned ms);
	bool tcp;
} schemes[] = {
	{"tcp:", dial_tcp, true},
	{"unix:", dial_unix, false},
};

/**
 * source_lane_dial_within - connect, with a limit to each attempt
 * @address: tcp:HOST:PORT (HOST may be in brackets) or unix:PATH
 * @ms: for each address of the name; its look-up takes its own time.  0: no limit
 *
 * Return: 0; -EINVAL for what is no address; -ETIMEDOUT; another -errno.
 */
int source_lane_dial_within(struct source_lane *l, const char *address, unsigned ms)
{
	for (size_t i = 0; i < ARRAY_LEN(schemes); i++) {
		size_t len = strlen(schemes[i].prefix);
		int fd;

		if (strncmp(address, schemes[i].prefix, len) != 0)
			continue;
		l->tcp = schemes[i].tcp;
		fd = schemes[i].dial(address + len, ms);
		l->fd = fd < 0 ? -1 : fd;
		return fd < 0 ? fd : 0;
	}
	return -EINVAL;
}

/**
 * source_lane_dial - connect, however long it takes
 */
int source_lane_dial(struct source_lane *l, const char *address)
{
	return source_lane_dial_within(l, address, 0);
}

/**
 * source_lane_close - nobody uses it any more; it can be dialled again
 *
 * The bytes go on being counted over all of its connections.
 */
void source_lane_close(struct source_lane *l)
{
	close_fd(&l->fd);
	l->last = NULL;
}

/* --- turns ---------------------------------------------------------------------------------- */

/**
 * source_lane_begin_turn - wait for the lane; who answers a request goes before the background
 */
void source_lane_begin_turn(struct source_lane *l, bool urgent)
{
	pthread_mutex_lock(&l->mutex);
	l->urgent_waiting += urgent;
	while (l->busy || (!urgent && l->urgent_waiting))
		pthread_cond_wait(&l->cond, &l->mutex);
	l->urgent_waiting -= urgent;
	l->busy = true;
	pthread_mutex_unlock(&l->mutex);
}

/**
 * source_lane_end_turn - let the next one write
 */
void source_lane_end_turn(struct source_lane *l)
{
	pthread_mutex_lock(&l->mutex);
	l->busy = false;
	pthread_cond_broadcast(&l->cond);
	pthread_mutex_unlock(&l->mutex);
}

/* --- bytes ---------------------------------------------------------------------------------- */

/**
 * source_lane_write - all of it, with the turn held; 0 or -errno
 */
int source_lane_write(struct source_lane *l, const void *buf, size_t len)
{
	const uint8_t *at = buf;

	while (len) {
		ssize_t n = send(l->fd, at, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		at += n;
		len -= (size_t)n;
		atomic_fetch_add_explicit(&l->bytes, (uint64_t)n, memory_order_relaxed);
	}
	return 0;
}

/**
 * source_lane_hang_up - from any thread: both directions end, blocked calls return
 */
void source_lane_hang_up(struct source_lane *l)
{
	if (l->fd >= 0)
		shutdown(l->fd, SHUT_RDWR);
}

/**
 * source_lane_finish - no more to send; the other direction goes on
 */
void source_lane_finish(struct source_lane *l)
{
	if (l->fd >= 0)
		shutdown(l->fd, SHUT_WR);
}

/**
 * source_lane_drain - wait, at most a second, until the other end has all that was written
 *
 * A close with unread input throws away what TCP has not sent yet; whoever must deliver waits here.
 */
void source_lane_drain(const struct source_lane *l)
{
	const struct timespec tick = {.tv_nsec = 1000000};
	int queued;

	for (int i = 0; l->tcp && i < 1000 && ioctl(l->fd, SIOCOUTQ, &queued) == 0 && queued > 0;
	     i++)
		nanosleep(&tick, NULL);
}

/**
 * source_lane_reset - from any thread: both directions end at once, with RST; a UNIX socket only
 * hangs up
 *
 * Disconnecting a TCP socket sends RST and wakes whoever is blocked on it, while the descriptor
 * stays open: another thread may be about to use it.
 */
void source_lane_reset(struct source_lane *l)
{
	struct sockaddr none = {.sa_family = AF_UNSPEC};

	if (l->fd < 0)
		return;
	if (!l->tcp || connect(l->fd, &none, sizeof(none)) < 0)
		source_lane_hang_up(l);
}
