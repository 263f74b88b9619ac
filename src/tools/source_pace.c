// SPDX-License-Identifier: GPL-2.0-or-later
#include "config.h"

#include "source_pace.h"

#include <errno.h>

#define SECOND 1000000000u		/* ns */

struct source_pace source_pace_begin(uint64_t rate)
{
	return (struct source_pace){ .rate = rate, .due = source_session_now() };
}

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

int source_pace_wait(struct source_pace *pace, struct source_session *s, uint64_t bytes)
{
	uint64_t now;

	if (!pace->rate)
		return source_session_goes_on(s) ? 0 : -ECONNABORTED;
	now = source_session_now();
	pace->due += (uint64_t)((double)bytes / (double)pace->rate * SECOND);
	if (pace->due + SECOND < now)
		pace->due = now - SECOND;	/* time lost long ago is not made up for */
	return pace->due > now ? source_session_wait(s, never, pace->due) : 0;
}
