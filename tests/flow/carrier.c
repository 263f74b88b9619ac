/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Through whose address space pages are placed in a real session: the main sharer's, our own
 * mapping where that will not do or is slow, another sharer's never.  (O13, O3; the theory in
 * daemon/perform.c, the kernel's side in tests/kernel/carrying.c)
 */
#include "config.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/guard.h"
#include "facts.h"
#include "stage.h"
#include "sys/clock.h"
#include "sys/uffd.h"
#include "tap.h"

#define PAGE	 4096u
#define OTHER	 1u
#define SLOW_MS	 12		/* more than the daemon puts up with */

enum { BY_MAIN, BY_OWN, BY_OTHER, BY_N };

struct kernel {
	struct uffd_ops ops;
	struct stage *stage;
	_Atomic unsigned placed[BY_N], wakes[STAGE_SHARERS];
	_Atomic unsigned last;		/* whose address space the last placement went through */
	_Atomic unsigned nap_ms;	/* what goes through the main sharer takes so long */
	/* the main sharer's address space is: who goes in stays there */
	_Atomic bool locked;
	/* every second page goes through who waits for it: the other sharer */
	bool old_way;
};

static unsigned carrier_of(const struct stage *s, int uffd)
{
	if (uffd == s->loop->own_uffd)
		return BY_OWN;
	return uffd == s->loop->roster.member[OTHER].uffd ? BY_OTHER : BY_MAIN;
}

static bool the_old_way(const struct kernel *k, unsigned page)
{
	return k->old_way && page % 4 == 0;
}

static int issue(void *ctx, int uffd, enum uffd_how how, uint64_t dst, uint64_t len,
		 const void *src, bool wake, int64_t *moved)
{
	struct kernel *k = ctx;
	unsigned page = stage_page_at(k->stage, uffd, dst), by = carrier_of(k->stage, uffd);
	int64_t ignored;
	int ret;

	if (how == UFFD_WAKE) {
		atomic_fetch_add(&k->wakes[by == BY_OTHER ? OTHER : STAGE_MAIN], 1);
		return uffd_kernel_ops.issue(NULL, uffd, how, dst, len, src, wake, moved);
	}
	atomic_fetch_add(&k->placed[by], 1);
	atomic_store(&k->last, by);
	if (by == BY_MAIN && atomic_load(&k->nap_ms))
		usleep(1000 * atomic_load(&k->nap_ms));
	while (by == BY_MAIN && atomic_load(&k->locked))
		usleep(1000);
	if (!the_old_way(k, page))
		return uffd_kernel_ops.issue(NULL, uffd, how, dst, len, src, wake, moved);
	ret = uffd_kernel_ops.issue(NULL, k->stage->sharer[OTHER].uffd, how,
				    k->stage->sharer[OTHER].address + (uint64_t)page * PAGE, len,
				    src, wake, moved);
	/* the daemon believes that it woke who sleeps there */
	uffd_kernel_ops.issue(NULL, uffd, UFFD_WAKE, dst, len, NULL, true, &ignored);
	return ret;
}

static void begin(struct stage *s, struct kernel *k, struct stage_options o)
{
	memset(k, 0, sizeof(*k));
	k->ops = (struct uffd_ops){ .issue = issue, .ctx = k };
	k->stage = s;
	o.ops = &k->ops;
	stage_open(s, &o);
}

static void wait_complete(struct stage *s)
{
	stage_end(s);
	stage_wait_shut(s);
	stage_wait_state(s, SESSION_COMPLETE);
	stage_check_content(s);
	expect_eq(s->n_requested_twice, 0);
}

static void end(struct stage *s)
{
	wait_complete(s);
	stage_close(s);
}

static uint64_t own_until(const struct stage *s)
{
	return __atomic_load_n(&s->loop->stall.own_until, __ATOMIC_RELAXED);
}

/* --- who carries ------------------------------------------------------------------------------ */

#define ROW   16u
#define TRIES 20u

/*
 * Each waits alone for a row of pages, and both for a third.  False, and nothing was found out,
 * where the machine was so busy that a placement through the main sharer took long by itself, and
 * it was passed over as it is to be.
 */
