/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What all transports have in common: a call is announced to the watchdog, repeated when a signal
 * that was not meant for it ended it, and its errors are given one meaning.
 *
 * What comes late but comes is no error: the deadline bounds the waiting.  Only a call that was
 * interrupted after its time, or that the transport ended itself, is -ETIMEDOUT.  A handle that was
 * given up says so whatever the call did.
 */
#include "config.h"

#include "sys/devio.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/guard.h"
#include "sys/clock.h"
#include "sys/mem.h"

#define REGION_ROOM 4096 /* a description with its capabilities; more areas than are taken */

/**
 * devio_init - a handle over a transport
 */
void devio_init(struct devio *d, const struct devio_ops *ops, void *ctx)
{
	*d = (struct devio){ .ops = ops, .ctx = ctx };
	devwatch_init(&d->watch);
}

/**
 * devio_close - give the device back
 *
 * The kernel resets a device at its last close, so this may take its time, too; it has no deadline.
 */
void devio_close(struct devio *d)
{
	const struct devio_ops *ops = d->ops;

	d->ops = NULL;
	if (ops)
		ops->close(d->ctx);
}

/**
 * devio_set_limit - how long a call may take
 */
void devio_set_limit(struct devio *d, uint64_t limit_ns)
{
	d->limit_ns = limit_ns;
}

/**
 * devio_watch - what another thread may look at
 */
struct devwatch *devio_watch(struct devio *d)
{
	return &d->watch;
}

/* --- a call --- */

/* Is the call to be made (again)?  *until: 0 before the first time. */
static bool again(struct devio *d, const char *what, ssize_t ret, uint64_t *until)
{
	if (*until == 0) {
		*until = devwatch_enter(&d->watch, what, d->limit_ns);
		return *until != 0;
	}
	return ret == -EINTR && clock_ns() < *until;
}

static ssize_t result(struct devio *d, ssize_t ret, uint64_t until)
{
	if (until == 0 || !devwatch_leave(&d->watch) || ret == -EINTR)
		return -ETIMEDOUT;
	return ret == -ENOTTY ? -EOPNOTSUPP : ret;
}

/* @call is an expression in which `until' is when it must be over. */
#define CALL(d, what, call)                               \
	({                                                \
		uint64_t until = 0;                       \
		ssize_t _ret = 0;                         \
							  \
		while (again((d), (what), _ret, &until)) \
			_ret = (call);                    \
		result((d), _ret, until);                 \
	})

/**
 * devio_info - how many regions and interrupts it has
 */
int devio_info(struct devio *d, struct devio_info *out)
{
	*out = (struct devio_info){ 0 };
	return (int)CALL(d, "info", d->ops->info(d->ctx, out, until));
}

/**
 * devio_region - what a region is
 *
 * Return: 0; -E2BIG for a description that does not fit, -EPROTO or -EOPNOTSUPP for what
 * vfiocaps_region() cannot make sense of.
 */
int devio_region(struct devio *d, uint32_t index, struct vfiocaps_region *out)
{
	uint8_t bytes[REGION_ROOM] = { 0 };
	size_t need;
	ssize_t len;
	int ret;

	len = CALL(d, "region info", d->ops->region(d->ctx, index, bytes, sizeof(bytes), until));
	if (len < 0)
		return (int)len;
	if ((size_t)len > sizeof(bytes))
		return -EPROTO;
	ret = vfiocaps_region(out, bytes, (size_t)len, &need, NULL);
	if (ret == VFIOCAPS_AGAIN)
		return -E2BIG;
	return ret == 0 && out->index != index ? -EPROTO : ret;
}

static int whole(ssize_t ret, size_t len)
{
	if (ret < 0)
		return (int)ret;
	return (size_t)ret == len ? 0 : -EIO;
}

static int read_once(struct devio *d, const struct devio_at *at, void *buf, size_t len)
{
	return whole(CALL(d, "region read", d->ops->read(d->ctx, at, buf, len, until)), len);
}

static int write_once(struct devio *d, const struct devio_at *at, const void *buf, size_t len)
{
	return whole(CALL(d, "region write", d->ops->write(d->ctx, at, buf, len, until)), len);
}

/* The widest access that is aligned there and no longer than what is left. */
static uint32_t natural_width(uint64_t offset, size_t left)
{
	uint32_t width = 8;

	while (offset % width || width > left)
		width /= 2;
	return width;
}

