/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the engine must have done, said with arrays and loops.  Each function is one event; it
 * changes the naive map and writes down the actions that the engine owes for it.
 */
#include "config.h"

#include "world.h"

#include <string.h>

#define PUSH_RUN 16 /* pages of stored content in one action: engine.c */

static bool same(struct sharer_ref a, struct sharer_ref b)
{
	return a.slot == b.slot && a.generation == b.generation;
}

static struct naive_page *page_of(struct world *w, uint64_t page)
{
	return &w->naive.page[page];
}

static struct engine_action *owe(struct world *w, enum engine_verb verb, uint64_t page)
{
	struct naive *n = &w->naive;
	struct engine_action *a = &n->expect[n->expect_n++];

	must(w, n->expect_n <= WORLD_EXPECTS, "the model expects too many actions");
	*a = (struct engine_action){ .verb = verb, .page = page, .n = 1, .waiters = WAITER_NONE };
	a->block = (uint16_t)(world_block(w, page) - w->engine->blocks.block);
	return a;
}

/* The first thread that sleeps on the page. */
static struct naive_waiter *first_waiter(struct world *w, uint64_t page)
{
	for (unsigned i = 0; i < w->naive.n_waiters; i++)
		if (w->naive.waiter[i].page == page && !w->naive.waiter[i].waking)
			return &w->naive.waiter[i];
	return NULL;
}

static struct engine_action *owe_place(struct world *w, enum stats_lane lane, uint64_t page,
				       bool zero, enum page_state from)
{
	struct engine_action *a = owe(w, ENGINE_PLACE, page);
	struct block *b = world_block(w, page);

	a->how = b->kind == BLOCK_HELD ? PLACE_KEEP : zero ? PLACE_ZERO : PLACE_COPY;
	if (zero && b->sparse && from == PAGE_MISSING)
		a->how = PLACE_NOTE;
	a->lane = lane;
	a->from = from;
	if (!zero)
		a->data = lane == LANE_STORE ? b->store + block_offset(b, page)
					     : world_content(w, page);
	a->arrived_ns = w->now;
	return a;
}

bool naive_waits(const struct world *w, struct sharer_ref ref, uint64_t page, uint32_t tid)
{
	for (unsigned i = 0; i < w->naive.n_waiters; i++) {
		const struct naive_waiter *n = &w->naive.waiter[i];

		if (n->page == page && n->ref.slot == ref.slot &&
		    n->ref.generation == ref.generation && n->tid == tid)
			return true;
	}
	return false;
}

/* O1; a thread that is parked there already is not parked again. */
static void park(struct world *w, const struct mail *m, uint64_t page)
{
	struct naive_count *count = &w->naive.count[m->ref.slot];
	struct naive_waiter *first = first_waiter(w, page);

	count->duplicates += first != NULL;
	if (first && m->tid && naive_waits(w, m->ref, page, m->tid)) {
		count->refaults++;
		return;
	}
	must(w, w->naive.n_waiters < w->waiters, "more threads parked than there is room for");
	if (count->waiting++ == 0)
		count->blocked_since = w->now;
	w->naive.waiter[w->naive.n_waiters++] = (struct naive_waiter){
		.page = page,
		.address = m->address,
		.read_ns = w->now,
		.tid = m->tid,
		.ref = m->ref,
		.sent = first && first->sent,
	};
}

static void fault_by_state(struct world *w, struct naive_page *p, uint64_t page)
{
	switch (p->is) {
	case PAGE_MISSING:
		p->is = p->counted = PAGE_REQUESTED;
		naive_ask(w, page);
		break;
	case PAGE_STORED:
	case PAGE_ZERO:
		p->zero = p->is == PAGE_ZERO;
		owe_place(w, LANE_STORE, page, p->zero, p->is);
		p->is = PAGE_CONTESTED;
		break;
	case PAGE_PLACING:
		p->is = PAGE_CONTESTED;
		break;
	default:
		break;
	}
}

enum engine_outcome naive_fault(struct world *w, const struct mail *m, const struct space *s)
{
	struct naive_count *count;
	struct naive_page *p;
	struct engine_action *a;
	uint64_t page;

