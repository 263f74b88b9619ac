/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Groups of devices, on both ways and back: each kind of device, and every way in which each
 * request can end (F30, F31, F32, F60, F61, S0-22, S3-08, S3-09, S3-46, S3-48, S3-49, S3-59,
 * S3-64).
 *
 * The devices are played by a model that knows the arcs and what may not be done to several devices
 * at once, and that has something in it to be lost.
 */
#include "config.h"

#include "core/devgroup.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include <criterion/criterion.h>

#include "core/guard.h"

enum { MEMBERS = 3, LIMIT = 100, ORIGINAL = 41, NOTHING = 0, OTHER = 99 };

/* How a request ends. */
enum ending {
	WELL,
	REFUSED,	/* an error, nothing changed */
	BROKEN,		/* an error, and ERROR */
	MUTE,		/* an error, and the state cannot be read */
	IGNORED,	/* no error, and not the state that was asked for */
	SLOW,		/* well, behind the deadline */
	SLOW_REFUSED,
	ENDINGS,
};

struct fake {
	struct vfiostate_caps caps;
	enum vfiostate state;
	bool broken, mute, stubborn; /* stubborn: it was not reset */
	bool programmed;	/* it may begin transfers if its state lets it */
	int content, stream;	/* what is in it, and what was read of it */
	unsigned resets;
};

struct world {
	struct devgroup group;
	struct fake fake[MEMBERS];
	struct devgroup_action doing[MEMBERS];
	bool busy[MEMBERS];
	unsigned order;		/* which of those under way ends first */
	uint64_t now;
	unsigned actions, fail_at[2];
	enum ending ending[2];
	bool unloadable;	/* no device ever takes its state */
	bool failed;		/* something went not well */
};

/* --- the devices --- */

static bool still(const struct fake *f)
{
	return f->state == VFIOSTATE_STOP || f->state == VFIOSTATE_STOPCOPY ||
	       f->state == VFIOSTATE_RESUMING;
}

static bool begins(const struct fake *f)
{
	return f->programmed && !f->broken &&
	       (f->state == VFIOSTATE_RUNNING || f->state == VFIOSTATE_PRECOPY);
}

/* S3-64: nobody addresses who stands still. */
static void check_peers(const struct world *w)
{
	for (unsigned a = 0; a < w->group.n; a++)
		for (unsigned b = 0; b < w->group.n; b++)
			cr_assert(w->group.config.peers_apart || a == b || !begins(&w->fake[a]) ||
					  !still(&w->fake[b]) || w->fake[b].broken ||
					  w->group.device[b].lost || w->group.device[a].lost,
				  "%u may address %u, which stands still", a, b);
}

static void enter(struct fake *f, enum vfiostate state)
{
	cr_assert_eq(vfiostate_hop(&f->caps, f->state, state), (int)state,
		     "no single arc: %s to %s", vfiostate_name(f->state), vfiostate_name(state));
	if (state == VFIOSTATE_RESUMING)
		f->content = NOTHING;
	f->state = state;
	f->programmed |= f->content != NOTHING && !still(f);
}

static int apply(struct fake *f, const struct devgroup_action *a)
{
	switch (a->verb) {
	case DEVGROUP_SET:
		cr_assert_not(f->broken || f->mute, "asked for something that needs a reset");
		enter(f, a->state);
		return 0;
	case DEVGROUP_RESET:
		f->state = VFIOSTATE_RUNNING;
		f->content = NOTHING;
		f->resets++;
		f->programmed = f->broken = f->mute = false;
		return 0;
	case DEVGROUP_SAVE:
		cr_assert_eq(f->state, VFIOSTATE_STOPCOPY);
		f->stream = f->content;
		return 0;
	default:
		cr_assert_eq(f->state, VFIOSTATE_RESUMING);
		f->content = f->stream;
		return 0;
	}
}

static struct devgroup_result end(struct fake *f, const struct devgroup_action *a, enum ending how)
{
	struct devgroup_result r = { .error = 0 };

