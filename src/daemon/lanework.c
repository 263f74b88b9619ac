/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Working off the receive buffers of the fault thread's lanes, and handing the main lane to the
 * bulk thread.
 *
 * A lane takes a bounded number of steps each turn, so that faults are looked at in between.  It
 * stands still while a page of it waits to be placed, while the main thread does what the session
 * needs, and for good once the session is halted.
 */
#include "config.h"
#include "daemon/faultloop.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "core/probe.h"
#include "daemon/inject_desk.h"
#include "sys/fd.h"

#define LANE_BUDGET 16		/* steps a lane may take in a turn */
#define LATE_NS	    30000000

static bool stalled(const struct faultloop *f, const struct lane *l)
{
	return l->id == LANE_MAIN ? f->stalled_main : f->stalled_urgent;
}

/*
 * A source that leaves TCP_NODELAY alone (the preempt channel of QEMU 7.2) and has several pages to
 * send sends the next when the one before is acknowledged; where a page fits a segment (loopback,
 * jumbo frames) that may take 40 ms.  From outside nothing shows it but a page that comes so late.
 * While the background stream runs its thread acknowledges for this one.  To do so here costs a
 * system call a page, so it is done only then.
 */
static bool came_late(const struct faultloop *f, const struct lane *l, const struct lane_page *p)
{
	uint32_t first = waiter_first(&f->engine.waiters, p->page);
	uint64_t sent = first == WAITER_NONE ? 0 : f->engine.waiters.entry[first].sent_ns;

	return sent && l->arrived_ns > sent + LATE_NS;
}

/* False when the lane must not be read further now. */
static bool take_page(struct faultloop *f, struct lane *l, const struct lane_page *p)
{
	if (l->id == LANE_URGENT && !l->hasten)
		l->hasten = came_late(f, l, p);
	PROBE3(page, l->id, p->page, p->n);
	if (f->desk)
		inject_content(f->faults, p,
			       block_of_page(&f->engine.blocks, p->page)->page_size);
	if (p->n == 1)
		engine_page(&f->engine, l->id, p->page, p->data, l->arrived_ns);
	else
		engine_zero_run(&f->engine, l->id, p->page, p->n, l->arrived_ns);
	perform_actions(f);
	l->holding = stalled(f, l);
	return !l->holding;
}

static bool take_urgent_record(struct faultloop *f, struct lane *l)
{
	if (l->event != QSTREAM_EOF) {
		verdict_halt(f, EPROTO, "urgent channel, byte %" PRIu64 ": not a page",
			     l->stream.position);
		return false;
	}
	l->ended = true;
	return true;
}

/*
 * One step; false when there is nothing more to do now.  A package body is taken as bytes,
 * everything else as records or pages.
 */
static bool step_lane(struct faultloop *f, struct lane *l)
{
	struct lane_page page;
	bool go_on;
	int step;

	if (l->id == LANE_MAIN && intake_wants_body(f)) {
		intake_body(f, l);
		return !intake_wants_body(f);
	}
	if (f->desk)
		inject_record(f->faults, l);
	step = lane_next(l, &f->engine.blocks, faultloop_serving(f), &page);
	if (step == LANE_MORE)
		return false;
	if (step < 0) {
		verdict_halt(f, EPROTO, "%s channel, byte %" PRIu64 ": %s%s%s",
			     l->id == LANE_MAIN ? "main" : "urgent", l->stream.position,
			     l->stream.reason, l->stream.detail[0] ? ": " : "", l->stream.detail);
		return false;
	}
	if (step == LANE_PAGE) {
		go_on = take_page(f, l, &page);
	} else {
		go_on = l->id == LANE_MAIN ? intake_record(f, l) : take_urgent_record(f, l);
		f->placer.now = 0;	/* to get ready to serve takes long */
	}
	if (!l->holding)
		lane_consume(l);
	return go_on;
}

/**
 * lanework_has_main - is the main lane this thread's?
 *
 * Else it is the bulk thread's, or about to be.  A tail stays ours, and beside a sharer that tells
 * of memory that goes there is no second thread that places (removals.c).
 */
bool lanework_has_main(const struct faultloop *f)
{
	return !f->has_urgent || f->reported || !faultloop_serving(f) || f->tail ||
	       holdback_loading(f) || f->engine.session.state == SESSION_RECOVERING;
}

/*
 * The main lane stands still while the main thread owes an answer, and rests while the VMM loads
 * (holdback.c).  The urgent lane is not looked at before faults are served: what was asked for
 * before (may_ask() in faultloop.c) is waited for by nobody yet.
 */
