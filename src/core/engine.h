/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_CORE_ENGINE_H
#define PC_CORE_ENGINE_H
/*
 * The engine: what happens on a page fault, and on everything else that changes a page.  No I/O:
 * events go in, each with the time it happened; actions and requests are pulled out and their
 * results are events again.  See engine.c for the theory.
 *
 * One thread owns an engine.  Only ledger_claim(), ledger_publish(), ledger_note() and
 * ledger_unclaim() of its ledger may be called by another (the bulk lane), which tells with
 * engine_report() what it did.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "core/block.h"
#include "core/gate.h"
#include "core/ledger.h"
#include "core/request.h"
#include "core/session.h"
#include "core/sharer.h"
#include "core/stats.h"
#include "core/waiter.h"

enum engine_outcome {
	ENGINE_OK = 0,
	ENGINE_STALE,		/* the sharer is not (or no longer) active: dropped */
	ENGINE_OUTSIDE,		/* the address is in no mapping of the sharer */
	ENGINE_DUPLICATE,	/* the page is there already, or owed by nobody: ignored, counted */
};

enum engine_verb {
	ENGINE_PLACE,		/* do it, then engine_placed() */
	/* wake every alias of the page in one sharer, then engine_woken() */
	ENGINE_WAKE,
	ENGINE_ALARM,		/* a page had content nobody placed: memory integrity is lost */
	ENGINE_UNPLACED,	/* a page could not be placed anywhere: PAGE_UNPLACED */
};

enum engine_how {
	PLACE_COPY,		/* from @data */
	PLACE_ZERO,
	/* answer a fault on a page that is there: zero it if the owner gave it back, else wake */
	PLACE_ANSWER,
	PLACE_KEEP,		/* HELD block: copy @data (NULL: zeroes) into the store */
	/*
	 * zeroes of a sparse block: all of them done as they are if they are holes, else make it a
	 * ZERO
	 */
	PLACE_NOTE,
	/*
	 * it will never come: who touches it is told so.  From REQUESTED in every mapping of every
	 * sharer, from LOST in those of @sharer, who faulted on it later
	 */
	PLACE_POISON,
};

struct engine_action {
	enum engine_verb verb;
	enum engine_how how;
	enum stats_lane lane;
	enum page_state from;	/* what the page was when it was claimed */
	uint16_t block;
	struct sharer_ref sharer;	/* ANSWER, POISON: whose fault it is.  WAKE: whom */
	uint64_t page, n;	/* pages; n > 1 only for runs that nobody waits for */
	const uint8_t *data;
	/* ANSWER, POISON from LOST: the page in the sharer's space.  WAKE: one awake already; 0 */
	uint64_t address;
	uint64_t arrived_ns, placed_ns;
	uint32_t waiters;	/* WAKE: the list engine_woken() settles */
};

/* How a PLACE ended, after all retries that make sense at once. */
/* PLACED_NOT: of the bulk lane, which ended before: its bytes went with it. */
enum engine_result { PLACED, PLACED_EXISTS, PLACED_NOWHERE, PLACED_NOT };

/* Through which address space a page was placed: the kernel woke whoever slept there. */
struct engine_carrier {
	bool is_sharer;
	struct sharer_ref sharer;
	uint64_t address;
};

struct engine_request {
	uint16_t block;
	uint64_t offset, length;	/* bytes */
	enum request_class class;
};

/*
 * What the bulk lane did with a run of pages: published or noted them (PLACED), or left them
 * claimed for the engine to give up.
 */
struct engine_report {
	uint64_t page;
	uint32_t n;
	uint8_t lane, how;		/* enum stats_lane, enum stats_how: COPY, ZERO or NOTED */
	uint8_t from;			/* state they were claimed from, the same for all */
	bool contested;			/* somebody waits (then n is 1) */
	uint8_t result;			/* enum engine_result */
	struct engine_carrier carrier;
	uint64_t arrived_ns, placed_ns;
};

#define ENGINE_RUN     64		/* pages a zero run may have */
/*
 * All pages of a run may be waited for in all sharers; pull actions until there is none before the
 * next event.
 */
#define ENGINE_WAKES   (ENGINE_RUN * SHARER_MAX)
/* that are no wakes: at most one per fault, or per page of a run */
#define ENGINE_ACTIONS 512
#define ENGINE_GATES   16

