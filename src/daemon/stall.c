/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Nothing tells beforehand whether an address space is locked: the thread that asks for a placement
 * there waits as long as the lock is held.  What can be had is that it happens to one of the two
 * threads, once: who is held up is seen by the other before it goes in there itself, and who comes
 * out late passes it over for a hundred times as long, and so does the other.  A main sharer that
 * does nothing but fork takes a hundredth of our time.
 *
 * Plain atomic words: what one thread sees a little late costs it one more wait.
 */
#include "config.h"
#include "daemon/stall.h"

/* and a nanosecond for a byte: longer, and it was held up; a preemption is shorter */
#define SLOW_NS	   10000000
#define PASS_OVER  100		/* times as long as it was */

/**
 * stall_passes - is the main sharer's address space passed over?
 * @now: CLOCK_MONOTONIC, nanoseconds
 */
bool stall_passes(const struct stall *s, uint64_t now)
{
	bool passes = now < __atomic_load_n(&s->own_until, __ATOMIC_RELAXED);

	for (unsigned i = 0; i < STALL_THREADS && !passes; i++) {
		uint64_t due = __atomic_load_n(&s->due[i], __ATOMIC_RELAXED);

		passes = due && now > due;
	}
	return passes;
}

/**
 * stall_enter - a thread goes in there; stall_leave() when it is out again
 * @length: bytes that it has placed
 */
void stall_enter(struct stall *s, enum stats_lane thread, uint64_t now, uint64_t length)
{
	__atomic_store_n(&s->due[thread], now + SLOW_NS + length, __ATOMIC_RELAXED);
}

/**
 * stall_leave - it is out
 * @before: when it went in
 */
void stall_leave(struct stall *s, enum stats_lane thread, uint64_t before, uint64_t now)
{
	if (now > s->due[thread])
		__atomic_store_n(&s->own_until, now + PASS_OVER * (now - before), __ATOMIC_RELAXED);
	__atomic_store_n(&s->due[thread], 0, __ATOMIC_RELAXED);
}
