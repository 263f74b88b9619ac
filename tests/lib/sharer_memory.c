/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sharer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <linux/magic.h>
#include <linux/memfd.h>
#include <linux/mman.h>
#include <xxhash.h>

#include "sys/fd.h"

static int make_memfd(const struct sharer_block *b)
{
	unsigned flags = MFD_CLOEXEC | (b->hugetlb ? MFD_HUGETLB | MFD_HUGE_2MB : 0);
	cleanup_fd int fd = memfd_create(b->name, flags);

	if (fd < 0 || ftruncate(fd, (off_t)(b->offset + b->size)) < 0)
		return -errno;
	return steal_fd(&fd);
}

/* A huge page file says itself how large its pages are. */
static int learn_page_size(struct sharer_block *b)
{
	struct statfs fs;

	if (fstatfs(b->fd, &fs) < 0)
		return -errno;
	b->hugetlb = fs.f_type == HUGETLBFS_MAGIC;
	b->page_size = b->hugetlb ? (uint64_t)fs.f_bsize : (uint64_t)sysconf(_SC_PAGESIZE);
	return 0;
}

static int open_file(struct sharer_block *b)
{
	int err;

	b->fd = b->path[0] ? open(b->path, O_RDWR | O_CLOEXEC) : make_memfd(b);
	if (b->fd < 0)
		return b->path[0] ? -errno : b->fd;
	err = learn_page_size(b);
	if (err)
		close_fd(&b->fd);
	return err;
}

static uint8_t *map(const struct sharer_block *b, int flags)
{
	void *address = mmap(NULL, b->size, PROT_READ | PROT_WRITE, flags, b->fd, (off_t)b->offset);

	return address == MAP_FAILED ? NULL : address;
}

int sharer_memory_map(struct sharer_block *b)
{
	int flags = b->private ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	int err;

	b->fd = -1;
	b->page_size = b->hugetlb ? 2 << 20 : (uint64_t)sysconf(_SC_PAGESIZE);
	if (!b->private) {
		err = open_file(b);
		if (err)
			return err;
	} else if (b->hugetlb) {
		flags |= MAP_HUGETLB | MAP_HUGE_2MB | (b->reserve ? 0 : MAP_NORESERVE);
	}
	b->address = map(b, flags);
	if (b->address && b->aliased)
		b->alias = map(b, flags);
	return !b->address || (b->aliased && !b->alias) ? -errno : 0;
}

void sharer_memory_unmap(struct sharer_block *b)
{
	if (b->address)
		munmap(b->address, b->size);
	if (b->alias)
		munmap(b->alias, b->size);
	b->address = b->alias = NULL;
	close_fd(&b->fd);
}

void sharer_memory_digest(const void *bytes, uint64_t len, char out[33])
{
	XXH128_hash_t h = XXH3_128bits(bytes, len);

	snprintf(out, 33, "%016" PRIx64 "%016" PRIx64, (uint64_t)h.high64, (uint64_t)h.low64);
}
