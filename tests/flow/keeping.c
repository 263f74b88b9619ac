/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The keeper and the vault, with this program as the worker: what was kept outlives every death at
 * any moment, and nothing else does.
 *
 * The program is executed again by the keeper as `keeping worker PART FD'; what it finds out it
 * tells through the pipe FD, a line each, the last one being "good".
 */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glib.h>

#include "daemon/keeper.h"
#include "daemon/vault.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "tap.h"

#define PATIENCE_MS 60000
#define STEPS	    60
#define NAMES	    7
#define BURST	    100
#define ROUNDS	    1000

static int to_test = -1;

/* --- in the worker ---------------------------------------------------------------------------- */

__attribute__((format(printf, 1, 2)))
static void tell(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vdprintf(to_test, fmt, args);
	va_end(args);
}

/* Nothing that follows would mean anything. */
static void need(bool good, const char *what, int number)
{
	if (good)
		return;
	tell("bad %s %d\n", what, number);
	_exit(1);
}

static int memory(int content)
{
	int fd = memfd_create("m", MFD_CLOEXEC);

	need(fd >= 0 && write(fd, &content, sizeof(content)) == sizeof(content), "memfd", errno);
	return fd;
}

/* -1: there is nothing. */
static int content_of(struct vault *v, const char *name)
{
	cleanup_fd int fd = vault_take(v, name);
	int content = -1;

	if (fd >= 0)
		need(pread(fd, &content, sizeof(content), 0) == sizeof(content), name, errno);
	return content;
}

static const char *name_of(char out[32], unsigned i)
{
	snprintf(out, 32, "m-%u", i);
	return out;
}

static int keep(struct vault *v, unsigned i, int content)
{
	cleanup_fd int fd = memory(content);
	char name[32];

	return vault_keep(v, name_of(name, i), fd);
}

_Noreturn static void die(void)
{
	(void)raise(SIGKILL);
	_exit(99);
}

_Noreturn static void good(struct vault *v, int code)
{
	vault_over(v);
	tell("good\n");
	_exit(code);
}

/* What is kept after the first @n steps: a few names, kept, replaced and dropped in turn. */
static void do_steps(unsigned n, int content[NAMES])
{
	for (unsigned i = 0; i < NAMES; i++)
		content[i] = -1;
	for (unsigned i = 0; i < n; i++)
		content[i * 5 % NAMES] = i % 4 == 3 ? -1 : (int)i;
}

/* Each worker looks at what it should find, does one step more, and dies on the spot. */
static void steps(struct vault *v)
{
	unsigned n = vault_past(v)->generation;
	int content[NAMES];
	char name[32];

	vault_served(v);
	do_steps(n, content);
	for (unsigned i = 0; i < NAMES; i++)
		need(content_of(v, name_of(name, i)) == content[i], "step", (int)n);
	if (n == STEPS)
		good(v, 0);
	if (n % 4 == 3)
		vault_drop(v, name_of(name, n * 5 % NAMES));
	else
		need(keep(v, n * 5 % NAMES, (int)n) == 0, "keep", (int)n);
	die();
}

/* The keeper stands still meanwhile: everything is in its queue when we are dead. */
static void burst(struct vault *v)
{
	char name[32];

	if (vault_past(v)->generation == 0) {
		tell("ready\n");
		(void)raise(SIGSTOP);
		for (unsigned i = 0; i < BURST; i++)
			need(keep(v, i, (int)i) == 0, "keep", (int)i);
		die();
	}
	for (unsigned i = 0; i < BURST; i++)
		need(content_of(v, name_of(name, i)) == (int)i, "lost", (int)i);
	good(v, 0);
}

static void full(struct vault *v)
{
	char name[32];

	if (vault_past(v)->generation == 0) {
		for (unsigned i = 0; i < KEEPER_MAX; i++)
			need(keep(v, i, (int)i) == 0, "keep", (int)i);
		need(keep(v, KEEPER_MAX, 1) == -ENOSPC, "full", 0);
		need(keep(v, 5, 7) == 0, "replace", 5);
		vault_drop(v, name_of(name, 9));
		need(keep(v, KEEPER_MAX + 1, 3) == 0, "again", 0);
		die();
	}
	for (unsigned i = 0; i < KEEPER_MAX; i++)
		if (i != 5 && i != 9)
			need(content_of(v, name_of(name, i)) == (int)i, "lost", (int)i);
	need(content_of(v, name_of(name, 5)) == 7, "replaced", 5);
	need(content_of(v, name_of(name, 9)) == -1, "dropped", 9);
	need(content_of(v, name_of(name, KEEPER_MAX)) == -1, "refused", 0);
	need(content_of(v, name_of(name, KEEPER_MAX + 1)) == 3, "the last", 0);
	good(v, 0);
}

static void names(struct vault *v)
{
	static const char *const bad[] = { "", "A", "a.b", "a b", "a=b", "a,b", "\xc3\xa4" };
	char longest[KEEPER_NAME + 1];
	cleanup_fd int fd = memory(1);

	memset(longest, 'x', sizeof(longest));
	longest[KEEPER_NAME] = '\0';
	if (vault_past(v)->generation == 0) {
		for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++)
			need(vault_keep(v, bad[i], fd) == -EINVAL, "name", (int)i);
		need(vault_keep(v, longest, fd) == -ENAMETOOLONG, "long", 0);
		longest[KEEPER_NAME - 1] = '\0';
		need(vault_keep(v, longest, fd) == 0, "longest", 0);
		die();
	}
	longest[KEEPER_NAME - 1] = '\0';
	need(content_of(v, longest) == 1, "longest", 1);
	need(vault_take(v, longest) == -1, "taken twice", 0);
	good(v, 0);
}

static unsigned descriptors_of(pid_t pid)
{
	unsigned n = 0;
	char path[64];
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	d = opendir(path);
	need(d != NULL, path, errno);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* It reads when it has its turn. */
static void wait_descriptors(unsigned n)
{
	uint64_t begun = clock_ns();

	while (descriptors_of(getppid()) != n) {
		need(clock_ns() - begun < PATIENCE_MS * UINT64_C(1000000), "descriptors",
		     (int)descriptors_of(getppid()));
		usleep(1000);
	}
}

static void flat(struct vault *v)
{
	unsigned before, own = descriptors_of(getpid());
	char name[32];

	/* It may not even have closed our end of the socket. */
	usleep(300000);
	before = descriptors_of(getppid());
	for (unsigned i = 0; i < ROUNDS; i++) {
		need(keep(v, i % 10, (int)i) == 0 && keep(v, i % 10, (int)i) == 0, "keep", (int)i);
		if (i % 100 == 99)
			wait_descriptors(before + 1);
		vault_drop(v, name_of(name, i % 10));
	}
	wait_descriptors(before);
	need(descriptors_of(getpid()) == own, "own descriptors", (int)own);
	good(v, 0);
}

static void codes(struct vault *v)
{
	const struct vault_past *past = vault_past(v);

	vault_served(v);
	if (past->generation == 0)
		_exit(3);
	need(strcmp(past->last, past->generation == 1 ? "exit 3" : "signal 6") == 0, past->last, 0);
	need(past->restarts == past->generation, "restarts", (int)past->restarts);
	if (past->generation == 1)
		abort();
	good(v, 7);
}

static void crash_at_end(struct vault *v)
{
	vault_over(v);
	tell("good\n");
	(void)signal(SIGSEGV, SIG_DFL);
	(void)raise(SIGSEGV);
}

/* Of no use five times: the sixth comes a second later, and finds what was kept all the same. */
static void loop(struct vault *v)
{
	unsigned n = vault_past(v)->generation;

	tell("at %u\n", n);
	if (n == 0)
		need(keep(v, 0, 42) == 0, "keep", 0);
	if (n < 6)
		die();
	need(content_of(v, "m-0") == 42, "kept", 0);
	good(v, 0);
}

static void useless(struct vault *v)
{
	(void)v;
	tell("at\n");
	die();
}

static void upgrade(struct vault *v)
{
	const struct vault_past *past = vault_past(v);
	cleanup_fd int program = -1;

	if (past->generation == 0) {
		program = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
		need(vault_next(v, program) == 0 && keep(v, 0, 8) == 0, "next", 0);
		_exit(0);
	}
	need(content_of(v, "m-0") == 8, "kept", (int)past->generation);
	if (past->generation == 1) {
		need(strcmp(past->last, "upgrade") == 0 && past->restarts == 0, past->last, 1);
		vault_served(v);
		program = memory(0);		/* no program at all */
		need(vault_next(v, program) == 0, "next", 1);
		_exit(0);
	}
	/* the third could not be executed */
	need(past->generation == 3 && strcmp(past->last, "exit 127") == 0, past->last, 3);
	good(v, 0);
}

static void forget(struct vault *v)
{
	char name[32];

	vault_served(v);
	if (vault_past(v)->generation == 0) {
		for (unsigned i = 0; i < 4; i++)
			need(keep(v, i, (int)i) == 0, "keep", (int)i);
		die();
	}
	if (vault_past(v)->generation == 1) {
		need(content_of(v, "m-2") == 2, "kept", 2);
		vault_forget_rest(v);
		die();
	}
	for (unsigned i = 0; i < 4; i++)
		need(content_of(v, name_of(name, i)) == (i == 2 ? 2 : -1), "forgotten", (int)i);
	good(v, 0);
}

static void environment(struct vault *v)
{
	need(!getenv(KEEPER_ENV) && !getenv(KEEPER_KEPT_ENV), "environment", 0);
	need(vault_keeps(v) && vault_has_keeper(v) && !vault_again(v), "keeps", 0);
	good(v, 0);
}

static void hang(struct vault *v)
{
	(void)v;
	tell("pid %d\n", (int)getpid());
	for (;;)
		;
}

static void on_term(int sig)
{
	(void)sig;
	to_test = to_test < 0 ? to_test : -to_test - 1;
}

static void patient(struct vault *v)
{
	(void)signal(SIGTERM, on_term);
	tell("ready\n");
	while (to_test >= 0)
		usleep(1000);
	to_test = -to_test - 1;
	good(v, 4);
}

static const struct {
	const char *name;
	void (*run)(struct vault *v);
} parts[] = {
	{ "steps", steps },   { "burst", burst },     { "full", full },
	{ "names", names },   { "flat", flat },	      { "codes", codes },
	{ "loop", loop },     { "useless", useless }, { "upgrade", upgrade },
	{ "forget", forget }, { "environment", environment },
	{ "hang", hang },     { "patient", patient }, { "crash", crash_at_end },
};

static int worker(const char *part, const char *fd)
{
	struct vault *v = vault_open(false);

	to_test = atoi(fd);
	for (unsigned i = 0; i < G_N_ELEMENTS(parts); i++)
		if (strcmp(parts[i].name, part) == 0)
			parts[i].run(v);
	vault_free(v);
	return 1;
}

/* --- in the test ------------------------------------------------------------------------------ */

struct rig {
	pid_t keeper;
	FILE *from;
};

static void start(struct rig *r, const char *self, const char *part)
{
	int pair[2];
	char fd[16];

	if (pipe(pair) < 0)
		tap_bail_out("no pipe");
	snprintf(fd, sizeof(fd), "%d", pair[1]);
	r->keeper = fork();
	if (r->keeper == 0) {
		char *argv[] = { (char *)self, (char *)"worker", (char *)part, fd, NULL };

		close(pair[0]);
		_exit(keeper_run(argv, environ, -1));
	}
	close(pair[1]);
	r->from = fdopen(pair[0], "r");
}

static bool hear(struct rig *r, char line[128])
{
	return fgets(line, 128, r->from) != NULL;
}

static int end(struct rig *r)
{
	int status = -1;

	fclose(r->from);
	if (waitpid(r->keeper, &status, 0) != r->keeper)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

/* To its end: what was said last must be "good". */
static bool runs(const char *self, const char *part, int code, const char *name)
{
	char line[128] = "nothing", last[128] = "nothing\n";
	struct rig r;
	int status;

	start(&r, self, part);
	while (hear(&r, line))
		memcpy(last, line, sizeof(last));
	status = end(&r);
	if (strcmp(last, "good\n") != 0 || status != code)
		tap_note("%s: status %d, the last word was %s", part, status, last);
	return tap_ok(strcmp(last, "good\n") == 0 && status == code, "%s", name);
}

static pid_t worker_of(pid_t keeper)
{
	char path[64], text[32] = "";
	cleanup_fd int fd = -1;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)keeper, (int)keeper);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		return 0;
	return (pid_t)atoi(text);
}

static void queue_outlives_the_worker(const char *self)
{
	char line[128];
	struct rig r;
	siginfo_t info;
	pid_t w;

	start(&r, self, "burst");
	if (!hear(&r, line))
		tap_bail_out("the worker did not begin");
	w = worker_of(r.keeper);
	kill(r.keeper, SIGSTOP);
	waitid(P_PID, (id_t)r.keeper, &info, WSTOPPED | WNOWAIT);
	/* again and again, for it may not have stopped yet */
	for (char state = 0; state != 'Z'; usleep(1000)) {
		char path[64], text[256] = "";
		cleanup_fd int fd = -1;

		kill(w, SIGCONT);
		snprintf(path, sizeof(path), "/proc/%d/stat", (int)w);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
			tap_bail_out("the worker is not there");
		state = strrchr(text, ')')[2];
	}
	kill(r.keeper, SIGCONT);
	if (!hear(&r, line))
		strcpy(line, "nothing");
	tap_ok(end(&r) == 0 && strcmp(line, "good\n") == 0,
	       "what is in the queue of a keeper that stands still outlives the worker");
}

static void dies_with_its_keeper(const char *self)
{
	cleanup_fd int pidfd = -1;
	struct pollfd p = { .events = POLLIN };
	char line[128] = "";
	struct rig r;

	start(&r, self, "hang");
	if (!hear(&r, line))
		tap_bail_out("the worker did not begin");
	pidfd = (int)syscall(SYS_pidfd_open, atoi(line + 4), 0);
	kill(r.keeper, SIGKILL);
	p.fd = pidfd;
	tap_ok(poll(&p, 1, PATIENCE_MS) == 1 && end(&r) == 1000 + SIGKILL,
	       "a worker that hangs ends with its keeper");
}

static void passes_signals_on(const char *self)
{
	char line[128];
	struct rig r;

	start(&r, self, "patient");
	if (!hear(&r, line))
		tap_bail_out("the worker did not begin");
	kill(r.keeper, SIGTERM);
	tap_ok(hear(&r, line) && strcmp(line, "good\n") == 0 && end(&r) == 4,
	       "a signal goes to the worker, and its status comes back");
}

static void backs_off(const char *self)
{
	uint64_t begun = clock_ns();
	bool good = runs(self, "loop", 0, "one that dies again and again finds what was kept");

	/* the sixth after a second, the seventh after two more */
	tap_ok(good && clock_ns() - begun > UINT64_C(2900000000), "and comes ever more seldom");
}

static void is_asked_twice(const char *self)
{
	char line[128];
	struct rig r;
	int n = 0;

	start(&r, self, "useless");
	while (n < 5 && hear(&r, line))
		n++;
	usleep(200000);
	kill(r.keeper, SIGTERM);
	usleep(100000);
	tap_ok(n == 5 && waitpid(r.keeper, NULL, WNOHANG) == 0,
	       "without a worker the first signal does not end it");
	kill(r.keeper, SIGTERM);
	tap_ok(end(&r) == 1, "the second does");
}

static void without_a_keeper(void)
{
	cleanup_fd int fd = memfd_create("m", MFD_CLOEXEC), out = 0;
	struct vault *v = vault_open(false);
	bool good = !vault_keeps(v) && !vault_again(v) && vault_keep(v, "a", fd) == 0 &&
		    vault_take(v, "a") == -1 && vault_memory(v, "b", &out) == 0 && out >= 0 &&
		    vault_next(v, fd) == -EOPNOTSUPP && vault_keep(v, "B", fd) == -EINVAL;

	vault_drop(v, "a");
	vault_over(v);
	vault_free(v);
	tap_ok(good, "where nobody keeps, nothing is kept, and nothing fails");
}

int main(int argc, char **argv)
{
	if (argc == 4 && strcmp(argv[1], "worker") == 0)
		return worker(argv[2], argv[3]);
	setvbuf(stdout, NULL, _IONBF, 0);
	without_a_keeper();
	runs(argv[0], "environment", 0, "what a worker is told does not stay in its environment");
	runs(argv[0], "steps", 0, "a worker killed between any two messages loses nothing");
	queue_outlives_the_worker(argv[0]);
	runs(argv[0], "full", 0, "a table that is full refuses, and keeps what it has");
	runs(argv[0], "names", 0, "names that cannot be are refused");
	runs(argv[0], "flat", 0, "a thousand descriptors come and go");
	runs(argv[0], "forget", 0, "what nobody takes is forgotten");
	runs(argv[0], "codes", 7, "who ends without saying so is followed, however it ended");
	runs(argv[0], "crash", 128 + SIGSEGV, "nobody follows who said that it ends");
	runs(argv[0], "upgrade", 0, "another program follows, or the one before if it cannot");
	backs_off(argv[0]);
	is_asked_twice(argv[0]);
	passes_signals_on(argv[0]);
	dies_with_its_keeper(argv[0]);
	return tap_done();
}
