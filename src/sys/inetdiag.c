/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The same facts as getsockopt(TCP_INFO), from NETLINK_SOCK_DIAG: by addresses and not by
 * descriptor.  The connection's descriptor is the fault thread's; a second one here would keep the
 * connection open when that thread closes it, and the peer would not be told.
 *
 * One question, one answer, and the kernel writes the answer while we send the question: nothing
 * waits.  Netlink by hand, as it is one message each way; sys/netpath.c, which has many, uses
 * libnl.
 */
#include "config.h"
#include "sys/inetdiag.h"

#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h> /* not netinet/tcp.h: its struct tcp_info ends too early */
#include <string.h>
#include <unistd.h>

#include "core/guard.h"
#include "sys/ends.h"

struct question {
	struct nlmsghdr head;
	struct inet_diag_req_v2 body;
};

int inetdiag_open(void)
{
	return socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
}

static void put_address(const union ends_address *a, __be32 *address, __be16 *port)
{
	size_t len;
	const void *bytes = ends_bytes(a, &len);

	memcpy(address, bytes, len);
	*port = a->in.sin_port;
}

static int ask(int fd, const struct ends *e)
{
	struct question q = {
		.head = { .nlmsg_len = sizeof(q), .nlmsg_type = SOCK_DIAG_BY_FAMILY,
			  .nlmsg_flags = NLM_F_REQUEST },
		.body = { .sdiag_family = (uint8_t)e->peer.any.sa_family,
			  .sdiag_protocol = IPPROTO_TCP, .idiag_ext = 1 << (INET_DIAG_INFO - 1),
			  .idiag_states = ~0u,
			  .id.idiag_cookie = { INET_DIAG_NOCOOKIE, INET_DIAG_NOCOOKIE } },
	};
	struct inet_diag_sockid *id = &q.body.id;

	put_address(&e->local, id->idiag_src, &id->idiag_sport);
	put_address(&e->peer, id->idiag_dst, &id->idiag_dport);
	if (e->peer.any.sa_family == AF_INET6)
		id->idiag_if = e->peer.in6.sin6_scope_id;
	return send(fd, &q, sizeof(q), 0) < 0 ? -errno : 0;
}

/* A kernel older or newer than our header has less or more of it: what is missing is 0. */
static void take_info(const void *bytes, size_t len, struct inetdiag *out)
{
	struct tcp_info t = { 0 };

	memcpy(&t, bytes, len < sizeof(t) ? len : sizeof(t));
	*out = (struct inetdiag){
		.rtt_us = t.tcpi_rtt, .rttvar_us = t.tcpi_rttvar,
		.retransmits = t.tcpi_total_retrans,
		.retrying = t.tcpi_retransmits, .unacked = t.tcpi_unacked, .probes = t.tcpi_probes,
		.ack_age_ms = t.tcpi_last_ack_recv, .data_age_ms = t.tcpi_last_data_recv,
		.congestion = t.tcpi_ca_state,
	};
}

static int take(const struct nlmsghdr *head, struct inetdiag *out)
{
	const struct nlmsgerr *failed = NLMSG_DATA(head);
	int left = (int)head->nlmsg_len - (int)NLMSG_LENGTH(sizeof(struct inet_diag_msg));
	const struct rtattr *a;

	if (head->nlmsg_type == NLMSG_ERROR)
		return failed->error ? failed->error : -EPROTO;
	if (head->nlmsg_type != SOCK_DIAG_BY_FAMILY || left < 0)
		return -EPROTO;
	a = (const void *)((const char *)NLMSG_DATA(head) + sizeof(struct inet_diag_msg));
	for (; RTA_OK(a, left); a = RTA_NEXT(a, left))
		if (a->rta_type == INET_DIAG_INFO) {
			take_info(RTA_DATA(a), RTA_PAYLOAD(a), out);
			return 0;
		}
	return -ENODATA;
}

/**
 * inetdiag_ask - what TCP knows of the connection between two addresses
 * @fd: of inetdiag_open()
 * @e: of ends_of(), networked
 *
 * Return: 0, -ENOENT (no such connection in this network namespace), or -errno.
 */
int inetdiag_ask(int fd, const struct ends *e, struct inetdiag *out)
{
	union {
		struct nlmsghdr head;
		char bytes[4096];
	} answer;
	ssize_t n;
	int ret = ask(fd, e);

	memset(out, 0, sizeof(*out));
	if (ret < 0)
		return ret;
	n = recv(fd, &answer, sizeof(answer), MSG_DONTWAIT);
	if (n < 0)
		return -errno;
	return NLMSG_OK(&answer.head, (size_t)n) ? take(&answer.head, out) : -EPROTO;
}

uint32_t inetdiag_silence(const struct inetdiag *d)
{
	return d->ack_age_ms < d->data_age_ms ? d->ack_age_ms : d->data_age_ms;
}

bool inetdiag_waits(const struct inetdiag *d)
{
	return d->unacked > 0 || d->probes > 0;
}

const char *inetdiag_congestion(const struct inetdiag *d)
{
	static const char *const names[] = { "open", "disorder", "cwr", "recovery", "loss" };

	return d->congestion < ARRAY_LEN(names) ? names[d->congestion] : "unknown";
}
