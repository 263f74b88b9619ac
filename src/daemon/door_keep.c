/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What of the door outlives the process: descriptors in the vault, the rest in the record.
 *
 * The record of a client stands before anybody can see an effect of it: before a packet leaves
 * (door_send()), and before the fault thread is told of it.  So whatever a sharer was answered, a
 * successor knows.  The other way round it may know of what nobody was told, which does no harm:
 * the request that had no answer gets one from it.
 *
 * Two things are told apart by the order in which they are written:
 *
 *   requests   A packet is looked at before it is taken (MSG_PEEK) and its serial put into the
 *              record, which is cleared when the answer has left.  A successor that finds a serial
 *              and not the packet answers it.  Between the answer and the clearing lies a moment in
 *              which a death makes two answers; the second has the serial of a call that is over,
 *              which every client passes over.  None at all would leave somebody waiting.
 *   events     What was told is recorded when it has left, so in such a moment it is told twice,
 *              and never not at all.
 *
 * A descriptor that comes is in the record before it is in the vault, one that goes leaves the
 * vault first: what the vault has and no record names would be kept for nobody.
 *
 * Who cannot be kept, because there is no room, is served like everybody; its connection and its
 * userfaultfd end with us, which the log says.
 */
#include "config.h"
#include "daemon/door_record.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "core/guard.h"

/* Each is one bit, by its place here: more go to the end. */
static const size_t flag_at[] = {
	offsetof(struct client, main),	       offsetof(struct client, needs_kernel),
	offsetof(struct client, unaware),      offsetof(struct client, loaded),
	offsetof(struct client, load_failed),  offsetof(struct client, told_since),
	offsetof(struct client, ward),	       offsetof(struct client, orphan),
	offsetof(struct client, joining),      offsetof(struct client, released),
	offsetof(struct client, kernel_waits), offsetof(struct client, registered),
	offsetof(struct client, adrift),
};

/**
 * door_flags_of - the client's flags as bits
 */
uint32_t door_flags_of(const struct client *c)
{
	uint32_t flags = 0;

	for (unsigned i = 0; i < ARRAY_LEN(flag_at); i++)
		flags |= (uint32_t)*(const bool *)((const char *)c + flag_at[i]) << i;
	return flags;
}

/**
 * door_set_flags - the same the other way round
 */
void door_set_flags(struct client *c, uint32_t flags)
{
	for (unsigned i = 0; i < ARRAY_LEN(flag_at); i++)
		*(bool *)((char *)c + flag_at[i]) = flags >> i & 1;
}

/**
 * door_kept_name - what a descriptor is called in the vault
 * @out: DOOR_KEPT_NAME bytes
 */
const char *door_kept_name(char *out, const char *what, unsigned number)
{
	snprintf(out, DOOR_KEPT_NAME, "%s-%u", what, number);
	return out;
}

/* --- the record ------------------------------------------------------------------------------- */

static uint8_t block_of(const struct door *d, const struct offer *o)
{
	const struct matched *m = d->is_matched ? door_find_matched(d, o->name) : NULL;

	return m ? (uint8_t)(m - d->matched) : DOOR_NO_BLOCK;
}

/**
 * door_put - what is known of a client now is what a successor will know
 */
void door_put(const struct door *d, const struct client *c)
{
	struct record_client r;

	if (!d->record || c->slot < 0)
		return;
	memset(&r, 0, offsetof(struct record_client, span));
	r.size = sizeof(r);
	r.id = c->id;
	r.state = c->state;
	r.policy = c->policy;
	r.pid = c->pid;
	r.flags = door_flags_of(c);
	r.told = c->told_before;
	r.noted = c->noted;
	r.noted_type = c->noted_type;
	r.noted_offers = c->noted_offers;
	r.noted_given = c->noted_given;
	r.noted_spans = c->noted_spans;
	r.n_offers = c->n_offers;
	r.n_given = c->n_given;
	r.n_proven = c->n_proven;
	r.token = c->token;
	memcpy(r.name, c->name, sizeof(r.name));
	memcpy(r.problem, c->problem, sizeof(r.problem));
	for (unsigned i = 0; i < c->n_offers; i++)
		r.offer[i] = block_of(d, &c->offer[i]);
	memcpy(r.given, c->given, c->n_given * sizeof(r.given[0]));
	memcpy(r.proven, c->proven, c->n_proven * sizeof(r.proven[0]));
	door_dma_put(d, c, &r);
	record_put(d->record, RECORD_CLIENT, (unsigned)c->slot, &r, door_record_size(r.n_spans));
}

/**
 * door_put_door - the same of the door itself
 */
