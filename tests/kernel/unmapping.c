/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The end of a mapping whose pages are missing, and what a userfaultfd may be closed behind (O11):
 * once nothing that was registered through it is mapped, and nobody is asleep on it, its last
 * close is noticed by nobody, and no page becomes a zero by it.  (daemon/door_orphan.c)
 *
 * Who was asleep in such a mapping sleeps on, and so is never waited for by munmap(), nor counted
 * out by it; a close would send it into an address that is nobody's.
 */
#include "config.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "scene.h"
#include "sys/maps.h"
#include "sys/uffd.h"
#include "tap.h"

#define PAGES 4
#define LEN   (PAGES * PAGE)
#define KILLED 0x1000		/* what act_try() returns for a SIGSEGV */

static _Thread_local sigjmp_buf back;

static void on_segv(int sig)
{
	siglongjmp(back, sig);
}

static int act_try(uint8_t *page)
{
	return sigsetjmp(back, 1) ? KILLED : act_load(page);
}

/* The kernel reads it: what write() says, and the byte when it is written. */
static int act_write(uint8_t *page)
{
	int ends[2];
	uint8_t byte;

	expect_eq(pipe(ends), 0);
	if (write(ends[1], page, 1) < 0)
		return -errno;
	expect_eq(read(ends[0], &byte, 1), 1);
	return byte;
}

static unsigned asleep_on(int uffd)
{
	unsigned n = 12345;

	expect_eq(uffd_waiting(uffd, &n), 0);
	return n;
}

static void unmap(uint8_t *p, uint64_t len)
{
	expect_eq(munmap(p, len), 0);
}

static uint8_t *map_at(uint8_t *p, int file)
{
	void *to = mmap(p, LEN, PROT_READ | PROT_WRITE, MAP_SHARED | (p ? MAP_FIXED : 0), file, 0);

	expect(to != MAP_FAILED);
	return to;
}

/* No page of the file has come to be. */
static void expect_hole(int file)
{
	expect_eq(lseek(file, 0, SEEK_DATA), -1);
	expect_eq(errno, ENXIO);
}

struct arena {
	int uffd, file;
	uint8_t *p;
};

static struct arena arena(void)
{
	const struct sigaction act = { .sa_handler = on_segv };
	struct arena a = { .uffd = k_uffd(0) };

	expect_eq(sigaction(SIGSEGV, &act, NULL), 0);
	a.p = k_map(SHMEM, PAGES, &a.file);
	expect_eq(k_register(a.uffd, at(a.p), LEN, NULL), 0);
	return a;
}

/* One who waits for the first page; his message is read. */
static struct arena arena_with(struct actor *who, int (*act)(uint8_t *page))
{
	struct arena a = arena();

	actor_start(who, act, a.p);
	expect_eq(k_fault(a.uffd), at(a.p));
	actor_asleep(who);
	return a;
}

static void the_sleeper_sleeps_on(void)
{
	struct actor who;
	struct arena a = arena_with(&who, act_try);

	unmap(a.p, LEN);
	actor_asleep(&who);
	k_quiet(a.uffd);
	expect_eq(k_copy(a.uffd, at(a.p), k_source(0x11, 1), PAGE, 0).err, ENOENT);
	actor_asleep(&who);
	expect_eq(k_wake(a.uffd, at(a.p), PAGE), 0);
	expect_eq(actor_result(&who), KILLED);
	expect_hole(a.file);
}

static void closing_sends_him_into_nothing(void)
{
	struct actor who;
	struct arena a = arena_with(&who, act_try);

	unmap(a.p, LEN);
	close(a.uffd);
	expect_eq(actor_result(&who), KILLED);
	expect_hole(a.file);
}

static void closing_fails_the_kernels_access(void)
{
	struct actor who;
	struct arena a = arena_with(&who, act_write);

	unmap(a.p, LEN);
	actor_asleep(&who);
	close(a.uffd);
	expect_eq(actor_result(&who), -EFAULT);
	expect_hole(a.file);
}

/* The place is used again, by a mapping of another userfaultfd: that is where he waits then. */
static void closing_sends_him_to_who_has_the_place(void)
{
	int second = k_uffd(0);
	struct actor who;
	struct arena a = arena_with(&who, act_try);

	unmap(a.p, LEN);
	map_at(a.p, a.file);
	expect_eq(k_register(second, at(a.p), LEN, NULL), 0);
	actor_asleep(&who);
	k_quiet(second);
	close(a.uffd);
	expect_eq(k_fault(second), at(a.p));
	expect_hole(a.file);
	expect_eq(k_copy(second, at(a.p), k_source(0x11, 1), PAGE, 0).err, 0);
	expect_eq(actor_result(&who), 0x11);
}

/* So what is found there later is not the first one's, unless it is registered once more. */
static void the_place_inherits_nothing(void)
{
	struct arena a = arena();

	unmap(a.p, LEN);
	map_at(a.p, a.file);
	expect_eq(maps_released(getpid(), at(a.p), at(a.p) + LEN), 1);
	expect_eq(k_register(k_uffd(0), at(a.p), LEN, NULL), 0);
	expect_eq(k_register(a.uffd, at(a.p), LEN, NULL), EBUSY);
}

