/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The first version: a region that begins with registers, and has a window in which the device
 * shows one segment of its state at a time, wherever it likes (S3-33).
 *
 *	saving		pending_bytes	0: nothing (more).  It also lets go of the segment before
 *			data_offset	now there is a segment, and it has to be taken
 *			data_size	not before data_offset
 *			the window	in any pieces
 *	loading		data_offset
 *			the window
 *			data_size	written: the segment is whole, the device takes it
 *
 * A register is read in its own width and at its own time only (S3-01, S3-35).  Numbers that the
 * device gives are checked against the region: what is outside of it is not there.  Parts of the
 * window that can be mapped are, while there is a stream; the device may put other memory there
 * between segments, so nothing is looked at but the segment that it shows (S3-49b).
 */
#include "config.h"
#include "sys/migdev_parts.h"

#include <errno.h>

#include "core/guard.h"
#include "core/vfiov1.h"

enum {
	REG_STATE = 0,
	REG_PENDING = 8,
	REG_OFFSET = 16,
	REG_SIZE = 24,
	REGS_END = 32,
	EMPTIES = 3,		/* segments without a byte, in a row, that are borne */
	MOVE_MAX = 1 << 20,	/* at a time */
};

/* --- registers --- */

static int reg_read(struct migdev *m, unsigned reg, uint64_t *value)
{
	struct devio_at at = { .region = m->region.index, .offset = reg };
	uint32_t narrow;
	int err;

	if (reg != REG_STATE) {
		at.width = sizeof(*value);
		return devio_read(m->io, &at, value, sizeof(*value));
	}
	at.width = sizeof(narrow);
	err = devio_read(m->io, &at, &narrow, sizeof(narrow));
	*value = err ? 0 : narrow;
	return err;
}

static int v1_state(struct migdev *m)
{
	uint64_t value;
	int err = reg_read(m, REG_STATE, &value);

	return err ? err : vfiov1_decode((uint32_t)value, m->caps.quiesce);
}

static int v1_set(struct migdev *m, enum vfiostate to)
{
	struct devio_at at = { .region = m->region.index, .offset = REG_STATE, .width = 4 };
	uint64_t was, pending;
	uint32_t value;
	int err = 0;

	/* the last segment has been taken, which the device does not know yet */
	if (m->length && (vfiostate_rights(to) & VFIOSTATE_SAVES))
		err = reg_read(m, REG_PENDING, &pending);
	if (!err)
		err = reg_read(m, REG_STATE, &was);
	if (err)
		return err;
	/* it does not change by itself (S3-07), unless it broke */
	if (vfiov1_decode((uint32_t)was, m->caps.quiesce) != m->state)
		return -EIO;
	err = vfiov1_encode(to, m->caps.quiesce, (uint32_t)was, &value);
	return err ? err : devio_write(m->io, &at, &value, sizeof(value));
}

/* --- the window --- */

/* It is not mapped before there is a stream; without a mapping it can be read all the same. */
static void map_area(struct migdev *m, uint64_t offset, uint64_t size)
{
	struct devio_map map;

	if (m->n_maps == VFIOCAPS_AREAS || devio_map(m->io, &m->region, offset, size, &map) != 0)
		return;
	m->maps[m->n_maps].offset = offset;
	m->maps[m->n_maps++].map = map;
}

static void map_window(struct migdev *m)
{
	const struct vfiocaps_region *r = &m->region;

	if (m->n_maps || !(r->flags & VFIOCAPS_MMAP))
		return;
	if (!r->sparse)
		map_area(m, 0, r->size);
	for (unsigned i = 0; i < r->n_areas && r->sparse; i++)
		map_area(m, r->areas[i].offset, r->areas[i].size);
}

/*
 * The mapping that holds @offset, and how far from there on there is one, or none: at most *len
 * bytes.  NULL: it has to be read.
 */
static const struct devio_map *mapping_at(const struct migdev *m, uint64_t offset, size_t *len,
					  uint64_t *within)
{
	for (unsigned i = 0; i < m->n_maps; i++) {
		uint64_t begin = m->maps[i].offset, end = begin + m->maps[i].map.len;

		if (offset < begin && begin - offset < *len)
			*len = begin - offset;
		if (offset < begin || offset >= end)
			continue;
		*within = offset - begin;
		if (end - offset < *len)
			*len = end - offset;
		return &m->maps[i].map;
	}
	return NULL;
}

