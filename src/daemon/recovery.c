/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Theory: the source is lost, and comes again
 *
 * What a lost source leaves here is all in the ledger: which pages are owed, and which of them were
 * asked for.  Waiters stay parked, faults go on being read, and those on pages that are here are
 * answered; nothing else depends on there being a source.  So to pause is to get rid of the lanes,
 * and to recover is to have others.
 *
 * To get rid of a lane takes time: a receive or a send may be in the kernel's hands, the bulk
 * thread may be placing.  Nothing waits for that.  The connections are shut down, which ends all of
 * it soon, and each turn looks whether it has (settle()).  Pages that a lane brought and that were
 * not placed are given up: their bytes go with the lane, and the source has them still.
 *
 * A resumed source speaks first (qemu-wire.md 13.3).  It asks for each block what came of it; the
 * answer, a bit for each target page, is made from the ledger piece by piece as the socket takes
 * it, so it costs no memory and no turn takes long for it.  No lane places a page meanwhile, so
 * what was said stays true.  Then it says that it goes on, and from there all is as before: what is
 * outstanding is asked for once more (O4), and with its name, for both ends forgot the last block.
 * Pages that come a second time find nothing to claim.
 *
 * Whatever goes wrong before that ends where it began, in PAUSED, and may be tried again.  That a
 * source recovers at all proves that it did not take its VM back.
 */
#include "config.h"
#include "daemon/recovery.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/received.h"
#include "daemon/faultloop.h"
#include "sys/clock.h"
#include "sys/fd.h"

#define PIECE  4096	/* bytes of a bitmap made in a turn: 128 MiB of 4 KiB pages */
#define STEPS  16	/* records a turn */

/* --- without a source ------------------------------------------------------------------------- */

static void shut(int fd)
{
	if (fd >= 0)
		shutdown(fd, SHUT_RDWR);
}

/* Pages that wait for the kernel are in the lanes' buffers, which go. */
static void give_up_pending(struct faultloop *f)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < f->n_pending; i++)
		if (!engine_lane_lost(&f->engine, &f->pending[i]))
			f->pending[kept++] = f->pending[i];
	f->n_pending = kept;
	f->stalled_main = f->stalled_urgent = false;
	engine_lanes_lost(&f->engine);
}

/* What was received is taken into the statistics: a lane that is opened again begins anew. */
static void count(struct faultloop *f, const struct lane *l)
{
	f->engine.stats.lane[l->id].bytes += l->bytes;
	f->engine.stats.lane[l->id].batches += l->batches;
}

/**
 * recovery_begin - the source is lost, or sent away: what belongs to it is done with
 *
 * The session is PAUSED.  Nothing is waited for.
 */
void recovery_begin(struct faultloop *f)
{
	struct recovery *r = &f->recovery;

	shut(f->return_fd);
	shut(f->urgent.fd);
	bulklane_end(f->bulk);
	f->main.eof = f->urgent.eof = true;
	f->main.holding = f->urgent.holding = false;
	give_up_pending(f);
	f->main_closed = true;
	f->arrears_ns = f->arrears_bytes = 0;
	f->arrears_asked = false;
	close_fd(&r->main_fd);
	close_fd(&r->urgent_fd);
	r->expects_urgent = r->open = r->answering = false;
	r->settling = true;
	faultloop_changed(f);
}

/* False: something of the old connections is under way still. */
static bool settle(struct faultloop *f)
{
	struct recovery *r = &f->recovery;

	if (f->main_receiving || f->urgent_receiving || f->outbox.sending ||
	    !ring_stream_forget(f->ring) || (bulklane_runs(f->bulk) && !r->bulk_over))
		return false;
	if (bulklane_runs(f->bulk)) {
		bulklane_take_back(f->bulk, &f->main);
		f->bulk_seen = (struct bulk_message){ 0 };
	}
	count(f, &f->main);
	count(f, &f->urgent);
	lane_reopen(&f->main, -1);
	lane_reopen(&f->urgent, -1);
	close_fd(&f->return_fd);
	f->has_urgent = false;
	r->bulk_over = r->settling = false;
	return true;
}