static bool main_carries_once(bool urgent)
{
	struct kernel k;
	struct stage s;
	bool was_slow;

	begin(&s, &k, (struct stage_options){ .urgent = urgent });
	stage_touch(&s, OTHER, 0, 2 * ROW);
	stage_wait_parked(&s, 2 * ROW);
	stage_touch(&s, STAGE_MAIN, ROW, 2 * ROW);
	stage_wait_parked(&s, 4 * ROW);
	stage_send(&s, urgent, 0, 3 * ROW);
	stage_send(&s, false, 3 * ROW, STAGE_PAGES - 3 * ROW);
	stage_wait_seen(&s, OTHER, 0, 2 * ROW);
	stage_wait_seen(&s, STAGE_MAIN, ROW, 2 * ROW);
	expect_eq(atomic_load(&k.placed[BY_OTHER]), 0);
	wait_complete(&s);
	was_slow = own_until(&s) != 0;
	stage_close(&s);
	if (was_slow)
		return false;
	expect(atomic_load(&k.placed[BY_MAIN]) >= 3 * ROW);
	expect_eq(atomic_load(&k.placed[BY_OTHER]), 0);
	expect_eq(atomic_load(&k.placed[BY_OWN]), 0);
	/* the main sharer's threads were awake with their pages */
	expect_eq(atomic_load(&k.wakes[OTHER]), 2 * ROW);
	expect_eq(atomic_load(&k.wakes[STAGE_MAIN]), 0);
	return true;
}

static void main_carries(bool urgent)
{
	unsigned n = 0;

	while (!main_carries_once(urgent))
		expect(++n < TRIES);
}

static void main_carries_single(void)
{
	main_carries(false);
}

static void main_carries_urgent(void)
{
	main_carries(true);
}

/* Messages that are read when their page is there already: no room for more waiters before. */
static void answers_ask_nobody_else(void)
{
	struct kernel k;
	struct stage s;

	begin(&s, &k, (struct stage_options){ .max_waiters = 1 });
	stage_touch(&s, OTHER, 0, ROW);
	stage_touch(&s, STAGE_MAIN, 0, ROW);
	stage_wait_parked(&s, 1);
	/* Whoever has not faulted when its page comes never does. */
	for (unsigned who = 0; who < 2; who++)
		expect_eq(poll(&(struct pollfd){ .fd = s.sharer[who].uffd, .events = POLLIN }, 1,
			       STAGE_PATIENCE_MS),
			  1);
	stage_send(&s, false, 0, STAGE_PAGES);
	stage_wait_seen(&s, OTHER, 0, ROW);
	stage_wait_seen(&s, STAGE_MAIN, 0, ROW);
	expect(stage_look(&s)->sharer[OTHER].stats.present > 0);
	expect_eq(atomic_load(&k.placed[BY_OTHER]), 0);
	end(&s);
}

/* Without a main sharer, in a session that goes on, our own mapping is what is left. */
static void own_carries_without_main(void)
{
	struct kernel k;
	struct stage s;

	begin(&s, &k, (struct stage_options){ 0 });
	stage_gone(&s, STAGE_MAIN);
	stage_touch(&s, OTHER, 0, ROW);
	stage_wait_parked(&s, ROW);
	stage_send(&s, false, 0, STAGE_PAGES);
	stage_wait_seen(&s, OTHER, 0, ROW);
	expect_eq(atomic_load(&k.placed[BY_MAIN]), 0);
	expect_eq(atomic_load(&k.placed[BY_OTHER]), 0);
	expect(atomic_load(&k.placed[BY_OWN]) >= ROW);
	expect_eq(atomic_load(&k.wakes[OTHER]), ROW);
	end(&s);
}

/* --- who is slow ------------------------------------------------------------------------------ */

static void fault(struct stage *s, unsigned who, unsigned page)
{
	stage_touch(s, who, page, 1);
	stage_wait_parked(s, 1);
	stage_send(s, false, page, 1);
	stage_wait_seen(s, who, page, 1);
}

/*
 * Until no placement of before, which a busy machine may have made slow as well, has the main
 * sharer passed over.
 */
static void wait_for_main(const struct stage *s)
{
	while (clock_ns() < own_until(s))
		usleep(10000);
}

/*
 * One placement through the main sharer was slow: not again for a hundred times as long, and then
 * again.
 */
