/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_CORE_DEVGROUP_H
#define PC_CORE_DEVGROUP_H
/*
 * All devices of a VM that have a state to be moved: what each is asked for next so that they stop,
 * are saved, loaded and started together, and what is done about one that does not.
 *
 * Actions out, results in; any number of devices work at a time, each on one thing.  devgroup.c has
 * the theory.
 */
#include <stdbool.h>
#include <stdint.h>
#include "core/vfiostate.h"

enum { DEVGROUP_MAX = 32 };

/* Where the devices are brought; each stage begins when all have ended the one before. */
enum devgroup_stage {
	DEVGROUP_REST,
	/* the source's way */
	DEVGROUP_PRECOPY,	/* those that can be read while they run are */
	DEVGROUP_QUIESCED,
	DEVGROUP_STOPCOPY,
	DEVGROUP_SAVED,
	DEVGROUP_STOPPED,
	/* the destination's way; the last two of it are the source's way back, too */
	DEVGROUP_LOADED,
	DEVGROUP_MAPPABLE,	/* memory can be mapped for each of them */
	DEVGROUP_STARTED,	/* quiesced, those that can be */
	DEVGROUP_RUNNING,
	/* the destination's way back */
	DEVGROUP_CLEARED,
	DEVGROUP_STAGES,
};

/* Why devices cannot be moved; each names one device or the group. */
enum {
	DEVGROUP_PEERLESS = 1 << 0,	/* it is one of several and cannot be quiesced */
	DEVGROUP_VPRI = 1 << 1,		/* its page requests are answered by the guest, if at all */
	DEVGROUP_UNBOUNDED = 1 << 2,	/* nobody knows how long it takes to be quiesced */
};

struct devgroup_facts {
	struct vfiostate_caps caps;
	bool vpri;		/* the guest answers its page requests, and it */
	bool cancels;		/* can be quiesced without those answers */
	bool unbounded;
	bool maps_resuming;	/* standing still it takes mappings in RESUMING only */
};

struct devgroup_config {
	bool peers_apart;	/* no device can address another one */
	bool allow_unbounded;
	bool mandatory;		/* no deadline ends a wait */
	uint64_t limit;		/* of one SET or RESET; unit of @now */
};

enum devgroup_verb {
	DEVGROUP_SET,		/* ask it for a state; after an error read it again */
	DEVGROUP_RESET,		/* then read the state */
	DEVGROUP_SAVE,		/* read its stream to the end */
	DEVGROUP_LOAD,		/* write its stream */
};

struct devgroup_action {
	unsigned device;
	enum devgroup_verb verb;
	enum vfiostate state;	/* SET */
};

/* How an action ended. */
struct devgroup_result {
	int error;		/* 0 or -errno */
	int state;		/* what the device says now; -errno: it does not */
};

struct devgroup_device {
	struct devgroup_facts facts;
	enum vfiostate state;	/* as it said last */
	struct devgroup_action doing;
	bool busy, late;	/* it works on that; its time is over */
	uint64_t since, deadline;
	bool idle;		/* it was reset, or never used: nothing makes it do anything */
	bool saved, loaded;	/* the whole stream is here; there */
	bool reset, load;	/* has to be */
	bool reloaded;		/* that was the second way back: there is no third */
	bool lost;		/* given up; the VM has to do without what was in it */
	int error;		/* the first one, or 0 */
};

struct devgroup {
	struct devgroup_config config;
	unsigned n;
	struct devgroup_device device[DEVGROUP_MAX];
	enum devgroup_stage stage, goal;
	bool arriving;		/* this is the destination */
	bool returning;		/* the source goes back */
	bool ran;		/* the destination's were asked to run: no way back */
	int error;		/* the first one, of which device */
	unsigned culprit;
};

void devgroup_init(struct devgroup *g, const struct devgroup_config *config, bool arriving);
/* Its number; -ENOSPC.  It runs, at the destination without ever having been used. */
int devgroup_add(struct devgroup *g, const struct devgroup_facts *facts);
/* DEVGROUP_PEERLESS, ...: why this one holds all of them; 0: it does not. */
unsigned devgroup_blockers(const struct devgroup *g, unsigned device);

/* Bring them to a stage of their side.  0; -EPERM: blocked, or it is not theirs to go to now. */
int devgroup_go(struct devgroup *g, enum devgroup_stage goal);
/*
 * Back: the source's run again, with the state they had; the destination's are reset.  0; -EPERM:
 * they were asked to run.
 */
int devgroup_abort(struct devgroup *g);
/* The next thing to do; false: nothing before the next result. */
bool devgroup_next(struct devgroup *g, uint64_t now, struct devgroup_action *action);
void devgroup_went(struct devgroup *g, unsigned device, const struct devgroup_result *result);
/* Deadlines.  The next one, UINT64_MAX: none. */
uint64_t devgroup_tick(struct devgroup *g, uint64_t now);
/* Nothing is under way and nothing is to be done: they are at the goal, but for those lost. */
bool devgroup_done(const struct devgroup *g);
const char *devgroup_stage_name(enum devgroup_stage stage);

#endif
