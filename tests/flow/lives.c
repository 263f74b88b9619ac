/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "lives.h"

#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "facts.h"
#include "sys/clock.h"
#include "sys/uffd.h"

#define PAGE 4096u

struct stage stage;
struct life *life;

static bool dies_at(uint64_t page, enum life_when when)
{
	return page == LIFE_ENDS && atomic_load(&life->when) == when;
}

static void die(void)
{
	kill(getpid(), SIGKILL);
	pause();
}

/* Placements are counted, page by page, and one of them is the last thing that is done. */
static int issue(void *ctx, int uffd, enum uffd_how how, uint64_t dst, uint64_t len,
		 const void *src, bool wake, int64_t *moved)
{
	uint64_t first = stage_page_at(&stage, uffd, dst);
	int ret;

	(void)ctx;
	if (how != UFFD_COPY && how != UFFD_ZERO)
		return uffd_kernel_ops.issue(NULL, uffd, how, dst, len, src, wake, moved);
	if (dies_at(first, DIES_BEFORE))
		die();
	wake &= !dies_at(first, DIES_UNWOKEN);
	ret = uffd_kernel_ops.issue(NULL, uffd, how, dst, len, src, wake, moved);
	for (uint64_t done = 0; first < STAGE_PAGES && *moved > 0 && done < (uint64_t)*moved;
	     done += PAGE)
		atomic_fetch_add(&life->copies[first + done / PAGE], 1);
	if (dies_at(first, DIES_BEHIND) || dies_at(first, DIES_UNWOKEN))
		die();
	return ret;
}

static const struct uffd_ops ops = { .issue = issue };

/* --- the first life --------------------------------------------------------------------------- */

static struct life *new_life(void)
{
	void *at = mmap(NULL, sizeof(*life), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			-1, 0);

	expect(at != MAP_FAILED);
	return at;
}

void life_prepare(const struct stage_options *o)
{
	struct stage_options options = *o;

	life = new_life();
	options.kept = true;
	options.ops = &ops;
	stage_prepare(&stage, &options);
}

/* A daemon in a process of its own, which then does @what until it is killed. */
pid_t life_first(void (*what)(void))
{
	pid_t pid = fact_fork();

	if (pid)
		return pid;
	stage_begin(&stage);
	atomic_store(&life->running, true);
	what();
	atomic_store(&life->waits, true);
	for (;;)
		pause();
}

void life_until(const _Atomic bool *what)
{
	uint64_t end = clock_ns() + STAGE_PATIENCE_MS * 1000000ull;

	while (!atomic_load(what)) {
		expect(clock_ns() < end);
		usleep(200);
	}
}

void life_is_over(pid_t pid)
{
	int status;

	expect_eq(waitpid(pid, &status, 0), pid);
	expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

void life_end(pid_t pid)
{
	kill(pid, SIGKILL);
	life_is_over(pid);
	atomic_store(&life->when, DIES_NEVER);
}

void life_idle(void) {}

/* --- what the second life says ---------------------------------------------------------------- */

unsigned life_seen(unsigned who, unsigned first, unsigned n)
{
	unsigned seen = 0;

	for (unsigned i = first; i < first + n; i++)
		seen += stage_seen(&stage, who, i);
	return seen;
}

/* Whoever touched a page has seen what is right, or waits, and is known to. */
void life_wait_settled(unsigned first, unsigned n)
{
	uint64_t end = clock_ns() + STAGE_PATIENCE_MS * 1000000ull;
	unsigned seen, parked;

	do {
		seen = 0;
		parked = (unsigned)stage_look(&stage)->faults_in_flight;
		for (unsigned who = 0; who < stage.options.sharers; who++)
			seen += life_seen(who, first, n);
		if (clock_ns() > end)
			fact_failed(__FILE__, __LINE__, "%u have seen their page, %u wait, of %u",
				    seen, parked, n * stage.options.sharers);
		usleep(500);
	} while (seen + parked != n * stage.options.sharers);
	for (unsigned who = 0; who < stage.options.sharers; who++)
		for (unsigned i = first; i < first + n; i++)
			if (stage_seen(&stage, who, i))
				stage_wait_seen(&stage, who, i, 1);
}

void life_expect_paused(uint64_t missing)
{
	const struct snapshot *s = stage_look(&stage);

	expect_eq(s->state, SESSION_PAUSED);
	expect(!s->held && s->committed && s->running_told);
	expect(strstr(s->reason, "the service was restarted in state running"));
	expect_eq(s->owed_left, missing);
	expect_eq(s->block[0].missing, missing);
	expect_eq(s->owed, STAGE_PAGES);
}

static void no_page_twice(void)
{
	for (unsigned i = 0; i < STAGE_PAGES; i++)
		if (atomic_load(&life->copies[i]) > 1)
			fact_failed(__FILE__, __LINE__, "page %u was placed %u times", i,
				    life->copies[i]);
}

void life_finish(void)
{
	no_page_twice();
	stage_close(&stage);
	munmap(life, sizeof(*life));
}
