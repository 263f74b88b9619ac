/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Taking over the sharers of a process that is gone.
 *
 * Theirs have not noticed: the sockets, the userfaultfds and the files of the blocks were kept, and
 * what was known is in the record (door_keep.c).  From these the clients and their connections are
 * built as they were, and those that the fault thread had are handed to it again.
 *
 * Their mappings are taken as proven.  A registration belongs to the mapping and lasts as long as
 * its userfaultfd is open, which the vault saw to, and whatever was answered or served is in the
 * record.  To prove them again would mean to wait for the address spaces of others, of which one
 * may be locked until a page comes that nobody serves yet; and a proof that fails could only take
 * memory away from somebody who has it.  What a program unmapped meanwhile does no harm
 * (door_mapped.c), and what it mapped it has to tell first, and was not answered.
 *
 * Those that were being proven are where they were before it.  Who had declared something before
 * the source's blocks were known goes: the files that it brought are not kept, for no number of
 * sharers should fill the vault.  It had not been told that it may touch its memory, so it can come
 * again; what of it may be registered is kept until its process ends (O11).
 *
 * A request that was read and has no answer gets one: that of a request whose effect the record
 * shows, else ERESTART.  Connections of wards have ended with us, so they begin as orphans
 * (door_orphan.c).
 */
#include "config.h"
#include "daemon/door_record.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include <gio/gio.h>

#include "core/guard.h"
#include "sys/fd.h"

static const char restarted[] =
	"postcopyd was restarted and does not know what became of this: ask again";

static int give_up(GError **error, int code, const char *what)
{
	g_set_error(error, G_IO_ERROR, (gint)g_io_error_from_errno(-code),
		    "cannot take over the sharers of an earlier postcopyd: %s: %s", what,
		    g_strerror(-code));
	return code;
}

static int take(const struct door *d, const char *what, unsigned number)
{
	char name[DOOR_KEPT_NAME];

	return vault_take(d->vault, door_kept_name(name, what, number));
}

/* --- the door itself -------------------------------------------------------------------------- */

static int revive_block(struct door *d, unsigned index, const struct record_matched *r)
{
	struct matched *m = &d->matched[index];
	struct offer *o = &m->offer;

	m->kind = (enum block_kind)r->kind;
	o->length = r->length;
	o->page_size = r->page_size;
	o->file_offset = r->file_offset;
	o->private = m->kind == BLOCK_PRIVATE;
	o->file = -1;
	memcpy(o->name, r->name, sizeof(o->name) - 1);
	if (m->kind != BLOCK_SHARED)
		return 0;
	o->file = take(d, "offer", index);
	return o->file < 0 ? -ENOENT : mem_identify(o->file, &o->identity);
}

static int revive_door(struct door *d, GError **error)
{
	g_autofree struct record_door *r = g_new0(struct record_door, 1);
	ssize_t n = record_get(d->record, RECORD_DOOR, 0, r, sizeof(*r));

	if (n == 0)
		return 0;
	if (n != sizeof(*r) || r->size != sizeof(*r) || r->n_matched > BLOCK_MAX)
		return give_up(error, n < 0 ? (int)n : -EBADMSG, "its record");
	d->next_id = r->next_id;
	d->ran = r->ran;
	d->released = r->released;
	d->is_matched = r->is_matched;
	d->owns_files = true;
	for (unsigned i = 0; i < r->n_matched; i++) {
		int ret = revive_block(d, i, &r->matched[i]);

		d->n_matched++;
		if (ret < 0)
			return give_up(error, ret, r->matched[i].name);
	}
	return 0;
}

/* --- a client --------------------------------------------------------------------------------- */

static bool is_sound(const struct record_client *r, ssize_t n)
{
	return n >= (ssize_t)door_record_size(0) && r->size == sizeof(*r) &&
	       r->n_spans <= DOOR_SPANS && n == (ssize_t)door_record_size(r->n_spans) &&
	       r->n_gates <= SNAPSHOT_GATES && r->n_offers <= REGISTRY_BLOCKS &&
	       r->n_given <= SHARER_MAPPINGS && r->n_proven <= SHARER_MAPPINGS &&
	       r->state <= CLIENT_ENDED;
}

/* As many as are known: the file of an offer is the door's. */
static void revive_offers(const struct door *d, struct client *c, const struct record_client *r)
{
	while (c->n_offers < r->n_offers && r->offer[c->n_offers] < d->n_matched) {
		struct offer *o = &c->offer[c->n_offers];

		*o = d->matched[r->offer[c->n_offers]].offer;
		o->file = -1;
		c->n_offers++;
	}
	memcpy(c->given, r->given, r->n_given * sizeof(c->given[0]));
	memcpy(c->proven, r->proven, r->n_proven * sizeof(c->proven[0]));
	c->n_given = r->n_given;
	c->n_proven = r->n_proven;
}

