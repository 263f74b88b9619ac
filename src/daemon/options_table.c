/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every option of postcopyd: its name, what it is, where it goes and how it is explained, and how a
 * value of each kind is read.
 *
 * Everything is a value or an error; nothing is guessed.
 */
#include "config.h"
#include "daemon/options_parts.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include "daemon/snapshot.h"
#include "wire/keyval.h"
#include "wire/regmsg.h"

#define AT(field) offsetof(struct options, field)

const struct options_spec options_specs[OPTIONS_SPECS_MAX] = {
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
	{ "recover-timeout", KIND_COUNT, AT(recover_timeout_s), 0, 86400, "SECONDS",
	  "When the source is lost, wait for it that long by ourselves (default 0: no limit)" },
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
	{ "link-grace", KIND_COUNT, AT(link_grace_s), 0, 86400, "SECONDS",
	  "Pause a VM that runs here when there is no way to its source that long (default 2; 0: "
	  "leave it to TCP)" },
	{ "source-qmp", KIND_SOCKET_PATH, AT(source_qmp), 0, 0, "PATH",
	  "Monitor of the source's QEMU (a QMP socket): while paused, tell it to come again" },
	{ "enable-faults", KIND_FLAG, AT(enable_faults), true, 0, NULL,
	  "Faults may be injected, here and with `postcopyctl fault' (for tests)" },
	{ "fault", KIND_FAULT, AT(faults), 0, 0, "point=NAME,...",
	  "Inject: action=NAME at that point (repeatable); also page=, sharer=, every=, "
	  "probability=, after=, count=" },
	{ "fault-seed", KIND_NUMBER, AT(fault_seed), 1, INT64_MAX, "N",
	  "What chance is made of: the same seed decides alike (default: made up and logged)" },
	{ "on-loss", KIND_LOSS, AT(on_loss), 0, 0, "POLICY",
	  "What becomes of a VM whose source is lost after the switch-over: wait (default), poison "
	  "the pages that somebody waits for, freeze or kill the VM; also after=SECONDS (default 30)" },
	{ "switchover-ack", KIND_FLAG, AT(switchover_ack), true, 0, NULL,
	  "Acknowledge the switch-over (for a source with that migration capability)" },
	{ "stay", KIND_FLAG, AT(exit_when_done), false, 0, NULL,
	  "Go on answering postcopyctl when the session is over, until it says quit" },
	{ "keeper", KIND_FLAG, AT(keeper), true, 0, NULL,
	  "Serve in a child process, which is started again where it was when it dies" },
	{ "fd-store", KIND_FLAG, AT(fd_store), true, 0, NULL,
	  "The service manager starts us again where we were when we die (systemd's fd store)" },
	{ "verbose", KIND_FLAG, AT(verbose), true, 0, NULL, "Log every step of the session" },
};

/* Options that answer the same question. */

static bool set_flag(const struct options_spec *s, void *field, const char *text, GError **error)
{
	bool on;

	if (keyval_read_bool(text, &on) < 0)
		return options_fail(error, "'%s' is neither true nor false", text);
	*(bool *)field = on ? s->min != 0 : s->min == 0;
	return true;
}

static bool set_text(const struct options_spec *s, void *field, const char *text, GError **error)
{
	(void)s;
	if (*text == '\0')
		return options_fail(error, "the value is empty");
	g_free(*(char **)field);
	*(char **)field = g_strdup(text);
	return true;
}

static bool set_socket_path(const struct options_spec *s, void *field, const char *text,
			    GError **error)
{
	return options_check_socket_path(text, error) && set_text(s, field, text, error);
}

static bool read_ranged(const struct options_spec *s, const char *text, uint64_t *v, GError **error)
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

static bool set_fd(const struct options_spec *s, void *field, const char *text, GError **error)
{
	uint64_t v;

	if (!read_ranged(s, text, &v, error))
		return false;
	if (fcntl((int)v, F_GETFD) < 0)
		return options_fail(error, "%s is not an open file descriptor", text);
	*(int *)field = (int)v;
	return true;
}

static bool set_count(const struct options_spec *s, void *field, const char *text, GError **error)
{
	uint64_t v;

	if (!read_ranged(s, text, &v, error))
		return false;
	*(unsigned *)field = (unsigned)v;
	return true;
}

static bool set_size(const struct options_spec *s, void *field, const char *text, GError **error)
{
	uint64_t v;

	if (!read_ranged(s, text, &v, error))
		return false;
	*(uint64_t *)field = v;
	return true;
}

static bool add_name(const struct options_spec *s, void *field, const char *text, GError **error)
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

static bool set_address(const struct options_spec *s, void *field, const char *text, GError **error)
{
	struct options_address parsed;

	(void)s;
	if (!options_parse_address(text, &parsed, error))
		return false;
	options_clear_address(field);
	*(struct options_address *)field = parsed;
	return true;
}

static bool set_qemu(const struct options_spec *s, void *field, const char *text, GError **error)
{
	(void)s;
	return options_parse_qemu(text, field, error);
}

static bool set_channel(const struct options_spec *s, void *field, const char *text, GError **error)
{
	(void)s;
	return options_parse_channel(text, field, error);
}

static bool set_loss(const struct options_spec *s, void *field, const char *text, GError **error)
{
	(void)s;
	return options_parse_loss(text, field, error);
}

static bool add_group(const struct options_spec *s, void *field, const char *text, GError **error)
{
	static bool (*const adders[OPTIONS_KINDS])(GPtrArray *, const char *, GError **) = {
		[KIND_VHOST] = options_add_vhost,
		[KIND_VFIO] = options_add_vfio,
		[KIND_DMA_MAP] = options_add_dma_map,
		[KIND_FAULT] = options_add_fault,
	};

	return adders[s->kind](*(GPtrArray **)field, text, error);
}

/**
 * options_set - the value of an option, as it was written
 *
 * Return: false with *error, which does not name the option.
 */
bool options_set(struct options *o, const struct options_spec *s, const char *text, GError **error)
{
	static bool (*const setters[])(const struct options_spec *, void *, const char *,
				       GError **) = {
		[KIND_FLAG] = set_flag,
		[KIND_TEXT] = set_text,
		[KIND_PATH] = set_text,
		[KIND_SOCKET_PATH] = set_socket_path,
		[KIND_FD] = set_fd,
		[KIND_COUNT] = set_count,
		[KIND_SIZE] = set_size,
		[KIND_NUMBER] = set_size,
		[KIND_NAMES] = add_name,
		[KIND_ADDRESS] = set_address,
		[KIND_QEMU] = set_qemu,
		[KIND_VHOST] = add_group,
		[KIND_CHANNEL] = set_channel,
		[KIND_LOSS] = set_loss,
		[KIND_VFIO] = add_group,
		[KIND_DMA_MAP] = add_group,
		[KIND_FAULT] = add_group,
	};
	_Static_assert(G_N_ELEMENTS(setters) == OPTIONS_KINDS, "every kind has a setter");

	return setters[s->kind](s, (char *)o + s->at, text, error);
}

/**
 * options_find - the index of an option in options_specs, or -1
 */
int options_find(const char *name)
{
	for (unsigned i = 0; i < OPTIONS_SPECS_MAX && options_specs[i].name; i++)
		if (!strcmp(options_specs[i].name, name))
			return (int)i;
	return -1;
}
