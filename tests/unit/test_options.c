/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The daemon's options: defaults, every kind of value, the file, who wins, and what every refusal
 * says. */
#include "config.h"
#include "daemon/options.h"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include "wire/regmsg.h"

#define MANDATORY	     "--incoming=tcp::4444", "--run-dir=/run/p"
#define PARSE(o, error, ...) parse(o, error, (char *[]){(char *)"postcopyd", ##__VA_ARGS__, NULL})

static enum options_result parse(struct options *o, GError **error, char **argv)
{
	int argc = 0;

	while (argv[argc])
		argc++;
	return options_parse(o, argc, argv, error);
}

static void expect_usage(const char *part, char **argv)
{
	g_autoptr(GError) error = NULL;
	struct options o;

	cr_assert_eq(parse(&o, &error, argv), OPTIONS_USAGE, "accepted; expected: %s", part);
	cr_assert_not_null(error);
	cr_assert(strstr(error->message, part), "expected '%s', got '%s'", part, error->message);
	options_clear(&o);
	options_clear(&o);
}
#define EXPECT_USAGE(part, ...)                                                                    \
	expect_usage(part, (char *[]){(char *)"postcopyd", ##__VA_ARGS__, NULL})

static char *write_file(const char *text)
{
	char *path = NULL;
	int fd = g_file_open_tmp("test-options-XXXXXX", &path, NULL);

	cr_assert_geq(fd, 0);
	close(fd);
	cr_assert(g_file_set_contents(path, text, -1, NULL));
	return path;
}

static enum options_result parse_with_file(struct options *o, const char *text, const char *extra,
					   GError **error)
{
	g_autofree char *path = write_file(text);
	enum options_result r = PARSE(o, error, "--config", path, (char *)extra);

	unlink(path);
	return r;
}

static void expect_bad_file(const char *text, const char *part)
{
	g_autoptr(GError) error = NULL;
	struct options o;

	cr_assert_eq(parse_with_file(&o, text, NULL, &error), OPTIONS_USAGE, "accepted:\n%s", text);
	cr_assert(strstr(error->message, part), "expected '%s', got '%s'", part, error->message);
	cr_assert(strstr(error->message, "test-options-"), "names the file: %s", error->message);
	options_clear(&o);
}

Test(options, defaults)
{
	g_autoptr(GError) error = NULL;
	struct options o;

	cr_assert_eq(PARSE(&o, &error, MANDATORY), OPTIONS_OK, "%s", error ? error->message : "");
	cr_assert_eq(o.incoming.transport, OPTIONS_TCP);
	cr_assert_str_eq(o.incoming.host, "");
	cr_assert_str_eq(o.incoming.port, "4444");
	cr_assert_str_eq(o.register_path, "/run/p/register");
	cr_assert_str_eq(o.control_path, "/run/p/control");
	cr_assert_eq(o.register_fd, -1);
	cr_assert_eq(o.control_fd, -1);
	cr_assert_eq(o.incoming_fd, -1);
	cr_assert_eq(o.ready_fd, -1);
	cr_assert_not_null(o.expect);
	cr_assert_null(o.expect[0]);
	cr_assert_eq(o.expect_timeout_s, 30);
	cr_assert_eq(o.prove_timeout_s, 10);
	cr_assert_eq(o.load_timeout_s, 0);
	cr_assert_eq(o.max_package, 256ull << 20);
	cr_assert_eq(o.max_held, 1ull << 30);
	cr_assert_eq(o.max_sharers, 32);
	cr_assert_eq(o.max_waiters, 16384);
	cr_assert_null(o.device_state);
	cr_assert_null(o.register_group);
	cr_assert(o.exit_when_done);
	cr_assert_not(o.switchover_ack);
	cr_assert_not(o.verbose);
	options_clear(&o);
}

Test(options, command_line)
{
	g_autoptr(GError) error = NULL;
	struct options o;

	cr_assert_eq(PARSE(&o, &error, "--incoming", "unix:/tmp/in", "--run-dir", "/run/p",
			   "--register-path", "/r", "--control-path", "/c", "--expect", "vmm",
			   "--expect=net", "--expect-timeout", "0", "--prove-timeout=8",
			   "--load-timeout=9", "--device-state", "/tmp/state", "--spin-us", "50",
			   "--max-package", "1G", "--max-sharers", "64", "--max-waiters", "1",
			   "--register-group", "kvm", "--switchover-ack", "--stay", "--verbose",
			   "--ready-fd", "0"),
		     OPTIONS_OK, "%s", error ? error->message : "");
	cr_assert_eq(o.incoming.transport, OPTIONS_UNIX);
	cr_assert_str_eq(o.incoming.path, "/tmp/in");
	cr_assert_str_eq(o.register_path, "/r");
	cr_assert_str_eq(o.control_path, "/c");
	cr_assert_eq(g_strv_length(o.expect), 2);
	cr_assert_str_eq(o.expect[0], "vmm");
	cr_assert_str_eq(o.expect[1], "net");
	cr_assert_eq(o.expect_timeout_s, 0);
	cr_assert_eq(o.prove_timeout_s, 8);
	cr_assert_eq(o.load_timeout_s, 9);
	cr_assert_str_eq(o.device_state, "/tmp/state");
	cr_assert_eq(o.spin_us, 50);
	cr_assert_eq(o.max_package, 1ull << 30);
	cr_assert_eq(o.max_sharers, 64);
	cr_assert_eq(o.max_waiters, 1);
	cr_assert_str_eq(o.register_group, "kvm");
	cr_assert_eq(o.ready_fd, 0, "descriptor 0 is valid");
	cr_assert(o.switchover_ack && o.verbose && !o.exit_when_done);
	options_clear(&o);
}

Test(options, last_of_a_repeated_option_wins)
{
	struct options o;

	cr_assert_eq(PARSE(&o, NULL, MANDATORY, "--spin-us=1", "--spin-us=2", "--incoming=tcp:h:1"),
		     OPTIONS_OK);
	cr_assert_eq(o.spin_us, 2);
	cr_assert_str_eq(o.incoming.host, "h");
	options_clear(&o);
}

Test(options, sockets_passed_in)
{
	struct options o;
	int a = dup(0), b = dup(0), c = dup(0);
	g_autofree char *in = g_strdup_printf("--incoming-fd=%d", a);
	g_autofree char *reg = g_strdup_printf("--register-fd=%d", b);
	g_autofree char *control = g_strdup_printf("--control-fd=%d", c);

	cr_assert_eq(PARSE(&o, NULL, "--run-dir=/run/p", in, reg, control), OPTIONS_OK);
	cr_assert_eq(o.incoming_fd, a);
	cr_assert_eq(o.register_fd, b);
	cr_assert_eq(o.control_fd, c);
	cr_assert_null(o.register_path);
	cr_assert_null(o.control_path);
	options_clear(&o);
}

Test(options, addresses)
{
	static const struct {
		const char *text, *host, *port;
	} rows[] = {
		{"tcp:example.org:4444", "example.org", "4444"},
		{"tcp:[::1]:0", "::1", "0"},
		{"tcp:[fe80::1%eth0]:65535", "fe80::1%eth0", "65535"},
		{"tcp::1", "", "1"},
	};
	static const char *const bad[] = {
		"",
		"tcp",
		"tcp:",
		"tcp:host",
		"tcp:host:",
		"tcp:host:65536",
		"tcp:host:-1",
		"tcp:host:0x10",
		"tcp:host:http",
		"tcp:::1:4444",
		"tcp:[::1]",
		"tcp:[::1]4444",
		"tcp:[]:4444",
		"tcp:[::1:4444",
		"unix:",
		"TCP:host:1",
		"vsock:1:2",
	};

	for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
		struct options o = {0};

		cr_assert(options_parse_address(rows[i].text, &o.incoming, NULL), "%s",
			  rows[i].text);
		cr_assert_eq(o.incoming.transport, OPTIONS_TCP);
		cr_assert_str_eq(o.incoming.host, rows[i].host);
		cr_assert_str_eq(o.incoming.port, rows[i].port);
		options_clear(&o);
	}
	for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
		g_autoptr(GError) error = NULL;
		struct options_address a;

		cr_assert_not(options_parse_address(bad[i], &a, &error), "%s", bad[i]);
		cr_assert_not_null(error);
	}
}

