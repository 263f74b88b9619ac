/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The second version: states by number, a table of the next hop on the way from each to each, and a
 * stream that begins with some of the arcs and dies with others.
 */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "fakedev.h"

enum { ERROR, STOP, RUNNING, STOP_COPY, RESUMING, RUNNING_P2P, PRE_COPY, PRE_COPY_P2P, STATES };
enum { FLAG_STOP_COPY = 1, FLAG_P2P = 2, FLAG_PRE_COPY = 4 };
enum { MIGRATION = 1, STATE = 2, DATA_SIZE = 9 };
#define OPERATIONS (DEVIO_GET | DEVIO_SET)

#define ST STOP
#define RU RUNNING
#define SC STOP_COPY
#define RE RESUMING
#define RP RUNNING_P2P
#define PC PRE_COPY
#define PP PRE_COPY_P2P

/* [from][to]; 0: refused */
static const uint8_t hops[STATES][STATES] = {
	/*		     -  ST  RU  SC  RE  RP  PC  PP */
	[STOP] =	   { 0, ST, RP, SC, RE, RP, RP, RP },
	[RUNNING] =	   { 0, RP, RU, RP, RP, RP, PC, RP },
	[STOP_COPY] =	   { 0, ST, ST, SC, ST, ST, 0, 0 },
	[RESUMING] =	   { 0, ST, ST, ST, RE, ST, ST, ST },
	[RUNNING_P2P] =	   { 0, ST, RU, ST, ST, RP, RU, PP },
	[PRE_COPY] =	   { 0, RU, RU, PP, RU, RU, PC, PP },
	[PRE_COPY_P2P] =   { 0, RP, RP, SC, RP, RP, PC, PP },
};

static bool has(uint64_t flags, uint32_t state)
{
	static const uint8_t needs[STATES] = {
		[RUNNING_P2P] = FLAG_P2P,
		[PRE_COPY] = FLAG_PRE_COPY,
		[PRE_COPY_P2P] = FLAG_P2P | FLAG_PRE_COPY,
	};

	return state != ERROR && state < STATES && (flags & needs[state]) == needs[state];
}

uint32_t fakedev_v2_hop(uint64_t flags, uint32_t from, uint32_t to)
{
	uint32_t hop;

	if (!has(flags, from) || !has(flags, to))
		return 0;
	for (hop = hops[from][to]; hop && !has(flags, hop);)
		hop = hops[hop][to];
	return hop;
}

static bool saves(uint32_t state)
{
	return state == STOP_COPY || state == PRE_COPY || state == PRE_COPY_P2P;
}

/* --- arcs --- */

/* What came in is looked at when it is over. */
static int check_stream(struct fakedev *f)
{
	size_t at = 0;
	uint32_t len;

	f->s.next = 0;
	f->s.last = false;
	while (at + FAKEDEV_SEGMENT_MIN <= f->stream_len) {
		memcpy(&len, f->stream + at + 8, 4);
		if (len > f->stream_len - at || !fakedev_segment_accept(f, f->stream + at, len))
			break;
		at += len;
	}
	if (at != f->stream_len || !f->s.last) {
		f->s.bad = false;	/* more may come */
		return -EINVAL;
	}
	f->s.finished = true;
	return 0;
}

static int arc(struct fakedev *f, uint32_t to)
{
	int ret;

	if (f->state == RESUMING) {
		ret = check_stream(f);
		if (ret < 0)
			return ret;
	}
	if (to == RESUMING || (saves(to) && !saves(f->state)))
		fakedev_session_begin(f);
	if (to == RESUMING) {
		f->busy = false;
		fakedev_loads(f);
	}
	if (f->state == STOP && to != RESUMING && to != STOP_COPY)
		f->busy = true;
	f->state = to;
	fakedev_moved(f);
	return 0;
}

static int single(struct fakedev *f, uint32_t to, uint64_t until)
{
	ssize_t ret;

	if (fakedev_begin(f, FAKEDEV_ARC, until, &ret) == FAKEDEV_ANSWERED)
		return (int)ret;
	return (int)fakedev_end(f, FAKEDEV_ARC, arc(f, to));
}

static int change(struct fakedev *f, uint32_t to, uint64_t until)
{
	uint32_t before;
	int ret;

	if (f->state == ERROR)
		fakedev_note(f, "S3-09: asks for a state in ERROR");
	if (!has(f->c.flags, to))
		fakedev_note(f, "F28: asks for a state that the device does not have");
	else if (f->state != to && !fakedev_v2_hop(f->c.flags, f->state, to))
		fakedev_note(f, "S3-42: asks for a way that is closed");
	if (!fakedev_v2_hop(f->c.flags, f->state, to))
		return -EINVAL;
	while (f->state != to) {
		before = f->state;
		ret = single(f, fakedev_v2_hop(f->c.flags, f->state, to), until);
		if (ret < 0)
			return ret;
		if (f->state == before)
			return 0;	/* skipped */
	}
	return 0;
}

