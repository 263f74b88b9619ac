/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is done about a source that stays away (--on-loss).
 *
 * Counted is from the pause on, and a source that comes back begins it anew.  It is about a session
 * that a source can still mend, and about nothing else: one that is held has its source, and where
 * nobody knows whose the VM is the operator says.
 *
 *   freeze   the VM is stopped by its monitor where we have that (--qemu), else by the program of
 *            --hook, which hears `lost', else by SIGSTOP.  A monitor that does not say how the VM
 *            is (its main thread waits for a page, too) is passed over for the signal.  A monitor
 *            that takes `stop' but does not answer has stopped every CPU that does not itself wait
 *            for a page, so its answer is not waited for.  What was stopped here goes on when
 *            the source is back; what somebody else had stopped does not.
 *   kill     the main sharer is sent SIGKILL through its pidfd, so it is that process and no other.
 *            Without it there is no VM: the session is held, and can be salvaged where its memory
 *            is a file.
 */
#include "config.h"
#include "daemon/losspolicy.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/pidfd.h>

#include "sys/clock.h"

#define LOOK_MS 250			/* while something is under way */

enum stage { AT_REST, COUNTING, STOPPING, STOPPED, GOING_ON, KILLED, HELPLESS };
enum by { BY_MONITOR, BY_HOOK, BY_SIGNAL, BY_NOBODY };

struct losspolicy {
	const struct options_loss *o;
	struct losspolicy_ops ops;
	enum stage stage;
	enum by by;
	uint64_t due_ns;		/* COUNTING */
	uint64_t lost;			/* pages, as was told */
	char text[256];			/* what was done; "" */
	guint timer;
};

/**
 * losspolicy_new - nothing is lost yet
 */
struct losspolicy *losspolicy_new(const struct options_loss *o, const struct losspolicy_ops *ops)
{
	struct losspolicy *l = g_new0(struct losspolicy, 1);

	l->o = o;
	l->ops = *ops;
	return l;
}

/**
 * losspolicy_free - the VM stays as it is; NULL is fine
 */
void losspolicy_free(struct losspolicy *l)
{
	if (!l)
		return;
	g_clear_handle_id(&l->timer, g_source_remove);
	g_free(l);
}

static gboolean on_timer(gpointer data)
{
	struct losspolicy *l = data;

	l->timer = 0;
	l->ops.refresh(l->ops.ctx);
	return G_SOURCE_REMOVE;
}

static void look_in(struct losspolicy *l, uint64_t ms)
{
	if (!l->timer)
		l->timer = g_timeout_add((guint)ms, on_timer, l);
}

static void tell(struct losspolicy *l, const char *event)
{
	g_warning("%s", l->text);
	l->ops.event(l->ops.ctx, event, l->text);
}

/* Is the process stopped by a signal?  The letter behind the last ')' of its line. */
static bool is_stopped(pid_t pid)
{
	g_autofree char *path = g_strdup_printf("/proc/%d/stat", (int)pid);
	g_autofree char *line = NULL;
	const char *at;

	if (!g_file_get_contents(path, &line, NULL, NULL))
		return false;
	at = strrchr(line, ')');
	return at && at[1] == ' ' && (at[2] == 'T' || at[2] == 't');
}

/* --- freeze ----------------------------------------------------------------------------------- */

static void stop_by_signal(struct losspolicy *l)
{
	pid_t pid = 0;
	int fd = l->ops.main_sharer(l->ops.ctx, &pid);

	l->by = BY_SIGNAL;
	l->stage = STOPPED;
	if (fd >= 0 && is_stopped(pid)) {
		l->by = BY_NOBODY;
		snprintf(l->text, sizeof(l->text),
			 "the source is lost (--on-loss=freeze): process %d is stopped already",
			 (int)pid);
	} else if (fd >= 0 && pidfd_send_signal(fd, SIGSTOP, NULL, 0) == 0) {
		snprintf(l->text, sizeof(l->text),
			 "the source is lost (--on-loss=freeze): process %d was stopped (SIGSTOP)",
			 (int)pid);
	} else {
		l->stage = HELPLESS;
		snprintf(l->text, sizeof(l->text),
			 "the source is lost, and the VM cannot be stopped (--on-loss=freeze): %s",
			 fd < 0 ? "no process of it is here" : g_strerror(errno));
	}
	tell(l, "lost");
}

