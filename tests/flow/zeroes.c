/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Zero pages, in a real session, on the fault thread's lane and on the bulk thread's.  (O2, O6, O9)
 *
 * In a file they stay holes until somebody touches them, and are placed then; what is no hole is an
 * alarm, as a placement would have found.  In private memory they are placed at once, in rows.
 */
#include "config.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/guard.h"
#include "facts.h"
#include "stage.h"
#include "sys/mem.h"
#include "sys/uffd.h"
#include "tap.h"

#define PAGE   4096
#define FIRST  STAGE_ROW_FIRST
#define ROW    STAGE_ROW_N
#define OTHERS (STAGE_PAGES - STAGE_ROW_N)	/* one in four of them is zero, too */

struct kernel {
	struct uffd_ops ops;
	const struct stage *stage;
	unsigned part;			/* rows that end behind their first page, with EAGAIN */
	_Atomic unsigned ended;
	_Atomic unsigned rows;		/* ZEROPAGEs of more than a page */
	_Atomic unsigned placed[STAGE_PAGES];
};

static int issue(void *ctx, int uffd, enum uffd_how how, uint64_t dst, uint64_t len,
		 const void *src, bool wake, int64_t *moved)
{
	struct kernel *k = ctx;
	unsigned page = stage_page_at(k->stage, uffd, dst);
	bool row = how == UFFD_ZERO && len > PAGE, end;
	int rc;

	expect(page < STAGE_PAGES);
	end = row && atomic_fetch_add(&k->rows, 1) < k->part;
	rc = uffd_kernel_ops.issue(NULL, uffd, how, dst, end ? PAGE : len, src, wake, moved);
	for (int64_t i = 0; how != UFFD_WAKE && i < *moved / PAGE; i++)
		atomic_fetch_add(&k->placed[page + i], 1);
	if (!end || rc != 0)
		return rc;
	atomic_fetch_add(&k->ended, 1);
	return -EAGAIN;
}

static void begin(struct stage *s, struct kernel *k, struct stage_options o)
{
	k->ops = (struct uffd_ops){ .issue = issue, .ctx = k };
	k->stage = s;
	o.ops = &k->ops;
	stage_open(s, &o);
}

static unsigned placed(const struct kernel *k, unsigned first, unsigned n)
{
	unsigned sum = 0;

	for (unsigned i = first; i < first + n; i++) {
		expect(atomic_load(&k->placed[i]) <= 1);
		sum += atomic_load(&k->placed[i]);
	}
	return sum;
}

/* To the end; whoever looks then, through whatever mapping, sees the source's memory. */
static void finish(struct stage *s)
{
	stage_end(s);
	stage_wait_shut(s);
	stage_wait_state(s, SESSION_COMPLETE);
	expect_eq(stage_look(s)->stats.alarms, 0);
	expect_eq(s->snapshot->owed_left, 0);
	if (!s->options.private)
		stage_check_content(s);
}

/* --- in a file -------------------------------------------------------------------------------- */

static uint64_t noted(const struct stage *s)
{
	return s->snapshot->stats.lane[LANE_MAIN].pages[HOW_NOTED];
}

/*
 * Nothing is placed, nothing is owed any more, and the file stays as sparse as the guest's memory.
 */
static void left_as_holes(bool bulk)
{
	struct kernel k = { 0 };
	struct stage s;
	uint64_t held;

	begin(&s, &k, (struct stage_options){ .urgent = bulk });
	stage_send(&s, false, FIRST, ROW);
	stage_wait_zero(&s, ROW);
	expect_eq(placed(&k, 0, STAGE_PAGES), 0);
	expect_eq(s.snapshot->owed_left, OTHERS);
	expect_eq(s.snapshot->block[0].missing, OTHERS);
	stage_send(&s, false, 0, FIRST);
	finish(&s);
	expect_eq(noted(&s), ROW + OTHERS / 4);
	expect_eq(placed(&k, 0, STAGE_PAGES), OTHERS - OTHERS / 4);
	expect_eq(mem_held(s.memfd, &held), 0);
	expect_eq(held, (uint64_t)(OTHERS - OTHERS / 4) * PAGE);
	stage_close(&s);
}

