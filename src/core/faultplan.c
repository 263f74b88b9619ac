/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory: decisions that can be had again
 *
 * A rule counts what comes past its point (and passes its filters), and decides by that number
 * alone: the n-th event fires when n is a multiple of `every', and when the n-th word of the rule's
 * own stream is below its probability.  The stream is a function of the plan's seed and the rule's
 * number, so the same seed, the same rules in the same order and the same events give the same
 * decisions, and a rule that is added or removed shifts nothing for the others.  Where two threads
 * come past one point it is their order that may differ from run to run, nothing else.
 *
 * Every rule of a point counts every event; of those that want to fire the one with the lowest
 * slot does, and the others have not fired.
 *
 * No lock: the fault thread may not wait for the one that adds rules.  Counters are atomic, and the
 * words of a random stream are computed, not drawn.  A slot is used again only when nobody looks at
 * it: who looks says so first (`users') and makes sure then that it is still armed, and who takes
 * it again makes sure that it is not armed first, and looks for users then.
 *
 * libfiu was considered.  Its points carry no page, its decisions come from one generator for the
 * whole process (a point more shifts all others), it takes a lock at each point, and it knows
 * failure only as a number to return: not a delay that must not sleep, nor a page.  What is left to
 * share would be the names.
 */
#include "config.h"
#include "core/faultplan.h"

#include <errno.h>
#include <string.h>

#include "core/guard.h"

#define BIT(action) (1u << FAULTPLAN_##action)
/* Every thread can sleep, or die, anywhere. */
#define MOMENT	    (BIT(STALL) | BIT(DIE))
#define LATER	    (BIT(DELAY) | BIT(DROP))
#define KERNEL	    (BIT(EAGAIN) | BIT(ENOMEM) | BIT(EEXIST) | BIT(ESRCH) | BIT(ENOENT))

const struct faultplan_point_info faultplan_points[FAULTPLAN_POINTS] = {
	[FAULTPLAN_AT_ACCEPTED] = { "session.accepted", MOMENT, false, false },
	[FAULTPLAN_AT_ADVISED] = { "session.advised", MOMENT, false, false },
	[FAULTPLAN_AT_BLOCKS] = { "session.blocks", MOMENT, false, false },
	[FAULTPLAN_AT_MATCHED] = { "session.matched", MOMENT, false, false },
	[FAULTPLAN_AT_SWITCHOVER] = { "session.switchover", MOMENT, false, false },
	[FAULTPLAN_AT_PACKAGE_BEGUN] = { "session.package-begun", MOMENT, false, false },
	[FAULTPLAN_AT_PACKAGE] = { "session.package", MOMENT, false, false },
	[FAULTPLAN_AT_LISTENING] = { "session.listening", MOMENT, false, false },
	[FAULTPLAN_AT_LOADED] = { "session.loaded", MOMENT, false, false },
	[FAULTPLAN_AT_BEFORE_PONG] = { "session.before-pong", MOMENT, false, false },
	[FAULTPLAN_AT_AFTER_PONG] = { "session.after-pong", MOMENT, false, false },
	[FAULTPLAN_AT_RUNNING] = { "session.running", MOMENT, false, false },
	[FAULTPLAN_AT_PAUSED] = { "session.paused", MOMENT, false, false },
	[FAULTPLAN_AT_RECOVERING] = { "session.recovering", MOMENT, false, false },
	[FAULTPLAN_AT_RESUMED] = { "session.resumed", MOMENT, false, false },
	[FAULTPLAN_AT_BEFORE_SHUT] = { "session.before-shut", MOMENT, false, false },
	[FAULTPLAN_AT_AFTER_SHUT] = { "session.after-shut", MOMENT, false, false },
	[FAULTPLAN_AT_COMPLETE] = { "session.complete", MOMENT, false, false },
	[FAULTPLAN_AT_FAULT_PARKED] = { "fault.parked", MOMENT, true, true },
	[FAULTPLAN_AT_CLAIMED] = { "page.claimed", MOMENT, true, false },
	[FAULTPLAN_AT_PLACED] = { "page.placed", MOMENT, true, false },
	[FAULTPLAN_AT_PUBLISHED] = { "page.published", MOMENT, true, false },
	[FAULTPLAN_AT_SHARER_READ] = { "sharer.read", MOMENT | BIT(WEDGE), false, true },
	[FAULTPLAN_AT_FAULT_READ] = { "fault.read", MOMENT | LATER | BIT(DUPLICATE), true, true },
	[FAULTPLAN_AT_REQUEST] = { "request.send", MOMENT | LATER | BIT(DUPLICATE), true, false },
	[FAULTPLAN_AT_RECEIVE_MAIN] = { "receive.main",
					MOMENT | BIT(DELAY) | BIT(CORRUPT) | BIT(DISCONNECT),
					false, false },
	[FAULTPLAN_AT_RECEIVE_URGENT] = { "receive.urgent",
					  MOMENT | BIT(DELAY) | BIT(CORRUPT) | BIT(DISCONNECT),
					  false, false },
	[FAULTPLAN_AT_RECORD] = { "receive.record", MOMENT | BIT(CORRUPT), false, false },
	[FAULTPLAN_AT_PAGE] = { "receive.page", MOMENT | BIT(CORRUPT), true, false },
	[FAULTPLAN_AT_COPY] = { "place.copy", MOMENT | KERNEL, true, false },
	[FAULTPLAN_AT_ZERO] = { "place.zero", MOMENT | KERNEL, true, false },
	[FAULTPLAN_AT_WAKE] = { "wake", MOMENT | BIT(DELAY) | BIT(DUPLICATE), true, true },
	[FAULTPLAN_AT_RETURN] = { "return.send", MOMENT | BIT(DISCONNECT), false, false },
	[FAULTPLAN_AT_PONG] = { "return.pong", MOMENT | BIT(DELAY), false, false },
	[FAULTPLAN_AT_SHUT] = { "return.shut", MOMENT | BIT(DELAY), false, false },
	[FAULTPLAN_AT_REGISTER] = { "register.answer", MOMENT, false, true },
};

