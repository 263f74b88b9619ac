/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * postcopy-run adds arguments to somebody else's command line, so what it must not meet there is
 * refused here by name, before anything is started: an -incoming of its own would be listened on
 * by nobody, and a VMM that detaches could not be waited for.
 */
#include "config.h"
#include "tools/run_options.h"

#include <fcntl.h>
#include <string.h>

#include "core/guard.h"

#define SBINDIR_DAEMON	PC_SBINDIR "/postcopyd"
#define LIBDIR_PRELOAD	PC_LIBDIR "/libpostcopy-preload.so"

/* What GOption fills in besides struct run_options. */
struct raw {
	gboolean version;
	char **rest;
};

G_GNUC_PRINTF(2, 3)
static bool refuse(GError **error, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	if (error)
		*error = g_error_new_valist(G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE, fmt, args);
	va_end(args);
	return false;
}

static const char summary[] =
	"Starts a QEMU whose memory comes later, with the postcopyd that serves its page faults.\n"
	"QEMU's command line is the source's; -incoming, -S and a -qmp socket are added to it.\n"
	"With --sharer NAME: starts another program that shares that memory (vhost-user back-end).";
static const char description[] =
	"Exit status: that of PROGRAM; 1 when the VM could not be had, 2 wrong usage.\n"
	"See postcopy-run(1) and postcopy-qemu(7).";

static bool parse_raw(struct run_options *o, struct raw *raw, char **argv, GError **error)
{
	const GOptionEntry entries[] = {
		{ "incoming", 'i', 0, G_OPTION_ARG_STRING, &o->incoming,
		  "where the source connects: tcp:HOST:PORT, unix:PATH (default tcp::0, every address, a free port)",
		  "URI" },
		{ "run-dir", 'r', 0, G_OPTION_ARG_FILENAME, &o->run_dir,
		  "directory of the sockets (default: a new one, removed at the end)", "DIR" },
		{ "sharer", 's', 0, G_OPTION_ARG_STRING, &o->sharer,
		  "PROGRAM is a sharer of this name, of the postcopyd of --run-dir", "NAME" },
		{ "name", 'n', 0, G_OPTION_ARG_STRING, &o->name,
		  "name of QEMU as a sharer (default vmm)", "NAME" },
		{ "expect", 'e', 0, G_OPTION_ARG_STRING_ARRAY, &o->expect,
		  "wait for the sharer of this name as well (repeatable)", "NAME" },
		{ "cont", 'c', 0, G_OPTION_ARG_STRING, &o->cont,
		  "let the VM run: auto, as it did at the source; no when the program is told -S",
		  "auto|yes|no" },
		{ "group", 'g', 0, G_OPTION_ARG_STRING, &o->group,
		  "group that PROGRAM runs with when it is not our user", "GROUP" },
		{ "config", 0, 0, G_OPTION_ARG_FILENAME, &o->config,
		  "postcopyd.conf(5) for postcopyd", "FILE" },
		{ "ready-fd", 0, 0, G_OPTION_ARG_INT, &o->ready_fd,
		  "gets a line of JSON once a source may connect", "FD" },
		{ "postcopyd", 0, 0, G_OPTION_ARG_FILENAME, &o->postcopyd,
		  "the daemon (default " SBINDIR_DAEMON ")", "PATH" },
		{ "preload", 0, 0, G_OPTION_ARG_FILENAME, &o->preload,
		  "the library (default " LIBDIR_PRELOAD ")", "PATH" },
		{ "version", 0, 0, G_OPTION_ARG_NONE, &raw->version, "version and what is built in",
		  NULL },
		{ G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_STRING_ARRAY, &raw->rest, NULL,
		  "[--] PROGRAM [ARGUMENT]..." },
		G_OPTION_ENTRY_NULL
	};
	g_autoptr(GOptionContext) context = g_option_context_new(NULL);
	g_auto(GStrv) args = g_strdupv(argv);

	g_option_context_set_summary(context, summary);
	g_option_context_set_description(context, description);
	/* The first word that is no option begins somebody else's command line. */
	g_option_context_set_strict_posix(context, TRUE);
	g_option_context_add_main_entries(context, entries, NULL);
	return g_option_context_parse_strv(context, &args, error);
}

/* Both spellings of QEMU's options. */
static bool is_option(const char *argument, const char *name)
{
	if (argument[0] == '-' && argument[1] == '-')
		argument++;
	return argument[0] == '-' && strcmp(argument + 1, name) == 0;
}

static bool has_option(char **program, const char *name)
{
	for (char **a = program + 1; *a; a++)
		if (is_option(*a, name))
			return true;
	return false;
}

