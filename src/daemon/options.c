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

enum kind {
	KIND_FLAG, /* stores .min when given, !.min when the file says false */
	KIND_TEXT,
	KIND_PATH,	  /* any bytes */
	KIND_SOCKET_PATH, /* fits sun_path */
	KIND_FD,
	KIND_COUNT, /* unsigned */
	KIND_SIZE,  /* uint64_t */
	KIND_NAMES, /* repeatable */
	KIND_ADDRESS,
	KIND_QEMU,
	KIND_CHANNEL,
	KIND_VHOST,   /* repeatable, as are those that follow */
	KIND_VFIO,
	KIND_DMA_MAP,
	KINDS,
};

struct spec {
	const char *name;
	enum kind kind;
	size_t at; /* in struct options */
	uint64_t min, max;
	const char *arg, *help;
};

#define AT(field) offsetof(struct options, field)

static const struct spec specs[] = {
	{ "incoming", KIND_ADDRESS, AT(incoming), 0, 0, "ADDRESS",
	  "Where the migration source connects: tcp:HOST:PORT (tcp:[::1]:PORT, tcp::PORT for every "
	  "address) or unix:PATH" },
	{ "incoming-fd", KIND_FD, AT(incoming_fd), 0, INT_MAX, "FD",
	  "Listening stream socket to accept the source on, instead of --incoming" },
	{ "run-dir", KIND_PATH, AT(run_dir), 0, 0, "DIR",
	  "Directory of the sockets `register' and `control'" },
	{ "register-path", KIND_SOCKET_PATH, AT(register_path), 0, 0, "PATH",
	  "Socket where sharers register (default: DIR/register)" },
	{ "register-fd", KIND_FD, AT(register_fd), 0, INT_MAX, "FD",
	  "Listening SOCK_SEQPACKET socket for sharers, instead of a path" },
	{ "register-group", KIND_TEXT, AT(register_group), 0, 0, "GROUP",
	  "Group that may open the register socket (default: owner only)" },
	{ "control-path", KIND_SOCKET_PATH, AT(control_path), 0, 0, "PATH",
	  "Socket of postcopyctl (default: DIR/control)" },
	{ "control-fd", KIND_FD, AT(control_fd), 0, INT_MAX, "FD",
	  "Listening SOCK_STREAM socket for control, instead of a path" },
	{ "expect", KIND_NAMES, AT(expect), 0, 0, "NAME",
	  "Wait for the sharer of this name before any fault is served (repeatable)" },
	{ "expect-timeout", KIND_COUNT, AT(expect_timeout_s), 0, 86400, "SECONDS",
	  "Refuse the migration when an expected sharer is missing that long (default 30; 0: wait "
	  "for ever)" },
	{ "prove-timeout", KIND_COUNT, AT(prove_timeout_s), 1, 3600, "SECONDS",
	  "Refuse a sharer that does not let its mappings be seen that long (default 10)" },
	{ "load-timeout", KIND_COUNT, AT(load_timeout_s), 0, 86400, "SECONDS",
	  "Give up on the main sharer when loading takes longer (default 0: no limit)" },
	{ "device-state", KIND_PATH, AT(device_state), 0, 0, "FILE",
	  "Write the device state package to this new file (mode 0600)" },
	{ "hook", KIND_PATH, AT(hook), 0, 0, "PROGRAM",
	  "Run PROGRAM EVENT at each step of the session; what it says to `probe' can refuse it" },
	{ "hook-timeout", KIND_COUNT, AT(hook_timeout_s), 1, 86400, "SECONDS",
	  "End a run of the hook that takes longer (default 30)" },
	{ "ready-fd", KIND_FD, AT(ready_fd), 0, INT_MAX, "FD",
	  "Write a line READY ... there once every socket listens" },
	{ "spin-us", KIND_COUNT, AT(spin_us), 0, 1000000, "N",
	  "Poll busily for N microseconds before sleeping (default 0)" },
	{ "max-package", KIND_SIZE, AT(max_package), 4096, UINT32_MAX, "SIZE",
	  "Refuse a larger device state package; K, M, G (default 256M)" },
	{ "max-held", KIND_SIZE, AT(max_held), 0, 1ull << 40, "SIZE",
	  "Refuse a source with more memory than this that no sharer registers; K, M, G (default 1G)" },
	{ "max-sharers", KIND_COUNT, AT(max_sharers), 1, SNAPSHOT_SHARERS, "N",
	  "Sharers at a time (default 32, at most 64)" },
	{ "max-waiters", KIND_COUNT, AT(max_waiters), 1, 1u << 24, "N",
	  "Threads that may wait for a page at a time, over all sharers (default 16384)" },
	{ "qemu", KIND_QEMU, AT(qemu), 0, 0, "qmp=PATH,...",
	  "Hand the VM over to an unmodified QEMU (-incoming defer) through its monitor; also "
	  "incoming=unix:PATH, cont=auto|yes|no, retry=SECONDS" },
	{ "vhost-user", KIND_VHOST, AT(vhost), 0, 0, "name=NAME,...",
	  "Stand between the VMM, which connects to front=PATH, and a vhost-user back-end at "
	  "back=PATH (repeatable); also dialect=, gate=, policy=, answer-timeout=" },
	{ "device-channel", KIND_CHANNEL, AT(device_channel), 0, 0, "ADDRESS",
	  "Where the state of VFIO devices comes on a connection of its own; also session=UUID" },
	{ "max-device-state", KIND_SIZE, AT(max_device_state), 4096, 1ull << 40, "SIZE",
	  "Refuse more state of VFIO devices than this; K, M, G (default 1G)" },
	{ "vfio", KIND_VFIO, AT(vfio), 0, 0, "id=ID,...",
	  "Load, and hold until its memory is there, the device at sysfs=PATH or vfio-user=PATH "
	  "(repeatable); also mandatory=, deadline=, dma=" },
	{ "dma-map", KIND_DMA_MAP, AT(dma_map), 0, 0, "device=ID,...",
	  "What that device reaches: iova=ADDRESS, block=NAME (repeatable); also offset=, length=, "
	  "coherent=" },
	{ "switchover-ack", KIND_FLAG, AT(switchover_ack), true, 0, NULL,
	  "Acknowledge the switch-over (for a source with that migration capability)" },
	{ "stay", KIND_FLAG, AT(exit_when_done), false, 0, NULL,
	  "Go on answering postcopyctl when the session is over, until it says quit" },
	{ "verbose", KIND_FLAG, AT(verbose), true, 0, NULL, "Log every step of the session" },
};

