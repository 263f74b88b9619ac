/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_SOURCE_PAGER_H
#define PC_TOOLS_SOURCE_PAGER_H
/*
 * Sends pages over one lane.  Each sending thread has its own pager, with a buffer in which a
 * stretch of records is put together and written at once; the lane says when it is its turn.
 *
 * On main, records stand between the brackets of a PART section; on the urgent lane they are bare.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tools/source_session.h"
#include "wire/cursor.h"

struct source_pager {
	struct source_session *session;
	struct source_lane *lane;
	bool urgent;	    /* answers requests: goes before the background */
	bool wrong_section; /* fault: the next footer lies */
	uint8_t *buf;	    /* owned */
	struct pen pen;
	unsigned block; /* where the background goes on */
	uint64_t page;
};

int source_pager_init(struct source_pager *p, struct source_session *s, struct source_lane *l,
		      bool urgent);
void source_pager_deinit(struct source_pager *p);
/* After a lost connection: nothing of what was put together is left. */
void source_pager_start_over(struct source_pager *p);

/*
 * One turn of background: claims and sends about @limit bytes, beginning near the last request.
 * Returns the bytes written, 0 when no page is left to claim, -ECONNABORTED when the session is
 * over.
 */
int64_t source_pager_background(struct source_pager *p, size_t limit);
/* Answer a request for [@page, @end) of @b: what nobody sent yet.  0 or -ECONNABORTED. */
int source_pager_answer(struct source_pager *p, struct source_block *b, uint64_t page,
			uint64_t end);
/*
 * Precopy: a turn with pages that are nobody's to claim.  begin, put any number, finish (also after
 * a put that failed).  0 or -ECONNABORTED.
 */
void source_pager_begin(struct source_pager *p);
int source_pager_put(struct source_pager *p, const struct source_block *b, uint64_t page,
		     enum source_stage stage);
int source_pager_finish(struct source_pager *p);

#define SOURCE_PAGER_BUFFER ((size_t)64 * (SOURCE_TARGET_PAGE + 8) + 1024)

#endif
