// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * GOption splits, keyval parses, and what belongs together is checked at the end; whatever is wrong
 * is said with the option and the value it was given.  Random content has a seed even when none was
 * asked for, so that a run can be repeated.
 */
#include "config.h"

#include "source_options.h"

#include <errno.h>
#include <string.h>

#include "core/guard.h"
#include "wire/keyval.h"

#define SECOND	    1000000000u /* ns */
#define LONGEST_WAIT 1000000000u /* s */

/* What GOption fills in; strings are moved on or freed when the checks are through. */
struct raw_options {
	char *to, *machine, *precopy, *device_state, *rate, *continue_flag;
	char *device_channel, *session;
	char **blocks, **faults, **vfio;
	gint64 linger, seed;
	gboolean preempt, old_preempt, huge_interleave, finish_as_precopy, commit_ping;
	gboolean no_background, digest, json, version, devices_apart, hold;
	bool reconnect;
	uint64_t reconnect_s; /* 0: for ever */
};

static void raw_clear(struct raw_options *raw)
{
	g_free(raw->to);
	g_free(raw->machine);
	g_free(raw->precopy);
	g_free(raw->device_state);
	g_free(raw->rate);
	g_free(raw->continue_flag);
	g_free(raw->device_channel);
	g_free(raw->session);
	g_strfreev(raw->vfio);
	g_strfreev(raw->blocks);
	g_strfreev(raw->faults);
}
#define cleanup_raw __attribute__((cleanup(raw_clear)))

/* --- one block ------------------------------------------------------------------------------ */

static bool good_name(const char *name)
{
	const char *at = name;

	while (g_ascii_isprint(*at))
		at++;
	return at > name && !*at;
}

static int check_block(const struct source_block_spec *spec, const char **why)
{
	*why = "the name is 1 to 255 printable ASCII characters";
	if (!good_name(spec->name))
		return -EINVAL;
	*why = "page is 4096 (4K), 2M or 1G";
	if (spec->page_size != 4096 && spec->page_size != UINT64_C(1) << 21 &&
	    spec->page_size != UINT64_C(1) << 30)
		return -EINVAL;
	*why = "size is missing or no multiple of the page size";
	if (!spec->length || spec->length % spec->page_size)
		return -EINVAL;
	*why = "zero goes with a pattern, not with a file";
	return spec->file && spec->zero_percent ? -EINVAL : 0;
}

static int read_block(struct source_block_spec *spec, struct keyval *kv)
{
	const char *name = keyval_get(kv, "name"), *file = keyval_get(kv, "file");
	uint64_t percent = 0;

	if (keyval_size(kv, "size", 4096, UINT64_C(1) << 48, &spec->length) < 0 ||
	    keyval_size(kv, "page", 4096, UINT64_C(1) << 30, &spec->page_size) < 0 ||
	    keyval_number(kv, "pattern", 0, UINT64_MAX, &spec->seed) < 0 ||
	    keyval_number(kv, "zero", 0, 100, &percent) < 0)
		return -EINVAL;
	spec->zero_percent = (unsigned)percent;
	if (name && strlen(name) < sizeof(spec->name))
		strcpy(spec->name, name);
	if (file)
		spec->file = strdup(file);
	return file && !spec->file ? -ENOMEM : 0;
}

/**
 * source_options_block - one --block argument onto the defaults
 * @spec: its file is the caller's to free, after a failure too
 * @why: what is wrong
 *
 * Return: 0 or -errno.
 */
int source_options_block(struct source_block_spec *spec, const char *text, char why[256])
{
	static const char *const known[] = {"name",    "size", "page", "file",
					    "pattern", "zero", NULL};
	struct keyval kv cleanup_keyval;
	const char *problem;
	int r = keyval_parse(&kv, text, known, "name");

	if (r == 0)
		r = read_block(spec, &kv);
	g_strlcpy(why, kv.error, 256);
	if (r < 0)
		return r;
	r = check_block(spec, &problem);
	g_strlcpy(why, problem, 256);
	return r;
}

/* --- the rest ------------------------------------------------------------------------------- */

