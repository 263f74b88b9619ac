/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_CORE_VFIOV1_H
#define PC_CORE_VFIOV1_H
/*
 * The first version of VFIO's migration: a register of bits, device_state, at the start of a
 * region.  What its values mean, which may be written, and for who plays a device how a write of
 * several bits is taken apart, and taken back when it fails.
 *
 * Without the capability NDMA its bit is one of the reserved ones.
 */
#include <stdbool.h>
#include <stdint.h>
#include "core/vfiostate.h"

enum {
	VFIOV1_RUNNING = 1 << 0,
	VFIOV1_SAVING = 1 << 1,
	VFIOV1_RESUMING = 1 << 2,
	VFIOV1_NDMA = 1 << 3,
	VFIOV1_ERROR = VFIOV1_SAVING | VFIOV1_RESUMING,
	VFIOV1_STEPS = 4,		/* that a write can have */
};

/* The bits that are not reserved. */
uint32_t vfiov1_mask(bool ndma);
/* Of the bits that are not reserved: do they make a state that can be asked for? */
bool vfiov1_valid(uint32_t value, bool ndma);
bool vfiov1_is_error(uint32_t value, bool ndma);
/* What a device says it is in: the state, or -EPROTO: no state has these bits. */
int vfiov1_decode(uint32_t value, bool ndma);
/*
 * The value to write for @to, with the reserved bits of @was, which was just read.  0; -EINVAL:
 * nobody can ask for that.
 */
int vfiov1_encode(enum vfiostate to, bool ndma, uint32_t was, uint32_t *value);
/* For vfiostate_hop(): both are states that it has, and different. */
int vfiov1_hop(enum vfiostate from, enum vfiostate to);

/* --- a device's side: a write of several bits (vfiov1_change.c) --- */

enum vfiov1_order {
	VFIOV1_ZERO_FIRST,	/* saves before it runs */
	VFIOV1_RUN_FIRST,	/* runs before it saves, as the flow of a migration does */
	VFIOV1_ORDERS,
};

struct vfiov1_path {
	unsigned n;
	uint32_t step[VFIOV1_STEPS]; /* values, each one bit from the one before */
};

/* From one valid value to another. */
void vfiov1_expand(uint32_t from, uint32_t to, enum vfiov1_order order, struct vfiov1_path *path);

struct vfiov1_change {
	enum vfiov1_order order;
	uint32_t before, now;	/* now: as far as it came; VFIOV1_ERROR at the end of a bad way */
	struct vfiov1_path path;
	unsigned at;
	bool unwinding;
	int error;		/* what the write returns */
};

/* -EINVAL: this is written to no device; nothing changes.  @now and @to without reserved bits. */
int vfiov1_begin(struct vfiov1_change *c, uint32_t now, uint32_t to, bool ndma,
		 enum vfiov1_order order);
/* The next value that the device goes to; false: the write is over. */
bool vfiov1_next(const struct vfiov1_change *c, uint32_t *step);
/* It went there (0), or stays where it was (-errno). */
void vfiov1_went(struct vfiov1_change *c, int err);

#endif
