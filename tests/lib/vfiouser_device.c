/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "vfiouser_device.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/guard.h"
#include "rng.h"

#define MAGIC	  0x5645444f4946u
#define SIZE_MAX_ (UINT64_C(1) << 32) /* of a state */

struct begin {
	uint64_t magic, seed, size;
};

static uint64_t fnv(const uint8_t *bytes, size_t len)
{
	uint64_t h = 0xcbf29ce484222325u;

	for (size_t i = 0; i < len; i++)
		h = (h ^ bytes[i]) * 0x100000001b3u;
	return h;
}

/* The whole stream of a state, to be free()d. */
static uint8_t *stream_of(uint64_t seed, uint64_t size, size_t *len)
{
	struct begin begin = { MAGIC, seed, size };
	size_t body = sizeof(begin) + size;
	uint8_t *bytes = malloc(body + 8);
	struct rng rng = { seed };
	uint64_t sum;

	assert(bytes);
	memcpy(bytes, &begin, sizeof(begin));
	for (uint64_t at = 0; at < size; at += 8) {
		uint64_t v = rng_next(&rng);

		memcpy(bytes + sizeof(begin) + at, &v, size - at < 8 ? size - at : 8);
	}
	sum = fnv(bytes, body);
	memcpy(bytes + body, &sum, 8);
	*len = body + 8;
	return bytes;
}

void vfiouser_device_init(struct vfiouser_device *d, uint64_t seed, uint64_t size)
{
	*d = (struct vfiouser_device){ .state = VFIOUSER_RUNNING, .seed = seed, .size = size };
}

static void forget(struct vfiouser_device *d)
{
	free(d->out);
	free(d->in);
	d->out = d->in = NULL;
	d->out_len = d->out_at = d->in_len = d->in_room = 0;
}

void vfiouser_device_deinit(struct vfiouser_device *d)
{
	forget(d);
}

uint64_t vfiouser_device_digest(const struct vfiouser_device *d)
{
	size_t len;
	cleanup_free uint8_t *bytes = stream_of(d->seed, d->size, &len);

	return fnv(bytes, len);
}

/* Is what was loaded a whole state? */
static int believe(struct vfiouser_device *d)
{
	struct begin begin;
	cleanup_free uint8_t *same = NULL;
	size_t len;

	if (d->in_len < sizeof(begin))
		return -EINVAL;
	memcpy(&begin, d->in, sizeof(begin));
	if (begin.magic != MAGIC || begin.size > SIZE_MAX_ ||
	    d->in_len != sizeof(begin) + begin.size + 8)
		return -EINVAL;
	same = stream_of(begin.seed, begin.size, &len);
	if (memcmp(same, d->in, len))
		return -EINVAL;
	d->seed = begin.seed;
	d->size = begin.size;
	return 0;
}

/* The next state on the way, by where it is and where it goes; 0: there is no way. */
static const uint8_t next_state[7][7] = {
	[VFIOUSER_STOP] = { [VFIOUSER_STOP] = VFIOUSER_STOP,
			    [VFIOUSER_RUNNING] = VFIOUSER_RUNNING,
			    [VFIOUSER_STOP_COPY] = VFIOUSER_STOP_COPY,
			    [VFIOUSER_RESUMING] = VFIOUSER_RESUMING,
			    [VFIOUSER_PRE_COPY] = VFIOUSER_RUNNING },
	[VFIOUSER_RUNNING] = { [VFIOUSER_STOP] = VFIOUSER_STOP,
			       [VFIOUSER_RUNNING] = VFIOUSER_RUNNING,
			       [VFIOUSER_STOP_COPY] = VFIOUSER_STOP,
			       [VFIOUSER_RESUMING] = VFIOUSER_STOP,
			       [VFIOUSER_PRE_COPY] = VFIOUSER_PRE_COPY },
	[VFIOUSER_STOP_COPY] = { [VFIOUSER_STOP] = VFIOUSER_STOP,
				 [VFIOUSER_RUNNING] = VFIOUSER_STOP,
				 [VFIOUSER_STOP_COPY] = VFIOUSER_STOP_COPY,
				 [VFIOUSER_RESUMING] = VFIOUSER_STOP },
	[VFIOUSER_RESUMING] = { [VFIOUSER_STOP] = VFIOUSER_STOP,
				[VFIOUSER_RUNNING] = VFIOUSER_STOP,
				[VFIOUSER_STOP_COPY] = VFIOUSER_STOP,
				[VFIOUSER_RESUMING] = VFIOUSER_RESUMING,
				[VFIOUSER_PRE_COPY] = VFIOUSER_STOP },
	[VFIOUSER_PRE_COPY] = { [VFIOUSER_STOP] = VFIOUSER_RUNNING,
				[VFIOUSER_RUNNING] = VFIOUSER_RUNNING,
				[VFIOUSER_STOP_COPY] = VFIOUSER_STOP_COPY,
				[VFIOUSER_RESUMING] = VFIOUSER_RUNNING,
				[VFIOUSER_PRE_COPY] = VFIOUSER_PRE_COPY },
};

static int arc(struct vfiouser_device *d, enum vfiouser_state to)
{
	bool going_on = d->state == VFIOUSER_PRE_COPY && to == VFIOUSER_STOP_COPY;

	if (d->state == VFIOUSER_RESUMING && believe(d))
		return -EINVAL;
	if (!going_on)
		forget(d);
	if (!going_on && (to == VFIOUSER_PRE_COPY || to == VFIOUSER_STOP_COPY))
		d->out = stream_of(d->seed, d->size, &d->out_len);
	d->state = to;
	return 0;
}

int vfiouser_device_go(struct vfiouser_device *d, unsigned state)
{
	int err = 0;

	while (err == 0 && d->state != state) {
		unsigned next = state < 7 ? next_state[d->state][state] : 0;

		err = next ? arc(d, (enum vfiouser_state)next) : -EINVAL;
	}
	return err;
}

void vfiouser_device_reset(struct vfiouser_device *d)
{
	forget(d);
	d->state = VFIOUSER_RUNNING;
}

size_t vfiouser_device_ready(const struct vfiouser_device *d)
{
	size_t most = d->state == VFIOUSER_STOP_COPY ? d->out_len : d->out_len / 2;

	return most > d->out_at ? most - d->out_at : 0;
}

size_t vfiouser_device_save(struct vfiouser_device *d, void *buf, size_t len)
{
	size_t ready = vfiouser_device_ready(d), n = len < ready ? len : ready;

	if (n)
		memcpy(buf, d->out + d->out_at, n);
	d->out_at += n;
	return n;
}

int vfiouser_device_load(struct vfiouser_device *d, const void *buf, size_t len)
{
	if (d->state != VFIOUSER_RESUMING)
		return -EINVAL;
	if (len > SIZE_MAX_ - d->in_len)
		return -ENOSPC;
	if (d->in_len + len > d->in_room) {
		d->in_room = (d->in_len + len) * 2;
		d->in = realloc(d->in, d->in_room);
		assert(d->in);
	}
	if (len)
		memcpy(d->in + d->in_len, buf, len);
	d->in_len += len;
	return 0;
}
