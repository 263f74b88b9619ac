/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What both versions have in common:
 *
 *   - a change of state is one arc that the device surely has; anything else is refused here, and
 *     the device is not asked (S3-57);
 *   - after each change, and after each error, the state is read (S3-08); a change that returned
 *     well but did not happen is an error;
 *   - a device that refused bytes of its state is not to be trusted with what it has: some go on as
 *     if nothing had been, and then run on half of it.  It is spoiled until it was reset (S3-48).
 */
#include "config.h"
#include "sys/migdev_parts.h"

#include <errno.h>

/**
 * migdev_probe - which version of VFIO's migration does the device have?
 * @io: stays the caller's, and has to outlive @m
 *
 * Return: 0, and m->state is read; -EOPNOTSUPP: none; or what was wrong.  migdev_deinit() is fine
 * after either.
 */
int migdev_probe(struct migdev *m, struct devio *io)
{
	int err;

	*m = (struct migdev){ .io = io };
	err = migdev_v2_probe(m);
	if (err == -EOPNOTSUPP)
		err = migdev_v1_probe(m);
	if (err)
		return err;
	err = migdev_state(m);
	return err < 0 ? err : 0;
}

static void unmap(struct migdev *m)
{
	while (m->n_maps)
		devio_unmap(&m->maps[--m->n_maps].map);
}

/**
 * migdev_deinit - nothing of the device is mapped any more
 */
void migdev_deinit(struct migdev *m)
{
	unmap(m);
	m->ops = NULL;
}

/**
 * migdev_state - what state is the device in?
 */
int migdev_state(struct migdev *m)
{
	m->state = m->ops->state(m);
	return m->state;
}

static bool streams(int state)
{
	return state >= 0 && vfiostate_rights((enum vfiostate)state) &
				     (VFIOSTATE_SAVES | VFIOSTATE_LOADS);
}

/* A segment that was begun is lost with its stream, and must not be with a stream that goes on. */
static bool cuts_segment(const struct migdev *m, enum vfiostate to)
{
	unsigned rights = vfiostate_rights((enum vfiostate)m->state);

	return m->left && (rights & (VFIOSTATE_LOADS | vfiostate_rights(to)) &
			   (VFIOSTATE_SAVES | VFIOSTATE_LOADS));
}

/**
 * migdev_set - go to another state, by one arc
 *
 * Return: 0; -EINVAL: that is no arc of it; -EIO: it needs a reset; -EBUSY: a segment is not whole;
 * or what the device says.
 */
int migdev_set(struct migdev *m, enum vfiostate to)
{
	int err;

	if (m->spoiled || m->state < 0 || m->state == VFIOSTATE_ERROR)
		return -EIO;
	if (vfiostate_hop(&m->caps, (enum vfiostate)m->state, to) != (int)to)
		return -EINVAL;
	if (cuts_segment(m, to))
		return -EBUSY;
	err = m->ops->set(m, to);
	if (migdev_state(m) != (int)to && !err)
		err = m->state < 0 ? m->state : -EPROTO;
	if (!streams(m->state)) {
		unmap(m);
		m->left = m->length = 0;
	}
	return err;
}

/**
 * migdev_reset - as if it had just been opened, and running
 *
 * Return: 0, also when the device stayed in another state than RUNNING, which some servers' do:
 * m->state tells.
 */
int migdev_reset(struct migdev *m)
{
	int err = devio_reset(m->io);

	unmap(m);
	m->left = m->length = 0;
	m->spoiled &= err != 0;
	migdev_state(m);
	if (err)
		return err;
	return m->state < 0 ? m->state : 0;
}

/**
 * migdev_save - read on in the device's stream
 * @piece: set with MIGDEV_PIECE
 *
 * In a state that saves.  A segment comes in as many pieces as @room makes of it.
 */
int migdev_save(struct migdev *m, void *buf, size_t room, struct migdev_piece *piece)
{
	int err;

	if (m->state < 0 || !(vfiostate_rights((enum vfiostate)m->state) & VFIOSTATE_SAVES))
		return -EINVAL;
	err = m->ops->save(m, buf, room, piece);
	if (err < 0)
		migdev_state(m);
	return err;
}

static int spoil(struct migdev *m, int err)
{
	if (!err)
		return 0;
	m->spoiled = true;
	migdev_state(m);
	return err;
}

/**
 * migdev_segment - a segment is to be loaded
 * @length: of all of it, as it was saved; not 0
 */
int migdev_segment(struct migdev *m, uint64_t length)
{
	if (m->state != VFIOSTATE_RESUMING || m->left || length == 0)
		return -EINVAL;
	return m->spoiled ? -EIO : spoil(m, m->ops->segment(m, length));
}

/**
 * migdev_load - the next bytes of the segment
 */
int migdev_load(struct migdev *m, const void *buf, size_t len)
{
	if (m->state != VFIOSTATE_RESUMING || len > m->left || len == 0)
		return -EINVAL;
	return m->spoiled ? -EIO : spoil(m, m->ops->load(m, buf, len));
}