	if (how == WELL || how == SLOW) {
		r.error = apply(f, a);
	} else if (how != IGNORED || a->verb != DEVGROUP_SET) {
		r.error = -EINVAL;
		f->broken |= how == BROKEN;
		f->mute |= how == MUTE;
		f->stubborn |= a->verb == DEVGROUP_RESET;
	}
	r.state = f->mute ? -ENXIO : f->broken ? VFIOSTATE_ERROR : (int)f->state;
	return r;
}

/* --- running it --- */

static void world_up(struct world *w, const struct vfiostate_caps *caps, unsigned n, bool arriving)
{
	const struct devgroup_config config = { .limit = LIMIT };

	*w = (struct world){ .now = 1000 };
	devgroup_init(&w->group, &config, arriving);
	for (unsigned i = 0; i < n; i++) {
		const struct devgroup_facts facts = { .caps = caps[i] };

		cr_assert_eq(devgroup_add(&w->group, &facts), (int)i);
		w->fake[i] = (struct fake){ .caps = caps[i], .state = VFIOSTATE_RUNNING };
		w->fake[i].content = arriving ? NOTHING : ORIGINAL + (int)i;
		w->fake[i].stream = arriving ? ORIGINAL + (int)i : NOTHING;
		w->fake[i].programmed = !arriving;
	}
}

static enum ending ending_of(struct world *w, const struct devgroup_action *a)
{
	w->actions++;
	if (w->unloadable && a->verb == DEVGROUP_LOAD)
		return REFUSED;
	for (unsigned i = 0; i < ARRAY_LEN(w->fail_at); i++)
		if (w->actions == w->fail_at[i])
			return w->ending[i];
	return WELL;
}

/* The action of one device ends; a slow one after its deadline. */
static void end_one(struct world *w, unsigned device)
{
	const struct devgroup_action *a = &w->doing[device];
	bool timed = a->verb == DEVGROUP_SET || a->verb == DEVGROUP_RESET;
	enum ending how = ending_of(w, a);
	struct devgroup_result r;

	w->failed |= how != WELL && (timed || how != SLOW);
	if (how == SLOW || how == SLOW_REFUSED) {
		w->now += 2 * LIMIT;
		devgroup_tick(&w->group, w->now);
		cr_assert_eq(w->group.device[device].late, timed);
		/* for the others this may be the time to go back */
		for (struct devgroup_action more; devgroup_next(&w->group, w->now, &more);) {
			cr_assert_neq(more.device, device);
			w->doing[more.device] = more;
			w->busy[more.device] = true;
		}
	}
	r = end(&w->fake[device], a, how);
	w->busy[device] = false;
	devgroup_went(&w->group, device, &r);
}

static unsigned pick(const struct world *w)
{
	for (unsigned i = 0; i < MEMBERS; i++)
		if (w->busy[(i + w->order) % MEMBERS])
			return (i + w->order) % MEMBERS;
	return MEMBERS;
}

static void tell(const struct world *w)
{
	fprintf(stderr, "# endings: %u of action %u, %u of action %u\n", w->ending[0], w->fail_at[0],
		w->ending[1], w->fail_at[1]);
	for (unsigned i = 0; i < w->group.n; i++) {
		const struct devgroup_device *d = &w->group.device[i];

		fprintf(stderr, "# %u: v%d, %s, lost %d, saved %d, to load %d, to reset %d\n", i,
			1 + d->facts.caps.v2, vfiostate_name(d->state), d->lost, d->saved, d->load,
			d->reset);
	}
}

/* Until there is nothing to do: it ends, and ends where it said. */
static void run(struct world *w)
{
	for (unsigned rounds = 0;; rounds++) {
		struct devgroup_action a;
		unsigned device;

		cr_assert_lt(rounds, 200, "it goes round in circles");
		while (devgroup_next(&w->group, w->now, &a)) {
			cr_assert_not(w->busy[a.device], "two things at once");
			w->doing[a.device] = a;
			w->busy[a.device] = true;
		}
		device = pick(w);
		if (device == MEMBERS)
			break;
		end_one(w, device);
		check_peers(w);
	}
	if (!devgroup_done(&w->group))
		tell(w);
	cr_assert(devgroup_done(&w->group), "stuck at %s", devgroup_stage_name(w->group.stage));
}

