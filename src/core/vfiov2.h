/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_CORE_VFIOV2_H
#define PC_CORE_VFIOV2_H
/*
 * The second version of VFIO's migration: the numbers of its states, what its flags say, and the
 * next state on the way from each to each.
 */
#include <stdbool.h>
#include <stdint.h>
#include "core/vfiostate.h"

/* Of VFIO_DEVICE_FEATURE_MIGRATION. */
#define VFIOV2_STOP_COPY (UINT64_C(1) << 0) /* always */
#define VFIOV2_P2P	 (UINT64_C(1) << 1)
#define VFIOV2_PRE_COPY	 (UINT64_C(1) << 2)

/* 0; -EOPNOTSUPP: without STOP_COPY nothing can be saved.  Flags that are not known are ignored. */
int vfiov2_caps(uint64_t flags, struct vfiostate_caps *caps);
/* The number that a state is asked for by. */
uint32_t vfiov2_encode(enum vfiostate state);
/* What a device says it is in: the state, or -EPROTO: none, or one that it does not have. */
int vfiov2_decode(uint32_t number, const struct vfiostate_caps *caps);
/* For vfiostate_hop(): both are states that it has, and different. */
int vfiov2_hop(const struct vfiostate_caps *caps, enum vfiostate from, enum vfiostate to);
/* Does this arc begin a stream, so that a descriptor comes with it? */
bool vfiov2_opens(enum vfiostate from, enum vfiostate to);

#endif
