/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_MACHINE_H
#define PC_DAEMON_MACHINE_H
/* What the kernel, and the sandbox that we are in, must let us do. */
#include <stdbool.h>

#include <glib.h>

/* False: @error names what is missing, and what to do about it. */
bool machine_serves(GError **error);

#endif
