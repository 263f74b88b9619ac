/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include <criterion/criterion.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sys/fd.h"
#include "sys/sock.h"

#define RECORD 4104	/* a page and its header: fits a segment of the loopback device */
#define ANSWERS 4
#define ROUNDS 64
#define PATIENCE_MS 10	/* TCP's is 40 */
#define PIECE	    (256u << 10)
#define PIECES	    256
#define SETTLE	    20

static void connected(int fd[2])
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	cleanup_fd int door = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(addr);

	cr_assert_eq(bind(door, (struct sockaddr *)&addr, len), 0);
	cr_assert_eq(listen(door, 1), 0);
	cr_assert_eq(getsockname(door, (struct sockaddr *)&addr, &len), 0);
	fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert_eq(connect(fd[0], (struct sockaddr *)&addr, len), 0);
	fd[1] = accept4(door, NULL, NULL, SOCK_CLOEXEC);
	cr_assert_geq(fd[1], 0);
}

/* Receive @len bytes, acknowledging each piece; true when the peer held some of it back. */
static bool held_back(int fd, size_t len)
{
	static uint8_t piece[ANSWERS * RECORD];
	struct pollfd more = { .fd = fd, .events = POLLIN };
	bool waited = false;
	ssize_t n;

	for (size_t have = 0; have < len; have += (size_t)n) {
		waited |= poll(&more, 1, PATIENCE_MS) == 0;
		n = recv(fd, piece, sizeof(piece), 0);
		cr_assert_gt(n, 0);
		sock_acknowledge(fd);
	}
	return waited;
}

/*
 * A peer that has not set TCP_NODELAY answers several requests at once: TCP lets it wait for us,
 * unless we acknowledge.
 */
Test(sock, acknowledged_at_once)
{
	static const uint8_t record[RECORD];
	int fd[2], late = 0;

	connected(fd);
	for (int i = 0; i < ROUNDS; i++) {
		for (int answer = 0; answer < ANSWERS; answer++)
			cr_assert_eq(send(fd[0], record, RECORD, 0), RECORD);
		late += held_back(fd[1], ANSWERS * RECORD);
	}
	/* A third to a half of them without; a few may be late by themselves on a busy machine. */
	cr_assert_lt(late, ROUNDS / 8, "%d of %d", late, ROUNDS);
	close(fd[0]);
	close(fd[1]);
}

Test(sock, nothing_to_acknowledge_on_unix_sockets)
{
	int fd[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
	sock_acknowledge(fd[0]);
	cr_assert_eq(send(fd[1], "x", 1, 0), 1);
	close(fd[0]);
	close(fd[1]);
}

/* What the peer can send while nobody reads, after the reader has kept up with it for a while. */
static int backlog(int from, int to)
{
	static uint8_t piece[PIECE];
	int unread = 0;

	for (int i = 0; i < PIECES; i++) {
		while (send(from, piece, sizeof(piece), MSG_DONTWAIT) > 0)
			;
		while (recv(to, piece, sizeof(piece), MSG_DONTWAIT) > 0)
			;
	}
	/* On a busy machine it is on its way for some time. */
	for (int i = 0; i < SETTLE; i++) {
		while (send(from, piece, sizeof(piece), MSG_DONTWAIT) > 0)
			;
		usleep(PATIENCE_MS * 1000);
	}
	cr_assert_eq(ioctl(to, FIONREAD, &unread), 0);
	return unread;
}

static int receive_buffer(int fd)
{
	socklen_t len = sizeof(int);
	int bytes = 0;

	cr_assert_eq(getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, &len), 0);
	return bytes;
}

/* A demanded page stands behind what is unread; TCP's own idea of how much that may be is large. */
Test(sock, backlog_is_bounded_where_the_line_is_short)
{
	int fd[2], unread, granted;

	connected(fd);
	if (!sock_bound_backlog(fd[1]))
		cr_skip_test("the kernel grants no receive buffer of that size");
	granted = receive_buffer(fd[1]);
	cr_assert_leq(granted, 2 * 4 << 20, "%d", granted);
	unread = backlog(fd[0], fd[1]);
	cr_assert_gt(unread, 0);
	cr_assert_leq(unread, granted, "%d of %d", unread, granted);
	cr_assert_eq(receive_buffer(fd[1]), granted, "TCP made it %d", receive_buffer(fd[1]));
	close(fd[0]);
	close(fd[1]);
}

Test(sock, backlog_grows_with_the_line_and_is_tcp_s_beyond)
{
	cr_assert_eq(sock_backlog(0), 1u << 20);
	cr_assert_eq(sock_backlog(20), 1u << 20);
	cr_assert_eq(sock_backlog(256), 2u << 20);
	cr_assert_eq(sock_backlog(512), 4u << 20);
	cr_assert_eq(sock_backlog(513), 0);
	cr_assert_eq(sock_backlog(UINT32_MAX), 0);
}

Test(sock, backlog_of_a_unix_socket_is_not_touched)
{
	int fd[2], before;

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
	before = receive_buffer(fd[0]);
	cr_assert_not(sock_bound_backlog(fd[0]));
	cr_assert_eq(receive_buffer(fd[0]), before);
	close(fd[0]);
	close(fd[1]);
}
