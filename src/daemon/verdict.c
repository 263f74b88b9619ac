/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How a session ends: refused, held, lost or complete, and what the operator is told of it.
 *
 * Before the commit we may refuse: the source then resumes its VM and nothing is lost.  From the
 * commit on nothing is closed by us; what cannot go on is held (PAUSED), its connection kept, so
 * that the source keeps its copy.  SHUT(0) is the one statement that lets the source drop it, and
 * leaves only when nothing is owed.
 */
#include "config.h"
#include "daemon/faultloop.h"
#include "daemon/inject_desk.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "sys/clock.h"
#include "sys/sock.h"
#include "wire/regmsg.h"

__attribute__((format(printf, 3, 0)))
static void set_reason(struct faultloop *f, int error, const char *fmt, va_list args)
{
	f->error = error;
	vsnprintf(f->reason, sizeof(f->reason), fmt, args);
	f->cause_len = strlen(f->reason);
	faultloop_changed(f);
}

__attribute__((format(printf, 3, 4)))
static void set_cause(struct faultloop *f, int error, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	set_reason(f, error, fmt, args);
	va_end(args);
}

/* The peer must see the end now; the descriptors stay until nothing in the ring refers to them. */
static void hang_up(struct faultloop *f)
{
	if (f->return_fd >= 0)
		shutdown(f->return_fd, SHUT_RDWR);
	if (f->urgent.fd >= 0)
		shutdown(f->urgent.fd, SHUT_RDWR);
}

static const char package_text[] =
	"a source older than 10.2 that had sent its package, or was about to, may keep its VM "
	"stopped (postcopy-paused, or device with 10.0, or failed with 7.2, where cont lets it go "
	"on); any other resumes its VM";

/*
 * Has the package begun, or may it be among what is not read yet, and is not whole?  Whether it
 * asks for PONG 0x42 nobody knows then, and without that the source's way back ends when it has
 * sent the last byte.
 */
static bool package_begun(const struct faultloop *f)
{
	const struct session *s = &f->engine.session;

	if (s->committed || s->answer_commits)
		return false;
	/* The package follows the discards at once: an older source waits for nobody with it. */
	return s->state == SESSION_DISCARDING || f->main.stream.packaged ||
	       (f->need == NEED_BLOCKS && intake_holds_package(&f->main));
}

/*
 * What is left where, and what the operator must not do; by source version and moment.
 * @lost: the connection ended; else it is kept
 * @unknown: nobody knows whose the VM is
 */
static const char *whereabouts(const struct faultloop *f, bool lost, bool unknown)
{
	if (package_begun(f))
		return package_text;
	if (session_may_refuse(&f->engine.session))
		return "the source resumes its VM, nothing is lost; start a new migration";
	if (unknown)
		return "ownership unknown: a source >= 10.0 has restarted its VM; end one of the two by hand before the other goes on";
	if (!lost)
		return "what has not come is only at the source, whose connection is kept, and its VM stopped: do not restart it there "
		       "while this VM has run";
	return "the rest of the memory is only at the source, which keeps its VM stopped (postcopy-paused, or postcopy-active "
	       "with 7.2): do not restart it there while this VM has run";
}

/* Behind the cause, which keeps its place: what is left where may change, and is then said anew. */
static void say_whereabouts(struct faultloop *f, const char *join, const char *text)
{
	snprintf(f->reason + f->cause_len, sizeof(f->reason) - f->cause_len, "%s%s", join, text);
}

/**
 * verdict_halt - the session cannot go on
 * @error: positive errno
 * @fmt: what happened, where, and what to do, for people
 *
 * While the source then resumes its VM this is a refusal (FAILED) and the connections end at once.
 * From the commit on it is PAUSED and nothing is closed: faults on pages that are here are served
 * on, and the source keeps its copy.  What follows the first verdict is dropped, as is everything
 * after SHUT.
 */
