/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "fakecontainer.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include <linux/vfio.h>

#include "core/guard.h"

#define PAGE 4096ull

void fake_container_init(struct fake_container *f)
{
	memset(f, 0, sizeof(*f));
	f->pgsizes = ~(PAGE - 1);
	f->bitmap_max = 256 << 20;
}

static uint64_t smallest(const struct fake_container *f)
{
	return f->pgsizes & -f->pgsizes;
}

void fake_container_map(struct fake_container *f, uint64_t iova, uint64_t pages)
{
	unsigned at = 0;

	assert(f->n < FAKE_MAPPINGS && pages <= FAKE_PAGES);
	while (at < f->n && f->mapping[at].iova < iova)
		at++;
	memmove(&f->mapping[at + 1], &f->mapping[at], (f->n++ - at) * sizeof(f->mapping[0]));
	memset(&f->mapping[at], 0, sizeof(f->mapping[0]));
	f->mapping[at].iova = iova;
	f->mapping[at].size = pages * PAGE;
}

static struct fake_mapping *find(struct fake_container *f, uint64_t iova)
{
	for (unsigned i = 0; i < f->n; i++)
		if (iova - f->mapping[i].iova < f->mapping[i].size)
			return &f->mapping[i];
	return NULL;
}

static void set_pinned(struct fake_container *f, uint64_t iova, uint64_t pages, bool pinned)
{
	for (; pages > 0; pages--, iova += PAGE) {
		struct fake_mapping *m = find(f, iova);
		uint64_t at = m ? (iova - m->iova) / PAGE : 0;

		assert(m);
		m->unpinned[at] |= f->tracking && m->pinned[at] && !pinned;
		m->pinned[at] = pinned;
	}
}

void fake_container_pin(struct fake_container *f, uint64_t iova, uint64_t pages)
{
	set_pinned(f, iova, pages, true);
}

void fake_container_unpin(struct fake_container *f, uint64_t iova, uint64_t pages)
{
	set_pinned(f, iova, pages, false);
}

/* A range may hold many mappings and cut none. */
static bool cuts(const struct fake_container *f, uint64_t iova, uint64_t size)
{
	for (unsigned i = 0; i < f->n; i++) {
		uint64_t start = f->mapping[i].iova, end = start + f->mapping[i].size;

		if (start < iova + size && iova < end && (start < iova || end > iova + size))
			return true;
	}
	return false;
}

static int bitmap_fault(const struct fake_container *f, uint64_t iova, uint64_t size,
			const struct vfio_bitmap *b)
{
	uint64_t page = smallest(f), pages = size / page, need = (pages + 63) / 64 * 8;

	if (b->pgsize != page || size == 0 || (iova | size) & (page - 1) || iova + size < iova)
		return -EINVAL;
	return b->size < need || b->size > f->bitmap_max ? -EINVAL : 0;
}

static void fill(struct fake_container *f, uint64_t iova, struct fake_mapping *m,
		 const struct vfio_bitmap *b)
{
	for (uint64_t i = 0; i < m->size / PAGE; i++) {
		uint64_t bit = (m->iova - iova + i * PAGE) / b->pgsize;

		if (f->whole || m->pinned[i] || m->unpinned[i])
			b->data[bit / 64] |= UINT64_C(1) << bit % 64;
		m->unpinned[i] = false;
	}
}

static void fill_all(struct fake_container *f, uint64_t iova, uint64_t size,
		     const struct vfio_bitmap *b)
{
	for (unsigned i = 0; i < f->n; i++)
		if (f->mapping[i].iova >= iova && f->mapping[i].iova - iova < size)
			fill(f, iova, &f->mapping[i], b);
}

