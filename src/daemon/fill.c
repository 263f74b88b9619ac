/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The fault thread's state as the snapshot shows it: copies, no judgement.  It runs in the fault
 * thread, between two turns, so what it shows is one moment; and it runs whenever somebody looks,
 * so it may cost a walk over the waiters but not over the ledger once faults are served.
 */
#include "config.h"
#include "daemon/faultloop.h"

#include <stdio.h>
#include <string.h>

/* The source's list before it was matched: names and lengths are all there is. */
static void fill_listed(const struct faultloop *f, struct snapshot *s)
{
	s->n_blocks = f->n_listed;
	for (unsigned i = 0; i < f->n_listed; i++) {
		struct snapshot_block *to = &s->block[i];

		*to = (struct snapshot_block){
			.length = f->listed[i].length, .page_size = f->listed[i].page_size,
			.pages = f->listed[i].length / f->listed[i].page_size,
		};
		memcpy(to->name, f->listed[i].name, sizeof(to->name));
	}
}

static unsigned count_sharers(const struct faultloop *f, unsigned block)
{
	unsigned n = 0;

	for (unsigned i = 0; i < SHARER_MAX; i++) {
		const struct sharer *s = &f->engine.sharers.sharer[i];
		unsigned m = 0;

		while (s->active && m < s->n_mappings && s->mapping[m].block != block)
			m++;
		n += s->active && m < s->n_mappings;
	}
	return n;
}

/* Before faults are served the engine keeps no counters: the ledger is counted. */
static void count_pages(const struct faultloop *f, const struct block *b, struct snapshot_block *to)
{
	uint64_t n[PAGE_STATES];

	ledger_count(&f->engine.ledger, b->first, b->first + b->pages, n);
	to->present = n[PAGE_PRESENT];
	to->stored = n[PAGE_STORED];
	to->zero = n[PAGE_ZERO];
	to->missing = n[PAGE_MISSING] + n[PAGE_NEVER];
}

/*
 * A fault may have had a page placed that the bulk lane noted and has not told of yet: it is
 * counted as present, still as missing, and in the known zeroes as one too few.
 */
static void settle_untold(struct snapshot_block *to)
{
	if ((int64_t)to->zero >= 0)
		return;
	to->missing += to->zero;
	to->zero = 0;
}

static void fill_blocks(const struct faultloop *f, struct snapshot *s)
{
	bool counted = f->engine.session.state >= SESSION_LISTENING;

	if (f->n_backings == 0) {
		fill_listed(f, s);
		return;
	}
	s->n_blocks = f->engine.blocks.n;
	for (unsigned i = 0; i < s->n_blocks; i++) {
		const struct block *b = &f->engine.blocks.block[i];
		struct snapshot_block *to = &s->block[i];

		*to = (struct snapshot_block){
			.kind = b->kind,
			.length = b->length,
			.page_size = b->page_size,
			.pages = b->pages,
			.owed = b->owed,
			.present = b->present,
			.missing = b->missing,
			.requested = b->requested,
			.stored = b->stored,
			.zero = b->zero,
			.lost = b->lost,
			.unplaced = b->unplaced,
			.sharers = count_sharers(f, i),
			.store = b->kind == BLOCK_HELD ? b->store : NULL,
			.kept = b->kind == BLOCK_PRIVATE ? b->store : NULL,
			.file = f->backing[i].file, .file_offset = f->backing[i].file_offset,
			.first = b->first,
		};
		memcpy(to->name, b->name, sizeof(to->name));
		if (!counted)
			count_pages(f, b, to);
		settle_untold(to);
		s->store_bytes += b->kind == BLOCK_SHARED ? 0 : to->stored << b->page_shift;
	}
}

static void fill_sharer(const struct faultloop *f, const struct member *m,
			struct snapshot_sharer *to, uint64_t now)
{
	const struct sharer *s = &f->engine.sharers.sharer[m->ref.slot];
	uint64_t oldest = s->waiting ? waiter_oldest(&f->engine.waiters, m->ref.slot) : 0;

