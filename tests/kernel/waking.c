/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who sleeps, who wakes, and which message is delivered when (devices.md 0.2/4, models.md 5, O1,
 * O3).
 */
#include "config.h"

#include <errno.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "scene.h"
#include "tap.h"

static void dontwake_leaves_asleep(void)
{
	uint8_t *p = k_map(SHMEM, 2, NULL);
	int uffd = k_uffd(0);
	struct actor a, b;

	expect_eq(k_register(uffd, at(p), 2 * PAGE, NULL), 0);
	actor_start(&a, act_load, p);
	expect_eq(k_fault(uffd), at(p));
	actor_start(&b, act_load, p + PAGE);
	expect_eq(k_fault(uffd), at(p + PAGE));
	expect_eq(k_copy(uffd, at(p), k_source(0x11, 1), PAGE, UFFDIO_COPY_MODE_DONTWAKE).err, 0);
	expect_eq(k_zero(uffd, at(p + PAGE), PAGE, UFFDIO_ZEROPAGE_MODE_DONTWAKE).err, 0);
	actor_asleep(&a);
	actor_asleep(&b);
	expect_eq(k_wake(uffd, at(p), 2 * PAGE), 0);
	expect_eq(actor_result(&a), 0x11);
	expect_eq(actor_result(&b), 0);
	k_quiet(uffd);
}

static void wake_without_data_faults_again(void)
{
	uint8_t *p = k_map(SHMEM, 1, NULL);
	int uffd = k_uffd(0);
	struct actor a;

	expect_eq(k_register(uffd, at(p), PAGE, NULL), 0);
	actor_start(&a, act_load, p);
	for (unsigned i = 0; i < 5; i++) {
		expect_eq(k_fault(uffd), at(p));
		k_quiet(uffd);
		expect_eq(k_wake(uffd, at(p), PAGE), 0);
	}
	expect_eq(k_fault(uffd), at(p));
	expect_eq(k_copy(uffd, at(p), k_source(0x11, 1), PAGE, 0).err, 0);
	expect_eq(actor_result(&a), 0x11);
}

/* models.md 5/2: the message of a waiter that is woken before anybody read it is gone. */
static void message_goes_with_its_waiter(void)
{
	uint8_t *p = k_map(ANON, 1, NULL);
	int uffd = k_uffd(0);
	struct pollfd ready = { .fd = uffd, .events = POLLIN };
	struct actor a;

	expect_eq(k_register(uffd, at(p), PAGE, NULL), 0);
	actor_start(&a, act_load, p);
	expect_eq(poll(&ready, 1, 10000), 1);
	expect_eq(k_copy(uffd, at(p), k_source(0x11, 1), PAGE, 0).err, 0);
	expect_eq(actor_result(&a), 0x11);
	k_quiet(uffd);
}

static void wake_of_nobody_is_fine(void)
{
	uint8_t *p = k_map(ANON, 2, NULL);
	int uffd = k_uffd(0);

	expect_eq(k_wake(uffd, at(p), PAGE), 0);
	expect_eq(k_register(uffd, at(p), PAGE, NULL), 0);
	expect_eq(k_wake(uffd, at(p), 2 * PAGE), 0);
	expect_eq(k_wake(uffd, 0, PAGE), 0);
}

/* Every waiter of a page has a message of its own; one placement wakes them all. */
static void each_waiter_has_its_message(void)
{
	enum { N = 8 };
	uint8_t *p = k_map(ANON, 1, NULL);
	int uffd = k_uffd(UFFD_FEATURE_THREAD_ID);
	struct actor a[N];
	uint32_t tids[N];

	expect_eq(k_register(uffd, at(p), PAGE, NULL), 0);
	for (unsigned i = 0; i < N; i++)
		actor_start(&a[i], act_load, p + i);
	for (unsigned i = 0; i < N; i++) {
		struct uffd_msg m = k_event(uffd);

		expect_eq(m.arg.pagefault.address, at(p));
		tids[i] = m.arg.pagefault.feat.ptid;
		for (unsigned j = 0; j < i; j++)
			expect(tids[j] != tids[i]);
	}
	expect_eq(k_copy(uffd, at(p), k_source(0x11, 1), PAGE, 0).err, 0);
	for (unsigned i = 0; i < N; i++)
		expect_eq(actor_result(&a[i]), 0x11);
}

static void wake_takes_the_range_only(void)
{
	uint8_t *p = k_map(ANON, 3, NULL);
	int uffd = k_uffd(0);
	struct actor a, b;

	expect_eq(k_register(uffd, at(p), 3 * PAGE, NULL), 0);
	actor_start(&a, act_load, p);
	expect_eq(k_fault(uffd), at(p));
	actor_start(&b, act_load, p + 2 * PAGE);
	expect_eq(k_fault(uffd), at(p + 2 * PAGE));
	expect_eq(k_wake(uffd, at(p), 2 * PAGE), 0);
	expect_eq(k_fault(uffd), at(p));
	k_quiet(uffd);
	expect_eq(k_zero(uffd, at(p), 3 * PAGE, 0).err, 0);
	expect_eq(actor_result(&a), 0);
	expect_eq(actor_result(&b), 0);
}

