/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a handle is told: events, in order, also those that arrive while a call waits; the
 * descriptor to poll; and every way in which the connection can end (F17, S1-38: the userfaultfd
 * outlives it).
 */
#include "config.h"

#include "client/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "peer.h"
#include "sys/fd.h"

static struct postcopy_event fresh(void)
{
	struct postcopy_event e;

	memset(&e, 0xa5, sizeof(e));
	e.size = sizeof(e);
	return e;
}

/* The next event is of @type, and the descriptor said that it was there. */
static struct postcopy_event next(postcopy *handle, enum postcopy_event_type type)
{
	struct postcopy_event e = fresh();

	cr_assert(peer_readable(postcopy_fd(handle)), "nothing announces event %d", type);
	cr_assert_eq(postcopy_dispatch(handle, &e), 1);
	cr_assert_eq(e.type, type, "event %u instead of %u", e.type, type);
	cr_assert_eq(e.size, sizeof(e));
	return e;
}

static void nothing_more(postcopy *handle)
{
	struct postcopy_event e = fresh();

	cr_assert_not(peer_readable(postcopy_fd(handle)));
	cr_assert_eq(postcopy_dispatch(handle, &e), 0);
	cr_assert_eq(e.type, POSTCOPY_EVENT_NONE);
	cr_assert_eq(e.package_fd, -1);
}

/* The end is told once, and polls no more. */
static void ended(postcopy *handle, int error, const char *word)
{
	struct postcopy_event e = next(handle, POSTCOPY_EVENT_DISCONNECTED);

	cr_assert_eq(e.error, error, "%s", e.text);
	cr_assert(strstr(e.text, word), "'%s' does not say '%s'", e.text, word);
	cr_assert_not(peer_readable(postcopy_fd(handle)));
	e = fresh();
	cr_assert_eq(postcopy_dispatch(handle, &e), -ECONNRESET);
	cr_assert_eq(postcopy_wait(handle, &e, 0), -ECONNRESET);
	cr_assert_eq(postcopy_ready(handle), -ECONNRESET);
	cr_assert_eq(postcopy_loaded(handle), -ECONNRESET);
	cr_assert_neq(fcntl(postcopy_uffd(handle), F_GETFD), -1, "the userfaultfd is gone");
}

/* --- events --- */

Test(conn, every_event)
{
	static const struct {
		enum regmsg_type type;
		enum postcopy_event_type event;
		bool text;
	} all[] = {
		{ REGMSG_LISTENING, POSTCOPY_EVENT_LISTENING, false },
		{ REGMSG_RUNNING, POSTCOPY_EVENT_RUNNING, false },
		{ REGMSG_PAUSED, POSTCOPY_EVENT_PAUSED, true },
		{ REGMSG_DISABLED, POSTCOPY_EVENT_DISABLED, true },
		{ REGMSG_FAILED, POSTCOPY_EVENT_FAILED, true },
		{ REGMSG_COMPLETE, POSTCOPY_EVENT_COMPLETE, false },
	};
	struct postcopy_event e;
	postcopy *handle;
	union regmsg m;
	struct peer p;

	peer_init(&p);
	handle = peer_welcome(&p, POSTCOPY_ROLE_MAIN);
	nothing_more(handle);
	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		regmsg_init(&m, all[i].type, 0);
		if (all[i].text)
			regmsg_text(&m, all[i].type, 0, EIO, "lane %zu is lost", i);
		peer_send(&p, &m, -1);
	}
	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		e = next(handle, all[i].event);
		cr_assert_eq(e.error, all[i].text ? EIO : 0);
		cr_assert_eq(e.package_fd, -1);
		cr_assert_eq(strncmp(e.text, "lane", 4) == 0, all[i].text);
	}
	nothing_more(handle);
	postcopy_free(handle);
	peer_deinit(&p);
}

Test(conn, package_is_handed_over_once)
{
	unsigned before = peer_count_fds();
	struct postcopy_event e;
	char body[16] = "";
	postcopy *handle;
	struct peer p;

	peer_init(&p);
	handle = peer_welcome(&p, POSTCOPY_ROLE_MAIN);
	peer_package(&p, "device state");
	e = next(handle, POSTCOPY_EVENT_PACKAGE);
	cr_assert_eq(e.package_length, 12);
	cr_assert_eq(e.device_offset, 1);
	cr_assert_eq(e.device_length, 11);
	cr_assert(fcntl(e.package_fd, F_GETFD) & FD_CLOEXEC);
	cr_assert_eq(pread(e.package_fd, body, sizeof(body), 0), 12);
	cr_assert_str_eq(body, "device state");
	close(e.package_fd);
	nothing_more(handle);
	postcopy_free(handle);
	peer_deinit(&p);
	cr_assert_eq(peer_count_fds(), before);
}

