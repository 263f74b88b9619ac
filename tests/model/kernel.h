/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_MODEL_KERNEL_H
#define PC_MODEL_KERNEL_H
/*
 * As much of userfaultfd as the engine can notice: pages that are there or not, address spaces that
 * map them, threads that sleep on an address until somebody wakes that address in that space.
 *
 *   - a COPY wakes only the address space it went through, and only at the address it was given;
 *   - a WAKE wakes a range of one address space, whether the page is there or not;
 *   - a woken thread looks again: it runs when the page is there, else it faults again, with a new
 *     message;
 *   - a poisoned address ends the access of whoever looks there, and is filled by nothing;
 *   - a message that nobody has read disappears with the sleep that caused it; one that was read is
 *     delivered, however late.
 */
#include <stdbool.h>
#include <stdint.h>

#include "core/sharer.h"

#define KERNEL_SPACES  8
#define KERNEL_THREADS 8
#define KERNEL_PIECES  24
#define KERNEL_PAGES   512

enum message { MESSAGE_NONE, MESSAGE_QUEUED, MESSAGE_READ, MESSAGE_TOLD };

struct thread {
	bool asleep;
	bool write;
	uint32_t tid;			/* 0: the space does not tell */
	uint64_t address, page;
	uint64_t sleep;			/* which sleep this is: a message names it */
	enum message message;		/* of this sleep */
};

enum life { SPACE_NONE, SPACE_ALIVE, SPACE_DEAD };

struct space {
	enum life life;
	struct sharer_ref ref;		/* what the engine calls it */
	unsigned n_pieces, n_threads;
	struct mapping piece[KERNEL_PIECES];
	struct thread thread[KERNEL_THREADS];
	uint32_t marked[KERNEL_PAGES];	/* poisoned: a bit for each address of the page */
};

struct kernel_page {
	bool present;
	bool zero;			/* content; else the source's data */
	bool foreign;			/* content that nobody placed */
	bool punched;			/* was given back at least once */
	unsigned placed; /* times that we filled it, answers after a punch not counted */
};

struct kernel {
	struct block_table *blocks;
	uint64_t sleeps;
	struct space space[KERNEL_SPACES];
	struct kernel_page page[KERNEL_PAGES];
};

/* Page at an address of a space; false when nothing is mapped there. */
bool kernel_resolve(const struct kernel *k, const struct space *s, uint64_t address,
		    uint64_t *page);
/* The @nth address at which a space maps a page; false when there are not so many. */
bool kernel_address(const struct kernel *k, const struct space *s, uint64_t page, unsigned nth,
		    uint64_t *address);
void kernel_touch(struct kernel *k, struct space *s, struct thread *t, uint64_t address,
		  bool write);
/* Fill a page through a space: 0, -EEXIST, -ESRCH. */
int kernel_copy(struct kernel *k, struct space *s, uint64_t address, bool zero);
/* Poison a page at one address: 0, -EEXIST, -ESRCH. */
int kernel_poison(struct kernel *k, struct space *s, uint64_t address);
bool kernel_poisoned(const struct kernel *k, const struct space *s, uint64_t address);
/* Wake who sleeps on the page at @address. */
void kernel_wake(struct kernel *k, struct space *s, uint64_t address);
/* A signal interrupts the sleep: the thread looks again. */
void kernel_signal(struct kernel *k, struct space *s, struct thread *t);
void kernel_die(struct space *s);
struct space *kernel_space(struct kernel *k, struct sharer_ref ref);

#endif
