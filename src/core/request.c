/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"
#include "core/request.h"

#include <errno.h>
#include <string.h>

size_t request_queue_size(uint32_t capacity)
{
	return capacity * sizeof(uint64_t);
}

void request_queue_init(struct request_queue *q, void *memory, uint32_t capacity)
{
	*q = (struct request_queue){ .demand = memory, .capacity = capacity };
}

int request_demand(struct request_queue *q, uint64_t page)
{
	if (q->n == q->capacity)
		return -ENOSPC;
	q->demand[(q->head + q->n++) % q->capacity] = page;
	return 0;
}

bool request_next_demand(struct request_queue *q, uint64_t *page)
{
	if (q->n == 0)
		return false;
	*page = q->demand[q->head];
	q->head = (q->head + 1) % q->capacity;
	q->n--;
	return true;
}

void request_replay(struct request_queue *q, uint64_t pages)
{
	q->n = 0;
	q->replay_at = 0;
	q->replay_end = pages;
}

int request_want(struct request_queue *q, uint64_t page, uint64_t n, enum request_class class)
{
	unsigned at = q->n_wants;

	if (q->n_wants == REQUEST_WANTS)
		return -ENOSPC;
	while (at > 0 && q->want[at - 1].class > class)
		at--;
	memmove(&q->want[at + 1], &q->want[at], (q->n_wants - at) * sizeof(q->want[0]));
	q->want[at] = (struct request_want){ .at = page, .end = page + n, .class = class };
	q->n_wants++;
	return 0;
}

struct request_want *request_first_want(struct request_queue *q)
{
	return q->n_wants ? &q->want[0] : NULL;
}

void request_want_done(struct request_queue *q)
{
	q->n_wants--;
	memmove(&q->want[0], &q->want[1], q->n_wants * sizeof(q->want[0]));
}
