/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libpostcopy-preload.so: postcopyd serves the faults of a program that knows nothing of it.
 *
 * All that has to happen inside such a program is that a userfaultfd is opened, since that belongs
 * to the address space of whoever opens it; everything else postcopyd does from outside.  So before
 * main() the library opens one, hands it over with a HELLO that says "unaware", and keeps still.
 * With maps=on it also stands before mmap() (preload_map.c) and mremap() (preload_remap.c), for
 * programs that map guest memory while it is being migrated.
 *
 * What processes do to that:
 *
 *   fork   The userfaultfd is that of the parent's address space, so a child is nothing to the
 *          daemon until it has said hello for itself.  While the VM's memory is not served yet it
 *          does that at once, for it may be the program that goes into the background.  Later forks
 *          are for helpers: those say hello only should they map something.  No child keeps the
 *          parent's descriptors, and what a child starts is not asked for anything (preload_env.c).
 *   exec   The descriptors are closed by it, so the daemon sees the connection end, whatever comes
 *          next: a wrapper's hello is over when it becomes the program, which says its own.
 *   seccomp, setuid, chroot   come later than we do.  What is done afterwards is recvmsg, sendmsg,
 *          socketpair, poll, fstat, fstatfs, madvise, mprotect, munmap, open, read, close: what any
 *          program does.
 *
 * Who cannot be served does not run: without a hello the program ends before main(), a mapping that
 * cannot be proven fails.  required=no lifts the first, for a program that may run without a
 * migration; then nothing at all is done.
 */
#include "config.h"

#include "client/preload.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/guard.h"

enum duty {
	DUTY_NONE,		/* not asked, or done without */
	DUTY_UNSAID,		/* a child that has not said hello */
	DUTY_SAYING,		/* one thread does */
	DUTY_LINE,		/* connected */
};

static struct {
	struct preload_options options;
	struct preload_line line;
	_Atomic enum duty duty;
	pid_t pid;
	uint64_t parent;	/* token of the process that we were forked from; 0 */
} self;

/**
 * preload_complain - one line on the standard error, never on the standard output
 */
void preload_complain(const char *fmt, ...)
{
	static const char head[] = "postcopy-preload: ";
	char line[512];
	size_t used = sizeof(head) - 1;
	va_list args;
	int n;

	memcpy(line, head, used);
	va_start(args, fmt);
	n = vsnprintf(line + used, sizeof(line) - used - 1, fmt, args);
	va_end(args);
	used += n < 0 ? 0 : (size_t)n;
	if (used > sizeof(line) - 2)
		used = sizeof(line) - 2;
	line[used++] = '\n';
	if (write(STDERR_FILENO, line, used) < 0)
		return;
}

/* One of the threads that come here says hello for all of them. */
static int say_hello(char *why)
{
	enum duty expected = DUTY_UNSAID;
	int ret;

	if (!atomic_compare_exchange_strong(&self.duty, &expected, DUTY_SAYING)) {
		poll(NULL, 0, 1);
		return 0;
	}
	ret = preload_line_open(&self.line, &self.options, self.parent, why);
	self.pid = getpid();
	atomic_store(&self.duty, ret < 0 ? DUTY_UNSAID : DUTY_LINE);
	return ret;
}

static struct preload_line *unusable(int *err, int code, const char *text, char *why)
{
	*err = code;
	snprintf(why, PRELOAD_WHY, "%s", text);
	return NULL;
}

/* Connected: is it still us whom the daemon knows, and does it still want to hear of anything? */
static struct preload_line *line_in_use(int *err, char *why)
{
	struct preload_line *l = &self.line;

	if (self.pid != getpid())
		return unusable(
			err, -ECHILD,
			"this process was made by other means than fork(): postcopyd does not know it",
			why);
	if (!atomic_load(&l->complete) && !atomic_load(&l->ended))
		preload_line_hear(l);
	if (atomic_load(&l->complete))
		return NULL;
	if (atomic_load(&l->ended))
		return unusable(
			err, -EIO,
			"the connection to postcopyd ended before all memory was here: nobody would serve it",
			why);
	return l;
}

/**
 * preload_line - the line to tell of mappings
 * @err: set on failure
 * @why: PRELOAD_WHY bytes, set on failure
 *
 * Return: NULL when nobody wants to know (*err untouched), or on failure.
 */
struct preload_line *preload_line(int *err, char *why)
{
	if (!self.options.maps)
		return NULL;
	for (;;) {
		enum duty duty = atomic_load(&self.duty);
		int ret;

		if (duty == DUTY_NONE)
			return NULL;
		if (duty == DUTY_LINE)
			return line_in_use(err, why);
		ret = say_hello(why);
		if (ret < 0) {
			*err = ret;
			return NULL;
		}
	}
}

static void before_fork(void)
{
	int err = errno;

	if (atomic_load(&self.duty) == DUTY_LINE)
		preload_line_hear(&self.line);
	errno = err;
}

/*
 * The program may have threads: nothing here takes a lock or memory.  A child that cannot say hello
 * is nobody's business yet; the daemon does not serve what it does not know, and refuses to begin
 * while somebody unknown maps guest memory.
 */
static void in_child(void)
{
	bool served = atomic_load(&self.line.listening);
	char why[PRELOAD_WHY] = "";
	int err = errno;

	preload_env_remove();
	if (atomic_load(&self.duty) == DUTY_NONE)
		return;
	if (self.line.token)
		self.parent = self.line.token;
	preload_line_close(&self.line);
	atomic_store(&self.duty, DUTY_UNSAID);
	if (!served && say_hello(why) < 0)
		preload_complain("process %d is not served: %s", (int)getpid(), why);
	errno = err;
}

__attribute__((constructor)) static void begin(void)
{
	char why[PRELOAD_WHY] = "";
	int err = errno, ret = preload_env_read(&self.options, why);

	preload_line_init(&self.line);
	if (ret > 0) {
		atomic_store(&self.duty, DUTY_UNSAID);
		ret = say_hello(why);
		if (ret == 0)
			ret = -pthread_atfork(before_fork, NULL, in_child);
		if (self.options.settled)
			preload_env_remove();
	}
	if (ret < 0) {
		atomic_store(&self.duty, DUTY_NONE);
		preload_complain(
			"%s%s", why[0] ? why : strerror(-ret),
			self.options.required ?
				"; the program does not run without it (required=no lets it)" :
				"");
	}
	if (ret < 0 && self.options.required)
		_exit(1);
	errno = err;
}
