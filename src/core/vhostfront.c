/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A vhost-user back-end shares the memory of a VM whose pages are still somewhere else.  One access
 * to a page of an unregistered mapping reads zeroes and makes them true for everybody.  So:
 *
 * - No ring may run, and no ring's address be told (back-ends read the ring then), unless every
 *   mapping of the back-end has been proven since memory was last told, or every page is there.
 * - END, after which nobody faults any more, goes out only when every page is there.
 * - What cannot be proven is not run: in doubt a message is held, and a back-end that breaks the
 *   protocol, is silent beyond its deadline, or dies is put into quarantine, alone.  Its
 *   userfaultfd stays open then, for its threads must wait rather than read zeroes.
 *
 * Each request of the VMM becomes a plan: a few steps, each an action for the caller, some of which
 * end only with an answer or a proof.  The next request is heard when the plan is done; vhost-user
 * is strictly ordered, so nobody notices.  The plans for a table are the dialects:
 *
 *   universal  ADVISE, table, PROVE after registering all that is mapped
 *   spec       ADVISE, LISTEN, table -> addresses, acknowledge, BARRIER, PROVE
 *   rust       table, ADVISE, LISTEN, PROVE
 *   gated      the table and what follows is held and acknowledged until every page is there
 *
 * ADVISE and LISTEN are said once a connection.  A back-end that acknowledges nothing is asked for
 * its features behind the table (BARRIER): its answer says that the table has been dealt with.
 *
 * A whole table that comes while rings run makes libvhost-user map everything anew, with threads at
 * work; so its rings are stopped before it and started behind the proof.  A slot that is added need
 * not be: no guest knows of that memory before the VMM has our answer.
 *
 * A new connection to a back-end that died is told all that was kept, by the same way: what is fed
 * is heard like the VMM's own words, so it is advised before its table and proven before its rings.
 *
 * Before the session serves faults memory is being emptied, and what is there is stale: a back-end
 * that comes so early is told everything and proven, but its rings are held.
 *
 * In repair mode the VMM drives its own postcopy: its messages pass, the addresses in the answer to
 * the table are made true, and rings wait for the proof all the same.
 */
#include "config.h"
#include "core/vhostfront.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/guard.h"
#include "core/vhostfront_parts.h"

static const bool awaits_answer[VHOSTFRONT_VERBS] = {
	[VHOSTFRONT_DO_RELAY_BASES] = true, [VHOSTFRONT_DO_ADVISE] = true,
	[VHOSTFRONT_DO_LISTEN] = true,	    [VHOSTFRONT_DO_END] = true,
	[VHOSTFRONT_DO_BARRIER] = true,	    [VHOSTFRONT_DO_STOP_RING] = true,
};

/* What a deadline that passed is called. */
static const char *const late[VHOSTFRONT_VERBS] = {
	[VHOSTFRONT_DO_RELAY] = "no answer to the VMM's request in time",
	[VHOSTFRONT_DO_RELAY_BASES] = "no addresses in answer to the memory table in time",
	[VHOSTFRONT_DO_ADVISE] = "no answer to POSTCOPY_ADVISE in time",
	[VHOSTFRONT_DO_LISTEN] = "no answer to POSTCOPY_LISTEN in time",
	[VHOSTFRONT_DO_END] = "no answer to POSTCOPY_END in time",
	[VHOSTFRONT_DO_BARRIER] = "no answer behind the memory table in time",
	[VHOSTFRONT_DO_STOP_RING] = "a ring did not stop in time",
	[VHOSTFRONT_DO_PROVE] = "its mappings could not be looked at in time",
};

static void act(struct vhostfront *v, const struct vhostfront_action *action)
{
	assert(v->n_actions < VHOSTFRONT_ACTIONS);
	v->actions[(v->first + v->n_actions++) % VHOSTFRONT_ACTIONS] = *action;
}

static void act_plain(struct vhostfront *v, enum vhostfront_verb verb)
{
	act(v, &(struct vhostfront_action){ .verb = verb });
}

static void ring_set(struct vhostfront *v, unsigned ring, bool started)
{
	uint64_t bit = UINT64_C(1) << (ring % 64);

	if (started)
		v->started[ring / 64] |= bit;
	else
		v->started[ring / 64] &= ~bit;
}

/* --- quarantine --- */

