/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The first version: registers at the start of a region, and a window behind them.
 *
 * Saving and loading go round in a circle: pending, offset, length, the bytes, pending; offset, the
 * bytes, length.  A segment is there from the reading of its offset to the next reading of pending,
 * or the writing of its length, and what was in the window is destroyed then.
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/guard.h"
#include "fakedev.h"

enum { STATE = 0, RESERVED = 4, PENDING = 8, OFFSET = 16, LENGTH = 24, REGISTERS = 32 };
enum { STOP, RUNNING, STOP_COPY, PRE_COPY, RESUMING, ERROR = 6, NDMA = 8 };
#define BIT(n) (1u << (n))

/* What may be written, of 0..15. */
#define VALID	   (BIT(0) | BIT(1) | BIT(2) | BIT(3) | BIT(4))
#define VALID_NDMA (VALID | BIT(8) | BIT(9) | BIT(10) | BIT(11) | BIT(12))

/* The arcs that everybody may use, and of which devices take which. */
static const uint16_t used[16] = {
	[STOP] = BIT(RUNNING),
	[RUNNING] = BIT(STOP) | BIT(STOP_COPY) | BIT(PRE_COPY) | BIT(RESUMING) |
		    BIT(RUNNING | NDMA),
	[STOP_COPY] = BIT(STOP) | BIT(RUNNING),
	[PRE_COPY] = BIT(STOP_COPY) | BIT(RUNNING) | BIT(PRE_COPY | NDMA),
	[RESUMING] = BIT(RUNNING) | BIT(RUNNING | NDMA),
	[RUNNING | NDMA] = BIT(RUNNING) | BIT(STOP),
	[PRE_COPY | NDMA] = BIT(STOP_COPY) | BIT(RUNNING) | BIT(STOP),
};
static const uint16_t diagram[16] = {
	[RUNNING] = BIT(STOP) | BIT(STOP_COPY) | BIT(PRE_COPY) | BIT(RESUMING) |
		    BIT(RUNNING | NDMA),
	[STOP_COPY] = BIT(STOP) | BIT(RUNNING),
	[PRE_COPY] = BIT(STOP_COPY) | BIT(RUNNING) | BIT(PRE_COPY | NDMA),
	[RESUMING] = BIT(RUNNING) | BIT(RUNNING | NDMA),
	[RUNNING | NDMA] = BIT(RUNNING) | BIT(STOP),
	[PRE_COPY | NDMA] = BIT(STOP_COPY) | BIT(RUNNING) | BIT(STOP),
};
static const uint16_t vfiouser[16] = {
	[STOP] = BIT(RUNNING),
	[RUNNING] = BIT(PRE_COPY) | BIT(STOP_COPY) | BIT(RESUMING) | BIT(STOP),
	[STOP_COPY] = BIT(STOP) | BIT(RUNNING),
	[PRE_COPY] = BIT(STOP_COPY) | BIT(RUNNING) | BIT(STOP),
	[RESUMING] = BIT(RUNNING),
};

bool fakedev_v1_valid(uint32_t value, bool ndma)
{
	return value < 16 && ((ndma ? VALID_NDMA : VALID) & BIT(value));
}

static bool takes(const struct fakedev *f, uint32_t from, uint32_t to)
{
	if (f->c.arcs == FAKEDEV_FULL)
		return true;
	return (f->c.arcs == FAKEDEV_DIAGRAM ? diagram : vfiouser)[from] & BIT(to);
}

static uint32_t bits(const struct fakedev *f)
{
	return f->state & (f->c.ndma ? 15 : 7);
}

static bool saving(const struct fakedev *f)
{
	return (bits(f) & 6) == STOP_COPY;
}

static bool resuming(const struct fakedev *f)
{
	return (bits(f) & 7) == RESUMING;
}

static unsigned limit(const struct fakedev *f)
{
	return bits(f) & RUNNING ? fakedev_early(f) : f->c.segments;
}

static size_t segment_len(const struct fakedev *f)
{
	return f->s.lied ? (size_t)f->s.lied : fakedev_segment_size(f, f->s.next);
}

