/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "wire/vhostlogsay.h"

#include <assert.h>

static void say_addr(struct vhostmsg *m, const struct vhostlog_action *a,
		     const struct vhostlogsay *facts)
{
	vhostmsg_ask(m, VHOSTMSG_SET_VRING_ADDR, a->urged ? VHOSTMSG_NEED_REPLY : 0);
	m->body.addr = facts->rings[a->ring];
	m->body.addr.index = a->ring;
	/* Its lowest bit alone is ours. */
	m->body.addr.flags = (m->body.addr.flags & ~UINT32_C(1)) | (uint32_t)a->value;
}

/**
 * vhostlogsay - what the back-end is sent
 *
 * Only what has no answer of its own is urged on the wire.
 */
void vhostlogsay(struct vhostmsg *m, const struct vhostlog_action *action,
		 const struct vhostlogsay *facts)
{
	switch (action->verb) {
	case VHOSTLOG_DO_SET_BASE:
		vhostmsg_ask(m, VHOSTMSG_SET_LOG_BASE, 0);
		m->head.size = sizeof(m->body.log);
		m->body.log.size = facts->bytes;
		m->fds = 1;
		break;
	case VHOSTLOG_DO_FEATURES:
		vhostmsg_ask_u64(m, VHOSTMSG_SET_FEATURES, action->urged ? VHOSTMSG_NEED_REPLY : 0,
				 action->value);
		break;
	case VHOSTLOG_DO_ADDR:
		say_addr(m, action, facts);
		break;
	case VHOSTLOG_DO_STOP_RING:
		vhostmsg_ask(m, VHOSTMSG_GET_VRING_BASE, 0);
		m->body.state.index = action->ring;
		break;
	default:
		assert(action->verb == VHOSTLOG_DO_BARRIER);
		vhostmsg_ask(m, VHOSTMSG_GET_FEATURES, 0);
		break;
	}
}

/**
 * vhostlogsay_wrong - did the back-end refuse?
 *
 * The answer to SET_LOG_BASE is whatever was in the buffer, or the request itself, or 0.
 */
const char *vhostlogsay_wrong(const struct vhostmsg *answer)
{
	uint32_t request = answer->head.request;

	if (request != VHOSTMSG_SET_FEATURES && request != VHOSTMSG_SET_VRING_ADDR)
		return NULL;
	return answer->body.u64 ? "it refuses to log" : NULL;
}
