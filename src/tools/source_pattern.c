// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Made to be computed anywhere: by the sender while it sends, by a receiver that checks, by a test
 * in another language.  The formula is an interface (source_pattern.h,
 * tests/flow/source_content.py); a change there has to be made here too.
 */
#include "config.h"

#include "source_pattern.h"

#include <endian.h>
#include <string.h>

#define STEP	   UINT64_C(0x9e3779b97f4a7c15)
#define STAGE_STEP UINT64_C(0xd1b54a32d192ed03)

static uint64_t mix(uint64_t v)
{
	v = (v ^ (v >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	v = (v ^ (v >> 27)) * UINT64_C(0x94d049bb133111eb);
	return v ^ (v >> 31);
}

static uint64_t hash_name(const char *name)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	for (; *name; name++)
		h = (h ^ (uint8_t)*name) * UINT64_C(0x100000001b3);
	return h;
}

/**
 * source_pattern_key - a number that differs for every (seed, name)
 */
uint64_t source_pattern_key(uint64_t seed, const char *name)
{
	return mix(hash_name(name) ^ mix(seed));
}

/**
 * source_pattern_zero - is this unit one of the @percent per cent that are zero?
 * @salt: tells units of different sizes apart
 */
bool source_pattern_zero(uint64_t key, uint64_t salt, uint64_t unit, unsigned percent)
{
	return percent && mix(key ^ mix(unit + salt)) % 100 < percent;
}

/**
 * source_pattern_fill - the content of target page @page
 * @out: SOURCE_TARGET_PAGE bytes
 *
 * The loop has no dependency between words, so that the compiler turns it into vector additions.
 */
void source_pattern_fill(uint64_t key, uint64_t page, enum source_stage stage, uint8_t *out)
{
	uint64_t base = mix(key + page * STEP + stage * STAGE_STEP);

	for (unsigned i = 0; i < SOURCE_TARGET_PAGE / 8; i++) {
		uint64_t word = htole64(base + i * STEP);

		memcpy(out + i * 8, &word, 8);
	}
}
