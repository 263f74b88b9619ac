/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The second version: a feature for the state, and a stream that the transport holds.
 *
 * The stream has no segments, so every read is one of its own.  Nothing to be read means that there
 * is nothing now, while the device runs, whether it says so by ENOMSG or, against the text, by an
 * end; and that it is over when the device stands still.
 */
#include "config.h"
#include "sys/migdev_parts.h"

#include <errno.h>

#include "core/vfiov2.h"

enum { FEATURE_MIGRATION = 1, FEATURE_STATE = 2 };

/* struct vfio_device_feature_mig_state */
struct feature_state {
	uint32_t number;
	int32_t fd;
};

static int v2_state(struct migdev *m)
{
	/* what is not answered is no state */
	struct feature_state s = { .number = UINT32_MAX, .fd = -1 };
	int err = devio_feature_get(m->io, FEATURE_STATE, &s, sizeof(s));

	return err ? err : vfiov2_decode(s.number, &m->caps);
}

static int v2_set(struct migdev *m, enum vfiostate to)
{
	struct feature_state s = { .number = vfiov2_encode(to), .fd = -1 };

	return devio_feature_set(m->io, FEATURE_STATE, &s, sizeof(s));
}

static int v2_save(struct migdev *m, void *buf, size_t room, struct migdev_piece *piece)
{
	ssize_t n = devio_mig_read(m->io, buf, room);

	*piece = (struct migdev_piece){ .len = n > 0 ? (size_t)n : 0 };
	if (n > 0)
		return MIGDEV_PIECE;
	if (m->state != VFIOSTATE_STOPCOPY && (n == 0 || n == -ENOMSG))
		return MIGDEV_LATER;
	if (n == -ENOMSG)
		return -EPROTO;
	return n ? (int)n : MIGDEV_END;
}

static int v2_segment(struct migdev *m, uint64_t length)
{
	m->left = length;
	return 0;
}

static int v2_load(struct migdev *m, const void *buf, size_t len)
{
	const uint8_t *at = buf;

	while (len) {
		ssize_t n = devio_mig_write(m->io, at, len);

		if (n < 0)
			return (int)n;
		at += n;
		len -= (size_t)n;
		m->left -= (uint64_t)n;
	}
	return 0;
}

static const struct migdev_ops v2_ops = {
	.state = v2_state,
	.set = v2_set,
	.save = v2_save,
	.segment = v2_segment,
	.load = v2_load,
};

/* Does the device have it? */
int migdev_v2_probe(struct migdev *m)
{
	uint64_t flags = 0;
	int err = devio_feature_get(m->io, FEATURE_MIGRATION, &flags, sizeof(flags));

	/* a server refuses what it does not know as invalid, the kernel as no such thing */
	if (err == -EINVAL)
		return -EOPNOTSUPP;
	if (err)
		return err;
	m->ops = &v2_ops;
	return vfiov2_caps(flags, &m->caps);
}
