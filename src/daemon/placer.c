/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One placement against everything the kernel can answer.  What a rung cannot do now (EAGAIN, no
 * memory) or ever (its owner gone, its range not registered) the next may; only EEXIST is final,
 * since it is about the page, not about the way there.
 *
 * On hugetlbfs EEXIST has a second meaning, an empty pool of huge pages (tests/kernel/hugetlb.c):
 * taking one for the other would lose a page, or raise an alarm over nothing.  See exists().
 *
 * The order of the rungs is the caller's.  Mostly the first takes it, and a placement is one ioctl.
 */
#include "config.h"
#include "daemon/placer.h"

#include "sys/mem.h"

/* One call to the kernel: the next piece of the run, through one rung. */
static enum uffd_outcome call(struct placer *p, const struct placer_job *job, const struct placer_rung *r,
			      uint64_t done, struct uffd_result *result)
{
	uint64_t len = job->length - done;
	enum uffd_how how = job->data || !r->can_zero ? UFFD_COPY : UFFD_ZERO;
	const uint8_t *src = job->data ? job->data + done : p->zeroes;

	if (len > r->room - done)
		len = r->room - done;
	if (!job->data && how == UFFD_COPY)
		len = p->page_size;
	p->calls++;
	return uffd_place(p->ops, r->uffd, how, r->address + done, len, src, true, result);
}

/* Go on through one rung until the run is done or the kernel will not. */
static enum uffd_outcome climb(struct placer *p, const struct placer_job *job, const struct placer_rung *r,
			       uint64_t *done)
{
	enum uffd_outcome outcome = UFFD_UNMAPPED;

	while (*done < job->length && *done < r->room) {
		struct uffd_result result = { 0 };

		outcome = call(p, job, r, *done, &result);
		*done += result.done;
		if (outcome == UFFD_AGAIN)
			p->again++;
		/* A partial result resumes at the first byte not done; one that did nothing is for the next rung, or for later. */
		if (outcome != UFFD_DONE && !(outcome == UFFD_AGAIN && result.done > 0))
			return outcome;
	}
	return *done < job->length ? UFFD_UNMAPPED : UFFD_DONE;
}

/*
 * Of huge pages the kernel says EEXIST also when it has none left, which time may mend.  Not so for a page that is there: its
 * thread would wait for a pool that is as large as the guest, and so empty for good.
 */
static enum placer_outcome exists(const struct placer *p, const struct placer_job *job)
{
	return !job->answer && p->page_size > 4096 && mem_pool_empty(p->page_size) ? PLACER_RETRY : PLACER_EXISTS;
}

/**
 * placer_run - put the pages of one job where they belong
 * @p: statistics are counted; page_size is that of the job's block
 * @job: the ladder, in the order to try
 * @done: bytes placed
 * @used: the rung that placed the last of them, -1 when none did
 *
 * A run may end early at the end of a rung's mapping: RETRY with *done > 0, so that the caller can
 * tell what was placed through which rung.
 *
 * Return: enum placer_outcome.
 */
enum placer_outcome placer_run(struct placer *p, const struct placer_job *job, uint64_t *done, int *used)
{
	bool later = false;

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
			return exists(p, job);
		/* What was placed through this rung must be told apart from what goes through the next. */
		if (*done > before)
			return PLACER_RETRY;
		later |= outcome == UFFD_AGAIN || outcome == UFFD_NOMEM;
		p->fallbacks += i + 1 < job->n;
	}
	return later ? PLACER_RETRY : PLACER_NOWHERE;
}
