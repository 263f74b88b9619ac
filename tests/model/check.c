/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * After every event: what the engine holds is what the naive map says, and nobody sleeps whom the
 * engine has forgotten.
 */
#include "config.h"

#include "world.h"

#include <stdlib.h>
#include <string.h>

static void check_pages(struct world *w)
{
	for (uint64_t page = 0; page < w->engine->blocks.pages; page++) {
		enum page_state is = ledger_get(&w->engine->ledger, page);

		must(w, is == w->naive.page[page].is, "page %lu is %s, not %s", page,
		     ledger_state_name(is), ledger_state_name(w->naive.page[page].is));
		must(w, is != PAGE_ZERO || !w->naive.page[page].dma,
		     "page %lu is a hole that a device can reach", page);
	}
}

static uint64_t check_block(struct world *w, const struct block *b)
{
	uint64_t count[PAGE_STATES] = { 0 };

	for (uint64_t page = b->first; page < b->first + b->pages; page++) {
		count[w->naive.page[page].counted]++;
		count[PAGE_MISSING] += w->naive.page[page].untold;
		count[PAGE_ZERO] -= w->naive.page[page].untold;
	}
	must(w, b->missing == count[PAGE_MISSING] + count[PAGE_REQUESTED], "%s: %lu missing",
	     b->name, b->missing);
	must(w, b->requested == count[PAGE_REQUESTED], "%s: %lu requested", b->name, b->requested);
	must(w, b->present == count[PAGE_PRESENT], "%s: %lu present", b->name, b->present);
	must(w, b->stored == count[PAGE_STORED], "%s: %lu stored", b->name, b->stored);
	must(w, b->zero == count[PAGE_ZERO], "%s: %lu zero", b->name, b->zero);
	must(w, b->lost == count[PAGE_LOST], "%s: %lu lost", b->name, b->lost);
	must(w, b->unplaced == count[PAGE_UNPLACED], "%s: %lu unplaced", b->name, b->unplaced);
	return b->missing + b->unplaced;
}

static void check_counters(struct world *w)
{
	uint64_t owed = 0, stored = 0, requested = 0;

	for (unsigned i = 0; i < w->engine->blocks.n; i++) {
		owed += check_block(w, &w->engine->blocks.block[i]);
		stored += w->engine->blocks.block[i].stored;
		requested += w->engine->blocks.block[i].requested;
	}
	must(w, w->engine->owed_left == owed, "%lu owed, not %lu", w->engine->owed_left, owed);
	must(w, w->engine->stored_left == stored, "%lu stored, not %lu", w->engine->stored_left,
	     stored);
	must(w, w->engine->requested == requested, "%lu requested, not %lu", w->engine->requested,
	     requested);
	must(w, engine_drained(w->engine) == (owed == 0 && stored == 0), "drained?");
}

/* The waiters of one page, in order; those in a WAKE are in no chain any more. */
static unsigned check_chain(struct world *w, uint64_t page)
{
	const struct waiter_table *t = &w->engine->waiters;
	uint32_t at = waiter_first(t, page);
	unsigned n = 0;

	for (unsigned i = 0; i < w->naive.n_waiters; i++) {
		const struct naive_waiter *x = &w->naive.waiter[i];
		const struct waiter *got;

		if (x->page != page || x->waking)
			continue;
		must(w, at != WAITER_NONE, "page %lu: a thread that sleeps is not parked", page);
		got = &t->entry[at];
		must(w,
		     got->sharer == x->ref.slot && got->generation == x->ref.generation &&
			     got->tid == x->tid && got->address == x->address &&
			     got->read_ns == x->read_ns && (got->sent_ns != 0) == x->sent,
		     "page %lu: another thread is parked", page);
		at = waiter_next(t, at);
		n++;
	}
	must(w, at == WAITER_NONE, "page %lu: somebody is parked who does not sleep", page);
	return n;
}

/* A parked thread waits for something that will come, or for a page that has no place. */
static void check_waiters(struct world *w)
{
	unsigned parked = 0, waking = 0;

	for (unsigned i = 0; i < w->naive.n_waiters; i++)
		waking += w->naive.waiter[i].waking;
	for (uint64_t page = 0; page < w->engine->blocks.pages; page++) {
		enum page_state is = w->naive.page[page].is;
		unsigned n = check_chain(w, page);
		bool reported = w->naive.page[page].counted == PAGE_PRESENT;

		parked += n;
		must(w,
		     !n || is == PAGE_REQUESTED || is == PAGE_CONTESTED || is == PAGE_UNPLACED ||
			     is == PAGE_STORED || is == PAGE_ZERO ||
			     (is == PAGE_PRESENT && !reported),
		     "page %lu is %s and somebody waits", page, ledger_state_name(is));
	}
	must(w, parked + waking == w->naive.n_waiters, "%u parked, %u being woken, %u in all",
	     parked, waking, w->naive.n_waiters);
	must(w, w->engine->waiters.used == w->naive.n_waiters, "%u entries used, not %u",
	     w->engine->waiters.used, w->naive.n_waiters);
}

