/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The few numbers in a message that decide something.  A request without a row has nothing to do
 * with memory; a new one that has must get one here (tests/unit/test_vhostsaid.c knows them all).
 */
#include "config.h"

#include "wire/vhostsaid.h"

#include "core/guard.h"

_Static_assert(VHOSTFRONT_REPLY_ACK == VHOSTMSG_P_REPLY_ACK, "feature");
_Static_assert(VHOSTFRONT_PAGEFAULT == VHOSTMSG_P_PAGEFAULT, "feature");
_Static_assert(VHOSTFRONT_MEM_SLOTS == VHOSTMSG_P_MEM_SLOTS, "feature");
_Static_assert((int)VHOSTFRONT_RINGS == (int)VHOSTMSG_RINGS, "rings");

/* Where the ring and the value stand. */
enum place { NOWHERE, WHOLE, STATE, RING };

static const struct {
	uint8_t what; /* enum vhostfront_what */
	uint8_t place;
} rows[] = {
	[VHOSTMSG_SET_FEATURES] = { VHOSTFRONT_SET_FEATURES, WHOLE },
	[VHOSTMSG_GET_PROTOCOL_FEATURES] = { VHOSTFRONT_GET_PROTOCOL, NOWHERE },
	[VHOSTMSG_SET_PROTOCOL_FEATURES] = { VHOSTFRONT_SET_PROTOCOL, WHOLE },
	[VHOSTMSG_SET_MEM_TABLE] = { VHOSTFRONT_TABLE, NOWHERE },
	[VHOSTMSG_ADD_MEM_REG] = { VHOSTFRONT_ADD_SLOT, NOWHERE },
	[VHOSTMSG_REM_MEM_REG] = { VHOSTFRONT_DROP_SLOT, NOWHERE },
	[VHOSTMSG_SET_VRING_BASE] = { VHOSTFRONT_RING_BASE, STATE },
	[VHOSTMSG_GET_VRING_BASE] = { VHOSTFRONT_RING_STOP, STATE },
	[VHOSTMSG_SET_VRING_ADDR] = { VHOSTFRONT_RING_ADDR, STATE },
	[VHOSTMSG_SET_VRING_KICK] = { VHOSTFRONT_RING_KICK, RING },
	[VHOSTMSG_SET_VRING_ENABLE] = { VHOSTFRONT_RING_ENABLE, STATE },
	[VHOSTMSG_POSTCOPY_ADVISE] = { VHOSTFRONT_ADVISE, NOWHERE },
	[VHOSTMSG_POSTCOPY_LISTEN] = { VHOSTFRONT_LISTEN, NOWHERE },
	[VHOSTMSG_POSTCOPY_END] = { VHOSTFRONT_END, NOWHERE },
};

/**
 * vhostsaid_read - what a request is about
 */
struct vhostfront_said vhostsaid_read(const struct vhostmsg *m, const struct vhostmsg_terms *terms)
{
	enum vhostmsg_answer answer = vhostmsg_expects(m, VHOSTMSG_TO_BACKEND, terms);
	struct vhostfront_said said = {
		.what = VHOSTFRONT_OTHER,
		.wants = answer != VHOSTMSG_SILENCE,
		.data = answer == VHOSTMSG_DATA,
	};

	if (m->head.request >= ARRAY_LEN(rows))
		return said;
	said.what = (enum vhostfront_what)rows[m->head.request].what;
	if (said.what == VHOSTFRONT_TABLE || said.what == VHOSTFRONT_ADD_SLOT ||
	    said.what == VHOSTFRONT_DROP_SLOT)
		if (terms->form == VHOSTMSG_BASES_ACK)
			said.what = VHOSTFRONT_BASES_ACK;
	switch ((enum place)rows[m->head.request].place) {
	case WHOLE:
		said.value = m->body.u64;
		break;
	case STATE: /* an address begins like a state */
		said.ring = m->body.state.index;
		said.value = m->body.state.num;
		break;
	case RING:
		said.ring = m->body.u64 & (VHOSTMSG_RINGS - 1);
		break;
	case NOWHERE:
		break;
	}
	return said;
}

/**
 * vhostsaid_answer - the number in an answer
 */
uint64_t vhostsaid_answer(const struct vhostmsg *reply, const struct vhostmsg *asked,
			  const struct vhostmsg_terms *terms)
{
	if (vhostmsg_expects(asked, VHOSTMSG_TO_BACKEND, terms) == VHOSTMSG_ACK)
		return reply->body.u64;
	if (reply->head.request == VHOSTMSG_GET_VRING_BASE)
		return reply->body.state.num;
	return reply->head.size == sizeof(reply->body.u64) ? reply->body.u64 : 0;
}
