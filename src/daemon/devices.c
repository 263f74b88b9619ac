/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A device can neither fault nor wait for a page, so here it comes last (4.2, 4.3 of VFIO's part of
 * postcopyd-theory(7)):
 *
 *   opened	when the daemon starts, with nothing mapped for it
 *   loaded	when faults are served, and before the VM runs: who says that it may asks
 *		devices_may_run() first.  So a device that does not take its state is known while
 *		the source could still resume the VM
 *   mapped	each range when all its pages are there, as the gate says
 *   started	when the VM runs and all it reaches is mapped
 *
 * One step of a device follows from what is known (device_step()), never from where a step was
 * left; each asks the plan of an arrival (core/cutover.h) before it is done.  What a step takes is
 * done by the device's own thread; this one never waits for it, nor does the fault thread.
 *
 * Each device is a group of its own (core/devgroup.h): nothing but RAM is ever mapped here, so none
 * can address another one, and none has to wait for another's memory.
 *
 * PARK and UNPARK are the VMM's: it keeps its vCPUs off a device that is not running.  Here they
 * are taken for granted when the VM is let run, and when the device does.
 *
 * A device that fails is lost: reset, if it lets itself be, and left alone.  The VM goes on without
 * it; if it is mandatory and the source could still resume the VM, the migration is refused
 * instead, and if not, its name stays among the blockers.  A device whose thread is stuck is lost
 * without a reset.
 */
#include "config.h"
#include "daemon/devices_parts.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include <gio/gio.h>
#include <glib-unix.h>

#include "daemon/mailbox.h"
#include "sys/clock.h"
#include "sys/devio_vfio.h"
#include "sys/devio_vfiouser.h"
#include "sys/fd.h"

#define MS UINT64_C(1000000)

/* --- what is told ----------------------------------------------------------------------------- */

/**
 * device_enter - it has taken a step
 * @stage: static
 */
void device_enter(struct device *d, const char *stage)
{
	const struct devices_config *c = &d->all->config;
	g_autofree char *text = g_strdup_printf("%s: %s", d->o->id, stage);

	d->stage = stage;
	d->since_ns = clock_ns();
	g_message("device %s", text);
	c->event(c->ctx, "device", text);
}

static void refuse(struct device *d)
{
	const struct devices_config *c = &d->all->config;
	g_autofree char *text = g_strdup_printf("mandatory device %s: %s", d->o->id, d->why);

	c->refuse(c->ctx, EIO, text);
}

int device_abort(struct device *d, int error)
{
	const struct devgroup_result r = { error, (int)d->group.device[0].state };

	if (d->awaits_state)
		devgroup_went(&d->group, 0, &r);
	d->awaits_state = false;
	return devgroup_abort(&d->group);
}

/**
 * device_lose - the VM has to do without it
 * @fmt: why, for people
 */
void device_lose(struct device *d, int error, const char *fmt, ...)
{
	va_list args;

	if (d->lost)
		return;
	d->lost = true;
	d->error = error;
	va_start(args, fmt);
	vsnprintf(d->why, sizeof(d->why), fmt, args);
	va_end(args);
	g_warning("device %s is lost: %s", d->o->id, d->why);
	device_enter(d, "lost");
	device_ask_close(d);
	gatekeeper_forget(d->all->config.gates, d);
	/* once it was asked to run its group has reset it, or tries to */
	if (d->open)
		(void)device_abort(d, -error);
	if (d->o->mandatory && !d->all->let)
		refuse(d);
	d->all->config.changed(d->all->config.ctx);
}

bool devices_serve(const struct devices *all)
{
	const struct snapshot *s = all->snapshot;

	return s && s->listening_ns && s->state >= SESSION_LOADING && s->state != SESSION_FAILED;
}

bool devices_failed(const struct devices *all)
{
	return all->snapshot && all->snapshot->state == SESSION_FAILED;
}

bool devices_run(const struct devices *all)
{
	const struct snapshot *s = all->snapshot;

	return s && all->let && (s->state == SESSION_RUNNING || s->state == SESSION_COMPLETE);
}

/* --- the main loop ---------------------------------------------------------------------------- */

static gboolean on_timer(gpointer data);

static uint64_t next_look(struct device *d, uint64_t now)
{
	uint64_t next = devthread_look(d->thread, now);

	if (!d->lost && !d->open && !d->opening)
		next = MIN(next, d->retry_ns);
	return MIN(next, MAX(device_gives_up(d), now + MS));
}

static void set_timer(struct devices *all)
{
	uint64_t now = clock_ns(), next = UINT64_MAX;

	for (unsigned i = 0; i < all->n; i++)
		next = MIN(next, next_look(all->device[i], now));
	g_clear_handle_id(&all->timer, g_source_remove);
	if (next == UINT64_MAX)
		return;
	next = next > now ? (next - now) / MS + 1 : 1;
	all->timer = g_timeout_add((guint)MIN(next, 1000), on_timer, all);
}

/* Until none has anything more to do by itself. */
static void step_all(struct devices *all)
{
	bool again = true;

	if (all->stepping)
		return;
	all->stepping = true;
	while (again) {
		again = false;
		for (unsigned i = 0; i < all->n; i++)
			again |= device_step(all->device[i], clock_ns());
	}
	all->stepping = false;
	set_timer(all);
}

