/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the device wrote, as the kernel's two structs say it.  They point at their ranges and at
 * their bitmap; a server has no use for our pointers, so both travel behind the fixed part.
 *
 * The kernel sets bits and clears none.  So does this: what several devices wrote adds up in one
 * bitmap.
 */
#include "config.h"

#include "sys/devio_vfiouser_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/guard.h"

struct start {
	uint64_t page_size; /* comes back changed when the device has another */
	uint32_t n, reserved;
	uint64_t ranges; /* a pointer, to n of {iova, length} */
};
struct report {
	uint64_t iova, length, page_size;
	uint64_t bitmap; /* a pointer */
};
#define START_HEAD  offsetof(struct start, ranges)
#define REPORT_HEAD offsetof(struct report, bitmap)
#define RANGE	    (2 * sizeof(uint64_t))

/* @room: bytes behind the head of the feature that the answer may have */
static void begin(struct vfiomsg *ask, uint32_t flags, size_t room)
{
	vfiomsg_ask(ask, VFIOMSG_FEATURE, 0);
	ask->fixed.feature = (struct vfiomsg_feature){ (uint32_t)(8 + room), flags };
}

/**
 * vfiouser_link_log_start - DMA_LOGGING_START
 * @data: the kernel's struct
 */
int vfiouser_link_log_start(struct vfiouser_link *l, uint32_t flags, void *data, size_t len,
			    uint64_t until)
{
	struct start s;
	struct vfiomsg ask, answer;
	cleanup_free uint8_t *bytes = NULL;
	size_t size;
	int err;

	if (len != sizeof(s))
		return -EINVAL;
	memcpy(&s, data, sizeof(s));
	if (l->terms.max_data < START_HEAD || s.n > (l->terms.max_data - START_HEAD) / RANGE)
		return -E2BIG;
	size = START_HEAD + s.n * RANGE;
	bytes = malloc(size);
	if (!bytes)
		return -ENOMEM;
	memcpy(bytes, &s, START_HEAD);
	if (s.n)
		memcpy(bytes + START_HEAD, (const void *)(uintptr_t)s.ranges, s.n * RANGE);
	begin(&ask, flags, size);
	ask.data = bytes;
	ask.len = size;
	err = vfiouser_link_ask(l, &ask, -1, &answer, until);
	if (!err && answer.len >= sizeof(s.page_size))
		memcpy(data, answer.data, sizeof(s.page_size));
	return err;
}

static void add_bits(uint8_t *bitmap, const uint8_t *more, size_t len)
{
	for (size_t i = 0; i < len; i++)
		bitmap[i] |= more[i];
}

/* Bytes of a bitmap with a bit for each page, in whole words of 64; 0 for what has none. */
static size_t bitmap_bytes(const struct report *r)
{
	uint64_t pages;

	if (!is_power_of_two(r->page_size) || r->length % r->page_size)
		return 0;
	pages = r->length / r->page_size;
	return (size_t)(pages / 64 + (pages % 64 != 0)) * 8;
}

/**
 * vfiouser_link_log_report - DMA_LOGGING_REPORT
 * @data: the kernel's struct
 *
 * A range whose bitmap does not fit into a message cannot be asked in parts, as servers report on
 * whole mappings only: -E2BIG.
 */
int vfiouser_link_log_report(struct vfiouser_link *l, uint32_t flags, void *data, size_t len,
			     uint64_t until)
{
	struct report r;
	struct vfiomsg ask, answer;
	size_t bits;
	int err;

	if (len != sizeof(r))
		return -EINVAL;
	memcpy(&r, data, sizeof(r));
	bits = bitmap_bytes(&r);
	if (bits == 0)
		return -EINVAL;
	if (l->terms.max_data < REPORT_HEAD || bits > l->terms.max_data - REPORT_HEAD)
		return -E2BIG;
	begin(&ask, flags, REPORT_HEAD + bits);
	ask.data = (const uint8_t *)&r;
	ask.len = REPORT_HEAD;
	err = vfiouser_link_ask(l, &ask, -1, &answer, until);
	if (err)
		return err;
	if (answer.len != REPORT_HEAD + bits || memcmp(answer.data, &r, REPORT_HEAD))
		return -EPROTO;
	add_bits((uint8_t *)(uintptr_t)r.bitmap, answer.data + REPORT_HEAD, bits);
	return 0;
}
