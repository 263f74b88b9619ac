/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Theory: what is left of a fault thread that was killed?
 *
 * The guest's memory and the sharers' registrations never were its own, and the kernel goes on
 * putting to sleep who touches a missing page.  The ledger says of every page what it is, the
 * record (memoir.c) how far the session was.  Three things are lost:
 *
 *   who waits        The kernel delivers a fault once.  One that was read by the dead comes again
 *                    only when its thread is woken and touches the page again.  So when every
 *                    sharer is here again, all of them are woken, over all of their mappings.  Not
 *                    only where pages are missing: a page may have been placed and its waiters in
 *                    other processes not woken any more.  Who is woken without need looks at his
 *                    page again and sleeps on: this is the one place where that is wanted.  The
 *                    kernel looks at who sleeps, not at pages, so a mapping is one call, however
 *                    long it is.
 *   what was in hand Pages that were claimed (PLACING, CONTESTED): the kernel may have been asked
 *                    for them or not.  It is asked now whether they are there; there is no third
 *                    state, for a COPY is seen whole or not at all.  A page that is not there is
 *                    again what it was.
 *   the connections  They are in the middle of something that nobody knows.  They are ended, and
 *                    the source is to come back (PAUSED).  Only where nothing was to be said any
 *                    more but SHUT, it is said on the old connection.
 *
 * Of a shared page the file says whether it is there, so those are judged before anything is
 * served.  Of private memory its owner's page table says it, and where that is he says himself when
 * he is told of again: until then such a page stays claimed, and who touches it waits.
 *
 * A page that was not placed is missing again, whatever it was claimed as, since the source has all
 * pages until it hears SHUT.  Two are more than that: private content that precopy brought is in
 * our store, which then has it; and once nothing is owed what was claimed were known zeroes.
 *
 * Nothing is changed before all that was left was looked at and fits together.
 */
#include "config.h"
#include "daemon/adopt.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/faultloop.h"
#include "daemon/memoir.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "sys/mem.h"
#include "sys/sock.h"

#define WHY_MAX	 256
#define RETRY_NS 1000000

/* The descriptors, ours by now; what is used is taken out. */
struct left {
	struct faultloop_adopt fd;
	struct memoir m;
	struct memoir_blocks blocks;
};

/**
 * adopt_close - close what was kept and nobody took over
 */
void adopt_close(struct faultloop_adopt *a)
{
	close_fd(&a->ledger);
	close_fd(&a->package);
	close_fd(&a->main);
	for (unsigned i = 0; i < a->n_blocks; i++)
		close_fd(&a->file[i]);
}

__attribute__((format(printf, 3, 4)))
static int refuse(const struct left *l, int error, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	if (l->fd.why)
		vsnprintf(l->fd.why, WHY_MAX, fmt, args);
	va_end(args);
	return error;
}

/* --- the pages that were in hand -------------------------------------------------------------- */

/* Is a page of private memory there, at its owner?  -ENOENT: nobody has shown it yet. */
static int owner_has(const struct faultloop *f, unsigned block, uint64_t offset)
{
	for (unsigned i = 0; i < f->roster.used; i++) {
		const struct member *m = &f->roster.member[i];
		const struct sharer *s = m->state == SHARER_ACTIVE ?
						 &f->engine.sharers.sharer[m->ref.slot] :
						 NULL;
		const struct mapping *map;
		unsigned from = 0;

		map = s ? sharer_alias(s, block, offset, &from) : NULL;
		if (map)
			return mem_mapped(m->pid, mapping_address(map, offset));
	}
	return -ENOENT;
}

/* Of a page that is not there: what was it when it was claimed? */
static enum page_state was(const struct faultloop *f, unsigned block, uint64_t offset)
{
	const struct backing *b = &f->backing[block];

	if (b->kind == BLOCK_PRIVATE && b->file >= 0 && backing_stores(b, offset) > 0)
		return PAGE_STORED;
	return f->closing ? PAGE_ZERO : PAGE_MISSING;
}

