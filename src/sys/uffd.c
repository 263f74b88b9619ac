/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the kernel says, said once.
 *
 * UFFDIO_COPY and UFFDIO_ZEROPAGE stop at the first page they cannot place.  If pages before it
 * were placed the call fails with EAGAIN and the result field holds their bytes; the reason shows
 * only when the next call begins at that page.  If nothing was placed the field holds the negative
 * errno.  EAGAIN with nothing placed means that the address space is changing (an unread REMOVE, a
 * fork).  All of this is measured by tests/kernel/placement.
 */
#include "config.h"

#include "sys/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "core/guard.h"
#include "sys/fd.h"
#include "sys/uapi.h"

#define UFFD_GONE_EVENTS                                                                           \
	(UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_UNMAP)

/* --- placement --- */

static int issue_copy(int uffd, uint64_t dst, uint64_t len, const void *src, bool wake,
		      int64_t *moved)
{
	struct uffdio_copy arg = {
		.dst = dst,
		.src = (uintptr_t)src,
		.len = len,
		.mode = wake ? 0 : UFFDIO_COPY_MODE_DONTWAKE,
	};
	int rc = ioctl(uffd, UFFDIO_COPY, &arg) < 0 ? -errno : 0;

	*moved = arg.copy;
	return rc;
}

static int issue_zero(int uffd, uint64_t dst, uint64_t len, const void *src, bool wake,
		      int64_t *moved)
{
	struct uffdio_zeropage arg = {
		.range = { .start = dst, .len = len },
		.mode = wake ? 0 : UFFDIO_ZEROPAGE_MODE_DONTWAKE,
	};
	int rc = ioctl(uffd, UFFDIO_ZEROPAGE, &arg) < 0 ? -errno : 0;

	(void)src;
	*moved = arg.zeropage;
	return rc;
}

static int issue_wake(int uffd, uint64_t dst, uint64_t len, const void *src, bool wake,
		      int64_t *moved)
{
	struct uffdio_range arg = { .start = dst, .len = len };
	int rc = ioctl(uffd, UFFDIO_WAKE, &arg) < 0 ? -errno : 0;

	(void)src;
	(void)wake;
	*moved = rc == 0 ? (int64_t)len : rc;
	return rc;
}

static int issue_continue(int uffd, uint64_t dst, uint64_t len, const void *src, bool wake,
			  int64_t *moved)
{
	struct uffdio_continue arg = {
		.range = { .start = dst, .len = len },
		.mode = wake ? 0 : UFFDIO_CONTINUE_MODE_DONTWAKE,
	};
	int rc = ioctl(uffd, UFFDIO_CONTINUE, &arg) < 0 ? -errno : 0;

	(void)src;
	*moved = arg.mapped;
	return rc;
}

static int issue_poison(int uffd, uint64_t dst, uint64_t len, const void *src, bool wake,
			int64_t *moved)
{
	struct uffdio_poison arg = {
		.range = { .start = dst, .len = len },
		.mode = wake ? 0 : UFFDIO_POISON_MODE_DONTWAKE,
	};
	int rc = ioctl(uffd, UFFDIO_POISON, &arg) < 0 ? -errno : 0;

	(void)src;
	*moved = arg.updated;
	return rc;
}

static int kernel_issue(void *ctx, int uffd, enum uffd_how how, uint64_t dst, uint64_t len,
			const void *src, bool wake, int64_t *moved)
{
	static int (*const issue[])(int, uint64_t, uint64_t, const void *, bool, int64_t *) = {
		[UFFD_COPY] = issue_copy,
		[UFFD_ZERO] = issue_zero,
		[UFFD_WAKE] = issue_wake,
		[UFFD_CONTINUE] = issue_continue,
		[UFFD_POISON] = issue_poison,
	};

	(void)ctx;
	return issue[how](uffd, dst, len, src, wake, moved);
}

const struct uffd_ops uffd_kernel_ops = { .issue = kernel_issue };

/* What an errno of a placement means; everything that is not here is UFFD_FAILED. */
struct uffd_meaning {
	int err;
	enum uffd_outcome outcome;
};
static const struct uffd_meaning uffd_meanings[] = {
	{ 0, UFFD_DONE },
	{ EAGAIN, UFFD_AGAIN },
	{ EEXIST, UFFD_EXISTS },
	{ ESRCH, UFFD_GONE },
	{ ENOENT, UFFD_UNMAPPED },
	{ ENOMEM, UFFD_NOMEM },
	{ ENOSPC, UFFD_NOMEM }, /* the file system's limit, not the machine's */
};

static enum uffd_outcome uffd_outcome_of(int err)
{
	for (size_t i = 0; i < ARRAY_LEN(uffd_meanings); i++)
		if (uffd_meanings[i].err == err)
			return uffd_meanings[i].outcome;
	return UFFD_FAILED;
}

