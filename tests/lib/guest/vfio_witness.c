/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vfio_witness.so, loaded into a program: says on the console which memory it has mapped for a
 * device, and how many of its pages were not there at that moment (I1).
 */
#include "config.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <linux/vfio.h>

#define PAGE 4096

/* Of a shared mapping the kernel tells what the file has, mapped or not. */
static size_t missing(const struct vfio_iommu_type1_dma_map *m)
{
	size_t pages = m->size / PAGE, n = 0;
	unsigned char *there = malloc(pages);

	if (!there || mincore((void *)(uintptr_t)m->vaddr, m->size, there) < 0)
		n = pages;
	for (size_t i = 0; i < pages && n < pages; i++)
		n += !(there[i] & 1);
	free(there);
	return n;
}

__attribute__((visibility("default"))) int ioctl(int fd, unsigned long request, ...)
{
	int (*next)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
	struct vfio_iommu_type1_dma_map *m;
	va_list ap;
	void *arg;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	m = arg;
	if (request == VFIO_IOMMU_MAP_DMA)
		fprintf(stderr, "witness: iova %#llx, %llu bytes, %zu pages missing\n",
			(unsigned long long)m->iova, (unsigned long long)m->size, missing(m));
	return next(fd, request, arg);
}