Test(options, socket_path_length)
{
	g_autofree char *longest = g_strnfill(107, 'x'), *longer = g_strnfill(108, 'x');
	g_autofree char *fits = g_strconcat("--control-path=", longest, NULL);
	g_autofree char *too_long = g_strconcat("--control-path=", longer, NULL);
	g_autofree char *dir = g_strconcat("--run-dir=/", longest, NULL);
	struct options o;

	cr_assert_eq(PARSE(&o, NULL, MANDATORY, fits), OPTIONS_OK);
	options_clear(&o);
	EXPECT_USAGE("--control-path: '", MANDATORY, too_long);
	EXPECT_USAGE("--run-dir: '", "--incoming=tcp::1", dir);
}

Test(options, refusals_name_the_option)
{
	EXPECT_USAGE("--incoming is missing", "--run-dir=/r");
	EXPECT_USAGE("--run-dir is missing", "--incoming=tcp::1");
	EXPECT_USAGE("--run-dir: the value is empty", "--incoming=tcp::1", "--run-dir=");
	EXPECT_USAGE("--incoming: 'x' begins with neither", "--incoming=x");
	EXPECT_USAGE("--spin-us: 'x' is not a number", MANDATORY, "--spin-us=x");
	EXPECT_USAGE("--spin-us: 1000001 is not between 0 and 1000000", MANDATORY,
		     "--spin-us=1000001");
	EXPECT_USAGE("--max-sharers: 0 is not between 1 and 64", MANDATORY, "--max-sharers=0");
	EXPECT_USAGE("--max-sharers: 65 is not between 1 and 64", MANDATORY, "--max-sharers=65");
	EXPECT_USAGE("--max-package: '1X' is not a size", MANDATORY, "--max-package=1X");
	EXPECT_USAGE("--max-held: 2048G is not between", MANDATORY, "--max-held=2048G");
	EXPECT_USAGE("--max-package: 4G is not between", MANDATORY, "--max-package=4G");
	EXPECT_USAGE("--expect: 'a' is named twice", MANDATORY, "--expect=a", "--expect=a");
	EXPECT_USAGE("--expect: '' is not a sharer's name", MANDATORY, "--expect=");
	EXPECT_USAGE("--ready-fd: 999 is not an open file descriptor", MANDATORY, "--ready-fd=999");
	EXPECT_USAGE("--frobnicate", MANDATORY, "--frobnicate");
	EXPECT_USAGE("unexpected argument 'extra'", MANDATORY, "extra");
	EXPECT_USAGE("cannot-exist", MANDATORY, "--config=/nonexistent/cannot-exist");
}