static void forget_connection(struct vhostfront *v)
{
	v->agreed = 0;
	v->advised = v->proven = v->stopped = false;
	v->listening &= v->config.repair; /* the VMM goes on with its postcopy */
	memset(v->started, 0, sizeof(v->started));
	v->busy = v->feeding = false;
	v->held = 0; /* it counts as kept from now on */
	v->n_steps = v->at = 0;
	v->wait = VHOSTFRONT_IDLE;
}

/* Its threads may wait on it while a page is missing, and must not go on without. */
static void abandon(struct vhostfront *v)
{
	if (v->resident)
		act_plain(v, VHOSTFRONT_DO_DROP);
	else
		v->orphans = true;
}

/* Is such a step still ahead? */
static bool ahead(const struct vhostfront *v, enum vhostfront_verb first, enum vhostfront_verb last)
{
	for (unsigned i = v->at; v->busy && i < v->n_steps; i++)
		if (v->plan[i].verb >= first && v->plan[i].verb <= last)
			return true;
	return false;
}

static void quarantine(struct vhostfront *v, const char *reason, uint64_t now)
{
	bool owed = ahead(v, VHOSTFRONT_DO_ANSWER, VHOSTFRONT_DO_PASS_REPAIRED);

	if (v->reason)
		return;
	if (ahead(v, VHOSTFRONT_DO_KEEP, VHOSTFRONT_DO_KEEP) && !owed)
		act_plain(v, VHOSTFRONT_DO_KEEP); /* the VMM believes that it was done */
	if (v->advised && !v->config.repair)
		abandon(v);
	forget_connection(v);
	v->reason = reason;
	v->since = now;
	act(v, &(struct vhostfront_action){ .verb = VHOSTFRONT_DO_QUARANTINE, .urged = owed });
}

/* --- running a plan --- */

/* What telling the back-end makes of the state, before it answers. */
static void note_told(struct vhostfront *v, const struct vhostfront_action *a)
{
	if (a->verb != VHOSTFRONT_DO_RELAY && a->verb != VHOSTFRONT_DO_RELAY_BASES)
		return;
	if (vhostfront_tells_memory(v))
		v->proven = false;
	if (v->said.what == VHOSTFRONT_SET_PROTOCOL)
		v->agreed = a->value;
	if (v->said.what == VHOSTFRONT_RING_KICK)
		ring_set(v, v->said.ring, true);
}

/* The values that are known only now. */
static void complete(struct vhostfront *v, struct vhostfront_action *a)
{
	if (a->verb == VHOSTFRONT_DO_STOP_RING)
		a->ring = vhostfront_running(v);
	if (a->verb == VHOSTFRONT_DO_PASS_ANSWER)
		a->value = v->said.what == VHOSTFRONT_GET_PROTOCOL ? vhostfront_shown(v) :
								     v->answer;
}

static void do_step(struct vhostfront *v, uint64_t now)
{
	struct vhostfront_action *a = &v->plan[v->at++];
	bool answer = awaits_answer[a->verb] ||
		      (a->verb == VHOSTFRONT_DO_RELAY && (a->urged || v->said.data));

	complete(v, a);
	note_told(v, a);
	if (a->verb == VHOSTFRONT_DO_HOLD)
		v->held++;
	act(v, a);
	if (answer) {
		v->wait = VHOSTFRONT_AWAITS_ANSWER;
		v->deadline = now + v->config.answer_limit;
	} else if (a->verb == VHOSTFRONT_DO_PROVE) {
		v->wait = VHOSTFRONT_AWAITS_PROOF;
		v->deadline = now + v->config.proof_limit;
	} else if (a->verb == VHOSTFRONT_DO_DROP) {
		v->advised = false;
	}
}

static void begin(struct vhostfront *v, const struct vhostfront_said *said)
{
	v->said = *said;
	v->n_steps = v->at = 0;
	v->answer = 0;
}

/* What is to be done of our own accord, now that nothing else is. */
static void find_work(struct vhostfront *v)
{
	if (v->feeding || v->reason)
		return;
	if ((v->held || v->stopped) && vhostfront_may_touch(v)) {
		if (v->stopped)
			act_plain(v, VHOSTFRONT_DO_RESTART);
		act_plain(v, VHOSTFRONT_DO_RELEASE);
		v->stopped = false;
		v->held = 0;
		v->feeding = true;
		return;
	}
	if (v->config.repair || !v->resident || !v->advised)
		return;
	begin(v, &(struct vhostfront_said){ .what = VHOSTFRONT_OTHER });
	vhostfront_step(v, VHOSTFRONT_DO_END, 0);
	vhostfront_step(v, VHOSTFRONT_DO_DROP, 0);
	v->busy = true;
}

