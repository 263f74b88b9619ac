/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What each request is about, and where its ring and its value stand.
 */
#include "config.h"

#include "wire/vhostsaid.h"

#include <criterion/criterion.h>

#include "core/guard.h"

#define ALL ((UINT64_C(1) << 20) - 1)

static const struct vhostmsg_terms plain = { .protocol = ALL };
static const struct vhostmsg_terms bases = { .protocol = ALL, .form = VHOSTMSG_BASES };
static const struct vhostmsg_terms bases_ack = { .protocol = ALL, .form = VHOSTMSG_BASES_ACK };

/* Every request of the protocol; what is not here has nothing to do with memory. */
static const enum vhostfront_what about[VHOSTMSG_CHECK_DEVICE_STATE + 1] = {
	[2] = VHOSTFRONT_SET_FEATURES,	[5] = VHOSTFRONT_TABLE,
	[9] = VHOSTFRONT_RING_ADDR,	[10] = VHOSTFRONT_RING_BASE,
	[11] = VHOSTFRONT_RING_STOP,	[12] = VHOSTFRONT_RING_KICK,
	[15] = VHOSTFRONT_GET_PROTOCOL, [16] = VHOSTFRONT_SET_PROTOCOL,
	[18] = VHOSTFRONT_RING_ENABLE,	[28] = VHOSTFRONT_ADVISE,
	[29] = VHOSTFRONT_LISTEN,	[30] = VHOSTFRONT_END,
	[37] = VHOSTFRONT_ADD_SLOT,	[38] = VHOSTFRONT_DROP_SLOT,
};

Test(vhostsaid, every_request)
{
	for (unsigned request = 1; request < ARRAY_LEN(about); request++) {
		struct vhostmsg m;
		struct vhostfront_said said;

		vhostmsg_ask(&m, (enum vhostmsg_request)request, 0);
		said = vhostsaid_read(&m, &plain);
		cr_assert_eq(said.what, about[request], "%s",
			     vhostmsg_name(VHOSTMSG_TO_BACKEND, request));
		cr_assert(!said.fed && !said.same);
		cr_assert_eq(said.wants, said.data);
		m.head.flags |= VHOSTMSG_NEED_REPLY;
		cr_assert(vhostsaid_read(&m, &plain).wants);
		cr_assert_eq(vhostsaid_read(&m, &plain).data, said.data);
	}
}

Test(vhostsaid, numbers)
{
	struct vhostfront_said said;
	struct vhostmsg m;

	vhostmsg_ask_u64(&m, VHOSTMSG_SET_PROTOCOL_FEATURES, 0, 0x98765);
	cr_assert_eq(vhostsaid_read(&m, &plain).value, 0x98765);
	vhostmsg_ask_u64(&m, VHOSTMSG_SET_VRING_KICK, 0, 3 | VHOSTMSG_NO_FD);
	cr_assert_eq(vhostsaid_read(&m, &plain).ring, 3);
	vhostmsg_ask(&m, VHOSTMSG_SET_VRING_BASE, 0);
	m.body.state = (struct vhostmsg_state){ .index = 7, .num = 99 };
	said = vhostsaid_read(&m, &plain);
	cr_assert(said.ring == 7 && said.value == 99);
	vhostmsg_ask(&m, VHOSTMSG_SET_VRING_ADDR, 0);
	m.body.addr.index = 5;
	cr_assert_eq(vhostsaid_read(&m, &plain).ring, 5);
}

/* P16: the third message under a table's number. */
Test(vhostsaid, P16_forms)
{
	struct vhostmsg m;

	vhostmsg_ask(&m, VHOSTMSG_SET_MEM_TABLE, 0);
	cr_assert(!vhostsaid_read(&m, &plain).wants);
	cr_assert(vhostsaid_read(&m, &bases).data);
	vhostmsg_ask_u64(&m, VHOSTMSG_SET_MEM_TABLE, 0, 0);
	cr_assert_eq(vhostsaid_read(&m, &bases_ack).what, VHOSTFRONT_BASES_ACK);
	cr_assert(!vhostsaid_read(&m, &bases_ack).wants);
	vhostmsg_ask_u64(&m, VHOSTMSG_SET_FEATURES, 0, 0);
	cr_assert_eq(vhostsaid_read(&m, &bases_ack).what, VHOSTFRONT_SET_FEATURES);
}

Test(vhostsaid, answers)
{
	struct vhostmsg asked, reply;

	vhostmsg_ask(&asked, VHOSTMSG_GET_FEATURES, 0);
	vhostmsg_reply_u64(&reply, VHOSTMSG_GET_FEATURES, 1234);
	cr_assert_eq(vhostsaid_answer(&reply, &asked, &plain), 1234);
	vhostmsg_ask(&asked, VHOSTMSG_GET_VRING_BASE, 0);
	reply = asked;
	reply.body.state = (struct vhostmsg_state){ .index = 1, .num = 5 };
	cr_assert_eq(vhostsaid_answer(&reply, &asked, &plain), 5);
	vhostmsg_ask(&asked, VHOSTMSG_SET_MEM_TABLE, VHOSTMSG_NEED_REPLY);
	vhostmsg_reply_u64(&reply, VHOSTMSG_SET_MEM_TABLE, 1);
	cr_assert_eq(vhostsaid_answer(&reply, &asked, &plain), 1);
	vhostmsg_ask(&asked, VHOSTMSG_POSTCOPY_ADVISE, 0);
	reply = asked;
	cr_assert_eq(vhostsaid_answer(&reply, &asked, &plain), 0);
}
