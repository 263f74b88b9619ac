// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Asked before anything else: what is missing now would otherwise be found missing with a VM's
 * memory in two places.  Each of these is needed, and nothing else can stand in for it:
 *
 * - a userfaultfd of our own, with faults of the kernel: by userfaultfd(2), or by /dev/userfaultfd;
 * - io_uring: the fault thread waits for everything at once and sends with the same system call;
 * - pidfds: a process whose end nobody sees would have its userfaultfd closed too early, and what
 *   is missing of its memory would then read as zeroes (O11).
 *
 * What is only better to have is not looked at here: without PROCMAP_QUERY the text of
 * /proc/PID/maps is read, without a ring of buffers io_uring receives by single operations, without
 * UFFDIO_POISON no page can be given up as poisoned.
 */
#include "config.h"

#include "daemon/machine.h"

#include <errno.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include <gio/gio.h>

#include "core/guard.h"
#include "sys/fd.h"
#include "sys/ring.h"
#include "sys/uffd_open.h"

/* Each returns 0 or -errno, without leaving anything behind. */
static int try_userfaultfd(void)
{
	cleanup_fd int uffd = uffd_create(false);

	return uffd < 0 ? uffd : 0;
}

static int try_handshake(void)
{
	cleanup_fd int uffd = uffd_open(0, false);

	return uffd < 0 ? uffd : 0;
}

static int try_ring(void)
{
	struct ring *ring = NULL;
	int r = ring_new(&ring, 4);

	ring_free(ring);
	return r;
}

static int try_pidfd(void)
{
	cleanup_fd int pidfd = pidfd_open(getpid(), 0);

	return pidfd < 0 ? -errno : 0;
}

static const struct {
	const char *what;
	int (*try)(void);
	const char *advice;
} needs[] = {
	{ "userfaultfd", try_userfaultfd,
	  "run it as root or with CAP_SYS_PTRACE, set the sysctl vm.unprivileged_userfaultfd to 1, or "
	  "let it open /dev/userfaultfd (Linux 6.1 or later); a sandbox must allow userfaultfd(2), or "
	  "that device with ioctl(2)" },
	{ "handshake of userfaultfd", try_handshake,
	  "a kernel with CONFIG_USERFAULTFD is needed; a sandbox must not filter ioctl(2)" },
	{ "io_uring", try_ring, ring_needs },
	{ "pidfd_open(2)", try_pidfd,
	  "Linux 5.3 or later is needed; a sandbox must allow pidfd_open(2), or nobody sees that a "
	  "sharer has ended" },
};

/**
 * machine_serves - is there what we cannot do without?
 */
bool machine_serves(GError **error)
{
	for (size_t i = 0; i < ARRAY_LEN(needs); i++) {
		int r = needs[i].try();

		if (r == 0)
			continue;
		g_set_error(error, G_IO_ERROR, (gint)g_io_error_from_errno(-r), "no %s here: %s: %s",
			    needs[i].what, g_strerror(-r), needs[i].advice);
		return false;
	}
	return true;
}