/* Where only registers can be read, a window is one register after the other. */
static int read_natural(struct devio *d, struct devio_at at, uint8_t *buf, size_t len)
{
	int ret = 0;

	for (size_t done = 0; done < len && ret == 0; done += at.width, at.offset += at.width) {
		at.width = natural_width(at.offset, len - done);
		ret = read_once(d, &at, buf + done, at.width);
	}
	return ret;
}

static int write_natural(struct devio *d, struct devio_at at, const uint8_t *buf, size_t len)
{
	int ret = 0;

	for (size_t done = 0; done < len && ret == 0; done += at.width, at.offset += at.width) {
		at.width = natural_width(at.offset, len - done);
		ret = write_once(d, &at, buf + done, at.width);
	}
	return ret;
}

static bool is_access(const struct devio_at *at, size_t len)
{
	return at->width == 0 ||
	       (is_power_of_two(at->width) && at->width <= 8 && at->width == len &&
		at->offset % at->width == 0);
}

/**
 * devio_read - read from a region
 *
 * With a width it is one access of that width.  Without one the bytes are those of a window, and
 * how they are fetched does not matter: where the device refuses them in one piece (-EINVAL) they
 * are fetched in natural widths.
 */
int devio_read(struct devio *d, const struct devio_at *at, void *buf, size_t len)
{
	int ret;

	assert(is_access(at, len));
	ret = read_once(d, at, buf, len);
	return ret == -EINVAL && at->width == 0 ? read_natural(d, *at, buf, len) : ret;
}

/**
 * devio_write - write into a region; as devio_read()
 */
int devio_write(struct devio *d, const struct devio_at *at, const void *buf, size_t len)
{
	int ret;

	assert(is_access(at, len));
	ret = write_once(d, at, buf, len);
	return ret == -EINVAL && at->width == 0 ? write_natural(d, *at, buf, len) : ret;
}

/**
 * devio_reset - as if it had just been opened
 */
int devio_reset(struct devio *d)
{
	if (!d->ops->reset)
		return -EOPNOTSUPP;
	return (int)CALL(d, "reset", d->ops->reset(d->ctx, until));
}

/* --- features --- */

static int feature(struct devio *d, const char *what, uint32_t flags, void *data, size_t len)
{
	if (!d->ops->feature)
		return -EOPNOTSUPP;
	return (int)CALL(d, what, d->ops->feature(d->ctx, flags, data, len, until));
}

/**
 * devio_feature_get - what a feature says
 */
int devio_feature_get(struct devio *d, uint16_t index, void *data, size_t len)
{
	return feature(d, "feature get", index | DEVIO_GET, data, len);
}

/**
 * devio_feature_set - tell a feature
 *
 * Changing the state of a migration (MIG_DEVICE_STATE) begins and ends streams; the descriptor in
 * @data is then none, because it is the transport's.
 */
int devio_feature_set(struct devio *d, uint16_t index, void *data, size_t len)
{
	return feature(d, "feature set", index | DEVIO_SET, data, len);
}

/**
 * devio_feature_has - does the device have it, for these operations?
 *
 * A server may refuse what it does not know as invalid: for a question that is the same.
 */
int devio_feature_has(struct devio *d, uint16_t index, uint32_t ops)
{
	int ret = feature(d, "feature probe", index | ops | DEVIO_PROBE, NULL, 0);

	if (ret == -EOPNOTSUPP || ret == -EINVAL)
		return 0;
	return ret < 0 ? ret : 1;
}

/* --- the stream of device state --- */

/**
 * devio_mig_read - the next bytes of the stream, as many as there are
 */
ssize_t devio_mig_read(struct devio *d, void *buf, size_t len)
{
	ssize_t ret;

	if (!d->ops->mig_read)
		return -EOPNOTSUPP;
	ret = CALL(d, "stream read", d->ops->mig_read(d->ctx, buf, len, until));
	return ret > 0 && (size_t)ret > len ? -EPROTO : ret;
}

/**
 * devio_mig_write - give bytes to the stream
 */
ssize_t devio_mig_write(struct devio *d, const void *buf, size_t len)
{
	ssize_t ret;

	if (!d->ops->mig_write)
		return -EOPNOTSUPP;
	ret = CALL(d, "stream write", d->ops->mig_write(d->ctx, buf, len, until));
	if (ret > 0 && (size_t)ret > len)
		return -EPROTO;
	return ret == 0 && len ? -EIO : ret;
}

/**
 * devio_mig_precopy - how much a device in pre-copy still has to say
 */
int devio_mig_precopy(struct devio *d, struct devio_precopy *out)
{
	*out = (struct devio_precopy){ 0 };
	if (!d->ops->mig_precopy)
		return -EOPNOTSUPP;
	return (int)CALL(d, "precopy info", d->ops->mig_precopy(d->ctx, out, until));
}

