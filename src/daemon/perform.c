/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Does what the engine decided: placements, wakes, alarms.  Nothing here waits; a placement that
 * the kernel wants retried is kept and its lane stands still until it is done, because the page's
 * bytes are in that lane's buffer.
 *
 * What can be kept is bounded, and when it is full faults and lanes stand still.  So only that is
 * kept which exists nowhere else: content that we hold goes back to where it was
 * (engine_give_back()), and an answer that finds no room becomes a WAKE, behind which the thread
 * asks again if it has to.
 *
 * Theory: through whose address space
 *
 * Any address space that maps a shared page can have it placed for everybody.  But the kernel does
 * two things to the one it is asked for.  It takes that space's lock, or its mapping's: while its
 * owner forks or moves the mapping, the caller waits, and the caller is everybody's fault thread.
 * And it charges the page to that owner's memory cgroup, reclaims there when the limit is near, and
 * kills there when that does not help.  WAKE does neither (tests/kernel/carrying.c has all of it).
 *
 * So a page never goes through a sharer because it waits for it: a back-end of many VMs has no
 * limit that fits a guest, and what it does to its own memory must not delay the others.  It goes
 * through the main sharer, whose memory this is, whose limit is made for it, and whose stalls are
 * the VM's own; whoever else waits costs a WAKE more.  Where the main sharer waits, its placement
 * wakes it.
 *
 * Our own mapping is the only one that nobody can lock.  It comes second all the same: the pages
 * would be ours to pay for as long as the VM lives, and a limit on us would be met by killing the
 * one process that no VM survives.  It carries what the main sharer cannot, and what it is too slow
 * for: who made us wait is passed over for a while (stall.c).  A private block has no other address
 * space.
 */
#include "config.h"
#include "daemon/faultloop.h"

#include <errno.h>
#include <string.h>

#include "core/probe.h"
#include "daemon/inject_desk.h"
#include "sys/clock.h"

#define RETRY_NS     1000000
#define ANSWERS_KEPT (FAULTLOOP_PENDING / 2)

/* One address space to try; one that ended, or does not show the page, is left out. */
static void add_rung(struct faultloop *f, struct placer_job *job, struct sharer_ref ref,
		     unsigned block, uint64_t offset)
{
	const struct member *m = roster_active(&f->roster, ref);
	const struct sharer *s = m ? sharer_get(&f->engine.sharers, ref) : NULL;
	const struct mapping *map;
	unsigned from = 0;

	map = s ? sharer_alias(s, block, offset, &from) : NULL;
	if (!map)
		return;
	job->rung[job->n++] = (struct placer_rung){
		.uffd = m->uffd, .address = mapping_address(map, offset),
		.room = map->length - (offset - map->offset), .can_zero = map->can_zero,
		.is_sharer = true, .sharer = ref, .pid = m->pid,
	};
}

static void add_own(struct faultloop *f, struct placer_job *job, unsigned block, uint64_t offset)
{
	const struct backing *b = &f->backing[block];

	if (!b->armed)
		return;
	job->rung[job->n++] = (struct placer_rung){
		.uffd = f->own_uffd, .address = (uint64_t)(uintptr_t)b->map + offset,
		.room = b->length - offset, .can_zero = b->can_zero,
	};
}

/* The ladder of a placement: the main sharer's address space, then our own mapping. */
static void make_job(struct faultloop *f, const struct engine_action *a, struct placer_job *job)
{
	const struct block *b = &f->engine.blocks.block[a->block];
	uint64_t offset = block_offset(b, a->page);
	int main = f->engine.sharers.main;

	*job = (struct placer_job){ .data = a->data, .length = a->n << b->page_shift,
				    .page = a->page };
	if (main >= 0)
		add_rung(f, job, f->roster.member[main].ref, a->block, offset);
	add_own(f, job, a->block, offset);
}

/* Run the job.  *@carrier: who is awake with what was placed. */
static enum placer_outcome carry(struct faultloop *f, struct placer_job *job, uint64_t *done,
				 struct engine_carrier *carrier)
{
	enum placer_outcome outcome;
	int used;

