/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Mappings that come and go while the session is on, of programs that are unaware of us.
 *
 * Such a program declares nothing.  What it maps of the shared blocks is found in /proc, when faults
 * begin to be served and then each time it says MAPPED, which something that was loaded into it says
 * before the program gets the address.  So the answer means: whoever touches this now waits for its
 * pages.  Where that cannot be had the answer is an error, and the mapping is undone before anybody
 * has seen it.
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

/* What becomes of a mapping, when nothing is wrong with it. */
enum { OTHERS = 0, SERVED = 1 };

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
			out[n++] = (struct prove_block){ .offer = &d->matched[i].offer, .number = i };
	for (unsigned i = 0; !d->is_matched && i < d->clients->len; i++) {
		const struct client *c = g_ptr_array_index(d->clients, i);

		for (unsigned j = 0; c->state != CLIENT_ENDED && j < c->n_offers && n < BLOCK_MAX; j++) {
			bool twice = c->offer[j].private;

			for (unsigned k = 0; k < n && !twice; k++)
				twice = offer_same(out[k].offer, &c->offer[j]);
			/* Before the match a block has no number, and nobody is told of its mappings. */
			if (!twice)
				out[n++] = (struct prove_block){ .offer = &c->offer[j] };
		}
	}
	return n;
}

/**
 * door_maps_nothing - does an unaware client map nothing of the known blocks, now?
 *
 * Then it can be missed, whatever its policy says: it is a child that became another program, or a
 * parent that left the rest to its child.
 */
bool door_maps_nothing(const struct door *d, const struct client *c)
{
	struct mapping found[SHARER_MAPPINGS];
	struct prove_block known[BLOCK_MAX];
	char why[256];

	return c->unaware && !c->main && prove_find(c->pid, known, door_known_blocks(d, known), found, why) == 0;
}

static bool is_known(const struct prove_block *known, unsigned n, const struct regmsg_mapped *m)
{
	for (unsigned i = 0; i < n; i++)
		if (known[i].offer->identity.dev == m->dev && known[i].offer->identity.inode == m->inode)
			return true;
	return false;
}

/* Is what the program said it mapped among what was found?  Else it is not the process that we look at. */
static bool was_found(const struct regmsg_mapped *m, const struct mapping *found, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (found[i].address < m->address + m->length && m->address < found[i].address + found[i].length)
			return true;
	return false;
}

