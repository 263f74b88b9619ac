/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Rules of fault injection: which events fire, that the same seed decides alike, that chance is
 * fair, and every way a rule can be written wrong (F61).
 */
#include "config.h"

#include "core/faultplan.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "wire/faultrule.h"

#define EVENTS 20000

static struct faultplan_rule rule(const char *text)
{
	struct faultplan_rule r;
	char why[256] = "";

	cr_assert_eq(faultrule_parse(&r, text, why, sizeof(why)), 0, "%s: %s", text, why);
	return r;
}

static int add(struct faultplan *p, const char *text)
{
	struct faultplan_rule r = rule(text);

	return faultplan_add(p, &r, 0);
}

/* Of a row of events at a point, which fire. */
static unsigned run(struct faultplan *p, enum faultplan_point point, bool *fired, unsigned n)
{
	struct faultplan_order o;
	unsigned fires = 0;

	for (unsigned i = 0; i < n; i++) {
		const struct faultplan_event e = { .now = i, .page = i, .n = 1, .sharer = "vmm" };
		bool f = faultplan_ask(p, point, &e, &o);

		fires += f;
		if (fired)
			fired[i] = f;
	}
	return fires;
}

Test(faultplan, nothing_fires_without_a_rule)
{
	struct faultplan p;

	faultplan_init(&p, 1, NULL);
	for (int at = 0; at < FAULTPLAN_POINTS; at++) {
		cr_assert_not(faultplan_watches(&p, (enum faultplan_point)at));
		cr_assert_eq(run(&p, (enum faultplan_point)at, NULL, 10), 0);
	}
}

Test(faultplan, every_and_count)
{
	struct faultplan p;
	bool fired[100];
	const struct faultplan_slot *s;
	unsigned at = 0;

	faultplan_init(&p, 1, NULL);
	cr_assert_eq(add(&p, "point=place.copy,every=10,count=3,action=enomem"), 1);
	cr_assert(faultplan_watches(&p, FAULTPLAN_AT_COPY));
	cr_assert_eq(run(&p, FAULTPLAN_AT_ZERO, NULL, 100), 0, "another point");
	cr_assert_eq(run(&p, FAULTPLAN_AT_COPY, fired, 100), 3);
	for (unsigned i = 0; i < 100; i++)
		cr_assert_eq(fired[i], i == 9 || i == 19 || i == 29, "%u", i);
	cr_assert(faultplan_list(&p, &at, &s));
	cr_assert_eq(s->hits, 100);
	cr_assert_eq(s->fires, 3);
	cr_assert_not(faultplan_list(&p, &at, &s));
}

/* The same seed, the same rules, the same events: the same decisions.  Another seed: others. */
Test(faultplan, the_same_seed_decides_alike)
{
	static const char text[] = "point=fault.read,probability=0.1,action=drop";
	static bool first[EVENTS], again[EVENTS], other[EVENTS];
	struct faultplan p;
	unsigned n;

	faultplan_init(&p, 4711, NULL);
	add(&p, text);
	n = run(&p, FAULTPLAN_AT_FAULT_READ, first, EVENTS);
	/* fair: 2000 of 20000, and the deviation (42) six times */
	cr_assert_gt(n, 1740);
	cr_assert_lt(n, 2260);
	faultplan_init(&p, 4711, NULL);
	add(&p, text);
	/* a rule more, and one that goes, shift nothing */
	add(&p, "point=fault.read,probability=0.5,page=20001,action=duplicate");
	cr_assert_eq(add(&p, "point=fault.read,page=30000,action=duplicate"), 3);
	cr_assert_eq(faultplan_remove(&p, 3), 0);
	cr_assert_eq(run(&p, FAULTPLAN_AT_FAULT_READ, again, EVENTS), n);
	cr_assert_eq(memcmp(first, again, sizeof(first)), 0);
	faultplan_init(&p, 4712, NULL);
	add(&p, text);
	run(&p, FAULTPLAN_AT_FAULT_READ, other, EVENTS);
	cr_assert_neq(memcmp(first, other, sizeof(first)), 0);
}

/* Two rules alike are two streams; the lower one has the say where both fire. */
Test(faultplan, each_rule_has_its_own_stream)
{
	const struct faultplan_slot *s[2];
	struct faultplan p;
	unsigned at = 0, n;

	faultplan_init(&p, 7, NULL);
	add(&p, "point=fault.read,probability=50%,action=drop");
	add(&p, "point=fault.read,probability=50%,action=delay=1");
	n = run(&p, FAULTPLAN_AT_FAULT_READ, NULL, EVENTS);
	cr_assert_gt(n, EVENTS * 3 / 4 - 400);
	cr_assert_lt(n, EVENTS * 3 / 4 + 400);
	for (unsigned i = 0; i < 2; i++)
		cr_assert(faultplan_list(&p, &at, &s[i]));
	cr_assert_eq(s[0]->fires + s[1]->fires, n);
	cr_assert_lt(s[1]->fires, s[0]->fires);
	cr_assert_eq(s[1]->hits, EVENTS, "it counts what the other one took");
}

