/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kernel's rules for a question (6.12): tracking is on; the bitmap's page size is the smallest
 * page of the IOMMU; address and size are multiples of it, the size is not 0, nothing wraps; the
 * bitmap has a bit for each page, in whole words of 64, and is no longer than the container said;
 * and the range cuts no mapping.  Each of them is EINVAL, which does not say which.
 *
 * So the questions are made from whole mappings.  Neighbours go into one question, which for a
 * guest with an IOMMU of its own is the difference between one call and one for every page of its
 * tables.  A mapping that alone is larger than an answer cannot be asked about.
 *
 * A mapping that begins within a word of the bitmap comes with stale bits behind its end when it is
 * asked about again (seen with 6.12): a neighbour's pages are dirty that were not.  Too much, never
 * too little.
 *
 * An EINVAL may mean that the page size has changed, as another device joined: it is read again,
 * and the question asked once more.
 */
#include "config.h"

#include "sys/dirty_container.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include <linux/vfio.h>

#include "core/dirtylog.h"
#include "core/guard.h"
#include "wire/vfiocaps.h"

#define WORD_BITS 64
#define INFO_TRIES 4

/* The kernel's structs with what follows them, which they have as an array without a length. */
struct get_request {
	uint32_t argsz, flags;
	uint64_t iova, size;
	struct vfio_bitmap bitmap;
};
_Static_assert(sizeof(struct get_request) == sizeof(struct vfio_iommu_type1_dirty_bitmap) +
	       sizeof(struct vfio_iommu_type1_dirty_bitmap_get), "as the kernel has it");

struct unmap_request {
	uint32_t argsz, flags;
	uint64_t iova, size;
	struct vfio_bitmap bitmap;
};
#define UNMAP_HEAD sizeof(struct vfio_iommu_type1_dma_unmap)
_Static_assert(sizeof(struct unmap_request) == UNMAP_HEAD + sizeof(struct vfio_bitmap),
	       "as the kernel has it");

static int kernel_call(void *ctx, unsigned long request, void *arg)
{
	const int *fd = ctx;

	return ioctl(*fd, request, arg) < 0 ? -errno : 0;
}

const struct dirty_container_ops dirty_container_kernel_ops = { .call = kernel_call };

static int call(struct dirty_container *c, unsigned long request, void *arg)
{
	return c->ops->call(c->ctx, request, arg);
}

/* Ask for all that the container says of itself; it says how much that is. */
static int read_info(struct dirty_container *c, struct vfiocaps_iommu *info)
{
	size_t room = sizeof(struct vfio_iommu_type1_info);
	int err = VFIOCAPS_AGAIN;

	for (unsigned i = 0; i < INFO_TRIES && err == VFIOCAPS_AGAIN; i++) {
		cleanup_free struct vfio_iommu_type1_info *answer = calloc(1, room);

		if (!answer)
			return -ENOMEM;
		answer->argsz = (uint32_t)room;
		err = call(c, VFIO_IOMMU_GET_INFO, answer);
		if (err)
			return err;
		err = vfiocaps_iommu(info, answer, room, &room, NULL);
	}
	return err == VFIOCAPS_AGAIN ? -EPROTO : err;
}

/**
 * dirty_container_refresh - how the container tracks, as of now
 */
int dirty_container_refresh(struct dirty_container *c)
{
	struct vfiocaps_iommu info;
	int err = read_info(c, &info);

	if (err)
		return err;
	if (!info.migration || !info.dirty_pgsizes || !info.dirty_bitmap_max)
		return -EOPNOTSUPP;
	c->page = info.dirty_pgsizes & -info.dirty_pgsizes;
	c->bitmap_max = info.dirty_bitmap_max & ~UINT64_C(7);
	return c->page < DIRTYLOG_PAGE || c->bitmap_max == 0 ? -EOPNOTSUPP : 0;
}

/**
 * dirty_container_init - a container whose devices may be migrated
 * @ctx: stays the caller's
 */
int dirty_container_init(struct dirty_container *c, const struct dirty_container_ops *ops,
			 void *ctx)
{
	*c = (struct dirty_container){ .ops = ops, .ctx = ctx };
	return dirty_container_refresh(c);
}

static int switch_tracking(struct dirty_container *c, uint32_t flag)
{
	struct vfio_iommu_type1_dirty_bitmap d = { .argsz = sizeof(d), .flags = flag };

	return call(c, VFIO_IOMMU_DIRTY_PAGES, &d);
}

/**
 * dirty_container_start - remember from now on what is unpinned
 */
int dirty_container_start(struct dirty_container *c)
{
	int err = switch_tracking(c, VFIO_IOMMU_DIRTY_PAGES_FLAG_START);

	if (!err)
		c->tracking = true;
	return err;
}

/**
 * dirty_container_stop - and forget it
 */
int dirty_container_stop(struct dirty_container *c)
{
	c->tracking = false;
	return switch_tracking(c, VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP);
}

