/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Messages through a socket: in any pieces, with their descriptors, and what may not come.  (P10,
 * F21)
 */
#include "config.h"

#include "daemon/vhost_frame.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "core/guard.h"

struct pair {
	int a, b;
};

static struct pair connect_pair(void)
{
	int sv[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv), 0);
	return (struct pair){ sv[0], sv[1] };
}

/* Send @len bytes with @n descriptors of standard input. */
static void push(int sock, const void *data, size_t len, unsigned n)
{
	struct iovec iov = { .iov_base = (void *)data, .iov_len = len };
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(16 * sizeof(int))];
	} control = { 0 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (n) {
		struct cmsghdr *c = &control.align;

		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(n * sizeof(int));
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n * sizeof(int));
		for (unsigned i = 0; i < n; i++)
			((int *)(void *)CMSG_DATA(c))[i] = STDIN_FILENO;
	}
	cr_assert_eq(sendmsg(sock, &msg, 0), (ssize_t)len);
}

static void table(struct vhostmsg *m, unsigned n)
{
	vhostmsg_ask(m, VHOSTMSG_SET_MEM_TABLE, VHOSTMSG_NEED_REPLY);
	for (unsigned i = 0; i < n; i++)
		vhostmsg_add_region(m, &(struct vhostmsg_region){ .gpa = i * 8192, .size = 4096 });
}

static unsigned open_fds(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* Byte by byte, and back again: what comes out is what went in. */
Test(vhost_frame, P10_any_pieces)
{
	struct pair in = connect_pair(), out = connect_pair();
	struct vhost_frame *f = vhost_frame_new();
	uint8_t raw[256], echo[256];
	const char *why = "";
	struct vhostmsg m;
	unsigned before;
	size_t len;

	table(&m, 3);
	len = sizeof(m.head) + m.head.size;
	memcpy(raw, &m.head, sizeof(m.head));
	memcpy(raw + sizeof(m.head), &m.body, m.head.size);
	before = open_fds();
	for (size_t i = 0; i < len; i++) {
		push(in.a, raw + i, 1, i == 0 ? 3 : 0);
		cr_assert_eq(vhost_frame_recv(f, in.b, false, &why), i == len - 1, "%s", why);
	}
	cr_assert_eq(f->m.fds, 3);
	cr_assert_eq(open_fds(), before + 3);
	f->done = 0;
	cr_assert_eq(vhost_frame_send(f, out.a), 1);
	cr_assert_eq(recv(out.b, echo, sizeof(echo), MSG_DONTWAIT), (ssize_t)len);
	cr_assert_eq(memcmp(raw, echo, len), 0);
	vhost_frame_free(f);
	cr_assert_eq(open_fds(), before);
}

Test(vhost_frame, two_at_once)
{
	struct pair p = connect_pair();
	struct vhost_frame *f = vhost_frame_new();
	const char *why = "";
	uint8_t raw[64];
	struct vhostmsg m;

	vhostmsg_ask_u64(&m, VHOSTMSG_SET_FEATURES, 0, 5);
	memcpy(raw, &m.head, 12);
	memcpy(raw + 12, &m.body, 8);
	vhostmsg_ask(&m, VHOSTMSG_GET_FEATURES, 0);
	memcpy(raw + 20, &m.head, 12);
	push(p.a, raw, 32, 0);
	cr_assert_eq(vhost_frame_recv(f, p.b, false, &why), 1);
	cr_assert_eq(f->m.body.u64, 5);
	vhost_frame_clear(f);
	cr_assert_eq(vhost_frame_recv(f, p.b, false, &why), 1);
	cr_assert_eq(f->m.head.request, (uint32_t)VHOSTMSG_GET_FEATURES);
	vhost_frame_clear(f);
	cr_assert_eq(vhost_frame_recv(f, p.b, false, &why), 0);
	close(p.a);
	cr_assert_eq(vhost_frame_recv(f, p.b, false, &why), -ECONNRESET);
	vhost_frame_free(f);
}

static void refuses(const void *data, size_t first, unsigned fds, size_t rest, unsigned more)
{
	struct pair p = connect_pair();
	struct vhost_frame *f = vhost_frame_new();
	unsigned before = open_fds();
	const char *why = NULL;
	int ret;

	push(p.a, data, first, fds);
	if (rest)
		push(p.a, (const uint8_t *)data + first, rest, more);
	ret = vhost_frame_recv(f, p.b, false, &why);
	cr_assert_lt(ret, 0, "accepted");
	cr_assert_not_null(why);
	vhost_frame_free(f);
	cr_assert_eq(open_fds(), before, "descriptors are left");
	close(p.a);
	close(p.b);
}

Test(vhost_frame, P10_refuses)
{
	uint8_t raw[600] = { 0 };
	struct vhostmsg m;

	table(&m, 3);
	memcpy(raw, &m.head, 12);
	memcpy(raw + 12, &m.body, m.head.size);
	refuses(raw, 12, 3, 8, 1);	/* descriptors with the body */
	refuses(raw, 12, 9, 0, 0);	/* too many */
	memcpy(raw, (uint32_t[]){ 5, 1, VHOSTMSG_BODY_MAX + 1 }, 12);
	refuses(raw, 12, 0, 0, 0);
	memcpy(raw, (uint32_t[]){ 5, 2, 8 }, 12);
	refuses(raw, 12, 1, 0, 0);
	memcpy(raw, (uint32_t[]){ 200, 1, 8 }, 12);
	refuses(raw, 12, 0, 0, 0);
}

/* A socket that is full takes the rest later, its descriptors once. */
Test(vhost_frame, goes_in_parts)
{
	struct pair p = connect_pair();
	struct vhost_frame *f = vhost_frame_new(), *got = vhost_frame_new();
	static uint8_t junk[4096];
	const char *why = "";
	int ret;

	while (send(p.a, junk, sizeof(junk), MSG_DONTWAIT) > 0)
		;
	table(&f->m, 8);
	f->m.fds = 8;
	for (unsigned i = 0; i < 8; i++)
		f->fd[i] = dup(STDIN_FILENO);
	cr_assert_eq(vhost_frame_send(f, p.a), 0);
	while (recv(p.b, junk, sizeof(junk), MSG_DONTWAIT) > 0)
		;
	ret = vhost_frame_send(f, p.a);
	cr_assert_eq(ret, 1);
	cr_assert_eq(vhost_frame_recv(got, p.b, false, &why), 1, "%s", why);
	cr_assert_eq(got->m.fds, 8);
	cr_assert_eq(memcmp(&got->m.body, &f->m.body, f->m.head.size), 0);
	vhost_frame_free(f);
	vhost_frame_free(got);
}

Test(vhost_frame, copy_has_its_own)
{
	struct vhost_frame *f = vhost_frame_new(), *copy;

	table(&f->m, 1);
	f->m.fds = 1;
	f->fd[0] = dup(STDIN_FILENO);
	copy = vhost_frame_copy(f);
	cr_assert_neq(copy->fd[0], f->fd[0]);
	vhost_frame_free(f);
	cr_assert_geq(fcntl(copy->fd[0], F_GETFD), 0);
	vhost_frame_free(copy);
}
