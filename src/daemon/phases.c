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
#include "daemon/listen.h"
#include "daemon/package.h"
#include "daemon/phases_parts.h"
#include "sys/clock.h"
#include "sys/fd.h"

#define RETRY_MS	100		/* while something blocks */

/* --- snapshots -------------------------------------------------------------------------------- */

/* Ask for a fresh snapshot, or remember to when the one we have is out. */
void phases_refresh(void *ctx)
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

/* --- blockers --------------------------------------------------------------------------------- */

static void find_missing(struct phases *p)
{
	attendance_take(&p->blockers, p->door, p->options, p->handover);
	devices_blockers(p->devices, &p->blockers);
}

/* Refuse, or hold: which of the two is verdict_halt()'s to know. */
void phases_stop_session(void *ctx, int error, const char *reason)
{
	struct message m = { .kind = MESSAGE_STOP, .stop.error = error };
	struct phases *p = ctx;

	g_strlcpy(m.stop.reason, reason, sizeof(m.stop.reason));
	faultloop_post(p->loop, &m);
}

/*
 * For what is no reason to hold a VM that is ours: whether it is, the fault thread knows, and a
 * snapshot only knew.
 */
void phases_refuse(struct phases *p, int error, const char *reason)
{
	struct message m = { .kind = MESSAGE_STOP,
			     .stop = { .error = error, .refuse_only = true } };

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
	phases_refresh(p);
	return G_SOURCE_REMOVE;
}

/* Something blocks: look again soon, and give up when it takes too long. */
static void wait_for_blockers(struct phases *p, const struct snapshot *s)
{
	char reason[512];

	if (expired(p, s)) {
		snprintf(reason, sizeof(reason), "gave up after %u s (--expect-timeout): %s",
			 p->options->expect_timeout_s, p->blockers.list[0].text);
		phases_refuse(p, ETIMEDOUT, reason);
	} else if (!p->retry) {
		p->retry = g_timeout_add(RETRY_MS, on_retry, p);
	}
}

/* --- needs ------------------------------------------------------------------------------------ */

static void announce(struct phases *p)
{
	int ret = door_announce(p->door);
	char why[256];

	if (ret == 0)
		return;
	snprintf(why, sizeof(why), "what the session needs cannot be kept for a restart: %s",
		 g_strerror(-ret));
	phases_stop_session(p, -ret, why);
}

/*
 * The source's blocks are known: once everybody is there and nobody objects, say what backs each.
 */
static void match_blocks(struct phases *p, const struct snapshot *s)
{
	enum hooks_answer answer;
	char why[512];

	find_missing(p);
	answer = hooks_probe(p->hooks, s, why);
	if (answer == HOOKS_WAIT)
		blockers_add(&p->blockers, "hook", "listening", "%s probe has not ended",
			     p->options->hook);
	if (p->blockers.n && answer != HOOKS_VETO) {
		wait_for_blockers(p, s);
		return;
	}
	if (answer == HOOKS_VETO)
		phases_stop_session(p, EPERM, why);
	else if (door_match(p->door, s, p->options->max_held, why) < 0)
		phases_stop_session(p, EINVAL, why);
	else
		announce(p);
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
		phases_stop_session(p, EACCES, why);
		return;
	}
	if (ret > 0)
		blockers_add(&p->blockers, "proof", "listening", "%s", why);
	find_missing(p);
	strangers = ret > 0 ? 0 : door_strangers(p->door, why);
	if (strangers > 0)
		blockers_add(&p->blockers, strangers > 1 ? "proof" : "stranger", "listening", "%s",
			     why);
	else if (strangers < 0)
		blockers_add(&p->blockers, "stranger", "listening",
			     "cannot tell who maps the memory: %s", g_strerror(-strangers));
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
		phases_stop_session(p, EACCES, why);
}

static void write_state(struct phases *p, const struct snapshot *s)
{
	/* The descriptor is there from the package's first byte on, its size when it is whole. */
	if (p->state_fd < 0 || p->state_written || s->package_fd < 0 || !s->package_bytes)
		return;
	p->state_written = true;
	package_save(s, p->state_fd, p->options->device_state);
}

/* Our own source's package may have the state of devices. */
static void spool_states(struct phases *p, const struct snapshot *s)
{
	char why[256];
	int ret;

	if (p->states_spooled || s->package_fd < 0 || !s->package_states_bytes)
		return;
	p->states_spooled = true;
	ret = package_spool(s, p->spool, why);
	if (ret < 0)
		phases_stop_session(p, -ret, why);
}

/*
 * A source that resumes its VM when we refuse need not wait for ever (--load-timeout); with any
 * other, waiting is all there is.  @held: it waits for devices, which are blockers of their own.
 */