	if (!s)
		return ENGINE_STALE;
	count = &w->naive.count[m->ref.slot];
	count->faults++;
	count->reads += !m->write;
	count->writes += m->write;
	if (!kernel_resolve(&w->kernel, s, m->address, &page))
		return ENGINE_OUTSIDE;
	p = page_of(w, page);
	if (p->is == PAGE_PRESENT) {
		count->present++;
		a = owe(w, ENGINE_PLACE, page);
		a->how = PLACE_ANSWER;
		a->lane = LANE_STORE;
		a->sharer = m->ref;
		a->address = m->address & ~(world_block(w, page)->page_size - 1);
		return ENGINE_OK;
	}
	if (p->is == PAGE_LOST) {
		a = owe(w, ENGINE_PLACE, page);
		a->how = PLACE_POISON;
		a->lane = LANE_STORE;
		a->from = PAGE_LOST;
		a->sharer = m->ref;
		a->address = m->address & ~(world_block(w, page)->page_size - 1);
		return ENGINE_OK;
	}
	park(w, m, page);
	count->requests += p->is == PAGE_MISSING;
	fault_by_state(w, p, page);
	return ENGINE_OK;
}

static bool owed(const struct naive_page *p)
{
	return p->is == PAGE_MISSING || p->is == PAGE_REQUESTED;
}

enum engine_outcome naive_page(struct world *w, enum stats_lane lane, uint64_t page, bool zero)
{
	struct naive_page *p = page_of(w, page);

	if (!owed(p)) {
		w->naive.stats.lane[lane].duplicates++;
		return ENGINE_DUPLICATE;
	}
	owe_place(w, lane, page, zero, p->is);
	p->zero = zero;
	p->is = p->is == PAGE_MISSING ? PAGE_PLACING : PAGE_CONTESTED;
	return ENGINE_OK;
}

void naive_zero_run(struct world *w, enum stats_lane lane, uint64_t page, uint64_t n)
{
	struct engine_action *run = NULL;

	for (; n > 0; page++, n--) {
		enum page_state was = page_of(w, page)->is;

		if (run && was == PAGE_MISSING && run->page + run->n == page) {
			page_of(w, page)->is = PAGE_PLACING;
			page_of(w, page)->zero = true;
			run->n++;
			continue;
		}
		run = NULL;
		if (naive_page(w, lane, page, true) == ENGINE_OK && was == PAGE_MISSING)
			run = &w->naive.expect[w->naive.expect_n - 1];
	}
}

/* Each stays a hole, but for those that somebody came to wait for. */
void naive_noted(struct world *w, const struct engine_action *a)
{
	for (uint64_t page = a->page; page < a->page + a->n; page++) {
		struct naive_page *p = page_of(w, page);
		struct engine_action *again;

		if (p->is == PAGE_CONTESTED) {
			again = owe_place(w, a->lane, page, true, a->from);
			again->how = PLACE_ZERO;
			again->arrived_ns = a->arrived_ns;
			continue;
		}
		must(w, p->is == PAGE_PLACING, "page %lu noted while %s", page,
		     ledger_state_name(p->is));
		p->is = p->counted = PAGE_ZERO;
		w->naive.stats.lane[a->lane].pages[HOW_NOTED]++;
	}
}

/* A device will want these, which nobody touched yet. */
uint64_t naive_fill(struct world *w, uint64_t page, uint64_t end)
{
	struct engine_action *run = owe_place(w, LANE_STORE, page, true, PAGE_ZERO);

	for (run->n = 0; run->n < ENGINE_RUN && page < end && page_of(w, page)->is == PAGE_ZERO;
	     page++) {
		page_of(w, page)->is = first_waiter(w, page) ? PAGE_CONTESTED : PAGE_PLACING;
		page_of(w, page)->zero = true;
		run->n++;
	}
	return run->n;
}

uint64_t naive_push(struct world *w, uint64_t max)
{
	struct engine_action *run = NULL;
	uint64_t queued = 0;

	for (uint64_t page = w->naive.push_at; page < w->engine->blocks.pages && queued < max;
	     page++) {
		struct naive_page *p = page_of(w, page);
		struct block *b = world_block(w, page);

		if (p->is != PAGE_STORED)
			continue;
		must(w, b->kind == BLOCK_PRIVATE, "a stored page outside a private block");
		p->is = first_waiter(w, page) ? PAGE_CONTESTED : PAGE_PLACING;
		p->zero = false;
		queued++;
		w->naive.push_at = page + 1;
		if (run && run->page + run->n == page && page != b->first && run->n < PUSH_RUN)
			run->n++;
		else
			run = owe_place(w, LANE_STORE, page, false, PAGE_STORED);
	}
	if (queued < max)
		w->naive.push_at = 0;
	return queued;
}

/* The kernel did not take it now: as if it had not been tried. */
void naive_give_back(struct world *w, const struct engine_action *a)
{
	for (uint64_t page = a->page; page < a->page + a->n; page++) {
		must(w,
		     a->from == PAGE_STORED || a->from == PAGE_ZERO ||
			     (a->how == PLACE_POISON && a->from == PAGE_REQUESTED),
		     "page %lu is not ours", page);
		page_of(w, page)->is = a->from;
	}
}

