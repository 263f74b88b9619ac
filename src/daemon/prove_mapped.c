/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is new since the last look, and what is gone.  In a thread of the prover, on a copy of the
 * client: every step here waits for the lock of the program's address space.
 */
#include "config.h"
#include "daemon/prove_mapped.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/*
 * Is what the program said it mapped among what was found?  Else it is not the process that we look
 * at.
 */
static bool was_found(const struct regmsg_mapped *m, const struct mapping *found, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (found[i].address < m->address + m->length &&
		    m->address < found[i].address + found[i].length)
			return true;
	return false;
}

/* Does some part of the claimed mapping show a part of a known block at all? */
static bool shows_some(const struct prove_block *known, unsigned n, const struct regmsg_mapped *m)
{
	for (unsigned i = 0; i < n; i++) {
		const struct offer *o = known[i].offer;

		if (o->identity.dev == m->dev && o->identity.inode == m->inode &&
		    m->file_offset < o->file_offset + o->length &&
		    o->file_offset < m->file_offset + m->length)
			return true;
	}
	return false;
}

static bool overlaps(const struct mapping *a, const struct mapping *b)
{
	return a->address < b->address + b->length && b->address < a->address + a->length;
}

static bool uses_again(const struct remap *r)
{
	for (unsigned i = 0; i < r->n_gone; i++)
		for (unsigned j = 0; j < r->n_added; j++)
			if (overlaps(&r->gone[i], &r->added[j]))
				return true;
	return false;
}

/* What it has of shared blocks; private ones have no file to be found by, and stay. */
static unsigned shared_of(const struct client *c, const struct prove_note *note,
			  struct mapping *out)
{
	unsigned n = 0;

	for (unsigned i = 0; i < c->n_proven; i++)
		for (unsigned k = 0; k < note->n_known; k++)
			if (note->known[k].number == c->proven[i].block)
				out[n++] = c->proven[i];
	return n;
}

/*
 * A sharer that the fault thread serves.  Everything found is registered once more: it may have
 * been mapped anew in its old place.
 */
static int prove_more(struct client *c, const struct prove_note *note, const struct mapping *found,
		      unsigned n, struct remap *r)
{
	struct mapping had[SHARER_MAPPINGS], again;
	unsigned room = SHARER_MAPPINGS - c->n_proven;
	struct remap now;
	int ret = 0;

	if (!remap_compare(&now, had, shared_of(c, note, had), found, n) || now.n_added > room) {
		snprintf(c->problem, sizeof(c->problem), "more than %d mappings", SHARER_MAPPINGS);
		return -ENOSPC;
	}
	if (c->main && uses_again(&now)) {
		snprintf(
			c->problem, sizeof(c->problem),
			"the main sharer mapped another part of its memory where it had one before: "
			"that is not possible while its memory is moving here");
		return -EBUSY;
	}
	if (!c->main && now.n_gone) {
		*r = now;
		r->n_added = 0;
		return -EINPROGRESS;
	}
	for (unsigned i = 0; i < n && ret == 0; i++) {
		again = found[i];
		ret = prove_mapping(c, &again, c->problem);
	}
	for (unsigned i = 0; i < now.n_added && ret == 0; i++) {
		ret = prove_mapping(c, &now.added[i], c->problem);
		if (ret == 0)
			r->added[r->n_added++] = now.added[i];
	}
	return ret;
}

/**
 * prove_mapped - a program says that it mapped something, and waits
 * @c: a copy; its problem is filled on failure
 * @r: zeroes
 *
 * Return: as the header says.
 */
int prove_mapped(struct client *c, const struct prove_note *note, struct remap *r)
{
	const struct regmsg_mapped *m = &note->mapped;
	struct mapping found[SHARER_MAPPINGS];
	int n = prove_find(c->pid, note->known, note->n_known, found, c->problem);

	if (n < 0)
		return n;
	if (shows_some(note->known, note->n_known, m) && !was_found(m, found, (unsigned)n)) {
		snprintf(c->problem, sizeof(c->problem),
			 "0x%" PRIx64
			 " is not to be found in /proc/%d/maps: is it another process, or "
			 "in another pid namespace?",
			 m->address, (int)c->pid);
		return -ENOENT;
	}
	if (c->state == CLIENT_JOINED)
		return prove_more(c, note, found, (unsigned)n, r);
	return prove_found(c, note->known, note->n_known, c->problem);
}
