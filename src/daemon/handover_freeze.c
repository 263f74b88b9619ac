/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The VM is stopped through its monitor, and goes on again, while its source is lost.
 *
 * Whether it runs is asked first, so that what somebody else stopped stays so.  That question has a
 * deadline: QEMU's main thread may wait for a page itself, and then nothing at its monitor is
 * answered.  `stop' has none.  It is in effect when it was read: each CPU stops as soon as it can,
 * which those that wait for a page cannot, and the answer comes when the last of them has.
 */
#include "config.h"
#include "daemon/handover_parts.h"

#include <string.h>

static void on_stop(void *ctx, const struct qmp_answer *a)
{
	struct handover *h = ctx;

	if (h->frozen == FROZEN_STOPPING)
		h->frozen = a->outcome == QMP_REFUSED ? FROZEN_CANNOT : FROZEN_STOPPED;
	h->ops.refresh(h->ops.ctx);
}

static void on_status(void *ctx, const struct qmp_answer *a)
{
	struct handover *h = ctx;
	struct qmp_call call = { on_stop, h, 0 };

	h->ops.refresh(h->ops.ctx);
	if (h->frozen != FROZEN_ASKING)
		return;
	h->frozen = a->outcome == QMP_OK ? FROZEN_IDLE : FROZEN_CANNOT;
	if (a->outcome != QMP_OK || strcmp(qmp_status(a), "running"))
		return;
	h->frozen = FROZEN_STOPPING;
	qmp_stop(h->qmp, call);
}

static void on_cont(void *ctx, const struct qmp_answer *a)
{
	struct handover *h = ctx;

	if (a->outcome == QMP_REFUSED)
		g_warning("QEMU does not let the VM go on: %s", a->text);
	if (h->frozen == FROZEN_GOING_ON)
		h->frozen = a->outcome == QMP_CLOSED ? FROZEN_STOPPED : FROZEN_NOT;
	h->ops.refresh(h->ops.ctx);
	handover_step(h);
}

static enum losspolicy_stop stop(struct handover *h)
{
	struct qmp_call call = { on_status, h, QMP_PATIENCE_MS };

	if (h->state < HANDOVER_CONT)
		return LOSSPOLICY_NOT_RUNNING;
	if (h->state == HANDOVER_CONT)
		return LOSSPOLICY_RUNS;	/* soon */
	if (h->state != HANDOVER_RUNNING || !handover_asks(h))
		return LOSSPOLICY_CANNOT;
	h->frozen = FROZEN_ASKING;
	qmp_query_status(h->qmp, call);
	return LOSSPOLICY_UNDER_WAY;
}

static enum losspolicy_stop go_on(struct handover *h)
{
	struct qmp_call call = { on_cont, h, 0 };

	if (!handover_asks(h))
		return LOSSPOLICY_STOPPED;
	h->frozen = FROZEN_GOING_ON;
	qmp_cont(h->qmp, call);
	return LOSSPOLICY_UNDER_WAY;
}

/**
 * handover_freeze - stop the VM, or have it go on if it was stopped here
 * @want: it shall be stopped
 *
 * Again and again until it is so.
 */
enum losspolicy_stop handover_freeze(struct handover *h, bool want)
{
	switch (h->frozen) {
	case FROZEN_NOT:
		return want ? stop(h) : LOSSPOLICY_RUNS;
	case FROZEN_ASKING:
	case FROZEN_GOING_ON:
		return LOSSPOLICY_UNDER_WAY;
	case FROZEN_STOPPING:
		return want ? LOSSPOLICY_STOPPED : LOSSPOLICY_UNDER_WAY;
	case FROZEN_STOPPED:
		return want ? LOSSPOLICY_STOPPED : go_on(h);
	default:
		break;
	}
	if (want)
		return h->frozen == FROZEN_IDLE ? LOSSPOLICY_NOT_RUNNING : LOSSPOLICY_CANNOT;
	h->frozen = FROZEN_NOT;
	return LOSSPOLICY_RUNS;
}
