/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The wait point: completions carry their cookies, nothing is lost when a queue is full, waits end
 * in time and survive signals, and the number of system calls it claims is what a tracer counts.
 */
#include "config.h"

#include "sys/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <criterion/criterion.h>

#define MS 1000000ll

static const struct ring_cookie red = { .kind = 1, .index = 7, .generation = 3 };
static const struct ring_cookie blue = { .kind = 2 };

static struct ring *fresh(unsigned entries)
{
	struct ring *r = NULL;

	cr_assert_eq(ring_new(&r, entries), 0);
	return r;
}

static void make_pipe(int ends[2])
{
	cr_assert_eq(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
}

static void make_pair(int sock[2])
{
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock), 0);
}

static int64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

static bool same(struct ring_cookie a, struct ring_cookie b)
{
	return a.kind == b.kind && a.index == b.index && a.generation == b.generation;
}

Test(ring, bad_sizes)
{
	struct ring *r = NULL;

	cr_assert_lt(ring_new(&r, 0), 0);
	cr_assert_lt(ring_new(&r, 1u << 30), 0);
	cr_assert_null(r);
	ring_free(NULL);
}

Test(ring, multishot_poll_tells_each_time)
{
	struct ring *r = fresh(8);
	struct ring_done d[4];
	char byte;
	int p[2];

	make_pipe(p);
	cr_assert_eq(ring_poll(r, p[0], red), 0);
	cr_assert_eq(ring_wait(r, d, 4, 0), 0);
	for (int round = 0; round < 5; round++) {
		cr_assert_eq(write(p[1], "x", 1), 1);
		cr_assert_eq(ring_wait(r, d, 4, -1), 1);
		cr_assert(same(d[0].cookie, red));
		cr_assert(d[0].result & POLLIN);
		cr_assert(d[0].more);
		cr_assert_eq(read(p[0], &byte, 1), 1);
	}
	close(p[1]);
	cr_assert_eq(ring_wait(r, d, 4, -1), 1);
	cr_assert(d[0].result & POLLHUP);
	ring_free(r);
}

Test(ring, cookies_come_back_whole)
{
	static const struct ring_cookie all[] = {
		{ .kind = 0xff, .index = 0xffff, .generation = 0xffffffff },
		{ .kind = 0, .index = 0, .generation = 0 },
		{ .kind = 1, .index = 0x8000, .generation = 0x80000000 },
		{ .kind = 0x80, .spare = 0xff, .index = 1, .generation = 1 },
	};
	struct ring *r = fresh(8);
	struct ring_done d[4];
	int sock[2];

	make_pair(sock);
	for (unsigned i = 0; i < 4; i++) {
		cr_assert_eq(ring_send(r, sock[0], "x", 1, all[i]), 0);
		cr_assert_eq(ring_wait(r, d, 4, -1), 1);
		cr_assert(same(d[0].cookie, all[i]), "cookie %u", i);
		cr_assert_eq(d[0].cookie.spare, 0);
	}
	ring_free(r);
}

Test(ring, send_and_receive)
{
	struct ring *r = fresh(8);
	struct ring_done d[4];
	char buf[16] = "";
	int sock[2];

	make_pair(sock);
	cr_assert_eq(ring_recv(r, sock[1], buf, sizeof(buf), red), 0);
	cr_assert_eq(ring_wait(r, d, 4, 0), 0);
	cr_assert_eq(ring_send(r, sock[0], "request", 7, blue), 0);
	for (int got = 0; got < 2;) {
		int n = ring_wait(r, d, 4, -1);

		cr_assert_gt(n, 0);
		for (int i = 0; i < n; i++) {
			cr_assert_eq(d[i].result, 7);
			cr_assert_not(d[i].more);
		}
		got += n;
	}
	cr_assert_str_eq(buf, "request");
	close(sock[0]);
	cr_assert_eq(ring_recv(r, sock[1], buf, sizeof(buf), red), 0);
	cr_assert_eq(ring_wait(r, d, 4, -1), 1);
	cr_assert_eq(d[0].result, 0, "the end");
	cr_assert_eq(ring_send(r, sock[1], "x", 1, red), 0);
	cr_assert_eq(ring_wait(r, d, 4, -1), 1);
	cr_assert_eq(d[0].result, -EPIPE, "and no SIGPIPE");
	cr_assert_eq(ring_recv(r, -1, buf, 1, red), 0);
	cr_assert_eq(ring_wait(r, d, 4, -1), 1);
	cr_assert_eq(d[0].result, -EBADF);
	ring_free(r);
}

