/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A hash of pages to chains, all of it in one piece of memory that the caller gives once: entries,
 * then heads.  Links are indexes, NONE ends a list, and an entry is always in exactly one: the free
 * list, a chain, or a list that was taken and not yet released.
 *
 * A chain holds waiters of every page that hashes to it, in order of arrival.  With at least as
 * many chains as entries it is short unless many threads wait for one page, and then its length is
 * what draining that page costs anyway.
 *
 * Taking and releasing are two steps because the samples of a waiter (when it was read, when its
 * request was sent) are needed until its WAKE is done; a taken entry still counts as used, so the
 * pool cannot overrun meanwhile.
 */
#include "config.h"
#include "core/waiter.h"

#include <assert.h>

/* Chains are at least as many as entries, a power of two. */
static uint32_t chains_for(uint32_t capacity)
{
	uint32_t n = 16;

	while (n < capacity)
		n *= 2;
	return n;
}

/* Fibonacci hashing: neighbouring pages, which fault together, land in different chains. */
static uint32_t chain_of(const struct waiter_table *t, uint64_t page)
{
	return (uint32_t)((page * 0x9e3779b97f4a7c15ull) >> 32) & t->mask;
}

/**
 * waiter_table_size - bytes of memory for @capacity waiters
 */
size_t waiter_table_size(uint32_t capacity)
{
	return capacity * sizeof(struct waiter) + chains_for(capacity) * sizeof(uint32_t);
}

/**
 * waiter_table_init - an empty table
 * @memory: waiter_table_size(@capacity) bytes, aligned for a struct waiter; stays the caller's
 */
void waiter_table_init(struct waiter_table *t, void *memory, uint32_t capacity)
{
	uint32_t chains = chains_for(capacity);

	*t = (struct waiter_table){ .entry = memory, .capacity = capacity, .mask = chains - 1 };
	t->chain = (uint32_t *)(t->entry + capacity);
	for (uint32_t i = 0; i < chains; i++)
		t->chain[i] = WAITER_NONE;
	for (uint32_t i = 0; i < capacity; i++)
		t->entry[i] = (struct waiter){ .next = i + 1 < capacity ? i + 1 : WAITER_NONE };
	t->free = capacity ? 0 : WAITER_NONE;
}

/**
 * waiter_park - a thread sleeps until the page of @w is there
 * @w: copied; its link is ignored
 *
 * There must be room (waiter_room()): the caller stops reading faults before there is none, and the
 * kernel keeps them queued.
 *
 * Return: the entry's index, valid until it is released.
 */
uint32_t waiter_park(struct waiter_table *t, const struct waiter *w)
{
	uint32_t index = t->free, *link = &t->chain[chain_of(t, w->page)];

	assert(index != WAITER_NONE);
	t->free = t->entry[index].next;
	t->used++;
	while (*link != WAITER_NONE)
		link = &t->entry[*link].next;
	t->entry[index] = *w;
	t->entry[index].next = WAITER_NONE;
	*link = index;
	return index;
}

/* From @index on, the next entry of the chain that is about @page. */
static uint32_t same_page(const struct waiter_table *t, uint32_t index, uint64_t page)
{
	while (index != WAITER_NONE && t->entry[index].page != page)
		index = t->entry[index].next;
	return index;
}

/**
 * waiter_first - the waiter of @page that was parked first, or WAITER_NONE
 */
uint32_t waiter_first(const struct waiter_table *t, uint64_t page)
{
	return same_page(t, t->chain[chain_of(t, page)], page);
}

/**
 * waiter_next - the next younger waiter of the same page, or WAITER_NONE
 * @index: a parked entry, not one of a taken list
 */
uint32_t waiter_next(const struct waiter_table *t, uint32_t index)
{
	return same_page(t, t->entry[index].next, t->entry[index].page);
}

/**
 * waiter_take - unlink the waiters of @page that belong to @sharer
 * @sharer: a slot; any, when < 0
 *
 * Return: a list of them, oldest first, to be followed by .next and given to waiter_release();
 * WAITER_NONE when nobody waits.
 */
uint32_t waiter_take(struct waiter_table *t, uint64_t page, int sharer)
{
	uint32_t *link = &t->chain[chain_of(t, page)], list = WAITER_NONE, *tail = &list;

	while (*link != WAITER_NONE) {
		uint32_t index = *link;
		struct waiter *w = &t->entry[index];

		if (w->page != page || (sharer >= 0 && w->sharer != sharer)) {
			link = &w->next;
			continue;
		}
		*link = w->next;
		w->next = WAITER_NONE;
		*tail = index;
		tail = &w->next;
	}
	return list;
}

/**
 * waiter_take_sharer - unlink every waiter of a sharer, whatever its page
 *
 * Walks the whole table: for a sharer that ends (O10).
 *
 * Return: a list as waiter_take() makes it, in no order.
 */
uint32_t waiter_take_sharer(struct waiter_table *t, unsigned sharer)
{
	uint32_t list = WAITER_NONE;

	for (uint32_t c = 0; c <= t->mask; c++) {
		uint32_t *link = &t->chain[c];

		while (*link != WAITER_NONE) {
			uint32_t index = *link;
			struct waiter *w = &t->entry[index];

			if (w->sharer != sharer) {
				link = &w->next;
				continue;
			}
			*link = w->next;
			w->next = list;
			list = index;
		}
	}
	return list;
}

/**
 * waiter_release - give the entries of a taken list back
 * @list: its head; WAITER_NONE is fine
 *
 * Return: how many they were.
 */
uint32_t waiter_release(struct waiter_table *t, uint32_t list)
{
	uint32_t n = 0;

	while (list != WAITER_NONE) {
		uint32_t next = t->entry[list].next;

		t->entry[list].next = t->free;
		t->free = list;
		t->used--;
		list = next;
		n++;
	}
	return n;
}

/**
 * waiter_unsend - forget of every parked thread that its request was sent
 *
 * After a lost lane: the replay tells by sent_ns whom it has asked for again.  Walks the whole
 * table.
 */
void waiter_unsend(struct waiter_table *t)
{
	for (uint32_t c = 0; c <= t->mask; c++)
		for (uint32_t i = t->chain[c]; i != WAITER_NONE; i = t->entry[i].next)
			t->entry[i].sent_ns = 0;
}

/**
 * waiter_oldest - since when the longest waiting thread of @sharer waits
 *
 * Walks the whole table: for reports.
 *
 * Return: the time its fault was read, nanoseconds; 0 when none waits.
 */
uint64_t waiter_oldest(const struct waiter_table *t, unsigned sharer)
{
	uint64_t oldest = 0;

	for (uint32_t c = 0; c <= t->mask; c++)
		for (uint32_t i = t->chain[c]; i != WAITER_NONE; i = t->entry[i].next)
			if (t->entry[i].sharer == sharer &&
			    (oldest == 0 || t->entry[i].read_ns < oldest))
				oldest = t->entry[i].read_ns;
	return oldest;
}
