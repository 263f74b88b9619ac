/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_WIRE_QVFIO_CONFIG_H
#define PC_WIRE_QVFIO_CONFIG_H
/*
 * The configuration space of a PCI device that came from elsewhere, against the device that is here
 * (S4-22): a source must not turn this device into another one, or lay its memory where it pleases.
 */
#include <stddef.h>
#include <stdint.h>

#include "wire/qvfio.h"

enum { QVFIO_BARS = 6, QVFIO_CONFIG_SPACE = 256 };

struct qvfio_device {
	const uint8_t *config;	   /* QVFIO_CONFIG_SPACE bytes, as the device here has it */
	uint64_t bars[QVFIO_BARS]; /* sizes, bytes, powers of two; 0: none, or the upper half */
	uint64_t top;		   /* first address beyond what the guest can address */
};

/* 0, or -EINVAL with *why (static text). @config: QVFIO_CONFIG_SPACE bytes that came. */
int qvfio_config_check(const uint8_t *config, const struct qvfio_device *here, const char **why);
/* What its configuration is like in the stream, by its capabilities; -EINVAL: they are broken. */
int qvfio_config_shape(const uint8_t *config, struct qvfio_shape *shape);

#endif
