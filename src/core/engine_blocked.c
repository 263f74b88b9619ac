/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads that sleep, until they are woken or their sharer ends: how long it was, of what parts.
 */
#include "config.h"
#include "core/engine.h"

/*
 * The other lane may have placed a page before we parked its last waiter: then nobody was blocked
 * by it.
 */
static void unblock(struct sharer *s, uint64_t n, uint64_t now)
{
	s->waiting -= n;
	if (n && s->waiting == 0 && now > s->blocked_since)
		s->stats.blocked_ns += now - s->blocked_since;
}

/**
 * engine_gone - a sharer ended, for whatever reason (O6, O10)
 *
 * Its waiters are forgotten, what comes late of it is stale; what its faults asked for is placed
 * all the same, since the source sends it anyway.
 */
void engine_gone(struct engine *e, struct sharer_ref ref, uint64_t now)
{
	struct sharer *s = sharer_get(&e->sharers, ref);

	if (!s)
		return;
	waiter_release(&e->waiters, waiter_take_sharer(&e->waiters, ref.slot));
	unblock(s, s->waiting, now);	/* with those that a WAKE under way was for */
	sharer_stats_add(&e->gone, &s->stats);
	sharer_remove(&e->sharers, ref);
}

/*
 * The way of one fault, split at the moments that are known.  A page that came by itself was never
 * sent for, and one may arrive before the request left: a moment that lies before its predecessor
 * counts as that one.
 */
static void sample(struct engine *e, const struct waiter *w, const struct engine_action *a,
		   uint64_t woken)
{
	struct sharer *s = &e->sharers.sharer[w->sharer];
	uint64_t sent = w->sent_ns > w->read_ns ? w->sent_ns : w->read_ns;
	uint64_t arrived = a->arrived_ns > sent ? a->arrived_ns : sent;
	uint64_t placed = a->placed_ns > arrived ? a->placed_ns : arrived;

	if (woken < placed)
		woken = placed;
	histogram_add(&s->stats.stage[STAGE_TOTAL], woken - w->read_ns);
	histogram_add(&s->stats.stage[STAGE_QUEUE], sent - w->read_ns);
	histogram_add(&s->stats.stage[STAGE_WIRE], arrived - sent);
	histogram_add(&s->stats.stage[STAGE_PLACEMENT], placed - arrived);
	histogram_add(&s->stats.stage[STAGE_WAKE], woken - placed);
	s->stats.blocked_threads_ns += woken - w->read_ns;
}

/**
 * engine_woken - a WAKE was done: every alias of the page in that sharer
 * @a: as engine_next() gave it; its waiters are released
 * @now: the end of their waiting
 *
 * Also for a sharer that ended meanwhile.  A page that was given up is no sample of how fast pages
 * come.
 */
void engine_woken(struct engine *e, const struct engine_action *a, uint64_t now)
{
	struct sharer *s = sharer_get(&e->sharers, a->sharer);

	for (uint32_t i = a->waiters; s && a->how != PLACE_POISON && i != WAITER_NONE;
	     i = e->waiters.entry[i].next)
		sample(e, &e->waiters.entry[i], a, now);
	if (s)
		unblock(s, waiter_release(&e->waiters, a->waiters), now);
	else
		waiter_release(&e->waiters, a->waiters);
}
