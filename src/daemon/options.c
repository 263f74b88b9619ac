/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One table names every option.  GOption's entries, the keys of --config FILE and the messages are
 * made from it, so an option cannot exist in one place only.
 *
 * Order of precedence by order of reading: the command line first, then the file for what was not
 * given, then defaults for what is left.  What belongs together is checked when everything is
 * known, wherever it came from.
 *
 * Everything is a value or an error with the option's name; nothing is guessed, and no other part
 * of the daemon looks at argv or the file.
 */
#include "config.h"
#include "daemon/options_parts.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include "daemon/snapshot.h"
#include "wire/keyval.h"
#include "wire/regmsg.h"

#define GROUP "postcopyd"

static const char *const exclusive[][2] = {
	{"incoming", "incoming-fd"},
	{"register-path", "register-fd"},
	{"control-path", "control-fd"},
	{"register-group", "register-fd"},
	{"keeper", "fd-store"},
	{"keeper", "vfio"},
	{"keeper", "device-channel"},
	{"fd-store", "vfio"},
	{"fd-store", "device-channel"},
};

struct parse {
	struct options *o;
	bool given[OPTIONS_SPECS_MAX];
	char *file;
	gboolean help, version, layout;
};

/* --- one setter per kind: write @text to @field ------------------------------------------- */

/* --- the command line --------------------------------------------------------------------- */

/* GOption calls this for every option of the table; a flag has no text of its own. */
static gboolean on_option(const char *option, const char *value, gpointer data, GError **error)
{
	int i = options_find(option + strlen("--"));
	struct parse *p = data;

	g_assert(i >= 0);
	p->given[i] = true;
	if (options_set(p->o, &options_specs[i], value ? value : "true", error))
		return TRUE;
	g_prefix_error(error, "%s: ", option);
	return FALSE;
}

/* Paths are bytes in the file system's encoding, not UTF-8. */
static void fill_entry(GOptionEntry *e, const struct options_spec *s)
{
	bool raw = s->kind == KIND_PATH || s->kind == KIND_SOCKET_PATH || s->kind == KIND_ADDRESS ||
		   s->kind >= KIND_QEMU;

	*e = (GOptionEntry){
		.long_name = s->name,
		.flags = (s->kind == KIND_FLAG ? G_OPTION_FLAG_NO_ARG : 0) |
			 (raw ? G_OPTION_FLAG_FILENAME : 0),
		.arg = G_OPTION_ARG_CALLBACK,
		.arg_data = (gpointer)on_option,
		.description = s->help,
		.arg_description = s->arg,
	};
}

static GOptionContext *make_context(struct parse *p)
{
	const GOptionEntry common[] = {
		{"config", 0, 0, G_OPTION_ARG_FILENAME, &p->file,
		 "Read options from FILE too; the command line wins", "FILE"},
		{"help", 'h', 0, G_OPTION_ARG_NONE, &p->help, "Show this help", NULL},
		{"version", 0, 0, G_OPTION_ARG_NONE, &p->version,
		 "Show the version and what is built in", NULL},
		{"survival-layout", 0, 0, G_OPTION_ARG_NONE, &p->layout,
		 "Show which daemons' sessions this one can take over, as a number", NULL},
		{0},
	};
	GOptionEntry entries[OPTIONS_SPECS_MAX + 1] = {0};
	GOptionContext *context = g_option_context_new(NULL);
	GOptionGroup *group = g_option_group_new(GROUP, "", "", p, NULL);

	for (unsigned i = 0; options_specs[i].name; i++)
		fill_entry(&entries[i], &options_specs[i]);
	g_option_group_add_entries(group, entries);
	g_option_group_add_entries(group, common);
	g_option_context_set_main_group(context, group);
	g_option_context_set_help_enabled(context, FALSE);
	g_option_context_set_summary(
		context, "Receives a postcopy migration and serves the page faults of the "
			 "processes that own the memory.");
	g_option_context_set_description(
		context, "--incoming (or --incoming-fd) and --run-dir must be given.  See "
			 "postcopyd(8), postcopyd.conf(5).");
	return context;
}

