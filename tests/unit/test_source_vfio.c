/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How much of a device the source reads while it runs, against models (F37): what there is, but of
 * one that always has more no more than its share, in whole segments, and the stop comes all the
 * same (S4-27, S4-29).
 */
#include "config.h"

#include "tools/source_vfio.h"

#include <string.h>
#include <sys/mman.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "fakedev.h"

struct rig {
	struct fakedev fake;
	struct source_vfio v;
	struct source_sink sink;
};

static struct rig rig;

static void not_for_ever(void *arg, enum fakedev_op op)
{
	(void)arg;
	(void)op;
	cr_assert_lt(rig.fake.count[FAKEDEV_PENDING] + rig.fake.count[FAKEDEV_TAKE], 1000,
		     "S4-27: it is read on and on");
}

static void up(const struct fakedev_config *c)
{
	fakedev_init(&rig.fake, c);
	rig.fake.before = not_for_ever;
	source_sink_init(&rig.sink, NULL);
	source_vfio_init(&rig.v, NULL);
	digest_init(&rig.v.digest, 0);
	rig.v.copy = memfd_create("copy", MFD_CLOEXEC);
	cr_assert_geq(rig.v.copy, 0);
	cr_assert_eq(migdev_probe(&rig.v.mig, &rig.fake.dev), 0);
	rig.v.probed = true;
	cr_assert_eq(migdev_set(&rig.v.mig, VFIOSTATE_PRECOPY), 0);
}

static void down(void)
{
	cr_assert_null(fakedev_wrong(&rig.fake), "%s", fakedev_wrong(&rig.fake));
	source_vfio_deinit(&rig.v);
	source_sink_deinit(&rig.sink);
	fakedev_deinit(&rig.fake);
}

static int64_t a_round(uint64_t most)
{
	return source_vfio_round(&rig.v, &rig.sink, most);
}

static const struct fakedev_config devices[] = {
	{ .version = 1, .seed = 5, .segments = 3, .early = 2, .endless = true },
	{ .version = 1, .seed = 5, .segments = 3, .early = 2, .endless = true,
	  .window = FAKEDEV_MAPPED },
	{ .version = 2, .seed = 5, .segments = 3, .early = 2, .endless = true, .flags = 5 },
};

/* S4-27: its share, and not a byte of the segment behind it; pending is read once for each. */
Test(source_vfio, S4_27_a_device_that_always_has_more, .timeout = 60)
{
	static const uint64_t shares[] = { 1, 4096, 200000 };

	for (unsigned i = 0; i < ARRAY_LEN(devices) * ARRAY_LEN(shares); i++) {
		uint64_t share = shares[i % ARRAY_LEN(shares)];

		up(&devices[i / ARRAY_LEN(shares)]);
		for (unsigned n = 1; n <= 3; n++) {
			int64_t got = a_round(share);

			cr_assert_geq(got, (int64_t)share, "round %u of %u: %ld", n, i, (long)got);
			cr_assert_lt(got, (int64_t)share + FAKEDEV_SEGMENT_MAX);
			cr_assert_eq(rig.v.writer.left, 0, "a segment is cut");
			cr_assert_eq(rig.v.rounds, n);
		}
		cr_assert_eq(rig.fake.count[FAKEDEV_PENDING], rig.fake.count[FAKEDEV_OFFSET]);
		/* S4-29 */
		cr_assert_eq(migdev_set(&rig.v.mig, VFIOSTATE_STOPCOPY), 0);
		down();
	}
}

/* One that has an end is read to it, and what it has behind it comes when it stands still. */
Test(source_vfio, a_round_brings_what_there_is)
{
	for (unsigned i = 0; i < ARRAY_LEN(devices); i++) {
		const struct devgroup_action save = { 0, DEVGROUP_SAVE, VFIOSTATE_STOPCOPY };
		struct fakedev_config c = devices[i];
		int64_t sum = 0;

		c.endless = false;
		up(&c);
		for (unsigned n = 0; n < 2; n++)
			sum += (int64_t)fakedev_segment_size(&rig.fake, n);
		cr_assert_eq(a_round(UINT64_MAX), sum);
		cr_assert_eq(a_round(UINT64_MAX), 0);
		cr_assert_eq(migdev_set(&rig.v.mig, VFIOSTATE_STOPCOPY), 0);
		cr_assert_eq(source_vfio_act(&rig.v, &save, &rig.sink), 0);
		cr_assert_eq(rig.v.writer.bytes,
			     (uint64_t)sum + fakedev_segment_size(&rig.fake, 2));
		down();
	}
}
