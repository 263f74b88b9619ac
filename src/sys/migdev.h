/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_SYS_MIGDEV_H
#define PC_SYS_MIGDEV_H
/*
 * The state of a device, in and out, over either version of VFIO's migration: which state it is in,
 * to which it goes, and the stream of bytes that its state is.
 *
 * For the thread that has the handle of the device.  Every call may take as long as the handle's
 * limit; nothing is decided here: core/devgroup.h says what comes next.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "core/vfiostate.h"
#include "sys/devio.h"
#include "wire/vfiocaps.h"

enum migdev_outcome {
	MIGDEV_PIECE = 1,	/* bytes came */
	MIGDEV_LATER,		/* none now; while it runs there can be more any time */
	MIGDEV_END,		/* that was all, for good */
};

/* A part of the stream.  v1: segments, of which every one is loaded as it was saved. */
struct migdev_piece {
	size_t len;
	uint64_t left;		/* of its segment, behind this piece */
};

struct migdev;
struct migdev_ops {
	int (*state)(struct migdev *m);		/* enum vfiostate or -errno */
	int (*set)(struct migdev *m, enum vfiostate to);
	int (*save)(struct migdev *m, void *buf, size_t room, struct migdev_piece *piece);
	int (*segment)(struct migdev *m, uint64_t length);
	int (*load)(struct migdev *m, const void *buf, size_t len);
};

struct migdev {
	struct devio *io;		/* the caller's */
	const struct migdev_ops *ops;
	struct vfiostate_caps caps;
	int state;			/* as it was read last; -errno: it could not be */
	bool spoiled;			/* it got bytes and did not take them: only a reset helps */
	uint64_t at, left, length;	/* of a segment: where it goes on, what is left, all */
	/* v1 */
	struct vfiocaps_region region;
	unsigned n_maps;		/* of the region, in the order of their offsets in it */
	struct {
		uint64_t offset;
		struct devio_map map;
	} maps[VFIOCAPS_AREAS];
};

/* 0; -EOPNOTSUPP: it cannot be migrated; -EPROTO: it breaks the interface. */
int migdev_probe(struct migdev *m, struct devio *io);
/* Gives back what was mapped; idempotent. */
void migdev_deinit(struct migdev *m);
#define cleanup_migdev __attribute__((cleanup(migdev_deinit)))

/* Ask the device: the state, also in m->state, or -errno. */
int migdev_state(struct migdev *m);
/* One arc.  0 or -errno; either way m->state is what the device says then. */
int migdev_set(struct migdev *m, enum vfiostate to);
int migdev_reset(struct migdev *m);
/* The next bytes: enum migdev_outcome or -errno. */
int migdev_save(struct migdev *m, void *buf, size_t room, struct migdev_piece *piece);
/* A segment of that many bytes follows, in as many loads as it takes.  0; -ENOSPC: too large. */
int migdev_segment(struct migdev *m, uint64_t length);
int migdev_load(struct migdev *m, const void *buf, size_t len);

#endif
