/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_FUZZ_TARGET_H
#define PC_FUZZ_TARGET_H
/*
 * What the targets have in common: how they are entered, how they object, and bytes that end where
 * they are said to end.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)                                                                           \
	do {                                                                                       \
		if (!(condition))                                                                  \
			abort();                                                                   \
	} while (0)

/* A copy in memory of its own, the caller's to free: a read past the end of it is seen. */
static inline uint8_t *exactly(const uint8_t *bytes, size_t len)
{
	uint8_t *copy = malloc(len ? len : 1);

	CHECK(copy);
	if (len)
		memcpy(copy, bytes, len);
	return copy;
}

#endif
