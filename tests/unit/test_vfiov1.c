/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The register of VFIO's first version: every value, every write, every failure of a write (F26,
 * F27, S3-06, S3-16, S3-19, S3-22, S3-24..27, S3-50..55).
 */
#include "config.h"

#include "core/vfiov1.h"

#include <errno.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "lib/rng.h"

enum { RUN = 1, SAV = 2, RES = 4, NDMA = 8, VALUES = 16 };
enum { NONE = -EPROTO };

/* What the text says of each value, with the capability NDMA and without. */
static const struct {
	bool valid, valid_ndma;
	int state, state_ndma;
} values[VALUES] = {
	[0] = { true, true, VFIOSTATE_STOP, VFIOSTATE_STOP },
	[1] = { true, true, VFIOSTATE_RUNNING, VFIOSTATE_RUNNING },
	[2] = { true, true, VFIOSTATE_STOPCOPY, VFIOSTATE_STOPCOPY },
	[3] = { true, true, VFIOSTATE_PRECOPY, VFIOSTATE_PRECOPY },
	[4] = { true, true, VFIOSTATE_RESUMING, VFIOSTATE_RESUMING },
	[5] = { false, false, NONE, NONE },
	[6] = { false, false, VFIOSTATE_ERROR, VFIOSTATE_ERROR },
	[7] = { false, false, NONE, NONE },
	[8] = { true, true, VFIOSTATE_STOP, VFIOSTATE_STOP },
	[9] = { true, true, VFIOSTATE_RUNNING, VFIOSTATE_QUIESCED },
	[10] = { true, true, VFIOSTATE_STOPCOPY, VFIOSTATE_STOPCOPY },
	[11] = { true, true, VFIOSTATE_PRECOPY, VFIOSTATE_PRECOPY_QUIESCED },
	[12] = { true, true, VFIOSTATE_RESUMING, VFIOSTATE_RESUMING },
	[13] = { false, false, NONE, NONE },
	[14] = { false, false, VFIOSTATE_ERROR, NONE }, /* bit 3 is reserved without NDMA */
	[15] = { false, false, NONE, NONE },
};

Test(vfiov1, every_value)
{
	unsigned valid = 0;

	cr_assert_eq(vfiov1_mask(false), 7);
	cr_assert_eq(vfiov1_mask(true), 15);
	for (uint32_t v = 0; v < VALUES; v++) {
		/* reserved bits mean nothing */
		uint32_t full = v | 0xabcdef0u;

		cr_assert_eq(vfiov1_valid(full, false), values[v].valid, "%u", v);
		cr_assert_eq(vfiov1_valid(full, true), values[v].valid_ndma, "%u", v);
		cr_assert_eq(vfiov1_decode(full, false), values[v].state, "%u", v);
		cr_assert_eq(vfiov1_decode(full, true), values[v].state_ndma, "%u", v);
		cr_assert_eq(vfiov1_is_error(full, true), v == 6);
		cr_assert_eq(vfiov1_is_error(full, false), v == 6 || v == 14);
		valid += vfiov1_valid(v, true);
	}
	cr_assert_eq(valid, 10);
}

/* S3-27: what the first header said, and what it was to say: they differ in nothing. */
Test(vfiov1, both_wordings_of_valid)
{
	for (uint32_t v = 0; v < 8; v++) {
		bool first = !(v & RES) || v == RES;
		bool second = !((v & SAV) && (v & RES)) && !((v & RES) && (v & RUN));

		cr_assert_eq(first, second);
		cr_assert_eq(vfiov1_valid(v, false), second);
	}
}

Test(vfiov1, writes_keep_reserved_bits)
{
	static const int bits[VFIOSTATES] = {
		[VFIOSTATE_RUNNING] = 1, [VFIOSTATE_PRECOPY] = 3,
		[VFIOSTATE_QUIESCED] = 9, [VFIOSTATE_PRECOPY_QUIESCED] = 11,
		[VFIOSTATE_STOP] = 0, [VFIOSTATE_STOPCOPY] = 2,
		[VFIOSTATE_RESUMING] = 4, [VFIOSTATE_ERROR] = -1,
	};
	struct rng rng = { .state = rng_seed() };

	for (unsigned i = 0; i < 100000; i++) {
		enum vfiostate to = (enum vfiostate)rng_below(&rng, VFIOSTATES);
		uint32_t was = (uint32_t)rng_next(&rng), value = 0x5a5a5a5a;
		bool ndma = rng_percent(&rng, 50);
		uint32_t mask = ndma ? 15 : 7;

		if (bits[to] < 0 || (uint32_t)bits[to] & ~mask) {
			cr_assert_eq(vfiov1_encode(to, ndma, was, &value), -EINVAL);
			cr_assert_eq(value, 0x5a5a5a5a);
			continue;
		}
		cr_assert_eq(vfiov1_encode(to, ndma, was, &value), 0);
		cr_assert_eq(value & mask, (uint32_t)bits[to]);
		cr_assert_eq(value & ~mask, was & ~mask);
		cr_assert_eq(vfiov1_decode(value, ndma), (int)to);
	}
}

