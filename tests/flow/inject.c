/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kernel's answers, made up: COPY, ZEROPAGE and WAKE each get EAGAIN, EEXIST, ESRCH, ENOENT and
 * ENOMEM in a real session, on the fault thread's lanes and on the bulk thread's.  (O2, O6, O13,
 * F06)
 *
 * Whatever the kernel says, these hold, and are checked in every case:
 *   - no page is placed twice, none is lost, none is asked for twice (O4);
 *   - a thread goes on only when its page is there, and sees the source's bytes, never zeroes for
 *     data;
 *   - SHUT(0) leaves only when everything owed is placed.
 */
#include "config.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/guard.h"
#include "facts.h"
#include "stage.h"
#include "sys/clock.h"
#include "sys/uffd.h"
#include "tap.h"

/*
 * Who waits for what.  Those of the second sharer are never placed through it: WAKE is needed for
 * each.
 */
#define BOTH_FIRST   0u
#define BOTH_N	     16u
#define SECOND_FIRST 16u
#define SECOND_N     8u
#define MAIN_FIRST   24u
#define MAIN_N	     8u
#define NOBODY_FIRST 32u
#define NOBODY_N     (STAGE_PAGES - NOBODY_FIRST)
#define PAGE	     4096
#define THREADS	     (2 * BOTH_N + SECOND_N + MAIN_N)

/* Sent last: who waits for these must be asleep until then. */
#define LATE_FIRST   6u
#define LATE_N	     2u

/* Where the made-up answers go. */
#define HIT_COPY     17u		/* second sharer only, data */
#define HIT_ZERO     19u		/* second sharer only, zero */

/* longer than a main sharer may take before it is passed over */
#define SLOW_US	     30000

static uint64_t seed;

struct rule {
	enum uffd_how how;
	int err;
	unsigned page;			/* STAGE_PAGES: any */
	unsigned skip, count;		/* calls that match: let some pass, then strike so often */
	bool there;			/* only pages that were placed before */
};

struct kernel {
	struct uffd_ops ops;
	struct stage *stage;
	struct rule rule;
	_Atomic unsigned matched, struck;
	_Atomic unsigned placed[STAGE_PAGES];
	_Atomic bool own[STAGE_PAGES];	/* through our own mapping: nobody is awake with it */
	/* the first page takes the main sharer's address space long */
	bool slow;
	unsigned storm;			/* of 100 placements so many fail */
	_Atomic uint64_t dice;
};

static bool strikes(struct kernel *k, enum uffd_how how, unsigned page)
{
	const struct rule *r = &k->rule;
	unsigned n;

	if (r->err == 0 || how != r->how || (r->page != STAGE_PAGES && page != r->page))
		return false;
	if (r->there && !atomic_load(&k->placed[page]))
		return false;
	n = atomic_fetch_add(&k->matched, 1);
	return n >= r->skip && n - r->skip < r->count;
}

/* A failure that time, or another address space, mends. */
static int storm_error(struct kernel *k, int uffd)
{
	static const int errors[] = { EAGAIN, ENOMEM, ESRCH, ENOENT };
	uint64_t dice = atomic_fetch_add(&k->dice, 0x9e3779b97f4a7c15ull);

	dice = (dice ^ dice >> 30) * 0xbf58476d1ce4e5b9ull;
	dice ^= dice >> 27;
	if (dice % 100 >= k->storm)
		return 0;
	/* our own mapping cannot die */
	return errors[dice / 100 % (uffd == k->stage->loop->own_uffd ? 2 : ARRAY_LEN(errors))];
}

static int issue(void *ctx, int uffd, enum uffd_how how, uint64_t dst, uint64_t len,
		 const void *src, bool wake, int64_t *moved)
{
	struct kernel *k = ctx;
	unsigned page = stage_page_at(k->stage, uffd, dst);
	int err = strikes(k, how, page) ? k->rule.err : 0, rc;

	expect(page < STAGE_PAGES);
	if (err == 0 && k->storm && how != UFFD_WAKE)
		err = storm_error(k, uffd);
	atomic_fetch_add(&k->struck, err != 0);
	if (err) {
		*moved = -err;
		return -err;
	}
	if (k->slow && how != UFFD_WAKE && page == 0 && uffd != k->stage->loop->own_uffd)
		usleep(SLOW_US);
	rc = uffd_kernel_ops.issue(NULL, uffd, how, dst, len, src, wake, moved);
	for (int64_t i = 0; how != UFFD_WAKE && i < *moved / PAGE; i++) {
		atomic_store(&k->own[page + i], uffd == k->stage->loop->own_uffd);
		atomic_fetch_add(&k->placed[page + i], 1);
	}
	return rc;
}

