/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The state of a device out of one and into another, over both versions, against a model that
 * watches every access (F25, F29, F34, F36, S3-01, S3-24, S3-29..S3-38, S3-40, S3-43, S3-45).
 */
#include "config.h"

#include "sys/migdev.h"

#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "fakedev.h"

enum { SEGMENTS = 6, EARLY = 2, SEED = 4711, BYTES = 1 << 18 };

/* What was saved, as a container would keep it: segments of their lengths. */
struct saved {
	uint8_t bytes[BYTES];
	size_t len;
	size_t segment[16384];
	unsigned n;
};

static struct fakedev a, b;
static struct saved saved;

static void open_one(struct fakedev *f, struct migdev *m, const struct fakedev_config *c)
{
	fakedev_init(f, c);
	devio_set_limit(&f->dev, UINT64_C(60) * 1000000000);
	cr_assert_eq(migdev_probe(m, &f->dev), 0);
	cr_assert_eq(m->state, VFIOSTATE_RUNNING);
}

static void no_wrong(const struct fakedev *f)
{
	cr_assert_null(fakedev_wrong(f), "%s", fakedev_wrong(f));
}

static void go(struct migdev *m, enum vfiostate to)
{
	while (m->state != (int)to) {
		int hop = vfiostate_hop(&m->caps, (enum vfiostate)m->state, to);

		cr_assert_geq(hop, 0, "no way from %s to %s",
			      vfiostate_name((enum vfiostate)m->state), vfiostate_name(to));
		cr_assert_eq(migdev_set(m, (enum vfiostate)hop), 0);
	}
}

/* Read on until there is nothing, now or for good. */
static int save(struct migdev *m, struct saved *s, size_t room)
{
	for (;;) {
		struct migdev_piece piece;
		int got;

		cr_assert_leq(s->len + room, sizeof(s->bytes));
		got = migdev_save(m, s->bytes + s->len, room, &piece);
		if (got != MIGDEV_PIECE)
			return got;
		cr_assert(piece.len > 0 && piece.len <= room);
		s->len += piece.len;
		s->segment[s->n] += piece.len;
		if (piece.left == 0)
			cr_assert_lt(++s->n, ARRAY_LEN(s->segment));
	}
}

static int load(struct migdev *m, const struct saved *s, size_t room)
{
	size_t at = 0;

	for (unsigned i = 0; i < s->n; i++) {
		int err = migdev_segment(m, s->segment[i]);

		for (size_t left = s->segment[i]; left && !err;) {
			size_t len = left < room ? left : room;

			err = migdev_load(m, s->bytes + at, len);
			at += len;
			left -= len;
		}
		if (err)
			return err;
	}
	return 0;
}

static void save_all(struct migdev *m, const struct fakedev_config *c, size_t room)
{
	memset(&saved, 0, sizeof(saved));
	if (m->caps.precopy) {
		go(m, VFIOSTATE_PRECOPY);
		cr_assert_eq(save(m, &saved, room), MIGDEV_LATER);
		cr_assert(c->early == 0 || saved.n > 0, "nothing came while it ran");
		cr_assert_eq(save(m, &saved, room), MIGDEV_LATER, "S3-32");
	}
	if (m->caps.quiesce && m->caps.precopy) {
		go(m, VFIOSTATE_PRECOPY_QUIESCED);
		cr_assert_eq(save(m, &saved, room), MIGDEV_LATER);
	}
	go(m, VFIOSTATE_STOPCOPY);
	cr_assert_eq(save(m, &saved, room), MIGDEV_END);
	cr_assert_eq(save(m, &saved, room), MIGDEV_END, "S3-30");
	go(m, VFIOSTATE_STOP);
}

/* Out of one, into another, and back to running where it came from. */
static void round_trip(const struct fakedev_config *c, size_t room)
{
	struct fakedev_config other = *c;
	struct migdev from, to;

	other.seed = 0;
	other.idle = true;
	open_one(&a, &from, c);
	open_one(&b, &to, &other);
	save_all(&from, c, room);
	go(&to, VFIOSTATE_RESUMING);
	cr_assert_eq(load(&to, &saved, room), 0);
	go(&to, to.caps.quiesce ? VFIOSTATE_QUIESCED : VFIOSTATE_RUNNING);
	go(&to, VFIOSTATE_RUNNING);
	cr_assert_eq(fakedev_loaded(&b), SEED);
	go(&from, VFIOSTATE_RUNNING);
	no_wrong(&a);
	no_wrong(&b);
	cr_assert_eq(from.n_maps, 0, "S4-20: it is still mapped");
	migdev_deinit(&from);
	migdev_deinit(&to);
	fakedev_deinit(&a);
	fakedev_deinit(&b);
}

