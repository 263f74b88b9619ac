/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_ROSTER_H
#define PC_DAEMON_ROSTER_H
/*
 * The sharers as the fault thread holds them: who they are, their userfaultfds, and how they ended.
 * The engine knows the same slots as address spaces; the main thread knows them by id.
 *
 * A userfaultfd stays open until its process is gone, or has unmapped all that it served, or the
 * session has ended: closing it earlier would turn the missing pages of a living process into
 * zeroes (O11).  An ended sharer's descriptor is therefore kept, unread; its threads sleep.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "core/sharer.h"
#include "daemon/snapshot.h"

struct member {
	uint32_t id;			/* the main thread's; 0: the slot was never used */
	char name[64];
	pid_t pid;
	bool main;
	/* who speaks for it decides what its end means, until it has loaded the device state */
	bool spoken_for;
	uint32_t policy;		/* enum regmsg_policy */
	int uffd;			/* owned; -1 */
	struct sharer_ref ref;
	enum snapshot_sharer_state state;
	int error;
	char reason[256];
	uint64_t state_ns;
	bool reports;			/* its userfaultfd tells of memory that goes */
	/* a fault of it was read and found no room: it is to come again */
	bool unheard;
	bool armed;			/* a poll is with the ring */
	bool ready;			/* has more messages than were read */
	uint32_t wedged;		/* the rule by which it is not read; 0: none */
	/* of its JOIN, not here yet: its faults are not looked at */
	unsigned maps_due;
	bool marks_due;			/* of lost pages that it maps: see loss.c */
};

#define ROSTER_CHILDREN 256

struct roster {
	unsigned used;			/* slots from here on were never used */
	unsigned n_children;
	/* userfaultfds of processes that sharers forked: open, unread */
	int child[ROSTER_CHILDREN];
	struct member member[SHARER_MAX];
};

void roster_init(struct roster *r);
void roster_deinit(struct roster *r);
/* The slot the engine gave. */
struct member *roster_enter(struct roster *r, struct sharer_ref ref);
struct member *roster_find(struct roster *r, uint32_t id);
/* NULL unless it is active and this generation. */
struct member *roster_active(struct roster *r, struct sharer_ref ref);
/* Owns the userfaultfd of a forked process from here on; false when there are too many. */
bool roster_keep_child(struct roster *r, int uffd);
/*
 * It ends alone: recorded with its reason.  DEAD and LEFT close the descriptor, DISABLED keeps it.
 */
void roster_end(struct member *m, enum snapshot_sharer_state how, int error, const char *reason,
		uint64_t now);

#endif
