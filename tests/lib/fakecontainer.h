/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TESTS_FAKECONTAINER_H
#define PC_TESTS_FAKECONTAINER_H
/*
 * A VFIO container (type1 v2) of a test, with the rules and the errnos of Linux 6.12 as they were
 * seen there (devices.md 2.5), and what its devices do: pin, write, unpin.  Not copied from it.
 */
#include <stdbool.h>
#include <stdint.h>

#include "sys/dirty_container.h"

enum { FAKE_MAPPINGS = 64, FAKE_PAGES = 4096 };

struct fake_mapping {
	uint64_t iova, size;
	bool pinned[FAKE_PAGES];   /* by a driver */
	bool unpinned[FAKE_PAGES]; /* since tracking began, or was asked */
};

struct fake_container {
	uint64_t pgsizes, bitmap_max;
	bool no_migration;  /* it has no such capability */
	bool v1;	    /* type1, not v2 */
	bool whole;	    /* a device behind the IOMMU itself: all that is mapped is pinned */
	bool tracking;
	int fail_start;	    /* -errno of the next START */
	unsigned n;
	struct fake_mapping mapping[FAKE_MAPPINGS]; /* by iova */
	unsigned infos, gets, unmaps;		    /* calls */
};

extern const struct dirty_container_ops fake_container_ops;

void fake_container_init(struct fake_container *f);
void fake_container_map(struct fake_container *f, uint64_t iova, uint64_t pages);
void fake_container_pin(struct fake_container *f, uint64_t iova, uint64_t pages);
void fake_container_unpin(struct fake_container *f, uint64_t iova, uint64_t pages);

#endif
