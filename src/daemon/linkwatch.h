/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_LINKWATCH_H
#define PC_DAEMON_LINKWATCH_H
/*
 * Watches the way to the source, and says when it is gone before TCP does.  Main thread only; see
 * linkwatch.c for the theory.
 */
#include <stdbool.h>
#include "daemon/snapshot.h"

struct linkwatch;

struct linkwatch_ops {
	/*
	 * After the commit there was no way for longer than the grace time: once a connection.
	 * @reason: what happened, and since when.
	 */
	void (*pause)(void *ctx, const char *reason);
	/* There is a way again. */
	void (*returned)(void *ctx);
	/* The way went or came back: "link-down", "link-up". */
	void (*event)(void *ctx, const char *name, const char *text);
	void *ctx;
};

/* @grace_s: 0: nothing is ever paused.  @ops: copied. */
struct linkwatch *linkwatch_new(unsigned grace_s, const struct linkwatch_ops *ops);
/* NULL is fine. */
void linkwatch_free(struct linkwatch *l);
/* A main connection of the source is there: @fd is looked at, not kept. */
void linkwatch_attach(struct linkwatch *l, int fd);
/* There is a new snapshot. */
void linkwatch_see(struct linkwatch *l, const struct snapshot *s);
/* Where the source reached us; NULL: it never did.  Belongs to @l. */
const char *linkwatch_uri(const struct linkwatch *l);
/* For status. */
void linkwatch_fill(struct linkwatch *l, struct snapshot_link *out);

#endif
