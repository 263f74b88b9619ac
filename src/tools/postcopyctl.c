/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * postcopyctl: one verb, one connection, one answer.
 *
 * A verb is a row: which parts of the view its text needs, or what else it does.  --json prints the
 * daemon's own answer, so its members are those of postcopyd-control(7), whatever the text makes of
 * them.
 */
#include "config.h"
#include <locale.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <glib.h>
#include "core/guard.h"
#include "tools/ctl_client.h"
#include "tools/ctl_devices.h"
#include "tools/ctl_fault.h"
#include "tools/ctl_render.h"
#include "tools/ctl_salvage.h"
#include "tools/ctl_upgrade.h"
#include "tools/ctl_session.h"
#include "tools/ctl_vhost.h"
#include "tools/ctl_view.h"
#include "tools/ctl_watch.h"

enum { EXIT_DONE, EXIT_FAILED, EXIT_USAGE };

#define NOT_GIVEN (-1.0)

struct arguments {
	char *run_dir, *socket;
	gboolean json, force, help, version;
	double interval; /* seconds */
	struct ctl_fault_options fault;
	const char *verb;
	char **words; /* behind it */
};

#define PART(part) (1u << (part))

struct verb {
	const char *name, *help;
	unsigned parts; /* what the text needs; --json prints the first part only */
	enum ctl_part json_part;
	void (*render)(GString *out, const struct ctl_view *v);
	int (*run)(struct ctl_client *c, const struct arguments *a);
};

/* --- verbs -------------------------------------------------------------------------------- */

static int say_error(const struct ctl_client *c)
{
	if (c->error)
		g_printerr("postcopyctl: %s\n", c->error);
	return EXIT_FAILED;
}

static void render_status(GString *out, const struct ctl_view *v)
{
	ctl_render_status(out, v);
	if (v->n_blockers == 0)
		return;
	g_string_append_c(out, '\n');
	ctl_render_blockers(out, v);
}

static int run_watch(struct ctl_client *c, const struct arguments *a)
{
	const struct ctl_watch_options o = {
		.json = a->json,
		.interval_ms = a->interval == NOT_GIVEN ? 0 : (unsigned)(a->interval * 1000),
	};
	int r = ctl_watch_run(c, &o);

	return r ? say_error(c) : EXIT_DONE;
}

static int run_events(struct ctl_client *c, const struct arguments *a)
{
	return ctl_watch_events(c, a->json) ? say_error(c) : EXIT_DONE;
}

static int run_quit(struct ctl_client *c, const struct arguments *a)
{
	struct jsonmsg *reply cleanup_jsonmsg = NULL;

	if (ctl_client_ask(c, "quit", a->force ? "force" : NULL, &reply) < 0)
		return say_error(c);
	return EXIT_DONE;
}

static int run_vhost(struct ctl_client *c, const struct arguments *a)
{
	return ctl_vhost_run(c, a->words, a->json, a->force) ? say_error(c) : EXIT_DONE;
}

static int run_fault(struct ctl_client *c, const struct arguments *a)
{
	return ctl_fault_run(c, a->words, &a->fault, a->json) ? say_error(c) : EXIT_DONE;
}

static int run_session(struct ctl_client *c, const struct arguments *a)
{
	return ctl_session_run(c, a->verb, a->words, a->force) < 0 ? say_error(c) : EXIT_DONE;
}

static int run_devices(struct ctl_client *c, const struct arguments *a)
{
	struct jsonmsg *reply cleanup_jsonmsg = NULL;
	const struct jsonmsg *devices;
	g_autoptr(GString) out = g_string_new(NULL);
	char *line cleanup_free = NULL;

	if (ctl_client_ask(c, "devices", NULL, &reply) < 0)
		return say_error(c);
	devices = jsonmsg_member(reply, "return");
	if (a->json)
		line = jsonmsg_print(devices, NULL);
	else
		ctl_devices_render(out, devices);
	fputs(line ? line : out->str, stdout);
	return EXIT_DONE;
}

static int run_salvage(struct ctl_client *c, const struct arguments *a)
{
	return ctl_salvage_run(c, a->words[0], a->json) ? say_error(c) : EXIT_DONE;
}

static int run_upgrade(struct ctl_client *c, const struct arguments *a)
{
	return ctl_upgrade_run(c, a->words[0], a->force) ? say_error(c) : EXIT_DONE;
}