/* --- with one that came again ----------------------------------------------------------------- */

/**
 * recovery_connect - the main connection of a resumed source
 * @fd: owned from here on
 * @peer: its address, for people
 */
void recovery_connect(struct faultloop *f, int fd, const char *peer)
{
	struct recovery *r = &f->recovery;

	r->resumed++;
	faultloop_changed(f);
	if (faultloop_feed(f, SESSION_RESUME) <= 0) {
		close_fd(&fd);
		return;
	}
	r->main_fd = fd;
	snprintf(r->peer, sizeof(r->peer), "%s", peer);
	memset(r->asked, 0, sizeof(r->asked));
}

/**
 * recovery_keeps_urgent - an urgent connection that is not to be read now
 * @fd: -1: one is to be expected
 *
 * Return: true when it was taken: kept for later, or closed as one of a source that is lost.
 */
bool recovery_keeps_urgent(struct faultloop *f, int fd)
{
	struct recovery *r = &f->recovery;
	const struct session *s = &f->engine.session;

	if (s->state == SESSION_PAUSED && !s->held) {
		close_fd(&fd);
		return true;
	}
	if (s->state != SESSION_RECOVERING || r->open)
		return false;
	r->expects_urgent = true;
	close_fd(&r->urgent_fd);
	r->urgent_fd = fd;
	return true;
}

__attribute__((format(printf, 3, 4)))
static void fail(struct faultloop *f, int error, const char *fmt, ...)
{
	char why[256];
	va_list args;

	va_start(args, fmt);
	vsnprintf(why, sizeof(why), fmt, args);
	va_end(args);
	verdict_not_recovered(f, error, why);
}

/* Both lanes, as new, over the blocks that there were. */
static void open_lanes(struct faultloop *f)
{
	struct recovery *r = &f->recovery;
	struct qstream blocks = f->main.stream;

	lane_reopen(&f->main, r->main_fd);
	r->main_fd = -1;
	qstream_init(&f->main.stream, QSTREAM_RECOVERY, &blocks);
	f->return_fd = dup(f->main.fd);
	/* Who took over from a process that died has no buffer yet. */
	if (f->return_fd < 0 || (!f->main.in.base && mem_ring_init(&f->main.in, LANE_BUFFER) < 0) ||
	    lane_use_pages(&f->main, f->zeroes_size) < 0) {
		fail(f, ENOMEM, "cannot receive or send: no descriptor, or no memory");
		return;
	}
	outbox_reset(&f->outbox);
	f->answer_mark = f->shut_mark = 0;
	f->main_eof = f->main_closed = f->closing = false;
	memcpy(f->peer, r->peer, sizeof(f->peer));
	r->open = true;
	if (r->expects_urgent)
		errands_urgent(f, steal_fd(&r->urgent_fd));
	r->expects_urgent = false;
	faultloop_changed(f);
}

/* False: the socket has to take something first. */
static bool put_mark(struct faultloop *f)
{
	const uint64_t mark = htobe64(QRETURN_BITMAP_END);
	size_t room;
	uint8_t *to = outbox_space(&f->outbox, &room);

	if (room < sizeof(mark))
		return false;
	memcpy(to, &mark, sizeof(mark));
	outbox_put(&f->outbox, sizeof(mark));
	f->recovery.answering = false;
	return true;
}

/* A piece of the answer; false: the socket has to take something first. */
static bool put_piece(struct faultloop *f)
{
	struct recovery *r = &f->recovery;
	size_t room;
	uint8_t *to = outbox_space(&f->outbox, &room);
	uint64_t n = r->size - r->at < PIECE ? r->size - r->at : PIECE;

	if (n == 0)
		return put_mark(f);
	if (room < n)
		return false;
	received_fill(&f->engine.ledger, &f->engine.blocks.block[r->block],
		      f->main.stream.target_page, r->at, to, n);
	outbox_put(&f->outbox, n);
	r->at += n;
	return true;
}

