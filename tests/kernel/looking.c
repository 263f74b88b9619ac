/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Looking at what another process has mapped: whom that waits for.  (daemon/prover.c)
 */
#include "config.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "holder.h"
#include "scene.h"
#include "tap.h"

/* A process that is locked, or stopped, and tells when it is. */
static pid_t other(struct holder *lock)
{
	int pair[2];
	pid_t pid;
	char byte = 0;

	expect_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	pid = fact_fork();
	if (pid == 0) {
		if (lock) {
			holder_forked(lock);
			holder_lock(lock);
		}
		expect_eq(write(pair[1], &byte, 1), 1);
		for (;;)
			pause();
	}
	close(pair[1]);
	expect_eq(read(pair[0], &byte, 1), 1);
	return pid;
}

static int read_smaps(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char text[4096];
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text));

	close(fd);
	return n > 0;
}

static int act_smaps(uint8_t *path)
{
	return read_smaps((const char *)path);
}

static void locked_does_not_answer(void)
{
	struct holder *h = holder_new();
	pid_t pid = other(h);
	struct actor looker;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/smaps", (int)pid);
	actor_start(&looker, act_smaps, (uint8_t *)path);
	actor_asleep(&looker);
	actor_asleep(&looker);
	holder_let_go(h);
	expect_eq(actor_result(&looker), 1);
}

static void stopped_does_answer(void)
{
	pid_t pid = other(NULL);
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/smaps", (int)pid);
	expect_eq(kill(pid, SIGSTOP), 0);
	expect_eq(read_smaps(path), 1);
}

static const struct fact facts[] = {
	{ "smaps of a process that keeps its address space locked does not come until it lets go",
	  locked_does_not_answer },
	{ "smaps of a stopped process comes", stopped_does_answer },
};

int main(void)
{
	facts_run(facts, ARRAY_LEN(facts));
	return tap_done();
}