Test(options, what_excludes_each_other)
{
	EXPECT_USAGE("--incoming and --incoming-fd exclude each other", MANDATORY,
		     "--incoming-fd=0");
	EXPECT_USAGE("--register-path and --register-fd", MANDATORY, "--register-fd=0",
		     "--register-path=/r");
	EXPECT_USAGE("--control-path and --control-fd", MANDATORY, "--control-fd=0",
		     "--control-path=/r");
	EXPECT_USAGE("--register-group and --register-fd", MANDATORY, "--register-fd=0",
		     "--register-group=g");
	EXPECT_USAGE("--register-fd and --control-fd name the same", MANDATORY, "--register-fd=0",
		     "--control-fd=0");
	EXPECT_USAGE("--control-fd and --ready-fd name the same", MANDATORY, "--control-fd=1",
		     "--ready-fd=1");
	EXPECT_USAGE("are the same: /s", MANDATORY, "--register-path=/s", "--control-path=/s");
	EXPECT_USAGE("--expect names 2 sharers but --max-sharers is 1", MANDATORY, "--expect=a",
		     "--expect=b", "--max-sharers=1");
}

Test(options, everything_can_stand_in_a_file)
{
	g_autoptr(GError) error = NULL;
	struct options o;

	cr_assert_eq(
		parse_with_file(
			&o,
			"# comment\n[postcopyd]\nincoming=tcp:[::1]:4444\nrun-dir=/run/p;q\n"
			"expect=vmm;net backend;\nexpect-timeout=5\nprove-timeout=11\nload-timeout=6\nspin-us=7\n"
			"max-package=8M\nmax-sharers=9\nmax-waiters=10\nregister-group=kvm\n"
			"switchover-ack=true\nstay=true\nverbose=false\ndevice-state=/tmp/d\n"
			"register-path=/r\ncontrol-path=/c\nready-fd=0\n",
			NULL, &error),
		OPTIONS_OK, "%s", error ? error->message : "");
	cr_assert_str_eq(o.incoming.host, "::1");
	cr_assert_str_eq(o.run_dir, "/run/p;q", "only repeatable options are lists");
	cr_assert_eq(g_strv_length(o.expect), 2);
	cr_assert_str_eq(o.expect[1], "net backend");
	cr_assert_eq(o.expect_timeout_s, 5);
	cr_assert_eq(o.prove_timeout_s, 11);
	cr_assert_eq(o.load_timeout_s, 6);
	cr_assert_eq(o.spin_us, 7);
	cr_assert_eq(o.max_package, 8ull << 20);
	cr_assert_eq(o.max_sharers, 9);
	cr_assert_eq(o.max_waiters, 10);
	cr_assert_str_eq(o.register_group, "kvm");
	cr_assert_str_eq(o.device_state, "/tmp/d");
	cr_assert_str_eq(o.register_path, "/r");
	cr_assert_str_eq(o.control_path, "/c");
	cr_assert_eq(o.ready_fd, 0);
	cr_assert(o.switchover_ack && !o.exit_when_done && !o.verbose);
	options_clear(&o);
}

