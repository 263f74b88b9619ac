// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Devices leave by the host's plan (cutover.c, plan H): the vCPUs stand still, no device begins
 * anything at another one, all stop, all are saved, and only then anything is said to the
 * destination that it cannot take back.  Which device does what next is the group's to say
 * (devgroup.c); they are asked one after the other, since nothing else runs while they stop.
 *
 * As long as the VM was not handed over there is a way back: whatever fails, here or in the
 * migration around it, all devices run again.
 *
 * A call of the kernel has no time limit of its own: a second thread interrupts the one that
 * exceeds its device's deadline (devwatch.h), and says so when that does not help.
 */
#include "config.h"

#include "source_devices.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/guard.h"
#include "sys/clock.h"
#include "tools/source_vfio.h"

#define ROUNDS	 8	    /* of pre-copy, at most */
#define SHARE	 (64u << 20) /* bytes of a device in a round; its last segment may add */
#define LOOK_NS	 20000000   /* of the watchdog */

struct source_devices {
	const struct source_options *options;
	struct source_sink sink;
	struct cutover plan;
	struct devgroup group;
	unsigned n;
	struct source_vfio device[DEVGROUP_MAX];
	bool watched;
	pthread_t watchdog;
	atomic_bool over;
	char problem[256];
};

/* The first one counts. */
static int note(struct source_devices *d, int error, const struct source_vfio *v, const char *why)
{
	if (d->problem[0])
		return error;
	if (d->sink.problem[0])
		snprintf(d->problem, sizeof(d->problem), "%s", d->sink.problem);
	else if (v)
		snprintf(d->problem, sizeof(d->problem), "device %s: %s: %s", v->spec->id, v->what,
			 why ? why : strerror(-error));
	else
		snprintf(d->problem, sizeof(d->problem), "devices: %s", why);
	return error;
}

/* --- the watchdog ----------------------------------------------------------------------------- */

static void look_at(struct source_vfio *v, uint64_t *told)
{
	struct devwatch *w = devio_watch(&v->io);
	struct devwatch_call call;
	uint64_t now = clock_ns();

	if (!devwatch_look(w, &call) || call.until > now)
		return;
	(void)devwatch_interrupt(w, &call);
	if (now - call.until < call.until - call.since || *told == call.since)
		return;
	*told = call.since;
	fprintf(stderr, "postcopy-source: device %s: %s has taken twice its deadline and cannot be "
		"interrupted\n", v->spec->id, call.what);
}

static void *watch(void *arg)
{
	const struct timespec pause = { .tv_nsec = LOOK_NS };
	uint64_t told[DEVGROUP_MAX] = { 0 };
	struct source_devices *d = arg;

	while (!atomic_load(&d->over)) {
		for (unsigned i = 0; i < d->n; i++)
			look_at(&d->device[i], &told[i]);
		nanosleep(&pause, NULL);
	}
	return NULL;
}

/* --- set-up ----------------------------------------------------------------------------------- */

static int open_one(struct source_devices *d, const struct source_vfio_spec *spec)
{
	struct source_vfio *v = &d->device[d->n++];
	struct devgroup_facts facts = { .vpri = false };
	const char *why = NULL;
	int r;

	source_vfio_init(v, spec);
	r = source_vfio_open(v, &why);
	if (r < 0)
		return note(d, r, v, why);
	facts.caps = v->mig.caps;
	r = devgroup_add(&d->group, &facts);
	return r < 0 ? note(d, r, v, "too many devices") : 0;
}

static int check_group(struct source_devices *d)
{
	for (unsigned i = 0; i < d->n; i++)
		if (devgroup_blockers(&d->group, i) & DEVGROUP_PEERLESS)
			return note(d, -EPERM, &d->device[i],
				    "it cannot be quiesced, and another device could address it "
				    "while it stands still (--devices-apart: none can)");
	return 0;
}

