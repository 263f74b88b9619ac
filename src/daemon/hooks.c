/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The program is run as
 *
 *	PROGRAM EVENT
 *
 * with what a script wants to know first in its environment; the rest it asks postcopyctl.  Runs
 * come one after the other in the order of the events, so that a slow one is never overtaken by the
 * next.  Nothing waits for them but the probe, and the daemon before it exits: page faults are
 * served whatever the program does.
 *
 * Events are read off snapshots: each is a fact that stays true, told once.  Two that became true
 * between two snapshots are told in the order of the table.
 *
 * Only the probe's status means something: 0 lets the session be, anything else refuses it, with
 * what the program wrote as the reason.  One that cannot be run, or does not end in time, is a veto
 * too: whoever asked to be asked is not passed over.
 */
#include "config.h"
#include "daemon/hooks.h"

#include <stdio.h>
#include <string.h>

#include <gio/gio.h>

#define SAID_MAX 300		/* of what the program wrote that goes into a reason */

struct run {
	const char *event;
	char *state, *source, *machine, *reason;
};

/* One run's way back to us: it outlives hooks_free(), because GIO always calls back. */
struct callback {
	struct hooks *hooks;		/* NULL: nobody is left to tell */
};

enum probe_state { PROBE_NOT_ASKED, PROBE_ASKED, PROBE_GO, PROBE_VETO };

struct hooks {
	char *program, *run_dir;
	unsigned timeout_s;
	struct hooks_ops ops;
	GQueue waiting;			/* struct run, in order; the first is the one that runs */
	GSubprocess *child;		/* NULL: none runs */
	struct callback *callback;	/* of the child */
	GCancellable *deadline;
	guint timer;
	bool expired;
	unsigned told;			/* bits, by row of `events' */
	enum probe_state probe;
	char veto[512];
};

static const char probe[] = "probe";

/* --- what there is to tell -------------------------------------------------------------------- */

static bool is_listening(const struct snapshot *s)
{
	return s->listening_ns != 0;
}

static bool is_loaded(const struct snapshot *s)
{
	return s->state == SESSION_RUNNING || s->state == SESSION_COMPLETE;
}

static bool is_committed(const struct snapshot *s)
{
	return s->committed;
}

static bool is_paused(const struct snapshot *s)
{
	return s->state == SESSION_PAUSED;
}

static bool is_completed(const struct snapshot *s)
{
	return s->state == SESSION_COMPLETE;
}

static bool is_failed(const struct snapshot *s)
{
	return s->state == SESSION_FAILED;
}

static const struct {
	const char *name;
	bool (*is)(const struct snapshot *s);
	bool is_state;			/* the control socket has it as a change of state already */
} events[] = {
	{ "listening", is_listening, true }, { "loaded", is_loaded, false },
	{ "commit", is_committed, false },   { "paused", is_paused, true },
	{ "completed", is_completed, true }, { "failed", is_failed, true },
};

/* --- running ---------------------------------------------------------------------------------- */

static void run_free(struct run *r)
{
	g_free(r->state);
	g_free(r->source);
	g_free(r->machine);
	g_free(r->reason);
	g_free(r);
}

static void start_next(struct hooks *h);

G_GNUC_PRINTF(2, 3)
static void set_veto(struct hooks *h, const char *fmt, ...)
{
	va_list args;

	h->probe = PROBE_VETO;
	va_start(args, fmt);
	g_vsnprintf(h->veto, sizeof(h->veto), fmt, args);
	va_end(args);
}

/* @said: what the program wrote, or why it could not be run; NULL. */
static void judge(struct hooks *h, bool ran, int status, const char *said)
{
	g_autofree char *text = g_strndup(said ? said : "", SAID_MAX);

	g_strdelimit(g_strstrip(text), "\r\n\t", ' ');
	if (ran && status == 0)
		h->probe = PROBE_GO;
	else if (h->expired)
		set_veto(h, "the hook %s did not answer within %u s (--hook-timeout)", h->program,
			 h->timeout_s);
	else if (!ran)
		set_veto(h, "the hook %s cannot be asked: %s", h->program, text);
	else
		set_veto(h, "the hook %s refuses it (status %d)%s%s", h->program, status,
			 *text ? ": " : "", text);
}