#define FILE_BASE "[postcopyd]\nincoming=tcp::1\nrun-dir=/r\n"

Test(options, the_command_line_wins)
{
	struct options o;

	cr_assert_eq(parse_with_file(&o, FILE_BASE "spin-us=1\nexpect=a;b\n", "--spin-us=2", NULL),
		     OPTIONS_OK);
	cr_assert_eq(o.spin_us, 2);
	cr_assert_eq(g_strv_length(o.expect), 2);
	options_clear(&o);
	cr_assert_eq(parse_with_file(&o, FILE_BASE "spin-us=1\nexpect=a;b\n", "--expect=c", NULL),
		     OPTIONS_OK);
	cr_assert_eq(o.spin_us, 1);
	cr_assert_eq(g_strv_length(o.expect), 1, "a list replaces the file's list");
	cr_assert_str_eq(o.expect[0], "c");
	options_clear(&o);
}

Test(options, bad_files)
{
	expect_bad_file(FILE_BASE "frobnicate=1\n", "[postcopyd] frobnicate: unknown key");
	expect_bad_file(FILE_BASE "config=/x\n", "[postcopyd] config: unknown key");
	expect_bad_file(FILE_BASE "help=true\n", "[postcopyd] help: unknown key");
	expect_bad_file(FILE_BASE "[other]\nx=1\n", "unknown group [other]");
	expect_bad_file(FILE_BASE "spin-us=x\n", "[postcopyd] spin-us: 'x' is not a number");
	expect_bad_file(FILE_BASE "stay=maybe\n",
			"[postcopyd] stay: 'maybe' is neither true nor false");
	expect_bad_file(FILE_BASE "expect=a;a\n", "[postcopyd] expect: 'a' is named twice");
	expect_bad_file("incoming=tcp::1\n", "group");
	expect_bad_file(FILE_BASE "rubbish\n", "rubbish");
}

Test(options, stay_false_keeps_the_default)
{
	struct options o;

	cr_assert_eq(parse_with_file(&o, FILE_BASE "stay=false\n", NULL, NULL), OPTIONS_OK);
	cr_assert(o.exit_when_done);
	options_clear(&o);
}

static void read_stdout(char *out, size_t size)
{
	FILE *f = cr_get_redirected_stdout();
	size_t n;

	fflush(stdout);
	fclose(stdout);
	n = fread(out, 1, size - 1, f);
	out[n] = '\0';
}

Test(options, version_names_the_features, .init = cr_redirect_stdout)
{
	char text[256];
	struct options o;

	cr_assert_eq(PARSE(&o, NULL, "--version"), OPTIONS_EXIT_OK);
	options_clear(&o);
	read_stdout(text, sizeof(text));
	cr_assert_str_eq(text, PACKAGE_NAME " " PACKAGE_VERSION " " PC_FEATURES "\n");
}

