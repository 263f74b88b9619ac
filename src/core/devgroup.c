/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A device that stands still does not answer others.  So of several, none may stop while another
 * could still begin a transfer to it, and none may begin while another stands still:
 *
 *	all running -> all quiesced -> all stopped -> all quiesced -> all running
 *
 * Stages are that order, and each waits for the last device of the one before (S3-64).  Beside it,
 * every single request is held until it cannot break the rule, whatever the other devices may be
 * doing: one that works on something may be in either state, one in ERROR may do anything.
 *
 * What became of a request is what the device says afterwards, not what it returned (S3-08).  From
 * there:
 *
 *   at the source   a failure, or a deadline, ends the migration: all go back (devgroup_abort()).
 *                   The way back is the device's own, if it is healthy and has one.  A device that
 *                   is not, or that cannot get from its standstill to being quiesced (v1), is reset
 *                   and loaded with what was saved of it, as a destination does it (S0-22); those
 *                   that run already are quiesced for it.  If that fails, or nothing whole was
 *                   saved, it is reset and lost.
 *   at the          a device that does not take its state is reset and lost, and the others go on;
 *   destination     whether that is a VM worth running is the caller's to say, who can still abort.
 *                   A failed way out of RESUMING is never tried again, nor is more data (S3-48).
 *
 * What was loaded is checked when RESUMING is left, and that must be before the source's VM is
 * given up.  A device that takes mappings in no other standstill is brought back there, and loaded
 * with the same bytes once more: they were good a moment ago.  That is done behind LOADED, where
 * nobody waits for it.
 *
 * A reset leads out of everything, to a device that runs but does nothing (idle): nobody has
 * programmed it.  One that cannot be reset is lost as it is.
 *
 * A deadline does not end a request: the device's thread is still in it, and nothing can be asked
 * of the device before it returns.  The device is late then, the others go back as far as the rule
 * lets them, and the result, when it comes, is about a device like any other.
 */
#include "config.h"
#include "core/devgroup.h"

#include <assert.h>
#include <errno.h>

#include "core/guard.h"

/**
 * devgroup_init - no devices yet
 * @arriving: theirs is the destination's side
 */
void devgroup_init(struct devgroup *g, const struct devgroup_config *config, bool arriving)
{
	*g = (struct devgroup){ .config = *config, .arriving = arriving };
}

/**
 * devgroup_add - a device that is RUNNING
 */
int devgroup_add(struct devgroup *g, const struct devgroup_facts *facts)
{
	if (g->n == DEVGROUP_MAX)
		return -ENOSPC;
	g->device[g->n] = (struct devgroup_device){
		.facts = *facts, .state = VFIOSTATE_RUNNING, .idle = g->arriving,
	};
	return (int)g->n++;
}

/**
 * devgroup_blockers - all reasons for which this device holds the group
 */
unsigned devgroup_blockers(const struct devgroup *g, unsigned device)
{
	const struct devgroup_facts *f = &g->device[device].facts;
	unsigned why = 0;

	if (g->n > 1 && !f->caps.quiesce && !g->config.peers_apart)
		why |= DEVGROUP_PEERLESS;
	if (f->vpri && !f->cancels)
		why |= DEVGROUP_VPRI;
	if (f->unbounded && !g->config.allow_unbounded)
		why |= DEVGROUP_UNBOUNDED;
	return why;
}

/* --- the rule --- */

static bool is_still(enum vfiostate state)
{
	return !(vfiostate_rights(state) & VFIOSTATE_WRITES);
}

static bool has_peers(enum vfiostate state)
{
	return vfiostate_rights(state) & VFIOSTATE_PEERS;
}

/* May it stand still, now or when what it works on ends? */
static bool may_be_still(const struct devgroup_device *d)
{
	bool sets = d->busy && d->doing.verb == DEVGROUP_SET;

	return is_still(d->state) || (sets && is_still(d->doing.state));
}

static bool may_have_peers(const struct devgroup_device *d)
{
	bool sets = d->busy && d->doing.verb == DEVGROUP_SET;

	return !d->idle && (has_peers(d->state) || (sets && has_peers(d->doing.state)));
}

