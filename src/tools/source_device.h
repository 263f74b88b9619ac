/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_SOURCE_DEVICE_H
#define PC_TOOLS_SOURCE_DEVICE_H
/* The device part of a migration: FULL sections, opaque to everyone between source and VMM. */
#include <stddef.h>
#include <stdint.h>

struct source_device {
	uint8_t *sections; /* owned */
	size_t len;
	const char *description; /* JSON for the end of a precopy stream */
};
#define cleanup_source_device __attribute__((cleanup(source_device_deinit)))

/*
 * @what: a file that holds the sections as they are, or a size (one section with that many bytes of
 * made-up content), or NULL (QEMU's globalstate of a running VM).  0 or -errno.
 */
int source_device_init(struct source_device *d, const char *what);
/* Put the state of devices in front, as a section of its own.  0 or -errno. */
int source_device_put_first(struct source_device *d, const uint8_t *records, size_t len);
void source_device_deinit(struct source_device *d);

#endif