/* A second mapping of the same pages, with a userfaultfd of its own, in the same process. */
static void another_mapping_is_not_touched(void)
{
	int second = k_uffd(0);
	struct actor who;
	struct arena a = arena();
	uint8_t *p = map_at(NULL, a.file);

	expect_eq(k_register(second, at(p), LEN, NULL), 0);
	actor_start(&who, act_try, p);
	expect_eq(k_fault(second), at(p));
	unmap(a.p, LEN);
	close(a.uffd);
	actor_asleep(&who);
	k_quiet(second);
	expect_eq(asleep_on(second), 1);
	expect_hole(a.file);
	expect_eq(k_copy(second, at(p), k_source(0x11, 1), PAGE, 0).err, 0);
	expect_eq(actor_result(&who), 0x11);
}

static void the_rest_still_waits(void)
{
	struct actor who;
	struct arena a = arena();

	unmap(a.p + PAGE, LEN - 2 * PAGE);
	expect_eq(maps_released(getpid(), at(a.p), at(a.p) + LEN), 0);
	actor_start(&who, act_try, a.p + LEN - PAGE);
	expect_eq(k_fault(a.uffd), at(a.p + LEN - PAGE));
	actor_asleep(&who);
	/* Closed now, it would be a zero, and everybody's. */
	close(a.uffd);
	expect_eq(actor_result(&who), 0);
	expect_eq(lseek(a.file, 0, SEEK_DATA), LEN - PAGE);
}

static void fdinfo_counts_them(void)
{
	struct actor first, second;
	struct arena a = arena();
	int dup_of = dup(a.uffd);

	expect_eq(asleep_on(a.uffd), 0);
	actor_start(&first, act_try, a.p);
	expect_eq(k_fault(a.uffd), at(a.p));
	expect_eq(asleep_on(a.uffd), 1);
	actor_start(&second, act_write, a.p + PAGE);
	/* Unread, it is one all the same. */
	while (asleep_on(dup_of) < 2)
		poll(NULL, 0, 1);
	unmap(a.p, LEN);
	expect_eq(asleep_on(dup_of), 2);
	expect_eq(k_wake(a.uffd, at(a.p), PAGE), 0);
	expect_eq(actor_result(&first), KILLED);
	expect_eq(asleep_on(dup_of), 1);
	expect_eq(k_wake(a.uffd, at(a.p), LEN), 0);
	expect_eq(actor_result(&second), -EFAULT);
	expect_eq(asleep_on(dup_of), 0);
}

static void closed_behind_the_last_it_is_silent(void)
{
	struct actor who;
	struct arena a = arena_with(&who, act_try);

	expect_eq(k_copy(a.uffd, at(a.p), k_source(0x11, 1), PAGE, 0).err, 0);
	expect_eq(actor_result(&who), 0x11);
	unmap(a.p, LEN);
	expect_eq(asleep_on(a.uffd), 0);
	close(a.uffd);
	expect_eq(lseek(a.file, 0, SEEK_HOLE), PAGE);
	expect_eq(lseek(a.file, PAGE, SEEK_DATA), -1);
}

/* The first thread's, which is what /proc/PID shows, while the process lives on in another. */
static int act_look_at_leader(uint8_t *page)
{
	struct maps_vma *vma = NULL, here;

	expect_eq(maps_at((int)syscall(SYS_gettid), at(page), &here), 1);
	while (maps_wait(getpid()) == 0)
		poll(NULL, 0, 1);
	expect_eq(maps_wait(getpid()), -ENODATA);
	expect_eq(maps_of_file(getpid(), here.dev, here.inode, &vma), 0);
	expect_eq(act_load(page), 0x77);
	_exit(0);
}

static void a_leader_that_ended_shows_nothing(void)
{
	static struct actor who;
	uint8_t *p = k_map(SHMEM, 1, NULL);

	expect_eq(act_store(p), 0);
	actor_start(&who, act_look_at_leader, p);
	pthread_exit(NULL);
}

static const struct fact facts[] = {
	{ "O11: unmapped under a sleeper: he sleeps on, COPY is ENOENT; woken, SIGSEGV",
	  the_sleeper_sleeps_on },
	{ "O11: unmapped, then closed: a sleeper has SIGSEGV, no page is made",
	  closing_sends_him_into_nothing },
	{ "O11: the same for an access of the kernel: EFAULT", closing_fails_the_kernels_access },
	{ "O11: the place registered anew: closed, he faults there once more",
	  closing_sends_him_to_who_has_the_place },
	{ "O11: a place that is mapped anew is not registered, nor the first one's",
	  the_place_inherits_nothing },
	{ "O11: another mapping of the same pages waits for its own userfaultfd only",
	  another_mapping_is_not_touched },
	{ "O11: what is left of a mapping still waits, and still turns into zeroes",
	  the_rest_still_waits },
	{ "O11: fdinfo counts sleepers, read or not, mapped or not", fdinfo_counts_them },
	{ "O11: closed with nothing mapped and nobody asleep: nothing happens",
	  closed_behind_the_last_it_is_silent },
	{ "O11: a process whose first thread has ended shows no mappings, and has them",
	  a_leader_that_ended_shows_nothing },
};

int main(void)
{
	facts_run(facts, ARRAY_LEN(facts));
	return tap_done();
}
