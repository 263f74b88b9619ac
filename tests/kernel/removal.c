/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A sharer that asked for EVENT_REMOVE (a VMM with a balloon) and what its unread events do to
 * placements (O6, O12, peers.md 9); and the other events that change what is mapped.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "scene.h"
#include "tap.h"

static int act_dontneed(uint8_t *page)
{
	return madvise(page, PAGE, MADV_DONTNEED) < 0 ? errno : 0;
}

static int act_remove(uint8_t *page)
{
	return madvise(page, PAGE, MADV_REMOVE) < 0 ? errno : 0;
}

static uint8_t *arena(enum kind kind, uint64_t features, int *uffd, int *fd)
{
	uint8_t *p = k_map(kind, 4, fd);

	*uffd = k_uffd(features);
	expect_eq(k_register(*uffd, at(p), 4 * PAGE, NULL), 0);
	expect_eq(k_zero(*uffd, at(p), 2 * PAGE, 0).err, 0);
	return p;
}

static void expect_remove(int uffd, const uint8_t *page)
{
	struct uffd_msg m = k_event(uffd);

	expect_eq(m.event, UFFD_EVENT_REMOVE);
	expect_eq(m.arg.remove.start, at(page));
	expect_eq(m.arg.remove.end, at(page) + PAGE);
}

/* The remover waits until its event is read, and no longer. */
static void remove_waits_for_the_reader(void)
{
	int uffd;
	uint8_t *p = arena(ANON, UFFD_FEATURE_EVENT_REMOVE, &uffd, NULL);
	struct actor a;

	actor_start(&a, act_dontneed, p);
	actor_asleep(&a);
	expect_remove(uffd, p);
	expect_eq(actor_result(&a), 0);
	actor_start(&a, act_load, p);
	expect_eq(k_fault(uffd), at(p));
	expect_eq(k_zero(uffd, at(p), PAGE, 0).err, 0);
	expect_eq(actor_result(&a), 0);
}

/* O6: EAGAIN with nothing placed, for any page of that address space, until the event is read. */
static void unread_remove_makes_eagain(void)
{
	uint8_t *src = k_source(0x11, 1);
	int uffd;
	uint8_t *p = arena(ANON, UFFD_FEATURE_EVENT_REMOVE, &uffd, NULL);
	struct moved m;
	struct actor a;

	actor_start(&a, act_dontneed, p);
	actor_asleep(&a);
	m = k_copy(uffd, at(p + 3 * PAGE), src, PAGE, 0);
	expect_eq(m.err, EAGAIN);
	expect_eq(m.field, -EAGAIN);
	m = k_zero(uffd, at(p + 3 * PAGE), PAGE, 0);
	expect_eq(m.err, EAGAIN);
	expect_eq(m.field, -EAGAIN);
	expect_eq(k_wake(uffd, at(p + 3 * PAGE), PAGE), 0);
	expect_remove(uffd, p);
	expect_eq(actor_result(&a), 0);
	expect_eq(k_copy(uffd, at(p + 3 * PAGE), src, PAGE, 0).err, 0);
}

/* O12: the order of one read is not the order of events. */
static void faults_are_read_before_removes(void)
{
	int uffd;
	uint8_t *p = arena(ANON, UFFD_FEATURE_EVENT_REMOVE, &uffd, NULL);
	struct uffd_msg m[4];
	struct actor first, second;

	actor_start(&first, act_dontneed, p);
	actor_asleep(&first);
	actor_start(&second, act_load, p + 3 * PAGE);
	actor_asleep(&second);
	expect_eq(read(uffd, m, sizeof(m)), 2 * sizeof(m[0]));
	expect_eq(m[0].event, UFFD_EVENT_PAGEFAULT);
	expect_eq(m[1].event, UFFD_EVENT_REMOVE);
	expect_eq(actor_result(&first), 0);
	expect_eq(k_zero(uffd, at(p + 3 * PAGE), PAGE, 0).err, 0);
	expect_eq(actor_result(&second), 0);
}

/* Shared memory: MADV_REMOVE is reported; MADV_DONTNEED, too, though it drops nothing. */
static void shared_memory_reports_both_advices(void)
{
	int uffd;
	uint8_t *p = arena(SHMEM, UFFD_FEATURE_EVENT_REMOVE, &uffd, NULL);
	struct actor a;

	expect_eq(act_store(p), 0);
	actor_start(&a, act_dontneed, p);
	expect_remove(uffd, p);
	expect_eq(actor_result(&a), 0);
	expect_eq(act_load(p), 0x77);
	actor_start(&a, act_remove, p);
	expect_remove(uffd, p);
	expect_eq(actor_result(&a), 0);
	actor_start(&a, act_load, p);
	expect_eq(k_fault(uffd), at(p));
	expect_eq(k_zero(uffd, at(p), PAGE, 0).err, 0);
	expect_eq(actor_result(&a), 0);
}

