/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Mappings that come and go while the session is on, of programs that are unaware of us.
 *
 * Such a program declares nothing.  What it maps of the shared blocks is found in /proc, when
 * faults begin to be served and then each time it says MAPPED, which something that was loaded into
 * it says before the program gets the address.  So the answer means: whoever touches this now waits
 * for its pages.  Where that cannot be had the answer is an error, and the mapping is undone before
 * anybody has seen it.
 *
 * What went away is noticed at the next MAPPED only, and until then nothing bad can come of it: a
 * COPY or a WAKE to a place that is not mapped, or not with this userfaultfd, finds nothing.  But a
 * place that is used again, for another part of the file, must not be registered while the fault
 * thread still believes the old part to be there: it would put that one's pages into the new
 * place.  So first it forgets, says so (snapshot.unmaps), and only then the rest is done.
 *
 * The bulk thread places through the main sharer's mappings as they were when it started and cannot
 * forget.  A main sharer that uses a place again is refused.
 */
#include "config.h"
#include "daemon/door_parts.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/prove.h"
#include "daemon/remap.h"
#include "sys/fd.h"
#include "sys/fdpass.h"

/*
 * What becomes of a mapping, when nothing is wrong with it; or what has to be done before that is
 * known.
 */
enum { OTHERS = 0, SERVED = 1, LATER = 2, LOOK = 3 };

/**
 * door_known_blocks - the shared blocks to look for in programs that declare nothing
 * @out: BLOCK_MAX of them
 *
 * Those of the source's list, once it was matched; before, all that somebody declared.
 *
 * Return: how many.
 */
unsigned door_known_blocks(const struct door *d, struct prove_block *out)
{
	unsigned n = 0;

	for (unsigned i = 0; d->is_matched && i < d->n_matched; i++)
		if (d->matched[i].kind == BLOCK_SHARED)
			out[n++] = (struct prove_block){ .offer = &d->matched[i].offer,
							 .number = i };
	for (unsigned i = 0; !d->is_matched && i < d->clients->len; i++) {
		const struct client *c = g_ptr_array_index(d->clients, i);

		for (unsigned j = 0; c->state != CLIENT_ENDED && j < c->n_offers && n < BLOCK_MAX;
		     j++) {
			bool twice = c->offer[j].private;

			for (unsigned k = 0; k < n && !twice; k++)
				twice = offer_same(out[k].offer, &c->offer[j]);
			/*
			 * Before the match a block has no number, and nobody is told of its
			 * mappings.
			 */
			if (!twice)
				out[n++] = (struct prove_block){ .offer = &c->offer[j] };
		}
	}
	return n;
}

/**
 * door_copy_known_blocks - the same for a thread of the prover, which must not look at the door
 * @offer: BLOCK_MAX, what @out points to
 */
unsigned door_copy_known_blocks(const struct door *d, struct prove_block *out, struct offer *offer)
{
	unsigned n = door_known_blocks(d, out);

	for (unsigned i = 0; i < n; i++) {
		offer[i] = *out[i].offer;
		out[i].offer = &offer[i];
	}
	return n;
}

static bool is_known(const struct prove_block *known, unsigned n, const struct regmsg_mapped *m)
{
	for (unsigned i = 0; i < n; i++)
		if (known[i].offer->identity.dev == m->dev &&
		    known[i].offer->identity.inode == m->inode)
			return true;
	return false;
}

static void post_map(struct door *d, const struct client *c, enum message_kind kind,
		     const struct mapping *m)
{
	struct message map = { .kind = kind, .map = { .id = c->id, .mapping = *m } };

	faultloop_post(d->loop, &map);
}

static void forget(struct client *c, const struct mapping *m)
{
	for (unsigned i = 0; i < c->n_proven; i++)
		if (c->proven[i].address == m->address) {
			c->proven[i] = c->proven[--c->n_proven];
			return;
		}
}

/* Tell the fault thread to forget what is gone. */
static void drop_gone(struct door *d, struct client *c, const struct remap *r)
{
	for (unsigned i = 0; i < r->n_gone; i++)
		forget(c, &r->gone[i]);
	door_put(d, c);
	for (unsigned i = 0; i < r->n_gone; i++)
		post_map(d, c, MESSAGE_UNMAP, &r->gone[i]);
	d->unmaps_posted += r->n_gone;
}

/* The fault thread learns of what is new. */
static void add_new(struct door *d, struct client *c, const struct remap *r)
{
	unsigned first = c->n_proven;

	for (unsigned i = 0; i < r->n_added && c->n_proven < SHARER_MAPPINGS; i++)
		c->proven[c->n_proven++] = r->added[i];
	door_put(d, c);
	for (unsigned i = first; i < c->n_proven && c->state == CLIENT_JOINED; i++)
		post_map(d, c, MESSAGE_MAP, &c->proven[i]);
}

/*
 * What is known without looking: OTHERS, none of our business; LATER; LOOK; or -errno with @why
 * (256 bytes).
 */
