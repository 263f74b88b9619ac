/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What other threads want of the fault thread: one handler per message.  A descriptor in a message
 * is ours from here on.
 *
 * The main thread waits while this mailbox is full, so a handler may not wait for the main thread.
 * Messages are taken in order, which is what JOIN and its MAPs, or the BLOCKs and BLOCKS_DONE, rely
 * on.  The bulk lane's reports are a mailbox of their own: they are taken only while there is room
 * for what they may cause.
 */
#include "config.h"
#include "daemon/faultloop.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/guard.h"
#include "daemon/inject_desk.h"
#include "sys/clock.h"
#include "sys/fd.h"

typedef void errand(struct faultloop *f, const struct message *m);

/*
 * Reading and sending have a descriptor each: the lane's may go to the bulk thread, the return path
 * stays here.
 */
static void on_main_lane(struct faultloop *f, const struct message *m)
{
	int ret = lane_open(&f->main, LANE_MAIN, m->lane.fd);

	f->has_main = true;
	f->return_fd = dup(m->lane.fd);
	f->times.started = f->times.state = clock_ns();
	memcpy(f->peer, m->lane.peer, sizeof(f->peer));
	if (ret < 0 || f->return_fd < 0)
		verdict_halt(f, ENOMEM, "no memory for the source's receive buffer");
	inject_moment(f->faults, FAULTPLAN_AT_ACCEPTED);
	faultloop_changed(f);
}

/*
 * The urgent lane may come before or after the block list; intake_urgent() needs both.  It comes
 * twice: without a descriptor, so that all is prepared and the main lane has its own thread in
 * time, and with it when it has spoken.
 */
static void on_lane(struct faultloop *f, const struct message *m)
{
	if (m->lane.urgent && recovery_keeps_urgent(f, m->lane.fd))
		return;
	if (m->lane.urgent)
		errands_urgent(f, m->lane.fd);
	else if (m->lane.recovery)
		recovery_connect(f, m->lane.fd, m->lane.peer);
	else
		on_main_lane(f, m);
}

/* The buffer of one that was lost is used again. */
static int open_urgent(struct faultloop *f)
{
	int ret = 0;

	if (f->urgent.in.base)
		lane_reopen(&f->urgent, -1);
	else
		ret = lane_open(&f->urgent, LANE_URGENT, -1);
	f->has_urgent = ret == 0;
	return ret < 0 ? ret : intake_urgent(f);
}

/**
 * errands_urgent - an urgent connection of the source that there is
 * @fd: owned from here on; -1: one is to be expected
 */
void errands_urgent(struct faultloop *f, int fd)
{
	int ret = f->has_urgent ? 0 : open_urgent(f);

	f->urgent.fd = fd;
	bulklane_beside(f->bulk, f->urgent.fd);
	if (ret < 0)
		verdict_halt(f, -ret, "no memory for the urgent lane's receive buffer");
	if (f->urgent.fd >= 0 && (f->closing || f->engine.session.state == SESSION_FAILED))
		shutdown(f->urgent.fd, SHUT_RDWR);
	faultloop_changed(f);
}

/*
 * What backs the next block of the source's list.  The messages come in the list's order, so the
 * decoder's block numbers and the engine's are the same.
 */
static void on_block(struct faultloop *f, const struct message *m)
{
	const struct qstream_block *listed = &f->listed[m->block.index];
	int file = m->block.file, index, ret;

	index = block_add(&f->engine.blocks, listed->name, listed->length, listed->page_size,
			  m->block.kind);
	if (index < 0) {
		close_fd(&file);
		verdict_halt(f, -index, "block %s of %" PRIu64 " bytes: %s", listed->name,
			     listed->length, strerror(-index));
		return;
	}
	ret = backing_open(&f->backing[index], &f->engine.blocks.block[index], file,
			   m->block.file_offset);
	f->n_backings = f->engine.blocks.n;
	if (ret < 0)
		verdict_halt(f, -ret, "block %s cannot be backed: %s", listed->name,
			     strerror(-ret));
	f->engine.blocks.block[index].sparse = backing_sparse(&f->backing[index]);
	if (m->block.kind != BLOCK_SHARED)
		f->engine.blocks.block[index].store = f->backing[index].map;
}

static void on_blocks_done(struct faultloop *f, const struct message *m)
{
	int ledger = m->blocks_done.ledger, ret = 0;

	f->package_kept = m->blocks_done.package;
	if (f->engine.session.state == SESSION_FAILED)
		close_fd(&ledger);
	else
		ret = intake_blocks_done(f, ledger);

	if (ret < 0)
		verdict_halt(f, -ret, "no memory for the ledger");
	faultloop_changed(f);
}

/*
 * The slot is new, so what the fault thread knew of an earlier sharer there is gone.  A refusal
 * closes our copy of the userfaultfd only; the door holds its own as long as the process lives.
 */
