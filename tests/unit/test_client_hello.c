/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How a handle comes to be: what HELLO carries, and what comes of every answer to it (F06, F16).
 */
#include "config.h"

#include "postcopy/postcopy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "peer.h"
#include "sys/fd.h"

/* S1-03: what programs were compiled with. */
#if UINTPTR_MAX == UINT64_MAX
#define AT(type, field, offset) \
	_Static_assert(offsetof(struct postcopy_##type, field) == (offset), #type "." #field)
AT(options, role, 4);
AT(options, policy, 8);
AT(options, user_faults_only, 12);
AT(options, name, 16);
AT(options, uffd, 24);
AT(options, timeout_ms, 28);
AT(options, token, 32);
AT(options, backend, 40);
AT(options, reserved, 44);
_Static_assert(sizeof(struct postcopy_options) == 48, "options");
AT(block, fd, 4);
AT(block, name, 8);
AT(block, length, 16);
AT(block, page_size, 24);
AT(block, file_offset, 32);
AT(block, address, 40);
_Static_assert(sizeof(struct postcopy_block) == 48, "block");
AT(event, type, 4);
AT(event, error, 8);
AT(event, package_fd, 12);
AT(event, package_length, 16);
AT(event, device_offset, 24);
AT(event, device_length, 32);
AT(event, text, 40);
AT(event, iova, 296);
AT(event, length, 304);
AT(event, block_offset, 312);
AT(event, directions, 320);
AT(event, dma_flags, 324);
AT(event, gate, 328);
AT(event, block, 392);
_Static_assert(sizeof(struct postcopy_event) == 648, "event");
AT(dma, directions, 4);
AT(dma, flags, 8);
AT(dma, gate, 16);
AT(dma, block, 24);
AT(dma, block_offset, 32);
AT(dma, length, 40);
AT(dma, iova, 48);
_Static_assert(sizeof(struct postcopy_dma) == 56, "dma");
#endif
_Static_assert(POSTCOPY_EVENT_LISTENING == 1 && POSTCOPY_EVENT_DISCONNECTED == 8, "events");
_Static_assert(POSTCOPY_EVENT_DMA_RANGE == 9 && POSTCOPY_EVENT_DMA_OPEN == 10, "events about DMA");

static bool same_file(int a, int b)
{
	struct stat x, y;

	return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev &&
	       x.st_ino == y.st_ino;
}

/* --- hello --- */

static void hello(const struct postcopy_options *o, struct peer *p, union regmsg *sent)
{
	cleanup_fd int passed = -1;
	postcopy *handle = NULL;
	char text[256] = "";
	union regmsg m;

	regmsg_init(&m, REGMSG_WELCOME, 1);
	m.welcome.token = 0x1122334455667788;
	peer_send(p, &m, -1);
	cr_assert_eq(postcopy_new_fd(&handle, steal_fd(&p->client), o, text), 0, "%s", text);
	cr_assert(peer_receive(p, sent, &passed));
	cr_assert_eq(sent->head.type, REGMSG_HELLO);
	cr_assert(same_file(passed, postcopy_uffd(handle)));
	cr_assert_eq(postcopy_token(handle), 0x1122334455667788);
	postcopy_free(handle);
	p->uffd = -1;
}

Test(client_hello, hello_carries_the_options)
{
	struct postcopy_options o;
	union regmsg m;
	struct peer p;

	peer_init(&p);
	o = peer_options(&p, POSTCOPY_ROLE_SHARER);
	o.policy = POSTCOPY_POLICY_IGNORE;
	o.user_faults_only = 1;
	o.token = 99;
	hello(&o, &p, &m);
	cr_assert_eq(m.hello.role, REGMSG_ROLE_SHARER);
	cr_assert_eq(m.hello.policy, REGMSG_POLICY_IGNORE);
	cr_assert_eq(m.hello.flags, 0);
	cr_assert_eq(m.hello.token, 99);
	cr_assert_str_eq(m.hello.name, "vmm");
	peer_deinit(&p);
}

Test(client_hello, hello_has_defaults)
{
	static const struct {
		enum postcopy_role role;
		uint32_t policy;
	} cases[] = {
		{ POSTCOPY_ROLE_MAIN, REGMSG_POLICY_FAIL },
		{ POSTCOPY_ROLE_SHARER, REGMSG_POLICY_DISABLE },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct postcopy_options o;
		union regmsg m;
		struct peer p;

		peer_init(&p);
		o = peer_options(&p, cases[i].role);
		hello(&o, &p, &m);
		cr_assert_eq(m.hello.policy, cases[i].policy);
		cr_assert_eq(m.hello.flags, REGMSG_HELLO_KERNEL);
		cr_assert_eq(m.hello.token, 0);
		peer_deinit(&p);
	}
}

/* The library's own userfaultfd: the handshake is done and it does not block (S1-23). */
Test(client_hello, opens_a_userfaultfd)
{
	struct postcopy_options o;
	postcopy *handle = NULL;
	char link[64] = "", path[64];
	union regmsg m;
	struct peer p;

	peer_init(&p);
	o = peer_options(&p, POSTCOPY_ROLE_MAIN);
	o.uffd = -1;
	o.user_faults_only = 1;
	regmsg_init(&m, REGMSG_WELCOME, 1);
	peer_send(&p, &m, -1);
	cr_assert_eq(postcopy_new_fd(&handle, steal_fd(&p.client), &o, NULL), 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", postcopy_uffd(handle));
	cr_assert_gt(readlink(path, link, sizeof(link) - 1), 0);
	cr_assert_str_eq(link, "anon_inode:[userfaultfd]");
	cr_assert(fcntl(postcopy_uffd(handle), F_GETFL) & O_NONBLOCK);
	cr_assert(fcntl(postcopy_uffd(handle), F_GETFD) & FD_CLOEXEC);
	cr_assert_not(peer_readable(postcopy_uffd(handle)));
	postcopy_free(handle);
	peer_deinit(&p);
}

/*
 * What is no welcome.  Whatever it is: the error is the right one, the text names it, nothing
 * leaks, the socket is closed and the userfaultfd is still the caller's.
 */
static void no_welcome(struct peer *p, int err, const char *word)
{
	struct postcopy_options o = peer_options(p, POSTCOPY_ROLE_MAIN);
	int sock = p->client;
	char text[256] = "";
	postcopy *handle = (postcopy *)p;

	o.timeout_ms = 30;
	cr_assert_eq(postcopy_new_fd(&handle, steal_fd(&p->client), &o, text), err, "%s", text);
	cr_assert_null(handle);
	cr_assert(strstr(text, word), "'%s' does not say '%s'", text, word);
	cr_assert_eq(fcntl(sock, F_GETFD), -1);
	cr_assert_neq(fcntl(p->uffd, F_GETFD), -1);
}

static void answer_refused(struct peer *p)
{
	union regmsg m;

	regmsg_text(&m, REGMSG_REFUSED, 1, EEXIST, "name vmm is taken");
	peer_send(p, &m, -1);
}

/* Refused before it spoke: the connection itself was not welcome. */
static void answer_refused_and_gone(struct peer *p)
{
	union regmsg m;

	regmsg_text(&m, REGMSG_REFUSED, 0, EACCES, "uid 5 may not register");
	peer_send(p, &m, -1);
	close_fd(&p->sock);
}

static void answer_newer_version(struct peer *p)
{
	union regmsg m;

	regmsg_init(&m, REGMSG_WELCOME, 1);
	m.head.version = 2;
	peer_send(p, &m, -1);
}

static void answer_garbage(struct peer *p)
{
	peer_send_raw(p, "HTTP/1.1 400 Bad Request\r\n", 26, -1);
}

static void answer_truncated(struct peer *p)
{
	union regmsg m;

	regmsg_init(&m, REGMSG_WELCOME, 1);
	peer_send_raw(p, &m, m.head.size - 1, -1);
}

static void answer_too_long(struct peer *p)
{
	uint8_t bytes[REGMSG_MAX + 1] = { 0 };

	peer_send_raw(p, bytes, sizeof(bytes), -1);
}

static void answer_result(struct peer *p)
{
	peer_result(p, 1, 0, "");
}

static void answer_call(struct peer *p)
{
	union regmsg m;

	regmsg_init(&m, REGMSG_READY, 1);
	peer_send(p, &m, -1);
}

static void answer_with_descriptor(struct peer *p)
{
	union regmsg m;

	regmsg_init(&m, REGMSG_WELCOME, 1);
	peer_send(p, &m, p->uffd);
}

static void answer_end(struct peer *p)
{
	close_fd(&p->sock);
}

static void answer_nothing(struct peer *p)
{
	(void)p;
}

Test(client_hello, no_welcome)
{
	static const struct {
		void (*answer)(struct peer *p);
		int err;
		const char *word;
	} cases[] = {
		{ answer_refused, -EEXIST, "name vmm is taken" },
		{ answer_refused_and_gone, -EACCES, "uid 5 may not register" },
		{ answer_newer_version, -EPROTONOSUPPORT, "version" },
		{ answer_garbage, -EPROTO, "magic" },
		{ answer_truncated, -EPROTO, "size" },
		{ answer_too_long, -EMSGSIZE, "receive" },
		{ answer_result, -EPROTO, "HELLO with RESULT" },
		{ answer_call, -EPROTO, "READY" },
		{ answer_with_descriptor, -EPROTO, "descriptors" },
		{ answer_end, -ECONNRESET, "closed" },
		{ answer_nothing, -ETIMEDOUT, "30 ms" },
	};
	unsigned before = peer_count_fds();

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct peer p;

		peer_init(&p);
		cases[i].answer(&p);
		no_welcome(&p, cases[i].err, cases[i].word);
		peer_deinit(&p);
		cr_assert_eq(peer_count_fds(), before, "case %zu leaks", i);
	}
}

Test(client_hello, options_that_cannot_be)
{
	char name[65];
	struct {
		uint32_t role, policy;
		const char *name, *word;
		int err;
	} cases[] = {
		{ 0, 0, "vmm", "role", -EINVAL },
		{ 3, 0, "vmm", "role", -EINVAL },
		{ 1, 4, "vmm", "policy", -EINVAL },
		{ 1, 0, NULL, "name", -EINVAL },
		{ 1, 0, "", "name", -EINVAL },
		{ 1, 0, "a\nb", "name", -EINVAL },
		{ 1, 0, name, "63", -ENAMETOOLONG },
	};

	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct postcopy_options o;
		char text[256] = "";
		cleanup_fd int fd = -1;
		postcopy *handle;
		union regmsg m;
		struct peer p;

		peer_init(&p);
		o = peer_options(&p, cases[i].role);
		o.policy = cases[i].policy;
		o.name = cases[i].name;
		cr_assert_eq(postcopy_new_fd(&handle, steal_fd(&p.client), &o, text), cases[i].err);
		cr_assert(strstr(text, cases[i].word), "case %zu: %s", i, text);
		cr_assert_not(peer_receive(&p, &m, &fd));
		peer_deinit(&p);
	}
}

Test(client_hello, socket_must_keep_packets)
{
	struct postcopy_options o;
	postcopy *handle;
	struct peer p;
	int pair[2];

	peer_init(&p);
	o = peer_options(&p, POSTCOPY_ROLE_MAIN);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	cr_assert_eq(postcopy_new_fd(&handle, pair[0], &o, NULL), -EPROTOTYPE);
	cr_assert_eq(fcntl(pair[0], F_GETFD), -1);
	close(pair[1]);
	cr_assert_eq(postcopy_new_fd(&handle, -1, &o, NULL), -EBADF);
	peer_deinit(&p);
}

Test(client_hello, paths)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	cleanup_fd int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	char text[256], longer[200];
	struct postcopy_options o;
	postcopy *handle;
	struct peer p;

	peer_init(&p);
	o = peer_options(&p, POSTCOPY_ROLE_MAIN);
	o.timeout_ms = 30;
	snprintf(addr.sun_path, sizeof(addr.sun_path), "/tmp/test_client.%d", getpid());
	cr_assert_eq(postcopy_new(&handle, addr.sun_path, &o, text), -ENOENT);
	cr_assert(strstr(text, addr.sun_path));
	cr_assert_eq(bind(listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
	cr_assert_eq(postcopy_new(&handle, addr.sun_path, &o, text), -ECONNREFUSED);
	cr_assert_eq(listen(listener, 4), 0);
	cr_assert_eq(postcopy_new(&handle, addr.sun_path, &o, text), -ETIMEDOUT);
	memset(longer, 'a', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	cr_assert_eq(postcopy_new(&handle, longer, &o, NULL), -ENAMETOOLONG);
	cr_assert_null(handle);
	unlink(addr.sun_path);
	peer_deinit(&p);
}

/* --- structs of other versions --- */

Test(client_hello, options_of_other_sizes)
{
	struct {
		struct postcopy_options o;
		uint64_t newer;
	} big;
	char text[256] = "";
	postcopy *handle;
	union regmsg m;
	struct peer p;

	peer_init(&p);
	memset(&big, 0, sizeof(big));
	big.o = peer_options(&p, POSTCOPY_ROLE_MAIN);
	big.o.size = sizeof(big);
	hello(&big.o, &p, &m);
	peer_deinit(&p);

	peer_init(&p);
	big.newer = 1;
	cr_assert_eq(postcopy_new_fd(&handle, steal_fd(&p.client), &big.o, text), -E2BIG);
	cr_assert(strstr(text, "size"));
	peer_deinit(&p);

	/* That of version 0.1.0: what it lacks is zero, whatever lies behind it. */
	peer_init(&p);
	big.o = peer_options(&p, POSTCOPY_ROLE_MAIN);
	big.o.size = offsetof(struct postcopy_options, backend);
	big.o.backend = 1;
	hello(&big.o, &p, &m);
	cr_assert_eq(m.hello.flags & REGMSG_HELLO_UNAWARE, 0);
	peer_deinit(&p);

	peer_init(&p);
	big.o.size = offsetof(struct postcopy_options, backend) - 1;
	cr_assert_eq(postcopy_new_fd(&handle, steal_fd(&p.client), &big.o, text), -EINVAL);
	peer_deinit(&p);
}
