/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two children with one fate, as far as that is safe.
 *
 *   postcopyd listens (READY) -> QEMU starts -> a source may connect -> ... -> postcopyd ends, its
 *   work done -> QEMU ends
 *
 * Who ends first decides.  postcopyd with success: QEMU has all its memory and is a process like
 * any other.  postcopyd with a failure: it exits only while nothing runs here, so the QEMU is an
 * empty shell and is told to go.  Killed by a signal: whether a VM runs in it is not known, and a
 * running VM is never ended for it.  QEMU first: postcopyd is asked to end; it refuses when the
 * source has given the VM away, and then it is left alone, because it holds what came of its
 * memory.
 *
 * postcopyd gets a process group of its own: a ^C on the terminal asks QEMU, and the daemon counts
 * signals.
 */
#include "config.h"
#include "tools/run_vmm.h"

#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gio/gio.h>
#include <glib-unix.h>
#include <glib/gstdio.h>

#include "sys/fd.h"
#include "wire/jsonmsg.h"

#define DAEMON_END_S 3		/* for postcopyd to end when it is asked to */
#define READY_MAX    512

struct run {
	const struct run_options *o;
	GMainLoop *loop;
	char *dir;
	bool made_dir;
	GSubprocess *daemon, *vmm;	/* NULL: not started, or ended */
	int ready;			/* from postcopyd; -1 */
	char line[READY_MAX];		/* what came from there */
	size_t used;
	bool stopping;			/* told to, or nothing is left to wait for */
	bool left_daemon;		/* it holds a VM's memory and stays */
	int code;
};

G_GNUC_PRINTF(1, 2)
static void say(const char *fmt, ...)
{
	va_list args;

	fputs("postcopy-run: ", stderr);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
}

static void finish(struct run *r)
{
	if (!r->vmm && (!r->daemon || r->left_daemon))
		g_main_loop_quit(r->loop);
}

/* As a shell tells it. */
static int status_of(GSubprocess *child)
{
	return g_subprocess_get_if_exited(child) ? g_subprocess_get_exit_status(child) :
						   128 + g_subprocess_get_term_sig(child);
}

/* --- the directory ---------------------------------------------------------------------------- */

/* QEMU makes its sockets there, so a group that may not write is of no use. */
static bool open_to_group(const char *dir, const char *group)
{
	const struct group *g = getgrnam(group);

	if (!g) {
		say("--group %s: there is no such group", group);
		return false;
	}
	if (chown(dir, (uid_t)-1, g->gr_gid) < 0 || chmod(dir, 0770) < 0) {
		say("--group %s: %s: %s", group, dir, g_strerror(errno));
		return false;
	}
	return true;
}

static bool make_dir(struct run *r)
{
	g_autofree char *template = g_build_filename(g_get_user_runtime_dir(),
						     "postcopy-run-XXXXXX", NULL);

	r->dir = g_strdup(r->o->run_dir);
	if (r->dir && g_mkdir_with_parents(r->dir, 0700) < 0) {
		say("--run-dir %s: %s", r->dir, g_strerror(errno));
		return false;
	}
	/* root has no user session, and then GLib names a place in its home. */
	if (!r->dir && geteuid() == 0)
		r->dir = g_mkdtemp(g_strdup("/run/postcopy-run-XXXXXX"));
	else if (!r->dir)
		r->dir = g_mkdtemp(g_steal_pointer(&template));
	if (!r->dir) {
		say("cannot make a directory for the sockets: %s (name one with --run-dir)",
		    g_strerror(errno));
		return false;
	}
	r->made_dir = !r->o->run_dir;
	return !r->o->group || open_to_group(r->dir, r->o->group);
}

static void remove_dir(const struct run *r)
{
	static const char *const ours[] = {"qmp", "incoming"};

	for (size_t i = 0; i < G_N_ELEMENTS(ours); i++) {
		g_autofree char *path = g_build_filename(r->dir, ours[i], NULL);

		unlink(path);
	}
	if (r->made_dir && !r->left_daemon && rmdir(r->dir) < 0)
		say("cannot remove %s: %s", r->dir, g_strerror(errno));
}

/* --- ends ------------------------------------------------------------------------------------- */

static gboolean on_daemon_stays(gpointer data)
{
	struct run *r = data;

	if (!r->daemon)
		return G_SOURCE_REMOVE;
	r->left_daemon = true;
	r->code = r->code ? r->code : 1;
	say("QEMU is gone, but the source has given the VM away: postcopyd (process %s) stays and keeps what came of its "
	    "memory; see `postcopyctl -r %s status', and end it with `postcopyctl -r %s --force quit'",
	    g_subprocess_get_identifier(r->daemon), r->dir, r->dir);
	finish(r);
	return G_SOURCE_REMOVE;
}

