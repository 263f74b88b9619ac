/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a sharer has, and how far it is: its blocks, its private mappings, ready, loaded.
 *
 * A program that speaks the protocol says these things itself (door_native.c hears them); for one
 * that does not know of us somebody in this daemon does, who asked it by other means.  Both come
 * through here, so a block that one of them must not declare the other cannot either.  Nothing here
 * looks at the socket: what is said is judged by the client's state, by what others declared and by
 * what was matched, and the answer is the caller's to pass on.
 */
#include "config.h"
#include "daemon/door_parts.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/guard.h"
#include "sys/fd.h"

/**
 * door_place_taken - why a sharer of this name and role cannot come in now, or NULL
 *
 * Nobody may be there twice, and the device state of a VM that has run is of no use to another.
 */
const char *door_place_taken(struct door *d, const char *name, bool main)
{
	if (door_has(d, name))
		return "a sharer of this name is there already";
	if (main && door_has_main(d))
		return "there is a main sharer already";
	if (main && d->ran)
		return "the VM has run already, so its device state is history: migrate again";
	return NULL;
}

/**
 * door_unaware_main - the main sharer that does not speak for itself and has not been declared, or
 * NULL
 *
 * The newest, when there are several: a program that goes into the background says hello again from
 * its child, a wrapper and the program that it becomes do so one after the other.  It belongs to
 * the door and may be gone after any turn of the main loop, so ask again instead of keeping it.
 */
struct client *door_unaware_main(struct door *d)
{
	for (unsigned i = d->clients->len; i-- > 0;) {
		struct client *c = g_ptr_array_index(d->clients, i);

		if (c->unaware && c->main && c->state == CLIENT_DECLARING)
			return c;
	}
	return NULL;
}

static const char *conflict_with(const struct client *other, const struct offer *o)
{
	for (unsigned i = 0; i < other->n_offers; i++) {
		const struct offer *have = &other->offer[i];
		bool same_name = strcmp(have->name, o->name) == 0;

		if (have == o)
			continue;
		if (same_name && !offer_same(o, have))
			return "another sharer offers different memory (or private memory) as this block";
		if (!same_name && offer_overlaps(o, have))
			return "this memory, or a part of it, is offered as another block";
	}
	return NULL;
}

/*
 * An offer of a block that somebody offered before must be the same bytes; after the match it must
 * be known and shared.
 */
static const char *conflict(const struct door *d, const struct offer *o)
{
	const struct matched *m = d->is_matched ? door_find_matched(d, o->name) : NULL;

	if (d->is_matched && !m)
		return "the source has no block of this name";
	if (m && m->kind == BLOCK_HELD)
		return "the daemon holds this block already: register it before the migration starts";
	if (m)
		return offer_same(o, &m->offer) ? NULL :
						  "not the memory that others share as this block";
	for (unsigned i = 0; i < d->clients->len; i++) {
		const struct client *other = g_ptr_array_index(d->clients, i);
		const char *why = other->state == CLIENT_ENDED ? NULL : conflict_with(other, o);

		if (why)
			return why;
	}
	return NULL;
}

static const char *offer_error(int ret)
{
	if (ret == -EEXIST)
		return "this block was declared before";
	if (ret == -EACCES)
		return "the file cannot be written: it is open for reading only, or sealed";
	return "the file is not memory that userfaultfd can serve (memfd, tmpfs, hugetlbfs), or length, offset and page size do "
	       "not fit it";
}

static void take_back(struct client *c)
{
	close_fd(&c->offer[--c->n_offers].file);
}

/**
 * door_declare - @c has a block
 * @b: its file is owned from here on, in any case
 * @why: set on failure: static text, what is wrong
 *
 * Return: 0; -EPROTO when @c is not declaring, -EINVAL for a block that conflicts with what others
 * declared or was matched, or as client_offer().
 */
int door_declare(struct door *d, struct client *c, const struct door_block *b, const char **why)
{
	cleanup_fd int file = b->file;
	bool private = file < 0;
	int ret;

	*why = "the sharer cannot declare anything (any more)";
	if (c->state != CLIENT_DECLARING)
		return -EPROTO;
	*why = "only the main sharer can have private memory: the others share files";
	if (private && !c->main)
		return -EINVAL;
	if (private)
		ret = client_offer_private(c, b->name, b->length, b->page_size);
	else
		ret = client_offer(c, b->name, b->length, b->page_size, b->file_offset,
				   steal_fd(&file));
	*why = ret < 0 ? offer_error(ret) : conflict(d, &c->offer[c->n_offers - 1]);
	if (ret < 0 || !*why)
		return ret;
	take_back(c);
	return -EINVAL;
}

