/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "vfiouser_side.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/guard.h"
#include "sys/fd.h"
#include "vfiouser.h"
#include "wire/vfiocaps.h"

/* --- a device ------------------------------------------------------------------------------- */

static int memory_at(struct side *s, uint64_t iova, size_t len, uint8_t **at)
{
	if (iova < SIDE_IOVA || !range_inside(iova - SIDE_IOVA, len, SIDE_MEMORY))
		return -EFAULT;
	s->asked++;
	*at = s->memory + (iova - SIDE_IOVA);
	return 0;
}

static int memory_read(void *ctx, uint64_t iova, void *buf, size_t len)
{
	uint8_t *at;
	int err = memory_at(ctx, iova, len, &at);

	if (!err)
		memcpy(buf, at, len);
	return err;
}

static int memory_write(void *ctx, uint64_t iova, const void *buf, size_t len)
{
	uint8_t *at;
	int err = memory_at(ctx, iova, len, &at);

	if (!err)
		memcpy(at, buf, len);
	return err;
}

int side_open_for(struct side *s, const char *server, uint64_t limit, bool no_twin)
{
	struct devio_vfiouser_memory memory = { memory_read, memory_write, s };
	struct devio_vfiouser_options options = {
		.limit_ns = limit,
		.max_data = 4096,
		.no_twin = no_twin,
		.memory = &memory,
	};

	memset(s, 0, sizeof(*s));
	vfiouser_spawn(&s->child, server);
	return devio_vfiouser_adopt(&s->dev, steal_fd(&s->child.sock), &options);
}

int side_open(struct side *s, const char *server)
{
	return side_open_for(s, server, SIDE_LIMIT, false);
}

void side_close(struct side *s)
{
	if (s->dev.ops)
		devio_close(&s->dev);
	vfiouser_reap(&s->child);
}

int side_digest(struct side *s, uint64_t *out)
{
	struct devio_at at = { VFIOUSER_BAR, 8, VFIOUSER_REG_DIGEST * 8 };

	return devio_read(&s->dev, &at, out, sizeof(*out));
}

int side_bar_write(struct side *s, unsigned reg, uint64_t value)
{
	struct devio_at at = { VFIOUSER_BAR, 8, reg * 8 };

	return devio_write(&s->dev, &at, &value, sizeof(value));
}

int side_bar_read(struct side *s, unsigned reg, uint64_t *value)
{
	struct devio_at at = { VFIOUSER_BAR, 8, reg * 8 };

	return devio_read(&s->dev, &at, value, sizeof(*value));
}

/* --- its state, second generation ----------------------------------------------------------- */

int side_set_state(struct side *s, uint32_t state)
{
	uint32_t pair[2] = { state, UINT32_MAX };
	int err = devio_feature_set(&s->dev, 2, pair, sizeof(pair));

	if (!err && (pair[0] != state || pair[1] != UINT32_MAX))
		return -EBADF; /* a state that was not asked for, or a descriptor */
	return err;
}

int side_get_state(struct side *s, uint32_t *state)
{
	uint32_t pair[2] = { 0 };
	int err = devio_feature_get(&s->dev, 2, pair, sizeof(pair));

	*state = pair[0];
	return err;
}

static int drain(struct side *s, struct carried *c)
{
	ssize_t n;

	do {
		n = devio_mig_read(&s->dev, c->bytes + c->len, sizeof(c->bytes) - c->len);
		c->len += n > 0 ? (size_t)n : 0;
	} while (n > 0);
	return (int)n;
}

static int save_v2(struct side *s, struct carried *c)
{
	uint64_t flags = 0;
	int err = devio_feature_get(&s->dev, 1, &flags, sizeof(flags));

	if (!err && flags != 5)
		return -EBADF;
	err = err ? err : side_set_state(s, VFIOUSER_PRE_COPY);
	err = err ? err : drain(s, c);
	err = err ? err : side_set_state(s, VFIOUSER_STOP_COPY);
	err = err ? err : drain(s, c);
	return err ? err : side_set_state(s, VFIOUSER_STOP);
}

static int load_v2(struct side *s, const struct carried *c)
{
	int err = side_set_state(s, VFIOUSER_RESUMING);
	size_t done = 0;

	while (!err && done < c->len) {
		ssize_t n = devio_mig_write(&s->dev, c->bytes + done, c->len - done);

		err = n < 0 ? (int)n : 0;
		done += n > 0 ? (size_t)n : 0;
	}
	return err ? err : side_set_state(s, VFIOUSER_RUNNING);
}

