/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Ways to keep a device from writing: for every device that there can be, and however each way goes
 * (F50, S0-19, S0-20, S0-21, S0-25, S0-26, S3-63, S3-81).
 */
#include "config.h"

#include "core/ladder.h"

#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"

#define BIT(r) (1u << (r))

/* S0-19: a device that refuses the first k methods; one that has them all. */
Test(ladder, from_the_kindest_to_the_last)
{
	static const enum ladder_rung all[] = {
		LADDER_V2, LADDER_SUSPEND, LADDER_BUS_MASTER, LADDER_RESET, LADDER_DETACH,
	};
	const struct ladder_facts facts = {
		.v2 = true, .suspends = true, .set_known = true, .resets = true,
		.survives_reset = true, .enforced = true, .detaches = true, .mandatory = true,
	};

	for (unsigned k = 0; k <= ARRAY_LEN(all); k++) {
		enum ladder_rung rung;
		struct ladder l;

		ladder_init(&l, &facts);
		for (unsigned i = 0; i < k; i++) {
			cr_assert(ladder_next(&l, &rung));
			cr_assert_eq(rung, all[i], "%s", ladder_rung_name(rung));
			ladder_went(&l, rung, LADDER_FAILED);
		}
		cr_assert(ladder_next(&l, &rung));
		cr_assert_eq(rung, k < ARRAY_LEN(all) ? all[k] : LADDER_REFUSE);
		cr_assert_eq(l.n, k, "not all of it is logged");
		for (unsigned i = 0; i < k; i++)
			cr_assert_eq(l.log[i].rung, all[i]);
	}
}

/* S3-63: a reset leaves a device running, so what stops it is tried again. */
Test(ladder, a_reset_is_followed_by_a_checked_stop)
{
	const struct ladder_facts facts = {
		.v2 = true, .resets = true, .survives_reset = true, .mandatory = true,
	};
	enum ladder_rung rung;
	struct ladder l;

	ladder_init(&l, &facts);
	ladder_went(&l, LADDER_V2, LADDER_FAILED);
	cr_assert(ladder_next(&l, &rung));
	cr_assert_eq(rung, LADDER_RESET);
	cr_assert_not_null(ladder_skipped(&l, LADDER_BUS_MASTER), "S0-20");
	ladder_went(&l, rung, LADDER_DONE);
	cr_assert(ladder_next(&l, &rung));
	cr_assert_eq(rung, LADDER_V2);
	cr_assert_not(ladder_keeps_state(&l));
	ladder_went(&l, rung, LADDER_FAILED);
	cr_assert(ladder_next(&l, &rung));
	cr_assert_eq(rung, LADDER_BUS_MASTER, "a device that was reset has no pages");
	ladder_went(&l, rung, LADDER_STANDS);
	cr_assert_not(ladder_next(&l, &rung));
}

static struct ladder_facts facts_of(unsigned bits)
{
	return (struct ladder_facts){
		.v2 = bits & 1, .v1 = bits & 2, .suspends = bits & 4, .set_known = bits & 8,
		.resets = bits & 16, .survives_reset = bits & 32, .enforced = bits & 64,
		.detaches = bits & 128, .mandatory = bits & 256,
	};
}

/* May this be tried, with what was done before? */
static bool may(const struct ladder *l, enum ladder_rung rung)
{
	const struct ladder_facts *f = &l->facts;
	bool reset = l->done & BIT(LADDER_RESET);

	switch (rung) {
	case LADDER_V2:
		return f->v2;
	case LADDER_V1:
		return f->v1 && !f->v2;
	case LADDER_SUSPEND:
		return f->suspends && !reset;
	case LADDER_BUS_MASTER:
		return f->set_known || reset;
	case LADDER_RESET:
		return f->mandatory && f->resets && f->survives_reset;
	case LADDER_IOMMU:
		return f->mandatory && f->enforced && (reset || l->done & BIT(LADDER_BUS_MASTER));
	default:
		return f->detaches;
	}
}

static unsigned times(const struct ladder *l, enum ladder_rung rung)
{
	unsigned n = 0;

	for (unsigned i = 0; i < l->n; i++)
		n += l->log[i].rung == rung;
	return n;
}

/* At its end everything that could be tried was, or it stands still. */
static void check_end(const struct ladder *l)
{
	bool harsh = false;

	for (unsigned i = 0; i < l->n; i++)
		harsh |= l->log[i].rung > LADDER_SUSPEND &&
			 (l->log[i].result != LADDER_FAILED || l->log[i].rung == LADDER_RESET);
	cr_assert_eq(ladder_keeps_state(l), !harsh);
	for (unsigned r = 0; r < LADDER_REFUSE && !l->stands; r++) {
		cr_assert_eq(ladder_skipped(l, r) == NULL, may(l, r));
		cr_assert(!may(l, r) || times(l, r) > 0, "%s was not tried", ladder_rung_name(r));
	}
}

/* The ladder from here on, for every result of every rung.  How many ends there are. */
static unsigned long climb(const struct ladder *from)
{
	unsigned long ends = 0;
	enum ladder_rung rung;

	if (!ladder_next(from, &rung) || rung == LADDER_REFUSE) {
		check_end(from);
		return 1;
	}
	cr_assert(may(from, rung), "%s was tried", ladder_rung_name(rung));
	cr_assert_lt(times(from, rung), 2);
	for (unsigned result = LADDER_FAILED; result <= LADDER_STANDS; result++) {
		struct ladder l = *from;

		if (rung == LADDER_RESET && result == LADDER_STANDS)
			continue;
		ladder_went(&l, rung, result);
		cr_assert_eq(l.stands, result == LADDER_STANDS);
		ends += climb(&l);
	}
	return ends;
}

Test(ladder, every_device_and_every_result, .timeout = 120)
{
	unsigned long ends = 0;

	for (unsigned bits = 0; bits < 512; bits++) {
		const struct ladder_facts facts = facts_of(bits);
		struct ladder l;

		ladder_init(&l, &facts);
		ends += climb(&l);
	}
	cr_assert_gt(ends, 5000, "%lu", ends);
	cr_assert_str_eq(ladder_rung_name(LADDER_RUNGS), "?");
}