/* Would @d in @to break the rule with another device? */
static bool is_allowed(const struct devgroup *g, const struct devgroup_device *d, enum vfiostate to)
{
	bool begins = has_peers(to) && !has_peers(d->state);
	bool stops = is_still(to) && !is_still(d->state);

	for (unsigned i = 0; i < g->n && !g->config.peers_apart; i++) {
		const struct devgroup_device *other = &g->device[i];

		if (other == d || other->lost)
			continue;
		if ((begins && may_be_still(other)) || (stops && may_have_peers(other)))
			return false;
	}
	return true;
}

/* --- where each goes --- */

static enum vfiostate quiesced(const struct devgroup_device *d)
{
	const struct vfiostate_caps *caps = &d->facts.caps;

	if (!caps->quiesce || is_still(d->state))
		return d->state;
	/* v1 can only save what it quiesced while it was saving */
	if (!caps->v2 || (vfiostate_rights(d->state) & VFIOSTATE_SAVES))
		return VFIOSTATE_PRECOPY_QUIESCED;
	return VFIOSTATE_QUIESCED;
}

static bool loads(const struct devgroup *g)
{
	for (unsigned i = 0; i < g->n; i++)
		if (g->device[i].load && !g->device[i].lost)
			return true;
	return false;
}

/* Those that run already are in the way of one that is to be loaded anew. */
static enum vfiostate started(const struct devgroup *g, const struct devgroup_device *d)
{
	bool way = vfiostate_hop(&d->facts.caps, d->state, VFIOSTATE_QUIESCED) >= 0;
	bool moves = is_still(d->state) || (has_peers(d->state) && loads(g));

	return moves && way ? VFIOSTATE_QUIESCED : d->state;
}

static enum vfiostate target(const struct devgroup *g, const struct devgroup_device *d)
{
	switch (g->stage) {
	case DEVGROUP_PRECOPY:
		return d->facts.caps.precopy && d->state == VFIOSTATE_RUNNING ? VFIOSTATE_PRECOPY :
										d->state;
	case DEVGROUP_QUIESCED:
		return quiesced(d);
	case DEVGROUP_STOPCOPY:
		return VFIOSTATE_STOPCOPY;
	case DEVGROUP_STOPPED:
		return VFIOSTATE_STOP;
	case DEVGROUP_LOADED:
		return d->facts.caps.v2 ? VFIOSTATE_STOP : d->state; /* which makes it check */
	case DEVGROUP_STARTED:
		return started(g, d);
	case DEVGROUP_RUNNING:
		return VFIOSTATE_RUNNING;
	default:
		return d->state;
	}
}

/* One of several that stands still, and has no way to be quiesced but to be loaded anew. */
static bool is_cornered(const struct devgroup *g, const struct devgroup_device *d)
{
	return g->stage == DEVGROUP_STARTED && g->n > 1 && !g->config.peers_apart &&
	       is_still(d->state) && !d->loaded &&
	       vfiostate_hop(&d->facts.caps, d->state, VFIOSTATE_QUIESCED) < 0;
}

static void give_up(struct devgroup *g, struct devgroup_device *d, int error)
{
	if (!g->error) {
		g->error = error;
		g->culprit = (unsigned)(d - g->device);
	}
	if (!d->error)
		d->error = error;
}

/* What is to be done with it as it is; false: nothing, at this stage. */
static bool choose(const struct devgroup *g, const struct devgroup_device *d,
		   struct devgroup_action *a)
{
	const bool saves = g->stage == DEVGROUP_SAVED || is_cornered(g, d);
	enum vfiostate to;
	int hop;

	if (d->reset) {
		a->verb = DEVGROUP_RESET;
		return true;
	}
	if (saves && !d->saved && d->state == VFIOSTATE_STOPCOPY) {
		a->verb = DEVGROUP_SAVE;
		return true;
	}
	if (d->load && d->state == VFIOSTATE_RESUMING) {
		a->verb = DEVGROUP_LOAD;
		return true;
	}
	to = d->load ? VFIOSTATE_RESUMING : target(g, d);
	hop = vfiostate_hop(&d->facts.caps, d->state, to);
	if (is_cornered(g, d) || (hop < 0 && hop != -EALREADY)) {
		a->verb = DEVGROUP_RESET;
		return true;
	}
	a->verb = DEVGROUP_SET;
	a->state = hop < 0 ? to : (enum vfiostate)hop;
	return hop >= 0;
}