static void stop_daemon(struct run *r)
{
	if (!r->daemon)
		return;
	g_subprocess_send_signal(r->daemon, SIGTERM);
	g_timeout_add_seconds(DAEMON_END_S, on_daemon_stays, r);
}

static void on_vmm_exit(GObject *child, GAsyncResult *result, gpointer data)
{
	struct run *r = data;

	g_subprocess_wait_finish(G_SUBPROCESS(child), result, NULL);
	if (r->code == 0)
		r->code = status_of(G_SUBPROCESS(child));
	if (r->daemon && !r->stopping)
		say("%s ended with status %d before its memory was complete", r->o->program[0],
		    status_of(G_SUBPROCESS(child)));
	g_clear_object(&r->vmm);
	stop_daemon(r);
	finish(r);
}

static void stop_vmm(struct run *r)
{
	if (r->vmm)
		g_subprocess_send_signal(r->vmm, SIGTERM);
}

/* What follows for QEMU; the theory is at the top. */
static void on_daemon_exit(GObject *child, GAsyncResult *result, gpointer data)
{
	struct run *r = data;
	GSubprocess *daemon = G_SUBPROCESS(child);

	g_subprocess_wait_finish(daemon, result, NULL);
	g_clear_object(&r->daemon);
	if (status_of(daemon) != 0 && r->code == 0)
		r->code = 1;
	if (!r->vmm) {
		finish(r);
	} else if (status_of(daemon) == 0) {
		say("all memory is here, postcopyd has ended");
	} else if (g_subprocess_get_if_exited(daemon)) {
		say("postcopyd has failed (status %d), no VM runs here: ending %s",
		    status_of(daemon), r->o->program[0]);
		r->stopping = true;
		stop_vmm(r);
	} else {
		say("postcopyd was killed (signal %d): memory that is not here yet will not come, and threads of the VM that "
		    "touch it wait for ever; end it yourself",
		    g_subprocess_get_term_sig(daemon));
	}
}

/* --- starts ----------------------------------------------------------------------------------- */

static void own_group(gpointer data)
{
	(void)data;
	setpgid(0, 0);
}

static void add(GPtrArray *args, const char *text)
{
	g_ptr_array_add(args, g_strdup(text));
}

static GPtrArray *daemon_args(const struct run *r)
{
	GPtrArray *args = g_ptr_array_new_with_free_func(g_free);
	g_autofree char *dir = run_options_escape(r->dir);

	add(args, r->o->postcopyd);
	g_ptr_array_add(args, g_strdup_printf("--incoming=%s", r->o->incoming));
	g_ptr_array_add(args, g_strdup_printf("--run-dir=%s", r->dir));
	g_ptr_array_add(args, g_strdup_printf("--qemu=qmp=%s/qmp,incoming=unix:%s/incoming,cont=%s",
					      dir, dir, r->o->cont));
	add(args, "--ready-fd=3");
	if (r->o->config)
		g_ptr_array_add(args, g_strdup_printf("--config=%s", r->o->config));
	if (r->o->group)
		g_ptr_array_add(args, g_strdup_printf("--register-group=%s", r->o->group));
	for (char **e = r->o->expect; e && *e; e++)
		g_ptr_array_add(args, g_strdup_printf("--expect=%s", *e));
	g_ptr_array_add(args, NULL);
	return args;
}

static bool start_daemon(struct run *r)
{
	g_autoptr(GSubprocessLauncher)
		launcher = g_subprocess_launcher_new(G_SUBPROCESS_FLAGS_NONE);
	g_autoptr(GPtrArray) args = daemon_args(r);
	g_autoptr(GError) error = NULL;
	int pipe[2];

	if (!g_unix_open_pipe(pipe, FD_CLOEXEC, &error)) {
		say("%s", error->message);
		return false;
	}
	r->ready = pipe[0];
	g_subprocess_launcher_take_fd(launcher, pipe[1], 3);
	g_subprocess_launcher_set_child_setup(launcher, own_group, NULL, NULL);
	r->daemon = g_subprocess_launcher_spawnv(launcher, (const char *const *)args->pdata,
						 &error);
	if (!r->daemon) {
		say("%s: %s", r->o->postcopyd, error->message);
		return false;
	}
	g_subprocess_wait_async(r->daemon, NULL, on_daemon_exit, r);
	return true;
}

static GPtrArray *vmm_args(const struct run *r)
{
	GPtrArray *args = g_ptr_array_new_with_free_func(g_free);
	g_autofree char *dir = run_options_escape(r->dir);

	for (char **a = r->o->program; *a; a++)
		add(args, *a);
	add(args, "-incoming");
	add(args, "defer");
	if (!r->o->told_stopped)
		add(args, "-S");
	add(args, "-qmp");
	g_ptr_array_add(args, g_strdup_printf("unix:%s/qmp,server=on,wait=off", dir));
	g_ptr_array_add(args, NULL);
	return args;
}

