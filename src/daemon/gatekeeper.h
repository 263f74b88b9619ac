/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_GATEKEEPER_H
#define PC_DAEMON_GATEKEEPER_H
/*
 * All gates of the session, by name, as the main thread sees them: who declares what a device
 * reaches, who maps it, and how far that is.  The gates themselves are the fault thread's
 * (core/gate.h, gates.h); see gatekeeper.c for how the two talk.
 *
 * Main thread only.  A callback may call any function here but gatekeeper_free().
 */
#include <stdbool.h>
#include <stdint.h>
#include "core/gate.h"
#include "daemon/blockers.h"
#include "daemon/faultloop.h"
#include "daemon/snapshot.h"

struct gatekeeper;

/* Who maps: a thread with a device, or the VMM behind its socket.  Each may be NULL. */
struct gatekeeper_user {
	/*
	 * All of it is there: map it, and then gatekeeper_mapped().  At most SNAPSHOT_DUE of a gate
	 * are on the way at a time.  @span's block is the index in the source's list.
	 */
	void (*map)(void *ctx, const struct gate_span *span);
	/* Every range is mapped, and the set is sealed: its devices may run. */
	void (*open)(void *ctx);
	void *ctx;
};

/*
 * How a request ended: 0 or -errno (-ECANCELED: the session will not serve any more).
 * @written: of unmap and sync, how many bytes devices may have written there.
 */
typedef void gatekeeper_done(void *ctx, int error, uint64_t written);

struct gatekeeper *gatekeeper_new(struct faultloop *loop);
/* After faultloop_stop().  Who asked for something that is under way is not told any more. */
void gatekeeper_free(struct gatekeeper *k);

/* --- gates ------------------------------------------------------------------------------------ */

/*
 * At any time; what is declared before faults are served is kept until then.  @enforced: there is
 * an IOMMU, or messages: what is not mapped cannot be reached.
 * The number of the gate; -EEXIST, -ENOSPC, -EINVAL (name, or @enforced is not as it was).  A gate
 * whose user was forgotten is begun anew: what that one declared and mapped went with it.
 */
int gatekeeper_add(struct gatekeeper *k, const char *name, bool enforced,
		   const struct gatekeeper_user *user);
/* -ENOENT. */
int gatekeeper_find(const struct gatekeeper *k, const char *name);
/*
 * @ctx goes away: no callback to it comes any more, of a request or of a gate.  What it was told to
 * map and has not said counts as failed (-ECANCELED).
 */
void gatekeeper_forget(struct gatekeeper *k, const void *ctx);

/* --- the set; @done may be NULL, and never comes from inside the call ----------------------- */

/*
 * @block: its name (idstr), copied; NULL: @span->block says which.  @span->iova, length, offset,
 * class and directions as in core/gate.h.  -ENOENT: there is no such block, or gate; others as
 * gate_map().  Ranges of at most 1 GiB keep the fault thread from standing still for long.
 */
void gatekeeper_map(struct gatekeeper *k, int gate, const char *block, const struct gate_span *span,
		    gatekeeper_done *done, void *ctx);
/* Whoever mapped it has unmapped it before.  As gate_unmap(). */
void gatekeeper_unmap(struct gatekeeper *k, int gate, uint64_t iova, uint64_t length,
		      gatekeeper_done *done, void *ctx);
void gatekeeper_sync(struct gatekeeper *k, int gate, uint64_t iova, uint64_t length,
		     gatekeeper_done *done, void *ctx);
/* The set is whole: before that the gate does not open. */
void gatekeeper_seal(struct gatekeeper *k, int gate);

/* --- devices ---------------------------------------------------------------------------------- */

/* How the mapping of a range ended: 0 or -errno.  -ENOENT: nobody was told to map that. */
int gatekeeper_mapped(struct gatekeeper *k, int gate, uint64_t iova, int error);
/* One that failed is to be mapped again.  @done: -ENOENT: there is none that failed. */
void gatekeeper_retry(struct gatekeeper *k, int gate, uint64_t iova, gatekeeper_done *done,
		      void *ctx);
/* A device of it began to run; every one was reset. */
void gatekeeper_ran(struct gatekeeper *k, int gate);
void gatekeeper_reset(struct gatekeeper *k, int gate);
/* May its devices run?  Not before everything is mapped that was declared until now. */
bool gatekeeper_open(const struct gatekeeper *k, int gate);

/* --- what is told ----------------------------------------------------------------------------- */

/* phases.c: each snapshot. */
void gatekeeper_look(struct gatekeeper *k, const struct snapshot *s);
/* phases.c: whenever the fault thread rang, behind the look. */
void gatekeeper_collect(struct gatekeeper *k);
/* Are pages still to come, so that another look soon tells something new? */
bool gatekeeper_waits(const struct gatekeeper *k);
/* "gate:NAME" for each that is closed, "untracked-dma" where a set was declared too late. */
void gatekeeper_blockers(const struct gatekeeper *k, struct blockers *b);

struct control_gate {
	char name[64];
	bool enforced, sealed, open, ran;
	unsigned ranges, mapped, failed;
	/* of whole pages, those in two ranges twice */
	uint64_t bytes, bytes_ready, pages, pages_missing;
	uint64_t rate;			/* bytes that came in a second, lately */
	int64_t eta_ms;			/* until all pages are there; -1: nobody knows */
	int error;			/* of the first range that could not be mapped: -errno; 0 */
	uint64_t error_iova;
	char blocker[32];		/* "untracked-dma" or "" */
};

/* The gate as it was at the last look.  False: there is none with that number. */
bool gatekeeper_report(const struct gatekeeper *k, int gate, struct control_gate *out);

#endif
