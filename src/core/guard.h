/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_CORE_GUARD_H
#define PC_CORE_GUARD_H
/*
 * Scope guards and checked arithmetic.  An owning local is declared with its guard; ownership
 * leaves the scope by a typed steal, so that the guard then finds nothing.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

static inline void cleanup_freep(void *p)
{
	free(*(void **)p);
}
#define cleanup_free __attribute__((cleanup(cleanup_freep)))

/* The argument is evaluated once. */
#define steal_ptr(pp)                          \
	({                                     \
		__typeof__(pp) _pp = (pp);     \
		__typeof__(*_pp) _p = *_pp;    \
		*_pp = NULL;                   \
		_p;                            \
	})

/* True when the result fits; numbers that came from a peer go through these. */
static inline bool add_u64(uint64_t a, uint64_t b, uint64_t *out)
{
	return !__builtin_add_overflow(a, b, out);
}
static inline bool mul_u64(uint64_t a, uint64_t b, uint64_t *out)
{
	return !__builtin_mul_overflow(a, b, out);
}
/* Is [start, start+len) inside [0, limit)?  False for an empty range. */
static inline bool range_inside(uint64_t start, uint64_t len, uint64_t limit)
{
	return len != 0 && start < limit && len <= limit - start;
}
static inline bool is_power_of_two(uint64_t v)
{
	return v != 0 && (v & (v - 1)) == 0;
}
#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

#endif
