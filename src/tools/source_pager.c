// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * From claimed pages to bytes, with whatever a fault does to them on the way.
 *
 * A stretch of records is put together in one buffer and written in one turn, so the section
 * brackets around it cannot be interrupted.  Page content is made straight in that buffer.  Pages
 * that somebody asked for go out in a turn of their own, together as far as one request goes; the
 * background then goes on behind them, since what is touched next is often the neighbour (QEMU does
 * the same).
 *
 * Owed counts down when a page is on the wire or will never be, not when it is claimed: the end of
 * the stream waits for 0.
 */
#include "config.h"

#include "source_pager.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/guard.h"
#include "wire/qstream.h"

#define HEAD_ROOM    (8 + 256) /* word and name */
#define RECORD_ROOM  (HEAD_ROOM + SOURCE_TARGET_PAGE)
#define BRACKET_ROOM 32 /* PART head; EOS and footer */
#define UNKNOWN_FLAG 0x800u
#define HINT_SHIFT   40 /* page number below, block + 1 above */

/**
 * source_pager_init - a sender for one lane
 * @urgent: it answers requests, so its turns go before the background's
 *
 * Return: 0 or -ENOMEM; source_pager_deinit() after either.
 */
int source_pager_init(struct source_pager *p, struct source_session *s, struct source_lane *l,
		      bool urgent)
{
	*p = (struct source_pager){.session = s, .lane = l, .urgent = urgent};
	p->buf = malloc(SOURCE_PAGER_BUFFER);
	if (!p->buf)
		return -ENOMEM;
	p->pen = pen_init(p->buf, SOURCE_PAGER_BUFFER);
	return 0;
}

void source_pager_deinit(struct source_pager *p)
{
	free(steal_ptr(&p->buf));
}

/**
 * source_pager_start_over - the connection was lost, and with it what was not written
 */
void source_pager_start_over(struct source_pager *p)
{
	p->pen = pen_init(p->buf, SOURCE_PAGER_BUFFER);
	p->wrong_section = false;
	p->block = 0;
	p->page = 0;
}

/* --- putting records together --------------------------------------------------------------- */

static bool bracketed(const struct source_pager *p)
{
	return p->lane == &p->session->main;
}

static int flush(struct source_pager *p)
{
	size_t len = pen_used(&p->pen);

	p->pen = pen_init(p->buf, SOURCE_PAGER_BUFFER);
	return len ? source_session_send(p->session, p->lane, p->buf, len) : 0;
}

static void open_section(struct source_pager *p)
{
	if (bracketed(p))
		qstream_put_ram_begin(&p->pen, false, SOURCE_RAM_SECTION);
}

static int close_section(struct source_pager *p)
{
	if (bracketed(p))
		qstream_put_ram_end(&p->pen, SOURCE_RAM_SECTION + p->wrong_section);
	p->wrong_section = false;
	return flush(p);
}

static bool has_room(const struct source_pager *p)
{
	return SOURCE_PAGER_BUFFER - pen_used(&p->pen) >= RECORD_ROOM + BRACKET_ROOM;
}

/* The old preempt channel never leaves a name out, whatever the option says. */
static const char *name_to_put(const struct source_pager *p, const struct source_block *b)
{
	const struct source_options *o = p->session->options;
	bool always = o->always_name || (o->old_preempt && !bracketed(p));

	return always || p->lane->last != b ? b->spec.name : NULL;
}

/* What is wrong with the one record it is given to. */
struct twist {
	enum source_action action;
	enum source_stage stage;
};

static void apply(struct source_pager *p, uint8_t *record, const struct twist *twist)
{
	if (twist->action == SOURCE_UNKNOWN_FLAG)
		record[6] |= UNKNOWN_FLAG >> 8;
	else if (twist->action == SOURCE_CORRUPT)
		p->pen.at[-1] ^= 0xff;
}

/*
 * Append one target page.  The content is made where it will be sent from, which needs the length
 * of the head first.  Returns 1 for a zero page, 0, or -errno.
 */
static int put_record(struct source_pager *p, const struct source_block *b, uint64_t tpage,
		      const struct twist *twist)
{
	const char *name = name_to_put(p, b);
	uint64_t offset = tpage * SOURCE_TARGET_PAGE;
	uint8_t *record = p->pen.at;
	size_t head;
	int zero;

	if (twist->action == SOURCE_WRONG_OFFSET)
		offset = b->spec.length;
	if (twist->action == SOURCE_WRONG_NAME)
		name = "no-such-block";
	head = 8 + (name ? 1 + strlen(name) : 0);
	zero = source_block_read(b, tpage, twist->stage, record + head);
	if (zero < 0)
		return zero;
	qstream_put_page_head(&p->pen, offset, name, zero);
	if (!zero)
		p->pen.at += SOURCE_TARGET_PAGE;
	apply(p, record, twist);
	p->lane->last = twist->action == SOURCE_WRONG_NAME ? NULL : b;
	return zero;
}

