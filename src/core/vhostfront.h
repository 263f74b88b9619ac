/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_CORE_VHOSTFRONT_H
#define PC_CORE_VHOSTFRONT_H
/*
 * One vhost-user back-end, between the VMM that drives it and the pages it may not touch yet: what
 * is passed on, what is held, what is said to the back-end of our own accord.
 *
 * Events in, actions out.  wire/vhostsaid translates messages; whoever calls holds their bytes and
 * descriptors, does the actions in order, and tells how they went.  vhostfront.c has the theory.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	VHOSTFRONT_RINGS = 256,
	VHOSTFRONT_STEPS = 16,		/* of one plan */
	VHOSTFRONT_ACTIONS = 32,	/* not yet taken by the caller */
	VHOSTFRONT_HELD = 4096,		/* requests; all that can be said of all rings, twice */
};

/* Bits of the protocol features that decide something here. */
#define VHOSTFRONT_REPLY_ACK (UINT64_C(1) << 3)
#define VHOSTFRONT_PAGEFAULT (UINT64_C(1) << 8)
#define VHOSTFRONT_MEM_SLOTS (UINT64_C(1) << 15)
#define VHOSTFRONT_NET_MQ    (UINT64_C(1) << 22) /* of the features: several pairs of queues */

/* How a back-end comes to have its mappings registered. */
enum vhostfront_dialect {
	/* it opens the userfaultfd, we register: ADVISE, plain table, proof */
	VHOSTFRONT_UNIVERSAL,
	VHOSTFRONT_SPEC,	/* it registers: ADVISE, LISTEN, table with addresses, proof */
	/* it registers what it has mapped: plain table, ADVISE, LISTEN, proof */
	VHOSTFRONT_RUST,
	VHOSTFRONT_GATED,	/* it has no memory until all of it is there */
	VHOSTFRONT_DIALECTS,
};

/* What a request of the VMM is about. */
enum vhostfront_what {
	VHOSTFRONT_OTHER,	/* nothing to do with memory */
	VHOSTFRONT_SET_FEATURES,
	VHOSTFRONT_GET_PROTOCOL,
	VHOSTFRONT_SET_PROTOCOL,
	VHOSTFRONT_TABLE,
	VHOSTFRONT_ADD_SLOT,
	VHOSTFRONT_DROP_SLOT,
	VHOSTFRONT_BASES_ACK,	/* the VMM accepts the addresses it was told */
	VHOSTFRONT_RING_BASE,
	VHOSTFRONT_RING_STOP,
	VHOSTFRONT_RING_ADDR,	/* back-ends read the used ring to answer this */
	VHOSTFRONT_RING_KICK,
	VHOSTFRONT_RING_ENABLE,
	VHOSTFRONT_ADVISE,
	VHOSTFRONT_LISTEN,
	VHOSTFRONT_END,
	VHOSTFRONT_WHATS,
};

struct vhostfront_said {
	enum vhostfront_what what;
	bool wants;	/* the VMM waits for an answer */
	bool data;	/* the answer is the request's own, not a u64 that was asked for */
	bool fed;	/* not from the VMM: from what was kept or held */
	bool same;	/* a table that is byte for byte the one in force */
	unsigned ring;
	uint64_t value;	/* features, base, or what ENABLE says */
};

enum vhostfront_verb {
	/*
	 * to the back-end; RELAY is answered if @urged or if the request has data; the others
	 * always
	 */
	VHOSTFRONT_DO_RELAY,		/* the request; value: of SET_PROTOCOL */
	VHOSTFRONT_DO_RELAY_BASES,	/* the table, to be answered with addresses */
	VHOSTFRONT_DO_ADVISE,
	VHOSTFRONT_DO_LISTEN,
	VHOSTFRONT_DO_END,
	VHOSTFRONT_DO_BARRIER,		/* GET_FEATURES: what was sent before is done */
	VHOSTFRONT_DO_STOP_RING,	/* GET_VRING_BASE; answered with the base as value */
	VHOSTFRONT_DO_ACK_BASES,	/* not answered */
	/* by the caller */
	VHOSTFRONT_DO_PROVE,	/* value 1: register first.  Ends with vhostfront_proved() */
	VHOSTFRONT_DO_KEEP,	/* the request is in force: a new back-end gets it again, once */
	VHOSTFRONT_DO_HOLD,	/* put it behind the others that are held */
	VHOSTFRONT_DO_RELEASE,	/* hear all that is held, fed, then vhostfront_fed() */
	VHOSTFRONT_DO_REPLAY,	/* hear all that was kept, fed, then vhostfront_fed() */
	/* among what is fed next, first: what was kept of the rings that were stopped */
	VHOSTFRONT_DO_RESTART,
	VHOSTFRONT_DO_DROP,	/* close our userfaultfd: nobody waits on it any more */
	VHOSTFRONT_DO_DROP_ORPHANS, /* close those of connections that were lost */
	/*
	 * Close the back-end's socket, keep its userfaultfd; see reason and since.  What is held
	 * and not heard yet counts as kept.  Urged: the VMM waits for an answer that will not come.
	 */
	VHOSTFRONT_DO_QUARANTINE,
	/* to the VMM */
	VHOSTFRONT_DO_ANSWER,		/* a u64, value */
	VHOSTFRONT_DO_ANSWER_BASE,	/* GET_VRING_BASE of a ring that is held: ring, value */
	VHOSTFRONT_DO_PASS_ANSWER,	/* the back-end's; value: of GET_PROTOCOL */
	VHOSTFRONT_DO_PASS_REPAIRED,	/* the back-end's, with the true addresses */
	VHOSTFRONT_VERBS,
};