struct engine_limits {
	uint32_t waiters;		/* threads parked at a time */
	/* pages asked for ahead of need at a time (dma, prefetch) */
	uint32_t window;
};

/* A ring of actions that are still to be pulled. */
struct engine_queue {
	unsigned first, n;
};

struct engine {
	struct session session;
	struct block_table blocks;
	struct ledger ledger;
	struct waiter_table waiters;
	struct request_queue requests;
	struct sharer_table sharers;
	struct stats stats;
	struct sharer_stats gone;	/* sum of sharers that ended */
	uint64_t owed, owed_left;	/* pages */
	uint64_t stored_left;		/* pages of private blocks not yet handed over */
	uint64_t requested;		/* pages asked for and not placed since */
	uint64_t push_at;		/* where engine_push() goes on */
	uint32_t retry_at;		/* where engine_retry() goes on: a chain of the waiters */
	uint32_t window;
	unsigned n_gates;
	struct gate *gate[ENGINE_GATES];	/* the caller's memory */
	struct engine_queue wakes, actions;	/* wakes leave first */
	struct engine_action wake[ENGINE_WAKES], action[ENGINE_ACTIONS];
};

/* The only call that allocates.  0 or -ENOMEM. */
int engine_init(struct engine *e, const struct engine_limits *limits);
void engine_deinit(struct engine *e);

/* --- set-up: blocks, then the ledger over all of them ----------------------------------------- */
/* @memory: zeroed, ledger_size(e->blocks.pages) bytes. */
int engine_use_ledger(struct engine *e, void *memory, size_t size);
/* One that an earlier process left behind its package; engine_recount() follows.  0, -EBADMSG. */
int engine_adopt_ledger(struct engine *e, void *memory, size_t size);
/* What became of a page that the earlier process had claimed: PRESENT, or what it is again. */
void engine_judged(struct engine *e, uint64_t page, enum page_state is, uint64_t now);

/* --- before faults are served ---------------------------------------------------------------- */
/* Precopy data or zeroes of one page, or a part of it, are where they belong. */
void engine_received(struct engine *e, unsigned block, uint64_t offset, uint64_t length, bool zero);
/* Pages are owed again.  0, -EPROTO in this state, -EINVAL range, -EBUSY: a device reaches some. */
int engine_discard(struct engine *e, unsigned block, uint64_t start, uint64_t length);
/* The package is whole.  -ENODATA with *page, the first neither received nor discarded; -EPROTO. */
int engine_package(struct engine *e, uint64_t *page);

/* --- sharers ---------------------------------------------------------------------------------- */
int engine_join(struct engine *e, bool main, struct sharer_ref *ref);
/* 0, -ENOENT stale, -EINVAL, -EBUSY second sharer of a private block, -ENOSPC. */
int engine_map(struct engine *e, struct sharer_ref ref, const struct mapping *m);
/* A mapping is gone; nothing is placed through it any more.  0, -ENOENT. */
int engine_unmap(struct engine *e, struct sharer_ref ref, const struct mapping *m);
/* It ended, for whatever reason: its waiters are forgotten, what comes late is stale. */
void engine_gone(struct engine *e, struct sharer_ref ref, uint64_t now);

/* --- faults and pages ------------------------------------------------------------------------- */
/*
 * @flags: bit 0 the access was a write.  The caller reads no more faults than engine_room() says.
 */
enum engine_outcome engine_fault(struct engine *e, struct sharer_ref ref, uint64_t address,
				 uint32_t tid, uint64_t flags, uint64_t now);
static inline uint32_t engine_room(const struct engine *e)
{
	return waiter_room(&e->waiters);
}
/* A whole page came in on a lane of the fault thread.  @data NULL: zeroes. */
enum engine_outcome engine_page(struct engine *e, enum stats_lane lane, uint64_t page,
				const uint8_t *data, uint64_t now);
/* At most ENGINE_RUN zero pages in a row, all of one block. */
void engine_zero_run(struct engine *e, enum stats_lane lane, uint64_t page, uint64_t n,
		     uint64_t now);
/* The result of a PLACE; returns the pages still to be placed (issue it again while not 0). */
uint64_t engine_placed(struct engine *e, struct engine_action *a, uint64_t done,
		       enum engine_result result, const struct engine_carrier *carrier,
		       uint64_t now);
