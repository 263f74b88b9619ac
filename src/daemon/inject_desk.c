/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is dropped is not lost: it is held back for as long as its rule is there.  So nothing that
 * is injected here makes a thread wait for longer than the rule stands, and a guest only ever sees
 * a service that is slow.  A fault that is held back is not parked: when its page comes meanwhile
 * and is placed through its own address space the kernel wakes it, as it would if the message had
 * not been read; the message then finds the page present, and is answered like any late one.
 *
 * The room is bounded.  What does not fit is not held back: the counters of the rule then say more
 * than happened.
 */
#include "config.h"
#include "daemon/inject_desk.h"

#include <string.h>

#include "core/guard.h"
#include "sys/clock.h"

#define NS_PER_MS 1000000ull

static struct inject_held *hold(struct faultloop *f, enum inject_kind kind,
				const struct faultplan_order *order)
{
	struct inject_desk *d = f->desk;
	struct inject_held *h;

	if (d->n == INJECT_HELD)
		return NULL;
	h = &d->held[d->n++];
	*h = (struct inject_held){ .kind = kind, .rule = order->rule, .due_ns = UINT64_MAX };
	if (order->action == FAULTPLAN_DELAY)
		h->due_ns = clock_ns() + order->arg * NS_PER_MS;
	return h;
}

/* --- faults ----------------------------------------------------------------------------------- */

/* The page of an address as that sharer declared it. */
static uint64_t page_at(struct faultloop *f, const struct member *m, uint64_t address)
{
	const struct sharer *s = sharer_get(&f->engine.sharers, m->ref);
	const struct mapping *map = s ? sharer_locate(s, address) : NULL;

	if (!map)
		return FAULTPLAN_NO_PAGE;
	return block_page(&f->engine.blocks.block[map->block],
			  address - map->address + map->offset);
}

/* Does a rule say something about this fault of a sharer? */
static bool meets(struct faultloop *f, enum faultplan_point point, const struct member *m,
		  uint64_t address, struct faultplan_order *order)
{
	struct faultplan_event e = { .n = 1, .sharer = m->name };

	if (!faultplan_watches(f->faults, point))
		return false;
	e.page = page_at(f, m, address);
	return e.page != FAULTPLAN_NO_PAGE && inject_meet(f->faults, point, &e, order);
}

/**
 * inject_fault_met - a fault comes past a point where nothing is to be done but to sleep or to die
 */
void inject_fault_met(struct faultloop *f, enum faultplan_point point, const struct member *m,
		      uint64_t address)
{
	struct faultplan_order order;

	(void)meets(f, point, m, address, &order);
}

/**
 * inject_holds_fault - a message was read: is it to be kept for later?
 */
bool inject_holds_fault(struct faultloop *f, struct member *m, const struct uffd_event *e,
			uint64_t now)
{
	struct faultplan_order order;
	struct inject_held *h;

	if (!meets(f, FAULTPLAN_AT_FAULT_READ, m, e->address, &order))
		return false;
	if (order.action == FAULTPLAN_DUPLICATE) {
		faultloop_fault(f, m, e, now);
		return false;
	}
	h = hold(f, INJECT_FAULT, &order);
	if (!h)
		return false;
	h->event = *e;
	h->sharer = m->ref;
	h->read_ns = now;
	return true;
}

/**
 * inject_wedges - is the sharer not to be read now?  It is looked at again when the rule is gone
 */
bool inject_wedges(struct faultloop *f, struct member *m)
{
	struct faultplan_event e = { .page = FAULTPLAN_NO_PAGE, .sharer = m->name };
	struct faultplan_order order;

	if (!m->wedged && inject_at(f->faults, FAULTPLAN_AT_SHARER_READ, &e, &order))
		m->wedged = order.rule;
	if (m->wedged)
		m->ready = false;
	return m->wedged != 0;
}

/* --- requests and wakes ----------------------------------------------------------------------- */

/**
 * inject_holds_request - a request is about to leave: is it to be kept for later?
 */
