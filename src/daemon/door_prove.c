/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the door has to ask of the address spaces of others, and what follows from the answers:
 * may it be served (at READY, and again when it is handed over), what has it mapped since (MAPPED),
 * has it unmapped everything (at LEAVE, or when it hung up), is it registered no more (at the end),
 * is it in use at all (when nobody speaks for it any more), and does anybody else map the memory.
 *
 * Each is asked by a thread of the prover, about a copy: the thread has the client's data as they
 * were, with a userfaultfd of its own, and never sees the client.  The copy is found its client
 * again by id when the answer comes; if that has ended the answer is dropped.  So nothing that a
 * thread uses can go away under it, and nothing that it finds can hit the wrong one.
 *
 * While a client's proof is out its socket is not read, so requests are handled in the order they
 * were sent, and whoever does not answer for itself keeps only itself waiting.  At the deadline it
 * is refused, alone.  What its thread does or finds afterwards changes nothing but what is known to
 * be registered, which decides how long its userfaultfd is kept (O11).
 *
 * Nothing of this weakens that everybody is proven before anything runs.  A process that does not
 * let us look could map the memory, so while there is one the look for strangers has no answer,
 * which is a blocker with that process's name.
 */
#include "config.h"
#include "daemon/door_parts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/prove.h"
#include "daemon/prove_mapped.h"
#include "daemon/prover.h"
#include "sys/fd.h"
#include "sys/maps.h"

/* --- about a client --------------------------------------------------------------------------- */

struct proof {
	/* never changes */
	enum door_question what;
	uint32_t id;
	/* the thread's, while it works */
	struct client *copy;
	unsigned number[REGISTRY_BLOCKS];
	unsigned n_known;		/* of one that declares nothing: what to look for */
	struct prove_block known[BLOCK_MAX];
	struct offer offer[BLOCK_MAX];
	struct regmsg_mapped mapped;	/* of a MAPPED */
	struct remap remap;
	_Atomic bool given_up;		/* nobody waits for the answer any more */
	int ret;
};

/* A process whose first thread has ended shows nothing of what the others have. */
static int maps_nothing(struct client *c, const struct proof *p)
{
	struct mapping found[SHARER_MAPPINGS];
	int n = prove_find(c->pid, p->known, p->n_known, found, c->problem);

	return n == 0 && maps_wait(c->pid) == 0 ? 0 : -EBUSY;
}

/*
 * The mapping is undone when its MAPPED has had no answer, and then something else may lie there.
 */
static int is_mapped(struct client *c, struct proof *p)
{
	const struct prove_note note = { p->mapped, p->known, p->n_known };

	return p->given_up ? -ETIMEDOUT : prove_mapped(c, &note, &p->remap);
}

static void work(void *job)
{
	struct proof *p = job;
	struct client *c = p->copy;

	/* What waits here for its lock can be interrupted; what follows can not. */
	(void)maps_wait(c->pid);
	if (p->what == DOOR_MAY_LEAVE)
		p->ret = prove_unmapped(c) ? 0 : -EBUSY;
	else if (p->what == DOOR_IS_RELEASED)
		p->ret = prove_release(c) ? 0 : -EBUSY;
	else if (p->what == DOOR_MAPS_NOTHING)
		p->ret = maps_nothing(c, p);
	else if (p->what == DOOR_IS_DESERTED)
		p->ret = prove_deserted(c, p->known, p->n_known) ? 0 : -EBUSY;
	else if (p->what == DOOR_MAY_MAP)
		p->ret = is_mapped(c, p);
	else if (c->unaware && !c->main)
		p->ret = prove_found(c, p->known, p->n_known, c->problem);
	else
		p->ret = prove_client(c, p->number, c->problem);
	/* Here, not where the job is disposed of: closing the last one takes that lock, too. */
	close_fd(&c->uffd);
}

static void dispose(void *job)
{
	struct proof *p = job;

	client_free(p->copy);
	g_free(p);
}

