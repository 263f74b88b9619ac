/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The model of a device of the second version, and several in a group (F66): every ordered pair of
 * its states for every set of flags (S3-84..88), its stream and its errors (test_fakedev.c has the
 * first version).
 */
#include "config.h"

#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "fakedev.h"

static struct fakedev f, g;

static int v2_go(struct fakedev *d, uint32_t state)
{
	uint32_t data[2] = { state, UINT32_MAX };

	return devio_feature_set(&d->dev, 2, data, sizeof(data));
}

static uint32_t v2_state(struct fakedev *d)
{
	uint32_t data[2];

	cr_assert_eq(devio_feature_get(&d->dev, 2, data, sizeof(data)), 0);
	return data[0];
}

static void no_wrong(const struct fakedev *d)
{
	cr_assert_null(fakedev_wrong(d), "%s", fakedev_wrong(d));
}

/* Something was noted, and it names that row. */
static void noted(struct fakedev *d, const char *row)
{
	cr_assert(strstr(d->wrong, row), "'%s' instead of %s", d->wrong, row);
	d->wrong[0] = '\0';
}

/* F31: who waits without a deadline is found. */
Test(fakedev_v2, no_deadline_is_noted)
{
	struct fakedev_config c = { .version = 2, .flags = 1 };

	fakedev_init(&f, &c);
	devio_set_limit(&f.dev, 0);
	fakedev_fail(&f, FAKEDEV_ARC, 1, FAKEDEV_HANG_DONE, 0);
	cr_assert_eq(v2_go(&f, 1), -ETIMEDOUT);
	noted(&f, "F31");
	cr_assert_eq(v2_state(&f), 1, "it is done all the same");
	fakedev_deinit(&f);
}

/* The arcs that a driver has; all others are made of them. */
static const uint8_t single[][2] = {
	{6, 2}, {2, 6}, {6, 7}, {7, 6}, {7, 5}, {5, 7}, {7, 3}, {4, 1},
	{5, 2}, {2, 5}, {5, 1}, {1, 5}, {1, 4}, {1, 3}, {3, 1},
};
/* Of one without P2P. */
static const uint8_t direct[][2] = { { 1, 2 }, { 2, 1 }, { 6, 3 } };

static bool is_single(uint64_t flags, uint32_t from, uint32_t to)
{
	for (unsigned i = 0; i < ARRAY_LEN(single); i++)
		if (single[i][0] == from && single[i][1] == to)
			return true;
	for (unsigned i = 0; i < ARRAY_LEN(direct) && !(flags & 2); i++)
		if (direct[i][0] == from && direct[i][1] == to)
			return true;
	return false;
}

static bool v2_saves(uint32_t s)
{
	return s == 3 || s == 6 || s == 7;
}

static bool v2_has(uint64_t flags, uint32_t s)
{
	return s != 0 && s < 8 &&
	       (s < 5 || (flags & (s == 5   ? 2
				   : s == 6 ? 4
					    : 6)) == (s == 5   ? 2
						      : s == 6 ? 4
							       : 6));
}

static void walk(uint64_t flags, uint32_t from, uint32_t to)
{
	unsigned steps = 0;

	for (uint32_t at = from, hop; at != to; at = hop) {
		hop = fakedev_v2_hop(flags, at, to);
		cr_assert(is_single(flags, at, hop), "%u to %u: %u to %u is no arc", from, to, at,
			  hop);
		cr_assert(hop == to || hop != 4, "through RESUMING");
		cr_assert(hop == to || !v2_saves(hop) || (v2_saves(from) && v2_saves(to)),
			  "%u to %u: a stream begins in between", from, to);
		cr_assert_leq(++steps, 5);
	}
}