/* --- the window --- */

static bool is_mapped(const struct fakedev *f, uint64_t at)
{
	if (f->count[FAKEDEV_MAP] == 0)
		return false;
	return f->c.window == FAKEDEV_MAPPED || (f->c.window == FAKEDEV_PARTLY && at / 0x1000 == 1);
}

static bool touched(const struct fakedev *f, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (!f->s.seen[i] && !is_mapped(f, f->c.data_offset + i))
			return false;
	return true;
}

static void put_away(struct fakedev *f)
{
	f->s.offered = f->s.sized = f->s.pending_read = false;
	f->s.lied = 0;
	memset(f->s.seen, 0, FAKEDEV_SIZE);
	memset(f->region, 0xdb, FAKEDEV_SIZE);
}

static bool may_touch(struct fakedev *f, const struct devio_at *at, size_t len, bool write)
{
	uint64_t end = FAKEDEV_SIZE;

	if (!(write ? resuming(f) : saving(f)) || !f->s.offered || !(write || f->s.sized)) {
		fakedev_note(f, "S3-35, S3-37: the window is touched when nothing is there");
		return false;
	}
	if (!write)
		end = f->c.data_offset + segment_len(f);
	if (at->offset < f->c.data_offset || !range_inside(at->offset, len, end)) {
		fakedev_note(f, "S3-49b: touches the window beside the segment");
		return false;
	}
	return true;
}

static ssize_t window(struct fakedev *f, const struct devio_at *at, size_t len, bool write)
{
	if (at->width == 0 && f->c.no_bulk && len > 8)
		return -EINVAL;
	if (!may_touch(f, at, len, write))
		return -EINVAL;
	memset(f->s.seen + (at->offset - f->c.data_offset), 1, len);
	return (ssize_t)len;
}

/* --- registers that are read --- */

static uint64_t pending(struct fakedev *f)
{
	uint64_t told;

	if (!saving(f))
		return fakedev_says(f, FAKEDEV_PENDING, 0);
	if (f->s.offered) {
		if (!f->s.sized || !touched(f, segment_len(f)))
			fakedev_note(f, "S3-35: acknowledges a segment that it has not read");
		f->s.next++;
		put_away(f);
	}
	/* Only zero or not has a meaning. */
	told = fakedev_says(f, FAKEDEV_PENDING, f->s.next < limit(f) ? UINT64_C(1) << 40 : 0);
	f->s.pending_read = told != 0;
	return told;
}

static ssize_t offset(struct fakedev *f, uint64_t *value)
{
	*value = fakedev_says(f, FAKEDEV_OFFSET, f->c.data_offset);
	if (resuming(f)) {
		f->s.offered = true;
		return 8;
	}
	if (!saving(f) || !(f->s.pending_read || f->s.offered)) {
		fakedev_note(f, "S3-35: data_offset is read when nothing is pending");
		return -EINVAL;
	}
	if (f->s.next >= limit(f))
		return -EINVAL;
	if (!f->s.offered)
		fakedev_segment(f, f->s.next, f->region + f->c.data_offset);
	f->s.offered = true;
	return 8;
}

static ssize_t length(struct fakedev *f, uint64_t *value)
{
	*value = 0;
	if (!saving(f)) {
		fakedev_note(f, "S3-34: data_size is read without saving");
		return -EINVAL;
	}
	if (!f->s.offered) {
		fakedev_note(f, "S3-35: data_size is read before data_offset");
		return 8;
	}
	*value = fakedev_says(f, FAKEDEV_LENGTH, fakedev_segment_size(f, f->s.next));
	f->s.lied = *value;
	f->s.sized = true;
	return 8;
}

static ssize_t read_register(struct fakedev *f, enum fakedev_op op, uint64_t *value)
{
	switch (op) {
	case FAKEDEV_STATE:
		*value = fakedev_says(f, op, f->state);
		return 4;
	case FAKEDEV_PENDING:
		*value = pending(f);
		return 8;
	case FAKEDEV_OFFSET:
		return offset(f, value);
	default:
		return length(f, value);
	}
}

