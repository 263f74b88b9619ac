/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_RUN_VMM_H
#define PC_TOOLS_RUN_VMM_H
/* A postcopyd and the QEMU it serves, from their start until both have ended. */
#include "tools/run_options.h"

/* Exit status for main(). */
int run_vmm(const struct run_options *o);

#endif
