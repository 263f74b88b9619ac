/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A socket that is received from again and again: every byte comes once, in order, where it was
 * last said and only when it was asked for, and its end is told however it comes; on TCP and on
 * UNIX sockets, with the kernel's help and without.
 */
#include "config.h"

#include "sys/ring.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <criterion/criterion.h>

#define MS	1000000ll
#define LONG	(5000 * MS)
#define BYTES	1000000u
#define ROOM	65536u
#define REPEATS 10

static const struct ring_cookie red = { .kind = 1, .index = 7, .generation = 3 };
static const struct ring_cookie blue = { .kind = 2 };

static struct ring *fresh(void)
{
	struct ring *r = NULL;

	cr_assert_eq(ring_new(&r, 8), 0);
	return r;
}

/* TCP over loopback, or a UNIX socket: [0] is the peer's. */
static void make_pair(int sock[2], bool tcp)
{
	struct sockaddr_in addr = { .sin_family = AF_INET };
	socklen_t len = sizeof(addr);
	int listener;

	if (!tcp) {
		cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sock), 0);
		return;
	}
	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listener = socket(AF_INET, SOCK_STREAM, 0);
	cr_assert_eq(bind(listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
	cr_assert_eq(listen(listener, 1), 0);
	cr_assert_eq(getsockname(listener, (struct sockaddr *)&addr, &len), 0);
	sock[0] = socket(AF_INET, SOCK_STREAM, 0);
	cr_assert_eq(connect(sock[0], (struct sockaddr *)&addr, sizeof(addr)), 0);
	sock[1] = accept(listener, NULL, NULL);
	cr_assert_geq(sock[1], 0);
	close(listener);
}

/* Call until something other than "nothing was received" comes of it. */
static int receive_as(struct ring *r, int fd, void *buf, size_t len, struct ring_cookie c)
{
	struct ring_done d = { .result = -EAGAIN };

	for (unsigned i = 0; d.result == -EAGAIN; i++) {
		cr_assert_lt(i, 4, "again and again");
		cr_assert_eq(ring_stream(r, fd, buf, len, c), 0);
		cr_assert_eq(ring_wait(r, &d, 1, LONG), 1, "it waits for ever");
		cr_assert(d.cookie.kind == c.kind && d.cookie.index == c.index &&
			  d.cookie.generation == c.generation);
	}
	return d.result;
}

static int receive(struct ring *r, int fd, void *buf, size_t len)
{
	return receive_as(r, fd, buf, len, red);
}

/* --- the whole of a stream ---------------------------------------------------------------------
 */

/* What byte @at of the stream is: no two places look alike for long. */
static uint8_t stream_byte(uint32_t at)
{
	return (uint8_t)((at * 2654435761u) >> 24);
}

/* In pieces of all sizes, with pauses: some meet a receive that waits, some come before it. */
static void *send_stream(void *arg)
{
	static uint8_t bytes[BYTES];
	uint32_t state = 12345, at = 0;

	for (uint32_t i = 0; i < BYTES; i++)
		bytes[i] = stream_byte(i);
	while (at < BYTES) {
		uint32_t n, left = BYTES - at;
		ssize_t sent;

		state = state * 1103515245u + 12345u;
		n = (state >> 16) % 9000 + 1;
		sent = send(*(int *)arg, &bytes[at], n < left ? n : left, 0);
		if (sent < 0)
			return NULL;
		at += (uint32_t)sent;
		if (state % 3 == 0)
			usleep(20);
	}
	close(*(int *)arg);
	return arg;
}

/*
 * The room differs, so that some receives fill it and others do not, and now and then there is none
 * for a while, which must go unheard.
 */
static void whole_stream(bool tcp)
{
	static uint8_t place[2][ROOM];
	struct ring *r = fresh();
	uint32_t at = 0, calls = 0;
	pthread_t sender;
	int sock[2], result = 1;

	make_pair(sock, tcp);
	cr_assert_eq(pthread_create(&sender, NULL, send_stream, &sock[0]), 0);
	while (result != 0) {
		size_t room = calls % 5 ? ROOM : calls % 3000 + 1;
		uint8_t *to = place[calls & 1];
		struct ring_done d;

		memset(to, 0xee, room);
		if (++calls % 4 == 0)
			cr_assert_eq(ring_wait(r, &d, 1, MS / 10), 0, "not asked for");
		result = receive(r, sock[1], to, room);
		cr_assert(result >= 0 && (size_t)result <= room, "%d", result);
		for (int i = 0; i < result; i++, at++)
			cr_assert_eq(to[i], stream_byte(at), "byte %u", at);
		cr_assert((size_t)result == room || to[result] == 0xee, "beyond its end");
	}
	cr_assert_eq(at, BYTES);
	pthread_join(sender, NULL);
	ring_free(r);
	close(sock[1]);
}

Test(ring_stream, no_byte_is_lost)
{
	for (unsigned i = 0; i < REPEATS; i++) {
		whole_stream(true);
		whole_stream(false);
	}
}

/* Where the kernel refuses what it needs, receives are armed one by one. */
Test(ring_stream, without_the_kernels_help)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_register, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = sizeof(code) / sizeof(code[0]), .filter = code };

	cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	cr_assert_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
	whole_stream(true);
	whole_stream(false);
}

