/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sharers that know nothing of us and have nothing of ours in them: a vhost-user back-end gives its
 * userfaultfd to whoever is its front-end, and somebody in this daemon is.  Who brought such a ward
 * says when what it maps has changed, and has to be told when all of it is proven, for it holds
 * back what would make the back-end touch it.
 *
 * A proof goes in three steps, because of one danger: a COPY goes to an address, and the kernel
 * does not ask through whose userfaultfd that was registered.  Where a part of memory was mapped
 * and another part is now, the fault thread would place the former's pages into the latter.  So
 * first a thread looks; what is not mapped any more, of whichever sharer in that process, the fault
 * thread is told to forget; when it has, what is there is registered and verified, and only then
 * made known to it.
 *
 * Nothing of that holds if mappings change meanwhile, so they do not: a ward that is to be told of
 * memory is `changing' until it is proven, and in one process one thing happens at a time, a change
 * or a look (door_ward_may_change).  Several back-ends in one process are several wards, each with
 * the mappings that were registered through its own userfaultfd.
 */
#include "config.h"
#include "daemon/door_parts.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/guard.h"
#include "daemon/remap.h"
#include "sys/fd.h"
#include "sys/maps.h"
#include "sys/uffd.h"

#define WARD_REGIONS 64

enum step {
	STEP_NONE,
	STEP_ASKED,		/* to be looked at, when nobody else looks */
	STEP_LOOKING,
	STEP_FORGETTING,	/* the fault thread forgets what is gone */
	STEP_PROVING,
};

struct door_ward {
	struct door *door;
	uint32_t id;		/* of its client */
	const struct door_ward_ops *ops;
	void *ctx;
	enum step step;
	bool ended;
	uint64_t after;		/* so many UNMAPs */
	unsigned n_told;
	struct door_region told[WARD_REGIONS];
	unsigned n_found;	/* by the look */
	struct mapping found[SHARER_MAPPINGS];
	char problem[256];
};

/* What a thread of the prover works on. */
struct inquiry {
	/* never changes */
	bool registers;
	uint32_t id;
	unsigned n_told, n_expected;
	struct door_region told[WARD_REGIONS];
	struct mapping expected[SHARER_MAPPINGS];	/* registers: what the look found */
	/* the thread's */
	struct client *copy;
	unsigned n_known, n_found;
	struct prove_block known[BLOCK_MAX];
	struct offer offer[BLOCK_MAX];
	struct mapping found[SHARER_MAPPINGS];
	int ret;
};

/* --- in the thread ---------------------------------------------------------------------------- */

/* Does some mapping of @m show every byte of the block from @lo to @hi? */
static bool shows(const struct mapping *m, unsigned n, uint64_t lo, uint64_t hi)
{
	uint64_t from;

	do {
		from = lo;
		for (unsigned i = 0; i < n; i++)
			if (m[i].offset <= lo && lo - m[i].offset < m[i].length)
				lo = m[i].offset + m[i].length;
	} while (lo < hi && lo > from);
	return lo >= hi;
}

/*
 * It was told of memory and said that it has it, so this process must map it.  Else the one that
 * does is another, which nobody would have registered.
 */
static int check_told(const struct inquiry *q, const struct offer *o, const struct mapping *m,
		      unsigned n, char *why)
{
	for (unsigned i = 0; i < q->n_told; i++) {
		const struct door_region *t = &q->told[i];
		uint64_t lo = t->offset > o->file_offset ? t->offset : o->file_offset;
		uint64_t hi = t->offset + t->length, end = o->file_offset + o->length;

		hi = hi < end ? hi : end;
		if (t->dev != o->identity.dev || t->inode != o->identity.inode || lo >= hi)
			continue;
		if (shows(m, n, lo - o->file_offset, hi - o->file_offset))
			continue;
		snprintf(
			why, 256,
			"process %d does not map all of block %.96s, which it was told of: is the back-end another "
			"process than the one that made its socket, or in another pid namespace?",
			(int)q->copy->pid, o->name);
		return -ENOENT;
	}
	return 0;
}

static int look(struct inquiry *q)
{
	char *why = q->copy->problem;

	q->n_found = 0;
	for (unsigned i = 0; i < q->n_known; i++) {
		struct mapping *first = q->found + q->n_found;
		struct mapping of_block[SHARER_MAPPINGS];
		int n = prove_find(q->copy->pid, &q->known[i], 1, of_block, why), ret;

		if (n < 0)
			return n;
		if (q->n_found + (unsigned)n > SHARER_MAPPINGS) {
			snprintf(why, 256, "more than %d mappings", SHARER_MAPPINGS);
			return -ENOSPC;
		}
		memcpy(first, of_block, (unsigned)n * sizeof(*first));
		ret = check_told(q, q->known[i].offer, first, (unsigned)n, why);
		if (ret < 0)
			return ret;
		q->n_found += (unsigned)n;
	}
	return 0;
}

static int register_all(struct inquiry *q)
{
	int ret = prove_found(q->copy, q->known, q->n_known, q->copy->problem);

	if (ret == 0)
		ret = look(q);
	if (ret < 0)
		return ret;
	/* The kernel may have joined neighbours that are registered alike now, nothing else. */
	for (unsigned i = 0; i < q->n_found; i++) {
		struct mapping *m = &q->found[i];
		struct remap r;

		if (!remap_compare(&r, m, 1, q->expected, q->n_expected) || r.n_gone) {
			g_strlcpy(q->copy->problem, "its mappings change while they are looked at",
				  sizeof(q->copy->problem));
			return -EAGAIN;
		}
	}
	return 0;
}

static void work(void *job)
{
	struct inquiry *q = job;

	/* What waits here for its lock can be interrupted; what follows can not. */
	(void)maps_wait(q->copy->pid);
	q->ret = q->registers ? register_all(q) : look(q);
	close_fd(&q->copy->uffd);
}

static void dispose(void *job)
{
	struct inquiry *q = job;

	client_free(q->copy);
	g_free(q);
}

/* --- what follows ----------------------------------------------------------------------------- */

static struct door_ward *find(const struct door *d, uint32_t id)
{
	for (unsigned i = 0; i < d->wards->len; i++) {
		struct door_ward *w = g_ptr_array_index(d->wards, i);

		if (w->id == id)
			return w;
	}
	return NULL;
}

/* Who is told may let go of the ward: nothing is done with it behind this. */
static void answer(struct door_ward *w, const char *wrong)
{
	if (w->step == STEP_NONE)
		return;
	w->step = STEP_NONE;
	if (wrong && wrong != w->problem)
		g_strlcpy(w->problem, wrong, sizeof(w->problem));
	w->ops->proved(w->ctx, wrong ? w->problem : NULL);
}

static void post(struct door *d, const struct client *c, enum message_kind kind,
		 const struct mapping *m)
{
	struct message map = { .kind = kind, .map = { .id = c->id, .mapping = *m } };

	faultloop_post(d->loop, &map);
}

/* Of one sharer in the process that the fault thread knows: what is not there any more. */
static void forget_gone(struct door *d, struct client *c, const struct mapping *found, unsigned n)
{
	struct remap r;

	(void)remap_compare(&r, c->proven, c->n_proven, found, n);
	for (unsigned i = 0; i < r.n_gone; i++) {
		for (unsigned k = c->n_proven; k-- > 0;)
			if (c->proven[k].address == r.gone[i].address)
				c->proven[k] = c->proven[--c->n_proven];
		door_put(d, c);
		post(d, c, MESSAGE_UNMAP, &r.gone[i]);
		d->unmaps_posted++;
	}
}

static void looked(struct door_ward *w, struct client *c, const struct inquiry *q)
{
	struct door *d = w->door;
	uint64_t posted = d->unmaps_posted;

	memcpy(w->found, q->found, q->n_found * sizeof(w->found[0]));
	w->n_found = q->n_found;
	for (unsigned i = 0; i < d->clients->len; i++) {
		struct client *other = g_ptr_array_index(d->clients, i);

		/*
		 * A main sharer's mappings are of blocks that may be private, and never change
		 * under a back-end.
		 */
		if (other->pid == c->pid && !other->main && other->state == CLIENT_JOINED)
			forget_gone(d, other, q->found, q->n_found);
	}
	w->after = d->unmaps_posted;
	w->step = STEP_FORGETTING;
	if (posted != d->unmaps_posted)
		d->ops.changed(d->ops.ctx);
}

/* All of it is registered and verified: the rest of the daemon is told of what is new. */
static int enter(struct door *d, struct client *c, const struct inquiry *q)
{
	struct remap r;

	if (c->state != CLIENT_JOINED) {
		memcpy(c->proven, q->copy->proven, sizeof(c->proven));
		c->n_proven = q->copy->n_proven;
		return 0;
	}
	if (!remap_compare(&r, c->proven, c->n_proven, q->copy->proven, q->copy->n_proven))
		return -ENOSPC;
	for (unsigned i = 0; i < r.n_added; i++)
		c->proven[c->n_proven++] = r.added[i];
	door_put(d, c);
	for (unsigned i = 0; i < r.n_added; i++)
		post(d, c, MESSAGE_MAP, &r.added[i]);
	return 0;
}

static void proven(struct door_ward *w, struct client *c, const struct inquiry *q)
{
	int ret = enter(w->door, c, q);

	c->registered = true;
	c->changing = c->told_since = false;
	w->door->epoch++;
	if (c->state == CLIENT_PROVING)
		c->state = CLIENT_READY;
	door_put(w->door, c);
	door_orphans_suspect(w->door, c->pid);
	answer(w, ret < 0 ? "more mappings than there is room for" : NULL);
}

static void fail(struct door_ward *w, struct client *c, const char *why)
{
	c->changing = false;
	if (c->state == CLIENT_PROVING || c->state == CLIENT_READY)
		door_refuse(w->door, c, why);
	answer(w, why);
}

static void on_done(void *ctx, void *job)
{
	struct inquiry *q = job;
	struct door *d = ctx;
	struct client *c = door_find_client(d, q->id);
	struct door_ward *w = find(d, q->id);
	bool late;

	if (!c)
		return;
	late = c->overdue;
	c->asked = c->overdue = false;
	d->epoch++;
	if (w && !late && q->ret < 0)
		fail(w, c, q->copy->problem);
	else if (w && !late && w->step == STEP_LOOKING)
		looked(w, c, q);
	else if (w && !late && w->step == STEP_PROVING)
		proven(w, c, q);
	door_wards_continue(d);
	d->ops.changed(d->ops.ctx);
}

static void on_overdue(void *ctx, void *job)
{
	const struct inquiry *q = job;
	struct door *d = ctx;
	struct client *c = door_find_client(d, q->id);
	struct door_ward *w = find(d, q->id);
	char why[256];

	if (!c)
		return;
	c->overdue = true;
	snprintf(
		why, sizeof(why),
		"process %d does not let its mappings be seen: no answer of /proc/%d/maps in %u s; something "
		"keeps its address space locked",
		(int)c->pid, (int)c->pid, prover_deadline(d->prover));
	if (w)
		fail(w, c, why);
	d->ops.changed(d->ops.ctx);
}

static void ask(struct door_ward *w, struct client *c, bool registers)
{
	static const struct prover_ops ops = { work, on_done, on_overdue, dispose };
	struct inquiry *q = g_new0(struct inquiry, 1);
	struct door *d = w->door;

	q->registers = registers;
	q->id = c->id;
	q->copy = client_copy(c);
	door_note_elsewhere(d, c, q->copy);
	q->n_told = w->n_told;
	memcpy(q->told, w->told, sizeof(q->told));
	q->n_expected = w->n_found;
	memcpy(q->expected, w->found, sizeof(q->expected));
	q->n_known = door_copy_known_blocks(d, q->known, q->offer);
	w->step = registers ? STEP_PROVING : STEP_LOOKING;
	c->asked = true;
	if (prover_ask(d->prover, &ops, q, c->pid) == 0)
		return;
	c->asked = false;
	fail(w, c, "its address space is locked, or those of too many are");
}

/* --- one thing at a time in one process ------------------------------------------------------- */

/* Who looks and is overdue hangs, and changes nothing any more. */
static bool is_busy(const struct client *c)
{
	return c->asked && !c->overdue;
}

static bool is_looked_at(const struct door *d, pid_t pid)
{
	for (unsigned i = 0; i < d->clients->len; i++) {
		const struct client *c = g_ptr_array_index(d->clients, i);

		if (c->pid == pid && is_busy(c))
			return true;
	}
	return false;
}

/**
 * door_ward_may_change - may mappings of this process change now?
 */
bool door_ward_may_change(const struct door *d, pid_t pid)
{
	for (unsigned i = 0; i < d->clients->len; i++) {
		const struct client *c = g_ptr_array_index(d->clients, i);

		if (c->pid == pid && c->changing)
			return false;
	}
	return !is_looked_at(d, pid);
}

/**
 * door_ward_changing - they do, from now on, or not any more
 */
void door_ward_changing(struct door_ward *w, bool changing)
{
	struct client *c = door_find_client(w->door, w->id);

	if (!c)
		return;
	if (c->changing && !changing)
		w->door->ops.changed(w->door->ops.ctx);
	c->changing = changing;
	c->told_since |= changing;
	door_put(w->door, c);
}

/**
 * door_note_elsewhere - what other sharers of the same process have registered
 */
void door_note_elsewhere(const struct door *d, const struct client *c, struct client *copy)
{
	copy->n_elsewhere = 0;
	for (unsigned i = 0; i < d->clients->len; i++) {
		const struct client *other = g_ptr_array_index(d->clients, i);

		if (other == c || other->pid != c->pid || other->state == CLIENT_ENDED)
			continue;
		for (unsigned k = 0; k < other->n_proven && copy->n_elsewhere < SHARER_MAPPINGS;
		     k++)
			copy->elsewhere[copy->n_elsewhere++] = other->proven[k];
	}
}

/* --- for the door ----------------------------------------------------------------------------- */

static const char *end_of(const struct client *c)
{
	if (!c || c->state == CLIENT_ENDED)
		return "its process ended";
	return c->state == CLIENT_REFUSED || c->told & TOLD_DISABLED ? c->problem : NULL;
}

static void go_on(struct door_ward *w)
{
	struct client *c = door_find_client(w->door, w->id);
	const char *end = end_of(c);

	/* Either may be the end of the ward, too. */
	if (end && w->step != STEP_NONE) {
		answer(w, end);
	} else if (end && !w->ended) {
		w->ended = true;
		g_strlcpy(w->problem, end, sizeof(w->problem));
		w->ops->ended(w->ctx, w->problem);
	} else if (end) {
		return;
	} else if (w->step == STEP_ASKED && !is_looked_at(w->door, c->pid)) {
		ask(w, c, false);
	} else if (w->step == STEP_FORGETTING && w->door->unmaps_seen >= w->after) {
		ask(w, c, true);
	}
}

/**
 * door_wards_continue - do what wards wait for
 */
void door_wards_continue(struct door *d)
{
	for (unsigned i = 0; i < d->wards->len; i++)
		go_on(g_ptr_array_index(d->wards, i));
	door_orphans_continue(d);
}

/* --- for who speaks for them ------------------------------------------------------------------ */

static unsigned count(const struct door *d)
{
	unsigned n = 0;

	for (unsigned i = 0; i < d->clients->len; i++) {
		const struct client *c = g_ptr_array_index(d->clients, i);

		n += c->state != CLIENT_NEW && c->state != CLIENT_ENDED;
	}
	return n;
}

/**
 * door_ward_new - a process came whose sharer we speak for
 * @about: its userfaultfd is owned from here on, in any case
 * @ops, @ctx: must outlive it
 *
 * Return: NULL with *why when it cannot be a sharer.
 */
struct door_ward *door_ward_new(struct door *d, const struct door_ward_about *about,
				const struct door_ward_ops *ops, void *ctx, const char **why)
{
	cleanup_fd int owned = about->uffd;
	bool was_blocking = false;
	enum uffd_fitness fit = uffd_probe(owned, false, &was_blocking);
	struct door_ward *w;
	struct client *c;

	*why = "too many sharers (--max-sharers)";
	if (count(d) >= d->max_sharers)
		return NULL;
	*why = uffd_fitness_text(fit);
	if (fit != UFFD_FIT)
		return NULL;
	*why = "its userfaultfd asks for EVENT_REMOVE, EVENT_REMAP or EVENT_UNMAP, which is not served for a vhost-user back-end";
	if (uffd_reports_gone(owned))
		return NULL;
	c = door_add_peer(d, about->pid, -1)->client;
	c->uffd = steal_fd(&owned);
	c->policy = about->policy;
	c->unaware = c->ward = true;
	c->state = CLIENT_PROVING;
	g_strlcpy(c->name, about->name, sizeof(c->name));
	door_keep_uffd(d, c);
	door_put(d, c);
	w = g_new0(struct door_ward, 1);
	w->door = d;
	w->id = c->id;
	w->ops = ops;
	w->ctx = ctx;
	g_ptr_array_add(d->wards, w);
	door_orphans_suspect(d, c->pid);
	return w;
}

/**
 * door_ward_free - nobody speaks for it any more; NULL is fine
 */
void door_ward_free(struct door_ward *w)
{
	struct client *c = w ? door_find_client(w->door, w->id) : NULL;

	if (!w)
		return;
	door_ward_changing(w, false);
	g_ptr_array_remove(w->door->wards, w);
	if (c && c->state != CLIENT_ENDED)
		door_orphan_begin(w->door, c);
	g_free(w);
}

/**
 * door_ward_prove - have all that it maps registered and verified
 * @told: what it must map, as far as it is memory that is served; at most 64
 *
 * The answer comes through the main loop.
 */
void door_ward_prove(struct door_ward *w, const struct door_region *told, unsigned n)
{
	w->n_told = n < WARD_REGIONS ? n : WARD_REGIONS;
	memcpy(w->told, told, w->n_told * sizeof(*told));
	w->step = STEP_ASKED;
	go_on(w);
}

/**
 * door_ward_disable - nobody talks to it any more
 *
 * With the policy `ignore' its threads go on being served, so that it can end what it was doing;
 * else they sleep.  Its userfaultfd stays open in any case (O11).
 */
void door_ward_disable(struct door_ward *w, const char *reason)
{
	struct client *c = door_find_client(w->door, w->id);
	struct message m = { .kind = MESSAGE_GONE };

	if (!c || c->policy == REGMSG_POLICY_IGNORE)
		return;
	if (c->state == CLIENT_READY || c->state == CLIENT_PROVING) {
		c->joining = true; /* so that its policy is asked */
		door_refuse(w->door, c, reason);
	} else if (c->state == CLIENT_JOINED) {
		m.gone.id = c->id;
		m.gone.how = SHARER_DISABLED;
		m.gone.error = EIO;
		g_strlcpy(m.gone.reason, reason, sizeof(m.gone.reason));
		faultloop_post(w->door->loop, &m);
	}
	w->door->ops.changed(w->door->ops.ctx);
}

/**
 * door_ward_id - how others call it; 0 when it has ended
 */
uint32_t door_ward_id(const struct door_ward *w)
{
	return door_find_client(w->door, w->id) ? w->id : 0;
}
