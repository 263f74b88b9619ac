/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_GATEKEEPER_PARTS_H
#define PC_DAEMON_GATEKEEPER_PARTS_H
/*
 * Between gatekeeper.c, which has the gates, and gatekeeper_report.c, which tells of them.
 */
#include "daemon/gatekeeper.h"

#include <glib.h>

#define GATE_NOT_RATED UINT64_MAX

struct hand {
	uint64_t iova;
	uint64_t answer;		/* the order with its result; 0: it is still being mapped */
};

struct kept_gate {
	char name[64];
	bool enforced, forgotten;
	struct gatekeeper_user user;
	struct snapshot_gate seen;
	uint64_t changed;		/* the last order that may close it again */
	uint64_t since;			/* the order with which its user's part begins */
	bool open_told;
	unsigned n_hands;
	struct hand hand[SNAPSHOT_DUE];
	/* what the next rate begins with; the last one, bytes in a second, or GATE_NOT_RATED */
	uint64_t mark_ns, mark_bytes, mark_ready, rate;
};

enum stage { EARLY, SERVED, OVER };

struct gatekeeper {
	struct faultloop *loop;
	enum stage stage;
	uint64_t serial, seen_serial;	/* of the last order: that was made, that a snapshot knew */
	bool halted;
	GPtrArray *blocks;		/* names, by index; from SERVED on */
	uint64_t pages;			/* of all blocks */
	GQueue kept;			/* EARLY: requests, in order */
	GPtrArray *out;			/* requests that the fault thread has */
	GQueue refused;			/* requests that end when the main loop is back */
	guint idle;
	unsigned n;
	struct kept_gate gate[SNAPSHOT_GATES];
};

/* An order that was made since may have closed it. */
static inline bool gate_is_open(const struct gatekeeper *k, const struct kept_gate *g)
{
	return g->seen.open && g->changed <= k->seen_serial;
}

/* Take its rate, once a look is in ->seen. */
void gatekeeper_rate(struct kept_gate *g, uint64_t now);

#endif
