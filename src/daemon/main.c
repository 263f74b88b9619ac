/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * postcopyd: parse, build, run, tear down.
 *
 * The one place that exits.  Who keeps our descriptors is decided first of all; with --keeper this
 * process becomes the keeper and its child comes by here again.  Sockets are made before anything
 * else is built, so that a daemon that says READY can be connected to; what it made in the file
 * system it removes when it ends on purpose.  A worker that has to give up what an earlier one left
 * does not end on purpose: it leaves everything to the next one.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <gio/gio.h>
#include <glib-unix.h>

#include "daemon/keeper.h"
#include "daemon/machine.h"
#include "daemon/listen.h"
#include "daemon/options.h"
#include "daemon/phases.h"
#include "daemon/record.h"
#include "daemon/vault.h"
#include "sys/fd.h"

#define STATUS_AGAIN 75		/* EX_TEMPFAIL of sysexits.h */

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
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		g_set_error(error, G_IO_ERROR, (gint)g_io_error_from_errno(errno),
			    "--device-state %s: %s%s", path, g_strerror(errno),
			    errno == EEXIST ? " (remove it, or name another)" : "");
	return fd;
}

/* What is made once for all workers: @fd, or -1 with *error set. */
static bool keep(struct vault *v, const char *name, int fd, GError **error)
{
	int ret = fd < 0 ? 0 : vault_keep(v, name, fd);

	if (ret < 0)
		g_set_error(error, G_IO_ERROR, (gint)g_io_error_from_errno(-ret),
			    "nobody can keep the descriptor %s: %s", name, g_strerror(-ret));
	return fd >= 0 && ret == 0;
}

static bool open_stream(const char *name, const struct options_address *address, struct vault *v,
			int *fd, char **shown, GError **error)
{
	*fd = vault_take(v, name);
	if (*fd >= 0)
		*shown = listen_shown(*fd, address);
	else
		*fd = listen_incoming(address, shown, error);
	return keep(v, name, *fd, error);
}

static bool open_unix(const char *path, int type, const char *group, struct vault *v, int *fd,
		      GError **error)
{
	const char *name = type == SOCK_SEQPACKET ? "register" : "control";

	*fd = vault_take(v, name);
	if (*fd < 0)
		*fd = listen_unix(path, type, group, error);
	return keep(v, name, *fd, error);
}

/* An earlier worker may have written to it: whoever writes begins at its start. */
static bool open_package_file(const struct options *o, struct vault *v, int *fd, GError **error)
{
	if (!o->device_state)
		return true;
	*fd = vault_take(v, "state");
	if (*fd < 0)
		*fd = open_state(o->device_state, error);
	return keep(v, "state", *fd, error);
}

static bool open_fds(const struct options *o, struct vault *v, struct phases_fds *fds, char **shown,
		     char **devices_shown, GError **error)
{
	if (o->run_dir && g_mkdir_with_parents(o->run_dir, 0700) < 0) {
		g_set_error(error, G_IO_ERROR, (gint)g_io_error_from_errno(errno),
			    "--run-dir %s: %s", o->run_dir, g_strerror(errno));
		return false;
	}
	/* What was passed to us every worker inherits. */
	fds->incoming = o->incoming_fd;
	fds->door = o->register_fd;
	fds->control = o->control_fd;
	if (fds->incoming >= 0)
		*shown = g_strdup("passed descriptor");
	else if (!open_stream("incoming", &o->incoming, v, &fds->incoming, shown, error))
		return false;
	if (fds->door < 0 && !open_unix(o->register_path, SOCK_SEQPACKET, o->register_group, v,
					&fds->door, error))
		return false;
	if (fds->control < 0 &&
	    !open_unix(o->control_path, SOCK_STREAM, NULL, v, &fds->control, error))
		return false;
	if (o->device_channel.on && !open_stream("devices", &o->device_channel.address, v,
						 &fds->devices, devices_shown, error))
		return false;
	fds->devices_shown = *devices_shown;
	return open_package_file(o, v, &fds->state, error);
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

/*
 * Nobody is told that we go: who follows takes everything as it is.  The status makes a service
 * manager start us again.
 */
static void leave_all(const GError *error)
{
	if (error)
		fprintf(stderr, "postcopyd: %s\n", error->message);
	_exit(STATUS_AGAIN);
}

/*
 * Only what ends on purpose says so to whoever keeps: what an earlier worker left is not given up
 * because this one could not take it.
 */
static int serve(const struct options *o, struct vault *v, GError **error)
{
	struct phases_fds fds = { -1, -1, -1, -1, -1, NULL, v };
	struct program p = { .code = 1 };
	g_autofree char *shown = NULL, *devices_shown = NULL;
	bool begun;

	raise_fd_limit();
	begun = machine_serves(error) && open_fds(o, v, &fds, &shown, &devices_shown, error);
	p.loop = g_main_loop_new(NULL, FALSE);
	if (begun)
		p.phases = phases_new(o, &fds, ended, &p, error);
	if (p.phases) {
		g_unix_signal_add(SIGTERM, on_signal, &p);
		g_unix_signal_add(SIGINT, on_signal, &p);
		say_ready(o, shown);
		vault_ready(v);
		g_main_loop_run(p.loop);
	}
	if (p.phases ? p.code == PHASES_FOLLOWED : vault_again(v))
		leave_all(error ? *error : NULL);
	vault_over(v);
	phases_free(p.phases);
	g_main_loop_unref(p.loop);
	if (begun)
		remove_sockets(o);
	return p.code;
}

/* The worker's own options were read once by its keeper, which found them good. */
static int begin(const struct options *o, char **argv, GError **error)
{
	struct vault *v;
	int code;

	if (o->keeper && !vault_is_worker())
		return keeper_run(argv, environ, o->ready_fd);
	v = vault_open(o->fd_store);
	if (o->fd_store && !vault_keeps(v)) {
		g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED,
				    "--fd-store: no service manager started this process (there is "
				    "no NOTIFY_SOCKET); --keeper does it without one");
		code = 2;
	} else {
		code = serve(o, v, error);
	}
	vault_free(v);
	return code;
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
		code = begin(&o, argv, &error);
		break;
	case OPTIONS_LAYOUT:
		printf("%u\n", record_layout());
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
