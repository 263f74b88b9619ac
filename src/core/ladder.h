/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_CORE_LADDER_H
#define PC_CORE_LADDER_H
/*
 * How a device is kept from writing to memory: the ways there are, from the kindest to the last,
 * and which of them is tried next.  ladder.c says why some are not.
 */
#include <stdbool.h>
#include <stdint.h>

enum ladder_rung {
	LADDER_V2,		/* quiesce and stop, by VFIO's second version */
	LADDER_V1,		/* or the first */
	LADDER_SUSPEND,		/* the guest suspends it */
	LADDER_BUS_MASTER,	/* its bus mastering is taken away */
	LADDER_RESET,
	LADDER_IOMMU,		/* everything it reached is unmapped */
	LADDER_DETACH,		/* the VMM unplugs it */
	LADDER_REFUSE,		/* there is no migration with it */
	LADDER_RUNGS,
};

struct ladder_facts {
	bool v2, v1;
	bool suspends;		/* somebody in the guest does that when he is asked */
	bool set_known;		/* all that it reaches was declared in time */
	bool resets;
	bool survives_reset;	/* the guest does, when that happens under it */
	bool enforced;		/* there is an IOMMU */
	bool detaches;
	bool mandatory;		/* the VM has to leave, whatever it costs */
};

enum ladder_result {
	LADDER_FAILED,		/* it could not be done */
	LADDER_DONE,		/* it was, and whether the device stands still is to be seen */
	LADDER_STANDS,		/* and it does */
};

enum { LADDER_TRIES = LADDER_RUNGS * 2 };

struct ladder {
	struct ladder_facts facts;
	uint32_t tried, done;	/* rungs; tried: since the last reset */
	bool was_reset;
	bool stands;
	struct {
		enum ladder_rung rung;
		enum ladder_result result;
	} log[LADDER_TRIES];
	unsigned n;
};

void ladder_init(struct ladder *l, const struct ladder_facts *facts);
/* What to try now; LADDER_REFUSE: nothing is left.  False: it stands still. */
bool ladder_next(const struct ladder *l, enum ladder_rung *rung);
void ladder_went(struct ladder *l, enum ladder_rung rung, enum ladder_result result);
/* Why a rung is not tried; static; NULL: it is, or was. */
const char *ladder_skipped(const struct ladder *l, enum ladder_rung rung);
/* Is what is in the device still what the guest made of it? */
bool ladder_keeps_state(const struct ladder *l);
const char *ladder_rung_name(enum ladder_rung rung);

#endif
