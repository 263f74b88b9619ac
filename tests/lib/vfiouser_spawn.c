/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "vfiouser_spawn.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sys/fd.h"
#include "tap.h"

#define THEIR_FD 3

_Noreturn static void become(int sock, const char *options)
{
	const char *top = getenv("POSTCOPY_TOP_BUILDDIR");
	char path[4096], words[256];

	snprintf(path, sizeof(path), "%s/tests/lib/vfiouser-server", top ? top : ".");
	snprintf(words, sizeof(words), "%s,fd=%d", options, THEIR_FD);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (dup2(sock, THEIR_FD) == THEIR_FD)
		execl(path, path, words, (char *)NULL);
	perror(path);
	_exit(127);
}

void vfiouser_spawn(struct vfiouser_child *c, const char *options)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		tap_bail_out("no socket");
	c->pid = fork();
	if (c->pid < 0)
		tap_bail_out("no process");
	if (c->pid == 0) {
		/* dup2() onto itself would leave it to be closed. */
		if (pair[1] == THEIR_FD)
			pair[1] = dup(pair[1]);
		become(pair[1], options);
	}
	close_fd(&pair[1]);
	c->sock = pair[0];
}

void vfiouser_reap(struct vfiouser_child *c)
{
	close_fd(&c->sock);
	if (c->pid <= 0)
		return;
	kill(c->pid, SIGKILL);
	waitpid(c->pid, NULL, 0);
	c->pid = 0;
}
