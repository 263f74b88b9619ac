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
	/*
	 * Stop the daemon soon (the reply is still to be sent, so not from inside this call):
	 * refused (false, *why set) when that would lose a committed VM and !force.
	 */
	bool (*quit)(void *ctx, bool force, const char **why);
};

/* A command that somebody else than the control socket answers. */
struct control_command {
	const char *name;
	const char *const *arguments;	/* members that "arguments" may have, up to NULL */
	/* about the session as it is now: answered behind a fresh snapshot, without arguments */
	bool fresh;
	/*
	 * Do it, and write the answer as member @key of the object that is open in @w.  False with
	 * *error, which is told as Refused (Unavailable, when @fresh); what was written is dropped.
	 */
	bool (*run)(void *ctx, const char *name, const struct jsonmsg *arguments,
		    struct jsonmsg_writer *w, const char *key, GError **error);
};

#define CONTROL_TABLES 8

/* @listen_fd: a listening UNIX stream socket, owned from here on. */
int control_new(struct control **out, int listen_fd, const struct control_ops *ops, void *ctx);
/* @n more commands, as long as @c lives: at most CONTROL_TABLES times.  Before anybody connects. */
void control_add(struct control *c, const struct control_command *commands, unsigned n, void *ctx);
/* Ends every connection. */
void control_free(struct control *c);
/* A fresh snapshot is there. */
void control_refreshed(struct control *c);
/* How long a request waits for control_refreshed() before it gets a Timeout; default 5000 ms. */
void control_set_refresh_timeout(struct control *c, unsigned ms);
/* Tell every client that turned events on. */
void control_event(struct control *c, const char *name, const char *text);

#endif
