/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * It is always the source that connects, and a QEMU does that when its monitor is told to.  With
 * the monitor at hand nobody has to type it: while the session is paused and the source waited for,
 * look how the source is, say `migrate' with resume when it waits for that, and look again, with a
 * back-off, until the session is not paused any more.
 *
 * One look is query-status, then query-migrate.  A VM that runs there is none of ours any more:
 * resuming would be wrong, and QEMU would take it for a new migration.  It is said, and looked at
 * again, since somebody has to decide.
 *
 * A source whose TCP has not noticed yet is still postcopy-active, and could be for a quarter of an
 * hour.  Its connection is of no use to anybody, as this side has ended it, so at the second look
 * that finds it like that it is told `migrate-pause'.
 *
 * That a command was answered says little: QEMU connects later.  What counts is that a resumed
 * source arrives.  It must not be told again while it may still be at it: before 9.1 a source that
 * connects, or failed to, looks like one that was not told, and a second connection that comes up
 * during the first one's recovery would be taken for a new migration, over the first.  So such a
 * source is told again when it was seen in another state meanwhile, refused at once, or when TCP
 * has given up for sure (AGAIN_NS); over a UNIX socket there is no waiting.  From 9.1 on the state
 * says that it is at it.
 *
 * Nobody is told while there is no way to come by, which linkwatch.c knows; but after AGAIN_NS, as
 * it may be mistaken about a host that answers nothing but what it was asked for.
 *
 * A recovery that fails is a new pause; the back-off goes on where it was unless that was long ago.
 */
#include "config.h"
#include "daemon/sourceqmp.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <glib.h>

#include "core/guard.h"
#include "daemon/qmp.h"
#include "sys/clock.h"

#define FIRST_MS	100
#define LONGEST_MS	5000
#define AGAIN_NS	150000000000ull	/* more than TCP tries to connect by default (127 s) */
#define TELLS_CONNECTING 901		/* QEMU's version from which its state does */
#define FORGET_NS	10000000000ull	/* out of a pause that long: the back-off begins anew */
#define ACTIVE_LOOKS	2		/* that find it unaware, until it is told */

struct sourceqmp {
	char *path;
	struct sourceqmp_ops ops;
	struct qmp *qmp;		/* NULL: no connection */
	guint timer;
	unsigned delay_ms;
	unsigned active_looks;
	bool wanted;
	uint64_t left_ns;		/* when it was wanted last */
	bool no_way;			/* for it to come by */
	uint64_t began_ns;		/* the pause */
	uint64_t asked_ns;		/* it may be at it since; 0: it is not */
	char uri[sizeof(((struct snapshot_recover *)NULL)->address)];
	struct snapshot_source_qmp said;
};

static void look(struct sourceqmp *q);
static void connect_to(struct sourceqmp *q);

/* What it does now, in a word and in words; told when it is another thing than before. */
static void __attribute__((format(printf, 3, 4)))
say(struct sourceqmp *q, enum snapshot_source_step step, const char *fmt, ...)
{
	char text[sizeof(q->said.text)];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (step == q->said.step && strcmp(text, q->said.text) == 0)
		return;
	q->said.step = step;
	g_strlcpy(q->said.text, text, sizeof(q->said.text));
	if (step == SOURCE_RUNS || step == SOURCE_REFUSES)
		g_warning("--source-qmp: %s", text);
	else
		g_message("--source-qmp: %s", text);
	q->ops.event(q->ops.ctx, "source-qmp", text);
}

static gboolean on_timer(gpointer data)
{
	struct sourceqmp *q = data;

	q->timer = 0;
	if (q->qmp && qmp_is_ready(q->qmp))
		look(q);
	else if (!q->qmp)
		connect_to(q);
	return G_SOURCE_REMOVE;
}

static void look_later(struct sourceqmp *q)
{
	if (!q->timer)
		q->timer = g_timeout_add(q->delay_ms, on_timer, q);
	q->delay_ms = MIN(q->delay_ms * 2, LONGEST_MS);
}

/* --- what it says ----------------------------------------------------------------------------- */

static void on_resumed(void *ctx, const struct qmp_answer *answer)
{
	struct sourceqmp *q = ctx;

	if (answer->outcome == QMP_OK)
		say(q, SOURCE_ASKED, "the source was told to resume at %s", q->uri);
	else
		say(q, SOURCE_REFUSES, "the source does not resume: %s", answer->text);
	if (answer->outcome == QMP_REFUSED)
		q->asked_ns = 0;
	look_later(q);
}

/* May it be connecting already? */
static bool is_at_it(const struct sourceqmp *q)
{
	return q->asked_ns && strncmp(q->uri, "tcp:", 4) == 0 &&
	       qmp_version_number(q->qmp) < TELLS_CONNECTING &&
	       clock_ns() - q->asked_ns < AGAIN_NS;
}

static void resume(struct sourceqmp *q)
{
	const struct qmp_call call = { on_resumed, q, QMP_PATIENCE_MS };

	bool no_way = q->no_way && clock_ns() - MAX(q->began_ns, q->asked_ns) < AGAIN_NS;

	if (no_way || is_at_it(q)) {
		if (no_way)
			say(q, SOURCE_WAITING, "there is no way for the source to come by");
		look_later(q);
		return;
	}
	q->said.tries++;
	q->asked_ns = clock_ns();
	qmp_migrate_resume(q->qmp, q->uri, call);
}

