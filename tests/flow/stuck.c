/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Something does not go on for a while, and everything else does.  (O1, O6, O8, O14, F01, F59)
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/guard.h"
#include "facts.h"
#include "stage.h"
#include "sys/uffd.h"
#include "tap.h"

#define SOME 16u			/* pages that are not of the row */

/* A kernel that takes no page of the row of zeroes for as long as it likes. */
struct kernel {
	struct uffd_ops ops;
	struct stage *stage;
	_Atomic bool dry;
	_Atomic unsigned refused;
};

static int issue(void *ctx, int uffd, enum uffd_how how, uint64_t dst, uint64_t len,
		 const void *src, bool wake, int64_t *moved)
{
	struct kernel *k = ctx;

	if (atomic_load(&k->dry) && how != UFFD_WAKE &&
	    stage_page_at(k->stage, uffd, dst) >= STAGE_ROW_FIRST) {
		atomic_fetch_add(&k->refused, 1);
		*moved = -EAGAIN;
		return -EAGAIN;
	}
	return uffd_kernel_ops.issue(NULL, uffd, how, dst, len, src, wake, moved);
}

/*
 * As many pages as can be kept for a retry are known to be zero, wanted, and refused by the kernel:
 * they wait, and nobody else does.
 */
static void refused_zeroes_block_nobody(void)
{
	struct kernel k = { .dry = true };
	struct stage s;

	static_assert(STAGE_ROW_N >= FAULTLOOP_PENDING, "the row fills what can be kept");
	k.ops = (struct uffd_ops){ .issue = issue, .ctx = &k };
	k.stage = &s;
	stage_open(&s, &(struct stage_options){ .row_known = true, .ops = &k.ops });
	stage_touch(&s, 1, STAGE_ROW_FIRST, STAGE_ROW_N);
	stage_wait_parked(&s, STAGE_ROW_N);
	stage_touch(&s, STAGE_MAIN, 0, SOME);
	stage_wait_parked(&s, STAGE_ROW_N + SOME);
	stage_send(&s, false, 0, SOME);
	stage_wait_seen(&s, STAGE_MAIN, 0, SOME);
	for (unsigned i = STAGE_ROW_FIRST; i < STAGE_ROW_FIRST + STAGE_ROW_N; i++)
		expect(!stage_seen(&s, 1, i));
	expect(atomic_load(&k.refused) >= STAGE_ROW_N);
	expect_eq(stage_look(&s)->block[0].zero, STAGE_ROW_N);
	atomic_store(&k.dry, false);
	stage_wait_seen(&s, 1, STAGE_ROW_FIRST, STAGE_ROW_N);
	stage_send(&s, false, SOME, STAGE_ROW_FIRST - SOME);
	stage_end(&s);
	stage_wait_shut(&s);
	stage_wait_state(&s, SESSION_COMPLETE);
	expect_eq(stage_look(&s)->block[0].zero, (STAGE_ROW_FIRST - SOME) / 4);
	stage_check_content(&s);
	stage_close(&s);
}

/*
 * O8, both ways: the device state is being loaded, and what loading touches is served; a page that
 * never comes keeps nobody from saying that it is loaded, nor the VM from running.
 */
static void loading_and_faults_do_not_wait_for_each_other(void)
{
	struct stage s;

	stage_open(&s, &(struct stage_options){ .commit_ping = true, .hold_loaded = true });
	stage_touch(&s, STAGE_MAIN, 0, SOME);
	stage_touch(&s, 1, SOME, 1);
	stage_wait_parked(&s, SOME + 1);
	stage_send(&s, false, 0, SOME);
	stage_wait_seen(&s, STAGE_MAIN, 0, SOME);
	expect_eq(stage_look(&s)->state, SESSION_LOADING);
	stage_loaded(&s);
	for (unsigned i = 0; i < 500 && !stage_look(&s)->running_told; i++)
		stage_hear(&s, 10);
	expect(s.snapshot->running_told);
	expect_eq(s.snapshot->faults_in_flight, 1);
	stage_send(&s, false, SOME, STAGE_PAGES - SOME);
	stage_wait_seen(&s, 1, SOME, 1);
	stage_end(&s);
	stage_wait_shut(&s);
	stage_close(&s);
}

/* Until sharer @who has a message in the kernel, and the fault thread was told of it. */
static void wait_for_message(const struct stage *s, unsigned who)
{
	struct pollfd message = { .fd = s->sharer[who].uffd, .events = POLLIN };

	expect_eq(poll(&message, 1, STAGE_PATIENCE_MS), 1);
	usleep(50000);
}

/*
 * One thread may be parked, and is; another one's message has to stay in the kernel.  The page that
 * comes makes room in the same turn in which nothing else happens, and nothing happens afterwards:
 * whoever waits for that room must be read all the same.  Nothing here may wake the fault thread
 * but that page, so the state is not looked at.
 */
static void room_is_used_in_the_turn_that_makes_it(void)
{
	struct stage s;

	stage_open(&s, &(struct stage_options){ .max_waiters = 1 });
	while (!stage_look(&s)->running_told)
		usleep(1000);
	stage_touch(&s, STAGE_MAIN, 0, 1);
	stage_wait_parked(&s, 1);
	stage_touch(&s, 1, 1, 1);
	wait_for_message(&s, 1);
	expect(!s.requested[1]);
	stage_send(&s, false, 0, 1);
	for (unsigned i = 0; i < 100 && !s.requested[1]; i++)
		stage_hear(&s, 20);
	expect(s.requested[1]);
	stage_send(&s, false, 1, STAGE_PAGES - 1);
	stage_wait_seen(&s, STAGE_MAIN, 0, 1);
	stage_wait_seen(&s, 1, 1, 1);
	stage_end(&s);
	stage_wait_shut(&s);
	stage_close(&s);
}

