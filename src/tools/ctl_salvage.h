/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_CTL_SALVAGE_H
#define PC_TOOLS_CTL_SALVAGE_H
/* `postcopyctl salvage DIR': has what is here saved, and waits until it is. */
#include <stdbool.h>
#include "tools/ctl_client.h"

/* 0; -1: it could not be, c->error says why, or what was told is printed. */
int ctl_salvage_run(struct ctl_client *c, const char *dir, bool json);

#endif