static void all_in(const struct world *w, enum vfiostate state)
{
	for (unsigned i = 0; i < w->group.n; i++)
		cr_assert_eq(w->fake[i].state, state, "%u is %s", i,
			     vfiostate_name(w->fake[i].state));
}

/* --- kinds --- */

#define V1	 { .precopy = true }
#define V1N	 { .precopy = true, .quiesce = true }
#define V2	 { .v2 = true }
#define V2P	 { .v2 = true, .quiesce = true }
#define V2C	 { .v2 = true, .precopy = true }
#define V2PC	 { .v2 = true, .quiesce = true, .precopy = true }

static const struct {
	unsigned n;
	struct vfiostate_caps caps[MEMBERS];
} groups[] = {
	{ 1, { V1 } }, { 1, { V1N } }, { 1, { V2 } },
	{ 1, { V2P } }, { 1, { V2C } }, { 1, { V2PC } },
	{ 2, { V1N, V1N } }, { 2, { V2P, V2P } }, { 2, { V2PC, V2P } }, { 2, { V2PC, V1N } },
	{ 3, { V2PC, V2P, V1N } }, { 3, { V2PC, V2PC, V2PC } },
};

/* --- the source --- */

/* S0-22, S3-49: with what was in it, and reset only if it has no way to be quiesced. */
static void check_way_back(const struct world *w, unsigned device)
{
	bool cornered = w->group.n > 1 && !w->fake[device].caps.v2;

	cr_assert_eq(w->fake[device].content, ORIGINAL + (int)device);
	cr_assert_eq(w->fake[device].resets, cornered, "%u", device);
}

Test(devgroup, departs_and_returns)
{
	for (unsigned i = 0; i < ARRAY_LEN(groups); i++) {
		struct world w;

		world_up(&w, groups[i].caps, groups[i].n, false);
		cr_assert_eq(devgroup_go(&w.group, DEVGROUP_PRECOPY), 0);
		run(&w);
		for (unsigned d = 0; d < groups[i].n; d++)
			cr_assert_eq(w.fake[d].state == VFIOSTATE_PRECOPY,
				     groups[i].caps[d].precopy);
		cr_assert_eq(devgroup_go(&w.group, DEVGROUP_STOPCOPY), 0);
		run(&w);
		all_in(&w, VFIOSTATE_STOPCOPY);
		cr_assert_eq(devgroup_go(&w.group, DEVGROUP_STOPPED), 0);
		run(&w);
		all_in(&w, VFIOSTATE_STOP);
		for (unsigned d = 0; d < groups[i].n; d++)
			cr_assert_eq(w.fake[d].stream, ORIGINAL + (int)d);
		cr_assert_eq(devgroup_go(&w.group, DEVGROUP_STARTED), -EPERM, "not its side");
		cr_assert_eq(devgroup_abort(&w.group), 0);
		run(&w);
		all_in(&w, VFIOSTATE_RUNNING);
		for (unsigned d = 0; d < groups[i].n; d++)
			check_way_back(&w, d);
		cr_assert_eq(w.group.error, 0);
		cr_assert_eq(devgroup_go(&w.group, DEVGROUP_STOPPED), -EPERM, "it has returned");
	}
}

/* The source's VM goes on with what it had, or a device says that it is lost. */
static void check_returned(const struct world *w)
{
	for (unsigned i = 0; i < w->group.n; i++) {
		const struct devgroup_device *d = &w->group.device[i];

		if (d->lost) {
			cr_assert(w->failed);
			cr_assert_neq(d->error, 0);
			continue;
		}
		cr_assert_eq(w->fake[i].state, VFIOSTATE_RUNNING);
		cr_assert_eq(w->fake[i].content, ORIGINAL + (int)i, "%u is not what it was", i);
		cr_assert(w->fake[i].programmed);
	}
}

