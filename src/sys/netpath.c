/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a packet to the peer would meet: the local address must be ours, a route must lead to the
 * peer, its interface be switched on and have a carrier, and the next hop not have been looked for
 * in vain.  The kernel answers each of these for one address, so nothing is kept here and no table
 * is read: a host may have a hundred thousand routes.
 *
 * Events only say that it is time to look.  So it does not matter which of them came, in what
 * order, or whether some were lost (ENOBUFS): one look sets everything right.
 *
 * Two sockets: on one events come at any time and are never waited for; on the other a question is
 * asked, whose answer the kernel has written by the time that the question is sent.
 *
 * An interface that was removed or switched off takes its routes with it, and an address that was
 * removed those that need it.  What was the interface before is looked at first then: "switched
 * off" says more than "no route".
 *
 * A neighbour is FAILED once it did not answer, and INCOMPLETE while it is asked again, which every
 * packet brings about: what was FAILED is until there is an answer.
 */
#include "config.h"
#include "sys/netpath.h"

#include <errno.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <netlink/netlink.h>
#include <netlink/route/link.h>
#include <netlink/route/neighbour.h>
#include <netlink/route/nexthop.h>
#include <netlink/route/route.h>

#include "core/guard.h"

#define EVENT_BYTES (1 << 20)	/* of events that wait for us: some thousands */
#define EVENTS_AT_ONCE 4096	/* the main loop has others to look after */
#define LOSSES_AT_ONCE 4

struct netpath {
	struct nl_sock *events, *questions;
	unsigned seen;		/* events, in the drain that goes on */
};

/* What a question brought. */
struct reply {
	int (*take)(struct nlmsghdr *head, void *out);
	void *out;
	int error;		/* 0, or -errno as the kernel said it */
};

/* --- events ----------------------------------------------------------------------------------- */

static int count_event(struct nl_msg *msg, void *arg)
{
	(void)msg;
	((struct netpath *)arg)->seen++;
	return NL_SKIP;
}

static int listen_to_events(struct netpath *n)
{
	static const int groups[] = { RTNLGRP_LINK, RTNLGRP_NEIGH, RTNLGRP_IPV4_IFADDR,
				      RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE,
				      RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE };

	nl_socket_disable_seq_check(n->events);
	nl_socket_modify_cb(n->events, NL_CB_VALID, NL_CB_CUSTOM, count_event, n);
	if (nl_connect(n->events, NETLINK_ROUTE) < 0 || nl_socket_set_nonblocking(n->events) < 0)
		return -EIO;
	/* Best effort: what does not fit is noticed. */
	(void)nl_socket_set_buffer_size(n->events, EVENT_BYTES, 0);
	for (size_t i = 0; i < ARRAY_LEN(groups); i++)
		if (nl_socket_add_memberships(n->events, groups[i], 0) < 0)
			return -EIO;
	return 0;
}

/* One message comes for each that is sent: no acknowledgement behind an answer. */
static int ready_for_questions(struct netpath *n)
{
	nl_socket_disable_auto_ack(n->questions);
	return nl_connect(n->questions, NETLINK_ROUTE) < 0 ||
			       nl_socket_set_nonblocking(n->questions) < 0 ?
		       -EIO :
		       0;
}

/**
 * netpath_new - listen to what happens to links, addresses, routes and neighbours
 *
 * Return: 0, -ENOMEM, or -EIO: there is no NETLINK_ROUTE for us.
 */
int netpath_new(struct netpath **out)
{
	struct netpath *n = calloc(1, sizeof(*n));
	int ret;

	*out = NULL;
	if (!n)
		return -ENOMEM;
	n->events = nl_socket_alloc();
	n->questions = nl_socket_alloc();
	ret = n->events && n->questions ? listen_to_events(n) : -ENOMEM;
	if (ret == 0)
		ret = ready_for_questions(n);
	if (ret < 0) {
		netpath_free(n);
		return ret;
	}
	*out = n;
	return 0;
}

void netpath_free(struct netpath *n)
{
	if (!n)
		return;
	nl_socket_free(n->events);
	nl_socket_free(n->questions);
	free(n);
}

int netpath_fd(const struct netpath *n)
{
	return nl_socket_get_fd(n->events);
}

bool netpath_drain(struct netpath *n)
{
	unsigned lost = 0;

	n->seen = 0;
	while (n->seen < EVENTS_AT_ONCE && lost < LOSSES_AT_ONCE) {
		int ret = nl_recvmsgs_default(n->events);

		if (ret == -NLE_AGAIN)
			break;
		lost += ret < 0;
	}
	return lost || n->seen;
}

