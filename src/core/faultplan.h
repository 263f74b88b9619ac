/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_CORE_FAULTPLAN_H
#define PC_CORE_FAULTPLAN_H
/*
 * What is to go wrong, and when: rules about named points.  Whoever comes past a point asks; here
 * it is decided, and nothing is done.  See faultplan.c for the theory.
 *
 * One thread adds and removes; any thread asks.
 */
#include <stdbool.h>
#include <stdint.h>
#include "core/block.h"

#define FAULTPLAN_RULES	 64
#define FAULTPLAN_SHARER 64

enum faultplan_point {
	/* moments of a session, in their order */
	FAULTPLAN_AT_ACCEPTED,
	FAULTPLAN_AT_ADVISED,
	FAULTPLAN_AT_BLOCKS,
	FAULTPLAN_AT_MATCHED,
	FAULTPLAN_AT_SWITCHOVER,
	FAULTPLAN_AT_PACKAGE_BEGUN,
	FAULTPLAN_AT_PACKAGE,
	FAULTPLAN_AT_LISTENING,
	FAULTPLAN_AT_LOADED,
	FAULTPLAN_AT_BEFORE_PONG,
	FAULTPLAN_AT_AFTER_PONG,
	FAULTPLAN_AT_RUNNING,
	FAULTPLAN_AT_PAUSED,
	FAULTPLAN_AT_RECOVERING,
	FAULTPLAN_AT_RESUMED,
	FAULTPLAN_AT_BEFORE_SHUT,
	FAULTPLAN_AT_AFTER_SHUT,
	FAULTPLAN_AT_COMPLETE,
	/* moments of a page */
	FAULTPLAN_AT_FAULT_PARKED,
	FAULTPLAN_AT_CLAIMED,
	FAULTPLAN_AT_PLACED,
	FAULTPLAN_AT_PUBLISHED,
	/* what comes and goes */
	FAULTPLAN_AT_SHARER_READ,
	FAULTPLAN_AT_FAULT_READ,
	FAULTPLAN_AT_REQUEST,
	FAULTPLAN_AT_RECEIVE_MAIN,
	FAULTPLAN_AT_RECEIVE_URGENT,
	FAULTPLAN_AT_RECORD,
	FAULTPLAN_AT_PAGE,
	FAULTPLAN_AT_COPY,
	FAULTPLAN_AT_ZERO,
	FAULTPLAN_AT_WAKE,
	FAULTPLAN_AT_RETURN,
	FAULTPLAN_AT_PONG,
	FAULTPLAN_AT_SHUT,
	FAULTPLAN_AT_REGISTER,
	FAULTPLAN_POINTS
};

enum faultplan_action {
	FAULTPLAN_DELAY,	/* later, by .arg milliseconds; the thread goes on meanwhile */
	FAULTPLAN_STALL,	/* the thread sleeps for .arg milliseconds */
	FAULTPLAN_DROP,		/* later: when the rule is removed */
	FAULTPLAN_DUPLICATE,	/* twice */
	FAULTPLAN_CORRUPT,	/* the bits of byte .arg are flipped */
	FAULTPLAN_DISCONNECT,	/* the connection ends */
	FAULTPLAN_WEDGE,	/* the sharer is not listened to until the rule is removed */
	FAULTPLAN_EAGAIN,	/* the kernel's answers; EAGAIN after .arg pages */
	FAULTPLAN_ENOMEM,
	FAULTPLAN_EEXIST,
	FAULTPLAN_ESRCH,
	FAULTPLAN_ENOENT,
	FAULTPLAN_DIE,		/* the process ends, as .arg (enum faultplan_death) says */
	FAULTPLAN_ACTIONS
};

enum faultplan_death { FAULTPLAN_KILL, FAULTPLAN_ABORT, FAULTPLAN_SEGV, FAULTPLAN_DEATHS };

