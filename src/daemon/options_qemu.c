/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * --qemu: where the monitor of the destination QEMU is, and how far we may drive it.
 */
#include "config.h"
#include "daemon/options_parts.h"
#include <string.h>
#include "wire/keyval.h"

#define RETRY_MAX_S 86400

static bool read_cont(const char *text, enum options_cont *cont, GError **error)
{
	static const char *const names[] = {
		[OPTIONS_CONT_AUTO] = "auto", [OPTIONS_CONT_YES] = "yes", [OPTIONS_CONT_NO] = "no",
	};

	for (unsigned i = 0; text && i < G_N_ELEMENTS(names); i++)
		if (!strcmp(text, names[i])) {
			*cont = (enum options_cont)i;
			return true;
		}
	return !text || options_fail(error, "cont: '%s' is none of auto, yes, no", text);
}

/*
 * An address, so that it can be told from other kinds that may come; only UNIX sockets tell us who
 * listens.
 */
static bool read_incoming(const char *text, char **path, GError **error)
{
	if (!text)
		return true;
	if (!g_str_has_prefix(text, "unix:"))
		return options_fail(error, "incoming: '%s' does not begin with unix:", text);
	if (!options_check_socket_path(text + strlen("unix:"), error)) {
		g_prefix_error(error, "incoming: ");
		return false;
	}
	*path = g_strdup(text + strlen("unix:"));
	return true;
}

static bool read_all(struct keyval *kv, struct options_qemu *q, GError **error)
{
	const char *monitor = keyval_get(kv, "qmp");
	uint64_t retry = 0;

	if (!monitor)
		return options_fail(
			error,
			"qmp=PATH is missing: the socket of QEMU's monitor (-qmp unix:PATH,server=on,wait=off)");
	if (!options_check_socket_path(monitor, error)) {
		g_prefix_error(error, "qmp: ");
		return false;
	}
	if (keyval_number(kv, "retry", 0, RETRY_MAX_S, &retry) < 0)
		return options_fail(error, "%s", kv->error);
	if (!read_cont(keyval_get(kv, "cont"), &q->cont, error) ||
	    !read_incoming(keyval_get(kv, "incoming"), &q->incoming, error))
		return false;
	q->retry_s = (unsigned)retry;
	q->monitor = g_strdup(monitor);
	if (!q->incoming || strcmp(q->incoming, q->monitor))
		return true;
	return options_fail(error, "qmp and incoming are the same socket: %s", q->monitor);
}

/**
 * options_parse_qemu - the value of --qemu
 *
 * Return: false with *error; *out then stays as it was.
 */
bool options_parse_qemu(const char *text, struct options_qemu *out, GError **error)
{
	static const char *const known[] = {"qmp", "incoming", "cont", "retry", NULL};
	struct options_qemu q = {0};
	struct keyval kv cleanup_keyval;
	bool ok = false;

	if (keyval_parse(&kv, text, known, NULL) < 0)
		options_fail(error, "%s", kv.error);
	else
		ok = read_all(&kv, &q, error);
	if (!ok) {
		options_clear_qemu(&q);
		return false;
	}
	options_clear_qemu(out);
	*out = q;
	return true;
}

/**
 * options_clear_qemu - free its texts; once more is harmless
 */
void options_clear_qemu(struct options_qemu *q)
{
	g_clear_pointer(&q->monitor, g_free);
	g_clear_pointer(&q->incoming, g_free);
}
