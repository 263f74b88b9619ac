/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"
#include "daemon/roster.h"

#include <stdio.h>
#include <string.h>

#include "sys/fd.h"

void roster_init(struct roster *r)
{
	memset(r, 0, sizeof(*r));
	for (unsigned i = 0; i < SHARER_MAX; i++)
		r->member[i].uffd = -1;
}

void roster_deinit(struct roster *r)
{
	for (unsigned i = 0; i < SHARER_MAX; i++)
		close_fd(&r->member[i].uffd);
}

struct member *roster_enter(struct roster *r, struct sharer_ref ref)
{
	struct member *m = &r->member[ref.slot];

	if (r->used <= ref.slot)
		r->used = ref.slot + 1u;
	close_fd(&m->uffd);
	*m = (struct member){ .uffd = -1, .ref = ref };
	return m;
}

struct member *roster_find(struct roster *r, uint32_t id)
{
	for (unsigned i = 0; i < r->used; i++)
		if (r->member[i].id == id)
			return &r->member[i];
	return NULL;
}

struct member *roster_active(struct roster *r, struct sharer_ref ref)
{
	struct member *m = ref.slot < SHARER_MAX ? &r->member[ref.slot] : NULL;

	return m && m->id && m->state == SHARER_ACTIVE && m->ref.generation == ref.generation ? m : NULL;
}

void roster_end(struct member *m, enum snapshot_sharer_state how, int error, const char *reason, uint64_t now)
{
	if (how != SHARER_DISABLED)
		close_fd(&m->uffd);
	m->state = how;
	m->error = error;
	m->state_ns = now;
	m->ready = false;
	snprintf(m->reason, sizeof(m->reason), "%s", reason);
}
