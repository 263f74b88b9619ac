/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A bit is 1 for a page whose content is here, in whatever form, or that must not come again: one
 * that is lost, or that its owner gave back.  It is 0 for a page that a lane had and could not
 * place, for that page's bytes went with the lane.  Bits of a huge page are all alike: part of one
 * is as good as none of it.
 */
#include "config.h"
#include "core/received.h"

#include <stdbool.h>

static const bool is_here[PAGE_STATES] = {
	[PAGE_PRESENT] = true, [PAGE_STORED] = true,  [PAGE_ZERO] = true,
	[PAGE_LOST] = true,    [PAGE_REMOVED] = true,
};

/**
 * received_size - bytes of the bitmap of a block
 * @target: bytes of a target page, a power of two that the block's page size is a multiple of
 */
uint64_t received_size(const struct block *b, uint64_t target)
{
	uint64_t words = b->length / target / 64 + (b->length / target % 64 != 0);

	return words * 8;
}

/**
 * received_fill - a piece of the bitmap, from the ledger as it is now
 * @at: byte of the bitmap
 * @n: bytes; @at + @n is at most received_size()
 */
void received_fill(const struct ledger *l, const struct block *b, uint64_t target, uint64_t at,
		   uint8_t *out, size_t n)
{
	uint64_t bits = b->length / target, per_page = b->page_size / target;
	uint64_t bit = at * 8, known = UINT64_MAX;
	bool here = false;

	for (size_t i = 0; i < n; i++) {
		unsigned byte = 0;

		for (unsigned k = 0; k < 8 && bit < bits; k++, bit++) {
			if (bit / per_page != known) {
				known = bit / per_page;
				here = is_here[ledger_get(l, b->first + known)];
			}
			byte |= (unsigned)here << k;
		}
		out[i] = (uint8_t)byte;
	}
}
