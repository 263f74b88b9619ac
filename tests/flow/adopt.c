/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The fault thread's process is killed, at named moments and at random ones, and another takes
 * over.  (F59, F61, design.md 6)
 */
#include "config.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/guard.h"
#include "facts.h"
#include "lives.h"
#include "rng.h"
#include "tap.h"

#define ROUNDS	    20u		/* at random moments, of each kind */
#define LONG_ROUNDS 100u

/* --- at named moments ------------------------------------------------------------------------- */

static void send_pages(void)
{
	stage_send(&stage, false, 0, LIFE_ENDS + 3);
}

/*
 * All sharers wait for the page, their faults were read and asked for, and the process dies over
 * its placement.
 */
static void die_placing(const struct stage_options *o, enum life_when when)
{
	pid_t pid;

	life_prepare(o);
	atomic_store(&life->when, when);
	for (unsigned who = 0; who < stage.options.sharers; who++)
		stage_touch(&stage, who, LIFE_ENDS, 1);
	pid = life_first(send_pages);
	life_is_over(pid);
	atomic_store(&life->when, DIES_NEVER);
	stage_adopt(&stage);
}

static void before_it_is_placed(const struct stage_options *o)
{
	die_placing(o, DIES_BEFORE);
	life_wait_settled(LIFE_ENDS, 1);
	expect_eq(life_seen(0, LIFE_ENDS, 1), 0);
	life_expect_paused(STAGE_PAGES - LIFE_ENDS);
	expect_eq(stage_look(&stage)->block[0].requested, stage.options.sharers ? 1 : 0);
	life_finish();
}

static void behind_it(const struct stage_options *o, enum life_when when)
{
	die_placing(o, when);
	for (unsigned who = 0; who < stage.options.sharers; who++)
		stage_wait_seen(&stage, who, LIFE_ENDS, 1);
	life_wait_settled(LIFE_ENDS, 1);
	life_expect_paused(STAGE_PAGES - LIFE_ENDS - 1);
	life_finish();
}

static const struct stage_options three = { .sharers = 3 },
				  alone = { .sharers = 1, .private = true };

static void shared_before(void) { before_it_is_placed(&three); }
static void shared_placed(void) { behind_it(&three, DIES_BEHIND); }
static void shared_unwoken(void) { behind_it(&three, DIES_UNWOKEN); }
static void private_before(void) { before_it_is_placed(&alone); }
static void private_placed(void) { behind_it(&alone, DIES_BEHIND); }
static void private_unwoken(void) { behind_it(&alone, DIES_UNWOKEN); }

/* Faults that were read, and are known to nobody any more: they come again, and none is lost. */
static void read_and_forgotten(void)
{
	pid_t pid;

	life_prepare(&three);
	pid = life_first(life_idle);
	life_until(&life->waits);
	for (unsigned who = 0; who < 3; who++)
		stage_touch(&stage, who, 0, 8);
	usleep(100000);
	life_end(pid);
	stage_adopt(&stage);
	stage_wait_parked(&stage, 24);
	life_expect_paused(STAGE_PAGES);
	stage_resume(&stage);
	while (stage.n_requested < 8)
		stage_hear(&stage, 10);
	expect_eq(stage.n_requested_twice, 0);
	for (unsigned i = 0; i < STAGE_PAGES; i++)
		expect(!stage.received[i]);
	stage_send(&stage, false, 0, STAGE_PAGES);
	for (unsigned who = 0; who < 3; who++)
		stage_wait_seen(&stage, who, 0, 8);
	life_finish();
}

/* --- before it was ours, and when only the last word is missing ------------------------------- */

/* The source takes its VM back: nothing of it stays here. */
static void before_the_commit(void)
{
	pid_t pid;

	life_prepare(&(struct stage_options){ .sharers = 2, .commit_ping = true,
					      .hold_loaded = true });
	pid = life_first(life_idle);
	life_until(&life->waits);
	life_end(pid);
	stage_adopt(&stage);
	stage_wait_state(&stage, SESSION_FAILED);
	expect(strstr(stage.snapshot->reason, "the source resumes its VM"));
	while (!stage.hung_up)
		stage_hear(&stage, 100);
	life_finish();
}

static void send_all(void)
{
	stage_send(&stage, false, 0, STAGE_PAGES);
	stage_end(&stage);
	while (!stage_look(&stage)->shut_sent)
		usleep(500);
	/* it has left, too, and that is written down */
	usleep(20000);
}

/* SHUT comes once, and then it is complete. */
static void only_shut_was_owed(void)
{
	pid_t pid;

	life_prepare(&three);
	pid = life_first(send_all);
	life_until(&life->waits);
	life_end(pid);
	stage_adopt(&stage);
	expect_eq(stage_look(&stage)->state, SESSION_RUNNING);
	expect(stage_look(&stage)->shut_sent);
	for (unsigned who = 0; who < 3; who++)
		stage_touch(&stage, who, 0, STAGE_PAGES);
	stage_wait_shut(&stage);
	stage_wait_state(&stage, SESSION_COMPLETE);
	for (unsigned who = 0; who < 3; who++)
		stage_wait_seen(&stage, who, 0, STAGE_PAGES);
	stage_hear(&stage, 50);
	stage_check_content(&stage);
	life_finish();
}