static void stop_otherwise(struct losspolicy *l)
{
	if (!l->ops.hook(l->ops.ctx, "lost")) {
		stop_by_signal(l);
		return;
	}
	l->by = BY_HOOK;
	l->stage = STOPPED;
	snprintf(l->text, sizeof(l->text),
		 "the source is lost (--on-loss=freeze): the hook was told to stop the VM");
	tell(l, "lost");
}

static void stop_by_monitor(struct losspolicy *l)
{
	switch (l->ops.monitor(l->ops.ctx, true)) {
	case LOSSPOLICY_UNDER_WAY:
	case LOSSPOLICY_RUNS:
		l->stage = STOPPING;
		look_in(l, LOOK_MS);
		break;
	case LOSSPOLICY_STOPPED:
		l->stage = STOPPED;
		l->by = BY_MONITOR;
		snprintf(l->text, sizeof(l->text),
			 "the source is lost (--on-loss=freeze): QEMU was told to stop the VM");
		tell(l, "lost");
		break;
	case LOSSPOLICY_NOT_RUNNING:
		l->stage = STOPPED;
		l->by = BY_NOBODY;
		snprintf(l->text, sizeof(l->text),
			 "the source is lost (--on-loss=freeze): the VM did not run");
		tell(l, "lost");
		break;
	case LOSSPOLICY_CANNOT:
		stop_otherwise(l);
		break;
	}
}

/* The source is back: what we stopped goes on. */
static void go_on(struct losspolicy *l)
{
	enum losspolicy_stop how = LOSSPOLICY_RUNS;
	pid_t pid = 0;
	int fd = l->ops.main_sharer(l->ops.ctx, &pid);

	if (l->by == BY_MONITOR || l->stage == STOPPING)
		how = l->ops.monitor(l->ops.ctx, false);
	else if (l->by == BY_HOOK)
		l->ops.hook(l->ops.ctx, "recovered");
	else if (l->by == BY_SIGNAL && fd >= 0)
		(void)pidfd_send_signal(fd, SIGCONT, NULL, 0);
	l->stage = how == LOSSPOLICY_UNDER_WAY || how == LOSSPOLICY_STOPPED ? GOING_ON : AT_REST;
	if (l->stage == GOING_ON) {
		look_in(l, LOOK_MS);
		return;
	}
	snprintf(l->text, sizeof(l->text), l->by == BY_NOBODY ?
		 "the source is back; the VM is left as it was" :
		 l->by == BY_HOOK ? "the source is back: the hook was told" :
		 "the source is back: the VM goes on");
	g_message("%s", l->text);
	l->ops.event(l->ops.ctx, "thawed", l->text);
}

/* --- kill ------------------------------------------------------------------------------------- */

static void end_vm(struct losspolicy *l)
{
	pid_t pid = 0;
	int fd = l->ops.main_sharer(l->ops.ctx, &pid);

	if (fd >= 0 && pidfd_send_signal(fd, SIGKILL, NULL, 0) < 0 && errno != ESRCH) {
		l->stage = HELPLESS;
		snprintf(l->text, sizeof(l->text),
			 "the source is lost, and process %d cannot be ended (--on-loss=kill): %s",
			 (int)pid, g_strerror(errno));
		tell(l, "lost");
		return;
	}
	l->stage = KILLED;
	snprintf(l->text, sizeof(l->text),
		 "the source stayed away for %u s, and the VM was ended (--on-loss=kill, process %d): there is "
		 "no VM any more",
		 l->o->after_s, (int)pid);
	tell(l, "lost");
	l->ops.killed(l->ops.ctx, l->text);
}

/* --- what is due ------------------------------------------------------------------------------ */

static bool is_lost(const struct snapshot *s)
{
	return s->state == SESSION_PAUSED && s->committed && !s->held && !s->ownership_unknown;
}

