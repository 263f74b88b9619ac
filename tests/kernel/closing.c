/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the end of a userfaultfd does to those who wait on it (peers.md 9, O11): the last reference
 * gone means zeroes and no signal; while any reference remains they wait, and a message that a dead
 * reader had taken is delivered again after a WAKE (the keeper's sweep).
 */
#include "config.h"

#include <errno.h>
#include <unistd.h>

#include "scene.h"
#include "tap.h"

static void closed_before_the_fault_reads_zero(void)
{
	for (enum kind k = ANON; k <= SHMEM; k++) {
		uint8_t *p = k_map(k, 1, NULL);
		int uffd = k_uffd(0);

		expect_eq(k_register(uffd, at(p), PAGE, NULL), 0);
		close(uffd);
		expect_eq(act_load(p), 0);
	}
}

static void closed_during_the_fault_reads_zero(void)
{
	for (enum kind k = ANON; k <= SHMEM; k++) {
		uint8_t *p = k_map(k, 1, NULL);
		int uffd = k_uffd(0);
		struct actor a;

		expect_eq(k_register(uffd, at(p), PAGE, NULL), 0);
		actor_start(&a, act_load, p);
		expect_eq(k_fault(uffd), at(p));
		actor_asleep(&a);
		close(uffd);
		expect_eq(actor_result(&a), 0);
	}
}

static void closed_with_the_message_unread_reads_zero(void)
{
	uint8_t *p = k_map(SHMEM, 1, NULL);
	int uffd = k_uffd(0);
	struct actor a;

	expect_eq(k_register(uffd, at(p), PAGE, NULL), 0);
	actor_start(&a, act_load, p);
	actor_asleep(&a);
	close(uffd);
	expect_eq(actor_result(&a), 0);
}

static void a_dup_keeps_waiting_and_serves(void)
{
	uint8_t *p = k_map(SHMEM, 1, NULL);
	int uffd = k_uffd(0), keep = dup(uffd);
	struct actor a;

	expect(keep >= 0);
	expect_eq(k_register(uffd, at(p), PAGE, NULL), 0);
	actor_start(&a, act_load, p);
	expect_eq(k_fault(uffd), at(p));
	close(uffd);
	actor_asleep(&a);
	k_quiet(keep);
	expect_eq(k_wake(keep, at(p), PAGE), 0);
	expect_eq(k_fault(keep), at(p));
	expect_eq(k_copy(keep, at(p), k_source(0x11, 1), PAGE, 0).err, 0);
	expect_eq(actor_result(&a), 0x11);
}

/* The reader is another process that dies with the message; ours was never read by us. */
static void a_dead_reader_loses_nothing(void)
{
	uint8_t *p = k_map(SHMEM, 1, NULL);
	int uffd = k_uffd(0), ends[2];
	struct actor a;
	char c;

	expect_eq(k_register(uffd, at(p), PAGE, NULL), 0);
	actor_start(&a, act_load, p);
	expect_eq(pipe(ends), 0);
	if (fact_fork() == 0) {
		expect_eq(k_fault(uffd), at(p));
		_exit(0);
	}
	close(ends[1]);
	expect_eq(read(ends[0], &c, 1), 0);
	k_quiet(uffd);
	actor_asleep(&a);
	/* It could be placed without the message as well; the sweep brings the message back. */
	expect_eq(k_wake(uffd, at(p), PAGE), 0);
	expect_eq(k_fault(uffd), at(p));
	expect_eq(k_copy(uffd, at(p), k_source(0x11, 1), PAGE, 0).err, 0);
	expect_eq(actor_result(&a), 0x11);
}

/* A WAKE over a whole block where most pages have no waiter: the sweep's cost is one call. */
static void a_sweep_reaches_every_waiter(void)
{
	enum { N = 64 };
	uint8_t *p = k_map(SHMEM, N, NULL);
	int uffd = k_uffd(0);
	struct actor a[3];
	uint64_t seen = 0;

	expect_eq(k_register(uffd, at(p), N * PAGE, NULL), 0);
	for (unsigned i = 0; i < 3; i++) {
		actor_start(&a[i], act_load, p + i * 20 * PAGE);
		expect_eq(k_fault(uffd), at(p + i * 20 * PAGE));
	}
	expect_eq(k_wake(uffd, at(p), N * PAGE), 0);
	for (unsigned i = 0; i < 3; i++)
		seen |= 1ull << (k_fault(uffd) - at(p)) / PAGE;
	expect_eq(seen, 1ull | 1ull << 20 | 1ull << 40);
	expect_eq(k_zero(uffd, at(p), N * PAGE, 0).err, 0);
	for (unsigned i = 0; i < 3; i++)
		expect_eq(actor_result(&a[i]), 0);
}

static const struct fact facts[] = {
	{ "closed before a fault: it reads zeroes", closed_before_the_fault_reads_zero },
	{ "closed during a fault: it reads zeroes, no signal", closed_during_the_fault_reads_zero },
	{ "closed with the message unread: the same", closed_with_the_message_unread_reads_zero },
	{ "a dup keeps waiters; WAKE delivers the taken message again",
	  a_dup_keeps_waiting_and_serves },
	{ "a reader that dies with a message: the same", a_dead_reader_loses_nothing },
	{ "one WAKE over a block brings every message back", a_sweep_reaches_every_waiter },
};

int main(void)
{
	facts_run(facts, ARRAY_LEN(facts));
	return tap_done();
}