/* --- a session with such a kernel ------------------------------------------------------------- */

static void begin(struct stage *s, struct kernel *k, const struct rule *rule,
		  struct stage_options o)
{
	memset(k, 0, sizeof(*k));
	k->rule = *rule;
	k->ops = (struct uffd_ops){ .issue = issue, .ctx = k };
	k->stage = s;
	o.ops = &k->ops;
	stage_open(s, &o);
	stage_touch(s, STAGE_MAIN, BOTH_FIRST, BOTH_N);
	stage_touch(s, 1, BOTH_FIRST, BOTH_N);
	stage_touch(s, 1, SECOND_FIRST, SECOND_N);
	stage_touch(s, STAGE_MAIN, MAIN_FIRST, MAIN_N);
	stage_wait_parked(s, THREADS);
	/* One that faulted twice is counted twice: what they ask for is not. */
	while (s->n_requested < NOBODY_FIRST)
		stage_hear(s, 10);
}

/*
 * With an urgent lane, half of what both wait for comes there and the rest with the background, so
 * that the bulk thread places pages that somebody waits for, too.
 */
static void send_most(struct stage *s)
{
	stage_send(s, false, BOTH_FIRST, LATE_FIRST);
	stage_send(s, s->options.urgent, LATE_FIRST + LATE_N, BOTH_N - LATE_FIRST - LATE_N);
	stage_send(s, false, SECOND_FIRST, SECOND_N);
	stage_send(s, s->options.urgent, MAIN_FIRST, MAIN_N);
	stage_send(s, false, NOBODY_FIRST, NOBODY_N);
}

static void check_late_sleep(const struct stage *s)
{
	for (unsigned who = 0; who < s->options.sharers; who++)
		for (unsigned i = LATE_FIRST; i < LATE_FIRST + LATE_N; i++)
			expect(!stage_seen(s, who, i));
}

static void wait_most(struct stage *s)
{
	stage_wait_seen(s, STAGE_MAIN, BOTH_FIRST, LATE_FIRST);
	stage_wait_seen(s, STAGE_MAIN, LATE_FIRST + LATE_N, BOTH_N - LATE_FIRST - LATE_N);
	stage_wait_seen(s, STAGE_MAIN, MAIN_FIRST, MAIN_N);
	stage_wait_seen(s, 1, BOTH_FIRST, LATE_FIRST);
	stage_wait_seen(s, 1, LATE_FIRST + LATE_N, BOTH_N - LATE_FIRST - LATE_N);
	stage_wait_seen(s, 1, SECOND_FIRST, SECOND_N);
}

/* None twice; at the end all of them, but for zeroes that nobody touched: those stay holes. */
static void check_once(const struct kernel *k, bool end)
{
	for (unsigned i = 0; i < STAGE_PAGES; i++) {
		unsigned n = atomic_load(&k->placed[i]);
		unsigned want = k->stage->touched[i] || !stage_zero(i);

		if (n > 1 || (end && n != want))
			fact_failed(__FILE__, __LINE__, "page %u was placed %u times", i, n);
	}
}

/* The rest of a session that must succeed. */
static void finish(struct stage *s, const struct kernel *k)
{
	check_late_sleep(s);
	stage_send(s, s->options.urgent, LATE_FIRST, LATE_N);
	stage_wait_seen(s, STAGE_MAIN, LATE_FIRST, LATE_N);
	stage_wait_seen(s, 1, LATE_FIRST, LATE_N);
	expect(!s->shut);
	stage_end(s);
	stage_wait_shut(s);
	check_once(k, true);
	expect_eq(s->n_requested_twice, 0);
	expect_eq(s->n_requested, NOBODY_FIRST);
	stage_wait_state(s, SESSION_COMPLETE);
	expect_eq(stage_look(s)->stats.alarms, 0);
	expect_eq(s->snapshot->block[0].lost, 0);
	stage_check_content(s);
}