/* One piece of the window into @in, or from @out. */
static int move(struct migdev *m, void *in, const void *out, size_t len)
{
	struct devio_at at = { .region = m->region.index, .offset = m->at };
	const struct devio_map *map;
	uint64_t within = 0;
	int err;

	if (len > MOVE_MAX)
		len = MOVE_MAX;
	map = mapping_at(m, m->at, &len, &within);
	if (map && in)
		err = devio_map_read(map, within, in, len);
	else if (map)
		err = devio_map_write(map, within, out, len);
	else if (in)
		err = devio_read(m->io, &at, in, len);
	else
		err = devio_write(m->io, &at, out, len);
	if (err)
		return err;
	m->at += len;
	m->left -= len;
	return (int)len;
}

/* --- saving --- */

/* What the device shows, if it is inside the window. */
static int take_segment(struct migdev *m)
{
	uint64_t offset, size;
	int err = reg_read(m, REG_OFFSET, &offset);

	if (!err)
		err = reg_read(m, REG_SIZE, &size);
	if (err)
		return err;
	if (offset < REGS_END || (size && !range_inside(offset, size, m->region.size)))
		return -EPROTO;
	m->at = offset;
	m->left = m->length = size;
	return 0;
}

static int next_segment(struct migdev *m)
{
	for (unsigned i = 0; i < EMPTIES; i++) {
		uint64_t pending;
		int err = reg_read(m, REG_PENDING, &pending);

		if (err)
			return err;
		m->length = 0;
		if (!pending)
			return m->state == VFIOSTATE_STOPCOPY ? MIGDEV_END : MIGDEV_LATER;
		err = take_segment(m);
		if (err || m->left)
			return err ? err : MIGDEV_PIECE;
	}
	return -EIO;
}

static int v1_save(struct migdev *m, void *buf, size_t room, struct migdev_piece *piece)
{
	int got = MIGDEV_PIECE;

	map_window(m);
	*piece = (struct migdev_piece){ .len = 0 };
	if (!m->left)
		got = next_segment(m);
	if (got != MIGDEV_PIECE)
		return got;
	while (m->left && piece->len < room) {
		size_t want = room - piece->len < m->left ? room - piece->len : (size_t)m->left;
		int n = move(m, (uint8_t *)buf + piece->len, NULL, want);

		if (n < 0)
			return n;
		piece->len += (size_t)n;
	}
	piece->left = m->left;
	return MIGDEV_PIECE;
}

/* --- loading --- */

static int v1_segment(struct migdev *m, uint64_t length)
{
	uint64_t offset;
	int err = reg_read(m, REG_OFFSET, &offset);

	if (err)
		return err;
	if (offset < REGS_END || offset >= m->region.size)
		return -EPROTO;
	if (length > m->region.size - offset)
		return -ENOSPC;
	map_window(m);
	m->at = offset;
	m->left = m->length = length;
	return 0;
}

static int v1_load(struct migdev *m, const void *buf, size_t len)
{
	struct devio_at at = { .region = m->region.index, .offset = REG_SIZE, .width = 8 };
	const uint8_t *from = buf;

	while (len) {
		int n = move(m, NULL, from, len);

		if (n < 0)
			return n;
		from += n;
		len -= (size_t)n;
	}
	if (m->left)
		return 0;
	return devio_write(m->io, &at, &m->length, sizeof(m->length));
}

static const struct migdev_ops v1_ops = {
	.state = v1_state,
	.set = v1_set,
	.save = v1_save,
	.segment = v1_segment,
	.load = v1_load,
};

/* --- finding it --- */

/* The region of migration; another one of that kind, and nobody knows which is meant. */
static int find_region(struct migdev *m, uint32_t regions)
{
	bool found = false;

	for (uint32_t i = 0; i < regions; i++) {
		struct vfiocaps_region r;
		int err = devio_region(m->io, i, &r);

		/* a region that the device does not have is no error of it */
		if (err == -EINVAL || err == -EOPNOTSUPP)
			continue;
		if (err)
			return err;
		if (!vfiocaps_is_migration(&r))
			continue;
		if (found)
			return -EPROTO;
		found = true;
		m->region = r;
	}
	return found ? 0 : -EOPNOTSUPP;
}

/* Does the device have it? */
int migdev_v1_probe(struct migdev *m)
{
	const uint32_t access = VFIOCAPS_READ | VFIOCAPS_WRITE;
	struct devio_info info;
	int err = devio_info(m->io, &info);

	if (!err)
		err = find_region(m, info.regions);
	if (err)
		return err;
	if (m->region.size < REGS_END || (m->region.flags & access) != access)
		return -EPROTO;
	/* without a reset there is no way out of ERROR */
	if (!(info.flags & DEVIO_RESET))
		return -EOPNOTSUPP;
	m->ops = &v1_ops;
	m->caps = (struct vfiostate_caps){ .precopy = true, .quiesce = m->region.ndma };
	return 0;
}
