/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The keeper: a process so small that it has no reason to die.
 *
 * It holds a duplicate of every descriptor whose loss another process could see, each under a name,
 * and one child, the worker, which is this program executed again.  When the worker dies without
 * having said that it ends on purpose, what is kept is inherited by the next one.
 *
 * Nothing that was sent is lost: a datagram is in our queue when send() returns to the worker, and
 * a worker's death is looked at only when its queue has been read empty *after* wait() said that it
 * is dead.  So no message needs an answer.
 *
 * A worker that dies again and again before it was of any use is not started for ever: after
 * DEATHS of them within SERIES_NS we stay, since what we hold is what stands between missing pages
 * and zeroes, and try again ever more seldom.  A new program (KEEPER_NEXT) whose first worker dies
 * before it was of use is given up for the one before.
 *
 * The worker dies with us by PR_SET_PDEATHSIG, which it sets itself (vault_open()): the end of the
 * socket would be seen by a main loop that turns, not by one that hangs.  It has a process group of
 * its own, so that a terminal's ^C reaches it once, through us.
 *
 * No heap, no parsing and no GLib here; everything there is is made in begin().
 */
#include "config.h"
#include "daemon/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sys/clock.h"
#include "sys/fd.h"
#include "sys/fdpass.h"

#define SPARE_FDS  64			/* beside the table: ours, and what was passed to us */
#define DEATHS	   5
#define SERIES_NS  10000000000ull
#define BACK_OFF_NS 1000000000ull	/* at first; doubled up to the next */
#define BACK_OFF_MAX_NS 60000000000ull
#define AGAIN_NS   5000000000ull	/* a second signal within this time counts */
#define KEPT_BYTES (KEEPER_MAX * (KEEPER_NAME + 12))

struct keeper {
	struct {
		char name[KEEPER_NAME];
		int fd;
	} kept[KEEPER_MAX];		/* the first n of them, in no order */
	unsigned n;
	char **argv, **env;		/* of the workers */
	char said[128];			/* KEEPER_ENV and KEEPER_KEPT_ENV of the next worker */
	char list[KEPT_BYTES];
	int program, proven;		/* what is executed; the one before, while it is on trial */
	int next;			/* what the worker wants executed after it; -1 */
	int ready_fd;
	int sock, signals;		/* to the worker; -1 */
	sigset_t mask;			/* as it was when we began */
	pid_t worker;			/* 0: there is none */
	bool served, over;
	unsigned generation, restarts;
	char last[32];			/* how the last worker ended */
	unsigned deaths;		/* in a row, without being of use */
	uint64_t series_ns, back_off_ns, due_ns, asked_ns;
	int status;			/* of the last worker, as an exit status */
};

/* A log that nobody reads must not stop us. */
__attribute__((format(printf, 1, 2)))
static void say(const char *fmt, ...)
{
	struct pollfd p = { .fd = STDERR_FILENO, .events = POLLOUT };
	char text[256] = "postcopyd: keeper: ";
	size_t n = strlen(text);
	va_list args;

	va_start(args, fmt);
	vsnprintf(text + n, sizeof(text) - n - 1, fmt, args);
	va_end(args);
	n = strlen(text);
	text[n++] = '\n';
	if (poll(&p, 1, 0) == 1 && (p.revents & POLLOUT) && write(STDERR_FILENO, text, n) < 0)
		return;
}

/* --- the table -------------------------------------------------------------------------------- */

static unsigned find(const struct keeper *k, const char *name)
{
	unsigned i = 0;

	while (i < k->n && strncmp(k->kept[i].name, name, KEEPER_NAME) != 0)
		i++;
	return i;
}

/* The vault counts too, so a table that is full is its mistake; nothing that is kept gives way. */
static void keep(struct keeper *k, const char *name, int fd)
{
	unsigned i = find(k, name);

	if (fd < 0 || i == KEEPER_MAX) {
		say("%.63s: %s", name, fd < 0 ? "no descriptor came" : "the table is full");
		close_fd(&fd);
		return;
	}
	if (i == k->n) {
		memcpy(k->kept[i].name, name, KEEPER_NAME);
		k->kept[i].fd = -1;
		k->n++;
	}
	close_fd(&k->kept[i].fd);
	k->kept[i].fd = fd;
}

static void drop(struct keeper *k, const char *name)
{
	unsigned i = find(k, name);

	if (i == k->n)
		return;
	close_fd(&k->kept[i].fd);
	k->kept[i] = k->kept[--k->n];
}

/* --- what the worker says --------------------------------------------------------------------- */

static void take_message(struct keeper *k, struct keeper_message *m, struct fdpass *fds)
{
	m->name[KEEPER_NAME - 1] = '\0';
	switch (m->verb) {
	case KEEPER_KEEP:
		keep(k, m->name, fdpass_steal(fds, 0));
		break;
	case KEEPER_DROP:
		drop(k, m->name);
		break;
	case KEEPER_SERVED:
		k->served = true;
		k->deaths = 0;
		k->back_off_ns = 0;
		close_fd(&k->proven);
		break;
	case KEEPER_NEXT:
		close_fd(&k->next);
		k->next = fdpass_steal(fds, 0);
		break;
	case KEEPER_OVER:
		k->over = true;
		break;
	}
}

