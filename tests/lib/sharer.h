/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TESTS_SHARER_H
#define PC_TESTS_SHARER_H
/*
 * `sharer`: stands in for a VMM or a back-end.  It maps guest memory, hands it to postcopyd through
 * libpostcopy, touches every page from many threads, measures how long each touch took, and ends
 * with a digest of what it saw.  Everything it has to say is one JSON object per line on stdout.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "postcopy/postcopy.h"

#define SHARER_BLOCKS	8
#define SHARER_THREADS	512
#define SHARER_WANTS	16

/* --- options: sharer_options.c --- */

struct sharer_block {
	char name[256];
	char path[256];			/* file to map; "": make a memfd (or private memory) */
	uint64_t size, offset;		/* bytes; where in the file the block begins */
	uint64_t page_size;		/* bytes: the unit of touching */
	bool private, hugetlb;
	/* private huge pages: take them from the pool when mapping */
	bool reserve;
	bool aliased;			/* mapped twice */
	int fd;				/* -1: private */
	uint8_t *address, *alias;
	char digest[33];		/* XXH3-128, at the end */
};

struct sharer_want {
	char block[256];
	uint64_t offset, length;
	enum postcopy_class klass;
};

/* A userfaultfd that is not as it should be, for the tests of the daemon's probes (F06). */
enum sharer_uffd {
	SHARER_UFFD_GOOD,		/* the library's own */
	SHARER_UFFD_BLOCKING,		/* not O_NONBLOCK */
	SHARER_UFFD_RAW,		/* UFFDIO_API was not done */
	SHARER_UFFD_USER_ONLY,		/* USER_MODE_ONLY, but the kernel is said to touch */
	SHARER_UFFD_PIPE,		/* no userfaultfd at all */
	SHARER_UFFD_EVENTS,		/* it tells of memory that goes or moves */
};

struct sharer_options {
	const char *socket, *name;
	enum postcopy_role role;
	enum postcopy_policy policy;	/* 0: the library's default */
	enum sharer_uffd uffd;
	bool user_faults_only;
	bool self_register;		/* UFFDIO_REGISTER here, not in the daemon */
	bool linear, write;		/* order and kind of the touches */
	bool touch_from_listening;
	bool exit_after_complete;
	bool console;			/* obey lines on stdin */
	bool dma_auto;			/* what is there for a device is mapped at once */
	unsigned threads;		/* 0: touch nothing */
	uint64_t seed;
	uint64_t leave_after;		/* touches; 0: never */
	unsigned loaded_after_ms;
	bool load_now;			/* the console said so: wait no longer */
	const char *load_fail;		/* say so instead of "loaded" */
	const char *hold;		/* touch nothing before this file exists */
	const char *digest;		/* file for the digests, beside stdout */
	unsigned n_blocks, n_wants;
	struct sharer_block block[SHARER_BLOCKS];
	struct sharer_want want[SHARER_WANTS];
};

/* 0, 1 (--help was printed) or -EINVAL (stderr says why). */
int sharer_options_parse(struct sharer_options *o, int argc, char **argv);

/* --- memory: sharer_memory.c --- */

/* Open or make the file of the block, and map it.  0 or -errno. */
int sharer_memory_map(struct sharer_block *b);
void sharer_memory_unmap(struct sharer_block *b);
/* XXH3-128 of @len bytes as 32 hexadecimal digits. */
void sharer_memory_digest(const void *bytes, uint64_t len, char out[33]);

/* --- threads that touch: sharer_touch.c --- */

struct sharer_touch;

struct sharer_touched {
	uint64_t pages;			/* touched */
	uint64_t faulted;		/* took longer than a page that is there takes */
	double p50_us, p99_us, max_us;	/* of those */
	double elapsed_us;		/* from the start to the last touch */
};

/* Start the threads; @done_fd, an eventfd, becomes readable when all have ended. */
int sharer_touch_start(struct sharer_touch **out, const struct sharer_options *o, int done_fd);
/* Join the threads.  Blocks as long as one of them waits for a page. */
void sharer_touch_finish(struct sharer_touch *t, struct sharer_touched *result);

/* --- lines on stdin: sharer_console.c --- */

#define SHARER_WORDS  7
#define SHARER_STORED UINT64_C(0x5a5a5a5a5a5a5a5a)	/* what `store` and `poke` write */

struct sharer_console {
	char line[512];
	size_t have;
};

/* Read what is there and obey every whole line.  False at the end.  *p is NULL once hung up. */
bool sharer_console_read(struct sharer_console *c, struct sharer_options *o, postcopy **p);
/* Was a page lost that it was to touch?  Then nothing looks at all of the memory. */
bool sharer_console_lost(void);

/* --- what devices reach: sharer_dma.c --- */

/* 0, -ENOSYS: no such command, or -errno. */
int sharer_dma_obey(struct sharer_options *o, postcopy *p, char **word);
void sharer_dma_event(const struct sharer_options *o, postcopy *p, const struct postcopy_event *e);

/* --- what it says: sharer_report.c --- */

/* One line: {"event": @event, "t_us": CLOCK_MONOTONIC, then @fmt, which begins with a comma}. */
void sharer_report(const char *event, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void sharer_report_bare(const char *event);
/* @text as a JSON string with its quotes, in @out.  Returns @out. */
const char *sharer_report_quote(char *out, size_t room, const char *text);
uint64_t sharer_report_now_ns(void);

#endif