/* S3-84..88: all 64 pairs, for every set of flags; only from STOP_COPY is there no way back. */
Test(fakedev_v2, every_pair)
{
	for (uint64_t flags = 1; flags < 8; flags += 2) {
		struct fakedev_config c = { .version = 2, .flags = flags, .idle = true };

		for (uint32_t pair = 0; pair < 81; pair++) {
			uint32_t from = pair / 9, to = pair % 9;
			bool open = v2_has(flags, from) && v2_has(flags, to) &&
				    !(from == 3 && (to == 6 || to == 7));

			if (open)
				walk(flags, from, to);
			else
				cr_assert_eq(fakedev_v2_hop(flags, from, to), 0, "%u to %u", from,
					     to);
			if (from == 4 || !v2_has(flags, from))
				continue;
			fakedev_init(&f, &c);
			f.state = from;
			cr_assert_eq(v2_go(&f, to), open ? 0 : -EINVAL, "%u to %u", from, to);
			cr_assert_eq(v2_state(&f), open ? to : from);
			cr_assert_eq(!fakedev_wrong(&f), open);
			fakedev_deinit(&f);
		}
	}
}

Test(fakedev_v2, features)
{
	struct fakedev_config c = { .version = 2, .flags = 7, .segments = 2 };
	uint64_t word = 0;

	fakedev_init(&f, &c);
	cr_assert_eq(devio_feature_get(&f.dev, 1, &word, 8), 0);
	cr_assert_eq(word, 7);
	cr_assert_eq(devio_feature_get(&f.dev, 1, &word, 4), -EINVAL);
	cr_assert_eq(devio_feature_set(&f.dev, 1, &word, 8), -EINVAL);
	cr_assert_eq(devio_feature_get(&f.dev, 3, &word, 8), -EOPNOTSUPP);
	cr_assert_eq(devio_feature_get(&f.dev, 9, &word, 8), 0);
	cr_assert_eq(word, fakedev_segment_size(&f, 0) + fakedev_segment_size(&f, 1));
	cr_assert_eq(devio_feature_has(&f.dev, 2, DEVIO_GET | DEVIO_SET), 1);
	cr_assert_eq(devio_feature_has(&f.dev, 1, DEVIO_SET), 0);
	cr_assert_eq(devio_feature_has(&f.dev, 6, DEVIO_SET), 0);
	fakedev_deinit(&f);
}

static ssize_t v2_copy(struct fakedev *from, struct fakedev *to)
{
	uint8_t buf[1000];
	ssize_t n;

	while ((n = devio_mig_read(&from->dev, buf, sizeof(buf))) > 0)
		for (ssize_t at = 0; at < n;) {
			ssize_t put = devio_mig_write(&to->dev, buf + at, (size_t)(n - at));

			cr_assert_gt(put, 0);
			at += put;
		}
	return n;
}

/* S3-32, S4-28: what ends now does not end for good; both ways to say so. */
Test(fakedev_v2, round_trip)
{
	for (unsigned kind = 0; kind < 4; kind++) {
		struct fakedev_config c = { .version = 2,
					   .flags = 7,
					   .seed = 5,
					   .segments = 3,
					   .early = 1,
					   .end_is_zero = kind & 1,
					   .chunk = kind & 2 ? 333 : 0};
		struct devio_precopy left;

		fakedev_init(&f, &c);
		c.seed = 6;
		c.idle = true;
		fakedev_init(&g, &c);
		cr_assert_eq(v2_go(&g, 4), 0);
		cr_assert_eq(v2_go(&f, 6), 0);
		cr_assert_eq(devio_mig_precopy(&f.dev, &left), 0);
		cr_assert_eq(left.initial, fakedev_segment_size(&f, 0));
		cr_assert_eq(v2_copy(&f, &g), kind & 1 ? 0 : -ENOMSG);
		cr_assert_eq(v2_go(&f, 3), 0);
		cr_assert_eq(v2_copy(&f, &g), 0);
		cr_assert_eq(devio_mig_precopy(&f.dev, &left), -EINVAL);
		cr_assert_eq(v2_go(&g, 1), 0);
		cr_assert_eq(fakedev_loaded(&g), 5);
		cr_assert_eq(v2_go(&g, 2), 0);
		no_wrong(&f);
		no_wrong(&g);
		fakedev_deinit(&f);
		fakedev_deinit(&g);
	}
}

/* What is not whole does not load, and more may come; wrong directions and ends have their errors.
 */
