/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * A thread of some process (a sharer) touches a page of guest memory that is not here.  The kernel
 * puts it to sleep and queues a message on that process's userfaultfd.  From there, in one
 * direction:
 *
 *   engine_fault          address -> mapping -> (block, page).  The ledger says what the page is:
 *        missing          park the thread, ask the source (engine_next_request)
 *        requested        park; it was asked for already (O4)
 *        placing          park and contest it; whoever places it will tell (O1)
 *        stored, zero     park; we have the content: place it now
 *        present          answer on the descriptor the message came from (O3): zero it if the owner
 *                         gave the page back, else wake
 *        lost             say so there, too (engine_loss.c)
 *   engine_next_request   demand first, then what a lost lane left open, then ranges wanted ahead
 *                         of need
 *   engine_page           the page came: claim it in the ledger; a second copy finds nothing to
 *                         claim and is ignored
 *   PLACE                 the caller has the kernel place it, through an address space of its
 *                         choice; engine_placed tells how it went and who is awake with it.  Only
 *                         now is it present (O2)
 *   WAKE                  every other sharer that waits for it, each once, all its aliases (O13);
 *                         engine_woken takes the latency samples
 *
 * With an urgent lane the background stream is placed by another thread, which claims and publishes
 * in the same ledger and reports afterwards (engine_report): a page claimed by one side cannot be
 * placed by the other, and a fault that meets a claimed page contests it, so that the report that
 * drains its waiters comes at once.  See ledger.h for why nothing is missed.
 *
 * Zeroes that come for a sparse block and that nobody waits for are not placed at all: a hole reads
 * as zero once the range is no longer registered, and in a file a page of zeroes costs the kernel
 * as much as one of data.  Such a page is ZERO from then on (noted), as if precopy had brought it:
 * not owed, and placed when a fault, or a device (CLASS_DMA), wants it.  That it is a hole is the
 * caller's to check while the page is claimed (PLACE_NOTE); where it is none, the kernel's answer
 * to a ZEROPAGE tells what it is.  A page that was asked for is placed: somebody may wait.
 *
 * What is never done: a page is not placed twice (claim), a waiter is not woken before its page is
 * there (drain follows publish), and a failure never becomes a zero page: a page that cannot be
 * placed stays unplaced, its waiters asleep, and is reported.
 *
 * Devices do not fault: gates (gate.h) hold them, which hear of every page once the kernel said
 * that it is there; what they miss is asked for ahead of need.
 *
 * Present pages count; owed pages are exactly those that were discarded before the package (O15).
 * When none is owed and none is stored any more the session can complete.
 */
#include "config.h"
#include "core/engine.h"

#include <assert.h>

/* --- actions ---------------------------------------------------------------------------------- */

static struct engine_action *queue_in(struct engine_queue *q, struct engine_action *ring,
				      unsigned size)
{
	assert(q->n < size);
	return &ring[(q->first + q->n++) % size];
}

static bool queue_out(struct engine_queue *q, const struct engine_action *ring, unsigned size,
		      struct engine_action *a)
{
	if (q->n == 0)
		return false;
	*a = ring[q->first];
	/* mostly short: stay in the same cache lines */
	q->first = --q->n ? (q->first + 1) % size : 0;
	return true;
}

static struct engine_action *new_action(struct engine *e, enum engine_verb verb)
{
	struct engine_action *a = verb == ENGINE_WAKE ?
					  queue_in(&e->wakes, e->wake, ENGINE_WAKES) :
					  queue_in(&e->actions, e->action, ENGINE_ACTIONS);

	*a = (struct engine_action){ .verb = verb, .waiters = WAITER_NONE };
	return a;
}

/**
 * engine_next - the next thing to do
 * @a: a copy; for a PLACE the caller hands it back to engine_placed(), for a WAKE to engine_woken()
 *
 * Wakes go before the placements that are queued: who can run, runs; and each placement can make a
 * wake for every page of its run and every sharer, so there is room for one placement's worth of
 * them.
 *
 * Return: false when there is nothing to do.
 */
bool engine_next(struct engine *e, struct engine_action *a)
{
	return queue_out(&e->wakes, e->wake, ENGINE_WAKES, a) ||
	       queue_out(&e->actions, e->action, ENGINE_ACTIONS, a);
}

