/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What poll and read say about a userfaultfd (S1-22, S1-23, F06), what a multishot poll does with
 * it, and what can and cannot be seen of it from outside (S2-11).
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "scene.h"
#include "sys/ring.h"
#include "sys/uapi.h"
#include "sys/uffd_open.h"
#include "tap.h"

static int raw(int flags)
{
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | flags);

	if (uffd < 0)
		fact_skip("userfaultfd: %s", strerror(errno));
	return uffd;
}

static int polled(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };

	return poll(&p, 1, 0) == 0 ? 0 : p.revents;
}

static void no_handshake_is_pollerr(void)
{
	int uffd = raw(O_NONBLOCK);
	struct uffd_msg m;

	expect_eq(polled(uffd, POLLIN), POLLERR);
	expect_eq(polled(uffd, 0), POLLERR);
	expect_eq(read(uffd, &m, sizeof(m)), -1);
	expect_eq(errno, EINVAL);
	expect_eq(uffd_handshake(uffd, 0, NULL), 0);
	expect_eq(polled(uffd, POLLIN), 0);
	expect_eq(polled(uffd, 0), 0);
}

static void blocking_is_pollerr(void)
{
	int uffd = raw(0);

	expect_eq(polled(uffd, 0), POLLERR);
	expect_eq(uffd_handshake(uffd, 0, NULL), 0);
	expect_eq(polled(uffd, 0), POLLERR);
	expect_eq(polled(uffd, POLLIN), POLLERR);
	expect_eq(fcntl(uffd, F_SETFL, O_NONBLOCK), 0);
	expect_eq(polled(uffd, POLLIN), 0);
}

static void a_pending_fault_is_pollin(void)
{
	uint8_t *p = k_map(ANON, 1, NULL);
	int uffd = k_uffd(0);
	struct actor a;

	expect_eq(k_register(uffd, at(p), PAGE, NULL), 0);
	actor_start(&a, act_load, p);
	actor_asleep(&a);
	expect_eq(polled(uffd, POLLIN), POLLIN);
	expect_eq(polled(uffd, POLLIN), POLLIN);
	expect_eq(k_fault(uffd), at(p));
	expect_eq(polled(uffd, POLLIN), 0);
	expect_eq(k_zero(uffd, at(p), PAGE, 0).err, 0);
	expect_eq(actor_result(&a), 0);
}

/* The fault loop's wait: a completion for each fault that comes after a drain. */
static void multishot_poll_tells_each_fault(void)
{
	enum { N = 10 };
	const struct ring_cookie cookie = { .kind = 1 };
	uint8_t *p = k_map(ANON, N, NULL);
	int uffd = k_uffd(0);
	struct ring_done d;
	struct ring *r;
	struct actor a;

	expect_eq(k_register(uffd, at(p), N * PAGE, NULL), 0);
	expect_eq(ring_new(&r, 8), 0);
	expect_eq(ring_poll(r, uffd, cookie), 0);
	expect_eq(ring_wait(r, &d, 1, 0), 0);
	for (unsigned i = 0; i < N; i++) {
		actor_start(&a, act_load, p + i * PAGE);
		expect_eq(ring_wait(r, &d, 1, -1), 1);
		expect_eq(d.result & (POLLIN | POLLERR | POLLHUP), POLLIN);
		expect(d.more);
		expect_eq(k_fault(uffd), at(p + i * PAGE));
		expect_eq(k_zero(uffd, at(p + i * PAGE), PAGE, 0).err, 0);
		expect_eq(actor_result(&a), 0);
	}
	ring_free(r);
}

/* Armed before the handshake it ends with POLLERR: probe first, arm then. */
static void multishot_poll_of_an_unfit_one(void)
{
	int uffd = raw(O_NONBLOCK);
	struct ring_done d;
	struct ring *r;

	expect_eq(ring_new(&r, 8), 0);
	expect_eq(ring_poll(r, uffd, (struct ring_cookie){ 0 }), 0);
	expect_eq(ring_wait(r, &d, 1, -1), 1);
	expect(d.result & POLLERR);
	ring_free(r);
}

/* Everything about it that /proc shows, but its inode number. */
static void describe(int uffd, char *out, size_t size)
{
	char path[64], *inode;
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", uffd);
	f = fopen(path, "r");
	expect(f != NULL);
	n = fread(out, 1, size - 1, f);
	fclose(f);
	out[n] = '\0';
	inode = strstr(out, "ino:");
	expect(inode != NULL);
	memset(inode, '-', strcspn(inode, "\n"));
}