static void must_complete(const struct rule *rule, bool urgent, bool falls_back)
{
	struct kernel k;
	struct stage s;

	begin(&s, &k, rule, (struct stage_options){ .urgent = urgent });
	send_most(&s);
	wait_most(&s);
	finish(&s, &k);
	expect_eq(atomic_load(&k.struck), rule->count);
	expect(!falls_back || s.snapshot->stats.place_fallbacks > 0);
	expect(rule->err != EAGAIN || rule->how == UFFD_WAKE ||
	       s.snapshot->stats.again >= rule->count);
	stage_close(&s);
}

/* After the commit: held, the connection kept, nobody woken, nothing made of zeroes. */
static void check_held(struct stage *s, const struct kernel *k, unsigned page)
{
	stage_wait_state(s, SESSION_PAUSED);
	stage_hear(s, 50);
	expect(!s->shut && !s->hung_up);
	expect(stage_look(s)->owed_left > 0);
	expect_eq(s->snapshot->block[0].unplaced, 1);
	expect(s->snapshot->reason[0]);
	check_once(k, false);
	expect_eq(atomic_load(&k->placed[page]), 0);
	for (unsigned who = 0; who < s->options.sharers; who++)
		expect(!stage_seen(s, who, page));
}

static void must_halt(const struct rule *rule, bool urgent, unsigned alarms)
{
	struct kernel k;
	struct stage s;

	begin(&s, &k, rule, (struct stage_options){ .urgent = urgent });
	send_most(&s);
	check_held(&s, &k, rule->page);
	expect_eq(s.snapshot->stats.alarms, alarms);
	/* pages that are there go on being served: see what was placed before */
	for (unsigned who = 0; who < s.options.sharers; who++)
		for (unsigned i = 0; i < LATE_FIRST; i++)
			if (atomic_load(&k.placed[i]))
				stage_wait_seen(&s, who, i, 1);
	stage_close(&s);
}

/*
 * Before the commit the session is refused: the source sees its connection end, without PONG 0x42.
 */
static void must_refuse(const struct rule *rule)
{
	struct kernel k;
	struct stage s;

	begin(&s, &k, rule, (struct stage_options){ .commit_ping = true, .hold_loaded = true });
	stage_send(&s, false, SECOND_FIRST, SECOND_N);
	stage_wait_state(&s, SESSION_FAILED);
	for (int i = 0; i < 100 && !s.hung_up; i++)
		stage_hear(&s, 20);
	expect(s.hung_up && !s.shut);
	for (unsigned i = 0; i < s.n_pongs; i++)
		expect(s.pong[i] != QSTREAM_COMMIT_PING);
	stage_close(&s);
}

/* --- COPY and ZEROPAGE ------------------------------------------------------------------------ */

static struct rule hit(enum uffd_how how, int err, unsigned count)
{
	return (struct rule){ .how = how, .err = err, .count = count,
			      .page = how == UFFD_COPY ? HIT_COPY : HIT_ZERO };
}

/* O6: tried again after a while. */
static void again(enum uffd_how how, bool bulk)
{
	struct rule rule = hit(how, EAGAIN, 7);

	must_complete(&rule, bulk, false);
}

/* O2: content that nobody placed is an alarm, never taken for ours. */
static void exists(enum uffd_how how, bool bulk)
{
	struct rule rule = hit(how, EEXIST, 1);

	must_halt(&rule, bulk, 1);
}

/* The main sharer's address space will not: our own takes it. */
static void elsewhere(enum uffd_how how, int err, bool bulk)
{
	struct rule rule = hit(how, err, 1);

	must_complete(&rule, bulk, true);
}

/* None takes it: the page stays unplaced and its thread asleep. */
static void nowhere(enum uffd_how how, int err, bool bulk)
{
	struct rule rule = hit(how, err, 1000);

	must_halt(&rule, bulk, 0);
}

/* No memory in any address space, for a while. */
static void no_memory_for_a_while(enum uffd_how how, bool bulk)
{
	struct rule rule = hit(how, ENOMEM, 12);

	must_complete(&rule, bulk, true);
}

