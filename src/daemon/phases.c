/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The main thread's half of a session.
 *
 * It knows nothing but the last snapshot.  Each one is looked at as a whole (take_snapshot()): what
 * does the fault thread need, what stands in the way, whom to tell, is it over?  So nothing depends
 * on having seen every state, and doing a step twice must be harmless.  What is needed and cannot
 * be done becomes a blocker with a name, listed on the control socket, and is looked at again soon;
 * that is all the waiting there is.
 *
 * One snapshot is out at a time.  A refresh asked for while it is out is remembered, and a change
 * that rang while it came back asks for another, so the last look is never older than the last
 * change.
 *
 * How long to wait is a question of who has the VM.  While the source would resume it, a timeout
 * refuses; after the commit giving up would leave no VM at all, so there is none.
 */
#include "config.h"
#include "daemon/phases.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <gio/gio.h>
#include <glib-unix.h>

#include "daemon/attendance.h"
#include "daemon/blockers.h"
#include "daemon/channel.h"
#include "daemon/handover_qemu.h"
#include "daemon/hooks.h"
#include "daemon/package.h"
#include "sys/clock.h"
#include "sys/fd.h"

#define RETRY_MS	100		/* while something blocks */
#define GRACE_MS	5000		/* for sharers and source to close after the end */
#define FLUSH_MS	200		/* for the last messages to be read */
#define AGAIN_NS	5000000000ull

struct phases {
	const struct options *options;
	struct faultloop *loop;
	struct door *door;
	struct channel *channel;
	struct control *control;
	struct hooks *hooks;
	struct handover *handover;	/* NULL: the main sharer knows us */
	int state_fd;
	struct snapshot *snapshot;	/* the last one; NULL: none yet */
	struct snapshot *spare;		/* the one to send next; NULL while it is out */
	struct snapshot *out;		/* the one that is out: not ours to look at, but ours to free at the end */
	bool refresh_again;
	guint notify, retry, end_timer;
	enum session_state seen;
	enum snapshot_need needed;
	struct blockers blockers;	/* their since_ns: when the need was seen first */
	bool state_written, ending;
	bool leaving;			/* told to stop: as soon as the session is refused */
	int leave_code, end_code;
	uint64_t stop_asked;
	void (*ended)(void *ctx, int code);
	void *ctx;
};

/* --- snapshots -------------------------------------------------------------------------------------- */

/* Ask for a fresh snapshot, or remember to when the one we have is out. */
static void refresh(void *ctx)
{
	struct phases *p = ctx;
	struct message m = { .kind = MESSAGE_SNAPSHOT, .snapshot = p->spare };

	if (!p->spare) {
		p->refresh_again = true;
		return;
	}
	p->out = p->spare;
	p->spare = NULL;
	faultloop_post(p->loop, &m);
}

static const struct snapshot *last_snapshot(void *ctx)
{
	return ((struct phases *)ctx)->snapshot;
}

/* --- blockers ----------------------------------------------------------------------------------------- */

static unsigned list_blockers(void *ctx, struct control_blocker *out, unsigned max)
{
	return blockers_list(&((struct phases *)ctx)->blockers, out, max);
}

static void find_missing(struct phases *p)
{
	attendance_take(&p->blockers, p->door, p->options, p->handover);
}

/* Refuse, or hold: which of the two is verdict_halt()'s to know. */
static void stop_session(void *ctx, int error, const char *reason)
{
	struct message m = { .kind = MESSAGE_STOP, .stop.error = error };
	struct phases *p = ctx;

	g_strlcpy(m.stop.reason, reason, sizeof(m.stop.reason));
	faultloop_post(p->loop, &m);
}

/* For what is no reason to hold a VM that is ours: whether it is, the fault thread knows, and a snapshot only knew. */
static void refuse_session(struct phases *p, int error, const char *reason)
{
	struct message m = { .kind = MESSAGE_STOP, .stop = { .error = error, .refuse_only = true } };

	g_strlcpy(m.stop.reason, reason, sizeof(m.stop.reason));
	faultloop_post(p->loop, &m);
}

