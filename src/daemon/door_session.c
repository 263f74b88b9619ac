/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The native door and the session: which offers back the source's blocks, who is proven and handed
 * over, who is told what.
 *
 * Matching happens once, when the source has listed its blocks and before it sends a page: by name,
 * then by length and page size, and whatever does not fit refuses the migration while it costs
 * nothing.  A block that nobody offered is held by the daemon; a block that nobody sends would
 * never be filled, so it is an error too.
 *
 * Events to sharers are states, not history: what is due is computed from the last snapshot, and
 * `told' remembers what was said.  So a sharer that comes late hears everything that holds, each
 * thing once, in order.
 */
#include "config.h"
#include "daemon/door_parts.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/vault.h"
#include "sys/fd.h"

/**
 * door_find_matched - a block of the source by name; NULL when there is none, or nothing was
 * matched yet
 *
 * Its place in d->matched is its number in the source's list and in the engine.
 */
const struct matched *door_find_matched(const struct door *d, const char *name)
{
	for (unsigned i = 0; i < d->n_matched; i++)
		if (strcmp(d->matched[i].offer.name, name) == 0)
			return &d->matched[i];
	return NULL;
}

/**
 * door_clients - struct client, in order of arrival; belongs to the door
 */
GPtrArray *door_clients(struct door *d)
{
	return d->clients;
}

/* Declared everything, and was not refused. */
static bool present(const struct client *c)
{
	return c->state == CLIENT_READY || c->state == CLIENT_JOINED;
}

/**
 * door_has - is the named sharer READY or JOINED?
 */
bool door_has(struct door *d, const char *name)
{
	for (unsigned i = 0; i < d->clients->len; i++) {
		const struct client *c = g_ptr_array_index(d->clients, i);

		if (present(c) && strcmp(c->name, name) == 0)
			return true;
	}
	return false;
}

/**
 * door_has_main - is the main sharer READY or JOINED?
 */
bool door_has_main(struct door *d)
{
	for (unsigned i = 0; i < d->clients->len; i++) {
		const struct client *c = g_ptr_array_index(d->clients, i);

		if (present(c) && c->main)
			return true;
	}
	return false;
}

/**
 * door_is_proving - is the named sharer being proven for the first time?
 */
bool door_is_proving(struct door *d, const char *name)
{
	for (unsigned i = 0; i < d->clients->len; i++) {
		const struct client *c = g_ptr_array_index(d->clients, i);

		if (c->state == CLIENT_PROVING && strcmp(c->name, name) == 0)
			return true;
	}
	return false;
}

/**
 * door_problem - why the named sharer was refused, or NULL
 */
const char *door_problem(struct door *d, const char *name)
{
	for (unsigned i = 0; i < d->clients->len; i++) {
		const struct client *c = g_ptr_array_index(d->clients, i);

		if (c->state == CLIENT_REFUSED && strcmp(c->name, name) == 0)
			return c->problem;
	}
	return NULL;
}

/**
 * door_connected - how many sockets are open, of whatever state
 *
 * But for programs that do not know of us: theirs stay open as long as they live.
 */
unsigned door_connected(struct door *d)
{
	unsigned n = 0;

	for (unsigned i = 0; i < d->peers->len; i++) {
		const struct peer *p = g_ptr_array_index(d->peers, i);

		n += p->sock >= 0 && !p->client->unaware;
	}
	return n;
}

/*
 * Any sharer's will do: that all of them offer the same bytes was checked when they did
 * (conflict()).
 */
static const struct offer *find_offer(const struct door *d, const char *name)
{
	for (unsigned i = 0; i < d->clients->len; i++) {
		const struct client *c = g_ptr_array_index(d->clients, i);
		int at = present(c) ? client_find(c, name) : -1;

		if (at >= 0)
			return &c->offer[at];
	}
	return NULL;
}

static int match_block(struct door *d, const struct snapshot_block *b, char *why)
{
	const struct offer *o = find_offer(d, b->name);
	struct matched *m = &d->matched[d->n_matched];

	if (o && (o->length != b->length || o->page_size != b->page_size)) {
		snprintf(why, 512,
			 "block %s: the source has %" PRIu64 " bytes in pages of %" PRIu64
			 ", sharers registered %" PRIu64 " in pages of %" PRIu64,
			 b->name, b->length, b->page_size, o->length, o->page_size);
		return -EINVAL;
	}
	*m = (struct matched){ .kind = !o	  ? BLOCK_HELD :
				       o->private ? BLOCK_PRIVATE :
						    BLOCK_SHARED };
	if (o)
		m->offer = *o;
	g_strlcpy(m->offer.name, b->name, sizeof(m->offer.name));
	d->n_matched++;
	return 0;
}

/* A block that sharers have and the source does not: its memory would never be filled. */
static int check_surplus(const struct door *d, char *why)
{
	for (unsigned i = 0; i < d->clients->len; i++) {
		const struct client *c = g_ptr_array_index(d->clients, i);

		for (unsigned j = 0; present(c) && j < c->n_offers; j++)
			if (!door_find_matched(d, c->offer[j].name)) {
				snprintf(
					why, 512,
					"sharer %s registered block %s, which the source does not have (idstr "
					"as in `info ramblock` of its monitor)",
					c->name, c->offer[j].name);
				return -EINVAL;
			}
	}
	return 0;
}

/*
 * What nobody registered is kept by us, as much of it as is not zero.  ROMs and video memory are
 * small; guest memory that somebody forgot to register, or misspelled, is not, and we would grow by
 * all of it where nobody could ever use it.
 */
static int check_held(const struct door *d, const struct snapshot *s, uint64_t max_held, char *why)
{
	const struct snapshot_block *largest = NULL;
	uint64_t sum = 0;

	for (unsigned i = 0; i < s->n_blocks && i < d->n_matched; i++) {
		const struct snapshot_block *b = &s->block[i];

		if (d->matched[i].kind != BLOCK_HELD)
			continue;
		if (!largest || b->length > largest->length)
			largest = b;
		sum = b->length > UINT64_MAX - sum ? UINT64_MAX : sum + b->length;
	}
	if (sum <= max_held)
		return 0;
	snprintf(why, 512,
		 "block %s of %" PRIu64
		 " bytes is registered by no sharer, and would be kept by this daemon: %" PRIu64
		 " bytes with all such blocks, where --max-held allows %" PRIu64
		 "; register it, or raise --max-held",
		 largest->name, largest->length, sum, max_held);
	return -EFBIG;
}

/* Who asked for a daemon that survives is told while it costs nothing that this one would not. */
static int keep_blocks(struct door *d, char *why)
{
	int ret = door_keep_blocks(d);

	if (ret < 0)
		snprintf(why, 512, "the files of the blocks cannot be kept for a restart: %s",
			 strerror(-ret));
	return ret;
}

/**
 * door_match - what backs each block of the source's list?
 * @s: a snapshot that needs NEED_BLOCKS
 * @max_held: bytes that blocks which nobody registered may have in all
 * @why: 512 bytes: on failure what does not fit what
 *
 * Return: 0, -EINVAL, -EFBIG, or what the vault says.
 */
int door_match(struct door *d, const struct snapshot *s, uint64_t max_held, char *why)
{
	d->n_matched = 0;
	for (unsigned i = 0; i < s->n_blocks; i++) {
		int ret = match_block(d, &s->block[i], why);

		if (ret < 0)
			return ret;
	}
	if (check_surplus(d, why) < 0)
		return -EINVAL;
	if (check_held(d, s, max_held, why) < 0)
		return -EFBIG;
	d->is_matched = true;
	return keep_blocks(d, why);
}

/**
 * door_block_file - where the content of a block lies
 * @offset: in the file
 */
int door_block_file(const struct door *d, unsigned block, uint64_t *offset)
{
	if (!d->is_matched || block >= d->n_matched)
		return -ENOENT;
	if (d->matched[block].kind != BLOCK_SHARED)
		return -ENOTSUP;
	*offset = d->matched[block].offer.file_offset;
	return d->matched[block].offer.file;
}

/*
 * What backs a block, for the fault thread; kept for a successor's.  0 or -errno.
 */
static int block_content(const struct door *d, unsigned i, int *file)
{
	const struct matched *m = &d->matched[i];
	char name[32];

	*file = -1;
	snprintf(name, sizeof(name), "block-%u", i);
	if (m->kind != BLOCK_SHARED)
		return d->record ? vault_memory(d->vault, name, file) : 0;
	*file = dup(m->offer.file);
	if (*file < 0)
		return -errno;
	return d->record ? vault_keep(d->vault, name, *file) : 0;
}

static int announce_block(const struct door *d, unsigned i)
{
	struct message b = { .kind = MESSAGE_BLOCK };
	int ret = block_content(d, i, &b.block.file);

	b.block.index = i;
	b.block.kind = d->matched[i].kind;
	b.block.file_offset = d->matched[i].offer.file_offset;
	if (ret == 0)
		faultloop_post(d->loop, &b);
	else
		close_fd(&b.block.file);
	return ret;
}

/**
 * door_announce - tell the fault thread what was matched: BLOCK for each, then BLOCKS_DONE
 *
 * With it goes the memory that has to outlive us, which is kept before the fault thread has it.
 *
 * Return: 0; -errno when not all of it can be kept, and the session is to be refused.
 */
int door_announce(struct door *d)
{
	struct message done = { .kind = MESSAGE_BLOCKS_DONE,
				.blocks_done = { .ledger = -1, .package = -1 } };
	int ret = 0;

	for (unsigned i = 0; i < d->n_matched && ret == 0; i++)
		ret = announce_block(d, i);
	if (ret == 0 && d->record)
		ret = vault_memory(d->vault, "ledger", &done.blocks_done.ledger);
	if (ret == 0 && d->record)
		ret = vault_memory(d->vault, "package", &done.blocks_done.package);
	if (ret < 0)
		close_fd(&done.blocks_done.ledger);
	else
		faultloop_post(d->loop, &done);
	return ret;
}

/**
 * door_hand_over - a sharer that was just proven goes to the fault thread
 *
 * Which gets descriptors of its own: from here on each side closes what it holds when its own
 * reasons are over.
 */
void door_hand_over(struct door *d, struct client *c)
{
	struct message join = { .kind = MESSAGE_JOIN };

	c->state = CLIENT_JOINED;
	door_put(d, c);
	join.join.id = c->id;
	join.join.pid = c->pid;
	join.join.main = c->main;
	join.join.spoken_for = c->main && c->unaware;
	join.join.policy = c->policy;
	join.join.uffd = dup(c->uffd);
	join.join.reports = uffd_reports_gone(c->uffd);
	join.join.maps = c->n_proven;
	g_strlcpy(join.join.name, c->name, sizeof(join.join.name));
	faultloop_post(d->loop, &join);
	for (unsigned i = 0; i < c->n_proven; i++) {
		struct message map = { .kind = MESSAGE_MAP,
				       .map = { .id = c->id, .mapping = c->proven[i] } };

		faultloop_post(d->loop, &map);
	}
}

/* Have it proven with the numbers that its blocks have now. */
static int prove_again(struct door *d, struct client *c)
{
	unsigned number[REGISTRY_BLOCKS];

	if (c->unaware && !c->main)
		return door_ask(d, c, DOOR_MAY_JOIN, NULL);
	for (unsigned i = 0; i < c->n_offers; i++) {
		const struct matched *m = door_find_matched(d, c->offer[i].name);

		if (!m || m->kind == BLOCK_HELD) {
			g_strlcpy(c->problem, "it shares a block that came too late",
				  sizeof(c->problem));
			return -EINVAL;
		}
		number[i] = (unsigned)(m - d->matched);
	}
	return door_ask(d, c, DOOR_MAY_JOIN, number);
}

/* It was to join and was refused: does the session end with it?  Told once. */
static bool fails_session(struct client *c, char *why)
{
	bool fails = c->state == CLIENT_REFUSED && c->joining && c->policy == REGMSG_POLICY_FAIL;

	if (c->state == CLIENT_REFUSED)
		c->joining = false;
	if (fails)
		snprintf(why, 512, "sharer %s: %s", c->name, c->problem);
	return fails;
}

/**
 * door_join - have every READY sharer proven once more, since it may have mapped something, and
 * handed over then
 * @why: 512 bytes: which sharer, and why
 *
 * Who cannot be served is refused, told why, and ends by its policy.  To be called again at each
 * change.
 *
 * Return: 0 when none is left; 1 while one is being proven; -EACCES when a policy says that the
 * session fails with one that was refused.
 */
int door_join(struct door *d, char *why)
{
	int ret = 0;

	for (unsigned i = 0; i < d->clients->len; i++) {
		struct client *c = g_ptr_array_index(d->clients, i);

		if (c->state == CLIENT_READY && !c->asked && !c->changing) {
			c->joining = true;
			if (prove_again(d, c) < 0)
				door_refuse(d, c, c->problem);
		}
		if (fails_session(c, why))
			return -EACCES;
		if (c->state == CLIENT_READY) {
			snprintf(why, 512, "sharer %s is being proven", c->name);
			ret = 1;
		}
	}
	return ret;
}

static void send_plain(struct peer *p, enum regmsg_type type)
{
	union regmsg m;
	size_t len = regmsg_init(&m, type, 0);

	door_send(p, &m, len, -1);
}

static void tell_package(struct peer *p, const struct snapshot *s)
{
	union regmsg m;
	size_t len = regmsg_init(&m, REGMSG_PACKAGE, 0);

	m.package.body_length = s->package_bytes;
	m.package.device_offset = s->package_device_offset;
	m.package.device_length = s->package_device_bytes;
	door_send(p, &m, len, s->package_fd);
}

static const struct snapshot_sharer *find_sharer(const struct snapshot *s, uint32_t id)
{
	for (unsigned i = 0; i < s->n_sharers; i++)
		if (s->sharer[i].id == id)
			return &s->sharer[i];
	return NULL;
}

/* True once: the event is due and was not told. */
static bool due(struct client *c, unsigned what, bool when)
{
	if (!when || c->told & what)
		return false;
	c->told |= what;
	return true;
}

/*
 * In this order: LISTENING allows touching, PACKAGE is for the VMM to load, RUNNING to run,
 * COMPLETE lets go.
 *
 * A program that is unaware of us may never read its socket.  It gets nothing that wants an answer
 * or holds a descriptor (PACKAGE, RUNNING: whoever speaks for it learns of them from the snapshot),
 * and of the rest each thing once, which is less than a socket holds.
 */
static void tell(struct peer *p, const struct snapshot *s)
{
	struct client *c = p->client;
	const struct snapshot_sharer *known = find_sharer(s, c->id);
	bool joined = c->state == CLIENT_JOINED && known;
	bool serving = s->listening_ns && s->state <= SESSION_COMPLETE;
	bool complete = s->state == SESSION_COMPLETE && s->running_told;
	/*
	 * Who comes after the end finds all the memory there: nothing to serve, nothing to wait
	 * for.
	 */
	bool late = complete && c->state == CLIENT_READY && c->released;

	if (due(c, TOLD_LISTENING, (joined && serving) || late))
		send_plain(p, REGMSG_LISTENING);
	if (due(c, TOLD_PACKAGE, joined && serving && c->main && s->package_fd >= 0) && !c->unaware)
		tell_package(p, s);
	if (due(c, TOLD_RUNNING, joined && c->main && c->loaded && s->running_told)) {
		p->door->ran = true;
		door_put_door(p->door);
		if (!c->unaware)
			send_plain(p, REGMSG_RUNNING);
	}
	if (due(c, TOLD_DISABLED, joined && known->state == SHARER_DISABLED)) {
		g_strlcpy(c->problem, known->reason, sizeof(c->problem));
		door_send_text(p, REGMSG_DISABLED, 0, known->error, known->reason);
	}
	if (due(c, TOLD_DISABLED, c->state == CLIENT_REFUSED))
		door_send_text(p, REGMSG_DISABLED, 0, EACCES, c->problem);
	/* An unaware one hears it once: see above. */
	if (!s->paused_ns && !c->unaware)
		c->told &= ~(unsigned)TOLD_PAUSED;
	if (due(c, TOLD_PAUSED, s->state == SESSION_PAUSED && c->state >= CLIENT_DECLARING))
		door_send_text(p, REGMSG_PAUSED, 0, s->error, s->reason);
	if (due(c, TOLD_FAILED, s->state == SESSION_FAILED && c->state >= CLIENT_DECLARING))
		door_send_text(p, REGMSG_FAILED, 0, s->error, s->reason);
	if (due(c, TOLD_COMPLETE, (joined && complete && c->released) || late))
		send_plain(p, REGMSG_COMPLETE);
	if (c->told_before == c->told)
		return;
	c->told_before = c->told;
	door_put(p->door, c);
}

/**
 * door_tell - tell every sharer what it has not been told of @s
 */
void door_tell(struct door *d, const struct snapshot *s)
{
	for (unsigned i = 0; i < d->peers->len; i++)
		tell(g_ptr_array_index(d->peers, i), s);
	door_dma_look(d, s->listening_ns);
	door_mapped_continue(d, s->unmaps);
	d->unmaps_seen = s->unmaps;
	door_wards_continue(d);
}

/**
 * door_release - the session is complete: have the registrations undone, of those that joined and
 * of those that came too late to
 *
 * To be called again at each change.
 */
void door_release(struct door *d)
{
	if (!d->released) {
		d->released = true;
		door_put_door(d);
	}
	for (unsigned i = 0; i < d->clients->len; i++) {
		struct client *c = g_ptr_array_index(d->clients, i);

		if ((c->state != CLIENT_JOINED && c->state != CLIENT_READY) || c->released ||
		    c->asked)
			continue;
		/* It is not to wait for ever for us to be able to ask. */
		if (door_ask(d, c, DOOR_IS_RELEASED, NULL) < 0)
			c->released = true;
		door_put(d, c);
	}
}

/**
 * door_released - is nobody's memory registered with us any more, as far as we can tell?
 *
 * A program that does not know of us holds its userfaultfd itself: what is still registered when we
 * go would stay so, and a thread that touches a hole there would wait for ever.
 */
bool door_released(const struct door *d)
{
	for (unsigned i = 0; i < d->clients->len; i++) {
		const struct client *c = g_ptr_array_index(d->clients, i);

		if ((c->state == CLIENT_JOINED || c->state == CLIENT_READY) && !c->released)
			return false;
	}
	return true;
}

/**
 * door_fill - add the sharers that the fault thread does not know (yet) to a snapshot
 */
void door_fill(struct door *d, struct snapshot *s)
{
	for (unsigned i = 0; i < d->clients->len && s->n_sharers < SNAPSHOT_SHARERS; i++) {
		const struct client *c = g_ptr_array_index(d->clients, i);
		struct snapshot_sharer *to = &s->sharer[s->n_sharers];

		if (c->state < CLIENT_DECLARING || c->state == CLIENT_JOINED ||
		    c->state > CLIENT_REFUSED)
			continue;
		*to = (struct snapshot_sharer){
			.id = c->id,
			.generation = 1,
			.pid = c->pid,
			.main = c->main,
			.policy = c->policy,
			.state = c->state == CLIENT_REFUSED ? SHARER_DISABLED : SHARER_JOINING,
			.error = c->state == CLIENT_REFUSED ? EACCES : 0,
		};
		g_strlcpy(to->name, c->name, sizeof(to->name));
		g_strlcpy(to->reason, c->problem, sizeof(to->reason));
		s->n_sharers++;
	}
}
