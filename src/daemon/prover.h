/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_PROVER_H
#define PC_DAEMON_PROVER_H
/*
 * Questions whose answer may take for ever, each asked in a thread of its own, with a deadline;
 * answers come back to the main loop.  See prover.c.
 */
#include <sys/types.h>

struct prover;

struct prover_ops {
	/* In the thread.  The job is the thread's, but for what never changes in it. */
	void (*work)(void *job);
	/*
	 * In the main loop, when the work is over; before it, when it takes too long (then @job's
	 * results are not there yet).
	 */
	void (*done)(void *ctx, void *job);
	void (*overdue)(void *ctx, void *job);
	void (*dispose)(void *job);
};

/* @ctx: for done and overdue. */
struct prover *prover_new(unsigned deadline_s, void *ctx);
/* Nobody is told any more; what still runs goes on by itself.  NULL is fine. */
void prover_free(struct prover *p);
/*
 * Takes @job over in any case.  @about: the process that may be the reason why it hangs.  0;
 * -EBUSY: an earlier question about it is overdue; -EAGAIN: too many are out.
 */
int prover_ask(struct prover *p, const struct prover_ops *ops, void *job, pid_t about);
unsigned prover_deadline(const struct prover *p);

#endif
