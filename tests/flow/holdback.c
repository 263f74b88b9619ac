/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The background stream rests while nobody can use it, never longer than it may, and never in front
 * of who waits.  (O5, O8, F65)
 */
#include "config.h"

#include <stdlib.h>

#include "core/guard.h"
#include "daemon/lane.h"
#include "facts.h"
#include "stage.h"
#include "sys/clock.h"
#include "tap.h"

#define LONG_MS 600000u			/* nothing ends it but what ought to */
#define LOOKS	50			/* turns of the fault thread, in which it would have read */
#define FEW	16u			/* pages: they fit the socket */

static void wait_owed(struct stage *s, uint64_t pages)
{
	uint64_t until = clock_ns() + STAGE_PATIENCE_MS * 1000000ull;

	while (stage_look(s)->owed_left != pages) {
		if (clock_ns() > until)
			fact_failed(__FILE__, __LINE__, "%llu owed, not %llu",
				    (unsigned long long)s->snapshot->owed_left,
				    (unsigned long long)pages);
		stage_hear(s, 1);
	}
}

static void expect_rest(struct stage *s, enum session_state state, uint64_t owed)
{
	for (unsigned i = 0; i < LOOKS; i++)
		expect_eq(stage_look(s)->owed_left, owed);
	expect_eq(s->snapshot->state, state);
}

/*
 * Nothing of the background is placed, until somebody waits: his page may be anywhere in it.  With
 * what he waited for it rests again, also when the VMM has loaded: it goes on for good when the VM
 * faults.
 */
static void rests_while_loading(bool urgent)
{
	uint64_t owed = STAGE_PAGES;
	struct stage s;

	stage_open(&s, &(struct stage_options){
			       .urgent = urgent, .hold_loaded = true, .calm_ms = LONG_MS });
	stage_send(&s, false, 0, FEW);
	expect_rest(&s, SESSION_LOADING, owed);
	stage_touch(&s, 1, FEW, 1);
	wait_owed(&s, owed -= FEW);
	stage_send(&s, urgent, FEW, 1);
	stage_wait_seen(&s, 1, FEW, 1);
	wait_owed(&s, owed -= 1);
	stage_send(&s, false, FEW + 1, FEW);
	expect_rest(&s, SESSION_LOADING, owed);
	stage_loaded(&s);
	expect_rest(&s, SESSION_RUNNING, owed);
	stage_touch(&s, STAGE_MAIN, 2 * FEW, 1);
	wait_owed(&s, owed -= FEW);
	stage_send_last(&s, 2 * FEW + 1, STAGE_PAGES - 2 * FEW - 1);
	stage_wait_shut(&s);
	stage_check_content(&s);
	stage_close(&s);
}

static void rests_while_loading_main(void) { rests_while_loading(false); }
static void rests_while_loading_bulk(void) { rests_while_loading(true); }

/*
 * What is wanted ahead of need is asked for, too: the VMM may load nothing before it is here.
 */
static void a_wish_ends_the_rest(void)
{
	uint64_t until = clock_ns() + STAGE_PATIENCE_MS * 1000000ull;
	struct stage s;

	stage_open(&s, &(struct stage_options){ .hold_loaded = true, .calm_ms = LONG_MS });
	stage_send(&s, false, 0, FEW);
	expect_rest(&s, SESSION_LOADING, STAGE_PAGES);
	stage_want(&s, CLASS_DMA, 4, 2);
	while (stage_look(&s)->owed_left > STAGE_PAGES - 6)
		expect(clock_ns() < until);
	stage_close(&s);
}

/* Until the source has our answer that commits, which nobody here reads, its stream goes on. */
static void goes_on_while_it_answers(void)
{
	uint64_t until = clock_ns() + STAGE_PATIENCE_MS * 1000000ull;
	struct stage s;

	stage_open(&s, &(struct stage_options){
			       .commit_ping = true, .hold_loaded = true, .calm_ms = LONG_MS });
	stage_send(&s, false, 0, FEW);
	expect_rest(&s, SESSION_LOADING, STAGE_PAGES);
	stage_loaded(&s);
	while (stage_look(&s)->owed_left != STAGE_PAGES - FEW)
		expect(clock_ns() < until);
	expect_eq(s.snapshot->running_told, false);
	stage_close(&s);
}

/* A VMM that takes its time gets its pages meanwhile. */
static void goes_on_by_itself(bool urgent)
{
	struct stage s;

	stage_open(&s, &(struct stage_options){
			       .urgent = urgent, .hold_loaded = true, .calm_ms = 1 });
	stage_send(&s, false, 0, FEW);
	wait_owed(&s, STAGE_PAGES - FEW);
	expect_eq(s.snapshot->state, SESSION_LOADING);
	stage_close(&s);
}

static void goes_on_by_itself_main(void) { goes_on_by_itself(false); }
static void goes_on_by_itself_bulk(void) { goes_on_by_itself(true); }

/* While the lane stands still: some of it, then nothing; and all when that takes long. */
static void reads_no_further_ahead(void)
{
	static const enum snapshot_need needs[] = { NEED_BLOCKS, NEED_ARM };
	struct faultloop *f = calloc(1, sizeof(*f));
	size_t all, some;

	expect(f && mem_ring_init(&f->main.in, LANE_BUFFER) == 0);
	all = holdback_room(f, &f->main);
	expect_eq(all, LANE_BUFFER);
	expect_eq(holdback_wait(f), -1);
	f->options.calm_ms = LONG_MS;
	for (unsigned i = 0; i < 2; i++) {
		f->need = needs[i];
		f->times.need = clock_ns();
		some = holdback_room(f, &f->main);
		expect(some > 0 && some < all);
		f->main.in.tail += some;
		expect_eq(holdback_room(f, &f->main), 0);
		expect(holdback_wait(f) > 0 && !holdback_rests(f));
		f->urgent.id = LANE_URGENT;
		f->urgent.in = f->main.in;
		expect(holdback_room(f, &f->urgent) > 0);
		f->times.need = clock_ns() - LONG_MS * 1000000ull;
		expect_eq(holdback_room(f, &f->main), all - some);
		expect_eq(holdback_wait(f), -1);
		f->main.in.head = f->main.in.tail;
	}
	mem_ring_deinit(&f->main.in);
	free(f);
}

static const struct fact facts[] = {
	{ "O8 until the VM goes on the background rests, single lane", rests_while_loading_main },
	{ "O8 until the VM goes on the background rests, with an urgent lane",
	  rests_while_loading_bulk },
	{ "O5 it does not rest while something is wanted", a_wish_ends_the_rest },
	{ "O8 it does not rest while our answer is on its way", goes_on_while_it_answers },
	{ "O8 a VMM that loads for long: it goes on, single lane", goes_on_by_itself_main },
	{ "O8 a VMM that loads for long: it goes on, with an urgent lane",
	  goes_on_by_itself_bulk },
	{ "O5 while the lane stands still little is read ahead, for a while",
	  reads_no_further_ahead },
};

int main(void)
{
	facts_run(facts, ARRAY_LEN(facts));
	return tap_done();
}