static unsigned depart(struct world *w, bool live)
{
	enum devgroup_stage first = live ? DEVGROUP_PRECOPY : DEVGROUP_QUIESCED;

	cr_assert_eq(devgroup_go(&w->group, first), 0);
	run(w);
	if (devgroup_go(&w->group, DEVGROUP_STOPPED) == 0)
		run(w);
	if (w->group.returning) {
		cr_assert_neq(w->group.error, 0);
		check_returned(w);
		return w->actions;
	}
	cr_assert_not(w->failed);
	all_in(w, VFIOSTATE_STOP);
	cr_assert_eq(devgroup_abort(&w->group), 0);
	run(w);
	check_returned(w);
	return w->actions;
}

/* A failure at one step and at another one behind it, which may be one of the way back. */
static void fail_departing(unsigned group, bool live, unsigned order, unsigned steps)
{
	for (unsigned n = 0; n < (unsigned)(ENDINGS * ENDINGS); n++) {
		struct world w;

		for (unsigned at = 1; at <= steps; at++)
			for (unsigned more = 0; more <= 12; more++) {
				world_up(&w, groups[group].caps, groups[group].n, false);
				w.order = order;
				w.fail_at[0] = at;
				w.fail_at[1] = more ? at + more : 0;
				w.ending[0] = n % ENDINGS;
				w.ending[1] = n / ENDINGS;
				depart(&w, live);
			}
	}
}

Test(devgroup, every_failure_of_a_departure, .timeout = 300)
{
	for (unsigned i = 0; i < ARRAY_LEN(groups); i++)
		for (unsigned live = 0; live < 2; live++)
			for (unsigned order = 0; order < groups[i].n; order++) {
				struct world w;

				world_up(&w, groups[i].caps, groups[i].n, false);
				w.order = order;
				fail_departing(i, live, order, depart(&w, live));
			}
}

/* S3-46, the first row: a migration that cannot begin has not been. */
Test(devgroup, refused_at_the_beginning)
{
	const struct vfiostate_caps caps[] = { V2PC, V2PC };
	struct world w;

	world_up(&w, caps, 2, false);
	w.fail_at[0] = 1;
	w.ending[0] = REFUSED;
	cr_assert_eq(devgroup_go(&w.group, DEVGROUP_PRECOPY), 0);
	run(&w);
	all_in(&w, VFIOSTATE_RUNNING);
	check_returned(&w);
	cr_assert_eq(w.group.error, -EINVAL);
	cr_assert_not(w.group.device[w.group.culprit].lost, "it was reset for nothing");
}

/* A way back that fails is not gone again and again: the device is lost, the others go on. */
Test(devgroup, never_loaded_again)
{
	const struct vfiostate_caps caps[] = { V1N, V2P };
	struct world w;

	world_up(&w, caps, 2, false);
	w.unloadable = true;
	cr_assert_eq(devgroup_go(&w.group, DEVGROUP_STOPPED), 0);
	run(&w);
	cr_assert_eq(devgroup_abort(&w.group), 0);
	run(&w);
	cr_assert(w.group.device[0].lost);
	cr_assert_eq(w.fake[0].resets, 2);
	cr_assert_not(w.group.device[1].lost);
	check_returned(&w);
}

/* --- the destination --- */

static unsigned arrive(struct world *w)
{
	cr_assert_eq(devgroup_go(&w->group, DEVGROUP_LOADED), 0);
	run(w);
	for (unsigned i = 0; i < w->group.n; i++)
		cr_assert(still(&w->fake[i]) || w->group.device[i].lost, "it runs too early");
	cr_assert_eq(devgroup_go(&w->group, DEVGROUP_MAPPABLE), 0);
	run(w);
	for (unsigned i = 0; i < w->group.n; i++)
		cr_assert(w->fake[i].state == VFIOSTATE_RESUMING || w->group.device[i].lost ||
				  !w->group.device[i].facts.maps_resuming,
			  "nothing can be mapped for it");
	cr_assert_eq(devgroup_go(&w->group, DEVGROUP_STARTED), 0);
	run(w);
	cr_assert_eq(devgroup_go(&w->group, DEVGROUP_RUNNING), 0);
	run(w);
	cr_assert_eq(devgroup_abort(&w->group), -EPERM);
	for (unsigned i = 0; i < w->group.n; i++) {
		const struct devgroup_device *d = &w->group.device[i];

		if (d->lost) {
			cr_assert(!w->fake[i].programmed || w->fake[i].stubborn,
				  "a device that was given up does something");
			cr_assert(d->error && w->group.error);
			continue;
		}
		cr_assert_eq(w->fake[i].state, VFIOSTATE_RUNNING);
		cr_assert_eq(w->fake[i].content, ORIGINAL + (int)i);
	}
	return w->actions;
}