/**
 * door_find_client - by the registry's id; NULL: it has ended and is forgotten
 */
struct client *door_find_client(const struct door *d, uint32_t id)
{
	for (unsigned i = 0; i < d->clients->len; i++) {
		struct client *c = g_ptr_array_index(d->clients, i);

		if (c->id == id)
			return c;
	}
	return NULL;
}

/**
 * door_refuse - it cannot be served
 * @why: may be c->problem
 */
void door_refuse(struct door *d, struct client *c, const char *why)
{
	if (why != c->problem)
		g_strlcpy(c->problem, why, sizeof(c->problem));
	c->state = CLIENT_REFUSED;
	door_put(d, c);
	d->epoch++;
	g_warning("sharer %s (process %d) cannot be served: %s", c->name, (int)c->pid, c->problem);
}

/* The first proof: declared and registered, it waits for the session. */
static void proven(struct door *d, struct client *c, int ret, const struct proof *p)
{
	/* Again: several may have said hello before one of them was ready. */
	const char *taken = ret == 0 ? door_place_taken(d, c->name, c->main) : NULL;

	(void)p;
	if (taken || ret < 0)
		door_refuse(d, c, taken ? taken : c->problem);
	else
		c->state = CLIENT_READY;
	door_answer(d, c, taken ? -EEXIST : ret, c->problem);
}

/* The second: handed over, unless the end was first. */
static void joined(struct door *d, struct client *c, int ret, const struct proof *p)
{
	(void)p;
	if (ret < 0)
		door_refuse(d, c, c->problem);
	else if (!d->released)
		door_hand_over(d, c);
	door_answer(d, c, 0, "");
}

static void left(struct door *d, struct client *c, int ret, const struct proof *p)
{
	(void)p;
	/* First: who was answered that it has left must not be one that hung up to a successor. */
	if (ret == 0)
		door_left(d, c);
	door_answer(d, c, ret, "its blocks are still mapped: munmap() them first");
}

/* Nobody asked for it, but what was said meanwhile, such as LEAVE, is read now. */
static void released(struct door *d, struct client *c, int ret, const struct proof *p)
{
	(void)p;
	if (ret < 0)
		g_warning("sharer %s: some of its memory is still registered", c->name);
	c->released = true;
	door_put(d, c);
	door_answer(d, c, 0, "");
}

/* The copy of the proof is not ours to look at when it took too long. */
static void mapped(struct door *d, struct client *c, int ret, const struct proof *p)
{
	if (p->given_up)
		door_mapped_answered(
			d, c, NULL, ret,
			"its address space is locked: it could not be looked at in time");
	else
		door_mapped_answered(d, c, &p->remap, ret, p->copy->problem);
	door_answer(d, c, 0, "");
}

static void lingered(struct door *d, struct client *c, int ret, const struct proof *p)
{
	(void)p;
	door_lingered(d, c, ret == 0);
}

static void deserted(struct door *d, struct client *c, int ret, const struct proof *p)
{
	(void)p;
	door_orphan_looked(d, c, ret == 0);
}

/* What follows from an answer; @ret -ETIMEDOUT: there is none yet. */
static void (*const conclusions[])(struct door *d, struct client *c, int ret,
				   const struct proof *p) = {
	[DOOR_IS_PROVEN] = proven,     [DOOR_MAY_JOIN] = joined, [DOOR_MAY_LEAVE] = left,
	[DOOR_IS_RELEASED] = released, [DOOR_MAY_MAP] = mapped,	 [DOOR_MAPS_NOTHING] = lingered,
	[DOOR_IS_DESERTED] = deserted,
};

/* Is everything that it maps registered by the answer to this question? */
static bool fills_proven(const struct client *c, enum door_question what)
{
	return what == DOOR_IS_PROVEN || what == DOOR_MAY_JOIN ||
	       (what == DOOR_MAY_MAP && c->state != CLIENT_JOINED);
}