static int status_of(GSubprocess *child)
{
	return g_subprocess_get_if_exited(child) ? g_subprocess_get_exit_status(child) :
						   128 + g_subprocess_get_term_sig(child);
}

/* The first of the queue is over, however that came about. */
static void settle(struct hooks *h, bool ran, int status, const char *said)
{
	struct run *r = g_queue_pop_head(&h->waiting);

	if (r->event == probe)
		judge(h, ran, status, said);
	else if (h->expired)
		g_warning("hook %s %s: ended after %u s (--hook-timeout)", h->program, r->event,
			  h->timeout_s);
	else if (!ran || status != 0)
		g_warning("hook %s %s: %s (status %d)", h->program, r->event,
			  said ? said : "failed", status);
	run_free(r);
	start_next(h);
	h->ops.ended(h->ops.ctx);
}

static gboolean on_deadline(gpointer data)
{
	struct hooks *h = data;

	h->timer = 0;
	h->expired = true;
	g_subprocess_force_exit(h->child);
	/* What it started may hold the pipe open. */
	g_cancellable_cancel(h->deadline);
	return G_SOURCE_REMOVE;
}

static void on_done(GObject *object, GAsyncResult *result, gpointer data)
{
	g_autoptr(GSubprocess) child = G_SUBPROCESS(object);
	g_autofree char *said = NULL;
	g_autoptr(GError) error = NULL;
	g_autofree struct callback *callback = data;
	struct hooks *h = callback->hooks;
	gboolean ok = g_subprocess_communicate_utf8_finish(child, result, &said, NULL, &error);

	if (!h)
		return;
	h->child = NULL;
	h->callback = NULL;
	g_clear_handle_id(&h->timer, g_source_remove);
	g_clear_object(&h->deadline);
	/* Text that is no UTF-8 fails the reading, not the program. */
	if (!ok && !h->expired && g_error_matches(error, G_IO_ERROR, G_IO_ERROR_FAILED))
		settle(h, true, status_of(child), "(not UTF-8)");
	else
		settle(h, ok, ok ? status_of(child) : -1, ok ? said : error->message);
}

static GSubprocess *spawn(const struct hooks *h, const struct run *r, GError **error)
{
	g_autoptr(GSubprocessLauncher) launcher = g_subprocess_launcher_new(
		G_SUBPROCESS_FLAGS_STDOUT_PIPE | G_SUBPROCESS_FLAGS_STDERR_MERGE);
	const struct {
		const char *name, *value;
	} environment[] = {
		{ "POSTCOPY_EVENT", r->event },	    { "POSTCOPY_RUN_DIR", h->run_dir },
		{ "POSTCOPY_STATE", r->state },	    { "POSTCOPY_SOURCE", r->source },
		{ "POSTCOPY_MACHINE", r->machine }, { "POSTCOPY_REASON", r->reason },
	};

	for (size_t i = 0; i < G_N_ELEMENTS(environment); i++)
		g_subprocess_launcher_setenv(launcher, environment[i].name,
					     environment[i].value ? environment[i].value : "",
					     TRUE);
	return g_subprocess_launcher_spawn(launcher, error, h->program, r->event, NULL);
}

/*
 * @ops are not told of a failure from here: a caller that waits looks at the answer, not at the
 * moment.
 */
static void start_next(struct hooks *h)
{
	struct run *r = g_queue_peek_head(&h->waiting);
	g_autoptr(GError) error = NULL;

	if (!r || h->child)
		return;
	h->expired = false;
	h->child = spawn(h, r, &error);
	if (!h->child) {
		settle(h, false, -1, error->message);
		return;
	}
	h->callback = g_new0(struct callback, 1);
	h->callback->hooks = h;
	h->deadline = g_cancellable_new();
	h->timer = g_timeout_add_seconds(h->timeout_s, on_deadline, h);
	g_subprocess_communicate_utf8_async(h->child, NULL, h->deadline, on_done, h->callback);
}

