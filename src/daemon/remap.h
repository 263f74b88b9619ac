/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_REMAP_H
#define PC_DAEMON_REMAP_H
/*
 * What changed between two looks at the mappings of a sharer.
 */
#include <stdbool.h>
#include "core/sharer.h"

struct remap {
	unsigned n_gone, n_added;
	/* of those it had: not, or not wholly, there any more */
	struct mapping gone[SHARER_MAPPINGS];
	struct mapping added[SHARER_MAPPINGS];	/* there, and not shown by any that stays */
};

/* False when there is more to add than there is room for. */
bool remap_compare(struct remap *r, const struct mapping *had, unsigned n_had,
		   const struct mapping *now, unsigned n_now);

#endif
