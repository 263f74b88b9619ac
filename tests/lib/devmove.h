/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TESTS_DEVMOVE_H
#define PC_TESTS_DEVMOVE_H
/*
 * Devices that are moved as core/devgroup.h plans it, by sys/migdev.h, one thing after the other;
 * what comes out of them is kept in memory, and given to others.
 */
#include <stddef.h>
#include <stdint.h>

#include "core/devgroup.h"
#include "sys/migdev.h"

/* A stream, in the segments in which it came. */
struct devmove_stream {
	uint8_t bytes[1 << 17];
	size_t len, segment[64];
	unsigned n;
};

/* 0 or -errno; -E2BIG: more than is kept here. */
int devmove_save(struct migdev *m, struct devmove_stream *s);
int devmove_load(struct migdev *m, const struct devmove_stream *s);
/* Do as planned until nothing is left.  0; -EPROTO: the plan comes to no end. */
int devmove_run(struct devgroup *g, struct migdev *m, struct devmove_stream *s);

#endif