static const size_t rooms[] = { 7, 4096, 65536 };

Test(migdev, v1_round_trips, .timeout = 120)
{
	static const uint32_t offsets[] = { 0, 32, 0x1234 };

	for (unsigned i = 0; i < 3 * 3 * 16; i++) {
		const unsigned flags = i / 9;
		struct fakedev_config c = {
			.version = 1, .seed = SEED, .segments = SEGMENTS,
			.window = i % 3, .data_offset = offsets[i / 3 % 3],
			.ndma = flags & 1, .no_bulk = flags & 2, .strict_reserved = flags & 4,
			.early = flags & 8 ? EARLY : 0,
			.arcs = flags & 1 ? FAKEDEV_FULL : FAKEDEV_VFIOUSER,
		};

		for (unsigned r = 0; r < ARRAY_LEN(rooms); r++)
			round_trip(&c, rooms[r]);
	}
}

Test(migdev, v2_round_trips, .timeout = 120)
{
	for (unsigned i = 0; i < 4 * 2 * 2; i++) {
		struct fakedev_config c = {
			.version = 2, .seed = SEED, .segments = SEGMENTS,
			.flags = 1 + 2 * (i % 4), .early = i & 2 ? EARLY : 0,
			.end_is_zero = i & 4, .chunk = i & 8 ? 100 : 0,
		};

		for (unsigned r = 0; r < ARRAY_LEN(rooms); r++)
			round_trip(&c, rooms[r]);
	}
}

/* The next pieces until there are none, asking between any two of them what state it is in. */
static void save_asking(struct migdev *m, int end)
{
	const int state = m->state;
	struct migdev_piece piece;
	int got;

	while ((got = migdev_save(m, saved.bytes + saved.len, 100, &piece)) == MIGDEV_PIECE) {
		cr_assert_eq(migdev_state(m), state);
		saved.len += piece.len;
		saved.segment[saved.n] += piece.len;
		saved.n += piece.left == 0;
	}
	cr_assert_eq(got, end);
}

static const struct fakedev_config versions[] = {
	{ .version = 1, .seed = SEED, .segments = SEGMENTS, .early = EARLY },
	{ .version = 1, .seed = SEED, .segments = SEGMENTS, .early = EARLY,
	  .window = FAKEDEV_MAPPED },
	{ .version = 2, .seed = SEED, .segments = SEGMENTS, .early = EARLY, .flags = 7 },
};

static void two_up(unsigned version, struct migdev *from, struct migdev *to)
{
	const struct fakedev_config *c = &versions[version];
	const struct fakedev_config idle = { .version = c->version, .flags = c->flags,
					     .idle = true };

	memset(&saved, 0, sizeof(saved));
	open_one(&a, from, c);
	open_one(&b, to, &idle);
	go(from, VFIOSTATE_PRECOPY);
}

/* What the second one has, it runs with. */
static void two_down(unsigned version, struct migdev *from, struct migdev *to)
{
	go(to, VFIOSTATE_RUNNING);
	cr_assert_eq(fakedev_loaded(&b), SEED, "version %u", versions[version].version);
	no_wrong(&a);
	no_wrong(&b);
	migdev_deinit(from);
	migdev_deinit(to);
	fakedev_deinit(&a);
	fakedev_deinit(&b);
}

/* S3-04: the state can be read at any time, and no stream is the worse for it. */
Test(migdev, S3_04_asking_disturbs_no_stream)
{
	for (unsigned i = 0; i < ARRAY_LEN(versions); i++) {
		struct migdev from, to;
		size_t at = 0;

		two_up(i, &from, &to);
		save_asking(&from, MIGDEV_LATER);
		go(&from, VFIOSTATE_STOPCOPY);
		save_asking(&from, MIGDEV_END);
		go(&to, VFIOSTATE_RESUMING);
		for (unsigned n = 0; n < saved.n; at += saved.segment[n++]) {
			size_t half = saved.segment[n] / 2, rest = saved.segment[n] - half;

			cr_assert_eq(migdev_segment(&to, saved.segment[n]), 0);
			cr_assert_eq(half ? migdev_load(&to, saved.bytes + at, half) : 0, 0);
			cr_assert_eq(migdev_state(&to), VFIOSTATE_RESUMING);
			cr_assert_eq(migdev_load(&to, saved.bytes + at + half, rest), 0);
		}
		two_down(i, &from, &to);
	}
}