/* Until there is nothing more; what is cut off says nothing. */
static void read_worker(struct keeper *k)
{
	struct keeper_message m;
	struct fdpass fds;
	ssize_t n = k->sock < 0 ? -EAGAIN : 1;

	while (n > 0 || n == -EMSGSIZE) {
		n = fdpass_recv(k->sock, &m, sizeof(m), &fds);
		if (n == sizeof(m))
			take_message(k, &m, &fds);
		else if (n == -EMSGSIZE)
			say("a message was cut off: too few descriptors?");
		fdpass_close(&fds);
	}
	/* Nothing comes from there any more, and it would wake us for ever. */
	if (n != -EAGAIN)
		close_fd(&k->sock);
}

/* --- the worker ------------------------------------------------------------------------------- */

/* In the child: only what the worker is to have goes on.  Returns when it cannot. */
static void become_worker(struct keeper *k, int sock)
{
	size_t at;

	snprintf(k->said, sizeof(k->said), KEEPER_ENV "=%d,%u,%u,%s", sock, k->generation,
		 k->restarts, k->last);
	at = (size_t)snprintf(k->list, sizeof(k->list), KEEPER_KEPT_ENV "=");
	for (unsigned i = 0; i < k->n; i++) {
		at += (size_t)snprintf(k->list + at, sizeof(k->list) - at, "%s%d=%s", i ? "," : "",
				       k->kept[i].fd, k->kept[i].name);
		(void)fcntl(k->kept[i].fd, F_SETFD, 0);
	}
	(void)fcntl(sock, F_SETFD, 0);
	(void)setpgid(0, 0);
	(void)sigprocmask(SIG_SETMASK, &k->mask, NULL);
	fexecve(k->program, k->argv, k->env);
	say("cannot execute the worker: %s", strerror(errno));
}

/* It is of no use to start it at once. */
static void back_off(struct keeper *k, uint64_t now)
{
	if (k->deaths == 0 || (!k->back_off_ns && now - k->series_ns > SERIES_NS)) {
		k->series_ns = now;
		k->deaths = 0;
	}
	if (++k->deaths < DEATHS)
		return;
	if (!k->back_off_ns)
		say("THE WORKER DIES AGAIN AND AGAIN (%s). No page is lost as long as this process "
		    "lives; it tries again, ever more seldom", k->last);
	k->back_off_ns = k->back_off_ns ? 2 * k->back_off_ns : BACK_OFF_NS;
	if (k->back_off_ns > BACK_OFF_MAX_NS)
		k->back_off_ns = BACK_OFF_MAX_NS;
	k->due_ns = now + k->back_off_ns;
}

/* What is executed next: what was asked for, what was there before, or the same again. */
static void choose_program(struct keeper *k)
{
	if (k->next >= 0) {
		if (k->proven < 0)
			k->proven = steal_fd(&k->program);
		close_fd(&k->program);
		k->program = steal_fd(&k->next);
		snprintf(k->last, sizeof(k->last), "upgrade");
		return;
	}
	k->restarts++;
	if (!k->served && k->proven >= 0) {
		close_fd(&k->program);
		k->program = steal_fd(&k->proven);
		say("the new program is of no use (%s); going back to the one before", k->last);
	} else if (!k->served) {
		back_off(k, clock_ns());
	}
	if (k->due_ns == 0)
		say("the worker ended unasked (%s); starting the next one", k->last);
}

/* Everything it said has been read. */
static void bury(struct keeper *k, const char *how, int number, int status)
{
	k->worker = 0;
	close_fd(&k->sock);
	k->status = status;
	k->due_ns = 0;
	if (k->over)
		return;
	snprintf(k->last, sizeof(k->last), "%s %d", how, number);
	choose_program(k);
}

/* False in the child. */
static bool start_worker(struct keeper *k)
{
	int pair[2] = { -1, -1 }, error = 0;
	pid_t pid = -1;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0)
		pid = fork();
	if (pid < 0)
		error = errno;
	if (pid == 0) {
		become_worker(k, pair[1]);
		return false;
	}
	close_fd(&pair[1]);
	k->sock = pair[0];
	k->worker = pid > 0 ? pid : 0;
	k->served = false;
	k->generation++;
	if (pid < 0)
		bury(k, "errno", error, 1);
	return true;
}

static void reap(struct keeper *k)
{
	int status;

	if (!k->worker || waitpid(k->worker, &status, WNOHANG) != k->worker)
		return;
	read_worker(k);
	if (WIFSIGNALED(status))
		bury(k, "signal", WTERMSIG(status), 128 + WTERMSIG(status));
	else
		bury(k, "exit", WEXITSTATUS(status), WEXITSTATUS(status));
}

