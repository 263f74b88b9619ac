/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One placement against everything the kernel can answer.  What a rung cannot do now (EAGAIN, no
 * memory) or ever (its owner gone, its range not registered) the next may; only EEXIST is final,
 * since it is about the page, not about the way there.
 *
 * On hugetlbfs EEXIST has a second meaning, an empty pool of huge pages (tests/kernel/hugetlb.c):
 * taking one for the other would lose a page, or raise an alarm over nothing.  See exists().
 * Whoever waits for the pool is told (`dry'), so that it can be seen.
 *
 * The order of the rungs is the caller's, but that a main sharer that is held up comes last
 * (stall.c).  Mostly the first takes it, and a placement is one ioctl.
 */
#include "config.h"
#include "daemon/placer.h"

#include <errno.h>

#include "sys/clock.h"
#include "sys/mem.h"

/* One call to the kernel: the next piece of the run, through one rung. */
static enum uffd_outcome call(struct placer *p, const struct placer_job *job,
			      const struct placer_rung *r, uint64_t done,
			      struct uffd_result *result)
{
	uint64_t len = job->length - done;
	enum uffd_how how = job->data || !r->can_zero ? UFFD_COPY : UFFD_ZERO;
	const uint8_t *src = job->data ? job->data + done : p->zeroes;

	if (len > r->room - done)
		len = r->room - done;
	if (!job->data && how == UFFD_COPY)
		len = p->page_size;
	p->calls++;
	if (__builtin_expect(p->faults != NULL, false))
		return inject_place(p,
				    &(struct placer_call){ how, r->uffd, r->address + done, len,
							   job->page + done / p->page_size, src },
				    result);
	return uffd_place(p->ops, r->uffd, how, r->address + done, len, src, true, result);
}

/* Go on through one rung until the run is done or the kernel will not. */
static enum uffd_outcome climb(struct placer *p, const struct placer_job *job,
			       const struct placer_rung *r, uint64_t *done)
{
	enum uffd_outcome outcome = UFFD_UNMAPPED;

	while (*done < job->length && *done < r->room) {
		struct uffd_result result = { 0 };

		outcome = call(p, job, r, *done, &result);
		*done += result.done;
		if (outcome == UFFD_AGAIN)
			p->again++;
		/*
		 * A partial result resumes at the first byte not done; one that did nothing is for
		 * the next rung, or for later.
		 */
		if (outcome != UFFD_DONE && !(outcome == UFFD_AGAIN && result.done > 0))
			return outcome;
	}
	return *done < job->length ? UFFD_UNMAPPED : UFFD_DONE;
}

/* Is a huge page there, through this rung?  1, 0, or -1: it cannot be told. */
static int is_there(struct placer *p, const struct placer_rung *r, uint64_t at)
{
	struct uffd_result result = { 0 };
	enum uffd_outcome outcome;
	int mapped;

	if (r->is_sharer) {
		mapped = r->pid ? mem_mapped(r->pid, r->address + at) : -1;
		return mapped < 0 ? -1 : mapped;
	}
	p->calls++;
	outcome = uffd_place(p->ops, r->uffd, UFFD_CONTINUE, r->address + at, p->page_size, NULL,
			     false, &result);
	if (outcome == UFFD_DONE || outcome == UFFD_EXISTS)
		return 1;
	return result.err == EFAULT ? 0 : -1;
}

/*
 * Of huge pages the kernel says EEXIST also when it has none left, which time may mend; a page that
 * is there and that nobody placed is an alarm, however empty the pool: one that is as large as the
 * guest is empty for good.
 *
 * Our own mapping asks the file; a private block has none of those, and the one page table that
 * counts.  Where neither can be asked, the pool's numbers decide.
 */
static enum placer_outcome exists(struct placer *p, const struct placer_job *job, uint64_t at)
{
	unsigned i = 0;
	int there;

	if (job->answer || p->page_size <= 4096)
		return PLACER_EXISTS;
	while (i + 1 < job->n && job->rung[i].is_sharer)
		i++;
	there = is_there(p, &job->rung[i], at);
	p->dry = there < 0 ? mem_pool_empty(p->page_size) : !there;
	return p->dry ? PLACER_RETRY : PLACER_EXISTS;
}

static enum placer_outcome run(struct placer *p, const struct placer_job *job, uint64_t *done,
			       int *used)
{
	bool later = false;

	p->dry = false;
	*done = 0;
	*used = -1;
	for (unsigned i = 0; i < job->n; i++) {
		uint64_t before = *done;
		enum uffd_outcome outcome = climb(p, job, &job->rung[i], done);

		if (*done > before)
			*used = (int)i;
		if (outcome == UFFD_DONE)
			return PLACER_DONE;
		if (outcome == UFFD_EXISTS)
			return exists(p, job, *done);
		/*
		 * What was placed through this rung must be told apart from what goes through the
		 * next.
		 */
		if (*done > before)
			return PLACER_RETRY;
		later |= outcome == UFFD_AGAIN || outcome == UFFD_NOMEM;
		p->dry |= outcome == UFFD_NOMEM && p->page_size > 4096;
		p->fallbacks += i + 1 < job->n;
	}
	return later ? PLACER_RETRY : PLACER_NOWHERE;
}

/* Whoever is held up in the main sharer's address space has company nowhere else. */
static bool goes_through_main(struct placer *p, struct placer_job *job)
{
	struct placer_rung main = job->rung[0];

	if (!p->stall || job->n != 2 || !main.is_sharer)
		return false;
	if (!stall_passes(p->stall, p->now))
		return true;
	job->rung[0] = job->rung[1];
	job->rung[1] = main;
	return false;
}

/**
 * placer_run - put the pages of one job where they belong
 * @p: statistics are counted; page_size is that of the job's block
 * @job: the ladder, in the order to try; the other way round afterwards when the main sharer was
 * passed over
 * @done: bytes placed
 * @used: the rung that placed the last of them, -1 when none did
 *
 * A run may end early at the end of a rung's mapping: RETRY with *done > 0, so that the caller can
 * tell what was placed through which rung.
 *
 * Return: enum placer_outcome.
 */
enum placer_outcome placer_run(struct placer *p, struct placer_job *job, uint64_t *done, int *used)
{
	uint64_t before = p->now = p->now ? p->now : clock_ns();
	bool through_main = goes_through_main(p, job);
	enum placer_outcome outcome;

	if (through_main)
		stall_enter(p->stall, p->thread, before, job->length);
	outcome = run(p, job, done, used);
	p->now = clock_ns();
	if (through_main)
		stall_leave(p->stall, p->thread, before, p->now);
	return outcome;
}
