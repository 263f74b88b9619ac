/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_WIRE_VFIOTERMS_H
#define PC_WIRE_VFIOTERMS_H
/*
 * What the two ends of vfio-user say of themselves in VERSION: JSON text with a NUL behind it.  All
 * of it is optional, and what is not known is passed over, as the specification wants; what is
 * known has to be of its kind and within its bounds.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/vfiomsg.h"

enum {
	VFIOTERMS_FDS_MAX = 1024, /* that anybody may claim to take */
	VFIOTERMS_FDS_DEFAULT = 1,
	VFIOTERMS_PGSIZE = 4096,
};

struct vfioterms {
	uint64_t max_data;
	uint64_t max_fds;
	uint64_t pgsize; /* of dirty bitmaps */
	bool twin;	 /* a second socket, for what the server asks */
	bool twin_fd;	 /* it came with the reply: the descriptor of this index */
	uint64_t twin_index;
};

/* What holds when nothing is said. */
struct vfioterms vfioterms_default(void);
/* @text: @len bytes with the NUL, or none.  0, or -EBADMSG and *why. */
int vfioterms_read(struct vfioterms *t, const void *text, size_t len, const char **why);
/* Text to be free()d; *len counts its NUL.  NULL when there is no memory. */
char *vfioterms_print(const struct vfioterms *t, size_t *len);
/* What two of them agree on. */
struct vfiomsg_terms vfioterms_agree(const struct vfioterms *ours, const struct vfioterms *theirs);

#endif