/* Collect until nothing comes for a while; how many were cancelled. */
static unsigned cancelled(struct ring *r, struct ring_cookie c)
{
	struct ring_done d[8];
	unsigned hits = 0;
	int n;

	while ((n = ring_wait(r, d, 8, 20 * MS)) > 0)
		for (int i = 0; i < n; i++) {
			cr_assert(same(d[i].cookie, c), "only this cookie ends");
			cr_assert_eq(d[i].result, -ECANCELED);
			cr_assert_not(d[i].more);
			hits++;
		}
	cr_assert_eq(n, 0);
	return hits;
}

Test(ring, cancel_ends_all_of_a_cookie_and_nothing_else)
{
	struct ring *r = fresh(8);
	int a[2], b[2], c[2];

	make_pipe(a);
	make_pipe(b);
	make_pipe(c);
	cr_assert_eq(ring_poll(r, a[0], red), 0);
	cr_assert_eq(ring_poll(r, b[0], red), 0);
	cr_assert_eq(ring_poll(r, c[0], blue), 0);
	cr_assert_eq(ring_cancel(r, red), 0);
	cr_assert_eq(cancelled(r, red), 2);
	cr_assert_eq(ring_cancel(r, red), 0);
	cr_assert_eq(cancelled(r, red), 0, "nothing left: no report");
	cr_assert_eq(ring_cancel(r, blue), 0);
	cr_assert_eq(cancelled(r, blue), 1);
	ring_free(r);
}

Test(ring, cancel_tells_generations_apart)
{
	struct ring_cookie older = red, newer = red;
	struct ring *r = fresh(8);
	int p[2];

	newer.generation++;
	make_pipe(p);
	cr_assert_eq(ring_poll(r, p[0], newer), 0);
	cr_assert_eq(ring_cancel(r, older), 0);
	cr_assert_eq(cancelled(r, older), 0);
	cr_assert_eq(ring_cancel(r, newer), 0);
	cr_assert_eq(cancelled(r, newer), 1);
	ring_free(r);
}

Test(ring, timeouts)
{
	struct ring *r = fresh(8);
	struct ring_done d;
	int64_t begin = clock_ns();
	int p[2];

	make_pipe(p);
	cr_assert_eq(ring_poll(r, p[0], red), 0);
	cr_assert_eq(ring_wait(r, &d, 1, 30 * MS), 0);
	cr_assert_geq(clock_ns() - begin, 30 * MS);
	cr_assert_eq(ring_wait(r, &d, 1, 0), 0);
	cr_assert_eq(ring_wait(r, &d, 1, 1), 0);
	cr_assert_eq(write(p[1], "x", 1), 1);
	cr_assert_eq(ring_wait(r, &d, 1, INT64_MAX), 1, "a deadline beyond the clock is none");
	ring_free(r);
}

static void on_alarm(int sig)
{
	(void)sig;
}

/* A signal every 2 ms neither ends a wait early nor makes it endless. */
Test(ring, signals_do_not_end_a_wait)
{
	struct itimerval often = { .it_interval.tv_usec = 2000, .it_value.tv_usec = 2000 };
	struct sigaction sa = { .sa_handler = on_alarm };
	struct ring *r = fresh(8);
	struct ring_done d;
	int64_t begin;
	int p[2];

	make_pipe(p);
	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	begin = clock_ns();
	cr_assert_eq(ring_poll(r, p[0], red), 0);
	cr_assert_eq(ring_wait(r, &d, 1, 50 * MS), 0);
	cr_assert_geq(clock_ns() - begin, 50 * MS);
	ring_free(r);
}

