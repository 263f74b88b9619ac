/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A back-end logs what it writes between the moment at which it has been told of a log, of the
 * feature, and of each ring that its used ring is to be logged, and the moment at which it has been
 * told that no more.  Each plan waits until the back-end has done all of it:
 *
 *   start    SET_LOG_BASE, SET_FEATURES with LOG_ALL, SET_VRING_ADDR of each ring with its flag
 *   resize   SET_LOG_BASE with another log; then nobody has the old one
 *   stop     SET_FEATURES without, SET_VRING_ADDR of each ring without
 *   finish   GET_VRING_BASE of each ring; then nobody writes any more
 *
 * With REPLY_ACK each message is answered.  Without it only SET_LOG_BASE and GET_VRING_BASE are, so
 * the features are asked for behind the last one.  Answers to SET_LOG_BASE differ between back-ends
 * in length and content; that there is one is all that it says.
 *
 * What was written before the log began is in no log, so after start everything is dirty once; so
 * it is after a failure, whatever it was: a log that may lack a page is not used at all.  A stop
 * needs no last pass: who stops has no use for it.  Who hands over does not stop, it finishes;
 * after that the log is whole, since a ring that was stopped has nothing in flight.
 */
#include "config.h"

#include "core/vhostlog.h"

#include <assert.h>
#include <errno.h>

#include "core/guard.h"

enum { STEPS = 6, ADDR_LOGGED = 1 };

static const enum vhostlog_verb plans[VHOSTLOG_PLANS][STEPS] = {
	[VHOSTLOG_START] = { VHOSTLOG_DO_SET_BASE, VHOSTLOG_DO_FEATURES, VHOSTLOG_DO_ADDR,
			     VHOSTLOG_DO_BARRIER, VHOSTLOG_DO_ALL_DIRTY },
	[VHOSTLOG_RESIZE] = { VHOSTLOG_DO_SET_BASE, VHOSTLOG_DO_HARVEST_OLD },
	[VHOSTLOG_STOP] = { VHOSTLOG_DO_FEATURES, VHOSTLOG_DO_ADDR, VHOSTLOG_DO_BARRIER,
			    VHOSTLOG_DO_DROP },
	[VHOSTLOG_FINISH] = { VHOSTLOG_DO_STOP_RING, VHOSTLOG_DO_HARVEST },
};

static const struct {
	enum vhostlog_state from, to;
} arcs[VHOSTLOG_PLANS] = {
	[VHOSTLOG_START] = { VHOSTLOG_OFF, VHOSTLOG_ON },
	[VHOSTLOG_RESIZE] = { VHOSTLOG_ON, VHOSTLOG_ON },
	[VHOSTLOG_STOP] = { VHOSTLOG_ON, VHOSTLOG_OFF },
	[VHOSTLOG_FINISH] = { VHOSTLOG_ON, VHOSTLOG_FINISHED },
};

enum answered { NEVER, IF_ACK, ALWAYS };

static const struct {
	enum answered answered;
	bool rings; /* once for each */
	const char *late;
} verbs[VHOSTLOG_VERBS] = {
	[VHOSTLOG_DO_SET_BASE] = { ALWAYS, false, "no answer to SET_LOG_BASE in time" },
	[VHOSTLOG_DO_FEATURES] = { IF_ACK, false, "no answer to SET_FEATURES in time" },
	[VHOSTLOG_DO_ADDR] = { IF_ACK, true, "no answer to SET_VRING_ADDR in time" },
	[VHOSTLOG_DO_STOP_RING] = { ALWAYS, true, "a ring did not stop in time" },
	[VHOSTLOG_DO_BARRIER] = { ALWAYS, false, "no answer behind the addresses in time" },
};

/**
 * vhostlog_init - a back-end that is not logging
 * @offered: features that it offers
 * @protocol: features of the protocol that were agreed on
 */
void vhostlog_init(struct vhostlog *v, uint64_t offered, uint64_t protocol, uint64_t answer_limit)
{
	*v = (struct vhostlog){ .offered = offered,
				.protocol = protocol,
				.answer_limit = answer_limit };
}

/**
 * vhostlog_features - the VMM says SET_FEATURES
 *
 * Return: what the back-end is to be told.
 */
uint64_t vhostlog_features(struct vhostlog *v, uint64_t told)
{
	v->features = told & ~VHOSTLOG_F_LOG_ALL;
	return v->features | (v->logging ? VHOSTLOG_F_LOG_ALL : 0);
}

/**
 * vhostlog_addr_flags - the VMM says SET_VRING_ADDR
 *
 * Return: its flags, as the back-end is to be told them.
 */
uint32_t vhostlog_addr_flags(struct vhostlog *v, unsigned ring, uint32_t told)
{
	assert(ring < VHOSTLOG_RINGS);
	v->rings[ring / 64] |= UINT64_C(1) << (ring % 64);
	return (told & ~(uint32_t)ADDR_LOGGED) | (v->logging ? ADDR_LOGGED : 0);
}

