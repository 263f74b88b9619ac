/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_VHOST_RECORD_H
#define PC_DAEMON_VHOST_RECORD_H
/*
 * What a vhost-user back-end was told that is in force: what another one has to be told to stand
 * where it stood.
 */
#include <stdbool.h>
#include <stdint.h>
#include <glib.h>
#include "daemon/vhost_frame.h"

struct vhost_record {
	/* struct vhost_frame, in the order in which they are to be said */
	GPtrArray *frames;
};

/* Memory that was told: a part of a file. */
struct vhost_region {
	uint64_t dev, inode;		/* dev as st_dev */
	uint64_t offset, length;
	uint64_t va;			/* the VMM's, by which an answer is matched */
};

#define VHOST_RECORD_REGIONS 64

void vhost_record_init(struct vhost_record *r);
void vhost_record_deinit(struct vhost_record *r);
/* @f was said, and is taken over; what it supersedes is forgotten. */
void vhost_record_note(struct vhost_record *r, struct vhost_frame *f);
/* A ring was stopped, there; for good, or it will be started again. */
void vhost_record_stopped(struct vhost_record *r, unsigned ring, uint32_t base, bool for_good);
/*
 * Copies behind what is in @feed; of one ring only, or of all (-1).  False: no descriptors are
 * left.
 */
bool vhost_record_copy(const struct vhost_record *r, int ring, GQueue *feed);
/* Does it hold such a request? */
bool vhost_record_has(const struct vhost_record *r, uint32_t request);
/* Is @f byte for byte, and file for file, the table in force? */
bool vhost_record_is_table(const struct vhost_record *r, const struct vhost_frame *f);
/*
 * The memory in force when @f, which tells of some, is said; NULL: nothing more is.  @out:
 * VHOST_RECORD_REGIONS.  Number; what is not memory that can be served is left out.  -E2BIG: too
 * many.
 */
int vhost_record_regions(const struct vhost_record *r, const struct vhost_frame *f,
			 struct vhost_region *out);

#endif