static void judge(struct faultloop *f, unsigned block, uint64_t page)
{
	const struct block *b = &f->engine.blocks.block[block];
	uint64_t offset = block_offset(b, page);
	enum page_state is = PAGE_MISSING;
	int there = 0;

	if (b->kind == BLOCK_SHARED)
		there = backing_has(&f->backing[block], offset, f->own_uffd, f->placer.ops);
	else if (b->kind == BLOCK_PRIVATE)
		there = owner_has(f, block, offset);
	if (b->kind != BLOCK_HELD)
		is = there < 0 ? PAGE_UNPLACED : there ? PAGE_PRESENT : was(f, block, offset);
	f->adoption.judged++;
	f->adoption.there += is == PAGE_PRESENT;
	engine_judged(&f->engine, page, is, clock_ns());
}

/* Every page of the block that is in hand. */
static void judge_block(struct faultloop *f, unsigned block)
{
	static const enum page_state claimed[] = { PAGE_PLACING, PAGE_CONTESTED };
	const struct block *b = &f->engine.blocks.block[block];
	uint64_t end = b->first + b->pages;

	for (unsigned i = 0; i < 2; i++)
		for (uint64_t page = b->first;
		     (page = ledger_find(&f->engine.ledger, page, end, claimed[i])) < end; page++)
			judge(f, block, page);
}

static void judge_all(struct faultloop *f, bool private)
{
	for (unsigned i = 0; i < f->engine.blocks.n; i++)
		if ((f->engine.blocks.block[i].kind == BLOCK_PRIVATE) == private)
			judge_block(f, i);
}

/* --- what was left ---------------------------------------------------------------------------- */

static int take_block(struct faultloop *f, struct left *l, unsigned i)
{
	const struct memoir_block *kept = &l->blocks.block[i];
	int index = block_add(&f->engine.blocks, kept->name, kept->length, kept->page_size,
			      (enum block_kind)kept->kind), ret;
	struct block *b;

	if (index < 0)
		return refuse(l, -EBADMSG, "the record names a block that cannot be: %s",
			      strerror(-index));
	b = &f->engine.blocks.block[index];
	ret = backing_adopt(&f->backing[index], b, steal_fd(&l->fd.file[i]), kept->file_offset);
	f->n_backings = f->engine.blocks.n;
	if (ret < 0)
		return refuse(l, ret, "what backs block %s is not what backed it: %s", b->name,
			      strerror(-ret));
	b->owed = kept->owed;
	b->sparse = backing_sparse(&f->backing[index]);
	if (b->kind != BLOCK_SHARED)
		b->store = f->backing[index].map;
	f->listed[index] = (struct qstream_block){ .length = b->length, .page_size = b->page_size };
	memcpy(f->listed[index].name, b->name, sizeof(f->listed[index].name));
	f->n_listed = (unsigned)index + 1;
	return 0;
}

static int take_ledger(struct faultloop *f, struct left *l)
{
	uint64_t size = ledger_size(f->engine.blocks.pages);

	if (!mem_is_kept(l->fd.ledger, size))
		return refuse(l, -EBADMSG, "the ledger is missing, or not one of %" PRIu64 " pages",
			      f->engine.blocks.pages);
	f->ledger_memory = mem_map_shared(l->fd.ledger, 0, size);
	if (!f->ledger_memory)
		return refuse(l, -errno, "the ledger cannot be mapped: %s", strerror(errno));
	f->ledger_size = size;
	if (engine_adopt_ledger(&f->engine, f->ledger_memory, size) < 0 ||
	    !ledger_committed(&f->engine.ledger))
		return refuse(l, -EBADMSG, "the ledger does not fit the record");
	return 0;
}

static int take_blocks(struct faultloop *f, struct left *l)
{
	int ret = memoir_read_blocks(f->options.record, &l->blocks);

	if (ret <= 0 || l->blocks.n == 0 || l->blocks.n != l->fd.n_blocks)
		return refuse(l, -EBADMSG, "the record does not say what the blocks were");
	ret = 0;
	for (unsigned i = 0; i < l->blocks.n && ret == 0; i++)
		ret = take_block(f, l, i);
	return ret < 0 ? ret : take_ledger(f, l);
}

