/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * UFFDIO_POISON: who touches the page gets SIGBUS, in the address space that was told and in no
 * other, for private, shared and huge pages, without a feature at the handshake.
 */
#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hugepages.h"
#include "scene.h"
#include "sys/mem.h"
#include "sys/uapi.h"
#include "sys/uffd.h"
#include "tap.h"

#define KILLED (-1000)

static struct moved k_poison(int uffd, uint64_t dst, uint64_t len, uint64_t mode)
{
	struct uffdio_poison p = { .range = { dst, len }, .mode = mode, .updated = 12345 };
	int err = ioctl(uffd, UFFDIO_POISON, &p) < 0 ? errno : 0;

	return (struct moved){ err, p.updated };
}

static _Thread_local sigjmp_buf back;

static void on_bus(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	/* AR where the kernel has CONFIG_MEMORY_FAILURE */
	siglongjmp(back, info->si_code == BUS_MCEERR_AR || info->si_code == BUS_ADRERR ? 1 : 2);
}

/* The byte; KILLED by the signal of a broken page, KILLED - 1 by another one. */
static int act_dare(uint8_t *page)
{
	struct sigaction on = { .sa_sigaction = on_bus, .sa_flags = SA_SIGINFO };
	int how = sigsetjmp(back, 1);

	if (how)
		return KILLED + 1 - how;
	sigaction(SIGBUS, &on, NULL);
	return *(volatile uint8_t *)page;
}

static uint8_t *arena(enum kind kind, unsigned n, int *fd, int *uffd)
{
	uint8_t *p = k_map(kind, n, fd);

	*uffd = k_uffd(0);
	expect_eq(k_register(*uffd, at(p), n * PAGE, NULL), 0);
	return p;
}

static void who_waits_and_who_comes(void)
{
	for (enum kind k = ANON; k <= SHMEM; k++) {
		struct actor a;
		struct moved m;
		int uffd;
		uint8_t *p = arena(k, 4, NULL, &uffd);

		actor_start(&a, act_dare, p + PAGE);
		expect_eq(k_fault(uffd), at(p + PAGE));
		m = k_poison(uffd, at(p + PAGE), PAGE, 0);
		expect_eq(m.err, 0);
		expect_eq(m.field, PAGE);
		expect_eq(actor_result(&a), KILLED);
		expect_eq(act_dare(p + PAGE), KILLED);
		k_quiet(uffd);
		/* its neighbours are what they were */
		actor_start(&a, act_dare, p + 2 * PAGE);
		expect_eq(k_fault(uffd), at(p + 2 * PAGE));
		expect_eq(k_copy(uffd, at(p + 2 * PAGE), k_source(0x11, 1), PAGE, 0).err, 0);
		expect_eq(actor_result(&a), 0x11);
	}
}

static void dontwake(void)
{
	struct actor a;
	int uffd;
	uint8_t *p = arena(SHMEM, 1, NULL, &uffd);

	actor_start(&a, act_dare, p);
	expect_eq(k_fault(uffd), at(p));
	expect_eq(k_poison(uffd, at(p), PAGE, UFFDIO_POISON_MODE_DONTWAKE).err, 0);
	actor_asleep(&a);
	expect_eq(k_wake(uffd, at(p), PAGE), 0);
	expect_eq(actor_result(&a), KILLED);
}

static void what_is_there_is_eexist(void)
{
	for (enum kind k = ANON; k <= SHMEM; k++) {
		int uffd;
		uint8_t *p = arena(k, 3, NULL, &uffd);
		struct moved m;

		expect_eq(k_copy(uffd, at(p), k_source(0x11, 1), PAGE, 0).err, 0);
		m = k_poison(uffd, at(p), PAGE, 0);
		expect_eq(m.err, EEXIST);
		expect_eq(m.field, -EEXIST);
		expect_eq(act_dare(p), 0x11);
		expect_eq(k_poison(uffd, at(p + PAGE), PAGE, 0).err, 0);
		expect_eq(k_poison(uffd, at(p + PAGE), PAGE, 0).err, EEXIST);
		expect_eq(act_dare(p + PAGE), KILLED);
	}
}

/*
 * A marker is no page: COPY replaces it, and ZEROPAGE does in shared memory.  That nothing does is
 * for whoever poisons to see to.
 */
