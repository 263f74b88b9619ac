/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every outcome of a placement for every operation, answered in the kernel's place (judge card 15);
 * then opening, probing (F06, S1-23, S2-11), registering and reading with the real one.
 */
#include "config.h"

#include "sys/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "sys/fd.h"
#include "sys/mem.h"

#define PAGE 4096ul

/* --- outcomes, injected --- */

struct answer {
	int rc;
	int64_t moved;
	unsigned calls;
	int uffd;
	enum uffd_how how;
	uint64_t dst, len;
	const void *src;
	bool wake;
};

static int answer_issue(void *ctx, int uffd, enum uffd_how how, uint64_t dst, uint64_t len,
			const void *src, bool wake, int64_t *moved)
{
	struct answer *a = ctx;

	a->calls++;
	a->uffd = uffd;
	a->how = how;
	a->dst = dst;
	a->len = len;
	a->src = src;
	a->wake = wake;
	*moved = a->moved;
	return a->rc;
}

#define LEN (8 * PAGE)

/* What the kernel says about a placement of LEN bytes, and what we make of it. */
static const struct {
	const char *name;
	int err;
	int64_t moved;
	enum uffd_outcome outcome;
	uint64_t done;
	int result_err;
} placements[] = {
	{ "all", 0, LEN, UFFD_DONE, LEN, 0 },
	{ "a part", EAGAIN, 3 * PAGE, UFFD_AGAIN, 3 * PAGE, EAGAIN },
	{ "all but one page", EAGAIN, LEN - PAGE, UFFD_AGAIN, LEN - PAGE, EAGAIN },
	{ "nothing, the space changes", EAGAIN, -EAGAIN, UFFD_AGAIN, 0, EAGAIN },
	{ "nothing, field untouched", EAGAIN, 0, UFFD_AGAIN, 0, EAGAIN },
	{ "is there", EEXIST, -EEXIST, UFFD_EXISTS, 0, EEXIST },
	{ "is there, field untouched", EEXIST, 0, UFFD_EXISTS, 0, EEXIST },
	{ "owner has ended", ESRCH, -ESRCH, UFFD_GONE, 0, ESRCH },
	{ "owner has ended, field untouched", ESRCH, 0, UFFD_GONE, 0, ESRCH },
	{ "not registered", ENOENT, -ENOENT, UFFD_UNMAPPED, 0, ENOENT },
	{ "no memory", ENOMEM, -ENOMEM, UFFD_NOMEM, 0, ENOMEM },
	{ "file system full", ENOSPC, -ENOSPC, UFFD_NOMEM, 0, ENOSPC },
	{ "bad arguments", EINVAL, 0, UFFD_FAILED, 0, EINVAL },
	{ "bad source", EFAULT, -EFAULT, UFFD_FAILED, 0, EFAULT },
	{ "bad fd", EBADF, 0, UFFD_FAILED, 0, EBADF },
	{ "never seen", EXDEV, -EXDEV, UFFD_FAILED, 0, EXDEV },
	/* Counts that cannot be are not trusted. */
	{ "success of a part", 0, PAGE, UFFD_FAILED, 0, EPROTO },
	{ "success of nothing", 0, 0, UFFD_FAILED, 0, EPROTO },
	{ "success of more", 0, LEN + PAGE, UFFD_FAILED, 0, EPROTO },
	{ "success of an errno", 0, -EEXIST, UFFD_FAILED, 0, EPROTO },
	{ "a part that is all", EAGAIN, LEN, UFFD_FAILED, 0, EPROTO },
	{ "a part that is more", EAGAIN, LEN + PAGE, UFFD_FAILED, 0, EPROTO },
	{ "is there, and bytes", EEXIST, PAGE, UFFD_FAILED, 0, EPROTO },
};

static void place_as(enum uffd_how how, size_t row)
{
	struct answer a = { .rc = -placements[row].err, .moved = placements[row].moved };
	struct uffd_ops ops = { .issue = answer_issue, .ctx = &a };
	struct uffd_result r = { .done = 77, .err = 77 };
	const char *name = placements[row].name;

	cr_expect_eq(uffd_place(&ops, 9, how, PAGE, LEN, &a, true, &r), placements[row].outcome,
		     "%s", name);
	cr_expect_eq(r.done, placements[row].done, "%s: done %lu", name, (unsigned long)r.done);
	cr_expect_eq(r.err, placements[row].result_err, "%s: err %d", name, r.err);
	cr_expect_eq(a.calls, 1, "%s: one call each", name);
}