static bool expired(const struct phases *p, const struct snapshot *s)
{
	/* After the commit there is nobody who could go on instead: wait. */
	return p->options->expect_timeout_s && !s->committed &&
	       clock_ns() - p->blockers.since_ns > p->options->expect_timeout_s * 1000000000ull;
}

static gboolean on_retry(gpointer data)
{
	struct phases *p = data;

	p->retry = 0;
	refresh(p);
	return G_SOURCE_REMOVE;
}

/* Something blocks: look again soon, and give up when it takes too long. */
static void wait_for_blockers(struct phases *p, const struct snapshot *s)
{
	char reason[512];

	if (expired(p, s)) {
		snprintf(reason, sizeof(reason), "gave up after %u s (--expect-timeout): %s", p->options->expect_timeout_s,
			 p->blockers.list[0].text);
		refuse_session(p, ETIMEDOUT, reason);
	} else if (!p->retry) {
		p->retry = g_timeout_add(RETRY_MS, on_retry, p);
	}
}

/* --- needs ---------------------------------------------------------------------------------------------- */

/* The source's blocks are known: once everybody is there and nobody objects, say what backs each. */
static void match_blocks(struct phases *p, const struct snapshot *s)
{
	enum hooks_answer answer;
	char why[512];

	find_missing(p);
	answer = hooks_probe(p->hooks, s, why);
	if (answer == HOOKS_WAIT)
		blockers_add(&p->blockers, "hook", "listening", "%s probe has not ended", p->options->hook);
	if (p->blockers.n && answer != HOOKS_VETO) {
		wait_for_blockers(p, s);
		return;
	}
	if (answer == HOOKS_VETO)
		stop_session(p, EPERM, why);
	else if (door_match(p->door, s, p->options->max_held, why) < 0)
		stop_session(p, EINVAL, why);
	else
		door_announce(p->door);
	p->needed = NEED_NOTHING;
}

/*
 * The package is here: prove everybody, then serve.  Strangers are looked for last, when everyone
 * who registered is proven; whoever maps the memory then would read zeroes and make them
 * everybody's.
 */
static void arm(struct phases *p, const struct snapshot *s)
{
	const struct message armed = { .kind = MESSAGE_ARMED };
	char why[512];
	int strangers, ret = door_join(p->door, why);

	if (ret < 0) {
		stop_session(p, EACCES, why);
		return;
	}
	if (ret > 0)
		blockers_add(&p->blockers, "proof", "listening", "%s", why);
	find_missing(p);
	strangers = ret > 0 ? 0 : door_strangers(p->door, why);
	if (strangers > 0)
		blockers_add(&p->blockers, strangers > 1 ? "proof" : "stranger", "listening", "%s", why);
	else if (strangers < 0)
		blockers_add(&p->blockers, "stranger", "listening", "cannot tell who maps the memory: %s", g_strerror(-strangers));
	if (p->blockers.n) {
		wait_for_blockers(p, s);
		return;
	}
	faultloop_post(p->loop, &armed);
	p->needed = NEED_NOTHING;
}

/* Whoever came after LISTENING is proven before it is told that it may touch anything. */
static void late_sharers(struct phases *p)
{
	char why[512];

	if (door_join(p->door, why) < 0)
		stop_session(p, EACCES, why);
}

static void write_state(struct phases *p, const struct snapshot *s)
{
	/* The descriptor is there from the package's first byte on, its size when it is whole. */
	if (p->state_fd < 0 || p->state_written || s->package_fd < 0 || !s->package_bytes)
		return;
	p->state_written = true;
	package_save(s, p->state_fd, p->options->device_state);
}

