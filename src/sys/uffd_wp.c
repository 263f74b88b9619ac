/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sys/uffd_wp.h"

#include <errno.h>
#include <sys/ioctl.h>

#include "sys/fd.h"
#include "sys/uapi.h"
#include "sys/uffd_open.h"

/* WP_UNPOPULATED: pages that are not there yet are protected, too, or their first write is lost. */
#define WANTED                                                                                     \
	(UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_PAGEFAULT_FLAG_WP |    \
	 UFFD_FEATURE_WP_HUGETLBFS_SHMEM)

/**
 * uffd_wp_open - a userfaultfd that tracks writes
 *
 * The kernel refuses a handshake that wants what it does not have.  Nobody ever waits for it, so it
 * needs no right to serve faults of the kernel.
 */
int uffd_wp_open(void)
{
	int uffd = uffd_open(WANTED, true);

	return uffd == -EINVAL ? -EOPNOTSUPP : uffd;
}

/**
 * uffd_wp_register - watch a range; every page of it counts as written until it is protected
 */
int uffd_wp_register(int uffd, uint64_t addr, uint64_t len)
{
	struct uffdio_register r = { .range = { .start = addr, .len = len },
				     .mode = UFFDIO_REGISTER_MODE_WP };

	return ioctl(uffd, UFFDIO_REGISTER, &r) < 0 ? -errno : 0;
}