/* S2-11: so the service needs a missing page to find out (uffd_probe_kernel). */
static void user_mode_only_is_invisible(void)
{
	char full[512], user[512];
	int a = k_uffd(0), b = uffd_open(0, true);

	expect(b >= 0);
	describe(a, full, sizeof(full));
	describe(b, user, sizeof(user));
	expect(strstr(full, "API:") != NULL);
	expect_eq(strcmp(full, user), 0);
	expect_eq(fcntl(a, F_GETFL), fcntl(b, F_GETFL));
}

static void fdinfo_counts_waiters(void)
{
	uint8_t *p = k_map(ANON, 2, NULL);
	int uffd = k_uffd(0);
	struct actor a, b;
	char text[512];

	expect_eq(k_register(uffd, at(p), 2 * PAGE, NULL), 0);
	actor_start(&a, act_load, p);
	expect_eq(k_fault(uffd), at(p));
	actor_start(&b, act_load, p + PAGE);
	actor_asleep(&b);
	describe(uffd, text, sizeof(text));
	expect(strstr(text, "pending:\t1\n") != NULL);
	expect(strstr(text, "total:\t2\n") != NULL);
	expect_eq(k_zero(uffd, at(p), 2 * PAGE, 0).err, 0);
	expect_eq(actor_result(&a), 0);
	expect_eq(actor_result(&b), 0);
}

static void needed_features_are_offered(void)
{
	const uint64_t need = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MISSING_HUGETLBFS |
			      UFFD_FEATURE_THREAD_ID | UFFD_FEATURE_EVENT_REMOVE;
	uint64_t have = 0;
	int uffd = raw(O_NONBLOCK);

	expect_eq(uffd_handshake(uffd, 0, &have), 0);
	expect_eq(have & need, need);
	tap_note("features 0x%llx", (unsigned long long)have);
}

/* A refused handshake is not spent: the fd can ask again for less. */
static void handshake_can_be_tried_again(void)
{
	int uffd = raw(O_NONBLOCK);

	expect_eq(uffd_handshake(uffd, 1ull << 60, NULL), -EINVAL);
	expect_eq(uffd_handshake(uffd, UFFD_FEATURE_THREAD_ID, NULL), 0);
	expect_eq(uffd_handshake(uffd, UFFD_FEATURE_THREAD_ID, NULL), -EINVAL);
}

/* Who may have a full one: the privileged, or whoever may open the device. */
static void privilege(void)
{
	FILE *f = fopen("/proc/sys/vm/unprivileged_userfaultfd", "r");
	int allowed = 1;

	if (geteuid() != 0 || !f || fscanf(f, "%d", &allowed) != 1 || allowed)
		fact_skip("needs root and vm.unprivileged_userfaultfd=0");
	fclose(f);
	expect_eq(setresuid(65534, 65534, 65534), 0);
	expect_eq(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK), -1);
	expect_eq(errno, EPERM);
	expect(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY) >= 0);
}

static void device_makes_full_ones(void)
{
	int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	int uffd;

	if (dev < 0)
		fact_skip("/dev/userfaultfd: %s", strerror(errno));
	uffd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	expect(uffd >= 0);
	expect_eq(uffd_handshake(uffd, UFFD_FEATURE_THREAD_ID, NULL), 0);
	expect_eq(polled(uffd, POLLIN), 0);
}

static const struct fact facts[] = {
	{ "S1-23: without the handshake: POLLERR, even for no events; read EINVAL",
	  no_handshake_is_pollerr },
	{ "S1-23: a blocking one: POLLERR until O_NONBLOCK is set", blocking_is_pollerr },
	{ "a pending fault: POLLIN until it is read", a_pending_fault_is_pollin },
	{ "a multishot poll tells each fault after a drain", multishot_poll_tells_each_fault },
	{ "a multishot poll of an unfit one: POLLERR", multishot_poll_of_an_unfit_one },
	{ "S2-11: USER_MODE_ONLY cannot be seen in /proc", user_mode_only_is_invisible },
	{ "fdinfo counts who waits and what is unread", fdinfo_counts_waiters },
	{ "the features we need are offered", needed_features_are_offered },
	{ "a refused handshake can be tried again", handshake_can_be_tried_again },
	{ "without privilege: EPERM, but USER_MODE_ONLY", privilege },
	{ "/dev/userfaultfd makes full ones", device_makes_full_ones },
};

int main(void)
{
	facts_run(facts, ARRAY_LEN(facts));
	return tap_done();
}
