/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who sleeps on which page: order, exhaustion, and against a naive list.
 */
#include "config.h"

#include "core/waiter.h"

#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "lib/rng.h"

static void *table(struct waiter_table *t, uint32_t capacity)
{
	void *memory = malloc(waiter_table_size(capacity));

	cr_assert_not_null(memory);
	waiter_table_init(t, memory, capacity);
	return memory;
}

static uint32_t park(struct waiter_table *t, uint64_t page, unsigned sharer, uint32_t tid)
{
	struct waiter w = { .page = page,
			    .sharer = (uint16_t)sharer,
			    .tid = tid,
			    .read_ns = 1000 + tid,
			    .sent_ns = tid };

	return waiter_park(t, &w);
}

static unsigned length(const struct waiter_table *t, uint32_t list)
{
	unsigned n = 0;

	for (; list != WAITER_NONE; list = t->entry[list].next)
		n++;
	return n;
}

Test(waiter, an_empty_table)
{
	struct waiter_table t;
	cleanup_free void *memory = table(&t, 8);

	cr_expect_eq(waiter_room(&t), 8);
	cr_expect_eq(waiter_first(&t, 0), WAITER_NONE);
	cr_expect_eq(waiter_take(&t, 0, -1), WAITER_NONE);
	cr_expect_eq(waiter_take_sharer(&t, 0), WAITER_NONE);
	cr_expect_eq(waiter_release(&t, WAITER_NONE), 0);
	cr_expect_eq(waiter_oldest(&t, 0), 0);
	cr_expect_not_null(memory);
}

Test(waiter, no_room_at_all)
{
	struct waiter_table t;
	cleanup_free void *memory = table(&t, 0);

	cr_expect_eq(waiter_room(&t), 0);
	cr_expect_eq(waiter_first(&t, 5), WAITER_NONE);
	cr_expect_not_null(memory);
}

Test(waiter, the_oldest_of_a_page_comes_first)
{
	struct waiter_table t;
	cleanup_free void *memory = table(&t, 100);
	uint32_t at;

	for (uint32_t i = 0; i < 100; i++)
		park(&t, i % 10, i % 3, i);
	for (uint64_t page = 0; page < 10; page++) {
		uint32_t tid = (uint32_t)page;

		for (at = waiter_first(&t, page); at != WAITER_NONE;
		     at = waiter_next(&t, at), tid += 10)
			cr_assert_eq(t.entry[at].tid, tid);
		cr_assert_eq(tid, page + 100);
	}
	cr_expect_not_null(memory);
}

Test(waiter, take_keeps_the_order_and_leaves_the_others)
{
	struct waiter_table t;
	cleanup_free void *memory = table(&t, 12);
	uint32_t list;

	for (uint32_t i = 0; i < 12; i++)
		park(&t, 7, i % 3, i);
	list = waiter_take(&t, 7, 1);
	cr_assert_eq(length(&t, list), 4);
	for (uint32_t i = list, tid = 1; i != WAITER_NONE; i = t.entry[i].next, tid += 3)
		cr_assert_eq(t.entry[i].tid, tid);
	cr_assert_eq(waiter_room(&t), 0, "taken entries are still used");
	cr_assert_eq(waiter_take(&t, 7, 1), WAITER_NONE);
	cr_assert_eq(waiter_release(&t, list), 4);
	cr_assert_eq(waiter_room(&t), 4);
	list = waiter_take(&t, 7, -1);
	cr_assert_eq(length(&t, list), 8);
	cr_assert_eq(t.entry[list].tid, 0);
	cr_assert_eq(waiter_release(&t, list), 8);
	cr_assert_eq(waiter_first(&t, 7), WAITER_NONE);
	cr_assert_not_null(memory);
}

Test(waiter, a_full_table_empties_and_fills_again)
{
	struct waiter_table t;
	cleanup_free void *memory = table(&t, 33);

	for (unsigned round = 0; round < 5; round++) {
		for (uint32_t i = 0; i < 33; i++) {
			cr_assert_eq(waiter_room(&t), 33 - i);
			cr_assert_lt(park(&t, i * 1000003ull * round, 0, i), 33);
		}
		cr_assert_eq(waiter_room(&t), 0);
		cr_assert_eq(waiter_release(&t, waiter_take_sharer(&t, 0)), 33);
		cr_assert_eq(waiter_room(&t), 33);
	}
	cr_assert_not_null(memory);
}

Test(waiter, O10_a_sharer_that_ends_takes_its_own_and_no_other)
{
	struct waiter_table t;
	cleanup_free void *memory = table(&t, 60);

	for (uint32_t i = 0; i < 60; i++)
		park(&t, i / 4, i % 2 ? 5 : 6, i);
	cr_assert_eq(waiter_release(&t, waiter_take_sharer(&t, 5)), 30);
	cr_assert_eq(waiter_take_sharer(&t, 5), WAITER_NONE);
	for (uint64_t page = 0; page < 15; page++) {
		uint32_t list = waiter_take(&t, page, -1);

		cr_assert_eq(length(&t, list), 2);
		cr_assert_eq(t.entry[list].sharer, 6);
	}
	cr_assert_not_null(memory);
}

