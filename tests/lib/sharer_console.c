/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * --console: a line on stdin makes the process do one thing.  Every touch has a thread of its own,
 * so the console goes on answering whatever waits; what a thread saw is told when it saw it.
 *
 *   touch BLOCK OFFSET COUNT [alias]	read COUNT pages: `saw', or `lost' (SIGBUS)
 *   store BLOCK OFFSET COUNT		write a word into COUNT pages
 *   poke BLOCK OFFSET			the same on the main thread: only where it cannot wait
 *   give BLOCK OFFSET COUNT		give COUNT pages back as a balloon does
 *   outside				touch memory that is registered but was never declared
 *   blocking | nonblocking		the userfaultfd's flag
 *   load				say "loaded" (or what --load-fail says) without waiting any longer
 *   unmap, leave, hangup, map		the memory, the session, the connection, the memory again
 *   dma, dma-...				what devices reach: sharer_dma.c
 */
#include "config.h"

#include "sharer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/guard.h"
#include "sys/uffd.h"

struct sight {
	const struct sharer_block *block;	/* NULL: outside of all of them */
	uint64_t offset;
	uint8_t *page;
	bool store, alias;
};

static _Thread_local sigjmp_buf lost;
static atomic_bool any_lost;

/* Who looks at all of the memory would be ended by it. */
bool sharer_console_lost(void)
{
	return any_lost;
}

static void on_bus(int number)
{
	(void)number;
	siglongjmp(lost, 1);
}

/* Of guest memory, which others touch at the same time.  False: the page is lost (SIGBUS). */
static bool access_page(const struct sight *s, uint64_t *word)
{
	const struct sigaction on = { .sa_handler = on_bus };

	sigaction(SIGBUS, &on, NULL);
	if (sigsetjmp(lost, 1)) {
		any_lost = true;
		return false;
	}
	if (s->store)
		__atomic_store_n((uint64_t *)s->page, SHARER_STORED, __ATOMIC_RELAXED);
	*word = __atomic_load_n((uint64_t *)s->page, __ATOMIC_RELAXED);
	return true;
}

static void *look(void *arg)
{
	cleanup_free struct sight *s = arg;
	uint64_t start = sharer_report_now_ns(), word = 0;
	bool is_there = access_page(s, &word);
	char name[600];

	sharer_report(is_there ? "saw" : "lost",
		      ",\"block\":%s,\"offset\":%" PRIu64 ",\"alias\":%s,\"word\":\"%016" PRIx64
		      "\",\"us\":%.3f",
		      sharer_report_quote(name, sizeof(name), s->block ? s->block->name : ""),
		      s->offset, s->alias ? "true" : "false", word,
		      (double)(sharer_report_now_ns() - start) / 1000);
	return NULL;
}

static int start(const struct sight *what)
{
	struct sight *s = malloc(sizeof(*s));
	pthread_attr_t small;
	pthread_t thread;
	int err;

	if (!s)
		return -ENOMEM;
	*s = *what;
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 128 << 10);
	err = pthread_create(&thread, &small, look, s);
	pthread_attr_destroy(&small);
	if (err)
		free(s);
	else
		pthread_detach(thread);
	return -err;
}

/* BLOCK OFFSET COUNT: the range in the block, NULL when there is none such. */
static struct sharer_block *range(struct sharer_options *o, char **word, uint64_t *offset,
				  uint64_t *count)
{
	*offset = word[2] ? strtoull(word[2], NULL, 0) : 0;
	*count = word[2] && word[3] ? strtoull(word[3], NULL, 0) : 1;
	for (unsigned i = 0; word[1] && i < o->n_blocks; i++) {
		struct sharer_block *b = &o->block[i];

		if (strcmp(b->name, word[1]) == 0 && *offset <= b->size &&
		    *count <= (b->size - *offset) / b->page_size)
			return b;
	}
	return NULL;
}

static int touch(struct sharer_options *o, char **word)
{
	uint64_t offset, count;
	const struct sharer_block *b = range(o, word, &offset, &count);
	bool alias = b && word[3] && word[4];
	int err = b ? 0 : -EINVAL;

	for (uint64_t i = 0; !err && i < count; i++, offset += b->page_size)
		err = start(&(struct sight){ b, offset, (alias ? b->alias : b->address) + offset,
					     strcmp(word[0], "store") == 0, alias });
	return err;
}

static int poke(struct sharer_options *o, char **word)
{
	uint64_t offset, count;
	struct sharer_block *b = range(o, word, &offset, &count);

	if (!b)
		return -EINVAL;
	__atomic_store_n((uint64_t *)(b->address + offset), SHARER_STORED, __ATOMIC_RELAXED);
	return 0;
}

