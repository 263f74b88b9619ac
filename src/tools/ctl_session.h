/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_CTL_SESSION_H
#define PC_TOOLS_CTL_SESSION_H
/* pause, recover [URI], cancel: what an operator does about a source. */
#include <stdbool.h>
#include "tools/ctl_client.h"

/* Is it one of them, and are these words what it takes? */
bool ctl_session_takes(const char *verb, char *const *words);
/* 0, or the client has the error. */
int ctl_session_run(struct ctl_client *c, const char *verb, char *const *words, bool force);

#endif