static void enqueue(struct hooks *h, const char *event, const struct snapshot *s)
{
	struct run *r = g_new0(struct run, 1);

	r->event = event;
	r->state = g_strdup(session_state_name(s->state));
	r->source = g_strdup(s->source);
	r->machine = g_strdup(s->machine);
	r->reason = g_strdup(s->reason);
	g_queue_push_tail(&h->waiting, r);
	start_next(h);
}

/* --- the outside ------------------------------------------------------------------------------ */

/**
 * hooks_new - nothing is run yet
 * @program: path of the program, or NULL
 * @run_dir: given to it, so that it can ask postcopyctl; may be NULL
 */
struct hooks *hooks_new(const char *program, const char *run_dir, unsigned timeout_s,
			const struct hooks_ops *ops)
{
	struct hooks *h = g_new0(struct hooks, 1);

	h->program = g_strdup(program);
	h->run_dir = g_strdup(run_dir);
	h->timeout_s = timeout_s;
	h->ops = *ops;
	g_queue_init(&h->waiting);
	return h;
}

/**
 * hooks_free - what still runs is ended, what waits is dropped; NULL is fine
 */
void hooks_free(struct hooks *h)
{
	if (!h)
		return;
	g_clear_handle_id(&h->timer, g_source_remove);
	if (h->child) {
		h->callback->hooks = NULL;
		g_subprocess_force_exit(h->child);
		g_cancellable_cancel(h->deadline);
	}
	g_clear_object(&h->deadline);
	g_queue_clear_full(&h->waiting, (GDestroyNotify)run_free);
	g_free(h->program);
	g_free(h->run_dir);
	g_free(h);
}

/**
 * hooks_probe - may this session be?
 * @s: with the source's block list, and nothing committed
 * @why: 512 bytes, written for VETO
 *
 * The program is asked at the first call; a later one of the same session gets the same answer.
 */
enum hooks_answer hooks_probe(struct hooks *h, const struct snapshot *s, char *why)
{
	if (!h->program)
		return HOOKS_GO;
	if (h->probe == PROBE_NOT_ASKED) {
		h->probe = PROBE_ASKED;
		enqueue(h, probe, s);
	}
	if (h->probe == PROBE_VETO)
		memcpy(why, h->veto, sizeof(h->veto));
	return h->probe == PROBE_ASKED ? HOOKS_WAIT : h->probe == PROBE_GO ? HOOKS_GO : HOOKS_VETO;
}

/**
 * hooks_told - which events were told, a bit each
 */
uint32_t hooks_told(const struct hooks *h)
{
	return h->told;
}

/**
 * hooks_recall - an earlier process told these
 */
void hooks_recall(struct hooks *h, uint32_t told)
{
	h->told = told;
}

/**
 * hooks_see - tell what @s shows and was not told yet
 */
void hooks_see(struct hooks *h, const struct snapshot *s)
{
	for (size_t i = 0; i < G_N_ELEMENTS(events); i++) {
		if (h->told & 1u << i || !events[i].is(s))
			continue;
		h->told |= 1u << i;
		if (!events[i].is_state)
			h->ops.event(h->ops.ctx, events[i].name, s->reason);
		if (h->program)
			enqueue(h, events[i].name, s);
	}
}

/**
 * hooks_say - tell of an event that no snapshot shows
 * @event: static
 *
 * Return: false: there is no program.
 */
bool hooks_say(struct hooks *h, const char *event, const struct snapshot *s)
{
	if (h->program)
		enqueue(h, event, s);
	return h->program;
}

bool hooks_busy(const struct hooks *h)
{
	return h->waiting.length != 0;
}