/*
 * O14: a write of our own process into guest memory sleeps as anybody's does, and makes no page of
 * it; the source's content is what everybody sees.
 */
static void *write_into(void *page)
{
	*(volatile uint64_t *)page = 0x5a5a5a5a5a5a5a5aull;
	return NULL;
}

static void a_write_of_our_own_sleeps(void)
{
	const unsigned page = 5;
	pthread_t writer;
	struct stat st;
	struct stage s;

	stage_open(&s, &(struct stage_options){ 0 });
	expect(s.loop->backing[0].armed);
	expect_eq(pthread_create(&writer, NULL, write_into, s.loop->backing[0].map + page * 4096),
		  0);
	expect(poll(&(struct pollfd){ .fd = s.loop->own_uffd, .events = POLLIN }, 1,
		    STAGE_PATIENCE_MS) == 1);
	expect(fstat(s.memfd, &st) == 0 && st.st_blocks == 0);
	expect_eq(stage_look(&s)->owed_left, STAGE_PAGES);
	stage_touch(&s, STAGE_MAIN, page, 1);
	stage_wait_parked(&s, 1);
	stage_send(&s, false, page, 1);
	stage_wait_seen(&s, STAGE_MAIN, page, 1);
	expect_eq(stage_look(&s)->stats.alarms, 0);
	/*
	 * it still sleeps: nobody reads that descriptor, for there is no such write; waking it is
	 * the end of this test
	 */
	expect(pthread_tryjoin_np(writer, NULL) == EBUSY);
	_exit(0);
}

/* From now on the kernel refuses this call, of any thread. */
static void refuse(unsigned call, unsigned error)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = ARRAY_LEN(code), .filter = code };

	expect_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	expect_eq(
		syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program),
		0);
}

/* The kernel takes the ring away: from the next call on it is no ring any more. */
static void break_ring(void)
{
	refuse(SYS_io_uring_enter, EOPNOTSUPP);
}

/* Known at the start, when somebody can still be told, and not by the first session. */
static void no_ring_no_start(void)
{
	const struct faultloop_options o = { .max_package = 1 << 20, .max_waiters = 16 };
	struct faultloop *f = NULL;

	refuse(SYS_io_uring_setup, EPERM);
	expect_eq(faultloop_start(&f, &o), -EPERM);
	expect(!f);
}

/* Whoever posts to a fault thread that gave up is not kept waiting, however much it is. */
static void post_much(struct stage *s)
{
	const struct message want = { .kind = MESSAGE_WANT,
				      .want = { .length = 4096, .class = CLASS_DMA } };

	for (unsigned i = 0; i < 1000; i++)
		faultloop_post(s->loop, &want);
}

static void a_broken_ring_before_the_commit(void)
{
	struct stage s;

	stage_open(&s, &(struct stage_options){ .commit_ping = true, .hold_loaded = true });
	break_ring();
	stage_wait_state(&s, SESSION_FAILED);
	expect(strstr(s.snapshot->reason, "io_uring"));
	expect(strstr(s.snapshot->reason, "the source resumes its VM"));
	for (unsigned i = 0; i < 100 && !s.hung_up; i++)
		stage_hear(&s, 20);
	expect(s.hung_up && !s.shut);
	post_much(&s);
	expect_eq(stage_look(&s)->state, SESSION_FAILED);
	stage_close(&s);
}

static void a_broken_ring_after_the_commit(void)
{
	struct stage s;

	stage_open(&s, &(struct stage_options){ .urgent = true });
	stage_touch(&s, 1, 0, 4);
	stage_wait_parked(&s, 4);
	break_ring();
	stage_wait_state(&s, SESSION_PAUSED);
	expect(strstr(s.snapshot->reason, "io_uring"));
	expect(strstr(s.snapshot->reason, "only at the source") &&
	       strstr(s.snapshot->reason, "do not restart it"));
	expect(!s.hung_up && !s.shut);
	post_much(&s);
	expect_eq(stage_look(&s)->state, SESSION_PAUSED);
	expect_eq(s.snapshot->faults_in_flight, 4);
	stage_hear(&s, 50);
	expect(!s.hung_up && !s.shut);
	for (unsigned i = 0; i < 4; i++)
		expect(!stage_seen(&s, 1, i));
	stage_close(&s);
}

static const struct fact facts[] = {
	{ "O8 loading and faults do not wait for each other",
	  loading_and_faults_do_not_wait_for_each_other },
	{ "F01 where there is no ring the fault thread does not start", no_ring_no_start },
	{ "F59 the ring breaks before the commit: refused, the source goes on",
	  a_broken_ring_before_the_commit },
	{ "F59 the ring breaks after the commit: held, nobody hangs",
	  a_broken_ring_after_the_commit },
	{ "O1 O5 room that a lane makes is used in that turn",
	  room_is_used_in_the_turn_that_makes_it },
	{ "O14 a write of our own into guest memory sleeps", a_write_of_our_own_sleeps },
	{ "O6 refused zero pages wait, and nobody waits for them", refused_zeroes_block_nobody },
};

int main(void)
{
	facts_run(facts, ARRAY_LEN(facts));
	return tap_done();
}
