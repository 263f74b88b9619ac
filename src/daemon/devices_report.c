/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Devices for people: what is in the way, and how far each is.
 */
#include "config.h"
#include "daemon/devices_parts.h"

#include <stdio.h>

#include "sys/clock.h"

static bool is_running(const struct device *d)
{
	return !d->lost && d->cutover.done >> CUTOVER_RUN & 1;
}

/* What it waits for before the VM may run. */
static const char *loading(const struct device *d)
{
	if (!d->open)
		return "it is not there";
	if (d->awaits_state)
		return "its state has not come";
	if (!device_premapped(d))
		return d->o->dma == OPTIONS_DMA_SHARER ?
			       "its server has not registered as a sharer of its name" :
			       "its memory is not mapped";
	return "it is being loaded";
}

static void block(const struct device *d, struct blockers *b, const char *step, const char *why)
{
	char name[sizeof(b->list[0].name)];

	g_snprintf(name, sizeof(name), "device:%s", d->o->id);
	blockers_add(b, name, step, "%s", why);
	if (b->n && b->n <= BLOCKERS_MAX)
		b->list[b->n - 1].since_ns = d->since_ns;
}

static void device_blocker(const struct device *d, struct blockers *b)
{
	bool serving = devices_serve(d->all);
	char why[256];

	if (d->lost) {
		if (d->o->mandatory)
			block(d, b, d->all->let ? "complete" : "running", d->why);
		return;
	}
	if (!serving && !d->open && d->o->mandatory) {
		g_snprintf(why, sizeof(why), "it is not there yet: %s: %s", d->o->path,
			   d->why[0] ? d->why : "it is being opened");
		block(d, b, "listening", why);
	}
	if (serving && !device_settled(d))
		block(d, b, "running", loading(d));
	if (devices_run(d->all) && !is_running(d))
		block(d, b, "device",
		      d->group.goal == DEVGROUP_RUNNING ? "it is being started" :
		      device_mapped(d)			? "it is being loaded" :
							  "its memory is not all there and mapped");
}

/**
 * devices_blockers - what keeps the session from its next step, or a device from running
 */
void devices_blockers(const struct devices *all, struct blockers *b)
{
	for (unsigned i = 0; i < all->n; i++)
		device_blocker(all->device[i], b);
}

static void report_gate(const struct device *d, struct jsonmsg_writer *w)
{
	struct control_gate g;

	if (d->gate < 0 || !gatekeeper_report(d->all->config.gates, d->gate, &g))
		return;
	jsonmsg_begin_object(w, "gate");
	jsonmsg_put_bool(w, "sealed", g.sealed);
	jsonmsg_put_bool(w, "open", g.open);
	jsonmsg_put_u64(w, "ranges", g.ranges);
	jsonmsg_put_u64(w, "mapped", g.mapped);
	jsonmsg_put_u64(w, "failed", g.failed);
	jsonmsg_put_u64(w, "bytes", g.bytes);
	jsonmsg_put_u64(w, "bytes_ready", g.bytes_ready);
	jsonmsg_put_u64(w, "pages_missing", g.pages_missing);
	jsonmsg_put_i64(w, "eta_ms", g.eta_ms);
	jsonmsg_end(w);
}

static void report_call(const struct device *d, uint64_t now, struct jsonmsg_writer *w)
{
	struct devwatch_call call;

	if (!devthread_doing(d->thread, &call))
		return;
	jsonmsg_put_text(w, "call", call.what);
	jsonmsg_put_u64(w, "call_ns", now > call.since ? now - call.since : 0);
}

static void report_device(const struct device *d, uint64_t now, struct jsonmsg_writer *w)
{
	static const char *const ways[OPTIONS_DMA_WAYS] = { "gate", "messages", "sharer" };

	jsonmsg_begin_object(w, NULL);
	jsonmsg_put_text(w, "id", d->o->id);
	jsonmsg_put_text(w, "kind", d->o->user ? "vfio-user" : "vfio");
	jsonmsg_put_text(w, "path", d->o->path);
	jsonmsg_put_text(w, "dma", ways[d->o->dma]);
	jsonmsg_put_bool(w, "mandatory", d->o->mandatory);
	jsonmsg_put_text(w, "stage", d->stage);
	jsonmsg_put_u64(w, "stage_ns", now > d->since_ns ? now - d->since_ns : 0);
	jsonmsg_put_text(w, "state",
			 d->open ? vfiostate_name(d->group.device[0].state) : NULL);
	report_call(d, now, w);
	jsonmsg_put_u64(w, "bytes", d->bytes);
	jsonmsg_put_u64(w, "loaded", devthread_loaded(d->thread));
	jsonmsg_put_u64(w, "segments", d->segments);
	jsonmsg_put_u64(w, "error", (uint64_t)d->error);
	jsonmsg_put_text(w, "reason", d->why);
	report_gate(d, w);
	jsonmsg_end(w);
}

/**
 * devices_report - all of them
 */
void devices_report(const struct devices *all, struct jsonmsg_writer *w, const char *key)
{
	uint64_t now = clock_ns();

	jsonmsg_begin_array(w, key);
	for (unsigned i = 0; i < all->n; i++)
		report_device(all->device[i], now, w);
	jsonmsg_end(w);
}
