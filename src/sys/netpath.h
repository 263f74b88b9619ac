/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_SYS_NETPATH_H
#define PC_SYS_NETPATH_H
/*
 * Is there, as far as this host knows, a way for packets between the two ends of a connection?
 * rtnetlink(7), through libnl: events that say "look again", and the look.
 */
#include <net/if.h>
#include <stdbool.h>
#include "sys/ends.h"

struct netpath;

enum netpath_state {
	NETPATH_UP,
	NETPATH_NO_ADDRESS,	/* the local address is not ours any more */
	NETPATH_NO_ROUTE,	/* none to the peer, or one that refuses */
	NETPATH_NO_LINK,	/* the interface is gone */
	NETPATH_LINK_DOWN,	/* it is switched off */
	NETPATH_NO_CARRIER,
	NETPATH_NO_NEIGHBOUR,	/* the peer, or the gateway to it, does not answer */
	NETPATH_STATES,
};

struct netpath_view {
	enum netpath_state state;
	unsigned ifindex;		/* that carries it, or did last; 0: not known */
	char interface[IFNAMSIZ];	/* its name; "" */
	char via[ENDS_TEXT];		/* the gateway; "": the peer is a neighbour */
	union ends_address hop;		/* the gateway, or the peer */
	bool local;			/* the peer is this host */
};

/* 0 or -errno.  *out is NULL then. */
int netpath_new(struct netpath **out);
/* NULL is fine. */
void netpath_free(struct netpath *n);
/* Becomes readable when something may have changed. */
int netpath_fd(const struct netpath *n);
/* Take what is there: true: look again.  Events that were lost count as one. */
bool netpath_drain(struct netpath *n);
/* @v: what it was before (all zero: not known), and what it is. */
void netpath_look(struct netpath *n, const struct ends *e, struct netpath_view *v);
/* Have the kernel ask for the neighbour again, as nobody else may; best effort. */
void netpath_knock(struct netpath *n, const struct netpath_view *v);

#endif