static void act(struct losspolicy *l)
{
	if (l->o->policy == OPTIONS_LOSS_FREEZE)
		stop_by_monitor(l);
	else
		end_vm(l);
}

static void count(struct losspolicy *l, const struct snapshot *s)
{
	uint64_t now = clock_ns();

	l->stage = COUNTING;
	l->due_ns = s->state_ns + l->o->after_s * 1000000000ull;
	if (now >= l->due_ns)
		act(l);
	else
		look_in(l, (l->due_ns - now) / 1000000 + 1);
}

/* The fault thread does it; we tell. */
static void see_pages(struct losspolicy *l, const struct snapshot *s)
{
	if (s->stats.lost == l->lost)
		return;
	snprintf(l->text, sizeof(l->text),
		 "%" PRIu64 " pages were given up, %" PRIu64 " in all (--on-loss=poison)",
		 s->stats.lost - l->lost, s->stats.lost);
	l->lost = s->stats.lost;
	tell(l, "lost");
}

static void step(struct losspolicy *l, const struct snapshot *s)
{
	bool lost = is_lost(s), back = s->state >= SESSION_LISTENING && !lost &&
				       s->state != SESSION_PAUSED && s->state != SESSION_RECOVERING;

	see_pages(l, s);
	if (l->o->policy < OPTIONS_LOSS_FREEZE)
		return;
	if (lost && (l->stage == AT_REST || l->stage == COUNTING))
		count(l, s);
	else if (lost && l->stage == STOPPING)
		stop_by_monitor(l);
	else if (lost && l->stage == GOING_ON)
		l->stage = STOPPED;
	else if (back && (l->stage == STOPPING || l->stage == STOPPED || l->stage == GOING_ON))
		go_on(l);
	else if (!lost && (l->stage == COUNTING || (back && l->stage == HELPLESS)))
		l->stage = AT_REST;
}

/**
 * losspolicy_look - do what is due
 * @s: of now; its members about this are written
 */
void losspolicy_look(struct losspolicy *l, struct snapshot *s)
{
	static const char *const stages[] = {
		[AT_REST] = "none", [COUNTING] = "counting", [STOPPING] = "freezing",
		[STOPPED] = "frozen", [GOING_ON] = "thawing", [KILLED] = "killed",
		[HELPLESS] = "failed",
	};

	step(l, s);
	s->loss = (struct snapshot_loss){
		.policy = options_loss_names[l->o->policy], .stage = stages[l->stage],
		.after_s = l->o->after_s, .due_ns = l->stage == COUNTING ? l->due_ns : 0,
	};
	g_strlcpy(s->loss.text, l->text, sizeof(s->loss.text));
}

/**
 * losspolicy_blockers - what a session that waits for its source waits for
 */
void losspolicy_blockers(const struct losspolicy *l, const struct snapshot *s, struct blockers *b)
{
	static const char *const outlook[OPTIONS_LOSS_POLICIES] = {
		[OPTIONS_LOSS_WAIT] = "it is waited for without end (--on-loss=wait)",
		[OPTIONS_LOSS_POISON] =
			"who waits for a page for too long is told that it is lost (--on-loss=poison)",
		[OPTIONS_LOSS_FREEZE] = "then the VM is stopped (--on-loss=freeze)",
		[OPTIONS_LOSS_KILL] = "then the VM is ended (--on-loss=kill)",
	};
	uint64_t age = (s->now_ns - s->state_ns) / 1000000000;
	char when[32] = "";

	if (!is_lost(s))
		return;
	if (l->o->policy != OPTIONS_LOSS_WAIT)
		snprintf(when, sizeof(when), "after %u s ", l->o->after_s);
	b->since_ns = s->state_ns;
	blockers_add(b, "on-loss", "complete",
		     "the source is lost since %" PRIu64 " s; %" PRIu64 " threads wait for pages; %s%s",
		     age, s->faults_in_flight, when,
		     l->stage > COUNTING ? "(done)" : outlook[l->o->policy]);
}