static bool on_recv_bitmap(struct faultloop *f)
{
	struct recovery *r = &f->recovery;
	const struct block *b;

	r->block = f->main.rec.recv_bitmap.block;
	b = &f->engine.blocks.block[r->block];
	r->at = 0;
	r->size = received_size(b, f->main.stream.target_page);
	r->asked[r->block] = true;
	r->answering = true;
	outbox_bitmap(&f->outbox, b->name, r->size);
	return true;
}

static bool on_ping(struct faultloop *f)
{
	outbox_pong(&f->outbox, f->main.rec.ping);
	return true;
}

/*
 * A source that did not ask for a block would never send again what was on its way when it was
 * lost.
 */
static bool on_resume(struct faultloop *f)
{
	struct recovery *r = &f->recovery;

	for (unsigned i = 0; i < f->engine.blocks.n; i++)
		if (!r->asked[i]) {
			fail(f, EPROTO, "it goes on without having asked what came of block %s",
			     f->engine.blocks.block[i].name);
			return false;
		}
	outbox_resume_ack(&f->outbox);
	engine_replay(&f->engine);
	f->recoveries++;
	r->open = false;
	verdict_recovered(f);
	return false;
}

static bool on_record(struct faultloop *f)
{
	switch (f->main.event) {
	case QSTREAM_RECV_BITMAP:
		return on_recv_bitmap(f);
	case QSTREAM_PING:
		return on_ping(f);
	case QSTREAM_RESUME:
		return on_resume(f);
	default:
		fail(f, EPROTO, "unexpected record at byte %" PRIu64, f->main.stream.position);
		return false;
	}
}

static bool lost_meanwhile(struct faultloop *f)
{
	int error = f->main.error ? f->main.error : ECONNRESET;

	fail(f, error, "%s", strerror(error));
	return false;
}

/* One step; false: nothing more can be done now. */
static bool step(struct faultloop *f)
{
	struct lane *l = &f->main;
	struct lane_page page;
	bool go_on;
	int what;

	/* Who has gone takes no answer any more. */
	if (f->recovery.answering && (l->eof || f->outbox.broken))
		return lost_meanwhile(f);
	if (f->recovery.answering)
		return put_piece(f);
	if (!outbox_room(&f->outbox))
		return false;
	what = lane_next(l, &f->engine.blocks, true, &page);
	if (what == LANE_MORE && l->eof)
		return lost_meanwhile(f);
	if (what < 0 || what == LANE_PAGE)
		fail(f, EPROTO, "byte %" PRIu64 ": %s%s%s", l->stream.position,
		     l->stream.reason ? l->stream.reason : "a page",
		     l->stream.detail[0] ? ": " : "", l->stream.detail);
	if (what != LANE_RECORD)
		return false;
	go_on = on_record(f);
	lane_consume(l);
	return go_on;
}

/**
 * recovery_turn - as far as it goes without waiting
 *
 * Return: true when there is more to be done at once.
 */
bool recovery_turn(struct faultloop *f)
{
	struct recovery *r = &f->recovery;
	unsigned budget = STEPS;
	bool pieces = false;

	if (r->settling && !settle(f))
		return false;
	if (f->engine.session.state != SESSION_RECOVERING)
		return false;
	/* What came of the pages is not known before all that is left was looked at. */
	if (!r->open && adopt_waits(f))
		return false;
	if (!r->open)
		open_lanes(f);
	while (r->open && !pieces && budget-- > 0) {
		if (!step(f))
			return f->engine.session.state != SESSION_RECOVERING;
		pieces = r->answering;
	}
	return r->open;
}

/**
 * recovery_waits - does something go on that no completion may tell of?
 */
bool recovery_waits(const struct faultloop *f)
{
	return f->recovery.settling;
}
