/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kernel's devices.  The way to one leads through its IOMMU group, which is attached to a
 * container, the IOMMU's side of it all; only then the group gives the device out.  The newer way,
 * a character device for each and iommufd, is not gone here, and refused by name where it is the
 * only one: its mapping waits for missing pages with locks held, and maps of files make pages up.
 *
 * What devices reach belongs to the container, and a group is in one container only.  So devices of
 * one group share both, by duplicates of their descriptors: whoever is closed last ends it all.
 *
 * Mapping pins every page of the range where a device is behind the IOMMU, from the address space
 * of who calls, and charges it to that process's limit of locked memory.  A page that is missing
 * under userfaultfd is an error at once, and the whole of the range is unpinned again (devices.md
 * 4.1, F1).  Where a driver pins for itself (mdev) nothing is pinned here, and missing pages are no
 * error: they are one for the device, later.
 *
 * The descriptor of a stream comes out of a change of state and lives here, until another takes its
 * place, or the device has left the states that have one.
 *
 * None of these calls has a timeout: sys/devwatch.c says what is done about it.
 */
#include "config.h"

#include "sys/devio_vfio.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/guard.h"
#include "sys/fd.h"
#include "sys/uapi.h"

#define PATH_ROOM    512
#define FEATURE_ROOM 256

struct vfio {
	int container, group, device;
	int number; /* of the group */
	int stream; /* of device state; -1: none */
	/* Where the region that was used last is in the device's file. */
	bool known;
	uint32_t region;
	uint64_t offset, size;
};

static void vfio_free(struct vfio *v)
{
	if (!v)
		return;
	close_fd(&v->stream);
	close_fd(&v->device);
	close_fd(&v->group);
	close_fd(&v->container);
	free(v);
}

static void vfio_freep(struct vfio **v)
{
	vfio_free(*v);
}

static int done(int ret)
{
	return ret < 0 ? -errno : 0;
}

static ssize_t moved(ssize_t n)
{
	return n < 0 ? -errno : n;
}

/* --- regions --- */

static int v_info(void *ctx, struct devio_info *out, uint64_t until)
{
	struct vfio_device_info info = { .argsz = sizeof(info) };
	const struct vfio *v = ctx;

	(void)until;
	if (ioctl(v->device, VFIO_DEVICE_GET_INFO, &info) < 0)
		return -errno;
	*out = (struct devio_info){ info.flags, info.num_regions, info.num_irqs };
	return 0;
}

static ssize_t v_region(void *ctx, uint32_t index, void *bytes, size_t room, uint64_t until)
{
	struct vfio_region_info head = { .argsz = (uint32_t)room, .index = index };
	const struct vfio *v = ctx;

	(void)until;
	memset(bytes, 0, room);
	memcpy(bytes, &head, sizeof(head));
	/* What does not fit is left out, and argsz says how much it was. */
	return ioctl(v->device, VFIO_DEVICE_GET_REGION_INFO, bytes) < 0 ? -errno : (ssize_t)room;
}

static int locate(struct vfio *v, const struct devio_at *at, size_t len, off_t *where)
{
	struct vfio_region_info info = { .argsz = sizeof(info), .index = at->region };
	uint64_t place;

	if (!v->known || v->region != at->region) {
		if (ioctl(v->device, VFIO_DEVICE_GET_REGION_INFO, &info) < 0)
			return -errno;
		v->known = true;
		v->region = at->region;
		v->offset = info.offset;
		v->size = info.size;
	}
	if (!range_inside(at->offset, len, v->size))
		return -EINVAL;
	if (!add_u64(v->offset, at->offset, &place) || place > INT64_MAX)
		return -EPROTO;
	*where = (off_t)place;
	return 0;
}

static ssize_t v_read(void *ctx, const struct devio_at *at, void *buf, size_t len, uint64_t until)
{
	struct vfio *v = ctx;
	off_t where = 0;
	int ret = locate(v, at, len, &where);

	(void)until;
	return ret < 0 ? ret : moved(pread(v->device, buf, len, where));
}

