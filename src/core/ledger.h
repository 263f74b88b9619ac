/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_CORE_LEDGER_H
#define PC_CORE_LEDGER_H
/*
 * The ledger: the state of every page, 4 bits each, in memory given by the caller (versioned
 * layout, position independent, so that it can outlive the process).
 *
 * Two threads move pages: the fault thread and the bulk lane.  One word holds sixteen pages, every
 * change is one compare-and-swap, and it is the only atomic in core.  What makes the two threads
 * safe without a lock:
 *
 *   - a page is placed by whoever moved it to PLACING (ledger_claim); nobody else can then place
 *     it;
 *   - a fault that finds a page PLACING makes it CONTESTED, and ledger_publish tells the placer
 *     that somebody waits; a fault that comes after the publish finds PRESENT and is answered at
 *     once.  Because claim, contest and publish are changes of the same word, there is no moment
 *     between them in which a waiter can be missed;
 *   - a zero page that nobody waits for may be noted instead (ledger_note); a fault that comes
 *     after it finds ZERO, which only the fault thread leaves again.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum page_state {
	PAGE_NEVER = 0,		/* neither received nor discarded */
	PAGE_MISSING,		/* owed by the source */
	PAGE_REQUESTED,		/* owed, and asked for */
	PAGE_PLACING,		/* claimed by a lane; the kernel has not answered yet */
	PAGE_CONTESTED,		/* the same, and a fault waits for it */
	PAGE_PRESENT,		/* the kernel said it is there */
	PAGE_STORED,		/* its content is held by us (private block not yet handed over) */
	PAGE_ZERO,		/* known to be zero, not placed (a hole) */
	PAGE_LOST,		/* given up: who touches it is told so, and it is owed no more */
	PAGE_REMOVED,		/* the owner gave it back (balloon) */
	PAGE_UNPLACED,		/* could not be placed anywhere; stays owed */
	PAGE_STATES,
};

#define LEDGER_MAGIC   0x52454744454c4350ull	/* "PCLEDGER" on little-endian */
#define LEDGER_VERSION 1

struct ledger_header {
	uint64_t magic;
	uint32_t version;
	uint32_t header_size;	/* bytes before the first word */
	uint64_t pages;
	uint32_t committed;	/* written before the answer that commits leaves us */
	uint32_t reserved[7];
};

struct ledger {
	struct ledger_header *header;
	uint64_t *word;		/* 16 pages each, page i in bits 4*(i%16) */
	uint64_t pages;
};

size_t ledger_size(uint64_t pages);
/* Lay a fresh one (all NEVER) into zeroed memory.  0 or -EINVAL. */
int ledger_init(struct ledger *l, void *memory, size_t size, uint64_t pages);
/* Take over one that is there.  0 or -EBADMSG. */
int ledger_adopt(struct ledger *l, void *memory, size_t size);
void ledger_commit(struct ledger *l);
bool ledger_committed(const struct ledger *l);

enum page_state ledger_get(const struct ledger *l, uint64_t page);
/* Unconditional; only before faults are served (one thread). */
void ledger_set(struct ledger *l, uint64_t page, uint64_t n, enum page_state to);
/* True when the page was @from and is now @to. */
bool ledger_move(struct ledger *l, uint64_t page, enum page_state from, enum page_state to);

/* A fault: MISSING -> REQUESTED, PLACING -> CONTESTED, others stay.  The state it found. */
enum page_state ledger_request(struct ledger *l, uint64_t page);
/* A lane has it: MISSING -> PLACING, REQUESTED -> CONTESTED, others stay.  The state found. */
enum page_state ledger_claim(struct ledger *l, uint64_t page);
/* Was the page owed, so that the claim is the caller's? */
static inline bool ledger_claimed(enum page_state found)
{
	return found == PAGE_MISSING || found == PAGE_REQUESTED;
}
/* A claim could not be honoured: PLACING, CONTESTED -> @to. */
void ledger_unclaim(struct ledger *l, uint64_t page, enum page_state to);
/* The kernel said it is there: PLACING, CONTESTED -> PRESENT.  True when a fault waits for it. */
bool ledger_publish(struct ledger *l, uint64_t page);
/*
 * It is zero, and a hole reads as that: PLACING -> ZERO.  False when a fault waits for it: the
 * claim stays.
 */
bool ledger_note(struct ledger *l, uint64_t page);

/* First page in [from, end) that is in @state, or @end. */
uint64_t ledger_find(const struct ledger *l, uint64_t from, uint64_t end, enum page_state state);
/* How many pages from @from on, below @end, are in @state. */
uint64_t ledger_run(const struct ledger *l, uint64_t from, uint64_t end, enum page_state state);
/* Count the pages of [from, end) by state. */
void ledger_count(const struct ledger *l, uint64_t from, uint64_t end, uint64_t count[PAGE_STATES]);
const char *ledger_state_name(enum page_state state);

#endif