/* Many placements fail, at random, in all ways that can be mended. */
static void storm(bool bulk)
{
	struct kernel k;
	struct stage s;

	begin(&s, &k, &(struct rule){ 0 }, (struct stage_options){ .urgent = bulk });
	atomic_store(&k.dice, seed);
	k.storm = 40;
	send_most(&s);
	wait_most(&s);
	finish(&s, &k);
	expect(atomic_load(&k.struck) > 0);
	expect(s.snapshot->stats.place_fallbacks > 0 && s.snapshot->stats.again > 0);
	stage_close(&s);
}

/* --- WAKE ------------------------------------------------------------------------------------- */

/* A wake that was refused is said again: the thread would sleep for ever. */
static void wake_again(int err, bool bulk)
{
	must_complete(&(struct rule){ .how = UFFD_WAKE, .err = err, .page = STAGE_PAGES, .skip = 2,
				      .count = 5 }, bulk, false);
}

/*
 * The address space is gone: nobody is there to be woken, all others are, and the session ends
 * well.  Through whose address space the page goes is the fault thread's choice, which also a busy
 * machine makes for it: one that took the main sharer's wakes its thread without a WAKE, one that
 * took our own wakes nobody.
 */
static void wake_gone(int err, bool bulk, bool slow)
{
	struct kernel k;
	struct stage s;
	bool own;

	begin(&s, &k, &(struct rule){ .how = UFFD_WAKE, .err = err, .page = 1, .count = 1000 },
	      (struct stage_options){ .urgent = bulk });
	k.slow = slow;
	send_most(&s);
	stage_wait_seen(&s, 1, SECOND_FIRST, SECOND_N);
	stage_wait_seen(&s, STAGE_MAIN, MAIN_FIRST, MAIN_N);
	finish(&s, &k);
	own = atomic_load(&k.own[1]);
	expect(own || !slow);
	expect_eq(atomic_load(&k.struck), own ? 2 : 1);
	if (!own)
		stage_wait_seen(&s, STAGE_MAIN, 1, 1);
	expect_eq(stage_seen(&s, STAGE_MAIN, 1), !own);
	expect(!stage_seen(&s, 1, 1));
	stage_close(&s);
}

/* --- crowds ----------------------------------------------------------------------------------- */

static void begin_crowd(struct stage *s, struct kernel *k, const struct rule *rule,
			uint32_t max_waiters)
{
	memset(k, 0, sizeof(*k));
	k->rule = *rule;
	k->stage = s;
	k->ops = (struct uffd_ops){ .issue = issue, .ctx = k };
	stage_open(s, &(struct stage_options){ .sharers = STAGE_SHARERS, .max_waiters = max_waiters,
					       .ops = &k->ops });
	for (unsigned who = 0; who < STAGE_SHARERS; who++)
		stage_touch(s, who, STAGE_ROW_FIRST, STAGE_ROW_N);
}

static void finish_crowd(struct stage *s, const struct kernel *k)
{
	stage_send(s, false, 0, STAGE_ROW_FIRST);
	for (unsigned who = 0; who < STAGE_SHARERS; who++)
		stage_wait_seen(s, who, STAGE_ROW_FIRST, STAGE_ROW_N);
	stage_end(s);
	stage_wait_shut(s);
	check_once(k, true);
	expect_eq(s->n_requested_twice, 0);
	stage_close(s);
}

/* Everybody waits for every page of a row that comes in one run: far more wakes than placements. */
static void crowd_on_a_row(void)
{
	struct kernel k;
	struct stage s;

	begin_crowd(&s, &k, &(struct rule){ 0 }, STAGE_SHARERS * STAGE_ROW_N);
	stage_wait_parked(&s, STAGE_SHARERS * STAGE_ROW_N);
	stage_send(&s, false, STAGE_ROW_FIRST, STAGE_ROW_N);
	finish_crowd(&s, &k);
}

/*
 * Until a message that has no room waits in the kernel for each sharer, but for one that may have
 * all its threads parked.  Whoever has not faulted when its page comes never does.
 */
static void wait_for_messages(const struct stage *s)
{
	unsigned n = 0;

	for (uint64_t until = clock_ns() + STAGE_PATIENCE_MS * 1000000ull; n < STAGE_SHARERS - 1;) {
		expect(clock_ns() < until);
		n = 0;
		for (unsigned who = 0; who < STAGE_SHARERS; who++)
			n += poll(&(struct pollfd){ .fd = s->sharer[who].uffd, .events = POLLIN },
				  1, 0) == 1;
	}
}