static void it_gives_way(void)
{
	for (enum kind k = ANON; k <= SHMEM; k++) {
		int uffd;
		uint8_t *p = arena(k, 2, NULL, &uffd);

		expect_eq(k_poison(uffd, at(p), 2 * PAGE, 0).err, 0);
		expect_eq(k_zero(uffd, at(p), PAGE, 0).err, k == ANON ? EEXIST : 0);
		expect_eq(act_dare(p), k == ANON ? KILLED : 0);
		expect_eq(k_copy(uffd, at(p + PAGE), k_source(0x11, 1), PAGE, 0).err, 0);
		expect_eq(act_dare(p + PAGE), 0x11);
	}
}

/* Nothing but the page table has it: others, and whoever comes later, find a hole. */
static void one_address_space_only(void)
{
	int fd, uffd;
	uint8_t *p = arena(SHMEM, 2, &fd, &uffd);
	struct sharer other = sharer_start(fd, 2 * PAGE, SHARER_REGISTERS);
	uint64_t held = 1;

	expect_eq(k_poison(uffd, at(p), PAGE, 0).err, 0);
	expect_eq(mem_held(fd, &held), 0);
	expect_eq(held, 0);
	sharer_load(&other, 0);
	expect_eq(k_fault(other.uffd), other.base);
	expect_eq(k_copy(other.uffd, other.base, k_source(0x11, 1), PAGE, 0).err, 0);
	expect_eq(sharer_byte(&other), 0x11);
	/* the page is in the file now; the marker stays */
	expect_eq(act_dare(p), KILLED);
	sharer_kill(&other);
}

/* A page that the file has and this address space has not looked at yet can be poisoned. */
static void the_file_is_not_looked_at(void)
{
	int fd, uffd = k_uffd(0);
	uint8_t *p = k_map(SHMEM, 1, &fd), *q;

	q = mem_map_shared(fd, 0, PAGE);
	expect_eq(act_store(q), 0);
	expect_eq(k_register(uffd, at(p), PAGE, NULL), 0);
	expect_eq(k_poison(uffd, at(p), PAGE, 0).err, 0);
	expect_eq(act_dare(p), KILLED);
	expect_eq(act_load(q), 0x77);
}

/* Both addresses of one process need their own. */
static void each_mapping(void)
{
	int fd, uffd;
	uint8_t *p = arena(SHMEM, 1, &fd, &uffd), *q = mem_map_shared(fd, 0, PAGE);
	struct actor a;

	expect_eq(k_register(uffd, at(q), PAGE, NULL), 0);
	expect_eq(k_poison(uffd, at(p), PAGE, 0).err, 0);
	actor_start(&a, act_dare, q);
	expect_eq(k_fault(uffd), at(q));
	expect_eq(k_poison(uffd, at(q), PAGE, 0).err, 0);
	expect_eq(actor_result(&a), KILLED);
}

static void from_outside(void)
{
	int fd, status;
	uint8_t *p = k_map(SHMEM, 1, &fd);
	struct sharer other = sharer_start(fd, PAGE, SHARER_REGISTERS);

	sharer_load(&other, 0);
	expect_eq(k_fault(other.uffd), other.base);
	expect_eq(k_poison(other.uffd, other.base, PAGE, 0).err, 0);
	expect_eq(waitpid(other.pid, &status, 0), other.pid);
	expect(WIFSIGNALED(status));
	expect_eq(WTERMSIG(status), SIGBUS);
	expect_eq(act_store(p), 0);
}

static void it_outlives_the_registration(void)
{
	int uffd;
	uint8_t *p = arena(SHMEM, 2, NULL, &uffd);

	expect_eq(k_poison(uffd, at(p), PAGE, 0).err, 0);
	expect_eq(k_unregister(uffd, at(p), 2 * PAGE), 0);
	expect_eq(act_dare(p), KILLED);
	expect_eq(act_dare(p + PAGE), 0);
	expect_eq(k_poison(uffd, at(p + PAGE), PAGE, 0).err, ENOENT);
	close(uffd);
	expect_eq(act_dare(p), KILLED);
}

/* What the owner throws away faults again. */
static void dropped_by_the_owner(void)
{
	for (enum kind k = ANON; k <= SHMEM; k++) {
		struct actor a;
		int uffd;
		uint8_t *p = arena(k, 1, NULL, &uffd);

		expect_eq(k_poison(uffd, at(p), PAGE, 0).err, 0);
		expect_eq(madvise(p, PAGE, MADV_DONTNEED), 0);
		actor_start(&a, act_dare, p);
		expect_eq(k_fault(uffd), at(p));
		expect_eq(k_poison(uffd, at(p), PAGE, 0).err, 0);
		expect_eq(actor_result(&a), KILLED);
	}
}