Test(uffd, every_outcome_of_copy)
{
	for (size_t i = 0; i < ARRAY_LEN(placements); i++)
		place_as(UFFD_COPY, i);
}

Test(uffd, every_outcome_of_zero)
{
	for (size_t i = 0; i < ARRAY_LEN(placements); i++)
		place_as(UFFD_ZERO, i);
}

Test(uffd, every_outcome_of_poison)
{
	for (size_t i = 0; i < ARRAY_LEN(placements); i++)
		place_as(UFFD_POISON, i);
}

/* A WAKE counts nothing: whatever the field holds, it is all or none. */
Test(uffd, every_outcome_of_wake)
{
	static const struct {
		int err;
		enum uffd_outcome outcome;
		uint64_t done;
	} wakes[] = {
		{ 0, UFFD_DONE, LEN },	      { EAGAIN, UFFD_AGAIN, 0 },
		{ EEXIST, UFFD_EXISTS, 0 },   { ESRCH, UFFD_GONE, 0 },
		{ ENOENT, UFFD_UNMAPPED, 0 }, { ENOMEM, UFFD_NOMEM, 0 },
		{ EINVAL, UFFD_FAILED, 0 },   { EBADF, UFFD_FAILED, 0 },
	};
	static const int64_t fields[] = { 0, PAGE, LEN, LEN + PAGE, -EEXIST };

	for (size_t i = 0; i < ARRAY_LEN(wakes); i++)
		for (size_t f = 0; f < ARRAY_LEN(fields); f++) {
			struct answer a = { .rc = -wakes[i].err, .moved = fields[f] };
			struct uffd_ops ops = { .issue = answer_issue, .ctx = &a };
			struct uffd_result r;

			cr_expect_eq(uffd_place(&ops, 9, UFFD_WAKE, 0, LEN, NULL, true, &r),
				     wakes[i].outcome, "errno %d", wakes[i].err);
			cr_expect_eq(r.done, wakes[i].done);
			cr_expect_eq(r.err, wakes[i].err);
		}
}

Test(uffd, arguments_reach_the_call)
{
	struct answer a = { .moved = 3 * PAGE };
	struct uffd_ops ops = { .issue = answer_issue, .ctx = &a };
	struct uffd_result r;

	cr_assert_eq(uffd_place(&ops, 5, UFFD_ZERO, 7 * PAGE, 3 * PAGE, NULL, false, &r),
		     UFFD_DONE);
	cr_assert_eq(a.uffd, 5);
	cr_assert_eq(a.how, UFFD_ZERO);
	cr_assert_eq(a.dst, 7 * PAGE);
	cr_assert_eq(a.len, 3 * PAGE);
	cr_assert_null(a.src);
	cr_assert_not(a.wake);
	a.moved = PAGE;
	cr_assert_eq(uffd_place(&ops, 5, UFFD_COPY, 0, PAGE, &a, true, &r), UFFD_DONE);
	cr_assert_eq(a.src, &a);
	cr_assert(a.wake);
}

/* --- with the kernel --- */

static int open_or_skip(uint64_t features)
{
	int uffd = uffd_open(features, false);

	if (uffd < 0 && !getenv("POSTCOPY_TESTS_MUST_RUN"))
		cr_skip_test("no userfaultfd: %s", strerror(-uffd));
	cr_assert_geq(uffd, 0, "userfaultfd: %s", strerror(-uffd));
	return uffd;
}

/* For tests that open their own. */
static void need_uffd(void)
{
	close(open_or_skip(0));
}

static uint8_t *pages(unsigned n)
{
	uint8_t *p = mem_map_private(n * PAGE);

	cr_assert_not_null(p);
	return p;
}

static uint64_t at(const void *p)
{
	return (uintptr_t)p;
}

Test(uffd, open_is_cloexec_nonblocking_and_shaken)
{
	cleanup_fd int uffd = open_or_skip(UFFD_FEATURE_THREAD_ID);
	bool was_blocking = true;

	cr_assert(fcntl(uffd, F_GETFD) & FD_CLOEXEC);
	cr_assert(fcntl(uffd, F_GETFL) & O_NONBLOCK);
	cr_assert_eq(uffd_probe(uffd, true, &was_blocking), UFFD_FIT);
	cr_assert_not(was_blocking);
	cr_assert_eq(uffd_probe(uffd, false, NULL), UFFD_FIT);
	cr_assert_eq(uffd_handshake(uffd, 0, NULL), -EINVAL, "only once");
	cr_assert_eq(uffd_open(1ull << 62, false), -EINVAL, "no kernel has this feature");
}