static int judge(const struct door *d, const struct client *c, const struct regmsg_mapped *m,
		 char *why)
{
	struct prove_block known[BLOCK_MAX];
	bool served = c->state == CLIENT_READY || c->state == CLIENT_JOINED;

	/*
	 * All memory is here.  What was registered meanwhile is not any more as soon as that is
	 * undone.
	 */
	if (d->released)
		return served && !c->released ? LATER : OTHERS;
	/*
	 * A proof that is out finds this one, too, or began too early to: it is looked for behind
	 * it.
	 */
	if (c->asked && !c->overdue)
		return LATER;
	if (!is_known(known, door_known_blocks(d, known), m))
		return OTHERS;
	/*
	 * Whatever it has is found when it is declared, and proven then; who declares it may need
	 * its answers until then.
	 */
	if (c->main && c->state == CLIENT_DECLARING)
		return OTHERS;
	if (c->told & TOLD_FAILED) {
		g_strlcpy(why, "the migration failed: this memory has holes that nobody fills",
			  256);
		return -ECONNABORTED;
	}
	if (c->state >= CLIENT_REFUSED || c->told & TOLD_DISABLED) {
		snprintf(why, 256, "not served any more%s%.200s", c->problem[0] ? ": " : "",
			 c->problem);
		return -EACCES;
	}
	return LOOK;
}

static void answer(struct door_note *note, int ret, const char *why)
{
	uint32_t serial = note->mapped.head.serial;
	union regmsg m;
	size_t len;

	if (ret == SERVED)
		len = regmsg_init(&m, REGMSG_SERVED, serial);
	else
		len = regmsg_text(&m, REGMSG_RESULT, serial, -ret, "%s", ret < 0 ? why : "");
	/* Who closed its end, or brought something that is no socket, has no answer. */
	(void)fdpass_send(note->reply, &m, len, NULL, 0);
	close_fd(&note->reply);
	if (ret < 0)
		g_warning("sharer %s (process %d) may not map 0x%" PRIx64 "+0x%" PRIx64 ": %s",
			  note->client->name, (int)note->client->pid, note->mapped.address,
			  note->mapped.length, why);
}

/* True when it was answered. */
static bool settle(struct door *d, struct door_note *note)
{
	struct client *c = note->client;
	char why[256] = "";
	int ret = judge(d, c, &note->mapped, why);

	if (ret == LATER)
		return false;
	if (ret == LOOK) {
		ret = door_ask_mapped(d, c, &note->mapped);
		note->asked = ret == 0;
		g_strlcpy(why, c->problem, sizeof(why));
	}
	if (note->asked)
		return false;
	answer(note, ret, why);
	return true;
}

static struct door_note *find_asked(struct door *d, const struct client *c)
{
	for (unsigned i = 0; i < d->n_notes; i++)
		if (d->note[i].client == c && d->note[i].asked)
			return &d->note[i];
	return NULL;
}

/**
 * door_mapped_answered - a look at what a client has mapped is over, or took too long
 * @r: what came of it, for one that the fault thread serves; NULL: too long
 * @why: 256 bytes
 *
 * What was registered is told to the fault thread in any case.
 */
void door_mapped_answered(struct door *d, struct client *c, const struct remap *r, int ret,
			  const char *why)
{
	struct door_note *note = find_asked(d, c);

	if (r)
		add_new(d, c, r);
	if (!note)
		return;
	note->asked = false;
	if (ret == -EINPROGRESS) {
		drop_gone(d, c, r);
		note->after = d->unmaps_posted;
		return;
	}
	answer(note, ret < 0 ? ret : SERVED, why);
	*note = d->note[--d->n_notes];
}

/**
 * door_mapped - a program that is unaware of us mapped a file, and waits
 * @reply: where the answer goes; owned from here on
 */
void door_mapped(struct door *d, struct client *c, const struct regmsg_mapped *m, int reply)
{
	struct door_note note = { .client = c, .mapped = *m, .reply = reply };

	if (d->n_notes == DOOR_NOTES)
		answer(&note, -EBUSY, "too many mappings are being looked at");
	else if (!settle(d, &note))
		d->note[d->n_notes++] = note;
}

/**
 * door_mapped_continue - the fault thread has forgotten @unmaps mappings so far: answer who waited
 * for that
 */
void door_mapped_continue(struct door *d, uint64_t unmaps)
{
	unsigned left = 0;

	for (unsigned i = 0; i < d->n_notes; i++) {
		struct door_note note = d->note[i];

		if (note.asked || unmaps < note.after || !settle(d, &note))
			d->note[left++] = note;
	}
	d->n_notes = left;
}

/**
 * door_mapped_forget - a client ends: nobody waits for its answers any more
 */
void door_mapped_forget(struct door *d, const struct client *c)
{
	unsigned left = 0;

	for (unsigned i = 0; i < d->n_notes; i++)
		if (d->note[i].client == c)
			close_fd(&d->note[i].reply);
		else
			d->note[left++] = d->note[i];
	d->n_notes = left;
}

/**
 * door_lingered - it hung up, its process lives on, and it was looked at
 * @maps_nothing: nothing of the known blocks.  Then it can be missed, whatever its policy says: it
 *   is a child that became another program, or a parent that left the rest to its child
 *
 * A sharer of policy `ignore' is served on, as nothing but its faults is needed for that.
 * The caller does not use @c any more.
 */
void door_lingered(struct door *d, struct client *c, bool maps_nothing)
{
	struct peer *p = door_peer_of(d, c);

	if (c->state != CLIENT_JOINED)
		return;
	if (maps_nothing) {
		door_end(p, SHARER_LEFT, 0, "hung up, with none of the memory mapped");
		door_maybe_forget(p);
		return;
	}
	if (c->policy == REGMSG_POLICY_IGNORE) {
		g_message("sharer %s closed its registration; it is served on (policy ignore)",
			  c->name);
		return;
	}
	door_end(p, SHARER_DISABLED, ECONNRESET,
		 "closed its registration without leaving; its threads stay blocked");
	door_maybe_forget(p);
}
