// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What was sent on a connection counts when the receiver has said that all of it is there: before
 * that, a device that was saved can still go back, and afterwards nobody needs to ask again.
 */
#include "config.h"

#include "source_sink.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "core/guard.h"

#define ROOM (1u << 20) /* at first */

/**
 * source_sink_init - into memory, until it is dialled
 */
void source_sink_init(struct source_sink *k, struct source_faults *faults)
{
	memset(k, 0, sizeof(*k));
	source_lane_init(&k->lane);
	k->faults = faults;
}

void source_sink_deinit(struct source_sink *k)
{
	source_lane_deinit(&k->lane);
	free(steal_ptr(&k->bytes));
}

static int fail(struct source_sink *k, int error, const char *why)
{
	if (!k->problem[0])
		snprintf(k->problem, sizeof(k->problem), "device channel: %s", why);
	return error;
}

static int keep(struct source_sink *k, const void *bytes, size_t len)
{
	if (len > k->room - k->len) {
		size_t room = (k->len + len) * 2 + ROOM;
		uint8_t *more = realloc(k->bytes, room);

		if (!more)
			return -ENOMEM;
		k->bytes = more;
		k->room = room;
	}
	memcpy(k->bytes + k->len, bytes, len);
	k->len += len;
	return 0;
}

static int send_all(struct source_sink *k, const uint8_t *bytes, size_t len)
{
	int r = source_lane_write(&k->lane, bytes, len);

	return r < 0 ? fail(k, r, strerror(-r)) : 0;
}

/* One byte: wrong, late, or never, like everything behind it. */
static int strike(struct source_sink *k, const struct source_fault *f, const uint8_t *at)
{
	struct timespec wait = { .tv_sec = (time_t)(f->arg / 1000),
				 .tv_nsec = (long)(f->arg % 1000) * 1000000 };
	uint8_t flipped = *at ^ 0xff;

	switch (f->kind->action) {
	case SOURCE_CORRUPT:
		return send_all(k, &flipped, 1);
	case SOURCE_DELAY:
		nanosleep(&wait, NULL);
		return send_all(k, at, 1);
	case SOURCE_DIE:
		source_lane_reset(&k->lane);
		break;
	default:
		source_lane_drain(&k->lane);
		source_lane_hang_up(&k->lane);
		break;
	}
	return fail(k, -ECONNABORTED, f->kind->name);
}

static int send_with_faults(struct source_sink *k, const uint8_t *at, size_t len)
{
	const uint8_t *end = at + len;
	struct source_fault *f;
	uint64_t offset;

	while (at < end &&
	       (f = source_faults_at_byte(k->faults, SOURCE_AT_CHANNEL, atomic_load(&k->lane.bytes),
					  (uint64_t)(end - at), &offset))) {
		int r = send_all(k, at, offset);

		if (r == 0)
			r = strike(k, f, at + offset);
		if (r < 0)
			return r;
		at += offset + 1;
	}
	return send_all(k, at, (size_t)(end - at));
}

/**
 * source_sink_write - the next bytes
 */
int source_sink_write(struct source_sink *k, const void *bytes, size_t len)
{
	return k->dialled ? send_with_faults(k, bytes, len) : keep(k, bytes, len);
}

static void make_greeting(const struct source_sink *k, uint8_t out[DEVSTATE_GREETING])
{
	struct pen p = pen_init(out, DEVSTATE_GREETING);

	devstate_put_greeting(&p, k->session);
}

/**
 * source_sink_dial - connect to a destination's --device-channel
 * @address: as for source_lane_dial()
 */
int source_sink_dial(struct source_sink *k, const char *address)
{
	uint8_t greeting[DEVSTATE_GREETING];
	int r = source_lane_dial(&k->lane, address);

	if (r < 0)
		return fail(k, r, strerror(-r));
	k->dialled = true;
	make_greeting(k, greeting);
	return source_sink_write(k, greeting, sizeof(greeting));
}

/**
 * source_sink_finish - wait for the receiver's word
 *
 * It has no time limit: who reads does so at its own speed, and whoever started us can end us.
 */
int source_sink_finish(struct source_sink *k)
{
	uint8_t wanted[DEVSTATE_GREETING], answer[DEVSTATE_GREETING];
	ssize_t n;

	if (!k->dialled)
		return 0;
	make_greeting(k, wanted);
	source_lane_finish(&k->lane);
	n = recv(k->lane.fd, answer, sizeof(answer), MSG_WAITALL);
	if (n == (ssize_t)sizeof(answer) && memcmp(answer, wanted, sizeof(answer)) == 0)
		return 0;
	return fail(k, -ECONNRESET, "the destination did not say that all is there");
}
