/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_CORE_VFIOSTATE_H
#define PC_CORE_VFIOSTATE_H
/*
 * What a device is doing, as far as migration is concerned: one set of states for both versions of
 * the VFIO interface (vfiov1.h: bits of a register; vfiov2.h: numbers), and what a device in each
 * of them may do to others.  vfiostate.c says how far that can be relied on.
 */
#include <stdbool.h>
#include <stdint.h>

enum vfiostate {
	VFIOSTATE_RUNNING,
	VFIOSTATE_PRECOPY,		/* running, and its state can be read already */
	VFIOSTATE_QUIESCED,		/* begins nothing at other devices: NDMA, P2P */
	VFIOSTATE_PRECOPY_QUIESCED,
	VFIOSTATE_STOP,
	VFIOSTATE_STOPCOPY,		/* stopped, and its state is read */
	VFIOSTATE_RESUMING,		/* stopped, and its state is written */
	VFIOSTATE_ERROR,		/* only a reset leads out, to RUNNING */
	VFIOSTATES,
};

/* What a device in a state has to be trusted with. */
enum {
	VFIOSTATE_WRITES = 1 << 0,	/* may write guest memory at any time */
	VFIOSTATE_PEERS = 1 << 1,	/* may begin transfers to other devices */
	VFIOSTATE_SAVES = 1 << 2,	/* has a stream to be read */
	VFIOSTATE_LOADS = 1 << 3,	/* has a stream to be written */
};

/* What a device can do, of what is not in every device. */
struct vfiostate_caps {
	bool v2;
	bool quiesce;		/* v1: NDMA; v2: P2P */
	bool precopy;		/* v1: always */
};

unsigned vfiostate_rights(enum vfiostate state);
/* Does a device of that kind have this state?  All have an ERROR. */
bool vfiostate_has(const struct vfiostate_caps *caps, enum vfiostate state);
/*
 * The state to ask for next on the way from one to another: a single arc.  -EINVAL: there is no way
 * that is allowed; -EIO: from ERROR; -EALREADY: there is nothing to do.
 */
int vfiostate_hop(const struct vfiostate_caps *caps, enum vfiostate from, enum vfiostate to);
const char *vfiostate_name(enum vfiostate state);

#endif