Test(uffd, features_of_the_kernel)
{
	int err = 1;
	uint64_t have = uffd_features(&err);

	need_uffd();
	cr_assert_eq(err, 0);
	cr_assert_eq(have & (UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MISSING_HUGETLBFS),
		     UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MISSING_HUGETLBFS);
	cr_assert_eq(uffd_features(NULL), have);
}

/* S1-23: each kind of descriptor that cannot be served, by its reason. */
Test(uffd, probe_names_what_is_wrong)
{
	cleanup_fd int raw = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	cleanup_fd int blocking = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	cleanup_fd int both = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	cleanup_fd int blob = mem_blob_new("[userfaultfd]", PAGE);
	cleanup_fd int reader = -1, writer = -1;
	bool was_blocking;
	int ends[2];

	need_uffd();
	cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
	reader = ends[0];
	writer = ends[1];
	cr_assert_eq(uffd_probe(reader, true, &was_blocking), UFFD_NOT_A_UFFD);
	cr_assert_eq(uffd_probe(blob, true, &was_blocking), UFFD_NOT_A_UFFD);
	cr_assert_eq(uffd_probe(-1, true, &was_blocking), UFFD_NOT_A_UFFD);
	cr_assert_eq(uffd_probe(raw, true, &was_blocking), UFFD_NO_HANDSHAKE);
	cr_assert_not(was_blocking);
	cr_assert_eq(uffd_probe(both, true, &was_blocking), UFFD_NO_HANDSHAKE);
	cr_assert(was_blocking);
	cr_assert_eq(uffd_handshake(blocking, 0, NULL), 0);
	cr_assert_eq(uffd_probe(blocking, true, &was_blocking), UFFD_FIT);
	cr_assert(was_blocking);
	cr_assert(fcntl(blocking, F_GETFL) & O_NONBLOCK);
	cr_assert_not(fcntl(reader, F_GETFL) & O_NONBLOCK, "what is no userfaultfd is left alone");
}

/* O12: who has a reader that goes on when there is no room for faults must be known. */
Test(uffd, O12_who_tells_of_memory_that_goes)
{
	static const uint64_t gone[] = { UFFD_FEATURE_EVENT_REMOVE, UFFD_FEATURE_EVENT_REMAP,
					 UFFD_FEATURE_EVENT_UNMAP,
					 UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_THREAD_ID };
	cleanup_fd int plain = uffd_open(UFFD_FEATURE_THREAD_ID | UFFD_FEATURE_MISSING_SHMEM,
					 false);

	need_uffd();
	cr_assert_not(uffd_reports_gone(plain));
	cr_assert_not(uffd_reports_gone(-1));
	for (size_t i = 0; i < ARRAY_LEN(gone); i++) {
		cleanup_fd int uffd = uffd_open(gone[i], false);

		cr_assert_geq(uffd, 0);
		cr_assert_eq(uffd_probe(uffd, true, NULL), UFFD_FIT);
		cr_assert(uffd_reports_gone(uffd));
	}
}

Test(uffd, every_fitness_has_a_text)
{
	for (int f = UFFD_FIT; f <= UFFD_USER_ONLY; f++)
		for (int g = UFFD_FIT; g < f; g++)
			cr_assert_str_neq(uffd_fitness_text(f), uffd_fitness_text(g));
	cr_assert_str_eq(uffd_fitness_text((enum uffd_fitness)99), "unknown");
}

Test(uffd, register_tells_what_it_can)
{
	cleanup_fd int uffd = open_or_skip(0);
	cleanup_fd int other = uffd_open(0, false);
	uint8_t *p = pages(2);
	unsigned can = 0;

	cr_assert_eq(uffd_register(uffd, at(p), 2 * PAGE, &can), 0);
	cr_assert_eq(can, UFFD_CAN_COPY | UFFD_CAN_ZERO | UFFD_CAN_WAKE | UFFD_CAN_POISON);
	cr_assert_eq(uffd_register(other, at(p), PAGE, NULL), -EBUSY);
	cr_assert_eq(uffd_register(uffd, at(p) + 1, PAGE, NULL), -EINVAL);
	cr_assert_eq(uffd_unregister(uffd, at(p), 2 * PAGE), 0);
	cr_assert_eq(uffd_register(other, at(p), PAGE, NULL), 0);
	mem_unmap(p, 2 * PAGE);
	cr_assert_lt(uffd_register(uffd, at(p), PAGE, NULL), 0);
	cr_assert_lt(uffd_unregister(uffd, at(p), PAGE), 0);
}

