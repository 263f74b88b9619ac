/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_SYS_FD_H
#define PC_SYS_FD_H
/* A file descriptor with an owner: -1 is none, 0 is valid.  (LGPL: libpostcopy carries it.) */
#include <unistd.h>

static inline int steal_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

static inline void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}
#define cleanup_fd __attribute__((cleanup(close_fd)))

#endif
