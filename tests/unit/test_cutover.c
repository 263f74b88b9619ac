/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The plans of a switch-over: every order of their steps, against a world in which something goes
 * wrong when a step comes too early (F49, S0-01, S0-02, S0-17, S2-06, S3-68).
 */
#include "config.h"

#include "core/cutover.h"

#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"

#define BIT(s) (UINT32_C(1) << (s))
#define DONE(s) (done & BIT(CUTOVER_##s))

/* What goes wrong, in the words of what is then seen. */
static const char *wrong_at_source(enum cutover_plan plan, uint32_t done, enum cutover_step step)
{
	bool guest = plan == CUTOVER_GUEST;

	switch (step) {
	case CUTOVER_NOTIFY:
		return DONE(TRACK) ? NULL : "marks are lost";
	case CUTOVER_MARKED:
		return DONE(NOTIFY) ? NULL : "nobody told it";
	case CUTOVER_VCPUS_STOP:
		if (guest)
			return DONE(DEVICES_STOP) ? NULL : "devices write, and nobody marks it";
		return DONE(TRACK) ? NULL : "no tracker";
	case CUTOVER_QUIESCE:
		return DONE(TRACK) ? NULL : "no tracker";
	case CUTOVER_DEVICES_STOP:
		if (!DONE(QUIESCE))
			return "a device hangs on another one";
		if (guest)
			return DONE(MARKED) ? NULL : "what is in use is not marked";
		return DONE(VCPUS_STOP) ? NULL : "a vCPU hangs on a device";
	case CUTOVER_SAVE:
		return DONE(DEVICES_STOP) ? NULL : "the state is torn";
	case CUTOVER_SYNC:
		return DONE(DEVICES_STOP) && DONE(VCPUS_STOP) ? NULL : "a late write is missed";
	case CUTOVER_UNTRACK:
		return DONE(SYNC) ? NULL : "the last writes are missed";
	case CUTOVER_DISCARD:
		return DONE(SYNC) ? NULL : "old pages are not discarded";
	case CUTOVER_SEND_SET:
		return DONE(DISCARD) ? NULL : "what was sent is dropped";
	case CUTOVER_PACKAGE:
		return DONE(DISCARD) && DONE(SAVE) ? NULL : "the package lacks something";
	case CUTOVER_HAND_OVER:
		if (guest && !DONE(SEND_SET))
			return "a ring is missing";
		return DONE(PACKAGE) && DONE(UNTRACK) ? NULL : "it is not whole";
	default:
		return NULL;
	}
}

static const char *wrong_at_destination(uint32_t done, enum cutover_step step)
{
	switch (step) {
	case CUTOVER_SERVE:
		return DONE(DISCARDED) ? NULL : "a page goes that somebody has";
	case CUTOVER_LOAD:
		return DONE(SERVE) ? NULL : "the device's own fault is not answered";
	case CUTOVER_VCPUS_RUN:
		return DONE(LOAD) && DONE(PARK) ? NULL : "a vCPU hangs on a device";
	case CUTOVER_MAP:
		return DONE(SERVE) ? NULL : "a pinned page goes";
	case CUTOVER_START:
		return DONE(MAP) && DONE(LOAD) ? NULL : "it reaches what is not there";
	case CUTOVER_RUN:
		return DONE(START) ? NULL : "a device hangs on another one";
	case CUTOVER_UNPARK:
		return DONE(RUN) && DONE(PARK) ? NULL : "a vCPU hangs on a device";
	default:
		return NULL;
	}
}

static const uint32_t steps_of[CUTOVER_PLANS] = {
	[CUTOVER_GUEST] = BIT(CUTOVER_HAND_OVER + 1) - 1,
	[CUTOVER_HOST] = (BIT(CUTOVER_HAND_OVER + 1) - 1) &
			 ~(BIT(CUTOVER_NOTIFY) | BIT(CUTOVER_MARKED)),
	[CUTOVER_ARRIVAL] = (BIT(CUTOVER_STEPS) - 1) & ~(BIT(CUTOVER_HAND_OVER + 1) - 1),
};

static const char *wrong(enum cutover_plan plan, uint32_t done, enum cutover_step step)
{
	return plan == CUTOVER_ARRIVAL ? wrong_at_destination(done, step) :
					 wrong_at_source(plan, done, step);
}