/* A package that arrived during a call and that nobody took goes with the handle. */
Test(conn, package_nobody_took)
{
	unsigned before = peer_count_fds();
	postcopy *handle;
	struct peer p;

	peer_init(&p);
	handle = peer_welcome(&p, POSTCOPY_ROLE_MAIN);
	peer_package(&p, "taken off the socket");
	peer_result(&p, 2, 0, "");
	cr_assert_eq(postcopy_ready(handle), 0);
	peer_package(&p, "left in the socket");
	postcopy_free(handle);
	peer_deinit(&p);
	cr_assert_eq(peer_count_fds(), before);
}

#define EVENT_OF_0_1 296

Test(conn, event_structs_of_other_sizes)
{
	struct {
		struct postcopy_event e;
		uint64_t newer;
	} big;
	postcopy *handle;
	struct peer p;

	peer_init(&p);
	handle = peer_welcome(&p, POSTCOPY_ROLE_MAIN);
	peer_event(&p, REGMSG_LISTENING);
	memset(&big, 0xa5, sizeof(big));
	big.e.size = EVENT_OF_0_1 - 1;
	cr_assert_eq(postcopy_dispatch(handle, &big.e), -EINVAL);
	/* What came later is not written into a struct that lacks it. */
	big.e.size = EVENT_OF_0_1;
	cr_assert_eq(postcopy_dispatch(handle, &big.e), 1);
	cr_assert_eq(big.e.type, POSTCOPY_EVENT_LISTENING);
	cr_assert_eq(big.e.iova, 0xa5a5a5a5a5a5a5a5);
	peer_event(&p, REGMSG_RUNNING);
	big.e.size = sizeof(big);
	cr_assert_eq(postcopy_dispatch(handle, &big.e), 1);
	cr_assert_eq(big.e.type, POSTCOPY_EVENT_RUNNING);
	cr_assert_eq(big.e.size, sizeof(big));
	cr_assert_eq(big.newer, 0);
	postcopy_free(handle);
	peer_deinit(&p);
}

/* --- events beside calls --- */

Test(conn, events_during_a_call_keep_their_order)
{
	struct postcopy_event e;
	postcopy *handle;
	struct peer p;

	peer_init(&p);
	handle = peer_welcome(&p, POSTCOPY_ROLE_MAIN);
	peer_event(&p, REGMSG_LISTENING);
	peer_package(&p, "state");
	peer_result(&p, 2, EINVAL, "length differs");
	peer_event(&p, REGMSG_RUNNING);
	cr_assert_eq(postcopy_ready(handle), -EINVAL);
	cr_assert_str_eq(postcopy_strerror(handle), "length differs");
	next(handle, POSTCOPY_EVENT_LISTENING);
	e = next(handle, POSTCOPY_EVENT_PACKAGE);
	cr_assert_geq(e.package_fd, 0);
	close(e.package_fd);
	next(handle, POSTCOPY_EVENT_RUNNING);
	nothing_more(handle);
	postcopy_free(handle);
	peer_deinit(&p);
}

/* Only queued events, an empty socket: the descriptor must tell, or an event loop would sleep. */
Test(conn, queued_events_are_announced)
{
	postcopy *handle;
	struct peer p;

	peer_init(&p);
	handle = peer_welcome(&p, POSTCOPY_ROLE_MAIN);
	for (uint32_t round = 0; round < 3; round++) {
		peer_event(&p, REGMSG_PAUSED);
		peer_event(&p, REGMSG_DISABLED);
		peer_result(&p, 2 + round, 0, "");
		cr_assert_eq(postcopy_ready(handle), 0);
		next(handle, POSTCOPY_EVENT_PAUSED);
		next(handle, POSTCOPY_EVENT_DISABLED);
		nothing_more(handle);
	}
	postcopy_free(handle);
	peer_deinit(&p);
}