/* What the thread found, which is true whether or not it came in time. */
static void learn(struct client *c, const struct proof *p)
{
	memcpy(c->proven, p->copy->proven, sizeof(c->proven));
	c->n_proven = p->copy->n_proven;
	c->registered = p->copy->registered;
	c->kernel_waits |= p->copy->kernel_waits;
	if (p->ret < 0 && c->state != CLIENT_REFUSED && p->what != DOOR_MAY_MAP)
		g_strlcpy(c->problem, p->copy->problem, sizeof(c->problem));
}

static void on_done(void *ctx, void *job)
{
	struct proof *p = job;
	struct door *d = ctx;
	struct client *c = door_find_client(d, p->id);
	bool late;

	if (!c)
		return;
	late = c->overdue;
	c->asked = c->overdue = false;
	if (fills_proven(c, p->what)) {
		learn(c, p);
		door_put(d, c);
	}
	/*
	 * Who is registered now was not when the last look began; one that maps more was, and
	 * programs map all the time.
	 */
	if (p->what != DOOR_IS_DESERTED && (p->what != DOOR_MAY_MAP || !c->registered))
		d->epoch++;
	/* What was registered too late is no less registered. */
	if (late && p->what == DOOR_MAY_MAP)
		door_mapped_answered(d, c, &p->remap, -ETIMEDOUT, "");
	if (late)
		door_reconsider(d, c);
	else
		conclusions[p->what](d, c, p->ret, p);
	d->ops.changed(d->ops.ctx);
}

static void on_overdue(void *ctx, void *job)
{
	struct proof *p = job;
	struct door *d = ctx;
	struct client *c = door_find_client(d, p->id);
	char why[256];

	p->given_up = true;
	if (!c)
		return;
	c->overdue = true;
	snprintf(why, sizeof(why),
		 "process %d does not let its mappings be seen: no answer of /proc/%d/smaps in "
		 "%u s; something keeps its address space locked (see /proc/%d/task/*/stack)",
		 (int)c->pid, (int)c->pid, prover_deadline(d->prover), (int)c->pid);
	if (p->what == DOOR_IS_PROVEN || p->what == DOOR_MAY_JOIN)
		g_strlcpy(c->problem, why, sizeof(c->problem));
	if (p->what == DOOR_MAY_LEAVE)
		door_answer(d, c, -ETIMEDOUT, why);
	else
		conclusions[p->what](d, c, -ETIMEDOUT, p);
	d->ops.changed(d->ops.ctx);
}

static struct proof *proof_new(const struct door *d, const struct client *c,
			       enum door_question what, const unsigned *number)
{
	struct proof *p = g_new0(struct proof, 1);

	p->what = what;
	p->id = c->id;
	p->copy = client_copy(c);
	door_note_elsewhere(d, c, p->copy);
	if (what == DOOR_IS_DESERTED)
		door_orphan_note(d, c, p->copy);
	if (number)
		memcpy(p->number, number, c->n_offers * sizeof(*number));
	p->n_known = door_copy_known_blocks(d, p->known, p->offer);
	return p;
}

/* The question is the prover's from here on. */
static int ask(struct door *d, struct client *c, struct proof *p)
{
	static const struct prover_ops ops = { work, on_done, on_overdue, dispose };
	int ret;

	if (c->asked) {
		g_strlcpy(c->problem, "an earlier question about its mappings has no answer yet",
			  sizeof(c->problem));
		dispose(p);
		return -EBUSY;
	}
	ret = prover_ask(d->prover, &ops, p, c->pid);
	if (ret < 0)
		snprintf(c->problem, sizeof(c->problem), "%s",
			 ret == -EBUSY ? "its address space is locked, and was when it "
					 "was looked at before" :
					 "too many sharers keep their address spaces locked");
	c->asked = ret == 0;
	if (ret == 0)
		door_wait(d, c);
	return ret;
}