/**
 * vhostlog_busy - is a plan at hand?
 */
bool vhostlog_busy(const struct vhostlog *v)
{
	return v->busy || v->failing;
}

/**
 * vhostlog_begin - carry out a plan
 */
int vhostlog_begin(struct vhostlog *v, enum vhostlog_plan plan)
{
	if (!(v->offered & VHOSTLOG_F_LOG_ALL) || !(v->protocol & VHOSTLOG_P_LOG_SHMFD))
		return -EOPNOTSUPP;
	if (vhostlog_busy(v))
		return -EBUSY;
	if (v->state != arcs[plan].from)
		return -EINVAL;
	v->busy = true;
	v->plan = plan;
	v->step = v->ring = 0;
	return 0;
}

static void fail(struct vhostlog *v, const char *reason)
{
	if (v->state == VHOSTLOG_FAILED || v->state == VHOSTLOG_FINISHED)
		return;
	/* A back-end that nothing was asked of yet has lost nothing. */
	if (v->state == VHOSTLOG_OFF && !v->busy)
		return;
	v->state = VHOSTLOG_FAILED;
	v->busy = v->waiting = false;
	v->failing = true;
	v->reason = reason;
}

/**
 * vhostlog_lost - the connection to the back-end is over
 *
 * A new one is another back-end, which is not logging: all that the old one wrote is unknown.
 */
void vhostlog_lost(struct vhostlog *v, const char *reason)
{
	fail(v, reason);
}

/**
 * vhostlog_tick - it is @now
 */
void vhostlog_tick(struct vhostlog *v, uint64_t now)
{
	if (v->waiting && now >= v->deadline)
		fail(v, verbs[v->told].late);
}

/* The next ring that the VMM told of, from v->ring on; VHOSTLOG_RINGS: none. */
static unsigned next_ring(const struct vhostlog *v)
{
	for (unsigned i = v->ring; i < VHOSTLOG_RINGS; i++)
		if (v->rings[i / 64] >> (i % 64) & 1)
			return i;
	return VHOSTLOG_RINGS;
}

static bool has_ack(const struct vhostlog *v)
{
	return v->protocol & VHOSTLOG_P_REPLY_ACK;
}

/* The verb at hand, with its ring; END when the plan is done. */
static enum vhostlog_verb find_step(struct vhostlog *v)
{
	for (;; v->step++, v->ring = 0) {
		enum vhostlog_verb verb = plans[v->plan][v->step];

		if (verb == VHOSTLOG_DO_BARRIER && has_ack(v))
			continue;
		if (verbs[verb].rings)
			v->ring = next_ring(v);
		if (v->ring < VHOSTLOG_RINGS)
			return verb;
	}
}

static uint64_t value_of(const struct vhostlog *v, enum vhostlog_verb verb)
{
	if (verb == VHOSTLOG_DO_FEATURES)
		return v->features | (v->logging ? VHOSTLOG_F_LOG_ALL : 0);
	if (verb == VHOSTLOG_DO_ADDR)
		return v->logging ? ADDR_LOGGED : 0;
	return 0;
}

static void advance(struct vhostlog *v, enum vhostlog_verb verb)
{
	if (verbs[verb].rings)
		v->ring++;
	else
		v->step++;
}

static bool give_failure(struct vhostlog *v, struct vhostlog_action *action)
{
	bool due = v->failing;

	v->failing = false;
	*action = (struct vhostlog_action){ .verb = VHOSTLOG_DO_ALL_DIRTY };
	return due;
}

/**
 * vhostlog_next - what is to be done now
 *
 * Return: false when there is nothing, or an answer is awaited.
 */
bool vhostlog_next(struct vhostlog *v, struct vhostlog_action *action, uint64_t now)
{
	enum vhostlog_verb verb;

	if (!v->busy || v->waiting)
		return give_failure(v, action);
	verb = find_step(v);
	if (verb == VHOSTLOG_END) {
		v->busy = false;
		v->state = arcs[v->plan].to;
		return false;
	}
	if (verb == VHOSTLOG_DO_FEATURES)
		v->logging = v->plan == VHOSTLOG_START;
	if (verb == VHOSTLOG_DO_ALL_DIRTY)
		v->reason = "what was written before the log began is not in it";
	*action = (struct vhostlog_action){ .verb = verb,
					    .ring = v->ring,
					    .value = value_of(v, verb) };
	action->urged =
		verbs[verb].answered == ALWAYS || (verbs[verb].answered == IF_ACK && has_ack(v));
	v->told = verb;
	v->waiting = action->urged;
	v->deadline = now + v->answer_limit;
	advance(v, verb);
	return true;
}

/**
 * vhostlog_answered - the back-end answered
 * @wrong: what is wrong with it, static text; NULL: nothing
 */
void vhostlog_answered(struct vhostlog *v, const char *wrong)
{
	if (!v->waiting)
		return;
	v->waiting = false;
	if (wrong)
		fail(v, wrong);
}
