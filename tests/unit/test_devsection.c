/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The state of devices in a package: found where it is, nowhere else, and refused when it is not
 * whole (S3-44).
 */
#include "config.h"

#include "wire/devsection.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"

static const uint8_t records[] = "records";
#define LEN sizeof(records)

/* A section, and the VM's own behind it. */
static size_t put(uint8_t *out, size_t room)
{
	struct pen p = pen_init(out, room);

	devsection_put(&p, 49, records, LEN);
	cr_assert_leq(pen_used(&p), DEVSECTION_ROOM + LEN);
	pen_bytes(&p, "vm", 2);
	cr_assert(!p.bad);
	return pen_used(&p);
}

Test(devsection, is_found_and_ends)
{
	uint8_t part[256];
	size_t len = put(part, sizeof(part));
	struct devsection s;
	const char *why = NULL;

	cr_assert_eq(devsection_find(part, len, &s, &why), 1);
	cr_assert_eq(s.len, LEN);
	cr_assert_arr_eq(part + s.at, records, LEN);
	cr_assert_eq(len - s.end, 2);
	cr_assert_arr_eq(part + s.end, "vm", 2);
}

Test(devsection, S3_44_cut_at_every_byte)
{
	uint8_t part[256];
	size_t len = put(part, sizeof(part)) - 2, name_ends = 5 + 1 + strlen("postcopy-device-state");
	struct devsection s;

	for (size_t cut = 0; cut < len; cut++) {
		cleanup_free uint8_t *copy = malloc(cut ? cut : 1);
		const char *why = NULL;
		int ret;

		cr_assert_not_null(copy);
		memcpy(copy, part, cut);
		ret = devsection_find(copy, cut, &s, &why);
		cr_assert_eq(ret, cut < name_ends ? 0 : -EPROTO, "%zu", cut);
		cr_assert_eq(ret < 0, why != NULL);
	}
}

Test(devsection, what_is_not_ours_and_what_is_not_right)
{
	static const struct {
		size_t at;
		int result;
	} flips[] = {
		{ 0, 0 },	 { 4, -EPROTO },  { 6, 0 },
		{ 30, -EPROTO }, { 34, -EPROTO }, { 36, -EPROTO },
	};
	uint8_t part[256];
	size_t len = put(part, sizeof(part));
	struct devsection s;
	const char *why;

	for (size_t i = 0; i < ARRAY_LEN(flips); i++) {
		part[flips[i].at] ^= 0x40;
		cr_assert_eq(devsection_find(part, len, &s, &why), flips[i].result, "byte %zu",
			     flips[i].at);
		part[flips[i].at] ^= 0x40;
	}
	cr_assert_eq(devsection_find((const uint8_t *)"\x04\0\0\0\0\3ide", 9, &s, &why), 0);
}
