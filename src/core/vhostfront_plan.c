/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is done about each request of the VMM, as steps.  vhostfront.c says why.
 */
#include "config.h"

#include "core/vhostfront_parts.h"

#include <assert.h>
#include <errno.h>

void vhostfront_step(struct vhostfront *v, enum vhostfront_verb verb, uint64_t value)
{
	assert(v->n_steps < VHOSTFRONT_STEPS);
	v->plan[v->n_steps++] = (struct vhostfront_action){ .verb = verb, .value = value };
}

static int refuse(struct vhostfront *v, const char *text)
{
	v->refusal = text;
	return -EPROTO;
}

/* Passed on as it is, with what the back-end says to it. */
static void plan_pass(struct vhostfront *v)
{
	vhostfront_step(v, VHOSTFRONT_DO_RELAY, 0);
	v->plan[v->n_steps - 1].urged = v->said.wants && !v->said.data;
	if (!v->said.data || v->said.what == VHOSTFRONT_RING_STOP)
		vhostfront_step(v, VHOSTFRONT_DO_KEEP, 0);
	if (v->said.wants)
		vhostfront_step(v, VHOSTFRONT_DO_PASS_ANSWER, 0);
}

/* The VMM goes on, the back-end has not heard it yet. */
static int plan_hold(struct vhostfront *v)
{
	if (v->held == VHOSTFRONT_HELD)
		return refuse(v, "the VMM says more than can be held until memory may be touched");
	vhostfront_step(v, VHOSTFRONT_DO_HOLD, 0);
	if (!v->said.wants)
		return 0;
	vhostfront_step(v, VHOSTFRONT_DO_ANSWER, 0);
	if (v->said.what == VHOSTFRONT_RING_STOP) {
		v->plan[v->n_steps - 1].verb = VHOSTFRONT_DO_ANSWER_BASE;
		v->plan[v->n_steps - 1].ring = v->said.ring;
		v->plan[v->n_steps - 1].value = v->base[v->said.ring];
	}
	return 0;
}

static int hear_other(struct vhostfront *v)
{
	if (v->gating && !v->said.data && !vhostfront_may_touch(v))
		return plan_hold(v);
	plan_pass(v);
	return 0;
}

static int hear_set_features(struct vhostfront *v)
{
	v->mq = v->said.value & VHOSTFRONT_NET_MQ;
	if (v->config.repair && v->listening && v->mq)
		return refuse(
			v,
			"the VMM's own postcopy cannot serve a multiqueue net device: use one pair of queues");
	return hear_other(v);
}

/* What the VMM is shown of the features that the back-end offers. */
uint64_t vhostfront_shown(const struct vhostfront *v)
{
	uint64_t hidden = 0;

	if (!v->config.repair)
		hidden |= VHOSTFRONT_PAGEFAULT; /* it would begin a postcopy of its own */
	if (v->config.repair || v->dialect == VHOSTFRONT_SPEC)
		/* no library does their exchange of addresses right */
		hidden |= VHOSTFRONT_MEM_SLOTS;
	return v->offered & v->config.protocol & ~hidden;
}

static int hear_set_protocol(struct vhostfront *v)
{
	uint64_t add = v->config.repair ? 0 : VHOSTFRONT_REPLY_ACK | VHOSTFRONT_PAGEFAULT;

	if (v->said.value & ~vhostfront_shown(v))
		return refuse(v, "the VMM chose a protocol feature that it was not offered");
	if (v->dialect == VHOSTFRONT_GATED)
		add = 0;
	plan_pass(v);
	v->plan[0].value = v->said.value | (v->offered & v->config.protocol & add);
	return 0;
}

/* The dialect's way to a table whose every mapping is proven. */
static void plan_table(struct vhostfront *v)
{
	bool ack = v->agreed & VHOSTFRONT_REPLY_ACK, first = !v->advised;

	if (v->said.what == VHOSTFRONT_TABLE && vhostfront_running(v) < VHOSTFRONT_RINGS)
		vhostfront_step(v, VHOSTFRONT_DO_STOP_RING, 0);
	if (first && v->dialect != VHOSTFRONT_RUST)
		vhostfront_step(v, VHOSTFRONT_DO_ADVISE, 0);
	if (first && v->dialect == VHOSTFRONT_SPEC)
		vhostfront_step(v, VHOSTFRONT_DO_LISTEN, 0);
	if (v->dialect == VHOSTFRONT_SPEC) {
		vhostfront_step(v, VHOSTFRONT_DO_RELAY_BASES, 0);
		vhostfront_step(v, VHOSTFRONT_DO_ACK_BASES, 0);
	} else {
		vhostfront_step(v, VHOSTFRONT_DO_RELAY, 0);
		v->plan[v->n_steps - 1].urged = ack;
	}
	if (v->dialect == VHOSTFRONT_SPEC || !ack)
		vhostfront_step(v, VHOSTFRONT_DO_BARRIER, 0);
	if (first && v->dialect == VHOSTFRONT_RUST) {
		vhostfront_step(v, VHOSTFRONT_DO_ADVISE, 0);
		vhostfront_step(v, VHOSTFRONT_DO_LISTEN, 0);
	}
	vhostfront_step(v, VHOSTFRONT_DO_PROVE,
		   v->dialect == VHOSTFRONT_UNIVERSAL || (v->dialect == VHOSTFRONT_RUST && !first));
	vhostfront_step(v, VHOSTFRONT_DO_KEEP, 0);
	if (v->said.wants)
		vhostfront_step(v, VHOSTFRONT_DO_ANSWER, 0);
}

