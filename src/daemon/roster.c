/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A slot's entry lives from the sharer's joining until another takes the slot, long after its end:
 * the snapshot shows who is gone and why.  So `state' says whether it is served, never the mere
 * presence of an entry, and everything that arrives late goes through roster_active(), which
 * compares the generation (O10).
 */
#include "config.h"
#include "daemon/roster.h"

#include <stdio.h>
#include <string.h>

#include "sys/fd.h"

/**
 * roster_init - nobody is here
 */
void roster_init(struct roster *r)
{
	memset(r, 0, sizeof(*r));
	for (unsigned i = 0; i < SHARER_MAX; i++)
		r->member[i].uffd = -1;
}

/**
 * roster_deinit - close every userfaultfd that is left
 *
 * At the session's very end only: a page that is still missing becomes zeroes for its owner here
 * (O11).
 */
void roster_deinit(struct roster *r)
{
	for (unsigned i = 0; i < SHARER_MAX; i++)
		close_fd(&r->member[i].uffd);
	for (unsigned i = 0; i < r->n_children; i++)
		close_fd(&r->child[i]);
	r->n_children = 0;
}

/**
 * roster_enter - the entry of a sharer that just joined
 * @ref: the slot that the engine gave; who had it before is forgotten
 *
 * Return: an entry without an id or a descriptor; the caller fills it.
 */
struct member *roster_enter(struct roster *r, struct sharer_ref ref)
{
	struct member *m = &r->member[ref.slot];

	if (r->used <= ref.slot)
		r->used = ref.slot + 1u;
	close_fd(&m->uffd);
	*m = (struct member){ .uffd = -1, .ref = ref };
	return m;
}

/**
 * roster_find - by the main thread's id, ended ones too; NULL when it was never here
 */
struct member *roster_find(struct roster *r, uint32_t id)
{
	for (unsigned i = 0; i < r->used; i++)
		if (r->member[i].id == id)
			return &r->member[i];
	return NULL;
}

/**
 * roster_active - by the engine's name for it
 *
 * Return: NULL unless it is served and of this generation.
 */
struct member *roster_active(struct roster *r, struct sharer_ref ref)
{
	struct member *m = ref.slot < SHARER_MAX ? &r->member[ref.slot] : NULL;

	return m && m->id && m->state == SHARER_ACTIVE && m->ref.generation == ref.generation ?
		       m :
		       NULL;
}

/**
 * roster_keep_child - a sharer that asked for fork events forked
 * @uffd: of the child's address space, in which everything is registered as in the parent's
 *
 * Closed, the child would read zeroes where pages are missing, and in shared memory make them
 * everybody's.  Kept and never read, it makes the child sleep if it touches any.  One that is too
 * many stays open without an owner, for the same reason.
 */
bool roster_keep_child(struct roster *r, int uffd)
{
	if (r->n_children == ROSTER_CHILDREN)
		return false;
	r->child[r->n_children++] = uffd;
	return true;
}

/**
 * roster_end - it ends alone
 * @how: DEAD and LEFT close its userfaultfd, since nobody can touch what it mapped; DISABLED keeps
 *   it open, unread: its threads sleep, and do not read zeroes (O11)
 * @error, @reason: for people; @reason may be the entry's own
 */
void roster_end(struct member *m, enum snapshot_sharer_state how, int error, const char *reason,
		uint64_t now)
{
	if (how != SHARER_DISABLED)
		close_fd(&m->uffd);
	m->state = how;
	m->error = error;
	m->state_ns = now;
	m->ready = false;
	snprintf(m->reason, sizeof(m->reason), "%s", reason);
}
