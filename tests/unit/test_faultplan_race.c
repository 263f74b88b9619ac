/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One thread adds and removes rules, others ask: a plain program, so that TSan can watch.
 *
 * The argument of each rule is its number.  An order with another argument was read of a slot that
 * was being taken again.  And no rule fires more often than it may, whoever asks.  (F61)
 */
#include "config.h"

#include "core/faultplan.h"

#include <pthread.h>
#include <stdio.h>

#include "core/guard.h"

enum { ASKERS = 3, RULES = 20000, OFTEN = 3 };

struct arena {
	struct faultplan plan;
	bool over;			/* atomic */
	uint64_t orders, torn;		/* atomic */
	uint64_t fires;
};

static void *ask(void *data)
{
	const struct faultplan_event e = { .now = 1, .page = 5, .n = 1, .sharer = "vm" };
	struct arena *a = data;
	struct faultplan_order o;

	while (!__atomic_load_n(&a->over, __ATOMIC_ACQUIRE)) {
		if (!faultplan_ask(&a->plan, FAULTPLAN_AT_FAULT_READ, &e, &o))
			continue;
		__atomic_fetch_add(&a->orders, 1, __ATOMIC_RELAXED);
		if (o.arg != o.rule || o.action != FAULTPLAN_DELAY)
			__atomic_fetch_add(&a->torn, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

/* Rules come until all slots are taken, and go; those of other points are in between. */
static bool change(struct arena *a)
{
	bool well = true;

	/* and until somebody asked at the right time, however busy the machine is */
	for (uint64_t n = 1; n <= RULES || !__atomic_load_n(&a->orders, __ATOMIC_RELAXED);) {
		struct faultplan_rule rule = {
			.point = n % 3 ? FAULTPLAN_AT_FAULT_READ : FAULTPLAN_AT_WAKE,
			.action = FAULTPLAN_DELAY, .arg = n, .count = OFTEN,
			.sharer = "vm", .paged = true, .page = 5,
		};
		int id = faultplan_add(&a->plan, &rule, 0);
		const struct faultplan_slot *s;
		unsigned at = (unsigned)n % FAULTPLAN_RULES;

		well &= id < 0 || (uint64_t)id == n;
		n += id > 0;
		if ((id < 0 || n % 2) && faultplan_list(&a->plan, &at, &s)) {
			a->fires += __atomic_load_n(&s->fires, __ATOMIC_RELAXED);
			well &= __atomic_load_n(&s->fires, __ATOMIC_RELAXED) <= OFTEN;
			well &= faultplan_remove(&a->plan, s->id) == 0;
		}
	}
	return well;
}

int main(void)
{
	static struct arena a;
	pthread_t askers[ASKERS];
	bool well;

	faultplan_init(&a.plan, 1, NULL);
	for (unsigned i = 0; i < ASKERS; i++)
		if (pthread_create(&askers[i], NULL, ask, &a) != 0)
			return 99;
	well = change(&a);
	__atomic_store_n(&a.over, true, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < ASKERS; i++)
		pthread_join(askers[i], NULL);
	printf("# %d rules, %llu orders\n", RULES, (unsigned long long)a.orders);
	printf("%sok 1 - rules come and go as they should\n", well ? "" : "not ");
	printf("%sok 2 - no order is of two rules\n", a.torn == 0 ? "" : "not ");
	printf("%sok 3 - rules have fired\n1..3\n", a.orders > 0 ? "" : "not ");
	return well && a.torn == 0 && a.orders > 0 ? 0 : 1;
}
