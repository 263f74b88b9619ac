/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who may come in: what is known of a sharer when it says hello, before it has declared anything.
 */
#include "config.h"
#include "daemon/door_parts.h"

#include <errno.h>
#include <string.h>

#include "sys/uffd.h"

/* Those that said hello and are not over: a connection that is silent takes nobody's place. */
static unsigned count_sharers(const struct door *d)
{
	unsigned n = 0;

	for (unsigned i = 0; i < d->clients->len; i++) {
		const struct client *c = g_ptr_array_index(d->clients, i);

		n += c->state != CLIENT_NEW && c->state != CLIENT_ENDED;
	}
	return n;
}

/**
 * door_is_heir - is it the child of somebody who is there?
 *
 * A program that is unaware of us and forks says hello again from the child, with the token of the
 * parent: which of the two goes on as the program nobody can tell, so both may be there, of one
 * name.  The token is that of the family: a parent in between may be gone before its child has said
 * hello.  Not beside a main sharer that was declared: there is one.
 */
bool door_is_heir(struct door *d, const struct regmsg_hello *h)
{
	if (!(h->flags & REGMSG_HELLO_UNAWARE) || !h->token ||
	    (h->role == REGMSG_ROLE_MAIN && door_has_main(d)))
		return false;
	for (unsigned i = 0; i < d->clients->len; i++) {
		const struct client *c = g_ptr_array_index(d->clients, i);

		if (c->unaware && c->token == h->token && strcmp(c->name, h->name) == 0)
			return true;
	}
	return false;
}

/**
 * door_hello_problem - why this one cannot be a sharer, or NULL
 * @error: set to what to tell it
 *
 * The userfaultfd is looked at last: that changes a blocking one to O_NONBLOCK.
 */
const char *door_hello_problem(struct door *d, const struct regmsg_hello *h, int uffd, int *error)
{
	const char *taken = door_is_heir(d, h) ?
				    NULL :
				    door_place_taken(d, h->name, h->role == REGMSG_ROLE_MAIN);
	bool was_blocking = false;
	enum uffd_fitness fit;

	*error = EEXIST;
	if (taken)
		return taken;
	*error = ENOSPC;
	if (count_sharers(d) >= d->max_sharers)
		return "too many sharers (--max-sharers)";
	fit = uffd_probe(uffd, h->flags & REGMSG_HELLO_KERNEL, &was_blocking);
	*error = EINVAL;
	if (fit != UFFD_FIT)
		return uffd_fitness_text(fit);
	if (d->dma_serving && uffd_reports_gone(uffd))
		return "the userfaultfd asks for EVENT_REMOVE, EVENT_REMAP or EVENT_UNMAP: with those come before the memory may be touched, or open it without";
	if (was_blocking)
		g_warning(
			"sharer %s: its userfaultfd was blocking; made O_NONBLOCK (it must stay so)",
			h->name);
	*error = 0;
	return NULL;
}
