/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * SAVING and RESUMING exclude each other, and so do RESUMING and RUNNING: that leaves 5 values, and
 * with NDMA 10 (S3-25..27).  Those of NDMA without RUNNING say nothing that the others do not, and
 * are understood but never written.  ERROR is the value that SAVING and RESUMING make without the
 * others; a device gives it, nobody writes it.  With NDMA it is 6 of 16 values and 14 is just none;
 * without, NDMA's bit is reserved, so that 14 is ERROR.
 *
 * Devices of this version differ in the arcs they take.  Those of the table are the ones that all
 * of them promise (S3-56, S3-85), and they are the only ones that are used (S3-57):
 *
 *   - RESUMING is entered from RUNNING alone;
 *   - a device that has left its quiesced state for STOP cannot save any more: who wants to save
 *     several devices quiesces them while they save, PRECOPY -> PRECOPY_QUIESCED -> STOPCOPY;
 *   - from STOP and STOPCOPY only RUNNING is left: to go back to QUIESCED a device is reset, and
 *     loaded again.
 */
#include "config.h"
#include "core/vfiov1.h"

#include <errno.h>

/* A hop; NO: it would pass a state that may do more than both ends, see vfiostate.c. */
enum { NO = VFIOSTATES };
#define RU VFIOSTATE_RUNNING
#define PC VFIOSTATE_PRECOPY
#define RN VFIOSTATE_QUIESCED
#define PN VFIOSTATE_PRECOPY_QUIESCED
#define ST VFIOSTATE_STOP
#define SC VFIOSTATE_STOPCOPY
#define RE VFIOSTATE_RESUMING

/* [from][to]; the states in the order of their enum, what is from and to the same is not used */
static const unsigned char hops[VFIOSTATE_ERROR][VFIOSTATE_ERROR] = {
	/*                              RU  PC  RN  PN  ST  SC  RE */
	[VFIOSTATE_RUNNING] =	      { RU, PC, RN, PC, ST, SC, RE },
	[VFIOSTATE_PRECOPY] =	      { RU, PC, RU, PN, RU, SC, RU },
	[VFIOSTATE_QUIESCED] =	      { RU, RU, RN, NO, ST, NO, NO },
	[VFIOSTATE_PRECOPY_QUIESCED] = { RU, NO, NO, PN, ST, SC, NO },
	[VFIOSTATE_STOP] =	      { RU, RU, NO, NO, ST, NO, NO },
	[VFIOSTATE_STOPCOPY] =	      { RU, NO, NO, NO, ST, SC, NO },
	[VFIOSTATE_RESUMING] =	      { RU, RU, RN, NO, NO, NO, RE },
};

/**
 * vfiov1_mask - the bits of device_state that mean something
 */
uint32_t vfiov1_mask(bool ndma)
{
	uint32_t mask = VFIOV1_RUNNING | VFIOV1_SAVING | VFIOV1_RESUMING;

	return ndma ? mask | VFIOV1_NDMA : mask;
}

/**
 * vfiov1_valid - do the bits make a state that can be asked for?
 */
bool vfiov1_valid(uint32_t value, bool ndma)
{
	value &= vfiov1_mask(ndma);
	return !(value & VFIOV1_RESUMING) || !(value & (VFIOV1_SAVING | VFIOV1_RUNNING));
}

/**
 * vfiov1_is_error - does a device say that only a reset helps?
 */
bool vfiov1_is_error(uint32_t value, bool ndma)
{
	return (value & vfiov1_mask(ndma)) == VFIOV1_ERROR;
}

/**
 * vfiov1_decode - what a device says it is in
 * @value: device_state as it was read, with its reserved bits
 *
 * Return: the state; -EPROTO: no state has these bits.
 */
int vfiov1_decode(uint32_t value, bool ndma)
{
	static const unsigned char stopped[] = {
		[0] = VFIOSTATE_STOP,
		[VFIOV1_SAVING] = VFIOSTATE_STOPCOPY,
		[VFIOV1_RESUMING] = VFIOSTATE_RESUMING,
	};
	static const unsigned char running[2][2] = {	/* [saving][ndma] */
		{ VFIOSTATE_RUNNING, VFIOSTATE_QUIESCED },
		{ VFIOSTATE_PRECOPY, VFIOSTATE_PRECOPY_QUIESCED },
	};

	value &= vfiov1_mask(ndma);
	if (value == VFIOV1_ERROR)
		return VFIOSTATE_ERROR;
	if (!vfiov1_valid(value, ndma))
		return -EPROTO;
	if (value & VFIOV1_RUNNING)
		return running[!!(value & VFIOV1_SAVING)][!!(value & VFIOV1_NDMA)];
	return stopped[value & ~(uint32_t)VFIOV1_NDMA];
}

/**
 * vfiov1_encode - the value to write
 * @was: device_state as it was just read: its reserved bits are kept (S3-24)
 */
int vfiov1_encode(enum vfiostate to, bool ndma, uint32_t was, uint32_t *value)
{
	static const uint32_t bits[VFIOSTATES] = {
		[VFIOSTATE_RUNNING] = VFIOV1_RUNNING,
		[VFIOSTATE_PRECOPY] = VFIOV1_RUNNING | VFIOV1_SAVING,
		[VFIOSTATE_QUIESCED] = VFIOV1_RUNNING | VFIOV1_NDMA,
		[VFIOSTATE_PRECOPY_QUIESCED] = VFIOV1_RUNNING | VFIOV1_SAVING | VFIOV1_NDMA,
		[VFIOSTATE_STOPCOPY] = VFIOV1_SAVING,
		[VFIOSTATE_RESUMING] = VFIOV1_RESUMING,
		[VFIOSTATE_ERROR] = VFIOV1_ERROR,
	};
	uint32_t mask = vfiov1_mask(ndma);

	if (to == VFIOSTATE_ERROR || (bits[to] & ~mask))
		return -EINVAL;
	*value = (was & ~mask) | bits[to];
	return 0;
}

/**
 * vfiov1_hop - the next arc, see vfiostate_hop()
 */
int vfiov1_hop(enum vfiostate from, enum vfiostate to)
{
	unsigned hop = hops[from][to];

	return hop == NO ? -EINVAL : (int)hop;
}
