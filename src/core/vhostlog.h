/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_CORE_VHOSTLOG_H
#define PC_CORE_VHOSTLOG_H
/*
 * One vhost-user back-end whose writes into guest memory are logged, for the source of a migration:
 * what it is told to begin, to go over to another log, to stop, and to finish.
 *
 * Events in, actions out, as with vhostfront.  vhostlog.c has the sequences and why.
 */
#include <stdbool.h>
#include <stdint.h>

enum { VHOSTLOG_RINGS = 256 };

#define VHOSTLOG_F_LOG_ALL   (UINT64_C(1) << 26) /* of the features */
#define VHOSTLOG_P_LOG_SHMFD (UINT64_C(1) << 1)	 /* of the protocol's */
#define VHOSTLOG_P_REPLY_ACK (UINT64_C(1) << 3)

enum vhostlog_plan {
	VHOSTLOG_START,
	VHOSTLOG_RESIZE, /* the table of regions changes: before it grows, after it shrank */
	VHOSTLOG_STOP,	 /* the migration is off, the device goes on */
	VHOSTLOG_FINISH, /* the device stops; what it wrote last is in the log */
	VHOSTLOG_PLANS,
};

enum vhostlog_verb {
	VHOSTLOG_END, /* of a plan; no action */
	/* to the back-end; answered if @urged */
	VHOSTLOG_DO_SET_BASE,  /* SET_LOG_BASE with the (new) log's descriptor */
	VHOSTLOG_DO_FEATURES,  /* SET_FEATURES, value */
	VHOSTLOG_DO_ADDR,      /* SET_VRING_ADDR of @ring as the VMM told it, value for its flags */
	VHOSTLOG_DO_STOP_RING, /* GET_VRING_BASE of @ring */
	VHOSTLOG_DO_BARRIER,   /* GET_FEATURES: what was sent before is done */
	/* by the caller */
	VHOSTLOG_DO_HARVEST,	 /* nobody writes any more: the last pass */
	VHOSTLOG_DO_HARVEST_OLD, /* nobody writes to the log that was replaced: its last pass */
	VHOSTLOG_DO_ALL_DIRTY,	 /* the log does not say: all memory of the back-end; see reason */
	VHOSTLOG_DO_DROP,	 /* the log is in nobody's hands any more */
	VHOSTLOG_VERBS,
};

struct vhostlog_action {
	enum vhostlog_verb verb;
	bool urged;
	unsigned ring;
	uint64_t value;
};

enum vhostlog_state { VHOSTLOG_OFF, VHOSTLOG_ON, VHOSTLOG_FINISHED, VHOSTLOG_FAILED };

struct vhostlog {
	/* of the back-end */
	uint64_t offered, protocol; /* features it offers; what was agreed on */
	uint64_t answer_limit;	    /* unit of @now */
	enum vhostlog_state state;
	uint64_t features;		     /* as the VMM told it */
	bool logging;			     /* it was told to */
	uint64_t rings[VHOSTLOG_RINGS / 64]; /* whose addresses the VMM told */
	/* the plan at hand */
	bool busy, waiting;
	enum vhostlog_plan plan;
	unsigned step, ring; /* where in it; the next ring of a step for all of them */
	enum vhostlog_verb told;
	uint64_t deadline;
	const char *reason; /* static; of ALL_DIRTY */
	bool failing;	    /* ALL_DIRTY is due */
};

void vhostlog_init(struct vhostlog *v, uint64_t offered, uint64_t protocol, uint64_t answer_limit);
/* What is passed on of what the VMM tells while its back-end may be logging. */
uint64_t vhostlog_features(struct vhostlog *v, uint64_t told);
uint32_t vhostlog_addr_flags(struct vhostlog *v, unsigned ring, uint32_t told);
/* 0; -EOPNOTSUPP: it cannot log; -EBUSY: a plan is at hand; -EINVAL: not in this state. */
int vhostlog_begin(struct vhostlog *v, enum vhostlog_plan plan);
bool vhostlog_next(struct vhostlog *v, struct vhostlog_action *action, uint64_t now);
/* It answered; @wrong: not as it should have, NULL: well. */
void vhostlog_answered(struct vhostlog *v, const char *wrong);
void vhostlog_lost(struct vhostlog *v, const char *reason);
void vhostlog_tick(struct vhostlog *v, uint64_t now);
bool vhostlog_busy(const struct vhostlog *v);

#endif
