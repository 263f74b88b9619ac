/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_PROVE_H
#define PC_DAEMON_PROVE_H
/*
 * Universal registration: the daemon registers a sharer's mappings through the userfaultfd it was
 * handed (which acts on the address space that opened it) and proves it by the `um` flag in smaps.
 * Fail closed: what is not proven is not served, and nothing may run while somebody unproven maps
 * the memory.
 */
#include <stdbool.h>
#include <stddef.h>
#include "daemon/registry.h"

/* A shared block to look for, and its number in the engine. */
struct prove_block {
	const struct offer *offer;
	unsigned number;
};

/*
 * Where @pid maps these blocks now, nothing registered; @out: SHARER_MAPPINGS.  Number, or -errno
 * with @why (256 bytes).
 */
int prove_find(pid_t pid, const struct prove_block *b, unsigned n, struct mapping *out, char *why);
/* Register a mapping of @c and verify it; sets can_zero.  0, or -errno with @why (256 bytes). */
int prove_mapping(const struct client *c, struct mapping *m, char *why);
/*
 * For who declares nothing: whatever it maps of these blocks, if anything.  Fills c->proven.  0, or
 * -errno with @why.
 */
int prove_found(struct client *c, const struct prove_block *b, unsigned n, char *why);
/* Register and verify all that @c maps; fills c->proven.  0, or -errno with @why (256 bytes). */
int prove_client(struct client *c, const unsigned *number, char *why);
/* Undo it; true when no `um` is left (or the process is gone). */
bool prove_release(struct client *c);
/* Does nothing of it map the blocks any more? */
bool prove_unmapped(const struct client *c);
/*
 * Of one whose connection is over: is nothing of these blocks mapped that its userfaultfd serves,
 * and nobody asleep on that?
 */
bool prove_deserted(const struct client *c, const struct prove_block *b, unsigned n);
/*
 * Is one of the @n processes (or -errno) that map the memory of @o unproven?  1 with @why (256
 * bytes), 0 no, -errno.
 */
int prove_strangers(const struct offer *o, const GPtrArray *clients, const pid_t *pid, int n,
		    char *why);

#endif