static ssize_t v_write(void *ctx, const struct devio_at *at, const void *buf, size_t len,
		       uint64_t until)
{
	struct vfio *v = ctx;
	off_t where = 0;
	int ret = locate(v, at, len, &where);

	(void)until;
	return ret < 0 ? ret : moved(pwrite(v->device, buf, len, where));
}

static int v_map(void *ctx, const struct vfiocaps_region *r, uint64_t offset, uint64_t len,
		 struct devio_map *out)
{
	const struct vfio *v = ctx;
	uint64_t place;
	int prot = 0;
	void *base;

	if (!add_u64(r->offset, offset, &place) || place > INT64_MAX)
		return -EPROTO;
	prot |= r->flags & VFIOCAPS_READ ? PROT_READ : 0;
	prot |= r->flags & VFIOCAPS_WRITE ? PROT_WRITE : 0;
	base = mmap(NULL, len, prot, MAP_SHARED, v->device, (off_t)place);
	if (base == MAP_FAILED)
		return -errno;
	*out = (struct devio_map){ .base = base, .len = len };
	return 0;
}

static int v_reset(void *ctx, uint64_t until)
{
	struct vfio *v = ctx;
	int ret = done(ioctl(v->device, VFIO_DEVICE_RESET));

	(void)until;
	if (ret == 0)
		close_fd(&v->stream);
	return ret;
}

/* --- features --- */

static bool has_stream(uint32_t state)
{
	return state == VFIO_DEVICE_STATE_STOP_COPY || state == VFIO_DEVICE_STATE_RESUMING ||
	       state == VFIO_DEVICE_STATE_PRE_COPY || state == VFIO_DEVICE_STATE_PRE_COPY_P2P;
}

/* Keep the stream that a change began, drop the one that it ended, show neither. */
static void take_stream(struct vfio *v, void *data)
{
	struct vfio_device_feature_mig_state s;

	memcpy(&s, data, sizeof(s));
	if (s.data_fd >= 0 || !has_stream(s.device_state))
		close_fd(&v->stream);
	if (s.data_fd >= 0)
		v->stream = s.data_fd;
	s.data_fd = -1;
	memcpy(data, &s, sizeof(s));
}

static int v_feature(void *ctx, uint32_t flags, void *data, size_t len, uint64_t until)
{
	_Alignas(uint64_t) uint8_t buf[sizeof(struct vfio_device_feature) + FEATURE_ROOM] = { 0 };
	struct vfio_device_feature head = { .argsz = (uint32_t)(sizeof(head) + len) };
	struct vfio *v = ctx;

	(void)until;
	if (len > FEATURE_ROOM)
		return -E2BIG;
	head.flags = flags;
	memcpy(buf, &head, sizeof(head));
	if (len)
		memcpy(buf + sizeof(head), data, len);
	if (ioctl(v->device, VFIO_DEVICE_FEATURE, buf) < 0)
		return -errno;
	if (len)
		memcpy(data, buf + sizeof(head), len);
	if (flags == (VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE) &&
	    len >= sizeof(struct vfio_device_feature_mig_state))
		take_stream(v, data);
	return 0;
}

/* --- the stream --- */

static ssize_t v_mig_read(void *ctx, void *buf, size_t len, uint64_t until)
{
	const struct vfio *v = ctx;

	(void)until;
	return v->stream < 0 ? -ENODEV : moved(read(v->stream, buf, len));
}

static ssize_t v_mig_write(void *ctx, const void *buf, size_t len, uint64_t until)
{
	const struct vfio *v = ctx;

	(void)until;
	return v->stream < 0 ? -ENODEV : moved(write(v->stream, buf, len));
}

