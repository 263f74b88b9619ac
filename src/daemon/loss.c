/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * --on-loss=poison, in the fault thread: pages that a lost source still has are given up one by
 * one, when somebody has waited for one for too long while the session was paused.
 *
 * How long is counted from the fault, or from the pause where that came later, so a source that was
 * away for a moment costs no page; and a recovery in between begins it anew.  The engine decides
 * what that is about (engine_loss.c), and this puts the markers where its sharers show the page.
 *
 * A marker is one of an address space, and the page is lost from the first of them on: content that
 * came then would be there for one and not for the other.  So before the first a page that turns
 * out to be there is looked for, in the file and in the page tables, and behind it whatever the
 * kernel does not take now is done later (`marks_due'), as it is for a mapping that comes when
 * pages are lost already.  Whoever touches such a page meanwhile faults, and is told by that.  A
 * session with lost pages does not end before all of it is done: behind the end nobody is asked,
 * and what has no marker would read as zeroes.
 */
#include "config.h"
#include "daemon/faultloop.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/probe.h"
#include "sys/clock.h"

#define AGAIN_NS 1000000

/* What became of markers: some are there, some were there, some could not be set now. */
struct marks {
	bool set, there, later;
};

static void mark(struct faultloop *f, const struct member *m, uint64_t address, uint64_t length,
		 struct marks *is)
{
	uint64_t page = f->placer.page_size;

	while (length) {
		struct uffd_result result = { 0 };
		enum uffd_outcome outcome = uffd_place(f->placer.ops, m->uffd, UFFD_POISON, address,
						       length, NULL, true, &result);
		uint64_t done = result.done;

		f->placer.calls++;
		is->set |= done > 0;
		is->there |= outcome == UFFD_EXISTS;
		if (outcome == UFFD_EXISTS)
			done += page;
		if (outcome == UFFD_GONE || outcome == UFFD_UNMAPPED)
			return;
		if (done == 0) {
			is->later = true;
			return;
		}
		address += done;
		length -= done;
	}
}

/* All addresses at which a sharer shows the page. */
static void mark_member(struct faultloop *f, struct member *m, const struct engine_action *a,
			struct marks *is)
{
	const struct sharer *s = sharer_get(&f->engine.sharers, m->ref);
	const struct block *b = &f->engine.blocks.block[a->block];
	uint64_t offset = block_offset(b, a->page);
	const struct mapping *map;
	unsigned from = 0;

	while (s && (map = sharer_alias(s, a->block, offset, &from)))
		mark(f, m, mapping_address(map, offset), b->page_size, is);
}

/* Is the page there, although nobody placed it?  Of huge pages only our own mapping can tell. */
static bool is_there(struct faultloop *f, const struct engine_action *a)
{
	const struct backing *b = &f->backing[a->block];
	uint64_t offset = block_offset(&f->engine.blocks.block[a->block], a->page);
	struct uffd_result result = { 0 };
	enum uffd_outcome outcome;

	if (b->kind != BLOCK_SHARED)
		return false;
	if (backing_sparse(b))
		return !backing_is_hole(b, offset, b->page_size);
	outcome = uffd_place(f->placer.ops, f->own_uffd, UFFD_CONTINUE,
			     (uint64_t)(uintptr_t)b->map + offset, b->page_size, NULL, false,
			     &result);
	f->placer.calls++;
	return outcome == UFFD_DONE || outcome == UFFD_EXISTS;
}

/* In the one address space that faulted on a page that was lost before. */
static bool answer(struct faultloop *f, struct engine_action *a)
{
	struct member *m = roster_active(&f->roster, a->sharer);
	const struct engine_carrier nobody = { 0 };
	struct marks is = { 0 };

	if (!m)
		return true;
	mark_member(f, m, a, &is);
	if (is.later)
		return false;
	engine_placed(&f->engine, a, 0, is.set || is.there ? PLACED : PLACED_NOWHERE, &nobody,
		      clock_ns());
	return true;
}

/**
 * loss_poison - do a POISON
 *
 * Return: true when it is over, false when it is to be tried again.
 */
bool loss_poison(struct faultloop *f, struct engine_action *a)
{
	const struct engine_carrier nobody = { 0 };
	struct marks is = { 0 };

	f->placer.page_size = f->engine.blocks.block[a->block].page_size;
	if (a->from == PAGE_LOST)
		return answer(f, a);
	is.there = is_there(f, a);
	for (unsigned i = 0; i < f->roster.used && !(is.there && !is.set); i++) {
		struct member *m = &f->roster.member[i];
		struct marks one = { 0 };

		if (m->state != SHARER_ACTIVE)
			continue;
		mark_member(f, m, a, &one);
		m->marks_due |= one.later;
		is.set |= one.set;
		is.there |= one.there;
		is.later |= one.later;
	}
	if (!is.set && !is.there)
		return false;
	PROBE2(lost, a->page, is.set);
	engine_placed(&f->engine, a, is.set, is.set ? PLACED : PLACED_EXISTS, &nobody, clock_ns());
	faultloop_changed(f);
	return true;
}

/* What is lost in a mapping, all of it. */
static void mark_mapping(struct faultloop *f, const struct member *m, const struct mapping *map,
			 struct marks *is)
{
	const struct block *b = &f->engine.blocks.block[map->block];
	uint64_t first = block_page(b, map->offset), end = first + (map->length >> b->page_shift);
	uint64_t page = b->lost ? ledger_find(&f->engine.ledger, first, end, PAGE_LOST) : end;

	f->placer.page_size = b->page_size;
	while (page < end) {
		uint64_t n = ledger_run(&f->engine.ledger, page, end, PAGE_LOST);

		mark(f, m, map->address + ((page - first) << b->page_shift), n << b->page_shift,
		     is);
		page = ledger_find(&f->engine.ledger, page + n, end, PAGE_LOST);
	}
}

static void mark_due(struct faultloop *f)
{
	f->marks_due = false;
	for (unsigned i = 0; i < f->roster.used; i++) {
		struct member *m = &f->roster.member[i];
		const struct sharer *s = sharer_get(&f->engine.sharers, m->ref);
		struct marks is = { 0 };

		if (!m->marks_due || m->state != SHARER_ACTIVE || !s)
			continue;
		for (unsigned n = 0; n < s->n_mappings; n++)
			mark_mapping(f, m, &s->mapping[n], &is);
		m->marks_due = is.later;
		f->marks_due |= is.later;
	}
}

/**
 * loss_mapped - a sharer shows memory that it did not before: what is lost there is so for it, too
 */
void loss_mapped(struct faultloop *f, struct member *m)
{
	if (!faultloop_lost(f))
		return;
	m->marks_due = true;
	f->marks_due = true;
}

/* Does somebody who waits wait for a source that may come back? */
static bool applies(const struct faultloop *f)
{
	return f->options.poison_ns && f->engine.session.state == SESSION_PAUSED &&
	       !f->engine.session.held && !f->ownership_unknown;
}

/* When the first of those who wait now has waited long enough; 0: nobody does. */
static uint64_t due_at(const struct faultloop *f)
{
	uint64_t since = engine_longest(&f->engine);

	if (since && since < f->times.state)
		since = f->times.state;
	return since ? since + f->options.poison_ns : 0;
}

/**
 * loss_turn - once a turn: give up what was waited for too long
 *
 * Who faults later is due later, so the first time that is known stays true until it is over.
 */
void loss_turn(struct faultloop *f)
{
	uint64_t now;

	if (f->marks_due)
		mark_due(f);
	if (!applies(f)) {
		f->loss_due_ns = 0;
		return;
	}
	if (f->loss_due_ns == 0)
		f->loss_due_ns = due_at(f);
	if (f->loss_due_ns == 0)
		return;
	now = clock_ns();
	if (now < f->loss_due_ns)
		return;
	/* What the kernel does not take now is due still, and is tried in a while. */
	while (f->n_pending < FAULTLOOP_PENDING && f->retry_ns == 0 &&
	       engine_poison(&f->engine, now - f->options.poison_ns, ENGINE_RUN, now))
		perform_actions(f);
	f->loss_due_ns = due_at(f);
}

/**
 * loss_wait - when to look again by itself: nanoseconds, -1 when nothing is due
 */
int64_t loss_wait(const struct faultloop *f)
{
	uint64_t now = clock_ns();

	if (f->marks_due)
		return AGAIN_NS;
	if (f->loss_due_ns == 0)
		return -1;
	return f->loss_due_ns > now ? (int64_t)(f->loss_due_ns - now) : AGAIN_NS;
}

/**
 * loss_owes - are there markers to be set?  The session does not end before they are
 */
bool loss_owes(const struct faultloop *f)
{
	return f->marks_due;
}

/**
 * loss_bereft - there is no VM any more that a source could mend
 * @reason: for people
 */
void loss_bereft(struct faultloop *f, const char *reason)
{
	if (faultloop_feed(f, SESSION_HOLD) < 0)
		return;
	f->error = EOWNERDEAD;
	snprintf(f->reason, sizeof(f->reason), "%s; what is here can be saved with `postcopyctl salvage' as long as this daemon stays",
		 reason);
	f->cause_len = strlen(f->reason);
	faultloop_changed(f);
}
