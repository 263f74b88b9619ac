/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vfio_move SOURCE SOURCE DEST DEST: two devices of mtty, the kernel's sample of a device that can
 * be migrated, brought to two others as one group, and back; and what they do when their state is
 * not one.  What each of them is, is a register of its (the scratch register of a UART).
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/guard.h"
#include "devmove.h"
#include "sys/devio_vfio.h"
#include "told.h"

enum { PAIR = 2, SCRATCH = 7 };

static struct told t;

struct side {
	struct devgroup group;
	struct devio io[PAIR];
	struct migdev mig[PAIR];
};

static struct side source, dest;
static struct devmove_stream saved[PAIR];

static int scratch(struct devio *d, uint8_t value)
{
	struct devio_at at = { .region = 0, .width = 1, .offset = SCRATCH };

	return devio_write(d, &at, &value, 1);
}

static int look(struct devio *d)
{
	struct devio_at at = { .region = 0, .width = 1, .offset = SCRATCH };
	uint8_t value = 0;
	int ret = devio_read(d, &at, &value, 1);

	return ret < 0 ? ret : value;
}

static void side_up(struct side *s, char **paths, bool arriving)
{
	const struct devgroup_config config = { .limit = 1 };

	memset(s, 0, sizeof(*s));
	devgroup_init(&s->group, &config, arriving);
	for (unsigned i = 0; i < PAIR; i++) {
		const char *why = "";
		struct devgroup_facts facts;

		if (devio_vfio_open(&s->io[i], paths[i], &why) < 0)
			told_wrong(&t, "%s: %s", paths[i], why);
		EXPECT(&t, migdev_probe(&s->mig[i], &s->io[i]), 0);
		EXPECT(&t, migdev_reset(&s->mig[i]), 0); /* mtty stays as it was closed */
		EXPECT(&t, scratch(&s->io[i], (uint8_t)(arriving ? 0 : 0x41 + i)), 0);
		facts = (struct devgroup_facts){ .caps = s->mig[i].caps };
		EXPECT(&t, devgroup_add(&s->group, &facts), (int)i);
	}
}

static void both_up(char **paths)
{
	memset(saved, 0, sizeof(saved));
	side_up(&source, paths, false);
	side_up(&dest, paths + PAIR, true);
}

static void side_down(struct side *s)
{
	for (unsigned i = 0; i < PAIR; i++) {
		migdev_deinit(&s->mig[i]);
		devio_close(&s->io[i]);
	}
}

static void both_down(void)
{
	side_down(&source);
	side_down(&dest);
}

static void go(struct side *s, enum devgroup_stage goal)
{
	EXPECT(&t, devgroup_go(&s->group, goal), 0);
	EXPECT(&t, devmove_run(&s->group, s->mig, saved), 0);
	EXPECT(&t, s->group.error, 0);
}

/* All of them are in that state, as they say. */
static void all_in(struct side *s, enum vfiostate state)
{
	for (unsigned i = 0; i < PAIR; i++)
		EXPECT(&t, migdev_state(&s->mig[i]), state);
}

static void depart(void)
{
	go(&source, DEVGROUP_PRECOPY);
	all_in(&source, VFIOSTATE_PRECOPY);
	for (unsigned i = 0; i < PAIR; i++) {
		EXPECT(&t, devmove_save(&source.mig[i], &saved[i]), 0);
		EXPECT(&t, saved[i].len > 0, true);
	}
	go(&source, DEVGROUP_QUIESCED);
	all_in(&source, VFIOSTATE_PRECOPY_QUIESCED);
	go(&source, DEVGROUP_STOPPED);
	all_in(&source, VFIOSTATE_STOP);
}

static void goes_over(char **paths)
{
	both_up(paths);
	depart();
	go(&dest, DEVGROUP_LOADED);
	all_in(&dest, VFIOSTATE_STOP);
	go(&dest, DEVGROUP_RUNNING);
	all_in(&dest, VFIOSTATE_RUNNING);
	for (unsigned i = 0; i < PAIR; i++)
		EXPECT(&t, look(&dest.io[i]), 0x41 + (int)i);
	both_down();
	told(&t, "F32 F34 F36 S3-64 two devices go over as a group");
}

