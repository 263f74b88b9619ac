/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TESTS_VFIOUSER_SIDE_H
#define PC_TESTS_VFIOUSER_SIDE_H
/*
 * One end of a transfer of device state: a vfio-user server as a child, and the device in it.  What
 * is said to the device is written out here, step by step, so that tests can say it wrongly, too.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sys/devio_vfiouser.h"
#include "vfiouser_spawn.h"

#define SIDE_IOVA	0x100000
#define SIDE_MEMORY	0x4000
#define SIDE_LIMIT	(UINT64_C(60) * 1000000000) /* nothing takes as long */

struct side {
	struct vfiouser_child child;
	struct devio dev;
	uint8_t memory[SIDE_MEMORY]; /* that the device asks for at SIDE_IOVA */
	unsigned asked;
};

/* A state between two devices, in the segments in which it came (first generation). */
struct carried {
	uint8_t bytes[1 << 17];
	size_t len;
	uint32_t segments[256];
	unsigned n;
};

/* Everything here: 0 or -errno; -EBADF for what a device must not say. */
int side_open(struct side *s, const char *server);
int side_open_for(struct side *s, const char *server, uint64_t limit, bool no_twin);
void side_close(struct side *s);

int side_digest(struct side *s, uint64_t *out);
int side_bar_write(struct side *s, unsigned reg, uint64_t value);
int side_bar_read(struct side *s, unsigned reg, uint64_t *value);

/* Of the second generation. */
int side_set_state(struct side *s, uint32_t state);
int side_get_state(struct side *s, uint32_t *state);

/* From RUNNING to STOP, and from RUNNING to RUNNING; @generation: 1 or 2. */
int side_save(struct side *s, unsigned generation, struct carried *c);
int side_load(struct side *s, unsigned generation, const struct carried *c);

#endif
