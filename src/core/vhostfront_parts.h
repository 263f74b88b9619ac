/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_CORE_VHOSTFRONT_PARTS_H
#define PC_CORE_VHOSTFRONT_PARTS_H
/* Between vhostfront.c, which runs plans, and vhostfront_plan.c, which makes them. */
#include "core/guard.h"
#include "core/vhostfront.h"

/* The plan for v->said, into an empty one.  -EPROTO: refused, with v->refusal. */
int vhostfront_plan(struct vhostfront *v);
void vhostfront_step(struct vhostfront *v, enum vhostfront_verb verb, uint64_t value);
/* What the VMM is shown of the protocol's features that the back-end offers. */
uint64_t vhostfront_shown(const struct vhostfront *v);

static inline bool vhostfront_tells_memory(const struct vhostfront *v)
{
	return v->said.what == VHOSTFRONT_TABLE || v->said.what == VHOSTFRONT_ADD_SLOT;
}

/* May the back-end touch memory? */
static inline bool vhostfront_may_touch(const struct vhostfront *v)
{
	if (v->resident || (v->proven && !v->early))
		return true;
	return v->config.repair && !v->listening;
}

/* The first that runs; VHOSTFRONT_RINGS: none. */
static inline unsigned vhostfront_running(const struct vhostfront *v)
{
	for (unsigned i = 0; i < ARRAY_LEN(v->started); i++)
		if (v->started[i])
			return i * 64 + (unsigned)__builtin_ctzll(v->started[i]);
	return VHOSTFRONT_RINGS;
}

#endif
