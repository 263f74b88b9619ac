/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"
#include "daemon/vault.h"

#include <errno.h>
#include <sys/mman.h>

#include "sys/fd.h"

/**
 * vault_memory - memory that outlives us, where somebody keeps
 * @name: as vault_keep() takes it
 * @out: an empty memfd that takes seals, the caller's; -1 on failure
 *
 * Return: 0 or -errno.
 */
int vault_memory(struct vault *v, const char *name, int *out)
{
	cleanup_fd int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int ret = fd < 0 ? -errno : vault_keep(v, name, fd);

	*out = ret < 0 ? -1 : steal_fd(&fd);
	return ret;
}