/*
 * Zeroes that nobody asked for stay holes where holes can be told from data.  Elsewhere they are
 * placed: private memory takes them for next to nothing, and huge pages are reserved one way or the
 * other.
 */
static enum engine_how choose_how(const struct block *b, const uint8_t *data, enum page_state from)
{
	if (b->kind == BLOCK_HELD)
		return PLACE_KEEP;
	if (data)
		return PLACE_COPY;
	return b->sparse && from == PAGE_MISSING ? PLACE_NOTE : PLACE_ZERO;
}

/**
 * engine_place - queue the placement of pages that were just claimed from state @from
 *
 * Return: the action, which may be changed until the next one is queued.
 */
struct engine_action *engine_place(struct engine *e, enum stats_lane lane, uint64_t page,
				   uint64_t n, const uint8_t *data, enum page_state from,
				   uint64_t now)
{
	const struct block *b = block_of_page(&e->blocks, page);
	struct engine_action *a = new_action(e, ENGINE_PLACE);

	a->how = choose_how(b, data, from);
	a->lane = lane;
	a->from = from;
	a->block = (uint16_t)(b - e->blocks.block);
	a->page = page;
	a->n = n;
	a->data = data;
	a->arrived_ns = now;
	return a;
}

/* --- faults ----------------------------------------------------------------------------------- */

/*
 * The thread sleeps until the page is there.  A thread that is parked on this page already (a
 * signal made it fault again) is not parked twice: it sleeps once.
 */
static void park(struct engine *e, struct sharer_ref ref, uint64_t page, uint64_t address,
		 uint32_t tid, uint64_t now)
{
	struct sharer *s = &e->sharers.sharer[ref.slot];
	uint32_t first = waiter_first(&e->waiters, page);
	struct waiter w = {
		.page = page, .address = address, .read_ns = now, .tid = tid,
		.sharer = ref.slot, .generation = ref.generation,
	};

	if (first != WAITER_NONE) {
		s->stats.duplicates++;
		w.sent_ns = e->waiters.entry[first].sent_ns;
	}
	for (uint32_t i = first; tid && i != WAITER_NONE; i = waiter_next(&e->waiters, i))
		if (e->waiters.entry[i].sharer == ref.slot && e->waiters.entry[i].tid == tid) {
			s->stats.refaults++;
			return;
		}
	if (s->waiting++ == 0)
		s->blocked_since = now;
	waiter_park(&e->waiters, &w);
}

/*
 * A message read after the page was placed.  The kernel alone knows whether the thread sleeps on a
 * page that is there, or on one that its owner has given back since: the answer is a ZEROPAGE, and
 * a WAKE where that says EEXIST (O3).  One that was given up is said to be so here, too.
 */
static void answer(struct engine *e, struct sharer_ref ref, const struct mapping *m, uint64_t page,
		   enum page_state found)
{
	const struct block *b = &e->blocks.block[m->block];
	struct engine_action *a = new_action(e, ENGINE_PLACE);

	e->sharers.sharer[ref.slot].stats.present += found != PAGE_LOST;
	a->how = found == PAGE_LOST ? PLACE_POISON : PLACE_ANSWER;
	a->from = found == PAGE_LOST ? PAGE_LOST : PAGE_NEVER;
	a->lane = LANE_STORE;
	a->block = m->block;
	a->page = page;
	a->n = 1;
	a->sharer = ref;
	a->address = mapping_address(m, block_offset(b, page));
}

/* The first fault on a missing page: ask once (O4), ahead of everything that nobody sleeps for. */
static void ask(struct engine *e, struct sharer *s, uint64_t page)
{
	struct block *b = block_of_page(&e->blocks, page);

	/*
	 * The queue is full of pages that came by themselves or whose sharers died; the ledger
	 * knows what is asked for.
	 */
	if (request_demand(&e->requests, page) < 0)
		request_replay(&e->requests, e->blocks.pages);
	b->requested++;
	e->requested++;
	s->stats.requests++;
}