/*
 * Everything of ours that somebody sleeps on, in the order of the engine's own table, which nobody
 * relies on.
 */
uint64_t naive_retry(struct world *w, uint64_t max)
{
	const struct waiter_table *t = &w->engine->waiters;
	uint32_t chain = w->engine->retry_at;
	uint64_t queued = 0;

	for (uint32_t n = 0; n <= t->mask && queued < max; n++, chain = (chain + 1) & t->mask)
		for (uint32_t i = t->chain[chain]; i != WAITER_NONE; i = t->entry[i].next) {
			struct naive_page *p = page_of(w, t->entry[i].page);

			if (p->is != PAGE_STORED && p->is != PAGE_ZERO)
				continue;
			fault_by_state(w, p, t->entry[i].page);
			queued++;
		}
	return queued;
}

/* Each page once that somebody waits for since then; in the order of the engine's own table. */
uint64_t naive_poison(struct world *w, uint64_t before, uint64_t max)
{
	const struct waiter_table *t = &w->engine->waiters;
	uint64_t queued = 0;

	for (uint32_t chain = 0; chain <= t->mask && queued < max; chain++)
		for (uint32_t i = t->chain[chain]; i != WAITER_NONE; i = t->entry[i].next) {
			struct naive_page *p = page_of(w, t->entry[i].page);

			if (p->is != PAGE_REQUESTED || t->entry[i].read_ns > before)
				continue;
			p->is = PAGE_CONTESTED;
			owe_place(w, LANE_STORE, t->entry[i].page, true, PAGE_REQUESTED)->how =
				PLACE_POISON;
			queued++;
		}
	return queued;
}

uint64_t naive_longest(const struct world *w)
{
	uint64_t longest = 0;

	for (unsigned i = 0; i < w->naive.n_waiters; i++) {
		const struct naive_waiter *n = &w->naive.waiter[i];

		if (w->naive.page[n->page].is == PAGE_REQUESTED && !n->waking &&
		    (longest == 0 || n->read_ns < longest))
			longest = n->read_ns;
	}
	return longest;
}

/* Everybody was told; it never comes back. */
void naive_given_up(struct world *w, uint64_t page)
{
	struct naive_page *p = page_of(w, page);

	must(w, p->is == PAGE_CONTESTED && p->counted == PAGE_REQUESTED, "page %lu given up while %s",
	     page, ledger_state_name(p->is));
	p->is = p->counted = PAGE_LOST;
	w->naive.stats.lost++;
}

/* O2: the kernel said so. */
void naive_present(struct world *w, uint64_t page, enum stats_lane lane, enum stats_how how)
{
	struct naive_page *p = page_of(w, page);

	must(w, p->is == PAGE_PLACING || p->is == PAGE_CONTESTED || p->is == PAGE_PRESENT,
	     "page %lu placed while %s", page, ledger_state_name(p->is));
	must(w, p->counted != PAGE_PRESENT, "page %lu counted present twice", page);
	p->is = p->counted = PAGE_PRESENT;
	w->naive.stats.lane[lane].pages[how]++;
	w->placed++;
}

void naive_unplaced(struct world *w, uint64_t page, enum engine_verb verb)
{
	struct naive_page *p = page_of(w, page);

	p->is = p->counted = PAGE_UNPLACED;
	w->naive.stats.alarms += verb == ENGINE_ALARM;
	owe(w, verb, page);
}

/* O3: the page is there, and nothing woke who faulted on it. */
void naive_answered(struct world *w, const struct engine_action *a)
{
	owe(w, ENGINE_WAKE, a->page)->sharer = a->sharer;
}

static void forget(struct world *w, unsigned index)
{
	struct naive *n = &w->naive;

	memmove(&n->waiter[index], &n->waiter[index + 1],
		(--n->n_waiters - index) * sizeof(n->waiter[0]));
}

/* A thread was woken. */
static void settle(struct world *w, unsigned index, uint64_t woken_ns)
{
	struct naive_count *count = &w->naive.count[w->naive.waiter[index].ref.slot];

	count->samples += page_of(w, w->naive.waiter[index].page)->is != PAGE_LOST;
	w->woken++;
	if (--count->waiting == 0 && woken_ns > count->blocked_since)
		count->blocked_ns += woken_ns - count->blocked_since;
	forget(w, index);
}