#define MAX_MS 3600000

const struct faultplan_action_info faultplan_actions[FAULTPLAN_ACTIONS] = {
	[FAULTPLAN_DELAY] = { "delay", FAULTPLAN_NUMBER, 1, MAX_MS },
	[FAULTPLAN_STALL] = { "stall", FAULTPLAN_NUMBER, 1, MAX_MS },
	[FAULTPLAN_DROP] = { "drop", FAULTPLAN_NOTHING, 0, 0 },
	[FAULTPLAN_DUPLICATE] = { "duplicate", FAULTPLAN_NOTHING, 0, 0 },
	[FAULTPLAN_CORRUPT] = { "corrupt", FAULTPLAN_MAY_NUMBER, 0, 1u << 30 },
	[FAULTPLAN_DISCONNECT] = { "disconnect", FAULTPLAN_NOTHING, 0, 0 },
	[FAULTPLAN_WEDGE] = { "wedge", FAULTPLAN_NOTHING, 0, 0 },
	[FAULTPLAN_EAGAIN] = { "eagain", FAULTPLAN_MAY_NUMBER, 0, 1u << 30 },
	[FAULTPLAN_ENOMEM] = { "enomem", FAULTPLAN_NOTHING, 0, 0 },
	[FAULTPLAN_EEXIST] = { "eexist", FAULTPLAN_NOTHING, 0, 0 },
	[FAULTPLAN_ESRCH] = { "esrch", FAULTPLAN_NOTHING, 0, 0 },
	[FAULTPLAN_ENOENT] = { "enoent", FAULTPLAN_NOTHING, 0, 0 },
	[FAULTPLAN_DIE] = { "die", FAULTPLAN_DEATH, 0, 0 },
};

const char *const faultplan_deaths[FAULTPLAN_DEATHS] = {
	[FAULTPLAN_KILL] = "kill", [FAULTPLAN_ABORT] = "abort", [FAULTPLAN_SEGV] = "segv",
};

/**
 * faultplan_find_point - a point by its name; -ENOENT
 */
