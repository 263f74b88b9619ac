/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is still to be asked: demand in order, dma before prefetch, everything bounded (O4, O5).
 */
#include "config.h"

#include "core/request.h"

#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#define CAPACITY 5

static struct request_queue queue(uint64_t memory[CAPACITY])
{
	struct request_queue q;

	cr_assert_eq(request_queue_size(CAPACITY), CAPACITY * sizeof(uint64_t));
	request_queue_init(&q, memory, CAPACITY);
	return q;
}

Test(request, an_empty_queue_asks_for_nothing)
{
	uint64_t memory[CAPACITY], page = 99;
	struct request_queue q = queue(memory);

	cr_expect_not(request_next_demand(&q, &page));
	cr_expect_eq(page, 99);
	cr_expect_null(request_first_want(&q));
	cr_expect_eq(q.replay_end, 0);
}

Test(request, a_queue_without_room)
{
	struct request_queue q;
	uint64_t page;

	request_queue_init(&q, NULL, 0);
	cr_expect_eq(request_demand(&q, 1), -ENOSPC);
	cr_expect_not(request_next_demand(&q, &page));
}

Test(request, demands_leave_in_the_order_they_came)
{
	uint64_t memory[CAPACITY], page, in = 0, out = 0;
	struct request_queue q = queue(memory);

	for (unsigned round = 0; round < 20; round++) {
		for (unsigned i = 0; i < 1 + round % CAPACITY; i++)
			cr_assert_eq(request_demand(&q, 1000 + in++), 0);
		while (request_next_demand(&q, &page))
			cr_assert_eq(page, 1000 + out++);
		cr_assert_eq(in, out);
	}
}

Test(request, a_full_queue_refuses_and_keeps_what_it_has)
{
	uint64_t memory[CAPACITY], page;
	struct request_queue q = queue(memory);

	for (uint64_t i = 0; i < CAPACITY; i++)
		cr_assert_eq(request_demand(&q, i), 0);
	cr_assert_eq(request_demand(&q, 77), -ENOSPC);
	for (uint64_t i = 0; i < CAPACITY; i++) {
		cr_assert(request_next_demand(&q, &page));
		cr_assert_eq(page, i);
	}
	cr_assert_not(request_next_demand(&q, &page));
}

Test(request, O4_a_replay_covers_what_was_queued)
{
	uint64_t memory[CAPACITY], page;
	struct request_queue q = queue(memory);

	request_demand(&q, 1);
	request_demand(&q, 2);
	request_replay(&q, 1000);
	cr_expect_not(request_next_demand(&q, &page), "the walk will find it");
	cr_expect_eq(q.replay_at, 0);
	cr_expect_eq(q.replay_end, 1000);
	cr_expect_eq(request_demand(&q, 3), 0);
	q.replay_at = 500;
	request_replay(&q, 1000);
	cr_expect_eq(q.replay_at, 0, "another loss begins again");
	for (uint64_t i = 0; i < CAPACITY; i++)
		cr_expect_eq(request_demand(&q, i), 0, "all of the queue is free");
}

static const struct {
	uint64_t page;
	enum request_class class;
} wants[] = {
	{ 10, CLASS_PREFETCH }, { 20, CLASS_DMA }, { 30, CLASS_PREFETCH }, { 40, CLASS_DMA },
	{ 50, CLASS_DMA },	{ 60, CLASS_PREFETCH },
};

Test(request, O5_dma_before_prefetch_and_else_in_order)
{
	static const uint64_t order[] = { 20, 40, 50, 10, 30, 60 };
	uint64_t memory[CAPACITY];
	struct request_queue q = queue(memory);

	for (size_t i = 0; i < 6; i++)
		cr_assert_eq(request_want(&q, wants[i].page, i + 1, wants[i].class), 0);
	for (size_t i = 0; i < 6; i++) {
		struct request_want *w = request_first_want(&q);

		cr_assert_eq(w->at, order[i]);
		cr_assert_eq(w->class, i < 3 ? CLASS_DMA : CLASS_PREFETCH);
		cr_assert_eq(w->end - w->at, order[i] / 10, "its length came along");
		request_want_done(&q);
	}
	cr_assert_null(request_first_want(&q));
}

Test(request, a_range_that_is_worked_on_keeps_its_place)
{
	uint64_t memory[CAPACITY];
	struct request_queue q = queue(memory);

	request_want(&q, 100, 50, CLASS_DMA);
	request_first_want(&q)->at = 130;
	request_want(&q, 200, 50, CLASS_DMA);
	request_want(&q, 300, 50, CLASS_PREFETCH);
	cr_expect_eq(request_first_want(&q)->at, 130);
	cr_expect_eq(request_first_want(&q)->end, 150);
}

Test(request, a_bounded_number_of_ranges)
{
	uint64_t memory[CAPACITY];
	struct request_queue q = queue(memory);

	for (unsigned i = 0; i < REQUEST_WANTS; i++)
		cr_assert_eq(request_want(&q, i, 1, CLASS_PREFETCH), 0);
	cr_assert_eq(request_want(&q, 99, 1, CLASS_PREFETCH), -ENOSPC);
	cr_assert_eq(request_want(&q, 99, 1, CLASS_DMA), -ENOSPC);
	cr_assert_eq(request_first_want(&q)->at, 0);
	request_want_done(&q);
	cr_assert_eq(request_want(&q, 99, 1, CLASS_DMA), 0);
	cr_assert_eq(request_first_want(&q)->at, 99);
	for (unsigned i = 0; i < REQUEST_WANTS; i++)
		request_want_done(&q);
	cr_assert_null(request_first_want(&q));
}
