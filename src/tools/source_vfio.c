// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Each segment goes out as it was read, with its size in front: that is known before its bytes are,
 * of a migration region from the device, and of a stream because each piece that was read is a
 * segment.
 *
 * What was saved is kept until the end: a device that is asked to go back and cannot do so on its
 * own is reset, and loaded with it.
 */
#include "config.h"

#include "source_vfio.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/guard.h"
#include "sys/clock.h"
#include "sys/devcompat.h"
#include "sys/devio_vfio.h"
#include "sys/devio_vfiouser.h"
#include "sys/fd.h"

#define PIECE (1u << 18)
#define MS    1000000u

/**
 * source_vfio_init - not open
 */
void source_vfio_init(struct source_vfio *v, const struct source_vfio_spec *spec)
{
	memset(v, 0, sizeof(*v));
	v->spec = spec;
	v->copy = -1;
	v->what = "open";
}

static int open_io(struct source_vfio *v, const char **why)
{
	const struct devio_vfiouser_options options = { .limit_ns = v->spec->deadline_ms * MS };

	if (v->spec->sysfs)
		return devio_vfio_open(&v->io, v->spec->sysfs, why);
	return devio_vfiouser_open(&v->io, v->spec->socket, &options);
}

/**
 * source_vfio_open - its handle, and what it can do
 */
int source_vfio_open(struct source_vfio *v, const char **why)
{
	int r = open_io(v, why);

	if (r < 0)
		return r;
	v->open = true;
	devio_set_limit(&v->io, v->spec->deadline_ms * MS);
	r = migdev_probe(&v->mig, &v->io);
	if (r == -EOPNOTSUPP)
		*why = "it cannot be migrated";
	if (r < 0)
		return r;
	v->probed = true;
	/* parked until its memory is there, or moved by somebody else: no state to go on with */
	if (v->mig.state != VFIOSTATE_RUNNING) {
		*why = "it does not run: it waits for its memory, or is being moved already";
		return -EBUSY;
	}
	v->copy = memfd_create("postcopy-source", MFD_CLOEXEC);
	return v->copy < 0 ? -errno : 0;
}

void source_vfio_deinit(struct source_vfio *v)
{
	if (v->probed)
		migdev_deinit(&v->mig);
	if (v->open)
		devio_close(&v->io);
	v->open = v->probed = false;
	close_fd(&v->copy);
}

/* --- saving ----------------------------------------------------------------------------------- */

/* What stands around bodies. */
struct frame {
	uint8_t bytes[DEVSTATE_WINDOW];
	struct pen pen;
};

static struct pen *frame_begin(struct frame *f)
{
	f->pen = pen_init(f->bytes, sizeof(f->bytes));
	return &f->pen;
}

static int frame_send(const struct frame *f, struct source_sink *k)
{
	return source_sink_write(k, f->bytes, pen_used(&f->pen));
}

/**
 * source_vfio_begin - its HEAD
 * @slot: its number in the stream
 */
int source_vfio_begin(struct source_vfio *v, struct source_sink *k, unsigned slot)
{
	struct devstate_id id = { .slot = slot, .device = v->spec->id };
	char compat[DEVSTATE_NAME];
	struct frame f;

	/* A device that cannot tell is compared by nothing. */
	(void)devcompat_read(&v->io, compat);
	id.compat = compat;
	id.kind = v->mig.caps.v2 ? DEVSTATE_STREAM : DEVSTATE_REGION;
	memcpy(id.session, k->session, sizeof(id.session));
	digest_init(&v->digest, 0);
	devstate_put_head(&v->writer, frame_begin(&f), &id, 1);
	return frame_send(&f, k);
}

static int keep(const struct source_vfio *v, const void *bytes, size_t len)
{
	return write(v->copy, bytes, len) == (ssize_t)len ? 0 : -EIO;
}

static int begin_segment(struct source_vfio *v, struct source_sink *k, uint64_t length)
{
	struct frame f;
	int r = keep(v, &length, sizeof(length));

	devstate_put_segment(&v->writer, frame_begin(&f), length);
	return r < 0 ? r : frame_send(&f, k);
}

