/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Pages that will never come.
 *
 * UFFDIO_POISON (Linux 6.6) leaves a marker in the page table of one address space: who touches the
 * page there gets SIGBUS (BUS_MCEERR_AR, or BUS_ADRERR of a kernel without CONFIG_MEMORY_FAILURE),
 * and the kernel's own accesses fail with EFAULT.  The file behind shared memory is not changed, so
 * each address space needs a marker of its own, and a process without one finds a hole.  It asks
 * for no feature at the handshake, wakes like a COPY, and says EEXIST where that address space has
 * something, be it the page or a marker.  But a COPY over a marker replaces it: what is lost stays
 * lost only because nobody places it.  All of it is measured by tests/kernel/poisoning.c.
 */
#include "config.h"

#include "sys/uffd.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/guard.h"
#include "sys/fd.h"
#include "sys/mem.h"
#include "sys/uapi.h"

static int poison_first(int uffd, void *page, uint64_t size)
{
	struct uffd_result result;
	unsigned can;
	int ret = uffd_register(uffd, (uintptr_t)page, size, &can);

	if (ret < 0)
		return ret;
	if (!(can & UFFD_CAN_POISON))
		return -EOPNOTSUPP;
	return uffd_place(NULL, uffd, UFFD_POISON, (uintptr_t)page, size, NULL, true, &result) ==
			       UFFD_DONE ?
		       0 :
		       -result.err;
}

/**
 * uffd_probe_poison - can pages of private and of shared memory be poisoned here?
 *
 * By doing it to a page of each that nobody has: what the kernel says it has may be forbidden
 * (seccomp).
 *
 * Return: 0; -EOPNOTSUPP where the kernel does not offer it; another -errno where it failed.
 */
int uffd_probe_poison(void)
{
	const uint64_t size = (uint64_t)sysconf(_SC_PAGESIZE);
	cleanup_fd int uffd = uffd_open(0, true), file = mem_blob_new("probe", size);
	void *shared, *own;
	int ret = uffd < 0 ? uffd : file < 0 ? file : 0;

	if (ret < 0)
		return ret;
	own = mem_map_private(size);
	shared = mem_map_shared(file, 0, size);
	ret = own && shared ? poison_first(uffd, own, size) : -ENOMEM;
	if (ret == 0)
		ret = poison_first(uffd, shared, size);
	if (own)
		mem_unmap(own, size);
	if (shared)
		mem_unmap(shared, size);
	return ret;
}
