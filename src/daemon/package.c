/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A copy for the operator (--device-state).  That it cannot be written is no reason to give a VM
 * up.
 */
#include "config.h"
#include "daemon/package.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/sendfile.h>

#include <glib.h>

/**
 * package_save - write the package to a file
 */
void package_save(const struct snapshot *s, int fd, const char *name)
{
	off_t at = 0;

	while ((uint64_t)at < s->package_bytes)
		if (sendfile(fd, s->package_fd, &at, s->package_bytes - (uint64_t)at) <= 0) {
			g_warning("cannot write the device state to %s: %s", name,
				  g_strerror(errno));
			return;
		}
	g_message("device state: %" PRIu64 " bytes written to %s", s->package_bytes, name);
}
