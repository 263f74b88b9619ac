/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The rights of a state are an upper bound, and the least that every device keeps to:
 *
 *   QUIESCED  keeps a device from beginning transfers to other devices, no more.  A device that
 *             cannot tell those from transfers to memory halts both, but nobody may rely on that
 *             (S3-65), and its interrupts go on, which a guest can aim at memory (S3-49d).  So it
 *             counts as one that writes: what tracks it must not end before it stops, and the
 *             memory it can reach must be there before it leaves STOP for it.
 *   ERROR     may do whatever the states on both sides of the failure allowed (S3-60).
 *
 * Ways between states are single arcs, one at a time, so that it is known after a failure what was
 * asked for.  No state on a way has a right that neither of its ends has: nothing starts for a
 * moment on the way from one standstill to another, and no stream begins that nobody asked for.
 * Where that leaves no way there is none, and whoever wants to go there has to say which state it
 * goes through, or to reset.  Both versions keep to that; v2's table does by itself, v1's register
 * would take every step that v1's makes and some more.
 */
#include "config.h"
#include "core/vfiostate.h"

#include <errno.h>

#include "core/guard.h"
#include "core/vfiov1.h"
#include "core/vfiov2.h"

/**
 * vfiostate_rights - what a device in @state has to be trusted with, VFIOSTATE_* or-ed
 */
unsigned vfiostate_rights(enum vfiostate state)
{
	static const unsigned char rights[VFIOSTATES] = {
		[VFIOSTATE_RUNNING] = VFIOSTATE_WRITES | VFIOSTATE_PEERS,
		[VFIOSTATE_PRECOPY] = VFIOSTATE_WRITES | VFIOSTATE_PEERS | VFIOSTATE_SAVES,
		[VFIOSTATE_QUIESCED] = VFIOSTATE_WRITES,
		[VFIOSTATE_PRECOPY_QUIESCED] = VFIOSTATE_WRITES | VFIOSTATE_SAVES,
		[VFIOSTATE_STOPCOPY] = VFIOSTATE_SAVES,
		[VFIOSTATE_RESUMING] = VFIOSTATE_LOADS,
		[VFIOSTATE_ERROR] = VFIOSTATE_WRITES | VFIOSTATE_PEERS,
	};

	return rights[state];
}

/**
 * vfiostate_has - does a device of that kind have this state?
 */
bool vfiostate_has(const struct vfiostate_caps *caps, enum vfiostate state)
{
	switch (state) {
	case VFIOSTATE_PRECOPY:
		return caps->precopy;
	case VFIOSTATE_QUIESCED:
		return caps->quiesce;
	case VFIOSTATE_PRECOPY_QUIESCED:
		return caps->precopy && caps->quiesce;
	default:
		return true;
	}
}

/**
 * vfiostate_hop - where to go next on the way to another state
 *
 * Return: the state to ask the device for, by one write or SET; -EALREADY: @from is @to; -EINVAL:
 * the device does not have one of them, or no way is allowed; -EIO: only a reset leaves ERROR.
 */
int vfiostate_hop(const struct vfiostate_caps *caps, enum vfiostate from, enum vfiostate to)
{
	if (from == VFIOSTATE_ERROR)
		return -EIO;
	if (to == VFIOSTATE_ERROR || !vfiostate_has(caps, from) || !vfiostate_has(caps, to))
		return -EINVAL;
	if (from == to)
		return -EALREADY;
	return caps->v2 ? vfiov2_hop(caps, from, to) : vfiov1_hop(from, to);
}

/**
 * vfiostate_name - the word for a state in reports; static, "?" for none
 */
const char *vfiostate_name(enum vfiostate state)
{
	static const char *const names[VFIOSTATES] = {
		"running", "precopy", "quiesced", "precopy-quiesced",
		"stop", "stop-copy", "resuming", "error",
	};

	return (unsigned)state < ARRAY_LEN(names) ? names[state] : "?";
}