static bool may_read(const struct faultloop *f, const struct lane *l)
{
	if (l->fd < 0 || faultloop_halted(f) || f->n_pending == FAULTLOOP_PENDING ||
	    stalled(f, l) || inject_rests(f, l))
		return false;
	if (l->id != LANE_MAIN)
		return faultloop_serving(f);
	return f->need == NEED_NOTHING && lanework_has_main(f) && !holdback_rests(f);
}

/*
 * The main connection's end is judged at once.  The urgent one's is only an end of pages: after the
 * main stream's end the source closes it; before, the main connection tells what happened.
 */
static void lane_ended(struct faultloop *f, struct lane *l)
{
	if (l->id == LANE_MAIN) {
		verdict_closed(f, l->error);
	} else if (!l->ended) {
		l->ended = true;
		faultloop_changed(f);
	}
}

/*
 * While the lane stands still: do the bytes that are here change what the connection's end means?
 */
static bool tells_more(const struct faultloop *f, const struct lane *l)
{
	if (l->id != LANE_MAIN || l->holding)
		return true;
	if (f->need == NEED_ARM)
		return f->engine.session.committed && mem_ring_used(&l->in) > 0;
	return intake_holds_package(l);
}

/**
 * lanework_run - take what a lane has received, a bounded number of steps
 *
 * Return: true when there is more in the buffer than one turn may take.
 */
bool lanework_run(struct faultloop *f, struct lane *l)
{
	unsigned budget = LANE_BUDGET;

	if (l->holding && !stalled(f, l)) {
		lane_consume(l);
		l->holding = false;
	}
	while (may_read(f, l) && budget > 0) {
		if (!step_lane(f, l)) {
			if (l->eof && !l->holding && f->need == NEED_NOTHING)
				lane_ended(f, l);
			return false;
		}
		budget--;
	}
	/* Waiting for the main thread must not hide that the source is gone. */
	if (l->eof && l->fd >= 0 && f->need != NEED_NOTHING && !faultloop_halted(f) &&
	    !tells_more(f, l))
		lane_ended(f, l);
	return budget == 0;
}

/*
 * What the bulk thread needs to place by itself, by value: it keeps working through a dup of the
 * main sharer's userfaultfd when that sharer ends, and falls back to our own mapping then.
 */
static void fill_carrier(struct faultloop *f, struct bulk_carrier *c)
{
	int main = f->engine.sharers.main;

	*c = (struct bulk_carrier){ .main_uffd = -1, .own_uffd = f->own_uffd };
	if (main >= 0) {
		const struct sharer *s = &f->engine.sharers.sharer[main];

		c->main_uffd = dup(f->roster.member[main].uffd);
		c->main_pid = f->roster.member[main].pid;
		c->main = f->roster.member[main].ref;
		c->n_mappings = s->n_mappings;
		memcpy(c->mapping, s->mapping, s->n_mappings * sizeof(s->mapping[0]));
	}
	for (unsigned i = 0; i < f->n_backings; i++) {
		const struct backing *b = &f->backing[i];

		if (b->armed) {
			c->own[i].address = (uint64_t)(uintptr_t)b->map;
			c->own[i].can_zero = b->can_zero;
		}
		c->own[i].store = b->kind == BLOCK_SHARED ? NULL : b->map;
	}
}

/**
 * lanework_hand_over - as soon as faults are served and an urgent lane is there, the main lane goes
 * to its own thread
 *
 * Not while a receive is under way in the ring: it is cancelled, and the hand-over tried again next
 * turn.  Not with a page at hand that waits to be placed: that is done here.  Not while the VM is
 * about to go on.
 */
void lanework_hand_over(struct faultloop *f)
{
	struct bulk_carrier carrier;
	int ret;

	if (bulklane_runs(f->bulk) || f->main.fd < 0 || lanework_has_main(f) ||
	    faultloop_halted(f) || f->main.holding)
		return;
	if (f->main_receiving) {
		ring_cancel(f->ring, (struct ring_cookie){ COOKIE_MAIN, 0, 0, 0 });
		return;
	}
	f->engine.stats.lane[LANE_MAIN].bytes += f->main.bytes;
	f->engine.stats.lane[LANE_MAIN].batches += f->main.batches;
	fill_carrier(f, &carrier);
	ret = bulklane_start(&f->bulk, &f->main, &f->engine, &carrier, &f->placer, &f->reports);
	if (ret < 0) {
		close_fd(&carrier.main_uffd);
		verdict_halt(f, -ret, "cannot start the bulk thread: %s", strerror(-ret));
	}
	bulklane_beside(f->bulk, f->urgent.fd);
}
