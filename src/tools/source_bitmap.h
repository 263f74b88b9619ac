/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_SOURCE_BITMAP_H
#define PC_TOOLS_SOURCE_BITMAP_H
/*
 * What a destination says it has of one block: a RECV_BITMAP answer behind its size.
 *
 * One bit a target page, 1 is received, byte i / 8, bit i % 8; the length is rounded up to 8 bytes,
 * and an end mark follows.  Belongs to the return thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tools/source_block.h"
#include "tools/source_check.h"

struct source_bitmap {
	struct source_check *check;
	struct source_block *block; /* NULL: none is being read */
	uint8_t *bytes;		    /* owned: the bitmap and its end mark */
	size_t len, have;
};

void source_bitmap_deinit(struct source_bitmap *m);
/* Bytes that a destination sends for @b. */
uint64_t source_bitmap_size(const struct source_block *b);
/* @size: what the answer says.  0, or -EPROTO with a violation, or -ENOMEM. */
int source_bitmap_begin(struct source_bitmap *m, struct source_check *check, struct source_block *b,
			uint64_t size);
/* Takes what belongs to it of @n bytes; returns how many. */
size_t source_bitmap_take(struct source_bitmap *m, const uint8_t *bytes, size_t n);
bool source_bitmap_is_whole(const struct source_bitmap *m);
/* What is received is claimed; the rest is not.  0, or -EPROTO with a violation. */
int source_bitmap_apply(struct source_bitmap *m);

#endif
