/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "client/sized.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static bool all_zero(const uint8_t *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (bytes[i])
			return false;
	return true;
}

/**
 * sized_take - a struct of a caller that may be older or newer
 */
int sized_take(void *dst, size_t size, size_t least, const void *src)
{
	uint32_t theirs;

	if (!src)
		return -EINVAL;
	memcpy(&theirs, src, sizeof(theirs));
	if (theirs < least)
		return -EINVAL;
	if (theirs > size && !all_zero((const uint8_t *)src + size, theirs - size))
		return -E2BIG;
	memset(dst, 0, size);
	memcpy(dst, src, theirs < size ? theirs : size);
	return 0;
}