static int take_package(struct faultloop *f, struct left *l)
{
	const struct memoir *m = &l->m;

	f->package_size = m->package_size;
	f->device_offset = m->device_offset;
	f->device_size = m->device_size;
	f->states_offset = m->states_offset;
	f->states_size = m->states_size;
	if (l->fd.package >= 0 && lseek(l->fd.package, 0, SEEK_END) != (off_t)m->package_size)
		return refuse(l, -EBADMSG, "the package is not one of %" PRIu64 " bytes",
			      m->package_size);
	f->package_fd = steal_fd(&l->fd.package);
	return 0;
}

static void take_session(struct faultloop *f, const struct memoir *m)
{
	f->engine.session = m->session;
	f->times = m->times;
	f->has_main = m->has_main;
	f->tail = m->tail;
	f->main_eof = m->main_eof;
	f->main_closed = m->main_closed;
	f->closing = m->closing;
	f->shut_clean = m->shut_clean;
	f->running_told = m->running_told;
	f->ownership_unknown = m->ownership_unknown;
	f->page_bits = m->page_bits;
	f->ram_section = m->ram_section;
	f->footers = m->footers;
	f->error = m->error;
	f->strays = m->strays;
	f->recoveries = m->recoveries;
	f->engine.owed = m->owed;
	f->held_left = true;
	memcpy(f->machine, m->machine, sizeof(f->machine));
	memcpy(f->peer, m->peer, sizeof(f->peer));
	memcpy(f->reason, m->reason, sizeof(f->reason));
	f->cause_len = m->cause_len;
}

/* A source that comes back speaks of the blocks as it did before. */
static int restore_stream(struct faultloop *f)
{
	const struct qstream_known known = {
		.n_blocks = f->n_listed, .blocks = f->listed, .ram_section = f->ram_section,
		.page_bits = f->page_bits, .footers = f->footers,
	};

	qstream_restore(&f->main.stream, &known);
	return intake_use_pages(f);
}

/* --- how it goes on --------------------------------------------------------------------------- */

/* Our mappings are under our own watch again; nothing is swept, what is there came from us. */
static int arm(struct faultloop *f, const struct left *l)
{
	for (unsigned i = 0; i < f->n_backings; i++) {
		int ret = backing_arm(&f->backing[i], f->own_uffd);

		if (ret < 0)
			return refuse(l, ret, "block %s cannot be put under our own watch: %s",
				      f->engine.blocks.block[i].name, strerror(-ret));
	}
	return 0;
}

/*
 * All that was to be said is SHUT, and nothing stands half said before it.  If it was said it is
 * not said again: a source that hears it twice resets the connection.
 */
static bool only_shut_is_owed(const struct faultloop *f, const struct left *l)
{
	return f->engine.session.state == SESSION_RUNNING && f->closing && l->fd.main >= 0 &&
	       (l->m.shut_sent || l->m.shut_clean) && engine_drained(&f->engine);
}

static int go_on_closing(struct faultloop *f, struct left *l)
{
	int ret;

	f->return_fd = dup(l->fd.main);
	ret = lane_open(&f->main, LANE_MAIN, steal_fd(&l->fd.main));
	if (ret < 0 || f->return_fd < 0)
		return refuse(l, -ENOMEM, "no memory for the source's receive buffer");
	if (!l->m.shut_sent)
		outbox_shut(&f->outbox, 0);
	f->shut_mark = outbox_mark(&f->outbox);
	return restore_stream(f);
}

/*
 * May the VM run, though the dead one could not tell the main thread any more?  Where our answer
 * commits: if it reached the source.  Else there was no way back since the package.
 */