/* A source that resumes its VM when we refuse need not wait for ever (--load-timeout); with any other, waiting is all there is. */
static void wait_for_load(struct phases *p, const struct snapshot *s)
{
	uint64_t limit = p->options->load_timeout_s * 1000000000ull;
	char reason[512], waits[1024];

	p->blockers.since_ns = s->state_ns;
	if (p->handover)
		blockers_add(&p->blockers, "load", "running", "the hand-over waits for %s", handover_waits(p->handover, waits, sizeof(waits)));
	else
		blockers_add(&p->blockers, "load", "running", "the main sharer has not said that the device state is loaded");
	if (!limit || s->committed)
		return;
	if (clock_ns() - s->state_ns > limit) {
		snprintf(reason, sizeof(reason), "the main sharer did not load the device state within %u s (--load-timeout)",
			 p->options->load_timeout_s);
		refuse_session(p, ETIMEDOUT, reason);
	} else if (!p->retry) {
		p->retry = g_timeout_add(RETRY_MS, on_retry, p);
	}
}

/*
 * What this snapshot asks for.  A need keeps its time from the first snapshot that showed it; the
 * blockers are listed anew each time.
 */
static void do_needed(struct phases *p, const struct snapshot *s)
{
	if (s->need != p->needed) {
		p->needed = s->need;
		p->blockers.since_ns = clock_ns();
	}
	p->blockers.n = 0;
	if (s->state == SESSION_FAILED || s->state == SESSION_PAUSED)
		return;
	if (s->need == NEED_BLOCKS)
		match_blocks(p, s);
	else if (s->need == NEED_ARM)
		arm(p, s);
	else if (s->state < SESSION_LISTENING)
		find_missing(p);
	else if (s->state >= SESSION_LOADING && s->state <= SESSION_RUNNING)
		late_sharers(p);
	if (s->state == SESSION_LOADING)
		wait_for_load(p, s);
	blockers_running(&p->blockers, s);
}

/* --- ends ------------------------------------------------------------------------------------------------- */

/* The program of --hook hears the last word before we go. */
static void end(struct phases *p, int code)
{
	if (p->ending)
		return;
	p->ending = true;
	p->end_code = code;
	if (!hooks_busy(p->hooks))
		p->ended(p->ctx, code);
}

static void hook_ended(void *ctx)
{
	struct phases *p = ctx;

	if (!p->ending)
		refresh(p);
	else if (!hooks_busy(p->hooks))
		p->ended(p->ctx, p->end_code);
}

static void hook_event(void *ctx, const char *name, const char *text)
{
	struct phases *p = ctx;

	if (p->control)
		control_event(p->control, name, text);
}

static gboolean on_end_timer(gpointer data)
{
	struct phases *p = data;

	p->end_timer = 0;
	if (p->leaving)
		end(p, p->leave_code);
	else
		end(p, p->seen == SESSION_COMPLETE ? 0 : 1);
	return G_SOURCE_REMOVE;
}

static void end_after(struct phases *p, unsigned ms)
{
	if (!p->end_timer)
		p->end_timer = g_timeout_add(ms, on_end_timer, p);
}

static const char depends[] = "a committed VM depends on this daemon: its missing pages would never come";

static bool is_over(const struct snapshot *s)
{
	return s->state == SESSION_COMPLETE || s->state == SESSION_FAILED;
}

/* The commit may have come before the refusal. */
static void go_on_leaving(struct phases *p, const struct snapshot *s)
{
	if (s->state == SESSION_COMPLETE) {
		end(p, p->leave_code);
	} else if (s->state == SESSION_FAILED) {
		end_after(p, FLUSH_MS);
	} else if (s->committed) {
		p->leaving = false;
		p->stop_asked = clock_ns();
		g_warning("%s; not stopping; ask again within 5 s to end it all the same", depends);
	}
}

/*
 * Not at once: between a snapshot and now the VM may have become ours.  The session is refused first, by the thread
 * that knows.
 */
static void leave(struct phases *p, int code)
{
	p->leaving = true;
	p->leave_code = code;
	refuse_session(p, ECANCELED, "the daemon was told to stop");
	refresh(p);
}

