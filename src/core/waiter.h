/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_CORE_WAITER_H
#define PC_CORE_WAITER_H
/*
 * Who sleeps on which page, since when.  A fixed pool of entries in chains by page: parking,
 * finding and draining a page cost the number of its own waiters.  When the pool is full the caller
 * stops reading faults (the kernel keeps them).
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WAITER_NONE UINT32_MAX

struct waiter {
	uint64_t page;
	uint64_t address;	/* that faulted, in the sharer's space */
	uint64_t read_ns;	/* the fault message was read */
	uint64_t sent_ns;	/* its request was handed to the socket; 0: not yet */
	uint32_t tid;		/* 0: the sharer does not tell */
	uint32_t generation;
	uint16_t sharer;
	uint32_t next;		/* in the chain, a drained list, or the free list */
};

struct waiter_table {
	struct waiter *entry;
	uint32_t *chain;	/* heads */
	uint32_t capacity, used, free, mask;
};

/* Memory is the caller's: waiter_table_size() bytes. */
size_t waiter_table_size(uint32_t capacity);
void waiter_table_init(struct waiter_table *t, void *memory, uint32_t capacity);
static inline uint32_t waiter_room(const struct waiter_table *t)
{
	return t->capacity - t->used;
}
/* The entry's index; there must be room. */
uint32_t waiter_park(struct waiter_table *t, const struct waiter *w);
/* First waiter of the page, WAITER_NONE when there is none.  The oldest one comes first. */
uint32_t waiter_first(const struct waiter_table *t, uint64_t page);
/* The next one of the same page. */
uint32_t waiter_next(const struct waiter_table *t, uint32_t index);
/*
 * Unlink all waiters of @page that belong to @sharer (any, when < 0) into one list; its head or
 * WAITER_NONE.
 */
uint32_t waiter_take(struct waiter_table *t, uint64_t page, int sharer);
/* Unlink every waiter of a sharer, whatever the page (rare: walks the table). */
uint32_t waiter_take_sharer(struct waiter_table *t, unsigned sharer);
/* Give the entries of a taken list back; how many they were. */
uint32_t waiter_release(struct waiter_table *t, uint32_t list);
/* Forget of every parked thread that its request was sent (walks the table). */
void waiter_unsend(struct waiter_table *t);
/*
 * The time since which the longest waiting thread of @sharer waits; 0 when none does (walks the
 * table).
 */
uint64_t waiter_oldest(const struct waiter_table *t, unsigned sharer);

#endif