static int failed_read(struct source_session *s, const struct source_block *b, int error)
{
	source_session_end(s, SOURCE_FAILED, "block %s: %s", b->spec.name, strerror(-error));
	return -ECONNABORTED;
}

static bool nothing_urgent(const struct source_session *s)
{
	return !atomic_load(&s->answering);
}

/*
 * QEMU 7.2 with a preempt channel lets a request interrupt a large page on main.  The section ends
 * in the middle of the page, and the rest comes in the next one.
 */
static int breathe(struct source_pager *p)
{
	if (close_section(p) < 0 || source_session_wait(p->session, nothing_urgent, UINT64_MAX) < 0)
		return -ECONNABORTED;
	open_section(p);
	return 0;
}

static int make_room(struct source_pager *p, const struct source_block *b)
{
	if (has_room(p))
		return 0;
	if (p->session->options->huge_interleave && bracketed(p) && source_block_fan(b) > 1)
		return breathe(p);
	return flush(p);
}

/* All target pages of a page, ascending; a twist is for the first of them. */
static int put_page(struct source_pager *p, const struct source_block *b, uint64_t page,
		    const struct twist *twist)
{
	const struct twist straight = {.action = SOURCE_STRAIGHT, .stage = twist->stage};
	uint64_t fan = source_block_fan(b), zeros = 0;
	bool swap = twist->action == SOURCE_REORDER && fan > 1;

	for (uint64_t i = 0; i < fan; i++) {
		uint64_t nth = swap && i < 2 ? 1 - i : i;
		int r;

		if (make_room(p, b) < 0)
			return -ECONNABORTED;
		r = put_record(p, b, page * fan + nth, i ? &straight : twist);
		if (r < 0)
			return failed_read(p->session, b, r);
		zeros += (uint64_t)r;
	}
	return zeros == fan;
}

/* --- a page of the postcopy phase, with its faults ------------------------------------------- */

/* The last of the page is still in the buffer: nobody has it who could say so. */
static void count_page(struct source_pager *p, struct source_block *b, uint64_t page, bool zero)
{
	struct source_session *s = p->session;
	bool again = !source_block_note_sent(b, page);

	atomic_fetch_add_explicit(&s->resent, again, memory_order_relaxed);
	atomic_fetch_add_explicit(&s->pages, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&s->zero, zero, memory_order_relaxed);
	if (!bracketed(p))
		atomic_fetch_add_explicit(&s->urgent_pages, 1, memory_order_relaxed);
}

static int put_twisted(struct source_pager *p, struct source_block *b, uint64_t page,
		       enum source_action action)
{
	const struct twist twist = {.action = action, .stage = SOURCE_FINAL};
	int zero = put_page(p, b, page, &twist);

	if (zero < 0)
		return zero;
	count_page(p, b, page, zero);
	return 0;
}

/* @f: what happens to the page; returns 0 or -ECONNABORTED. */
typedef int (*page_action)(struct source_pager *p, struct source_block *b, uint64_t page,
			   const struct source_fault *f);

static int twist_page(struct source_pager *p, struct source_block *b, uint64_t page,
		      const struct source_fault *f)
{
	return put_twisted(p, b, page, f->kind->action);
}

static int strike_page(struct source_pager *p, struct source_block *b, uint64_t page,
		       const struct source_fault *f)
{
	if (flush(p) < 0 || source_session_strike(p->session, f) < 0)
		return -ECONNABORTED;
	return put_twisted(p, b, page, SOURCE_STRAIGHT);
}

static int truncate_page(struct source_pager *p, struct source_block *b, uint64_t page,
			 const struct source_fault *f)
{
	const struct twist straight = {.action = SOURCE_STRAIGHT, .stage = SOURCE_FINAL};
	int r;

	if (flush(p) < 0)
		return -ECONNABORTED;
	r = put_record(p, b, page * source_block_fan(b), &straight);
	if (r < 0)
		return failed_read(p->session, b, r);
	p->pen.at = p->buf + pen_used(&p->pen) / 2;
	return flush(p) < 0 ? -ECONNABORTED : source_session_strike(p->session, f);
}

static int duplicate_page(struct source_pager *p, struct source_block *b, uint64_t page,
			  const struct source_fault *f)
{
	if (put_twisted(p, b, page, f->kind->action) < 0)
		return -ECONNABORTED;
	return put_twisted(p, b, page, SOURCE_STRAIGHT);
}

