/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_SOURCE_PACE_H
#define PC_TOOLS_SOURCE_PACE_H
/* Holds a sender to a rate, by the schedule it would have kept. */
#include <stddef.h>
#include <stdint.h>

#include "tools/source_session.h"

struct source_pace {
	uint64_t rate; /* bytes per second; 0: no limit */
	uint64_t due;  /* monotonic ns: when the next bytes may leave */
};

struct source_pace source_pace_begin(uint64_t rate);
/* How much to send in one go: a fiftieth of a second's worth, within [one page, @max]. */
size_t source_pace_portion(const struct source_pace *pace, size_t max);
/*
 * @bytes were sent; sleep until more may be.  0, or
 * -ECONNABORTED when the session is over.
 */
int source_pace_wait(struct source_pace *pace, struct source_session *s, uint64_t bytes);

#endif