/* A hole punched through the file is seen by nobody; the next touch is just a fault again. */
static void punching_the_file_is_not_reported(void)
{
	int uffd, fd;
	uint8_t *p = arena(SHMEM, UFFD_FEATURE_EVENT_REMOVE, &uffd, &fd);
	struct actor a;

	expect_eq(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE), 0);
	k_quiet(uffd);
	actor_start(&a, act_load, p);
	expect_eq(k_fault(uffd), at(p));
	expect_eq(k_zero(uffd, at(p), PAGE, 0).err, 0);
	expect_eq(actor_result(&a), 0);
}

/* Without the feature nothing waits and nothing is said; the page is simply missing again. */
static void without_the_feature_it_is_silent(void)
{
	int uffd;
	uint8_t *p = arena(ANON, 0, &uffd, NULL);
	struct actor a;

	expect_eq(act_dontneed(p), 0);
	k_quiet(uffd);
	actor_start(&a, act_load, p);
	expect_eq(k_fault(uffd), at(p));
	expect_eq(k_zero(uffd, at(p), PAGE, 0).err, 0);
	expect_eq(actor_result(&a), 0);
}

static int act_munmap(uint8_t *page)
{
	return munmap(page, PAGE) < 0 ? errno : 0;
}

static void unmap_is_reported(void)
{
	int uffd;
	uint8_t *p = arena(ANON, UFFD_FEATURE_EVENT_UNMAP, &uffd, NULL);
	struct uffd_msg m;
	struct actor a;

	actor_start(&a, act_munmap, p);
	m = k_event(uffd);
	expect_eq(m.event, UFFD_EVENT_UNMAP);
	expect_eq(m.arg.remove.start, at(p));
	expect_eq(m.arg.remove.end, at(p) + PAGE);
	expect_eq(actor_result(&a), 0);
	expect_eq(k_zero(uffd, at(p), PAGE, 0).err, ENOENT);
}

static int act_mremap(uint8_t *page)
{
	/* a page of the arena that nothing was placed in */
	uint8_t *to = page + 3 * PAGE;

	return mremap(page, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to ? 0 : errno;
}

/* It keeps its registration where it goes, which without the event it would lose. */
static void remap_is_reported(void)
{
	int uffd;
	uint8_t *p = arena(ANON, UFFD_FEATURE_EVENT_REMAP, &uffd, NULL);
	struct uffd_msg m;
	struct actor a;

	actor_start(&a, act_mremap, p);
	m = k_event(uffd);
	expect_eq(m.event, UFFD_EVENT_REMAP);
	expect_eq(m.arg.remap.from, at(p));
	expect_eq(m.arg.remap.to, at(p + 3 * PAGE));
	expect_eq(m.arg.remap.len, PAGE);
	expect_eq(actor_result(&a), 0);
	expect_eq(act_load(p + 3 * PAGE), 0);
	k_quiet(uffd);
}

/* Not fact_fork(): the thread that forks ends before the child. */
static int act_fork(uint8_t *page)
{
	pid_t child = fork();

	if (child == 0) {
		(void)act_load(page);
		_exit(0);
	}
	return child;
}

/* FORK brings a userfaultfd of the child, owned by whoever reads it, and serving only the child. */
static void fork_brings_a_descriptor(void)
{
	int uffd, child;
	uint8_t *p = arena(SHMEM, UFFD_FEATURE_EVENT_FORK, &uffd, NULL);
	struct uffd_msg m;
	struct actor a;

	actor_start(&a, act_fork, p + 3 * PAGE);
	m = k_event(uffd);
	expect_eq(m.event, UFFD_EVENT_FORK);
	child = (int)m.arg.fork.ufd;
	expect(fcntl(child, F_GETFL) & O_NONBLOCK);
	expect(fcntl(child, F_GETFD) & FD_CLOEXEC);
	expect(actor_result(&a) > 0);
	expect_eq(k_fault(child), at(p + 3 * PAGE));
	k_quiet(uffd);
	expect_eq(k_zero(child, at(p + 3 * PAGE), PAGE, 0).err, 0);
}

static const struct fact facts[] = {
	{ "a remover waits until its event is read", remove_waits_for_the_reader },
	{ "O6: an unread REMOVE: COPY and ZEROPAGE EAGAIN, -11 in the field; WAKE works",
	  unread_remove_makes_eagain },
	{ "O12: one read gives faults before removes", faults_are_read_before_removes },
	{ "shared memory reports MADV_DONTNEED and MADV_REMOVE",
	  shared_memory_reports_both_advices },
	{ "a hole punched through the file is not reported", punching_the_file_is_not_reported },
	{ "without EVENT_REMOVE a removal is silent", without_the_feature_it_is_silent },
	{ "EVENT_UNMAP tells the range; it is ENOENT then", unmap_is_reported },
	{ "EVENT_REMAP tells from where to where; it stays registered", remap_is_reported },
	{ "EVENT_FORK brings the child's userfaultfd", fork_brings_a_descriptor },
};

int main(void)
{
	facts_run(facts, ARRAY_LEN(facts));
	return tap_done();
}
