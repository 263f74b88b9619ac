/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * with_hugepages [alone|more] N COMMAND [ARG...]: run a command while the pool of 2 MiB pages is N
 * pages larger; alone: when nobody else of the tests has borrowed any, and nobody does; more: for
 * whoever has it alone already.  Exits as the command does; 77 when the pages cannot be had.
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
	enum hugepages_use use = HUGEPAGES_BESIDE;
	int status, err, pages;
	pid_t child;

	if (argc > 1 && strcmp(argv[1], "alone") == 0)
		use = HUGEPAGES_ALONE;
	else if (argc > 1 && strcmp(argv[1], "more") == 0)
		use = HUGEPAGES_MORE;
	argv += use != HUGEPAGES_BESIDE;
	argc -= use != HUGEPAGES_BESIDE;
	pages = argc > 2 ? atoi(argv[1]) : 0;
	if (pages <= 0) {
		fprintf(stderr, "usage: with_hugepages [alone|more] N COMMAND [ARG...]\n");
		return 2;
	}
	err = hugepages_borrow((unsigned)pages, use);
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
