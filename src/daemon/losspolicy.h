/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_LOSSPOLICY_H
#define PC_DAEMON_LOSSPOLICY_H
/*
 * --on-loss, in the main thread: what is done to the VM when its source stays away.  Pages are
 * given up by the fault thread (loss.c); this stops or ends the VM, and tells.  See losspolicy.c.
 */
#include <stdbool.h>
#include "daemon/blockers.h"
#include "daemon/options.h"
#include "daemon/snapshot.h"

struct losspolicy;

/* How the VM stands, as far as a stop that we want goes. */
enum losspolicy_stop {
	LOSSPOLICY_RUNS,	/* nothing was done, or it was undone */
	LOSSPOLICY_UNDER_WAY,	/* asked for */
	LOSSPOLICY_STOPPED,
	LOSSPOLICY_NOT_RUNNING,	/* it did not run: there is nothing to stop, or to undo */
	LOSSPOLICY_CANNOT,	/* not in this way */
};

struct losspolicy_ops {
	/*
	 * Stop the VM through its monitor (@want), or have it go on; called again and again until
	 * it is so.
	 */
	enum losspolicy_stop (*monitor)(void *ctx, bool want);
	/* Tell the operator's program.  False: there is none. */
	bool (*hook)(void *ctx, const char *event);
	/* Of the main sharer: its pidfd, which stays the other's, or -1; *@pid. */
	int (*main_sharer)(void *ctx, pid_t *pid);
	void (*event)(void *ctx, const char *name, const char *text);
	/* There is no VM any more.  Once. */
	void (*killed)(void *ctx, const char *reason);
	/* Look again soon. */
	void (*refresh)(void *ctx);
	void *ctx;
};

/* @o must outlive it, @ops is copied. */
struct losspolicy *losspolicy_new(const struct options_loss *o, const struct losspolicy_ops *ops);
void losspolicy_free(struct losspolicy *l);
/* There is a new snapshot: do what is due, and write into it how far that is. */
void losspolicy_look(struct losspolicy *l, struct snapshot *s);
/* A source that is lost is in the way of the end. */
void losspolicy_blockers(const struct losspolicy *l, const struct snapshot *s, struct blockers *b);

#endif