struct vhostfront_action {
	enum vhostfront_verb verb;
	bool urged;
	unsigned ring;
	uint64_t value;
};

struct vhostfront_config {
	enum vhostfront_dialect dialect;
	bool repair;		/* the VMM does its own postcopy */
	bool begun;		/* so it has, on a connection before this one */
	bool may_gate;		/* a back-end that cannot fault waits; else it is refused */
	bool early;		/* nobody answers faults yet: see vhostfront_serving() */
	uint64_t protocol;	/* its features that may be negotiated */
	uint64_t answer_limit;	/* how long an answer, and a proof, may take; unit of @now */
	uint64_t proof_limit;
};

enum vhostfront_wait { VHOSTFRONT_IDLE, VHOSTFRONT_AWAITS_ANSWER, VHOSTFRONT_AWAITS_PROOF };

struct vhostfront {
	struct vhostfront_config config;
	enum vhostfront_dialect dialect; /* GATED once a back-end turned out to be unable */
	/* of this connection to the back-end */
	uint64_t offered, agreed;	/* features of the protocol; what the back-end was told */
	bool advised, listening, proven;
	uint64_t started[VHOSTFRONT_RINGS / 64];	/* rings whose kick it has */
	/* of the session */
	bool early;	/* memory must not be touched, proven or not */
	bool resident, ended;
	bool mq;	/* the VMM took VHOSTFRONT_NET_MQ */
	bool gating;	/* the table and all behind it is held */
	bool begun;	/* see the configuration; until the VMM says END */
	bool orphans;	/* a lost connection's userfaultfd is open */
	bool stopped;	/* rings were stopped for a new table */
	unsigned held;
	uint64_t base[VHOSTFRONT_RINGS]; /* as the VMM told */
	/* of the request being worked on */
	struct vhostfront_said said;
	bool busy, feeding;
	struct vhostfront_action plan[VHOSTFRONT_STEPS];
	unsigned n_steps, at;
	uint64_t answer;
	enum vhostfront_wait wait;
	uint64_t deadline;
	/* what the caller has to do */
	struct vhostfront_action actions[VHOSTFRONT_ACTIONS];
	unsigned first, n_actions;
	/* static texts */
	const char *refusal;	/* of a request; the VMM's fault or ours, not the back-end's */
	const char *reason;	/* of the quarantine; NULL: none */
	uint64_t since;
};

void vhostfront_init(struct vhostfront *v, const struct vhostfront_config *config);
/* May a request be heard?  Fed ones first, while there are such. */
bool vhostfront_ready(const struct vhostfront *v, bool fed);
/* 0; -EPROTO: refused, see v->refusal: the VMM broke the protocol, or cannot be served. */
int vhostfront_hear(struct vhostfront *v, const struct vhostfront_said *said, uint64_t now);
/* The back-end answered; @wrong: not as it should have, NULL: well. */
void vhostfront_answered(struct vhostfront *v, const char *wrong, uint64_t value, uint64_t now);
void vhostfront_proved(struct vhostfront *v, const char *wrong, uint64_t now);
void vhostfront_fed(struct vhostfront *v, uint64_t now);
/* Faults are answered from now on: a back-end that came early may begin. */
void vhostfront_serving(struct vhostfront *v, uint64_t now);
/* Every page of every shared block is there. */
void vhostfront_resident(struct vhostfront *v, uint64_t now);
void vhostfront_lost(struct vhostfront *v, const char *reason, uint64_t now);
/* There is a new connection to the back-end. */
int vhostfront_joined(struct vhostfront *v);
void vhostfront_tick(struct vhostfront *v, uint64_t now);
/* It is late for a reason that is not its own: the time for what is awaited begins anew. */
void vhostfront_excuse(struct vhostfront *v, uint64_t now);
bool vhostfront_next(struct vhostfront *v, struct vhostfront_action *action);
const char *vhostfront_dialect_name(enum vhostfront_dialect dialect);

#endif