static void comes_back(char **paths)
{
	both_up(paths);
	depart();
	EXPECT(&t, devgroup_abort(&source.group), 0);
	EXPECT(&t, devmove_run(&source.group, source.mig, saved), 0);
	all_in(&source, VFIOSTATE_RUNNING);
	for (unsigned i = 0; i < PAIR; i++)
		EXPECT(&t, look(&source.io[i]), 0x41 + (int)i);
	both_down();
	told(&t, "F60 S0-22 nobody came to the other side: they run on");
}

/* One gets what is no state: it is reset and lost, and the other one is not. */
static void nonsense(char **paths)
{
	both_up(paths);
	depart();
	memset(saved[0].bytes, 'x', saved[0].len);
	EXPECT(&t, devgroup_go(&dest.group, DEVGROUP_RUNNING), 0);
	EXPECT(&t, devmove_run(&dest.group, dest.mig, saved), 0);
	EXPECT(&t, dest.group.device[0].lost, true);
	EXPECT(&t, dest.group.device[1].lost, false);
	EXPECT(&t, dest.group.culprit, 0);
	all_in(&dest, VFIOSTATE_RUNNING);
	EXPECT(&t, look(&dest.io[1]), 0x42);
	both_down();
	told(&t, "F30 S3-46 S3-48 what is no state costs one device");
}

/* The end of a state is missing: that is seen when it should be used, and more data is no cure. */
static void cut_short(char **paths)
{
	both_up(paths);
	depart();
	saved[1].segment[saved[1].n - 1]--;
	EXPECT(&t, devgroup_go(&dest.group, DEVGROUP_LOADED), 0);
	EXPECT(&t, devmove_run(&dest.group, dest.mig, saved), 0);
	EXPECT(&t, dest.group.device[0].lost, false);
	EXPECT(&t, dest.group.device[1].lost, true);
	EXPECT(&t, dest.group.error, -EINVAL);
	EXPECT(&t, devgroup_abort(&dest.group), 0);
	EXPECT(&t, devmove_run(&dest.group, dest.mig, saved), 0);
	all_in(&dest, VFIOSTATE_RUNNING);
	both_down();
	told(&t, "F34 S3-18 a state without its end does not load");
}

/* --- one of them, arc by arc --- */

static int reach(struct migdev *m, enum vfiostate to)
{
	int hop = migdev_reset(m);

	while (hop >= 0 && m->state != (int)to) {
		hop = vfiostate_hop(&m->caps, (enum vfiostate)m->state, to);
		if (hop >= 0 && migdev_set(m, (enum vfiostate)hop) < 0)
			return -EIO;
	}
	return hop < 0 ? hop : 0;
}

/* Is it one arc, and nothing that an empty state stands in the way of? */
static void arc(struct migdev *m, enum vfiostate from, enum vfiostate to)
{
	bool single = vfiostate_hop(&m->caps, from, to) == (int)to;
	int ret;

	EXPECT(&t, reach(m, from), 0);
	ret = migdev_set(m, to);
	if (!single || from == VFIOSTATE_RESUMING)
		EXPECT(&t, ret, -EINVAL);
	else
		EXPECT(&t, ret, 0);
	EXPECT(&t, m->state, ret ? from : to);
	EXPECT(&t, migdev_state(m), m->state);
}

static void arcs(char **paths)
{
	both_up(paths);
	for (unsigned from = 0; from < VFIOSTATE_ERROR; from++)
		for (unsigned to = 0; to < VFIOSTATE_ERROR; to++)
			if (from != to)
				arc(&source.mig[0], (enum vfiostate)from, (enum vfiostate)to);
	EXPECT(&t, migdev_reset(&source.mig[0]), 0);
	EXPECT(&t, source.mig[0].state, VFIOSTATE_RUNNING);
	both_down();
	told(&t, "F28 every arc that there is, and no other");
}

int main(int argc, char **argv)
{
	if (argc < 1 + 2 * PAIR)
		return 1;
	arcs(argv + 1);
	goes_over(argv + 1);
	comes_back(argv + 1);
	nonsense(argv + 1);
	cut_short(argv + 1);
	return told_done(&t);
}