Test(uffd, hugetlb_cannot_zero)
{
	cleanup_fd int uffd = open_or_skip(0);
	cleanup_fd int fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB);
	unsigned can = 0;
	void *p;

	if (fd < 0 || ftruncate(fd, 2 << 20) < 0)
		cr_skip_test("no hugetlbfs: %s", strerror(errno));
	/* NORESERVE: registering touches nothing, so an empty pool will do. */
	p = mmap(NULL, 2 << 20, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, 0);
	cr_assert_neq(p, MAP_FAILED);
	cr_assert_eq(uffd_register(uffd, at(p), 2 << 20, &can), 0);
	cr_assert_eq(can, UFFD_CAN_COPY | UFFD_CAN_WAKE | UFFD_CAN_POISON);
	munmap(p, 2 << 20);
}

Test(uffd, the_kernels_own_outcomes)
{
	cleanup_fd int uffd = open_or_skip(0);
	uint8_t *p = pages(8), *src = pages(9);
	struct uffd_result r;

	memset(src, 0x5a, 9 * PAGE);
	cr_assert_eq(uffd_register(uffd, at(p), 8 * PAGE, NULL), 0);
	cr_assert_eq(uffd_place(NULL, uffd, UFFD_COPY, at(p + 2 * PAGE), PAGE, src, true, &r),
		     UFFD_DONE);
	cr_assert_eq(r.done, PAGE);
	cr_assert_eq(uffd_place(NULL, uffd, UFFD_COPY, at(p), 8 * PAGE, src + 3, false, &r),
		     UFFD_AGAIN);
	cr_assert_eq(r.done, 2 * PAGE);
	cr_assert_eq(uffd_place(NULL, uffd, UFFD_ZERO, at(p + 2 * PAGE), PAGE, NULL, true, &r),
		     UFFD_EXISTS);
	cr_assert_eq(uffd_place(NULL, uffd, UFFD_ZERO, at(p + 3 * PAGE), 5 * PAGE, NULL, false, &r),
		     UFFD_DONE);
	cr_assert_eq(r.done, 5 * PAGE);
	cr_assert_eq(uffd_place(NULL, uffd, UFFD_WAKE, at(p), 8 * PAGE, NULL, true, &r), UFFD_DONE);
	cr_assert_eq(uffd_place(NULL, uffd, UFFD_WAKE, at(p), 0, NULL, true, &r), UFFD_FAILED);
	cr_assert_eq(r.err, EINVAL);
	cr_assert_eq(uffd_place(NULL, uffd, UFFD_COPY, at(src), PAGE, src, true, &r),
		     UFFD_UNMAPPED);
	cr_assert_eq(uffd_place(NULL, -1, UFFD_COPY, at(p), PAGE, src, true, &r), UFFD_FAILED);
	cr_assert_eq(r.err, EBADF);
	cr_assert_eq(p[0], 0x5a);
	cr_assert_eq(p[3 * PAGE], 0);
	mem_unmap(p, 8 * PAGE);
	mem_unmap(src, 9 * PAGE);
}

