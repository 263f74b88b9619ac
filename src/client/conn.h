/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_CLIENT_CONN_H
#define PC_CLIENT_CONN_H
/*
 * The connection of libpostcopy: one socket on which answers and events arrive in the order in
 * which the daemon sent them.
 *
 * A call has to read past events to get its answer.  Those wait in a bounded queue inside, and the
 * descriptor that the application polls is an epoll instance over the socket and an eventfd that
 * stands for the queue: it is readable exactly when conn_take() has something to say.
 */
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

#include "postcopy/postcopy.h"
#include "wire/regmsg.h"

/* Those of the session, the ranges that the daemon asks for at a time, and a gate's end or two. */
#define CONN_QUEUE 32

struct conn {
	int sock;		/* -1: the connection has ended */
	int poll_fd;		/* epoll over sock and wake_fd */
	int wake_fd;		/* eventfd, readable while events are queued between calls */
	bool awake;		/* wake_fd is readable */
	unsigned limit_ms;	/* how long a call may take */
	uint32_t serial;	/* of the last call */
	unsigned first, n;	/* of queue */
	/* One more than events need: the end of the connection always fits. */
	struct postcopy_event queue[CONN_QUEUE + 1];
	uint64_t heard;		/* 1 << enum postcopy_event_type of what was told */
	char text[REGMSG_TEXT];	/* what was wrong last */
};

void conn_init(struct conn *c);
/* Takes @sock only on success. */
int conn_open(struct conn *c, int sock, unsigned limit_ms);
void conn_deinit(struct conn *c);
/* Leave without an event: nothing more will be read. */
void conn_close(struct conn *c);

/* Send the call @m with @fd (-1: none) and wait for its answer, which replaces @m.  0 or -errno. */
int conn_call(struct conn *c, union regmsg *m, int fd);
/* Send a call that has no answer. */
int conn_tell(struct conn *c, union regmsg *m);
/* Send the call @m, which brings a socket for its answer.  1: SERVED, 0: not ours, or -errno. */
int conn_ask(struct conn *c, union regmsg *m);
/* Has the daemon sent this event, taken or not?  Only those that were not are looked at. */
bool conn_waits(struct conn *c, enum postcopy_event_type type);
/* 1 with an event, 0 when there is none now, -ECONNRESET once the end was told. */
int conn_take(struct conn *c, struct postcopy_event *event);

/* Set the text and hand @err through. */
int conn_fail(struct conn *c, int err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* CLOCK_MONOTONIC. */
int64_t conn_now_ms(void);

#endif
