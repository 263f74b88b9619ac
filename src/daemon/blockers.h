/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_BLOCKERS_H
#define PC_DAEMON_BLOCKERS_H
/* What keeps the session from its next step, by name: listed anew at every look, so that none outlives its reason.  Main thread. */
#include <stdint.h>
#include "daemon/control.h"

#define BLOCKERS_MAX 40

struct blockers {
	unsigned n;
	struct control_blocker list[BLOCKERS_MAX];
	uint64_t since_ns;		/* of those that are added from here on */
};

/* One more than BLOCKERS_MAX is not listed. */
void blockers_add(struct blockers *b, const char *name, const char *step, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* Copy at most @max of them.  Their number. */
unsigned blockers_list(const struct blockers *b, struct control_blocker *out, unsigned max);

#endif