/* The kernel's own accesses fail and do not wait. */
static void for_the_kernel(void)
{
	int pipes[2], uffd;
	uint8_t *p = arena(SHMEM, 1, NULL, &uffd);

	expect_eq(pipe(pipes), 0);
	expect_eq(k_poison(uffd, at(p), PAGE, 0).err, 0);
	expect_eq(write(pipes[1], p, 16), -1);
	expect_eq(errno, EFAULT);
	close(pipes[0]);
	close(pipes[1]);
}

static void registration_offers_it(void)
{
	for (enum kind k = ANON; k <= SHMEM; k++) {
		unsigned can = 0;
		uint8_t *p = k_map(k, 1, NULL);
		int uffd = k_uffd(0);

		expect_eq(uffd_register(uffd, at(p), PAGE, &can), 0);
		expect(can & UFFD_CAN_POISON);
	}
	expect(uffd_features(NULL) & UFFD_FEATURE_POISON);
	expect_eq(uffd_probe_poison(), 0);
}

static void huge(void)
{
	int fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB | 21u << 26), uffd = k_uffd(0);
	uint8_t *p;
	unsigned can = 0;
	struct actor a;
	struct moved m;

	if (fd < 0)
		fact_skip("memfd_create(MFD_HUGETLB): %s", strerror(errno));
	expect_eq(ftruncate(fd, 2 * HUGE), 0);
	p = mmap(NULL, 2 * HUGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	expect(p != MAP_FAILED);
	expect_eq(uffd_register(uffd, at(p), 2 * HUGE, &can), 0);
	expect(can & UFFD_CAN_POISON);
	actor_start(&a, act_dare, p + HUGE - 1);
	expect_eq(k_fault(uffd), at(p));
	m = k_poison(uffd, at(p), HUGE, 0);
	expect_eq(m.err, 0);
	expect_eq(m.field, HUGE);
	expect_eq(actor_result(&a), KILLED);
	expect_eq(act_dare(p + 4096), KILLED);
	expect_eq(k_poison(uffd, at(p), HUGE, 0).err, EEXIST);
	expect_eq(k_copy(uffd, at(p), k_source(0x22, HUGE / PAGE), HUGE, 0).err, 0);
	expect_eq(act_dare(p), 0x22);
	expect_eq(k_poison(uffd, at(p + HUGE), PAGE, 0).err, EINVAL);
	actor_start(&a, act_dare, p + HUGE);
	expect_eq(k_fault(uffd), at(p + HUGE));
	expect_eq(k_copy(uffd, at(p + HUGE), k_source(0x11, HUGE / PAGE), HUGE, 0).err, 0);
	expect_eq(actor_result(&a), 0x11);
}

static const struct fact facts[] = {
	{ "F59 who waits for a poisoned page gets SIGBUS, its neighbours wait on",
	  who_waits_and_who_comes },
	{ "with DONTWAKE the waiter sleeps on", dontwake },
	{ "EEXIST on what is there, be it a page or a marker", what_is_there_is_eexist },
	{ "COPY puts a page where a marker is, ZEROPAGE in shared memory only", it_gives_way },
	{ "the file and other address spaces know nothing of it", one_address_space_only },
	{ "a page that only the file has is poisoned all the same", the_file_is_not_looked_at },
	{ "each mapping needs its own marker", each_mapping },
	{ "through a received userfaultfd", from_outside },
	{ "the marker outlives registration and userfaultfd", it_outlives_the_registration },
	{ "MADV_DONTNEED takes it away: the page faults again", dropped_by_the_owner },
	{ "the kernel's accesses fail with EFAULT", for_the_kernel },
	{ "offered for private and shared memory without a feature", registration_offers_it },
	{ "huge pages: whole ones only", huge },
};

int main(void)
{
	int ret = hugepages_borrow(2, HUGEPAGES_BESIDE);

	if (ret < 0)
		printf("# no huge pages: %s\n", strerror(-ret));
	facts_run(facts, ARRAY_LEN(facts));
	hugepages_return();
	return tap_done();
}
