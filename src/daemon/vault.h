/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_VAULT_H
#define PC_DAEMON_VAULT_H
/*
 * Descriptors that outlive this process, under names: kept by our keeper, by the service manager
 * (systemd's fd store), or by nobody.  Main thread only.
 */
#include <stdbool.h>

struct vault;

/* How we came to be; what nobody kept begins with zeroes. */
struct vault_past {
	unsigned generation;	/* workers before this one */
	unsigned restarts;	/* of them, that ended without being asked to */
	char last[32];		/* how the last one ended: "none", "signal 11", "exit 1", "upgrade" */
};

/* Who keeps?  @fd_store: the service manager, if it is not a keeper.  Never NULL. */
struct vault *vault_open(bool fd_store);
/* Is this process a keeper's worker?  As long as vault_open() was not called. */
bool vault_is_worker(void);
/* Somebody keeps what we give. */
bool vault_keeps(const struct vault *v);
/* Somebody who starts another program in our place when vault_next() was told. */
bool vault_has_keeper(const struct vault *v);
/* An earlier worker had begun a session: take what it left. */
bool vault_again(const struct vault *v);
const struct vault_past *vault_past(const struct vault *v);
/*
 * A duplicate is kept under the name (1 to 63 of [a-z0-9-]) instead of what was there, and is safe
 * when this returns.  0, also when nobody keeps, or -errno.
 */
int vault_keep(struct vault *v, const char *name, int fd);
/* An empty memfd that takes seals, kept as by vault_keep(); *@out is the caller's.  0 or -errno. */
int vault_memory(struct vault *v, const char *name, int *out);
void vault_drop(struct vault *v, const char *name);
/* What an earlier worker left, now the caller's too (it stays kept); -1: nothing, or taken. */
int vault_take(struct vault *v, const char *name);
/* Nobody wants what is left: it is closed, and kept no longer. */
void vault_forget_rest(struct vault *v);
/* For a service manager that waits for it: everything listens. */
void vault_ready(struct vault *v);
/* We are of use: not one of those that cannot but die. */
void vault_served(struct vault *v);
/* The program that follows when we end now; the descriptor stays the caller's.  0 or -errno. */
int vault_next(struct vault *v, int program);
/* We end on purpose, nobody follows us. */
void vault_over(struct vault *v);
void vault_free(struct vault *v);

#endif