void verdict_halt(struct faultloop *f, int error, const char *fmt, ...)
{
	const struct session *s = &f->engine.session;
	bool refuse = session_may_refuse(s);
	va_list args;

	/* Who waits for a source may still have to be held. */
	if (s->state == SESSION_FAILED || s->held || (f->closing && !session_is_paused(s)))
		return;
	va_start(args, fmt);
	set_reason(f, error, fmt, args);
	va_end(args);
	if (f->has_main && f->engine.session.state != SESSION_COMPLETE)
		say_whereabouts(f, "; ", whereabouts(f, f->main_closed, false));
	faultloop_feed(f, refuse ? SESSION_REFUSE : SESSION_HOLD);
	if (refuse)
		hang_up(f);
}

/*
 * Has the source what was said up to @mark?  Of one that hung up it is the lane's end that tells: a
 * local peer that goes without reading leaves nothing unsent either.
 */
static bool has_arrived(const struct faultloop *f, uint64_t mark)
{
	return outbox_arrived(&f->outbox, f->return_fd, mark) && !sock_ended(f->return_fd);
}

/* The source knows that everything is here: only now is it over. */
static void complete(struct faultloop *f)
{
	f->times.complete = clock_ns();
	faultloop_feed(f, SESSION_OWED_NOTHING);
	inject_moment(f->faults, FAULTPLAN_AT_COMPLETE);
}

/* Were the connection lost now: would it be open whether the source takes its VM back? */
static bool nobody_knows_whose(const struct faultloop *f)
{
	const struct session *s = &f->engine.session;
	bool ended = f->main_eof || f->engine.owed_left == 0;

	return !session_may_refuse(s) && (ended || (s->answer_commits && !f->running_told));
}

/*
 * A session that was held with its connection kept loses that after all; the operator must know
 * what it changes.
 */
static void lost_while_held(struct faultloop *f)
{
	if (!f->engine.session.held || f->ownership_unknown ||
	    !nobody_knows_whose(f))
		return;
	f->ownership_unknown = true;
	say_whereabouts(f, "; then the connection ended: ", whereabouts(f, true, true));
}

/**
 * verdict_lost - a connection of the source broke
 * @error: positive errno; 0 at EOF
 *
 * Two moments leave it open who has the VM, and then the operator has to decide
 * (`ownership-unknown'): from the end of the stream, which may have been sent and lost once
 * nothing is owed, until the source has our SHUT, one from 10.0 on restarts its VM; and while our
 * answer that commits is on its way nobody knows whether it arrived.
 */
void verdict_lost(struct faultloop *f, int error)
{
	const struct session *s = &f->engine.session;
	bool unknown = nobody_knows_whose(f);

	if (s->state == SESSION_COMPLETE || faultloop_halted(f))
		return;
	/* It closed in order, behind SHUT; who closes without having read it is reset. */
	if (f->closing && error == 0 && outbox_arrived(&f->outbox, f->return_fd, f->shut_mark)) {
		complete(f);
		return;
	}
	set_cause(f, error ? error : ECONNRESET,
		  "source lost in state %s, %" PRIu64 " of %" PRIu64 " owed pages missing (%s)",
		  session_state_name(s->state), f->engine.owed_left, f->engine.owed,
		  error ? strerror(error) : "connection closed");
	say_whereabouts(f, ": ", whereabouts(f, true, unknown));
	f->ownership_unknown = unknown;
	faultloop_feed(f, SESSION_SOURCE_LOST);
	faultloop_changed(f);
	if (s->state == SESSION_PAUSED)
		recovery_begin(f);
}

/**
 * verdict_pause - end the connections of the source, on purpose
 * @reason: why, for people
 *
 * Nothing while it would take its VM back: before the commit, and when its stream has ended, or may
 * have.
 */
