/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sockets as the fault thread needs them: what the peer has, and sending without waiting.
 */
#include "config.h"
#include "sys/sock.h"

#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h> /* not netinet/tcp.h: its struct tcp_info ends too early */
#include <netinet/in.h>
#include <netdb.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/**
 * sock_unsent - what the peer has not acknowledged yet
 *
 * SIOCOUTQ: for TCP bytes not acknowledged, for a UNIX socket bytes not read.
 *
 * Return: bytes, or -errno.
 */
int sock_unsent(int fd)
{
	int n = 0;

	return ioctl(fd, SIOCOUTQ, &n) < 0 ? -errno : n;
}

/**
 * sock_ended - has the peer closed its side, as far as the kernel knows now?
 *
 * Bytes it sent before may still be unread.
 */
bool sock_ended(int fd)
{
	struct pollfd end = { .fd = fd, .events = POLLRDHUP };

	return poll(&end, 1, 0) > 0;
}

/**
 * sock_send - send what the socket takes at once
 *
 * Return: bytes, 0 when it takes none now, or -errno.  Never waits, never raises SIGPIPE.
 */
ssize_t sock_send(int fd, const void *buf, size_t len)
{
	ssize_t n = send(fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n >= 0)
		return n;
	return errno == EAGAIN || errno == EINTR ? 0 : -errno;
}

/**
 * sock_acknowledge - acknowledge now what was received and read
 *
 * TCP puts an acknowledgement off by 40 ms where it can, and a peer that has not set TCP_NODELAY
 * sends nothing small meanwhile.  Holds for what was received so far only.  Nothing on UNIX
 * sockets.
 */
void sock_acknowledge(int fd)
{
	int one = 1;

	(void)setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &one, sizeof(one));
}

/**
 * sock_tune - a long-lived connection to another host
 *
 * No delay for small messages (a request is one), and a peer that vanished is noticed within half a
 * minute: QEMU has no heartbeat of its own, and a source that waits for SHUT may say nothing for
 * long.  Each second of rest TCP asks the peer's TCP whether it is there, for whoever looks at what
 * it answers (daemon/linkwatch.c).  Does nothing on UNIX sockets.
 */
void sock_tune(int fd)
{
	static const struct {
		int level, name, value;
	} options[] = {
		{ IPPROTO_TCP, TCP_NODELAY, 1 },
		{ SOL_SOCKET, SO_KEEPALIVE, 1 },
		{ IPPROTO_TCP, TCP_KEEPIDLE, 1 },	/* seconds */
		{ IPPROTO_TCP, TCP_KEEPINTVL, 1 },
		{ IPPROTO_TCP, TCP_KEEPCNT, 30 },
		{ IPPROTO_TCP, TCP_USER_TIMEOUT, 30000 },	/* milliseconds */
	};

	/* Best effort: each of them fails on a UNIX socket, and none is needed for correctness. */
	for (unsigned i = 0; i < sizeof(options) / sizeof(options[0]); i++)
		(void)setsockopt(fd, options[i].level, options[i].name, &options[i].value,
				 sizeof(int));
}

#define BACKLOG_LEAST (1u << 20) /* less costs throughput even where the line takes no time */
#define BACKLOG_MOST  (4u << 20) /* a line that needs more is TCP's to find out about */
#define LINE_BYTES_US 8192	 /* what the fastest line carries in a microsecond */

/**
 * sock_backlog - how many unread bytes are enough to keep a line busy
 * @rtt_us: the time to the peer and back
 *
 * Return: bytes, or 0: leave it to TCP.
 */
unsigned sock_backlog(uint32_t rtt_us)
{
	uint64_t wanted = (uint64_t)rtt_us * LINE_BYTES_US;

	if (wanted > BACKLOG_MOST)
		return 0;
	return wanted < BACKLOG_LEAST ? BACKLOG_LEAST : (unsigned)wanted;
}

/* What this connection needs, by the best round trip it has seen; 0: TCP decides, or it is none. */
static unsigned backlog_of(int fd)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0 ||
	    len < offsetof(struct tcp_info, tcpi_min_rtt) + sizeof(info.tcpi_min_rtt))
		return 0;
	return sock_backlog(info.tcpi_min_rtt);
}

/*
 * The kernel doubles what it is asked for, as it needs some itself.  What it offers the peer does
 * not follow by itself.
 */
static bool set_backlog(int fd, int bytes)
{
	socklen_t len = sizeof(int);
	int granted = 0;

	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) < 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
	return getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &granted, &len) == 0 && granted >= 2 * bytes &&
	       setsockopt(fd, IPPROTO_TCP, TCP_WINDOW_CLAMP, &bytes, sizeof(bytes)) == 0;
}

/**
 * sock_bound_backlog - let no more unread bytes pile up than the line needs
 *
 * A demanded page stands behind everything its source has sent before.  TCP lets that grow to
 * tcp_rmem[2], 32 MiB, once the reader has been slower than the source for a while, however short
 * the line is.  Up to twice of what is needed may be unread, as the kernel sees fit.
 *
 * For a new connection: a buffer made smaller later drops what is under way.
 *
 * Return: is it bounded?  False where the line is long or no TCP, and where the kernel grants less
 * than is needed (net.core.rmem_max, without CAP_NET_ADMIN): TCP goes on by itself then.
 */
bool sock_bound_backlog(int fd)
{
	socklen_t len = sizeof(int);
	int lock = 0, bytes = (int)backlog_of(fd);

	/* Since Linux 5.15 the buffer can be given back to TCP; before, it is not taken. */
	if (bytes == 0 || getsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &lock, &len) < 0)
		return false;
	if (set_backlog(fd, bytes))
		return true;
	lock = 0;
	(void)setsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &lock, sizeof(lock));
	return false;
}

/**
 * sock_peer - "ADDRESS port NUMBER", or that it is a local process
 */
void sock_peer(int fd, char *out, size_t len)
{
	struct sockaddr_storage addr;
	socklen_t addr_len = sizeof(addr);
	char host[96], port[16];

	if (getpeername(fd, (struct sockaddr *)&addr, &addr_len) == 0 &&
	    addr.ss_family != AF_UNIX &&
	    getnameinfo((struct sockaddr *)&addr, addr_len, host, sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV) == 0)
		snprintf(out, len, "%s port %s", host, port);
	else
		snprintf(out, len, "a local process");
}
