/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The states of VFIO's second version against its table, written down once more for each set of
 * flags that a device can have: all 56 pairs (F28, S3-84, S3-87, S3-88).
 */
#include "config.h"

#include "core/vfiov2.h"

#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"

enum { NUMBERS = 8 };

/* as the interface numbers them */
static const char *const names[NUMBERS] = { "ERROR", "STOP",  "RUN", "SCOPY",
					    "RESUM", "RUN2P", "PRE", "PRE2P" };

/*
 * Row: from; column: to, both in the order of the numbers.  '-' is there already, 'E' refused from
 * ERROR, '!' invalid, else the number of the next state.
 */
static const struct {
	uint64_t flags;
	const char *row[NUMBERS];
} tables[] = {
	{ VFIOV2_STOP_COPY,
	  { "EEEEEEEE",
	    "!-234!!!", "!1-11!!!", "!11-1!!!", "!111-!!!",
	    "!!!!!!!!", "!!!!!!!!", "!!!!!!!!" } },
	{ VFIOV2_STOP_COPY | VFIOV2_P2P,
	  { "EEEEEEEE",
	    "!-5345!!", "!5-555!!", "!11-11!!", "!111-1!!",
	    "!1211-!!", "!!!!!!!!", "!!!!!!!!" } },
	{ VFIOV2_STOP_COPY | VFIOV2_PRE_COPY,
	  { "EEEEEEEE",
	    "!-234!2!", "!1-11!6!", "!11-1!!!", "!111-!1!",
	    "!!!!!!!!", "!2232!-!", "!!!!!!!!" } },
	{ VFIOV2_STOP_COPY | VFIOV2_P2P | VFIOV2_PRE_COPY,
	  { "EEEEEEEE",
	    "!-534555", "!5-55565", "!11-11!!", "!111-111",
	    "!1211-27", "!22722-7", "!553556-" } },
};

static int expected(char c)
{
	switch (c) {
	case '-':
		return -EALREADY;
	case '!':
		return -EINVAL;
	case 'E':
		return -EIO;
	default:
		return c - '0';
	}
}

static enum vfiostate state_of(uint32_t number)
{
	struct vfiostate_caps all;
	int state;

	cr_assert_eq(vfiov2_caps(VFIOV2_STOP_COPY | VFIOV2_P2P | VFIOV2_PRE_COPY, &all), 0);
	state = vfiov2_decode(number, &all);
	cr_assert_geq(state, 0);
	return (enum vfiostate)state;
}

static void one_pair(const struct vfiostate_caps *caps, const char *row, uint32_t from, uint32_t to)
{
	int got = vfiostate_hop(caps, state_of(from), state_of(to));

	if (got >= 0)
		got = (int)vfiov2_encode((enum vfiostate)got);
	cr_assert_eq(got, expected(row[to]), "p2p %d, precopy %d, %s to %s: %d", caps->quiesce,
		     caps->precopy, names[from], names[to], got);
}

Test(vfiov2, all_pairs_for_every_set_of_flags)
{
	unsigned pairs = 0;

	for (unsigned t = 0; t < ARRAY_LEN(tables); t++) {
		struct vfiostate_caps caps;

		cr_assert_eq(vfiov2_caps(tables[t].flags, &caps), 0);
		for (unsigned i = 0; i < NUMBERS * NUMBERS; i++) {
			one_pair(&caps, tables[t].row[i / NUMBERS], i / NUMBERS, i % NUMBERS);
			pairs += i / NUMBERS != i % NUMBERS;
		}
	}
	cr_assert_eq(pairs, 4 * 56);
}

Test(vfiov2, what_the_flags_say)
{
	struct vfiostate_caps caps = { .v2 = false };

	cr_assert_eq(vfiov2_caps(0, &caps), -EOPNOTSUPP);
	cr_assert_eq(vfiov2_caps(VFIOV2_P2P | VFIOV2_PRE_COPY, &caps), -EOPNOTSUPP);
	cr_assert_not(caps.v2);
	cr_assert_eq(vfiov2_caps(VFIOV2_STOP_COPY | UINT64_C(1) << 40, &caps), 0);
	cr_assert(caps.v2 && !caps.quiesce && !caps.precopy);
	cr_assert_eq(vfiov2_caps(VFIOV2_STOP_COPY | VFIOV2_P2P, &caps), 0);
	cr_assert(caps.v2 && caps.quiesce && !caps.precopy);
	cr_assert_eq(vfiov2_caps(VFIOV2_STOP_COPY | VFIOV2_PRE_COPY, &caps), 0);
	cr_assert(caps.v2 && !caps.quiesce && caps.precopy);
}

/* A device that says it is where it cannot be is broken, and so is one with a number too many. */
Test(vfiov2, numbers_both_ways)
{
	static const char *const words[NUMBERS] = {
		"error", "stop", "running", "stop-copy",
		"resuming", "quiesced", "precopy", "precopy-quiesced",
	};

	for (unsigned t = 0; t < ARRAY_LEN(tables); t++) {
		struct vfiostate_caps caps;

		cr_assert_eq(vfiov2_caps(tables[t].flags, &caps), 0);
		for (uint32_t n = 0; n < NUMBERS; n++) {
			bool has = n == 0 || strcmp(tables[t].row[n], "!!!!!!!!") != 0;

			cr_assert_str_eq(vfiostate_name(state_of(n)), words[n]);
			cr_assert_eq(vfiov2_encode(state_of(n)), n);
			cr_assert_eq(vfiov2_decode(n, &caps), has ? (int)state_of(n) : -EPROTO);
		}
		cr_assert_eq(vfiov2_decode(NUMBERS, &caps), -EPROTO);
		cr_assert_eq(vfiov2_decode(UINT32_MAX, &caps), -EPROTO);
	}
}

/* Single arcs that bring a descriptor, by number; whatever else brings none. */
Test(vfiov2, arcs_that_open_a_stream)
{
	static const uint32_t opens[][2] = { { 2, 6 }, { 5, 7 }, { 1, 3 }, { 1, 4 } };
	unsigned found = 0, arcs = 0;

	for (uint32_t from = 1; from < NUMBERS; from++)
		for (uint32_t to = 1; to < NUMBERS; to++) {
			bool listed = false;

			if (tables[3].row[from][to] != (char)('0' + to))
				continue;
			for (unsigned i = 0; i < ARRAY_LEN(opens); i++)
				listed |= opens[i][0] == from && opens[i][1] == to;
			cr_assert_eq(vfiov2_opens(state_of(from), state_of(to)), listed,
				     "%s to %s", names[from], names[to]);
			found += listed;
			arcs++;
		}
	cr_assert_eq(found, ARRAY_LEN(opens));
	cr_assert_gt(arcs, found);
	/* the direct arc that there is without P2P: the stream that was begun goes on */
	cr_assert_not(vfiov2_opens(VFIOSTATE_PRECOPY, VFIOSTATE_STOPCOPY));
}