	outcome = placer_run(&f->placer, job, done, &used);
	*carrier = (struct engine_carrier){ 0 };
	if (used >= 0 && job->rung[used].is_sharer)
		*carrier = (struct engine_carrier){ true, job->rung[used].sharer,
						    job->rung[used].address };
	return outcome;
}

/* The content of a HELD block stays with us. */
static void keep(struct faultloop *f, struct engine_action *a)
{
	const struct block *b = &f->engine.blocks.block[a->block];
	const struct engine_carrier nobody = { 0 };

	if (a->data)
		memcpy(b->store + block_offset(b, a->page), a->data, b->page_size);
	engine_placed(&f->engine, a, a->n, PLACED, &nobody, faultloop_now(f));
}

/*
 * Zeroes that nobody waits for: where the file has a hole it stays one.  Something that is there is
 * for a ZEROPAGE to find, whose answer says what it means.
 */
static bool note(struct faultloop *f, struct engine_action *a)
{
	const struct block *b = &f->engine.blocks.block[a->block];
	const struct engine_carrier nobody = { 0 };

	if (!backing_is_hole(&f->backing[a->block], block_offset(b, a->page),
			     a->n << b->page_shift)) {
		a->how = PLACE_ZERO;
		return false;
	}
	PROBE2(noted, a->page, a->n);
	engine_placed(&f->engine, a, a->n, PLACED, &nobody, faultloop_now(f));
	return true;
}

/*
 * A fault on a page that is there (O3).  ZEROPAGE gives zeroes where an owner gave the page back,
 * and EEXIST says that nothing but a WAKE is missing.  Present or not is the file's state, so no
 * more is asked of who faulted than for any other page.
 */
static bool answer(struct faultloop *f, struct engine_action *a)
{
	struct engine_carrier carrier;
	struct placer_job job;
	enum placer_outcome outcome;
	uint64_t done;

	if (!roster_active(&f->roster, a->sharer))
		return true;
	make_job(f, a, &job);
	job.answer = true;
	outcome = carry(f, &job, &done, &carrier);
	if (outcome == PLACER_RETRY)
		return false;
	engine_placed(&f->engine, a, 0, outcome == PLACER_EXISTS ? PLACED_EXISTS :
		      outcome == PLACER_NOWHERE ? PLACED_NOWHERE : PLACED, &carrier, f->placer.now);
	return true;
}

/*
 * After the end the sharers are unregistered, and the kernel itself gives zeroes to who touches a
 * page that is known to be zero: a fault that was read just before finds it there, or nothing to
 * place it through.
 */
static bool kernel_gives(const struct faultloop *f, const struct engine_action *a)
{
	return a->from == PAGE_ZERO && f->engine.session.state == SESSION_COMPLETE;
}

/* Private memory that its owner has unmapped, and told so: nobody can touch the page any more. */
static bool nobody_sees(const struct faultloop *f, const struct placer_job *job,
			const struct engine_action *a)
{
	return f->reported && job->n == 0 && f->engine.sharers.main >= 0 &&
	       f->engine.blocks.block[a->block].kind == BLOCK_PRIVATE;
}

/*
 * True when the action is over, false when it must be tried again later.  A run goes on where the
 * kernel stopped (O6), through whichever rung takes the rest; the engine hears of each part with
 * the address space that carried it.
 */
static bool place(struct faultloop *f, struct engine_action *a)
{
	const struct block *b = &f->engine.blocks.block[a->block];

	if (a->how == PLACE_KEEP) {
		keep(f, a);
		return true;
	}
	if (a->how == PLACE_NOTE && note(f, a))
		return true;
	f->placer.page_size = b->page_size;
	if (a->how == PLACE_ANSWER)
		return answer(f, a);
	if (a->how == PLACE_POISON)
		return loss_poison(f, a);
	inject_page(f->faults, FAULTPLAN_AT_CLAIMED, a->page, a->n);
	while (a->n) {
		struct engine_carrier carrier;
		uint64_t first = a->page;
		struct placer_job job;
		enum placer_outcome outcome;
		enum engine_result result;
		uint64_t done;

		make_job(f, a, &job);
		outcome = carry(f, &job, &done, &carrier);
		if (outcome == PLACER_RETRY && done == 0)
			return false;
		result = outcome == PLACER_EXISTS ? PLACED_EXISTS :
			 outcome == PLACER_NOWHERE ? PLACED_NOWHERE : PLACED;
		if (result != PLACED && (kernel_gives(f, a) || nobody_sees(f, &job, a))) {
			result = PLACED;
			done = a->n << b->page_shift;
		}
		PROBE3(placed, a->page, done, result);
		if (done)
			inject_page(f->faults, FAULTPLAN_AT_PLACED, first, done >> b->page_shift);
		engine_placed(&f->engine, a, done >> b->page_shift, result, &carrier,
			      f->placer.now);
		if (done)
			inject_page(f->faults, FAULTPLAN_AT_PUBLISHED, first,
				    done >> b->page_shift);
	}
	return true;
}