/*
 * A failed session ends when the last words were read.  A complete one waits for sharers and source
 * to hang up, which they do by themselves, and for no longer than the grace time.
 */
static void maybe_end(struct phases *p, const struct snapshot *s)
{
	if (p->leaving)
		go_on_leaving(p, s);
	if (!p->options->exit_when_done)
		return;
	if (s->state == SESSION_FAILED)
		end_after(p, FLUSH_MS);
	if (s->state != SESSION_COMPLETE || !s->running_told || !door_released(p->door) ||
	    (p->handover && !handover_over(p->handover)))
		return;
	end_after(p, GRACE_MS);
	if (s->source_closed && door_connected(p->door) == 0)
		end(p, 0);
}

/* States that came and went between two snapshots are not told of. */
static void log_change(struct phases *p, const struct snapshot *s)
{
	const char *name = session_state_name(s->state);

	if (s->state == p->seen)
		return;
	p->seen = s->state;
	if (s->state == SESSION_FAILED || s->state == SESSION_PAUSED)
		g_warning("session %s: %s", name, s->reason);
	else
		g_message("session %s", name);
	if (p->control)
		control_event(p->control, name, s->reason);
}

/*
 * Look at a snapshot as a whole.  The order matters once: sharers are released from their
 * registrations before they are told that the session is complete.
 */
static void take_snapshot(struct phases *p, struct snapshot *s)
{
	p->spare = p->snapshot ? p->snapshot : g_new0(struct snapshot, 1);
	p->out = NULL;
	p->snapshot = s;
	door_fill(p->door, s);
	log_change(p, s);
	if (!p->ending)
		hooks_see(p->hooks, s);
	do_needed(p, s);
	write_state(p, s);
	if (s->state == SESSION_COMPLETE && s->running_told)
		door_release(p->door);
	if (s->shut_sent || is_over(s))
		channel_over(p->channel);
	door_tell(p->door, s);
	if (p->handover)
		handover_step(p->handover);
	control_refreshed(p->control);
	maybe_end(p, s);
}

static gboolean on_notify(gint fd, GIOCondition condition, gpointer data)
{
	struct phases *p = data;
	bool stale;
	struct snapshot *s = faultloop_collect(p->loop, &stale);
	bool again = p->refresh_again || stale;

	(void)fd;
	(void)condition;
	p->refresh_again = false;
	if (s)
		take_snapshot(p, s);
	if (again)
		refresh(p);
	return G_SOURCE_CONTINUE;
}

static void door_changed(void *ctx)
{
	refresh(ctx);
}

static void connection_refused(void *ctx, const char *text)
{
	(void)ctx;
	g_warning("%s", text);
}

/*
 * A committed VM depends on this process until its last page is here: with it the missing pages
 * would be gone for good.
 */
static bool may_quit(const struct phases *p)
{
	const struct snapshot *s = p->snapshot;

	return !s || !s->committed || is_over(s);
}

static gboolean quit_soon(gpointer data)
{
	end(data, 0);
	return G_SOURCE_REMOVE;
}

static bool control_quit(void *ctx, bool force, const char **why)
{
	struct phases *p = ctx;

	if (!force && !may_quit(p)) {
		*why = "a committed VM depends on this daemon: its missing pages would never come (force ends it all the same)";
		return false;
	}
	if (force)
		g_timeout_add(FLUSH_MS, quit_soon, p);
	else
		leave(p, 0);
	return true;
}

/**
 * phases_stop - a signal asks to stop
 *
 * Before the commit the session is refused, and the daemon ends when that is done.
 *
 * Return: false when refused: a committed VM depends on us, and this was not the second time within
 * 5 s.
 */
bool phases_stop(struct phases *p)
{
	int code = p->seen == SESSION_COMPLETE || p->seen == SESSION_IDLE ? 0 : 1;
	uint64_t now = clock_ns(), asked = p->stop_asked;

	p->stop_asked = now;
	if (asked && now - asked <= AGAIN_NS) {
		end(p, code);
	} else if (may_quit(p)) {
		leave(p, code);
	} else {
		g_warning("%s; not stopping; ask again within 5 s to end it all the same", depends);
		return false;
	}
	return true;
}

