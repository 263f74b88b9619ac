/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sharers that tell what becomes of their memory: a balloon or free-page reporting gives pages back
 * (EVENT_REMOVE), mappings go (EVENT_UNMAP) or move (EVENT_REMAP).
 *
 * The kernel keeps the one who does it asleep until its event was read, and meanwhile refuses to
 * place anything in that address space (EAGAIN); so an event that was read is older than everything
 * that is placed after it, and what was placed before it is dropped or moved by the kernel.  For
 * that to hold the events of a batch are applied before its faults, which the kernel gives out
 * first (O12), and only one thread places: beside such a sharer the background stream stays with
 * the fault thread.
 *
 * What is given back is zero from then on.  Of shared memory the event does not tell MADV_DONTNEED,
 * which drops nothing that others see, from MADV_REMOVE: who asks for EVENT_REMOVE says that what
 * it drops is not wanted any more, by nobody.
 *
 * Events come behind faults, so whoever reads no fault for want of room reads no event either, and
 * might wait for a placement that the unread event keeps back.  Such a sharer is read always; a
 * fault that finds no room is left unanswered, and its thread is woken when there is room, to fault
 * once more.  That is not to wake it on a page that is not there: it is asked to repeat itself.
 *
 * Who is asleep in what was unmapped or moved away is never woken by its page: it is woken at once,
 * and gets what an access to that address gets now.
 */
#include "config.h"
#include "daemon/removals.h"

#include <inttypes.h>
#include <string.h>

#include "core/probe.h"

/* Placements that wait for another try have claimed their pages already. */
static void forget_pending(struct faultloop *f, const struct member *m,
			   const struct uffd_event *e)
{
	for (unsigned i = 0; i < f->n_pending; i++)
		(void)engine_forgets(&f->engine, m->ref, e->address, e->end, &f->pending[i]);
}

static void on_remove(struct faultloop *f, struct member *m, const struct uffd_event *e)
{
	uint64_t n = engine_removed(&f->engine, m->ref, e->address, e->end);

	PROBE3(removed, m->ref.slot, e->address, n);
	forget_pending(f, m, e);
	if (n == 0)
		return;
	/* Somebody may wait for one of them, which is content of ours now. */
	f->given_back = true;
	if (f->retry_ns == 0)
		f->retry_ns = faultloop_now(f);
	faultloop_changed(f);
}

static void on_unmap(struct faultloop *f, struct member *m, const struct uffd_event *e)
{
	uint64_t before = f->engine.owed_left + f->engine.stored_left;
	int ret = engine_cut(&f->engine, m->ref, e->address, e->end);

	if (ret < 0)
		verdict_member(f, m, SHARER_DISABLED, -ret,
			       "it unmapped 0x%" PRIx64 " to 0x%" PRIx64 ": %s", e->address, e->end,
			       strerror(-ret));
	if (f->engine.owed_left + f->engine.stored_left != before)
		faultloop_changed(f);
	(void)perform_wake(f, m, e->address, e->end - e->address);
}

static void on_remap(struct faultloop *f, struct member *m, const struct uffd_event *e)
{
	int ret = engine_moved(&f->engine, m->ref, e->address, e->end, e->length);

	if (ret < 0)
		verdict_member(f, m, SHARER_DISABLED, -ret,
			       "it moved 0x%" PRIx64 " to 0x%" PRIx64 ": %s", e->address, e->end,
			       strerror(-ret));
	(void)perform_wake(f, m, e->address, e->length);
}

/**
 * removals_take - apply what a sharer told of its memory, before the faults of the same batch
 */
void removals_take(struct faultloop *f, struct member *m, const struct uffd_event *events, int n)
{
	static void (*const handlers[])(struct faultloop *, struct member *,
					const struct uffd_event *) = {
		[UFFD_REMOVE] = on_remove, [UFFD_UNMAP] = on_unmap, [UFFD_REMAP] = on_remap,
		[UFFD_UNKNOWN] = NULL,
	};

	for (int i = 0; m->reports && i < n; i++)
		if (handlers[events[i].kind])
			handlers[events[i].kind](f, m, &events[i]);
}

/**
 * removals_room - how many messages may be read of a sharer now?
 *
 * Of one that reports always as many as a read gives.
 */
unsigned removals_room(const struct faultloop *f, const struct member *m)
{
	uint32_t room = engine_room(&f->engine);

	return m->reports || room > UFFD_READ_MAX ? UFFD_READ_MAX : room;
}

/**
 * removals_later - is there no room for a fault that was read?  Then it is to come again
 */
bool removals_later(struct faultloop *f, struct member *m)
{
	if (engine_room(&f->engine) > 0 && f->n_pending < FAULTLOOP_PENDING)
		return false;
	f->engine.sharers.sharer[m->ref.slot].stats.refaults++;
	m->unheard = true;
	f->unheard = true;
	return true;
}

/**
 * removals_again - there is room: whose faults were not heard may fault once more
 */
void removals_again(struct faultloop *f)
{
	uint32_t room = engine_room(&f->engine);

	if (!f->unheard || (room < UFFD_READ_MAX && room < f->options.max_waiters / 2) ||
	    f->n_pending == FAULTLOOP_PENDING)
		return;
	f->unheard = false;
	for (unsigned i = 0; i < f->roster.used; i++) {
		struct member *m = &f->roster.member[i];

		m->unheard = m->unheard && !perform_wake_all(f, m);
		f->unheard |= m->unheard;
	}
}