static int v_mig_precopy(void *ctx, struct devio_precopy *out, uint64_t until)
{
	struct vfio_precopy_info info = { .argsz = sizeof(info) };
	const struct vfio *v = ctx;

	(void)until;
	if (v->stream < 0)
		return -ENODEV;
	if (ioctl(v->stream, VFIO_MIG_GET_PRECOPY_INFO, &info) < 0)
		return -errno;
	*out = (struct devio_precopy){ info.initial_bytes, info.dirty_bytes };
	return 0;
}

/* --- memory --- */

static int v_dma_map(void *ctx, const struct devio_dma *m, uint64_t until)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = (m->prot & PROT_READ ? VFIO_DMA_MAP_FLAG_READ : 0) |
			 (m->prot & PROT_WRITE ? VFIO_DMA_MAP_FLAG_WRITE : 0),
		.vaddr = (uintptr_t)m->address,
		.iova = m->iova,
		.size = m->size,
	};
	const struct vfio *v = ctx;

	(void)until;
	return m->address ? done(ioctl(v->container, VFIO_IOMMU_MAP_DMA, &map)) : -EINVAL;
}

/* The kernel unmaps what there is of a range, and says how much that was. */
static int v_dma_unmap(void *ctx, uint64_t iova, uint64_t size, uint64_t until)
{
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.iova = iova,
		.size = size,
	};
	const struct vfio *v = ctx;

	(void)until;
	if (ioctl(v->container, VFIO_IOMMU_UNMAP_DMA, &unmap) < 0)
		return -errno;
	return unmap.size == size ? 0 : -ENOENT;
}

static void v_close(void *ctx)
{
	vfio_free(ctx);
}

static const struct devio_ops vfio_ops = {
	.info = v_info,
	.region = v_region,
	.read = v_read,
	.write = v_write,
	.map = v_map,
	.reset = v_reset,
	.feature = v_feature,
	.mig_read = v_mig_read,
	.mig_write = v_mig_write,
	.mig_precopy = v_mig_precopy,
	.dma_map = v_dma_map,
	.dma_unmap = v_dma_unmap,
	.close = v_close,
};

/* --- the way to a device --- */

static int refuse(int err, const char *text, const char **why)
{
	*why = text;
	return err;
}

static bool exists(const char *sysfs, const char *name)
{
	char path[PATH_ROOM];
	int n = snprintf(path, sizeof(path), "%s/%s", sysfs, name);

	return n > 0 && (size_t)n < sizeof(path) && access(path, F_OK) == 0;
}

/**
 * devio_vfio_group - which group a device is in
 */
int devio_vfio_group(const char *sysfs, const char **why)
{
	char link[PATH_ROOM], target[PATH_ROOM];
	const char *name;
	ssize_t len;
	long number;
	char *end;
	int n = snprintf(link, sizeof(link), "%s/iommu_group", sysfs);

	if (n < 0 || (size_t)n >= sizeof(link) || access(sysfs, F_OK) < 0)
		return refuse(-ENODEV, "there is no such device in sysfs", why);
	len = readlink(link, target, sizeof(target) - 1);
	if (len < 0 && exists(sysfs, "vfio-dev"))
		return refuse(-EOPNOTSUPP, "it is to be had by iommufd only (not supported)", why);
	if (len < 0)
		return refuse(-ENODEV, "it is in no IOMMU group", why);
	target[len] = '\0';
	name = strrchr(target, '/') ? strrchr(target, '/') + 1 : target;
	number = strtol(name, &end, 10);
	if (end == name || *end || number < 0 || number > INT_MAX)
		return refuse(-ENODEV, "its IOMMU group has no number", why);
	return (int)number;
}

static int open_container(struct vfio *v, const char **why)
{
	v->container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	if (v->container < 0)
		return refuse(-errno, "/dev/vfio/vfio cannot be opened", why);
	if (ioctl(v->container, VFIO_GET_API_VERSION) != VFIO_API_VERSION ||
	    ioctl(v->container, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) != 1)
		return refuse(-EOPNOTSUPP, "the kernel's VFIO has no IOMMU of type 1", why);
	return 0;
}

