/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A source that is lost: what --on-loss has to be done, by whom.
 */
#include "config.h"
#include "daemon/phases_parts.h"

#include <errno.h>

#include <gio/gio.h>

#include "sys/uffd.h"

static enum losspolicy_stop stop_by_monitor(void *ctx, bool want)
{
	struct phases *p = ctx;

	return p->handover ? handover_freeze(p->handover, want) : LOSSPOLICY_CANNOT;
}

static bool tell_hook(void *ctx, const char *event)
{
	struct phases *p = ctx;

	return hooks_say(p->hooks, event, p->snapshot);
}

static int main_sharer(void *ctx, pid_t *pid)
{
	GPtrArray *clients = door_clients(((struct phases *)ctx)->door);

	for (unsigned i = 0; i < clients->len; i++) {
		const struct client *c = g_ptr_array_index(clients, i);

		if (!c->main || c->state != CLIENT_JOINED)
			continue;
		*pid = c->pid;
		return c->pidfd;
	}
	return -1;
}

static void tell_event(void *ctx, const char *name, const char *text)
{
	struct phases *p = ctx;

	if (p->control)
		control_event(p->control, name, text);
}

/* What is here can be saved as long as somebody wants us to stay. */
static void killed(void *ctx, const char *reason)
{
	struct message m = { .kind = MESSAGE_BEREFT };
	struct phases *p = ctx;

	g_strlcpy(m.bereft.reason, reason, sizeof(m.bereft.reason));
	faultloop_post(p->loop, &m);
	if (p->options->exit_when_done)
		phases_end(p, 1);
}

/**
 * phases_start_loss - before a source can come; see phases_parts.h
 *
 * Who asks for poison is told here that the kernel has none, and not when a page is lost.
 */
bool phases_start_loss(struct phases *p, GError **error)
{
	const struct losspolicy_ops ops = {
		.monitor = stop_by_monitor, .hook = tell_hook, .main_sharer = main_sharer,
		.event = tell_event, .killed = killed, .refresh = phases_refresh, .ctx = p,
	};
	bool poison = p->options->on_loss.policy == OPTIONS_LOSS_POISON;
	int ret = poison ? uffd_probe_poison() : 0;

	p->loss = losspolicy_new(&p->options->on_loss, &ops);
	if (ret < 0)
		g_set_error(error, G_IO_ERROR, (gint)g_io_error_from_errno(-ret),
			    "--on-loss=poison: this kernel cannot poison pages (Linux 6.6 can: %s)",
			    g_strerror(-ret));
	return ret == 0;
}
