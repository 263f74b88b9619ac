/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_WIRE_VFIOMSG_PARTS_H
#define PC_WIRE_VFIOMSG_PARTS_H
/* Between vfiomsg.c (heads and records) and vfiomsg_body.c (what each command carries). */
#include "wire/vfiomsg.h"

/* A fixed part: its size, and how much longer it is when a flag is set (u32 at offset 4). */
struct vfiomsg_shape {
	uint8_t size, more;
	uint32_t flag;
};

struct vfiomsg_row {
	const char *name; /* NULL: no such command */
	enum vfiomsg_way way;
	uint8_t ask_fds, answer_fds; /* at most */
	struct vfiomsg_shape ask, answer;
	/* What they promise beyond their fixed parts; NULL: there is no tail. */
	int (*asks)(const struct vfiomsg *m, const struct vfiomsg_terms *terms, const char **why);
	int (*answers)(const struct vfiomsg *m, const struct vfiomsg *asked, const char **why);
};

/* NULL for a command that is not understood. */
const struct vfiomsg_row *vfiomsg_row(unsigned command);

static inline int vfiomsg_refuse(int err, const char *text, const char **why)
{
	if (why)
		*why = text;
	return err;
}

#endif
