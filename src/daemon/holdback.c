/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * When the background stream is left where it is.
 *
 * Theory: behind its package a source sends all that it has as fast as it can, while here everybody
 * is still proven and the VMM has nothing loaded.  Nobody can use those pages yet.  But each of
 * them stands before every page that is asked for later on the same connection, and receiving and
 * placing it takes the processor from those who get the VM going.  So as long as the VM stands
 * still anyway the stream waits:
 *
 *   while the lane stands still for the main thread no more is received than gives it something to
 *   do when it may go on
 *
 *   while the VMM loads, and then until the VM itself faults, nothing is received or placed but for
 *   pages that were asked for: those may be anywhere in it.  Until then the main lane is the fault
 *   thread's, with an urgent one, too
 *
 * Not while our answer that commits is on its way to the source: one that cannot send acknowledges
 * nothing for up to 40 ms, and the VM waits for that.
 *
 * Each for a short time only.  A VMM may take minutes to load, and what it will want comes in
 * meanwhile; and that the source is gone shows when its connection is read to the end.
 */
#include "config.h"
#include "daemon/faultloop.h"

#include "core/guard.h"

#define AHEAD	(256u << 10)	/* bytes, while the lane stands still */
#define CALM_MS 50		/* more than a VMM needs that loads at once */

/* Faults are served, and none can have been the VM's: it loads, or is about to go on. */
static bool before_vm(const struct faultloop *f)
{
	enum session_state state = f->engine.session.state;

	return state == SESSION_LOADING ||
	       (state == SESSION_RUNNING && f->times.fault < f->times.state);
}

/* Since when somebody else is being waited for; 0: nobody is. */
static uint64_t since(const struct faultloop *f)
{
	if (f->need != NEED_NOTHING)
		return f->times.need;
	return before_vm(f) ? f->times.listening : 0;
}

/**
 * holdback_wait - in how many nanoseconds does the stream go on by itself?  -1: it does not rest
 */
int64_t holdback_wait(const struct faultloop *f)
{
	uint64_t begun = since(f), now, calm_ns;

	if (begun == 0 || faultloop_halted(f))
		return -1;
	calm_ns = (f->options.calm_ms ? f->options.calm_ms : CALM_MS) * 1000000ull;
	now = clock_ns();
	return now < begun + calm_ns ? (int64_t)(begun + calm_ns - now) : -1;
}

/* Does the VM wait for the source to have our answer?  What the source sends acknowledges it. */
static bool is_answering(const struct faultloop *f)
{
	const struct session *s = &f->engine.session;

	return s->state == SESSION_RUNNING && s->answer_commits && !f->running_told;
}

/* Is any page waited for, or wanted ahead of need? */
static bool is_asked(const struct engine *e)
{
	return e->requested || e->waiters.used || e->requests.n_wants;
}

/**
 * holdback_loading - does the VM not run yet, though faults are served, and only for a short while?
 */
bool holdback_loading(const struct faultloop *f)
{
	return before_vm(f) && holdback_wait(f) >= 0;
}

/**
 * holdback_rests - is nothing at all taken from the main lane now?
 */
bool holdback_rests(const struct faultloop *f)
{
	return before_vm(f) && !is_asked(&f->engine) && !is_answering(f) && holdback_loading(f);
}

/**
 * holdback_room - how much may be received on a lane now
 *
 * Return: bytes; 0: nothing.
 */
size_t holdback_room(const struct faultloop *f, struct lane *l)
{
	size_t room = lane_space(l), used = mem_ring_used(&l->in);

	if (l->id != LANE_MAIN || f->need == NEED_NOTHING || holdback_wait(f) < 0)
		return room;
	if (used >= AHEAD)
		return 0;
	return room < AHEAD - used ? room : AHEAD - used;
}
