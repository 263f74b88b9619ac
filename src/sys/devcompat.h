/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_SYS_DEVCOMPAT_H
#define PC_SYS_DEVCOMPAT_H
/*
 * What a device's twin must be like, in words that are compared and not understood: both hosts make
 * them in this way.
 */
#include "sys/devio.h"
#include "wire/devstate.h"

/*
 * "pci:VENDOR:DEVICE:SUBVENDOR:SUBDEVICE" of a PCI device, "" of another one.  0, or -errno when it
 * cannot be told; out is "" then.
 */
int devcompat_read(struct devio *d, char out[DEVSTATE_NAME]);

#endif