Test(faultplan, no_chance_and_certainty)
{
	struct faultplan p;

	faultplan_init(&p, 7, NULL);
	add(&p, "point=wake,probability=1,action=duplicate");
	cr_assert_eq(run(&p, FAULTPLAN_AT_WAKE, NULL, 1000), 1000);
	faultplan_init(&p, 7, NULL);
	add(&p, "point=wake,probability=0.000001,action=duplicate");
	cr_assert_lt(run(&p, FAULTPLAN_AT_WAKE, NULL, 1000), 2);
}

Test(faultplan, filters)
{
	static struct block_table blocks;
	struct faultplan_event e = { .now = 1000000000, .page = 600, .n = 1, .sharer = "back" };
	struct faultplan_order o;
	struct faultplan p;

	faultplan_init(&p, 7, &blocks);
	add(&p, "point=fault.read,sharer=vmm,action=drop");
	add(&p, "point=fault.read,page=601,action=drop");
	add(&p, "point=fault.read,page=b/0x64000,action=drop");
	add(&p, "point=fault.read,after=2000,action=drop");
	cr_assert_not(faultplan_ask(&p, FAULTPLAN_AT_FAULT_READ, &e, &o), "no such block yet");
	block_add(&blocks, "a", 512 * 4096, 4096, BLOCK_SHARED);
	block_add(&blocks, "b", 512 * 4096, 4096, BLOCK_SHARED);
	e.page = 612;
	cr_assert(faultplan_ask(&p, FAULTPLAN_AT_FAULT_READ, &e, &o));
	cr_assert_eq(o.rule, 3);
	e.page = 600;
	e.n = 2;
	cr_assert(faultplan_ask(&p, FAULTPLAN_AT_FAULT_READ, &e, &o));
	cr_assert_eq(o.rule, 2, "a run has it");
	e.n = 1;
	cr_assert_not(faultplan_ask(&p, FAULTPLAN_AT_FAULT_READ, &e, &o));
	e.now = 2000000000;
	cr_assert(faultplan_ask(&p, FAULTPLAN_AT_FAULT_READ, &e, &o));
	cr_assert_eq(o.rule, 4);
	e.sharer = "vmm";
	cr_assert(faultplan_ask(&p, FAULTPLAN_AT_FAULT_READ, &e, &o));
	cr_assert_eq(o.rule, 1);
	e.page = FAULTPLAN_NO_PAGE;
	e.sharer = NULL;
	e.now = 0;
	cr_assert_not(faultplan_ask(&p, FAULTPLAN_AT_FAULT_READ, &e, &o));
}

Test(faultplan, slots_are_used_again_numbers_are_not)
{
	struct faultplan p;
	int last = 0;

	faultplan_init(&p, 7, NULL);
	for (unsigned i = 0; i < FAULTPLAN_RULES; i++)
		last = add(&p, "point=wake,action=delay=5");
	cr_assert_eq(last, FAULTPLAN_RULES);
	cr_assert_eq(add(&p, "point=wake,action=delay=5"), -ENOSPC);
	cr_assert(faultplan_has(&p, 20));
	cr_assert_eq(faultplan_remove(&p, 20), 0);
	cr_assert_eq(faultplan_remove(&p, 20), -ENOENT);
	cr_assert_not(faultplan_has(&p, 20));
	cr_assert_eq(p.removals, 1);
	/* somebody still looks at it */
	p.slot[19].users = 1;
	cr_assert_eq(add(&p, "point=wake,action=delay=5"), -ENOSPC);
	p.slot[19].users = 0;
	cr_assert_eq(add(&p, "point=request.send,action=drop"), FAULTPLAN_RULES + 1);
	cr_assert(faultplan_watches(&p, FAULTPLAN_AT_REQUEST));
	cr_assert_eq(faultplan_remove(&p, FAULTPLAN_RULES + 1), 0);
	cr_assert_not(faultplan_watches(&p, FAULTPLAN_AT_REQUEST));
	cr_assert(faultplan_watches(&p, FAULTPLAN_AT_WAKE));
}

/* --- text ------------------------------------------------------------------------------------- */