/* --- step by step ------------------------------------------------------------------------------
 */

/* What is more than its room stays in the socket, and so does all for which there is none. */
Test(ring_stream, what_was_asked_for_and_no_more)
{
	struct ring *r = fresh();
	struct ring_done d;
	char buf[8] = "........";
	int sock[2];

	make_pair(sock, true);
	cr_assert_eq(ring_stream(r, sock[1], buf, 2, red), 0);
	cr_assert_eq(ring_wait(r, &d, 1, 0), 0);
	cr_assert_eq(send(sock[0], "abcdef", 6, 0), 6);
	cr_assert_eq(ring_wait(r, &d, 1, LONG), 1);
	cr_assert_eq(d.result, 2);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(ring_wait(r, &d, 1, MS), 0, "the rest is not told");
	cr_assert_eq(receive(r, sock[1], buf + 2, 6), 4);
	cr_assert_eq(memcmp(buf, "abcdef..", 8), 0);
	ring_free(r);
}

/*
 * Bytes met no buffer, which ended the operation; before that is seen the next call is made, which
 * must not wait for ever.
 */
Test(ring_stream, a_call_behind_an_end_that_was_not_seen_yet)
{
	struct ring *r = fresh();
	struct ring_done d;
	char buf[8];
	int sock[2];

	make_pair(sock, true);
	cr_assert_eq(send(sock[0], "a", 1, 0), 1);
	cr_assert_eq(receive(r, sock[1], buf, 8), 1);
	cr_assert_eq(ring_send(r, sock[0], "b", 1, blue), 0);
	cr_assert_eq(ring_send(r, sock[0], "c", 1, blue), 0);
	for (int i = 0; i < 2; i++) {
		cr_assert_eq(ring_wait(r, &d, 1, LONG), 1);
		cr_assert_eq(d.cookie.kind, blue.kind);
	}
	cr_assert_eq(receive(r, sock[1], buf, 8), 2);
	cr_assert_eq(memcmp(buf, "bc", 2), 0);
	ring_free(r);
}

/* Before 6.6 the kernel looked again at once, found no room, and gave up. */
static bool kernel_waits(void)
{
	struct utsname u;
	unsigned major = 0, minor = 0;

	cr_assert_eq(uname(&u), 0);
	cr_assert_eq(sscanf(u.release, "%u.%u", &major, &minor), 2);
	return major > 6 || (major == 6 && minor >= 6);
}

/* The second call has nothing to tell the kernel: a poke finds nothing queued. */
Test(ring_stream, is_armed_once)
{
	struct ring *r = fresh();
	char buf[8];
	int sock[2];

	if (!kernel_waits())
		cr_skip_test("the kernel looks at the socket once more after each receive");
	make_pair(sock, true);
	cr_assert_eq(send(sock[0], "a", 1, 0), 1);
	cr_assert_eq(receive(r, sock[1], buf, 8), 1);
	for (int i = 0; i < 100; i++) {
		uint64_t before = ring_syscalls(r);

		cr_assert_eq(ring_stream(r, sock[1], buf, 8, red), 0);
		cr_assert_eq(ring_poke(r), 0);
		cr_assert_eq(ring_syscalls(r), before);
		cr_assert_eq(send(sock[0], "b", 1, 0), 1);
		cr_assert_eq(receive(r, sock[1], buf, 8), 1);
	}
	ring_free(r);
}

/* --- its end -----------------------------------------------------------------------------------
 */

static void reset(int fd)
{
	struct linger hard = { .l_onoff = 1 };

	cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard)), 0);
	close(fd);
}

