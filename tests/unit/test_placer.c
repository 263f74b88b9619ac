/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The ladder of address spaces, with a kernel that answers as it is told: who is asked, in which order, and what an answer
 * means.  (O2, O3, O6, F10, S1-34)
 */
#include "config.h"
#include "daemon/placer.h"

#include <errno.h>

#include <criterion/criterion.h>

#include "core/guard.h"

#define PAGE 4096ull
#define HUGE (1ull << 30)	/* a pool that holds nothing on any machine that runs this */

/* The answer to each call, by the rung (the descriptor is its number). */
struct kernel {
	struct uffd_ops ops;
	int err[PLACER_RUNGS];
	uint64_t limit[PLACER_RUNGS];	/* bytes a call may move, 0: all of them */
	unsigned calls;
	int last;
	uint64_t last_dst;
	enum uffd_how last_how;
};

static int issue(void *ctx, int uffd, enum uffd_how how, uint64_t dst, uint64_t len, const void *src, bool wake,
		 int64_t *moved)
{
	struct kernel *k = ctx;

	(void)src;
	(void)wake;
	k->calls++;
	k->last = uffd;
	k->last_dst = dst;
	k->last_how = how;
	*moved = -k->err[uffd];
	if (k->err[uffd])
		return -k->err[uffd];
	*moved = (int64_t)(k->limit[uffd] && k->limit[uffd] < len ? k->limit[uffd] : len);
	return (uint64_t)*moved < len ? -EAGAIN : 0;
}

static struct placer placer_of(struct kernel *k, uint64_t page_size)
{
	static const uint8_t zeroes[PAGE];

	k->ops = (struct uffd_ops){ .issue = issue, .ctx = k };
	return (struct placer){ .ops = &k->ops, .zeroes = zeroes, .page_size = page_size };
}

static struct placer_job job_of(unsigned rungs, uint64_t length, const uint8_t *data)
{
	struct placer_job job = { .data = data, .length = length, .n = rungs };

	for (unsigned i = 0; i < rungs; i++)
		job.rung[i] = (struct placer_rung){ .uffd = (int)i, .address = (i + 1ull) << 40, .room = length,
						    .can_zero = true };
	return job;
}

/*
 * A pool as large as the guest is empty for good.  Who faulted on a page that is there would sleep for ever if EEXIST meant
 * "try again when there are huge pages".
 */
Test(placer, answers_for_a_huge_page_that_is_there)
{
	struct kernel k = { .err = { EEXIST } };
	struct placer p = placer_of(&k, HUGE);
	struct placer_job job = job_of(1, HUGE, NULL);
	uint64_t done;
	int used;

	job.answer = true;
	cr_assert_eq(placer_run(&p, &job, &done, &used), PLACER_EXISTS);
	cr_assert_eq(k.calls, 1);
}

Test(placer, takes_exists_of_a_small_page_at_its_word)
{
	static const uint8_t data[PAGE];
	struct kernel k = { .err = { EEXIST } };
	struct placer p = placer_of(&k, PAGE);
	struct placer_job job = job_of(2, PAGE, data);
	uint64_t done;
	int used;

	cr_assert_eq(placer_run(&p, &job, &done, &used), PLACER_EXISTS);
	cr_assert_eq(k.calls, 1, "no other address space is asked about a page that is there");
	cr_assert_eq(used, -1);
}

Test(placer, goes_on_through_the_next_address_space)
{
	static const int errors[] = { ESRCH, ENOENT, ENOMEM, EINVAL, EAGAIN };
	static const uint8_t data[PAGE];

	for (size_t i = 0; i < ARRAY_LEN(errors); i++) {
		struct kernel k = { .err = { errors[i], 0 } };
		struct placer p = placer_of(&k, PAGE);
		struct placer_job job = job_of(2, PAGE, data);
		uint64_t done;
		int used;

		cr_assert_eq(placer_run(&p, &job, &done, &used), PLACER_DONE);
		cr_assert_eq(used, 1);
		cr_assert_eq(k.last_dst, 2ull << 40);
	}
}

/* The rung that placed is the one whose sleepers are awake: a run is never told as one when two did it. */
Test(placer, ends_a_run_where_another_rung_must_go_on)
{
	struct kernel k = { .limit = { 2 * PAGE } };
	struct placer p = placer_of(&k, PAGE);
	struct placer_job job = job_of(2, 4 * PAGE, NULL);
	uint64_t done;
	int used;

	job.rung[0].room = 3 * PAGE;
	cr_assert_eq(placer_run(&p, &job, &done, &used), PLACER_RETRY);
	cr_assert_eq(done, 3 * PAGE, "a partial answer resumes at the first byte not done");
	cr_assert_eq(used, 0);
	cr_assert_eq(k.last, 0);
	cr_assert_eq(k.last_dst, (1ull << 40) + 2 * PAGE);
}

Test(placer, says_nowhere_only_when_time_does_not_help)
{
	static const uint8_t data[PAGE];
	struct kernel gone = { .err = { ESRCH, ENOENT } }, full = { .err = { ESRCH, ENOMEM } };
	struct placer_job job = job_of(2, PAGE, data);
	struct placer p = placer_of(&gone, PAGE);
	uint64_t done;
	int used;

	cr_assert_eq(placer_run(&p, &job, &done, &used), PLACER_NOWHERE);
	p = placer_of(&full, PAGE);
	cr_assert_eq(placer_run(&p, &job, &done, &used), PLACER_RETRY);
	cr_assert_eq(done, 0);
}

/* S1-34: a range without ZEROPAGE gets the zero slot, a page at a time. */
Test(placer, copies_zeroes_where_the_range_has_no_zeropage)
{
	struct kernel k = { 0 };
	struct placer p = placer_of(&k, PAGE);
	struct placer_job job = job_of(1, 3 * PAGE, NULL);
	uint64_t done;
	int used;

	job.rung[0].can_zero = false;
	cr_assert_eq(placer_run(&p, &job, &done, &used), PLACER_DONE);
	cr_assert_eq(done, 3 * PAGE);
	cr_assert_eq(k.calls, 3);
	cr_assert_eq(k.last_how, UFFD_COPY);
}
