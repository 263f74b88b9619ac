/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TESTS_VFIOUSER_DEVICE_H
#define PC_TESTS_VFIOUSER_DEVICE_H
/*
 * A device with a state that can be saved and loaded: as many bytes as it is told, all of them from
 * one seed.  The stream says both, ends with a digest, and is believed only as a whole; so two
 * devices have the same state when they say the same digest.
 *
 * Its states are those of the second generation.  It accepts the arcs that a device without
 * peer-to-peer states has, and nothing else.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum vfiouser_state {
	VFIOUSER_ERROR = 0,
	VFIOUSER_STOP = 1,
	VFIOUSER_RUNNING = 2,
	VFIOUSER_STOP_COPY = 3,
	VFIOUSER_RESUMING = 4,
	VFIOUSER_PRE_COPY = 6,
};

struct vfiouser_device {
	enum vfiouser_state state;
	uint64_t seed, size;
	uint8_t *out; /* the stream that is being saved; owned */
	size_t out_len, out_at;
	uint8_t *in; /* and the one being loaded; owned */
	size_t in_len, in_room;
};

void vfiouser_device_init(struct vfiouser_device *d, uint64_t seed, uint64_t size);
void vfiouser_device_deinit(struct vfiouser_device *d);
uint64_t vfiouser_device_digest(const struct vfiouser_device *d);

/* One arc after the other; on an error it rests where it came to.  0 or -EINVAL. */
int vfiouser_device_go(struct vfiouser_device *d, unsigned state);
/* As if it had just been opened; what was being loaded is forgotten. */
void vfiouser_device_reset(struct vfiouser_device *d);

/* What can be saved now: all but a half of it needs the device to be stopped. */
size_t vfiouser_device_ready(const struct vfiouser_device *d);
/* At most @len of that; returns how many bytes. */
size_t vfiouser_device_save(struct vfiouser_device *d, void *buf, size_t len);
/* 0, or -EINVAL, -ENOSPC for more than any device writes. */
int vfiouser_device_load(struct vfiouser_device *d, const void *buf, size_t len);

#endif