static void run(struct vhostfront *v, uint64_t now)
{
	if (!v->busy)
		find_work(v);
	while (v->busy && v->wait == VHOSTFRONT_IDLE) {
		do_step(v, now);
		if (v->at < v->n_steps || v->wait != VHOSTFRONT_IDLE)
			continue;
		v->busy = false;
		find_work(v);
	}
}

/* --- events --- */

/**
 * vhostfront_init - the VMM has connected, and the back-end
 */
void vhostfront_init(struct vhostfront *v, const struct vhostfront_config *config)
{
	*v = (struct vhostfront){ .config = *config,
				  .dialect = config->dialect,
				  .begun = config->begun,
				  .early = config->early };
}

/**
 * vhostfront_ready - may a request be heard?
 * @fed: one that was kept or held
 */
bool vhostfront_ready(const struct vhostfront *v, bool fed)
{
	return !v->reason && !v->busy && v->feeding == fed;
}

/**
 * vhostfront_hear - a request of the VMM, or one that is fed, when vhostfront_ready()
 *
 * Return: 0, or -EPROTO with v->refusal, and nobody was told anything.
 */
int vhostfront_hear(struct vhostfront *v, const struct vhostfront_said *said, uint64_t now)
{
	int err;

	assert(vhostfront_ready(v, said->fed));
	begin(v, said);
	v->said.wants &= !said->fed;
	err = vhostfront_plan(v);
	if (err) {
		v->n_steps = 0;
		return err;
	}
	v->busy = v->n_steps > 0;
	run(v, now);
	return 0;
}

/* A table that the back-end did not take: the VMM is told, or would never know. */
static bool table_refused(struct vhostfront *v, uint64_t now)
{
	if (!vhostfront_tells_memory(v) || v->config.repair || v->resident || v->answer == 0)
		return false;
	if (v->said.wants) {
		v->n_steps = v->at = 0;
		vhostfront_step(v, VHOSTFRONT_DO_ANSWER, v->answer);
		return false;
	}
	quarantine(v, "the back-end refused the memory table", now);
	return true;
}

/* The VMM's own postcopy, in repair mode. */
static void note_postcopy(struct vhostfront *v)
{
	switch (v->said.what) {
	case VHOSTFRONT_ADVISE:
		v->advised = true;
		break;
	case VHOSTFRONT_LISTEN:
		if (v->answer)
			break; /* what was begun before goes on */
		v->listening = true;
		v->proven = false;
		break;
	case VHOSTFRONT_END:
		v->listening = v->advised = v->begun = false;
		break;
	default:
		break;
	}
}

/* The answer to the request that was passed on.  False: the plan is over. */
static bool note_relayed(struct vhostfront *v, uint64_t now)
{
	if (v->said.what == VHOSTFRONT_GET_PROTOCOL)
		v->offered = v->answer;
	if (v->said.what == VHOSTFRONT_RING_STOP) {
		ring_set(v, v->said.ring, false);
		v->base[v->said.ring] = v->answer;
	}
	if (v->config.repair)
		note_postcopy(v);
	return !table_refused(v, now);
}

static bool note_answer(struct vhostfront *v, const struct vhostfront_action *a, uint64_t now)
{
	switch (a->verb) {
	case VHOSTFRONT_DO_RELAY:
		return note_relayed(v, now);
	case VHOSTFRONT_DO_ADVISE:
		v->advised = true;
		break;
	case VHOSTFRONT_DO_LISTEN:
		if (v->answer == 0)
			break;
		quarantine(v, "the back-end refused POSTCOPY_LISTEN", now);
		return false;
	case VHOSTFRONT_DO_STOP_RING:
		v->stopped = true;
		ring_set(v, a->ring, false);
		v->at -= vhostfront_running(v) < VHOSTFRONT_RINGS; /* and the next one */
		break;
	case VHOSTFRONT_DO_END:
		v->ended = true;
		break;
	default:
		break;
	}
	v->answer = 0;
	return true;
}

