/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "sys/uffd_open.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include <linux/userfaultfd.h>

#include "sys/fd.h"

/**
 * uffd_create - a userfaultfd of our own address space, without the handshake
 *
 * userfaultfd(2) needs a privilege or a sysctl for kernel faults, the device its file mode only.
 */
int uffd_create(bool user_only)
{
	int flags = O_CLOEXEC | O_NONBLOCK | (user_only ? UFFD_USER_MODE_ONLY : 0);
	int uffd = (int)syscall(SYS_userfaultfd, flags), err = errno;
	cleanup_fd int dev = -1;

	if (uffd >= 0)
		return uffd;
	dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (dev < 0)
		return -err;
	uffd = ioctl(dev, USERFAULTFD_IOC_NEW, flags);
	return uffd < 0 ? -errno : uffd;
}

/**
 * uffd_handshake - UFFDIO_API, once per userfaultfd
 *
 * @have (may be NULL) gets what the kernel offers.  -EINVAL: the kernel lacks a wanted feature (the
 * fd can be tried again with fewer), or the handshake was done before.  -EPERM: EVENT_FORK without
 * CAP_SYS_PTRACE.
 */
int uffd_handshake(int uffd, uint64_t want, uint64_t *have)
{
	struct uffdio_api api = { .api = UFFD_API, .features = want };

	if (ioctl(uffd, UFFDIO_API, &api) < 0)
		return -errno;
	if (have)
		*have = api.features;
	return 0;
}

/**
 * uffd_open - a userfaultfd of our own address space, ready for use
 */
int uffd_open(uint64_t features, bool user_only)
{
	cleanup_fd int uffd = uffd_create(user_only);
	int err;

	if (uffd < 0)
		return uffd;
	err = uffd_handshake(uffd, features, NULL);
	return err < 0 ? err : steal_fd(&uffd);
}
