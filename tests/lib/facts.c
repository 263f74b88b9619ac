/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "facts.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tap.h"

#define EXIT_SKIP 77

/* Why a check was skipped; shared with the processes of the check. */
static char *skip_reason;

void fact_failed(const char *file, int line, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	dprintf(STDOUT_FILENO, "# %s:%d: %s\n", file, line, text);
	_exit(1);
}

void fact_skip(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(skip_reason, 256, format, args);
	va_end(args);
	_exit(EXIT_SKIP);
}

pid_t fact_fork(void)
{
	pid_t parent = getpid(), child = fork();

	expect(child >= 0);
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
	}
	return child;
}

/* The check's own process: a new group, a deadline, silence on success. */
static _Noreturn void fact_child(const struct fact *f)
{
	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(FACT_SECONDS);
	f->check();
	_exit(0);
}

static void fact_report(const struct fact *f, int status)
{
	if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIP) {
		tap_skip(f->name, skip_reason);
		return;
	}
	if (WIFSIGNALED(status))
		tap_note("%s", WTERMSIG(status) == SIGALRM ? "hangs" : strsignal(WTERMSIG(status)));
	tap_ok(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s", f->name);
}

static void fact_run(const struct fact *f)
{
	int status;
	pid_t child;

	fflush(stdout);
	child = fork();
	if (child < 0)
		tap_bail_out("fork: %s", strerror(errno));
	if (child == 0)
		fact_child(f);
	setpgid(child, child);
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			tap_bail_out("waitpid: %s", strerror(errno));
	kill(-child, SIGKILL);
	fact_report(f, status);
}

void facts_run(const struct fact *facts, size_t n)
{
	skip_reason = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (skip_reason == MAP_FAILED)
		tap_bail_out("mmap: %s", strerror(errno));
	tap_plan((unsigned)n);
	for (size_t i = 0; i < n; i++)
		fact_run(&facts[i]);
	munmap(skip_reason, 4096);
}
