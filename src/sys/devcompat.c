/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sys/devcompat.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include <linux/pci_regs.h>
#include <linux/vfio.h>

static int read16(struct devio *d, uint64_t offset, unsigned *out)
{
	const struct devio_at at = { VFIO_PCI_CONFIG_REGION_INDEX, sizeof(uint16_t), offset };
	uint8_t bytes[sizeof(uint16_t)];
	int err = devio_read(d, &at, bytes, sizeof(bytes));

	*out = (unsigned)bytes[0] | (unsigned)bytes[1] << 8;
	return err;
}

/**
 * devcompat_read - by its identification in the PCI configuration space
 */
int devcompat_read(struct devio *d, char out[DEVSTATE_NAME])
{
	static const uint64_t where[] = { PCI_VENDOR_ID, PCI_DEVICE_ID, PCI_SUBSYSTEM_VENDOR_ID,
					  PCI_SUBSYSTEM_ID };
	struct devio_info info;
	unsigned id[4] = { 0 };
	int err = devio_info(d, &info);

	out[0] = '\0';
	if (err || !(info.flags & VFIO_DEVICE_FLAGS_PCI))
		return err;
	for (unsigned i = 0; i < 4 && !err; i++)
		err = read16(d, where[i], &id[i]);
	if (!err)
		snprintf(out, DEVSTATE_NAME, "pci:%04x:%04x:%04x:%04x", id[0], id[1], id[2],
			 id[3]);
	return err;
}