/*
 * True when the action is over.  A refused wake is said again, for the thread would sleep for ever;
 * only where the address space is gone nobody is there to hear it.
 */
static bool wake_aliases(struct faultloop *f, const struct engine_action *a)
{
	const struct member *m = roster_active(&f->roster, a->sharer);
	struct sharer *s = m ? sharer_get(&f->engine.sharers, a->sharer) : NULL;
	const struct block *b = &f->engine.blocks.block[a->block];
	uint64_t offset = block_offset(b, a->page);
	const struct mapping *map;
	unsigned from = 0;

	while (s && (map = sharer_alias(s, a->block, offset, &from))) {
		uint64_t address = mapping_address(map, offset);
		enum uffd_outcome outcome;
		struct uffd_result result;

		if (address == a->address)
			continue;
		outcome = uffd_place(f->placer.ops, m->uffd, UFFD_WAKE, address, b->page_size, NULL,
				     true, &result);
		s->stats.wakes++;
		f->placer.calls++;
		if (outcome != UFFD_DONE && outcome != UFFD_GONE && outcome != UFFD_UNMAPPED)
			return false;
	}
	return true;
}

static bool wake(struct faultloop *f, const struct engine_action *a)
{
	bool twice = false;

	if (f->desk && inject_holds_wake(f, a, &twice))
		return true;
	if (!wake_aliases(f, a) || (twice && !wake_aliases(f, a)))
		return false;
	PROBE2(woken, a->page, a->sharer.slot);
	engine_woken(&f->engine, a, clock_ns());
	return true;
}

/* Later, but not kept: the engine knows what is to be done then. */
static bool let_go(struct faultloop *f, struct engine_action *a)
{
	bool answers = a->how == PLACE_ANSWER || a->from == PAGE_LOST;
	const struct engine_carrier nobody = { 0 };

	if (a->verb != ENGINE_PLACE || a->lane != LANE_STORE)
		return false;
	if (answers && f->n_pending < ANSWERS_KEPT)
		return false;
	if (answers) {
		engine_placed(&f->engine, a, 0, PLACED_EXISTS, &nobody, clock_ns());
	} else {
		engine_give_back(&f->engine, a);
		f->given_back = true;
	}
	return true;
}

/*
 * Keep it for later.  Where a page waits its lane stands still: the page's bytes are in that lane's
 * buffer.
 */
static void defer(struct faultloop *f, struct engine_action *a)
{
	if (f->retry_ns == 0)
		f->retry_ns = clock_ns() + RETRY_NS;
	if (a->verb == ENGINE_PLACE && f->placer.dry)
		f->pool_waits += a->n;
	if (let_go(f, a))
		return;
	f->pending[f->n_pending++] = *a;
	f->stalled_main |= a->verb == ENGINE_PLACE && a->lane == LANE_MAIN;
	f->stalled_urgent |= a->verb == ENGINE_PLACE && a->lane == LANE_URGENT;
}

static void tell_unplaced(struct faultloop *f, const struct engine_action *a)
{
	const struct block *b = &f->engine.blocks.block[a->block];
	unsigned long long offset = block_offset(b, a->page);

	if (a->verb == ENGINE_ALARM)
		verdict_halt(
			f, EEXIST,
			"memory integrity lost: block %s offset 0x%llx had content that nobody placed: a process "
			"maps this memory without being served; find it with `grep -l` over /proc/*/maps and end it",
			b->name, offset);
	else
		verdict_halt(
			f, EIO,
			"block %s offset 0x%llx could not be placed in any address space; its content "
			"is still at the source",
			b->name, offset);
}

