/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include <criterion/criterion.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sys/fd.h"
#include "sys/sock.h"

#define RECORD 4104	/* a page and its header: fits a segment of the loopback device */
#define ANSWERS 4
#define ROUNDS 64
#define PATIENCE_MS 10	/* TCP's is 40 */

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
