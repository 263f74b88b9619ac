/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_CLIENT_SIZED_H
#define PC_CLIENT_SIZED_H
/* Structs of the public header, which begin with their size. */
#include <stddef.h>

/*
 * The caller's struct @src, built against an older or a newer header, as the one we know: what an
 * older caller lacks is zero; what a newer one adds must be zero, or it asks for what we cannot do.
 * 0; -EINVAL: shorter than @least; -E2BIG.
 */
int sized_take(void *dst, size_t size, size_t least, const void *src);

#endif
