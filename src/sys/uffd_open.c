/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "sys/uffd_open.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include <linux/userfaultfd.h>

#include "sys/fd.h"

static int flags_of(bool user_only)
{
	return O_CLOEXEC | O_NONBLOCK | (user_only ? UFFD_USER_MODE_ONLY : 0);
}

/**
 * uffd_device - an open /dev/userfaultfd
 *
 * Whoever has it can make userfaultfds of its own address space that serve faults of the kernel,
 * too, without any other privilege.  Kernels before 6.1 have none (-ENOENT).
 */
int uffd_device(void)
{
	int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);

	return dev < 0 ? -errno : dev;
}

/**
 * uffd_create_from - a userfaultfd of our own address space, without the handshake
 * @dev: from uffd_device(), here or in another process; stays the caller's
 */
int uffd_create_from(int dev, bool user_only)
{
	int uffd = ioctl(dev, USERFAULTFD_IOC_NEW, flags_of(user_only));

	return uffd < 0 ? -errno : uffd;
}

/**
 * uffd_create - a userfaultfd of our own address space, without the handshake
 *
 * userfaultfd(2) needs a privilege or a sysctl for kernel faults, the device its file mode only.
 */
int uffd_create(bool user_only)
{
	int uffd = (int)syscall(SYS_userfaultfd, flags_of(user_only)), err = errno;
	cleanup_fd int dev = -1;

	if (uffd >= 0)
		return uffd;
	dev = uffd_device();
	return dev < 0 ? -err : uffd_create_from(dev, user_only);
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
