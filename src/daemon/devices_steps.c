/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a device does next, from what is known of it, of the session and of its memory.  A step that
 * cannot be taken yet is looked at again each time; none is taken twice, because the plan of the
 * arrival and the goal of the group say how far it is.
 */
#include "config.h"
#include "daemon/devices_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "core/guard.h"

#define RETRY_NS UINT64_C(300000000) /* for a server that is not there yet */

static bool is_done(const struct device *d, enum cutover_step step)
{
	return d->cutover.done >> step & 1;
}

/* A step of the plan; true: it was done just now. */
static bool did(struct device *d, enum cutover_step step)
{
	return cutover_did(&d->cutover, step) == 0;
}

bool device_settled(const struct device *d)
{
	return d->lost || is_done(d, CUTOVER_LOAD);
}

/* --- results ---------------------------------------------------------------------------------- */

static const char *said(const struct devthread_result *r)
{
	return r->why ? r->why : g_strerror(-r->error);
}

/* May it be there in a moment? */
static bool is_absent(int error)
{
	return error == -ENOENT || error == -ECONNREFUSED || error == -EAGAIN;
}

static void put(struct device *d, const struct devthread_order *o)
{
	if (!devthread_put(d->thread, o))
		device_lose(d, EOVERFLOW, "it has more to do than it ever should");
}

static void begin(struct device *d, const struct vfiostate_caps *caps)
{
	const struct devgroup_config config = { .peers_apart = true, .mandatory = true };
	const struct devgroup_facts facts = {
		.caps = *caps,
		.maps_resuming = d->o->user && d->o->dma == OPTIONS_DMA_GATE,
	};

	devgroup_init(&d->group, &config, true);
	devgroup_add(&d->group, &facts);
	d->open = true;
	d->opening = false;
	d->why[0] = '\0';
	device_enter(d, "idle");
	d->all->config.changed(d->all->config.ctx);
}

static void went_open(struct device *d, const struct devthread_result *r, uint64_t now)
{
	g_strlcpy(d->compat, r->compat, sizeof(d->compat));
	if (!r->error && r->state == VFIOSTATE_RUNNING) {
		d->caps = r->caps;
		begin(d, &r->caps);
	} else if (!r->error) {
		/* whoever had it before left it so */
		d->caps = r->caps;
		put(d, &(struct devthread_order){ .verb = DEVTHREAD_RESET, .fd = -1 });
	} else if (is_absent(r->error)) {
		d->opening = false;
		d->retry_ns = now + RETRY_NS;
		g_strlcpy(d->why, said(r), sizeof(d->why));
	} else {
		d->opening = false;
		device_lose(d, -r->error, "it cannot be opened: %s", said(r));
	}
}

static void went_first_reset(struct device *d, const struct devthread_result *r)
{
	if (!r->error && r->state == VFIOSTATE_RUNNING) {
		begin(d, &d->caps);
		return;
	}
	d->opening = false;
	device_lose(d, r->error ? -r->error : EIO, "it was left in use, and cannot be reset");
}

/* The first of its errors is the reason; what follows is what was done about it. */
static void note(struct device *d, const struct devthread_result *r)
{
	static const char *const words[DEVTHREAD_VERBS] = {
		[DEVTHREAD_SET] = "it does not change its state",
		[DEVTHREAD_RESET] = "it cannot be reset",
		[DEVTHREAD_LOAD] = "it does not take the state of its twin",
	};

	if (r->error && !d->why[0])
		g_snprintf(d->why, sizeof(d->why), "%s: %s", words[r->verb], said(r));
}

static void went_group(struct device *d, const struct devthread_result *r)
{
	const struct devgroup_device *g = &d->group.device[0];

	note(d, r);
	devgroup_went(&d->group, 0, &(struct devgroup_result){ r->error, r->state });
	if (g->lost || g->error) {
		g_autofree char *why = g_strdup(d->why);

		device_lose(d, -g->error, "%s",
			    *why ? why : "it is not in the state that it was asked for");
	}
}

static void went(struct device *d, const struct devthread_result *r, uint64_t now)
{
	if (r->verb == DEVTHREAD_LOST)
		device_lose(d, -r->error, "its server has gone: %s", said(r));
	else if (r->verb == DEVTHREAD_OPEN)
		went_open(d, r, now);
	else if (r->verb == DEVTHREAD_MAP || r->verb == DEVTHREAD_UNMAP)
		device_went_dma(d, r);
	else if (d->opening)
		went_first_reset(d, r);
	else
		went_group(d, r);
}

/* --- its state -------------------------------------------------------------------------------- */

static void give_state(struct device *d)
{
	const struct devspool_device *s = devspool_find(d->all->config.spool, d->o->id);
	struct devthread_order o = { .verb = DEVTHREAD_LOAD, .segment = devspool_segment };
	bool v2 = d->group.device[0].facts.caps.v2;

	if (!s || !s->complete)
		return;
	if ((s->kind == DEVSTATE_STREAM) != v2) {
		device_lose(d, EPROTO, "its twin has another version of device migration");
		return;
	}
	if (*s->compat && *d->compat && strcmp(s->compat, d->compat) != 0) {
		device_lose(d, EPROTO, "it is %s, and its twin is %s", d->compat, s->compat);
		return;
	}
	/* outlives what may become of it in the spool */
	o.fd = fcntl(s->fd, F_DUPFD_CLOEXEC, 0);
	if (o.fd < 0) {
		device_lose(d, errno, "no descriptor is left for its state");
		return;
	}
	d->awaits_state = false;
	d->attempt = s->attempts;
	d->bytes = s->bytes;
	d->segments = s->segments;
	put(d, &o);
}