static int attach_group(struct vfio *v, const char **why)
{
	struct vfio_group_status status = { .argsz = sizeof(status) };
	char path[sizeof("/dev/vfio/-2147483648")];

	snprintf(path, sizeof(path), "/dev/vfio/%d", v->number);
	v->group = open(path, O_RDWR | O_CLOEXEC);
	if (v->group < 0)
		return refuse(-errno, "its group cannot be opened: no VFIO driver, or in use", why);
	if (ioctl(v->group, VFIO_GROUP_GET_STATUS, &status) < 0)
		return refuse(-errno, "its group does not answer", why);
	if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		return refuse(-EBUSY, "a device of its group has a driver that is not VFIO's", why);
	if (ioctl(v->group, VFIO_GROUP_SET_CONTAINER, &v->container) < 0)
		return refuse(-errno, "its group is in another container", why);
	if (ioctl(v->container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) < 0)
		return refuse(-errno, "the IOMMU refuses its group: no interrupt remapping?", why);
	return 0;
}

static int share_group(struct vfio *v, const struct devio *beside, const char **why)
{
	const struct vfio *other = beside->ctx;

	assert(beside->ops == &vfio_ops);
	if (other->number != v->number)
		return refuse(-EXDEV, "it is in another group than the device beside it", why);
	v->container = fcntl(other->container, F_DUPFD_CLOEXEC, 0);
	v->group = fcntl(other->group, F_DUPFD_CLOEXEC, 0);
	return v->container < 0 || v->group < 0 ? refuse(-errno, "no descriptors left", why) : 0;
}

static int reach_group(struct vfio *v, const char *sysfs, const struct devio *beside,
		       const char **why)
{
	int ret = v->number = devio_vfio_group(sysfs, why);

	if (ret >= 0 && beside)
		return share_group(v, beside, why);
	ret = ret < 0 ? ret : open_container(v, why);
	return ret < 0 ? ret : attach_group(v, why);
}

static int open_device(struct devio *out, const char *sysfs, const struct devio *beside,
		       const char **why)
{
	__attribute__((cleanup(vfio_freep))) struct vfio *v = calloc(1, sizeof(*v));
	const char *name = strrchr(sysfs, '/');
	int ret;

	*why = "out of memory";
	if (!v)
		return -ENOMEM;
	v->container = v->group = v->device = v->stream = -1;
	ret = reach_group(v, sysfs, beside, why);
	if (ret < 0)
		return ret;
	v->device = ioctl(v->group, VFIO_GROUP_GET_DEVICE_FD, name ? name + 1 : sysfs);
	if (v->device < 0)
		return refuse(-errno, "its group does not give it out", why);
	devio_init(out, &vfio_ops, steal_ptr(&v));
	return 0;
}

/**
 * devio_vfio_open - open a device of the kernel's
 *
 * Return: 0; -ENODEV, -EBUSY (its group is open), -EOPNOTSUPP, or what open(2) and the ioctls say.
 */
int devio_vfio_open(struct devio *out, const char *sysfs, const char **why)
{
	return open_device(out, sysfs, NULL, why);
}

/**
 * devio_vfio_open_beside - open another device of a group that is open
 * @beside: only what never changes of it is looked at, so that its thread may be using it
 *
 * Return: as devio_vfio_open(); -EXDEV.
 */
int devio_vfio_open_beside(struct devio *out, const char *sysfs, const struct devio *beside,
			   const char **why)
{
	return open_device(out, sysfs, beside, why);
}

/**
 * devio_vfio_container - what the device's memory is mapped in
 */
int devio_vfio_container(const struct devio *d)
{
	const struct vfio *v = d->ctx;

	assert(d->ops == &vfio_ops);
	return v->container;
}
