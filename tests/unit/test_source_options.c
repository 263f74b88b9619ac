/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The command line of postcopy-source: what is taken, and how the rest is refused. */
#include "config.h"

#include "tools/source_options.h"

#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"

#define GOOD "--to=unix:/x", "--block=ram,size=1M"
#define PARSE(o, error, ...)                                                                       \
	parse(o, error, (char *[]){(char *)"postcopy-source", ##__VA_ARGS__, NULL})

static bool parse(struct source_options *o, GError **error, char **argv)
{
	int argc = 0;

	while (argv[argc])
		argc++;
	return source_options_parse(o, &argc, &argv, error);
}

static void refused(const char *part, char **argv)
{
	g_autoptr(GError) error = NULL;
	struct source_options o;

	cr_assert_not(parse(&o, &error, argv), "accepted; expected: %s", part);
	cr_assert(strstr(error->message, part), "'%s' does not say '%s'", error->message, part);
	source_options_deinit(&o);
}
#define REFUSED(part, ...) refused(part, (char *[]){(char *)"postcopy-source", ##__VA_ARGS__, NULL})

Test(source_options, defaults)
{
	struct source_options o;

	cr_assert(PARSE(&o, NULL, GOOD));
	cr_assert_str_eq(o.to, "unix:/x");
	cr_assert_str_eq(o.machine, "pc-q35-7.2");
	cr_assert_eq(o.n_blocks, 1);
	cr_assert_eq(o.precopy, SOURCE_PRECOPY_NONE);
	cr_assert_not(o.preempt || o.old_preempt || o.huge_interleave || o.always_name);
	cr_assert_not(o.finish_as_precopy || o.commit_ping || o.no_background || o.digest ||
		      o.json);
	cr_assert_not(o.has_linger || o.reconnect);
	cr_assert_eq(o.rate, 0);
	cr_assert_null(o.device_state);
	cr_assert_eq(o.faults.n, 0);
	source_options_deinit(&o);
}

#define UUID "--session=0bd5dcd8-47f2-4e5b-9a4c-3d1b0a6f7e21"
#define WAY  "--device-channel=unix:/c", UUID

Test(source_options, devices)
{
	struct source_options o;

	cr_assert(PARSE(&o, NULL, GOOD, "--vfio=nic0,vfio-user=/run/a,,b", "--devices-apart",
			"--vfio=id=gpu0,sysfs=/sys/x,deadline=250"));
	cr_assert_eq(o.n_vfio, 2);
	cr_assert_str_eq(o.vfio[0].id, "nic0");
	cr_assert_str_eq(o.vfio[0].socket, "/run/a,b");
	cr_assert_null(o.vfio[0].sysfs);
	cr_assert_eq(o.vfio[0].deadline_ms, 10000);
	cr_assert_str_eq(o.vfio[1].sysfs, "/sys/x");
	cr_assert_eq(o.vfio[1].deadline_ms, 250);
	cr_assert(o.devices_apart && !o.device_channel);
	source_options_deinit(&o);
	cr_assert(PARSE(&o, NULL, "--vfio=nic0,vfio-user=/a", WAY, "--hold"));
	cr_assert(source_options_devices_only(&o) && o.hold);
	cr_assert_eq(o.session[0], 0x0b);
	source_options_deinit(&o);
	REFUSED("--vfio", GOOD, "--vfio=nic0");
	REFUSED("--vfio", GOOD, "--vfio=nic0,vfio-user=/a,sysfs=/b");
	REFUSED("1 to 63 printable", GOOD, "--vfio=vfio-user=/a");
	REFUSED("that id is taken", GOOD, "--vfio=a,vfio-user=/a", "--vfio=a,vfio-user=/b");
	REFUSED("deadline", GOOD, "--vfio=a,vfio-user=/a,deadline=0");
	REFUSED("not a UUID", GOOD, "--vfio=a,vfio-user=/a", "--device-channel=unix:/c", "--session=1");
	REFUSED("--session", GOOD, "--vfio=a,vfio-user=/a", "--device-channel=unix:/c");
	REFUSED("--session", GOOD, "--vfio=a,vfio-user=/a", UUID);
	REFUSED("goes with --vfio", GOOD, WAY);
	REFUSED("tcp:HOST:PORT", "--vfio=a,vfio-user=/a", "--device-channel=/c", UUID);
	REFUSED("--hold", GOOD, "--vfio=a,vfio-user=/a", "--hold");
	REFUSED("--to", "--vfio=a,vfio-user=/a");
	REFUSED("goes with --to", "--vfio=a,vfio-user=/a", WAY, "--block=ram,size=1M");
	REFUSED("needs --device-channel", GOOD, "--vfio=a,vfio-user=/a", "--finish-as-precopy");
}

Test(source_options, every_option_arrives)
{
	struct source_options o;

	cr_assert(PARSE(&o, NULL, GOOD, "--block=b,size=2M,page=2M", "--machine=m", "--old-preempt",
			"--huge-interleave", "--continue-flag=off", "--precopy=half",
			"--commit-ping", "--device-state=4K", "--rate=3M", "--no-background",
			"--linger=7", "--seed=9", "--digest", "--json", "--fault=drop@page:3"));
	cr_assert(o.preempt && o.old_preempt && o.huge_interleave && o.always_name);
	cr_assert(o.commit_ping && o.no_background && o.digest && o.json && o.has_linger);
	cr_assert_eq(o.precopy, SOURCE_PRECOPY_HALF);
	cr_assert_eq(o.rate, 3u << 20);
	cr_assert_eq(o.linger_ms, 7);
	cr_assert_eq(o.seed, 9);
	cr_assert_eq(o.blocks[0].seed, 9);
	cr_assert_eq(o.n_blocks, 2);
	cr_assert_eq(o.faults.n, 1);
	cr_assert_str_eq(o.device_state, "4K");
	source_options_deinit(&o);
}

Test(source_options, a_pause_may_last_for_ever_or_so_many_seconds)
{
	struct source_options o;

	cr_assert(PARSE(&o, NULL, GOOD, "--reconnect", "--json"));
	cr_assert(o.reconnect && o.json && o.reconnect_ns == UINT64_MAX);
	source_options_deinit(&o);
	cr_assert(PARSE(&o, NULL, GOOD, "--reconnect=90"));
	cr_assert(o.reconnect && o.reconnect_ns == UINT64_C(90000000000));
	source_options_deinit(&o);
	cr_assert(PARSE(&o, NULL, GOOD, "--reconnect", "1000000000"));
	cr_assert_eq(o.reconnect_ns, UINT64_C(1000000000000000000));
	source_options_deinit(&o);
	REFUSED("whole seconds", GOOD, "--reconnect=0");
	REFUSED("whole seconds", GOOD, "--reconnect=1000000001");
	REFUSED("not with --finish-as-precopy", GOOD, "--reconnect", "--finish-as-precopy");
	REFUSED("--reconnect: goes with --to", "--vfio=a,vfio-user=/a", WAY, "--reconnect");
}

Test(source_options, a_seed_is_made_up_when_none_is_given)
{
	struct source_options a, b;

	cr_assert(PARSE(&a, NULL, GOOD));
	cr_assert(PARSE(&b, NULL, GOOD));
	cr_assert_neq(a.seed, b.seed);
	source_options_deinit(&a);
	source_options_deinit(&b);
}

Test(source_options, refusals_name_the_option)
{
	REFUSED("--to", "--block=ram,size=1M");
	REFUSED("--to", "--to=exec:cat", "--block=ram,size=1M");
	REFUSED("--block", "--to=unix:/x");
	REFUSED("taken", GOOD, "--block=ram,size=1M");
	REFUSED("--precopy", GOOD, "--precopy=most");
	REFUSED("--continue-flag", GOOD, "--continue-flag=maybe");
	REFUSED("--rate", GOOD, "--rate=fast");
	REFUSED("--huge-interleave", GOOD, "--huge-interleave");
	REFUSED("--finish-as-precopy", GOOD, "--finish-as-precopy", "--no-background");
	REFUSED("--machine", GOOD, "--machine=");
	REFUSED("--fault", GOOD, "--fault=implode");
	REFUSED("surplus", GOOD, "surplus");
}

Test(source_options, too_many_blocks)
{
	char *argv[SOURCE_MAX_BLOCKS + 4] = {(char *)"postcopy-source", (char *)"--to=unix:/x"};

	for (unsigned i = 0; i <= SOURCE_MAX_BLOCKS; i++)
		argv[i + 2] = g_strdup_printf("--block=b%u,size=4K", i);
	refused("too many", argv);
	for (unsigned i = 0; i <= SOURCE_MAX_BLOCKS; i++)
		g_free(argv[i + 2]);
}

/* --- blocks --------------------------------------------------------------------------------- */

static const struct {
	const char *text;
	uint64_t length, page_size, seed;
	unsigned zero;
	const char *name, *file;
} blocks[] = {
	{"ram,size=4K", 4096, 4096, 0, 0, "ram", NULL},
	{"/rom@etc/acpi,size=64k", 65536, 4096, 0, 0, "/rom@etc/acpi", NULL},
	{"a,,b,size=1M,pattern=77", 1 << 20, 4096, 77, 0, "a,b", NULL},
	{"h,size=4M,page=2M,zero=100", 4 << 20, 2 << 20, 0, 100, "h", NULL},
	{"g,size=1G,page=1G", 1 << 30, 1 << 30, 0, 0, "g", NULL},
	{"f,size=1M,file=/a=b", 1 << 20, 4096, 0, 0, "f", "/a=b"},
	{"t,size=256T", UINT64_C(1) << 48, 4096, 0, 0, "t", NULL},
};

Test(source_options, blocks)
{
	for (size_t i = 0; i < ARRAY_LEN(blocks); i++) {
		struct source_block_spec spec = {.page_size = 4096};
		char why[256];

		cr_assert_eq(source_options_block(&spec, blocks[i].text, why), 0, "%s: %s",
			     blocks[i].text, why);
		cr_assert_str_eq(spec.name, blocks[i].name);
		cr_assert_eq(spec.length, blocks[i].length);
		cr_assert_eq(spec.page_size, blocks[i].page_size);
		cr_assert_eq(spec.seed, blocks[i].seed);
		cr_assert_eq(spec.zero_percent, blocks[i].zero);
		cr_assert_eq(!!spec.file, !!blocks[i].file);
		if (spec.file)
			cr_assert_str_eq(spec.file, blocks[i].file);
		free(spec.file);
	}
}

static const struct {
	const char *text, *part;
} bad_blocks[] = {
	{"", "name"},
	{"ram", "size"},
	{"size=4K", "name"},
	{"ram,size=0", "size"},
	{"ram,size=6K", "multiple"},
	{"h,size=3M,page=2M", "multiple"},
	{"ram,size=4K,page=8K", "page is"},
	{"ram,size=4K,page=2G", "page"},
	{"ram,size=4K,zero=101", "zero"},
	{"ram,size=4K,file=/x,zero=1", "zero"},
	{"ram,size=4K,colour=red", "colour"},
	{"ram,size=512T", "size"},
	{"ram,size=4K,size=4K", "size"},
	{"ra\nm,size=4K", "name"},
	{"ram,size=4K,pattern=-1", "pattern"},
};

Test(source_options, bad_blocks)
{
	for (size_t i = 0; i < ARRAY_LEN(bad_blocks); i++) {
		struct source_block_spec spec = {.page_size = 4096};
		char why[256] = "";

		cr_assert_lt(source_options_block(&spec, bad_blocks[i].text, why), 0, "%s",
			     bad_blocks[i].text);
		cr_assert(strstr(why, bad_blocks[i].part), "%s: %s", bad_blocks[i].text, why);
		free(spec.file);
	}
}

Test(source_options, names_of_every_length)
{
	struct source_block_spec spec = {.page_size = 4096};
	char text[300], why[256];

	memset(text, 'n', sizeof(text));
	strcpy(text + 255, ",size=4K");
	cr_assert_eq(source_options_block(&spec, text, why), 0, "%s", why);
	memset(text, 'n', 256);
	strcpy(text + 256, ",size=4K");
	spec = (struct source_block_spec){.page_size = 4096};
	cr_assert_lt(source_options_block(&spec, text, why), 0);
}

/* --- help ----------------------------------------------------------------------------------- */

Test(source_options, fault_help_needs_nothing_else_and_names_everything)
{
	const struct source_fault_kind *kinds;
	struct source_options o;
	g_autofree char *help = source_options_fault_help();
	const char *const *records;
	unsigned n;

	cr_assert(PARSE(&o, NULL, "--fault=help"));
	cr_assert(o.list_faults);
	kinds = source_fault_kinds(&n);
	for (unsigned i = 0; i < n; i++)
		cr_assert(strstr(help, kinds[i].name), "%s", kinds[i].name);
	records = source_fault_records(&n);
	for (unsigned i = 0; i < n; i++)
		cr_assert(strstr(help, records[i]), "%s", records[i]);
	source_options_deinit(&o);
}
