/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_PROVE_MAPPED_H
#define PC_DAEMON_PROVE_MAPPED_H
/*
 * Proving what a program that is unaware of us has mapped while the session is on.
 */
#include "daemon/prove.h"
#include "daemon/remap.h"
#include "wire/regmsg.h"

/* What it said it mapped, and where to look for it. */
struct prove_note {
	struct regmsg_mapped mapped;
	const struct prove_block *known;	/* the shared blocks */
	unsigned n_known;
};

/*
 * Find and register what it maps now.  Of one that the fault thread serves c->proven stays, and
 * r->added is what was registered and is new, whatever comes back; of others c->proven is filled.
 * 0; -EINPROGRESS: r->gone is to be forgotten first, nothing was done; -errno with c->problem.
 */
int prove_mapped(struct client *c, const struct prove_note *note, struct remap *r);

#endif
