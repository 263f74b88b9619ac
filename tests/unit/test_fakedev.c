/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The model of a device, before anything is tested against it (F66): what it accepts are the states
 * and arcs of the interface (S3-25..27, S3-56, S3-57; every ordered pair), what it gives comes back
 * whole, and whoever drives it wrongly is found.
 */
#include "config.h"

#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "fakedev.h"

static struct fakedev f, g;

static int reg_read(struct fakedev *d, unsigned offset, unsigned width, uint64_t *value)
{
	struct devio_at at = { FAKEDEV_REGION, width, offset };

	*value = 0;
	return devio_read(&d->dev, &at, value, width);
}

static int reg_write(struct fakedev *d, unsigned offset, unsigned width, uint64_t value)
{
	struct devio_at at = { FAKEDEV_REGION, width, offset };

	return devio_write(&d->dev, &at, &value, width);
}

static uint64_t reg(struct fakedev *d, unsigned offset)
{
	uint64_t value;

	cr_assert_eq(reg_read(d, offset, offset ? 8 : 4, &value), 0, "register %u", offset);
	return value;
}

static int v1_go(struct fakedev *d, uint32_t bits)
{
	return reg_write(d, 0, 4, UINT32_C(0x40000000) | bits);
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

/* --- v1: states --- */

/* S3-25..27: the predicate of the text, for all 16 values, with NDMA and without. */
Test(fakedev, v1_valid_values)
{
	unsigned valid = 0;

	for (uint32_t v = 0; v < 16; v++) {
		bool says = !((v & 2) && (v & 4)) && !((v & 4) && (v & 1));

		cr_assert_eq(fakedev_v1_valid(v, true), says, "%u", v);
		cr_assert_eq(fakedev_v1_valid(v, false), says && v < 8, "%u", v);
		valid += says;
	}
	cr_assert_eq(valid, 10);
	cr_assert_not(fakedev_v1_valid(6, true));
}

static void v1_put(struct fakedev *d, const struct fakedev_config *c, uint32_t state)
{
	fakedev_init(d, c);
	d->state = d->reserved | state;
}

/* S3-28, S3-55: a full device takes all 90 ordered pairs, and refuses every other value. */
Test(fakedev, v1_every_pair)
{
	static const struct fakedev_config c = { .version = 1, .ndma = true, .idle = true };
	unsigned taken = 0;

	for (uint32_t from = 0; from < 16; from++) {
		if (!fakedev_v1_valid(from, true))
			continue;
		for (uint32_t to = 0; to < 16; to++) {
			int ret;

			v1_put(&f, &c, from);
			f.s.last = true; /* loading is complete */
			ret = v1_go(&f, to);
			cr_assert_eq(ret, fakedev_v1_valid(to, true) ? 0 : -EINVAL, "%u to %u",
				     from, to);
			cr_assert_eq(reg(&f, 0) & 15, ret ? from : to);
			taken += ret == 0 && from != to;
			fakedev_deinit(&f);
		}
	}
	cr_assert_eq(taken, 90);
}

/* S3-56: what the first text draws are 7 arcs, and 2 to abort. */
Test(fakedev, v1_poorer_devices)
{
	static const struct {
		enum fakedev_arcs arcs;
		unsigned taken;
	} kinds[] = { { FAKEDEV_DIAGRAM, 9 }, { FAKEDEV_VFIOUSER, 11 } };

	for (unsigned i = 0; i < ARRAY_LEN(kinds); i++) {
		struct fakedev_config c = { .version = 1, .arcs = kinds[i].arcs };
		unsigned taken = 0;

		for (uint32_t pair = 0; pair < 25; pair++) {
			v1_put(&f, &c, pair / 5);
			f.s.last = true;
			taken += v1_go(&f, pair % 5) == 0;
			fakedev_deinit(&f);
		}
		cr_assert_eq(taken, kinds[i].taken, "kind %u: %u", i, taken);
	}
}

/* S3-09: any write in ERROR fails, reset leads out, to exactly RUNNING (S3-03). */
Test(fakedev, v1_error_and_reset)
{
	struct fakedev_config c = { .version = 1 };

	v1_put(&f, &c, 6);
	for (uint32_t to = 0; to < 8; to++)
		cr_assert_eq(v1_go(&f, to), -EIO);
	noted(&f, "S3-09");
	cr_assert_eq(devio_reset(&f.dev), 0);
	cr_assert_eq(reg(&f, 0), 0x40000001);
	no_wrong(&f);
	fakedev_deinit(&f);
}

/* S3-01, S3-02, S3-19, S3-24: widths, the reserved field, the reserved bits. */
Test(fakedev, v1_registers)
{
	struct fakedev_config c = { .version = 1 };
	uint64_t value;

	fakedev_init(&f, &c);
	for (unsigned width = 1; width <= 8; width *= 2)
		for (unsigned offset = 0; offset < 32; offset += width) {
			bool legal = (width == 4 && (offset == 0 || offset == 4)) ||
				     (width == 8 && offset == 8);

			cr_assert_eq(reg_read(&f, offset, width, &value), legal ? 0 : -EINVAL,
				     "%u at %u", width, offset);
		}
	noted(&f, "S3-01");
	cr_assert_eq(reg_write(&f, 4, 4, UINT32_MAX), 0);
	cr_assert_eq(reg_read(&f, 4, 4, &value), 0);
	cr_assert_eq(value, 0);
	no_wrong(&f);
	cr_assert_eq(reg_write(&f, 0, 4, 0), 0);
	noted(&f, "S3-24");
	cr_assert_eq(v1_go(&f, 9), -EINVAL);
	noted(&f, "S3-24");
	cr_assert_eq(reg_write(&f, 8, 8, 0), -EINVAL);
	noted(&f, "S3-01");
	fakedev_deinit(&f);
}

/* S3-12: a device that is stopped can be touched without harm to anybody, but who does is found. */
Test(fakedev, S3_12_touched_while_it_is_stopped)
{
	struct fakedev_config c = { .version = 1 };
	struct devio_at bar = { .region = 0, .width = 4 };
	uint32_t value = 0;

	fakedev_init(&f, &c);
	cr_assert_eq(devio_read(&f.dev, &bar, &value, sizeof(value)), 0);
	no_wrong(&f);
	cr_assert_eq(v1_go(&f, 0), 0);
	cr_assert_eq(devio_read(&f.dev, &bar, &value, sizeof(value)), 0);
	cr_assert_eq(value, UINT32_MAX);
	noted(&f, "S3-12");
	fakedev_deinit(&f);
}

/* --- v1: data, by a driver that does nothing but what the text says --- */

struct v1_driver {
	struct fakedev *dev;
	struct vfiocaps_region r;
	struct devio_map map[VFIOCAPS_AREAS];
};

static void v1_open(struct v1_driver *d, struct fakedev *dev)
{
	*d = (struct v1_driver){ .dev = dev };
	cr_assert_eq(devio_region(&dev->dev, FAKEDEV_REGION, &d->r), 0);
	cr_assert(vfiocaps_is_migration(&d->r));
	cr_assert_eq(d->r.ndma, dev->c.ndma);
	for (unsigned i = 0; i < d->r.n_areas; i++)
		cr_assert_eq(devio_map(&dev->dev, &d->r, d->r.areas[i].offset, d->r.areas[i].size,
				       &d->map[i]),
			     0);
}

static void v1_close(struct v1_driver *d)
{
	for (unsigned i = 0; i < d->r.n_areas; i++)
		devio_unmap(&d->map[i]);
}

/* One byte of the window, by the way that leads there. */
static void v1_byte(struct v1_driver *d, uint64_t at, uint8_t *byte, bool write)
{
	struct devio_at where = { FAKEDEV_REGION, 0, at };

	for (unsigned i = 0; i < d->r.n_areas; i++) {
		if (!range_inside(at, 1, d->r.areas[i].offset + d->r.areas[i].size) ||
		    at < d->r.areas[i].offset)
			continue;
		if (write)
			d->map[i].base[at - d->r.areas[i].offset] = *byte;
		else
			*byte = d->map[i].base[at - d->r.areas[i].offset];
		return;
	}
	cr_assert_eq(write ? devio_write(&d->dev->dev, &where, byte, 1)
			   : devio_read(&d->dev->dev, &where, byte, 1),
		     0);
}

static unsigned v1_copy(struct v1_driver *from, struct v1_driver *to)
{
	unsigned segments = 0;

	while (reg(from->dev, 8)) {
		uint64_t at = reg(from->dev, 16), len = reg(from->dev, 24),
			 there = reg(to->dev, 16);

		for (uint64_t i = 0; i < len; i++) {
			uint8_t byte;

			v1_byte(from, at + i, &byte, false);
			v1_byte(to, there + i, &byte, true);
		}
		cr_assert_eq(reg_write(to->dev, 24, 8, len), 0);
		segments++;
	}
	return segments;
}

/* S3-33, S3-35..38, S3-40, S3-41: all kinds of windows, with pre-copy and without. */
Test(fakedev, v1_round_trip)
{
	for (unsigned kind = 0; kind < 12; kind++) {
		struct fakedev_config c = { .version = 1,
					   .seed = 7 + kind,
					   .segments = 3,
					   .early = kind % 3,
					   .ndma = kind & 1,
					   .no_bulk = kind & 2,
					   .window = kind % 3,
					   .data_offset = kind == 0 ? 36 : 0};
		struct v1_driver a, b;

		fakedev_init(&f, &c);
		c.seed = 99;
		fakedev_init(&g, &c);
		v1_open(&a, &f);
		v1_open(&b, &g);
		cr_assert_eq(v1_go(&g, 4), 0);
		cr_assert_eq(v1_go(&f, 3), 0);
		cr_assert_eq(v1_copy(&a, &b), c.early);
		cr_assert_eq(v1_go(&f, 2), 0);
		cr_assert_eq(v1_copy(&a, &b), 3 - c.early);
		cr_assert_eq(v1_go(&f, 0), 0);
		cr_assert_eq(v1_go(&g, 1), 0);
		cr_assert_eq(fakedev_loaded(&g), 7 + kind);
		no_wrong(&f);
		no_wrong(&g);
		v1_close(&a);
		v1_close(&b);
		fakedev_deinit(&f);
		fakedev_deinit(&g);
	}
}

/* S3-35, S3-37: every step out of its order is found. */
Test(fakedev, v1_orders)
{
	struct fakedev_config c = { .version = 1, .segments = 2, .early = 1 };
	struct devio_at window = { FAKEDEV_REGION, 1, 0x1000 };
	uint64_t value;
	uint8_t byte;

	fakedev_init(&f, &c);
	cr_assert_eq(reg_read(&f, 16, 8, &value), -EINVAL);
	noted(&f, "S3-35");
	cr_assert_eq(v1_go(&f, 3), 0);
	cr_assert_eq(reg_read(&f, 16, 8, &value), -EINVAL, "pending was not read");
	noted(&f, "S3-35");
	cr_assert_eq(reg_read(&f, 24, 8, &value), 0);
	cr_assert_eq(value, 0, "the size is of an older segment");
	noted(&f, "S3-35");
	reg(&f, 8), reg(&f, 16);
	cr_assert_eq(devio_read(&f.dev, &window, &byte, 1), -EINVAL, "its size is not known yet");
	noted(&f, "S3-35");
	window.offset += reg(&f, 24);
	cr_assert_eq(devio_read(&f.dev, &window, &byte, 1), -EINVAL, "behind its end");
	noted(&f, "S3-49b");
	cr_assert_eq(reg(&f, 16), 0x1000, "S3-36: again");
	no_wrong(&f);
	cr_assert_eq(v1_go(&f, 2), 0);
	noted(&f, "S3-35");
	reg(&f, 8);
	noted(&f, "S3-35");
	cr_assert_eq(v1_go(&f, 3), 0);
	noted(&f, "S3-57");
	cr_assert_eq(reg_write(&f, 24, 8, 100), -EINVAL);
	noted(&f, "S3-37");
	fakedev_deinit(&f);
}

/* S3-18, S3-38: segments that are cut, swapped, merged or missing do not load. */
Test(fakedev, v1_bad_data)
{
	static const char *const orders[] = { "0", "1", "01x", "10", "00", "011", "0m" };

	for (unsigned i = 0; i < ARRAY_LEN(orders) * 2; i++) {
		struct fakedev_config c = {
			.version = 1, .seed = 3, .segments = 2, .error_at_exit = i % 2};
		struct devio_at window = { FAKEDEV_REGION, 0, 0x1000 };
		uint8_t bytes[2 * FAKEDEV_SEGMENT_MAX];

		fakedev_init(&f, &c);
		cr_assert_eq(v1_go(&f, 4), 0);
		for (const char *s = orders[i / 2]; *s; s++) {
			unsigned n = *s == '0' ? 0 : 1;
			size_t len = fakedev_segment_size(&f, n) - (*s == 'm');

			if (*s == 'x')
				continue;
			fakedev_segment(&f, n, bytes);
			bytes[len - 1] ^= s[1] == 'x';
			reg(&f, 16);
			cr_assert_eq(devio_write(&f.dev, &window, bytes, len), 0);
			cr_assert_eq(reg_write(&f, 24, 8, len), 0);
		}
		cr_assert_eq(v1_go(&f, 1), -EINVAL, "order %s", orders[i / 2]);
		cr_assert_eq(reg(&f, 0) & 15, i % 2 ? 6 : 4);
		cr_assert_eq(fakedev_loaded(&f), 0);
		no_wrong(&f);
		fakedev_deinit(&f);
	}
}

/* --- faults --- */

/* S3-08: after an error the state is read again, whatever it was. */
Test(fakedev, faults_do_what_they_say)
{
	struct fakedev_config c = { .version = 1, .segments = 1 };
	uint64_t value;

	fakedev_init(&f, &c);
	fakedev_fail(&f, FAKEDEV_CHANGE, 2, FAKEDEV_FAIL, EBUSY);
	fakedev_fail(&f, FAKEDEV_CHANGE, 3, FAKEDEV_LATE, EIO);
	fakedev_fail(&f, FAKEDEV_CHANGE, 4, FAKEDEV_HANG, 0);
	fakedev_fail(&f, FAKEDEV_CHANGE, 5, FAKEDEV_SKIP, 0);
	fakedev_fail(&f, FAKEDEV_CHANGE, 6, FAKEDEV_BREAK, EIO);
	cr_assert_eq(v1_go(&f, 3), 0);
	cr_assert_eq(v1_go(&f, 1), -EBUSY);
	cr_assert_eq(reg(&f, 0) & 15, 3);
	no_wrong(&f);
	cr_assert_eq(v1_go(&f, 1), -EIO, "although it was done");
	cr_assert_eq(reg(&f, 0) & 15, 1);
	cr_assert_eq(v1_go(&f, 3), -ETIMEDOUT);
	cr_assert_eq(v1_go(&f, 3), 0);
	noted(&f, "S3-08");
	cr_assert_eq(reg(&f, 0) & 15, 1, "it lied");
	cr_assert_eq(v1_go(&f, 2), -EIO);
	cr_assert_eq(reg(&f, 0) & 15, 6);
	fakedev_fail(&f, FAKEDEV_STATE, 1, FAKEDEV_SHORT, 2);
	cr_assert_eq(reg_read(&f, 0, 4, &value), -EIO);
	fakedev_fail(&f, FAKEDEV_STATE, 1, FAKEDEV_LIE, 5);
	cr_assert_eq(reg(&f, 0), 5);
	fakedev_fail(&f, FAKEDEV_RESET, 1, FAKEDEV_VANISH, ECONNRESET);
	cr_assert_eq(devio_reset(&f.dev), -ECONNRESET);
	cr_assert_eq(reg_read(&f, 0, 4, &value), -ECONNRESET);
	cr_assert_str_eq(f.trace,
			 "change state change state change state change state reset state");
	fakedev_deinit(&f);
}