Test(options, help_names_every_option, .init = cr_redirect_stdout)
{
	static const char *const names[] = {
		"--incoming=ADDRESS",
		"--incoming-fd=FD",
		"--run-dir=DIR",
		"--register-path=PATH",
		"--register-fd=FD",
		"--register-group=GROUP",
		"--control-path=PATH",
		"--control-fd=FD",
		"--expect=NAME",
		"--expect-timeout=SECONDS",
		"--prove-timeout=SECONDS",
		"--load-timeout=SECONDS",
		"--device-state=FILE",
		"--ready-fd=FD",
		"--spin-us=N",
		"--max-package=SIZE",
		"--max-held=SIZE",
		"--max-sharers=N",
		"--max-waiters=N",
		"--switchover-ack",
		"--stay",
		"--keeper",
		"--fd-store",
		"--verbose",
		"--config=FILE",
		"--help",
		"--version",
	};
	static char text[16384];
	struct options o;

	cr_assert_eq(PARSE(&o, NULL, "--help"), OPTIONS_EXIT_OK);
	options_clear(&o);
	read_stdout(text, sizeof(text));
	for (unsigned i = 0; i < G_N_ELEMENTS(names); i++)
		cr_assert(strstr(text, names[i]), "%s is not in:\n%s", names[i], text);
}

/* --- --vhost-user ----------------------------------------------------------------------------- */

static const struct options_vhost *vhost_at(const struct options *o, unsigned i)
{
	return g_ptr_array_index(o->vhost, i);
}

Test(options, vhost_user)
{
	g_autoptr(GError) error = NULL;
	struct options o;

	cr_assert_eq(
		PARSE(&o, &error, MANDATORY, "--vhost-user", "name=a,front=/f,back=/b",
		      "--vhost-user",
		      "name=b,front=/f,,2,back=/b2,dialect=rust,gate=on,policy=fail,answer-timeout=7,group=kvm"),
		OPTIONS_OK, "%s", error ? error->message : "");
	cr_assert_eq(o.vhost->len, 2);
	cr_assert_str_eq(vhost_at(&o, 0)->front, "/f");
	cr_assert_eq(vhost_at(&o, 0)->dialect, VHOSTFRONT_UNIVERSAL);
	cr_assert_eq(vhost_at(&o, 0)->policy, REGMSG_POLICY_IGNORE);
	cr_assert_eq(vhost_at(&o, 0)->answer_s, 30);
	cr_assert_not(vhost_at(&o, 0)->may_gate);
	cr_assert_str_eq(vhost_at(&o, 1)->front, "/f,2");
	cr_assert_eq(vhost_at(&o, 1)->dialect, VHOSTFRONT_RUST);
	cr_assert_eq(vhost_at(&o, 1)->policy, REGMSG_POLICY_FAIL);
	cr_assert_eq(vhost_at(&o, 1)->answer_s, 7);
	cr_assert_str_eq(vhost_at(&o, 1)->group, "kvm");
	cr_assert(vhost_at(&o, 1)->may_gate);
	options_clear(&o);
	cr_assert_eq(parse_with_file(&o,
				     "[postcopyd]\nincoming=unix:/s\nrun-dir=/r\n"
				     "vhost-user=name=a,front=/f,back=/b;name=c,front=/g,back=/h\n",
				     NULL, &error),
		     OPTIONS_OK, "%s", error ? error->message : "");
	cr_assert_eq(o.vhost->len, 2);
	cr_assert_str_eq(vhost_at(&o, 1)->name, "c");
	options_clear(&o);
}

