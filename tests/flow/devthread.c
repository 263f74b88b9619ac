/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The thread of a device, against a vfio-user server that does what it should, or answers one
 * question wrongly, late, or never; and against a call that never ends.  Whatever happens, each
 * order has its result, in order, and nobody but the thread waits.
 */
#include "config.h"

#include "daemon/devthread.h"

#include <errno.h>
#include <poll.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/guard.h"
#include "daemon/mailbox.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "tap.h"
#include "vfiouser.h"
#include "vfiouser_side.h"

#define MS	 UINT64_C(1000000)
#define PATIENCE (UINT64_C(300000) * MS) /* a watchdog: nothing here takes long */
#define QUESTIONS 24			 /* that a whole arrival asks a server, and a few more */

static struct carried state;

struct rig {
	struct vfiouser_child child;
	struct devthread *thread;
	int doorbell;
	uint64_t limit;
};

static int open_server(void *ctx, struct devio *out, const char **why)
{
	struct rig *rig = ctx;
	struct devio_vfiouser_options options = { .limit_ns = rig->limit };

	*why = "the server was not there";
	return devio_vfiouser_adopt(out, steal_fd(&rig->child.sock), &options);
}

static void start(struct rig *rig, const char *server, uint64_t limit)
{
	struct devthread_config config = {
		.name = "d", .open = open_server, .ctx = rig, .asks = true, .limit_ns = limit,
	};

	*rig = (struct rig){ .limit = limit, .doorbell = doorbell_new() };
	config.doorbell = rig->doorbell;
	vfiouser_spawn(&rig->child, server);
	rig->thread = devthread_new(&config);
	if (!rig->thread)
		tap_bail_out("no thread");
}

static bool stop(struct rig *rig)
{
	bool ended = devthread_free(rig->thread);

	vfiouser_reap(&rig->child);
	if (ended)
		close_fd(&rig->doorbell);
	return ended;
}

/* As the main loop does it: what is there, else look after the thread, and wait for the bell. */
static bool result(struct rig *rig, struct devthread_result *r)
{
	uint64_t begun = clock_ns();

	while (!devthread_get(rig->thread, r)) {
		struct pollfd p = { .fd = rig->doorbell, .events = POLLIN };
		uint64_t now = clock_ns(), next = devthread_look(rig->thread, now);
		uint64_t ms = next > now ? (next - now) / MS + 1 : 1;

		if (now - begun > PATIENCE)
			return false;
		poll(&p, 1, ms < 1000 ? (int)ms : 1000);
		doorbell_clear(rig->doorbell);
	}
	return true;
}

/* Segments as u64 lengths in front of their bytes. */
static int next_segment(int fd, uint64_t *at, uint64_t *length)
{
	ssize_t n = pread(fd, length, sizeof(*length), (off_t)*at);

	*at += sizeof(*length);
	return n == sizeof(*length) ? 1 : n == 0 ? 0 : -EIO;
}

static int state_file(size_t len)
{
	cleanup_fd int fd = memfd_create("state", MFD_CLOEXEC);

	for (size_t done = 0, part; done < len; done += part) {
		uint64_t length = part = len - done < 5000 ? len - done : 5000;

		if (write(fd, &length, sizeof(length)) != sizeof(length) ||
		    write(fd, state.bytes + done, part) != (ssize_t)part)
			tap_bail_out("no memory for a state");
	}
	return steal_fd(&fd);
}

static struct devthread_order set_to(enum vfiostate to)
{
	return (struct devthread_order){ .verb = DEVTHREAD_SET, .state = to, .fd = -1 };
}

static const struct {
	enum devthread_verb verb;
	enum vfiostate state;	/* SET; what it is in afterwards */
} arrival[] = {
	{ DEVTHREAD_OPEN, VFIOSTATE_RUNNING },	{ DEVTHREAD_MAP, VFIOSTATE_RUNNING },
	{ DEVTHREAD_SET, VFIOSTATE_STOP },	{ DEVTHREAD_SET, VFIOSTATE_RESUMING },
	{ DEVTHREAD_LOAD, VFIOSTATE_RESUMING }, { DEVTHREAD_SET, VFIOSTATE_STOP },
	{ DEVTHREAD_SET, VFIOSTATE_RUNNING },	{ DEVTHREAD_UNMAP, VFIOSTATE_RUNNING },
	{ DEVTHREAD_RESET, VFIOSTATE_RUNNING },
};

static void order_arrival(struct rig *rig, size_t len)
{
	for (unsigned i = 0; i < ARRAY_LEN(arrival); i++) {
		struct devthread_order o = {
			.verb = arrival[i].verb, .state = arrival[i].state, .fd = -1,
			.segment = next_segment, .dma = { 0x1000, 0x1000, 3, NULL, -1, 0 },
		};

		if (o.verb == DEVTHREAD_LOAD)
			o.fd = state_file(len);
		if (!devthread_put(rig->thread, &o))
			tap_bail_out("an order was not taken");
	}
}

/* All orders at once: their results come in their order, and say what became of each. */
static void goes_well(void)
{
	struct devthread_result r = { 0 };
	struct rig rig;
	unsigned good = 0;

	start(&rig, "seed=8", PATIENCE);
	order_arrival(&rig, state.len);
	for (unsigned i = 0; i < ARRAY_LEN(arrival) && result(&rig, &r); i++) {
		if (r.error || r.verb != arrival[i].verb || r.state != (int)arrival[i].state)
			tap_note("order %u: verb %d, error %d, state %d", i, (int)r.verb, r.error,
				 r.state);
		else
			good++;
	}
	tap_ok(good == ARRAY_LEN(arrival), "I4 orders are done one after the other: %u", good);
	tap_ok(devthread_loaded(rig.thread) == state.len, "F34 all of the stream was written");
	tap_ok(stop(&rig), "its thread ends");
}

