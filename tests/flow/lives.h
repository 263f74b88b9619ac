/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TESTS_LIVES_H
#define PC_TESTS_LIVES_H
/*
 * Two lives of a daemon, one after the other.  Sharers, the source's ends and all that the vault
 * keeps are this process's; the first life is a child of it, which is killed, the second is in it.
 */
#include "stage.h"

#define LIFE_ENDS 5u		/* the page at whose placement the first life may end */

enum life_when { DIES_NEVER, DIES_BEFORE, DIES_BEHIND, DIES_UNWOKEN };

/* Both lives, and this process, see it. */
struct life {
	_Atomic enum life_when when;
	_Atomic bool running;		/* the VM may */
	_Atomic bool waits;		/* the first has done all that it does */
	_Atomic unsigned copies[STAGE_PAGES];	/* that the kernel took */
};

extern struct stage stage;
extern struct life *life;

/* What outlives a daemon. */
void life_prepare(const struct stage_options *o);
/* A daemon in a process of its own, which then does @what until it is killed. */
pid_t life_first(void (*what)(void));
void life_idle(void);
void life_until(const _Atomic bool *what);
void life_end(pid_t pid);
/* It was killed, by itself. */
void life_is_over(pid_t pid);
/* How many of these pages that sharer has seen. */
unsigned life_seen(unsigned who, unsigned first, unsigned n);
/* Until whoever touched one of these has seen what is right, or waits and is known to. */
void life_wait_settled(unsigned first, unsigned n);
/* PAUSED by the restart, with so many pages missing. */
void life_expect_paused(uint64_t missing);
/* No page was placed twice; everything ends. */
void life_finish(void);

#endif
