/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_CTL_UPGRADE_H
#define PC_TOOLS_CTL_UPGRADE_H
#include "tools/ctl_client.h"

/* Have @program take the daemon's place, and wait until it has.  0, or -errno with c->error. */
int ctl_upgrade_run(struct ctl_client *c, const char *program, bool force);

#endif