/* What is not whole is not believed, and what the device says of its state is told. */
static void refuses_half(void)
{
	struct devthread_result r = { 0 };
	int seen = 0;
	struct rig rig;

	start(&rig, "seed=8", PATIENCE);
	order_arrival(&rig, state.len / 2);
	for (unsigned i = 0; i < ARRAY_LEN(arrival) && result(&rig, &r); i++)
		if (i == 5)
			seen = r.error ? r.state : -1;
	tap_ok(seen == VFIOSTATE_RESUMING, "S3-18 half a state is refused when it is left: %d",
	       seen);
	tap_ok(r.verb == DEVTHREAD_RESET && r.error == 0, "F30 and a reset leads out: %d",
	       r.error);
	stop(&rig);
}

struct arrived {
	bool told;	/* each order has one result, in order */
	bool broken;	/* the connection of a device that was open ended under one */
	unsigned lost;	/* and that was told by itself */
};

static void watch_arrival(struct rig *rig, struct arrived *a)
{
	struct devthread_result r;
	bool opened = false;

	for (unsigned i = 0; i < ARRAY_LEN(arrival);) {
		if (!result(rig, &r))
			return;
		a->lost += r.verb == DEVTHREAD_LOST;
		if (r.verb == DEVTHREAD_LOST)
			continue;
		if (r.verb != arrival[i++].verb)
			return;
		opened |= r.verb == DEVTHREAD_OPEN && r.error == 0;
		a->broken |= opened && r.error == -ECONNRESET;
	}
	a->told = true;
	if (a->broken && !a->lost)
		a->lost += result(rig, &r) && r.verb == DEVTHREAD_LOST;
}

static void survives(const char *vice, bool dies)
{
	unsigned told = 0, joined = 0, lost = 0, broken = 0;

	for (unsigned at = 0; at < QUESTIONS; at++) {
		struct arrived a = { 0 };
		char server[64];
		struct rig rig;

		snprintf(server, sizeof(server), "seed=8,vice=%s,at=%u", vice, at);
		start(&rig, server, dies ? PATIENCE : 50 * MS);
		order_arrival(&rig, state.len);
		watch_arrival(&rig, &a);
		told += a.told;
		broken += a.broken;
		lost += a.lost;
		joined += stop(&rig);
	}
	tap_ok(told == QUESTIONS && joined == QUESTIONS,
	       "F61 F33 %s at any of its answers: %u told all, %u ended", vice, told, joined);
	if (dies)
		tap_ok(broken > QUESTIONS / 2 && lost == broken,
		       "F61 %s: that it has gone was told %u times of %u", vice, lost, broken);
}

/* --- a call that never ends --- */

static int open_never(void *ctx, struct devio *out, const char **why)
{
	sem_t *sem = ctx;

	(void)out;
	(void)why;
	while (sem_wait(sem))
		continue;
	return -EIO;
}

static void gives_up(void)
{
	static sem_t never;
	static struct rig rig; /* of a thread that is left behind */
	struct devthread_config config = {
		.name = "stuck", .open = open_never, .ctx = &never, .limit_ns = 20 * MS,
	};
	struct devthread_order o = { .verb = DEVTHREAD_OPEN, .fd = -1 };
	struct devthread_result r = { 0 };
	unsigned late = 0;

	sem_init(&never, 0, 0);
	rig.doorbell = config.doorbell = doorbell_new();
	rig.thread = devthread_new(&config);
	devthread_put(rig.thread, &o);
	o = set_to(VFIOSTATE_STOP);
	devthread_put(rig.thread, &o);
	for (unsigned i = 0; i < 2 && result(&rig, &r); i++)
		late += r.error == -ETIMEDOUT;
	tap_ok(late == 2 && devthread_given_up(rig.thread),
	       "S3-76 a call that never ends is given up, with what waits behind it: %u", late);
	devthread_put(rig.thread, &o);
	tap_ok(result(&rig, &r) && r.error == -ETIMEDOUT, "and so is what is ordered later");
	tap_ok(!devthread_free(rig.thread), "F33 its thread is left behind");
}

static void is_bounded(void)
{
	struct devthread_order o = set_to(VFIOSTATE_STOP);
	struct devthread_result r;
	unsigned n = 0, ended = 0;
	struct rig rig;

	start(&rig, "seed=8", PATIENCE);
	while (n <= DEVTHREAD_ORDERS && devthread_put(rig.thread, &o))
		n++;
	while (ended < n && result(&rig, &r))
		ended += r.error == -ENODEV;
	tap_ok(n == DEVTHREAD_ORDERS && ended == n,
	       "so many orders and no more, none before it is open: %u, %u", n, ended);
	stop(&rig);
}

static void save(void)
{
	struct side source;

	if (side_open(&source, "seed=7") || side_save(&source, 2, &state))
		tap_bail_out("no state to load");
	side_close(&source);
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (devwatch_prepare())
		tap_bail_out("no signal");
	save();
	goes_well();
	refuses_half();
	is_bounded();
	survives("die", true);
	survives("die-half", true);
	survives("silent", false);
	survives("late", false);
	survives("short", false);
	survives("huge", false);
	survives("error", false);
	survives("id", false);
	gives_up();
	return tap_done();
}
