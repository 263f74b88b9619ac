/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * with_hugepages N COMMAND [ARG...]: run a command while the pool of 2 MiB pages is N pages larger.
 * Exits as the command does; 77 when the pages cannot be had.
 */
#include "config.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hugepages.h"

int main(int argc, char **argv)
{
	int status, err, pages = argc > 2 ? atoi(argv[1]) : 0;
	pid_t child;

	if (pages <= 0) {
		fprintf(stderr, "usage: with_hugepages N COMMAND [ARG...]\n");
		return 2;
	}
	err = hugepages_borrow((unsigned)pages);
	if (err < 0) {
		fprintf(stderr, "with_hugepages: %d pages: %s\n", pages, strerror(-err));
		return 77;
	}
	child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		execvp(argv[2], argv + 2);
		perror(argv[2]);
		_exit(127);
	}
	if (child < 0 || waitpid(child, &status, 0) != child)
		return 1;
	hugepages_return();
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