/* S3-31: nobody has to read a device empty before it stops: what is left comes then. */
Test(migdev, S3_31_it_stops_with_more_to_say)
{
	for (unsigned i = 0; i < ARRAY_LEN(versions); i++) {
		struct migdev from, to;

		two_up(i, &from, &to);
		go(&from, VFIOSTATE_STOPCOPY);
		cr_assert_eq(save(&from, &saved, 65536), MIGDEV_END);
		go(&to, VFIOSTATE_RESUMING);
		cr_assert_eq(load(&to, &saved, 65536), 0);
		two_down(i, &from, &to);
	}
}

/* S3-57: what is no arc of a device is not asked of it. */
Test(migdev, asks_for_single_arcs_only)
{
	const struct fakedev_config kinds[] = {
		{ .version = 1 }, { .version = 1, .ndma = true },
		{ .version = 2, .flags = 1 }, { .version = 2, .flags = 7 },
	};

	for (unsigned k = 0; k < ARRAY_LEN(kinds); k++) {
		struct migdev m;

		open_one(&a, &m, &kinds[k]);
		for (unsigned to = 0; to < VFIOSTATES; to++) {
			unsigned before = a.count[FAKEDEV_CHANGE];

			if (vfiostate_hop(&m.caps, VFIOSTATE_RUNNING, to) == (int)to)
				continue;
			cr_assert_eq(migdev_set(&m, to), -EINVAL);
			cr_assert_eq(a.count[FAKEDEV_CHANGE], before);
		}
		no_wrong(&a);
		fakedev_deinit(&a);
	}
}

/* S3-07: a state that it was not brought to is not gone on from: something is broken. */
Test(migdev, S3_07_a_state_that_nobody_set)
{
	const struct fakedev_config c = { .version = 1 };
	struct migdev m;
	unsigned before;

	open_one(&a, &m, &c);
	go(&m, VFIOSTATE_PRECOPY);
	before = a.count[FAKEDEV_CHANGE];
	a.state ^= 1;
	cr_assert_eq(migdev_set(&m, VFIOSTATE_RUNNING), -EIO);
	cr_assert_eq(m.state, VFIOSTATE_STOPCOPY, "and where it is, is known");
	cr_assert_eq(a.count[FAKEDEV_CHANGE], before, "it was asked all the same");
	no_wrong(&a);
	migdev_deinit(&m);
	fakedev_deinit(&a);
}

/* F39: what the device says of its window is not believed where it cannot be. */
Test(migdev, numbers_outside_of_the_region)
{
	static const struct {
		enum fakedev_op op;
		uint64_t lie;
		int err;
	} rows[] = {
		{ FAKEDEV_OFFSET, 0, -EPROTO },
		{ FAKEDEV_OFFSET, 31, -EPROTO },
		{ FAKEDEV_OFFSET, FAKEDEV_SIZE, -EPROTO },
		{ FAKEDEV_OFFSET, UINT64_MAX, -EPROTO },
		{ FAKEDEV_LENGTH, FAKEDEV_SIZE, -EPROTO },
		{ FAKEDEV_LENGTH, UINT64_MAX, -EPROTO },
	};
	const struct fakedev_config c = { .version = 1, .seed = SEED, .segments = SEGMENTS };

	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		struct migdev_piece piece;
		struct migdev m;

		open_one(&a, &m, &c);
		go(&m, VFIOSTATE_STOPCOPY);
		fakedev_fail(&a, rows[i].op, 1, FAKEDEV_LIE, rows[i].lie);
		cr_assert_eq(migdev_save(&m, saved.bytes, BYTES, &piece), rows[i].err, "row %u", i);
		no_wrong(&a);
		migdev_deinit(&m);
		fakedev_deinit(&a);
	}
}