/* --- questions -------------------------------------------------------------------------------- */

static int on_answer(struct nl_msg *msg, void *arg)
{
	struct reply *r = arg;

	r->error = r->take ? r->take(nlmsg_hdr(msg), r->out) : 0;
	return NL_STOP;
}

static int on_error(struct sockaddr_nl *from, struct nlmsgerr *e, void *arg)
{
	(void)from;
	((struct reply *)arg)->error = e->error;
	return NL_STOP;
}

static int on_ack(struct nl_msg *msg, void *arg)
{
	(void)msg;
	((struct reply *)arg)->error = 0;
	return NL_STOP;
}

/*
 * Ask, and have the answer taken.  @msg is freed.  0 or -errno: the kernel's own, which libnl would
 * fold into fewer.
 */
static int question(struct netpath *n, struct nl_msg *msg, struct reply *r)
{
	struct nl_cb *cb = nl_cb_alloc(NL_CB_DEFAULT);

	r->error = -EIO;
	if (!cb || !msg) {
		r->error = -ENOMEM;
	} else if (nl_send_auto(n->questions, msg) >= 0) {
		nl_cb_set(cb, NL_CB_VALID, NL_CB_CUSTOM, on_answer, r);
		nl_cb_set(cb, NL_CB_ACK, NL_CB_CUSTOM, on_ack, r);
		nl_cb_err(cb, NL_CB_CUSTOM, on_error, r);
		(void)nl_recvmsgs(n->questions, cb);
	}
	if (cb)
		nl_cb_put(cb);
	nlmsg_free(msg);
	return r->error;
}

static int put(struct nl_msg *msg, int type, const union ends_address *a)
{
	size_t len;
	const void *bytes = ends_bytes(a, &len);

	return bytes ? nla_put(msg, type, (int)len, bytes) : -1;
}

/* @from: NULL: whatever the kernel would take.  NULL: no memory. */
static struct nl_msg *route_message(const union ends_address *to, const union ends_address *from)
{
	struct rtmsg body = { .rtm_family = (unsigned char)to->any.sa_family };
	struct nl_msg *msg = nlmsg_alloc_simple(RTM_GETROUTE, 0);
	uint32_t scope = to->any.sa_family == AF_INET6 ? to->in6.sin6_scope_id : 0;

	if (msg && nlmsg_append(msg, &body, sizeof(body), NLMSG_ALIGNTO) >= 0 &&
	    put(msg, RTA_DST, to) >= 0 && (!from || put(msg, RTA_SRC, from) >= 0) &&
	    (!scope || nla_put_u32(msg, RTA_OIF, scope) >= 0))
		return msg;
	nlmsg_free(msg);
	return NULL;
}

static int take_route(struct nlmsghdr *head, void *out)
{
	return rtnl_route_parse(head, out) < 0 ? -EIO : 0;
}

static int take_neighbour(struct nlmsghdr *head, void *out)
{
	return rtnl_neigh_parse(head, out) < 0 ? -EIO : 0;
}

/* The way to @to, for the caller to put; NULL: there is none. */
static struct rtnl_route *find_route(struct netpath *n, const union ends_address *to,
				     const union ends_address *from)
{
	struct rtnl_route *route = NULL;
	struct reply r = { take_route, &route, 0 };

	if (question(n, route_message(to, from), &r) < 0)
		return NULL;
	return route;
}

static int route_type(struct rtnl_route *route)
{
	return route ? rtnl_route_get_type(route) : RTN_UNREACHABLE;
}

/* RTM_GETNEIGH of one address, or RTM_NEWNEIGH that has it looked for.  NULL: no memory. */
static struct nl_msg *neighbour_message(int type, const struct netpath_view *v)
{
	struct ndmsg body = { .ndm_family = (unsigned char)v->hop.any.sa_family,
			      .ndm_ifindex = (int)v->ifindex };
	bool set = type == RTM_NEWNEIGH;
	struct nl_msg *msg = nlmsg_alloc_simple(type, set ? NLM_F_ACK | NLM_F_CREATE : 0);

	if (set)
		body.ndm_flags = NTF_USE;
	if (msg && nlmsg_append(msg, &body, sizeof(body), NLMSG_ALIGNTO) >= 0 &&
	    put(msg, NDA_DST, &v->hop) >= 0)
		return msg;
	nlmsg_free(msg);
	return NULL;
}

/* --- the look --------------------------------------------------------------------------------- */