/* One action: done, or kept. */
static void perform(struct faultloop *f, struct engine_action *a)
{
	bool over = true;

	if (a->verb == ENGINE_WAKE)
		over = wake(f, a);
	else if (a->verb == ENGINE_PLACE)
		over = place(f, a);
	else
		tell_unplaced(f, a);
	if (!over)
		defer(f, a);
}

/* Everything that is queued, as long as less than @most are kept. */
static void drain(struct faultloop *f, unsigned most)
{
	struct engine_action a;

	while (f->n_pending < most && engine_next(&f->engine, &a))
		perform(f, &a);
}

/**
 * perform_actions - do what the engine wants done, until nothing is left or no more can be kept
 *
 * After every event, so that the engine's queue is short and its actions act on what the event was
 * about.
 */
void perform_actions(struct faultloop *f)
{
	drain(f, FAULTLOOP_PENDING);
}

/**
 * perform_again - an action that was taken out before
 */
void perform_again(struct faultloop *f, const struct engine_action *a)
{
	struct engine_action again = *a;

	perform(f, &again);
}

/*
 * The content of ours that was given back; the rest of it in the next round, when it is more than
 * is tried in one.
 */
static void retry_own(struct faultloop *f, uint64_t now)
{
	bool more;

	if (!f->given_back)
		return;
	f->given_back = false;
	drain(f, FAULTLOOP_PENDING);
	more = engine_retry(&f->engine, ENGINE_RUN, now) >= ENGINE_RUN;
	drain(f, FAULTLOOP_PENDING);
	f->given_back |= more || f->n_pending == FAULTLOOP_PENDING;
	if (f->given_back && f->retry_ns == 0)
		f->retry_ns = now + RETRY_NS;
}

/**
 * perform_pending - try the kept ones again, once their time has come, and what was given back
 *
 * One that fails again is kept again.  Room that this makes is used at once, for actions and
 * reports that found none.
 */
void perform_pending(struct faultloop *f)
{
	struct engine_action again[FAULTLOOP_PENDING];
	unsigned n = f->n_pending;
	uint64_t now;

	if (f->retry_ns == 0)
		return;
	now = clock_ns();
	if (now < f->retry_ns)
		return;
	memcpy(again, f->pending, n * sizeof(again[0]));
	f->n_pending = 0;
	f->retry_ns = 0;
	f->pool_waits = 0;
	f->stalled_main = f->stalled_urgent = false;
	/*
	 * What each wakes leaves the engine's queue before the next; the places of those still to
	 * come stay free.
	 */
	for (unsigned i = 0; i < n; i++) {
		perform(f, &again[i]);
		drain(f, FAULTLOOP_PENDING - (n - i - 1));
	}
	retry_own(f, now);
	errands_reports(f);
}

/**
 * perform_wake - whoever sleeps in a range of a sharer's space tries its access again
 * @address, @length: bytes, whole pages
 *
 * Not that a page has come: who still misses it faults once more.
 *
 * Return: false when the kernel refused, so that it is to be said again; where the address space or
 * the mapping is gone nobody is there to hear it.
 */
bool perform_wake(struct faultloop *f, const struct member *m, uint64_t address, uint64_t length)
{
	struct uffd_result result;
	enum uffd_outcome outcome = uffd_place(f->placer.ops, m->uffd, UFFD_WAKE, address, length,
					       NULL, true, &result);

	f->engine.stats.other_syscalls++;
	return outcome == UFFD_DONE || outcome == UFFD_GONE || outcome == UFFD_UNMAPPED;
}

/**
 * perform_wake_all - the same of all that a sharer maps; one that ended maps nothing
 */
bool perform_wake_all(struct faultloop *f, const struct member *m)
{
	const struct sharer *s = sharer_get(&f->engine.sharers, m->ref);

	for (unsigned i = 0; s && i < s->n_mappings; i++)
		if (!perform_wake(f, m, s->mapping[i].address, s->mapping[i].length))
			return false;
	return true;
}