Test(fakedev_v2, errors_of_streams)
{
	struct fakedev_config c = { .version = 2, .flags = 1, .seed = 5, .segments = 1 };
	uint8_t bytes[FAKEDEV_SEGMENT_MAX];
	size_t len;

	fakedev_init(&f, &c);
	len = fakedev_segment_size(&f, 0);
	fakedev_segment(&f, 0, bytes);
	cr_assert_eq(devio_mig_read(&f.dev, bytes, 1), -ENODEV);
	cr_assert_eq(v2_go(&f, 4), 0);
	cr_assert_eq(devio_mig_read(&f.dev, bytes, 1), -EBADF);
	cr_assert_eq(devio_mig_write(&f.dev, bytes, len - 1), (ssize_t)len - 1);
	cr_assert_eq(v2_go(&f, 2), -EINVAL);
	cr_assert_eq(v2_state(&f), 4);
	cr_assert_eq(devio_mig_write(&f.dev, bytes + len - 1, 1), 1);
	cr_assert_eq(v2_go(&f, 2), 0);
	cr_assert_eq(fakedev_loaded(&f), 5);
	cr_assert_eq(v2_go(&f, 3), 0);
	no_wrong(&f);
	cr_assert_eq(devio_mig_write(&f.dev, bytes, 1), -EBADF);
	cr_assert_eq(v2_go(&f, 2), 0);
	noted(&f, "S3-46");
	fakedev_deinit(&f);
}

/* S3-46: a write that failed is followed by a reset, and by nothing else; a way can end half. */
Test(fakedev_v2, failures)
{
	struct fakedev_config c = { .version = 2, .flags = 3, .segments = 1, .idle = true };

	fakedev_init(&f, &c);
	fakedev_fail(&f, FAKEDEV_ARC, 2, FAKEDEV_FAIL, EIO);
	cr_assert_eq(v2_go(&f, 4), -EIO);
	cr_assert_eq(v2_state(&f), 5);
	cr_assert_eq(v2_go(&f, 4), 0);
	fakedev_fail(&f, FAKEDEV_GIVE, 1, FAKEDEV_FAIL, EFAULT);
	cr_assert_eq(devio_mig_write(&f.dev, "x", 1), -EFAULT);
	no_wrong(&f);
	cr_assert_eq(v2_go(&f, 1), -EINVAL);
	noted(&f, "S3-46");
	cr_assert_eq(devio_reset(&f.dev), 0);
	cr_assert_eq(v2_state(&f), 2);
	fakedev_fail(&f, FAKEDEV_ARC, 1, FAKEDEV_BREAK, EIO);
	cr_assert_eq(v2_go(&f, 5), -EIO);
	cr_assert_eq(v2_state(&f), 0);
	cr_assert_eq(v2_go(&f, 2), -EINVAL);
	noted(&f, "S3-09");
	fakedev_deinit(&f);
}

/* --- several of them --- */

static int v1_go(struct fakedev *d, uint32_t bits)
{
	struct devio_at at = { FAKEDEV_REGION, 4, 0 };

	bits |= UINT32_C(0x40000000);
	return devio_write(&d->dev, &at, &bits, 4);
}

static bool never(void *arg)
{
	(void)arg;
	return false;
}

/* S3-64, F47: all are quiesced before one stops; none runs before its memory is there. */
Test(fakedev_v2, a_group_and_its_gate)
{
	struct fakedev_config c = { .version = 2, .flags = 3 };
	struct fakedev_config one = { .version = 1, .ndma = true };
	struct fakedev_bus bus = { .n = 0 };

	fakedev_init(&f, &c);
	fakedev_init(&g, &one);
	fakedev_join(&f, &bus);
	fakedev_join(&g, &bus);
	cr_assert_eq(v2_go(&f, 5), 0);
	cr_assert_eq(v1_go(&g, 9), 0);
	cr_assert_eq(v2_go(&f, 1), 0);
	cr_assert_eq(v1_go(&g, 0), 0);
	no_wrong(&f);
	no_wrong(&g);
	cr_assert_eq(v1_go(&g, 1), 0);
	noted(&g, "S3-64");
	bus.gate = never;
	cr_assert_eq(v2_go(&f, 5), 0);
	noted(&f, "F47");
	fakedev_deinit(&f);
	fakedev_deinit(&g);
}
