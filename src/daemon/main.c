/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * postcopyd: parse, build, run, tear down.
 *
 * The one place that exits.  Sockets are made before anything else is built, so that a daemon that
 * says READY can be connected to; what it made in the file system it removes when it ends.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <gio/gio.h>
#include <glib-unix.h>

#include "daemon/listen.h"
#include "daemon/options.h"
#include "daemon/phases.h"
#include "sys/fd.h"

struct program {
	GMainLoop *loop;
	struct phases *phases;
	int code;
};

static void ended(void *ctx, int code)
{
	struct program *p = ctx;

	p->code = code;
	g_main_loop_quit(p->loop);
}

/* A refusal keeps the handler: the second signal is the one that counts. */
static gboolean on_signal(gpointer data)
{
	phases_stop(((struct program *)data)->phases);
	return G_SOURCE_CONTINUE;
}

/* The file must be ours alone from its first byte: device state holds the guest's secrets. */
static int open_state(const char *path, GError **error)
{
	int fd;

	if (!path)
		return -1;
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		g_set_error(error, G_IO_ERROR, (gint)g_io_error_from_errno(errno),
			    "--device-state %s: %s%s", path, g_strerror(errno),
			    errno == EEXIST ? " (remove it, or name another)" : "");
	return fd;
}

static bool open_fds(const struct options *o, struct phases_fds *fds, char **shown,
		     char **devices_shown, GError **error)
{
	if (o->run_dir && g_mkdir_with_parents(o->run_dir, 0700) < 0) {
		g_set_error(error, G_IO_ERROR, (gint)g_io_error_from_errno(errno),
			    "--run-dir %s: %s", o->run_dir, g_strerror(errno));
		return false;
	}
	if (o->incoming_fd >= 0)
		*shown = g_strdup("passed descriptor");
	fds->incoming = o->incoming_fd >= 0 ? o->incoming_fd :
					      listen_incoming(&o->incoming, shown, error);
	if (fds->incoming < 0)
		return false;
	fds->door = o->register_fd >= 0 ?
			    o->register_fd :
			    listen_unix(o->register_path, SOCK_SEQPACKET, o->register_group, error);
	if (fds->door < 0)
		return false;
	fds->control = o->control_fd >= 0 ? o->control_fd :
					    listen_unix(o->control_path, SOCK_STREAM, NULL, error);
	if (fds->control < 0)
		return false;
	if (o->device_channel.on)
		fds->devices = listen_incoming(&o->device_channel.address, devices_shown, error);
	if (o->device_channel.on && fds->devices < 0)
		return false;
	fds->devices_shown = *devices_shown;
	fds->state = open_state(o->device_state, error);
	return fds->state >= 0 || !o->device_state;
}

/*
 * For whoever starts us: from here on every socket listens.  The descriptor is closed, so EOF means
 * we died before.
 */
static void say_ready(const struct options *o, const char *shown)
{
	g_autofree char *line = g_strdup_printf("READY %s\n", shown);

	g_message("listening for the source on %s, for sharers on %s", shown,
		  o->register_path ? o->register_path : "a passed descriptor");
	if (o->ready_fd >= 0 && write(o->ready_fd, line, strlen(line)) < 0)
		g_warning("--ready-fd: %s", g_strerror(errno));
	if (o->ready_fd >= 0)
		close(o->ready_fd);
}

/* Each sharer costs four descriptors, each block one. */
static void raise_fd_limit(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) == 0) {
		l.rlim_cur = l.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &l);
	}
}

/* Only what we made: passed descriptors belong to whoever passed them. */
static void remove_sockets(const struct options *o)
{
	if (o->register_fd < 0)
		unlink(o->register_path);
	if (o->control_fd < 0)
		unlink(o->control_path);
	if (o->incoming_fd < 0 && o->incoming.transport == OPTIONS_UNIX)
		unlink(o->incoming.path);
	if (o->device_channel.on && o->device_channel.address.transport == OPTIONS_UNIX)
		unlink(o->device_channel.address.path);
}

static int serve(const struct options *o, GError **error)
{
	struct phases_fds fds = { -1, -1, -1, -1, -1, NULL };
	struct program p = { .code = 1 };
	g_autofree char *shown = NULL, *devices_shown = NULL;

	raise_fd_limit();
	if (!open_fds(o, &fds, &shown, &devices_shown, error))
		return 1;
	p.loop = g_main_loop_new(NULL, FALSE);
	p.phases = phases_new(o, &fds, ended, &p, error);
	if (p.phases) {
		g_unix_signal_add(SIGTERM, on_signal, &p);
		g_unix_signal_add(SIGINT, on_signal, &p);
		say_ready(o, shown);
		g_main_loop_run(p.loop);
		phases_free(p.phases);
	}
	g_main_loop_unref(p.loop);
	remove_sockets(o);
	return p.code;
}

int main(int argc, char **argv)
{
	g_autoptr(GError) error = NULL;
	struct options o;
	int code = 0;

	setlocale(LC_ALL, "");
	signal(SIGPIPE, SIG_IGN);
	switch (options_parse(&o, argc, argv, &error)) {
	case OPTIONS_OK:
		if (o.verbose)
			g_log_set_debug_enabled(TRUE);
		code = serve(&o, &error);
		break;
	case OPTIONS_EXIT_OK:
		break;
	case OPTIONS_USAGE:
		code = 2;
		break;
	}
	if (error)
		fprintf(stderr, "postcopyd: %s\n", error->message);
	options_clear(&o);
	return code;
}
