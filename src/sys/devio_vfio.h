/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_SYS_DEVIO_VFIO_H
#define PC_SYS_DEVIO_VFIO_H
/* Devices of the kernel's VFIO, by their IOMMU group and a container. */
#include "sys/devio.h"

/*
 * Open the device at @sysfs (/sys/bus/pci/devices/0000:00:05.0, /sys/bus/mdev/devices/UUID), with a
 * container of its own that has no mapping in it.  0 or -errno; *why then says what is wrong, for
 * people, and is static text.
 */
int devio_vfio_open(struct devio *out, const char *sysfs, const char **why);

#endif
