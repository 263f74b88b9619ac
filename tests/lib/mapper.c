/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A program that maps files of memory and knows nothing of postcopyd: what LD_PRELOAD is for.
 *
 * It does what it is told on its standard input, a line at a time, and prints a line of JSON for
 * what happened; `done' ends each.
 *
 *   open PATH                        the file that is mapped from here on
 *   map NAME OFFSET LENGTH [WORD]... a mapping; WORD: private, populate, readonly, NAME2 (at the
 *                                    same place, MAP_FIXED)
 *   unmap NAME
 *   remap NAME LENGTH [WORD]         mremap; WORD: stay (not MREMAP_MAYMOVE), away (MREMAP_FIXED
 *                                    to where nothing is), copy (a second mapping: an old size of
 *                                    0), NAME2 (MREMAP_FIXED to its place)
 *   see NAME OFFSET                  a thread reads the word there: event `saw', when it has
 *   sum NAME                         the sum of all words of the mapping: event `sum'
 *   lock-future                      mlockall(MCL_FUTURE)
 *   close-all                        every descriptor above 2 but the file
 *   child-see NAME OFFSET            a child reads the word there: event `child' with its wait
 *                                    status
 *   child-map OFFSET LENGTH          a child maps: event `child' with the errno
 *   child-exec                       a child becomes another program, which prints its environment
 *   background                       as daemon(3) does, then goes on there
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/guard.h"

#define MAPPINGS 512
#define WORDS	 8

struct area {
	char name[32];
	uint8_t *at;
	size_t length;
};

struct look {
	const struct area *area;
	uint64_t offset;
};

static struct area areas[MAPPINGS];
static int file = -1;

static struct area *find(const char *name)
{
	for (unsigned i = 0; i < MAPPINGS; i++)
		if (areas[i].at && strcmp(areas[i].name, name) == 0)
			return &areas[i];
	return NULL;
}

static struct area *unused(void)
{
	for (unsigned i = 0; i < MAPPINGS; i++)
		if (!areas[i].at)
			return &areas[i];
	return NULL;
}

static uint64_t number(const char *text)
{
	return text ? strtoull(text, NULL, 0) : 0;
}

static int do_open(char **word)
{
	file = open(word[1], O_RDWR | O_CLOEXEC);
	return file < 0 ? errno : 0;
}

static int do_map(char **word)
{
	int prot = PROT_READ | PROT_WRITE, flags = MAP_SHARED;
	struct area *a = unused();
	void *at = NULL;

	if (!word[3] || !a)
		return EINVAL;
	for (char **w = word + 4; *w; w++) {
		struct area *same = find(*w);

		if (same)
			at = same->at, flags |= MAP_FIXED, same->at = NULL;
		else if (strcmp(*w, "private") == 0)
			flags ^= MAP_SHARED | MAP_PRIVATE;
		else if (strcmp(*w, "populate") == 0)
			flags |= MAP_POPULATE;
		else if (strcmp(*w, "readonly") == 0)
			prot = PROT_READ;
	}
	a->length = number(word[3]);
	at = mmap(at, a->length, prot, flags, file, (off_t)number(word[2]));
	if (at == MAP_FAILED)
		return errno;
	a->at = at;
	snprintf(a->name, sizeof(a->name), "%s", word[1]);
	return 0;
}

static int do_unmap(char **word)
{
	struct area *a = find(word[1]);

	if (!a)
		return ENOENT;
	munmap(a->at, a->length);
	a->at = NULL;
	return 0;
}

static int do_remap(char **word)
{
	struct area *a = find(word[1]), *same = word[3] ? find(word[3]) : NULL;
	size_t length = number(word[2]), old;
	const char *how = word[3] ? word[3] : "";
	int flags = strcmp(how, "stay") == 0 ? 0 : MREMAP_MAYMOVE;
	void *at = NULL;

	if (!a)
		return ENOENT;
	old = strcmp(how, "copy") == 0 ? 0 : a->length;
	if (strcmp(how, "away") == 0)
		at = mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	else if (same)
		at = same->at;
	at = mremap(a->at, old, length, at ? flags | MREMAP_FIXED : flags, at);
	if (at == MAP_FAILED)
		return errno;
	if (same)
		same->at = NULL;
	a->at = at;
	a->length = length;
	return 0;
}

static void *look(void *arg)
{
	cleanup_free struct look *l = arg;
	uint64_t value = *(volatile uint64_t *)(l->area->at + l->offset);

	printf("{\"event\": \"saw\", \"area\": \"%s\", \"offset\": %" PRIu64
	       ", \"word\": \"%016" PRIx64 "\"}\n",
	       l->area->name, l->offset, value);
	return NULL;
}

static int do_see(char **word)
{
	struct area *a = find(word[1]);
	struct look *l = malloc(sizeof(*l));
	pthread_t thread;

	if (!a || !l)
		return ENOENT;
	*l = (struct look){ a, number(word[2]) };
	return pthread_create(&thread, NULL, look, l);
}

static int do_sum(char **word)
{
	struct area *a = find(word[1]);
	uint64_t sum = 0;

	if (!a)
		return ENOENT;
	for (size_t i = 0; i < a->length; i += 8)
		sum += *(volatile uint64_t *)(a->at + i);
	printf("{\"event\": \"sum\", \"area\": \"%s\", \"sum\": %" PRIu64 "}\n", a->name, sum);
	return 0;
}

static int do_lock_future(char **word)
{
	(void)word;
	return mlockall(MCL_FUTURE) < 0 ? errno : 0;
}

static int do_close_all(char **word)
{
	(void)word;
	for (int fd = 3; fd < 1024; fd++)
		if (fd != file)
			close(fd);
	return 0;
}

static int tell_child(pid_t child)
{
	int status;

	if (child < 0 || waitpid(child, &status, 0) != child)
		return errno;
	printf("{\"event\": \"child\", \"signal\": %d, \"code\": %d}\n",
	       WIFSIGNALED(status) ? WTERMSIG(status) : 0,
	       WIFEXITED(status) ? WEXITSTATUS(status) : 0);
	return 0;
}

static int do_child_see(char **word)
{
	struct area *a = find(word[1]);
	uint64_t offset = number(word[2]);
	pid_t child;

	if (!a)
		return ENOENT;
	child = fork();
	if (child == 0)
		_exit(*(volatile uint64_t *)(a->at + offset) == 0);
	return tell_child(child);
}

static int do_child_map(char **word)
{
	pid_t child = fork();

	if (child == 0) {
		void *at = mmap(NULL, number(word[2]), PROT_READ | PROT_WRITE, MAP_SHARED, file,
				(off_t)number(word[1]));

		_exit(at == MAP_FAILED ? errno : 0);
	}
	return tell_child(child);
}

static int do_child_exec(char **word)
{
	pid_t child = fork();

	(void)word;
	if (child == 0) {
		execl("/proc/self/exe", "mapper", "--environment", NULL);
		_exit(127);
	}
	return tell_child(child);
}

static int do_background(char **word)
{
	pid_t child = fork();

	(void)word;
	if (child > 0)
		_exit(0);
	setsid();
	if (child == 0 && fork() > 0)
		_exit(0);
	printf("{\"event\": \"background\", \"pid\": %d}\n", (int)getpid());
	return child < 0 ? errno : 0;
}

static const struct {
	const char *name;
	int (*run)(char **word);
	unsigned words;
} commands[] = {
	{ "open", do_open, 2 },		{ "map", do_map, 4 },
	{ "unmap", do_unmap, 2 },	{ "see", do_see, 3 },
	{ "sum", do_sum, 2 },		{ "lock-future", do_lock_future, 1 },
	{ "close-all", do_close_all, 1 }, { "child-see", do_child_see, 3 },
	{ "child-map", do_child_map, 3 }, { "child-exec", do_child_exec, 1 },
	{ "background", do_background, 1 }, { "remap", do_remap, 3 },
};

static int run(char *line)
{
	char *word[WORDS + 1] = { NULL }, *save = NULL;
	unsigned n = 0;

	for (char *w = strtok_r(line, " \n", &save); w && n < WORDS;
	     w = strtok_r(NULL, " \n", &save))
		word[n++] = w;
	for (unsigned i = 0; n && i < ARRAY_LEN(commands); i++)
		if (strcmp(word[0], commands[i].name) == 0)
			return n < commands[i].words ? EINVAL : commands[i].run(word);
	return ENOSYS;
}

static void say_variable(const char *name)
{
	const char *value = getenv(name);

	printf("{\"event\": \"environment\", \"name\": \"%s\", \"value\": \"%s\"}\n", name,
	       value ? value : "");
}

int main(int argc, char **argv)
{
	char line[512];

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc > 1 && strcmp(argv[1], "--environment") == 0) {
		say_variable("LD_PRELOAD");
		say_variable("POSTCOPY_PRELOAD");
		return 0;
	}
	printf("{\"event\": \"started\", \"pid\": %d}\n", (int)getpid());
	while (fgets(line, sizeof(line), stdin)) {
		int error = run(line);

		printf("{\"event\": \"done\", \"error\": %d}\n", error);
	}
	return 0;
}
