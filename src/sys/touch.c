/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a device wrote through a pin was seen by nobody who watches page tables.  Who knows which
 * pages those are touches them: a store that a CPU does is seen.
 *
 * The store must not lose what somebody else, or the device itself, writes at that moment, so it is
 * an atomic exchange of a value by itself.  Adding 0 or or-ing 0 would do as well, but compilers
 * know that those change nothing and leave the store out.  An exchange that failed may not have
 * stored: it is done again with what it found.
 *
 * It costs a cache line that is written for each page, so it is for while something tracks.
 */
#include "config.h"

#include "sys/touch.h"

#include <stdbool.h>

static void touch(volatile uint8_t *p)
{
	uint8_t value = *p;

	while (!__atomic_compare_exchange_n(p, &value, value, false, __ATOMIC_RELAXED,
					    __ATOMIC_RELAXED))
		;
}

/**
 * touch_pages - have a range found dirty
 * @page: bytes, a power of two
 */
void touch_pages(void *at, size_t length, size_t page)
{
	volatile uint8_t *p = at;
	volatile uint8_t *end = p + length;

	for (; p < end; p = (volatile uint8_t *)(((uintptr_t)p & ~(page - 1)) + page))
		touch(p);
}