static bool check_vmm(struct run_options *o, GError **error)
{
	if (has_option(o->program, "incoming"))
		return refuse(
			error,
			"leave out -incoming: it is added; --incoming URI says where the source connects");
	if (has_option(o->program, "daemonize"))
		return refuse(
			error,
			"leave out -daemonize: postcopy-run waits for QEMU; run postcopy-run in the background");
	o->told_stopped = has_option(o->program, "S");
	return true;
}

static bool check_sharer(const struct run_options *o, GError **error)
{
	if (!o->run_dir)
		return refuse(
			error,
			"--sharer needs --run-dir DIR, the one of the postcopyd whose memory is shared");
	if (o->incoming || o->name || o->cont || o->expect || o->config || o->group ||
	    o->ready_fd >= 0)
		return refuse(error, "--sharer goes with --run-dir and --preload only");
	return true;
}

static bool check(struct run_options *o, GError **error)
{
	static const char *const conts[] = {"auto", "yes", "no", NULL};

	if (!o->program || !o->program[0])
		return refuse(
			error,
			"which program? postcopy-run [OPTION]... -- qemu-system-x86_64 [ARGUMENT]...");
	if (o->cont && !g_strv_contains(conts, o->cont))
		return refuse(error, "--cont %s: auto, yes or no", o->cont);
	if (o->ready_fd >= 0 && fcntl(o->ready_fd, F_GETFD) < 0)
		return refuse(error, "--ready-fd %d is not an open file descriptor", o->ready_fd);
	return o->sharer ? check_sharer(o, error) : check_vmm(o, error);
}

static void set_default(char **option, const char *value)
{
	if (!*option)
		*option = g_strdup(value);
}

/**
 * run_options_parse - the whole command line
 * @argv: NULL-terminated, not changed
 *
 * Return: false with @error on a usage error; run_options_clear() after either.
 */
bool run_options_parse(struct run_options *o, char **argv, GError **error)
{
	struct raw raw = {0};

	*o = (struct run_options){.ready_fd = -1};
	if (!parse_raw(o, &raw, argv, error)) {
		g_strfreev(raw.rest);
		return false;
	}
	o->program = raw.rest;
	o->version = raw.version;
	if (!o->version && !check(o, error))
		return false;
	set_default(&o->incoming, "tcp::0");
	set_default(&o->name, "vmm");
	set_default(&o->postcopyd, SBINDIR_DAEMON);
	set_default(&o->preload, LIBDIR_PRELOAD);
	set_default(&o->cont, o->told_stopped ? "no" : "auto");
	return true;
}

void run_options_clear(struct run_options *o)
{
	g_clear_pointer(&o->incoming, g_free);
	g_clear_pointer(&o->run_dir, g_free);
	g_clear_pointer(&o->name, g_free);
	g_clear_pointer(&o->sharer, g_free);
	g_clear_pointer(&o->cont, g_free);
	g_clear_pointer(&o->group, g_free);
	g_clear_pointer(&o->config, g_free);
	g_clear_pointer(&o->expect, g_strfreev);
	g_clear_pointer(&o->postcopyd, g_free);
	g_clear_pointer(&o->preload, g_free);
	g_clear_pointer(&o->program, g_strfreev);
}

/**
 * run_options_escape - in a value of key=value,... a comma is written twice; newly allocated
 */
char *run_options_escape(const char *text)
{
	g_auto(GStrv) parts = g_strsplit(text, ",", -1);

	return g_strjoinv(",,", parts);
}

/**
 * run_options_environment - ours, and what loads the preload into PROGRAM and tells it what to do
 * (postcopy-preload(7))
 * @run_dir: of the daemon
 *
 * A sharer maps the memory when it is told to, so its mappings are watched.  Newly allocated.
 */
char **run_options_environment(const struct run_options *o, const char *run_dir)
{
	g_autofree char *path = g_build_filename(run_dir, "register", NULL);
	g_autofree char *safe_path = run_options_escape(path);
	g_autofree char *safe_name = run_options_escape(o->sharer ? o->sharer : o->name);
	g_autofree char *words = g_strdup_printf("register=%s,name=%s,%s", safe_path, safe_name,
						 o->sharer ? "role=sharer,maps=on" : "role=main");
	const char *others = g_getenv("LD_PRELOAD");
	g_autofree char *libraries = others ? g_strconcat(o->preload, ":", others, NULL) :
					      g_strdup(o->preload);
	char **environment = g_environ_setenv(g_get_environ(), "LD_PRELOAD", libraries, TRUE);

	return g_environ_setenv(environment, "POSTCOPY_PRELOAD", words, TRUE);
}
