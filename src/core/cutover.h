/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_CORE_CUTOVER_H
#define PC_CORE_CUTOVER_H
/*
 * In which order a VM and its devices are brought from one host to the other: plans as partial
 * orders.  Whoever does a step asks before, and hears which rule it would break.
 */
#include <stdbool.h>
#include <stdint.h>

enum cutover_plan {
	CUTOVER_GUEST,		/* source; the guest notes what devices write (plan G) */
	CUTOVER_HOST,		/* source; the host does: IOMMU, device, or all of it (plan H) */
	CUTOVER_ARRIVAL,	/* destination */
	CUTOVER_PLANS,
};

enum cutover_step {
	/* source */
	CUTOVER_TRACK,		/* everything that is written from now on is noted */
	CUTOVER_NOTIFY,		/* the guest was told to mark what devices use */
	CUTOVER_MARKED,		/* it has, and goes on with what is new */
	CUTOVER_VCPUS_STOP,
	CUTOVER_QUIESCE,	/* no device begins transfers to another one */
	CUTOVER_DEVICES_STOP,
	CUTOVER_SAVE,		/* the devices' streams are read to their ends */
	CUTOVER_SYNC,		/* what was noted is read for the last time */
	CUTOVER_UNTRACK,
	CUTOVER_DISCARD,	/* the destination was told which pages are old */
	CUTOVER_SEND_SET,	/* what devices reach was sent */
	CUTOVER_PACKAGE,
	CUTOVER_HAND_OVER,
	/* destination */
	CUTOVER_DISCARDED,	/* all that will ever be */
	CUTOVER_SERVE,		/* faults are answered */
	CUTOVER_LOAD,
	CUTOVER_PARK,		/* the guest's accesses to devices are trapped, and wait */
	CUTOVER_VCPUS_RUN,
	CUTOVER_MAP,		/* the gate is open: everything in reach is there, and mapped */
	CUTOVER_START,		/* devices are quiesced, not stopped */
	CUTOVER_RUN,
	CUTOVER_UNPARK,
	CUTOVER_STEPS,
};

struct cutover {
	enum cutover_plan plan;
	uint32_t done;		/* a bit for each step */
};

void cutover_init(struct cutover *c, enum cutover_plan plan);
/* The rule that the step would break now; NULL: none, or it is done. */
const char *cutover_edge(const struct cutover *c, enum cutover_step step);
/* It is done.  0; -EALREADY; -EPERM: cutover_edge(); -EINVAL: it is not in the plan. */
int cutover_did(struct cutover *c, enum cutover_step step);
/* The plan's own order: the next step; false: all are done. */
bool cutover_next(const struct cutover *c, enum cutover_step *step);
/* Is there a way back yet? */
bool cutover_may_abort(const struct cutover *c);
/* Of those who write guest memory: may any of them do so unnoticed by now? */
bool cutover_blind(const struct cutover *c);
const char *cutover_step_name(enum cutover_step step);

#endif