/* A page that is touched afterwards is placed, once, for all who touch it, and never asked for. */
static void placed_when_touched(bool bulk)
{
	struct kernel k = { 0 };
	struct stage s;

	begin(&s, &k, (struct stage_options){ .urgent = bulk });
	stage_send(&s, false, FIRST, ROW);
	stage_wait_zero(&s, ROW);
	for (unsigned who = 0; who < 2; who++)
		stage_touch(&s, who, FIRST + 10, 20);
	for (unsigned who = 0; who < 2; who++)
		stage_wait_seen(&s, who, FIRST + 10, 20);
	stage_wait_zero(&s, ROW - 20);
	expect_eq(placed(&k, FIRST, ROW), 20);
	expect_eq(placed(&k, FIRST + 10, 20), 20);
	stage_send(&s, false, 0, FIRST);
	finish(&s);
	expect_eq(noted(&s), ROW + OTHERS / 4);
	expect_eq(s.snapshot->stats.lane[LANE_STORE].pages[HOW_ZERO], 20);
	expect_eq(s.snapshot->stats.lane[LANE_MAIN].pages[HOW_ZERO], 0);
	expect_eq(s.n_requested, 0);
	stage_close(&s);
}

/* Somebody waits, or is about to: touches and zeroes meet in every order, and nobody sleeps on. */
static void touched_as_they_come(bool bulk)
{
	struct kernel k = { 0 };
	struct stage s;

	begin(&s, &k, (struct stage_options){ .urgent = bulk });
	for (unsigned i = 0; i < ROW; i += 4) {
		stage_touch(&s, i / 4 % 2, FIRST + i, 3);
		stage_send(&s, false, FIRST + i, 4);
		stage_touch(&s, 1 - i / 4 % 2, FIRST + i, 3);
	}
	for (unsigned i = 0; i < ROW; i += 4)
		for (unsigned who = 0; who < 2; who++)
			stage_wait_seen(&s, who, FIRST + i, 3);
	stage_wait_zero(&s, ROW / 4);
	expect_eq(placed(&k, FIRST, ROW), ROW - ROW / 4);
	stage_send(&s, false, 0, FIRST);
	finish(&s);
	expect_eq(s.n_requested_twice, 0);
	stage_close(&s);
}

/*
 * A device cannot fault: what it wants is placed, in rows, also where the kernel stops in the
 * middle of one.
 */
static void placed_for_a_device(bool bulk)
{
	struct kernel k = { .part = 3 };
	struct stage s;

	begin(&s, &k, (struct stage_options){ .urgent = bulk });
	stage_send(&s, false, FIRST, ROW);
	stage_wait_zero(&s, ROW);
	stage_want(&s, CLASS_PREFETCH, FIRST, ROW);
	stage_want(&s, CLASS_DMA, FIRST + 1, ROW - 1);
	stage_wait_zero(&s, 1);
	expect_eq(placed(&k, FIRST + 1, ROW - 1), ROW - 1);
	expect_eq(atomic_load(&k.placed[FIRST]), 0);
	expect_eq(atomic_load(&k.ended), 3);
	stage_send(&s, false, 0, FIRST);
	finish(&s);
	stage_close(&s);
}

/*
 * Somebody without a userfaultfd wrote there before the zeroes came: no hole, so nothing is noted,
 * and the kernel says EEXIST.
 */
