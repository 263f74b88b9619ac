/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_DEVCHANNEL_H
#define PC_DAEMON_DEVCHANNEL_H
/* --device-channel: where the state of devices comes in on a connection of its own. */
#include <stdint.h>

#include "daemon/devspool.h"
#include "daemon/snapshot.h"

struct devchannel;

struct devchannel_config {
	int listen_fd;	   /* a listening stream socket, owned from here on */
	const char *shown; /* where that is, for people; copied */
	/* Whose devices may come; a textual UUID.  NULL: one is made up, and told. */
	const char *session;
};

/* @spool: outlives it. */
struct devchannel *devchannel_new(const struct devchannel_config *config, struct devspool *spool);
/* What is being received is given up; NULL is fine. */
void devchannel_free(struct devchannel *c);
/* Where it is and how far; NULL: there is none. */
void devchannel_fill(const struct devchannel *c, struct snapshot_device_channel *out);

#endif
