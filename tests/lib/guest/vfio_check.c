/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vfio_check DEVICE DEVICE: the only program of the guest that has devices of the kernel's VFIO
 * (mtty, whose state is a few bytes).  It drives both through our handle of a device, and says on
 * the console what holds (told.h).
 *
 * It is linked without a library, so that it runs where there is none.
 */
#include "config.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "sys/devio_vfio.h"
#include "told.h"

enum { ERROR, STOP, RUNNING, STOP_COPY, RESUMING, RUNNING_P2P, PRE_COPY, PRE_COPY_P2P, STATES };
enum { MIGRATION = 1, STATE = 2, DATA_SIZE = 9, BUS_MASTER = 10 };
#define SECOND UINT64_C(1000000000)

struct check {
	struct devio a, b;
	struct told t;
};

static int go(struct devio *d, uint32_t state)
{
	uint32_t data[2] = { state, UINT32_MAX };
	int ret = devio_feature_set(d, STATE, data, sizeof(data));

	return ret == 0 && data[1] != UINT32_MAX ? -EBADF : ret; /* the descriptor stays inside */
}

static int state(struct devio *d)
{
	uint32_t data[2] = { 0, 0 };
	int ret = devio_feature_get(d, STATE, data, sizeof(data));

	return ret < 0 ? ret : (int)data[0];
}

/* F28, F29: what it is and can. */
static void discovery(struct check *c)
{
	struct vfiocaps_region r;
	struct devio_info info;
	uint64_t flags = 0;
	uint32_t typed = 0;

	EXPECT(&c->t, devio_info(&c->a, &info), 0);
	EXPECT(&c->t, info.regions > 0, 1);
	for (uint32_t i = 0; i < info.regions; i++) {
		EXPECT(&c->t, devio_region(&c->a, i, &r), 0);
		typed += r.typed;
	}
	EXPECT(&c->t, typed, 0);
	EXPECT(&c->t, devio_region(&c->a, info.regions, &r), -EINVAL);
	EXPECT(&c->t, devio_feature_get(&c->a, MIGRATION, &flags, sizeof(flags)), 0);
	EXPECT(&c->t, flags, 7);
	EXPECT(&c->t, devio_feature_has(&c->a, STATE, DEVIO_GET | DEVIO_SET), 1);
	EXPECT(&c->t, devio_feature_has(&c->a, MIGRATION, DEVIO_SET), 0);
	EXPECT(&c->t, devio_feature_has(&c->a, BUS_MASTER, DEVIO_SET), 0);
	EXPECT(&c->t, devio_feature_get(&c->a, 4711, &flags, sizeof(flags)), -EOPNOTSUPP);
	EXPECT(&c->t, state(&c->a), RUNNING);
	told(&c->t, "F29 discovery");
}

/* S3-01: the vendor and the device of its configuration space (region 7), in one piece and two. */
static void registers(struct check *c)
{
	struct devio_at at = { .region = 7, .width = 4 };
	uint8_t bytes[5];
	uint32_t id = 0;

	EXPECT(&c->t, devio_read(&c->a, &at, &id, sizeof(id)), 0);
	EXPECT(&c->t, id, 0x32534348);
	at.width = 0;
	EXPECT(&c->t, devio_read(&c->a, &at, bytes, sizeof(bytes)), 0);
	EXPECT(&c->t, memcmp(bytes, &id, sizeof(id)), 0);
	at.offset = UINT64_C(1) << 40;
	EXPECT(&c->t, devio_read(&c->a, &at, bytes, 1), -EINVAL);
	told(&c->t, "registers");
}

/* The shortest way to a state from RUNNING, when its stream is empty. */
static int reach(struct devio *d, uint32_t to)
{
	int ret = devio_reset(d);

	return ret < 0 || to == RUNNING ? ret : go(d, to);
}

/* S3-84..88: every ordered pair; what is left with nothing loaded, and what is refused, stays. */
static void arcs(struct check *c)
{
	for (uint32_t pair = 0; pair < STATES * (STATES + 1); pair++) {
		uint32_t from = pair / (STATES + 1), to = pair % (STATES + 1);
		bool closed = to == ERROR || to == STATES ||
			      (from == STOP_COPY && (to == PRE_COPY || to == PRE_COPY_P2P)) ||
			      (from == RESUMING && to != RESUMING);
		int ret;

		if (from == ERROR)
			continue;
		EXPECT(&c->t, reach(&c->a, from), 0);
		ret = go(&c->a, to);
		if (ret != (closed ? -EINVAL : 0) || state(&c->a) != (int)(closed ? from : to))
			told_wrong(&c->t, "%u to %u: %d, then in %d", from, to, ret, state(&c->a));
	}
	EXPECT(&c->t, devio_reset(&c->a), 0);
	EXPECT(&c->t, state(&c->a), RUNNING);
	told(&c->t, "F28 every ordered pair of states");
}

