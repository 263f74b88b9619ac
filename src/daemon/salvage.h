/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_SALVAGE_H
#define PC_DAEMON_SALVAGE_H
/*
 * Saves what is here of a VM into a folder: a migration file of QEMU's mapped-ram kind, a bitmap of
 * what is missing for each block, and an index.  See salvage.c; the format is in postcopyd(8).
 *
 * One at a time, on a thread of its own; everything else here is the main thread's.  It reads the
 * ledger and the stores of the fault thread, which must outlive it.
 */
#include <stdbool.h>
#include <glib.h>
#include "daemon/snapshot.h"

struct salvage;

struct salvage_source {
	const struct snapshot *snapshot;	/* of a session that serves, or served */
	/* whose memory is private, and where it has each block (0: nowhere); 0: nobody's */
	pid_t pid;
	uint64_t address[SNAPSHOT_BLOCKS];
};

/* @ended: from the main loop, when it is over, well or not. */
struct salvage *salvage_new(void (*ended)(void *ctx), void *ctx);
/* What is under way is given up, and nothing of it left. */
void salvage_free(struct salvage *s);
/* Begin.  @dir: absolute, and nothing is there yet.  False with *error. */
bool salvage_start(struct salvage *s, const char *dir, const struct salvage_source *from,
		   GError **error);
/* How far it is, or how it ended. */
void salvage_fill(const struct salvage *s, struct snapshot_salvage *out);

#endif