/* --- signals ---------------------------------------------------------------------------------- */

/* A worker decides for itself whether it may end; without one nobody knows what would be lost. */
static void asked_to_stop(struct keeper *k, int sig)
{
	uint64_t now = clock_ns(), asked = k->asked_ns;

	if (k->worker) {
		kill(k->worker, sig);
		return;
	}
	k->asked_ns = now;
	if (asked && now - asked <= AGAIN_NS) {
		k->over = true;
		k->status = 1;
		return;
	}
	say("missing pages of a VM would become zeroes; not stopping; ask again within 5 s to end "
	    "it all the same");
}

static void read_signals(struct keeper *k)
{
	struct signalfd_siginfo info;

	while (read(k->signals, &info, sizeof(info)) == sizeof(info))
		if (info.ssi_signo != SIGCHLD)
			asked_to_stop(k, (int)info.ssi_signo);
}

/* --- all of it -------------------------------------------------------------------------------- */

/* Every descriptor of a full table must fit, or one would be lost when it came. */
static bool raise_limit(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) < 0)
		return false;
	l.rlim_cur = l.rlim_max;
	if (l.rlim_max >= KEEPER_MAX + SPARE_FDS && setrlimit(RLIMIT_NOFILE, &l) == 0)
		return true;
	say("needs a limit of %d open files (ulimit -Hn, LimitNOFILE=), and it is %lu",
	    KEEPER_MAX + SPARE_FDS, (unsigned long)l.rlim_max);
	return false;
}

/* The first two entries are for each worker; what another keeper said is not passed on. */
static char **make_environment(struct keeper *k, char **environment)
{
	size_t n = 0, to = 2;
	char **env;

	while (environment[n])
		n++;
	env = calloc(n + 3, sizeof(*env));
	if (!env)
		return NULL;
	env[0] = k->said;
	env[1] = k->list;
	for (char **e = environment; *e; e++)
		if (strncmp(*e, KEEPER_ENV "=", strlen(KEEPER_ENV "=")) != 0 &&
		    strncmp(*e, KEEPER_KEPT_ENV "=", strlen(KEEPER_KEPT_ENV "=")) != 0)
			env[to++] = *e;
	return env;
}

static struct keeper *begin(char **argv, char **environment, int ready_fd)
{
	struct keeper *k = calloc(1, sizeof(*k));
	sigset_t set;

	if (!k || !raise_limit()) {
		free(k);
		return NULL;
	}
	k->argv = argv;
	k->env = make_environment(k, environment);
	k->proven = k->next = k->sock = -1;
	k->ready_fd = ready_fd;
	snprintf(k->last, sizeof(k->last), "none");
	/* What we are, not what will stand there when a worker is needed. */
	k->program = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, &k->mask);
	k->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	(void)prctl(PR_SET_NAME, "postcopyd-keep");
	if (k->env && k->program >= 0 && k->signals >= 0)
		return k;
	say("cannot begin: %s", strerror(errno));
	free(k->env);
	free(k);
	return NULL;
}

/* A later worker must find an open descriptor of that number, and the reader its end of file. */
static void blind_ready_fd(struct keeper *k)
{
	cleanup_fd int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

	if (k->ready_fd >= 0)
		(void)dup3(null, k->ready_fd, 0);
	k->ready_fd = -1;
}

/* Milliseconds until the next worker is due, rounded up; -1: there is one. */
static int wait_ms(const struct keeper *k)
{
	uint64_t now = clock_ns();

	if (k->worker)
		return -1;
	return k->due_ns > now ? (int)((k->due_ns - now) / 1000000 + 1) : 0;
}

/**
 * keeper_run - keep, and start workers, until one of them ends on purpose
 * @argv: of each worker; @argv[0] is only a name: what is executed is this program
 * @environment: likewise, with what workers are told in front of it
 * @ready_fd: closed here when the first worker has it; its number stays open in later ones.  -1
 *
 * Call it before there is any thread, socket or other thing that is not to be inherited.
 *
 * Return: the exit status of the last worker (128 + n: it ended by signal n), 1 when we cannot
 * begin; 127 in the child that could not be made a worker.
 */
int keeper_run(char **argv, char **environment, int ready_fd)
{
	struct keeper *k = begin(argv, environment, ready_fd);
	int status;

	if (!k)
		return 1;
	while (k->worker || !k->over) {
		struct pollfd p[2] = { { .fd = k->signals, .events = POLLIN },
				       { .fd = k->sock, .events = POLLIN } };

		if (!k->worker && wait_ms(k) == 0) {
			if (!start_worker(k))
				return 127;
			blind_ready_fd(k);
			continue;
		}
		(void)poll(p, 2, wait_ms(k));
		read_signals(k);
		read_worker(k);
		reap(k);
	}
	status = k->status;
	free(k->env);
	free(k);
	return status;
}
