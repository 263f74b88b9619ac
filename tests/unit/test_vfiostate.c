/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Ways between the states of a device, for both versions: found by a search over the single arcs as
 * the interfaces define them, next to what vfiostate_hop() says (F29, S3-41, S3-42, S3-45, S3-56,
 * S3-57, S3-58, S3-85).
 */
#include "config.h"

#include "core/vfiostate.h"

#include <errno.h>

#include <criterion/criterion.h>

#include "core/guard.h"

#define RU VFIOSTATE_RUNNING
#define PC VFIOSTATE_PRECOPY
#define RQ VFIOSTATE_QUIESCED
#define PQ VFIOSTATE_PRECOPY_QUIESCED
#define ST VFIOSTATE_STOP
#define SC VFIOSTATE_STOPCOPY
#define RE VFIOSTATE_RESUMING

enum { FAR = VFIOSTATES };

struct arc {
	enum vfiostate from, to;
};

/* The subset that every device of the first version takes; those with NDMA only where it is. */
static const struct arc arcs_v1[] = {
	{ RU, PC }, { RU, SC }, { RU, RE }, { RU, ST }, { RU, RQ }, { PC, SC }, { PC, RU },
	{ PC, PQ }, { PQ, SC }, { PQ, RU }, { PQ, ST }, { SC, ST }, { SC, RU }, { ST, RU },
	{ RE, RU }, { RE, RQ }, { RQ, RU }, { RQ, ST },
};

static const struct arc arcs_v2[] = {
	{ SC, ST }, { RE, ST }, { ST, RE }, { ST, SC }, { RU, PC }, { PC, RU },
};
/* beside those, with P2P and without */
static const struct arc arcs_v2_p2p[] = {
	{ RQ, ST }, { ST, RQ }, { RU, RQ }, { RQ, RU }, { PC, PQ },
	{ PQ, PC }, { RQ, PQ }, { PQ, RQ }, { PQ, SC },
};
static const struct arc arcs_v2_no_p2p[] = { { RU, ST }, { ST, RU }, { PC, SC } };

static const struct vfiostate_caps kinds[] = {
	{ .precopy = true },
	{ .precopy = true, .quiesce = true },
	{ .v2 = true },
	{ .v2 = true, .quiesce = true },
	{ .v2 = true, .precopy = true },
	{ .v2 = true, .precopy = true, .quiesce = true },
};

struct graph {
	bool arc[VFIOSTATES][VFIOSTATES];
};

static void add(struct graph *g, const struct vfiostate_caps *caps, const struct arc *arcs,
		unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (vfiostate_has(caps, arcs[i].from) && vfiostate_has(caps, arcs[i].to))
			g->arc[arcs[i].from][arcs[i].to] = true;
}

static struct graph graph_of(const struct vfiostate_caps *caps)
{
	struct graph g = { 0 };

	if (!caps->v2) {
		add(&g, caps, arcs_v1, ARRAY_LEN(arcs_v1));
		return g;
	}
	add(&g, caps, arcs_v2, ARRAY_LEN(arcs_v2));
	if (caps->quiesce)
		add(&g, caps, arcs_v2_p2p, ARRAY_LEN(arcs_v2_p2p));
	else
		add(&g, caps, arcs_v2_no_p2p, ARRAY_LEN(arcs_v2_no_p2p));
	return g;
}

/* May a way between these ends pass this state?  What is saved stays one stream. */
static bool may_pass(enum vfiostate from, enum vfiostate to, enum vfiostate between)
{
	unsigned ends = vfiostate_rights(from) | vfiostate_rights(to);
	bool saving = vfiostate_rights(from) & vfiostate_rights(to) & VFIOSTATE_SAVES;

	if (saving && !(vfiostate_rights(between) & VFIOSTATE_SAVES))
		return false;
	return !(vfiostate_rights(between) & ~ends);
}

/* One round over all arcs into @next: where is it nearer to go through there? */
static void relax(const struct graph *g, unsigned steps[VFIOSTATES], unsigned next)
{
	for (unsigned s = 0; s < VFIOSTATES; s++)
		if (g->arc[s][next] && steps[next] + 1 < steps[s])
			steps[s] = steps[next] + 1;
}

/* How many arcs lead from @at to @to, as ways from @from to @to go; FAR: none do. */
static unsigned distance(const struct graph *g, enum vfiostate from, enum vfiostate at,
			 enum vfiostate to)
{
	unsigned steps[VFIOSTATES];

	for (unsigned s = 0; s < VFIOSTATES; s++)
		steps[s] = s == to ? 0 : FAR;
	for (unsigned round = 0; round < VFIOSTATES; round++)
		for (unsigned next = 0; next < VFIOSTATES; next++)
			if (next == to || may_pass(from, to, (enum vfiostate)next))
				relax(g, steps, next);
	return steps[at];
}

/* Walk as the hops say: each is an arc, and brings the end nearer. */
static void walk(const struct vfiostate_caps *caps, const struct graph *g, enum vfiostate from,
		 enum vfiostate to)
{
	unsigned left = distance(g, from, from, to);
	enum vfiostate at = from;