static void *write_later(void *arg)
{
	struct timespec later = { .tv_nsec = 20 * MS };

	nanosleep(&later, NULL);
	return write(*(int *)arg, "x", 1) == 1 ? arg : NULL;
}

Test(ring, endless_wait_ends_with_a_completion)
{
	struct itimerval often = { .it_interval.tv_usec = 2000, .it_value.tv_usec = 2000 };
	struct sigaction sa = { .sa_handler = on_alarm };
	struct ring *r = fresh(8);
	struct ring_done d;
	pthread_t writer;
	void *wrote;
	int p[2];

	make_pipe(p);
	sigaction(SIGALRM, &sa, NULL);
	cr_assert_eq(pthread_create(&writer, NULL, write_later, &p[1]), 0);
	setitimer(ITIMER_REAL, &often, NULL);
	cr_assert_eq(ring_poll(r, p[0], red), 0);
	cr_assert_eq(ring_wait(r, &d, 1, -1), 1);
	cr_assert(d.result & POLLIN);
	setitimer(ITIMER_REAL, &(struct itimerval){ 0 }, NULL);
	pthread_join(writer, &wrote);
	cr_assert_not_null(wrote);
	ring_free(r);
}

/* Twenty times what the queue holds: queueing hands a full queue over by itself. */
Test(ring, full_queue_loses_nothing)
{
	struct ring *r = fresh(4);
	struct ring_done d[16];
	bool seen[80] = { false };
	unsigned total = 0;
	int sock[2];

	make_pair(sock);
	for (uint16_t i = 0; i < 80; i++) {
		struct ring_cookie c = { .kind = 9, .index = i };

		cr_assert_eq(ring_send(r, sock[0], "x", 1, c), 0, "operation %u", i);
	}
	while (total < 80) {
		int n = ring_wait(r, d, 16, 1000 * MS);

		cr_assert_gt(n, 0, "only %u of 80", total);
		for (int i = 0; i < n; i++) {
			cr_assert_eq(d[i].result, 1);
			cr_assert_not(seen[d[i].cookie.index]);
			seen[d[i].cookie.index] = true;
		}
		total += (unsigned)n;
	}
	cr_assert_eq(ring_wait(r, d, 16, 0), 0);
	ring_free(r);
}

Test(ring, what_is_there_costs_no_system_call)
{
	struct ring *r = fresh(8);
	struct ring_done d;
	uint64_t before;
	int sock[2];

	make_pair(sock);
	for (unsigned i = 0; i < 5; i++)
		cr_assert_eq(ring_send(r, sock[0], "x", 1, red), 0);
	cr_assert_eq(ring_syscalls(r), 0, "queueing is free");
	cr_assert_eq(ring_wait(r, &d, 1, -1), 1);
	before = ring_syscalls(r);
	cr_assert_eq(before, 1, "one enter for five sends");
	for (unsigned i = 0; i < 4; i++)
		cr_assert_eq(ring_wait(r, &d, 1, -1), 1);
	cr_assert_eq(ring_wait(r, &d, 1, 0), 0);
	cr_assert_eq(ring_syscalls(r), before);
	ring_free(r);
}

Test(ring, ready_without_a_system_call)
{
	struct ring *r = fresh(8);
	struct ring_done d;
	uint64_t before;
	int p[2];

	make_pipe(p);
	cr_assert_not(ring_ready(r));
	cr_assert_eq(ring_poll(r, p[0], red), 0);
	cr_assert_eq(ring_poke(r), 0);
	cr_assert_eq(ring_poke(r), 0, "nothing queued");
	before = ring_syscalls(r);
	cr_assert_eq(before, 1);
	cr_assert_not(ring_ready(r));
	cr_assert_eq(write(p[1], "x", 1), 1);
	cr_assert(ring_ready(r));
	cr_assert_eq(ring_syscalls(r), before);
	cr_assert_eq(ring_wait(r, &d, 1, 0), 1);
	cr_assert_leq(ring_syscalls(r), before + 1);
	cr_assert_not(ring_ready(r));
	ring_free(r);
}

