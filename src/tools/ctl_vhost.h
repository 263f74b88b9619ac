/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_CTL_VHOST_H
#define PC_TOOLS_CTL_VHOST_H
/* postcopyctl vhost-user: the back-ends that a postcopyd stands in front of. */
#include <stdbool.h>
#include "tools/ctl_client.h"

/* Are these the words of a command?  Of none: list. */
bool ctl_vhost_check(char *const *words, bool force);
/* Do it and print what is to be printed.  0, or -errno with c->error. */
int ctl_vhost_run(struct ctl_client *c, char *const *words, bool json, bool force);

#endif
