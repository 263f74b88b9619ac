/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Commands of the control socket that are about more than the fault thread's snapshot: each is a
 * row, and asks the owner of what it is about.
 */
#include "config.h"
#include "daemon/phases_parts.h"

#include <gio/gio.h>

#include "core/guard.h"
#include "daemon/options_parts.h"
#include "daemon/report.h"

#define MAX_BLOCKERS 128

static bool blockers(void *ctx, const char *name, const struct jsonmsg *arguments,
		     struct jsonmsg_writer *w, const char *key, GError **error)
{
	g_autofree struct control_blocker *list = g_new0(struct control_blocker, MAX_BLOCKERS);
	const struct phases *p = ctx;
	unsigned n = blockers_list(&p->blockers, list, MAX_BLOCKERS);

	(void)name;
	(void)arguments;
	(void)error;
	report_blockers(w, key, list, MIN(n, MAX_BLOCKERS));
	return true;
}

static bool handover(void *ctx, const char *name, const struct jsonmsg *arguments,
		     struct jsonmsg_writer *w, const char *key, GError **error)
{
	const struct phases *p = ctx;

	(void)name;
	(void)arguments;
	if (p->handover)
		handover_report(p->handover, w, key);
	else
		g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
				    "nothing is handed over to a QEMU (--qemu was not given)");
	return p->handover;
}

static bool vhosts(void *ctx, const char *name, const struct jsonmsg *arguments,
		   struct jsonmsg_writer *w, const char *key, GError **error)
{
	(void)name;
	(void)arguments;
	(void)error;
	vhost_list_report(((struct phases *)ctx)->vhosts, w, key);
	return true;
}

/* Nothing is told but that it is done. */
static void put_done(struct jsonmsg_writer *w, const char *key)
{
	jsonmsg_begin_object(w, key);
	jsonmsg_end(w);
}

static bool add_vhost(void *ctx, const char *name, const struct jsonmsg *arguments,
		      struct jsonmsg_writer *w, const char *key, GError **error)
{
	struct options_vhost *o =
		options_parse_vhost(jsonmsg_text(arguments, "device", ""), error);

	(void)name;
	put_done(w, key);
	return o && vhost_list_add(((struct phases *)ctx)->vhosts, o, error);
}

static bool remove_vhost(void *ctx, const char *name, const struct jsonmsg *arguments,
			 struct jsonmsg_writer *w, const char *key, GError **error)
{
	(void)name;
	put_done(w, key);
	return vhost_list_remove(((struct phases *)ctx)->vhosts,
				 jsonmsg_text(arguments, "name", ""),
				 jsonmsg_bool(arguments, "force", false), error);
}

static bool report_devices(void *ctx, const char *name, const struct jsonmsg *arguments,
			   struct jsonmsg_writer *w, const char *key, GError **error)
{
	(void)name;
	(void)arguments;
	(void)error;
	devices_report(((struct phases *)ctx)->devices, w, key);
	return true;
}

static bool pause_session(void *ctx, const char *name, const struct jsonmsg *arguments,
			  struct jsonmsg_writer *w, const char *key, GError **error)
{
	struct phases *p = ctx;
	const char *why = phases_pause_problem(p);

	(void)name;
	put_done(w, key);
	if (why)
		g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_FAILED, why);
	else
		phases_pause(p, jsonmsg_text(arguments, "reason", "paused by the operator"));
	return !why;
}

static bool recover(void *ctx, const char *name, const struct jsonmsg *arguments,
		    struct jsonmsg_writer *w, const char *key, GError **error)
{
	const char *uri = jsonmsg_text(arguments, "uri", NULL);
	struct options_address where = { 0 };
	bool done;

	(void)name;
	put_done(w, key);
	if (uri && !options_parse_address(uri, &where, error))
		return false;
	done = phases_recover(ctx, uri ? &where : NULL, error);
	options_clear_address(&where);
	return done;
}

static bool cancel(void *ctx, const char *name, const struct jsonmsg *arguments,
		   struct jsonmsg_writer *w, const char *key, GError **error)
{
	(void)name;
	put_done(w, key);
	return phases_cancel(ctx, jsonmsg_bool(arguments, "force", false), error);
}

void phases_add_commands(struct phases *p)
{
	static const char *const nothing[] = { NULL }, *const device[] = { "device", NULL },
				 *const binary[] = { "binary", "force", NULL },
				 *const name_force[] = { "name", "force", NULL },
				 *const reason[] = { "reason", NULL },
				 *const uri[] = { "uri", NULL },
				 *const force[] = { "force", NULL };
	static const struct control_command commands[] = {
		{ "blockers", nothing, true, blockers },
		{ "handover", nothing, true, handover },
		{ "vhost-user", nothing, true, vhosts },
		{ "vhost-user-add", device, false, add_vhost },
		{ "vhost-user-remove", name_force, false, remove_vhost },
		{ "devices", nothing, true, report_devices },
		{ "upgrade", binary, false, phases_upgrade },
		{ "pause", reason, false, pause_session },
		{ "recover", uri, false, recover },
		{ "cancel", force, false, cancel },
	};

	control_add(p->control, commands, ARRAY_LEN(commands), p);
	faults_add_commands(p->faults, p->control);
	phases_start_salvage(p);
}
