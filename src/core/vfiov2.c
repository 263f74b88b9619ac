/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The table is written for a device that has every state.  One that lacks some is served by the
 * same table: a state that it lacks is passed through in thought, by looking up the way on from
 * there.  That the kernel does the same makes both agree on which arcs are single ones.
 *
 * A device would take several arcs for one request.  They are asked for one by one all the same: a
 * request that fails can leave the device anywhere on its way, and a deadline is for one arc.
 */
#include "config.h"
#include "core/vfiov2.h"

#include <errno.h>

#include "core/guard.h"

static const uint32_t numbers[VFIOSTATES] = {
	[VFIOSTATE_ERROR] = 0,	   [VFIOSTATE_STOP] = 1,     [VFIOSTATE_RUNNING] = 2,
	[VFIOSTATE_STOPCOPY] = 3,  [VFIOSTATE_RESUMING] = 4, [VFIOSTATE_QUIESCED] = 5,
	[VFIOSTATE_PRECOPY] = 6,   [VFIOSTATE_PRECOPY_QUIESCED] = 7,
};

/* A hop; NO: that way would begin the stream anew, behind what was read of it (S3-42). */
enum { NO = VFIOSTATES };
#define RU VFIOSTATE_RUNNING
#define PC VFIOSTATE_PRECOPY
#define RP VFIOSTATE_QUIESCED
#define PP VFIOSTATE_PRECOPY_QUIESCED
#define ST VFIOSTATE_STOP
#define SC VFIOSTATE_STOPCOPY
#define RE VFIOSTATE_RESUMING

/* [from][to]; the states in the order of their enum, what is from and to the same is not used */
static const unsigned char hops[VFIOSTATE_ERROR][VFIOSTATE_ERROR] = {
	/*                              RU  PC  RP  PP  ST  SC  RE */
	[VFIOSTATE_RUNNING] =	      { RU, PC, RP, RP, RP, RP, RP },
	[VFIOSTATE_PRECOPY] =	      { RU, PC, RU, PP, RU, PP, RU },
	[VFIOSTATE_QUIESCED] =	      { RU, RU, RP, PP, ST, ST, ST },
	[VFIOSTATE_PRECOPY_QUIESCED] = { RP, PC, RP, PP, RP, SC, RP },
	[VFIOSTATE_STOP] =	      { RP, RP, RP, RP, ST, SC, RE },
	[VFIOSTATE_STOPCOPY] =	      { ST, NO, ST, NO, ST, SC, ST },
	[VFIOSTATE_RESUMING] =	      { ST, ST, ST, ST, ST, ST, RE },
};

/**
 * vfiov2_caps - what the flags of VFIO_DEVICE_FEATURE_MIGRATION say
 */
int vfiov2_caps(uint64_t flags, struct vfiostate_caps *caps)
{
	if (!(flags & VFIOV2_STOP_COPY))
		return -EOPNOTSUPP;
	*caps = (struct vfiostate_caps){
		.v2 = true,
		.quiesce = flags & VFIOV2_P2P,
		.precopy = flags & VFIOV2_PRE_COPY,
	};
	return 0;
}

/**
 * vfiov2_encode - the number of a state
 */
uint32_t vfiov2_encode(enum vfiostate state)
{
	return numbers[state];
}

/**
 * vfiov2_decode - the state of a number that a device gave
 *
 * Return: the state; -EPROTO: no device of that kind can be in it.
 */
int vfiov2_decode(uint32_t number, const struct vfiostate_caps *caps)
{
	for (unsigned i = 0; i < VFIOSTATES; i++)
		if (numbers[i] == number)
			return vfiostate_has(caps, (enum vfiostate)i) ? (int)i : -EPROTO;
	return -EPROTO;
}

/**
 * vfiov2_hop - the next arc, see vfiostate_hop()
 */
int vfiov2_hop(const struct vfiostate_caps *caps, enum vfiostate from, enum vfiostate to)
{
	unsigned hop = hops[from][to];

	while (hop != NO && !vfiostate_has(caps, (enum vfiostate)hop))
		hop = hops[hop][to];
	return hop == NO ? -EINVAL : (int)hop;
}

/**
 * vfiov2_opens - does this single arc begin a stream?
 *
 * The descriptor that comes with it lives until its stream ends: moves among the states that save
 * keep it, and bring no new one.
 */
bool vfiov2_opens(enum vfiostate from, enum vfiostate to)
{
	const unsigned streams = VFIOSTATE_SAVES | VFIOSTATE_LOADS;
	unsigned before = vfiostate_rights(from) & streams, after = vfiostate_rights(to) & streams;

	return after && before != after;
}
