/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_SYS_DIRTY_CONTAINER_H
#define PC_SYS_DIRTY_CONTAINER_H
/*
 * What a VFIO container (type1) knows of what its devices write: pages that are pinned, which are
 * dirty for as long as they are, and pages that were.  One container is asked once, however many
 * devices are in it.
 *
 * Whatever is asked and not answered is dirty: an error marks all that the question was about, and
 * is returned, too.
 */
#include <stdbool.h>
#include <stdint.h>

#include "core/dirtymark.h"

/* One of VFIO_IOMMU_*; 0 or -errno.  Tests answer in the kernel's place. */
struct dirty_container_ops {
	int (*call)(void *ctx, unsigned long request, void *arg);
};
/* @ctx points to the container's descriptor. */
extern const struct dirty_container_ops dirty_container_kernel_ops;

struct dirty_container {
	const struct dirty_container_ops *ops;
	void *ctx;
	bool tracking;
	uint64_t page;	     /* bytes that a bit stands for: the smallest page of the IOMMU */
	uint64_t bitmap_max; /* bytes of one answer */
};

/* One mapping of the container: what MAP_DMA was told, or several that are neighbours. */
struct dirty_span {
	uint64_t iova, size;
};

/* 0; -EOPNOTSUPP: this container tracks nothing; or another -errno. */
int dirty_container_init(struct dirty_container *c, const struct dirty_container_ops *ops,
			 void *ctx);
/* The page size changes with what is attached (S4-35b): to be called when devices come and go. */
int dirty_container_refresh(struct dirty_container *c);
/* Doing either twice is harmless. */
int dirty_container_start(struct dirty_container *c);
int dirty_container_stop(struct dirty_container *c);
/*
 * What was written since it was asked before, added to @m, whose addresses are the container's.
 * @spans: whole mappings, ascending.  Neighbours are asked for together, as far as an answer holds.
 */
int dirty_container_collect(struct dirty_container *c, const struct dirty_span *spans, unsigned n,
			    struct dirtymark *m);
/*
 * Unmap, and add what is dirty in it: afterwards nobody can be asked any more (S4-08).  -ENOENT:
 * some of it was not mapped.
 */
int dirty_container_unmap(struct dirty_container *c, const struct dirty_span *span,
			  struct dirtymark *m);

#endif