/* Until nothing comes; what was read.  A kernel may tell that by ENOMSG or by 0. */
static ssize_t drain(struct devio *from, struct devio *to)
{
	ssize_t total = 0, n;
	uint8_t buf[16];

	while ((n = devio_mig_read(from, buf, sizeof(buf))) > 0) {
		total += n;
		for (ssize_t at = 0, put; at < n; at += put) {
			put = devio_mig_write(to, buf + at, (size_t)(n - at));
			if (put < 0)
				return put;
		}
	}
	return n == 0 || n == -ENOMSG ? total : n;
}

/* F34, F36: before it stops and after; both devices together, all quiesced before one stops. */
static void migrate(struct check *c)
{
	struct devio_precopy left;
	uint64_t size = 0;

	EXPECT(&c->t, go(&c->b, RESUMING), 0);
	EXPECT(&c->t, devio_mig_read(&c->b, &size, 1), -EBADF);
	EXPECT(&c->t, go(&c->a, PRE_COPY), 0);
	EXPECT(&c->t, devio_mig_precopy(&c->a, &left), 0);
	EXPECT(&c->t, left.initial > 0, 1);
	EXPECT(&c->t, drain(&c->a, &c->b), left.initial);
	EXPECT(&c->t, go(&c->a, PRE_COPY_P2P), 0);
	EXPECT(&c->t, go(&c->a, STOP_COPY), 0);
	EXPECT(&c->t, devio_mig_precopy(&c->a, &left), -EINVAL);
	EXPECT(&c->t, devio_feature_get(&c->a, DATA_SIZE, &size, sizeof(size)), 0);
	EXPECT(&c->t, drain(&c->a, &c->b) > 0, 1);
	EXPECT(&c->t, devio_mig_read(&c->a, &size, 1), 0);
	EXPECT(&c->t, devio_mig_write(&c->a, &size, 1), -EBADF);
	EXPECT(&c->t, go(&c->a, STOP), 0);
	EXPECT(&c->t, devio_mig_read(&c->a, &size, 1), -ENODEV);
	EXPECT(&c->t, go(&c->b, STOP), 0);
	EXPECT(&c->t, state(&c->b), STOP);
	EXPECT(&c->t, go(&c->a, RUNNING_P2P), 0);
	EXPECT(&c->t, go(&c->b, RUNNING_P2P), 0);
	EXPECT(&c->t, go(&c->a, RUNNING), 0);
	EXPECT(&c->t, go(&c->b, RUNNING), 0);
	EXPECT(&c->t, state(&c->b), RUNNING);
	told(&c->t, "F32 F34 F36 state saved from one device and loaded into another");
}

/* S3-18, S3-46: what is not whole is refused when it should be used, and a reset leads out. */
static void garbage(struct check *c)
{
	static const char nonsense[200] = "this is not the state of a device";

	EXPECT(&c->t, go(&c->b, RESUMING), 0);
	EXPECT(&c->t, devio_mig_write(&c->b, nonsense, 8) > 0, 1);
	EXPECT(&c->t, go(&c->b, RUNNING), -EINVAL);
	EXPECT(&c->t, state(&c->b), RESUMING);
	EXPECT(&c->t, devio_reset(&c->b), 0);
	EXPECT(&c->t, state(&c->b), RUNNING);
	EXPECT(&c->t, devio_mig_write(&c->b, nonsense, 8), -ENODEV);
	EXPECT(&c->t, go(&c->b, RESUMING), 0);
	EXPECT(&c->t, devio_mig_write(&c->b, nonsense, sizeof(nonsense)) < 0, 1);
	EXPECT(&c->t, devio_reset(&c->b), 0);
	EXPECT(&c->t, state(&c->b), RUNNING);
	told(&c->t, "F30 S3-18 garbage does not load");
}

static int opened(struct devio *d, const char *path)
{
	const char *why = NULL;
	int ret = devio_vfio_open(d, path, &why);

	if (ret < 0)
		printf("# %s: %s (%d)\n", path, why, ret);
	else
		devio_set_limit(d, 60 * SECOND);
	return ret;
}

int main(int argc, char **argv)
{
	struct check c = { .t = { 0 } };
	struct devio again;

	if (argc < 3 || opened(&c.a, argv[1]) < 0 || opened(&c.b, argv[2]) < 0)
		return 1;
	EXPECT(&c.t, opened(&again, argv[1]), -EBUSY);
	EXPECT(&c.t, opened(&again, "/sys/devices/none"), -ENODEV);
	told(&c.t, "devices are opened once");
	discovery(&c);
	registers(&c);
	arcs(&c);
	migrate(&c);
	garbage(&c);
	devio_close(&c.a);
	EXPECT(&c.t, opened(&c.a, argv[1]), 0);
	EXPECT(&c.t, state(&c.a), RUNNING);
	devio_close(&c.a);
	devio_close(&c.b);
	told(&c.t, "S3-62 a device that was closed runs when it is opened");
	return told_done(&c.t);
}
