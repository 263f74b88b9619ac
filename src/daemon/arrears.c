/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Pages that are owed behind the end of the main stream, while an urgent lane is there.
 *
 * Theory: what can still come?  The main stream's end says that the source has sent all that it had
 * to send by itself, and the bulk lane has told of all of it before it tells of the end.  So a page
 * that is owed then was asked for and is on its way on the urgent lane, or it is lost: by a source
 * that miscounts, for QEMU's drops a request for a page that it believes to have sent, and says
 * nothing.  Nothing tells the two apart but time.
 *
 * Whatever was not asked for is asked for at once: it costs a request, and a source that still has
 * the page sends it.  Asked for is not enough to say that it is lost, so the urgent lane is waited
 * for, until it has brought nothing for as long as a dead peer would be noticed in, twice
 * (sock_tune()): a network that stalls for that long has ended the connection by then, and that is
 * another verdict.  A page that came and waits for the kernel is none that the source owes us.
 * Then the session is held, with its connections, and no SHUT: the source keeps its copy.
 */
#include "config.h"
#include "daemon/faultloop.h"

#include <errno.h>
#include <inttypes.h>

#define QUIET_MS 60000

static uint64_t quiet_ns(const struct faultloop *f)
{
	return (f->options.quiet_ms ? f->options.quiet_ms : QUIET_MS) * 1000000ull;
}

/**
 * arrears_chase - the main stream has ended, and pages are owed that the urgent lane may bring
 * @now: CLOCK_MONOTONIC, nanoseconds
 *
 * Called every turn as long as that holds.
 */
void arrears_chase(struct faultloop *f, uint64_t now)
{
	if (f->arrears_ns == 0)
		faultloop_changed(f);
	if (f->arrears_ns == 0 || f->urgent.bytes != f->arrears_bytes || f->n_pending) {
		f->arrears_ns = now;
		f->arrears_bytes = f->urgent.bytes;
	}
	if (!f->arrears_asked)
		f->arrears_asked = engine_want_owed(&f->engine) == 0;
	if (now - f->arrears_ns >= quiet_ns(f))
		verdict_halt(f, EPROTO,
			     "the source ended its stream with %" PRIu64
			     " pages still owed, and since they were asked for "
			     "its urgent channel brought nothing for %" PRIu64
			     " s; its connections are kept open and no success "
			     "is reported, so that it keeps its copy",
			     f->engine.owed_left, quiet_ns(f) / 1000000000);
}

/**
 * arrears_wait - in how many nanoseconds is it time to look again?  -1: nothing is chased
 */
int64_t arrears_wait(const struct faultloop *f)
{
	uint64_t due = f->arrears_ns + quiet_ns(f), now;

	if (f->arrears_ns == 0 || f->engine.owed_left == 0 || f->closing || faultloop_halted(f))
		return -1;
	now = clock_ns();
	return due > now ? (int64_t)(due - now) : 0;
}