static bool refuse(GError **error, const char *option, const char *value, const char *why)
{
	g_set_error(error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE, "%s%s%s: %s", option,
		    value ? " " : "", value ? value : "", why);
	return false;
}

static bool name_taken(const struct source_options *o, const char *name)
{
	for (unsigned i = 0; i < o->n_blocks; i++)
		if (strcmp(o->blocks[i].name, name) == 0)
			return true;
	return false;
}

static bool take_blocks(struct source_options *o, const struct raw_options *raw, GError **error)
{
	char why[256];

	if (source_options_devices_only(o))
		return !raw->blocks || refuse(error, "--block", NULL, "goes with --to");
	if (!raw->blocks)
		return refuse(error, "--block", NULL, "at least one is needed");
	for (char **text = raw->blocks; *text; text++) {
		struct source_block_spec *spec = &o->blocks[o->n_blocks];

		if (o->n_blocks == SOURCE_MAX_BLOCKS)
			return refuse(error, "--block", *text, "too many blocks");
		*spec = (struct source_block_spec){.page_size = 4096, .seed = o->seed};
		if (source_options_block(spec, *text, why) < 0) {
			free(steal_ptr(&spec->file));
			return refuse(error, "--block", *text, why);
		}
		if (name_taken(o, spec->name)) {
			free(steal_ptr(&spec->file));
			return refuse(error, "--block", *text, "that name is taken");
		}
		o->n_blocks++;
	}
	return true;
}

static bool id_taken(const struct source_options *o, const char *id)
{
	for (unsigned i = 0; i < o->n_vfio; i++)
		if (strcmp(o->vfio[i].id, id) == 0)
			return true;
	return false;
}

static bool take_devices(struct source_options *o, const struct raw_options *raw, GError **error)
{
	char why[256];

	for (char **text = raw->vfio; text && *text; text++) {
		struct source_vfio_spec *spec = &o->vfio[o->n_vfio];
		bool taken;

		if (o->n_vfio == SOURCE_MAX_VFIO)
			return refuse(error, "--vfio", *text, "too many devices");
		if (source_options_vfio(spec, *text, why) < 0) {
			source_options_vfio_deinit(spec);
			return refuse(error, "--vfio", *text, why);
		}
		taken = id_taken(o, spec->id);
		o->n_vfio++;
		if (taken)
			return refuse(error, "--vfio", *text, "that id is taken");
	}
	if (raw->session && devstate_session(raw->session, o->session) < 0)
		return refuse(error, "--session", raw->session, "not a UUID");
	return true;
}

static bool take_faults(struct source_options *o, const struct raw_options *raw, GError **error)
{
	const char *why;

	for (char **text = raw->faults; text && *text; text++) {
		if (strcmp(*text, "help") == 0) {
			o->list_faults = true;
			return true;
		}
		if (source_faults_add(&o->faults, *text, &why) < 0)
			return refuse(error, "--fault", *text, why);
	}
	return true;
}

/* Index of @text in the NULL-terminated @words, -1 when it is none of them; 0 for NULL. */
static int choose(const char *text, const char *const *words)
{
	for (int i = 0; words[i]; i++)
		if (!text || strcmp(text, words[i]) == 0)
			return i;
	return -1;
}

static bool take_choices(struct source_options *o, const struct raw_options *raw, GError **error)
{
	static const char *const precopy[] = {"none", "half", "all", NULL};
	static const char *const on_off[] = {"on", "off", NULL};
	int share = choose(raw->precopy, precopy), named = choose(raw->continue_flag, on_off);

	if (share < 0)
		return refuse(error, "--precopy", raw->precopy, "none, half or all");
	if (named < 0)
		return refuse(error, "--continue-flag", raw->continue_flag, "on or off");
	if (raw->rate && keyval_read_size(raw->rate, &o->rate) < 0)
		return refuse(error, "--rate", raw->rate, "bytes per second, with K, M or G");
	o->precopy = (enum source_precopy)share;
	o->always_name = named == 1;
	o->has_linger = raw->linger >= 0;
	o->linger_ms = raw->linger >= 0 ? (uint64_t)raw->linger : 0;
	return true;
}