/**
 * engine_fault - a thread of a sharer met a page that is not there (for it)
 * @address: anywhere in the page
 * @tid: the thread, 0 when the kernel does not say
 * @flags: bit 0: the access was a write (UFFD_PAGEFAULT_FLAG_WRITE)
 * @now: when the message was read
 *
 * A fault that is not answered at once is parked before this returns (O1).  The caller reads no
 * more faults than engine_room() says.
 *
 * Return: ENGINE_OK, ENGINE_STALE, ENGINE_OUTSIDE (of every mapping it declared: its waiter would
 * never be woken).
 */
enum engine_outcome engine_fault(struct engine *e, struct sharer_ref ref, uint64_t address,
				 uint32_t tid, uint64_t flags, uint64_t now)
{
	struct sharer *s = sharer_get(&e->sharers, ref);
	const struct mapping *m = s ? sharer_locate(s, address) : NULL;
	enum page_state found;
	uint64_t page;

	if (!s)
		return ENGINE_STALE;
	s->stats.faults++;
	if (flags & 1)
		s->stats.writes++;
	else
		s->stats.reads++;
	if (!m)
		return ENGINE_OUTSIDE;
	page = block_page(&e->blocks.block[m->block], address - m->address + m->offset);
	found = ledger_request(&e->ledger, page);
	if (found == PAGE_PRESENT || found == PAGE_REMOVED || found == PAGE_LOST) {
		answer(e, ref, m, page, found);
		return ENGINE_OK;
	}
	park(e, ref, page, address, tid, now);
	if (found == PAGE_MISSING)
		ask(e, s, page);
	else if (found == PAGE_STORED || found == PAGE_ZERO)
		engine_serve_own(e, page, found, now);
	return ENGINE_OK;
}

/* --- pages ------------------------------------------------------------------------------------ */

/**
 * engine_page - a whole page came in on a lane of the fault thread
 * @page: its number
 * @data: must stay where it is until the placement is over; NULL: zeroes
 *
 * Return: ENGINE_OK and a PLACE is queued; ENGINE_DUPLICATE: it is there, or the other lane has it,
 * or nobody owes it.
 */
enum engine_outcome engine_page(struct engine *e, enum stats_lane lane, uint64_t page,
				const uint8_t *data, uint64_t now)
{
	enum page_state found = ledger_claim(&e->ledger, page);

	if (!ledger_claimed(found)) {
		e->stats.lane[lane].duplicates++;
		return ENGINE_DUPLICATE;
	}
	engine_place(e, lane, page, 1, data, found, now);
	return ENGINE_OK;
}

/**
 * engine_zero_run - zero pages in a row came in on a lane of the fault thread
 * @page, @n: at most ENGINE_RUN pages, all of one block
 *
 * As engine_page() of each, in as few placements as can be (O9).
 */
void engine_zero_run(struct engine *e, enum stats_lane lane, uint64_t page, uint64_t n,
		     uint64_t now)
{
	uint64_t end = page + n, start = page;

	assert(n <= ENGINE_RUN);
	/*
	 * Pages nobody asked for are placed in one go; one that somebody waits for goes alone, so
	 * that its waiters are drained.
	 */
	for (; page < end; page++) {
		enum page_state found = ledger_claim(&e->ledger, page);

		if (found == PAGE_MISSING)
			continue;
		if (page > start)
			engine_place(e, lane, start, page - start, NULL, PAGE_MISSING, now);
		start = page + 1;
		if (found == PAGE_REQUESTED)
			engine_place(e, lane, page, 1, NULL, found, now);
		else
			e->stats.lane[lane].duplicates++;
	}
	if (page > start)
		engine_place(e, lane, start, page - start, NULL, PAGE_MISSING, now);
}

/**
 * engine_left - the counters of pages that left state @from
 */
void engine_left(struct engine *e, struct block *b, enum page_state from, uint64_t n)
{
	switch (from) {
	case PAGE_REQUESTED:
		b->requested -= n;
		e->requested -= n;
		/* fall through */
	case PAGE_MISSING:
		b->missing -= n;
		e->owed_left -= n;
		break;
	case PAGE_STORED:
		b->stored -= n;
		e->stored_left -= n;
		break;
	case PAGE_ZERO:
		b->zero -= n;
		break;
	default:
		break;
	}
}

