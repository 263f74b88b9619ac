/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The migration region: four registers, each read and written in its own width only, and a window
 * through which the stream goes a segment at a time.
 *
 * Saving: data_offset makes a segment lie in the window, pending_bytes takes it away.  Loading: a
 * write of data_size takes what lies there.  A segment begins with its number and its length, so
 * that one which was cut, joined to another or sent out of turn is refused.
 */
#include "config.h"

#include "vfiouser.h"

#include <errno.h>
#include <string.h>

#include "core/guard.h"

enum {
	REG_STATE = 0,
	REG_PENDING = 8,
	REG_DATA_OFFSET = 16,
	REG_DATA_SIZE = 24,
};

struct segment {
	uint32_t number, len;
};

/* The states of this generation are bits, and what is not here is none. */
static const struct {
	uint32_t bits;
	enum vfiouser_state state;
	uint32_t ways; /* where it goes from there, a bit for each value */
} states[] = {
	{ 0, VFIOUSER_STOP, 1 << 1 },
	{ 1, VFIOUSER_RUNNING, 1 << 0 | 1 << 2 | 1 << 3 | 1 << 4 },
	{ 2, VFIOUSER_STOP_COPY, 1 << 0 | 1 << 1 },
	{ 3, VFIOUSER_PRE_COPY, 1 << 0 | 1 << 1 | 1 << 2 },
	{ 4, VFIOUSER_RESUMING, 1 << 1 },
};

static unsigned now(const struct vfiouser *s)
{
	unsigned i = 0;

	while (states[i].state != s->device.state)
		i++;
	return i;
}

static bool saving(const struct vfiouser *s)
{
	return s->device.state == VFIOUSER_PRE_COPY || s->device.state == VFIOUSER_STOP_COPY;
}

static uint64_t pending(struct vfiouser *s)
{
	s->segment_out = false;
	return saving(s) ? vfiouser_device_ready(&s->device) : 0;
}

static int data_offset(struct vfiouser *s, uint64_t *out)
{
	struct segment head = { .number = s->segments };
	uint8_t *at = s->window + VFIOUSER_WINDOW;

	*out = VFIOUSER_WINDOW;
	if (s->device.state == VFIOUSER_RESUMING)
		return 0;
	if (!saving(s))
		return -EINVAL;
	if (s->segment_out)
		return 0;
	head.len = (uint32_t)vfiouser_device_save(&s->device, at + sizeof(head),
						  s->segment - sizeof(head));
	if (!head.len)
		return -EINVAL;
	memcpy(at, &head, sizeof(head));
	s->data_size = sizeof(head) + head.len;
	s->segment_out = true;
	s->segments++;
	return 0;
}

static int read_wide(struct vfiouser *s, uint64_t offset, uint64_t *out)
{
	switch (offset) {
	case REG_PENDING:
		*out = pending(s);
		return 0;
	case REG_DATA_OFFSET:
		return data_offset(s, out);
	case REG_DATA_SIZE:
		*out = s->segment_out ? s->data_size : 0;
		return saving(s) || s->device.state == VFIOUSER_RESUMING ? 0 : -EINVAL;
	default:
		return -EINVAL;
	}
}

int vfiouser_v1_read(struct vfiouser *s, const struct vfiomsg_access *a, void *buf)
{
	uint64_t wide = 0;
	int err = -EINVAL;

	if (a->offset >= VFIOUSER_WINDOW) {
		if (!range_inside(a->offset - VFIOUSER_WINDOW, a->count, VFIOUSER_WINDOW_SIZE))
			return -EINVAL;
		memcpy(buf, s->window + a->offset, a->count);
		return 0;
	}
	if (a->offset == REG_STATE && a->count == 4) {
		memcpy(buf, &states[now(s)].bits, 4);
		return 0;
	}
	if (a->count == 8)
		err = read_wide(s, a->offset, &wide);
	memcpy(buf, &wide, a->count <= 8 ? a->count : 0);
	return err;
}

static int write_state(struct vfiouser *s, uint32_t bits)
{
	for (unsigned i = 0; i < ARRAY_LEN(states); i++)
		if (states[i].bits == bits && states[now(s)].ways & 1u << bits) {
			s->segment_out = false;
			if (s->device.state == VFIOUSER_RUNNING)
				s->segments = 0;
			return vfiouser_device_go(&s->device, states[i].state);
		}
	return -EINVAL;
}

static int take_segment(struct vfiouser *s, uint64_t size)
{
	const uint8_t *at = s->window + VFIOUSER_WINDOW;
	struct segment head;

	memcpy(&head, at, sizeof(head));
	if (s->device.state != VFIOUSER_RESUMING || size < sizeof(head) ||
	    size > VFIOUSER_WINDOW_SIZE)
		return -EINVAL;
	if (head.number != s->segments || head.len != size - sizeof(head))
		return -EINVAL;
	s->segments++;
	return vfiouser_device_load(&s->device, at + sizeof(head), head.len);
}

int vfiouser_v1_write(struct vfiouser *s, const struct vfiomsg_access *a, const void *buf)
{
	uint64_t wide;
	uint32_t bits;

	if (a->offset >= VFIOUSER_WINDOW) {
		if (!range_inside(a->offset - VFIOUSER_WINDOW, a->count, VFIOUSER_WINDOW_SIZE))
			return -EINVAL;
		memcpy(s->window + a->offset, buf, a->count);
		return 0;
	}
	if (a->offset == REG_STATE && a->count == 4) {
		memcpy(&bits, buf, 4);
		return write_state(s, bits);
	}
	if (a->offset != REG_DATA_SIZE || a->count != 8)
		return -EINVAL;
	memcpy(&wide, buf, 8);
	return take_segment(s, wide);
}