/* Does the byte count fit the answer?  All for success, a true part (or an errno) for EAGAIN. */
static bool uffd_count_fits(enum uffd_outcome outcome, int64_t moved, uint64_t len)
{
	if (outcome == UFFD_DONE)
		return moved >= 0 && (uint64_t)moved == len;
	if (outcome == UFFD_AGAIN)
		return moved <= 0 || (uint64_t)moved < len;
	return moved <= 0;
}

/**
 * uffd_place - place a range of pages, or wake those who wait for it, by one ioctl
 *
 * @ops: NULL for the kernel.  @wake: false leaves the waiters of @uffd asleep (meaningless for
 * UFFD_WAKE).  Waiters of other address spaces are never woken by a placement through @uffd.
 *
 * The byte count is checked before it is trusted: one that cannot be (more than was asked, less
 * than all with success) is UFFD_FAILED with EPROTO.  A WAKE moves nothing; its count is all or
 * none.
 */
enum uffd_outcome uffd_place(const struct uffd_ops *ops, int uffd, enum uffd_how how, uint64_t dst,
			     uint64_t len, const void *src, bool wake, struct uffd_result *result)
{
	enum uffd_outcome outcome;
	int64_t moved = 0;
	int rc;

	if (!ops)
		ops = &uffd_kernel_ops;
	rc = ops->issue(ops->ctx, uffd, how, dst, len, src, wake, &moved);
	outcome = uffd_outcome_of(-rc);
	if (how == UFFD_WAKE)
		moved = rc == 0 ? (int64_t)len : 0;
	*result = (struct uffd_result){ .err = -rc };
	if (!uffd_count_fits(outcome, moved, len)) {
		result->err = EPROTO;
		return UFFD_FAILED;
	}
	result->done = moved > 0 ? (uint64_t)moved : 0;
	return outcome;
}

/* --- fitness --- */

/**
 * uffd_features - what the running kernel offers
 *
 * Asks through a USER_MODE_ONLY fd, which needs no privilege.  @err may be NULL.
 */
uint64_t uffd_features(int *err)
{
	cleanup_fd int uffd = uffd_create(true);
	uint64_t have = 0;
	int rc = uffd < 0 ? uffd : uffd_handshake(uffd, 0, &have);

	if (err)
		*err = rc;
	return have;
}

static bool uffd_is_one(int fd)
{
	static const char name[] = "anon_inode:[userfaultfd]";
	char path[64], link[sizeof(name) + 1];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, link, sizeof(link));
	return n == sizeof(name) - 1 && memcmp(link, name, sizeof(name) - 1) == 0;
}

/* A non-blocking userfaultfd polls as an error exactly until UFFDIO_API was done. */
static bool uffd_had_handshake(int uffd)
{
	struct pollfd p = { .fd = uffd };

	return poll(&p, 1, 0) == 0 || !(p.revents & POLLERR);
}

/* What fdinfo tells of it; "" where that cannot be read. */
static void uffd_info(int uffd, char *text, size_t size)
{
	cleanup_fd int fd = -1;
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", uffd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? 0 : read(fd, text, size - 1);
	text[n > 0 ? n : 0] = '\0';
}

/*
 * The features that its handshake asked for, as fdinfo shows them: "API:
 * protocol:features:offered".  None where that cannot be read.
 */
static uint64_t uffd_asked_for(int uffd)
{
	unsigned long long features = 0;
	char text[512];
	const char *at;

	uffd_info(uffd, text, sizeof(text));
	at = strstr(text, "API:");
	return at && sscanf(at, "API: %*x:%llx:", &features) == 1 ? features : 0;
}

/**
 * uffd_waiting - how many accesses, of threads or of the kernel for them, sleep on it?
 *
 * Whoever reads its messages: one that was read counts until it is woken.  With nothing mapped
 * that is registered through it none can be added.
 *
 * Return: 0, or -EIO where the kernel does not tell.
 */
int uffd_waiting(int uffd, unsigned *n)
{
	char text[512];
	const char *at;

	uffd_info(uffd, text, sizeof(text));
	at = strstr(text, "total:");
	return at && sscanf(at, "total: %u", n) == 1 ? 0 : -EIO;
}

/**
 * uffd_probe - can a userfaultfd that somebody sent be served at all? (F06, S1-23)
 *
 * A blocking fd would poll as an error for ever, so it is made O_NONBLOCK first; the owner of the
 * other end of the shared open file sees that flag, too.  @was_blocking may be NULL.
 *
 * @need_kernel asks nothing more here: whether the fd was opened USER_MODE_ONLY is in no file of
 * /proc and in no ioctl.  Whoever needs kernel accesses to fault (S2-11) follows up with
 * uffd_probe_kernel(), once a page is registered through it.
 */