/* --- ways of several bits --- */

static bool is_valid(uint32_t v)
{
	return v < VALUES && values[v].valid_ndma;
}

static bool transfers(uint32_t v)
{
	return (v & RUN) && !(v & NDMA);
}

static bool one_bit(uint32_t a, uint32_t b)
{
	return __builtin_popcount(a ^ b) == 1;
}

/* Stop-copy to pre-copy, which few devices can do. */
static bool disputed(uint32_t a, uint32_t b)
{
	return one_bit(a, b) && (a & SAV) && (b & SAV) && !(a & RUN) && (b & RUN);
}

/* What a set of ways is counted by. */
struct tally {
	unsigned pairs, invalid, leaks, disputed;
};

static void count(struct tally *t, uint32_t from, uint32_t to, const struct vfiov1_path *path)
{
	bool leak = false, bad = false, dispute = false;
	uint32_t at = from;

	for (unsigned i = 0; i < path->n; i++) {
		cr_assert(one_bit(at, path->step[i]), "%u to %u", from, to);
		dispute |= disputed(at, path->step[i]);
		at = path->step[i];
		bad |= !is_valid(at);
		leak |= transfers(at) && !transfers(from) && !transfers(to);
	}
	cr_assert_eq(at, to);
	cr_assert_eq(path->n, (unsigned)__builtin_popcount(from ^ to), "%u to %u: a detour", from,
		     to);
	t->pairs++;
	t->invalid += bad;
	t->leaks += leak;
	t->disputed += dispute && !disputed(from, to);
}

typedef void expand(uint32_t from, uint32_t to, struct vfiov1_path *path);

static struct tally tally_of(expand *how)
{
	struct tally t = { 0 };

	for (uint32_t from = 0; from < VALUES; from++)
		for (uint32_t to = 0; to < VALUES; to++) {
			struct vfiov1_path path;

			if (from == to || !is_valid(from) || !is_valid(to))
				continue;
			how(from, to, &path);
			count(&t, from, to, &path);
		}
	return t;
}

static void zero_first(uint32_t from, uint32_t to, struct vfiov1_path *path)
{
	vfiov1_expand(from, to, VFIOV1_ZERO_FIRST, path);
}

static void run_first(uint32_t from, uint32_t to, struct vfiov1_path *path)
{
	vfiov1_expand(from, to, VFIOV1_RUN_FIRST, path);
}

/* NDMA where it must not stand: the count has to find that. */
static void ndma_outermost(uint32_t from, uint32_t to, struct vfiov1_path *path)
{
	static const uint32_t clear[] = { NDMA, RUN, SAV, RES }, set[] = { RES, SAV, RUN, NDMA };

	path->n = 0;
	for (unsigned i = 0; i < ARRAY_LEN(clear); i++)
		if (from & ~to & clear[i])
			path->step[path->n++] = from &= ~clear[i];
	for (unsigned i = 0; i < ARRAY_LEN(set); i++)
		if (to & ~from & set[i])
			path->step[path->n++] = from |= set[i];
}

Test(vfiov1, all_ninety_pairs_of_both_orders)
{
	struct tally t = tally_of(zero_first);

	cr_assert_eq(t.pairs, 90);
	cr_assert_eq(t.invalid, 0);
	cr_assert_eq(t.leaks, 0, "S3-55");
	cr_assert_eq(t.disputed, 10, "S3-54: %u", t.disputed);
	t = tally_of(run_first);
	cr_assert_eq(t.pairs, 90);
	cr_assert_eq(t.invalid, 0);
	cr_assert_eq(t.leaks, 0, "S3-55");
	cr_assert_eq(t.disputed, 2, "S3-54: %u", t.disputed);
	t = tally_of(ndma_outermost);
	cr_assert_eq(t.leaks, 12, "the count sees no leaks");
}