void verdict_pause(struct faultloop *f, const char *reason)
{
	if (faultloop_halted(f) || session_may_refuse(&f->engine.session) ||
	    f->engine.session.state == SESSION_COMPLETE || nobody_knows_whose(f))
		return;
	set_cause(f, ECANCELED, "%s", reason);
	say_whereabouts(f, ": ", whereabouts(f, true, false));
	faultloop_feed(f, SESSION_SOURCE_LOST);
	recovery_begin(f);
}

/**
 * verdict_not_recovered - the handshake with a resumed source failed
 * @why: what happened, for people
 *
 * It may be tried again.
 */
void verdict_not_recovered(struct faultloop *f, int error, const char *why)
{
	set_cause(f, error, "the recovery from %s failed: %s", f->recovery.peer, why);
	say_whereabouts(f, ": ", whereabouts(f, true, f->ownership_unknown));
	faultloop_feed(f, SESSION_SOURCE_LOST);
	recovery_begin(f);
}

/**
 * verdict_recovered - a resumed source goes on
 *
 * It was paused, so it did not take its VM back, whatever was open before; and it has had all that
 * we said: it would not have been paused.
 */
void verdict_recovered(struct faultloop *f)
{
	f->ownership_unknown = false;
	f->error = 0;
	f->reason[0] = '\0';
	f->cause_len = 0;
	faultloop_feed(f, SESSION_RESUMED);
	faultloop_changed(f);
}

/**
 * verdict_restarted - the process that had the session ended, and its connections end with it
 *
 * For the source that is a lost connection.  What was the verdict before stays it.
 */
void verdict_restarted(struct faultloop *f)
{
	const struct session *s = &f->engine.session;
	bool unknown = nobody_knows_whose(f);

	hang_up(f);
	f->main_closed = true;
	if (s->state == SESSION_COMPLETE || s->state == SESSION_FAILED)
		return;
	if (s->state == SESSION_PAUSED) {
		lost_while_held(f);
		recovery_begin(f);
		return;
	}
	set_cause(f, ECONNRESET,
		  "the service was restarted in state %s, %" PRIu64 " of %" PRIu64
		  " owed pages missing", session_state_name(s->state), f->engine.owed_left,
		  f->engine.owed);
	say_whereabouts(f, ": ", whereabouts(f, true, unknown));
	f->ownership_unknown = unknown;
	faultloop_feed(f, SESSION_SOURCE_LOST);
	if (s->state == SESSION_PAUSED)
		recovery_begin(f);
}

/**
 * verdict_closed - the main connection ended, expected or not; as verdict_lost()
 */
void verdict_closed(struct faultloop *f, int error)
{
	if (!f->main_closed)
		lost_while_held(f);
	f->main_closed = true;
	verdict_lost(f, error);
	/* The source has all it needs and closed: so do we, however long this process stays. */
	if (f->closing)
		hang_up(f);
	faultloop_changed(f);
}

/*
 * Does the session end with it?  Of a main sharer that does not know of us who speaks for it
 * decides, as long as it had loaded nothing: another may take its place.  From then on the VM is
 * lost with it, whatever its policy.
 */
static bool is_fatal(const struct faultloop *f, const struct member *m,
		     enum snapshot_sharer_state how)
{
	enum session_state state = f->engine.session.state;

	if (how == SHARER_LEFT || state >= SESSION_COMPLETE)
		return false;
	if (m->spoken_for)
		return f->engine.session.loaded;
	return m->policy == REGMSG_POLICY_FAIL;
}

/**
 * verdict_member - a sharer ends
 * @how: DISABLED, LEFT or DEAD, see roster_end()
 * @error: positive errno
 *
 * Its waiters are forgotten and its poll is cancelled.  One that did not leave by itself takes the
 * session along when its policy is `fail' and the session is not complete.  A sharer ends once:
 * later verdicts on it are dropped (O6).
 */