/* Options that answer the same question. */
static const char *const exclusive[][2] = {
	{"incoming", "incoming-fd"},
	{"register-path", "register-fd"},
	{"control-path", "control-fd"},
	{"register-group", "register-fd"},
};

struct parse {
	struct options *o;
	bool given[G_N_ELEMENTS(specs)];
	char *file;
	gboolean help, version;
};

/* --- one setter per kind: write @text to @field ------------------------------------------- */

static bool set_flag(const struct spec *s, void *field, const char *text, GError **error)
{
	bool on;

	if (keyval_read_bool(text, &on) < 0)
		return options_fail(error, "'%s' is neither true nor false", text);
	*(bool *)field = on ? s->min != 0 : s->min == 0;
	return true;
}

static bool set_text(const struct spec *s, void *field, const char *text, GError **error)
{
	(void)s;
	if (*text == '\0')
		return options_fail(error, "the value is empty");
	g_free(*(char **)field);
	*(char **)field = g_strdup(text);
	return true;
}

static bool set_socket_path(const struct spec *s, void *field, const char *text, GError **error)
{
	return options_check_socket_path(text, error) && set_text(s, field, text, error);
}

static bool read_ranged(const struct spec *s, const char *text, uint64_t *v, GError **error)
{
	int r = s->kind == KIND_SIZE ? keyval_read_size(text, v) : keyval_read_number(text, v);

	if (r == -EINVAL)
		return options_fail(error, "'%s' is not a %s", text,
				    s->kind == KIND_SIZE ? "size (a number with K, M or G)"
							 : "number");
	if (r < 0 || *v < s->min || *v > s->max)
		return options_fail(
			error, "%s is not between %" G_GUINT64_FORMAT " and %" G_GUINT64_FORMAT,
			text, s->min, s->max);
	return true;
}

static bool set_fd(const struct spec *s, void *field, const char *text, GError **error)
{
	uint64_t v;

	if (!read_ranged(s, text, &v, error))
		return false;
	if (fcntl((int)v, F_GETFD) < 0)
		return options_fail(error, "%s is not an open file descriptor", text);
	*(int *)field = (int)v;
	return true;
}

static bool set_count(const struct spec *s, void *field, const char *text, GError **error)
{
	uint64_t v;

	if (!read_ranged(s, text, &v, error))
		return false;
	*(unsigned *)field = (unsigned)v;
	return true;
}

static bool set_size(const struct spec *s, void *field, const char *text, GError **error)
{
	uint64_t v;

	if (!read_ranged(s, text, &v, error))
		return false;
	*(uint64_t *)field = v;
	return true;
}

static bool add_name(const struct spec *s, void *field, const char *text, GError **error)
{
	char ***names = field;
	guint n = *names ? g_strv_length(*names) : 0;

	(void)s;
	if (*text == '\0' || strlen(text) >= REGMSG_NAME)
		return options_fail(error, "'%s' is not a sharer's name (1 to %d bytes)", text,
				    REGMSG_NAME - 1);
	if (n && g_strv_contains((const char *const *)*names, text))
		return options_fail(error, "'%s' is named twice", text);
	*names = g_renew(char *, *names, n + 2);
	(*names)[n] = g_strdup(text);
	(*names)[n + 1] = NULL;
	return true;
}

static bool set_address(const struct spec *s, void *field, const char *text, GError **error)
{
	struct options_address parsed;

	(void)s;
	if (!options_parse_address(text, &parsed, error))
		return false;
	options_clear_address(field);
	*(struct options_address *)field = parsed;
	return true;
}