/* S3-38: segments are loaded as they were saved, or not at all; then only a reset helps (S3-48). */
Test(migdev, segments_keep_their_size_and_order)
{
	const struct fakedev_config c = { .version = 1, .seed = SEED, .segments = SEGMENTS };
	const struct fakedev_config idle = { .version = 1, .idle = true };

	for (unsigned wrong = 0; wrong < 3; wrong++) {
		struct migdev from, to;

		open_one(&a, &from, &c);
		open_one(&b, &to, &idle);
		save_all(&from, &c, 4096);
		if (wrong == 0) {	/* the first in two */
			memmove(&saved.segment[1], &saved.segment[0],
				sizeof(saved.segment) - sizeof(saved.segment[0]));
			saved.segment[0] = 16;
			saved.segment[1] -= 16;
			saved.n++;
		} else if (wrong == 1) {	/* too large for any window */
			saved.segment[0] = FAKEDEV_SIZE;
		} else {		/* a byte of the second */
			saved.bytes[saved.segment[0]] ^= 1;
		}
		go(&to, VFIOSTATE_RESUMING);
		if (load(&to, &saved, 4096) == 0)
			cr_assert_lt(migdev_set(&to, VFIOSTATE_RUNNING), 0, "case %u", wrong);
		else
			cr_assert_eq(migdev_set(&to, VFIOSTATE_RUNNING), -EIO);
		cr_assert_eq(fakedev_loaded(&b), 0);
		cr_assert_eq(migdev_reset(&to), 0);
		cr_assert_eq(to.state, VFIOSTATE_RUNNING);
		go(&to, VFIOSTATE_RESUMING);
		migdev_deinit(&to);
		fakedev_deinit(&a);
		fakedev_deinit(&b);
	}
}

/* A segment is taken whole before the stream goes on in another state, or the stream ends. */
Test(migdev, a_segment_is_not_cut)
{
	const struct fakedev_config c = {
		.version = 1, .seed = SEED, .segments = SEGMENTS, .early = EARLY,
	};
	struct migdev_piece piece;
	struct migdev m;

	open_one(&a, &m, &c);
	go(&m, VFIOSTATE_PRECOPY);
	cr_assert_eq(migdev_save(&m, saved.bytes, 8, &piece), MIGDEV_PIECE);
	cr_assert_gt(piece.left, 0);
	cr_assert_eq(migdev_set(&m, VFIOSTATE_STOPCOPY), -EBUSY);
	cr_assert_eq(migdev_save(&m, saved.bytes, BYTES, &piece), MIGDEV_PIECE);
	cr_assert_eq(piece.left, 0);
	cr_assert_eq(migdev_set(&m, VFIOSTATE_STOPCOPY), 0);
	cr_assert_eq(migdev_load(&m, saved.bytes, 1), -EINVAL);
	cr_assert_eq(migdev_segment(&m, 1), -EINVAL);
	go(&m, VFIOSTATE_STOP);
	cr_assert_eq(migdev_save(&m, saved.bytes, BYTES, &piece), -EINVAL);
	no_wrong(&a);
	migdev_deinit(&m);
	fakedev_deinit(&a);
}

Test(migdev, without_migration)
{
	const struct fakedev_config none = { .version = 0 };
	struct migdev m;

	fakedev_init(&a, &none);
	cr_assert_eq(migdev_probe(&m, &a.dev), -EOPNOTSUPP);
	migdev_deinit(&m);
	migdev_deinit(&m);
	no_wrong(&a);
	fakedev_deinit(&a);
}

/* --- failures --- */

static const struct {
	enum fakedev_effect effect;
	uint64_t value;
} effects[] = {
	{ FAKEDEV_FAIL, EIO }, { FAKEDEV_BREAK, EIO }, { FAKEDEV_LATE, EINVAL },
	{ FAKEDEV_SHORT, 1 }, { FAKEDEV_SKIP, 0 }, { FAKEDEV_HANG, 0 }, { FAKEDEV_HANG_DONE, 0 },
	{ FAKEDEV_VANISH, ECONNRESET },
};