bool inject_holds_request(struct faultloop *f, const struct engine_request *r)
{
	const struct block *b = &f->engine.blocks.block[r->block];
	struct faultplan_event e = { .page = block_page(b, r->offset),
				     .n = r->length >> b->page_shift };
	struct faultplan_order order;
	struct inject_held *h;

	if (!inject_at(f->faults, FAULTPLAN_AT_REQUEST, &e, &order))
		return false;
	if (order.action == FAULTPLAN_DUPLICATE) {
		if (outbox_room(&f->outbox))
			outbox_request(&f->outbox, &f->engine.blocks, r);
		return false;
	}
	h = hold(f, INJECT_REQUEST, &order);
	if (h)
		h->request = *r;
	return h;
}

/**
 * inject_holds_wake - a sharer is about to be woken: later, or *@twice?
 */
bool inject_holds_wake(struct faultloop *f, const struct engine_action *a, bool *twice)
{
	const struct member *m = roster_active(&f->roster, a->sharer);
	struct faultplan_event e = { .page = a->page, .n = a->n, .sharer = m ? m->name : NULL };
	struct faultplan_order order;
	struct inject_held *h;

	if (f->desk->busy || !m || !inject_at(f->faults, FAULTPLAN_AT_WAKE, &e, &order))
		return false;
	*twice = order.action == FAULTPLAN_DUPLICATE;
	h = *twice ? NULL : hold(f, INJECT_WAKE, &order);
	if (h)
		h->wake = *a;
	return h;
}

/**
 * inject_state - the session has come to another state, by that event
 */
void inject_state(struct faultloop *f, enum session_event event)
{
	enum session_state state = f->engine.session.state;

	if (event == SESSION_RESUMED)
		inject_moment(f->faults, FAULTPLAN_AT_RESUMED);
	else if (state == SESSION_PAUSED)
		inject_moment(f->faults, FAULTPLAN_AT_PAUSED);
	else if (state == SESSION_RECOVERING)
		inject_moment(f->faults, FAULTPLAN_AT_RECOVERING);
}

/* --- answers ---------------------------------------------------------------------------------- */

static uint64_t delayed_until(struct faultloop *f, enum faultplan_point point)
{
	struct faultplan_event e = { .page = FAULTPLAN_NO_PAGE };
	struct faultplan_order order;

	return inject_at(f->faults, point, &e, &order) ? clock_ns() + order.arg * NS_PER_MS : 0;
}

/**
 * inject_holds_pong - our answer to the package is not to be said yet; errands_answer() follows
 */
bool inject_holds_pong(struct faultloop *f)
{
	if (!f->desk)
		return false;
	f->desk->pong_due = delayed_until(f, FAULTPLAN_AT_PONG);
	return f->desk->pong_due != 0;
}

/**
 * inject_holds_shut - SHUT is not to be said yet; asked at each turn
 */
bool inject_holds_shut(struct faultloop *f)
{
	struct inject_desk *d = f->desk;

	if (!d)
		return false;
	if (!d->shut_asked)
		d->shut_due = delayed_until(f, FAULTPLAN_AT_SHUT);
	d->shut_asked = true;
	if (d->shut_due && clock_ns() >= d->shut_due)
		d->shut_due = 0;
	return d->shut_due != 0;
}

/* --- what goes on ----------------------------------------------------------------------------- */

/* Whose mapping is gone meanwhile sleeps there no more. */
static bool let_fault(struct faultloop *f, const struct inject_held *h)
{
	struct member *m = roster_active(&f->roster, h->sharer);

	if (!m || page_at(f, m, h->event.address) == FAULTPLAN_NO_PAGE)
		return true;
	if (engine_room(&f->engine) == 0 || f->n_pending == FAULTLOOP_PENDING)
		return false;
	faultloop_fault(f, m, &h->event, h->read_ns);
	perform_actions(f);
	return true;
}