/* --- features --- */

static int state_feature(struct fakedev *f, uint32_t flags, uint32_t *data, uint64_t until)
{
	enum fakedev_op op = flags & DEVIO_SET ? FAKEDEV_CHANGE : FAKEDEV_STATE;
	ssize_t ret;

	if (fakedev_begin(f, op, until, &ret) == FAKEDEV_ANSWERED)
		return (int)ret;
	if (op == FAKEDEV_CHANGE)
		return (int)fakedev_end(f, op, change(f, data[0], until));
	data[0] = (uint32_t)fakedev_says(f, op, f->state);
	data[1] = UINT32_MAX;
	return (int)fakedev_end(f, op, 0);
}

static uint64_t left(const struct fakedev *f, unsigned end)
{
	uint64_t sum = 0;

	for (unsigned n = f->s.next; n < end; n++)
		sum += fakedev_segment_size(f, n);
	return sum ? sum - f->s.at : 0;
}

static int number_feature(struct fakedev *f, uint32_t index, void *data, uint64_t until)
{
	uint64_t value = index == MIGRATION ? f->c.flags : left(f, f->c.segments);
	ssize_t ret;

	if (fakedev_begin(f, FAKEDEV_FEATURE, until, &ret) == FAKEDEV_ANSWERED)
		return (int)ret;
	value = fakedev_says(f, FAKEDEV_FEATURE, value);
	memcpy(data, &value, sizeof(value));
	return (int)fakedev_end(f, FAKEDEV_FEATURE, 0);
}

int fakedev_v2_feature(struct fakedev *f, uint32_t flags, void *data, size_t len, uint64_t until)
{
	uint32_t index = flags & 0xffff, ops = flags & OPERATIONS;

	if (index != MIGRATION && index != STATE && index != DATA_SIZE)
		return -ENOTTY;
	if ((flags & ~0x7ffffu) || (ops & DEVIO_SET && index != STATE))
		return -EINVAL;
	if (flags & DEVIO_PROBE)
		return 0;
	if (ops == 0 || ops == OPERATIONS || len < 8)
		return -EINVAL;
	if (index == STATE)
		return state_feature(f, flags, data, until);
	return number_feature(f, index, data, until);
}

/* --- the stream --- */

static ssize_t end_of_now(const struct fakedev *f)
{
	return f->state == STOP_COPY || f->c.end_is_zero ? 0 : -ENOMSG;
}

ssize_t fakedev_v2_read(struct fakedev *f, void *buf, size_t len)
{
	unsigned end = f->state == STOP_COPY ? f->c.segments : fakedev_early(f);
	uint8_t segment[FAKEDEV_SEGMENT_MAX];
	size_t size, n;

	if (!saves(f->state))
		return f->state == RESUMING ? -EBADF : -ENODEV;
	if (f->s.next >= end)
		return end_of_now(f);
	size = fakedev_segment_size(f, f->s.next);
	n = size - f->s.at < len ? size - f->s.at : len;
	if (f->c.chunk && n > f->c.chunk)
		n = f->c.chunk;
	fakedev_segment(f, f->s.next, segment);
	memcpy(buf, segment + f->s.at, n);
	f->s.at += n;
	if (f->s.at == size) {
		f->s.next++;
		f->s.at = 0;
	}
	return (ssize_t)n;
}

ssize_t fakedev_v2_write(struct fakedev *f, const void *buf, size_t len)
{
	if (f->state != RESUMING)
		return saves(f->state) ? -EBADF : -ENODEV;
	if (f->c.chunk && len > f->c.chunk)
		len = f->c.chunk;
	if (len > f->stream_room - f->stream_len)
		return -ENOMEM;
	memcpy(f->stream + f->stream_len, buf, len);
	f->stream_len += len;
	return (ssize_t)len;
}

int fakedev_v2_precopy(struct fakedev *f, struct devio_precopy *out)
{
	if (f->state != PRE_COPY && f->state != PRE_COPY_P2P)
		return -EINVAL;
	*out = (struct devio_precopy){ 0 };
	if (f->c.early == 0)
		return 0;
	out->initial = f->s.next == 0 ? left(f, 1) : 0;
	out->dirty = left(f, f->c.early) - out->initial;
	return 0;
}
