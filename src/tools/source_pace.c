// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Bytes are due by a schedule, not by the time since the last ones, so a sleep that takes too long
 * is made up for.  At most a second of it: after a long stall a burst would be no rate at all.
 */
#include "config.h"

#include "source_pace.h"

#include <errno.h>

#define SECOND 1000000000u /* ns */

/**
 * source_pace_begin - the schedule starts now; @rate 0: no limit
 */
struct source_pace source_pace_begin(uint64_t rate)
{
	return (struct source_pace){.rate = rate, .due = source_session_now()};
}

/**
 * source_pace_portion - how much to send in one go: a fiftieth of a second's worth, within [one
 * page, @max]
 */
size_t source_pace_portion(const struct source_pace *pace, size_t max)
{
	uint64_t portion = pace->rate / 50;

	if (!pace->rate || portion > max)
		return max;
	return portion > SOURCE_TARGET_PAGE ? (size_t)portion : SOURCE_TARGET_PAGE;
}

static bool never(const struct source_session *s)
{
	(void)s;
	return false;
}

/**
 * source_pace_wait - @bytes were sent; sleep until more may be
 *
 * Return: 0, or -ECONNABORTED when the session is over.
 */
int source_pace_wait(struct source_pace *pace, struct source_session *s, uint64_t bytes)
{
	uint64_t now;

	if (!pace->rate)
		return source_session_goes_on(s) ? 0 : -ECONNABORTED;
	now = source_session_now();
	pace->due += (uint64_t)((double)bytes / (double)pace->rate * SECOND);
	if (pace->due + SECOND < now)
		pace->due = now - SECOND; /* time lost long ago is not made up for */
	return pace->due > now ? source_session_wait(s, never, pace->due) : 0;
}
