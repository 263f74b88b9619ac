// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Which pages are sent early and which of them are dirtied again follows from their numbers alone,
 * so a test can compute what a destination must hold at any time.
 */
#include "config.h"

#include "source_precopy.h"

#include <errno.h>

#include "core/guard.h"
#include "tools/source_pace.h"

#define SHARE_RUN     64u
#define DIRTY_RUN     8u
#define DIRTY_EVERY   8u
#define SECTION_PAGES 64u

/**
 * source_precopy_sends - is the page among those sent before the switch-over?
 */
bool source_precopy_sends(enum source_precopy share, uint64_t page)
{
	return share == SOURCE_PRECOPY_ALL ||
	       (share == SOURCE_PRECOPY_HALF && page / SHARE_RUN % 2 == 0);
}

/**
 * source_precopy_dirties - is it dirtied again, should it have been sent?
 */
bool source_precopy_dirties(const struct source_block *b, uint64_t page)
{
	return page + 1 == b->n_pages || page / DIRTY_RUN % DIRTY_EVERY == DIRTY_EVERY - 1;
}

static int send_page(struct source_pager *p, struct source_block *b, uint64_t page, bool final)
{
	bool dirty = !final && source_precopy_dirties(b, page);

	if (!dirty)
		source_block_settle(b, page);
	p->session->precopied++;
	return source_pager_put(p, b, page, dirty ? SOURCE_STALE : SOURCE_FINAL);
}

/* One section: what is to be sent of the pages [from, to). */
static int send_run(struct source_pager *p, struct source_block *b, uint64_t from, uint64_t to,
		    bool final)
{
	enum source_precopy share = final ? SOURCE_PRECOPY_ALL : p->session->options->precopy;
	int r = 0, finished;

	source_pager_begin(p);
	for (uint64_t page = from; page < to && r == 0; page++)
		if (source_precopy_sends(share, page))
			r = send_page(p, b, page, final);
	finished = source_pager_finish(p);
	return r ? r : finished;
}

static int send_block(struct source_pager *p, struct source_block *b, bool final)
{
	struct source_pace pace = source_pace_begin(p->session->options->rate);

	for (uint64_t page = 0; page < b->n_pages; page += SECTION_PAGES) {
		uint64_t to = page + SECTION_PAGES < b->n_pages ? page + SECTION_PAGES : b->n_pages;
		uint64_t before = atomic_load(&p->lane->bytes);

		if (send_run(p, b, page, to, final) < 0 ||
		    source_pace_wait(&pace, p->session, atomic_load(&p->lane->bytes) - before) < 0)
			return -ECONNABORTED;
	}
	return 0;
}

/**
 * source_precopy_run - the precopy phase of every block: send, settle what stays clean, count what
 * is owed
 * @final: nothing is dirtied again and everything is settled: the migration finishes as precopy
 *
 * Return: 0 or -ECONNABORTED.
 */
int source_precopy_run(struct source_pager *p, bool final)
{
	struct source_session *s = p->session;
	bool any = final || s->options->precopy != SOURCE_PRECOPY_NONE;

	for (unsigned i = 0; i < s->n_ready; i++) {
		if (any && send_block(p, &s->blocks[i], final) < 0)
			return -ECONNABORTED;
		atomic_fetch_add(&s->owed, source_block_count_owed(&s->blocks[i]));
	}
	return 0;
}
