/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "peer.h"

#include <assert.h>
#include <dirent.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sys/fd.h"
#include "sys/fdpass.h"

#define CHECK(what)                                                                                \
	do {                                                                                       \
		bool ok = what;                                                                    \
		assert(ok);                                                                        \
		(void)ok;                                                                          \
	} while (0)

void peer_init(struct peer *p)
{
	int pair[2];

	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
	p->sock = pair[0];
	p->client = pair[1];
	p->uffd = eventfd(0, EFD_CLOEXEC);
	CHECK(p->uffd >= 0);
}

void peer_deinit(struct peer *p)
{
	close_fd(&p->sock);
	close_fd(&p->client);
	close_fd(&p->uffd);
}

void peer_send_raw(struct peer *p, const void *bytes, size_t len, int fd)
{
	CHECK(fdpass_send(p->sock, bytes, len, &fd, fd >= 0) == (ssize_t)len);
}

void peer_send(struct peer *p, const union regmsg *m, int fd)
{
	peer_send_raw(p, m, m->head.size, fd);
}

void peer_event(struct peer *p, enum regmsg_type type)
{
	union regmsg m;

	regmsg_init(&m, type, 0);
	peer_send(p, &m, -1);
}

void peer_result(struct peer *p, uint32_t serial, int error, const char *text)
{
	union regmsg m;

	regmsg_text(&m, REGMSG_RESULT, serial, error, "%s", text);
	peer_send(p, &m, -1);
}

void peer_package(struct peer *p, const char *body)
{
	cleanup_fd int fd = memfd_create("package", MFD_CLOEXEC);
	size_t len = strlen(body);
	union regmsg m;

	CHECK(write(fd, body, len) == (ssize_t)len);
	regmsg_init(&m, REGMSG_PACKAGE, 0);
	m.package.body_length = len;
	m.package.device_offset = 1;
	m.package.device_length = len - 1;
	peer_send(p, &m, fd);
}

bool peer_receive(struct peer *p, union regmsg *m, int *fd)
{
	cleanup_fdpass struct fdpass fds;
	ssize_t len;

	len = fdpass_recv(p->sock, m, sizeof(*m), &fds);
	*fd = -1;
	if (len <= 0)
		return false;
	CHECK(regmsg_check(m, (size_t)len, NULL) == 0);
	CHECK(fds.n == regmsg_fds(m));
	*fd = fdpass_steal(&fds, 0);
	return true;
}

struct postcopy_options peer_options(const struct peer *p, enum postcopy_role role)
{
	struct postcopy_options o = POSTCOPY_OPTIONS_INIT;

	o.role = role;
	o.name = "vmm";
	o.uffd = p->uffd;
	o.timeout_ms = 2000;
	return o;
}

postcopy *peer_welcome(struct peer *p, enum postcopy_role role)
{
	struct postcopy_options o = peer_options(p, role);
	cleanup_fd int passed = -1;
	postcopy *handle;
	union regmsg m;

	regmsg_init(&m, REGMSG_WELCOME, 1);
	m.welcome.token = 77;
	m.welcome.features = REGMSG_FEATURE_DMA;
	peer_send(p, &m, -1);
	CHECK(postcopy_new_fd(&handle, steal_fd(&p->client), &o, NULL) == 0);
	p->uffd = -1;
	CHECK(peer_receive(p, &m, &passed) && m.head.type == REGMSG_HELLO);
	return handle;
}

unsigned peer_count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	CHECK(dir != NULL);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

bool peer_readable(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	return poll(&pfd, 1, 0) == 1 && (pfd.revents & POLLIN);
}