/* One step, after those of @done, in whichever order they were. */
static bool try_step(enum cutover_plan plan, uint32_t done, enum cutover_step step)
{
	struct cutover c = { .plan = plan, .done = done };
	const char *bad = wrong(plan, done, step);

	if (!(steps_of[plan] & BIT(step))) {
		cr_assert_eq(cutover_did(&c, step), -EINVAL);
		return false;
	}
	if (done & BIT(step)) {
		cr_assert_eq(cutover_did(&c, step), -EALREADY);
		return false;
	}
	cr_assert_eq(cutover_edge(&c, step) != NULL, bad != NULL, "plan %d, %s: %s, but %s", plan,
		     cutover_step_name(step), bad ? bad : "nothing wrong",
		     cutover_edge(&c, step) ? cutover_edge(&c, step) : "allowed");
	cr_assert_eq(cutover_did(&c, step), bad ? -EPERM : 0);
	cr_assert_eq(c.done, bad ? done : done | BIT(step));
	cr_assert_not(cutover_blind(&c), "a writer outlives its tracker");
	return !bad;
}

/* All orders of a plan's steps; what counts of one is what is done.  How many such there are. */
static unsigned all_orders(enum cutover_plan plan, bool *reached)
{
	unsigned states = 0;

	reached[0] = true;
	for (uint32_t done = 0; done <= steps_of[plan]; done++) {
		states += reached[done];
		for (unsigned s = 0; s < CUTOVER_STEPS && reached[done]; s++)
			if (try_step(plan, done, s))
				reached[done | BIT(s)] = true;
	}
	return states;
}

Test(cutover, every_order)
{
	static bool reached[CUTOVER_PLANS][1u << CUTOVER_STEPS];

	for (unsigned plan = 0; plan < CUTOVER_PLANS; plan++) {
		unsigned states = all_orders(plan, reached[plan]);

		cr_assert(reached[plan][steps_of[plan]], "plan %u does not come to its end", plan);
		cr_assert_gt(states, (unsigned)__builtin_popcount(steps_of[plan]) + 1,
			     "plan %u has only one order", plan);
	}
}

/* S0-02, S3-68: what the plans differ in. */
Test(cutover, who_stops_first)
{
	struct cutover g, h;

	cutover_init(&g, CUTOVER_GUEST);
	cutover_init(&h, CUTOVER_HOST);
	g.done = BIT(CUTOVER_TRACK) | BIT(CUTOVER_NOTIFY) | BIT(CUTOVER_MARKED) |
		 BIT(CUTOVER_QUIESCE);
	h.done = BIT(CUTOVER_TRACK) | BIT(CUTOVER_QUIESCE);
	cr_assert_not_null(strstr(cutover_edge(&g, CUTOVER_VCPUS_STOP), "outlives its tracker"));
	cr_assert_null(cutover_edge(&g, CUTOVER_DEVICES_STOP));
	cr_assert_null(cutover_edge(&h, CUTOVER_VCPUS_STOP));
	cr_assert_not_null(strstr(cutover_edge(&h, CUTOVER_DEVICES_STOP), "a vCPU"));
	/* and the invariant itself sees it, whatever the edges say */
	g.done |= BIT(CUTOVER_VCPUS_STOP);
	cr_assert(cutover_blind(&g));
	h.done |= BIT(CUTOVER_VCPUS_STOP);
	cr_assert_not(cutover_blind(&h));
	h.done |= BIT(CUTOVER_UNTRACK);
	cr_assert(cutover_blind(&h));
}

/* The plan's own order is one of those allowed, and there is a way back until somebody runs. */
Test(cutover, own_order)
{
	for (unsigned plan = 0; plan < CUTOVER_PLANS; plan++) {
		enum cutover_step step;
		struct cutover c;
		bool back = true;

		cutover_init(&c, plan);
		while (cutover_next(&c, &step)) {
			cr_assert_eq(cutover_did(&c, step), 0, "%s", cutover_step_name(step));
			back &= step != CUTOVER_HAND_OVER && step != CUTOVER_VCPUS_RUN &&
				step != CUTOVER_START;
			cr_assert_eq(cutover_may_abort(&c), back);
		}
		cr_assert_eq(c.done, steps_of[plan]);
		cr_assert_not(back);
	}
	cr_assert_str_eq(cutover_step_name(CUTOVER_STEPS), "?");
}
