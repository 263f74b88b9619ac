/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_WIRE_VHOSTSAID_H
#define PC_WIRE_VHOSTSAID_H
/* What a vhost-user request is about, for those who decide and do not know its bytes. */
#include "core/vhostfront.h"
#include "wire/vhostmsg.h"

/*
 * @m: passed vhostmsg_check() under @terms, or is kept from then; said->fed and ->same are false.
 */
struct vhostfront_said vhostsaid_read(const struct vhostmsg *m, const struct vhostmsg_terms *terms);
/* The number in an answer that passed vhostmsg_check_reply(); 0 where it has none. */
uint64_t vhostsaid_answer(const struct vhostmsg *reply, const struct vhostmsg *asked,
			  const struct vhostmsg_terms *terms);

#endif