static void finish(int fd)
{
	close(fd);
}

static void half_close(int fd)
{
	cr_assert_eq(shutdown(fd, SHUT_WR), 0);
}

/*
 * @parts: what the peer sends; the end comes with the last, and the kernel is not asked between the
 * two, so it hears of both at once.
 */
static void end_with_bytes(bool tcp, unsigned parts, void (*end)(int fd), int expected)
{
	struct ring *r = fresh();
	char buf[8];
	int sock[2];

	make_pair(sock, tcp);
	for (unsigned i = 1; i < parts; i++) {
		cr_assert_eq(send(sock[0], "a", 1, 0), 1);
		cr_assert_eq(receive(r, sock[1], buf, 8), 1);
	}
	cr_assert_eq(ring_stream(r, sock[1], buf, 8, red), 0);
	cr_assert_eq(ring_poke(r), 0);
	if (parts > 0)
		cr_assert_eq(send(sock[0], "b", 1, 0), 1);
	end(sock[0]);
	if (parts > 0)
		cr_assert_eq(receive(r, sock[1], buf, 8), 1, "%u parts", parts);
	cr_assert_eq(receive(r, sock[1], buf, 8), expected, "%u parts", parts);
	cr_assert_eq(receive(r, sock[1], buf, 8), 0, "and it has ended for good");
	ring_free(r);
	close(sock[1]);
}

Test(ring_stream, its_end_comes_with_bytes_or_without)
{
	for (unsigned parts = 0; parts < 4; parts++) {
		end_with_bytes(true, parts, finish, 0);
		end_with_bytes(true, parts, half_close, 0);
		end_with_bytes(true, parts, reset, -ECONNRESET);
		end_with_bytes(false, parts, finish, 0);
		end_with_bytes(false, parts, half_close, 0);
	}
}

/* What is in the socket when it ends comes first, piece by piece. */
Test(ring_stream, bytes_before_the_end)
{
	struct ring *r = fresh();
	char buf[8];
	int sock[2];

	make_pair(sock, false);
	cr_assert_eq(send(sock[0], "a", 1, 0), 1);
	cr_assert_eq(receive(r, sock[1], buf, 8), 1);
	cr_assert_eq(send(sock[0], "bcdef", 5, 0), 5);
	close(sock[0]);
	cr_assert_eq(receive(r, sock[1], buf, 2), 2);
	cr_assert_eq(receive(r, sock[1], buf + 2, 2), 2);
	cr_assert_eq(receive(r, sock[1], buf + 4, 2), 1);
	cr_assert_eq(memcmp(buf, "bcdef", 5), 0);
	cr_assert_eq(receive(r, sock[1], buf, 8), 0);
	ring_free(r);
}

Test(ring_stream, cancelled_and_begun_anew)
{
	struct ring *r = fresh();
	struct ring_done d;
	char buf[8];
	int sock[2];

	make_pair(sock, true);
	cr_assert_eq(ring_stream(r, sock[1], buf, 8, red), 0);
	cr_assert_eq(ring_wait(r, &d, 1, 0), 0);
	cr_assert_eq(ring_cancel(r, red), 0);
	cr_assert_eq(ring_wait(r, &d, 1, LONG), 1);
	cr_assert_eq(d.result, -ECANCELED);
	cr_assert_eq(ring_wait(r, &d, 1, MS), 0, "told once");
	cr_assert_eq(send(sock[0], "a", 1, 0), 1);
	cr_assert_eq(receive(r, sock[1], buf, 8), 1);
	ring_free(r);
}

/* Another socket, and one that is none: plain receives, each as good as any. */
Test(ring_stream, any_other_socket)
{
	struct ring *r = fresh();
	char buf[8];
	int a[2], b[2];

	make_pair(a, true);
	make_pair(b, true);
	cr_assert_eq(send(a[0], "a", 1, 0), 1);
	cr_assert_eq(receive(r, a[1], buf, 8), 1);
	cr_assert_eq(send(b[0], "bb", 2, 0), 2);
	cr_assert_eq(receive_as(r, b[1], buf, 8, blue), 2);
	cr_assert_eq(receive_as(r, -1, buf, 8, blue), -EBADF);
	cr_assert_eq(send(a[0], "ccc", 3, 0), 3);
	cr_assert_eq(receive(r, a[1], buf, 8), 3);
	cr_assert_eq(memcmp(buf, "ccc", 3), 0);
	ring_free(r);
}
