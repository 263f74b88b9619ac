/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_CTL_PACE_H
#define PC_TOOLS_CTL_PACE_H
/* Rates over the last seconds, from the counters of successive views.  Pure: the clock is the
 * daemon's. */
#include "tools/ctl_view.h"

#define CTL_PACE_SAMPLES   16
#define CTL_PACE_WINDOW_NS 2000000000ull /* rates look that far back, if samples do */

struct ctl_sample {
	uint64_t now_ns, bytes[LANE_COUNT], pages[LANE_COUNT], faults, owed_left;
};

struct ctl_pace {
	unsigned n; /* samples, oldest first */
	struct ctl_sample sample[CTL_PACE_SAMPLES];
};

struct ctl_rates {
	double bytes[LANE_COUNT], pages[LANE_COUNT], faults; /* per second */
	uint64_t eta_ns; /* until nothing is owed; 0: not known */
};

/* A view that is not newer than the last one is ignored. */
void ctl_pace_add(struct ctl_pace *p, const struct ctl_view *v);
struct ctl_rates ctl_pace_rates(const struct ctl_pace *p);

#endif
