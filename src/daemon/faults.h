/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_FAULTS_H
#define PC_DAEMON_FAULTS_H
/*
 * The faults that are injected, for the main thread: the plan, its commands on the control socket,
 * and who is told when a rule fires.
 */
#include <glib.h>
#include "core/faultplan.h"
#include "daemon/control.h"
#include "daemon/options.h"
#include "daemon/snapshot.h"

struct faults;

struct faults_ops {
	/* A rule was removed: whoever holds something for it looks. */
	void (*removed)(void *ctx);
	/* For everybody who listens to events. */
	void (*fired)(void *ctx, const char *name, const char *text);
	void *ctx;
};

/*
 * With the rules of the command line, unless an earlier process had them (@again); without
 * --enable-faults it has no plan.
 */
struct faults *faults_new(const struct options *o, bool again, const struct faults_ops *ops);
/* NULL is fine; only when no thread asks any more. */
void faults_free(struct faults *f);
/* NULL: nothing is injected. */
struct faultplan *faults_plan(struct faults *f);
/* faults_commands.c: fault-add, fault-list, fault-remove. */
void faults_add_commands(struct faults *f, struct control *c);
/* What status shows. */
void faults_fill(const struct faults *f, struct snapshot_faults *s);
/* Its number, or -1 with *error. */
int faults_add(struct faults *f, const char *text, GError **error);
/* "all", or a number.  How many, or -1 with *error. */
int faults_remove(struct faults *f, const char *which, GError **error);

#endif