/* The next page overtakes; a large page is its own company (put_page). */
static int reorder_page(struct source_pager *p, struct source_block *b, uint64_t page,
			const struct source_fault *f)
{
	uint64_t next = source_block_next_owed(b, page);

	if (source_block_fan(b) == 1 && next < b->n_pages && source_block_claim(b, next)) {
		atomic_fetch_add(&p->session->ordinal, 1);
		if (put_twisted(p, b, next, SOURCE_STRAIGHT) < 0)
			return -ECONNABORTED;
		atomic_fetch_sub(&p->session->owed, 1);
	}
	return put_twisted(p, b, page, f->kind->action);
}

static int withhold_page(struct source_pager *p, struct source_block *b, uint64_t page,
			 const struct source_fault *f)
{
	(void)b;
	(void)page;
	(void)f;
	atomic_fetch_add(&p->session->withheld, 1);
	return 0;
}

static int early_eof(struct source_pager *p, struct source_block *b, uint64_t page,
		     const struct source_fault *f)
{
	atomic_store(&p->session->early_eof, true);
	return withhold_page(p, b, page, f);
}

static int wrong_section(struct source_pager *p, struct source_block *b, uint64_t page,
			 const struct source_fault *f)
{
	p->wrong_section = true;
	return twist_page(p, b, page, f);
}

static const page_action actions[SOURCE_N_ACTIONS] = {
	[SOURCE_DELAY] = strike_page,	     [SOURCE_DROP] = strike_page,
	[SOURCE_DIE] = strike_page,	     [SOURCE_TRUNCATE] = truncate_page,
	[SOURCE_CORRUPT] = twist_page,	     [SOURCE_REORDER] = reorder_page,
	[SOURCE_DUPLICATE] = duplicate_page, [SOURCE_WITHHOLD] = withhold_page,
	[SOURCE_EARLY_EOF] = early_eof,	     [SOURCE_WRONG_SECTION] = wrong_section,
	[SOURCE_WRONG_OFFSET] = twist_page,  [SOURCE_WRONG_NAME] = twist_page,
	[SOURCE_UNKNOWN_FLAG] = twist_page,
};

/* The page is claimed, the turn is ours, the section is open. */
static int put_claimed(struct source_pager *p, struct source_block *b, uint64_t page)
{
	struct source_session *s = p->session;
	uint64_t ordinal = atomic_fetch_add_explicit(&s->ordinal, 1, memory_order_relaxed);
	struct source_fault *f = source_faults_at_page(&s->options->faults, ordinal, b->spec.name,
						       page, !bracketed(p));

	return f ? actions[f->kind->action](p, b, page, f)
		 : put_twisted(p, b, page, SOURCE_STRAIGHT);
}

/* The pages are on the wire, or will never be.  Who sends the last one wakes who waits for that. */
static void settle(struct source_session *s, uint64_t n)
{
	if (atomic_fetch_sub(&s->owed, n) == n || atomic_load(&s->early_eof))
		source_session_notify(s);
}

/* --- background ----------------------------------------------------------------------------- */

static void follow_hint(struct source_pager *p)
{
	uint64_t hint = atomic_exchange_explicit(&p->session->hint, 0, memory_order_relaxed);

	if (!hint)
		return;
	p->block = (unsigned)(hint >> HINT_SHIFT) - 1;
	p->page = hint & ((UINT64_C(1) << HINT_SHIFT) - 1);
}

/* Claim the next page from the cursor on, once around all blocks; NULL when none is left. */
static struct source_block *claim_next(struct source_pager *p, uint64_t *page)
{
	struct source_session *s = p->session;

	for (unsigned tried = 0; tried <= s->n_ready;) {
		struct source_block *b = &s->blocks[p->block];

		*page = source_block_next_owed(b, p->page);
		if (*page == b->n_pages) {
			p->block = (p->block + 1) % s->n_ready;
			p->page = 0;
			tried++;
			continue;
		}
		p->page = *page + 1;
		if (source_block_claim(b, *page))
			return b;
	}
	return NULL;
}

/* Fills one buffer, or sends one large page.  Returns how many pages went in. */
static int64_t put_some(struct source_pager *p, size_t limit)
{
	struct source_block *b;
	uint64_t page;
	int64_t n = 0;

	while (has_room(p) && pen_used(&p->pen) < limit && !atomic_load(&p->session->early_eof) &&
	       (b = claim_next(p, &page))) {
		if (put_claimed(p, b, page) < 0)
			return -ECONNABORTED;
		n++;
		if (source_block_fan(b) > 1)
			break;
	}
	return n;
}