static void on_paused(void *ctx, const struct qmp_answer *answer)
{
	struct sourceqmp *q = ctx;

	if (answer->outcome == QMP_OK)
		say(q, SOURCE_PAUSING, "the source was told that its connection is gone");
	else
		say(q, SOURCE_REFUSES, "the source does not pause: %s", answer->text);
	look_later(q);
}

/* It thinks that it is still connected. */
static void pause_unaware(struct sourceqmp *q)
{
	const struct qmp_call call = { on_paused, q, QMP_PATIENCE_MS };

	if (++q->active_looks < ACTIVE_LOOKS) {
		say(q, SOURCE_WAITING, "the source has not noticed that its connection is gone");
		look_later(q);
		return;
	}
	q->active_looks = 0;
	qmp_migrate_pause(q->qmp, call);
}

static void on_migration(void *ctx, const struct qmp_answer *answer)
{
	const char *status = qmp_status(answer);
	struct sourceqmp *q = ctx;

	if (strcmp(status, "postcopy-active") == 0) {
		pause_unaware(q);
		return;
	}
	q->active_looks = 0;
	if (strcmp(status, "postcopy-paused") == 0) {
		resume(q);
		return;
	}
	if (answer->outcome == QMP_OK)
		q->asked_ns = 0;
	if (answer->outcome != QMP_OK)
		say(q, SOURCE_REFUSES, "the source does not say how it is: %s", answer->text);
	else
		say(q, SOURCE_WAITING, "the migration at the source is %s",
		    *status ? status : "none");
	look_later(q);
}

static void on_status(void *ctx, const struct qmp_answer *answer)
{
	const struct qmp_call call = { on_migration, ctx, QMP_PATIENCE_MS };
	struct sourceqmp *q = ctx;

	if (answer->outcome != QMP_OK) {
		say(q, SOURCE_REFUSES, "the source does not say how it is: %s", answer->text);
		look_later(q);
	} else if (jsonmsg_bool(answer->value, "running", false)) {
		say(q, SOURCE_RUNS, "the VM runs at the source: it is not resumed; one of the two "
				    "has to be given up");
		look_later(q);
	} else {
		qmp_query_migrate(q->qmp, call);
	}
}

static void look(struct sourceqmp *q)
{
	const struct qmp_call call = { on_status, q, QMP_PATIENCE_MS };

	qmp_query_status(q->qmp, call);
}

/* --- the connection --------------------------------------------------------------------------- */

static void on_ready(void *ctx)
{
	struct sourceqmp *q = ctx;

	say(q, SOURCE_LOOKING, "the source's monitor answers (QEMU %s)", qmp_version(q->qmp));
	look(q);
}

static void on_event(void *ctx, const struct qmp_event *event)
{
	(void)ctx;
	(void)event;
}

static void on_closed(void *ctx, const char *why)
{
	struct sourceqmp *q = ctx;

	say(q, SOURCE_CONNECTING, "no monitor of the source: %s", why);
	g_clear_pointer(&q->qmp, qmp_free);
	look_later(q);
}

static void connect_to(struct sourceqmp *q)
{
	static const struct qmp_ops ops = { on_ready, on_event, on_closed };

	q->qmp = qmp_new(q->path, &ops, q);
}

/* --- for the session -------------------------------------------------------------------------- */

static void stop(struct sourceqmp *q)
{
	g_clear_handle_id(&q->timer, g_source_remove);
	g_clear_pointer(&q->qmp, qmp_free);
	q->said.step = SOURCE_OFF;
	q->said.text[0] = '\0';
	q->left_ns = clock_ns();
}

static void start(struct sourceqmp *q)
{
	if (!q->left_ns || clock_ns() - q->left_ns > FORGET_NS)
		q->delay_ms = FIRST_MS;
	q->active_looks = 0;
	q->began_ns = clock_ns();
	say(q, SOURCE_CONNECTING, "connecting to the source's monitor at %s", q->path);
	connect_to(q);
}

/* HOST stands for an address that we do not know. */
static bool is_awaited(const struct snapshot_recover *r)
{
	return r->listening && !g_str_has_prefix(r->address, "tcp:HOST:");
}

/**
 * sourceqmp_see - begin when the session is paused and the source can be told where to come; end
 * when it is not
 */
void sourceqmp_see(struct sourceqmp *q, const struct snapshot *s)
{
	bool wanted = s->state == SESSION_PAUSED && !s->held && is_awaited(&s->recover);

	if (!q)
		return;
	/* It came, if only to fail. */
	if (s->state == SESSION_RECOVERING)
		q->asked_ns = 0;
	q->no_way = s->link.on && !s->link.up;
	if (wanted == q->wanted)
		return;
	q->wanted = wanted;
	g_strlcpy(q->uri, s->recover.address, sizeof(q->uri));
	if (wanted)
		start(q);
	else
		stop(q);
}

void sourceqmp_fill(const struct sourceqmp *q, struct snapshot_source_qmp *out)
{
	*out = q ? q->said : (struct snapshot_source_qmp){ .step = SOURCE_OFF };
}

struct sourceqmp *sourceqmp_new(const char *path, const struct sourceqmp_ops *ops)
{
	struct sourceqmp *q = g_new0(struct sourceqmp, 1);

	q->path = g_strdup(path);
	q->ops = *ops;
	q->delay_ms = FIRST_MS;
	g_strlcpy(q->said.path, path, sizeof(q->said.path));
	return q;
}

void sourceqmp_free(struct sourceqmp *q)
{
	if (!q)
		return;
	stop(q);
	g_free(q->path);
	g_free(q);
}
