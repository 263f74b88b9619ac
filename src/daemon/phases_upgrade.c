/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Another program in our place, in the middle of whatever we do (`postcopyctl upgrade').
 *
 * It is the way of a worker that dies, taken on purpose: what the next one needs lies in the vault
 * at any time, so nothing is to be done but to make sure that the next one understands it, and to
 * end.  The program is asked for the layout of the record that it knows (--survival-layout), by the
 * descriptor that the keeper then executes, so what was asked is what runs; the keeper goes back to
 * this program when the new one is of no use.
 *
 * The answer to the request is that it is being looked at; what came of it shows in `status'
 * (worker) and as an event, because who asked loses the connection.
 */
#include "config.h"
#include "daemon/phases_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <gio/gio.h>

#include "sys/fd.h"

#define LAYOUT_SECONDS 10		/* for the program to say what it knows */
#define FLUSH_MS       100		/* for the answer to be read */

/* The question to a program; it outlives us, because GIO always calls back. */
struct phases_upgrade {
	struct phases *p;		/* NULL: nobody is left to tell */
	int program;
	GCancellable *deadline;
	guint timer;
};

/**
 * phases_show_worker - who we are, into a snapshot
 */
void phases_show_worker(const struct phases *p, struct snapshot_worker *w)
{
	const struct vault_past *past = vault_past(p->vault);

	w->pid = (int32_t)getpid();
	w->generation = past->generation;
	w->restarts = past->restarts;
	g_strlcpy(w->last, past->last, sizeof(w->last));
	w->keeper = vault_has_keeper(p->vault) ? "keeper" :
		    vault_keeps(p->vault)      ? "fd-store" : NULL;
	g_strlcpy(w->upgrade, p->upgrade_problem, sizeof(w->upgrade));
}

static void upgrade_free(struct phases_upgrade *u)
{
	g_clear_handle_id(&u->timer, g_source_remove);
	g_clear_object(&u->deadline);
	close_fd(&u->program);
	g_free(u);
}

G_GNUC_PRINTF(2, 3)
static void refused(struct phases *p, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	g_vsnprintf(p->upgrade_problem, sizeof(p->upgrade_problem), fmt, args);
	va_end(args);
	g_warning("upgrade: %s", p->upgrade_problem);
	control_event(p->control, "upgrade-refused", p->upgrade_problem);
	phases_refresh(p);
}

static gboolean end_now(gpointer data)
{
	struct phases *p = data;

	p->ended(p->ctx, PHASES_FOLLOWED);
	return G_SOURCE_REMOVE;
}

static void follow(struct phases *p, int program)
{
	int ret = vault_next(p->vault, program);

	if (ret < 0) {
		refused(p, "the keeper cannot be told: %s", g_strerror(-ret));
		return;
	}
	g_message("another program takes over");
	control_event(p->control, "upgrade", "another program takes over");
	g_timeout_add(FLUSH_MS, end_now, p);
}

/* What it said is a number and a newline, nothing else. */
static void judge(struct phases *p, int program, const char *said)
{
	g_autofree char *ours = g_strdup_printf("%u\n", record_layout());

	if (strcmp(said, ours) == 0)
		follow(p, program);
	else if (*said)
		refused(p, "that program keeps its records in layout %.*s, this one in %u: it cannot "
			   "take over in the middle; upgrade when no session is on",
			(int)strcspn(said, "\n"), said, record_layout());
	else
		refused(p, "that program does not say what it can take over (--survival-layout): is it "
			   "postcopyd?");
}

static void on_said(GObject *object, GAsyncResult *result, gpointer data)
{
	g_autoptr(GSubprocess) child = G_SUBPROCESS(object);
	struct phases_upgrade *u = data;
	g_autofree char *said = NULL;
	g_autoptr(GError) error = NULL;
	bool ok = g_subprocess_communicate_utf8_finish(child, result, &said, NULL, &error);

	g_subprocess_force_exit(child);
	if (u->p)
		u->p->upgrade = NULL;
	if (u->p && !ok)
		refused(u->p, "that program did not say what it can take over: %s", error->message);
	else if (u->p)
		judge(u->p, u->program, said);
	upgrade_free(u);
}

static gboolean on_late(gpointer data)
{
	struct phases_upgrade *u = data;

	u->timer = 0;
	g_cancellable_cancel(u->deadline);
	return G_SOURCE_REMOVE;
}

static bool ask(struct phases *p, int program, GError **error)
{
	g_autofree char *path =
		g_strdup_printf("/proc/%d/fd/%d", (int)getpid(), program);
	GSubprocess *child = g_subprocess_new(G_SUBPROCESS_FLAGS_STDOUT_PIPE |
						      G_SUBPROCESS_FLAGS_STDERR_SILENCE,
					      error, path, "--survival-layout", NULL);
	struct phases_upgrade *u;

	if (!child)
		return false;
	u = g_new0(struct phases_upgrade, 1);
	u->p = p;
	u->program = dup(program);
	u->deadline = g_cancellable_new();
	u->timer = g_timeout_add_seconds(LAYOUT_SECONDS, on_late, u);
	p->upgrade = u;
	p->upgrade_problem[0] = '\0';
	g_subprocess_communicate_utf8_async(child, NULL, u->deadline, on_said, u);
	return true;
}

/* Why not now: what it would cost beside a moment; NULL: nothing, or it is wanted all the same. */
static const char *cost(const struct phases *p, bool force)
{
	const struct snapshot *s = p->snapshot;

	if (force || !s)
		return NULL;
	if (s->state != SESSION_IDLE && !s->committed)
		return "the source would take its VM back: a session before its commit does not "
		       "survive (--force)";
	if (vhost_list_used(p->vhosts))
		return "connections of vhost-user devices would end, and have to be made again by the "
		       "VMM (--force)";
	if (p->handover && !handover_over(p->handover))
		return "the VM is being handed over to its QEMU (--force leaves it held)";
	return NULL;
}

/* Why it cannot be at all. */
static const char *obstacle(const struct phases *p)
{
	if (!vault_has_keeper(p->vault) && vault_keeps(p->vault))
		return "the service manager starts what its unit names: install the new program "
		       "there and end this one by SIGKILL";
	if (!vault_has_keeper(p->vault))
		return "nobody would start another one: this needs --keeper from the beginning";
	return p->upgrade ? "one is being looked at already" : NULL;
}

/**
 * phases_upgrade - let another program take our place; the control socket's `upgrade'
 *
 * Return: true when it is being looked at.
 */
bool phases_upgrade(void *ctx, const char *name, const struct jsonmsg *arguments,
		    struct jsonmsg_writer *w, const char *key, GError **error)
{
	struct phases *p = ctx;
	const char *path = jsonmsg_text(arguments, "binary", "");
	const char *why = obstacle(p);
	cleanup_fd int program = -1;
	struct stat st;

	(void)name;
	jsonmsg_begin_object(w, key);
	jsonmsg_end(w);
	if (!why)
		why = cost(p, jsonmsg_bool(arguments, "force", false));
	if (why) {
		g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_FAILED, why);
		return false;
	}
	program = *path == '/' ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (program >= 0 && fstat(program, &st) == 0 && S_ISREG(st.st_mode) && st.st_mode & 0111)
		return ask(p, program, error);
	g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s is not a program: %s", path,
		    program >= 0    ? "it cannot be executed" :
		    *path == '/' ? g_strerror(errno) : "the path is not absolute");
	return false;
}

/**
 * phases_upgrade_free - nobody waits for the answer any more
 */
void phases_upgrade_free(struct phases *p)
{
	if (!p->upgrade)
		return;
	p->upgrade->p = NULL;
	g_cancellable_cancel(p->upgrade->deadline);
	p->upgrade = NULL;
}
