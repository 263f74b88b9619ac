/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sys/devio_pci.h"

#include <errno.h>

#include "sys/uapi.h"

#define COMMAND	   4 /* two bytes, little endian as we are */
#define BUS_MASTER (1 << 2)

/**
 * devio_pci_bus_master - let the device begin transfers, or not
 *
 * A device that waits for its memory and its state has it off (devices.md 4.3): whatever its
 * registers hold, it leaves memory and other devices alone.  A reset switches it off, too; the
 * guest's own setting comes with the configuration space.
 *
 * Return: 0, -EOPNOTSUPP, or what the access says.
 */
int devio_pci_bus_master(struct devio *d, bool on)
{
	struct devio_at at = { VFIO_PCI_CONFIG_REGION_INDEX, sizeof(uint16_t), COMMAND };
	struct vfiocaps_region r;
	uint16_t command, wanted;
	int ret = devio_region(d, at.region, &r);

	if (ret < 0 || r.size < COMMAND + sizeof(command))
		return ret < 0 && ret != -EINVAL ? ret : -EOPNOTSUPP;
	ret = devio_read(d, &at, &command, sizeof(command));
	if (ret < 0)
		return ret;
	wanted = (uint16_t)(on ? command | BUS_MASTER : command & ~BUS_MASTER);
	return wanted == command ? 0 : devio_write(d, &at, &wanted, sizeof(wanted));
}
