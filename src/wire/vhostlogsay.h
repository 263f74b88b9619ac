/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_WIRE_VHOSTLOGSAY_H
#define PC_WIRE_VHOSTLOGSAY_H
/* The messages of what core/vhostlog decides. */
#include "core/vhostlog.h"
#include "wire/vhostmsg.h"

struct vhostlogsay {
	uint64_t bytes;			   /* of the log, from the beginning of its descriptor */
	const struct vhostmsg_addr *rings; /* as the VMM told, by number, the log's address true */
};

/* An action to the back-end as its message; SET_BASE wants the log's descriptor with it. */
void vhostlogsay(struct vhostmsg *m, const struct vhostlog_action *action,
		 const struct vhostlogsay *facts);
/* What is wrong with an answer that passed vhostmsg_check_reply(): static text; NULL: nothing. */
const char *vhostlogsay_wrong(const struct vhostmsg *answer);

#endif