void verdict_member(struct faultloop *f, struct member *m, enum snapshot_sharer_state how,
		    int error, const char *fmt, ...)
{
	bool fatal = is_fatal(f, m, how);
	char reason[256];
	va_list args;

	if (m->state != SHARER_ACTIVE)
		return;
	va_start(args, fmt);
	vsnprintf(reason, sizeof(reason), fmt, args);
	va_end(args);
	if (m->armed)
		ring_cancel(f->ring,
			    (struct ring_cookie){ COOKIE_UFFD, 0, m->ref.slot, m->ref.generation });
	m->armed = false;
	engine_gone(&f->engine, m->ref, clock_ns());
	roster_end(m, how, error, reason, clock_ns());
	faultloop_changed(f);
	if (fatal)
		verdict_halt(f, error, "sharer %s: %s", m->name, reason);
}

/* Nothing more can arrive: what is still owed then will never come. */
static bool lanes_exhausted(const struct faultloop *f)
{
	return f->main_eof && (!f->has_urgent || f->urgent.ended) && f->n_pending == 0;
}

/**
 * verdict_end - after anything that can have been the last owed page: is this the end?
 *
 * SHUT(0) goes out with the last owed placement, never before it and with no delay after it.  It is
 * the one message that lets the source drop its copy, and until the source has it a lost connection
 * makes one from 10.0 on restart its VM; so complete is when it arrived, not when it was said.  The
 * sharer must have loaded the device state by then.
 *
 * A stream that ended with pages owed is no end: what an urgent lane can still bring is asked for
 * (arrears.c), else it is held, so that the source keeps what only it has.
 */
void verdict_end(struct faultloop *f)
{
	if (faultloop_halted(f) || !f->main_eof || f->engine.session.state < SESSION_LOADING)
		return;
	if (f->closing) {
		if (f->engine.session.state == SESSION_RUNNING && has_arrived(f, f->shut_mark))
			complete(f);
		return;
	}
	if (engine_drained(&f->engine) && f->n_pending == 0 && !loss_owes(f)) {
		if (f->engine.session.state != SESSION_RUNNING)
			return;
		/* One that went meanwhile never hears SHUT, and takes its VM back. */
		if (sock_ended(f->return_fd)) {
			verdict_closed(f, 0);
			return;
		}
		if (inject_holds_shut(f))
			return;
		inject_moment(f->faults, FAULTPLAN_AT_BEFORE_SHUT);
		f->shut_clean = outbox_empty(&f->outbox);
		outbox_shut(&f->outbox, 0);
		f->shut_mark = outbox_mark(&f->outbox);
		f->closing = true;
		/*
		 * No more requests: the urgent lane is ours to end (the source only waits for it).
		 */
		if (f->urgent.fd >= 0)
			shutdown(f->urgent.fd, SHUT_RDWR);
		faultloop_changed(f);
	} else if (f->engine.owed_left && lanes_exhausted(f)) {
		verdict_halt(f, EPROTO,
			     "the source ended its stream with %" PRIu64
			     " pages still owed; its connection is kept "
			     "open and no success is reported, so that it keeps its copy",
			     f->engine.owed_left);
	} else if (f->engine.owed_left) {
		arrears_chase(f, clock_ns());
	}
}

/**
 * verdict_tell_running - does the source have our answer?  Then the VM may run
 *
 * Until then the source may resume its own.  Where our answer commits, its arrival is waited for;
 * else the commit was the package, and it is enough that the answer left.  After a precopy the
 * answer is SHUT, hence COMPLETE.
 */
void verdict_tell_running(struct faultloop *f)
{
	enum session_state state = f->engine.session.state;
	bool answered = state == SESSION_COMPLETE;

	if (state == SESSION_RUNNING && !f->tail)
		answered = f->engine.session.answer_commits ? has_arrived(f, f->answer_mark) :
							      f->outbox.sent >= f->answer_mark;
	if (f->running_told || !answered)
		return;
	f->running_told = true;
	f->times.running = clock_ns();
	faultloop_changed(f);
	inject_moment(f->faults, FAULTPLAN_AT_RUNNING);
}