	*to = (struct snapshot_sharer){
		.id = m->id,
		.generation = m->ref.generation,
		.pid = m->pid,
		.main = m->main,
		.policy = m->policy,
		.state = m->state,
		.error = m->error,
		.state_ns = m->state_ns,
		.mappings = s->n_mappings,
		.waiting = m->state == SHARER_ACTIVE ? s->waiting : 0,
		.stats = s->stats,
		.oldest_wait_ns = oldest ? now - oldest : 0,
	};
	memcpy(to->name, m->name, sizeof(to->name));
	memcpy(to->reason, m->reason, sizeof(to->reason));
	for (unsigned i = 0; i < s->n_mappings; i++)
		to->mapped_bytes += s->mapping[i].length;
	if (m->state == SHARER_ACTIVE && s->waiting)
		to->stats.blocked_ns += now - s->blocked_since;
}

static void fill_sharers(const struct faultloop *f, struct snapshot *s, uint64_t now)
{
	s->total = f->engine.gone;
	for (unsigned i = 0; i < f->roster.used; i++) {
		const struct member *m = &f->roster.member[i];
		struct snapshot_sharer *to = &s->sharer[s->n_sharers];

		if (m->id == 0)
			continue;
		fill_sharer(f, m, to, now);
		s->n_sharers++;
		s->faults_in_flight += to->waiting;
		if (m->state == SHARER_ACTIVE)
			sharer_stats_add(&s->total, &to->stats);
	}
}

static void fill_stats(const struct faultloop *f, struct snapshot *s)
{
	s->stats = f->engine.stats;
	s->stats.lane[LANE_MAIN].bytes += f->main.bytes;
	s->stats.lane[LANE_MAIN].batches += f->main.batches;
	s->stats.lane[LANE_URGENT].bytes += f->urgent.bytes;
	s->stats.lane[LANE_URGENT].batches += f->urgent.batches;
	s->stats.again += f->placer.again;
	s->stats.place_fallbacks += f->placer.fallbacks;
	s->stats.return_bytes = f->outbox.sent;
	s->stats.ring_syscalls = f->ring ? ring_syscalls(f->ring) : 0;
	s->stats.other_syscalls += f->placer.calls;
}

/**
 * fill_snapshot - fill the snapshot in hand
 * @s: all of it is written, but for blocks and sharers behind their number
 * @now: CLOCK_MONOTONIC, nanoseconds
 */
void fill_snapshot(const struct faultloop *f, struct snapshot *s, uint64_t now)
{
	memset(s, 0, offsetof(struct snapshot, block));
	s->now_ns = now;
	s->state = f->engine.session.state;
	s->need = f->need;
	s->state_ns = f->times.state;
	s->started_ns = f->times.started;
	s->switchover_ns = f->times.switchover;
	s->listening_ns = f->times.listening;
	s->first_fault_ns = f->times.first_fault;
	s->first_served_ns = f->times.first_served;
	s->running_ns = f->times.running;
	s->complete_ns = f->times.complete;
	s->committed = f->engine.session.committed;
	s->commit_ping = f->engine.session.answer_commits;
	s->urgent_lane = f->has_urgent;
	s->held = f->engine.session.held;
	s->recoveries = f->recoveries;
	s->resumed = f->recovery.resumed;
	s->paused_ns = f->times.paused;
	s->ownership_unknown = f->ownership_unknown;
	s->main_eof = f->main_eof;
	s->arrears_ns = f->arrears_ns;
	s->shut_sent = f->closing;
	s->source_closed = f->main_closed;
	s->running_told = f->running_told;
	s->strays = f->strays;
	s->pool_waits = faultloop_pool_waits(f);
	s->unmaps = f->unmaps;
	s->error = f->error;
	s->package_bytes = f->package_size;
	s->package_device_offset = f->device_offset;
	s->package_device_bytes = f->device_size;
	s->package_states_offset = f->states_offset;
	s->package_states_bytes = f->states_size;
	s->package_fd = f->package_fd;
	s->owed = f->engine.owed;
	s->owed_left = f->engine.owed_left;
	s->requests_in_flight = f->engine.requested;
	s->page_bits = f->page_bits;
	s->ram_section = f->ram_section;
	memcpy(s->reason, f->reason, sizeof(s->reason));
	memcpy(s->machine, f->machine, sizeof(s->machine));
	memcpy(s->source, f->peer, sizeof(s->source));
	if (faultloop_serving(f) || f->engine.session.state == SESSION_PAUSED)
		s->ledger = &f->engine.ledger;
	gates_fill(f, s);
	fill_blocks(f, s);
	fill_sharers(f, s, now);
	fill_stats(f, s);
}
