/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_HOOKS_H
#define PC_DAEMON_HOOKS_H
/*
 * Tells a program of the operator (--hook) what happens to the session, and asks it once whether
 * the session may be: its veto refuses the migration while the source still has the VM.  Main
 * thread only.
 */
#include <stdbool.h>
#include "daemon/snapshot.h"

struct hooks;

struct hooks_ops {
	/*
	 * A run of the program has ended: the answer to the probe may be there, or nothing is left
	 * to run.
	 */
	void (*ended)(void *ctx);
	/* The same for those who listen on the control socket. */
	void (*event)(void *ctx, const char *name, const char *text);
	void *ctx;
};

enum hooks_answer { HOOKS_WAIT, HOOKS_GO, HOOKS_VETO };

/*
 * @program: NULL: nobody is told, and every probe may go.  @timeout_s: for one run.  @ops is
 * copied.
 */
struct hooks *hooks_new(const char *program, const char *run_dir, unsigned timeout_s,
			const struct hooks_ops *ops);
void hooks_free(struct hooks *h);
/* May this session be?  Asked again until the answer is there.  VETO with @why (512 bytes). */
enum hooks_answer hooks_probe(struct hooks *h, const struct snapshot *s, char *why);
/* Tell what @s shows and was not told yet. */
void hooks_see(struct hooks *h, const struct snapshot *s);
/* Tell of something else, @event is static; false: nobody is there to be told. */
bool hooks_say(struct hooks *h, const char *event, const struct snapshot *s);
/* What was told, for a process that tells the rest. */
uint32_t hooks_told(const struct hooks *h);
void hooks_recall(struct hooks *h, uint32_t told);
/* Is a run going on, or waiting for its turn? */
bool hooks_busy(const struct hooks *h);

#endif