enum uffd_fitness uffd_probe(int uffd, bool need_kernel, bool *was_blocking)
{
	int flags = fcntl(uffd, F_GETFL);

	(void)need_kernel;
	if (was_blocking)
		*was_blocking = false;
	if (flags < 0 || !uffd_is_one(uffd))
		return UFFD_NOT_A_UFFD;
	if (!(flags & O_NONBLOCK)) {
		if (was_blocking)
			*was_blocking = true;
		if (fcntl(uffd, F_SETFL, flags | O_NONBLOCK) < 0)
			return UFFD_NOT_A_UFFD;
	}
	if (!uffd_had_handshake(uffd))
		return UFFD_NO_HANDSHAKE;
	return UFFD_FIT;
}

/**
 * uffd_reports_gone - are there events about memory that goes?
 *
 * The kernel places nothing in an address space while one of them is unread, and gives it out
 * behind all faults: whoever reads faults only as far as there is room for their threads must read
 * this one further.
 */
bool uffd_reports_gone(int uffd)
{
	return uffd_asked_for(uffd) & UFFD_GONE_EVENTS;
}

#define PROBE_SOON 40

/*
 * A process of its own, since a thread that waits for a page ends by nothing but SIGKILL.  It ends
 * with whoever asked: it has all his descriptors, and would keep them open for ever.
 */
static pid_t probe_start(pid_t owner, uint64_t address)
{
	pid_t parent = getpid(), child = fork();

	if (child == 0) {
		char byte;
		struct iovec to = { .iov_base = &byte, .iov_len = 1 };
		struct iovec from = { .iov_base = (void *)(uintptr_t)address, .iov_len = 1 };

		if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
			_exit(EINTR);
		_exit(process_vm_readv(owner, &to, 1, &from, 1, 0) == 1 ? 0 : errno);
	}
	return child < 0 ? -errno : child;
}

static bool probe_waits(pid_t child)
{
	static const char where[] = "handle_userfault";
	char path[64], buf[64];
	cleanup_fd int fd = -1;

	snprintf(path, sizeof(path), "/proc/%d/wchan", (int)child);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd >= 0 && read(fd, buf, sizeof(buf)) >= (ssize_t)strlen(where) &&
	       memcmp(buf, where, strlen(where)) == 0;
}

/* What the end of the probe says: it should not have ended. */
static int probe_verdict(int status)
{
	int code = WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;

	if (code == EFAULT)
		return UFFD_USER_ONLY;
	return code == 0 ? -EEXIST : -code;
}

/**
 * uffd_probe_kernel - do accesses of the kernel wait for pages of this userfaultfd? (S2-11)
 *
 * @owner: the process that opened it (not our own).  @address: an address of @owner that is
 * registered with it and missing.  A short-lived child reads that address through the kernel: with
 * USER_MODE_ONLY it is told EFAULT at once; else it waits, which is all we want to know, and is
 * ended.  Its fault may show up as an event, with the child as thread, or as a readiness without an
 * event.
 *
 * Forks and may wait up to a second: not for the fault thread.  Returns UFFD_FIT, UFFD_USER_ONLY,
 * or -errno when it cannot tell: -EEXIST the page is not missing, -EPERM no ptrace right, -ESRCH
 * the process has ended, -ETIMEDOUT.
 */
int uffd_probe_kernel(pid_t owner, uint64_t address)
{
	int status, verdict = -ETIMEDOUT;
	pid_t child = probe_start(owner, address);

	if (child < 0)
		return child;
	for (unsigned i = 0; i < PROBE_SOON + 1000; i++) {
		if (waitpid(child, &status, WNOHANG) == child)
			return probe_verdict(status);
		if (probe_waits(child)) {
			verdict = UFFD_FIT;
			break;
		}
		/* It is there soon, and a VM may stand still until then. */
		usleep(i < PROBE_SOON ? 50 : 1000);
	}
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	return verdict;
}

/**
 * uffd_fitness_text - why it is refused, in words
 */
const char *uffd_fitness_text(enum uffd_fitness f)
{
	static const char *const text[] = {
		[UFFD_FIT] = "fit",
		[UFFD_NOT_A_UFFD] = "the descriptor is not a userfaultfd",
		[UFFD_NO_HANDSHAKE] = "UFFDIO_API was not done on the userfaultfd",
		[UFFD_USER_ONLY] = "the userfaultfd is USER_MODE_ONLY, kernel accesses would fail",
	};

	return (size_t)f < ARRAY_LEN(text) ? text[f] : "unknown";
}

/* --- registration --- */