static void take_flags(struct source_options *o, struct raw_options *raw)
{
	o->preempt = raw->preempt || raw->old_preempt;
	o->old_preempt = raw->old_preempt;
	o->huge_interleave = raw->huge_interleave;
	o->finish_as_precopy = raw->finish_as_precopy;
	o->commit_ping = raw->commit_ping;
	o->no_background = raw->no_background;
	o->digest = raw->digest;
	o->json = raw->json;
	o->devices_apart = raw->devices_apart;
	o->hold = raw->hold;
	o->reconnect = raw->reconnect;
	o->reconnect_ns = raw->reconnect_s ? raw->reconnect_s * SECOND : UINT64_MAX;
	o->device_channel = steal_ptr(&raw->device_channel);
	o->to = steal_ptr(&raw->to);
	o->device_state = steal_ptr(&raw->device_state);
	o->machine = raw->machine ? steal_ptr(&raw->machine) : g_strdup("pc-q35-7.2");
}

static bool is_address(const char *text)
{
	return g_str_has_prefix(text, "tcp:") || g_str_has_prefix(text, "unix:");
}

static bool check_devices(const struct source_options *o, const struct raw_options *raw,
			  GError **error)
{
	if (o->device_channel && !is_address(o->device_channel))
		return refuse(error, "--device-channel", o->device_channel,
			      "tcp:HOST:PORT or unix:PATH");
	if (o->device_channel && !o->n_vfio)
		return refuse(error, "--device-channel", NULL, "goes with --vfio");
	if (!o->device_channel != !raw->session)
		return refuse(error, "--session", NULL, "goes with --device-channel, and it with this");
	if (o->hold && !source_options_devices_only(o))
		return refuse(error, "--hold", NULL, "goes with devices only, without --to");
	if (o->finish_as_precopy && o->n_vfio && !o->device_channel)
		return refuse(error, "--finish-as-precopy", NULL,
			      "has no package: --vfio needs --device-channel");
	return true;
}

static bool check_reconnect(const struct source_options *o, GError **error)
{
	if (!o->reconnect)
		return true;
	if (source_options_devices_only(o))
		return refuse(error, "--reconnect", NULL, "goes with --to");
	return !o->finish_as_precopy || refuse(error, "--reconnect", NULL,
					       "goes with postcopy, not with --finish-as-precopy");
}

static bool check_whole(const struct source_options *o, GError **error)
{
	if (source_options_devices_only(o))
		return o->device_channel ||
		       refuse(error, "--to", NULL, "missing: tcp:HOST:PORT or unix:PATH");
	if (!is_address(o->to))
		return refuse(error, "--to", o->to, "tcp:HOST:PORT or unix:PATH");
	if (strlen(o->machine) == 0 || strlen(o->machine) > 255)
		return refuse(error, "--machine", o->machine, "1 to 255 bytes");
	if (o->huge_interleave && !o->preempt)
		return refuse(error, "--huge-interleave", NULL, "goes with --preempt");
	if (o->finish_as_precopy && (o->commit_ping || o->no_background))
		return refuse(error, "--finish-as-precopy", NULL,
			      "goes with neither --commit-ping nor --no-background");
	return true;
}

/* First what needs nothing else: --version and "--fault help". */
static bool take_all(struct source_options *o, struct raw_options *raw, GError **error)
{
	o->version = raw->version;
	if (o->version)
		return true;
	o->seed = raw->seed >= 0 ? (uint64_t)raw->seed
				 : (uint64_t)g_random_int() << 31 ^ g_random_int();
	if (!take_faults(o, raw, error))
		return false;
	if (o->list_faults)
		return true;
	if (!take_choices(o, raw, error))
		return false;
	take_flags(o, raw);
	return take_devices(o, raw, error) && check_devices(o, raw, error) &&
	       check_reconnect(o, error) && check_whole(o, error) && take_blocks(o, raw, error);
}