/* Does the sharer show this page at a second address? */
static bool has_alias(const struct sharer *s, unsigned block, uint64_t offset)
{
	unsigned from = 0;

	return sharer_alias(s, block, offset, &from) && sharer_alias(s, block, offset, &from);
}

/*
 * The page is there and published: everyone who waits is woken, one action per sharer.  The
 * placement itself woke who slept at the carrier's address; its other aliases still need a call.
 */
static void drain(struct engine *e, const struct engine_action *a, uint64_t page,
		  const struct engine_carrier *c)
{
	const struct block *b = &e->blocks.block[a->block];
	uint32_t first;

	while ((first = waiter_first(&e->waiters, page)) != WAITER_NONE) {
		const struct waiter *w = &e->waiters.entry[first];
		struct engine_action wake = *a;
		bool awake;

		wake.verb = ENGINE_WAKE;
		wake.sharer = (struct sharer_ref){ .slot = w->sharer, .generation = w->generation };
		wake.page = page;
		wake.n = 1;
		awake = c && c->is_sharer && c->sharer.slot == w->sharer &&
			c->sharer.generation == w->generation;
		wake.address = awake ? c->address : 0;
		wake.waiters = waiter_take(&e->waiters, page, w->sharer);
		if (awake && !has_alias(&e->sharers.sharer[wake.sharer.slot], a->block,
					block_offset(b, page)))
			engine_woken(e, &wake, wake.placed_ns);
		else
			*new_action(e, ENGINE_WAKE) = wake;
	}
}

/*
 * A claimed page could not be placed, or had content that nobody placed.  It is given up in the
 * ledger and stays owed, so the session never completes over it; whoever waits for it sleeps on (a
 * failure never becomes a zero page).
 */
static void unplaced(struct engine *e, const struct engine_action *a, uint64_t page,
		     enum engine_verb verb)
{
	struct engine_action *report;
	struct block *b = &e->blocks.block[a->block];

	ledger_unclaim(&e->ledger, page, PAGE_UNPLACED);
	engine_left(e, b, a->from, 1);
	e->owed_left++;
	b->unplaced++;
	e->stats.alarms += verb == ENGINE_ALARM;
	report = new_action(e, verb);
	report->block = a->block;
	report->page = page;
	report->n = 1;
}

/*
 * A fault on a page that was there: a placement was only tried to tell a given-back page from a
 * late message.  Whichever it was, the page is there now, and the thread sleeps on unless the
 * placement went through its own address.
 */
static void answered(struct engine *e, const struct engine_action *a, enum engine_result result,
		     const struct engine_carrier *c)
{
	bool awake = result == PLACED && c->is_sharer && c->sharer.slot == a->sharer.slot &&
		     c->sharer.generation == a->sharer.generation && c->address == a->address;
	struct engine_action *wake;

	if (awake || result == PLACED_NOWHERE)
		return;
	wake = new_action(e, ENGINE_WAKE);
	wake->sharer = a->sharer;
	wake->block = a->block;
	wake->page = a->page;
	wake->n = 1;
}

/*
 * A page was given up: it is owed no more, and who waited for it is woken to be told so.  Where it
 * turned out to have content that is what counts: nobody placed it.
 */
static void lost(struct engine *e, const struct engine_action *a, enum engine_result result)
{
	struct block *b = &e->blocks.block[a->block];

	if (result != PLACED) {
		unplaced(e, a, a->page,
			 result == PLACED_EXISTS ? ENGINE_ALARM : ENGINE_UNPLACED);
		return;
	}
	ledger_unclaim(&e->ledger, a->page, PAGE_LOST);
	engine_left(e, b, a->from, 1);
	b->lost++;
	e->stats.lost++;
	drain(e, a, a->page, NULL);
}

/*
 * @n pages are here, placed or noted: move them from the counters of where they were to those of
 * what is here.
 */
static void now_here(struct engine *e, const struct engine_action *a, uint64_t n,
		     enum stats_how how)
{
	struct block *b = &e->blocks.block[a->block];