/* F17: a daemon that was restarted may tell again what its earlier process told. */
Test(conn, what_happens_once_is_told_once)
{
	static const enum regmsg_type once[] = { REGMSG_LISTENING, REGMSG_RUNNING, REGMSG_COMPLETE,
						 REGMSG_FAILED };
	unsigned before = peer_count_fds();
	struct postcopy_event e;
	postcopy *handle;
	struct peer p;

	peer_init(&p);
	handle = peer_welcome(&p, POSTCOPY_ROLE_MAIN);
	for (size_t i = 0; i < ARRAY_LEN(once); i++) {
		peer_event(&p, once[i]);
		peer_event(&p, once[i]);
	}
	/* Met by a call, and by who takes events. */
	peer_result(&p, 2, 0, "");
	cr_assert_eq(postcopy_ready(handle), 0);
	peer_package(&p, "state");
	peer_package(&p, "state");
	peer_event(&p, REGMSG_PAUSED);
	peer_event(&p, REGMSG_LISTENING);
	peer_event(&p, REGMSG_PAUSED);
	next(handle, POSTCOPY_EVENT_LISTENING);
	next(handle, POSTCOPY_EVENT_RUNNING);
	next(handle, POSTCOPY_EVENT_COMPLETE);
	next(handle, POSTCOPY_EVENT_FAILED);
	e = next(handle, POSTCOPY_EVENT_PACKAGE);
	close(e.package_fd);
	next(handle, POSTCOPY_EVENT_PAUSED);
	next(handle, POSTCOPY_EVENT_PAUSED);
	nothing_more(handle);
	postcopy_free(handle);
	peer_deinit(&p);
	cr_assert_eq(peer_count_fds(), before);
}

/* The queue is bounded: a call that would overfill it gives up, and nothing is lost. */
Test(conn, more_events_than_fit)
{
	const unsigned n = CONN_QUEUE + 5;
	postcopy *handle;
	union regmsg m;
	struct peer p;
	int fd;

	peer_init(&p);
	handle = peer_welcome(&p, POSTCOPY_ROLE_MAIN);
	for (unsigned i = 0; i < n; i++)
		peer_event(&p, i % 2 ? REGMSG_DISABLED : REGMSG_PAUSED);
	peer_result(&p, 2, 0, "");
	cr_assert_eq(postcopy_ready(handle), -ENOBUFS);
	cr_assert(peer_receive(&p, &m, &fd));
	cr_assert_eq(postcopy_ready(handle), -ENOBUFS);
	cr_assert_not(peer_receive(&p, &m, &fd), "a call that cannot be answered was sent");
	for (unsigned i = 0; i < n; i++)
		next(handle, i % 2 ? POSTCOPY_EVENT_DISABLED : POSTCOPY_EVENT_PAUSED);
	peer_result(&p, 3, EBUSY, "");
	cr_assert_eq(postcopy_ready(handle), -EBUSY,
		     "the answer to call 2 was taken for that to 3");
	nothing_more(handle);
	postcopy_free(handle);
	peer_deinit(&p);
}

/* The answer of a call that gave up belongs to nobody. */
Test(conn, late_answers_are_dropped)
{
	struct postcopy_options o;
	postcopy *handle;
	union regmsg m;
	struct peer p;

	peer_init(&p);
	o = peer_options(&p, POSTCOPY_ROLE_MAIN);
	o.timeout_ms = 20;
	regmsg_init(&m, REGMSG_WELCOME, 1);
	peer_send(&p, &m, -1);
	cr_assert_eq(postcopy_new_fd(&handle, steal_fd(&p.client), &o, NULL), 0);
	p.uffd = -1;
	cr_assert_eq(postcopy_ready(handle), -ETIMEDOUT);
	cr_assert(strstr(postcopy_strerror(handle), "20 ms"));
	peer_result(&p, 2, EINVAL, "late");
	peer_result(&p, 3, EEXIST, "in time");
	cr_assert_eq(postcopy_ready(handle), -EEXIST);
	peer_result(&p, 2, EINVAL, "later still");
	struct postcopy_event e = fresh();
	cr_assert_eq(postcopy_dispatch(handle, &e), 0);
	nothing_more(handle);
	postcopy_free(handle);
	peer_deinit(&p);
}

/* --- the end --- */

Test(conn, end_between_calls)
{
	postcopy *handle;
	struct peer p;

	peer_init(&p);
	handle = peer_welcome(&p, POSTCOPY_ROLE_MAIN);
	peer_event(&p, REGMSG_LISTENING);
	close_fd(&p.sock);
	next(handle, POSTCOPY_EVENT_LISTENING);
	ended(handle, ECONNRESET, "closed");
	postcopy_free(handle);
	peer_deinit(&p);
}

