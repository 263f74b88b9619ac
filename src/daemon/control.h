/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_CONTROL_H
#define PC_DAEMON_CONTROL_H
/*
 * The control socket: JSON lines in QMP's manner, on the main thread's GLib loop, for the owner
 * only (0600 and SO_PEERCRED).  It reads snapshots, never the fault thread's data.
 */
#include <stdbool.h>
#include <stdint.h>
#include <glib.h>
#include "daemon/snapshot.h"
#include "wire/jsonmsg.h"

struct control;

struct control_blocker {
	char name[64];	   /* "sharer:vmm", "main-sharer", "load" … */
	char step[32];	   /* what it blocks: "listening", "running", "complete" */
	char text[256];	   /* what is missing and what to do */
	uint64_t since_ns; /* CLOCK_MONOTONIC */
};

struct control_ops {
	/* Ask for a fresh snapshot; control_refreshed() follows, once for any number of asks. */
	void (*refresh)(void *ctx);
	/* The last snapshot, valid until the caller returns to the main loop; NULL: none yet. */
	const struct snapshot *(*snapshot)(void *ctx);
	unsigned (*blockers)(void *ctx, struct control_blocker *out, unsigned max);
	/*
	 * Write the hand-over as member @key of the object that is open in @w; false: there is
	 * none.
	 */
	bool (*handover)(void *ctx, struct jsonmsg_writer *w, const char *key);
	/*
	 * Stop the daemon soon (the reply is still to be sent, so not from inside this call):
	 * refused (false, *why set) when that would lose a committed VM and !force.
	 */
	bool (*quit)(void *ctx, bool force, const char **why);
	/* Write the vhost-user devices as member @key of the object that is open in @w. */
	void (*vhosts)(void *ctx, struct jsonmsg_writer *w, const char *key);
	/* @command: "vhost-user-add", "vhost-user-remove".  False with *error. */
	bool (*change_vhosts)(void *ctx, const char *command, const struct jsonmsg *arguments,
			      GError **error);
	/* Write the VM's devices as member @key of the object that is open in @w. */
	void (*devices)(void *ctx, struct jsonmsg_writer *w, const char *key);
};

/* @listen_fd: a listening UNIX stream socket, owned from here on. */
int control_new(struct control **out, int listen_fd, const struct control_ops *ops, void *ctx);
/* Ends every connection. */
void control_free(struct control *c);
/* A fresh snapshot is there. */
void control_refreshed(struct control *c);
/* How long a request waits for control_refreshed() before it gets a Timeout; default 5000 ms. */
void control_set_refresh_timeout(struct control *c, unsigned ms);
/* Tell every client that turned events on. */
void control_event(struct control *c, const char *name, const char *text);

#endif
