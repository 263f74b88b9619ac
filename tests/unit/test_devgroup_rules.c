/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What holds a group of devices: the rule about those that stand still, deadlines, and reasons not
 * to begin (F31, F32, F52, F55, S3-64, S3-66, S3-75, S3-76, S3-81).
 */
#include "config.h"

#include "core/devgroup.h"

#include <errno.h>

#include <criterion/criterion.h>

enum { LIMIT = 100 };

#define V2   { .v2 = true }
#define V2P  { .v2 = true, .quiesce = true }
#define V2PC { .v2 = true, .quiesce = true, .precopy = true }

static void group_up(struct devgroup *g, const struct vfiostate_caps *caps, unsigned n)
{
	const struct devgroup_config config = { .limit = LIMIT };

	devgroup_init(g, &config, false);
	for (unsigned i = 0; i < n; i++) {
		const struct devgroup_facts facts = { .caps = caps[i] };

		cr_assert_eq(devgroup_add(g, &facts), (int)i);
	}
}

/* S3-64: a stage that would come too early gets nowhere. */
Test(devgroup, the_rule_holds_without_the_stages)
{
	const struct vfiostate_caps caps[] = { V2P, V2P };
	struct devgroup_action a;
	struct devgroup g;

	group_up(&g, caps, 2);
	g.stage = g.goal = DEVGROUP_RUNNING;
	g.returning = true;
	g.device[0].state = VFIOSTATE_QUIESCED;
	g.device[1].state = VFIOSTATE_QUIESCED;
	g.device[1].busy = true;
	g.device[1].doing = (struct devgroup_action){ 1, DEVGROUP_SET, VFIOSTATE_STOP };
	cr_assert_not(devgroup_next(&g, 0, &a), "the other one may stand still by now");
	devgroup_went(&g, 1, &(struct devgroup_result){ .state = VFIOSTATE_STOP });
	cr_assert(devgroup_next(&g, 0, &a));
	cr_assert(a.device == 1 && a.state == VFIOSTATE_QUIESCED);
	cr_assert_not(devgroup_next(&g, 0, &a));
	devgroup_went(&g, 1, &(struct devgroup_result){ .state = VFIOSTATE_QUIESCED });
	for (unsigned i = 0; i < 2; i++)
		cr_assert(devgroup_next(&g, 0, &a) && a.state == VFIOSTATE_RUNNING);

	group_up(&g, caps, 2);
	g.stage = g.goal = DEVGROUP_STOPCOPY;
	g.device[0].state = VFIOSTATE_QUIESCED;
	g.device[1].state = VFIOSTATE_ERROR;
	g.device[1].busy = true;
	cr_assert_not(devgroup_next(&g, 0, &a), "the other one may do anything");
}

/* S3-76, S3-81: a deadline ends the migration, not the request; in mandatory mode there is none. */
Test(devgroup, deadlines)
{
	const struct vfiostate_caps caps[] = { V2PC, V2PC };
	struct devgroup_result well = { .state = VFIOSTATE_QUIESCED };
	struct devgroup_action a, b;
	struct devgroup g;

	group_up(&g, caps, 2);
	cr_assert_eq(devgroup_go(&g, DEVGROUP_QUIESCED), 0);
	cr_assert(devgroup_next(&g, 1000, &a));
	cr_assert(devgroup_next(&g, 1010, &b));
	cr_assert_eq(devgroup_tick(&g, 1020), 1000 + LIMIT);
	devgroup_went(&g, b.device, &well);
	cr_assert_eq(devgroup_tick(&g, 1000 + LIMIT), UINT64_MAX);
	cr_assert(g.returning);
	cr_assert_eq(g.error, -ETIMEDOUT);
	cr_assert_eq(g.culprit, a.device);
	cr_assert_not(devgroup_next(&g, 1200, &b), "its thread has not returned");
	cr_assert_not(devgroup_done(&g));
	devgroup_went(&g, a.device, &well);
	cr_assert(devgroup_next(&g, 1300, &b));
	cr_assert_eq(b.state, VFIOSTATE_RUNNING);

	group_up(&g, caps, 2);
	g.config.mandatory = true;
	cr_assert_eq(devgroup_go(&g, DEVGROUP_QUIESCED), 0);
	cr_assert(devgroup_next(&g, 1000, &a));
	cr_assert_eq(devgroup_tick(&g, UINT64_MAX - 1), UINT64_MAX);
	cr_assert_eq(g.error, 0);
}

/* S3-66, S3-75, S3-81, F52, F55: every reason at once, and nothing begins. */
Test(devgroup, blockers)
{
	const struct vfiostate_caps caps[] = { V2, V2P };
	struct devgroup_facts bad = { .caps = V2P, .vpri = true, .unbounded = true };
	struct devgroup_action a;
	struct devgroup g;

	group_up(&g, caps, 1);
	cr_assert_eq(devgroup_blockers(&g, 0), 0, "one device needs nobody's quiet");
	group_up(&g, caps, 2);
	cr_assert_eq(devgroup_blockers(&g, 0), DEVGROUP_PEERLESS);
	cr_assert_eq(devgroup_blockers(&g, 1), 0);
	cr_assert_eq(devgroup_go(&g, DEVGROUP_PRECOPY), -EPERM);
	cr_assert_not(devgroup_next(&g, 0, &a));
	g.config.peers_apart = true;
	cr_assert_eq(devgroup_go(&g, DEVGROUP_STOPPED), 0);

	group_up(&g, caps, 0);
	cr_assert_eq(devgroup_add(&g, &bad), 0);
	cr_assert_eq(devgroup_blockers(&g, 0), DEVGROUP_VPRI | DEVGROUP_UNBOUNDED);
	g.device[0].facts.cancels = true;
	g.config.allow_unbounded = true;
	cr_assert_eq(devgroup_blockers(&g, 0), 0);
	for (unsigned i = 1; i < DEVGROUP_MAX; i++)
		cr_assert_eq(devgroup_add(&g, &bad), (int)i);
	cr_assert_eq(devgroup_add(&g, &bad), -ENOSPC);
}