Test(uffd, read_nothing_and_nonsense)
{
	cleanup_fd int uffd = open_or_skip(0);
	cleanup_fd int raw = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	struct uffd_event e[UFFD_READ_MAX];
	cleanup_fd int reader = -1, writer = -1;
	int ends[2];

	cr_assert_eq(uffd_read(uffd, e, UFFD_READ_MAX), 0);
	fcntl(uffd, F_SETFL, fcntl(uffd, F_GETFL) & ~O_NONBLOCK);
	cr_assert_leq(uffd_read(uffd, e, UFFD_READ_MAX), 0,
		      "a blocking one does not make us wait (S1-13b)");
	cr_assert_eq(uffd_read(uffd, e, 0), -EINVAL);
	cr_assert_eq(uffd_read(uffd, e, UFFD_READ_MAX + 1), -EINVAL);
	cr_assert_eq(uffd_read(raw, e, 1), -EINVAL, "before the handshake");
	cr_assert_eq(uffd_read(-1, e, 1), -EBADF);
	cr_assert_eq(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
	reader = ends[0];
	writer = ends[1];
	cr_assert_eq(write(writer, e, 33), 33);
	cr_assert_eq(uffd_read(reader, e, 2), -EBADMSG, "alignment lost");
}

/* The messages of the kernel, through a pipe: every kind, and one that no kernel has yet. */
Test(uffd, events_of_every_kind)
{
	struct uffd_msg m[6] = {
		{ .event = UFFD_EVENT_PAGEFAULT,
		  .arg.pagefault = { .flags = 5, .address = 0x1000, .feat.ptid = 4711 } },
		{ .event = UFFD_EVENT_REMOVE, .arg.remove = { .start = 0x2000, .end = 0x3000 } },
		{ .event = UFFD_EVENT_UNMAP, .arg.remove = { .start = 0x4000, .end = 0x5000 } },
		{ .event = UFFD_EVENT_REMAP,
		  .arg.remap = { .from = 0x6000, .to = 0x7000, .len = 0x1000 } },
		{ .event = UFFD_EVENT_FORK, .arg.fork.ufd = 42 },
		{ .event = 0x77 },
	};
	static const struct uffd_event want[6] = {
		{ .kind = UFFD_FAULT, .tid = 4711, .address = 0x1000, .flags = 5, .fd = -1 },
		{ .kind = UFFD_REMOVE, .address = 0x2000, .end = 0x3000, .fd = -1 },
		{ .kind = UFFD_UNMAP, .address = 0x4000, .end = 0x5000, .fd = -1 },
		{ .kind = UFFD_REMAP, .address = 0x6000, .end = 0x7000, .fd = -1 },
		{ .kind = UFFD_FORK, .fd = 42 },
		{ .kind = UFFD_UNKNOWN, .fd = -1 },
	};
	struct uffd_event got[UFFD_READ_MAX];
	cleanup_fd int reader = -1, writer = -1;
	int ends[2];

	cr_assert_eq(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
	reader = ends[0];
	writer = ends[1];
	cr_assert_eq(write(writer, m, sizeof(m)), sizeof(m));
	cr_assert_eq(uffd_read(reader, got, UFFD_READ_MAX), 6);
	for (unsigned i = 0; i < 6; i++) {
		cr_expect_eq(got[i].kind, want[i].kind, "event %u", i);
		cr_expect_eq(got[i].tid, want[i].tid, "event %u", i);
		cr_expect_eq(got[i].address, want[i].address, "event %u", i);
		cr_expect_eq(got[i].end, want[i].end, "event %u", i);
		cr_expect_eq(got[i].flags, want[i].flags, "event %u", i);
		cr_expect_eq(got[i].fd, want[i].fd, "event %u", i);
	}
	cr_assert_eq(write(writer, m, sizeof(m)), sizeof(m));
	cr_assert_eq(uffd_read(reader, got, 4), 4, "no more than asked for");
	cr_assert_eq(uffd_read(reader, got, 4), 2);
}

/* --- USER_MODE_ONLY --- */

/* A process with one registered page that nobody touched; it sends its address. */
static pid_t owner_start(int flags, bool touch, uint64_t *address)
{
	int ends[2];
	pid_t pid;

	cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (pid == 0) {
		uint8_t *p = mem_map_private(PAGE);
		uint64_t where = at(p);
		int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (touch)
			p[0] = 1;
		if (uffd_handshake(uffd, 0, NULL) < 0 ||
		    uffd_register(uffd, where, PAGE, NULL) < 0 ||
		    write(ends[1], &where, sizeof(where)) != sizeof(where))
			_exit(1);
		pause();
		_exit(0);
	}
	close(ends[1]);
	cr_assert_eq(read(ends[0], address, sizeof(*address)), sizeof(*address));
	close(ends[0]);
	return pid;
}

static int probe_owner(int flags, bool touch)
{
	uint64_t address;
	pid_t owner = owner_start(flags, touch, &address);
	int verdict = uffd_probe_kernel(owner, address);

	kill(owner, SIGKILL);
	waitpid(owner, NULL, 0);
	return verdict;
}

/* S2-11: the one way to find out from another process. */
Test(uffd, user_mode_only_is_found_by_a_missing_page)
{
	need_uffd();
	cr_assert_eq(probe_owner(0, false), UFFD_FIT);
	cr_assert_eq(probe_owner(UFFD_USER_MODE_ONLY, false), UFFD_USER_ONLY);
	cr_assert_eq(probe_owner(0, true), -EEXIST, "a page that is there tells nothing");
	cr_assert_eq(uffd_probe_kernel(0x3fffffff, PAGE), -ESRCH);
}

/* It is not visible otherwise: the reason why uffd_probe() cannot tell. */
Test(uffd, user_mode_only_is_invisible_to_probe)
{
	cleanup_fd int uffd = uffd_open(0, true);

	need_uffd();
	cr_assert_geq(uffd, 0);
	cr_assert_eq(uffd_probe(uffd, true, NULL), UFFD_FIT);
}
