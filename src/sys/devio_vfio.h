/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_SYS_DEVIO_VFIO_H
#define PC_SYS_DEVIO_VFIO_H
/* Devices of the kernel's VFIO, by their IOMMU group and a container. */
#include "sys/devio.h"

/*
 * Open the device at @sysfs (/sys/bus/pci/devices/0000:00:05.0, /sys/bus/mdev/devices/UUID), with a
 * container of its own that has no mapping in it.  0 or -errno; *why then says what is wrong, for
 * people, and is static text.
 *
 * It may be in the state in which it was closed (mtty is): who wants it as new resets it.
 */
int devio_vfio_open(struct devio *out, const char *sysfs, const char **why);
/*
 * Open another device of the group that @beside, an open one of these, is in.  They share the
 * container: what is mapped for one, all of them reach, and nobody can map it twice.  -EXDEV: it is
 * in another group.
 */
int devio_vfio_open_beside(struct devio *out, const char *sysfs, const struct devio *beside,
			   const char **why);
/* The number of its IOMMU group: devices with the same one have to share.  -ENODEV, -EOPNOTSUPP. */
int devio_vfio_group(const char *sysfs, const char **why);
/*
 * The descriptor of its container, which is asked what its devices wrote (dirty_container.h).  It
 * stays the handle's.
 */
int devio_vfio_container(const struct devio *d);

#endif
