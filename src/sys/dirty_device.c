/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A device may know only so many areas: 256 are promised (257 are E2BIG).  When there are more, the
 * gaps between the first ones and the others are closed until they fit, the smallest gaps first:
 * what is logged too much costs a bit, what is not logged costs the guest its memory.
 *
 * The numbers are the kernel's structs, with a pointer in them; a transport that speaks to a server
 * puts what it points to on the wire.
 */
#include "config.h"

#include "sys/dirty_device.h"

#include <errno.h>
#include <stdlib.h>

#include <linux/vfio.h>

#include "core/dirtylog.h"
#include "core/guard.h"

#define REPORT_PAGES_MAX (UINT64_C(1) << 24) /* in one question: 2 MiB of bitmap */
#define PAGE_MAX	 (UINT64_C(1) << 30) /* that a device may log in */

/**
 * dirty_device_can - is there a log, and can it be read?
 */
bool dirty_device_can(struct devio *io)
{
	return devio_feature_has(io, VFIO_DEVICE_FEATURE_DMA_LOGGING_START, DEVIO_SET) == 1 &&
	       devio_feature_has(io, VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, DEVIO_SET) == 1 &&
	       devio_feature_has(io, VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, DEVIO_GET) == 1;
}

static bool is_whole(const struct dirty_device_range *r)
{
	uint64_t end;

	return r->length && (r->iova | r->length) % DIRTYLOG_PAGE == 0 &&
	       add_u64(r->iova, r->length, &end);
}

static bool are_sound(const struct dirty_device_range *ranges, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (!is_whole(&ranges[i]))
			return false;
		if (i && ranges[i].iova - ranges[i - 1].iova < ranges[i - 1].length)
			return false;
		if (i && ranges[i].iova < ranges[i - 1].iova)
			return false;
	}
	return n > 0;
}

static uint64_t gap_before(const struct dirty_device *d, unsigned i)
{
	return d->range[i].iova - (d->range[i - 1].iova + d->range[i - 1].length);
}

/* Join the two areas with the smallest gap between them. */
static void close_gap(struct dirty_device *d)
{
	unsigned at = 1;

	for (unsigned i = 2; i < d->n; i++)
		if (gap_before(d, i) < gap_before(d, at))
			at = i;
	d->range[at - 1].length = d->range[at].iova + d->range[at].length - d->range[at - 1].iova;
	for (d->n--; at < d->n; at++)
		d->range[at] = d->range[at + 1];
}

static void add_range(struct dirty_device *d, const struct dirty_device_range *r)
{
	if (d->n == DIRTY_DEVICE_RANGES)
		close_gap(d);
	d->range[d->n++] = *r;
}

static int fail(struct dirty_device *d, int err)
{
	d->error = err;
	return err;
}

static int start_logging(struct dirty_device *d)
{
	struct vfio_device_feature_dma_logging_range ranges[DIRTY_DEVICE_RANGES];
	struct vfio_device_feature_dma_logging_control control = {
		.page_size = DIRTYLOG_PAGE,
		.num_ranges = d->n,
		.ranges = (uintptr_t)ranges,
	};
	int err;

	for (unsigned i = 0; i < d->n; i++)
		ranges[i] = (struct vfio_device_feature_dma_logging_range){
			.iova = d->range[i].iova,
			.length = d->range[i].length,
		};
	err = devio_feature_set(d->io, VFIO_DEVICE_FEATURE_DMA_LOGGING_START, &control,
				sizeof(control));
	/* It may take a larger page than it was asked for, and says which. */
	d->page = control.page_size > DIRTYLOG_PAGE ? control.page_size : DIRTYLOG_PAGE;
	return err;
}

/**
 * dirty_device_start - begin to log
 * @io: stays the caller's
 */
int dirty_device_start(struct dirty_device *d, struct devio *io,
		       const struct dirty_device_range *ranges, unsigned n)
{
	int err;

	*d = (struct dirty_device){ .io = io };
	if (!are_sound(ranges, n))
		return fail(d, -EINVAL);
	for (unsigned i = 0; i < n; i++)
		add_range(d, &ranges[i]);
	err = start_logging(d);
	if (err)
		return fail(d, err);
	d->logging = true;
	return is_power_of_two(d->page) && d->page <= PAGE_MAX ? 0 : fail(d, -EPROTO);
}

/* One question: [iova, iova + length) of an area. */
static int report(struct dirty_device *d, uint64_t iova, uint64_t length, struct dirtymark *m)
{
	uint64_t pages = length / d->page + (length % d->page != 0), end;
	cleanup_free uint64_t *bits = calloc(pages / 64 + 1, sizeof(*bits));
	struct vfio_device_feature_dma_logging_report r = {
		.iova = iova,
		.length = length,
		.page_size = d->page,
		.bitmap = (uintptr_t)bits,
	};
	int err;

	if (!bits)
		return -ENOMEM;
	if (!add_u64(iova, pages * d->page, &end))
		return -EPROTO; /* its last page is beyond all addresses */
	err = devio_feature_get(d->io, VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, &r, sizeof(r));
	if (!err)
		dirtymark_bitmap(m, iova, d->page, bits, pages);
	return err;
}

static int report_range(struct dirty_device *d, const struct dirty_device_range *r,
			struct dirtymark *m)
{
	uint64_t most = REPORT_PAGES_MAX * d->page;
	int err = 0;

	for (uint64_t at = 0; at < r->length && !err; at += most) {
		uint64_t left = r->length - at;

		err = report(d, r->iova + at, left < most ? left : most, m);
	}
	return err;
}

/**
 * dirty_device_collect - add what the device wrote
 */
int dirty_device_collect(struct dirty_device *d, struct dirtymark *m)
{
	int err = d->error;

	if (!err && !d->logging)
		err = fail(d, -EINVAL);
	for (unsigned i = 0; i < d->n && !err; i++)
		err = report_range(d, &d->range[i], m);
	if (!err)
		return 0;
	for (unsigned i = 0; i < d->n; i++)
		dirtymark_range(m, d->range[i].iova, d->range[i].length);
	return fail(d, err);
}

/**
 * dirty_device_stop - log no more; what was not asked for is lost
 */
int dirty_device_stop(struct dirty_device *d)
{
	if (!d->logging)
		return 0;
	d->logging = false;
	return devio_feature_set(d->io, VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, NULL, 0);
}
