/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TESTS_VFIOUSER_SPAWN_H
#define PC_TESTS_VFIOUSER_SPAWN_H
/* tests/lib/vfiouser-server as a child that ends with us. */
#include <sys/types.h>

struct vfiouser_child {
	pid_t pid;
	int sock; /* our end, until somebody takes it */
};

/* @options: without fd and path.  Ends the program when it cannot be. */
void vfiouser_spawn(struct vfiouser_child *c, const char *options);
/* Kill it and wait for it; idempotent. */
void vfiouser_reap(struct vfiouser_child *c);

#endif
