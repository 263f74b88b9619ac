/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_SYS_DEVIO_PCI_H
#define PC_SYS_DEVIO_PCI_H
/* What PCI has that VFIO does not: bus mastering, a bit of a device's configuration space. */
#include <stdbool.h>

#include "sys/devio.h"

/*
 * May the device begin transfers of its own?  0; -EOPNOTSUPP: it has no configuration space, and so
 * nothing that could be switched.
 */
int devio_pci_bus_master(struct devio *d, bool on);

#endif
