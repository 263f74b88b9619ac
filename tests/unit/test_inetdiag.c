/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <linux/tcp.h>
#include <string.h>
#include <unistd.h>

#include "sys/ends.h"
#include "sys/fd.h"
#include "sys/inetdiag.h"

/* Over loopback; with @family AF_INET6 the listener takes IPv4 as well, as ours does. */
static void connected(int family, int fd[2])
{
	union ends_address a = { .in = { .sin_family = AF_INET,
					 .sin_addr = { htonl(INADDR_LOOPBACK) } } };
	union ends_address every = { .in6 = { .sin6_family = AF_INET6 } }, bound;
	cleanup_fd int door = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(bound);

	cr_assert_eq(bind(door, family == AF_INET ? &a.any : &every.any,
			  family == AF_INET ? sizeof(a.in) : sizeof(every.in6)), 0);
	cr_assert_eq(listen(door, 1), 0);
	cr_assert_eq(getsockname(door, &bound.any, &len), 0);
	a.in.sin_port = bound.in.sin_port;
	fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert_eq(connect(fd[0], &a.any, sizeof(a.in)), 0);
	fd[1] = accept4(door, NULL, NULL, SOCK_CLOEXEC);
	cr_assert_geq(fd[1], 0);
}

static void transfer(int from, int to, size_t len)
{
	char bytes[4096];

	memset(bytes, 7, sizeof(bytes));
	for (size_t left = len; left; left -= sizeof(bytes)) {
		cr_assert_eq(send(from, bytes, sizeof(bytes), 0), (ssize_t)sizeof(bytes));
		cr_assert_eq(recv(to, bytes, sizeof(bytes), MSG_WAITALL), (ssize_t)sizeof(bytes));
	}
}

static void says_what_the_socket_says(int family)
{
	cleanup_fd int diag = inetdiag_open();
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);
	struct inetdiag d;
	struct ends e;
	int fd[2];

	connected(family, fd);
	transfer(fd[1], fd[0], 1 << 20);
	transfer(fd[0], fd[1], 4096);
	cr_assert_eq(ends_of(fd[1], &e), 0);
	cr_assert(ends_networked(&e));
	cr_assert_eq(e.local.any.sa_family, AF_INET);
	cr_assert_eq(inetdiag_ask(diag, &e, &d), 0);
	cr_assert_eq(getsockopt(fd[1], IPPROTO_TCP, TCP_INFO, &info, &len), 0);
	cr_assert_eq(d.rtt_us, info.tcpi_rtt);
	cr_assert_eq(d.rttvar_us, info.tcpi_rttvar);
	cr_assert_eq(d.retransmits, info.tcpi_total_retrans);
	cr_assert_gt(d.rtt_us, 0);
	cr_assert_eq(d.unacked, 0);
	cr_assert_not(inetdiag_waits(&d));
	cr_assert_str_eq(inetdiag_congestion(&d), "open");
	cr_assert_leq(inetdiag_silence(&d), info.tcpi_last_data_recv + 60000);
	close(fd[0]);
	close(fd[1]);
}

Test(inetdiag, says_what_the_socket_says)
{
	says_what_the_socket_says(AF_INET);
}

Test(inetdiag, ipv4_on_a_socket_for_every_address)
{
	says_what_the_socket_says(AF_INET6);
}

Test(inetdiag, the_age_of_the_last_word_grows_and_begins_anew)
{
	cleanup_fd int diag = inetdiag_open();
	struct inetdiag early, late, fresh;
	struct ends e;
	int fd[2];

	connected(AF_INET, fd);
	transfer(fd[0], fd[1], 4096);
	cr_assert_eq(ends_of(fd[1], &e), 0);
	cr_assert_eq(inetdiag_ask(diag, &e, &early), 0);
	usleep(300000);
	cr_assert_eq(inetdiag_ask(diag, &e, &late), 0);
	cr_assert_geq(inetdiag_silence(&late), inetdiag_silence(&early) + 200);
	transfer(fd[0], fd[1], 4096);
	cr_assert_eq(inetdiag_ask(diag, &e, &fresh), 0);
	cr_assert_lt(fresh.data_age_ms, late.data_age_ms);
	close(fd[0]);
	close(fd[1]);
}

Test(inetdiag, a_connection_that_is_none)
{
	cleanup_fd int diag = inetdiag_open();
	struct inetdiag d;
	struct ends e;
	int fd[2];

	connected(AF_INET, fd);
	cr_assert_eq(ends_of(fd[1], &e), 0);
	e.peer.in.sin_port ^= 0x1234;
	cr_assert_eq(inetdiag_ask(diag, &e, &d), -ENOENT);
	close(fd[0]);
	close(fd[1]);
}

Test(inetdiag, ends_in_words)
{
	union ends_address in = { .in = { .sin_family = AF_INET, .sin_port = htons(4444),
					  .sin_addr = { htonl(0x0a010203) } } };
	union ends_address in6 = { .in6 = { .sin6_family = AF_INET6, .sin6_port = htons(5),
					    .sin6_addr = IN6ADDR_LOOPBACK_INIT } };
	union ends_address un = { .un = { .sun_family = AF_UNIX, .sun_path = "/a/b" } };
	union ends_address nameless = { .un = { .sun_family = AF_UNIX } };
	char text[ENDS_URI];

	ends_uri(&in, text, sizeof(text));
	cr_assert_str_eq(text, "tcp:10.1.2.3:4444");
	ends_uri(&in6, text, sizeof(text));
	cr_assert_str_eq(text, "tcp:[::1]:5");
	ends_uri(&un, text, sizeof(text));
	cr_assert_str_eq(text, "unix:/a/b");
	ends_uri(&nameless, text, sizeof(text));
	cr_assert_str_eq(text, "");
	ends_text(&un, text, sizeof(text));
	cr_assert_str_eq(text, "");
}

Test(inetdiag, local_sockets_are_no_network)
{
	struct ends e;
	int fd[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
	cr_assert_eq(ends_of(fd[0], &e), 0);
	cr_assert_not(ends_networked(&e));
	close(fd[0]);
	close(fd[1]);
	cr_assert_eq(ends_of(fd[0], &e), -EBADF);
}