static struct peer *revive(struct door *d, const struct record_client *r, unsigned slot)
{
	struct peer *p = g_new0(struct peer, 1);
	struct client *c = client_new();

	p->door = d;
	p->client = c;
	p->declared = r->n_offers;
	c->slot = (int)slot;
	c->id = r->id;
	c->token = r->token;
	c->state = (enum client_state)r->state;
	c->policy = r->policy;
	c->pid = r->pid;
	c->told = c->told_before = r->told;
	c->noted = r->noted;
	c->noted_type = r->noted_type;
	c->noted_offers = r->noted_offers;
	c->noted_given = r->noted_given;
	c->noted_spans = r->noted_spans;
	door_set_flags(c, r->flags);
	memcpy(c->name, r->name, sizeof(c->name) - 1);
	memcpy(c->problem, r->problem, sizeof(c->problem) - 1);
	revive_offers(d, c, r);
	p->sock = take(d, "sock", c->id);
	c->pidfd = take(d, "pidfd", c->id);
	c->uffd = take(d, "uffd", c->id);
	g_ptr_array_add(d->clients, c);
	g_ptr_array_add(d->peers, p);
	return p;
}

static gint by_arrival(gconstpointer a, gconstpointer b)
{
	const struct peer *const *one = a, *const *other = b;

	return (*one)->client->id < (*other)->client->id ? -1 : 1;
}

static int revive_clients(struct door *d, GError **error)
{
	g_autofree struct record_client *r = g_new0(struct record_client, 1);

	for (unsigned i = 0; i < RECORD_CLIENTS; i++) {
		ssize_t n = record_get(d->record, RECORD_CLIENT, i, r, sizeof(*r));

		if (n == 0)
			continue;
		if (!is_sound(r, n))
			return give_up(error, n < 0 ? (int)n : -EBADMSG, "the record of one");
		door_dma_revive(revive(d, r, i), r);
	}
	g_ptr_array_sort(d->peers, by_arrival);
	g_ptr_array_set_size(d->clients, 0);
	for (unsigned i = 0; i < d->peers->len; i++) {
		struct peer *p = g_ptr_array_index(d->peers, i);

		g_ptr_array_add(d->clients, p->client);
	}
	return 0;
}

/* --- a request that has no answer ------------------------------------------------------------- */

/* What is still in the socket is heard as if nothing had been. */
static bool was_read(const struct peer *p)
{
	struct regmsg_head head;
	ssize_t n;

	if (!p->client->noted)
		return false;
	n = recv(p->sock, &head, sizeof(head), MSG_PEEK | MSG_DONTWAIT);
	return n != sizeof(head) || head.serial != p->client->noted ||
	       head.type != p->client->noted_type;
}

/* Does the record show what it asked for?  0; -ERESTART: that cannot be told, or was lost. */
static int outcome(const struct door *d, const struct client *c)
{
	switch (c->noted_type) {
	case REGMSG_BLOCK:
		return c->n_offers > c->noted_offers ? 0 : -ERESTART;
	case REGMSG_MAPPING:
		return c->n_given > c->noted_given ? 0 : -ERESTART;
	case REGMSG_DMA_MAP:
		return door_dma_count(d, c) > c->noted_spans ? 0 : -ERESTART;
	case REGMSG_READY:
		return c->state == CLIENT_READY || c->state == CLIENT_JOINED ? 0 : -ERESTART;
	case REGMSG_LEAVE:
		return c->state == CLIENT_ENDED ? 0 : -ERESTART;
	default:
		return -ERESTART;
	}
}

/* Nothing of it is known but that it came: what it brought is lost. */
static void answer_hello(struct peer *p)
{
	struct client *c = p->client;

	if (c->state != CLIENT_NEW) {
		door_welcome(p, c->noted);
		return;
	}
	door_send_text(p, REGMSG_REFUSED, c->noted, ERESTART, restarted);
	shutdown(p->sock, SHUT_RDWR);
}

/* Neither has an answer: what it said is taken as said. */
static void hear_again(struct client *c)
{
	if (c->noted_type == REGMSG_LOAD_FAILED)
		c->load_failed = true;
	else
		c->loaded |= (c->told & TOLD_PACKAGE) != 0;
}

