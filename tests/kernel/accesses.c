/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which accesses to a missing page wait for it (devices.md 0.1), in private and in shared memory;
 * and that with USER_MODE_ONLY only the user's own do (S2-11).
 *
 * Each access is an actor that returns 0 or an errno; it finds the page full of 0x11.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <linux/futex.h>
#include <liburing.h>

#include "scene.h"
#include "sys/fd.h"
#include "sys/uffd_open.h"
#include "tap.h"

#define BYTE 0x11

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif

/* --- what the page is touched with --- */

static int by_load(uint8_t *page)
{
	return act_load(page) == BYTE ? 0 : EILSEQ;
}

static int by_store(uint8_t *page)
{
	return act_store(page);
}

/* A pipe of ours that never fills: 0 is the reading end. */
static void pipe_of_one(int ends[2])
{
	expect_eq(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
}

static int by_read(uint8_t *page)
{
	int ends[2];

	pipe_of_one(ends);
	expect_eq(write(ends[1], "z", 1), 1);
	if (read(ends[0], page, 1) != 1)
		return errno;
	return page[0] == 'z' && page[1] == BYTE ? 0 : EILSEQ;
}

static int by_write(uint8_t *page)
{
	uint8_t byte = 0;
	int ends[2];

	pipe_of_one(ends);
	if (write(ends[1], page, 1) != 1)
		return errno;
	expect_eq(read(ends[0], &byte, 1), 1);
	return byte == BYTE ? 0 : EILSEQ;
}

static int by_vmsplice(uint8_t *page)
{
	struct iovec iov = { .iov_base = page, .iov_len = 1 };
	uint8_t byte = 0;
	int ends[2];

	pipe_of_one(ends);
	if (vmsplice(ends[1], &iov, 1, 0) != 1)
		return errno;
	expect_eq(read(ends[0], &byte, 1), 1);
	return byte == BYTE ? 0 : EILSEQ;
}

/* A file that takes O_DIRECT, unlinked; -1 where there is none. */
static int direct_file(void)
{
	char name[] = "./direct.XXXXXX";
	cleanup_fd int made = mkostemp(name, O_CLOEXEC);
	int fd = made < 0 ? -1 : open(name, O_RDWR | O_CLOEXEC | O_DIRECT);

	if (made >= 0)
		unlink(name);
	return fd;
}

static int by_direct_write(uint8_t *page)
{
	cleanup_fd int fd = direct_file();
	uint8_t byte = 0;

	if (fd < 0)
		fact_skip("no O_DIRECT here");
	if (pwrite(fd, page, PAGE, 0) != PAGE)
		return errno;
	expect_eq(fcntl(fd, F_SETFL, 0), 0);
	expect_eq(pread(fd, &byte, 1, 0), 1);
	return byte == BYTE ? 0 : EILSEQ;
}

static int by_direct_read(uint8_t *page)
{
	cleanup_fd int fd = direct_file();
	uint8_t byte = 'z';

	if (fd < 0)
		fact_skip("no O_DIRECT here");
	expect_eq(ftruncate(fd, PAGE), 0);
	expect_eq(fcntl(fd, F_SETFL, 0), 0);
	expect_eq(pwrite(fd, &byte, 1, 0), 1);
	expect_eq(fsync(fd), 0);
	expect_eq(fcntl(fd, F_SETFL, O_DIRECT), 0);
	if (pread(fd, page, PAGE, 0) != PAGE)
		return errno;
	return page[0] == 'z' && page[1] == 0 ? 0 : EILSEQ;
}

/* The kernel compares the word, finds another value, and says EAGAIN. */
static int by_futex(uint8_t *page)
{
	struct timespec no_time = { 0 };

	if (syscall(SYS_futex, page, FUTEX_WAIT, 0x22222222, &no_time, NULL, 0) == 0)
		return EILSEQ;
	return errno == EAGAIN ? 0 : errno;
}

static int by_vm_readv(uint8_t *page)
{
	uint8_t byte = 0;
	struct iovec to = { .iov_base = &byte, .iov_len = 1 };
	struct iovec from = { .iov_base = page, .iov_len = 1 };

	if (process_vm_readv(getpid(), &to, 1, &from, 1, 0) != 1)
		return errno;
	return byte == BYTE ? 0 : EILSEQ;
}

static int by_ring_buffer(uint8_t *page)
{
	struct iovec iov = { .iov_base = page, .iov_len = PAGE };
	struct io_uring ring;
	int rc = io_uring_queue_init(2, &ring, 0);

	if (rc < 0)
		fact_skip("io_uring: %s", strerror(-rc));
	rc = io_uring_register_buffers(&ring, &iov, 1);
	io_uring_queue_exit(&ring);
	if (rc < 0)
		return -rc;
	return page[0] == BYTE ? 0 : EILSEQ;
}

static int advised(uint8_t *page, int advice)
{
	if (madvise(page, PAGE, advice) < 0)
		return errno;
	return page[0] == BYTE ? 0 : EILSEQ;
}

static int by_populate_read(uint8_t *page)
{
	return advised(page, MADV_POPULATE_READ);
}

static int by_populate_write(uint8_t *page)
{
	return advised(page, MADV_POPULATE_WRITE);
}

/* The system call itself: a sanitizer would make a nothing of the function. */
static int by_mlock(uint8_t *page)
{
	if (syscall(SYS_mlock, page, PAGE) < 0)
		return errno;
	return page[0] == BYTE ? 0 : EILSEQ;
}

static int by_proc_mem(uint8_t *page)
{
	cleanup_fd int fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	uint8_t byte;

	expect(fd >= 0);
	return pread(fd, &byte, 1, (off_t)at(page)) == 1 ? 0 : errno;
}

/* --- what is expected of it --- */

enum { READS, WRITES, EITHER };

struct access {
	int (*act)(uint8_t *page);
	int flag;      /* the fault's WRITE flag */
	int user_only; /* errno with USER_MODE_ONLY; 0: waits there, too */
};

static const struct access accesses[] = {
	{ by_load, READS, 0 },
	{ by_store, WRITES, 0 },
	{ by_read, WRITES, EFAULT },
	{ by_write, READS, EFAULT },
	{ by_vmsplice, READS, EFAULT },
	{ by_direct_write, READS, EFAULT },
	{ by_direct_read, WRITES, EFAULT },
	{ by_futex, EITHER, EFAULT },
	{ by_vm_readv, READS, EFAULT },
	{ by_ring_buffer, WRITES, EFAULT },
	{ by_populate_read, READS, EFAULT },
	{ by_populate_write, WRITES, EFAULT },
	{ by_mlock, EITHER, ENOMEM },
};

static uint8_t *arena(enum kind kind, bool user_only, int *uffd)
{
	uint8_t *p = k_map(kind, 1, NULL);

	*uffd = user_only ? uffd_open(0, true) : k_uffd(0);
	expect(*uffd >= 0);
	expect_eq(k_register(*uffd, at(p), PAGE, NULL), 0);
	return p;
}

static void waits(const struct access *x, enum kind kind, bool user_only)
{
	int uffd;
	uint8_t *p = arena(kind, user_only, &uffd);
	struct uffd_msg m;
	struct actor a;

	actor_start(&a, x->act, p);
	m = k_event(uffd);
	expect_eq(m.event, UFFD_EVENT_PAGEFAULT);
	expect_eq(m.arg.pagefault.address, at(p));
	if (x->flag != EITHER)
		expect_eq(m.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE,
			  x->flag == WRITES ? UFFD_PAGEFAULT_FLAG_WRITE : 0);
	actor_asleep(&a);
	expect_eq(k_copy(uffd, at(p), k_source(BYTE, 1), PAGE, 0).err, 0);
	expect_eq(actor_result(&a), 0);
	k_quiet(uffd);
}

static void fails(const struct access *x, enum kind kind, bool user_only, int err)
{
	int uffd;
	uint8_t *p = arena(kind, user_only, &uffd);

	expect_eq(x->act(p), err);
	k_quiet(uffd);
	expect_eq(k_copy(uffd, at(p), k_source(BYTE, 1), PAGE, 0).err, 0);
}

/* With a full userfaultfd each access waits; with USER_MODE_ONLY it waits or fails. */
static void in_both_memories(int (*act)(uint8_t *page))
{
	const struct access *x = accesses;

	while (x->act != act)
		x++;
	for (enum kind k = ANON; k <= SHMEM; k++) {
		waits(x, k, false);
		if (x->user_only)
			fails(x, k, true, x->user_only);
		else
			waits(x, k, true);
	}
}

#define FACT(access)                                                                               \
	static void fact_##access(void)                                                            \
	{                                                                                          \
		in_both_memories(by_##access);                                                     \
	}
FACT(load)
FACT(store)
FACT(read)
FACT(write)
FACT(vmsplice)
FACT(direct_write)
FACT(direct_read)
FACT(futex)
FACT(vm_readv)
FACT(ring_buffer)
FACT(populate_read)
FACT(populate_write)
FACT(mlock)

/* It never waits: the one kernel access that sees a missing page as an error. */
static void fact_proc_mem(void)
{
	const struct access x = { .act = by_proc_mem };

	for (enum kind k = ANON; k <= SHMEM; k++) {
		fails(&x, k, false, EIO);
		fails(&x, k, true, EIO);
	}
}

static const struct fact facts[] = {
	{ "a load waits, also with USER_MODE_ONLY", fact_load },
	{ "a store waits, also with USER_MODE_ONLY", fact_store },
	{ "read(2) into it waits; USER_MODE_ONLY: EFAULT", fact_read },
	{ "write(2) from it waits; USER_MODE_ONLY: EFAULT", fact_write },
	{ "vmsplice from it waits; USER_MODE_ONLY: EFAULT", fact_vmsplice },
	{ "O_DIRECT write from it waits; USER_MODE_ONLY: EFAULT", fact_direct_write },
	{ "O_DIRECT read into it waits; USER_MODE_ONLY: EFAULT", fact_direct_read },
	{ "a futex in it waits; USER_MODE_ONLY: EFAULT", fact_futex },
	{ "process_vm_readv waits; USER_MODE_ONLY: EFAULT", fact_vm_readv },
	{ "io_uring buffer registration waits; USER_MODE_ONLY: EFAULT", fact_ring_buffer },
	{ "MADV_POPULATE_READ waits; USER_MODE_ONLY: EFAULT", fact_populate_read },
	{ "MADV_POPULATE_WRITE waits; USER_MODE_ONLY: EFAULT", fact_populate_write },
	{ "mlock waits; USER_MODE_ONLY: ENOMEM", fact_mlock },
	{ "/proc/PID/mem: EIO, no event", fact_proc_mem },
};

int main(void)
{
	facts_run(facts, ARRAY_LEN(facts));
	return tap_done();
}