static void check_counts(struct world *w, const struct sharer_stats *s, const struct naive_count *n)
{
	uint64_t parts = 0;

	must(w, s->faults == n->faults && s->reads == n->reads && s->writes == n->writes,
	     "%lu faults (%lu reads, %lu writes), not %lu (%lu, %lu)", s->faults, s->reads,
	     s->writes, n->faults, n->reads, n->writes);
	must(w, s->duplicates == n->duplicates && s->refaults == n->refaults,
	     "%lu duplicates, %lu refaults, not %lu, %lu", s->duplicates, s->refaults,
	     n->duplicates, n->refaults);
	must(w, s->present == n->present && s->requests == n->requests,
	     "%lu present, %lu requests, not %lu, %lu", s->present, s->requests, n->present,
	     n->requests);
	for (unsigned i = 0; i < STAGE_COUNT; i++)
		must(w, s->stage[i].count == n->samples,
		     "%lu samples of stage %s, %lu threads were woken", s->stage[i].count,
		     stats_stage_names[i], n->samples);
	for (unsigned i = STAGE_TOTAL + 1; i < STAGE_COUNT; i++) {
		parts += s->stage[i].sum;
		must(w, s->stage[i].max <= s->stage[STAGE_TOTAL].max && s->stage[i].max <= w->now,
		     "stage %s took %lu ns", stats_stage_names[i], s->stage[i].max);
	}
	must(w, s->stage[STAGE_TOTAL].sum == parts, "the stages do not sum up to the total");
	must(w, s->blocked_ns == n->blocked_ns, "blocked for %lu ns, not %lu", s->blocked_ns,
	     n->blocked_ns);
	must(w, s->blocked_threads_ns == s->stage[STAGE_TOTAL].sum, "blocked threads' time");
}

static void check_sharers(struct world *w)
{
	for (unsigned i = 0; i < KERNEL_SPACES; i++) {
		const struct space *s = &w->kernel.space[i];
		const struct sharer *x;
		uint64_t waiting = 0;

		if (s->life == SPACE_NONE)
			continue;
		x = sharer_get(&w->engine->sharers, s->ref);
		must(w, x, "sharer %u is gone", s->ref.slot);
		for (unsigned n = 0; n < w->naive.n_waiters; n++)
			waiting += w->naive.waiter[n].ref.slot == s->ref.slot &&
				   w->naive.waiter[n].ref.generation == s->ref.generation;
		must(w, x->waiting == waiting, "sharer %u: %lu threads wait, not %lu", s->ref.slot,
		     x->waiting, waiting);
		check_counts(w, &x->stats, &w->naive.count[s->ref.slot]);
	}
	check_counts(w, &w->engine->gone, &w->naive.gone);
}

/* Does a retry still owe this thread an answer? */
static bool answer_pending(const struct world *w, const struct space *s, uint64_t page)
{
	for (unsigned i = 0; i < w->n_later; i++)
		if (w->later[i].page == page && w->later[i].sharer.slot == s->ref.slot &&
		    w->later[i].sharer.generation == s->ref.generation)
			return true;
	return false;
}

/* O1, O3: a thread whose message was told is parked, or its answer is on the way. */
static void check_threads(struct world *w)
{
	for (unsigned i = 0; i < KERNEL_SPACES; i++) {
		const struct space *s = &w->kernel.space[i];

		for (unsigned n = 0; s->life == SPACE_ALIVE && n < s->n_threads; n++) {
			const struct thread *t = &s->thread[n];

			if (t->asleep && t->message == MESSAGE_TOLD)
				must(w,
				     naive_waits(w, s->ref, t->page, t->tid) ||
					     answer_pending(w, s, t->page),
				     "sharer %u thread %u sleeps on page %lu (%s) and is forgotten",
				     s->ref.slot, n, t->page,
				     ledger_state_name(w->naive.page[t->page].is));
		}
	}
}

