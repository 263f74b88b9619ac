/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "ram.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sys/fd.h"
#include "sys/mem.h"
#include "sys/uffd.h"

int ram_init(struct ram *r, uint64_t pages)
{
	uint64_t len = pages * RAM_PAGE;
	unsigned can;

	*r = (struct ram){ .uffd = -1, .pages = pages };
	r->fd = memfd_create("ram", MFD_CLOEXEC);
	if (r->fd < 0 || ftruncate(r->fd, (off_t)len) < 0)
		return -errno;
	r->vmm = mem_map_shared(r->fd, 0, len);
	r->ours = mem_map_shared(r->fd, 0, len);
	if (!r->vmm || !r->ours)
		return -errno;
	r->uffd = uffd_open(0, false);
	return r->uffd < 0 ? r->uffd : uffd_register(r->uffd, (uintptr_t)r->vmm, len, &can);
}

void ram_deinit(struct ram *r)
{
	close_fd(&r->uffd);
	mem_unmap(r->vmm, r->pages * RAM_PAGE);
	mem_unmap(r->ours, r->pages * RAM_PAGE);
	close_fd(&r->fd);
}

static uint8_t content(uint64_t page, uint64_t at)
{
	return (uint8_t)(1 + (page * 37 + at) % 251);
}

int ram_place(struct ram *r, uint64_t page)
{
	uint8_t bytes[RAM_PAGE];
	struct uffd_result result;

	for (unsigned i = 0; i < RAM_PAGE; i++)
		bytes[i] = content(page, i);
	switch (uffd_place(NULL, r->uffd, UFFD_COPY, (uintptr_t)r->vmm + page * RAM_PAGE, RAM_PAGE,
			   bytes, true, &result)) {
	case UFFD_DONE:
		return 0;
	case UFFD_EXISTS:
		return -EEXIST;
	default:
		return -EIO;
	}
}

int ram_place_all(struct ram *r)
{
	int ret = 0;

	for (uint64_t page = 0; page < r->pages && ret == 0; page++)
		ret = ram_place(r, page);
	return ret;
}

bool ram_is(const uint8_t *at, uint64_t page, uint64_t from, uint64_t len)
{
	for (uint64_t i = 0; i < len; i++)
		if (at[i] != content(page, from + i))
			return false;
	return true;
}

bool ram_asked(const struct ram *r)
{
	struct pollfd p = { .fd = r->uffd, .events = POLLIN };

	return poll(&p, 1, 0) != 0;
}

bool ram_is_hole(const struct ram *r, uint64_t page)
{
	off_t at = (off_t)(page * RAM_PAGE);

	return lseek(r->fd, at, SEEK_HOLE) == at;
}

uint64_t ram_frame(const void *at)
{
	cleanup_fd int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;

	if (fd < 0 || pread(fd, &entry, sizeof(entry), (off_t)((uintptr_t)at / RAM_PAGE * 8)) != 8)
		return 0;
	return entry >> 63 ? entry & ((UINT64_C(1) << 55) - 1) : 0;
}
