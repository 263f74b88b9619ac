/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "forker.h"

#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "facts.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

#define MUCH (1ul << 30)	/* a quarter million entries to copy, without memory behind them */

void *forker_reserve(size_t len)
{
	void *at = mmap(NULL, len + MUCH, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
			-1, 0);

	expect(at != MAP_FAILED);
	return at;
}

static void *fork_for_ever(void *unused)
{
	for (;;)
		if (fork() == 0)
			_exit(0);
	return unused;
}

void forker_start(void *reserved, size_t len)
{
	uint8_t *much = (uint8_t *)reserved + len;
	pthread_t thread;

	expect_eq(mprotect(much, MUCH, PROT_READ | PROT_WRITE), 0);
	expect_eq(madvise(much, MUCH, MADV_NOHUGEPAGE), 0);
	/*
	 * Of what was never written fork() copies nothing, and one written page makes it copy all.
	 */
	*much = 1;
	if (madvise(much, MUCH, MADV_POPULATE_READ) < 0)
		for (size_t i = 0; i < MUCH; i += 4096)
			(void)*(volatile uint8_t *)(much + i);
	signal(SIGCHLD, SIG_IGN);
	expect_eq(pthread_create(&thread, NULL, fork_for_ever, NULL), 0);
}
