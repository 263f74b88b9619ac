/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Calls and events share one packet socket, so whoever waits for an answer may meet events and
 * whoever wants an event may meet late answers.  Events are queued, late answers (of calls that
 * gave up) are recognised by their serial and dropped.
 *
 * The queue is bounded and a call that finds it full is refused before it is sent, so an
 * application that never dispatches gets an error, not a growing heap.  The end of the connection
 * is an event as well, the last one, told once; one place in the queue is kept for it.
 *
 * A daemon that sends what cannot be understood is not talked to any further: the connection ends
 * with that as its reason.
 *
 * A daemon that is restarted under us (its keeper holds the other end of the socket meanwhile) may
 * answer a call with ERESTART: it does not know what became of it.  None does harm the second
 * time, so each is made once more here.  It may tell an event again, too; the application is given
 * once what happens once.
 */
#include "config.h"

#include "client/conn.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>

#include "core/guard.h"
#include "sys/fd.h"
#include "sys/fdpass.h"

/* Events as the application knows them; 0 for everything that is no event. */
static const uint8_t event_types[] = {
	[REGMSG_LISTENING] = POSTCOPY_EVENT_LISTENING,
	[REGMSG_PACKAGE] = POSTCOPY_EVENT_PACKAGE,
	[REGMSG_RUNNING] = POSTCOPY_EVENT_RUNNING,
	[REGMSG_COMPLETE] = POSTCOPY_EVENT_COMPLETE,
	[REGMSG_FAILED] = POSTCOPY_EVENT_FAILED,
	[REGMSG_PAUSED] = POSTCOPY_EVENT_PAUSED,
	[REGMSG_DISABLED] = POSTCOPY_EVENT_DISABLED,
	[REGMSG_DMA_RANGE] = POSTCOPY_EVENT_DMA_RANGE,
	[REGMSG_DMA_OPEN] = POSTCOPY_EVENT_DMA_OPEN,
};
_Static_assert(ARRAY_LEN(event_types) == REGMSG_DMA_OPEN + 1,
	       "a message of the daemon is not listed");

/**
 * conn_fail - keep in words what went wrong
 *
 * Return: @err, so that it can stand in a return statement.
 */
int conn_fail(struct conn *c, int err, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(c->text, sizeof(c->text), fmt, args);
	va_end(args);
	return err;
}