/* --- at random moments ------------------------------------------------------------------------ */

static struct rng rng;

/* The source sends what is asked for, and all else by and by, in any order. */
static void be_source(void)
{
	struct rng mine = rng;
	bool sent[STAGE_PAGES] = { false };
	unsigned left = STAGE_PAGES;

	while (left) {
		unsigned page = (unsigned)rng_below(&mine, STAGE_PAGES);
		bool urgent = stage.options.urgent && rng_percent(&mine, 50);

		stage_hear(&stage, 0);
		for (unsigned i = 0; i < STAGE_PAGES; i++)
			page = stage.requested[i] && !sent[i] ? i : page;
		if (sent[page])
			continue;
		stage_send(&stage, urgent, page, 1);
		sent[page] = true;
		left--;
		if (rng_percent(&mine, 30))
			usleep((useconds_t)rng_below(&mine, 200));
	}
	stage_end(&stage);
	while (!stage.shut)
		stage_hear(&stage, 10);
}

/* What the source has not been told to have arrived comes again, and no other page. */
static void come_back(void)
{
	const struct snapshot *s = stage_look(&stage);

	expect(!s->held && s->committed);
	if (s->state == SESSION_PAUSED) {
		stage_resume(&stage);
		for (unsigned i = 0; i < STAGE_PAGES; i++)
			if (!stage.received[i])
				stage_send(&stage, false, i, 1);
		stage_end(&stage);
	}
	if (stage_look(&stage)->state == SESSION_RUNNING)
		stage_wait_shut(&stage);
	stage_wait_state(&stage, SESSION_COMPLETE);
}

static unsigned paused, closing, complete;	/* how far the first life was */

static void tally(const struct snapshot *s)
{
	paused += s->state == SESSION_PAUSED;
	closing += s->state == SESSION_RUNNING;
	complete += s->state == SESSION_COMPLETE;
}

static void once(bool urgent, bool private)
{
	unsigned sharers = private ? 1 : 3, touched[3];
	pid_t pid;

	life_prepare(&(struct stage_options){ .sharers = sharers, .private = private,
					 .urgent = urgent, .calm_ms = 1 });
	pid = life_first(be_source);
	life_until(&life->running);
	for (unsigned who = 0; who < sharers; who++)
		stage_touch(&stage, who, touched[who] = (unsigned)rng_below(&rng, 4) * 32, 32);
	usleep((useconds_t)rng_below(&rng, 12000));
	life_end(pid);
	stage.may_repeat = true;
	stage_adopt(&stage);
	/* a second one follows at once, or a little later */
	if (rng_percent(&rng, 50)) {
		usleep((useconds_t)rng_below(&rng, 2000));
		faultloop_stop(stage.loop);
		stage_adopt(&stage);
	}
	tally(stage_look(&stage));
	come_back();
	for (unsigned who = 0; who < sharers; who++)
		stage_wait_seen(&stage, who, touched[who], 32);
	for (unsigned who = 0; who < sharers; who++) {
		stage_touch(&stage, who, 0, STAGE_PAGES);
		stage_wait_seen(&stage, who, 0, STAGE_PAGES);
	}
	if (!private)
		stage_check_content(&stage);
	life_finish();
}

static void random_moments(bool urgent, bool private)
{
	unsigned rounds = getenv("POSTCOPY_TESTS_LONG") ? LONG_ROUNDS : ROUNDS;

	for (unsigned i = 0; i < rounds; i++)
		once(urgent, private);
	tap_note("of %u lives %u ended in the middle, %u at SHUT, %u complete", rounds, paused,
		 closing, complete);
	expect(paused > rounds / 4);
}

static void random_plain(void) { random_moments(false, false); }
static void random_urgent(void) { random_moments(true, false); }
static void random_private(void) { random_moments(true, true); }

static const struct fact facts[] = {
	{ "F59 killed before a page was placed: it is missing, its waiters come again",
	  shared_before },
	{ "F59 killed when it was placed: it is there", shared_placed },
	{ "F59 killed between its placement and the wakes: nobody sleeps on", shared_unwoken },
	{ "F59 the same of private memory: before", private_before },
	{ "F59 placed", private_placed },
	{ "F59 not woken", private_unwoken },
	{ "F59 faults that were read come again, all of them", read_and_forgotten },
	{ "F59 killed before the commit: refused, and the source hears it", before_the_commit },
	{ "F59 only SHUT was owed: said once, and complete", only_shut_was_owed },
	{ "F59 F61 killed at random moments, one lane", random_plain },
	{ "F59 F61 with an urgent lane", random_urgent },
	{ "F59 F61 of private memory", random_private },
};

int main(void)
{
	rng.state = rng_seed();
	facts_run(facts, ARRAY_LEN(facts));
	return tap_done();
}