static bool start_vmm(struct run *r)
{
	g_autoptr(GSubprocessLauncher)
		launcher = g_subprocess_launcher_new(G_SUBPROCESS_FLAGS_STDIN_INHERIT);
	g_autoptr(GPtrArray) args = vmm_args(r);
	g_autoptr(GError) error = NULL;
	g_auto(GStrv) environment = run_options_environment(r->o, r->dir);

	g_subprocess_launcher_set_environ(launcher, environment);
	r->vmm = g_subprocess_launcher_spawnv(launcher, (const char *const *)args->pdata, &error);
	if (!r->vmm) {
		say("%s", error->message);
		return false;
	}
	g_subprocess_wait_async(r->vmm, NULL, on_vmm_exit, r);
	return true;
}

/* --- from READY on ---------------------------------------------------------------------------- */

/* What a person types at the source: an address that means "here" everywhere else. */
static char *reachable(const char *uri)
{
	static const char *const every[] = {"tcp:[::]:", "tcp:0.0.0.0:"};

	for (size_t i = 0; i < G_N_ELEMENTS(every); i++)
		if (g_str_has_prefix(uri, every[i]))
			return g_strdup_printf("tcp:%s:%s", g_get_host_name(),
					       uri + strlen(every[i]));
	return g_strdup(uri);
}

static void write_ready(const struct run *r, const char *uri)
{
	struct jsonmsg_writer *w cleanup_jsonmsg_writer = jsonmsg_writer_new();
	g_autofree char *line = NULL;

	jsonmsg_begin_object(w, NULL);
	jsonmsg_put_text(w, "incoming", uri);
	jsonmsg_put_text(w, "run-dir", r->dir);
	jsonmsg_put_u64(w, "postcopyd-pid",
			g_ascii_strtoull(g_subprocess_get_identifier(r->daemon), NULL, 10));
	jsonmsg_put_u64(w, "vmm-pid",
			g_ascii_strtoull(g_subprocess_get_identifier(r->vmm), NULL, 10));
	jsonmsg_end(w);
	line = jsonmsg_finish(w, NULL);
	if (write(r->o->ready_fd, line, strlen(line)) < 0)
		say("--ready-fd: %s", g_strerror(errno));
	close(r->o->ready_fd);
}

static void announce(const struct run *r, const char *listening)
{
	g_autofree char *uri = reachable(listening);

	say("waiting for the VM; at the source:\n"
	    "    (qemu) migrate_set_capability postcopy-ram on\n"
	    "    (qemu) migrate -d %s\n"
	    "    (qemu) migrate_start_postcopy\n"
	    "  to look: postcopyctl -r %s watch", uri, r->dir);
	if (r->o->ready_fd >= 0)
		write_ready(r, uri);
}

/* postcopyd's one line, or its end; why that was it says itself. */
static gboolean on_ready(gint fd, GIOCondition condition, gpointer data)
{
	struct run *r = data;
	ssize_t n = read(fd, r->line + r->used, sizeof(r->line) - 1 - r->used);

	(void)condition;
	if (n < 0 && errno == EINTR)
		return G_SOURCE_CONTINUE;
	r->used += n > 0 ? (size_t)n : 0;
	if (n > 0 && !memchr(r->line, '\n', r->used) && r->used < sizeof(r->line) - 1)
		return G_SOURCE_CONTINUE;
	close_fd(&r->ready);
	if (!g_str_has_prefix(r->line, "READY ") || r->stopping)
		return G_SOURCE_REMOVE;
	g_strchomp(r->line);
	if (start_vmm(r)) {
		announce(r, r->line + strlen("READY "));
	} else {
		r->code = 1;
		stop_daemon(r);
	}
	return G_SOURCE_REMOVE;
}

static gboolean on_signal(gpointer data)
{
	struct run *r = data;

	r->stopping = true;
	if (r->vmm)
		stop_vmm(r);
	else
		stop_daemon(r);
	return G_SOURCE_CONTINUE;
}

/**
 * run_vmm - start both, and wait for both
 *
 * Return: QEMU's exit status as a shell tells it, or 1 when postcopyd failed.
 */
int run_vmm(const struct run_options *o)
{
	struct run r = {.o = o, .ready = -1};

	if (!make_dir(&r)) {
		g_free(r.dir);
		return 1;
	}
	r.loop = g_main_loop_new(NULL, FALSE);
	if (start_daemon(&r)) {
		g_unix_signal_add(SIGINT, on_signal, &r);
		g_unix_signal_add(SIGTERM, on_signal, &r);
		g_unix_fd_add(r.ready, G_IO_IN | G_IO_HUP, on_ready, &r);
		g_main_loop_run(r.loop);
	} else {
		r.code = 1;
	}
	g_main_loop_unref(r.loop);
	remove_dir(&r);
	close_fd(&r.ready);
	g_clear_object(&r.daemon);
	g_free(r.dir);
	return r.code;
}