/* --- the hand-over ---------------------------------------------------------------------------------------- */

static bool report_handover(void *ctx, struct jsonmsg_writer *w, const char *key)
{
	const struct phases *p = ctx;

	if (p->handover)
		handover_report(p->handover, w, key);
	return p->handover;
}

static void start_handover(struct phases *p)
{
	struct handover_ops ops = { last_snapshot, refresh, stop_session, hook_event, p };

	if (p->options->qemu.monitor)
		p->handover = handover_new(p->options, p->door, p->loop, &ops);
}

/**
 * phases_new - build everything that serves one session, and begin to listen
 * @o: must outlive it
 * @fds: owned from here on
 * @ended: called once, from the main loop, when the daemon should end, with its exit code
 *
 * Return: NULL with *error.
 */
struct phases *phases_new(const struct options *o, const struct phases_fds *fds, void (*ended)(void *ctx, int code),
			  void *ctx, GError **error)
{
	struct faultloop_options loop_options = {
		.spin_us = o->spin_us, .max_package = o->max_package, .max_waiters = o->max_waiters,
		.switchover_ack = o->switchover_ack,
	};
	static const struct control_ops control_ops = { refresh, last_snapshot, list_blockers, report_handover,
							 control_quit };
	struct phases *p = g_new0(struct phases, 1);
	struct door_ops door_ops = { door_changed, p };
	struct door_limits door_limits = { o->max_sharers, o->prove_timeout_s };
	struct channel_ops channel_ops = { .refused = connection_refused, .snapshot = last_snapshot, .ctx = p };
	struct hooks_ops hooks_ops = { hook_ended, hook_event, p };
	int ret;

	p->options = o;
	p->state_fd = fds->state;
	p->ended = ended;
	p->ctx = ctx;
	p->blockers.since_ns = clock_ns();
	p->spare = g_new0(struct snapshot, 1);
	p->hooks = hooks_new(o->hook, o->run_dir, o->hook_timeout_s, &hooks_ops);
	ret = faultloop_start(&p->loop, &loop_options);
	if (ret < 0) {
		g_set_error(error, G_IO_ERROR, (gint)g_io_error_from_errno(-ret), "cannot start the fault thread: %s (it needs "
			    "userfaultfd with kernel faults, and io_uring)", g_strerror(-ret));
		phases_free(p);
		return NULL;
	}
	p->notify = g_unix_fd_add(faultloop_notify_fd(p->loop), G_IO_IN, on_notify, p);
	p->door = door_new(fds->door, &door_limits, p->loop, &door_ops);
	p->channel = channel_new(fds->incoming, p->loop, &channel_ops);
	ret = control_new(&p->control, fds->control, &control_ops, p);
	if (ret < 0) {
		g_set_error(error, G_IO_ERROR, (gint)g_io_error_from_errno(-ret), "control socket: %s", g_strerror(-ret));
		phases_free(p);
		return NULL;
	}
	start_handover(p);
	refresh(p);
	return p;
}

/**
 * phases_free - end it: sockets first, so that nobody new comes, then the fault thread; NULL is fine
 */
void phases_free(struct phases *p)
{
	if (!p)
		return;
	if (p->control)
		control_free(p->control);
	hooks_free(p->hooks);
	handover_free(p->handover);
	channel_free(p->channel);
	door_free(p->door);
	if (p->notify)
		g_source_remove(p->notify);
	if (p->retry)
		g_source_remove(p->retry);
	if (p->end_timer)
		g_source_remove(p->end_timer);
	if (p->loop)
		faultloop_stop(p->loop);
	g_free(p->snapshot);
	g_free(p->spare);
	g_free(p->out);
	close_fd(&p->state_fd);
	g_free(p);
}