static int watch(struct conn *c, int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

	return epoll_ctl(c->poll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

/**
 * conn_init - no connection yet; conn_deinit() is allowed from here on
 */
void conn_init(struct conn *c)
{
	memset(c, 0, sizeof(*c));
	c->sock = c->poll_fd = c->wake_fd = -1;
}

/**
 * conn_open - begin to talk over a connected SOCK_SEQPACKET socket
 * @sock: taken over on success only
 * @limit_ms: how long conn_call() and conn_tell() may take
 *
 * Return: 0 or -errno with the text set; conn_deinit() after either.
 */
int conn_open(struct conn *c, int sock, unsigned limit_ms)
{
	int err;

	c->limit_ms = limit_ms;
	c->poll_fd = epoll_create1(EPOLL_CLOEXEC);
	c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	err = c->poll_fd < 0 || c->wake_fd < 0 ? -errno : 0;
	if (!err)
		err = watch(c, c->wake_fd);
	if (!err)
		err = watch(c, sock);
	if (err)
		return conn_fail(c, err, "cannot watch the connection: %s", strerror(-err));
	c->sock = sock;
	return 0;
}

/* Let the eventfd say what the queue says, whenever control goes back to the application. */
static void announce(struct conn *c)
{
	bool waiting = c->n > 0;

	if (waiting == c->awake)
		return;
	if (waiting)
		c->awake = eventfd_write(c->wake_fd, 1) == 0;
	else
		c->awake = eventfd_read(c->wake_fd, &(eventfd_t){ 0 }) != 0;
}

static struct postcopy_event *queue_push(struct conn *c, uint32_t type)
{
	struct postcopy_event *event = &c->queue[(c->first + c->n) % ARRAY_LEN(c->queue)];

	c->n++;
	memset(event, 0, sizeof(*event));
	event->size = sizeof(*event);
	event->type = type;
	event->package_fd = -1;
	return event;
}

static void queue_pop(struct conn *c, struct postcopy_event *event)
{
	*event = c->queue[c->first];
	c->first = (c->first + 1) % ARRAY_LEN(c->queue);
	c->n--;
}

/**
 * conn_close - end the connection
 *
 * The socket leaves the epoll set by name: should the application hold a duplicate of it, closing
 * ours would leave it there, readable for ever.
 */
void conn_close(struct conn *c)
{
	if (c->sock < 0)
		return;
	epoll_ctl(c->poll_fd, EPOLL_CTL_DEL, c->sock, NULL);
	close_fd(&c->sock);
}

/**
 * conn_deinit - close everything, events that nobody took included; idempotent
 */
void conn_deinit(struct conn *c)
{
	struct postcopy_event event;

	while (c->n > 0) {
		queue_pop(c, &event);
		close_fd(&event.package_fd);
	}
	conn_close(c);
	close_fd(&c->wake_fd);
	close_fd(&c->poll_fd);
}

/* The connection is over for the reason in c->text: the last event says so. */
static int lost(struct conn *c, int err)
{
	struct postcopy_event *event = queue_push(c, POSTCOPY_EVENT_DISCONNECTED);

	conn_close(c);
	event->error = -err;
	memcpy(event->text, c->text, sizeof(event->text));
	return err;
}
_Static_assert(sizeof(((struct postcopy_event *)0)->text) == REGMSG_TEXT, "texts differ in length");

static bool is_answer(const union regmsg *m)
{
	return m->head.type >= REGMSG_WELCOME && m->head.type <= REGMSG_RESULT;
}

static bool is_event(const union regmsg *m)
{
	return m->head.type < ARRAY_LEN(event_types) && event_types[m->head.type];
}

/* True from the second time on, of what happens once in a session. */
static bool is_old(struct conn *c, const union regmsg *m)
{
	static const uint64_t once = UINT64_C(1) << POSTCOPY_EVENT_LISTENING |
				     UINT64_C(1) << POSTCOPY_EVENT_PACKAGE |
				     UINT64_C(1) << POSTCOPY_EVENT_RUNNING |
				     UINT64_C(1) << POSTCOPY_EVENT_COMPLETE |
				     UINT64_C(1) << POSTCOPY_EVENT_FAILED;
	uint64_t bit = UINT64_C(1) << event_types[m->head.type];
	bool old = c->heard & once & bit;

	c->heard |= bit;
	return old;
}

/*
 * One good packet, -EAGAIN, or the end of the connection: what a daemon sends that cannot be
 * understood leaves nothing to go on with.
 */
static int receive(struct conn *c, union regmsg *m, struct fdpass *fds)
{
	ssize_t len = fdpass_recv(c->sock, m, sizeof(*m), fds);
	const char *why = NULL;
	int err;

	/* Told once when the peer left without reading all we sent; its last words are there. */
	if (len == -ECONNRESET)
		len = fdpass_recv(c->sock, m, sizeof(*m), fds);
	if (len == -EAGAIN)
		return -EAGAIN;
	if (len == 0)
		return lost(c, conn_fail(c, -ECONNRESET, "postcopyd closed the connection"));
	if (len < 0)
		return lost(c, conn_fail(c, (int)len, "cannot receive from postcopyd: %s",
					 strerror((int)-len)));
	err = regmsg_check(m, (size_t)len, &why);
	if (err)
		return lost(c, conn_fail(c, err, "postcopyd sent a bad packet: %s", why));
	if (fds->n != regmsg_fds(m) || !(is_answer(m) || is_event(m)))
		return lost(c, conn_fail(c, -EPROTO, "postcopyd sent %s%s",
					 regmsg_type_name(m->head.type),
					 is_answer(m) || is_event(m)
						 ? " with a wrong number of descriptors"
						 : ", which only a sharer may send"));
	return 0;
}

static void keep_range(struct postcopy_event *event, const struct regmsg_dma *d)
{
	event->iova = d->iova;
	event->length = d->length;
	event->block_offset = d->block_offset;
	event->directions = d->directions;
	event->dma_flags = d->flags;
	memcpy(event->gate, d->gate, sizeof(event->gate));
	memcpy(event->block, d->name, sizeof(event->block));
}
_Static_assert(sizeof(((struct postcopy_event *)0)->gate) == REGMSG_NAME &&
		       sizeof(((struct postcopy_event *)0)->block) ==
			       sizeof(((struct regmsg_dma *)0)->name),
	       "names differ in length");

/* The packet as the application's event; a descriptor in it moves along. */
static void keep_event(struct conn *c, const union regmsg *m, struct fdpass *fds)
{
	struct postcopy_event *event = queue_push(c, event_types[m->head.type]);

	switch (m->head.type) {
	case REGMSG_PACKAGE:
		event->package_fd = fdpass_steal(fds, 0);
		event->package_length = m->package.body_length;
		event->device_offset = m->package.device_offset;
		event->device_length = m->package.device_length;
		break;
	case REGMSG_FAILED:
	case REGMSG_PAUSED:
	case REGMSG_DISABLED:
		event->error = m->text.error;
		memcpy(event->text, m->text.text, sizeof(event->text));
		break;
	case REGMSG_DMA_RANGE:
		keep_range(event, &m->dma);
		break;
	case REGMSG_DMA_OPEN:
		memcpy(event->gate, m->dma_at.gate, sizeof(event->gate));
		break;
	default:
		break;
	}
}

/**
 * conn_now_ms - CLOCK_MONOTONIC in milliseconds
 */
int64_t conn_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Until @sock is ready for @what.  A signal is no reason to give up. */
static int await(struct conn *c, int sock, short what, int64_t deadline)
{
	struct pollfd pfd = { .fd = sock, .events = what };

	for (;;) {
		int64_t left = deadline - conn_now_ms();
		int n;

		if (left <= 0)
			return conn_fail(c, -ETIMEDOUT, "postcopyd did not answer within %u ms",
					 c->limit_ms);
		n = poll(&pfd, 1, (int)left);
		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return conn_fail(c, -errno, "poll: %s", strerror(errno));
	}
}

static int transmit(struct conn *c, const union regmsg *m, int fd, int64_t deadline)
{
	for (;;) {
		ssize_t n = fdpass_send(c->sock, m, m->head.size, &fd, fd >= 0);
		int err;

		if (n >= 0)
			return 0;
		if (n != -EAGAIN)
			return conn_fail(c, (int)n, "cannot send %s to postcopyd: %s",
					 regmsg_type_name(m->head.type), strerror((int)-n));
		err = await(c, c->sock, POLLOUT, deadline);
		if (err)
			return err;
	}
}

/* Give @m its serial and send it. */
static int begin(struct conn *c, union regmsg *m, int fd, int64_t *deadline)
{
	int err;

	*deadline = conn_now_ms() + c->limit_ms;
	if (++c->serial == 0)
		c->serial = 1;
	m->head.serial = c->serial;
	err = transmit(c, m, fd, *deadline);
	return err == -EPIPE ? -ECONNRESET : err;
}

static int no_connection(struct conn *c)
{
	return conn_fail(c, -ECONNRESET, "there is no connection to postcopyd any more");
}

static int queue_full(struct conn *c)
{
	return conn_fail(c, -ENOBUFS, "%u events wait: take them before the next call", c->n);
}

/* What the answer @m says to a call of type @call. */
static int settle(struct conn *c, const union regmsg *m, enum regmsg_type call)
{
	enum regmsg_type good = call == REGMSG_HELLO ? REGMSG_WELCOME : REGMSG_RESULT;

	if (m->head.type == REGMSG_REFUSED)
		return lost(c, conn_fail(c, -m->text.error, "%s", m->text.text));
	if (m->head.type != good)
		return lost(c, conn_fail(c, -EPROTO, "postcopyd answered %s with %s",
					 regmsg_type_name(call), regmsg_type_name(m->head.type)));
	if (m->head.type == REGMSG_RESULT && m->text.error)
		return conn_fail(c, -m->text.error, "%s", m->text.text);
	return 0;
}

/* Receive one packet of the wait for @serial.  1: it is the answer, in @m. */
static int step(struct conn *c, union regmsg *m, uint32_t serial, int64_t deadline)
{
	cleanup_fdpass struct fdpass fds;
	int err;

	fdpass_init(&fds);
	if (c->n >= CONN_QUEUE)
		return queue_full(c);
	err = receive(c, m, &fds);
	if (err == -EAGAIN)
		return await(c, c->sock, POLLIN, deadline);
	if (err)
		return err;
	if (m->head.type == REGMSG_REFUSED)
		return 1;
	if (is_answer(m))
		return m->head.serial == serial; /* else the answer of a call that gave up */
	if (!is_old(c, m))
		keep_event(c, m, &fds);
	return 0;
}

static int call_once(struct conn *c, union regmsg *m, int fd)
{
	enum regmsg_type type = m->head.type;
	int64_t deadline;
	int got;

	if (c->sock < 0)
		return no_connection(c);
	if (c->n >= CONN_QUEUE)
		return queue_full(c);
	got = begin(c, m, fd, &deadline);
	/* What the daemon said before it closed tells more than that it closed. */
	if (got == -ECONNRESET)
		got = 0;
	while (got == 0)
		got = step(c, m, c->serial, deadline);
	return got > 0 ? settle(c, m, type) : got;
}

/**
 * conn_call - send a call and wait for its answer
 * @m: the call; then the answer
 * @fd: descriptor that goes with it, stays the caller's; -1: none
 *
 * After -ETIMEDOUT and -ENOBUFS the call may still be carried out; its late answer is dropped.
 *
 * Return: 0; what the daemon answered as -errno; -ETIMEDOUT, -ENOBUFS (events must be taken first),
 * -ECONNRESET.
 */
int conn_call(struct conn *c, union regmsg *m, int fd)
{
	const union regmsg call = *m;
	int got = call_once(c, m, fd);

	/* A refused hello ended the connection. */
	if (got == -ERESTART && c->sock >= 0) {
		*m = call;
		got = call_once(c, m, fd);
	}
	announce(c);
	return got;
}

/**
 * conn_tell - send a call that is answered by events only
 *
 * Return: 0, -ETIMEDOUT, -ECONNRESET or another -errno of the socket.
 */
int conn_tell(struct conn *c, union regmsg *m)
{
	int64_t deadline;

	return c->sock < 0 ? no_connection(c) : begin(c, m, -1, &deadline);
}

/* The packet that @sock brings, however long it takes up to @deadline. */
static int await_packet(struct conn *c, int sock, union regmsg *m, int64_t deadline)
{
	for (;;) {
		cleanup_fdpass struct fdpass fds;
		ssize_t len;
		int err;

		fdpass_init(&fds);
		len = fdpass_recv(sock, m, sizeof(*m), &fds);
		if (len > 0 && regmsg_check(m, (size_t)len, NULL) == 0 && fds.n == regmsg_fds(m))
			return 0;
		if (len == 0 || len == -ECONNRESET)
			return conn_fail(c, -ECONNRESET, "postcopyd hung up instead of answering");
		if (len != -EAGAIN)
			return conn_fail(c, len < 0 ? (int)len : -EPROTO,
					 "postcopyd gave no answer that makes sense");
		err = await(c, sock, POLLIN, deadline);
		if (err)
			return err;
	}
}

static int read_verdict(struct conn *c, const union regmsg *m)
{
	if (m->head.type == REGMSG_SERVED)
		return 1;
	if (m->head.type != REGMSG_RESULT)
		return conn_fail(c, -EPROTO, "postcopyd answered with %s",
				 regmsg_type_name(m->head.type));
	return m->text.error ? conn_fail(c, -m->text.error, "%s", m->text.text) : 0;
}

static int ask_once(struct conn *c, union regmsg *m)
{
	cleanup_fd int mine = -1, theirs = -1;
	int pair[2], err;
	int64_t deadline;

	if (c->sock < 0)
		return no_connection(c);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return conn_fail(c, -errno, "no socket for postcopyd's answer: %s",
				 strerror(errno));
	mine = pair[0];
	theirs = pair[1];
	err = begin(c, m, theirs, &deadline);
	/* Then the daemon has the only other end: should it die, that closes. */
	close_fd(&theirs);
	if (!err)
		err = await_packet(c, mine, m, deadline);
	return err ? err : read_verdict(c, m);
}

/**
 * conn_ask - send a call that brings a socket for its answer
 * @m: MAPPED
 *
 * That socket ends with the process that has read the call, so a daemon that was restarted is asked
 * once more; if there is none any more that ends at once.
 *
 * Return: 1: SERVED; 0: it is none of the daemon's business; what it answered as -errno;
 * -ETIMEDOUT, -ECONNRESET.
 */
int conn_ask(struct conn *c, union regmsg *m)
{
	const union regmsg call = *m;
	int got = ask_once(c, m);

	if (got != -ECONNRESET)
		return got;
	*m = call;
	return ask_once(c, m);
}

/* Queue the next event of the socket.  0: queued (the end of the connection, too); -EAGAIN. */
static int fetch(struct conn *c)
{
	for (;;) {
		cleanup_fdpass struct fdpass fds;
		union regmsg m;
		int err;

		fdpass_init(&fds);
		err = receive(c, &m, &fds);
		if (err)
			return err == -EAGAIN ? err : 0;
		if (m.head.type == REGMSG_REFUSED) {
			lost(c, conn_fail(c, -m.text.error, "%s", m.text.text));
			return 0;
		}
		if (is_event(&m) && !is_old(c, &m)) {
			keep_event(c, &m, &fds);
			return 0;
		}
	}
}

/**
 * conn_take - the oldest event; never blocks
 * @event: filled when 1 is returned; its package_fd is the caller's then
 *
 * Return: 1 with an event, 0 when there is none now, -ECONNRESET once the end was told.
 */
int conn_take(struct conn *c, struct postcopy_event *event)
{
	if (c->n == 0 && c->sock < 0)
		return no_connection(c);
	if (c->n == 0 && fetch(c) == -EAGAIN)
		return 0;
	queue_pop(c, event);
	announce(c);
	return 1;
}

/**
 * conn_waits - has the daemon sent an event of this type that nobody has taken yet?
 */
bool conn_waits(struct conn *c, enum postcopy_event_type type)
{
	while (c->sock >= 0 && c->n < CONN_QUEUE && fetch(c) == 0)
		;
	announce(c);
	for (unsigned i = 0; i < c->n; i++)
		if (c->queue[(c->first + i) % ARRAY_LEN(c->queue)].type == type)
			return true;
	return false;
}
