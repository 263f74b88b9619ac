/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "device_region.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/guard.h"
#include "sys/fd.h"

enum { STATE = 0, PENDING = 8, OFFSET = 16, SIZE = 24, REGS = 32 };

static uint64_t segment(const struct device_region *r)
{
	return r->left < DEVICE_SEGMENT ? r->left : DEVICE_SEGMENT;
}

uint64_t device_region_get(struct device_region *r, uint64_t reg)
{
	switch (reg) {
	case STATE:
		return r->state;
	case PENDING:
		r->left -= r->offered ? segment(r) : 0;
		r->offered = false;
		return r->left;
	case OFFSET:
		return DEVICE_WINDOW;
	default:
		r->offered = true;
		return segment(r);
	}
}

void device_region_put(struct device_region *r, uint64_t reg, uint64_t value)
{
	if (reg == STATE)
		r->state = (uint32_t)value;
	else
		r->loaded += value;
}

static int info(void *ctx, struct devio_info *out, uint64_t until)
{
	(void)ctx;
	(void)until;
	*out = (struct devio_info){ .flags = DEVIO_RESET, .regions = DEVICE_REGION + 1 };
	return 0;
}

/* As <linux/vfio.h> has them: the head, the type, and which part can be mapped. */
static ssize_t describe(void *ctx, uint32_t index, void *bytes, size_t room, uint64_t until)
{
	const struct device_region *r = ctx;
	const struct {
		uint32_t argsz, flags, index, cap_offset;
		uint64_t size, offset;
		uint16_t type_id, type_version;
		uint32_t type_next, type, subtype;
		uint16_t sparse_id, sparse_version;
		uint32_t sparse_next, areas, reserved;
		uint64_t area_offset, area_size;
	} all = {
		.argsz = sizeof(all), .flags = r->mappable ? 1 | 2 | 4 | 8 : 1 | 2 | 8,
		.index = index, .cap_offset = 32, .size = DEVICE_WINDOW + DEVICE_SEGMENT,
		.type_id = 2, .type_version = 1, .type_next = 48, .type = 3, .subtype = 1,
		.sparse_id = 1, .sparse_version = 1, .areas = 1,
		.area_offset = DEVICE_WINDOW, .area_size = DEVICE_SEGMENT,
	};

	(void)until;
	if (index != DEVICE_REGION)
		return -EINVAL;
	memcpy(bytes, &all, room < sizeof(all) ? room : sizeof(all));
	return room < sizeof(all) ? (ssize_t)room : (ssize_t)sizeof(all);
}

static ssize_t read_region(void *ctx, const struct devio_at *at, void *buf, size_t len,
			   uint64_t until)
{
	struct device_region *r = ctx;
	uint64_t value;

	(void)until;
	if (at->offset >= REGS)
		return pread(r->file, buf, len, (off_t)at->offset);
	value = device_region_get(r, at->offset);
	memcpy(buf, &value, len);
	return (ssize_t)len;
}

static ssize_t write_region(void *ctx, const struct devio_at *at, const void *buf, size_t len,
			    uint64_t until)
{
	struct device_region *r = ctx;
	uint64_t value = 0;

	(void)until;
	if (at->offset >= REGS)
		return pwrite(r->file, buf, len, (off_t)at->offset);
	memcpy(&value, buf, len);
	device_region_put(r, at->offset, value);
	return (ssize_t)len;
}

/* A file that its owner can truncate, as servers give them; the kernel's need less care. */
static int map_region(void *ctx, const struct vfiocaps_region *region, uint64_t offset,
		      uint64_t len, struct devio_map *out)
{
	struct device_region *r = ctx;
	void *base = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, r->file, (off_t)offset);

	(void)region;
	if (base == MAP_FAILED)
		return -errno;
	*out = (struct devio_map){ .base = base, .len = len, .shared_file = true,
				   .fd = r->file, .at = offset };
	return 0;
}

static void close_region(void *ctx)
{
	struct device_region *r = ctx;

	close_fd(&r->file);
}

static const struct devio_ops ops = {
	.info = info, .region = describe, .read = read_region, .write = write_region,
	.map = map_region, .close = close_region,
};

int device_region_open(struct device_region *r, struct devio *d, bool mappable, uint64_t bytes)
{
	static const uint8_t content[4096] = { 0x5a };

	*r = (struct device_region){ .mappable = mappable, .state = 1, .left = bytes };
	r->file = memfd_create("device-region", MFD_CLOEXEC);
	if (r->file < 0)
		return -errno;
	for (off_t at = 0; at < DEVICE_WINDOW + DEVICE_SEGMENT; at += sizeof(content))
		if (pwrite(r->file, content, sizeof(content), at) != sizeof(content))
			return -EIO;
	devio_init(d, &ops, r);
	return 0;
}
