/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where to listen: tcp:HOST:PORT or unix:PATH, written as QEMU's migrate command takes them, so
 * that one text serves both ends.  Names are not resolved here; that a path fits a socket is known
 * before one is made.
 */
#include "config.h"
#include "daemon/options_parts.h"
#include <string.h>
#include <sys/un.h>
#include "wire/keyval.h"

/**
 * options_fail - set *error and say false, so that it can stand in a return statement
 */
bool options_fail(GError **error, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	g_propagate_error(error,
			  g_error_new_valist(G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE, fmt, ap));
	va_end(ap);
	return false;
}

/**
 * options_check_socket_path - is it a path that fits sun_path?  False with *error
 */
bool options_check_socket_path(const char *path, GError **error)
{
	if (*path == '\0')
		return options_fail(error, "the path is empty");
	if (strlen(path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
		return options_fail(error, "'%s' is too long for a socket (at most 107 bytes)",
				    path);
	return true;
}

/**
 * options_clear_address - free its texts; once more is harmless
 */
void options_clear_address(struct options_address *a)
{
	g_clear_pointer(&a->host, g_free);
	g_clear_pointer(&a->port, g_free);
	g_clear_pointer(&a->path, g_free);
}

/*
 * Decimal only, although keyval_read_number() would take 0x as well: the text goes to
 * getaddrinfo().
 */
static bool is_port(const char *text)
{
	uint64_t v;

	return strspn(text, "0123456789") == strlen(text) && keyval_read_number(text, &v) == 0 &&
	       v <= 65535;
}

/* Split "HOST:PORT" or "[V6]:PORT".  NULL when it is neither. */
static const char *split_host(const char *text, char **host)
{
	const char *colon;

	if (*text == '[') {
		const char *close = strchr(text, ']');

		if (!close || close == text + 1 || close[1] != ':')
			return NULL;
		*host = g_strndup(text + 1, (gsize)(close - text - 1));
		return close + 2;
	}
	colon = strchr(text, ':');
	if (!colon || strchr(colon + 1, ':'))
		return NULL;
	*host = g_strndup(text, (gsize)(colon - text));
	return colon + 1;
}

static bool parse_tcp(const char *text, struct options_address *out, GError **error)
{
	g_autofree char *host = NULL;
	const char *port = split_host(text, &host);

	if (!port)
		return options_fail(
			error, "'tcp:%s' is not tcp:HOST:PORT (an IPv6 address stands in brackets)",
			text);
	if (!is_port(port))
		return options_fail(error, "'%s' is not a port number (0 to 65535)", port);
	*out = (struct options_address){OPTIONS_TCP, g_steal_pointer(&host), g_strdup(port), NULL};
	return true;
}

/**
 * options_parse_address - "tcp:HOST:PORT", "tcp:[::1]:PORT", "tcp::PORT" or "unix:PATH"
 * @out: overwritten on success only, so its texts are the caller's to clear before
 *
 * Return: false with *error.
 */
bool options_parse_address(const char *text, struct options_address *out, GError **error)
{
	if (g_str_has_prefix(text, "tcp:"))
		return parse_tcp(text + 4, out, error);
	if (!g_str_has_prefix(text, "unix:"))
		return options_fail(error, "'%s' begins with neither tcp: nor unix:", text);
	if (!options_check_socket_path(text + 5, error))
		return false;
	*out = (struct options_address){OPTIONS_UNIX, NULL, NULL, g_strdup(text + 5)};
	return true;
}

/**
 * options_parse_channel - the value of --device-channel
 *
 * Return: false with *error; *out then stays as it was.
 */
bool options_parse_channel(const char *text, struct options_channel *out, GError **error)
{
	static const char *const known[] = { "address", "session", NULL };
	struct options_channel parsed = { .on = true };
	struct keyval kv cleanup_keyval;
	const char *session;

	if (keyval_parse(&kv, text, known, "address") < 0)
		return options_fail(error, "%s", kv.error);
	session = keyval_get(&kv, "session");
	if (session && !g_uuid_string_is_valid(session))
		return options_fail(error, "session: '%s' is not a UUID", session);
	if (!keyval_get(&kv, "address"))
		return options_fail(error, "the address is missing: tcp:HOST:PORT or unix:PATH");
	if (!options_parse_address(keyval_get(&kv, "address"), &parsed.address, error))
		return false;
	parsed.session = g_strdup(session);
	options_clear_channel(out);
	*out = parsed;
	return true;
}

/**
 * options_clear_channel - free its texts; once more is harmless
 */
void options_clear_channel(struct options_channel *c)
{
	options_clear_address(&c->address);
	g_clear_pointer(&c->session, g_free);
}