static int act_tid(uint8_t *page)
{
	(void)act_load(page);
	return (int)syscall(SYS_gettid);
}

static void messages_tell_write_and_thread(void)
{
	uint8_t *p = k_map(SHMEM, 2, NULL);
	int uffd = k_uffd(UFFD_FEATURE_THREAD_ID);
	struct uffd_msg m;
	struct actor a;

	expect_eq(k_register(uffd, at(p), 2 * PAGE, NULL), 0);
	actor_start(&a, act_tid, p);
	m = k_event(uffd);
	expect_eq(m.arg.pagefault.flags, 0);
	expect_eq(k_zero(uffd, at(p), PAGE, 0).err, 0);
	expect_eq(m.arg.pagefault.feat.ptid, actor_result(&a));
	actor_start(&a, act_store, p + PAGE);
	m = k_event(uffd);
	expect_eq(m.arg.pagefault.flags, UFFD_PAGEFAULT_FLAG_WRITE);
	expect_eq(k_zero(uffd, at(p + PAGE), PAGE, 0).err, 0);
	expect_eq(actor_result(&a), 0);
	expect_eq(p[PAGE], 0x77);
}

/* One read takes as many messages as fit, and 32 bytes each. */
static void one_read_takes_many(void)
{
	enum { N = 5 };
	uint8_t *p = k_map(ANON, N, NULL);
	int uffd = k_uffd(0);
	struct uffd_msg m[8];
	struct actor a[N];
	unsigned n = 0;

	expect_eq(k_register(uffd, at(p), N * PAGE, NULL), 0);
	for (unsigned i = 0; i < N; i++)
		actor_start(&a[i], act_load, p + i * PAGE);
	for (unsigned i = 0; i < N; i++)
		actor_asleep(&a[i]);
	expect_eq(read(uffd, m, sizeof(m[0]) - 1), -1);
	expect_eq(errno, EINVAL);
	expect_eq(read(uffd, m, 3 * sizeof(m[0]) + 31), 3 * sizeof(m[0]));
	n = 3;
	expect_eq(read(uffd, m + n, sizeof(m) - n * sizeof(m[0])), (N - n) * sizeof(m[0]));
	expect_eq(k_zero(uffd, at(p), N * PAGE, 0).err, 0);
	for (unsigned i = 0; i < N; i++)
		expect_eq(actor_result(&a[i]), 0);
}

/* Two userfaultfds of one process: a placement through the wrong one is refused, not misdirected.
 */
static void other_uffd_cannot_place(void)
{
	uint8_t *p = k_map(SHMEM, 2, NULL);
	int mine = k_uffd(0), other = k_uffd(0);
	struct actor a;

	expect_eq(k_register(mine, at(p), PAGE, NULL), 0);
	expect_eq(k_register(other, at(p), PAGE, NULL), EBUSY);
	expect_eq(k_register(other, at(p + PAGE), PAGE, NULL), 0);
	actor_start(&a, act_load, p);
	expect_eq(k_fault(mine), at(p));
	expect_eq(k_wake(other, at(p), PAGE), 0);
	actor_asleep(&a);
	k_quiet(mine);
	expect_eq(k_zero(mine, at(p), PAGE, 0).err, 0);
	expect_eq(actor_result(&a), 0);
}

static void unregister_wakes(void)
{
	uint8_t *p = k_map(SHMEM, 1, NULL);
	int uffd = k_uffd(0);
	struct actor a;

	expect_eq(k_register(uffd, at(p), PAGE, NULL), 0);
	actor_start(&a, act_load, p);
	expect_eq(k_fault(uffd), at(p));
	expect_eq(k_unregister(uffd, at(p), PAGE), 0);
	expect_eq(actor_result(&a), 0);
}

static const struct fact facts[] = {
	{ "DONTWAKE leaves waiters asleep, WAKE releases them", dontwake_leaves_asleep },
	{ "WAKE without data: the fault is delivered again", wake_without_data_faults_again },
	{ "a message unread at the wake is never read", message_goes_with_its_waiter },
	{ "WAKE with nobody waiting: 0", wake_of_nobody_is_fine },
	{ "each waiter of a page has its own message", each_waiter_has_its_message },
	{ "WAKE reaches its range only", wake_takes_the_range_only },
	{ "a message tells the thread and whether it writes", messages_tell_write_and_thread },
	{ "one read takes many messages, whole ones only", one_read_takes_many },
	{ "a mapping has one userfaultfd, another one wakes nobody", other_uffd_cannot_place },
	{ "UNREGISTER wakes the waiters, who read zeroes", unregister_wakes },
};

int main(void)
{
	facts_run(facts, ARRAY_LEN(facts));
	return tap_done();
}
