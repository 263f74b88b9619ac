/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_WIRE_VHOSTMSG_PARTS_H
#define PC_WIRE_VHOSTMSG_PARTS_H
/* The shapes a body can have: between vhostmsg.c (which request has which) and vhostmsg_shape.c. */
#include "wire/vhostmsg.h"

enum vhostmsg_shape {
	SHAPE_EMPTY,
	SHAPE_U64,
	SHAPE_STATE,
	SHAPE_ADDR,
	SHAPE_RING_FD,	/* a u64: number of a ring, and whether a descriptor comes with it */
	SHAPE_MEMORY,
	SHAPE_MEMREG,
	SHAPE_LOG,
	SHAPE_LOG_ANSWER,
	SHAPE_INFLIGHT,
	SHAPE_CONFIG,
	SHAPE_CONFIG_ANSWER,
	SHAPE_IOTLB,
	SHAPE_AREA,
	SHAPE_TRANSFER,
	SHAPE_ACK,	/* the u64 that ends the exchange of addresses */
	SHAPE_UUID,
	SHAPE_OPAQUE,	/* relayed as it is */
	SHAPES,
};

/* 0, or the error and its text for a body that has not this shape. */
int vhostmsg_shape_check(enum vhostmsg_shape shape, const struct vhostmsg *m, const char **why);
/* Bytes of an empty body of this shape: all of it where the size is fixed. */
uint32_t vhostmsg_shape_size(enum vhostmsg_shape shape);

static inline int vhostmsg_refuse(int err, const char *text, const char **why)
{
	if (why)
		*why = text;
	return err;
}

#endif