Test(faultrule, what_is_printed_can_be_read)
{
	static const char *const texts[] = {
		"point=session.before-pong,action=die=abort",
		"point=place.copy,page=pc.ram/0x1000,every=100,action=eagain=3",
		"point=fault.read,page=17,sharer=a,,b,probability=0.250000,after=1500,count=2,action=delay=20",
		"point=receive.page,page=/rom@etc/acpi/tables/0x0,action=corrupt=4095",
		"point=sharer.read,sharer=back,action=wedge",
	};
	char text[FAULTRULE_TEXT_MAX];

	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		struct faultplan_rule r = rule(texts[i]);

		faultrule_print(&r, text);
		cr_assert_str_eq(text, texts[i]);
	}
}

/* Every action at every point: what the table says, and nothing else. */
Test(faultrule, what_fits_is_what_the_table_says)
{
	for (unsigned at = 0; at < FAULTPLAN_POINTS; at++)
		for (unsigned a = 0; a < FAULTPLAN_ACTIONS; a++) {
			const struct faultplan_action_info *info = &faultplan_actions[a];
			char text[256], why[256];
			struct faultplan_rule r;
			int ret;

			snprintf(text, sizeof(text), "point=%s,action=%s%s",
				 faultplan_points[at].name, info->name,
				 info->takes == FAULTPLAN_NUMBER ? "=7" :
				 info->takes == FAULTPLAN_DEATH	 ? "=segv" : "");
			ret = faultrule_parse(&r, text, why, sizeof(why));
			cr_assert_eq(ret, faultplan_points[at].actions >> a & 1 ? 0 : -EINVAL,
				     "%s", text);
			r.point = (enum faultplan_point)at;
			r.action = (enum faultplan_action)a;
		}
}

Test(faultrule, what_is_wrong_is_said)
{
	static const struct {
		const char *text, *why;
	} wrong[] = {
		{ "", "point=NAME is missing" },
		{ "point=place.copy", "action=NAME is missing" },
		{ "point=nowhere,action=die", "no point 'nowhere'" },
		{ "point=wake,action=explode", "no action 'explode'" },
		{ "point=wake,action=drop", "drop cannot happen at wake" },
		{ "point=wake,action=delay", "delay needs milliseconds" },
		{ "point=wake,action=delay=0", "not a number between 1 and 3600000" },
		{ "point=wake,action=delay=x", "not a number" },
		{ "point=wake,action=duplicate=2", "duplicate takes no argument" },
		{ "point=wake,action=die=slowly", "die=kill, die=abort or die=segv" },
		{ "point=wake,page=b/,action=die", "page is a number, or BLOCK/OFFSET" },
		{ "point=wake,page=/0,action=die", "page is a number, or BLOCK/OFFSET" },
		{ "point=session.loaded,page=3,action=die", "not about a page" },
		{ "point=place.copy,sharer=a,action=enomem", "not about a sharer" },
		{ "point=wake,sharer=,action=die", "not the name of a sharer" },
		{ "point=wake,every=0,action=die", "every" },
		{ "point=wake,count=-1,action=die", "count" },
		{ "point=wake,probability=0,action=die", "probability is between" },
		{ "point=wake,probability=1.1,action=die", "probability is between" },
		{ "point=wake,probability=101%,action=die", "probability is between" },
		{ "point=wake,probability=0.5x,action=die", "probability is between" },
		{ "point=wake,probability=.,action=die", "probability is between" },
		{ "point=wake,probability=1e-3,action=die", "probability is between" },
		{ "point=wake,often=3,action=die", "unknown key 'often'" },
		{ "point=wake,point=wake,action=die", "given twice" },
	};

	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		struct faultplan_rule r;
		char why[256] = "";

		cr_assert_eq(faultrule_parse(&r, wrong[i].text, why, sizeof(why)), -EINVAL, "%s",
			     wrong[i].text);
		cr_assert_not_null(strstr(why, wrong[i].why), "%s: %s", wrong[i].text, why);
	}
}

Test(faultrule, probabilities)
{
	static const struct {
		const char *text;
		uint32_t millionths;
	} right[] = {
		{ "1", 1000000 }, { "1.0", 1000000 }, { "100%", 1000000 }, { "0.5", 500000 },
		{ ".5", 500000 }, { "12.5%", 125000 }, { "0.0001%", 1 }, { "0.000001", 1 },
	};

	for (size_t i = 0; i < ARRAY_LEN(right); i++) {
		char text[128];

		snprintf(text, sizeof(text), "point=wake,probability=%s,action=duplicate",
			 right[i].text);
		cr_assert_eq(rule(text).millionths, right[i].millionths, "%s", text);
	}
}