static bool set_qemu(const struct spec *s, void *field, const char *text, GError **error)
{
	(void)s;
	return options_parse_qemu(text, field, error);
}

static bool set_channel(const struct spec *s, void *field, const char *text, GError **error)
{
	(void)s;
	return options_parse_channel(text, field, error);
}

static bool add_group(const struct spec *s, void *field, const char *text, GError **error)
{
	static bool (*const adders[KINDS])(GPtrArray *, const char *, GError **) = {
		[KIND_VHOST] = options_add_vhost,
		[KIND_VFIO] = options_add_vfio,
		[KIND_DMA_MAP] = options_add_dma_map,
	};

	return adders[s->kind](*(GPtrArray **)field, text, error);
}

static bool set(struct options *o, const struct spec *s, const char *text, GError **error)
{
	static bool (*const setters[])(const struct spec *, void *, const char *, GError **) = {
		[KIND_FLAG] = set_flag,
		[KIND_TEXT] = set_text,
		[KIND_PATH] = set_text,
		[KIND_SOCKET_PATH] = set_socket_path,
		[KIND_FD] = set_fd,
		[KIND_COUNT] = set_count,
		[KIND_SIZE] = set_size,
		[KIND_NAMES] = add_name,
		[KIND_ADDRESS] = set_address,
		[KIND_QEMU] = set_qemu,
		[KIND_VHOST] = add_group,
		[KIND_CHANNEL] = set_channel,
		[KIND_VFIO] = add_group,
		[KIND_DMA_MAP] = add_group,
	};
	_Static_assert(G_N_ELEMENTS(setters) == KINDS, "every kind has a setter");

	return setters[s->kind](s, (char *)o + s->at, text, error);
}

static int find_spec(const char *name)
{
	for (unsigned i = 0; i < G_N_ELEMENTS(specs); i++)
		if (!strcmp(specs[i].name, name))
			return (int)i;
	return -1;
}

/* --- the command line --------------------------------------------------------------------- */

/* GOption calls this for every option of the table; a flag has no text of its own. */
static gboolean on_option(const char *option, const char *value, gpointer data, GError **error)
{
	int i = find_spec(option + strlen("--"));
	struct parse *p = data;

	g_assert(i >= 0);
	p->given[i] = true;
	if (set(p->o, &specs[i], value ? value : "true", error))
		return TRUE;
	g_prefix_error(error, "%s: ", option);
	return FALSE;
}

/* Paths are bytes in the file system's encoding, not UTF-8. */
static void fill_entry(GOptionEntry *e, const struct spec *s)
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
		{0},
	};
	GOptionEntry entries[G_N_ELEMENTS(specs) + 1] = {0};
	GOptionContext *context = g_option_context_new(NULL);
	GOptionGroup *group = g_option_group_new(GROUP, "", "", p, NULL);

	for (unsigned i = 0; i < G_N_ELEMENTS(specs); i++)
		fill_entry(&entries[i], &specs[i]);
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
	if (args[0] && args[1]) {
		options_fail(error, "unexpected argument '%s'", args[1]);
		return OPTIONS_USAGE;
	}
	return OPTIONS_OK;
}

/* --- the file ----------------------------------------------------------------------------- */

/* A list names every value of a repeatable option; everything else is one value, ';' included. */
static char **file_values(GKeyFile *kf, const struct spec *s, GError **error)
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
	int i = find_spec(key);

	if (i < 0)
		return options_fail(error, "unknown key; keys are the long options of postcopyd");
	if (p->given[i])
		return true;
	values = file_values(kf, &specs[i], error);
	if (!values)
		return false;
	for (char **v = values; *v; v++)
		if (!set(p->o, &specs[i], *v, error))
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
	int i = find_spec(name);

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
	for (unsigned i = 0; i < G_N_ELEMENTS(specs); i++) {
		for (unsigned j = 0; j < i; j++) {
			const struct spec *a = &specs[j], *b = &specs[i];
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
		.register_fd = -1,
		.control_fd = -1,
		.incoming_fd = -1,
		.ready_fd = -1,
		.expect_timeout_s = 30,
		.prove_timeout_s = 10,
		.hook_timeout_s = 30,
		.max_package = 256ull << 20,
		.max_held = 1ull << 30,
		.max_device_state = 1ull << 30,
		.max_sharers = 32,
		.max_waiters = 16384,
		.exit_when_done = true,
	};
}

/**
 * options_parse - the command line, and the file that --config names
 * @o: filled so far in every case: options_clear() it
 * @argc, @argv: stay as they are
 *
 * Return: OPTIONS_OK; OPTIONS_EXIT_OK after --help or --version, which were printed; OPTIONS_USAGE
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
	g_clear_pointer(&o->device_state, g_free);
	g_clear_pointer(&o->register_group, g_free);
	g_clear_pointer(&o->expect, g_strfreev);
	g_clear_pointer(&o->vhost, g_ptr_array_unref);
	g_clear_pointer(&o->vfio, g_ptr_array_unref);
	g_clear_pointer(&o->dma_map, g_ptr_array_unref);
}
