/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_WIRE_DIGEST_H
#define PC_WIRE_DIGEST_H
/*
 * XXH64 of bytes that come in pieces, inlined so that who links us needs no library for it.
 *
 * It finds accidents: a flipped bit, a lost or doubled piece.  It is no signature: who can change
 * the bytes can change the digest.
 */
#define XXH_INLINE_ALL
#include <stddef.h>
#include <stdint.h>

#include <xxhash.h>

struct digest {
	XXH64_state_t state;
};

static inline void digest_init(struct digest *d, uint64_t seed)
{
	XXH64_reset(&d->state, seed);
}

static inline void digest_feed(struct digest *d, const void *bytes, size_t len)
{
	if (len)
		XXH64_update(&d->state, bytes, len);
}

static inline uint64_t digest_value(const struct digest *d)
{
	return XXH64_digest(&d->state);
}

static inline uint64_t digest_of(const void *bytes, size_t len, uint64_t seed)
{
	return XXH64(bytes, len, seed);
}

#endif