/* The bytes of a bitmap for so many pages; rounding bytes, not pages, would say 0 for 7 of them. */
static uint64_t bitmap_bytes(uint64_t pages)
{
	return (pages / WORD_BITS + (pages % WORD_BITS != 0)) * sizeof(uint64_t);
}

/* A question and the room for its answer. */
struct question {
	uint64_t pages;
	struct vfio_bitmap bitmap;
};

static void drop_question(struct question *q)
{
	free(q->bitmap.data);
}
#define cleanup_question __attribute__((cleanup(drop_question)))

static int make_question(const struct dirty_container *c, const struct dirty_span *span,
			 struct question *q)
{
	uint64_t end, bytes;

	if (!c->page || !span->size || !add_u64(span->iova, span->size, &end) ||
	    (span->iova | span->size) & (c->page - 1))
		return -EINVAL;
	q->pages = span->size / c->page;
	bytes = bitmap_bytes(q->pages);
	if (bytes > c->bitmap_max)
		return -E2BIG;
	q->bitmap = (struct vfio_bitmap){ .pgsize = c->page, .size = bytes };
	q->bitmap.data = calloc(1, bytes);
	return q->bitmap.data ? 0 : -ENOMEM;
}

static void add_answer(const struct question *q, uint64_t iova, struct dirtymark *m)
{
	dirtymark_bitmap(m, iova, q->bitmap.pgsize, (const uint64_t *)q->bitmap.data, q->pages);
}

static int ask(struct dirty_container *c, const struct dirty_span *span, struct dirtymark *m)
{
	cleanup_question struct question q = { .pages = 0 };
	struct get_request d = { .argsz = sizeof(d),
				 .flags = VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
				 .iova = span->iova,
				 .size = span->size };
	int err = make_question(c, span, &q);

	if (err)
		return err;
	d.bitmap = q.bitmap;
	err = call(c, VFIO_IOMMU_DIRTY_PAGES, &d);
	if (!err)
		add_answer(&q, span->iova, m);
	return err;
}

/* Once more where the page size may have changed. */
static int ask_twice(struct dirty_container *c, const struct dirty_span *span,
		     struct dirtymark *m)
{
	uint64_t page = c->page;
	int err = ask(c, span, m);

	if (err != -EINVAL || dirty_container_refresh(c) != 0 || c->page == page)
		return err;
	return ask(c, span, m);
}

/* As many of the mappings as are next to each other and fit an answer: the first of them grows. */
static unsigned join(const struct dirty_container *c, const struct dirty_span *spans, unsigned n,
		     struct dirty_span *joined)
{
	unsigned taken = 1;

	for (*joined = spans[0]; taken < n; taken++) {
		const struct dirty_span *next = &spans[taken];
		uint64_t end, size;

		if (!add_u64(joined->iova, joined->size, &end) || end != next->iova ||
		    !add_u64(joined->size, next->size, &size) ||
		    bitmap_bytes(size / c->page) > c->bitmap_max)
			break;
		joined->size = size;
	}
	return taken;
}

/**
 * dirty_container_collect - what the devices wrote
 *
 * Return: 0; the first -errno, with all that could not be asked about marked.
 */
int dirty_container_collect(struct dirty_container *c, const struct dirty_span *spans, unsigned n,
			    struct dirtymark *m)
{
	int first = 0;

	for (unsigned i = 0; i < n;) {
		struct dirty_span joined;
		int err;

		i += join(c, spans + i, n - i, &joined);
		err = c->tracking ? ask_twice(c, &joined, m) : -EINVAL;
		if (err)
			dirtymark_range(m, joined.iova, joined.size);
		first = first ? first : err;
	}
	return first;
}

static int unmap(struct dirty_container *c, const struct dirty_span *span, struct question *q)
{
	struct unmap_request u = { .argsz = UNMAP_HEAD, .iova = span->iova, .size = span->size };
	int err;

	if (q->bitmap.data) {
		u.argsz = sizeof(u);
		u.flags = VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP;
		u.bitmap = q->bitmap;
	}
	err = call(c, VFIO_IOMMU_UNMAP_DMA, &u);
	if (err)
		return err;
	return u.size == span->size ? 0 : -ENOENT;
}

/**
 * dirty_container_unmap - take a mapping away, and what it has to say with it
 *
 * When its bitmap cannot be had it is unmapped without, and is dirty as a whole: a guest that
 * unmaps is not refused.
 *
 * Return: 0, with what was dirty marked; -ENOENT when some of it was not mapped, or the -errno of
 * the kernel, with all of it marked.
 */
int dirty_container_unmap(struct dirty_container *c, const struct dirty_span *span,
			  struct dirtymark *m)
{
	cleanup_question struct question q = { .pages = 0 };
	bool asks = c->tracking && make_question(c, span, &q) == 0;
	int err = unmap(c, span, &q);

	if (err == -EINVAL && asks) {
		drop_question(&q);
		q.bitmap.data = NULL;
		asks = false;
		err = unmap(c, span, &q);
	}
	if (!err && asks)
		add_answer(&q, span->iova, m);
	else
		dirtymark_range(m, span->iova, span->size);
	return err;
}