static enum netpath_state look_at_link(struct netpath *n, struct netpath_view *v)
{
	enum netpath_state state = NETPATH_UP;
	struct rtnl_link *link;
	unsigned flags;

	if (rtnl_link_get_kernel(n->questions, (int)v->ifindex, NULL, &link) < 0)
		return NETPATH_NO_LINK;
	flags = rtnl_link_get_flags(link);
	snprintf(v->interface, sizeof(v->interface), "%s", rtnl_link_get_name(link));
	if (!(flags & IFF_UP))
		state = NETPATH_LINK_DOWN;
	else if (!(flags & IFF_RUNNING))
		state = NETPATH_NO_CARRIER;
	rtnl_link_put(link);
	return state;
}

static enum netpath_state look_at_neighbour(struct netpath *n, const struct netpath_view *v)
{
	bool failed = v->state == NETPATH_NO_NEIGHBOUR;
	struct rtnl_neigh *neighbour = NULL;
	struct reply r = { take_neighbour, &neighbour, 0 };
	int state;

	/* One that is not known will be asked for by the next packet. */
	if (question(n, neighbour_message(RTM_GETNEIGH, v), &r) < 0 || !neighbour)
		return failed ? NETPATH_NO_NEIGHBOUR : NETPATH_UP;
	state = rtnl_neigh_get_state(neighbour);
	rtnl_neigh_put(neighbour);
	if ((state & NUD_INCOMPLETE) && !failed)
		return NETPATH_UP;
	return state & (NUD_FAILED | NUD_INCOMPLETE) ? NETPATH_NO_NEIGHBOUR : NETPATH_UP;
}

/* Where the route leads: the interface and the next hop; as of several, those of the first. */
static void take_hop(struct rtnl_route *route, const struct ends *e, struct netpath_view *v)
{
	struct rtnl_nexthop *hop = rtnl_route_nexthop_n(route, 0);
	struct nl_addr *gateway = hop ? rtnl_route_nh_get_gateway(hop) : NULL;
	socklen_t len = sizeof(v->hop);

	v->local = rtnl_route_get_type(route) == RTN_LOCAL;
	if (hop && rtnl_route_nh_get_ifindex(hop) > 0)
		v->ifindex = (unsigned)rtnl_route_nh_get_ifindex(hop);
	v->hop = e->peer;
	v->via[0] = '\0';
	if (gateway && nl_addr_fill_sockaddr(gateway, &v->hop.any, &len) == 0)
		ends_text(&v->hop, v->via, sizeof(v->via));
}

/* No way: what became of the interface that there was says more, if anything is wrong with it. */
static enum netpath_state blame(struct netpath *n, struct netpath_view *v,
				enum netpath_state otherwise)
{
	enum netpath_state state = v->ifindex && !v->local ? look_at_link(n, v) : NETPATH_UP;

	return state == NETPATH_UP ? otherwise : state;
}

static bool is_ours(struct netpath *n, const union ends_address *a)
{
	struct rtnl_route *route = find_route(n, a, NULL);
	bool ours = route_type(route) == RTN_LOCAL;

	rtnl_route_put(route);
	return ours;
}

/**
 * netpath_look - what a packet from one end to the other would meet now
 * @e: networked
 * @v: as the last look left it, all zero before the first
 */
void netpath_look(struct netpath *n, const struct ends *e, struct netpath_view *v)
{
	struct rtnl_route *route = NULL;
	int type;

	if (!is_ours(n, &e->local)) {
		v->state = blame(n, v, NETPATH_NO_ADDRESS);
		return;
	}
	route = find_route(n, &e->peer, &e->local);
	type = route_type(route);
	if (type != RTN_UNICAST && type != RTN_LOCAL) {
		v->state = blame(n, v, NETPATH_NO_ROUTE);
	} else {
		enum netpath_state before = v->state, link;

		take_hop(route, e, v);
		link = look_at_link(n, v);
		v->state = before;
		v->state = link != NETPATH_UP || v->local ? link : look_at_neighbour(n, v);
	}
	rtnl_route_put(route);
}

/**
 * netpath_knock - ask for the next hop again
 *
 * When nobody sends anything any more, nobody finds out that it answers again.  Needs
 * CAP_NET_ADMIN; without, the kernel forgets after a minute or so that it did not answer.
 */
void netpath_knock(struct netpath *n, const struct netpath_view *v)
{
	struct reply r = { NULL, NULL, 0 };

	if (v->ifindex && !v->local)
		(void)question(n, neighbour_message(RTM_NEWNEIGH, v), &r);
}
