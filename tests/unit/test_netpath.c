/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * In a network namespace of its own, with nothing in it but the loopback device: what each step of
 * the look finds there.  Real interfaces are tests/flow/check-link.py's.
 */
#include "config.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "sys/ends.h"
#include "sys/fd.h"
#include "sys/netpath.h"

static struct ends loopback(void)
{
	struct ends e = { .local.in = { .sin_family = AF_INET,
					.sin_addr = { htonl(INADDR_LOOPBACK) } } };

	e.peer = e.local;
	return e;
}

static void switch_loopback(bool on)
{
	cleanup_fd int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq r = { .ifr_name = "lo" };

	cr_assert_eq(ioctl(fd, SIOCGIFFLAGS, &r), 0);
	r.ifr_flags = (short)(on ? r.ifr_flags | IFF_UP : r.ifr_flags & ~IFF_UP);
	cr_assert_eq(ioctl(fd, SIOCSIFFLAGS, &r), 0);
}

static bool told(struct netpath *n)
{
	struct pollfd p = { .fd = netpath_fd(n), .events = POLLIN };

	return poll(&p, 1, 0) > 0 && netpath_drain(n);
}

/* Criterion gives each test a process of its own, so this leaves nothing behind. */
static struct netpath *alone(void)
{
	struct netpath *n = NULL;

	if (unshare(CLONE_NEWNET) < 0)
		cr_skip_test("needs the right to make a network namespace");
	cr_assert_eq(netpath_new(&n), 0);
	return n;
}

Test(netpath, up_down_and_up_again)
{
	struct netpath *n = alone();
	struct netpath_view v = { 0 };
	struct ends e = loopback();

	switch_loopback(true);
	cr_assert(told(n));
	cr_assert_not(told(n));
	netpath_look(n, &e, &v);
	cr_assert_eq(v.state, NETPATH_UP);
	cr_assert(v.local);
	cr_assert_str_eq(v.interface, "lo");
	cr_assert_str_eq(v.via, "");
	switch_loopback(false);
	cr_assert(told(n));
	netpath_look(n, &e, &v);
	cr_assert_neq(v.state, NETPATH_UP);
	switch_loopback(true);
	netpath_look(n, &e, &v);
	cr_assert_eq(v.state, NETPATH_UP);
	netpath_free(n);
}

Test(netpath, no_address_and_no_route)
{
	struct netpath *n = alone();
	struct netpath_view v = { 0 };
	struct ends e = loopback();

	switch_loopback(true);
	e.peer.in.sin_addr.s_addr = htonl(0x0a000001);
	netpath_look(n, &e, &v);
	cr_assert_eq(v.state, NETPATH_NO_ROUTE);
	e.local = e.peer;
	netpath_look(n, &e, &v);
	cr_assert_eq(v.state, NETPATH_NO_ADDRESS);
	netpath_free(n);
	netpath_free(NULL);
}

Test(netpath, ipv6)
{
	struct netpath *n = alone();
	struct netpath_view v = { 0 };
	struct ends e = { .local.in6 = { .sin6_family = AF_INET6,
					 .sin6_addr = IN6ADDR_LOOPBACK_INIT } };

	switch_loopback(true);
	e.peer = e.local;
	netpath_look(n, &e, &v);
	cr_assert_eq(v.state, NETPATH_UP);
	e.peer.in6.sin6_addr.s6_addr[0] = 0x20;
	netpath_look(n, &e, &v);
	cr_assert_eq(v.state, NETPATH_NO_ROUTE);
	netpath_free(n);
}

/* More events than fit: some are lost, and that counts as one. */
Test(netpath, lost_events_are_noticed)
{
	struct netpath *n = alone();
	int small = 1;

	cr_assert_eq(setsockopt(netpath_fd(n), SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
	for (unsigned i = 0; i < 50; i++)
		switch_loopback(i % 2 == 0);
	cr_assert(told(n));
	cr_assert_not(told(n));
	switch_loopback(true);
	cr_assert(told(n));
	netpath_free(n);
}