/* O13: each sharer that waits once; nobody when the kernel has woken its threads already. */
void naive_drain(struct world *w, uint64_t page, const struct engine_carrier *carrier,
		 uint64_t placed_ns)
{
	struct naive_waiter *first;

	while ((first = first_waiter(w, page))) {
		struct sharer_ref ref = first->ref;
		struct space *s = kernel_space(&w->kernel, ref);
		bool carried = carrier && carrier->is_sharer && same(carrier->sharer, ref);
		uint64_t second;
		bool alias = s && kernel_address(&w->kernel, s, page, 1, &second);
		struct engine_action *a;

		must(w, s, "a sharer that ended still waits for page %lu", page);
		for (unsigned i = 0; i < w->naive.n_waiters; i++) {
			struct naive_waiter *n = &w->naive.waiter[i];

			if (n->page != page || n->waking || !same(n->ref, ref))
				continue;
			n->waking = true;
			if (carried && !alias)
				settle(w, i--, placed_ns);
		}
		if (carried && !alias)
			continue;
		a = owe(w, ENGINE_WAKE, page);
		a->sharer = ref;
		a->address = carried ? carrier->address : 0;
		a->waiters = 0; /* some list: which one is the engine's business */
	}
}

/* In the order of the events, but wakes first. */
static unsigned next_expected(const struct naive *n)
{
	for (unsigned i = 0; i < n->expect_n; i++)
		if (n->expect[i].verb == ENGINE_WAKE)
			return i;
	return 0;
}

void naive_expect(struct world *w, const struct engine_action *a)
{
	struct naive *n = &w->naive;
	unsigned at = next_expected(n);
	const struct engine_action *x = &n->expect[at];

	must(w, n->expect_n > 0, "an action nobody expects: verb %d page %lu", a->verb, a->page);
	must(w, a->verb == x->verb && a->page == x->page && a->n == x->n && a->block == x->block,
	     "verb %d page %lu+%lu instead of verb %d page %lu+%lu", a->verb, a->page, a->n,
	     x->verb, x->page, x->n);
	if (a->verb == ENGINE_PLACE)
		must(w,
		     a->how == x->how && a->lane == x->lane && a->from == x->from &&
			     a->data == x->data && a->arrived_ns == x->arrived_ns,
		     "page %lu: how %d lane %d from %s data %p at %lu, not %d %d %s %p %lu",
		     a->page, a->how, a->lane, ledger_state_name(a->from), (const void *)a->data,
		     a->arrived_ns, x->how, x->lane, ledger_state_name(x->from),
		     (const void *)x->data, x->arrived_ns);
	if (a->verb == ENGINE_PLACE || a->verb == ENGINE_WAKE)
		must(w,
		     same(a->sharer, x->sharer) && a->address == x->address,
		     "page %lu: sharer %u at %lx instead of %u at %lx", a->page, a->sharer.slot,
		     a->address, x->sharer.slot, x->address);
	if (a->verb == ENGINE_WAKE)
		must(w, (a->waiters == WAITER_NONE) == (x->waiters == WAITER_NONE),
		     "page %lu: a wake %s waiters", a->page,
		     a->waiters == WAITER_NONE ? "without" : "with");
	memmove(&n->expect[at], &n->expect[at + 1], (--n->expect_n - at) * sizeof(n->expect[0]));
}

void naive_woken(struct world *w, const struct engine_action *a)
{
	bool active = kernel_space(&w->kernel, a->sharer) != NULL;

	if (a->waiters == WAITER_NONE)
		return;
	for (unsigned i = 0; i < w->naive.n_waiters; i++) {
		struct naive_waiter *n = &w->naive.waiter[i];

		if (!n->waking || n->page != a->page || !same(n->ref, a->sharer))
			continue;
		if (active)
			settle(w, i--, w->now);
		else
			forget(w, i--);
	}
}

/* O10: nothing of it is left but what it counted. */
void naive_gone(struct world *w, struct sharer_ref ref)
{
	struct naive_count *count = &w->naive.count[ref.slot], *gone = &w->naive.gone;

	for (unsigned i = 0; i < w->naive.n_waiters; i++) {
		struct naive_waiter *n = &w->naive.waiter[i];
		uint64_t page = n->page;

		if (n->waking || !same(n->ref, ref))
			continue;
		forget(w, i--);
		if (!first_waiter(w, page))
			page_of(w, page)->orphan = true;
	}
	gone->faults += count->faults;
	gone->reads += count->reads;
	gone->writes += count->writes;
	gone->duplicates += count->duplicates;
	gone->refaults += count->refaults;
	gone->present += count->present;
	gone->requests += count->requests;
	gone->samples += count->samples;
	gone->blocked_ns +=
		count->blocked_ns + (count->waiting ? w->now - count->blocked_since : 0);
	*count = (struct naive_count){ 0 };
}