/**
 * door_ask - ask a question about a client; what follows from the answer is done when it comes
 * @number: for a proof, the engine's number of each of its offers
 *
 * Return: 0; -EBUSY or -EAGAIN with c->problem: it cannot be asked now.
 */
int door_ask(struct door *d, struct client *c, enum door_question what, const unsigned *number)
{
	return ask(d, c, proof_new(d, c, what, number));
}

/**
 * door_ask_mapped - it says that it mapped something: have that registered and verified
 *
 * Return: as door_ask(); then door_mapped_answered() is called.
 */
int door_ask_mapped(struct door *d, struct client *c, const struct regmsg_mapped *m)
{
	struct proof *p = proof_new(d, c, DOOR_MAY_MAP, NULL);

	p->mapped = *m;
	return ask(d, c, p);
}

/* --- about everybody else --------------------------------------------------------------------- */

struct look {
	_Atomic pid_t at;		/* whose mappings are being read */
	/* never changes */
	uint64_t epoch;
	unsigned n;
	struct offer offer[BLOCK_MAX];	/* borrowed descriptors, not used */
	/* the thread's, while it works */
	int users[BLOCK_MAX];		/* number, or -errno */
	pid_t *pid[BLOCK_MAX];
};

static void look_work(void *job)
{
	struct look *l = job;
	unsigned hidden = 0;

	for (unsigned i = 0; i < l->n; i++)
		l->users[i] = maps_users(l->offer[i].identity.dev, l->offer[i].identity.inode,
					 &l->pid[i], &hidden, &l->at);
}

static void look_dispose(void *job)
{
	struct look *l = job;

	for (unsigned i = 0; i < l->n; i++)
		free(l->pid[i]);
	g_free(l);
}

static void look_done(void *ctx, void *job)
{
	const struct look *l = job;
	struct door *d = ctx;

	d->looking = false;
	d->look_epoch = l->epoch;
	d->strangers = 0;
	d->looked = true;
	for (unsigned i = 0; i < l->n && d->strangers == 0; i++)
		d->strangers = prove_strangers(&l->offer[i], d->clients, l->pid[i], l->users[i],
					       d->stranger);
	d->ops.changed(d->ops.ctx);
}

static void look_overdue(void *ctx, void *job)
{
	struct look *l = job;
	struct door *d = ctx;
	pid_t at = l->at;
	char name[32] = "?";

	maps_name(at, name, sizeof(name));
	snprintf(d->stranger, sizeof(d->stranger),
		 "process %d (%s) does not let its mappings be seen: no answer of /proc/%d/maps "
		 "for %u s; it may map the memory without being served: end it",
		 (int)at, name, (int)at, prover_deadline(d->prover));
	d->ops.changed(d->ops.ctx);
}

static void look(struct door *d)
{
	static const struct prover_ops ops = { look_work, look_done, look_overdue, look_dispose };
	struct look *l = g_new0(struct look, 1);

	l->epoch = d->epoch;
	for (unsigned i = 0; i < d->n_matched; i++)
		if (d->matched[i].kind == BLOCK_SHARED)
			l->offer[l->n++] = d->matched[i].offer;
	d->looking = prover_ask(d->prover, &ops, l, 0) == 0;
}

/**
 * door_strangers - does anybody unproven map the memory of a shared block?
 * @why: 256 bytes
 *
 * An answer counts once, and only if nobody came, was proven or was refused since the look for it
 * began.
 *
 * Return: 1 with @why: somebody does, or may; 2 with @why: it is not known yet; 0 no; -errno when
 * /proc cannot be read.
 */
int door_strangers(struct door *d, char *why)
{
	bool valid = d->looked && d->look_epoch == d->epoch;

	d->looked = false;
	if (valid && d->strangers == 0)
		d->stranger[0] = '\0';
	if (!valid && !d->looking)
		look(d);
	g_strlcpy(why, d->stranger[0] ? d->stranger : "looking who maps the memory", 256);
	return valid ? d->strangers : d->stranger[0] ? 1 : 2;
}
