/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * No writer outlives its tracker.  Who writes guest memory are vCPUs and devices, and a page that
 * is written unnoticed arrives old.  Which of them must stop first depends on who takes notice:
 *
 *   plan G   the guest does, for its devices: its drivers dirty what devices wrote.  So the vCPUs
 *            are part of the tracker, and devices stop before them (S0-02);
 *   plan H   the host does, for both.  vCPUs stop first, since they would address devices that
 *            stand still (S3-68), and the tracker ends behind the devices.
 *
 * A quiesced device still counts as a writer, see vfiostate.c; a device may be quiesced while vCPUs
 * run, as some cannot be without them (S3-80), so there is no edge between those two.
 *
 * At the destination it is the memory that comes before its users: nothing is mapped before the
 * last discard (I2), no device leaves its standstill before all it reaches is mapped (I3), and
 * vCPUs, which can wait for pages, may run long before, if their accesses to devices wait (I5).
 *
 * Edges are what the rules say and no more, so that what is not ordered can be done side by side.
 * cutover_next() is one order of many.
 */
#include "config.h"
#include "core/cutover.h"

#include <errno.h>
#include <stddef.h>

#include "core/guard.h"

#define G (1u << CUTOVER_GUEST)
#define H (1u << CUTOVER_HOST)
#define A (1u << CUTOVER_ARRIVAL)

#define BIT(step) (UINT32_C(1) << (step))

/* Each plan's steps, in an order that keeps to all edges. */
static const struct {
	enum cutover_step step;
	unsigned plans;
} order[] = {
	{ CUTOVER_TRACK, G | H },	{ CUTOVER_NOTIFY, G },	    { CUTOVER_MARKED, G },
	{ CUTOVER_VCPUS_STOP, H },	{ CUTOVER_QUIESCE, G | H }, { CUTOVER_DEVICES_STOP, G | H },
	{ CUTOVER_VCPUS_STOP, G },	{ CUTOVER_SAVE, G | H },    { CUTOVER_SYNC, G | H },
	{ CUTOVER_UNTRACK, G | H },	{ CUTOVER_DISCARD, G | H }, { CUTOVER_SEND_SET, G | H },
	{ CUTOVER_PACKAGE, G | H },	{ CUTOVER_HAND_OVER, G | H },
	{ CUTOVER_DISCARDED, A },	{ CUTOVER_SERVE, A },	    { CUTOVER_PARK, A },
	{ CUTOVER_LOAD, A },		{ CUTOVER_VCPUS_RUN, A },   { CUTOVER_MAP, A },
	{ CUTOVER_START, A },		{ CUTOVER_RUN, A },	    { CUTOVER_UNPARK, A },
};

static const struct {
	unsigned plans;
	enum cutover_step before, after;
	const char *name;
} edges[] = {
	{ G | H, CUTOVER_TRACK, CUTOVER_QUIESCE, "nothing stops for a migration without a tracker" },
	{ H, CUTOVER_TRACK, CUTOVER_VCPUS_STOP, "nothing stops for a migration without a tracker" },
	{ G, CUTOVER_TRACK, CUTOVER_NOTIFY, "what the guest marks has to be noticed" },
	{ G, CUTOVER_NOTIFY, CUTOVER_MARKED, "the guest marks when it is told to" },
	{ G, CUTOVER_MARKED, CUTOVER_DEVICES_STOP, "the guest marks what devices use before they stop" },
	{ G, CUTOVER_DEVICES_STOP, CUTOVER_VCPUS_STOP, "no writer outlives its tracker: devices the guest" },
	{ H, CUTOVER_VCPUS_STOP, CUTOVER_DEVICES_STOP, "nobody addresses a device that stands still: a vCPU" },
	{ G | H, CUTOVER_QUIESCE, CUTOVER_DEVICES_STOP, "nobody addresses a device that stands still: another one" },
	{ G | H, CUTOVER_DEVICES_STOP, CUTOVER_SAVE, "what is saved does not change any more" },
	{ G | H, CUTOVER_DEVICES_STOP, CUTOVER_SYNC, "nothing is written behind the last look: by a device" },
	{ G | H, CUTOVER_VCPUS_STOP, CUTOVER_SYNC, "nothing is written behind the last look: by a vCPU" },
	{ G | H, CUTOVER_SYNC, CUTOVER_UNTRACK, "a tracker is asked before it ends" },
	{ G | H, CUTOVER_SYNC, CUTOVER_DISCARD, "what is old is known before it is told" },
	{ G | H, CUTOVER_DISCARD, CUTOVER_SEND_SET, "what was sent is not discarded" },
	{ G | H, CUTOVER_DISCARD, CUTOVER_PACKAGE, "all discards go before the package" },
	{ G | H, CUTOVER_SAVE, CUTOVER_PACKAGE, "the devices' state is part of the package" },
	{ G | H, CUTOVER_PACKAGE, CUTOVER_HAND_OVER, "a VM is handed over whole" },
	{ G | H, CUTOVER_UNTRACK, CUTOVER_HAND_OVER, "trackers end with the source's part" },
	{ G, CUTOVER_SEND_SET, CUTOVER_HAND_OVER, "a guest's drivers cannot wait for their rings" },

	{ A, CUTOVER_DISCARDED, CUTOVER_SERVE, "no page goes that was served" },
	{ A, CUTOVER_SERVE, CUTOVER_LOAD, "a device that is loaded may touch memory" },
	{ A, CUTOVER_SERVE, CUTOVER_MAP, "all discards go before the first mapping" },
	{ A, CUTOVER_LOAD, CUTOVER_VCPUS_RUN, "there is no way back once vCPUs run" },
	{ A, CUTOVER_PARK, CUTOVER_VCPUS_RUN, "nobody addresses a device that stands still: a vCPU" },
	{ A, CUTOVER_LOAD, CUTOVER_START, "a device has its state before it starts" },
	{ A, CUTOVER_MAP, CUTOVER_START, "a device reaches only what is there" },
	{ A, CUTOVER_START, CUTOVER_RUN, "nobody addresses a device that stands still: another one" },
	{ A, CUTOVER_RUN, CUTOVER_UNPARK, "nobody addresses a device that stands still: a vCPU" },
	{ A, CUTOVER_PARK, CUTOVER_UNPARK, "only what is parked is freed" },
};