Test(conn, end_during_a_call)
{
	union regmsg m;
	postcopy *handle;
	struct peer p;

	peer_init(&p);
	handle = peer_welcome(&p, POSTCOPY_ROLE_MAIN);
	peer_event(&p, REGMSG_LISTENING);
	regmsg_text(&m, REGMSG_FAILED, 0, EPROTO, "stream is cut at 0x1000");
	peer_send(&p, &m, -1);
	close_fd(&p.sock);
	cr_assert_eq(postcopy_ready(handle), -ECONNRESET);
	next(handle, POSTCOPY_EVENT_LISTENING);
	cr_assert_str_eq(next(handle, POSTCOPY_EVENT_FAILED).text, "stream is cut at 0x1000");
	ended(handle, ECONNRESET, "closed");
	postcopy_free(handle);
	peer_deinit(&p);
}

/* The daemon left without reading what we sent: its last words must not be lost with that. */
Test(conn, end_with_unread_calls)
{
	union regmsg m;
	postcopy *handle;
	struct peer p;

	peer_init(&p);
	handle = peer_welcome(&p, POSTCOPY_ROLE_MAIN);
	cr_assert_eq(postcopy_loaded(handle), 0);
	regmsg_text(&m, REGMSG_FAILED, 0, EIO, "last words");
	peer_send(&p, &m, -1);
	close_fd(&p.sock);
	cr_assert_str_eq(next(handle, POSTCOPY_EVENT_FAILED).text, "last words");
	ended(handle, ECONNRESET, "closed");
	postcopy_free(handle);
	peer_deinit(&p);
}

/* A queue full of events has room for the end. */
Test(conn, end_behind_a_full_queue)
{
	postcopy *handle;
	struct peer p;

	peer_init(&p);
	handle = peer_welcome(&p, POSTCOPY_ROLE_MAIN);
	for (unsigned i = 0; i < CONN_QUEUE - 1; i++)
		peer_event(&p, REGMSG_PAUSED);
	close_fd(&p.sock);
	cr_assert_eq(postcopy_ready(handle), -ECONNRESET);
	for (unsigned i = 0; i < CONN_QUEUE - 1; i++)
		next(handle, POSTCOPY_EVENT_PAUSED);
	ended(handle, ECONNRESET, "closed");
	postcopy_free(handle);
	peer_deinit(&p);
}

/* An application that duplicated the socket does not keep the descriptor readable. */
Test(conn, end_with_a_duplicate_of_the_socket)
{
	cleanup_fd int copy = -1;
	postcopy *handle;
	struct peer p;

	peer_init(&p);
	copy = dup(p.client);
	handle = peer_welcome(&p, POSTCOPY_ROLE_MAIN);
	close_fd(&p.sock);
	ended(handle, ECONNRESET, "closed");
	postcopy_free(handle);
	peer_deinit(&p);
}

/* What cannot be understood ends the connection, with the reason, and takes no descriptor along. */
Test(conn, bad_packets)
{
	static const struct {
		enum regmsg_type type;
		uint32_t serial;
		unsigned cut;
		bool fd;
		int error;
		const char *word;
	} cases[] = {
		{ REGMSG_LISTENING, 0, 1, false, EPROTO, "short" },
		{ REGMSG_LISTENING, 5, 0, false, EBADMSG, "serial" },
		{ REGMSG_LISTENING, 0, 0, true, EPROTO, "LISTENING with a wrong number" },
		{ REGMSG_READY, 5, 0, false, EPROTO, "READY" },
		{ REGMSG_REFUSED, 0, 0, false, EBADMSG, "REFUSED" },
		{ REGMSG_PACKAGE, 0, 0, true, EBADMSG, "PACKAGE" },
	};
	unsigned before = peer_count_fds();

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		postcopy *handle;
		union regmsg m;
		struct peer p;

		peer_init(&p);
		handle = peer_welcome(&p, POSTCOPY_ROLE_MAIN);
		regmsg_init(&m, cases[i].type, cases[i].serial);
		peer_send_raw(&p, &m, m.head.size - cases[i].cut, cases[i].fd ? p.sock : -1);
		ended(handle, cases[i].error, cases[i].word);
		postcopy_free(handle);
		peer_deinit(&p);
		cr_assert_eq(peer_count_fds(), before, "case %zu leaks", i);
	}
}