static void on_join(struct faultloop *f, const struct message *m)
{
	int uffd = m->join.uffd, ret;
	struct sharer_ref ref;
	struct member *member;

	ret = engine_join(&f->engine, m->join.main, &ref);
	if (ret < 0) {
		close_fd(&uffd);
		return;
	}
	member = roster_enter(&f->roster, ref);
	member->id = m->join.id;
	member->pid = m->join.pid;
	member->main = m->join.main;
	member->spoken_for = m->join.spoken_for;
	member->policy = m->join.policy;
	member->uffd = uffd;
	member->reports = m->join.reports;
	member->unheard = false;
	f->reported |= m->join.reports;
	member->state = SHARER_ACTIVE;
	member->state_ns = clock_ns();
	member->maps_due = m->join.maps;
	/* It may have faulted before we poll: the first look is free. */
	member->ready = member->maps_due == 0;
	memcpy(member->name, m->join.name, sizeof(member->name));
	faultloop_changed(f);
	if (m->join.reports && f->bulk)
		verdict_member(f, member, SHARER_DISABLED, EBUSY,
			       "it tells of memory that goes (EVENT_REMOVE and the like), and came "
			       "when two threads were placing pages already");
}

static void on_map(struct faultloop *f, const struct message *m)
{
	struct member *member = roster_find(&f->roster, m->map.id);
	int ret = member ? engine_map(&f->engine, member->ref, &m->map.mapping) : -ENOENT;

	if (member && member->maps_due && --member->maps_due == 0)
		member->ready = true;
	if (member && ret == 0)
		loss_mapped(f, member);
	if (ret < 0 && member)
		verdict_member(f, member, SHARER_DISABLED, -ret,
			       "mapping at 0x%" PRIx64 " of block %u: %s", m->map.mapping.address,
			       m->map.mapping.block, strerror(-ret));
}

/*
 * Counted whatever comes of it: whoever waits for it must be told, also when the sharer has ended
 * since.
 */
static void on_unmap(struct faultloop *f, const struct message *m)
{
	struct member *member = roster_find(&f->roster, m->map.id);

	if (member)
		(void)engine_unmap(&f->engine, member->ref, &m->map.mapping);
	f->unmaps++;
	faultloop_changed(f);
}

static void on_armed(struct faultloop *f, const struct message *m)
{
	(void)m;
	if (f->need == NEED_ARM)
		intake_armed(f);
}

/**
 * errands_answer - our answer to the package
 */
void errands_answer(struct faultloop *f)
{
	for (unsigned i = 0; i < f->n_pings; i++)
		outbox_pong(&f->outbox, f->pings[i]);
	f->answer_mark = outbox_mark(&f->outbox);
}

/*
 * The main sharer loaded the device state: this is the commit, where the source waits for one.  The
 * PONGs held back since the package was split go out now; 0x42 among them is what the source waits
 * for.  (The package holds at most eight PINGs, which is less than the outbox keeps room for.)
 */
static void on_loaded(struct faultloop *f, const struct message *m)
{
	bool paused = session_is_paused(&f->engine.session) && f->engine.session.armed;

	(void)m;
	if (f->engine.session.state != SESSION_LOADING && !paused)
		return;
	inject_moment(f->faults, FAULTPLAN_AT_LOADED);
	/* The record stands before the answer leaves. */
	ledger_commit(&f->engine.ledger);
	faultloop_feed(f, SESSION_LOADED);
	/* Who asked is gone, and there is no way back: a recovery goes on from there. */
	if (paused)
		return;
	inject_moment(f->faults, FAULTPLAN_AT_BEFORE_PONG);
	f->answer_mark = UINT64_MAX;
	if (!inject_holds_pong(f))
		errands_answer(f);
}

/*
 * Also for one that was disabled: its process has ended now, or nobody can touch what it mapped, so
 * its userfaultfd can be closed; the reason it was disabled for stays.
 */
static void on_gone(struct faultloop *f, const struct message *m)
{
	struct member *member = roster_find(&f->roster, m->gone.id);

	if (member && member->state == SHARER_ACTIVE)
		verdict_member(f, member, m->gone.how, m->gone.error, "%s", m->gone.reason);
	else if (member && member->state == SHARER_DISABLED && m->gone.how != SHARER_DISABLED)
		roster_end(member, m->gone.how, member->error, member->reason, clock_ns());
	faultloop_changed(f);
}

static void on_want(struct faultloop *f, const struct message *m)
{
	/* A hint: when too many are waiting it is dropped, demand still works. */
	(void)engine_want(&f->engine, m->want.block, m->want.offset, m->want.length, m->want.class);
}

static void on_pause(struct faultloop *f, const struct message *m)
{
	verdict_pause(f, m->pause.reason);
}

static void on_stop(struct faultloop *f, const struct message *m)
{
	if (m->stop.refuse_only && !session_may_refuse(&f->engine.session))
		return;
	verdict_halt(f, m->stop.error, "%s", m->stop.reason);
}