/* Does some part of the claimed mapping show a part of a known block at all? */
static bool shows_some(const struct prove_block *known, unsigned n, const struct regmsg_mapped *m)
{
	for (unsigned i = 0; i < n; i++) {
		const struct offer *o = known[i].offer;

		if (o->identity.dev == m->dev && o->identity.inode == m->inode &&
		    m->file_offset < o->file_offset + o->length && o->file_offset < m->file_offset + m->length)
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

static void post_map(struct door *d, const struct client *c, enum message_kind kind, const struct mapping *m)
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

/* Tell the fault thread to forget what is gone.  True when something was: its answer must be waited for. */
static bool drop_gone(struct door *d, struct client *c, const struct remap *r)
{
	for (unsigned i = 0; i < r->n_gone; i++) {
		post_map(d, c, MESSAGE_UNMAP, &r->gone[i]);
		forget(c, &r->gone[i]);
		d->unmaps_posted++;
	}
	return r->n_gone > 0;
}

/* What it has of shared blocks; private ones have no file to be found by, and stay. */
static unsigned shared_of(const struct door *d, const struct client *c, struct mapping *out)
{
	unsigned n = 0;

	for (unsigned i = 0; i < c->n_proven; i++)
		if (d->matched[c->proven[i].block].kind == BLOCK_SHARED)
			out[n++] = c->proven[i];
	return n;
}

/*
 * A sharer that the fault thread serves.  Everything found is registered once more: it may have been
 * mapped anew in its old place.  0, -EINPROGRESS, or -errno with @why.
 */
static int prove_more(struct door *d, struct client *c, struct mapping *found, unsigned n, char *why)
{
	struct mapping had[SHARER_MAPPINGS];
	struct remap r;
	int ret = 0;

	if (!remap_compare(&r, had, shared_of(d, c, had), found, n)) {
		snprintf(why, 256, "more than %d mappings", SHARER_MAPPINGS);
		return -ENOSPC;
	}
	if (c->main && uses_again(&r)) {
		snprintf(why, 256, "the main sharer mapped another part of its memory where it had one before: that is not possible "
			 "while its memory is moving here");
		return -EBUSY;
	}
	if (!c->main && drop_gone(d, c, &r))
		return -EINPROGRESS;
	for (unsigned i = 0; i < n && ret == 0; i++)
		ret = prove_mapping(c, &found[i], why);
	for (unsigned i = 0; i < r.n_added && ret == 0; i++) {
		ret = prove_mapping(c, &r.added[i], why);
		if (ret == 0 && c->n_proven == SHARER_MAPPINGS)
			ret = -ENOSPC;
		if (ret < 0)
			break;
		c->proven[c->n_proven++] = r.added[i];
		post_map(d, c, MESSAGE_MAP, &r.added[i]);
	}
	return ret;
}

static int prove_note(struct door *d, struct client *c, const struct regmsg_mapped *m, const struct prove_block *known,
		      unsigned n_known, char *why)
{
	struct mapping found[SHARER_MAPPINGS];
	int n = prove_find(c->pid, known, n_known, found, why), ret;

	if (n < 0)
		return n;
	if (shows_some(known, n_known, m) && !was_found(m, found, (unsigned)n)) {
		snprintf(why, 256, "0x%" PRIx64 " is not to be found in /proc/%d/maps: is it another process, or in another pid "
			 "namespace?", m->address, (int)c->pid);
		return -ENOENT;
	}
	if (c->state == CLIENT_JOINED)
		ret = prove_more(d, c, found, (unsigned)n, why);
	else
		ret = prove_found(c, known, n_known, why);
	return ret < 0 ? ret : SERVED;
}

/* SERVED, or OTHERS: none of our business.  -EINPROGRESS: later.  Else -errno with @why (256 bytes). */
static int judge(struct door *d, struct client *c, const struct regmsg_mapped *m, char *why)
{
	struct prove_block known[BLOCK_MAX];
	unsigned n = door_known_blocks(d, known);

	/* All memory is here, and nothing is registered any more; or it is none of ours. */
	if (d->released || !is_known(known, n, m))
		return OTHERS;
	if (c->told & TOLD_FAILED) {
		g_strlcpy(why, "the migration failed: this memory has holes that nobody fills", 256);
		return -ECONNABORTED;
	}
	if (c->state >= CLIENT_REFUSED || c->told & TOLD_DISABLED) {
		snprintf(why, 256, "not served any more%s%.200s", c->problem[0] ? ": " : "", c->problem);
		return -EACCES;
	}
	return prove_note(d, c, m, known, n, why);
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
		g_warning("sharer %s (process %d) may not map 0x%" PRIx64 "+0x%" PRIx64 ": %s", note->client->name,
			  (int)note->client->pid, note->mapped.address, note->mapped.length, why);
}

/* True when it was answered. */
static bool settle(struct door *d, struct door_note *note)
{
	char why[256] = "";
	int ret;

	/* A proof that is out finds this one, too, or began too early to: it is looked for behind it. */
	if (note->client->asked && !d->released)
		return false;
	ret = judge(d, note->client, &note->mapped, why);
	note->after = d->unmaps_posted;
	if (ret == -EINPROGRESS) {
		d->ops.changed(d->ops.ctx);
		return false;
	}
	answer(note, ret, why);
	return true;
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
 * door_mapped_continue - the fault thread has forgotten @unmaps mappings so far: answer who waited for that
 */
void door_mapped_continue(struct door *d, uint64_t unmaps)
{
	unsigned left = 0;

	for (unsigned i = 0; i < d->n_notes; i++) {
		struct door_note note = d->note[i];

		if (unmaps < note.after || !settle(d, &note))
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