static gboolean on_timer(gpointer data)
{
	struct devices *all = data;

	all->timer = 0;
	step_all(all);
	return G_SOURCE_REMOVE;
}

static gboolean on_bell(gint fd, GIOCondition condition, gpointer data)
{
	(void)condition;
	doorbell_clear(fd);
	step_all(data);
	return G_SOURCE_CONTINUE;
}

/**
 * devices_look - there is a fresh snapshot
 */
void devices_look(struct devices *all, const struct snapshot *s)
{
	all->snapshot = s;
	if (all->n == 0)
		return;
	if (devices_serve(all))
		devices_take_blocks(all);
	step_all(all);
}

/**
 * devices_state_changed - look into the spool again
 */
void devices_state_changed(struct devices *all)
{
	doorbell_ring(all->doorbell);
}

/**
 * devices_may_run - is each device loaded, or lost?
 */
bool devices_may_run(struct devices *all)
{
	if (!all->wanted)
		all->wanted_ns = clock_ns();
	all->wanted = true;
	doorbell_ring(all->doorbell);
	for (unsigned i = 0; i < all->n; i++)
		if (!device_settled(all->device[i]))
			return false;
	for (unsigned i = 0; i < all->n && !all->let; i++)
		device_let(all->device[i]);
	if (!all->let && all->n)
		devspool_shut(all->config.spool);
	all->let = true;
	return true;
}

/**
 * devices_used - are there any that were loaded for a VM that runs?
 *
 * A device ends with its handle, which is ours.
 */
bool devices_used(const struct devices *all)
{
	for (unsigned i = 0; i < all->n; i++)
		if (all->let && !all->device[i]->lost)
			return true;
	return false;
}

/* --- beginning and end ------------------------------------------------------------------------ */

/* In the device's thread. */
static int open_device(void *ctx, struct devio *out, const char **why)
{
	struct device *d = ctx;
	const struct devio_vfiouser_memory memory = { device_ask_read, device_ask_write, d };
	const struct devio_vfiouser_options options = {
		.limit_ns = d->limit_ns,
		.memory = d->o->dma == OPTIONS_DMA_MESSAGES ? &memory : NULL,
	};

	if (d->o->user)
		return devio_vfiouser_open(out, d->o->path, &options);
	return devio_vfio_open(out, d->o->path, why);
}

static bool add(struct devices *all, const struct options_vfio *o, GError **error)
{
	struct device *d = g_new0(struct device, 1);
	struct devthread_config config = {
		.name = o->id, .open = open_device, .ctx = d, .asks = o->user,
		.limit_ns = o->deadline_ms * MS, .doorbell = all->doorbell,
	};
	int ret;

	*d = (struct device){ .all = all, .o = o, .index = all->n, .limit_ns = config.limit_ns,
			      .stage = "opening", .since_ns = clock_ns(), .gate = -1 };
	d->ranges = g_array_new(FALSE, TRUE, sizeof(struct device_range));
	all->device[all->n++] = d;
	cutover_init(&d->cutover, CUTOVER_ARRIVAL);
	ret = device_ask_init(d);
	ret = ret ? ret : device_dma_init(d);
	if (!ret)
		d->thread = devthread_new(&config);
	if (d->thread)
		return true;
	g_set_error(error, G_IO_ERROR, (gint)g_io_error_from_errno(ret ? -ret : ENOMEM),
		    "--vfio id=%s: %s", o->id,
		    ret ? g_strerror(-ret) : "there is no thread for it");
	return false;
}

/**
 * devices_new - a thread for each; they are opened by and by
 * @config: copied; what it points to outlives the devices
 */
struct devices *devices_new(const struct devices_config *config, GError **error)
{
	const GPtrArray *vfio = config->options->vfio;
	struct devices *all = g_new0(struct devices, 1);

	all->config = *config;
	all->asks = -1;
	all->doorbell = doorbell_new();
	if (all->doorbell < 0 || devwatch_prepare()) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "--vfio: no descriptor is left");
		devices_free(all);
		return NULL;
	}
	all->bell = g_unix_fd_add(all->doorbell, G_IO_IN, on_bell, all);
	for (unsigned i = 0; i < vfio->len; i++)
		if (!add(all, g_ptr_array_index(vfio, i), error)) {
			devices_free(all);
			return NULL;
		}
	doorbell_ring(all->doorbell);
	return all;
}

/* A thread that is stuck keeps its device, and the bell it may still ring. */
static bool free_device(struct device *d)
{
	device_ask_close(d);
	gatekeeper_forget(d->all->config.gates, d);
	if (!devthread_free(d->thread))
		return false;
	close_fd(&d->ask.bell);
	g_array_unref(d->ranges);
	g_free(d);
	return true;
}

/**
 * devices_free - close them; NULL is fine
 *
 * Before the gatekeeper goes.
 */
void devices_free(struct devices *all)
{
	bool left = false;

	if (!all)
		return;
	g_clear_handle_id(&all->bell, g_source_remove);
	g_clear_handle_id(&all->timer, g_source_remove);
	gatekeeper_forget(all->config.gates, all);
	for (unsigned i = 0; i < all->n; i++)
		left |= !free_device(all->device[i]);
	if (left)
		return;
	devices_drop_blocks(all);
	close_fd(&all->doorbell);
	g_free(all);
}