Test(options, vhost_user_refuses)
{
	EXPECT_USAGE("name=NAME is missing", MANDATORY, "--vhost-user", "front=/f,back=/b");
	EXPECT_USAGE("front=PATH is missing", MANDATORY, "--vhost-user", "name=a,back=/b");
	EXPECT_USAGE("back=PATH is missing", MANDATORY, "--vhost-user", "name=a,front=/f");
	EXPECT_USAGE("the same socket", MANDATORY, "--vhost-user", "name=a,front=/f,back=/f");
	EXPECT_USAGE("none of universal, spec, rust, gated", MANDATORY, "--vhost-user",
		     "name=a,front=/f,back=/b,dialect=x");
	EXPECT_USAGE("none of ignore, disable, fail", MANDATORY, "--vhost-user",
		     "name=a,front=/f,back=/b,policy=x");
	EXPECT_USAGE("neither dialect nor gate", MANDATORY, "--vhost-user",
		     "name=a,front=/f,back=/b,repair=on,dialect=spec");
	EXPECT_USAGE("gate", MANDATORY, "--vhost-user", "name=a,front=/f,back=/b,gate=x");
	EXPECT_USAGE("answer-timeout", MANDATORY, "--vhost-user",
		     "name=a,front=/f,back=/b,answer-timeout=0");
	EXPECT_USAGE("named a", MANDATORY, "--vhost-user", "name=a,front=/f,back=/b",
		     "--vhost-user", "name=a,front=/g,back=/h");
	EXPECT_USAGE("a path of b", MANDATORY, "--vhost-user", "name=a,front=/f,back=/b",
		     "--vhost-user", "name=b,front=/f,back=/h");
}

/* --- --device-channel ------------------------------------------------------------------------ */

Test(options, device_channel)
{
	g_autoptr(GError) error = NULL;
	struct options o;

	cr_assert_eq(PARSE(&o, &error, MANDATORY), OPTIONS_OK);
	cr_assert(!o.device_channel.on);
	cr_assert_eq(o.max_device_state, 1ull << 30);
	options_clear(&o);
	cr_assert_eq(PARSE(&o, &error, MANDATORY, "--device-channel", "unix:/run/a,,b", "--device-channel",
			   "tcp:[::1]:0,session=0BD5DCD8-47f2-4e5b-9a4c-3d1b0a6f7e21",
			   "--max-device-state", "64K"), OPTIONS_OK);
	cr_assert(o.device_channel.on);
	cr_assert_eq(o.device_channel.address.transport, OPTIONS_TCP);
	cr_assert_str_eq(o.device_channel.address.host, "::1");
	cr_assert_null(o.device_channel.address.path);
	cr_assert_str_eq(o.device_channel.session, "0BD5DCD8-47f2-4e5b-9a4c-3d1b0a6f7e21");
	cr_assert_eq(o.max_device_state, 64 << 10);
	options_clear(&o);
	EXPECT_USAGE("neither tcp: nor unix:", MANDATORY, "--device-channel", "/run/x");
	EXPECT_USAGE("not a UUID", MANDATORY, "--device-channel", "unix:/x,session=1");
	EXPECT_USAGE("the address is missing", MANDATORY, "--device-channel",
		     "session=0bd5dcd8-47f2-4e5b-9a4c-3d1b0a6f7e21");
}

/* --- --on-loss ------------------------------------------------------------------------------- */

Test(options, on_loss)
{
	g_autoptr(GError) error = NULL;
	struct options o;

	cr_assert_eq(PARSE(&o, &error, MANDATORY), OPTIONS_OK);
	cr_assert_eq(o.on_loss.policy, OPTIONS_LOSS_WAIT);
	cr_assert_eq(o.on_loss.after_s, 30);
	options_clear(&o);
	for (unsigned i = 0; i < OPTIONS_LOSS_POLICIES; i++) {
		g_autofree char *text = g_strdup_printf("%s,after=7", options_loss_names[i]);

		cr_assert_eq(PARSE(&o, &error, MANDATORY, "--on-loss", text), OPTIONS_OK);
		cr_assert_eq(o.on_loss.policy, i);
		cr_assert_eq(o.on_loss.after_s, 7);
		options_clear(&o);
	}
	EXPECT_USAGE("none of wait, poison, freeze, kill", MANDATORY, "--on-loss", "zero");
	EXPECT_USAGE("none of wait, poison, freeze, kill", MANDATORY, "--on-loss", "after=3");
	EXPECT_USAGE("after", MANDATORY, "--on-loss", "kill,after=0");
	EXPECT_USAGE("before", MANDATORY, "--on-loss", "kill,before=1");
}

/* --- --vfio, --dma-map ------------------------------------------------------------------------ */

static const struct options_vfio *vfio_at(const struct options *o, unsigned i)
{
	return g_ptr_array_index(o->vfio, i);
}

static const struct options_dma_map *dma_map_at(const struct options *o, unsigned i)
{
	return g_ptr_array_index(o->dma_map, i);
}

