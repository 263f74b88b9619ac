/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Devices, between who drives the session and what drives them: their state comes into the spool,
 * by whatever way; they hold the VM; what they come to is told.
 */
#include "config.h"
#include "daemon/phases_parts.h"

#include <inttypes.h>

static void state_changed(void *ctx, const struct devspool_device *d)
{
	struct phases *p = ctx;

	if (d->complete)
		g_message("device %s: all of its state is here, %" PRIu64 " bytes", d->id,
			  d->bytes);
	else
		g_debug("device %s: %s", d->id, d->fd < 0 ? "its state was dropped" : "begins");
	if (p->devices)
		devices_state_changed(p->devices);
}

/* Before a source can come, which may bring it. */
void phases_start_spool(struct phases *p, const struct phases_fds *fds)
{
	const struct devchannel_config config = { fds->devices, fds->devices_shown,
						  p->options->device_channel.session };

	p->spool = devspool_new(p->options->max_device_state, state_changed, p);
	if (fds->devices >= 0)
		p->devchannel = devchannel_new(&config, p->spool);
}

static void refuse(void *ctx, int error, const char *reason)
{
	phases_refuse(ctx, error, reason);
}

static void event(void *ctx, const char *name, const char *text)
{
	struct phases *p = ctx;

	if (p->control)
		control_event(p->control, name, text);
}

bool phases_start_devices(struct phases *p, GError **error)
{
	const struct devices_config config = {
		.options = p->options, .gates = p->gates, .spool = p->spool, .door = p->door,
		.changed = phases_refresh, .refuse = refuse, .event = event, .ctx = p,
	};

	p->devices = devices_new(&config, error);
	return p->devices;
}

bool phases_may_run(void *ctx)
{
	return devices_may_run(((struct phases *)ctx)->devices);
}
