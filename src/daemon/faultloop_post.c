/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The main thread's side of the fault thread: what it says to it and hears of it.
 *
 * The fault thread ends by itself only when its ring fails, which leaves it no way to wait for
 * anything.  Its verdict is spoken then (refused, or held), it touches nothing any more, and what
 * it knew stays to be asked for: messages find an end here instead of nobody, so the main thread
 * can tell what happened, and go on to end or to stay.
 */
#include "config.h"
#include "daemon/faultloop.h"

#include <unistd.h>

/*
 * Has the fault thread given up?  Then nobody reads the mailbox but we: what is in it is ended, and
 * the state as it was left stays to be asked for.
 */
static bool bury(struct faultloop *f)
{
	struct message m;

	if (!__atomic_load_n(&f->over, __ATOMIC_ACQUIRE))
		return false;
	while (mailbox_get(&f->inbox, &m))
		errands_orphan(f, &m);
	if (f->snapshot)
		faultloop_tell_main(f);
	return true;
}

/**
 * faultloop_post - hand a message over, for the main thread
 *
 * Waits while the mailbox is full.  Descriptors and the snapshot in it belong to the fault thread
 * from here on.
 */
void faultloop_post(struct faultloop *f, const struct message *m)
{
	while (!mailbox_put(&f->inbox, m)) {
		if (bury(f))
			continue;
		mailbox_ring(&f->inbox);
		usleep(100);
	}
	if (!bury(f))
		mailbox_ring(&f->inbox);
}

/**
 * faultloop_nudge - what the fault thread looks at by itself has changed, for the main thread
 */
void faultloop_nudge(struct faultloop *f)
{
	if (f)
		mailbox_ring(&f->inbox);
}

/**
 * faultloop_notify_fd - becomes readable when something changed; stays ours
 */
int faultloop_notify_fd(const struct faultloop *f)
{
	return f->notify;
}

/**
 * faultloop_collect - clear the notification and take the snapshot, if it came back
 * @stale: may be NULL; set when something changed that this snapshot may not show, so ask for
 *   another
 *
 * Return: the snapshot, which is the caller's again, or NULL.
 */
struct snapshot *faultloop_collect(struct faultloop *f, bool *stale)
{
	uint64_t rung = doorbell_clear(f->notify);
	bool over = bury(f);
	struct snapshot *s = __atomic_exchange_n(&f->filled, NULL, __ATOMIC_ACQUIRE);

	/* One ring is the snapshot's own; a change after it may have rung before we came. */
	if (stale)
		*stale = !s || (rung > 1 && !over);
	return s;
}