/* --- memory that the device reaches --- */

static bool is_dma_range(uint64_t iova, uint64_t size)
{
	uint64_t end;

	return size && add_u64(iova, size - 1, &end);
}

/**
 * devio_dma_map - let the device reach memory
 *
 * Of the kernel's devices the whole of it is pinned by this call, or nothing is; a page that is
 * missing under userfaultfd is not waited for.  Who maps sees to it that none is (core/gate.h), so
 * that -EFAULT is somebody's mistake.
 *
 * Return: 0 or -errno, see devio_dma_why().
 */
int devio_dma_map(struct devio *d, const struct devio_dma *m)
{
	if (!d->ops->dma_map)
		return -EOPNOTSUPP;
	if (!is_dma_range(m->iova, m->size) || !m->prot || m->prot & ~(PROT_READ | PROT_WRITE))
		return -EINVAL;
	return (int)CALL(d, "dma map", d->ops->dma_map(d->ctx, m, until));
}

/**
 * devio_dma_unmap - take memory from the device
 *
 * When it returned, the device does not reach it any more.
 */
int devio_dma_unmap(struct devio *d, uint64_t iova, uint64_t size)
{
	if (!d->ops->dma_unmap)
		return -EOPNOTSUPP;
	if (!is_dma_range(iova, size))
		return -EINVAL;
	return (int)CALL(d, "dma unmap", d->ops->dma_unmap(d->ctx, iova, size, until));
}

/**
 * devio_dma_why - an error of the two, in words
 *
 * Return: NULL where there is no more to say than what the errno says by itself.
 */
const char *devio_dma_why(int err)
{
	static const struct {
		int err;
		const char *text;
	} why[] = {
		{ -EFAULT, "a page of it was missing: it was mapped too early (a bug of ours)" },
		{ -ENOMEM, "it would be more than may be locked: RLIMIT_MEMLOCK (LimitMEMLOCK=)" },
		{ -ENOSPC, "too many mappings: dma_entry_limit of vfio_iommu_type1" },
		{ -EEXIST, "its device addresses are mapped already" },
		{ -EINVAL, "no whole pages, not for this device to reach, or not in its state" },
		{ -ENOENT, "it was not mapped" },
	};

	for (unsigned i = 0; i < ARRAY_LEN(why); i++)
		if (why[i].err == err)
			return why[i].text;
	return NULL;
}

/* --- mapped parts of regions --- */

/**
 * devio_map - map a part of a region
 *
 * Return: 0; -EINVAL unless it is whole pages inside a region that can be mapped, or what mmap(2)
 * says.
 */
int devio_map(struct devio *d, const struct vfiocaps_region *r, uint64_t offset, uint64_t len,
	      struct devio_map *out)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

	*out = (struct devio_map){ 0 };
	if (!d->ops->map)
		return -EOPNOTSUPP;
	if (!(r->flags & VFIOCAPS_MMAP) || !range_inside(offset, len, r->size) ||
	    offset % page || len % page)
		return -EINVAL;
	return d->ops->map(d->ctx, r, offset, len, out);
}

/**
 * devio_unmap - undo devio_map()
 */
void devio_unmap(struct devio_map *m)
{
	if (m->base)
		munmap(m->base, m->len);
	*m = (struct devio_map){ 0 };
}

/*
 * To read a file costs less than to have the kernel look through our page tables for it; but what a
 * server gives to be mapped may be something that cannot be read.
 */
static int file_read(const struct devio_map *m, uint64_t offset, uint8_t *buf, size_t len)
{
	const uint8_t *base = m->base + offset;
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(m->fd, buf + done, len - done, (off_t)(m->at + offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		done += (size_t)n;
	}
	return done == len ? 0 : mem_read(buf + done, base + done, len - done);
}

/**
 * devio_map_read - copy out of a mapped part
 */
int devio_map_read(const struct devio_map *m, uint64_t offset, void *buf, size_t len)
{
	assert(range_inside(offset, len, m->len));
	if (m->shared_file)
		return file_read(m, offset, buf, len);
	memcpy(buf, m->base + offset, len);
	return 0;
}

/**
 * devio_map_write - copy into a mapped part
 */
int devio_map_write(const struct devio_map *m, uint64_t offset, const void *buf, size_t len)
{
	assert(range_inside(offset, len, m->len));
	if (m->shared_file)
		return mem_write(m->base + offset, buf, len);
	memcpy(m->base + offset, buf, len);
	return 0;
}