static void on_bereft(struct faultloop *f, const struct message *m)
{
	loss_bereft(f, m->bereft.reason);
}

static void on_gate(struct faultloop *f, const struct message *m)
{
	gates_order(f, m->gate);
}

static void on_snapshot(struct faultloop *f, const struct message *m)
{
	f->snapshot = m->snapshot;
}

static void on_adopted(struct faultloop *f, const struct message *m)
{
	(void)m;
	adopt_told(f);
}

static void on_quit(struct faultloop *f, const struct message *m)
{
	(void)m;
	f->quit = true;
}

/**
 * errands_inbox - do what the main thread asked for since the last turn
 */
void errands_inbox(struct faultloop *f)
{
	static errand *const handlers[] = {
		[MESSAGE_LANE] = on_lane,
		[MESSAGE_BLOCK] = on_block,
		[MESSAGE_BLOCKS_DONE] = on_blocks_done,
		[MESSAGE_JOIN] = on_join,
		[MESSAGE_MAP] = on_map,
		[MESSAGE_UNMAP] = on_unmap,
		[MESSAGE_ARMED] = on_armed,
		[MESSAGE_LOADED] = on_loaded,
		[MESSAGE_GONE] = on_gone,
		[MESSAGE_WANT] = on_want,
		[MESSAGE_PAUSE] = on_pause,
		[MESSAGE_STOP] = on_stop,
		[MESSAGE_BEREFT] = on_bereft,
		[MESSAGE_GATE] = on_gate,
		[MESSAGE_ADOPTED] = on_adopted,
		[MESSAGE_SNAPSHOT] = on_snapshot,
		[MESSAGE_QUIT] = on_quit,
	};
	struct message m;

	while (mailbox_get(&f->inbox, &m))
		handlers[m.kind](f, &m);
}

/**
 * errands_orphan - a message for a fault thread that gave up
 *
 * Nothing is done any more; what was handed over is closed or given back, and whoever asks is told
 * how it ended.
 */
void errands_orphan(struct faultloop *f, const struct message *m)
{
	int fd = m->kind == MESSAGE_LANE ? m->lane.fd : m->kind == MESSAGE_BLOCK ? m->block.file :
		 m->kind == MESSAGE_JOIN ? m->join.uffd : -1;

	close_fd(&fd);
	if (m->kind == MESSAGE_BLOCKS_DONE) {
		int ledger = m->blocks_done.ledger, package = m->blocks_done.package;

		close_fd(&ledger);
		close_fd(&package);
	}
	if (m->kind == MESSAGE_SNAPSHOT)
		f->snapshot = m->snapshot;
	if (m->kind == MESSAGE_GATE)
		gates_return(f, m->gate, -ESHUTDOWN);
}

/* The bulk lane counts up; each message has its counters, so the newest one says it all. */
static void take_counters(struct faultloop *f, const struct bulk_message *m)
{
	struct lane_stats *lane = &f->engine.stats.lane[LANE_MAIN];

	lane->bytes += m->bytes - f->bulk_seen.bytes;
	lane->batches += m->batches - f->bulk_seen.batches;
	lane->duplicates += m->duplicates - f->bulk_seen.duplicates;
	f->placer.fallbacks += m->fallbacks - f->bulk_seen.fallbacks;
	f->placer.again += m->again - f->bulk_seen.again;
	f->bulk_seen = *m;
}

/**
 * errands_reports - take over what the bulk lane did
 *
 * Stops when a placement waits for a retry in every place there is: the reports stay in their
 * mailbox, and the bulk lane stands still when that is full.
 */
void errands_reports(struct faultloop *f)
{
	struct bulk_message m;

	/* What does not fit is taken by perform_pending(), once something was done. */
	while (f->n_pending < FAULTLOOP_PENDING && mailbox_get(&f->reports, &m)) {
		take_counters(f, &m);
		switch (m.kind) {
		case BULK_REPORT:
			engine_report(&f->engine, &m.report, clock_ns());
			perform_actions(f);
			break;
		case BULK_PING:
			/*
			 * No PING after the package decides anything: one that finds no room goes
			 * unanswered.
			 */
			if (outbox_room(&f->outbox))
				outbox_pong(&f->outbox, m.ping);
			break;
		case BULK_ENDED:
			f->main_eof = true;
			faultloop_changed(f);
			break;
		case BULK_CLOSED:
			verdict_closed(f, m.error);
			break;
		case BULK_OVER:
			f->recovery.bulk_over = true;
			break;
		case BULK_BROKEN: {
			const struct qstream *q = bulklane_stream(f->bulk);

			verdict_halt(f, EPROTO, "main channel, byte %" PRIu64 ": %s%s%s",
				     q->position, q->reason, q->detail[0] ? ": " : "", q->detail);
			break;
		}
		}
	}
}
