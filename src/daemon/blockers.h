/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_BLOCKERS_H
#define PC_DAEMON_BLOCKERS_H
/*
 * What keeps the session from its next step, by name: listed anew at every look, so that none
 * outlives its reason.  Main thread.
 */
#include <stdbool.h>
#include <stdint.h>
#include "daemon/control.h"

#define BLOCKERS_MAX 40

struct blockers {
	unsigned n;
	struct control_blocker list[BLOCKERS_MAX];
	uint64_t since_ns;		/* of those that are added from here on */
	bool pool_warned;		/* the log has said that the pool is empty */
	bool arrears_warned;		/* and that pages are owed behind the end */
};

/* One more than BLOCKERS_MAX is not listed. */
void blockers_add(struct blockers *b, const char *name, const char *step, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* What of a snapshot keeps a session that serves faults from its end. */
void blockers_running(struct blockers *b, const struct snapshot *s);
/* Copy at most @max of them.  Their number. */
unsigned blockers_list(const struct blockers *b, struct control_blocker *out, unsigned max);

#endif