/*
 * The waiters' table is full, so most messages are read when their pages are there already; and the
 * kernel wants each answer retried.  What is waiting to be retried is bounded.
 */
static void crowd_to_be_answered(void)
{
	struct kernel k;
	struct stage s;

	begin_crowd(&s, &k, &(struct rule){ .how = UFFD_ZERO, .err = EAGAIN, .page = STAGE_PAGES,
					    .there = true, .count = 2000 }, STAGE_ROW_N);
	stage_wait_parked(&s, STAGE_ROW_N);
	wait_for_messages(&s);
	stage_send(&s, false, STAGE_ROW_FIRST, STAGE_ROW_N);
	finish_crowd(&s, &k);
	expect(atomic_load(&k.struck) > 0);
}

/* --- forks ------------------------------------------------------------------------------------ */

/*
 * Its child sleeps on a page that is missing.  Given zeroes instead, it would make them
 * everybody's.
 */
static void forked_child_sleeps(void)
{
	struct kernel k = { 0 };
	struct stage s;

	k.ops = (struct uffd_ops){ .issue = issue, .ctx = &k };
	k.stage = &s;
	stage_open(&s, &(struct stage_options){ .uffd_features = UFFD_FEATURE_EVENT_FORK,
						.ops = &k.ops });
	for (unsigned i = 0; i < 3; i++)
		stage_fork(&s, 1, HIT_COPY + i);
	stage_touch(&s, 1, 0, 1);	/* the parent goes on */
	stage_wait_parked(&s, 1);
	usleep(100000);
	for (unsigned i = 0; i < 3; i++)
		expect(!stage_seen(&s, 1, HIT_COPY + i));
	stage_send(&s, false, 0, STAGE_PAGES);
	stage_wait_seen(&s, 1, 0, 1);
	stage_end(&s);
	stage_wait_shut(&s);
	stage_wait_state(&s, SESSION_COMPLETE);
	check_once(&k, true);
	stage_check_content(&s);
	stage_close(&s);
}

/* --- before the commit ----------------------------------------------------------------------- */

static void refused(enum uffd_how how, int err)
{
	struct rule rule = hit(how, err, 1000);

	must_refuse(&rule);
}

/* --- all of them ----------------------------------------------------------------------------- */