static void wait_for_load(struct phases *p, const struct snapshot *s, bool held)
{
	uint64_t limit = p->options->load_timeout_s * 1000000000ull;
	char reason[512], waits[1024];

	p->blockers.since_ns = s->state_ns;
	if (p->handover && !held)
		blockers_add(&p->blockers, "load", "running", "the hand-over waits for %s",
			     handover_waits(p->handover, waits, sizeof(waits)));
	else if (!held)
		blockers_add(&p->blockers, "load", "running",
			     "the main sharer has not said that the device state is loaded");
	if (!limit || s->committed)
		return;
	if (clock_ns() - s->state_ns > limit) {
		snprintf(
			reason, sizeof(reason),
			"%s did not load the device state within %u s (--load-timeout)",
			held ? "a device" : "the main sharer", p->options->load_timeout_s);
		phases_refuse(p, ETIMEDOUT, reason);
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
	bool held;

	if (s->need != p->needed) {
		p->needed = s->need;
		p->blockers.since_ns = clock_ns();
	}
	p->blockers.n = 0;
	losspolicy_blockers(p->loss, s, &p->blockers);
	if (s->state == SESSION_FAILED)
		return;
	if (s->paused_ns) {
		/* Who comes meanwhile is served with what is here. */
		if (s->listening_ns && !s->held)
			late_sharers(p);
		phases_recover_blockers(p, s);
		return;
	}
	if (s->need == NEED_BLOCKS)
		match_blocks(p, s);
	else if (s->need == NEED_ARM)
		arm(p, s);
	else if (s->state < SESSION_LISTENING)
		find_missing(p);
	else if (s->state >= SESSION_LOADING && s->state <= SESSION_RUNNING)
		late_sharers(p);
	held = door_go_on(p->door);
	if (s->state == SESSION_LOADING)
		wait_for_load(p, s, held);
	blockers_running(&p->blockers, s);
	if (s->listening_ns) {
		p->blockers.since_ns = s->listening_ns;
		gatekeeper_blockers(p->gates, &p->blockers);
		devices_blockers(p->devices, &p->blockers);
	}
}

/* --- a snapshot, as a whole ------------------------------------------------------------------- */

static void hook_event(void *ctx, const char *name, const char *text)
{
	struct phases *p = ctx;

	if (p->control)
		control_event(p->control, name, text);
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
	phases_see_link(p, s);
	spool_states(p, s);
	devchannel_fill(p->devchannel, &s->device_channel);
	devspool_fill(p->spool, s);
	faults_fill(p->faults, &s->faults);
	phases_show_worker(p, &s->worker);
	phases_recover_see(p, s);
	phases_see_source(p, s);
	log_change(p, s);
	losspolicy_look(p->loss, s);
	salvage_fill(p->salvage, &s->salvage);
	vhost_list_see(p->vhosts);
	if (!p->ending)
		hooks_see(p->hooks, s);
	gatekeeper_look(p->gates, s);
	devices_look(p->devices, s);
	do_needed(p, s);
	if (gatekeeper_waits(p->gates) && !p->retry)
		p->retry = g_timeout_add(RETRY_MS, on_retry, p);
	write_state(p, s);
	if (s->state == SESSION_COMPLETE && s->running_told)
		door_release(p->door);
	if ((s->shut_sent && !s->paused_ns) || s->state == SESSION_COMPLETE ||
	    s->state == SESSION_FAILED)
		channel_over(p->channel);
	door_tell(p->door, s);
	if (p->handover)
		handover_step(p->handover);
	phases_keep(p, s);
	control_refreshed(p->control);
	phases_maybe_end(p, s);
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
	gatekeeper_collect(p->gates);
	if (again)
		phases_refresh(p);
	return G_SOURCE_CONTINUE;
}

static void door_changed(void *ctx)
{
	phases_refresh(ctx);
}

static void connection_refused(void *ctx, const char *text)
{
	(void)ctx;
	g_warning("%s", text);
}

static void source_returned(void *ctx)
{
	phases_pause(ctx, "the source has come again by another connection");
}

/* --- the hand-over ---------------------------------------------------------------------------- */

/* Before a source can come: a VMM looks for its back-ends when it starts. */
static bool start_vhosts(struct phases *p, GError **error)
{
	const struct vhost_device_ops ops = {
		.snapshot = last_snapshot, .changed = phases_refresh, .ctx = p, .door = p->door,
		.prove_s = p->options->prove_timeout_s,
	};

	p->vhosts = vhost_list_new(&ops);
	for (unsigned i = 0; i < p->options->vhost->len; i++)
		if (!vhost_list_add(p->vhosts,
				    options_copy_vhost(g_ptr_array_index(p->options->vhost, i)),
				    error))
			return false;
	return true;
}

static void start_handover(struct phases *p)
{
	struct handover_ops ops = { last_snapshot, phases_refresh, phases_stop_session, hook_event,
				    p };

	if (p->options->qemu.monitor && phases_adopt_handover(p))
		p->handover = handover_new(p->options, p->door, p->loop, &ops);
}

/* Where it stands alone, or where an earlier process left it. */
static bool start_loop(struct phases *p, GError **error)
{
	const struct options *o = p->options;
	const bool again = p->record && vault_again(p->vault);
	const struct faultloop_options loop_options = {
		.spin_us = o->spin_us, .max_package = o->max_package, .max_waiters = o->max_waiters,
		.switchover_ack = o->switchover_ack,
		.poison_ns = options_poison_ns(&o->on_loss), .record = p->record,
		.faults = phases_start_faults(p, vault_again(p->vault)),
		.adopt = again ? &p->adopt : NULL,
	};
	int ret;

	p->adopt.why = p->adopt_why;
	ret = faultloop_start(&p->loop, &loop_options);
	if (ret == 0)
		return true;
	g_set_error(error, G_IO_ERROR, (gint)g_io_error_from_errno(-ret),
		    "cannot start the fault thread: %s (%s)", g_strerror(-ret),
		    *p->adopt_why ? p->adopt_why :
				    "it needs userfaultfd with kernel faults, and io_uring");
	return false;
}

static bool start_control(struct phases *p, int fd, GError **error)
{
	static const struct control_ops ops = { phases_refresh, last_snapshot,
						phases_control_quit };
	int ret = control_new(&p->control, fd, &ops, p);

	if (ret == 0) {
		phases_add_commands(p);
		return true;
	}
	g_set_error(error, G_IO_ERROR, (gint)g_io_error_from_errno(-ret), "control socket: %s",
		    g_strerror(-ret));
	return false;
}

static void start_doors(struct phases *p, const struct phases_fds *fds)
{
	const struct options *o = p->options;
	struct door_ops door_ops = { door_changed, p, phases_may_run };
	struct door_limits door_limits = { o->max_sharers, o->prove_timeout_s };
	struct channel_ops channel_ops = { .refused = connection_refused,
					   .assigned = phases_keep_lane,
					   .snapshot = last_snapshot,
					   .returned = source_returned,
					   .ctx = p };

	p->gates = gatekeeper_new(p->loop);
	p->notify = g_unix_fd_add(faultloop_notify_fd(p->loop), G_IO_IN, on_notify, p);
	p->door = door_new(fds->door, &door_limits, p->loop, &door_ops,
			   p->record ? p->vault : NULL, p->record);
	door_use_gates(p->door, p->gates);
	p->recovery.here = listen_uri(fds->incoming);
	p->channel = channel_new(fds->incoming, p->loop, &channel_ops);
}

/**
 * phases_new - build everything that serves one session, and begin to listen
 * @o: must outlive it
 * @fds: owned from here on, but for the vault
 * @ended: called once, from the main loop, when the daemon should end, with its exit code
 *
 * What an earlier process left (fds->vault) is taken over.
 *
 * Return: NULL with *error; the process has to end then, without touching anything that was left.
 */
struct phases *phases_new(const struct options *o, const struct phases_fds *fds,
			  void (*ended)(void *ctx, int code), void *ctx, GError **error)
{
	struct phases *p = g_new0(struct phases, 1);
	struct hooks_ops hooks_ops = { phases_hook_ended, hook_event, p };
	bool done;

	p->options = o;
	p->state_fd = fds->state;
	p->vault = fds->vault;
	p->ended = ended;
	p->ctx = ctx;
	p->blockers.since_ns = clock_ns();
	p->spare = g_new0(struct snapshot, 1);
	phases_start_spool(p, fds);
	p->hooks = hooks_new(o->hook, o->run_dir, o->hook_timeout_s, &hooks_ops);
	done = phases_take_record(p, error) && start_loop(p, error);
	if (done)
		start_doors(p, fds);
	done = done && start_control(p, fds->control, error);
	if (done)
		phases_start_link(p);
	done = done && phases_start_loss(p, error) && start_vhosts(p, error) &&
	       phases_start_devices(p, error) && phases_adopt(p, error);
	if (!done) {
		/* What an earlier process left must not hear of us. */
		if (!vault_again(p->vault))
			phases_free(p);
		return NULL;
	}
	start_handover(p);
	phases_refresh(p);
	return p;
}

/**
 * phases_free - end it: sockets first, so that nobody new comes, then the fault thread; NULL is
 * fine
 */
void phases_free(struct phases *p)
{
	if (!p)
		return;
	if (p->control)
		control_free(p->control);
	salvage_free(p->salvage);
	losspolicy_free(p->loss);
	hooks_free(p->hooks);
	phases_free_link(p);
	phases_upgrade_free(p);
	handover_free(p->handover);
	channel_free(p->channel);
	phases_recover_free(p);
	vhost_list_free(p->vhosts);
	devices_free(p->devices);
	devchannel_free(p->devchannel);
	devspool_free(p->spool);
	door_free(p->door);
	g_clear_handle_id(&p->notify, g_source_remove);
	g_clear_handle_id(&p->retry, g_source_remove);
	g_clear_handle_id(&p->end_timer, g_source_remove);
	if (p->loop)
		faultloop_stop(p->loop);
	faults_free(p->faults);
	gatekeeper_free(p->gates);
	g_free(p->snapshot);
	g_free(p->spare);
	g_free(p->out);
	record_free(p->record);
	close_fd(&p->state_fd);
	g_free(p);
}
