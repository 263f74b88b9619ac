/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TESTS_BENCH_DEVICE_REGION_H
#define PC_TESTS_BENCH_DEVICE_REGION_H
/*
 * The first version's region as cheap as it can be: registers are words of ours, the window is a
 * file.  What is left to measure is who drives it.
 */
#include <stdbool.h>
#include <stdint.h>

#include "sys/devio.h"

enum {
	DEVICE_REGION = 9,
	DEVICE_WINDOW = 0x1000,		/* where the window begins */
	DEVICE_SEGMENT = 1 << 20,	/* and how much of the state it shows at a time */
};

struct device_region {
	int file;			/* all of the region; the registers' page is not used */
	bool mappable;
	uint32_t state;
	uint64_t left;			/* of the state, still to be saved */
	bool offered;			/* a segment, until `pending_bytes` is read again */
	uint64_t loaded;
};

/* 0 or -errno; @d drives it, and closes it. */
int device_region_open(struct device_region *r, struct devio *d, bool mappable, uint64_t bytes);
/* pending_bytes, data_size and so on, as a program without migdev asks for them. */
uint64_t device_region_get(struct device_region *r, uint64_t reg);
void device_region_put(struct device_region *r, uint64_t reg, uint64_t value);

#endif