static int start(struct source_devices *d)
{
	const struct source_options *o = d->options;
	int r = devwatch_prepare();

	for (unsigned i = 0; i < o->n_vfio && r == 0; i++)
		r = open_one(d, &o->vfio[i]);
	if (r == 0)
		r = check_group(d);
	if (r < 0)
		return r;
	r = -pthread_create(&d->watchdog, NULL, watch, d);
	d->watched = r == 0;
	if (r == 0 && o->device_channel)
		r = source_sink_dial(&d->sink, o->device_channel);
	for (unsigned i = 0; i < d->n && r == 0; i++)
		r = source_vfio_begin(&d->device[i], &d->sink, i);
	return r < 0 ? note(d, r, NULL, strerror(-r)) : 0;
}

struct source_devices *source_devices_new(struct source_options *o, int *error, char problem[256])
{
	const struct devgroup_config config = { .peers_apart = o->devices_apart,
						.limit = UINT64_MAX };
	struct source_devices *d;

	*error = 0;
	if (!o->n_vfio)
		return NULL;
	d = calloc(1, sizeof(*d));
	*error = d ? 0 : -ENOMEM;
	if (!d)
		return NULL;
	d->options = o;
	source_sink_init(&d->sink, &o->faults);
	memcpy(d->sink.session, o->session, sizeof(d->sink.session));
	cutover_init(&d->plan, CUTOVER_HOST);
	devgroup_init(&d->group, &config, false);
	*error = start(d);
	if (*error == 0)
		return d;
	memcpy(problem, d->problem, sizeof(d->problem));
	source_devices_free(d);
	return NULL;
}

void source_devices_free(struct source_devices *d)
{
	if (!d)
		return;
	atomic_store(&d->over, true);
	if (d->watched)
		pthread_join(d->watchdog, NULL);
	for (unsigned i = 0; i < d->n; i++)
		source_vfio_deinit(&d->device[i]);
	source_sink_deinit(&d->sink);
	free(d);
}

/* --- steps ------------------------------------------------------------------------------------ */

int source_devices_may(struct source_devices *d, enum cutover_step step)
{
	const char *rule = d ? cutover_edge(&d->plan, step) : NULL;

	return rule ? note(d, -EPERM, NULL, rule) : 0;
}

void source_devices_did(struct source_devices *d, enum cutover_step step)
{
	if (d)
		(void)cutover_did(&d->plan, step); /* source_devices_may() has asked */
}

/* All that the group wants to be done, until it is where it was told to go, or back. */
static int run(struct source_devices *d)
{
	struct devgroup_action a;

	while (devgroup_next(&d->group, clock_ns(), &a)) {
		struct source_vfio *v = &d->device[a.device];
		struct devgroup_result result = { .error = source_vfio_act(v, &a, &d->sink) };

		result.state = v->mig.state;
		if (result.error < 0)
			(void)note(d, result.error, v, NULL);
		devgroup_went(&d->group, a.device, &result);
	}
	if (d->group.returning)
		return d->group.error < 0 ? d->group.error : -EIO;
	return 0;
}

static int go(struct source_devices *d, enum devgroup_stage goal)
{
	if (devgroup_go(&d->group, goal) < 0)
		return note(d, -EPERM, NULL, "they cannot go on from where they are");
	return run(d);
}

static int step(struct source_devices *d, enum cutover_step step, enum devgroup_stage goal)
{
	int r = source_devices_may(d, step);

	if (r == 0)
		r = go(d, goal);
	if (r == 0)
		source_devices_did(d, step);
	return r;
}

/* Bytes of all devices; -errno. */
static int64_t one_round(struct source_devices *d)
{
	int64_t sum = 0;

	for (unsigned i = 0; i < d->n; i++) {
		int64_t n = 0;

		if (d->device[i].mig.state == VFIOSTATE_PRECOPY)
			n = source_vfio_round(&d->device[i], &d->sink, SHARE);
		if (n < 0)
			return note(d, (int)n, &d->device[i], NULL);
		sum += n;
	}
	return sum;
}