static int get_info(struct fake_container *f, struct vfio_iommu_type1_info *info)
{
	struct vfio_iommu_type1_info_cap_migration cap = {
		.header = { .id = VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION, .version = 1 },
		.pgsize_bitmap = f->pgsizes,
		.max_dirty_bitmap_size = f->bitmap_max,
	};
	uint32_t room = info->argsz, all = (uint32_t)(sizeof(*info) + sizeof(cap));

	f->infos++;
	memset(info, 0, sizeof(*info));
	info->argsz = f->no_migration ? (uint32_t)sizeof(*info) : all;
	info->flags = VFIO_IOMMU_INFO_PGSIZES;
	info->iova_pgsizes = f->pgsizes;
	if (f->no_migration)
		return 0;
	info->flags |= VFIO_IOMMU_INFO_CAPS;
	if (room < all)
		return 0;
	info->cap_offset = sizeof(*info);
	memcpy((uint8_t *)info + sizeof(*info), &cap, sizeof(cap));
	return 0;
}

static int get_bitmap(struct fake_container *f, const struct vfio_iommu_type1_dirty_bitmap *d)
{
	struct vfio_iommu_type1_dirty_bitmap_get g;
	int err;

	f->gets++;
	if (d->argsz < sizeof(*d) + sizeof(g) || !f->tracking)
		return -EINVAL;
	memcpy(&g, d->data, sizeof(g));
	err = bitmap_fault(f, g.iova, g.size, &g.bitmap);
	if (err || cuts(f, g.iova, g.size))
		return -EINVAL;
	fill_all(f, g.iova, g.size, &g.bitmap);
	return 0;
}

static int dirty_pages(struct fake_container *f, const struct vfio_iommu_type1_dirty_bitmap *d)
{
	int err = f->fail_start;

	if (f->v1)
		return -EACCES;
	if (d->argsz < sizeof(*d))
		return -EINVAL;
	switch (d->flags) {
	case VFIO_IOMMU_DIRTY_PAGES_FLAG_START:
		f->fail_start = 0;
		f->tracking |= !err;
		return err;
	case VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP:
		f->tracking = false;
		for (unsigned i = 0; i < f->n; i++)
			memset(f->mapping[i].unpinned, 0, sizeof(f->mapping[i].unpinned));
		return 0;
	case VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP:
		return get_bitmap(f, d);
	default:
		return -EINVAL;
	}
}

static uint64_t remove_all(struct fake_container *f, uint64_t iova, uint64_t size)
{
	uint64_t removed = 0;

	for (unsigned i = 0; i < f->n;) {
		if (f->mapping[i].iova < iova || f->mapping[i].iova - iova >= size) {
			i++;
			continue;
		}
		removed += f->mapping[i].size;
		memmove(&f->mapping[i], &f->mapping[i + 1],
			(--f->n - i) * sizeof(f->mapping[0]));
	}
	return removed;
}

static int unmap_dma(struct fake_container *f, struct vfio_iommu_type1_dma_unmap *u)
{
	bool asks = u->flags & VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP;
	struct vfio_bitmap b;

	f->unmaps++;
	if (u->argsz < sizeof(*u) + (asks ? sizeof(b) : 0))
		return -EINVAL;
	if (u->size == 0 || (u->iova | u->size) & (smallest(f) - 1) || cuts(f, u->iova, u->size))
		return -EINVAL;
	if (asks) {
		memcpy(&b, u->data, sizeof(b));
		if (!f->tracking || bitmap_fault(f, u->iova, u->size, &b))
			return -EINVAL;
		fill_all(f, u->iova, u->size, &b);
	}
	u->size = remove_all(f, u->iova, u->size);
	return 0;
}

static int fake_call(void *ctx, unsigned long request, void *arg)
{
	switch (request) {
	case VFIO_IOMMU_GET_INFO:
		return get_info(ctx, arg);
	case VFIO_IOMMU_DIRTY_PAGES:
		return dirty_pages(ctx, arg);
	case VFIO_IOMMU_UNMAP_DMA:
		return unmap_dma(ctx, arg);
	default:
		return -ENOTTY;
	}
}

const struct dirty_container_ops fake_container_ops = { .call = fake_call };