/* The page may have come by itself; and a connection that is lost asks for everything anew. */
static bool let_request(struct faultloop *f, const struct inject_held *h)
{
	const struct block *b = &f->engine.blocks.block[h->request.block];
	uint64_t page = block_page(b, h->request.offset), end;

	if (f->closing || faultloop_halted(f))
		return true;
	end = page + (h->request.length >> b->page_shift);
	while (page < end && ledger_get(&f->engine.ledger, page) != PAGE_REQUESTED)
		page++;
	if (page == end)
		return true;
	if (!outbox_room(&f->outbox))
		return false;
	outbox_request(&f->outbox, &f->engine.blocks, &h->request);
	return true;
}

static bool let_wake(struct faultloop *f, const struct inject_held *h)
{
	if (f->n_pending == FAULTLOOP_PENDING)
		return false;
	f->desk->busy = true;
	perform_again(f, &h->wake);
	f->desk->busy = false;
	return true;
}

/* False: there is no room for it now. */
static bool let_go(struct faultloop *f, const struct inject_held *h)
{
	static bool (*const ways[])(struct faultloop *, const struct inject_held *) = {
		[INJECT_FAULT] = let_fault,
		[INJECT_REQUEST] = let_request,
		[INJECT_WAKE] = let_wake,
	};

	return ways[h->kind](f, h);
}

/* Rules were removed: what was held back for them goes on, and whoever was not read is. */
static void look_for_removals(struct faultloop *f)
{
	uint64_t removals = __atomic_load_n(&f->faults->removals, __ATOMIC_ACQUIRE);
	struct inject_desk *d = f->desk;

	if (removals == d->removals)
		return;
	d->removals = removals;
	for (unsigned i = 0; i < d->n; i++)
		if (!faultplan_has(f->faults, d->held[i].rule))
			d->held[i].due_ns = 0;
	for (unsigned i = 0; i < f->roster.used; i++) {
		struct member *m = &f->roster.member[i];

		if (!m->wedged || faultplan_has(f->faults, m->wedged))
			continue;
		m->wedged = 0;
		m->ready = true;
	}
}

/* A request for a connection that is lost is none any more: what is owed is asked for anew. */
static void go_on(struct faultloop *f, uint64_t now)
{
	struct inject_desk *d = f->desk;
	bool lost = f->closing || faultloop_halted(f);
	unsigned kept = 0;

	for (unsigned i = 0; i < d->n; i++) {
		struct inject_held h = d->held[i];
		bool due = h.due_ns <= now || (lost && h.kind == INJECT_REQUEST);

		if (!due || !let_go(f, &h))
			d->held[kept++] = h;
	}
	d->n = kept;
}

/**
 * inject_turn - once a turn: what is due goes on
 */
void inject_turn(struct faultloop *f)
{
	struct inject_desk *d = f->desk;
	uint64_t now = clock_ns();

	look_for_removals(f);
	if (d->n)
		go_on(f, now);
	for (unsigned i = 0; i < ARRAY_LEN(d->lane_due); i++)
		if (d->lane_due[i] && d->lane_due[i] <= now)
			d->lane_due[i] = 0;
	if (d->pong_due && d->pong_due <= now) {
		d->pong_due = 0;
		errands_answer(f);
	}
}

static void sooner(uint64_t *first, uint64_t due)
{
	if (due && due < *first)
		*first = due;
}

/**
 * inject_wait - in how many nanoseconds something is due; -1: nothing is by itself
 */
int64_t inject_wait(const struct faultloop *f)
{
	const struct inject_desk *d = f->desk;
	uint64_t first = UINT64_MAX, now = clock_ns();

	for (unsigned i = 0; i < d->n; i++)
		sooner(&first, d->held[i].due_ns ? d->held[i].due_ns : 1);
	for (unsigned i = 0; i < ARRAY_LEN(d->lane_due); i++)
		sooner(&first, d->lane_due[i]);
	sooner(&first, d->pong_due);
	sooner(&first, d->shut_due);
	if (first == UINT64_MAX)
		return -1;
	/* what finds no room is tried again, but not at once */
	return first > now ? (int64_t)(first - now) : (int64_t)NS_PER_MS;
}
