/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_SOURCE_PATTERN_H
#define PC_TOOLS_SOURCE_PATTERN_H
/*
 * Page content that can be computed again by anyone who knows (seed, block name, page number).
 *
 *	key    = mix(fnv1a64(name) ^ mix(seed))
 *	base   = mix(key + page * 0x9e3779b97f4a7c15 + stage * 0xd1b54a32d192ed03)
 *	word i = base + i * 0x9e3779b97f4a7c15, little-endian
 *
 * A page here has 4 KiB.  mix is the finalizer of SplitMix64.  Stage 0 is the content that counts;
 * stage 1 is what a page held before the source dirtied it again, so that a destination which keeps
 * a discarded page is found out.
 */
#include <stdbool.h>
#include <stdint.h>

#define SOURCE_TARGET_PAGE 4096u /* bytes: unit of the wire */

enum source_stage { SOURCE_FINAL, SOURCE_STALE };

/* A number that differs for every (seed, name). */
uint64_t source_pattern_key(uint64_t seed, const char *name);
/*
 * Is unit @unit one of the @percent per cent that are zero?  @salt tells units of different sizes
 * apart.
 */
bool source_pattern_zero(uint64_t key, uint64_t salt, uint64_t unit, unsigned percent);
/* Fill @out (SOURCE_TARGET_PAGE bytes) with target page @page. */
void source_pattern_fill(uint64_t key, uint64_t page, enum source_stage stage, uint8_t *out);

#endif