static void copy_eagain_main(void) { again(UFFD_COPY, false); }
static void copy_eexist_main(void) { exists(UFFD_COPY, false); }
static void copy_esrch_main(void) { elsewhere(UFFD_COPY, ESRCH, false); }
static void copy_esrch_nowhere_main(void) { nowhere(UFFD_COPY, ESRCH, false); }
static void copy_enoent_main(void) { elsewhere(UFFD_COPY, ENOENT, false); }
static void copy_enoent_nowhere_main(void) { nowhere(UFFD_COPY, ENOENT, false); }
static void copy_enomem_main(void) { elsewhere(UFFD_COPY, ENOMEM, false); }
static void copy_enomem_long_main(void) { no_memory_for_a_while(UFFD_COPY, false); }
static void zero_eagain_main(void) { again(UFFD_ZERO, false); }
static void zero_eexist_main(void) { exists(UFFD_ZERO, false); }
static void zero_esrch_main(void) { elsewhere(UFFD_ZERO, ESRCH, false); }
static void zero_esrch_nowhere_main(void) { nowhere(UFFD_ZERO, ESRCH, false); }
static void zero_enoent_main(void) { elsewhere(UFFD_ZERO, ENOENT, false); }
static void zero_enoent_nowhere_main(void) { nowhere(UFFD_ZERO, ENOENT, false); }
static void zero_enomem_main(void) { elsewhere(UFFD_ZERO, ENOMEM, false); }
static void zero_enomem_long_main(void) { no_memory_for_a_while(UFFD_ZERO, false); }
static void wake_eagain_main(void) { wake_again(EAGAIN, false); }
static void wake_enomem_main(void) { wake_again(ENOMEM, false); }
static void wake_eexist_main(void) { wake_again(EEXIST, false); }
static void wake_esrch_main(void) { wake_gone(ESRCH, false, false); }
static void wake_enoent_main(void) { wake_gone(ENOENT, false, false); }
static void wake_enoent_slow_main(void) { wake_gone(ENOENT, false, true); }
static void storm_main(void) { storm(false); }
static void copy_eagain_bulk(void) { again(UFFD_COPY, true); }
static void copy_eexist_bulk(void) { exists(UFFD_COPY, true); }
static void copy_esrch_bulk(void) { elsewhere(UFFD_COPY, ESRCH, true); }
static void copy_esrch_nowhere_bulk(void) { nowhere(UFFD_COPY, ESRCH, true); }
static void copy_enoent_bulk(void) { elsewhere(UFFD_COPY, ENOENT, true); }
static void copy_enoent_nowhere_bulk(void) { nowhere(UFFD_COPY, ENOENT, true); }
static void copy_enomem_bulk(void) { elsewhere(UFFD_COPY, ENOMEM, true); }
static void copy_enomem_long_bulk(void) { no_memory_for_a_while(UFFD_COPY, true); }
static void zero_eagain_bulk(void) { again(UFFD_ZERO, true); }
static void zero_eexist_bulk(void) { exists(UFFD_ZERO, true); }
static void zero_esrch_bulk(void) { elsewhere(UFFD_ZERO, ESRCH, true); }
static void zero_esrch_nowhere_bulk(void) { nowhere(UFFD_ZERO, ESRCH, true); }
static void zero_enoent_bulk(void) { elsewhere(UFFD_ZERO, ENOENT, true); }
static void zero_enoent_nowhere_bulk(void) { nowhere(UFFD_ZERO, ENOENT, true); }
static void zero_enomem_bulk(void) { elsewhere(UFFD_ZERO, ENOMEM, true); }
static void zero_enomem_long_bulk(void) { no_memory_for_a_while(UFFD_ZERO, true); }
static void wake_eagain_bulk(void) { wake_again(EAGAIN, true); }
static void wake_enomem_bulk(void) { wake_again(ENOMEM, true); }
static void wake_eexist_bulk(void) { wake_again(EEXIST, true); }
static void wake_esrch_bulk(void) { wake_gone(ESRCH, true, false); }
static void wake_enoent_bulk(void) { wake_gone(ENOENT, true, false); }
static void storm_bulk(void) { storm(true); }
static void copy_eexist_refused(void) { refused(UFFD_COPY, EEXIST); }
static void zero_esrch_refused(void) { refused(UFFD_ZERO, ESRCH); }

