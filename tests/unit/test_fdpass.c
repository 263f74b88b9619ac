/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Messages with descriptors: what is received is owned or closed, never leaked (design.md 7, rule
 * 8); truncation of either part refuses the whole message.
 */
#include "config.h"

#include "sys/fdpass.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <dirent.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <criterion/criterion.h>

#include "sys/fd.h"

static unsigned open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	cr_assert_not_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void pair(int sock[2])
{
	cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock), 0);
}

static bool same_file(int a, int b)
{
	struct stat sa, sb;

	return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 && sa.st_dev == sb.st_dev &&
	       sa.st_ino == sb.st_ino;
}

Test(fdpass, bytes_and_descriptors_arrive)
{
	cleanup_fdpass struct fdpass got;
	int sock[2], sent[2];
	char buf[16];

	fdpass_init(&got);
	pair(sock);
	cr_assert_eq(pipe2(sent, O_CLOEXEC), 0);
	cr_assert_eq(fdpass_send(sock[0], "hello", 5, sent, 2), 5);
	cr_assert_eq(fdpass_recv(sock[1], buf, sizeof(buf), &got), 5);
	cr_assert_eq(memcmp(buf, "hello", 5), 0);
	cr_assert_eq(got.n, 2);
	for (unsigned i = 0; i < 2; i++) {
		cr_assert(same_file(got.fd[i], sent[i]));
		cr_assert(fcntl(got.fd[i], F_GETFD) & FD_CLOEXEC);
	}
}

Test(fdpass, as_many_as_fit)
{
	int sock[2], all[FDPASS_MAX + 1];
	struct fdpass got;
	char c;

	pair(sock);
	for (unsigned i = 0; i <= FDPASS_MAX; i++)
		all[i] = sock[0];
	cr_assert_eq(fdpass_send(sock[0], "x", 1, all, FDPASS_MAX + 1), -EINVAL);
	cr_assert_eq(fdpass_send(sock[0], "x", 1, all, FDPASS_MAX), 1);
	cr_assert_eq(fdpass_recv(sock[1], &c, 1, &got), 1);
	cr_assert_eq(got.n, FDPASS_MAX);
	fdpass_close(&got);
}

Test(fdpass, no_descriptors_is_an_empty_set)
{
	struct fdpass got;
	int sock[2];
	char c;

	pair(sock);
	cr_assert_eq(fdpass_send(sock[0], "x", 1, NULL, 0), 1);
	cr_assert_eq(fdpass_recv(sock[1], &c, 1, &got), 1);
	cr_assert_eq(got.n, 0);
	cr_assert_eq(fdpass_steal(&got, 0), -1);
}

Test(fdpass, long_message_is_refused_and_closed)
{
	struct fdpass got;
	unsigned before;
	int sock[2];
	char buf[4];

	pair(sock);
	before = open_fds();
	cr_assert_eq(fdpass_send(sock[0], "too long", 8, sock, 2), 8);
	cr_assert_eq(fdpass_recv(sock[1], buf, sizeof(buf), &got), -EMSGSIZE);
	cr_assert_eq(got.n, 0);
	cr_assert_eq(open_fds(), before);
}

/* A hostile peer does not use our fdpass_send(). */
static void send_raw(int sock, unsigned n_fds)
{
	char control[CMSG_SPACE(16 * sizeof(int))] = { 0 };
	struct iovec iov = { .iov_base = "x", .iov_len = 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control };
	struct cmsghdr *c = (struct cmsghdr *)control;

	msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
	for (unsigned i = 0; i < n_fds; i++)
		memcpy(CMSG_DATA(c) + i * sizeof(int), &sock, sizeof(int));
	cr_assert_eq(sendmsg(sock, &msg, 0), 1);
}

Test(fdpass, too_many_descriptors_are_refused_and_closed)
{
	unsigned before;
	int sock[2];
	char c;

	pair(sock);
	before = open_fds();
	for (unsigned n = FDPASS_MAX + 1; n <= 16; n++) {
		struct fdpass got;

		send_raw(sock[0], n);
		cr_assert_eq(fdpass_recv(sock[1], &c, 1, &got), -EMSGSIZE, "%u descriptors", n);
		cr_assert_eq(got.n, 0);
		cr_assert_eq(open_fds(), before, "%u descriptors leaked", n);
	}
}

/* A zero-length packet looks like the end; a descriptor that rides on it must not stay. */
Test(fdpass, empty_packet_reads_as_eof_and_leaks_nothing)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct msghdr msg = { .msg_control = control, .msg_controllen = sizeof(control) };
	struct cmsghdr *c = (struct cmsghdr *)control;
	struct fdpass got;
	unsigned before;
	int sock[2];
	char buf[4];

	pair(sock);
	before = open_fds();
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), sock, sizeof(int));
	cr_assert_eq(sendmsg(sock[0], &msg, 0), 0);
	cr_assert_eq(fdpass_recv(sock[1], buf, sizeof(buf), &got), 0);
	cr_assert_eq(open_fds(), before);
	cr_assert_eq(fdpass_send(sock[0], "", 0, NULL, 0), -EINVAL);
}

Test(fdpass, end_and_nothing_there)
{
	struct fdpass got;
	int sock[2];
	char buf[4];

	pair(sock);
	cr_assert_eq(fdpass_recv(sock[1], buf, sizeof(buf), &got), -EAGAIN);
	close(sock[0]);
	cr_assert_eq(fdpass_recv(sock[1], buf, sizeof(buf), &got), 0);
	cr_assert_eq(fdpass_send(sock[1], "x", 1, NULL, 0), -EPIPE, "and no SIGPIPE");
	cr_assert_eq(fdpass_recv(-1, buf, sizeof(buf), &got), -EBADF);
}

Test(fdpass, full_socket_is_eagain)
{
	static const char packet[1024];
	ssize_t n = 0;
	int sock[2];

	pair(sock);
	for (unsigned i = 0; i < 100000 && n >= 0; i++)
		n = fdpass_send(sock[0], packet, sizeof(packet), NULL, 0);
	cr_assert_eq(n, -EAGAIN);
}

Test(fdpass, steal_once_close_twice)
{
	struct fdpass got;
	int sock[2], taken;
	unsigned before;
	char c;

	pair(sock);
	before = open_fds();
	cr_assert_eq(fdpass_send(sock[0], "x", 1, sock, 2), 1);
	cr_assert_eq(fdpass_recv(sock[1], &c, 1, &got), 1);
	taken = fdpass_steal(&got, 1);
	cr_assert_geq(taken, 0);
	cr_assert_eq(fdpass_steal(&got, 1), -1);
	cr_assert_eq(fdpass_steal(&got, 7), -1);
	fdpass_close(&got);
	fdpass_close(&got);
	cr_assert_geq(fcntl(taken, F_GETFD), 0, "a stolen descriptor stays open");
	close(taken);
	cr_assert_eq(open_fds(), before);
}

Test(fdpass, peer_credentials)
{
	struct fdpass_peer peer;
	cleanup_fd int lone = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	int sock[2];

	pair(sock);
	cr_assert_eq(fdpass_peer(sock[1], &peer), 0);
	cr_assert_eq(peer.pid, getpid());
	cr_assert_eq(peer.uid, geteuid());
	cr_assert_eq(peer.gid, getegid());
	cr_assert_eq(fdpass_peer(lone, &peer), -ENOTCONN);
	cr_assert_eq(fdpass_peer(-1, &peer), -EBADF);
}