void door_put_door(const struct door *d)
{
	struct record_door r;

	if (!d->record)
		return;
	memset(&r, 0, sizeof(r));
	r.size = sizeof(r);
	r.next_id = d->next_id;
	r.ran = d->ran;
	r.released = d->released;
	r.is_matched = d->is_matched;
	r.n_matched = d->is_matched ? d->n_matched : 0;
	for (unsigned i = 0; i < r.n_matched; i++) {
		const struct matched *m = &d->matched[i];

		memcpy(r.matched[i].name, m->offer.name, sizeof(r.matched[i].name));
		r.matched[i].length = m->offer.length;
		r.matched[i].page_size = m->offer.page_size;
		r.matched[i].file_offset = m->offer.file_offset;
		r.matched[i].kind = m->kind;
	}
	record_put(d->record, RECORD_DOOR, 0, &r, sizeof(r));
}

static int free_slot(const struct door *d)
{
	bool used[RECORD_CLIENTS] = { false };

	for (unsigned i = 0; i < d->clients->len; i++) {
		const struct client *c = g_ptr_array_index(d->clients, i);

		if (c->slot >= 0)
			used[c->slot] = true;
	}
	for (int i = 0; i < RECORD_CLIENTS; i++)
		if (!used[i])
			return i;
	return -1;
}

/* --- the vault -------------------------------------------------------------------------------- */

static void keep(const struct door *d, const struct client *c, const char *what, int fd)
{
	char name[DOOR_KEPT_NAME];
	int ret = fd < 0 ? 0 : vault_keep(d->vault, door_kept_name(name, what, c->id), fd);

	if (ret < 0)
		g_warning("sharer %s (process %d) would not survive a restart of postcopyd: cannot keep its %s: %s",
			  c->name, (int)c->pid, what, g_strerror(-ret));
}

static void drop(const struct door *d, const struct client *c, const char *what)
{
	char name[DOOR_KEPT_NAME];

	vault_drop(d->vault, door_kept_name(name, what, c->id));
}

/**
 * door_keep_peer - one more has come
 */
void door_keep_peer(struct door *d, const struct peer *p)
{
	struct client *c = p->client;

	if (!d->record)
		return;
	c->slot = free_slot(d);
	if (c->slot < 0)
		return;
	/* No id is given twice, whoever gives the next one. */
	door_put_door(d);
	door_put(d, c);
	keep(d, c, "sock", p->sock);
	keep(d, c, "pidfd", c->pidfd);
}

/**
 * door_keep_uffd - it brought its userfaultfd
 */
void door_keep_uffd(const struct door *d, const struct client *c)
{
	if (d->record && c->slot >= 0)
		keep(d, c, "uffd", c->uffd);
}

/**
 * door_keep_blocks - the source's blocks were matched: the files of the shared ones
 *
 * Return: 0; -errno when one cannot be kept, and nobody could go on with this session.
 */
int door_keep_blocks(const struct door *d)
{
	char name[DOOR_KEPT_NAME];
	int ret = 0;

	for (unsigned i = 0; d->record && i < d->n_matched && ret == 0; i++)
		if (d->matched[i].kind == BLOCK_SHARED)
			ret = vault_keep(d->vault, door_kept_name(name, "offer", i),
					 d->matched[i].offer.file);
	door_put_door(d);
	/* What they offered has an index now. */
	for (unsigned i = 0; i < d->clients->len; i++)
		door_put(d, g_ptr_array_index(d->clients, i));
	return ret;
}

/**
 * door_drop_socket - its connection is over
 */
void door_drop_socket(const struct door *d, const struct client *c)
{
	if (d->record && c->slot >= 0)
		drop(d, c, "sock");
}

/**
 * door_drop - it is forgotten: its userfaultfd may be closed
 */
void door_drop(const struct door *d, struct client *c)
{
	if (!d->record || c->slot < 0)
		return;
	drop(d, c, "uffd");
	drop(d, c, "pidfd");
	record_drop(d->record, RECORD_CLIENT, (unsigned)c->slot);
	c->slot = -1;
}

/* --- requests --------------------------------------------------------------------------------- */

/**
 * door_note_request - a packet is about to be read: whoever comes after us should know
 *
 * A MAPPED brings the socket for its answer, which ends with us, so that who waits there is told.
 */
void door_note_request(const struct peer *p)
{
	struct client *c = p->client;
	struct regmsg_head head;

	if (!p->door->record ||
	    recv(p->sock, &head, sizeof(head), MSG_PEEK | MSG_DONTWAIT) != sizeof(head) ||
	    head.type == REGMSG_MAPPED)
		return;
	c->noted = head.serial;
	c->noted_type = head.type;
	c->noted_offers = c->n_offers;
	c->noted_given = c->n_given;
	c->noted_spans = door_dma_count(p->door, c);
	door_put(p->door, c);
}

/**
 * door_request_over - it was answered, or has no answer
 */
void door_request_over(const struct peer *p)
{
	if (!p->client->noted)
		return;
	p->client->noted = 0;
	door_put(p->door, p->client);
}