/* --- its state, first generation ------------------------------------------------------------ */

struct window {
	struct vfiocaps_region region;
	struct devio_map map; /* of the window behind the registers, or none */
};

static int find_window(struct side *s, struct window *w)
{
	const struct vfiocaps_area *area = w->region.areas;
	int err = devio_region(&s->dev, VFIOUSER_MIGRATION, &w->region);

	w->map = (struct devio_map){ 0 };
	if (err)
		return err;
	if (!vfiocaps_is_migration(&w->region))
		return -ENODEV;
	if (!w->region.sparse)
		return 0;
	return devio_map(&s->dev, &w->region, area->offset, area->size, &w->map);
}

static int get(struct side *s, uint64_t reg, uint64_t *value)
{
	struct devio_at at = { VFIOUSER_MIGRATION, 8, reg };

	return devio_read(&s->dev, &at, value, 8);
}

static int put(struct side *s, uint64_t reg, uint64_t value)
{
	struct devio_at at = { VFIOUSER_MIGRATION, 8, reg };

	return devio_write(&s->dev, &at, &value, 8);
}

static int set_bits(struct side *s, uint32_t bits)
{
	struct devio_at at = { VFIOUSER_MIGRATION, 4, 0 };

	return devio_write(&s->dev, &at, &bits, 4);
}

/* A mapped window must hold what the trapped one does. */
static int fetch(struct side *s, const struct window *w, uint64_t offset, uint8_t *to, size_t len)
{
	struct devio_at at = { VFIOUSER_MIGRATION, 0, offset };
	int err = devio_read(&s->dev, &at, to, len);
	cleanup_free uint8_t *other = malloc(len);

	if (err || !w->map.base)
		return err;
	err = devio_map_read(&w->map, offset - VFIOUSER_WINDOW, other, len);
	return err ? err : memcmp(to, other, len) ? -EBADF : 0;
}

static int store(struct side *s, const struct window *w, uint64_t offset, const uint8_t *from,
		 size_t len)
{
	struct devio_at at = { VFIOUSER_MIGRATION, 0, offset };

	if (w->map.base)
		return devio_map_write(&w->map, offset - VFIOUSER_WINDOW, from, len);
	return devio_write(&s->dev, &at, from, len);
}

static int segment(struct side *s, const struct window *w, struct carried *c)
{
	uint64_t offset, size;
	int err = get(s, 16, &offset);

	err = err ? err : get(s, 24, &size);
	if (err)
		return err;
	if (offset < 32 || !range_inside(offset, size, w->region.size) ||
	    size > sizeof(c->bytes) - c->len || c->n == ARRAY_LEN(c->segments))
		return -EBADF;
	err = fetch(s, w, offset, c->bytes + c->len, size);
	c->len += size;
	c->segments[c->n++] = (uint32_t)size;
	return err;
}

static int segments(struct side *s, const struct window *w, struct carried *c)
{
	uint64_t pending = 0;
	int err = get(s, 8, &pending);

	while (!err && pending) {
		err = segment(s, w, c);
		err = err ? err : get(s, 8, &pending);
	}
	return err;
}

static int save_v1(struct side *s, struct carried *c)
{
	struct window w;
	int err = find_window(s, &w);

	err = err ? err : set_bits(s, 3);
	err = err ? err : segments(s, &w, c);
	err = err ? err : set_bits(s, 2);
	err = err ? err : segments(s, &w, c);
	err = err ? err : set_bits(s, 0);
	devio_unmap(&w.map);
	return err;
}

static int load_v1(struct side *s, const struct carried *c)
{
	struct window w;
	uint64_t offset;
	size_t done = 0;
	int err = find_window(s, &w);

	err = err ? err : set_bits(s, 4);
	for (unsigned i = 0; !err && i < c->n; i++) {
		err = get(s, 16, &offset);
		if (!err && offset != VFIOUSER_WINDOW)
			err = -EBADF;
		err = err ? err : store(s, &w, offset, c->bytes + done, c->segments[i]);
		err = err ? err : put(s, 24, c->segments[i]);
		done += c->segments[i];
	}
	err = err ? err : set_bits(s, 1);
	devio_unmap(&w.map);
	return err;
}

int side_save(struct side *s, unsigned generation, struct carried *c)
{
	return generation == 1 ? save_v1(s, c) : save_v2(s, c);
}

int side_load(struct side *s, unsigned generation, const struct carried *c)
{
	return generation == 1 ? load_v1(s, c) : load_v2(s, c);
}
