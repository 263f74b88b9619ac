/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What names, paths and reasons say comes from processes that nobody has to trust: it is made plain
 * before it reaches a terminal.
 */
#include "config.h"
#include "tools/ctl_vhost.h"
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "core/guard.h"
#include "tools/ctl_format.h"
#include "tools/ctl_table.h"

static bool is(const char *word, const char *wanted)
{
	return word && strcmp(word, wanted) == 0;
}

/**
 * ctl_vhost_check - are these the words of a command?
 */
bool ctl_vhost_check(char *const *words, bool force)
{
	unsigned n = g_strv_length((char **)words);

	if (n == 0 || (n == 1 && is(words[0], "list")))
		return !force;
	return n == 2 && ((is(words[0], "add") && !force) || is(words[0], "remove"));
}

static void put_plain(struct ctl_table *t, const char *text)
{
	g_autofree char *plain = ctl_format_plain(text);

	ctl_table_text(t, plain);
}

/* What it is to the pages, where there is a back-end; else what the connection is. */
static const char *state_of(const struct jsonmsg *d)
{
	return jsonmsg_text(d, "stage", jsonmsg_text(d, "state", "?"));
}

static void put_device(struct ctl_table *t, const struct jsonmsg *d, uint64_t now)
{
	uint64_t since = jsonmsg_u64(d, "since_ns", 0);

	ctl_table_row(t);
	put_plain(t, jsonmsg_text(d, "name", "?"));
	put_plain(t, jsonmsg_text(d, "dialect", "?"));
	put_plain(t, state_of(d));
	ctl_table_time(t, now > since ? now - since : 0);
	ctl_table_printf(t, "%" G_GINT64_FORMAT, (gint64)jsonmsg_i64(d, "pid", 0));
	CTL_TABLE_COUNTS(t, jsonmsg_u64(d, "waiting", 0), jsonmsg_u64(d, "quarantines", 0));
	put_plain(t, jsonmsg_text(d, "reason", ""));
}

static int list(struct ctl_client *c, bool json)
{
	static const struct ctl_argument none = { NULL, NULL };
	struct jsonmsg *reply cleanup_jsonmsg = NULL;
	const struct jsonmsg *all;
	struct ctl_table t cleanup_ctl_table = { NULL };
	g_autoptr(GString) out = g_string_new(NULL);
	int r = ctl_client_ask_with(c, "vhost-user", &none, &reply);

	if (r < 0)
		return r;
	all = jsonmsg_member(reply, "return");
	if (json) {
		char *line cleanup_free = jsonmsg_print(jsonmsg_member(all, "devices"), NULL);

		fputs(line, stdout);
		return 0;
	}
	ctl_table_init(&t, "NAME\tDIALECT\tSTATE\t>FOR\t>PID\t>WAITING\t>QUARANTINES\tREASON");
	for (unsigned i = 0; i < jsonmsg_count(jsonmsg_member(all, "devices")); i++)
		put_device(&t, jsonmsg_element(jsonmsg_member(all, "devices"), i),
			   jsonmsg_u64(all, "now_ns", 0));
	ctl_table_print(&t, out);
	fputs(out->str, stdout);
	return 0;
}

/**
 * ctl_vhost_run - do what ctl_vhost_check() found right
 */
int ctl_vhost_run(struct ctl_client *c, char *const *words, bool json, bool force)
{
	struct jsonmsg *reply cleanup_jsonmsg = NULL;

	if (is(words[0], "add"))
		return ctl_client_ask_with(
			c, "vhost-user-add",
			(const struct ctl_argument[]){ { "device", words[1] }, { NULL, NULL } },
			&reply);
	if (is(words[0], "remove"))
		return ctl_client_ask_with(
			c, "vhost-user-remove",
			(const struct ctl_argument[]){ { "name", words[1] },
						       { force ? "force" : NULL, NULL },
						       { NULL, NULL } },
			&reply);
	return list(c, json);
}