static void slow_main_is_passed_over(void)
{
	unsigned page = 0, passed = 0;
	uint64_t last_until, until;
	struct kernel k;
	struct stage s;

	begin(&s, &k, (struct stage_options){ 0 });
	fault(&s, OTHER, page++);
	expect_eq(atomic_load(&k.last), BY_MAIN);
	wait_for_main(&s);
	last_until = own_until(&s);
	atomic_store(&k.nap_ms, SLOW_MS);
	fault(&s, OTHER, page++);
	expect_eq(atomic_load(&k.last), BY_MAIN);
	/* The thread was awake before the daemon had looked at the clock. */
	for (uint64_t give_up = clock_ns() + STAGE_PATIENCE_MS * 1000000ull;
	     (until = own_until(&s)) == last_until;)
		expect(clock_ns() < give_up);
	for (; page < ROW; page++) {
		fault(&s, page % 2 ? OTHER : STAGE_MAIN, page);
		expect(clock_ns() >= until || atomic_load(&k.last) == BY_OWN);
		passed += atomic_load(&k.last) == BY_OWN;
	}
	expect(passed > 0);
	atomic_store(&k.nap_ms, 0);
	wait_for_main(&s);
	fault(&s, OTHER, page++);
	expect_eq(atomic_load(&k.last), BY_MAIN);
	stage_send(&s, false, page, STAGE_PAGES - page);
	end(&s);
}

/*
 * The same for the background stream: of a row of pages one took long, and the rest went elsewhere.
 */
static void slow_main_is_passed_over_by_the_bulk_lane(void)
{
	struct kernel k;
	struct stage s;

	begin(&s, &k, (struct stage_options){ .urgent = true });
	atomic_store(&k.nap_ms, SLOW_MS);
	stage_send(&s, false, 0, STAGE_PAGES);
	end(&s);
	tap_note(
		"of the stream's pages %u went through a main sharer that takes %u ms, %u through our own mapping",
		atomic_load(&k.placed[BY_MAIN]), SLOW_MS, atomic_load(&k.placed[BY_OWN]));
	expect_eq(atomic_load(&k.placed[BY_MAIN]), 1);
	expect(atomic_load(&k.placed[BY_OWN]) >= STAGE_ROW_FIRST / 2);
}

static void wait_placed(struct kernel *k, unsigned by, unsigned n)
{
	for (uint64_t until = clock_ns() + STAGE_PATIENCE_MS * 1000000ull;
	     atomic_load(&k->placed[by]) < n; usleep(200))
		expect(clock_ns() < until);
}

/*
 * The bulk thread is held up in a main sharer that is locked: who faults meanwhile, elsewhere, is
 * served as if it were not.
 */
static void locked_main_holds_no_urgent_page_up(void)
{
	uint64_t before, took = 0;
	struct kernel k;
	struct stage s;

	begin(&s, &k, (struct stage_options){ .urgent = true });
	atomic_store(&k.locked, true);
	stage_send(&s, false, 0, 1);
	wait_placed(&k, BY_MAIN, 1);
	usleep(2000 * SLOW_MS);
	for (unsigned page = 1; page < ROW; page++) {
		stage_touch(&s, OTHER, page, 1);
		stage_wait_parked(&s, 1);
		before = clock_ns();
		stage_send(&s, true, page, 1);
		stage_wait_seen(&s, OTHER, page, 1);
		took += clock_ns() - before;
		expect_eq(atomic_load(&k.last), BY_OWN);
	}
	tap_note("beside a locked main sharer a page took %.1f us on the urgent lane",
		 (double)took / 1000 / (ROW - 1));
	expect_eq(atomic_load(&k.placed[BY_MAIN]), 1);
	atomic_store(&k.locked, false);
	stage_send(&s, false, ROW, STAGE_PAGES - ROW);
	end(&s);
}

/* The fault thread is: then the background stream goes on. */
static void locked_main_holds_no_stream_up(void)
{
	struct kernel k;
	struct stage s;

	begin(&s, &k, (struct stage_options){ .urgent = true });
	stage_touch(&s, OTHER, 0, 1);
	stage_wait_parked(&s, 1);
	atomic_store(&k.locked, true);
	stage_send(&s, true, 0, 1);
	wait_placed(&k, BY_MAIN, 1);
	usleep(2000 * SLOW_MS);
	stage_send(&s, false, 1, STAGE_ROW_FIRST - 1);
	wait_placed(&k, BY_OWN, STAGE_ROW_FIRST / 2);
	expect_eq(atomic_load(&k.placed[BY_MAIN]), 1);
	expect(!stage_seen(&s, OTHER, 0));
	atomic_store(&k.locked, false);
	stage_wait_seen(&s, OTHER, 0, 1);
	stage_send(&s, false, STAGE_ROW_FIRST, STAGE_ROW_N);
	end(&s);
}

/* --- what a stall costs the others ------------------------------------------------------------ */

