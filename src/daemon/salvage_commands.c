/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * `postcopyctl salvage': what is here, saved.  At any time from the moment on that faults are
 * served; while the VM runs what is saved is torn, which is for whoever asks to know.
 */
#include "config.h"
#include "daemon/phases_parts.h"

#include <gio/gio.h>

#include "core/guard.h"

/* Private memory is in the process of the main sharer, where that has it. */
static void find_private(const struct phases *p, struct salvage_source *from)
{
	GPtrArray *clients = door_clients(p->door);

	for (unsigned i = 0; i < clients->len; i++) {
		const struct client *c = g_ptr_array_index(clients, i);

		if (!c->main || c->state != CLIENT_JOINED)
			continue;
		from->pid = c->pid;
		for (unsigned m = 0; m < c->n_proven; m++)
			if (c->proven[m].block < SNAPSHOT_BLOCKS && c->proven[m].offset == 0)
				from->address[c->proven[m].block] = c->proven[m].address;
	}
}

static bool start(void *ctx, const char *name, const struct jsonmsg *arguments,
		  struct jsonmsg_writer *w, const char *key, GError **error)
{
	struct phases *p = ctx;
	struct salvage_source from = { .snapshot = p->snapshot };

	(void)name;
	jsonmsg_begin_object(w, key);
	jsonmsg_end(w);
	if (!p->snapshot || !p->snapshot->ledger) {
		g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
				    "there is nothing to save: no VM was handed over");
		return false;
	}
	find_private(p, &from);
	if (!salvage_start(p->salvage, jsonmsg_text(arguments, "dir", ""), &from, error))
		return false;
	phases_refresh(p);
	return true;
}

/**
 * phases_start_salvage - let it be asked for
 */
void phases_start_salvage(struct phases *p)
{
	static const char *const dir[] = { "dir", NULL };
	static const struct control_command commands[] = {
		{ "salvage", dir, false, start },
	};

	p->salvage = salvage_new(phases_refresh, p);
	control_add(p->control, commands, ARRAY_LEN(commands), p);
}
