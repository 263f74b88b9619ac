/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_WIRE_VFIOCAPS_H
#define PC_WIRE_VFIOCAPS_H
/*
 * What VFIO says of a region of a device, and of an IOMMU container: a fixed struct, and behind it
 * a chain of capabilities, each with the offset of the next one.  The kernel answers an ioctl with
 * it, a vfio-user server a message; the bytes are the same, in the byte order of the host.
 *
 * Both are asked twice: `argsz` in the answer says how long it would have been, and when the buffer
 * was shorter the capabilities were left out.  VFIOCAPS_AGAIN tells that, with the length to come
 * back with.  A server could go on like that for ever; who asks counts.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	VFIOCAPS_REGION_HEAD = 32,
	VFIOCAPS_IOMMU_HEAD = 24,
	VFIOCAPS_MAX = 65536,	/* bytes of an answer with its chain; more is no VFIO */
	VFIOCAPS_AREAS = 64,	/* of one region */
	VFIOCAPS_RANGES = 64,	/* of I/O addresses */
};

enum vfiocaps_outcome {
	VFIOCAPS_AGAIN = 1,	/* ask once more, with a longer buffer */
};

enum vfiocaps_region_flags {
	VFIOCAPS_READ = 1,
	VFIOCAPS_WRITE = 2,
	VFIOCAPS_MMAP = 4,
	VFIOCAPS_REGION_CAPS = 8,
};
enum vfiocaps_iommu_flags {
	VFIOCAPS_PGSIZES = 1,
	VFIOCAPS_IOMMU_CAPS = 2,
};

/* Type and subtype of the region that device state goes through. */
enum {
	VFIOCAPS_TYPE_MIGRATION = 3,
	VFIOCAPS_SUBTYPE_MIGRATION = 1,
};

struct vfiocaps_area {
	uint64_t offset, size;	/* inside the region; never empty */
};

struct vfiocaps_region {
	uint32_t flags, index;
	uint64_t size, offset;	/* where it begins in the descriptor it is read through */
	bool typed;
	uint32_t type, subtype;
	bool ndma;		/* bit 3 of device_state may be used */
	/*
	 * Without `sparse` all of a region that has VFIOCAPS_MMAP can be mapped, with it only the
	 * areas; they may overlap and need no order.
	 */
	bool sparse;
	unsigned n_areas;
	struct vfiocaps_area areas[VFIOCAPS_AREAS];
};

struct vfiocaps_range {
	uint64_t first, last;	/* both included; ascending, apart */
};

struct vfiocaps_iommu {
	uint32_t flags;
	uint64_t pgsizes;	/* 0: not told */
	bool migration;		/* dirty pages can be tracked */
	uint64_t dirty_pgsizes, dirty_bitmap_max;
	bool limited;		/* there is a limit to mappings */
	uint32_t dma_avail;	/* how many more */
	unsigned n_ranges;	/* 0: not told */
	struct vfiocaps_range ranges[VFIOCAPS_RANGES];
};

/*
 * 0 and *out; VFIOCAPS_AGAIN and *need, the length of a buffer that takes it all; -EPROTO for what
 * breaks its own promises; -E2BIG for more areas or ranges than there is room; -EOPNOTSUPP for a
 * version of a capability that is not known, as it may take back what would be believed without it.
 * @why: what is wrong, static text; untouched when nothing is; may be NULL.
 */
int vfiocaps_region(struct vfiocaps_region *out, const void *buf, size_t len, size_t *need,
		    const char **why);
int vfiocaps_iommu(struct vfiocaps_iommu *out, const void *buf, size_t len, size_t *need,
		   const char **why);
/* Does device state go through this region? */
bool vfiocaps_is_migration(const struct vfiocaps_region *r);

#endif