static const struct fact facts[] = {
	{ "O6 COPY EAGAIN: retried, single lane", copy_eagain_main },
	{ "O2 COPY EEXIST: alarm, held, no SHUT, single lane", copy_eexist_main },
	{ "O6 COPY ESRCH: through our own mapping, single lane", copy_esrch_main },
	{ "O2 COPY ESRCH everywhere: held, never zeroes, single lane", copy_esrch_nowhere_main },
	{ "O6 COPY ENOENT: through our own mapping, single lane", copy_enoent_main },
	{ "O2 COPY ENOENT everywhere: held, never zeroes, single lane", copy_enoent_nowhere_main },
	{ "F06 COPY ENOMEM: through another address space, single lane", copy_enomem_main },
	{ "F06 COPY ENOMEM everywhere: retried until there is memory, single lane", copy_enomem_long_main },
	{ "O6 ZEROPAGE EAGAIN: retried, single lane", zero_eagain_main },
	{ "O2 ZEROPAGE EEXIST: alarm, held, no SHUT, single lane", zero_eexist_main },
	{ "O6 ZEROPAGE ESRCH: through our own mapping, single lane", zero_esrch_main },
	{ "O2 ZEROPAGE ESRCH everywhere: held, never zeroes, single lane", zero_esrch_nowhere_main },
	{ "O6 ZEROPAGE ENOENT: through our own mapping, single lane", zero_enoent_main },
	{ "O2 ZEROPAGE ENOENT everywhere: held, never zeroes, single lane", zero_enoent_nowhere_main },
	{ "F06 ZEROPAGE ENOMEM: through another address space, single lane", zero_enomem_main },
	{ "F06 ZEROPAGE ENOMEM everywhere: retried until there is memory, single lane", zero_enomem_long_main },
	{ "O13 WAKE EAGAIN: said again, single lane", wake_eagain_main },
	{ "O13 WAKE ENOMEM: said again, single lane", wake_enomem_main },
	{ "O13 WAKE EEXIST: said again, single lane", wake_eexist_main },
	{ "O13 WAKE ESRCH: others are woken, single lane", wake_esrch_main },
	{ "O13 WAKE ENOENT: others are woken, single lane", wake_enoent_main },
	{ "O13 WAKE ENOENT behind a main sharer that was slow: both are said, others are woken, single lane",
	  wake_enoent_slow_main },
	{ "O2 O6 O13 four in ten placements fail: nothing lost, nothing twice, single lane", storm_main },
	{ "O6 COPY EAGAIN: retried, bulk lane", copy_eagain_bulk },
	{ "O2 COPY EEXIST: alarm, held, no SHUT, bulk lane", copy_eexist_bulk },
	{ "O6 COPY ESRCH: through our own mapping, bulk lane", copy_esrch_bulk },
	{ "O2 COPY ESRCH everywhere: held, never zeroes, bulk lane", copy_esrch_nowhere_bulk },
	{ "O6 COPY ENOENT: through our own mapping, bulk lane", copy_enoent_bulk },
	{ "O2 COPY ENOENT everywhere: held, never zeroes, bulk lane", copy_enoent_nowhere_bulk },
	{ "F06 COPY ENOMEM: through another address space, bulk lane", copy_enomem_bulk },
	{ "F06 COPY ENOMEM everywhere: retried until there is memory, bulk lane", copy_enomem_long_bulk },
	{ "O6 ZEROPAGE EAGAIN: retried, bulk lane", zero_eagain_bulk },
	{ "O2 ZEROPAGE EEXIST: alarm, held, no SHUT, bulk lane", zero_eexist_bulk },
	{ "O6 ZEROPAGE ESRCH: through our own mapping, bulk lane", zero_esrch_bulk },
	{ "O2 ZEROPAGE ESRCH everywhere: held, never zeroes, bulk lane", zero_esrch_nowhere_bulk },
	{ "O6 ZEROPAGE ENOENT: through our own mapping, bulk lane", zero_enoent_bulk },
	{ "O2 ZEROPAGE ENOENT everywhere: held, never zeroes, bulk lane", zero_enoent_nowhere_bulk },
	{ "F06 ZEROPAGE ENOMEM: through another address space, bulk lane", zero_enomem_bulk },
	{ "F06 ZEROPAGE ENOMEM everywhere: retried until there is memory, bulk lane", zero_enomem_long_bulk },
	{ "O13 WAKE EAGAIN: said again, bulk lane", wake_eagain_bulk },
	{ "O13 WAKE ENOMEM: said again, bulk lane", wake_enomem_bulk },
	{ "O13 WAKE EEXIST: said again, bulk lane", wake_eexist_bulk },
	{ "O13 WAKE ESRCH: others are woken, bulk lane", wake_esrch_bulk },
	{ "O13 WAKE ENOENT: others are woken, bulk lane", wake_enoent_bulk },
	{ "O2 O6 O13 four in ten placements fail: nothing lost, nothing twice, bulk lane", storm_bulk },
	{ "O2 COPY EEXIST before the commit: refused, no PONG 0x42", copy_eexist_refused },
	{ "O2 ZEROPAGE ESRCH everywhere before the commit: refused, no PONG 0x42", zero_esrch_refused },
	{ "O13 S1-39 twelve sharers wait for each page of one row", crowd_on_a_row },
	{ "O1 O3 a crowd to be answered while the kernel says EAGAIN", crowd_to_be_answered },
	{ "O11 S1-15 a sharer's forked child sleeps on what is missing", forked_child_sleeps },
};

int main(void)
{
	const char *text = getenv("POSTCOPY_TESTS_SEED");

	seed = text ? strtoull(text, NULL, 0) : (uint64_t)getpid() * 2654435761u;
	tap_note("seed %llu (POSTCOPY_TESTS_SEED)", (unsigned long long)seed);
	facts_run(facts, ARRAY_LEN(facts));
	return tap_done();
}