static int64_t background_turn(struct source_pager *p, size_t limit)
{
	uint64_t before = atomic_load(&p->lane->bytes);
	int64_t n;

	open_section(p);
	n = put_some(p, limit);
	if (n == 0)
		p->pen = pen_init(p->buf, SOURCE_PAGER_BUFFER);
	if (n <= 0 || close_section(p) < 0)
		return n < 0 ? n : n == 0 ? 0 : -ECONNABORTED;
	settle(p->session, (uint64_t)n);
	return (int64_t)(atomic_load(&p->lane->bytes) - before);
}

/**
 * source_pager_background - one turn of background: claim and send
 * @limit: about so many bytes, beginning near the last request
 *
 * Return: the bytes written; 0 when no page is left to claim; -ECONNABORTED when the session is
 * over.
 */
int64_t source_pager_background(struct source_pager *p, size_t limit)
{
	int64_t r;

	follow_hint(p);
	source_lane_begin_turn(p->lane, false);
	r = background_turn(p, limit);
	source_lane_end_turn(p->lane);
	return r;
}

/* --- requests ------------------------------------------------------------------------------ */

static void leave_hint(struct source_session *s, const struct source_block *b, uint64_t page)
{
	uint64_t block = (uint64_t)(b - s->blocks) + 1;

	atomic_store_explicit(&s->hint, block << HINT_SHIFT | (page + 1), memory_order_relaxed);
}

/*
 * Claim the next page behind @page that nobody sent yet, for the same turn.  A large page is a turn
 * of its own.  False: @page was not looked at.
 */
static bool claim_behind(const struct source_pager *p, struct source_block *b, uint64_t *page,
			 uint64_t end)
{
	bool open = source_block_fan(b) == 1;

	while (++*page < end && open && has_room(p) && !atomic_load(&p->session->early_eof))
		if (source_block_claim(b, *page))
			return true;
	return false;
}

/* @page is claimed; with it goes what follows, as far as the buffer.  Pages that went in. */
static int64_t put_asked(struct source_pager *p, struct source_block *b, uint64_t *page,
			 uint64_t end)
{
	int64_t n = 0;

	do {
		if (put_claimed(p, b, *page) < 0)
			return -ECONNABORTED;
		n++;
	} while (claim_behind(p, b, page, end));
	return n;
}

static int answer_turn(struct source_pager *p, struct source_block *b, uint64_t *page, uint64_t end)
{
	struct source_session *s = p->session;
	int64_t n;
	int r;

	atomic_store(&s->answering, true);
	leave_hint(s, b, end - 1);
	source_lane_begin_turn(p->lane, true);
	open_section(p);
	n = put_asked(p, b, page, end);
	r = n < 0 ? (int)n : close_section(p);
	source_lane_end_turn(p->lane);
	atomic_store(&s->answering, false);
	if (s->options->huge_interleave)
		source_session_notify(s);
	if (r == 0)
		settle(s, (uint64_t)n);
	return r;
}

/**
 * source_pager_answer - answer a request for pages of @b, those that nobody sent yet
 * @page: the first
 * @end: behind the last
 *
 * Return: 0 or -ECONNABORTED.
 */
int source_pager_answer(struct source_pager *p, struct source_block *b, uint64_t page, uint64_t end)
{
	while (page < end && !atomic_load(&p->session->early_eof)) {
		if (!source_block_claim(b, page))
			page++;
		else if (answer_turn(p, b, &page, end) < 0)
			return -ECONNABORTED;
	}
	return 0;
}

/* --- precopy -------------------------------------------------------------------------------- */

/**
 * source_pager_begin - precopy: a turn with pages that are nobody's to claim
 *
 * Then any number of source_pager_put(), and source_pager_finish() also after one that failed.
 */
void source_pager_begin(struct source_pager *p)
{
	source_lane_begin_turn(p->lane, p->urgent);
	open_section(p);
}

/**
 * source_pager_put - append a page to the turn; 0 or -ECONNABORTED
 */
int source_pager_put(struct source_pager *p, const struct source_block *b, uint64_t page,
		     enum source_stage stage)
{
	const struct twist twist = {.action = SOURCE_STRAIGHT, .stage = stage};

	return put_page(p, b, page, &twist) < 0 ? -ECONNABORTED : 0;
}

/**
 * source_pager_finish - close the section and give the turn back; 0 or -ECONNABORTED
 */
int source_pager_finish(struct source_pager *p)
{
	int r = close_section(p);

	source_lane_end_turn(p->lane);
	return r;
}
