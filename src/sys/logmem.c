/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A back-end is not trusted with the size of the file: one that truncated it would have us die of
 * SIGBUS in the next pass.  A word that nobody set costs nothing: the file is sparse.
 */
#include "config.h"

#include "sys/logmem.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/guard.h"
#include "sys/fd.h"
#include "sys/mem.h"

/**
 * logmem_init - there is none
 */
void logmem_init(struct logmem *l)
{
	*l = (struct logmem){ .fd = -1 };
}

/**
 * logmem_make - a log of @bytes, which others can be given
 *
 * Return: 0; -EINVAL for an empty one, -EFBIG, or what memfd_create(2), fcntl(2), mmap(2) say.
 */
int logmem_make(struct logmem *l, uint64_t bytes)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), whole;
	cleanup_fd int fd = -1;
	void *words;

	if (bytes == 0 || bytes % sizeof(*l->words))
		return -EINVAL;
	if (!add_u64(bytes, page - 1, &whole) || whole > INT64_MAX)
		return -EFBIG;
	whole &= ~(page - 1);
	fd = mem_blob_new("postcopy-dirty-log", whole);
	if (fd < 0)
		return fd;
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	words = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (words == MAP_FAILED)
		return -errno;
	*l = (struct logmem){ .fd = steal_fd(&fd), .words = words, .bytes = bytes };
	return 0;
}

/**
 * logmem_deinit - unmap and close it; who else has it keeps it
 */
void logmem_deinit(struct logmem *l)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

	if (l->words)
		munmap(l->words, (l->bytes + page - 1) & ~(page - 1));
	close_fd(&l->fd);
	logmem_init(l);
}
