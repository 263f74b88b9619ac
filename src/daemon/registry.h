/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_REGISTRY_H
#define PC_DAEMON_REGISTRY_H
/*
 * Who wants to share which memory: what sharers declared at any door, before and after they are
 * proven.  Main thread only.
 *
 * A sharer is identified by the process at the other end of its socket (SO_PEERCRED), watched
 * through a pidfd.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <glib.h>
#include "core/sharer.h"
#include "sys/mem.h"

#define REGISTRY_BLOCKS 64

/* One RAM block as a sharer declared it. */
struct offer {
	char name[256];
	uint64_t length, page_size;
	bool private;
	int file;			/* owned; -1 when private */
	uint64_t file_offset;
	struct mem_identity identity;
};

/*
 * A mapping a sharer named itself (private memory, or self-registered).  Whether it registered it
 * is not kept: registering once more is harmless, and the proof is the same.
 */
struct given_mapping {
	unsigned offer;			/* index */
	uint64_t address, length, block_offset;
};

enum client_state {
	CLIENT_NEW,			/* connected, no hello yet */
	CLIENT_DECLARING,		/* hello accepted */
	CLIENT_PROVING,			/* everything declared, being proven for the first time */
	CLIENT_READY,			/* proven; again when it joins */
	CLIENT_JOINED,			/* proven and handed to the fault thread */
	/* cannot be served; its userfaultfd is kept so that what is registered sleeps */
	CLIENT_REFUSED,
	CLIENT_ENDED,			/* left, dead, or refused: kept for its socket only */
};

enum client_told {			/* events that were sent, each once */
	TOLD_LISTENING = 1, TOLD_PACKAGE = 2, TOLD_RUNNING = 4, TOLD_COMPLETE = 8, TOLD_FAILED = 16,
	TOLD_PAUSED = 32, TOLD_DISABLED = 64,
};

struct client {
	uint32_t id;			/* unique in this daemon's life */
	uint64_t token;
	enum client_state state;
	char name[64];
	bool main, needs_kernel;
	/* the program says nothing itself: somebody here speaks for it, or the daemon looks */
	bool unaware;
	bool loaded;			/* it said so */
	bool held;			/* and the VM may not run yet */
	bool asked;			/* a question about its mappings is out (door_prove.c) */
	bool overdue;			/* and has been for too long */
	bool changing;			/* its mappings are: nobody looks at them (door_ward.c) */
	bool told_since;		/* a ward: of memory, since it was proven */
	bool ward;			/* somebody here speaks for it (door_ward.c) */
	bool orphan;			/* somebody did (door_orphan.c) */
	/* READY, or refused for what was found since: proven again, to be handed over */
	bool joining;
	bool released;			/* of its registrations, as far as they could be undone */
	bool load_failed;		/* it said so */
	/* refused, since an earlier process forgot what it has: that may be registered (O11) */
	bool adrift;
	/* an access of the kernel was seen to wait for a page of its userfaultfd */
	bool kernel_waits;
	/* everything it maps of its blocks is registered and verified */
	bool registered;
	uint32_t policy;		/* enum regmsg_policy */
	pid_t pid;
	int pidfd;			/* owned */
	int uffd;			/* owned */
	unsigned n_offers, n_given, n_proven;
	struct offer offer[REGISTRY_BLOCKS];
	struct given_mapping given[SHARER_MAPPINGS];
	struct mapping proven[SHARER_MAPPINGS];	/* what was handed to the fault thread */
	/* of a copy: in the same process, registered by others */
	unsigned n_elsewhere;
	struct mapping elsewhere[SHARER_MAPPINGS];
	unsigned told;			/* enum client_told */
	unsigned told_before;		/* of these, what has certainly left */
	/* the request that was read, or is being read, and has no answer (door_keep.c); 0 */
	uint32_t noted, noted_type;
	/* how many there were before it: offers, given mappings, ranges for devices */
	unsigned noted_offers, noted_given, noted_spans;
	int slot;			/* of the record; -1: it is in none */
	char problem[256];		/* why it cannot be served; "" */
};

struct client *client_new(void);
/*
 * What it declared, with a userfaultfd of its own (-1 when there are no more descriptors), and no
 * other one.
 */
struct client *client_copy(const struct client *c);
void client_free(struct client *c);
/* A shared block.  0 or -errno; takes @file over in any case. */
int client_offer(struct client *c, const char *name, uint64_t length, uint64_t page_size,
		 uint64_t file_offset, int file);
int client_offer_private(struct client *c, const char *name, uint64_t length, uint64_t page_size);
/* The offer's index, or -ENOENT. */
int client_find(const struct client *c, const char *name);
/* Do both have bytes in common? */
bool offer_overlaps(const struct offer *a, const struct offer *b);
/* Do both stand for the same bytes? */
bool offer_same(const struct offer *a, const struct offer *b);

#endif