int faultplan_find_point(const char *name)
{
	for (int i = 0; i < FAULTPLAN_POINTS; i++)
		if (strcmp(faultplan_points[i].name, name) == 0)
			return i;
	return -ENOENT;
}

/**
 * faultplan_find_action - an action by its name; -ENOENT
 */
int faultplan_find_action(const char *name)
{
	for (int i = 0; i < FAULTPLAN_ACTIONS; i++)
		if (strcmp(faultplan_actions[i].name, name) == 0)
			return i;
	return -ENOENT;
}

/* --- randomness ------------------------------------------------------------------------------- */

/* The n-th word of a stream (splitmix64): no state, so no lock. */
static uint64_t word(uint64_t stream, uint64_t n)
{
	uint64_t z = stream + (n + 1) * 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

/* --- rules ------------------------------------------------------------------------------------ */

/**
 * faultplan_init - no rule yet
 * @blocks: read while anybody asks; NULL: no rule can name a block
 */
void faultplan_init(struct faultplan *p, uint64_t seed, const struct block_table *blocks)
{
	*p = (struct faultplan){ .seed = seed, .blocks = blocks };
}

static bool fits(const struct faultplan_rule *r)
{
	const struct faultplan_point_info *at = &faultplan_points[r->point];

	return at->actions >> r->action & 1 && (at->page || !r->paged) &&
	       (at->sharer || !r->sharer[0]);
}

/* Nobody may still be looking at what was there. */
static struct faultplan_slot *free_slot(struct faultplan *p)
{
	for (unsigned i = 0; i < FAULTPLAN_RULES; i++) {
		struct faultplan_slot *s = &p->slot[i];

		if (__atomic_load_n(&s->armed, __ATOMIC_SEQ_CST) == 0 &&
		    __atomic_load_n(&s->users, __ATOMIC_SEQ_CST) == 0)
			return s;
	}
	return NULL;
}

/**
 * faultplan_add - a rule that holds from now on
 * @now: CLOCK_MONOTONIC, nanoseconds
 *
 * Return: its number, which no other rule of the plan had or will have; -EINVAL: the action does
 * not fit the point, or the point has no pages or sharers to choose from; -ENOSPC.
 */
int faultplan_add(struct faultplan *p, const struct faultplan_rule *rule, uint64_t now)
{
	struct faultplan_slot *s = free_slot(p);

	if (!fits(rule))
		return -EINVAL;
	if (!s)
		return -ENOSPC;
	s->rule = *rule;
	__atomic_store_n(&s->id, ++p->last_id, __ATOMIC_RELAXED);
	s->stream = word(p->seed, s->id);
	s->since_ns = now;
	__atomic_store_n(&s->hits, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&s->fires, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&s->armed, 1 + rule->point, __ATOMIC_SEQ_CST);
	__atomic_fetch_or(&p->armed, 1ull << rule->point, __ATOMIC_RELEASE);
	return (int)s->id;
}

static void rewatch(struct faultplan *p)
{
	uint64_t armed = 0;

	for (unsigned i = 0; i < FAULTPLAN_RULES; i++)
		if (p->slot[i].armed)
			armed |= 1ull << p->slot[i].rule.point;
	__atomic_store_n(&p->armed, armed, __ATOMIC_RELEASE);
}

/**
 * faultplan_remove - a rule holds no longer
 *
 * What was dropped or wedged by it is for the caller to let go on: see @removals.
 *
 * Return: 0 or -ENOENT.
 */
int faultplan_remove(struct faultplan *p, uint32_t id)
{
	for (unsigned i = 0; i < FAULTPLAN_RULES; i++) {
		struct faultplan_slot *s = &p->slot[i];

		if (!s->armed || s->id != id)
			continue;
		__atomic_store_n(&s->armed, 0, __ATOMIC_SEQ_CST);
		rewatch(p);
		__atomic_fetch_add(&p->removals, 1, __ATOMIC_RELEASE);
		return 0;
	}
	return -ENOENT;
}

/**
 * faultplan_list - the next rule, for the thread that adds them
 * @at: 0 to begin with
 */
bool faultplan_list(const struct faultplan *p, unsigned *at, const struct faultplan_slot **slot)
{
	for (; *at < FAULTPLAN_RULES; ++*at) {
		if (!p->slot[*at].armed)
			continue;
		*slot = &p->slot[(*at)++];
		return true;
	}
	return false;
}

/**
 * faultplan_has - does the rule still hold?
 */
bool faultplan_has(const struct faultplan *p, uint32_t id)
{
	for (unsigned i = 0; i < FAULTPLAN_RULES; i++)
		if (__atomic_load_n(&p->slot[i].armed, __ATOMIC_ACQUIRE) &&
		    __atomic_load_n(&p->slot[i].id, __ATOMIC_RELAXED) == id)
			return true;
	return false;
}

/* --- events ----------------------------------------------------------------------------------- */

static bool in_range(const struct faultplan_event *e, uint64_t page)
{
	return e->page != FAULTPLAN_NO_PAGE && page >= e->page && page - e->page < e->n;
}

/* A block that is not there yet has no pages. */
static bool is_page(const struct faultplan *p, const struct faultplan_rule *r,
		    const struct faultplan_event *e)
{
	int i;

	if (!r->block[0])
		return in_range(e, r->page);
	i = p->blocks ? block_find(p->blocks, r->block) : -ENOENT;
	return i >= 0 && r->page < p->blocks->block[i].length &&
	       in_range(e, block_page(&p->blocks->block[i], r->page));
}

static bool passes(const struct faultplan *p, const struct faultplan_slot *s,
		   const struct faultplan_event *e)
{
	const struct faultplan_rule *r = &s->rule;

	if (r->sharer[0] && (!e->sharer || strcmp(r->sharer, e->sharer) != 0))
		return false;
	if (r->paged && !is_page(p, r, e))
		return false;
	return r->after_ms == 0 || e->now >= s->since_ns + r->after_ms * 1000000;
}

/* One fire more, unless it was the last. */
static bool take_fire(struct faultplan_slot *s)
{
	uint64_t n = __atomic_load_n(&s->fires, __ATOMIC_RELAXED);

	do {
		if (s->rule.count && n >= s->rule.count)
			return false;
	} while (!__atomic_compare_exchange_n(&s->fires, &n, n + 1, false, __ATOMIC_RELAXED,
					      __ATOMIC_RELAXED));
	return true;
}

static bool wants(struct faultplan *p, struct faultplan_slot *s, const struct faultplan_event *e)
{
	const struct faultplan_rule *r = &s->rule;
	uint64_t n;

	if (!passes(p, s, e))
		return false;
	n = __atomic_fetch_add(&s->hits, 1, __ATOMIC_RELAXED);
	if (r->every > 1 && (n + 1) % r->every)
		return false;
	return r->millionths == 0 || word(s->stream, n) % 1000000 < r->millionths;
}

/* @taken: another rule fires already. */
static bool look(struct faultplan *p, struct faultplan_slot *s, enum faultplan_point point,
		 const struct faultplan_event *e, bool taken)
{
	bool fires;

	if (__atomic_load_n(&s->armed, __ATOMIC_SEQ_CST) != 1 + point)
		return false;
	fires = wants(p, s, e);
	return !taken && fires && take_fire(s);
}

/**
 * faultplan_ask - something happens at @point
 * @out: what is to be done, when something is
 *
 * Return: is it to go wrong?
 */
bool faultplan_ask(struct faultplan *p, enum faultplan_point point,
		   const struct faultplan_event *e, struct faultplan_order *out)
{
	bool fired = false;

	for (unsigned i = 0; i < FAULTPLAN_RULES; i++) {
		struct faultplan_slot *s = &p->slot[i];

		if (__atomic_load_n(&s->armed, __ATOMIC_RELAXED) != 1 + point)
			continue;
		__atomic_fetch_add(&s->users, 1, __ATOMIC_SEQ_CST);
		if (look(p, s, point, e, fired)) {
			*out = (struct faultplan_order){ s->rule.action, s->rule.arg, s->id };
			fired = true;
		}
		__atomic_fetch_sub(&s->users, 1, __ATOMIC_SEQ_CST);
	}
	return fired;
}