/* The first table decides whether a back-end can fault at all. */
static int choose_dialect(struct vhostfront *v)
{
	if (v->dialect != VHOSTFRONT_GATED && !(v->agreed & VHOSTFRONT_PAGEFAULT)) {
		if (!v->config.may_gate)
			return refuse(
				v,
				"the back-end does not offer PAGEFAULT: it cannot run before all memory is there");
		v->dialect = VHOSTFRONT_GATED;
	}
	v->gating = v->dialect == VHOSTFRONT_GATED;
	return 0;
}

static int hear_memory(struct vhostfront *v)
{
	int err;

	if (v->resident) {
		plan_pass(v);
		return 0;
	}
	err = choose_dialect(v);
	if (err)
		return err;
	if (v->dialect == VHOSTFRONT_SPEC && v->said.what == VHOSTFRONT_ADD_SLOT)
		return refuse(v, "the VMM adds a memory slot, which it was not offered");
	if (v->gating)
		return plan_hold(v);
	if (v->said.same && v->proven) {
		if (v->said.wants)
			vhostfront_step(v, VHOSTFRONT_DO_ANSWER, 0);
	} else {
		plan_table(v);
	}
	return 0;
}

static int hear_memory_repair(struct vhostfront *v)
{
	if (v->said.what == VHOSTFRONT_ADD_SLOT)
		return refuse(v, "the VMM adds a memory slot, which it was not offered");
	if (!v->listening && v->begun)
		return refuse(
			v,
			"the VMM connected anew in its own postcopy: the back-end would read zeroes");
	if (!v->listening) {
		plan_pass(v);
		return 0;
	}
	vhostfront_step(v, VHOSTFRONT_DO_RELAY_BASES, 0);
	vhostfront_step(v, VHOSTFRONT_DO_KEEP, 0);
	vhostfront_step(v, VHOSTFRONT_DO_PASS_REPAIRED, 0);
	return 0;
}

static int hear_table(struct vhostfront *v)
{
	return v->config.repair ? hear_memory_repair(v) : hear_memory(v);
}

static int hear_bases_ack(struct vhostfront *v)
{
	if (!v->config.repair || !v->listening)
		return refuse(v, "the VMM accepts addresses that nobody told it");
	vhostfront_step(v, VHOSTFRONT_DO_ACK_BASES, 0);
	vhostfront_step(v, VHOSTFRONT_DO_BARRIER, 0);
	vhostfront_step(v, VHOSTFRONT_DO_PROVE, 0);
	return 0;
}

static int hear_ring(struct vhostfront *v)
{
	/* These two touch no memory; behind others of a ring they have to wait for their turn. */
	bool quiet = v->said.what == VHOSTFRONT_RING_BASE || v->said.what == VHOSTFRONT_RING_STOP;

	if (v->said.ring >= VHOSTFRONT_RINGS)
		return refuse(v, "no ring has that number");
	if (v->said.what == VHOSTFRONT_RING_BASE)
		v->base[v->said.ring] = v->said.value;
	if (!vhostfront_may_touch(v) && !(quiet && v->held == 0 && !v->gating))
		return plan_hold(v);
	plan_pass(v);
	return 0;
}

static int hear_postcopy(struct vhostfront *v)
{
	if (!v->config.repair)
		return refuse(v, "the VMM begins a postcopy of its own, which it was not offered");
	if (v->said.what != VHOSTFRONT_END && v->mq)
		return refuse(
			v,
			"the VMM's own postcopy cannot serve a multiqueue net device: use one pair of queues");
	plan_pass(v);
	return 0;
}

static int (*const hearers[VHOSTFRONT_WHATS])(struct vhostfront *v) = {
	[VHOSTFRONT_OTHER] = hear_other,	     [VHOSTFRONT_SET_FEATURES] = hear_set_features,
	[VHOSTFRONT_GET_PROTOCOL] = hear_other,	     [VHOSTFRONT_SET_PROTOCOL] = hear_set_protocol,
	[VHOSTFRONT_TABLE] = hear_table,	     [VHOSTFRONT_ADD_SLOT] = hear_table,
	[VHOSTFRONT_DROP_SLOT] = hear_other,	     [VHOSTFRONT_BASES_ACK] = hear_bases_ack,
	[VHOSTFRONT_RING_BASE] = hear_ring,	     [VHOSTFRONT_RING_STOP] = hear_ring,
	[VHOSTFRONT_RING_ADDR] = hear_ring,	     [VHOSTFRONT_RING_KICK] = hear_ring,
	[VHOSTFRONT_RING_ENABLE] = hear_ring,	     [VHOSTFRONT_ADVISE] = hear_postcopy,
	[VHOSTFRONT_LISTEN] = hear_postcopy,	     [VHOSTFRONT_END] = hear_postcopy,
};

/* One request, one plan. */
int vhostfront_plan(struct vhostfront *v)
{
	return hearers[v->said.what](v);
}