static const struct verb verbs[] = {
	{ "status", "state of the session (default)", PART(CTL_STATUS) | PART(CTL_BLOCKERS),
	  CTL_STATUS, render_status, NULL },
	{ "watch", "live view until the session ends", 0, 0, NULL, run_watch },
	{ "sharers", "processes whose faults are served", PART(CTL_STATUS) | PART(CTL_SHARERS),
	  CTL_SHARERS, ctl_render_sharers, NULL },
	{ "blocks", "RAM blocks and the pages they have", PART(CTL_BLOCKS), CTL_BLOCKS,
	  ctl_render_blocks, NULL },
	{ "stats", "faults, latencies and lanes", PART(CTL_STATS), CTL_STATS, ctl_render_stats,
	  NULL },
	{ "blockers", "what keeps the session from its next step",
	  PART(CTL_STATUS) | PART(CTL_BLOCKERS), CTL_BLOCKERS, ctl_render_blockers, NULL },
	{ "handover", "how far the hand-over to QEMU is, and what it waits for", PART(CTL_HANDOVER),
	  CTL_HANDOVER, ctl_render_handover, NULL },
	{ "vhost-user", "list, add DEVICE, remove NAME: vhost-user back-ends", 0, 0, NULL,
	  run_vhost },
	{ "devices", "devices of VFIO: their state, and the memory they wait for", 0, 0, NULL,
	  run_devices },
	{ "fault", "list, add POINT ACTION, remove ID|all: faults that are injected", 0, 0, NULL,
	  run_fault },
	{ "salvage", "DIR: save the memory that is here, and what is missing", 0, 0, NULL,
	  run_salvage },
	{ "events", "print events as they come", 0, 0, NULL, run_events },
	{ "upgrade", "BINARY: have another postcopyd take over, in the middle of a session", 0, 0,
	  NULL, run_upgrade },
	{ "pause", "end the connections of the source, which then pauses, too", 0, 0, NULL,
	  run_session },
	{ "recover", "[URI]: let a resumed source in, here or there", 0, 0, NULL, run_session },
	{ "cancel", "give the migration up; the source resumes its VM", 0, 0, NULL, run_session },
	{ "quit", "end the daemon", 0, 0, NULL, run_quit },
};

static const struct verb *find_verb(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		if (!strcmp(verbs[i].name, name))
			return &verbs[i];
	return NULL;
}

/* --- answers ------------------------------------------------------------------------------ */

static int print_json(struct ctl_client *c, const struct verb *verb)
{
	struct jsonmsg *reply cleanup_jsonmsg = NULL;
	char *line cleanup_free = NULL;

	if (ctl_client_ask(c, ctl_view_command(verb->json_part), NULL, &reply) < 0)
		return say_error(c);
	line = jsonmsg_print(jsonmsg_member(reply, "return"), NULL);
	fputs(line, stdout);
	return EXIT_DONE;
}

static int print_text(struct ctl_client *c, const struct verb *verb)
{
	g_autofree struct ctl_view *view = g_new0(struct ctl_view, 1);
	g_autoptr(GString) out = g_string_new(NULL);

	for (int part = 0; part < CTL_PARTS; part++) {
		struct jsonmsg *reply cleanup_jsonmsg = NULL;

		if (!(verb->parts & PART(part)))
			continue;
		if (ctl_client_ask(c, ctl_view_command(part), NULL, &reply) < 0)
			return say_error(c);
		ctl_view_read(view, part, jsonmsg_member(reply, "return"));
	}
	verb->render(out, view);
	fputs(out->str, stdout);
	return EXIT_DONE;
}

static int run(const struct arguments *a)
{
	g_autofree char *path =
		a->socket ? g_strdup(a->socket) : g_build_filename(a->run_dir, "control", NULL);
	struct ctl_client c cleanup_ctl_client = CTL_CLIENT_INIT;
	const struct verb *verb = find_verb(a->verb);

	if (ctl_client_open(&c, path) < 0)
		return say_error(&c);
	if (verb->run)
		return verb->run(&c, a);
	return a->json ? print_json(&c, verb) : print_text(&c, verb);
}

/* --- the command line --------------------------------------------------------------------- */

G_GNUC_PRINTF(1, 2)
static int usage(const char *fmt, ...)
{
	g_autofree char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	text = g_strdup_vprintf(fmt, ap);
	va_end(ap);
	g_printerr("postcopyctl: %s\nTry 'postcopyctl --help'.\n", text);
	return EXIT_USAGE;
}