Test(devgroup, arrives)
{
	for (unsigned i = 0; i < ARRAY_LEN(groups); i++) {
		struct world w;

		world_up(&w, groups[i].caps, groups[i].n, true);
		cr_assert_eq(devgroup_go(&w.group, DEVGROUP_STOPPED), -EPERM, "not its side");
		arrive(&w);
		cr_assert_eq(w.group.error, 0);
		for (unsigned d = 0; d < w.group.n; d++)
			cr_assert_not(w.group.device[d].lost);
	}
}

/* What takes mappings in RESUMING only is checked, and loaded once more. */
static void map_resuming(struct world *w)
{
	for (unsigned i = 0; i < w->group.n; i++)
		w->group.device[i].facts.maps_resuming = true;
}

Test(devgroup, arrives_where_it_can_be_mapped)
{
	for (unsigned i = 0; i < ARRAY_LEN(groups); i++) {
		struct world w;

		world_up(&w, groups[i].caps, groups[i].n, true);
		map_resuming(&w);
		arrive(&w);
		cr_assert_eq(w.group.error, 0);
	}
}

static void fail_arriving(unsigned group, unsigned order, unsigned steps)
{
	for (unsigned n = 0; n < (unsigned)(ENDINGS * ENDINGS); n++)
		for (unsigned at = 1; at <= steps; at++)
			for (unsigned more = 0; more <= 8; more++) {
				struct world w;

				world_up(&w, groups[group].caps, groups[group].n, true);
				map_resuming(&w);
				w.order = order;
				w.fail_at[0] = at;
				w.fail_at[1] = more ? at + more : 0;
				w.ending[0] = n % ENDINGS;
				w.ending[1] = n / ENDINGS;
				arrive(&w);
			}
}

Test(devgroup, every_failure_of_an_arrival, .timeout = 300)
{
	for (unsigned i = 0; i < ARRAY_LEN(groups); i++)
		for (unsigned order = 0; order < groups[i].n; order++) {
			struct world w;

			world_up(&w, groups[i].caps, groups[i].n, true);
			map_resuming(&w);
			w.order = order;
			fail_arriving(i, order, arrive(&w));
		}
}

/* Aborted after any number of steps, with what is under way still to end: all are as if new. */
static void abort_arriving(unsigned group, unsigned after)
{
	struct world w;

	world_up(&w, groups[group].caps, groups[group].n, true);
	cr_assert_eq(devgroup_go(&w.group, DEVGROUP_LOADED), 0);
	for (unsigned i = 0; i < after; i++) {
		struct devgroup_action a;

		while (devgroup_next(&w.group, w.now, &a)) {
			w.doing[a.device] = a;
			w.busy[a.device] = true;
		}
		if (pick(&w) < MEMBERS)
			end_one(&w, pick(&w));
	}
	cr_assert_eq(devgroup_abort(&w.group), 0);
	run(&w);
	for (unsigned i = 0; i < w.group.n; i++) {
		cr_assert_eq(w.fake[i].state, VFIOSTATE_RUNNING);
		cr_assert_eq(w.fake[i].content, NOTHING);
		cr_assert_not(w.fake[i].programmed);
		cr_assert_not(w.group.device[i].lost);
	}
	cr_assert_eq(devgroup_go(&w.group, DEVGROUP_RUNNING), -EPERM);
}

Test(devgroup, aborts_an_arrival_anywhere)
{
	for (unsigned i = 0; i < ARRAY_LEN(groups); i++)
		for (unsigned after = 0; after < 12; after++)
			abort_arriving(i, after);
}
