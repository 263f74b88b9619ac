/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_INJECT_H
#define PC_DAEMON_INJECT_H
/*
 * Where the daemon comes past a point of core/faultplan.h: it asks, and sleeps or dies here when
 * that is what is to be done.  Everything else is the caller's.
 *
 * Without --enable-faults there is no plan, and a point costs a comparison.
 */
#include <stdbool.h>
#include <stdint.h>
#include "core/faultplan.h"

/* As inject_at(), for a point that has rules. */
bool inject_meet(struct faultplan *plan, enum faultplan_point point, struct faultplan_event *e,
		 struct faultplan_order *out);

static inline bool inject_watches(const struct faultplan *plan, enum faultplan_point point)
{
	return __builtin_expect(plan != NULL, false) && faultplan_watches(plan, point);
}

/* A moment, of no page and no sharer: the thread may sleep there, or the process end. */
static inline void inject_moment(struct faultplan *plan, enum faultplan_point point)
{
	struct faultplan_event e = { .page = FAULTPLAN_NO_PAGE };
	struct faultplan_order order;

	if (inject_watches(plan, point))
		(void)inject_meet(plan, point, &e, &order);
}

/* The same of pages. */
static inline void inject_page(struct faultplan *plan, enum faultplan_point point, uint64_t page,
			       uint64_t n)
{
	struct faultplan_event e = { .page = page, .n = n };
	struct faultplan_order order;

	if (inject_watches(plan, point))
		(void)inject_meet(plan, point, &e, &order);
}

/* Is something to be done by the caller?  @plan may be NULL; @e: all but the time. */
static inline bool inject_at(struct faultplan *plan, enum faultplan_point point,
			     struct faultplan_event *e, struct faultplan_order *out)
{
	return inject_watches(plan, point) && inject_meet(plan, point, e, out);
}

#endif
