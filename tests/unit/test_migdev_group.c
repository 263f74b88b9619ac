/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Several devices from one host to another: what core/devgroup.h plans, done by migdev on models
 * that share a bus, with a gate that opens late.  The models see it when one runs that may not
 * (F32, F47, F60, F61, S0-22, S3-49, S3-64).
 */
#include "config.h"

#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/gate.h"
#include "core/guard.h"
#include "devmove.h"
#include "fakedev.h"

enum { MEMBERS = 3, SEED = 100, NO_FAULT = FAKEDEV_OPS };

struct side {
	struct devgroup group;
	struct fakedev_bus bus;
	struct fakedev fake[MEMBERS];
	struct migdev mig[MEMBERS];
};

static struct side source, dest;
static struct devmove_stream saved[MEMBERS];
static struct gate gate;

static void run(struct side *s)
{
	cr_assert_eq(devmove_run(&s->group, s->mig, saved), 0);
}

/* --- the two sides --- */

static bool gate_lets(void *arg)
{
	return gate_may_run(arg) == 0;
}

static void side_up(struct side *s, const struct fakedev_config *configs, unsigned n, bool arriving)
{
	const struct devgroup_config config = { .limit = 1 };

	memset(s, 0, sizeof(*s));
	devgroup_init(&s->group, &config, arriving);
	for (unsigned i = 0; i < n; i++) {
		struct fakedev_config c = configs[i];
		struct devgroup_facts facts;

		c.seed = arriving ? 0 : SEED + i;
		c.idle = arriving;
		fakedev_init(&s->fake[i], &c);
		fakedev_join(&s->fake[i], &s->bus);
		devio_set_limit(&s->fake[i].dev, UINT64_C(60) * 1000000000);
		cr_assert_eq(migdev_probe(&s->mig[i], &s->fake[i].dev), 0);
		facts = (struct devgroup_facts){ .caps = s->mig[i].caps };
		cr_assert_eq(devgroup_add(&s->group, &facts), (int)i);
	}
	if (arriving) {
		s->bus.gate = gate_lets;
		s->bus.arg = &gate;
	}
}

static void side_down(struct side *s)
{
	for (unsigned i = 0; i < s->group.n; i++) {
		cr_assert_null(fakedev_wrong(&s->fake[i]), "%u: %s", i, fakedev_wrong(&s->fake[i]));
		migdev_deinit(&s->mig[i]);
		fakedev_deinit(&s->fake[i]);
	}
}

/* A page that every device reaches, which is missing until open_gate(). */
static uint64_t memory[512], pages[64];
static struct block_table blocks;
static struct ledger ledger;

static void close_gate(void)
{
	const struct gate_config config = {
		.ledger = &ledger, .blocks = &blocks, .ranges = 4, .enforced = true,
	};
	const struct gate_span span = { .length = GATE_PAGE, .directions = GATE_WRITES };

	memset(memory, 0, sizeof(memory));
	memset(pages, 0, sizeof(pages));
	blocks = (struct block_table){ .n = 0 };
	cr_assert_eq(block_add(&blocks, "ram", GATE_PAGE, GATE_PAGE, BLOCK_SHARED), 0);
	cr_assert_eq(ledger_init(&ledger, pages, sizeof(pages), 1), 0);
	cr_assert_leq(gate_size(config.ranges, config.blocks->pages), sizeof(memory));
	gate_init(&gate, memory, &config);
	cr_assert_eq(gate_map(&gate, &span), 0);
	gate_seal(&gate);
	gate_serve(&gate);
}

static void open_gate(void)
{
	uint64_t iova;

	gate_present(&gate, 0, 1);
	cr_assert_eq(gate_next(&gate, &iova), GATE_READY);
	cr_assert_eq(gate_mapped(&gate, iova, 0), 0);
	cr_assert_eq(gate_next(&gate, &iova), GATE_OPENED);
}

#define V1N  { .version = 1, .segments = 3, .early = 1, .ndma = true, .window = FAKEDEV_MAPPED }
#define V2P  { .version = 2, .segments = 3, .flags = 3 }
#define V2PC { .version = 2, .segments = 3, .early = 1, .flags = 7 }

static const struct {
	unsigned n;
	struct fakedev_config configs[MEMBERS];
} groups[] = {
	{ 1, { V1N } }, { 1, { V2PC } }, { 2, { V1N, V1N } },
	{ 2, { V2PC, V2P } }, { 3, { V1N, V2P, V2PC } },
};

static void both_up(unsigned group)
{
	memset(saved, 0, sizeof(saved));
	close_gate();
	side_up(&source, groups[group].configs, groups[group].n, false);
	side_up(&dest, groups[group].configs, groups[group].n, true);
}

static void both_down(void)
{
	side_down(&source);
	side_down(&dest);
}