static enum options_result parse_command_line(struct parse *p, int argc, char **argv,
					      GError **error)
{
	g_autoptr(GOptionContext) context = make_context(p);
	g_auto(GStrv) args = g_new0(char *, (gsize)argc + 1);

	for (int i = 0; i < argc; i++)
		args[i] = g_strdup(argv[i]);
	if (!g_option_context_parse_strv(context, &args, error))
		return OPTIONS_USAGE;
	if (p->help) {
		g_autofree char *help = g_option_context_get_help(context, TRUE, NULL);

		fputs(help, stdout);
		return OPTIONS_EXIT_OK;
	}
	if (p->version) {
		puts(PACKAGE_STRING " " PC_FEATURES);
		return OPTIONS_EXIT_OK;
	}
	if (p->layout)
		return OPTIONS_LAYOUT;
	if (args[0] && args[1]) {
		options_fail(error, "unexpected argument '%s'", args[1]);
		return OPTIONS_USAGE;
	}
	return OPTIONS_OK;
}

/* --- the file ----------------------------------------------------------------------------- */

/* A list names every value of a repeatable option; everything else is one value, ';' included. */
static char **file_values(GKeyFile *kf, const struct options_spec *s, GError **error)
{
	g_auto(GStrv) one = NULL;
	char *text;

	if (s->kind == KIND_NAMES || s->kind >= KIND_VHOST)
		return g_key_file_get_string_list(kf, GROUP, s->name, NULL, error);
	text = g_key_file_get_string(kf, GROUP, s->name, error);
	if (!text)
		return NULL;
	one = g_new0(char *, 2);
	one[0] = text;
	return g_steal_pointer(&one);
}

/*
 * A key that the command line gave is not even looked at: the command line wins, whatever the file
 * says.
 */
static bool apply_key(struct parse *p, GKeyFile *kf, const char *key, GError **error)
{
	g_auto(GStrv) values = NULL;
	int i = options_find(key);

	if (i < 0)
		return options_fail(error, "unknown key; keys are the long options of postcopyd");
	if (p->given[i])
		return true;
	values = file_values(kf, &options_specs[i], error);
	if (!values)
		return false;
	for (char **v = values; *v; v++)
		if (!options_set(p->o, &options_specs[i], *v, error))
			return false;
	p->given[i] = true;
	return true;
}

static bool check_groups(struct parse *p, GKeyFile *kf, GError **error)
{
	g_auto(GStrv) groups = g_key_file_get_groups(kf, NULL);

	for (char **g = groups; *g; g++)
		if (strcmp(*g, GROUP))
			return options_fail(error,
					    "%s: unknown group [%s]; the only one is [" GROUP "]",
					    p->file, *g);
	return true;
}

static bool read_file(struct parse *p, GError **error)
{
	g_autoptr(GKeyFile) kf = g_key_file_new();
	g_auto(GStrv) keys = NULL;

	if (!g_key_file_load_from_file(kf, p->file, G_KEY_FILE_NONE, error)) {
		g_prefix_error(error, "%s: ", p->file);
		return false;
	}
	if (!check_groups(p, kf, error))
		return false;
	keys = g_key_file_get_keys(kf, GROUP, NULL, NULL);
	for (char **key = keys; key && *key; key++) {
		if (!apply_key(p, kf, *key, error)) {
			g_prefix_error(error, "%s: [" GROUP "] %s: ", p->file, *key);
			return false;
		}
	}
	return true;
}

/* --- what belongs together ---------------------------------------------------------------- */

static bool is_given(const struct parse *p, const char *name)
{
	int i = options_find(name);

	g_assert(i >= 0);
	return p->given[i];
}

static bool check_exclusive(const struct parse *p, GError **error)
{
	for (unsigned i = 0; i < G_N_ELEMENTS(exclusive); i++)
		if (is_given(p, exclusive[i][0]) && is_given(p, exclusive[i][1]))
			return options_fail(error, "--%s and --%s exclude each other",
					    exclusive[i][0], exclusive[i][1]);
	if (!is_given(p, "incoming") && !is_given(p, "incoming-fd"))
		return options_fail(
			error, "--incoming is missing: where shall the migration source connect?");
	if (!is_given(p, "run-dir"))
		return options_fail(error, "--run-dir is missing: where shall the sockets stand?");
	return true;
}

/* One descriptor cannot be two things. */
static bool check_fds(const struct parse *p, GError **error)
{
	for (unsigned i = 0; options_specs[i].name; i++) {
		for (unsigned j = 0; j < i; j++) {
			const struct options_spec *a = &options_specs[j], *b = &options_specs[i];
			const char *base = (const char *)p->o;

			if (a->kind == KIND_FD && b->kind == KIND_FD && p->given[i] &&
			    p->given[j] &&
			    *(const int *)(base + a->at) == *(const int *)(base + b->at))
				return options_fail(error, "--%s and --%s name the same descriptor",
						    a->name, b->name);
		}
	}
	return true;
}