/**
 * vhostfront_answered - the back-end answered what it was told last
 * @wrong: what the codec found wrong with it, static text, or NULL
 * @value: its number, if it has one
 */
void vhostfront_answered(struct vhostfront *v, const char *wrong, uint64_t value, uint64_t now)
{
	if (v->reason)
		return;
	if (v->wait != VHOSTFRONT_AWAITS_ANSWER)
		wrong = "the back-end answered what nobody asked";
	if (wrong) {
		quarantine(v, wrong, now);
		return;
	}
	v->wait = VHOSTFRONT_IDLE;
	v->answer = value;
	if (!note_answer(v, &v->plan[v->at - 1], now))
		return;
	v->busy = v->at < v->n_steps;
	run(v, now);
}

/**
 * vhostfront_proved - every mapping that the back-end has of the memory was looked at
 * @wrong: one is not registered, or could not be; NULL: all of them are
 */
void vhostfront_proved(struct vhostfront *v, const char *wrong, uint64_t now)
{
	if (v->reason)
		return; /* it came too late */
	assert(v->wait == VHOSTFRONT_AWAITS_PROOF);
	if (wrong) {
		quarantine(v, wrong, now);
		return;
	}
	v->wait = VHOSTFRONT_IDLE;
	v->proven = true;
	v->busy = v->at < v->n_steps;
	run(v, now);
}

/**
 * vhostfront_fed - all that was kept, or held, has been heard
 */
void vhostfront_fed(struct vhostfront *v, uint64_t now)
{
	if (v->reason)
		return;
	assert(v->feeding && !v->busy);
	v->feeding = false;
	run(v, now);
}

/**
 * vhostfront_serving - faults are answered from now on
 */
void vhostfront_serving(struct vhostfront *v, uint64_t now)
{
	v->early = false;
	if (!v->reason)
		run(v, now);
}

/**
 * vhostfront_resident - every page of every shared block is there
 */
void vhostfront_resident(struct vhostfront *v, uint64_t now)
{
	v->resident = true;
	if (v->orphans)
		act_plain(v, VHOSTFRONT_DO_DROP_ORPHANS);
	v->orphans = false;
	if (!v->reason)
		run(v, now);
}

/**
 * vhostfront_lost - the connection to the back-end ended, or its process
 */
void vhostfront_lost(struct vhostfront *v, const char *reason, uint64_t now)
{
	quarantine(v, reason, now);
}

/**
 * vhostfront_joined - a back-end is there again; it gets all that was kept
 *
 * It is taken to offer what the first one offered; what it then does not know, it does not answer.
 *
 * Return: 0, or -EPROTO with v->refusal: a VMM in its own postcopy does not advise it.
 */
int vhostfront_joined(struct vhostfront *v)
{
	assert(v->reason);
	if (v->listening) {
		v->refusal =
			"the VMM's own postcopy cannot take in a new back-end: it would read zeroes";
		return -EPROTO;
	}
	v->reason = NULL;
	v->feeding = true;
	act_plain(v, VHOSTFRONT_DO_REPLAY);
	return 0;
}

/**
 * vhostfront_tick - time passes
 */
void vhostfront_tick(struct vhostfront *v, uint64_t now)
{
	if (v->wait == VHOSTFRONT_IDLE || now < v->deadline)
		return;
	quarantine(v, late[v->plan[v->at - 1].verb], now);
}

/**
 * vhostfront_excuse - it is late because a thread of it waits for a page: give it the time again
 */
void vhostfront_excuse(struct vhostfront *v, uint64_t now)
{
	v->deadline = now + v->config.answer_limit;
}

/**
 * vhostfront_next - take the next action; false: there is none
 */
bool vhostfront_next(struct vhostfront *v, struct vhostfront_action *action)
{
	if (v->n_actions == 0)
		return false;
	*action = v->actions[v->first];
	v->first = (v->first + 1) % VHOSTFRONT_ACTIONS;
	v->n_actions--;
	return true;
}

/**
 * vhostfront_dialect_name - the word for a dialect in options and reports; static
 */
const char *vhostfront_dialect_name(enum vhostfront_dialect dialect)
{
	static const char *const names[VHOSTFRONT_DIALECTS] = { "universal", "spec", "rust",
								"gated" };

	return (unsigned)dialect < ARRAY_LEN(names) ? names[dialect] : "?";
}