static GOptionContext *make_context(struct arguments *a)
{
	const GOptionEntry entries[] = {
		{ "run-dir", 'r', 0, G_OPTION_ARG_FILENAME, &a->run_dir,
		  "The --run-dir of the daemon", "DIR" },
		{ "socket", 's', 0, G_OPTION_ARG_FILENAME, &a->socket,
		  "Its control socket, when that is elsewhere", "PATH" },
		{ "json", 'j', 0, G_OPTION_ARG_NONE, &a->json, "Answer with one line of JSON",
		  NULL },
		{ "interval", 'i', 0, G_OPTION_ARG_DOUBLE, &a->interval,
		  "watch: time between two views (default 0.25 on a terminal, else 1)", "SECONDS" },
		{ "force", 'f', 0, G_OPTION_ARG_NONE, &a->force,
		  "quit, cancel: even when that loses a VM that runs here; vhost-user remove: one that is used; "
		  "upgrade: even when that costs a connection",
		  NULL },
		{ "page", 0, 0, G_OPTION_ARG_FILENAME, &a->fault.page,
		  "fault add: only at that page (a number, or an offset in a block)",
		  "N|BLOCK/OFFSET" },
		{ "sharer", 0, 0, G_OPTION_ARG_FILENAME, &a->fault.sharer,
		  "fault add: only of that sharer", "NAME" },
		{ "every", 0, 0, G_OPTION_ARG_STRING, &a->fault.every,
		  "fault add: each N-th time", "N" },
		{ "probability", 0, 0, G_OPTION_ARG_STRING, &a->fault.probability,
		  "fault add: by chance, 0.01 or 1%", "P" },
		{ "after", 0, 0, G_OPTION_ARG_STRING, &a->fault.after,
		  "fault add: not before that many milliseconds from now", "MS" },
		{ "count", 0, 0, G_OPTION_ARG_STRING, &a->fault.count,
		  "fault add: no more often than that", "N" },
		{ "help", 'h', 0, G_OPTION_ARG_NONE, &a->help, "Show this help", NULL },
		{ "version", 0, 0, G_OPTION_ARG_NONE, &a->version,
		  "Show the version and what is built in", NULL },
		{ 0 },
	};
	GOptionContext *context = g_option_context_new("[COMMAND [ARGUMENT...]]");
	g_autoptr(GString) commands = g_string_new("Commands:\n");

	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		g_string_append_printf(commands, "  %-10s %s\n", verbs[i].name, verbs[i].help);
	g_string_append(commands,
			"\nExit status: 0 done, 1 failed, 2 wrong usage.  See postcopyctl(1).");
	g_option_context_set_help_enabled(context, FALSE);
	g_option_context_set_summary(context, "Talks to a running postcopyd.");
	g_option_context_set_description(context, commands->str);
	g_option_context_add_main_entries(context, entries, NULL);
	return context;
}

static int check_fault(const struct arguments *a)
{
	if (ctl_fault_check(a->words, &a->fault) && !a->force)
		return 0;
	return usage("fault [list | add [--page N | --every N | ...] POINT ACTION | remove ID|all]");
}

/* 0, or the exit status of a usage error. */
static int check(struct arguments *a)
{
	if (!find_verb(a->verb))
		return usage("there is no command '%s'", a->verb);
	if (!a->run_dir == !a->socket)
		return usage(a->socket ? "--run-dir and --socket exclude each other"
				       : "which daemon? give its run directory: -r DIR");
	if (find_verb(a->verb)->run == run_vhost)
		return ctl_vhost_check(a->words, a->force) ?
			       0 :
			       usage("vhost-user [list | add DEVICE | remove [--force] NAME]");
	if (find_verb(a->verb)->run == run_fault)
		return check_fault(a);
	if (ctl_fault_given(&a->fault))
		return usage("--page, --sharer, --every, --probability, --after and --count go with fault add");
	if (find_verb(a->verb)->run == run_salvage && (!*a->words || a->words[1]))
		return usage("salvage DIR");
	if (find_verb(a->verb)->run == run_upgrade)
		return *a->words && !a->words[1] ? 0 : usage("upgrade [--force] BINARY");
	if (*a->words && find_verb(a->verb)->run != run_salvage &&
	    (find_verb(a->verb)->run != run_session || !ctl_session_takes(a->verb, a->words)))
		return usage("unexpected argument '%s'", *a->words);
	if (a->force && strcmp(a->verb, "quit") && strcmp(a->verb, "cancel"))
		return usage("--force goes with quit, cancel, upgrade and vhost-user remove only");
	if (a->interval != NOT_GIVEN && strcmp(a->verb, "watch"))
		return usage("--interval goes with watch only");
	if (a->interval != NOT_GIVEN && !(a->interval >= 0.05 && a->interval <= 3600))
		return usage("--interval is between 0.05 and 3600 seconds");
	return 0;
}

static int parse_and_run(struct arguments *a, GOptionContext *context, char ***argv)
{
	g_autoptr(GError) error = NULL;
	int r;

	if (!g_option_context_parse_strv(context, argv, &error))
		return usage("%s", error->message);
	if (a->help) {
		g_autofree char *help = g_option_context_get_help(context, TRUE, NULL);

		fputs(help, stdout);
		return EXIT_DONE;
	}
	if (a->version) {
		puts("postcopyctl " PACKAGE_VERSION " " PC_FEATURES);
		return EXIT_DONE;
	}
	a->verb = (*argv)[1] ? (*argv)[1] : "status";
	a->words = (*argv)[1] ? *argv + 2 : *argv + 1;
	r = check(a);
	return r ? r : run(a);
}

int main(int argc, char **argv)
{
	struct arguments a = {.interval = NOT_GIVEN};
	g_autoptr(GOptionContext) context = make_context(&a);
	g_auto(GStrv) args = g_new0(char *, (gsize)argc + 1);
	int r;

	setlocale(LC_ALL, "");
	for (int i = 0; i < argc; i++)
		args[i] = g_strdup(argv[i]);
	r = parse_and_run(&a, context, &args);
	g_free(a.run_dir);
	g_free(a.socket);
	ctl_fault_clear(&a.fault);
	return r;
}