/* --- results --- */

/* It does not do what was asked; the source's side goes back, the destination's does without it. */
static void fail(struct devgroup *g, struct devgroup_device *d, int error)
{
	give_up(g, d, error);
	if (!g->arriving && !g->returning) {
		devgroup_abort(g);
		return;
	}
	d->load = false;
	d->lost = d->idle && !is_still(d->state) && d->state != VFIOSTATE_ERROR;
	d->reset = !d->lost;
}

static void was_reset(struct devgroup *g, struct devgroup_device *d, int error)
{
	d->reset = false;
	if (error || d->state == VFIOSTATE_ERROR) {
		give_up(g, d, error ? error : -EIO);
		d->lost = true;
		return;
	}
	d->idle = true;
	d->loaded = false;
	if (g->stage == DEVGROUP_CLEARED)
		return;
	d->load = g->returning && d->saved && !d->reloaded;
	d->reloaded |= d->load;
	d->lost = !d->load;
	if (d->load)
		g->stage = DEVGROUP_STARTED; /* once more, if it was behind us */
	else
		give_up(g, d, -ENODATA);
}

static void was_set(struct devgroup *g, struct devgroup_device *d, int error)
{
	if (!error && d->state != d->doing.state)
		error = -EPROTO;
	if (error)
		fail(g, d, error);
}

static void was_saved(struct devgroup *g, struct devgroup_device *d, int error)
{
	if (!error && d->state != VFIOSTATE_STOPCOPY)
		error = -EPROTO;
	d->saved = !error;
	if (error)
		fail(g, d, error);
}

static void was_loaded(struct devgroup *g, struct devgroup_device *d, int error)
{
	if (!error && d->state != VFIOSTATE_RESUMING)
		error = -EPROTO;
	if (error) {
		fail(g, d, error);
		return;
	}
	d->loaded = true;
	d->load = d->idle = false;
}

/**
 * devgroup_went - what devgroup_next() gave ended
 * @result: with what the device said afterwards, in which state it is
 */
void devgroup_went(struct devgroup *g, unsigned device, const struct devgroup_result *result)
{
	static void (*const was[])(struct devgroup *g, struct devgroup_device *d, int error) = {
		[DEVGROUP_SET] = was_set,
		[DEVGROUP_RESET] = was_reset,
		[DEVGROUP_SAVE] = was_saved,
		[DEVGROUP_LOAD] = was_loaded,
	};
	struct devgroup_device *d = &g->device[device];

	assert(device < g->n && d->busy);
	d->busy = d->late = false;
	/* one that does not even tell may be in any state */
	d->state = result->state < 0 ? VFIOSTATE_ERROR : (enum vfiostate)result->state;
	d->reset = d->state == VFIOSTATE_ERROR || g->stage == DEVGROUP_CLEARED;
	was[d->doing.verb](g, d, result->error);
}

/**
 * devgroup_tick - time has passed
 *
 * Return: the next deadline, UINT64_MAX when there is none.
 */
uint64_t devgroup_tick(struct devgroup *g, uint64_t now)
{
	uint64_t next = UINT64_MAX;

	for (unsigned i = 0; i < g->n; i++) {
		struct devgroup_device *d = &g->device[i];

		if (!d->busy || d->late)
			continue;
		if (d->deadline > now) {
			next = d->deadline < next ? d->deadline : next;
			continue;
		}
		d->late = true;
		give_up(g, d, -ETIMEDOUT);
		if (!g->arriving && !g->returning)
			devgroup_abort(g);
	}
	return next;
}

/* --- going --- */

/* Is there a way between the stages of that side? */
static bool is_ahead(const struct devgroup *g, enum devgroup_stage goal)
{
	if (g->returning || g->stage == DEVGROUP_CLEARED || goal <= g->goal)
		return false;
	if (g->arriving)
		return goal >= DEVGROUP_LOADED && goal <= DEVGROUP_RUNNING;
	return goal <= DEVGROUP_STOPPED;
}

/* They are read while they run only if that is asked for before all else. */
static void begin(struct devgroup *g, enum devgroup_stage goal)
{
	if (g->arriving)
		g->stage = DEVGROUP_LOADED;
	else
		g->stage = goal == DEVGROUP_PRECOPY ? DEVGROUP_PRECOPY : DEVGROUP_QUIESCED;
	for (unsigned i = 0; i < g->n; i++)
		g->device[i].load = g->arriving;
}