static void check_stats(struct world *w)
{
	const struct stats *got = &w->engine->stats, *want = &w->naive.stats;

	for (unsigned lane = 0; lane < LANE_COUNT; lane++) {
		for (unsigned how = 0; how < HOW_COUNT; how++)
			must(w, got->lane[lane].pages[how] == want->lane[lane].pages[how],
			     "lane %s: %lu pages by %s, not %lu", stats_lane_names[lane],
			     got->lane[lane].pages[how], stats_how_names[how],
			     want->lane[lane].pages[how]);
		must(w, got->lane[lane].duplicates == want->lane[lane].duplicates,
		     "lane %s: %lu duplicates", stats_lane_names[lane], got->lane[lane].duplicates);
	}
	must(w,
	     got->requests == want->requests && got->requested_pages == want->requested_pages &&
		     got->rerequested == want->rerequested,
	     "requests are counted wrong");
	must(w, got->lost == want->lost, "%lu pages given up, not %lu", got->lost, want->lost);
	must(w, engine_longest(w->engine) == naive_longest(w), "somebody waits since %lu, not %lu",
	     engine_longest(w->engine), naive_longest(w));
	must(w, got->alarms == want->alarms, "%lu alarms, not %lu", got->alarms, want->alarms);
}

void check_world(struct world *w)
{
	check_gates(w);
	must(w, w->engine->wakes.n + w->engine->actions.n == 0, "actions are left");
	check_pages(w);
	check_counters(w);
	check_waiters(w);
	check_sharers(w);
	check_threads(w);
	check_stats(w);
}

/* --- the end --------------------------------------------------------------------------------- */

static void check_awake(struct world *w)
{
	for (unsigned i = 0; i < KERNEL_SPACES; i++) {
		const struct space *s = &w->kernel.space[i];

		for (unsigned n = 0; s->life == SPACE_ALIVE && n < s->n_threads; n++)
			must(w,
			     !s->thread[n].asleep || !engine_room(w->engine) ||
				     w->naive.page[s->thread[n].page].is == PAGE_UNPLACED,
			     "everything came and sharer %u thread %u sleeps on page %lu",
			     s->ref.slot, n, s->thread[n].page);
	}
}

/* Nothing ever came to a page that was given up. */
static void check_lost(struct world *w, uint64_t page)
{
	const struct kernel_page *k = &w->kernel.page[page];

	must(w, k->placed == 0 && (!k->present || k->foreign), "page %lu came after it was lost",
	     page);
}

/* Each page is there, with the content that was accepted first. */
static void check_content(struct world *w)
{
	for (uint64_t page = 0; page < w->engine->blocks.pages; page++) {
		const struct naive_page *p = &w->naive.page[page];
		const struct kernel_page *k = &w->kernel.page[page];

		if (p->is == PAGE_LOST)
			check_lost(w, page);
		if (world_block(w, page)->kind == BLOCK_HELD || p->is == PAGE_LOST ||
		    p->is == PAGE_UNPLACED)
			continue;
		must(w, p->is == PAGE_PRESENT || p->is == PAGE_ZERO, "page %lu is %s at the end",
		     page, ledger_state_name(p->is));
		must(w, k->present || k->punched || p->is == PAGE_ZERO, "page %lu is not there",
		     page);
		must(w, !k->placed || !k->present || k->zero == p->zero,
		     "page %lu has another content", page);
	}
}

/* Counting the ledger afresh must give what was counted on the way. */
static void check_recount(struct world *w)
{
	struct engine *copy = malloc(sizeof(*copy));

	must(w, copy, "memory");
	memcpy(copy, w->engine, sizeof(*copy));
	engine_recount(copy);
	must(w,
	     copy->owed_left == w->engine->owed_left &&
		     copy->stored_left == w->engine->stored_left &&
		     copy->requested == w->engine->requested,
	     "a recount says %lu owed, %lu stored, %lu requested", copy->owed_left,
	     copy->stored_left, copy->requested);
	must(w, memcmp(&copy->blocks, &w->engine->blocks, sizeof(copy->blocks)) == 0,
	     "a recount of the blocks differs");
	free(copy);
}

void check_end(struct world *w)
{
	struct session *s = &w->engine->session;
	uint64_t lost = 0;

	for (uint64_t page = 0; page < w->engine->blocks.pages; page++)
		lost += w->naive.page[page].is == PAGE_UNPLACED;
	must(w, engine_drained(w->engine) == (lost == 0), "drained with %lu pages unplaced", lost);
	must(w, w->engine->owed_left == lost, "%lu owed, %lu unplaced", w->engine->owed_left, lost);
	for (unsigned i = 0; i < w->naive.n_waiters; i++)
		must(w,
		     w->naive.page[w->naive.waiter[i].page].is == PAGE_UNPLACED &&
			     !w->naive.waiter[i].waking,
		     "somebody waits for page %lu that came", w->naive.waiter[i].page);
	check_awake(w);
	check_content(w);
	check_recount(w);
	if (s->state == SESSION_LOADING)
		must(w, session_feed(s, SESSION_LOADED) == 1, "loaded");
	if (lost == 0)
		must(w, session_feed(s, SESSION_OWED_NOTHING) == 1 && s->state == SESSION_COMPLETE,
		     "the session does not complete");
}
