/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the device reaches, as the kernel has it (whole mappings, every page pinned at once) or as a
 * well-known vfio-user server (not in each state, the same mapping twice is one), and whether it
 * may begin transfers at all: the word of its configuration space that says so.
 */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "fakedev.h"

#define PAGE	   4096u
#define BUS_MASTER 4

/* Servers take and give mappings back only where the device could do something with them. */
static bool has_memory(const struct fakedev *f)
{
	if (f->c.version == 1)
		return (f->state & 5) != 0;
	return f->state != 1 && f->state != 3;
}

static bool refused_here(struct fakedev *f, const char *what)
{
	if (f->c.reach == FAKEDEV_KERNEL || f->c.version == 0 || has_memory(f))
		return false;
	fakedev_note(f, what);
	return true;
}

static bool overlaps(const struct devio_dma *a, uint64_t iova, uint64_t size)
{
	return a->iova < iova + size && iova < a->iova + a->size;
}

static bool same(const struct devio_dma *a, const struct devio_dma *b)
{
	return a->iova == b->iova && a->size == b->size && a->prot == b->prot && a->fd == b->fd &&
	       a->offset == b->offset;
}

/* 1: it is there already. */
static int collides(const struct fakedev *f, const struct devio_dma *m)
{
	bool kernel = f->c.reach == FAKEDEV_KERNEL;

	for (unsigned i = 0; i < f->n_dma; i++) {
		if (!overlaps(&f->dma[i], m->iova, m->size))
			continue;
		if (!kernel && same(&f->dma[i], m))
			return 1;
		return kernel ? -EEXIST : -EINVAL;
	}
	return 0;
}

static uint64_t locked(const struct fakedev *f)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < f->n_dma; i++)
		bytes += f->dma[i].size;
	return bytes;
}

/* By whom it is reached without a word to us. */
static bool is_direct(const struct fakedev *f, const struct devio_dma *m)
{
	return f->c.reach == FAKEDEV_KERNEL || m->fd >= 0;
}

static int dma_add(struct fakedev *f, const struct devio_dma *m)
{
	int ret = (m->iova | m->size) % PAGE ? -EINVAL : collides(f, m);

	if (ret)
		return ret < 0 ? ret : 0;
	if (f->n_dma == FAKEDEV_DMAS || (f->c.dma_limit && f->n_dma == f->c.dma_limit))
		return -ENOSPC;
	if (f->c.memlock && locked(f) + m->size > f->c.memlock)
		return -ENOMEM;
	if (is_direct(f, m) && f->resident && !f->resident(f->arg, m)) {
		fakedev_note(f, "F47: maps memory that is missing");
		return f->c.reach == FAKEDEV_KERNEL ? -EFAULT : 0;
	}
	f->dma[f->n_dma++] = *m;
	return 0;
}

/* Whole mappings, any number of them; what there was is told by the kernel as 0 bytes. */
static int dma_remove(struct fakedev *f, uint64_t iova, uint64_t size)
{
	unsigned left = 0, found = 0;

	for (unsigned i = 0; i < f->n_dma; i++)
		if (overlaps(&f->dma[i], iova, size) &&
		    (f->dma[i].iova < iova || f->dma[i].iova + f->dma[i].size > iova + size))
			return -EINVAL;
	for (unsigned i = 0; i < f->n_dma; i++)
		if (overlaps(&f->dma[i], iova, size))
			found++;
		else
			f->dma[left++] = f->dma[i];
	f->n_dma = left;
	return found ? 0 : -ENOENT;
}

int fakedev_dma_map(struct fakedev *f, const struct devio_dma *m, uint64_t until)
{
	ssize_t ret;

	if (fakedev_begin(f, FAKEDEV_DMA_MAP, until, &ret) == FAKEDEV_ANSWERED)
		return (int)ret;
	if (refused_here(f, "5.3: maps where servers refuse it") ||
	    (f->c.reach == FAKEDEV_KERNEL && !m->address))
		return (int)fakedev_end(f, FAKEDEV_DMA_MAP, -EINVAL);
	return (int)fakedev_end(f, FAKEDEV_DMA_MAP, dma_add(f, m));
}

int fakedev_dma_unmap(struct fakedev *f, uint64_t iova, uint64_t size, uint64_t until)
{
	ssize_t ret;

	if (fakedev_begin(f, FAKEDEV_DMA_UNMAP, until, &ret) == FAKEDEV_ANSWERED)
		return (int)ret;
	if (refused_here(f, "5.3: unmaps where servers refuse it"))
		return (int)fakedev_end(f, FAKEDEV_DMA_UNMAP, -EINVAL);
	return (int)fakedev_end(f, FAKEDEV_DMA_UNMAP, dma_remove(f, iova, size));
}

/* --- the word of command --- */

ssize_t fakedev_command(struct fakedev *f, const struct devio_at *at, void *out, const void *in,
			size_t len, uint64_t until)
{
	ssize_t ret;

	if (fakedev_begin(f, FAKEDEV_COMMAND, until, &ret) == FAKEDEV_ANSWERED)
		return ret;
	if (at->offset != 4 || len != sizeof(f->command))
		return fakedev_end(f, FAKEDEV_COMMAND, -EINVAL);
	if (in)
		memcpy(&f->command, in, len);
	if (out)
		memcpy(out, &f->command, len);
	return fakedev_end(f, FAKEDEV_COMMAND, (ssize_t)len);
}

void fakedev_loads(struct fakedev *f)
{
	if (f->command & BUS_MASTER)
		fakedev_note(f, "4.3: is loaded while it may begin transfers");
}
