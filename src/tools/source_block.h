/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_SOURCE_BLOCK_H
#define PC_TOOLS_SOURCE_BLOCK_H
/*
 * One RAM block of the machine we pretend to be: its geometry, what its pages hold, and which of
 * them the destination is still owed.
 *
 * Content is computed or read from a file on demand and never stored, so a block may be larger than
 * the memory of the host.  "Claimed" is a bit per page of the block: whoever sets it, sends the
 * page.  Both sending threads claim, hence the atomics; everything else belongs to the thread that
 * sets up.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "tools/source_pattern.h"

struct source_block_spec {
	char name[256];
	uint64_t length;    /* bytes, a multiple of page_size */
	uint64_t page_size; /* bytes: 4 KiB, 2 MiB or 1 GiB */
	uint64_t seed;
	unsigned zero_percent;
	char *file; /* owned; NULL: pattern */
};

struct source_block {
	struct source_block_spec spec; /* spec.file is not ours */
	uint64_t key;
	uint64_t n_pages;
	int file;		   /* -1: pattern */
	_Atomic uint64_t *claimed; /* bit: sent, or not owed */
	_Atomic uint64_t *asked;   /* bit: the destination asked for it */
	_Atomic uint64_t *sent;	   /* bit: it left once, or was settled; never cleared */
};

int source_block_init(struct source_block *b, const struct source_block_spec *spec);
void source_block_deinit(struct source_block *b);

/* True for exactly one caller per page. */
bool source_block_claim(struct source_block *b, uint64_t page);
/* The page was sent before the switch-over and is clean: nobody will claim it. */
void source_block_settle(struct source_block *b, uint64_t page);
/* First page at or after @from nobody has claimed, or n_pages. */
uint64_t source_block_next_owed(const struct source_block *b, uint64_t from);
/* First page at or after @from that somebody has claimed or that was settled, or n_pages. */
uint64_t source_block_next_claimed(const struct source_block *b, uint64_t from);
/* Count a request.  False when that page was asked for before. */
bool source_block_ask(struct source_block *b, uint64_t page);
/* The page is about to leave.  False when it has left before. */
bool source_block_note_sent(struct source_block *b, uint64_t page);
bool source_block_was_sent(const struct source_block *b, uint64_t page);
/* After a lost connection: nothing is claimed, nothing was asked for.  What was sent stays so. */
void source_block_start_over(struct source_block *b);
/* Pages that nobody has claimed. */
uint64_t source_block_count_owed(const struct source_block *b);

/*
 * Content of target page @tpage.  1: all zero, @out is not written; 0: @out (SOURCE_TARGET_PAGE
 * bytes) is filled; -errno when the file cannot be read.
 */
int source_block_read(const struct source_block *b, uint64_t tpage, enum source_stage stage,
		      uint8_t *out);
/* Target pages in one page of the block. */
uint64_t source_block_fan(const struct source_block *b);
/* XXH3-128 of the whole final content, high half first. */
int source_block_digest(const struct source_block *b, uint64_t out[2]);

#endif