static void written_by_a_stranger(bool bulk)
{
	static const char text[] = "not the source's";
	struct kernel k = { 0 };
	struct stage s;

	begin(&s, &k, (struct stage_options){ .urgent = bulk });
	expect_eq(pwrite(s.memfd, text, sizeof(text), (off_t)(FIRST + 5) * PAGE), sizeof(text));
	stage_send(&s, false, FIRST, ROW);
	stage_wait_state(&s, SESSION_PAUSED);
	expect_eq(stage_look(&s)->stats.alarms, 1);
	expect_eq(s.snapshot->block[0].unplaced, 1);
	expect(strstr(s.snapshot->reason, "memory integrity lost"));
	stage_hear(&s, 50);
	expect(!s.shut && !s.hung_up);
	stage_close(&s);
}

/* Somebody may wait for what was asked for; who asked need not be known any more. */
static void asked_for(void)
{
	struct kernel k = { 0 };
	struct stage s;

	begin(&s, &k, (struct stage_options){ 0 });
	stage_touch(&s, 1, FIRST + 5, 1);
	stage_wait_parked(&s, 1);
	stage_gone(&s, 1);
	stage_send(&s, false, FIRST, ROW);
	stage_wait_zero(&s, ROW - 1);
	expect_eq(placed(&k, FIRST, ROW), 1);
	stage_send(&s, false, 0, FIRST);
	finish(&s);
	stage_close(&s);
}

/* --- in private memory ------------------------------------------------------------------------ */

/* O6: placed in rows, as they come; one that the kernel ends early goes on behind what was done. */
static void placed_at_once(bool bulk)
{
	struct kernel k = { .part = 3 };
	struct stage s;

	begin(&s, &k, (struct stage_options){ .urgent = bulk, .private = true, .sharers = 1 });
	stage_send(&s, false, 0, STAGE_PAGES);
	finish(&s);
	expect_eq(placed(&k, 0, STAGE_PAGES), STAGE_PAGES);
	expect_eq(atomic_load(&k.ended), 3);
	stage_touch(&s, STAGE_MAIN, 0, STAGE_PAGES);
	stage_wait_seen(&s, STAGE_MAIN, 0, STAGE_PAGES);
	expect_eq(noted(&s), 0);
	stage_close(&s);
}

static void holes_main(void) { left_as_holes(false); }
static void holes_bulk(void) { left_as_holes(true); }
static void touched_main(void) { placed_when_touched(false); }
static void touched_bulk(void) { placed_when_touched(true); }
static void meet_main(void) { touched_as_they_come(false); }
static void meet_bulk(void) { touched_as_they_come(true); }
static void device_main(void) { placed_for_a_device(false); }
static void device_bulk(void) { placed_for_a_device(true); }
static void stranger_main(void) { written_by_a_stranger(false); }
static void stranger_bulk(void) { written_by_a_stranger(true); }
static void private_main(void) { placed_at_once(false); }
static void private_bulk(void) { placed_at_once(true); }

static const struct fact facts[] = {
	{ "O9 zeroes of a file stay holes, single lane", holes_main },
	{ "O9 zeroes of a file stay holes, bulk lane", holes_bulk },
	{ "O9 a hole is placed when it is touched, single lane", touched_main },
	{ "O9 a hole is placed when it is touched, bulk lane", touched_bulk },
	{ "O1 O9 zeroes and touches meet, single lane", meet_main },
	{ "O1 O9 zeroes and touches meet, bulk lane", meet_bulk },
	{ "O6 O9 a hole is placed when a device wants it, single lane", device_main },
	{ "O6 O9 a hole is placed when a device wants it, bulk lane", device_bulk },
	{ "O2 O9 no hole: alarm, held, no SHUT, single lane", stranger_main },
	{ "O2 O9 no hole: alarm, held, no SHUT, bulk lane", stranger_bulk },
	{ "O9 zeroes that were asked for are placed, also if their thread is gone", asked_for },
	{ "O6 O9 ZEROPAGE EAGAIN after n bytes: resumed there, private memory, single lane",
	  private_main },
	{ "O6 O9 ZEROPAGE EAGAIN after n bytes: resumed there, private memory, bulk lane",
	  private_bulk },
};

int main(void)
{
	facts_run(facts, ARRAY_LEN(facts));
	return tap_done();
}