static void note_answer(struct faultloop *f, const struct left *l)
{
	const struct session *s = &f->engine.session;

	if (!s->loaded || f->tail || f->running_told)
		return;
	f->running_told = !s->answer_commits ||
			  (l->m.answer_sent && l->fd.main >= 0 && sock_unsent(l->fd.main) == 0 &&
			   !sock_ended(l->fd.main));
	if (f->running_told)
		f->times.running = clock_ns();
}

static int go_on(struct faultloop *f, struct left *l)
{
	int ret;

	if (only_shut_is_owed(f, l))
		return go_on_closing(f, l);
	ret = lane_open(&f->main, LANE_MAIN, -1);
	if (ret == 0)
		ret = restore_stream(f);
	if (ret < 0)
		return refuse(l, ret, "no memory for the source's receive buffer");
	note_answer(f, l);
	f->return_fd = steal_fd(&l->fd.main);
	if (!l->m.session.armed)
		f->need = NEED_ARM;
	/* What is held stays so: the source keeps its copy as long as it is connected. */
	if (!l->m.session.held || f->main_closed || f->return_fd < 0)
		verdict_restarted(f);
	return 0;
}

/* A session that never was ours: the source takes its VM back. */
static int give_up(struct faultloop *f, struct left *l)
{
	f->return_fd = steal_fd(&l->fd.main);
	if (f->has_main)
		verdict_restarted(f);
	return 0;
}

static int take_over(struct faultloop *f, struct left *l)
{
	int ret = memoir_read(f->options.record, &l->m);

	if (ret < 0)
		return refuse(l, ret, "the record of the session cannot be read");
	if (ret == 0)
		return 0;
	take_session(f, &l->m);
	if (!l->m.session.committed)
		return give_up(f, l);
	ret = take_blocks(f, l);
	if (ret == 0)
		ret = take_package(f, l);
	if (ret == 0 && l->m.session.armed)
		ret = arm(f, l);
	if (ret < 0)
		return ret;
	engine_recount(&f->engine);
	judge_all(f, false);
	return go_on(f, l);
}

/**
 * adopt_begin - stand where an earlier process stood
 *
 * Before the thread runs.  A session that was not committed is refused as it would have been; one
 * that was begins PAUSED and serves what is here, or, when all was said but SHUT, says that.  What
 * was left and does not fit together is refused, and untouched then.
 *
 * Return: 0 or -errno, -EBADMSG for what does not fit, with the reason in options.adopt->why.
 */
int adopt_begin(struct faultloop *f)
{
	struct left l = { .fd = *f->options.adopt };
	int ret;

	f->options.adopt = NULL;
	f->adoption.begun = true;
	ret = take_over(f, &l);
	adopt_close(&l.fd);
	if (ret == 0)
		memoir_write(f);
	faultloop_changed(f);
	return ret;
}

/* --- who waits -------------------------------------------------------------------------------- */

/**
 * adopt_told - every sharer that the earlier process had has been told of again
 *
 * What private memory holds can be looked at now, and all who sleep are woken in the next turns.
 */
void adopt_told(struct faultloop *f)
{
	if (f->adoption.begun && !f->adoption.told && f->engine.ledger.word) {
		judge_all(f, true);
		perform_actions(f);
	}
	f->adoption.told = true;
	f->adoption.at = 0;
	faultloop_changed(f);
}

/**
 * adopt_turn - wake the next sharer's threads, if that is due
 *
 * One sharer in a turn, and again from its beginning when a wake was refused.  Faults are read when
 * all is done, or who has faulted and been woken since would seem to wait twice.
 *
 * Return: true when there are more.
 */
bool adopt_turn(struct faultloop *f)
{
	struct adoption *a = &f->adoption;

	if (!a->told || !adopt_waits(f))
		return false;
	a->over = a->at >= f->roster.used;
	if (a->over)
		return true;
	if (f->roster.member[a->at].state == SHARER_ACTIVE &&
	    !perform_wake_all(f, &f->roster.member[a->at])) {
		f->retry_ns = f->retry_ns ? f->retry_ns : clock_ns() + RETRY_NS;
		return false;
	}
	a->at++;
	return true;
}