Test(waiter, the_longest_wait_of_a_sharer)
{
	struct waiter_table t;
	cleanup_free void *memory = table(&t, 10);

	park(&t, 1, 0, 30);
	park(&t, 2, 0, 20);
	park(&t, 3, 1, 10);
	park(&t, 2, 0, 40);
	cr_expect_eq(waiter_oldest(&t, 0), 1020);
	cr_expect_eq(waiter_oldest(&t, 1), 1010);
	cr_expect_eq(waiter_oldest(&t, 2), 0);
	waiter_release(&t, waiter_take(&t, 2, -1));
	cr_expect_eq(waiter_oldest(&t, 0), 1030);
	cr_expect_not_null(memory);
}

Test(waiter, unsend_forgets_what_is_parked_and_not_what_was_taken)
{
	struct waiter_table t;
	cleanup_free void *memory = table(&t, 10);
	uint32_t taken;

	park(&t, 1, 0, 3);
	park(&t, 2, 0, 4);
	park(&t, 2, 1, 5);
	taken = waiter_take(&t, 2, 0);
	waiter_unsend(&t);
	cr_expect_eq(t.entry[waiter_first(&t, 1)].sent_ns, 0);
	cr_expect_eq(t.entry[waiter_first(&t, 2)].sent_ns, 0);
	cr_expect_eq(t.entry[taken].sent_ns, 4);
	cr_expect_not_null(memory);
}

/* Pages that fall into one chain do not see each other. */
Test(waiter, pages_that_share_a_chain)
{
	struct waiter_table t;
	cleanup_free void *memory = table(&t, 16);
	uint64_t page[16];
	unsigned n = 0;

	for (uint64_t p = 0; n < 16; p++) {
		uint32_t index = park(&t, p, 0, (uint32_t)p);

		page[n] = t.entry[index].page;
		if (length(&t, t.chain[0]) == n + 1)
			n++;
		else
			waiter_release(&t, waiter_take(&t, p, -1));
	}
	cr_assert_eq(waiter_room(&t), 0);
	for (unsigned i = 1; i < 16; i += 2) {
		uint32_t list = waiter_take(&t, page[i], -1);

		cr_assert_eq(length(&t, list), 1);
		cr_assert_eq(t.entry[list].page, page[i]);
		waiter_release(&t, list);
	}
	for (unsigned i = 0; i < 16; i++)
		cr_assert_eq(waiter_first(&t, page[i]) == WAITER_NONE, i % 2 == 1);
	cr_assert_not_null(memory);
}

struct naive {
	uint64_t page;
	unsigned sharer;
	uint32_t tid;
};

static unsigned drop(struct naive *list, unsigned *n, uint64_t page, int sharer)
{
	unsigned kept = 0, dropped = 0;

	for (unsigned i = 0; i < *n; i++) {
		if (list[i].page == page && (sharer < 0 || (int)list[i].sharer == sharer))
			dropped++;
		else
			list[kept++] = list[i];
	}
	*n = kept;
	return dropped;
}

static void compare(const struct waiter_table *t, const struct naive *list, unsigned n,
		    uint64_t page)
{
	uint32_t at = waiter_first(t, page);

	for (unsigned i = 0; i < n; i++) {
		if (list[i].page != page)
			continue;
		cr_assert_neq(at, WAITER_NONE);
		cr_assert_eq(t->entry[at].tid, list[i].tid);
		at = waiter_next(t, at);
	}
	cr_assert_eq(at, WAITER_NONE);
}

Test(waiter, against_a_naive_list)
{
	struct rng rng = { .state = rng_seed() };
	struct waiter_table t;
	cleanup_free void *memory = table(&t, 40);
	struct naive list[40];
	unsigned n = 0;

	for (uint32_t step = 0; step < 200000; step++) {
		uint64_t page = rng_below(&rng, 12);

		if (n < 40 && rng_percent(&rng, 70)) {
			list[n] = (struct naive){ page, (unsigned)rng_below(&rng, 4), step };
			park(&t, page, list[n].sharer, step);
			n++;
		} else {
			int sharer = (int)rng_below(&rng, 5) - 1;

			cr_assert_eq(waiter_release(&t, waiter_take(&t, page, sharer)),
				     drop(list, &n, page, sharer));
		}
		cr_assert_eq(waiter_room(&t), 40 - n);
		compare(&t, list, n, page);
	}
	cr_assert_not_null(memory);
}
