/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_CTL_WATCH_H
#define PC_TOOLS_CTL_WATCH_H
/* `postcopyctl watch` and `events`: follow a session until it ends. */
#include "tools/ctl_client.h"

struct ctl_watch_options {
	bool json;
	unsigned interval_ms; /* 0: 250 on a terminal, else 1000 */
};

/* Show the session until it ends; the exit code. */
int ctl_watch_run(struct ctl_client *c, const struct ctl_watch_options *o);
/* Print events as they come, until the daemon or the user ends it.  0, or 1 with c->error. */
int ctl_watch_events(struct ctl_client *c, bool json);

#endif