/* --- registers that are written --- */

static ssize_t commit(struct fakedev *f, uint64_t len)
{
	if (!resuming(f) || !f->s.offered || len == 0 || len > FAKEDEV_SIZE - f->c.data_offset) {
		fakedev_note(f, "S3-37: data_size is written without a segment");
		return -EINVAL;
	}
	if (!touched(f, len))
		fakedev_note(f, "S3-37: commits bytes that it has not written");
	fakedev_segment_accept(f, f->region + f->c.data_offset, len);
	put_away(f);
	return 8;
}

/* Whoever drives it has used no arc that a device may lack. */
static void note_arc(struct fakedev *f, uint32_t to)
{
	if (!(used[bits(f)] & BIT(to)))
		fakedev_note(f, "S3-57: an arc that devices need not have");
	if (to == STOP_COPY && saving(f) && f->s.offered)
		fakedev_note(f, "S3-35: a segment was not read to its end");
}

static int leave(struct fakedev *f, uint32_t to)
{
	if (!resuming(f) || to == RESUMING)
		return 0;
	if (f->s.bad || !f->s.last) {
		if (f->c.error_at_exit)
			f->state = (f->state & ~15u) | ERROR;
		return -EINVAL;
	}
	f->s.finished = f->busy = true;
	return 0;
}

static int refused(struct fakedev *f, uint32_t value)
{
	uint32_t mask = f->c.ndma ? 15 : 7, to = value & mask;

	if (bits(f) == ERROR) {
		fakedev_note(f, "S3-09: writes the state in ERROR");
		return -EIO;
	}
	if ((value & ~mask) != (f->state & ~mask)) {
		fakedev_note(f, "S3-24: a reserved bit is changed");
		if (value & ~mask & NDMA)
			return -EINVAL;
	}
	if (!fakedev_v1_valid(to, f->c.ndma)) {
		fakedev_note(f, "S3-25, S3-26: a value that is no state");
		return -EINVAL;
	}
	note_arc(f, to);
	return takes(f, bits(f), to) ? 0 : -EINVAL;
}

static ssize_t change(struct fakedev *f, uint32_t value)
{
	uint32_t mask = f->c.ndma ? 15 : 7, to = value & mask;
	bool was_saving = saving(f);
	int ret = refused(f, value);

	if (ret == 0)
		ret = leave(f, to);
	if (ret < 0)
		return ret;
	f->state = (value & ~mask) | to;
	if ((saving(f) && !was_saving) || resuming(f))
		fakedev_session_begin(f);
	if (resuming(f)) {
		f->busy = false;
		fakedev_loads(f);
	}
	fakedev_moved(f);
	return 4;
}

/* --- accesses --- */

static const struct {
	uint32_t offset, width;
	enum fakedev_op read, write; /* FAKEDEV_OPS: cannot be */
} registers[] = {
	{ STATE, 4, FAKEDEV_STATE, FAKEDEV_CHANGE },
	{ PENDING, 8, FAKEDEV_PENDING, FAKEDEV_OPS },
	{ OFFSET, 8, FAKEDEV_OFFSET, FAKEDEV_OPS },
	{ LENGTH, 8, FAKEDEV_LENGTH, FAKEDEV_COMMIT },
};

/* The operation; FAKEDEV_OPS: there is no such access. */
static enum fakedev_op decode(struct fakedev *f, const struct devio_at *at, size_t len, bool write)
{
	if (at->offset >= REGISTERS)
		return write ? FAKEDEV_GIVE : FAKEDEV_TAKE;
	for (unsigned i = 0; i < ARRAY_LEN(registers); i++) {
		enum fakedev_op op = write ? registers[i].write : registers[i].read;

		if (at->offset == registers[i].offset && at->width == registers[i].width &&
		    len == at->width && op != FAKEDEV_OPS)
			return op;
	}
	fakedev_note(f, "S3-01: no access to a register in its own width");
	return FAKEDEV_OPS;
}

