/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_SOURCEQMP_H
#define PC_DAEMON_SOURCEQMP_H
/*
 * Has the source's QEMU come again (--source-qmp): says `migrate' with resume to its monitor while
 * the session is paused.  Main thread only; see sourceqmp.c for the theory.
 */
#include <stdbool.h>
#include "daemon/snapshot.h"

struct sourceqmp;

struct sourceqmp_ops {
	/* A step was taken: "source-qmp". */
	void (*event)(void *ctx, const char *name, const char *text);
	void *ctx;
};

/* @path: of the monitor's UNIX socket.  @ops: copied. */
struct sourceqmp *sourceqmp_new(const char *path, const struct sourceqmp_ops *ops);
/* NULL is fine, as in what follows. */
void sourceqmp_free(struct sourceqmp *q);
/* There is a new snapshot, which says where the source is waited for (.recover). */
void sourceqmp_see(struct sourceqmp *q, const struct snapshot *s);
/* For status. */
void sourceqmp_fill(const struct sourceqmp *q, struct snapshot_source_qmp *out);

#endif
