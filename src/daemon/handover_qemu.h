/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_HANDOVER_QEMU_H
#define PC_DAEMON_HANDOVER_QEMU_H
/*
 * Hands a VM over to an unmodified QEMU (--qemu): speaks at the door for a main sharer that does
 * not know of us, and drives its monitor.  Main thread only; see handover_qemu.c for the theory.
 */
#include <stdbool.h>
#include <stddef.h>
#include "daemon/door_native.h"
#include "daemon/faultloop.h"
#include "daemon/losspolicy.h"
#include "daemon/options.h"
#include "daemon/snapshot.h"
#include "wire/jsonmsg.h"

struct handover;

struct handover_ops {
	/* The last snapshot, valid until the main loop goes on; NULL: none yet. */
	const struct snapshot *(*snapshot)(void *ctx);
	/* Something may be due: look at a fresh snapshot soon. */
	void (*refresh)(void *ctx);
	/* The session cannot go on: refuse or hold it.  @error: positive errno. */
	void (*stop)(void *ctx, int error, const char *reason);
	/* A phase was entered: an event for whoever follows. */
	void (*event)(void *ctx, const char *name, const char *text);
	void *ctx;
};

struct handover *handover_new(const struct options *o, struct door *door, struct faultloop *loop,
			      const struct handover_ops *ops);
/* Before the door and the fault thread go. */
void handover_free(struct handover *h);
/* There is a new snapshot (ops->snapshot). */
void handover_step(struct handover *h);
/* What it waits for, in words: for who waits for it.  @out: @len bytes; returned. */
const char *handover_waits(const struct handover *h, char *out, size_t len);
/* Nothing more will be done: the VM is where it belongs, or cannot be. */
bool handover_over(const struct handover *h);
/* Its source is lost: have it stopped (@want), or go on if that was done. */
enum losspolicy_stop handover_freeze(struct handover *h, bool want);
/* The VM is QEMU's, and nothing is left to do. */
bool handover_done(const struct handover *h);
/* One member @key of the object that is open in @w: postcopyd-control(7), handover. */
void handover_report(const struct handover *h, struct jsonmsg_writer *w, const char *key);

#endif