int source_devices_precopy(struct source_devices *d)
{
	int64_t n = 1;
	int r;

	if (!d)
		return 0;
	r = go(d, DEVGROUP_PRECOPY);
	for (unsigned i = 0; i < ROUNDS && r == 0 && n > 0; i++) {
		n = one_round(d);
		r = n < 0 ? (int)n : 0;
	}
	if (r < 0)
		source_devices_back(d);
	return r;
}

int source_devices_save(struct source_devices *d)
{
	static const struct {
		enum cutover_step step;
		enum devgroup_stage stage;
	} steps[] = {
		{ CUTOVER_QUIESCE, DEVGROUP_QUIESCED },
		{ CUTOVER_DEVICES_STOP, DEVGROUP_STOPCOPY },
		{ CUTOVER_SAVE, DEVGROUP_SAVED },
	};
	int r = 0;

	if (!d)
		return 0;
	for (unsigned i = 0; i < ARRAY_LEN(steps) && r == 0; i++)
		r = step(d, steps[i].step, steps[i].stage);
	if (r == 0)
		r = go(d, DEVGROUP_STOPPED);
	if (r == 0 && source_sink_finish(&d->sink) < 0)
		r = note(d, -ECONNRESET, NULL, "their state did not arrive");
	if (r < 0)
		source_devices_back(d);
	return r;
}

void source_devices_back(struct source_devices *d)
{
	if (!d || !cutover_may_abort(&d->plan))
		return;
	(void)devgroup_abort(&d->group); /* only who has arrived cannot */
	(void)run(d);
}

const char *source_devices_problem(const struct source_devices *d)
{
	return d->problem;
}

/* --- what is told ----------------------------------------------------------------------------- */

const uint8_t *source_devices_records(const struct source_devices *d, size_t *len)
{
	if (!d || d->sink.dialled)
		return NULL;
	*len = d->sink.len;
	return d->sink.bytes;
}

static const char *state_of(const struct source_devices *d, unsigned i)
{
	if (d->group.device[i].lost)
		return "lost";
	return vfiostate_name(d->group.device[i].state);
}

static void report_one(const struct source_devices *d, unsigned i, struct jsonmsg_writer *w)
{
	const struct source_vfio *v = &d->device[i];
	char digest[17];

	snprintf(digest, sizeof(digest), "%016" PRIx64, digest_value(&v->digest));
	jsonmsg_begin_object(w, NULL);
	jsonmsg_put_text(w, "id", v->spec->id);
	jsonmsg_put_text(w, "kind", v->mig.caps.v2 ? "stream" : "region");
	jsonmsg_put_text(w, "state", state_of(d, i));
	jsonmsg_put_u64(w, "segments", v->writer.segments);
	jsonmsg_put_u64(w, "bytes", v->writer.bytes);
	jsonmsg_put_u64(w, "rounds", v->rounds);
	jsonmsg_put_u64(w, "ms", v->busy_ns / 1000000);
	jsonmsg_put_text(w, "digest", digest);
	jsonmsg_end(w);
}

void source_devices_report(const struct source_devices *d, struct jsonmsg_writer *w)
{
	jsonmsg_begin_array(w, "devices");
	for (unsigned i = 0; d && i < d->n; i++)
		report_one(d, i, w);
	jsonmsg_end(w);
}

void source_devices_print(const struct source_devices *d)
{
	for (unsigned i = 0; d && i < d->n; i++) {
		const struct source_vfio *v = &d->device[i];

		printf("device %s: %s, %" PRIu64 " bytes in %" PRIu64 " segments, %" PRIu64
		       " ms\n", v->spec->id, state_of(d, i), v->writer.bytes, v->writer.segments,
		       v->busy_ns / 1000000);
	}
}
