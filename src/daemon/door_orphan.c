/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Wards for whom nobody speaks any more: the connection to the back-end is over, and its process
 * lives on.
 *
 * What it was told of may still be mapped there, and threads of it may wait for pages.  Such a
 * sharer is served on, or its threads sleep on, as its policy says.  It ends when its userfaultfd
 * can be closed without a page becoming a zero (O11), which is when
 *
 *   - nothing of the shared blocks is mapped in that process which was registered through it,
 *   - and nobody is asleep on it: such a one had its mapping taken away under it, and an answer to
 *     what it waits for still does it more good than a close.
 *
 * Each can only become true: only we registered something through it, or the back-end at the word
 * of a connection that is over.  tests/kernel/unmapping.c shows that the kernel agrees.
 *
 * No interface tells through which userfaultfd a mapping is registered, and a place that was
 * unmapped is soon used again, by the next connection of the same back-end.  So a mapping is not
 * the orphan's when it is
 *
 *   - what a ward has: it is looked at whenever that changes, and a registration through one
 *     userfaultfd that succeeds says that there is none through another;
 *   - what any other sharer of that process has, unless both claim the place, or the orphan was
 *     told of memory that it was not proven for.
 *
 * Whatever else is there and registered keeps it.  One that was never proven may have given us the
 * userfaultfd of another process, whose mappings are not looked at: it stays as long as anybody
 * unproven maps the memory.
 *
 * Nothing tells when a process unmaps something.  So it is looked at anew when another connection
 * to it is advised or proven, which back-ends do behind their clearing up, and else with more and
 * more time in between.  A look is one of the things of which one happens in a process at a time
 * (door_ward.c).
 */
#include "config.h"
#include "daemon/door_parts.h"

#include <string.h>

#define REST_MS	    20u
#define REST_MAX_MS 5000u

/* --- whose is a mapping? ---------------------------------------------------------------------- */

static bool overlap(const struct mapping *a, const struct mapping *b)
{
	return a->address < b->address + b->length && b->address < a->address + a->length;
}

static bool claims(const struct client *c, const struct mapping *m)
{
	for (unsigned i = 0; i < c->n_proven; i++)
		if (overlap(&c->proven[i], m))
			return true;
	return false;
}

/**
 * door_orphan_note - what of its process is certainly registered through another's userfaultfd
 * @copy: of @c, for the thread that looks
 */
void door_orphan_note(const struct door *d, const struct client *c, struct client *copy)
{
	copy->n_elsewhere = 0;
	for (unsigned i = 0; i < d->clients->len; i++) {
		const struct client *other = g_ptr_array_index(d->clients, i);

		if (other == c || other->pid != c->pid || other->state == CLIENT_ENDED)
			continue;
		for (unsigned k = 0; k < other->n_proven; k++)
			if (copy->n_elsewhere < SHARER_MAPPINGS &&
			    (other->ward ||
			     (!c->told_since && !claims(c, &other->proven[k]))))
				copy->elsewhere[copy->n_elsewhere++] = other->proven[k];
	}
}

/* --- when ------------------------------------------------------------------------------------- */

static gboolean on_rested(gpointer data)
{
	struct peer *p = data;

	p->rest = 0;
	p->due = true;
	door_orphans_continue(p->door);
	return G_SOURCE_REMOVE;
}

static void rest(struct peer *p)
{
	if (!p->rest)
		p->rest = g_timeout_add(p->rest_ms, on_rested, p);
	p->rest_ms = MIN(2 * p->rest_ms, REST_MAX_MS);
}

static void look(struct peer *p)
{
	struct client *c = p->client;

	/* What is registered is undone then, or was. */
	if (p->door->released)
		p->due = false;
	if (!p->due || c->asked || !door_ward_may_change(p->door, c->pid))
		return;
	p->due = false;
	if (door_ask(p->door, c, DOOR_IS_DESERTED, NULL) < 0)
		rest(p);
}

/**
 * door_orphans_continue - look at those that are due, as far as that can be done now
 */
void door_orphans_continue(struct door *d)
{
	for (unsigned i = 0; i < d->peers->len; i++)
		look(g_ptr_array_index(d->peers, i));
}

/**
 * door_orphans_suspect - the orphans of this process may not be in use any more
 */
void door_orphans_suspect(struct door *d, pid_t pid)
{
	for (unsigned i = 0; i < d->peers->len; i++) {
		struct peer *p = g_ptr_array_index(d->peers, i);

		if (!p->client->orphan || p->client->pid != pid)
			continue;
		g_clear_handle_id(&p->rest, g_source_remove);
		p->rest_ms = REST_MS;
		p->due = !p->client->asked;
		look(p);
	}
}

/**
 * door_orphan_begin - nobody speaks for this ward any more
 *
 * The back-end has not seen the end of its connection yet.
 */
void door_orphan_begin(struct door *d, struct client *c)
{
	struct peer *p = door_peer_of(d, c);

	c->ward = false;
	c->orphan = true;
	p->rest_ms = REST_MS;
	rest(p);
}

/* --- the end ---------------------------------------------------------------------------------- */

/* The policy of one that was refused is asked once, and has an answer only while it is there. */
static bool may_end(struct door *d, const struct client *c)
{
	char why[256];

	if (c->state == CLIENT_REFUSED && c->joining && c->policy == REGMSG_POLICY_FAIL)
		return false;
	return c->registered || !c->told_since || door_strangers(d, why) == 0;
}

/**
 * door_orphan_looked - an orphan was looked at, or could not be
 *
 * The caller does not use @c any more.
 */
void door_orphan_looked(struct door *d, struct client *c, bool deserted)
{
	struct peer *p = door_peer_of(d, c);

	if (!deserted || !may_end(d, c)) {
		rest(p);
	} else {
		door_end(p, SHARER_LEFT, 0,
			 "its connection is over, and it has unmapped the memory");
		door_maybe_forget(p);
	}
	door_wards_continue(d);
}