Test(options, vfio)
{
	g_autoptr(GError) error = NULL;
	struct options o;

	cr_assert_eq(PARSE(&o, &error, MANDATORY, "--dma-map",
			   "device=b,iova=0x1000,block=pc.ram,offset=4K,length=1M,coherent=on",
			   "--vfio", "id=a,sysfs=/sys/bus/pci/devices/0000:01:00.0", "--vfio",
			   "id=b,vfio-user=/s,mandatory=on,deadline=70,dma=messages", "--dma-map",
			   "device=a,iova=0,block=pc.ram"),
		     OPTIONS_OK, "%s", error ? error->message : "");
	cr_assert_eq(o.vfio->len, 2);
	cr_assert_not(vfio_at(&o, 0)->user);
	cr_assert_not(vfio_at(&o, 0)->mandatory);
	cr_assert_eq(vfio_at(&o, 0)->dma, OPTIONS_DMA_GATE);
	cr_assert_eq(vfio_at(&o, 0)->deadline_ms, 5000);
	cr_assert_str_eq(vfio_at(&o, 1)->path, "/s");
	cr_assert(vfio_at(&o, 1)->user);
	cr_assert(vfio_at(&o, 1)->mandatory);
	cr_assert_eq(vfio_at(&o, 1)->dma, OPTIONS_DMA_MESSAGES);
	cr_assert_eq(vfio_at(&o, 1)->deadline_ms, 70);
	cr_assert_eq(o.dma_map->len, 2);
	cr_assert_eq(dma_map_at(&o, 0)->iova, 0x1000);
	cr_assert_eq(dma_map_at(&o, 0)->offset, 4096);
	cr_assert_eq(dma_map_at(&o, 0)->length, 1 << 20);
	cr_assert(dma_map_at(&o, 0)->coherent);
	cr_assert_eq(dma_map_at(&o, 1)->length, 0);
	cr_assert_not(dma_map_at(&o, 1)->coherent);
	options_clear(&o);
	cr_assert_eq(parse_with_file(&o,
				     "[postcopyd]\nincoming=unix:/s\nrun-dir=/r\n"
				     "vfio=id=a,vfio-user=/a;id=b,vfio-user=/b,dma=sharer\n"
				     "dma-map=device=a,iova=0,block=r;device=b,iova=0,block=r\n",
				     NULL, &error),
		     OPTIONS_OK, "%s", error ? error->message : "");
	cr_assert_eq(vfio_at(&o, 1)->dma, OPTIONS_DMA_SHARER);
	cr_assert_str_eq(dma_map_at(&o, 1)->device, "b");
	options_clear(&o);
}

Test(options, vfio_refuses)
{
	EXPECT_USAGE("id=ID is missing", MANDATORY, "--vfio", "vfio-user=/s");
	EXPECT_USAGE("not a device's name", MANDATORY, "--vfio", "id=a b,vfio-user=/s");
	EXPECT_USAGE("one of sysfs=PATH and vfio-user=PATH", MANDATORY, "--vfio", "id=a");
	EXPECT_USAGE("one of sysfs=PATH and vfio-user=PATH", MANDATORY, "--vfio",
		     "id=a,vfio-user=/s,sysfs=/d");
	EXPECT_USAGE("none of gate, messages, sharer", MANDATORY, "--vfio",
		     "id=a,vfio-user=/s,dma=x");
	EXPECT_USAGE("only gate goes with sysfs", MANDATORY, "--vfio", "id=a,sysfs=/d,dma=messages");
	EXPECT_USAGE("deadline", MANDATORY, "--vfio", "id=a,vfio-user=/s,deadline=0");
	EXPECT_USAGE("mandatory", MANDATORY, "--vfio", "id=a,vfio-user=/s,mandatory=x");
	EXPECT_USAGE("two devices are named a", MANDATORY, "--vfio", "id=a,vfio-user=/s", "--vfio",
		     "id=a,vfio-user=/t");
	EXPECT_USAGE("/s is a already", MANDATORY, "--vfio", "id=a,vfio-user=/s", "--vfio",
		     "id=b,vfio-user=/s");
	EXPECT_USAGE("there is no --vfio id=b", MANDATORY, "--vfio", "id=a,vfio-user=/s",
		     "--dma-map", "device=b,iova=0,block=r");
	EXPECT_USAGE("a has to be told by --dma-map", MANDATORY, "--vfio",
		     "id=a,vfio-user=/s,dma=sharer");
	EXPECT_USAGE("iova=ADDRESS is missing", MANDATORY, "--dma-map", "device=a,block=r");
	EXPECT_USAGE("block=NAME is missing", MANDATORY, "--dma-map", "device=a,iova=0");
	EXPECT_USAGE("device=ID is missing", MANDATORY, "--dma-map", "iova=0,block=r");
	EXPECT_USAGE("iova: not a multiple of 4096", MANDATORY, "--dma-map",
		     "device=a,iova=7,block=r");
	EXPECT_USAGE("length", MANDATORY, "--dma-map", "device=a,iova=0,block=r,length=0");
}