/**
 * devgroup_go - bring them all to a stage, through those before it
 *
 * What must be true of the memory before devices are STARTED is the caller's to know: see gate.h.
 *
 * Return: 0; -EPERM: devgroup_blockers() of one of them says why, or the stage is not ahead.
 */
int devgroup_go(struct devgroup *g, enum devgroup_stage goal)
{
	for (unsigned i = 0; i < g->n; i++)
		if (devgroup_blockers(g, i))
			return -EPERM;
	if (!is_ahead(g, goal))
		return -EPERM;
	if (g->stage == DEVGROUP_REST)
		begin(g, goal);
	g->goal = goal;
	g->ran |= goal == DEVGROUP_STARTED || goal == DEVGROUP_RUNNING;
	return 0;
}

/**
 * devgroup_abort - back to where they came from
 *
 * Return: 0; -EPERM: the destination's may have run, so theirs is the only state there is.
 */
int devgroup_abort(struct devgroup *g)
{
	if (g->ran)
		return -EPERM;
	for (unsigned i = 0; i < g->n && g->arriving; i++) {
		struct devgroup_device *d = &g->device[i];

		d->load = false;
		d->reset |= !d->idle || d->state != VFIOSTATE_RUNNING;
	}
	g->returning = !g->arriving;
	g->stage = g->arriving ? DEVGROUP_CLEARED : DEVGROUP_STARTED;
	g->goal = g->arriving ? DEVGROUP_CLEARED : DEVGROUP_RUNNING;
	return 0;
}

static bool is_settled(const struct devgroup *g)
{
	for (unsigned i = 0; i < g->n; i++) {
		const struct devgroup_device *d = &g->device[i];
		struct devgroup_action a;

		if (!d->lost && (d->busy || choose(g, d, &a)))
			return false;
	}
	return true;
}

/**
 * devgroup_done - are they all where they were to go, but for those that are lost?
 */
bool devgroup_done(const struct devgroup *g)
{
	return g->stage == g->goal && is_settled(g);
}

static bool give(struct devgroup *g, struct devgroup_device *d, uint64_t now,
		 struct devgroup_action *action)
{
	struct devgroup_action a = { .device = (unsigned)(d - g->device) };
	bool timed;

	if (d->lost || d->busy || !choose(g, d, &a))
		return false;
	if (a.verb == DEVGROUP_SET && !is_allowed(g, d, a.state))
		return false;
	timed = !g->config.mandatory && (a.verb == DEVGROUP_SET || a.verb == DEVGROUP_RESET);
	d->doing = *action = a;
	d->busy = true;
	d->since = now;
	d->deadline = timed && add_u64(now, g->config.limit, &d->deadline) ? d->deadline :
									     UINT64_MAX;
	return true;
}

static void enter(struct devgroup *g, enum devgroup_stage stage)
{
	g->stage = stage;
	for (unsigned i = 0; i < g->n && stage == DEVGROUP_MAPPABLE; i++) {
		const struct devgroup_facts *f = &g->device[i].facts;

		/* v1 is there still */
		g->device[i].load = f->maps_resuming && f->caps.v2;
	}
}

/**
 * devgroup_next - the next request to a device
 * @action: done by the device's own thread, whose devgroup_went() ends it
 *
 * Return: false: there is none before something ends.
 */
bool devgroup_next(struct devgroup *g, uint64_t now, struct devgroup_action *action)
{
	for (;;) {
		for (unsigned i = 0; i < g->n; i++)
			if (give(g, &g->device[i], now, action))
				return true;
		if (g->stage >= g->goal || !is_settled(g))
			return false;
		enter(g, g->stage + 1);
	}
}

/**
 * devgroup_stage_name - the word for a stage in reports; static, "?" for none
 */
const char *devgroup_stage_name(enum devgroup_stage stage)
{
	static const char *const names[DEVGROUP_STAGES] = {
		"rest", "precopy", "quiesced", "stop-copy", "saved", "stopped",
		"loaded", "mappable", "started", "running", "cleared",
	};

	return (unsigned)stage < ARRAY_LEN(names) ? names[stage] : "?";
}