Test(conn, refused_later_on)
{
	postcopy *handle;
	union regmsg m;
	struct peer p;

	peer_init(&p);
	handle = peer_welcome(&p, POSTCOPY_ROLE_MAIN);
	regmsg_text(&m, REGMSG_REFUSED, 0, EPROTO, "MAPPING before BLOCK");
	peer_send(&p, &m, -1);
	ended(handle, EPROTO, "MAPPING before BLOCK");
	postcopy_free(handle);
	peer_deinit(&p);

	peer_init(&p);
	handle = peer_welcome(&p, POSTCOPY_ROLE_MAIN);
	peer_send(&p, &m, -1);
	cr_assert_eq(postcopy_ready(handle), -EPROTO);
	cr_assert_str_eq(postcopy_strerror(handle), "MAPPING before BLOCK");
	ended(handle, EPROTO, "MAPPING before BLOCK");
	postcopy_free(handle);
	peer_deinit(&p);
}

/* --- waiting --- */

struct slow {
	struct peer *peer;
	unsigned answered;
};

/* Answers three calls, each after a while, with an event in front of the answer. */
static void *slow_daemon(void *arg)
{
	struct slow *s = arg;

	while (s->answered < 3) {
		union regmsg m;
		int fd;

		usleep(20000);
		if (!peer_receive(s->peer, &m, &fd))
			continue;
		peer_event(s->peer, REGMSG_PAUSED);
		usleep(20000);
		peer_result(s->peer, m.head.serial, 0, "");
		s->answered++;
	}
	usleep(20000);
	peer_event(s->peer, REGMSG_COMPLETE);
	return NULL;
}

static void on_alarm(int sig)
{
	(void)sig;
}

/* Answers that take their time, under a storm of signals that interrupt every wait (S1-08). */
Test(conn, waits_through_signals)
{
	const struct itimerval storm = { { 0, 1000 }, { 0, 1000 } }, calm = { { 0, 0 }, { 0, 0 } };
	struct sigaction action = { .sa_handler = on_alarm };
	struct postcopy_event e = fresh();
	struct slow s = { 0 };
	postcopy *handle;
	pthread_t thread;
	struct peer p;

	peer_init(&p);
	handle = peer_welcome(&p, POSTCOPY_ROLE_MAIN);
	s.peer = &p;
	sigaction(SIGALRM, &action, NULL);
	cr_assert_eq(pthread_create(&thread, NULL, slow_daemon, &s), 0);
	setitimer(ITIMER_REAL, &storm, NULL);
	for (unsigned i = 0; i < 3; i++)
		cr_assert_eq(postcopy_ready(handle), 0, "%s", postcopy_strerror(handle));
	for (unsigned i = 0; i < 3; i++)
		next(handle, POSTCOPY_EVENT_PAUSED);
	cr_assert_eq(postcopy_wait(handle, &e, -1), 1);
	cr_assert_eq(e.type, POSTCOPY_EVENT_COMPLETE);
	cr_assert_eq(postcopy_wait(handle, &e, 30), -ETIMEDOUT);
	setitimer(ITIMER_REAL, &calm, NULL);
	pthread_join(thread, NULL);
	cr_assert_eq(s.answered, 3);
	postcopy_free(handle);
	peer_deinit(&p);
}

Test(conn, wait_without_patience)
{
	struct postcopy_event e = fresh();
	postcopy *handle;
	struct peer p;

	peer_init(&p);
	handle = peer_welcome(&p, POSTCOPY_ROLE_MAIN);
	cr_assert_eq(postcopy_wait(handle, &e, 0), -ETIMEDOUT);
	peer_event(&p, REGMSG_RUNNING);
	cr_assert_eq(postcopy_wait(handle, &e, 0), 1);
	cr_assert_eq(e.type, POSTCOPY_EVENT_RUNNING);
	e.size = 0;
	cr_assert_eq(postcopy_wait(handle, &e, -1), -EINVAL);
	postcopy_free(handle);
	peer_deinit(&p);
}

/* A daemon that reads nothing fills the socket: the call gives up in time instead of blocking. */
Test(conn, daemon_that_reads_nothing)
{
	struct postcopy_options o;
	postcopy *handle;
	union regmsg m;
	struct peer p;
	int err = 0;

	peer_init(&p);
	o = peer_options(&p, POSTCOPY_ROLE_MAIN);
	o.timeout_ms = 20;
	regmsg_init(&m, REGMSG_WELCOME, 1);
	peer_send(&p, &m, -1);
	cr_assert_eq(postcopy_new_fd(&handle, steal_fd(&p.client), &o, NULL), 0);
	p.uffd = -1;
	for (unsigned i = 0; i < 10000 && !err; i++)
		err = postcopy_loaded(handle);
	cr_assert_eq(err, -ETIMEDOUT);
	postcopy_free(handle);
	peer_deinit(&p);
}
