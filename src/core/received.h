/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_CORE_RECEIVED_H
#define PC_CORE_RECEIVED_H
/*
 * What a resumed source asks first: which pages of a block have come.  One bit for each target page
 * of @target bytes, little-endian; the source sends again what is 0.
 */
#include <stddef.h>
#include <stdint.h>
#include "core/block.h"
#include "core/ledger.h"

/* Bytes of a block's bitmap: whole 64-bit words. */
uint64_t received_size(const struct block *b, uint64_t target);
/* Bytes [@at, @at + @n) of it; behind the last page they are 0. */
void received_fill(const struct ledger *l, const struct block *b, uint64_t target, uint64_t at,
		   uint8_t *out, size_t n);

#endif
