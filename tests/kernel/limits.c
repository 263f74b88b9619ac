/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory that is not there: a tmpfs that is full, a file shorter than its mapping, a mapping that
 * may not be written.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "scene.h"
#include "sys/mem.h"
#include "tap.h"

#define ROOM 8

/* A file of twice ROOM pages on a tmpfs of ROOM pages. */
static int small_file(void)
{
	return k_file(k_mount("tmpfs", "size=32k"), 2 * ROOM * PAGE);
}

/* ENOMEM, not ENOSPC; the waiter sleeps on, and is served when there is room again. */
static void full_tmpfs_is_enomem(void)
{
	uint8_t *src = k_source(0x11, 1);
	int fd = small_file(), uffd = k_uffd(0);
	uint8_t *p = mem_map_shared(fd, 0, 2 * ROOM * PAGE);
	struct moved m;
	struct actor a;

	expect(p != NULL);
	expect_eq(k_register(uffd, at(p), 2 * ROOM * PAGE, NULL), 0);
	for (unsigned i = 0; i < ROOM; i++)
		expect_eq(k_copy(uffd, at(p + i * PAGE), src, PAGE, 0).err, 0);
	actor_start(&a, act_load, p + ROOM * PAGE);
	expect_eq(k_fault(uffd), at(p + ROOM * PAGE));
	m = k_copy(uffd, at(p + ROOM * PAGE), src, PAGE, 0);
	expect_eq(m.err, ENOMEM);
	expect_eq(m.field, -ENOMEM);
	m = k_zero(uffd, at(p + ROOM * PAGE), PAGE, 0);
	expect_eq(m.err, ENOMEM);
	actor_asleep(&a);
	expect_eq(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE), 0);
	expect_eq(k_copy(uffd, at(p + ROOM * PAGE), src, PAGE, 0).err, 0);
	expect_eq(actor_result(&a), 0x11);
}

/* Part of it fits: EAGAIN and the bytes, then the reason. */
static void full_tmpfs_in_the_middle(void)
{
	int fd = small_file(), uffd = k_uffd(0);
	uint8_t *p = mem_map_shared(fd, 0, 2 * ROOM * PAGE);
	struct moved m;

	expect_eq(k_register(uffd, at(p), 2 * ROOM * PAGE, NULL), 0);
	m = k_copy(uffd, at(p), k_source(0x11, 2 * ROOM), 2 * ROOM * PAGE, 0);
	expect_eq(m.err, EAGAIN);
	expect_eq(m.field, ROOM * PAGE);
	m = k_copy(uffd, at(p + ROOM * PAGE), k_source(0x11, 1), PAGE, 0);
	expect_eq(m.err, ENOMEM);
}

/* A file that was cut behind the mapping's back. */
static void beyond_the_file_is_efault(void)
{
	int fd, uffd = k_uffd(0);
	uint8_t *p = k_map(SHMEM, 4, &fd);
	struct moved m;

	expect_eq(k_register(uffd, at(p), 4 * PAGE, NULL), 0);
	expect_eq(ftruncate(fd, 2 * PAGE), 0);
	m = k_copy(uffd, at(p + 2 * PAGE), k_source(0x11, 1), PAGE, 0);
	expect_eq(m.err, EFAULT);
	expect_eq(m.field, -EFAULT);
	expect_eq(k_copy(uffd, at(p + PAGE), k_source(0x11, 1), PAGE, 0).err, 0);
}

/* What cannot be written cannot be filled: a shared mapping of a file opened for reading. */
static void read_only_file_cannot_be_registered(void)
{
	int fd, uffd = k_uffd(0), ro;
	char path[64];
	uint8_t *p;

	k_map(SHMEM, 1, &fd);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ro = open(path, O_RDONLY | O_CLOEXEC);
	expect(ro >= 0);
	p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, ro, 0);
	expect(p != MAP_FAILED);
	expect_eq(k_register(uffd, at(p), PAGE, NULL), EPERM);
	p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
	expect_eq(k_register(uffd, at(p), PAGE, NULL), 0);
	expect_eq(k_copy(uffd, at(p), k_source(0x11, 1), PAGE, 0).err, 0);
	expect_eq(act_load(p), 0x11);
}

/* A range that nobody may touch yet (a back-end that waits for its acknowledgement) can be
 * prepared. */
static void prot_none_can_be_registered(void)
{
	int fd, uffd = k_uffd(0);
	uint8_t *p;

	k_map(SHMEM, 2, &fd);
	p = mmap(NULL, 2 * PAGE, PROT_NONE, MAP_SHARED, fd, 0);
	expect(p != MAP_FAILED);
	expect_eq(k_register(uffd, at(p), 2 * PAGE, NULL), 0);
	expect_eq(k_copy(uffd, at(p), k_source(0x11, 1), PAGE, 0).err, 0);
	expect_eq(mprotect(p, 2 * PAGE, PROT_READ | PROT_WRITE), 0);
	expect_eq(act_load(p), 0x11);
}

/* Pages of an ordinary file are not memory that could be missing. */
static void disk_file_cannot_be_registered(void)
{
	char name[] = "./disk.XXXXXX";
	int fd = mkostemp(name, O_CLOEXEC), uffd = k_uffd(0);
	uint8_t *p;

	expect(fd >= 0);
	expect_eq(unlink(name), 0);
	expect_eq(ftruncate(fd, PAGE), 0);
	p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	expect(p != MAP_FAILED);
	expect_eq(k_register(uffd, at(p), PAGE, NULL), EINVAL);
}

static const struct fact facts[] = {
	{ "a full tmpfs: ENOMEM, waiters sleep on", full_tmpfs_is_enomem },
	{ "a tmpfs that fills up in the middle: EAGAIN and bytes, then ENOMEM",
	  full_tmpfs_in_the_middle },
	{ "beyond the end of the file: EFAULT", beyond_the_file_is_efault },
	{ "a file opened for reading only cannot be registered",
	  read_only_file_cannot_be_registered },
	{ "PROT_NONE can be registered and filled", prot_none_can_be_registered },
	{ "a file on disk cannot be registered", disk_file_cannot_be_registered },
};

int main(void)
{
	facts_run(facts, ARRAY_LEN(facts));
	return tap_done();
}
