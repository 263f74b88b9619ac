/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_BULKLANE_H
#define PC_DAEMON_BULKLANE_H
/*
 * The bulk lane: a thread that receives and places the background stream beside an urgent lane, so
 * that demanded pages never queue behind it.  It claims each page in the ledger, has the kernel
 * place it and publishes it, or notes that it is zero; the fault thread hears of it in reports: at
 * once when somebody waits for the page, else at 4 MiB or an empty socket, whichever is first.
 *
 * It may wait (for bytes, for room in the mailbox, for the kernel's memory); the fault thread never
 * waits for it.
 */
#include <stdbool.h>
#include <stdint.h>
#include "core/engine.h"
#include "daemon/lane.h"
#include "daemon/mailbox.h"
#include "daemon/placer.h"

/* The address spaces the bulk lane places through: the main sharer's, then our own. */
struct bulk_carrier {
	int main_uffd;				/* its own dup; -1 */
	int32_t main_pid;
	struct sharer_ref main;
	unsigned n_mappings;
	struct mapping mapping[SHARER_MAPPINGS];
	int own_uffd;				/* borrowed */
	struct {
		uint64_t address;		/* of our mapping; 0: the block is not shared */
		bool can_zero;
		uint8_t *store;			/* HELD: where content is kept */
	} own[BLOCK_MAX];
};

struct bulklane;

/* Start the thread; takes @lane and @carrier over.  *@out: NULL, or taken back.  0 or -errno. */
int bulklane_start(struct bulklane **out, struct lane *lane, struct engine *engine,
		   const struct bulk_carrier *carrier, const struct placer *placer,
		   struct mailbox *outbox);
/* Acknowledge at once what comes on that connection of the urgent lane; borrowed, -1: none yet. */
void bulklane_beside(struct bulklane *b, int fd);
/* The decoder, for the reason of a broken stream; only after BULK_BROKEN. */
const struct qstream *bulklane_stream(const struct bulklane *b);
/* Does it wait for the pool of huge pages?  From any thread. */
bool bulklane_dry(const struct bulklane *b);
/* Is there a thread that was not taken back? */
bool bulklane_runs(const struct bulklane *b);
/*
 * Ends the thread, without waiting for it: its connection is shut down, what it has claimed is
 * reported as not placed, and BULK_OVER is its last word.  Behind that it can be taken back.
 */
void bulklane_end(struct bulklane *b);
/* Join it; *@lane is its lane, with the buffer and the (dead) connection.  Can be started again. */
void bulklane_take_back(struct bulklane *b, struct lane *lane);
/* Ends the thread, whatever it has to say, joins it and frees all.  When the session is over. */
void bulklane_stop(struct bulklane *b);

#endif