/**
 * door_declare_mapping - @c has (a part of) a declared block at this address
 * @why: set on failure: static text
 *
 * For memory that no file leads to.  Return: 0; -EPROTO when @c is not declaring, -EINVAL.
 */
int door_declare_mapping(struct client *c, const struct door_mapping *m, const char **why)
{
	int at = client_find(c, m->block);

	*why = "the sharer cannot declare anything (any more)";
	if (c->state != CLIENT_DECLARING)
		return -EPROTO;
	*why = "a mapping of a block that was not declared, or outside of it";
	if (at < 0 || !range_inside(m->block_offset, m->length, c->offer[at].length) ||
	    c->n_given == SHARER_MAPPINGS)
		return -EINVAL;
	c->given[c->n_given++] = (struct given_mapping){
		.offer = (unsigned)at,
		.address = m->address,
		.length = m->length,
		.block_offset = m->block_offset,
	};
	return 0;
}

/**
 * door_ready - everything is declared: register and prove it
 *
 * At once, so that what cannot be served is known before a source ever connects.  Nobody reads its
 * faults yet; what it touches too early waits.
 *
 * Return: 0, and the proof is under way; else -errno, c->problem says why, and @c is refused for
 * good.
 */
int door_ready(struct door *d, struct client *c)
{
	static const unsigned any[REGISTRY_BLOCKS];
	/* Again: several may have said hello before one of them was ready. */
	const char *taken = door_place_taken(d, c->name, c->main);
	int ret = -EINVAL;

	if (taken) {
		g_strlcpy(c->problem, taken, sizeof(c->problem));
		ret = -EEXIST;
	} else if (c->n_offers == 0) {
		g_strlcpy(c->problem, "no block was declared", sizeof(c->problem));
	} else {
		ret = door_ask(d, c, DOOR_IS_PROVEN, any);
	}
	if (ret == 0)
		c->state = CLIENT_PROVING;
	else
		door_refuse(d, c, c->problem);
	d->ops.changed(d->ops.ctx);
	return ret;
}

/**
 * door_loaded - the VMM has loaded the device state that it, or who speaks for it, was given
 *
 * Return: 0; -EPROTO, and nothing happens, for who was given none.
 */
int door_loaded(struct door *d, struct client *c)
{
	if (c->state != CLIENT_JOINED || !c->main || !(c->told & TOLD_PACKAGE))
		return -EPROTO;
	c->loaded = c->held = true;
	door_put(d, c);
	door_go_on(d);
	return 0;
}

/**
 * door_go_on - let the VM run whose main sharer has loaded, if nothing else holds it
 *
 * Return: is it held still?
 */
bool door_go_on(struct door *d)
{
	const struct message loaded = { .kind = MESSAGE_LOADED };

	for (guint i = 0; i < d->clients->len; i++) {
		struct client *c = d->clients->pdata[i];

		/* What it said to an earlier process our fault thread may not have heard. */
		c->held |= d->adopted && c->loaded && !(c->told & TOLD_RUNNING);
		if (c->state != CLIENT_JOINED || !c->main || !c->held)
			continue;
		if (d->ops.may_run && !d->ops.may_run(d->ops.ctx))
			return true;
		c->held = false;
		faultloop_post(d->loop, &loaded);
	}
	return false;
}

/**
 * door_load_failed - the VMM cannot load the device state
 * @text: in its words
 *
 * Return: 0; -EPROTO, and nothing happens, for who is not the main sharer.
 */
int door_load_failed(struct door *d, struct client *c, const char *text)
{
	struct message stop = { .kind = MESSAGE_STOP, .stop.error = ECANCELED };

	if (c->state != CLIENT_JOINED || !c->main)
		return -EPROTO;
	c->load_failed = true;
	door_put(d, c);
	snprintf(stop.stop.reason, sizeof(stop.stop.reason),
		 "the main sharer %s could not load the device state: %s", c->name, text);
	faultloop_post(d->loop, &stop);
	return 0;
}
