/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_SOURCE_PRECOPY_H
#define PC_TOOLS_SOURCE_PRECOPY_H
/*
 * What is sent before the switch-over, and what of it is dirty again by then.
 *
 * half sends every other run of 64 pages, all sends every page.  Of what was sent, every eighth run
 * of 8 pages and the last page of the block are dirtied again: they are sent with other content
 * first, then discarded and owed.  So there is always something to discard, as QEMU's destination
 * demands.
 */
#include "tools/source_pager.h"

bool source_precopy_sends(enum source_precopy share, uint64_t page);
bool source_precopy_dirties(const struct source_block *b, uint64_t page);

/*
 * The precopy phase of every block: sends, settles what stays clean, and counts what is owed.  When
 * nothing is dirtied again (@final), everything is settled.  0 or -ECONNABORTED.
 */
int source_precopy_run(struct source_pager *p, bool final);

#endif