/* S3-02 */
static bool is_reserved(const struct fakedev *f, const struct devio_at *at, size_t len)
{
	return at->offset == RESERVED && at->width == 4 && len == 4 && !f->c.strict_reserved;
}

ssize_t fakedev_v1_read(struct fakedev *f, const struct devio_at *at, void *buf, size_t len,
			uint64_t until)
{
	enum fakedev_op op;
	uint64_t value = 0;
	ssize_t ret;

	if (is_reserved(f, at, len)) {
		memset(buf, 0, len);
		return 4;
	}
	op = decode(f, at, len, false);
	if (op == FAKEDEV_OPS)
		return -EINVAL;
	if (fakedev_begin(f, op, until, &ret) == FAKEDEV_ANSWERED)
		return ret;
	if (op == FAKEDEV_TAKE) {
		ret = window(f, at, len, false);
		if (ret > 0)
			memcpy(buf, f->region + at->offset, len);
		return fakedev_end(f, op, ret);
	}
	ret = read_register(f, op, &value);
	memcpy(buf, &value, len);
	return fakedev_end(f, op, ret);
}

static ssize_t write_register(struct fakedev *f, enum fakedev_op op, const void *buf, size_t len)
{
	uint64_t value = 0;

	memcpy(&value, buf, len);
	return op == FAKEDEV_CHANGE ? change(f, (uint32_t)value) : commit(f, value);
}

ssize_t fakedev_v1_write(struct fakedev *f, const struct devio_at *at, const void *buf, size_t len,
			 uint64_t until)
{
	enum fakedev_op op;
	ssize_t ret;

	if (is_reserved(f, at, len))
		return 4;
	op = decode(f, at, len, true);
	if (op == FAKEDEV_OPS)
		return -EINVAL;
	if (fakedev_begin(f, op, until, &ret) == FAKEDEV_ANSWERED)
		return ret == 0 ? (ssize_t)len : ret;
	if (op != FAKEDEV_GIVE)
		return fakedev_end(f, op, write_register(f, op, buf, len));
	ret = window(f, at, len, true);
	if (ret > 0)
		memcpy(f->region + at->offset, buf, len);
	return fakedev_end(f, op, ret);
}

/* --- the description of the region --- */

static size_t put(uint8_t *out, size_t at, const void *value, size_t len)
{
	memcpy(out + at, value, len);
	return at + len;
}

static size_t put_cap(uint8_t *out, size_t at, uint16_t id, size_t body)
{
	uint16_t version = 1;
	uint32_t next = (uint32_t)(at + 8 + body);

	put(out, at, &id, 2);
	put(out, at + 2, &version, 2);
	put(out, at + 4, &next, 4);
	return at + 8;
}

/* Type, areas that can be mapped, NDMA; the last one has no next. */
size_t fakedev_v1_describe(const struct fakedev *f, uint8_t *out)
{
	uint64_t area[2] = { 0x1000, f->c.window == FAKEDEV_PARTLY ? 0x1000 : 0x4000 };
	uint64_t file = 0x3000, size = FAKEDEV_SIZE;
	uint32_t type[2] = { 3, 1 }, one[2] = { 1, 0 }, first = REGISTERS, none = 0, len;
	size_t at = REGISTERS, last = at;

	out[4] = f->c.window == FAKEDEV_TRAPPED ? 0xb : 0xf;
	put(out, 12, &first, 4);
	put(out, 16, &size, 8);
	put(out, 24, &file, 8);
	at = put(out, put_cap(out, at, 2, sizeof(type)), type, sizeof(type));
	if (f->c.window != FAKEDEV_TRAPPED) {
		last = at;
		at = put(out, put_cap(out, at, 1, sizeof(one) + sizeof(area)), one, sizeof(one));
		at = put(out, at, area, sizeof(area));
	}
	if (f->c.ndma) {
		last = at;
		at = put_cap(out, at, 6, 0);
	}
	put(out, last + 4, &none, 4);
	len = (uint32_t)at;
	put(out, 0, &len, 4);
	return at;
}
