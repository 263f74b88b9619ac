/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "hugepages.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sys/fd.h"

#define POOLS "/sys/kernel/mm/hugepages"
#define POOL  POOLS "/hugepages-2048kB"

/* The keeper waits for the end of this pipe, i.e. for all that is left of the borrower. */
static int keeper_pipe = -1;
static pid_t keeper;
/* Held by the borrower and the keeper, as long as one of them is there. */
static int use_lock = -1;

static int pool_read(long *n)
{
	cleanup_fd int fd = open(POOL "/nr_hugepages", O_RDONLY | O_CLOEXEC);
	char buf[32] = "";

	if (fd < 0 || read(fd, buf, sizeof(buf) - 1) <= 0)
		return -errno;
	*n = atol(buf);
	return 0;
}

static int pool_write(long n)
{
	cleanup_fd int fd = open(POOL "/nr_hugepages", O_WRONLY | O_CLOEXEC);

	return fd < 0 || dprintf(fd, "%ld", n) < 0 ? -errno : 0;
}

/* Change the pool by @delta, all or nothing. */
static int pool_change(long delta)
{
	cleanup_fd int lock = open(POOL, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	long before, after;
	int err;

	if (lock < 0 || flock(lock, LOCK_EX) < 0)
		return -errno;
	err = pool_read(&before);
	if (err == 0)
		err = pool_write(before + delta > 0 ? before + delta : 0);
	if (err == 0)
		err = pool_read(&after);
	if (err == 0 && after < before + delta) {
		pool_write(before);
		err = -ENOMEM;
	}
	return err;
}

static _Noreturn void keep(int borrower, unsigned n)
{
	char byte;

	setsid();
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	while (read(borrower, &byte, 1) < 0 && errno == EINTR)
		;
	_exit(pool_change(-(long)n) < 0);
}

/* The keeper holds nothing else of the test's: a reader of the test's output must see its end. */
static void keep_only(int fd)
{
	for (int i = 0; i < 3; i++)
		close(i);
	for (int i = 3; i < 1024; i++)
		if (i != fd && i != use_lock)
			close(i);
}

static int take_use(enum hugepages_use use)
{
	if (use == HUGEPAGES_MORE)
		return 0;
	use_lock = open(POOLS, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (use_lock < 0 || flock(use_lock, use == HUGEPAGES_ALONE ? LOCK_EX : LOCK_SH) < 0)
		return -errno;
	return 0;
}

int hugepages_borrow(unsigned n, enum hugepages_use use)
{
	int ends[2], err = take_use(use);

	if (err == 0)
		err = pool_change(n);
	if (err < 0) {
		close_fd(&use_lock);
		return err;
	}
	if (pipe2(ends, O_CLOEXEC) < 0 || (keeper = fork()) < 0) {
		err = -errno;
		pool_change(-(long)n);
		close_fd(&use_lock);
		return err;
	}
	if (keeper == 0) {
		keep_only(ends[0]);
		keep(ends[0], n);
	}
	close(ends[0]);
	keeper_pipe = ends[1];
	return 0;
}

void hugepages_return(void)
{
	close_fd(&keeper_pipe);
	if (keeper > 0)
		waitpid(keeper, NULL, 0);
	keeper = 0;
	close_fd(&use_lock);
}