/* --- the count, checked by a tracer ------------------------------------------------------------
 */

static void expect_or_die(bool ok)
{
	if (!ok)
		_exit(99);
}

/* Every kind of wait there is; the count goes out by the pipe. */
static void traced(int out)
{
	struct itimerval often = { .it_interval.tv_usec = 1000, .it_value.tv_usec = 1000 };
	struct sigaction sa = { .sa_handler = on_alarm };
	struct ring_done d[8];
	struct ring *r = NULL;
	uint64_t count;
	int p[2], sock[2];
	char buf[8];

	expect_or_die(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
	expect_or_die(ring_new(&r, 4) == 0 && pipe2(p, O_CLOEXEC) == 0);
	expect_or_die(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock) == 0);
	raise(SIGSTOP);
	expect_or_die(ring_poll(r, p[0], red) == 0);
	expect_or_die(ring_wait(r, d, 8, 0) == 0);
	expect_or_die(ring_wait(r, d, 8, 0) == 0);
	expect_or_die(ring_wait(r, d, 8, 3 * MS) == 0);
	for (unsigned i = 0; i < 11; i++)
		expect_or_die(ring_send(r, sock[0], "x", 1, blue) == 0);
	for (int got = 0; got < 11;)
		got += ring_wait(r, d, 2, -1);
	expect_or_die(ring_recv(r, sock[1], buf, 8, red) == 0 && ring_wait(r, d, 8, MS) == 1);
	expect_or_die(write(p[1], "x", 1) == 1 && ring_wait(r, d, 8, 0) == 1);
	expect_or_die(ring_cancel(r, red) == 0 && ring_wait(r, d, 8, -1) == 1);
	expect_or_die(sigaction(SIGALRM, &sa, NULL) == 0 &&
		      setitimer(ITIMER_REAL, &often, NULL) == 0);
	expect_or_die(ring_wait(r, d, 8, 20 * MS) == 0);
	expect_or_die(setitimer(ITIMER_REAL, &(struct itimerval){ 0 }, NULL) == 0);
	count = ring_syscalls(r);
	expect_or_die(write(out, &count, sizeof(count)) == sizeof(count));
	_exit(0);
}

/* Run the child from its SIGSTOP to its end; how often it entered the ring. */
static uint64_t trace(pid_t child)
{
	struct __ptrace_syscall_info info;
	uint64_t enters = 0;
	int status, sig = 0;

	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFSTOPPED(status));
	ptrace(PTRACE_SETOPTIONS, child, NULL, (void *)(PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL));
	for (;;) {
		cr_assert_eq(ptrace(PTRACE_SYSCALL, child, NULL, (void *)(long)sig), 0);
		cr_assert_eq(waitpid(child, &status, 0), child);
		if (!WIFSTOPPED(status))
			break;
		sig = WSTOPSIG(status);
		if (sig != (SIGTRAP | 0x80))
			continue;
		sig = 0;
		cr_assert_gt(ptrace(PTRACE_GET_SYSCALL_INFO, child, (void *)sizeof(info), &info),
			     0);
		if (info.op == PTRACE_SYSCALL_INFO_ENTRY && info.entry.nr == SYS_io_uring_enter)
			enters++;
	}
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", (unsigned)status);
	return enters;
}

Test(ring, count_is_what_a_tracer_sees)
{
	uint64_t claimed = 0, seen;
	pid_t child;
	int out[2];

	make_pipe(out);
	child = fork();
	if (child == 0)
		traced(out[1]);
	seen = trace(child);
	cr_assert_eq(read(out[0], &claimed, sizeof(claimed)), sizeof(claimed));
	cr_assert_eq(seen, claimed, "the tracer saw %lu, the ring says %lu", (unsigned long)seen,
		     (unsigned long)claimed);
	cr_assert_geq(claimed, 10);
}