static const char summary[] =
	"Plays the source of a QEMU postcopy migration, against any destination.\n"
	"Exit status: 0 migrated and no rule broken, 1 not so, 2 usage.";

/* --reconnect or --reconnect=SECONDS */
static gboolean on_reconnect(const char *name, const char *value, void *data, GError **error)
{
	struct raw_options *raw = data;

	raw->reconnect = true;
	raw->reconnect_s = 0;
	if (!value)
		return TRUE;
	if (keyval_read_number(value, &raw->reconnect_s) == 0 && raw->reconnect_s > 0 &&
	    raw->reconnect_s <= LONGEST_WAIT)
		return TRUE;
	return refuse(error, name, value, "whole seconds, at least 1");
}

static gboolean parse_raw(struct raw_options *raw, int *argc, char ***argv, GError **error)
{
	const GOptionEntry entries[] = {
		{"to", 0, 0, G_OPTION_ARG_STRING, &raw->to, "destination",
		 "tcp:HOST:PORT|unix:PATH"},
		{"block", 0, 0, G_OPTION_ARG_STRING_ARRAY, &raw->blocks, "a block of RAM",
		 "NAME,size=SIZE[,page=4096|2M|1G][,file=PATH][,pattern=SEED][,zero=PERCENT]"},
		{"machine", 0, 0, G_OPTION_ARG_STRING, &raw->machine, "machine name", "NAME"},
		{"preempt", 0, 0, G_OPTION_ARG_NONE, &raw->preempt,
		 "answer requests on a second connection", NULL},
		{"old-preempt", 0, 0, G_OPTION_ARG_NONE, &raw->old_preempt,
		 "the same as QEMU 7.2: opened at once, ended by EOS", NULL},
		{"huge-interleave", 0, 0, G_OPTION_ARG_NONE, &raw->huge_interleave,
		 "a request may interrupt a large page on main (QEMU 7.2)", NULL},
		{"continue-flag", 0, 0, G_OPTION_ARG_STRING, &raw->continue_flag,
		 "leave the block's name out where it repeats (on)", "on|off"},
		{"precopy", 0, 0, G_OPTION_ARG_STRING, &raw->precopy,
		 "share of pages sent before the switch-over (none)", "none|half|all"},
		{"finish-as-precopy", 0, 0, G_OPTION_ARG_NONE, &raw->finish_as_precopy,
		 "send everything and naked device state, never switch over", NULL},
		{"commit-ping", 0, 0, G_OPTION_ARG_NONE, &raw->commit_ping,
		 "PING 0x42 and SWITCHOVER_START, as QEMU 10.2", NULL},
		{"device-state", 0, 0, G_OPTION_ARG_STRING, &raw->device_state,
		 "device sections from a file, or one made up of that size", "FILE|SIZE"},
		{"vfio", 0, 0, G_OPTION_ARG_STRING_ARRAY, &raw->vfio,
		 "a device whose state is sent, too", "ID,vfio-user=PATH|sysfs=PATH[,deadline=MS]"},
		{"device-channel", 0, 0, G_OPTION_ARG_STRING, &raw->device_channel,
		 "where the state of devices goes (into the package)", "tcp:HOST:PORT|unix:PATH"},
		{"session", 0, 0, G_OPTION_ARG_STRING, &raw->session, "of that connection", "UUID"},
		{"devices-apart", 0, 0, G_OPTION_ARG_NONE, &raw->devices_apart,
		 "no device can address another one", NULL},
		{"hold", 0, 0, G_OPTION_ARG_NONE, &raw->hold,
		 "devices only: SIGUSR1 hands them over, SIGTERM lets them run again", NULL},
		{"rate", 0, 0, G_OPTION_ARG_STRING, &raw->rate, "background, bytes per second",
		 "BYTES"},
		{"no-background", 0, 0, G_OPTION_ARG_NONE, &raw->no_background,
		 "send only what is asked for", NULL},
		{"reconnect", 0, G_OPTION_FLAG_OPTIONAL_ARG, G_OPTION_ARG_CALLBACK, on_reconnect,
		 "connect again when the connection is lost in postcopy (for ever)", "SECONDS"},
		{"linger", 0, 0, G_OPTION_ARG_INT64, &raw->linger,
		 "time before the end; with --no-background: without a request before the rest",
		 "MS"},
		{"seed", 0, 0, G_OPTION_ARG_INT64, &raw->seed, "of the content (random)", "N"},
		{"digest", 0, 0, G_OPTION_ARG_NONE, &raw->digest, "print XXH3-128 of every block",
		 NULL},
		{"fault", 0, 0, G_OPTION_ARG_STRING_ARRAY, &raw->faults,
		 "do something wrong; \"help\" lists what", "KIND[=ARG][@POINT][,trigger=FILE]"},
		{"json", 0, 0, G_OPTION_ARG_NONE, &raw->json, "summary as one line of JSON", NULL},
		{"version", 0, 0, G_OPTION_ARG_NONE, &raw->version, "version and what is built in",
		 NULL},
		G_OPTION_ENTRY_NULL};
	g_autoptr(GOptionContext) context = g_option_context_new(NULL);
	GOptionGroup *group = g_option_group_new(NULL, NULL, NULL, raw, NULL);

	g_option_context_set_summary(context, summary);
	g_option_group_add_entries(group, entries);
	g_option_context_set_main_group(context, group); /* which owns it */
	return g_option_context_parse(context, argc, argv, error);
}

