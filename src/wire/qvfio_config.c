/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * PCI configuration space is little-endian.  What identifies the device, and what its BARs are, is
 * the device's own and must be equal; where they lie is the guest's choice, which it made inside
 * bounds: aligned to their sizes, below the top of its addresses, not on top of each other.  That
 * is looked at whether decoding is on or off, as the guest may turn it on.  A BAR that was not
 * assigned yet is 0, or, while it is being sized, all ones.
 *
 * Not looked at: whether a BAR lies on the guest's RAM.  Guests may do that to themselves, and only
 * the VMM knows its map.
 */
#include "config.h"

#include "wire/qvfio_config.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "core/guard.h"

#define PCI_STATUS	    0x06
#define PCI_STATUS_CAPS	    0x10 /* of its low byte */
#define PCI_CLASS_REVISION  0x08
#define PCI_HEADER_TYPE	    0x0e
#define PCI_BAR		    0x10
#define PCI_SUBSYSTEM	    0x2c
#define PCI_CAPABILITIES    0x34
#define PCI_CAPS_FIRST	    0x40
#define PCI_CAPS_MAX	    48 /* so many fit */
#define CAP_EXPRESS	    0x10
#define CAP_MSIX	    0x11
#define MSIX_VECTORS	    0x7ff /* of the word behind the capability's head: less one */
#define BAR_IO		    1u
#define BAR_IO_FLAGS	    3u
#define BAR_MEM_FLAGS	    15u
#define BAR_MEM_64	    4u
#define IO_TOP		    0x10000u
#define EXTENDED_SPACE	    4096

static uint32_t le32(const uint8_t *at)
{
	return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 |
	       (uint32_t)at[3] << 24;
}

/* What a device is and remains. */
static const struct {
	uint8_t offset, length;
	const char *reason;
} identity[] = {
	{ 0, 4, "configuration is another device's" },
	{ PCI_CLASS_REVISION, 4, "configuration is of another revision or class" },
	{ PCI_HEADER_TYPE, 1, "configuration has another header" },
	{ PCI_SUBSYSTEM, 4, "configuration is another subsystem's" },
};

/* One BAR; a range of 0 bytes is on nothing. */
struct bar {
	bool io;
	uint64_t start, size;
};

static bool is_64(uint32_t low)
{
	return !(low & BAR_IO) && (low & 6u) == BAR_MEM_64;
}

static uint32_t flags_of(uint32_t low)
{
	return low & (low & BAR_IO ? BAR_IO_FLAGS : BAR_MEM_FLAGS);
}

/* Neither assigned nor being sized: it lies where its value says. */
static bool is_placed(uint64_t start, uint64_t size, bool wide)
{
	uint64_t ones = wide ? ~UINT64_C(0) : UINT32_MAX;

	return start != 0 && start != (ones & ~(size - 1));
}

static const char *bar_read(const uint8_t *config, const struct qvfio_device *here, unsigned n,
			    struct bar *bar)
{
	uint32_t low = le32(config + PCI_BAR + 4 * n);
	uint32_t own = le32(here->config + PCI_BAR + 4 * n);
	bool wide = is_64(own);
	uint64_t top, size = here->bars[n];

	*bar = (struct bar){ .io = own & BAR_IO };
	if (size == 0)
		return low ? "BAR that the device does not have" : NULL;
	if (flags_of(low) != flags_of(own) || (wide && n + 1 == QVFIO_BARS))
		return "BAR of another kind";
	bar->start = low & ~(bar->io ? BAR_IO_FLAGS : BAR_MEM_FLAGS);
	if (wide)
		bar->start |= (uint64_t)le32(config + PCI_BAR + 4 * n + 4) << 32;
	if (!is_placed(bar->start, size, wide))
		return NULL;
	top = bar->io ? IO_TOP : here->top;
	if (!is_power_of_two(size) || bar->start & (size - 1))
		return "BAR is not aligned to its size";
	if (!range_inside(bar->start, size, top))
		return "BAR is beyond what the guest can address";
	bar->size = size;
	return NULL;
}

static bool bars_collide(const struct bar *a, const struct bar *b)
{
	return a->io == b->io && a->size && b->size && a->start < b->start + b->size &&
	       b->start < a->start + a->size;
}

static const char *bars_fault(const uint8_t *config, const struct qvfio_device *here)
{
	struct bar bars[QVFIO_BARS];
	const char *fault;

	for (unsigned i = 0; i < QVFIO_BARS; i++) {
		bool upper = i > 0 && here->bars[i - 1] &&
			     is_64(le32(here->config + PCI_BAR + 4 * (i - 1)));

		bars[i] = (struct bar){ .size = 0 };
		fault = upper ? NULL : bar_read(config, here, i, &bars[i]);
		if (fault)
			return fault;
		for (unsigned k = 0; k < i; k++)
			if (bars_collide(&bars[i], &bars[k]))
				return "BARs lie on top of each other";
	}
	return NULL;
}

/**
 * qvfio_config_check - may this configuration be loaded into the device that is here?
 */
int qvfio_config_check(const uint8_t *config, const struct qvfio_device *here, const char **why)
{
	for (unsigned i = 0; i < ARRAY_LEN(identity); i++) {
		if (memcmp(config + identity[i].offset, here->config + identity[i].offset,
			   identity[i].length) == 0)
			continue;
		*why = identity[i].reason;
		return -EINVAL;
	}
	*why = bars_fault(config, here);
	return *why ? -EINVAL : 0;
}

/**
 * qvfio_config_shape - how long a device's configuration is in the stream
 * @config: QVFIO_CONFIG_SPACE bytes of the device that is here
 *
 * QEMU keeps 4096 bytes of a PCI Express device and 256 of another one.
 */
int qvfio_config_shape(const uint8_t *config, struct qvfio_shape *shape)
{
	uint8_t at = config[PCI_STATUS] & PCI_STATUS_CAPS ? config[PCI_CAPABILITIES] & ~3u : 0;

	*shape = (struct qvfio_shape){ .config_space = QVFIO_CONFIG_SPACE };
	for (unsigned hops = 0; at != 0; hops++) {
		if (at < PCI_CAPS_FIRST || hops == PCI_CAPS_MAX)
			return -EINVAL;
		if (config[at] == CAP_EXPRESS)
			shape->config_space = EXTENDED_SPACE;
		if (config[at] == CAP_MSIX)
			shape->vectors = (le32(config + at) >> 16 & MSIX_VECTORS) + 1;
		at = config[at + 1] & ~3u;
	}
	return 0;
}
