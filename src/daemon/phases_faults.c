/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fault injection, between the plan and who must hear of it.
 */
#include "config.h"
#include "daemon/phases_parts.h"

static void removed(void *ctx)
{
	faultloop_nudge(((struct phases *)ctx)->loop);
}

static void fired(void *ctx, const char *name, const char *text)
{
	struct phases *p = ctx;

	if (p->control)
		control_event(p->control, name, text);
}

/* Before there is anything that could go wrong. */
struct faultplan *phases_start_faults(struct phases *p, bool again)
{
	const struct faults_ops ops = { removed, fired, p };

	p->faults = faults_new(p->options, again, &ops);
	return faults_plan(p->faults);
}