	while (at != to) {
		int hop = vfiostate_hop(caps, at, to);

		cr_assert_geq(hop, 0, "v%d %s to %s: stuck in %s", 1 + caps->v2,
			      vfiostate_name(from), vfiostate_name(to), vfiostate_name(at));
		cr_assert(g->arc[at][hop], "v%d %s to %s: %s is no single arc", 1 + caps->v2,
			  vfiostate_name(at), vfiostate_name(to),
			  vfiostate_name((enum vfiostate)hop));
		cr_assert_eq(distance(g, from, (enum vfiostate)hop, to), --left);
		at = (enum vfiostate)hop;
	}
}

Test(vfiostate, ways_against_a_search_of_the_arcs)
{
	unsigned walked = 0, refused = 0;

	for (unsigned k = 0; k < ARRAY_LEN(kinds); k++) {
		struct graph g = graph_of(&kinds[k]);

		for (unsigned i = 0; i < VFIOSTATE_ERROR * VFIOSTATE_ERROR; i++) {
			enum vfiostate from = i / VFIOSTATE_ERROR, to = i % VFIOSTATE_ERROR;

			if (from == to)
				continue;
			if (distance(&g, from, from, to) < FAR) {
				walk(&kinds[k], &g, from, to);
				walked++;
				continue;
			}
			cr_assert_eq(vfiostate_hop(&kinds[k], from, to), -EINVAL,
				     "v%d %s to %s", 1 + kinds[k].v2, vfiostate_name(from),
				     vfiostate_name(to));
			refused++;
		}
	}
	cr_assert_gt(walked, 100);
	cr_assert_gt(refused, 100);
}

Test(vfiostate, error_is_left_by_nothing_but_a_reset)
{
	for (unsigned k = 0; k < ARRAY_LEN(kinds); k++)
		for (unsigned s = 0; s < VFIOSTATES; s++) {
			cr_assert_eq(vfiostate_hop(&kinds[k], VFIOSTATE_ERROR, s), -EIO);
			if (s != VFIOSTATE_ERROR)
				cr_assert_eq(vfiostate_hop(&kinds[k], s, VFIOSTATE_ERROR), -EINVAL);
		}
}

/* The flows that the first version was made for. */
Test(vfiostate, flows)
{
	static const struct {
		const char *name;
		enum vfiostate way[6];
		unsigned n;
	} flows[] = {
		{ "stop", { RU, ST }, 2 },
		{ "save", { RU, SC, ST }, 3 },
		{ "live", { RU, PC, SC, ST }, 4 },
		{ "resume", { RU, RE, RU }, 3 },
		{ "abort while it runs", { RU, PC, RU }, 3 },
		{ "abort while it is stopped", { RU, PC, SC, RU }, 4 },
		{ "one of several", { RU, PC, PQ, SC, ST }, 5 },
		{ "resume one of several", { RU, RE, RQ, RU }, 4 },
	};
	const struct vfiostate_caps v1 = { .precopy = true, .quiesce = true };

	for (unsigned i = 0; i < ARRAY_LEN(flows); i++)
		for (unsigned s = 1; s < flows[i].n; s++)
			cr_assert_eq(vfiostate_hop(&v1, flows[i].way[s - 1], flows[i].way[s]),
				     (int)flows[i].way[s], "%s, step %u", flows[i].name, s);
}

/* What nobody has to do, and what no device is asked for (S3-57). */
Test(vfiostate, arcs_that_are_never_taken)
{
	static const struct arc never[] = {
		{ SC, RE }, { SC, PC }, { SC, PQ }, { RE, SC }, { PQ, RE }, { ST, RE }, { ST, SC },
	};
	const struct vfiostate_caps v1 = { .precopy = true, .quiesce = true };

	for (unsigned i = 0; i < ARRAY_LEN(never); i++)
		cr_assert_eq(vfiostate_hop(&v1, never[i].from, never[i].to), -EINVAL, "row %u", i);
	cr_assert_eq(vfiostate_hop(&kinds[5], SC, PC), -EINVAL);
	cr_assert_eq(vfiostate_hop(&kinds[5], SC, PQ), -EINVAL);
}

/* Only what certainly stands still has no rights; being quiesced is not that (S3-60, S3-65). */
Test(vfiostate, rights)
{
	static const unsigned quiet = 1u << ST | 1u << SC | 1u << RE;
	static const unsigned peers = 1u << RU | 1u << PC | 1u << VFIOSTATE_ERROR;
	static const unsigned saves = 1u << PC | 1u << PQ | 1u << SC;

	for (unsigned s = 0; s < VFIOSTATES; s++) {
		unsigned rights = vfiostate_rights((enum vfiostate)s);

		cr_assert_eq(!(rights & VFIOSTATE_WRITES), quiet >> s & 1);
		cr_assert_eq(!!(rights & VFIOSTATE_PEERS), peers >> s & 1);
		cr_assert_eq(!!(rights & VFIOSTATE_SAVES), saves >> s & 1);
		cr_assert_eq(!!(rights & VFIOSTATE_LOADS), s == RE);
	}
	cr_assert_str_eq(vfiostate_name(VFIOSTATES), "?");
}
