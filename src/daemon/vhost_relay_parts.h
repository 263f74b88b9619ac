/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_VHOST_RELAY_PARTS_H
#define PC_DAEMON_VHOST_RELAY_PARTS_H
/* Between vhost_relay.c, which hears, and vhost_relay_do.c, which does. */
#include "daemon/vhost_relay.h"

struct vhost_relay {
	const struct vhost_relay_ops *ops;
	void *ctx;
	struct vhostfront v;
	int front, back;		/* owned; -1 */
	guint front_in, front_out, back_in, back_out, deadline;
	bool over;
	bool going;			/* vhost_relay_go_on() is at work, further up the stack */
	bool again;			/* and has to look once more */
	uint64_t requests, answers;
	/* what the VMM thinks was agreed; the back-end's is v.agreed */
	uint64_t protocol;
	/* repair: the VMM was told addresses, and accepts them with its next table */
	bool ack_due;
	struct vhost_frame *heard;	/* the VMM's next request, while it comes */
	bool whole;			/* it is all there */
	/* CLOCK_MONOTONIC; unsent: the back-end does not read, 0: it does */
	uint64_t whole_since, unsent_since;
	/* what is being worked on, until it is kept or held; the VMM's, or one that is fed */
	struct vhost_frame *request;
	uint32_t number;		/* of that */
	bool telling;			/* it tells of memory, and settled() was not called yet */
	struct vhost_frame *answer;	/* the back-end's, while it comes and until the next */
	struct vhostmsg asked;		/* what it answers */
	struct vhostmsg_terms asked_terms;
	bool finding;			/* that answer waits for the true addresses */
	GQueue to_front, to_back;	/* struct vhost_frame */
	GQueue held, feed;
	bool replaying;			/* what is fed is in the record already */
	struct vhost_record record;
	uint64_t stopped[VHOSTFRONT_RINGS / 64];	/* by us, for a new table */
};

/* Do what is to be done, as far as it goes. */
void vhost_relay_act(struct vhost_relay *r);
void vhost_relay_end(struct vhost_relay *r, const char *why);
void vhost_relay_send(struct vhost_relay *r);
void vhost_relay_close_back(struct vhost_relay *r);

#endif