static void depart(void)
{
	cr_assert_eq(devgroup_go(&source.group, DEVGROUP_PRECOPY), 0);
	run(&source);
	for (unsigned i = 0; i < source.group.n && !source.group.returning; i++)
		if (source.mig[i].state == VFIOSTATE_PRECOPY)
			cr_assert_eq(devmove_save(&source.mig[i], &saved[i]), 0);
	if (devgroup_go(&source.group, DEVGROUP_STOPPED) == 0)
		run(&source);
}

/* Over, held at the gate, and running as what it was. */
Test(migdev_group, goes_over)
{
	for (unsigned g = 0; g < ARRAY_LEN(groups); g++) {
		both_up(g);
		depart();
		cr_assert_not(source.group.returning);
		cr_assert_eq(devgroup_go(&dest.group, DEVGROUP_LOADED), 0);
		run(&dest);
		open_gate();
		cr_assert_eq(devgroup_go(&dest.group, DEVGROUP_RUNNING), 0);
		run(&dest);
		for (unsigned i = 0; i < dest.group.n; i++) {
			cr_assert_eq(dest.mig[i].state, VFIOSTATE_RUNNING);
			cr_assert_eq(fakedev_loaded(&dest.fake[i]), SEED + i);
		}
		both_down();
	}
}

/* The models are no witnesses if they do not see it. */
Test(migdev_group, who_runs_too_early_is_seen)
{
	both_up(3);
	depart();
	cr_assert_eq(devgroup_go(&dest.group, DEVGROUP_RUNNING), 0);
	run(&dest);
	cr_assert(fakedev_wrong(&dest.fake[0]) || fakedev_wrong(&dest.fake[1]));
	for (unsigned i = 0; i < dest.group.n; i++)
		dest.fake[i].wrong[0] = '\0';
	both_down();
}

/* S0-22: nobody came to the other side: they run again, as what they were. */
Test(migdev_group, comes_back)
{
	for (unsigned g = 0; g < ARRAY_LEN(groups); g++) {
		both_up(g);
		depart();
		cr_assert_eq(devgroup_abort(&source.group), 0);
		run(&source);
		for (unsigned i = 0; i < source.group.n; i++) {
			unsigned resets = source.fake[i].count[FAKEDEV_RESET];

			cr_assert_eq(source.mig[i].state, VFIOSTATE_RUNNING);
			cr_assert_not(source.group.device[i].lost);
			if (resets)
				cr_assert_eq(fakedev_loaded(&source.fake[i]), SEED + i);
		}
		both_down();
	}
}

/* S0-22: what is saved of one that came back is what was saved before. */
Test(migdev_group, S0_22_the_same_is_saved_again)
{
	static struct devmove_stream before[MEMBERS];
	const struct devgroup_config config = { .limit = 1 };

	for (unsigned g = 0; g < ARRAY_LEN(groups); g++) {
		both_up(g);
		depart();
		cr_assert_eq(devgroup_abort(&source.group), 0);
		run(&source);
		memcpy(before, saved, sizeof(saved));
		memset(saved, 0, sizeof(saved));
		devgroup_init(&source.group, &config, false);
		for (unsigned i = 0; i < groups[g].n; i++) {
			struct devgroup_facts facts = { .caps = source.mig[i].caps };

			cr_assert_eq(devgroup_add(&source.group, &facts), (int)i);
		}
		depart();
		cr_assert_eq(source.group.stage, DEVGROUP_STOPPED);
		for (unsigned i = 0; i < groups[g].n; i++) {
			cr_assert_gt(before[i].len, 0);
			cr_assert_eq(saved[i].len, before[i].len);
			cr_assert_arr_eq(saved[i].bytes, before[i].bytes, before[i].len);
		}
		both_down();
	}
}

/* One change of state fails, in each way: the others run again, and so does it or it is lost. */
static bool fails(unsigned group, unsigned nth, enum fakedev_effect effect)
{
	struct fakedev *f = &source.fake[0];
	bool came;

	both_up(group);
	fakedev_fail(f, FAKEDEV_CHANGE, nth, effect, effect == FAKEDEV_SKIP ? 0 : EIO);
	depart();
	came = f->count[FAKEDEV_CHANGE] >= nth;
	if (came)
		cr_assert(source.group.returning, "nobody saw it");
	else
		cr_assert_eq(devgroup_abort(&source.group), 0);
	run(&source);
	for (unsigned i = 0; i < source.group.n; i++) {
		cr_assert_eq(source.mig[i].state, VFIOSTATE_RUNNING);
		cr_assert(i == 0 || !source.group.device[i].lost);
	}
	both_down();
	return came;
}

Test(migdev_group, a_change_fails, .timeout = 60)
{
	static const enum fakedev_effect effects[] = {
		FAKEDEV_FAIL, FAKEDEV_BREAK, FAKEDEV_LATE, FAKEDEV_HANG, FAKEDEV_HANG_DONE,
		FAKEDEV_SKIP,
	};
	unsigned n = 0;

	for (unsigned i = 0; i < ARRAY_LEN(groups) * ARRAY_LEN(effects); i++)
		for (unsigned nth = 1; fails(i % 5, nth, effects[i / 5]); nth++)
			n++;
	cr_assert_gt(n, 50, "%u", n);
}