static int send_piece(struct source_vfio *v, struct source_sink *k, const uint8_t *bytes,
		      const struct migdev_piece *piece)
{
	struct frame f;
	int r = 0;

	if (v->writer.left == 0)
		r = begin_segment(v, k, piece->len + piece->left);
	if (r == 0)
		r = keep(v, bytes, piece->len);
	if (r == 0)
		r = source_sink_write(k, bytes, piece->len);
	if (r < 0)
		return r;
	devstate_fed(&v->writer, bytes, piece->len);
	digest_feed(&v->digest, bytes, piece->len);
	if (piece->left)
		return 0;
	devstate_put_tail(&v->writer, frame_begin(&f));
	return frame_send(&f, k);
}

/*
 * To the end, to where nothing comes for now, or to the end of the segment that brings it to @most
 * bytes: enum migdev_outcome, or -errno.
 */
static int read_on(struct source_vfio *v, struct source_sink *k, uint64_t most)
{
	const uint64_t began = v->writer.bytes;
	cleanup_free uint8_t *buf = malloc(PIECE);
	struct migdev_piece piece;
	int r = MIGDEV_PIECE;

	if (!buf)
		return -ENOMEM;
	while (r == MIGDEV_PIECE && (v->writer.left || v->writer.bytes - began < most)) {
		r = migdev_save(&v->mig, buf, PIECE, &piece);
		if (r == MIGDEV_PIECE) {
			int sent = send_piece(v, k, buf, &piece);

			r = sent < 0 ? sent : r;
		}
	}
	return r;
}

/**
 * source_vfio_round - an iteration of pre-copy
 * @most: bytes, to which the last segment may add: a device that always has more would keep
 *   everybody else, and the switch-over, waiting
 *
 * Return: how many bytes it brought.
 */
int64_t source_vfio_round(struct source_vfio *v, struct source_sink *k, uint64_t most)
{
	uint64_t before = v->writer.bytes;
	struct frame f;
	int r;

	v->what = "pre-copy";
	r = read_on(v, k, most);
	if (r < 0)
		return r;
	v->rounds++;
	devstate_put_round(&v->writer, frame_begin(&f));
	r = frame_send(&f, k);
	return r < 0 ? r : (int64_t)(v->writer.bytes - before);
}

static int save(struct source_vfio *v, struct source_sink *k)
{
	struct frame f;
	int r = read_on(v, k, UINT64_MAX);

	if (r < 0)
		return r;
	if (r != MIGDEV_END)
		return -EPROTO;
	devstate_put_end(&v->writer, frame_begin(&f));
	return frame_send(&f, k);
}

/* --- back ------------------------------------------------------------------------------------- */

static int load_segment(struct source_vfio *v, uint8_t *buf, uint64_t length)
{
	int r = length ? migdev_segment(&v->mig, length) : 0;

	for (uint64_t left = length; left && r == 0;) {
		size_t len = left < PIECE ? (size_t)left : PIECE;

		if (read(v->copy, buf, len) != (ssize_t)len)
			return -EIO;
		r = migdev_load(&v->mig, buf, len);
		left -= len;
	}
	return r;
}

static int load(struct source_vfio *v)
{
	cleanup_free uint8_t *buf = malloc(PIECE);
	uint64_t length;
	ssize_t n = 0;
	int r = 0;

	if (!buf || lseek(v->copy, 0, SEEK_SET) < 0)
		return -ENOMEM;
	while (r == 0 && (n = read(v->copy, &length, sizeof(length))) == sizeof(length))
		r = load_segment(v, buf, length);
	return r == 0 && n != 0 ? -EIO : r;
}

/**
 * source_vfio_act - one request of the group
 */
int source_vfio_act(struct source_vfio *v, const struct devgroup_action *a, struct source_sink *k)
{
	uint64_t began = clock_ns();
	int r;

	switch (a->verb) {
	case DEVGROUP_SET:
		v->what = vfiostate_name(a->state);
		r = migdev_set(&v->mig, a->state);
		break;
	case DEVGROUP_RESET:
		v->what = "reset";
		r = migdev_reset(&v->mig);
		break;
	case DEVGROUP_SAVE:
		v->what = "save";
		r = save(v, k);
		break;
	default:
		v->what = "load";
		r = load(v);
		break;
	}
	v->busy_ns += clock_ns() - began;
	return r;
}