void engine_woken(struct engine *e, const struct engine_action *a, uint64_t now);
void engine_report(struct engine *e, const struct engine_report *r, uint64_t now);
/* Claimed pages whose bytes are gone: owed again. */
void engine_give_up(struct engine *e, uint64_t page, uint64_t n, enum page_state from);
/* True when it was a placement of a lane: given up, and over. */
bool engine_lane_lost(struct engine *e, const struct engine_action *a);
/* The same for all that are queued. */
void engine_lanes_lost(struct engine *e);
/* Hand stored pages of private blocks over, at most @max.  Pages queued. */
uint64_t engine_push(struct engine *e, uint64_t max, uint64_t now);
/*
 * A PLACE of LANE_STORE (no ANSWER) that the kernel does not take now: the page is again what it
 * was.
 */
void engine_give_back(struct engine *e, const struct engine_action *a);
/* Place what was given back and is waited for, about @max pages.  Pages queued. */
uint64_t engine_retry(struct engine *e, uint64_t max, uint64_t now);

/* --- pages that will not come ----------------------------------------------------------------- */
/*
 * Give up what somebody waits for since @before or longer, and was asked for; at most @max pages.
 * Pages queued.
 */
uint64_t engine_poison(struct engine *e, uint64_t before, uint64_t max, uint64_t now);
/* Since when the longest waiting thread waits for such a page; 0: none does (walks the waiters). */
uint64_t engine_longest(const struct engine *e);

/* --- what a sharer does with its memory, as it says ------------------------------------------- */
/* Given back: what was owed of it or held is zero.  So many pages; engine_retry() is due. */
uint64_t engine_removed(struct engine *e, struct sharer_ref ref, uint64_t start, uint64_t end);
/* Of a PLACE that waits: was its page given back?  True, and it is of zeroes. */
bool engine_forgets(struct engine *e, struct sharer_ref ref, uint64_t start, uint64_t end,
		    struct engine_action *a);
/* Unmapped, any part.  0, -ENOENT, -ENOSPC. */
int engine_cut(struct engine *e, struct sharer_ref ref, uint64_t start, uint64_t end);
/* Moved.  0, -ENOENT, -ENOSPC, -EINVAL. */
int engine_moved(struct engine *e, struct sharer_ref ref, uint64_t from, uint64_t to,
		 uint64_t length);

/* --- devices ---------------------------------------------------------------------------------- */
/*
 * From now on it is told of every page; gate_serve() is the caller's.  Initialised with the
 * engine's ledger and blocks.  0 or -ENOSPC.
 */
int engine_add_gate(struct engine *e, struct gate *g);

/* --- what to do ----------------------------------------------------------------------------- */
bool engine_next(struct engine *e, struct engine_action *a);
/*
 * The next thing to ask the source for; only when the socket can take it now.  May queue actions,
 * too.
 */
bool engine_next_request(struct engine *e, struct engine_request *r, uint64_t now);
/* A range is wanted ahead of need.  0, -EINVAL range, -ENOSPC. */
int engine_want(struct engine *e, unsigned block, uint64_t offset, uint64_t length,
		enum request_class class);
/*
 * Nothing comes by itself any more: want all that is owed and was not asked for.  0, -ENOSPC: call
 * again later.
 */
int engine_want_owed(struct engine *e);
/* A lane was lost and is back: ask again. */
void engine_replay(struct engine *e);
/*
 * Nothing is owed and nothing is stored: with the main stream at its end, the session can complete.
 */
bool engine_drained(const struct engine *e);
/* Recompute the blocks' counters from the ledger (before faults are served they are not kept). */
void engine_recount(struct engine *e);

/* --- between the files of the engine -------------------------------------------------------- */
struct engine_action *engine_place(struct engine *e, enum stats_lane lane, uint64_t page,
				   uint64_t n, const uint8_t *data, enum page_state from,
				   uint64_t now);
void engine_serve_own(struct engine *e, uint64_t page, enum page_state state, uint64_t now);
/* The counters of @n pages of @b that are no longer in state @from. */
void engine_left(struct engine *e, struct block *b, enum page_state from, uint64_t n);
/* Place known zeroes from @page on, below @end, in one go.  Pages queued. */
uint64_t engine_fill(struct engine *e, uint64_t page, uint64_t end, uint64_t now);

#endif
