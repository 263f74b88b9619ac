/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Several sharers of one memory, each a process with a userfaultfd of its own, and the main one
 * among them.
 *
 * Who touches: "main", one other "sharer", or "all", who then wait for each page together.  Besides
 * the latencies of the first who touches, prints what the daemon's fault thread worked for each
 * page.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <signal.h>
#include <unistd.h>

#include "postcopy/postcopy.h"
#include "session.h"
#include "toucher.h"

enum who {
	MAIN,
	SHARER,
	ALL,
};

static const char *const who_text[] = {[MAIN] = "main", [SHARER] = "sharer", [ALL] = "all"};

struct crowd {
	const char *socket;
	const char *schedstat; /* of the daemon's fault thread */
	enum who who;
	unsigned others; /* besides the main sharer */
	int memory;
	pthread_barrier_t *together;
	struct toucher t;
};

/* Nanoseconds that a thread was on a CPU; 0 when the file cannot be read. */
static uint64_t worked_ns(const char *schedstat)
{
	FILE *f = fopen(schedstat, "r");
	uint64_t ns = 0;

	if (!f)
		return 0;
	if (fscanf(f, "%" SCNu64, &ns) != 1)
		ns = 0;
	fclose(f);
	return ns;
}

static int barrier_of(struct crowd *c, unsigned n)
{
	pthread_barrierattr_t attr;

	c->together = mmap(NULL, sizeof(*c->together), PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (c->together == MAP_FAILED)
		return -errno;
	pthread_barrierattr_init(&attr);
	pthread_barrierattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	return -pthread_barrier_init(c->together, &attr, n);
}

/* Is it @number (0 is the main sharer) whose latencies are printed? */
static bool is_measured(const struct crowd *c, unsigned number)
{
	return number == (c->who == SHARER ? 1 : 0);
}

static void touch_and_tell(struct crowd *c, unsigned number)
{
	uint64_t before = worked_ns(c->schedstat), worked;

	c->t.together = c->who == ALL ? c->together : NULL;
	toucher_run(&c->t);
	if (!is_measured(c, number))
		return;
	worked = worked_ns(c->schedstat) - before;
	printf("worked ns %" PRIu64 " a_page %" PRIu64 "\n", worked, worked / c->t.samples);
	toucher_print(&c->t, "crowd");
}

/* 0, or 1 and said why; does not return before its parent ends it once all went well. */
static int take_part(struct crowd *c, unsigned number)
{
	struct postcopy_block b = {.size = sizeof(b), .name = "m1", .fd = c->memory};
	struct postcopy_options o = POSTCOPY_OPTIONS_INIT;
	char name[16], text[256];
	postcopy *p;

	snprintf(name, sizeof(name), number ? "s%u" : "served", number);
	b.length = c->t.pages * c->t.page_size;
	c->t.base = mmap(NULL, b.length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
			 c->memory, 0);
	if (c->t.base == MAP_FAILED)
		return session_fail("memory", strerror(errno));
	o.role = number ? POSTCOPY_ROLE_SHARER : POSTCOPY_ROLE_MAIN;
	o.name = name;
	if (postcopy_new(&p, c->socket, &o, text) < 0)
		return session_fail("connect", text);
	if (postcopy_add_block(p, &b) < 0 || postcopy_ready(p) < 0)
		return session_fail("register", postcopy_strerror(p));
	/* Nobody but the main sharer hears that the VM runs. */
	if (session_wait(p, number ? POSTCOPY_EVENT_LISTENING : POSTCOPY_EVENT_RUNNING))
		return 1;
	pthread_barrier_wait(c->together);
	if (c->who == ALL || is_measured(c, number))
		touch_and_tell(c, number);
	for (;;)
		pause();
}

static int gather(struct crowd *c)
{
	for (unsigned i = 1; i <= c->others; i++) {
		pid_t parent = getpid(), child = fork();

		if (child < 0)
			return session_fail("fork", strerror(errno));
		if (child > 0)
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(getppid() == parent ? take_part(c, i) : 1);
	}
	return take_part(c, 0);
}

/* -1 for a word that is none of them. */
static int read_who(const char *word)
{
	for (unsigned i = 0; i < sizeof(who_text) / sizeof(who_text[0]); i++)
		if (strcmp(word, who_text[i]) == 0)
			return (int)i;
	return -1;
}

int main(int argc, char **argv)
{
	struct crowd c = {.t = {.page_size = 4096}};
	int who = argc == 9 ? read_who(argv[3]) : -1;

	if (who < 0)
		return session_fail(
			"usage",
			"crowd SOCKET SCHEDSTAT main|sharer|all OTHERS PAGES COUNT SEED CPU");
	c.socket = argv[1];
	c.schedstat = argv[2];
	c.who = (enum who)who;
	c.others = (unsigned)strtoul(argv[4], NULL, 0);
	c.t.pages = strtoull(argv[5], NULL, 0);
	c.t.count = strtoull(argv[6], NULL, 0);
	c.t.seed = strtoull(argv[7], NULL, 0);
	toucher_pin(atoi(argv[8]));
	c.memory = memfd_create("crowd", MFD_CLOEXEC);
	if (c.memory < 0 || ftruncate(c.memory, (off_t)(c.t.pages * c.t.page_size)) < 0 ||
	    barrier_of(&c, c.others + 1) < 0)
		return session_fail("memory", "cannot make it");
	return gather(&c);
}