/*
 * Its twin was saved once more: it has run since, and what was loaded here is old.  A device that
 * was loaded twice with different states is none to be trusted.
 */
static void check_attempt(struct device *d)
{
	const struct devspool_device *s = devspool_find(d->all->config.spool, d->o->id);

	if (d->attempt && s && s->attempts != d->attempt)
		device_lose(d, ESTALE, "its twin was saved anew after its state was loaded here");
}

/* Does it wait for something that may never come? */
static bool is_kept_waiting(const struct device *d)
{
	return !d->open || d->awaits_state || !device_premapped(d);
}

uint64_t device_gives_up(const struct device *d)
{
	const struct devices *all = d->all;

	if (d->o->mandatory || !all->wanted || device_settled(d) || !is_kept_waiting(d))
		return UINT64_MAX;
	return all->wanted_ns + d->limit_ns;
}

static void give_up_waiting(struct device *d, uint64_t now)
{
	if (now < device_gives_up(d))
		return;
	device_lose(d, ETIMEDOUT, "%s",
		    !d->open ? "it is not there" :
		    d->awaits_state ? "its state did not come" :
				      "its memory could not be mapped in time");
}

/* --- the plan --------------------------------------------------------------------------------- */

static void load(struct device *d)
{
	if (d->group.goal == DEVGROUP_REST && device_premapped(d) &&
	    !cutover_edge(&d->cutover, CUTOVER_LOAD) &&
	    devgroup_go(&d->group, DEVGROUP_LOADED) == 0)
		device_enter(d, "loading");
	if (d->group.goal == DEVGROUP_LOADED && devgroup_done(&d->group) &&
	    did(d, CUTOVER_LOAD)) {
		device_enter(d, "loaded");
		d->all->config.changed(d->all->config.ctx);
	}
}

void device_let(struct device *d)
{
	/* The VMM traps what the guest does to a device that does not run. */
	if (!d->lost && did(d, CUTOVER_PARK))
		did(d, CUTOVER_VCPUS_RUN);
}

static void start(struct device *d)
{
	if (d->group.goal == DEVGROUP_LOADED && devgroup_go(&d->group, DEVGROUP_MAPPABLE) == 0)
		device_enter(d, "waiting");
	if (d->group.goal == DEVGROUP_MAPPABLE && devgroup_done(&d->group) && device_mapped(d) &&
	    did(d, CUTOVER_MAP) && !cutover_edge(&d->cutover, CUTOVER_START)) {
		if (d->gate >= 0)
			gatekeeper_ran(d->all->config.gates, d->gate);
		device_enter(d, "starting");
		(void)devgroup_go(&d->group, DEVGROUP_RUNNING);
	}
	if (d->group.goal == DEVGROUP_RUNNING && devgroup_done(&d->group) &&
	    did(d, CUTOVER_START)) {
		did(d, CUTOVER_RUN);
		did(d, CUTOVER_UNPARK);
		device_enter(d, "running");
	}
}

static void arrive(struct device *d)
{
	if (did(d, CUTOVER_DISCARDED))
		did(d, CUTOVER_SERVE);
	device_declare(d);
	device_map(d);
	load(d);
	if (d->awaits_state)
		give_state(d);
	check_attempt(d);
	if (devices_run(d->all) && is_done(d, CUTOVER_VCPUS_RUN))
		start(d);
}

/* The source's VM goes on: what was loaded here must never run. */
static void leave(struct device *d)
{
	if (d->group.goal == DEVGROUP_REST || d->group.goal == DEVGROUP_CLEARED ||
	    device_abort(d, -ECANCELED))
		return;
	device_enter(d, "reset");
}

/* --- what is asked of it ---------------------------------------------------------------------- */

static bool order_next(struct device *d, uint64_t now)
{
	static const enum devthread_verb verbs[] = {
		[DEVGROUP_SET] = DEVTHREAD_SET, [DEVGROUP_RESET] = DEVTHREAD_RESET,
	};
	struct devgroup_action a;

	if (!d->open || !devgroup_next(&d->group, now, &a))
		return false;
	if (a.verb == DEVGROUP_LOAD)
		d->awaits_state = true;
	else
		put(d, &(struct devthread_order){ .verb = verbs[a.verb], .state = a.state,
						  .fd = -1 });
	return true;
}

bool device_step(struct device *d, uint64_t now)
{
	struct devthread_result r;

	devthread_look(d->thread, now);
	while (devthread_get(d->thread, &r))
		went(d, &r, now);
	device_ask_look(d);
	if (!d->lost && !d->open && !d->opening && now >= d->retry_ns) {
		d->opening = true;
		put(d, &(struct devthread_order){ .verb = DEVTHREAD_OPEN, .fd = -1 });
	}
	if (!d->lost && d->open && devices_serve(d->all))
		arrive(d);
	if (!d->lost && d->open && devices_failed(d->all))
		leave(d);
	give_up_waiting(d, now);
	return order_next(d, now);
}
