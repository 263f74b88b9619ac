/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_HANDOVER_STREAM_H
#define PC_DAEMON_HANDOVER_STREAM_H
/*
 * The connection to the incoming socket of QEMU, and the stream that goes through it: everything
 * that is there already, with no page of a block that is served by faults.  On the main loop, as
 * fast as QEMU reads.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "daemon/handover_blocks.h"
#include "daemon/snapshot.h"

struct handover_stream;

struct handover_stream_ops {
	/* QEMU has taken the last byte. */
	void (*sent)(void *ctx);
	/*
	 * QEMU closed its end, with @why (static text) before it had everything; NULL after: it has
	 * loaded, or failed to.  Called once, from the main loop; the callee may free the stream.
	 */
	void (*closed)(void *ctx, const char *why);
	void *ctx;
};

struct handover_target {
	const char *path;	/* its incoming socket */
	pid_t pid;		/* who must listen there */
};

/*
 * @s: serving, and every HELD block complete.  Its package and stores are read until the stream is
 * freed.  NULL with @why (512 bytes).
 */
struct handover_stream *handover_stream_new(const struct handover_target *to,
					    const struct snapshot *s,
					    const struct handover_stream_ops *ops, char *why);
/* Closes the connection: not before QEMU has loaded.  NULL is fine. */
void handover_stream_free(struct handover_stream *t);
uint64_t handover_stream_bytes(const struct handover_stream *t);
/* The device part of the package, as long as the stream is there. */
const uint8_t *handover_stream_device(const struct handover_stream *t, size_t *len);

#endif