/**
 * cutover_init - nothing is done yet
 */
void cutover_init(struct cutover *c, enum cutover_plan plan)
{
	*c = (struct cutover){ .plan = plan };
}

static bool is_done(const struct cutover *c, enum cutover_step step)
{
	return c->done & BIT(step);
}

static bool is_in_plan(const struct cutover *c, enum cutover_step step)
{
	for (unsigned i = 0; i < ARRAY_LEN(order); i++)
		if (order[i].step == step && order[i].plans >> c->plan & 1)
			return true;
	return false;
}

/**
 * cutover_edge - what would be wrong with a step now
 *
 * Return: the rule, static; NULL: nothing, or the step is done or not in the plan.
 */
const char *cutover_edge(const struct cutover *c, enum cutover_step step)
{
	if (is_done(c, step) || !is_in_plan(c, step))
		return NULL;
	for (unsigned i = 0; i < ARRAY_LEN(edges); i++)
		if (edges[i].after == step && edges[i].plans >> c->plan & 1 &&
		    !is_done(c, edges[i].before))
			return edges[i].name;
	return NULL;
}

/**
 * cutover_did - a step was done
 *
 * Return: 0; -EALREADY; -EINVAL: the plan does not have it; -EPERM: it was too early, and does not
 * count.
 */
int cutover_did(struct cutover *c, enum cutover_step step)
{
	if (!is_in_plan(c, step))
		return -EINVAL;
	if (is_done(c, step))
		return -EALREADY;
	if (cutover_edge(c, step))
		return -EPERM;
	c->done |= BIT(step);
	return 0;
}

/**
 * cutover_next - the next step of the plan's own order, which is always allowed
 */
bool cutover_next(const struct cutover *c, enum cutover_step *step)
{
	for (unsigned i = 0; i < ARRAY_LEN(order); i++) {
		if (!(order[i].plans >> c->plan & 1) || is_done(c, order[i].step))
			continue;
		*step = order[i].step;
		return true;
	}
	return false;
}

/**
 * cutover_may_abort - does the source's VM still go on if this ends now?
 */
bool cutover_may_abort(const struct cutover *c)
{
	const uint32_t point = BIT(CUTOVER_HAND_OVER) | BIT(CUTOVER_VCPUS_RUN) | BIT(CUTOVER_START);

	return !(c->done & point);
}

/**
 * cutover_blind - does somebody write whom nobody tracks?
 *
 * Once there is a tracker, and until the VM is handed over, this must never be true; at the
 * destination there is none to have.
 */
bool cutover_blind(const struct cutover *c)
{
	bool vcpus = !is_done(c, CUTOVER_VCPUS_STOP), devices = !is_done(c, CUTOVER_DEVICES_STOP);
	bool host = !is_done(c, CUTOVER_UNTRACK), guest = vcpus && host;

	if (c->plan == CUTOVER_ARRIVAL || !is_done(c, CUTOVER_TRACK))
		return false;
	return (vcpus && !host) || (devices && !(c->plan == CUTOVER_GUEST ? guest : host));
}

/**
 * cutover_step_name - the word for a step in reports; static, "?" for none
 */
const char *cutover_step_name(enum cutover_step step)
{
	static const char *const names[CUTOVER_STEPS] = {
		"track", "notify", "marked", "vcpus-stop", "quiesce", "devices-stop", "save", "sync",
		"untrack", "discard", "send-set", "package", "hand-over", "discarded", "serve",
		"load", "park", "vcpus-run", "map", "start", "run", "unpark",
	};

	return (unsigned)step < ARRAY_LEN(names) ? names[step] : "?";
}
