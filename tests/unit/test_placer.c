/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The ladder of address spaces, with a kernel that answers as it is told: who is asked, in which
 * order, and what an answer means.  (O2, O3, O6, F10, S1-34)
 */
#include "config.h"
#include "daemon/placer.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "core/guard.h"

#define PAGE 4096ull
#define HUGE (1ull << 30)	/* a pool that holds nothing on any machine that runs this */

/* The answer to each call, by the rung (the descriptor is its number). */
struct kernel {
	struct uffd_ops ops;
	int err[PLACER_RUNGS];
	uint64_t limit[PLACER_RUNGS];	/* bytes a call may move, 0: all of them */
	int continued;			/* what CONTINUE says, to whichever rung */
	unsigned calls;
	int last;
	uint64_t last_dst;
	enum uffd_how last_how;
};

static int issue(void *ctx, int uffd, enum uffd_how how, uint64_t dst, uint64_t len,
		 const void *src, bool wake, int64_t *moved)
{
	struct kernel *k = ctx;

	(void)src;
	(void)wake;
	k->calls++;
	k->last = uffd;
	k->last_dst = dst;
	k->last_how = how;
	*moved = how == UFFD_CONTINUE ? -k->continued : -k->err[uffd];
	if (*moved)
		return (int)*moved;
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
		job.rung[i] = (struct placer_rung){ .uffd = (int)i,
						    .address = (i + 1ull) << 40,
						    .room = length,
						    .can_zero = true };
	return job;
}

/*
 * A pool as large as the guest is empty for good.  Who faulted on a page that is there would sleep
 * for ever if EEXIST meant "try again when there are huge pages".
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

/* The own mapping is the last rung, and knows what is in the file. */
static enum placer_outcome exists_of_a_huge_page(int continued, bool *dry)
{
	static const uint8_t data[PAGE];
	struct kernel k = { .err = { EEXIST, EEXIST }, .continued = continued };
	struct placer p = placer_of(&k, HUGE);
	struct placer_job job = job_of(2, HUGE, data);
	enum placer_outcome outcome;
	uint64_t done;
	int used;

	job.rung[0].is_sharer = true;
	outcome = placer_run(&p, &job, &done, &used);
	cr_assert_eq(k.calls, 2);
	cr_assert(k.last == 1 && k.last_how == UFFD_CONTINUE && k.last_dst == 2ull << 40);
	cr_assert_eq(done, 0);
	*dry = p.dry;
	return outcome;
}

/*
 * O2: a page that is there is an alarm, however empty the pool; an empty pool is none, however it
 * is said.
 */
Test(placer, O2_tells_a_huge_page_that_is_there_from_an_empty_pool)
{
	bool dry;

	cr_assert_eq(exists_of_a_huge_page(0, &dry), PLACER_EXISTS);
	cr_assert(!dry);
	cr_assert_eq(exists_of_a_huge_page(EEXIST, &dry), PLACER_EXISTS);
	cr_assert(!dry);
	cr_assert_eq(exists_of_a_huge_page(EFAULT, &dry), PLACER_RETRY);
	cr_assert(dry);
	/* an older kernel: the pool of 1 GiB pages, which holds nothing here, decides */
	cr_assert_eq(exists_of_a_huge_page(EINVAL, &dry), PLACER_RETRY);
	cr_assert(dry);
}

/* Private memory has no file: its owner's page table tells. */
Test(placer, O2_asks_the_page_table_of_private_memory)
{
	static uint8_t data[PAGE];
	uint8_t *page = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			     -1, 0);

	cr_assert(page != MAP_FAILED);
	*(volatile uint8_t *)page = 1;
	for (unsigned i = 0; i < 2; i++) {
		struct kernel k = { .err = { EEXIST } };
		struct placer p = placer_of(&k, HUGE);
		struct placer_job job = job_of(1, HUGE, data);
		uint64_t done;
		int used;

		job.rung[0].is_sharer = true;
		job.rung[0].pid = getpid();
		job.rung[0].address = (uintptr_t)page + i * PAGE;
		cr_assert_eq(placer_run(&p, &job, &done, &used),
			     i == 0 ? PLACER_EXISTS : PLACER_RETRY);
		cr_assert_eq(p.dry, i == 1);
		cr_assert_eq(k.calls, 1);
	}
	munmap(page, 2 * PAGE);
}

/* A kernel that says ENOMEM says the same. */
Test(placer, no_memory_for_a_huge_page_is_an_empty_pool)
{
	static const uint8_t data[PAGE];
	struct kernel k = { .err = { ENOMEM, ENOMEM } };
	struct placer p = placer_of(&k, HUGE);
	struct placer_job job = job_of(2, HUGE, data);
	uint64_t done;
	int used;

	cr_assert_eq(placer_run(&p, &job, &done, &used), PLACER_RETRY);
	cr_assert(p.dry);
	p.page_size = PAGE;
	job = job_of(2, PAGE, data);
	cr_assert_eq(placer_run(&p, &job, &done, &used), PLACER_RETRY);
	cr_assert(!p.dry);
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

/*
 * The rung that placed is the one whose sleepers are awake: a run is never told as one when two did
 * it.
 */
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