/* A socket stands in the run directory unless a path or a descriptor was given for it. */
static bool fill_path(char **path, int fd, const char *dir, const char *name, GError **error)
{
	if (*path || fd >= 0)
		return true;
	*path = g_build_filename(dir, name, NULL);
	if (options_check_socket_path(*path, error))
		return true;
	g_prefix_error(error, "--run-dir: ");
	return false;
}

static bool finish(const struct parse *p, GError **error)
{
	struct options *o = p->o;

	if (!check_exclusive(p, error) || !check_fds(p, error))
		return false;
	if (!fill_path(&o->register_path, o->register_fd, o->run_dir, "register", error) ||
	    !fill_path(&o->control_path, o->control_fd, o->run_dir, "control", error))
		return false;
	if (o->qemu.monitor &&
	    !fill_path(&o->qemu.incoming, -1, o->run_dir, "qemu-incoming", error))
		return false;
	if (o->register_path && o->control_path && !strcmp(o->register_path, o->control_path))
		return options_fail(error, "--register-path and --control-path are the same: %s",
				    o->control_path);
	if (o->faults->len && !o->enable_faults)
		return options_fail(error, "--fault needs --enable-faults");
	if (o->expect && g_strv_length(o->expect) > o->max_sharers)
		return options_fail(error, "--expect names %u sharers but --max-sharers is %u",
				    g_strv_length(o->expect), o->max_sharers);
	return options_check_dma_map(o->vfio, o->dma_map, error);
}

static void set_defaults(struct options *o)
{
	*o = (struct options){
		.vhost = g_ptr_array_new_with_free_func((GDestroyNotify)options_free_vhost),
		.vfio = options_new_vfio(),
		.dma_map = options_new_dma_map(),
		.faults = g_ptr_array_new_with_free_func(g_free),
		.register_fd = -1,
		.control_fd = -1,
		.incoming_fd = -1,
		.ready_fd = -1,
		.expect_timeout_s = 30,
		.prove_timeout_s = 10,
		.hook_timeout_s = 30,
		.link_grace_s = 2,
		.max_package = 256ull << 20,
		.max_held = 1ull << 30,
		.max_device_state = 1ull << 30,
		.max_sharers = 32,
		.max_waiters = 16384,
		.on_loss = {OPTIONS_LOSS_WAIT, OPTIONS_LOSS_AFTER_S},
		.exit_when_done = true,
	};
}

/**
 * options_parse - the command line, and the file that --config names
 * @o: filled so far in every case: options_clear() it
 * @argc, @argv: stay as they are
 *
 * Return: OPTIONS_OK; OPTIONS_EXIT_OK after --help or --version, which were printed; OPTIONS_LAYOUT
 * for --survival-layout, which is the caller's to print; OPTIONS_USAGE
 * with *error naming the option, what was wrong and what is expected.
 */
enum options_result options_parse(struct options *o, int argc, char **argv, GError **error)
{
	struct parse p = {.o = o};
	g_autofree char *file = NULL;
	enum options_result r;

	set_defaults(o);
	r = parse_command_line(&p, argc, argv, error);
	file = p.file;
	if (r != OPTIONS_OK)
		return r;
	if (p.file && !read_file(&p, error))
		return OPTIONS_USAGE;
	if (!o->expect)
		o->expect = g_new0(char *, 1);
	return finish(&p, error) ? OPTIONS_OK : OPTIONS_USAGE;
}

/**
 * options_clear - free what options_parse() filled; once more is harmless
 */
void options_clear(struct options *o)
{
	options_clear_address(&o->incoming);
	options_clear_qemu(&o->qemu);
	options_clear_channel(&o->device_channel);
	g_clear_pointer(&o->run_dir, g_free);
	g_clear_pointer(&o->register_path, g_free);
	g_clear_pointer(&o->control_path, g_free);
	g_clear_pointer(&o->hook, g_free);
	g_clear_pointer(&o->source_qmp, g_free);
	g_clear_pointer(&o->device_state, g_free);
	g_clear_pointer(&o->register_group, g_free);
	g_clear_pointer(&o->expect, g_strfreev);
	g_clear_pointer(&o->vhost, g_ptr_array_unref);
	g_clear_pointer(&o->vfio, g_ptr_array_unref);
	g_clear_pointer(&o->dma_map, g_ptr_array_unref);
	g_clear_pointer(&o->faults, g_ptr_array_unref);
}