	engine_left(e, b, a->from, n);
	e->stats.lane[a->lane].pages[how] += n;
	if (how == HOW_NOTED) {
		b->zero += n;
		return;
	}
	b->present += n;
	for (unsigned i = 0; i < e->n_gates; i++)
		gate_present(e->gate[i], a->page, n);
}

/* The pages are holes: noted, but for those that somebody came to wait for meanwhile. */
static void note(struct engine *e, const struct engine_action *a)
{
	uint64_t n = 0;

	for (uint64_t page = a->page; page < a->page + a->n; page++)
		if (ledger_note(&e->ledger, page))
			n++;
		else
			engine_place(e, a->lane, page, 1, NULL, a->from, a->arrived_ns)->how =
				PLACE_ZERO;
	now_here(e, a, n, HOW_NOTED);
}

/**
 * engine_placed - the result of a PLACE
 * @a: moved on past what is settled
 * @done: so many pages, from its first, are there
 * @result: with EXISTS or NOWHERE the page behind them is what it is about
 * @carrier: through which address space; the kernel woke who slept there
 *
 * Each page is published first and its waiters are drained then (O2).  A NOTE is settled as a
 * whole, and so is a POISON, which is done when one address space at least was told.
 *
 * Return: the pages still to be placed; the caller issues @a again while it is not 0.
 */
uint64_t engine_placed(struct engine *e, struct engine_action *a, uint64_t done,
		       enum engine_result result, const struct engine_carrier *carrier,
		       uint64_t now)
{
	struct block *b = &e->blocks.block[a->block];
	struct engine_carrier c = *carrier;

	if (a->how == PLACE_ANSWER || a->from == PAGE_LOST) {
		answered(e, a, result, carrier);
		return 0;
	}
	if (a->how == PLACE_POISON) {
		lost(e, a, result);
		return 0;
	}
	assert(done <= a->n && (result == PLACED || done < a->n));
	if (a->how == PLACE_NOTE) {
		assert(done == a->n);
		note(e, a);
		return 0;
	}
	a->placed_ns = now;
	now_here(e, a, done, a->data ? HOW_COPY : HOW_ZERO);
	for (uint64_t i = 0; i < done; i++, c.address += b->page_size)
		if (ledger_publish(&e->ledger, a->page + i))
			drain(e, a, a->page + i, &c);
	if (result != PLACED)
		unplaced(e, a, a->page + done++,
			 result == PLACED_EXISTS ? ENGINE_ALARM : ENGINE_UNPLACED);
	a->page += done;
	a->n -= done;
	if (a->data)
		a->data += done << b->page_shift;
	return a->n;
}

/**
 * engine_report - the bulk lane tells what it did with a run of pages
 * @r: pages that it published or noted, or has claimed and could not place
 *
 * Counters and waiters are the engine's, so they follow here.  The ledger said the truth all along:
 * a fault may have had a noted page placed before it is told here, and until then the block's zero
 * pages are one too few (below none, even), and the missing ones one too many.
 */
void engine_report(struct engine *e, const struct engine_report *r, uint64_t now)
{
	struct engine_action a = {
		.lane = (enum stats_lane)r->lane,
		.from = (enum page_state)r->from,
		.page = r->page,
		.n = r->n,
		.block = (uint16_t)(block_of_page(&e->blocks, r->page) - e->blocks.block),
		.arrived_ns = r->arrived_ns,
		.placed_ns = r->placed_ns ? r->placed_ns : now,
	};

	if (r->result == PLACED_NOT) {
		engine_give_up(e, r->page, r->n, a.from);
		return;
	}
	if (r->result != PLACED) {
		for (uint64_t page = r->page; page < r->page + r->n; page++)
			unplaced(e, &a, page,
				 r->result == PLACED_EXISTS ? ENGINE_ALARM : ENGINE_UNPLACED);
		return;
	}
	now_here(e, &a, r->n, (enum stats_how)r->how);
	if (r->contested)
		drain(e, &a, r->page, &r->carrier);
}

/**
 * engine_drained - is nothing owed and nothing stored?  With the stream at its end the session can
 * complete
 */
bool engine_drained(const struct engine *e)
{
	return e->owed_left == 0 && e->stored_left == 0;
}