/**
 * source_options_parse - the whole command line
 * @argc, @argv: options are taken out
 *
 * Return: false with @error on a usage error; source_options_deinit() after either.
 */
bool source_options_parse(struct source_options *o, int *argc, char ***argv, GError **error)
{
	cleanup_raw struct raw_options raw = {.linger = -1, .seed = -1};

	memset(o, 0, sizeof(*o));
	if (!parse_raw(&raw, argc, argv, error))
		return false;
	if (*argc > 1)
		return refuse(error, (*argv)[1], NULL, "no such argument (see --help)");
	return take_all(o, &raw, error);
}

void source_options_deinit(struct source_options *o)
{
	g_clear_pointer(&o->to, g_free);
	g_clear_pointer(&o->machine, g_free);
	g_clear_pointer(&o->device_state, g_free);
	g_clear_pointer(&o->device_channel, g_free);
	for (unsigned i = 0; i < o->n_vfio; i++)
		source_options_vfio_deinit(&o->vfio[i]);
	for (unsigned i = 0; i < o->n_blocks; i++)
		free(steal_ptr(&o->blocks[i].file));
	source_faults_deinit(&o->faults);
}

/* --- --fault help --------------------------------------------------------------------------- */

static void describe(GString *text, const struct source_fault_kind *kind)
{
	g_autofree char *name = g_strconcat(kind->name, kind->takes_arg ? "=ARG" : "", NULL);

	g_string_append_printf(text, "  %-20s %s", name, kind->help);
	if (kind->where)
		g_string_append_printf(text, " (%s%s)", kind->points ? "default @" : "@",
				       kind->where);
	g_string_append_c(text, '\n');
}

/**
 * source_options_fault_help - the text of --fault help, to be g_free()d
 */
char *source_options_fault_help(void)
{
	GString *text = g_string_new("--fault KIND[=ARG][@POINT][,trigger=FILE]\n\nkinds:\n");
	const struct source_fault_kind *kinds;
	const char *const *records;
	unsigned n;

	kinds = source_fault_kinds(&n);
	for (unsigned i = 0; i < n; i++)
		describe(text, &kinds[i]);
	g_string_append(
		text,
		"\npoints:\n"
		"  page:N               the Nth page (from 0) that leaves after the switch-over\n"
		"  page:BLOCK/N         page N of that block, in the same phase\n"
		"  byte:N               position on the main connection\n"
		"  channel:N            position on the device channel\n"
		"  record:NAME          one of:");
	records = source_fault_records(&n);
	for (unsigned i = 0; i < n; i++)
		g_string_append_printf(text, " %s", records[i]);
	g_string_append(text, "\n\nWith a trigger, a fault strikes only once that file exists.\n");
	return g_string_free(text, FALSE);
}
