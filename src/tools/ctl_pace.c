/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Rates from counters: the difference over a window of seconds, so that one slow answer does not
 * make a dip and a stall shows within the window.  Time is the daemon's own (now_ns of the same
 * answer): how long the answer took to come does not matter, and nothing here needs a clock.
 */
#include "config.h"
#include "tools/ctl_pace.h"
#include <string.h>

static struct ctl_sample sample_of(const struct ctl_view *v)
{
	struct ctl_sample s = {
		.now_ns = v->stats.now_ns,
		.faults = v->stats.total.faults,
		.owed_left = v->status.owed_left,
	};

	for (unsigned i = 0; i < LANE_COUNT; i++) {
		const struct ctl_lane *lane = &v->stats.lane[i];

		s.bytes[i] = lane->bytes;
		for (unsigned how = 0; how < HOW_COUNT; how++)
			s.pages[i] += lane->pages[how];
	}
	return s;
}

static void drop_oldest(struct ctl_pace *p)
{
	p->n--;
	memmove(&p->sample[0], &p->sample[1], p->n * sizeof(p->sample[0]));
}

/**
 * ctl_pace_add - one more view; one that is not newer than the last is ignored
 */
void ctl_pace_add(struct ctl_pace *p, const struct ctl_view *v)
{
	struct ctl_sample s = sample_of(v);

	if (p->n && s.now_ns <= p->sample[p->n - 1].now_ns)
		return;
	/* Keep one sample at or beyond the edge of the window: rates then cover it whole. */
	while (p->n >= 2 && s.now_ns - p->sample[1].now_ns >= CTL_PACE_WINDOW_NS)
		drop_oldest(p);
	if (p->n == CTL_PACE_SAMPLES)
		drop_oldest(p);
	p->sample[p->n++] = s;
}

/* Counters only grow; one that shrank belongs to another daemon and counts as still. */
static double per_second(uint64_t from, uint64_t to, double seconds)
{
	return to > from ? (double)(to - from) / seconds : 0;
}

/**
 * ctl_pace_rates - per second, over the window; all 0 until two views are there
 *
 * The ETA takes the pace at which owed pages came lately for the rest's.
 */
struct ctl_rates ctl_pace_rates(const struct ctl_pace *p)
{
	const struct ctl_sample *a = &p->sample[0], *b = &p->sample[p->n ? p->n - 1 : 0];
	struct ctl_rates r = {0};
	double seconds = p->n < 2 ? 0 : (double)(b->now_ns - a->now_ns) / 1e9, paid, eta;

	if (seconds <= 0)
		return r;
	for (unsigned i = 0; i < LANE_COUNT; i++) {
		r.bytes[i] = per_second(a->bytes[i], b->bytes[i], seconds);
		r.pages[i] = per_second(a->pages[i], b->pages[i], seconds);
	}
	r.faults = per_second(a->faults, b->faults, seconds);
	paid = per_second(b->owed_left, a->owed_left, seconds);
	eta = paid > 0 ? (double)b->owed_left / paid * 1e9 : 0;
	r.eta_ns = eta < 1e18 ? (uint64_t)eta : 0;
	return r;
}
