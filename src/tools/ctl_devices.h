/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_CTL_DEVICES_H
#define PC_TOOLS_CTL_DEVICES_H
/* `postcopyctl devices`: the VM's devices of VFIO, and how far each is. */
#include <glib.h>
#include "wire/jsonmsg.h"

/* @devices: what the daemon answered. */
void ctl_devices_render(GString *out, const struct jsonmsg *devices);

#endif