static int give(struct sharer_options *o, char **word)
{
	uint64_t offset, count;
	struct sharer_block *b = range(o, word, &offset, &count);

	if (!b)
		return -EINVAL;
	return madvise(b->address + offset, count * b->page_size,
		       b->private ? MADV_DONTNEED : MADV_REMOVE) < 0 ? -errno : 0;
}

/* Not to be touched any more, so nothing is said of the whole at the end. */
static int drop(struct sharer_options *o, char **word)
{
	uint64_t offset, count;
	struct sharer_block *b = range(o, word, &offset, &count);

	if (!b)
		return -EINVAL;
	any_lost = true;
	return munmap(b->address + offset, count * b->page_size) < 0 ? -errno : 0;
}

/* The whole block goes to another address, without a word to the daemon. */
static int move(struct sharer_options *o, char **word)
{
	uint64_t offset, count;
	struct sharer_block *b = range(o, word, &offset, &count);
	void *to;

	if (!b)
		return -EINVAL;
	to = mmap(NULL, b->size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (to == MAP_FAILED)
		return -errno;
	if (mremap(b->address, b->size, b->size, MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED)
		return -errno;
	b->address = to;
	return 0;
}

static int outside(postcopy *p)
{
	uint8_t *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			     0);
	unsigned can;
	int err;

	if (page == MAP_FAILED)
		return -errno;
	err = uffd_register(postcopy_uffd(p), (uintptr_t)page, 4096, &can);
	return err ? err : start(&(struct sight){ .page = page });
}

static int set_blocking(postcopy *p, bool blocking)
{
	int flags = fcntl(postcopy_uffd(p), F_GETFL);

	flags = blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK;
	return fcntl(postcopy_uffd(p), F_SETFL, flags) < 0 ? -errno : 0;
}

static int remap(struct sharer_options *o, bool map)
{
	int err = 0;

	for (unsigned i = 0; !err && i < o->n_blocks; i++) {
		if (map)
			err = sharer_memory_map(&o->block[i]);
		else
			sharer_memory_unmap(&o->block[i]);
	}
	return err;
}

static int obey(struct sharer_options *o, postcopy **p, char **word)
{
	if (strcmp(word[0], "touch") == 0 || strcmp(word[0], "store") == 0)
		return touch(o, word);
	if (strcmp(word[0], "poke") == 0)
		return poke(o, word);
	if (strcmp(word[0], "give") == 0)
		return give(o, word);
	if (strcmp(word[0], "drop") == 0)
		return drop(o, word);
	if (strcmp(word[0], "move") == 0)
		return move(o, word);
	if (strcmp(word[0], "outside") == 0)
		return outside(*p);
	if (strcmp(word[0], "blocking") == 0 || strcmp(word[0], "nonblocking") == 0)
		return set_blocking(*p, word[0][0] == 'b');
	if (strcmp(word[0], "unmap") == 0 || strcmp(word[0], "map") == 0)
		return remap(o, word[0][0] == 'm');
	if (strcmp(word[0], "load") == 0) {
		o->load_now = true;
		return 0;
	}
	if (strcmp(word[0], "leave") == 0)
		return postcopy_leave(*p);
	if (strcmp(word[0], "hangup") != 0)
		return sharer_dma_obey(o, *p, word);
	postcopy_free(*p);
	*p = NULL;
	return 0;
}

static void take_line(struct sharer_options *o, postcopy **p, char *line)
{
	char *word[SHARER_WORDS + 1] = { NULL }, *rest = NULL, quoted[600], text[600];
	int err;

	for (unsigned i = 0; i < SHARER_WORDS; i++)
		word[i] = strtok_r(i ? NULL : line, " ", &rest);
	if (!word[0])
		return;
	err = obey(o, p, word);
	sharer_report("done", ",\"command\":%s,\"error\":%d,\"text\":%s",
		      sharer_report_quote(quoted, sizeof(quoted), word[0]), -err,
		      sharer_report_quote(text, sizeof(text), err ? postcopy_strerror(*p) : ""));
}

bool sharer_console_read(struct sharer_console *c, struct sharer_options *o, postcopy **p)
{
	ssize_t n = read(STDIN_FILENO, c->line + c->have, sizeof(c->line) - 1 - c->have);
	char *end;

	if (n <= 0)
		return false;
	c->have += (size_t)n;
	c->line[c->have] = '\0';
	while ((end = strchr(c->line, '\n'))) {
		*end++ = '\0';
		take_line(o, p, c->line);
		c->have -= (size_t)(end - c->line);
		memmove(c->line, end, c->have + 1);
	}
	return true;
}