/* --- --qemu ---------------------------------------------------------------------------------- */

Test(options, no_hand_over_unless_asked)
{
	g_autoptr(GError) error = NULL;
	struct options o;

	cr_assert_eq(PARSE(&o, &error, MANDATORY), OPTIONS_OK);
	cr_assert_null(o.qemu.monitor);
	cr_assert_null(o.qemu.incoming);
	options_clear(&o);
}

Test(options, hand_over_with_defaults)
{
	g_autoptr(GError) error = NULL;
	struct options o;

	cr_assert_eq(PARSE(&o, &error, MANDATORY, "--qemu", "qmp=/run/a,,b.qmp"), OPTIONS_OK, "%s",
		     error ? error->message : "");
	cr_assert_str_eq(o.qemu.monitor, "/run/a,b.qmp");
	cr_assert_str_eq(o.qemu.incoming, "/run/p/qemu-incoming");
	cr_assert_eq(o.qemu.cont, OPTIONS_CONT_AUTO);
	cr_assert_eq(o.qemu.retry_s, 0);
	options_clear(&o);
}

Test(options, hand_over_in_full)
{
	g_autoptr(GError) error = NULL;
	struct options o;

	cr_assert_eq(PARSE(&o, &error, MANDATORY, "--qemu", "qmp=/x,cont=yes",
			   "--qemu", "qmp=/q,incoming=unix:/run/in,cont=no,retry=60"), OPTIONS_OK);
	cr_assert_str_eq(o.qemu.monitor, "/q");
	cr_assert_str_eq(o.qemu.incoming, "/run/in");
	cr_assert_eq(o.qemu.cont, OPTIONS_CONT_NO);
	cr_assert_eq(o.qemu.retry_s, 60);
	options_clear(&o);
	cr_assert_eq(parse_with_file(&o, "[postcopyd]\nincoming=tcp::1\nrun-dir=/r\n"
					 "qemu=qmp=/q,cont=yes\n", NULL, &error), OPTIONS_OK);
	cr_assert_str_eq(o.qemu.monitor, "/q");
	cr_assert_eq(o.qemu.cont, OPTIONS_CONT_YES);
	options_clear(&o);
}

Test(options, hand_over_refusals)
{
	char long_path[300] = "qmp=/";

	memset(long_path + 5, 'x', 200);
	EXPECT_USAGE("qmp=PATH is missing", MANDATORY, "--qemu", "cont=yes");
	EXPECT_USAGE("qmp: the path is empty", MANDATORY, "--qemu", "qmp=");
	EXPECT_USAGE("qmp: ", MANDATORY, "--qemu", long_path);
	EXPECT_USAGE("socket", MANDATORY, "--qemu", "socket=/q");
	EXPECT_USAGE("none of auto, yes, no", MANDATORY, "--qemu", "qmp=/q,cont=maybe");
	EXPECT_USAGE("does not begin with unix:", MANDATORY, "--qemu", "qmp=/q,incoming=tcp:::1");
	EXPECT_USAGE("incoming: the path is empty", MANDATORY, "--qemu", "qmp=/q,incoming=unix:");
	EXPECT_USAGE("the same socket", MANDATORY, "--qemu", "qmp=/q,incoming=unix:/q");
	EXPECT_USAGE("retry", MANDATORY, "--qemu", "qmp=/q,retry=-1");
	EXPECT_USAGE("retry", MANDATORY, "--qemu", "qmp=/q,retry=86401");
}