/* What may stand behind the name of an action. */
enum faultplan_takes { FAULTPLAN_NOTHING, FAULTPLAN_NUMBER, FAULTPLAN_MAY_NUMBER, FAULTPLAN_DEATH };

struct faultplan_point_info {
	const char *name;
	uint32_t actions;		/* that fit: bits of enum faultplan_action */
	bool page, sharer;		/* it is about a page, of a sharer: may be asked for */
};
struct faultplan_action_info {
	const char *name;
	enum faultplan_takes takes;
	uint64_t min, max;		/* of its number; @min when none is given */
};
extern const struct faultplan_point_info faultplan_points[FAULTPLAN_POINTS];
extern const struct faultplan_action_info faultplan_actions[FAULTPLAN_ACTIONS];
extern const char *const faultplan_deaths[FAULTPLAN_DEATHS];

/* As the user wrote it; everything that is 0 or empty does not restrict. */
struct faultplan_rule {
	enum faultplan_point point;
	enum faultplan_action action;
	uint64_t arg;
	bool paged;
	char block[BLOCK_NAME];		/* of @page; empty: @page is a number over all blocks */
	uint64_t page;			/* number, or with a block the offset of a byte */
	char sharer[FAULTPLAN_SHARER];	/* name */
	uint64_t every;			/* of so many events one */
	uint32_t millionths;		/* probability */
	uint64_t after_ms;		/* not before it is so old */
	uint64_t count;			/* no more often */
};

#define FAULTPLAN_NO_PAGE UINT64_MAX

/* What happens at a point. */
struct faultplan_event {
	uint64_t now;			/* CLOCK_MONOTONIC, nanoseconds */
	uint64_t page, n;		/* pages from that number on; FAULTPLAN_NO_PAGE */
	const char *sharer;		/* NULL: of nobody */
};

/* What is to be done there, and by which rule. */
struct faultplan_order {
	enum faultplan_action action;
	uint64_t arg;
	uint32_t rule;
};

struct faultplan_slot {
	/* atomic: 0 free, else 1 + the rule's point: the rest may be read by who is in `users' */
	uint32_t armed;
	uint32_t users;			/* atomic: who looks at it now */
	struct faultplan_rule rule;
	uint32_t id;			/* atomic */
	uint64_t stream, since_ns;
	uint64_t hits, fires;		/* atomic */
};

struct faultplan {
	uint64_t seed;
	uint32_t last_id;
	const struct block_table *blocks;	/* the engine's; NULL: pages have numbers only */
	uint64_t armed;			/* atomic: bits of points that have a rule */
	uint64_t removals;		/* atomic: grows with each; what was held for it goes on */
	struct faultplan_slot slot[FAULTPLAN_RULES];
};

/* @seed: the same decides alike. */
void faultplan_init(struct faultplan *p, uint64_t seed, const struct block_table *blocks);
/* Its number from 1 on, -ENOSPC, -EINVAL: the action does not fit the point, or a filter. */
int faultplan_add(struct faultplan *p, const struct faultplan_rule *rule, uint64_t now);
/* 0 or -ENOENT. */
int faultplan_remove(struct faultplan *p, uint32_t id);
/* Of every rule: false when there is none (any more) from slot *@at on. */
bool faultplan_list(const struct faultplan *p, unsigned *at, const struct faultplan_slot **slot);
/* Is the rule still there?  From any thread. */
bool faultplan_has(const struct faultplan *p, uint32_t id);
/* Something happens at @point: is it to go wrong?  From any thread. */
bool faultplan_ask(struct faultplan *p, enum faultplan_point point,
		   const struct faultplan_event *e, struct faultplan_order *out);
/* Cheap: is there any rule about the point? */
static inline bool faultplan_watches(const struct faultplan *p, enum faultplan_point point)
{
	return __atomic_load_n(&p->armed, __ATOMIC_RELAXED) >> point & 1;
}
/* By name: the number, or -ENOENT. */
int faultplan_find_point(const char *name);
int faultplan_find_action(const char *name);

#endif