#define SAMPLES 16u
#define TIMES	3		/* at the least; measured: some hundreds */

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/*
 * Three in four take no longer.  Not the median: on a busy machine who forks may not come to it for
 * a while.
 */
static uint64_t most(uint64_t *ns)
{
	qsort(ns, SAMPLES, sizeof(*ns), compare);
	return ns[SAMPLES * 3 / 4];
}

/*
 * Both wait for the page, who forks first; how long does the main sharer wait from when the page
 * was sent?
 */
static uint64_t wait_of_main(struct stage *s, unsigned page)
{
	uint64_t before, now;

	stage_touch(s, OTHER, page, 1);
	stage_wait_parked(s, 1);
	stage_touch(s, STAGE_MAIN, page, 1);
	stage_wait_parked(s, 2);
	before = clock_ns();
	stage_send(s, false, page, 1);
	while (!stage_seen(s, STAGE_MAIN, page) &&
	       clock_ns() - before < STAGE_PATIENCE_MS * 1000000ull)
		usleep(20);
	now = clock_ns();
	stage_wait_seen(s, STAGE_MAIN, page, 1);
	stage_wait_seen(s, OTHER, page, 1);
	return now - before;
}

static void who_forks_delays_nobody_else(void)
{
	uint64_t old_way[SAMPLES], now[SAMPLES], through_it, through_main;
	struct kernel k;
	struct stage s;

	begin(&s, &k, (struct stage_options){ .forks = OTHER });
	k.old_way = true;
	for (unsigned i = 0; i < SAMPLES; i++) {
		old_way[i] = wait_of_main(&s, 4 * i);
		now[i] = wait_of_main(&s, 4 * i + 1);
	}
	through_it = most(old_way);
	through_main = most(now);
	tap_note(
		"the main sharer's wait for a page, three in four: %.1f us placed through who forks and waited first, %.1f us as it is",
		(double)through_it / 1000, (double)through_main / 1000);
	expect(through_it > TIMES * through_main);
	k.old_way = false;
	stage_send(&s, false, 0, STAGE_PAGES);
	end(&s);
}

#define LATE_FIRST 16u
#define LATE_N	   8u

/*
 * A sharer whose mappings are still to be told has faulted: it waits, and nothing is held against
 * it.
 */
static void faults_before_its_mappings_are_known(void)
{
	struct stage s;

	stage_open(&s, &(struct stage_options){ .late_map = true });
	stage_touch(&s, 1, LATE_FIRST, LATE_N);
	stage_touch(&s, STAGE_MAIN, LATE_FIRST + LATE_N, 1);
	stage_wait_parked(&s, 1);
	usleep(20000);
	expect_eq(stage_look(&s)->sharer[1].state, SHARER_ACTIVE);
	stage_map(&s, 1);
	stage_wait_parked(&s, 1 + LATE_N);
	stage_send_last(&s, 0, STAGE_PAGES);
	stage_wait_seen(&s, 1, LATE_FIRST, LATE_N);
	stage_wait_shut(&s);
	stage_check_content(&s);
	stage_close(&s);
}

static const struct fact facts[] = {
	{ "O13 the main sharer carries, whoever waits, single lane", main_carries_single },
	{ "O13 the main sharer carries, whoever waits, urgent lane", main_carries_urgent },
	{ "O3 an answer is placed through nobody else either", answers_ask_nobody_else },
	{ "O6 our own mapping carries when the main sharer is gone", own_carries_without_main },
	{ "a slow main sharer is passed over for a hundred times as long",
	  slow_main_is_passed_over },
	{ "a slow main sharer is passed over by the bulk lane, too",
	  slow_main_is_passed_over_by_the_bulk_lane },
	{ "the bulk lane is held up in a locked main sharer, and no urgent page is",
	  locked_main_holds_no_urgent_page_up },
	{ "the fault thread is held up in a locked main sharer, and the stream is not",
	  locked_main_holds_no_stream_up },
	{ "P25 a sharer faults before its mappings are known: it waits",
	  faults_before_its_mappings_are_known },
	{ "a sharer that keeps forking delays nobody else's faults", who_forks_delays_nobody_else },
};

/* The last compares times, and a fork() that TSan has its own part in is of another length. */
#ifdef __has_feature
#if __has_feature(thread_sanitizer)
#define N_FACTS (ARRAY_LEN(facts) - 1)
#endif
#endif
#ifndef N_FACTS
#define N_FACTS ARRAY_LEN(facts)
#endif

int main(void)
{
	facts_run(facts, N_FACTS);
	return tap_done();
}