/* Saves, loads and runs as long as nothing fails; 0 or the first error. */
static int try_all(struct migdev *from, struct migdev *to, unsigned *step)
{
	static const enum vfiostate out[] = { VFIOSTATE_PRECOPY, VFIOSTATE_STOPCOPY };
	int err = 0;

	memset(&saved, 0, sizeof(saved));
	for (*step = 0; *step < 2 && !err; ++*step) {
		struct migdev_piece p;

		while (from->state != (int)out[*step] && !err)
			err = migdev_set(from, vfiostate_hop(&from->caps, from->state, out[*step]));
		while (!err && (err = migdev_save(from, saved.bytes + saved.len, 4096, &p)) == 1) {
			saved.len += p.len;
			saved.segment[saved.n] += p.len;
			saved.n += p.left == 0;
			err = 0;
		}
		err = err > 0 ? 0 : err;
	}
	while (to->state != VFIOSTATE_RESUMING && !err)
		err = migdev_set(to, vfiostate_hop(&to->caps, to->state, VFIOSTATE_RESUMING));
	if (!err)
		err = load(to, &saved, 4096);
	while (to->state != VFIOSTATE_RUNNING && !err)
		err = migdev_set(to, vfiostate_hop(&to->caps, to->state, VFIOSTATE_RUNNING));
	return err;
}

/* That access fails: an error, or it did not matter; never a bad end that is told as a good one. */
static bool fail_at(const struct fakedev_config *c, bool loading, enum fakedev_op op, unsigned nth,
		    unsigned effect)
{
	struct fakedev_config idle = { .version = c->version, .flags = c->flags, .idle = true };
	struct fakedev *f = loading ? &b : &a;
	unsigned before, step;
	struct migdev from, to;
	int err;

	open_one(&a, &from, c);
	open_one(&b, &to, &idle);
	before = f->count[op];
	fakedev_fail(f, op, nth, effects[effect].effect, effects[effect].value);
	err = try_all(&from, &to, &step);
	no_wrong(&a);
	/* bytes that were taken and are not there: that is not whose fault it looks like */
	if (op != FAKEDEV_GIVE || effects[effect].effect != FAKEDEV_SKIP)
		no_wrong(&b);
	if (!err)
		cr_assert_eq(fakedev_loaded(&b), SEED, "op %d, %u, effect %u: told as well", op,
			     nth, effect);
	if (err && effects[effect].effect != FAKEDEV_VANISH) {
		struct migdev *m = loading ? &to : &from;

		int last = m->state;

		cr_assert(last < 0 || last == migdev_state(m),
			  "op %d, %u, effect %u: it was not read again", op, nth, effect);
		cr_assert_eq(migdev_reset(m), 0);
		cr_assert_eq(m->state, VFIOSTATE_RUNNING);
	}
	before = f->count[op] - before;
	migdev_deinit(&from);
	migdev_deinit(&to);
	fakedev_deinit(&a);
	fakedev_deinit(&b);
	return before >= nth;
}

/* F61, S3-08, S3-39: each access of each kind, each time it is made. */
Test(migdev, every_access_fails_once, .timeout = 120)
{
	static const enum fakedev_op ops[] = {
		FAKEDEV_STATE, FAKEDEV_CHANGE, FAKEDEV_PENDING, FAKEDEV_OFFSET, FAKEDEV_LENGTH,
		FAKEDEV_TAKE, FAKEDEV_GIVE, FAKEDEV_COMMIT, FAKEDEV_MAP, FAKEDEV_ARC,
	};
	const struct fakedev_config kinds[] = {
		{ .version = 1, .seed = SEED, .segments = 3, .early = 1 },
		{ .version = 1, .seed = SEED, .segments = 3, .early = 1, .window = FAKEDEV_MAPPED },
		{ .version = 2, .seed = SEED, .segments = 3, .early = 1, .flags = 7 },
	};
	unsigned tried = 0;

	for (unsigned i = 0; i < ARRAY_LEN(kinds) * ARRAY_LEN(ops) * 2; i++) {
		const struct fakedev_config *c = &kinds[i % 3];
		enum fakedev_op op = ops[i / 6];

		/* mmap(2) does not hang */
		unsigned n = op == FAKEDEV_MAP ? ARRAY_LEN(effects) - 3 : ARRAY_LEN(effects);

		for (unsigned e = 0; e < n; e++)
			for (unsigned nth = 1; fail_at(c, i / 3 % 2, op, nth, e); nth++)
				tried++;
	}
	cr_assert_gt(tried, 300, "%u", tried);
}