struct uffd_range_ioctl {
	uint64_t ioctl;
	unsigned can;
};
static const struct uffd_range_ioctl uffd_range_ioctls[] = {
	{ 1ull << _UFFDIO_COPY, UFFD_CAN_COPY },
	{ 1ull << _UFFDIO_ZEROPAGE, UFFD_CAN_ZERO },
	{ 1ull << _UFFDIO_WAKE, UFFD_CAN_WAKE },
	{ 1ull << _UFFDIO_POISON, UFFD_CAN_POISON },
};

/**
 * uffd_register - register a range of the owner's address space for missing faults
 *
 * Works on a userfaultfd received from another process: it acts on the address space of whoever
 * opened it.  The range is a multiple of the pages it is made of.  @can may be NULL.  -EBUSY:
 * another userfaultfd has it; -ENOMEM: the owner has ended; -ENOMEM or -EINVAL: no such mapping;
 * -EPERM: sealed against writing.
 */
int uffd_register(int uffd, uint64_t addr, uint64_t len, unsigned *can)
{
	struct uffdio_register arg = {
		.range = { .start = addr, .len = len },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	if (ioctl(uffd, UFFDIO_REGISTER, &arg) < 0)
		return -errno;
	if (can) {
		*can = 0;
		for (size_t i = 0; i < ARRAY_LEN(uffd_range_ioctls); i++)
			if (arg.ioctls & uffd_range_ioctls[i].ioctl)
				*can |= uffd_range_ioctls[i].can;
	}
	return 0;
}

/**
 * uffd_unregister - end the registration; whoever waits in the range is woken
 */
int uffd_unregister(int uffd, uint64_t addr, uint64_t len)
{
	struct uffdio_range arg = { .start = addr, .len = len };

	return ioctl(uffd, UFFDIO_UNREGISTER, &arg) < 0 ? -errno : 0;
}

/* --- events --- */

static struct uffd_event uffd_event_of(const struct uffd_msg *m)
{
	struct uffd_event e = { .kind = UFFD_UNKNOWN, .fd = -1 };

	switch (m->event) {
	case UFFD_EVENT_PAGEFAULT:
		e.kind = UFFD_FAULT;
		e.address = m->arg.pagefault.address;
		e.flags = m->arg.pagefault.flags;
		e.tid = m->arg.pagefault.feat.ptid;
		break;
	case UFFD_EVENT_REMOVE:
	case UFFD_EVENT_UNMAP:
		e.kind = m->event == UFFD_EVENT_REMOVE ? UFFD_REMOVE : UFFD_UNMAP;
		e.address = m->arg.remove.start;
		e.end = m->arg.remove.end;
		break;
	case UFFD_EVENT_REMAP:
		e.kind = UFFD_REMAP;
		e.address = m->arg.remap.from;
		e.end = m->arg.remap.to;
		e.length = m->arg.remap.len;
		break;
	case UFFD_EVENT_FORK:
		e.kind = UFFD_FORK;
		e.fd = (int)m->arg.fork.ufd;
		break;
	}
	return e;
}

/*
 * O_NONBLOCK is a flag of the open file, which the process that handed it over shares: it can take
 * the flag away at any time, and a plain read() would then sleep.  Kernels before 6.10 know no
 * RWF_NOWAIT here; there a poll is what stands between a flag that was taken away (POLLERR) and a
 * reader that sleeps.
 */
static ssize_t uffd_read_now(int uffd, void *to, size_t len)
{
	struct iovec iov = { .iov_base = to, .iov_len = len };
	struct pollfd ready = { .fd = uffd, .events = POLLIN };
	ssize_t n = preadv2(uffd, &iov, 1, -1, RWF_NOWAIT);

	if (n >= 0 || errno != EOPNOTSUPP)
		return n;
	if (poll(&ready, 1, 0) > 0 && ready.revents & POLLIN)
		return read(uffd, to, len);
	errno = ready.revents ? EBADF : EAGAIN;
	return -1;
}

/**
 * uffd_read - read a batch of events by one system call
 *
 * The kernel hands out faults before other events, so a REMOVE in the same batch may be older than
 * a fault before it.  Descriptors of FORK events are the caller's.
 */
int uffd_read(int uffd, struct uffd_event *events, unsigned max)
{
	struct uffd_msg msgs[UFFD_READ_MAX];
	ssize_t n;

	_Static_assert(sizeof(msgs[0]) == 32, "the kernel's message");
	if (max == 0 || max > UFFD_READ_MAX)
		return -EINVAL;
	do
		n = uffd_read_now(uffd, msgs, max * sizeof(msgs[0]));
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? 0 : -errno;
	if (n % (ssize_t)sizeof(msgs[0]))
		return -EBADMSG;
	n /= (ssize_t)sizeof(msgs[0]);
	for (ssize_t i = 0; i < n; i++)
		events[i] = uffd_event_of(&msgs[i]);
	return (int)n;
}