static void answer_noted(struct peer *p)
{
	struct client *c = p->client;
	int ret = outcome(p->door, c);

	if (!was_read(p)) {
		c->noted = 0;
		return;
	}
	g_message("sharer %s (process %d): %s had no answer", c->name, (int)c->pid,
		  regmsg_type_name((enum regmsg_type)c->noted_type));
	if (c->noted_type == REGMSG_HELLO)
		answer_hello(p);
	else if (c->noted_type == REGMSG_LOADED || c->noted_type == REGMSG_LOAD_FAILED)
		hear_again(c);
	else
		door_result(p, c->noted, ret, ret < 0 ? restarted : "");
	c->noted = 0;
}

/* --- where each goes on ----------------------------------------------------------------------- */

static bool is_dead(const struct client *c)
{
	struct pollfd p = { .fd = c->pidfd, .events = POLLIN };

	return c->pidfd >= 0 && poll(&p, 1, 0) > 0;
}

/* It declared what nobody knows any more.  Its connection ends as any other. */
static void come_again(struct peer *p)
{
	p->client->adrift = true;
	door_refuse(p->door, p->client,
		    "postcopyd was restarted before the source's blocks were known: connect again");
	if (p->sock >= 0)
		shutdown(p->sock, SHUT_RDWR);
}

/* What the fault thread was told of it, beside its place. */
static void say_again(struct door *d, struct client *c)
{
	struct message gone = { .kind = MESSAGE_GONE, .gone.how = SHARER_DISABLED };

	if (c->told & TOLD_DISABLED) {
		gone.gone.id = c->id;
		gone.gone.error = EIO;
		g_strlcpy(gone.gone.reason, c->problem, sizeof(gone.gone.reason));
		faultloop_post(d->loop, &gone);
	}
	if (c->load_failed)
		(void)door_load_failed(d, c, "what it said was lost in a restart of postcopyd");
	/* door_go_on() is asked with the next look at the session. */
	c->loaded &= !c->load_failed;
}

static void join_again(struct peer *p)
{
	struct client *c = p->client;

	if (c->uffd < 0) {
		c->joining = true; /* so that its policy is asked */
		door_refuse(p->door, c, "its userfaultfd did not survive a restart of postcopyd");
		return;
	}
	door_hand_over(p->door, c);
	say_again(p->door, c);
	if (p->sock >= 0 || c->orphan || c->told & TOLD_DISABLED)
		return;
	if (c->told & (TOLD_COMPLETE | TOLD_FAILED))
		c->state = CLIENT_ENDED;
	else
		door_linger(p);
}

/* Who was never told that it may touch memory, or has none that we know of. */
static void stand_again(struct peer *p)
{
	struct client *c = p->client;

	if (c->n_offers < p->declared)
		come_again(p);
	else if (c->state == CLIENT_PROVING && !c->orphan)
		c->state = CLIENT_DECLARING;
}

/* The caller does not use @p any more. */
static void go_on(struct peer *p)
{
	struct door *d = p->door;
	struct client *c = p->client;

	if (c->ward)
		c->orphan = true;
	if (p->sock >= 0)
		answer_noted(p);
	if (c->state == CLIENT_JOINED)
		join_again(p);
	else if (c->state >= CLIENT_DECLARING && c->state <= CLIENT_READY)
		stand_again(p);
	else if (c->state == CLIENT_NEW && p->sock < 0)
		c->state = CLIENT_ENDED;
	if (c->orphan && c->state != CLIENT_ENDED)
		door_orphan_begin(d, c);
	door_put(d, c);
	if (is_dead(c)) {
		door_died(p);
		return;
	}
	door_watch(p);
	door_maybe_forget(p);
}

/**
 * door_adopt - take over what an earlier process left
 * @v, @r: that process's, and ours from here on, as given to door_new()
 *
 * Before the main loop runs, and behind door_use_gates().  The fault thread knows its blocks, and
 * hears of every sharer that it had; then that these are all (MESSAGE_ADOPTED).  What is due to be
 * told follows with the next door_tell().
 *
 * Return: 0; -errno with *error, when the record makes no sense or a descriptor is missing without
 * which nobody could be served.
 */
int door_adopt(struct door *d, struct vault *v, struct record *r, GError **error)
{
	const struct message adopted = { .kind = MESSAGE_ADOPTED };
	int ret;

	d->vault = v;
	d->record = r;
	d->adopted = true;
	ret = revive_door(d, error);
	if (ret == 0)
		ret = revive_clients(d, error);
	if (ret < 0)
		return ret;
	for (unsigned i = 0; i < d->peers->len;) {
		struct peer *p = g_ptr_array_index(d->peers, i);

		go_on(p);
		i += i < d->peers->len && g_ptr_array_index(d->peers, i) == p;
	}
	faultloop_post(d->loop, &adopted);
	d->ops.changed(d->ops.ctx);
	return 0;
}
