/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_SYS_DEVWATCH_H
#define PC_SYS_DEVWATCH_H
/*
 * A call that may hang, for whoever watches it.  The thread that makes calls enters and leaves;
 * every other function is for any thread, and none of them waits.  See devwatch.c.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define DEVWATCH_NEVER UINT64_MAX

struct devwatch {
	_Atomic uint64_t since; /* 0: in no call */
	_Atomic uint64_t until;
	const char *_Atomic what;
	_Atomic pid_t tid;
	_Atomic bool given_up;
};

/* What somebody saw: it began at @since and should have ended by @until (CLOCK_MONOTONIC, ns). */
struct devwatch_call {
	const char *what;
	uint64_t since, until;
};

void devwatch_init(struct devwatch *w);
/* @what: a text that stays; @limit_ns: 0 for none.  The time at which it ends; 0: given up. */
uint64_t devwatch_enter(struct devwatch *w, const char *what, uint64_t limit_ns);
/* False when it was given up meanwhile: nobody is interested in the result any more. */
bool devwatch_leave(struct devwatch *w);

/* Is a call being made?  Then what it is goes to *out. */
bool devwatch_look(const struct devwatch *w, struct devwatch_call *out);
/* Interrupt the call that was seen, where it sleeps so that it can be.  -ESRCH: it is over. */
int devwatch_interrupt(const struct devwatch *w, const struct devwatch_call *seen);
/* For good: no further call begins, and the result of the one that is out does not count. */
void devwatch_give_up(struct devwatch *w);

/* Once in a process, before anything is interrupted.  0 or -errno. */
int devwatch_prepare(void);

#endif