/* S3-50, S3-52: without NDMA, the changes of several bits and the ways they take, by hand. */
Test(vfiov1, changes_of_several_bits)
{
	static const struct {
		uint32_t from, to;
		struct vfiov1_path zero_first, run_first;
	} rows[] = {
		{ 0, 3, { 2, { 2, 3 } }, { 2, { 1, 3 } } },
		{ 1, 2, { 2, { 0, 2 } }, { 2, { 0, 2 } } },
		{ 1, 4, { 2, { 0, 4 } }, { 2, { 0, 4 } } },
		{ 2, 1, { 2, { 0, 1 } }, { 2, { 0, 1 } } },
		{ 2, 4, { 2, { 0, 4 } }, { 2, { 0, 4 } } },
		{ 3, 0, { 2, { 2, 0 } }, { 2, { 2, 0 } } },
		{ 3, 4, { 3, { 2, 0, 4 } }, { 3, { 2, 0, 4 } } },
		{ 4, 1, { 2, { 0, 1 } }, { 2, { 0, 1 } } },
		{ 4, 2, { 2, { 0, 2 } }, { 2, { 0, 2 } } },
		{ 4, 3, { 3, { 0, 2, 3 } }, { 3, { 0, 1, 3 } } },
	};
	unsigned several = 0;

	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		struct vfiov1_path zero, run;

		vfiov1_expand(rows[i].from, rows[i].to, VFIOV1_ZERO_FIRST, &zero);
		vfiov1_expand(rows[i].from, rows[i].to, VFIOV1_RUN_FIRST, &run);
		cr_assert_eq(zero.n, rows[i].zero_first.n);
		cr_assert_eq(run.n, rows[i].run_first.n);
		for (unsigned s = 0; s < zero.n; s++) {
			cr_assert_eq(zero.step[s], rows[i].zero_first.step[s], "row %u", i);
			cr_assert_eq(run.step[s], rows[i].run_first.step[s], "row %u", i);
		}
	}
	for (uint32_t from = 0; from < 5; from++)
		for (uint32_t to = 0; to < 5; to++)
			several += __builtin_popcount(from ^ to) > 1;
	cr_assert_eq(several, ARRAY_LEN(rows), "the list is not whole");
}

/* --- a device that takes writes --- */

static void write_once(uint32_t now, uint32_t to, bool ndma)
{
	struct vfiov1_change c = { .now = 77 };
	bool ok = is_valid(now) && is_valid(to) && (ndma || to < 8);

	cr_assert_eq(vfiov1_begin(&c, now, to, ndma, VFIOV1_ZERO_FIRST), ok ? 0 : -EINVAL,
		     "%u to %u", now, to);
	cr_assert_eq(c.now, ok ? now : 77);
}

Test(vfiov1, every_write_in_every_state)
{
	for (uint32_t now = 0; now < VALUES; now++)
		for (uint32_t to = 0; to < 2 * VALUES; to++) {
			write_once(now, to, true);
			if (now < 8)
				write_once(now, to, false);
		}
}

/* A device made of bits that are on or off, which fails when it is told to. */
struct bits {
	uint32_t on;
	unsigned steps, fail_at, fail_again;	/* counted from 1; 0: never */
	bool leaked;
};

static void play(struct bits *b, struct vfiov1_change *c, uint32_t ends)
{
	uint32_t step;

	while (vfiov1_next(c, &step)) {
		cr_assert(one_bit(b->on, step), "two bits at once");
		cr_assert(is_valid(step));
		b->steps++;
		if (b->steps == b->fail_at || b->steps == b->fail_again) {
			vfiov1_went(c, -ENXIO);
			continue;
		}
		b->on = step;
		b->leaked |= transfers(step) && !(ends & 1);
		vfiov1_went(c, 0);
	}
}

/* One write that fails at one step, and perhaps once more on its way back. */
static void fail_once(uint32_t from, uint32_t to, enum vfiov1_order order, struct bits b)
{
	uint32_t ends = transfers(from) || transfers(to);
	struct vfiov1_change c;

	b.on = from;
	cr_assert_eq(vfiov1_begin(&c, from, to, true, order), 0);
	play(&b, &c, ends);
	cr_assert_not(b.leaked, "%u to %u let transfers through", from, to);
	if (b.steps < b.fail_at || b.fail_at == 0) {
		cr_assert_eq(c.now, to);
		cr_assert_eq(c.error, 0);
		cr_assert_eq(b.on, to);
	} else if (b.steps < b.fail_again || b.fail_again == 0) {
		cr_assert_eq(c.now, from, "not as it was");
		cr_assert_eq(c.error, -EIO);
		cr_assert_eq(b.on, from, "%u to %u left something behind", from, to);
	} else {
		cr_assert_eq(c.now, VFIOV1_ERROR);
		cr_assert_eq(c.error, -ENXIO);
	}
}

/* S3-53, S3-55, F27: a failure at each step, and one at each step of the way back. */
Test(vfiov1, every_failure_of_every_change)
{
	for (unsigned i = 0; i < VALUES * VALUES * VFIOV1_ORDERS; i++) {
		uint32_t from = i % VALUES, to = i / VALUES % VALUES;
		enum vfiov1_order order = i / VALUES / VALUES;

		if (!is_valid(from) || !is_valid(to))
			continue;
		for (unsigned at = 0; at <= VFIOV1_STEPS; at++) {
			fail_once(from, to, order, (struct bits){ .fail_at = at });
			for (unsigned more = 1; at && more <= VFIOV1_STEPS; more++)
				fail_once(from, to, order,
					  (struct bits){ .fail_at = at, .fail_again = at + more });
		}
	}
}
