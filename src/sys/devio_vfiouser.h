/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_SYS_DEVIO_VFIOUSER_H
#define PC_SYS_DEVIO_VFIOUSER_H
/*
 * A device that another process implements, behind a vfio-user socket.
 *
 * Such a device reaches memory in two ways: through a descriptor that goes with a mapping, then it
 * touches memory by itself; or, for a mapping without one, by asking us for bytes.  What it asks is
 * answered while we wait for an answer of its, and in devio_vfiouser_serve().  Somebody has to be
 * in one of the two while the device runs.
 *
 * Features take the kernel's structs, those with pointers too (what was written by the device).
 * Servers take no mapping in STOP and STOP_COPY, and give none back there: -EINVAL.
 */
#include <stddef.h>
#include <stdint.h>

#include "sys/devio.h"

/* Memory for a device that asks for it.  Both are called in calls of this handle; they may wait. */
struct devio_vfiouser_memory {
	/* 0 or -errno, which the device is told. */
	int (*read)(void *ctx, uint64_t iova, void *buf, size_t len);
	int (*write)(void *ctx, uint64_t iova, const void *buf, size_t len);
	void *ctx;
};

struct devio_vfiouser_options {
	uint64_t limit_ns; /* for the connection, and for each call; 0: none */
	uint32_t max_data; /* of one message; 0: 1 MiB */
	bool no_twin;	   /* do not ask for a second socket */
	/* NULL: what the device asks for is refused. */
	const struct devio_vfiouser_memory *memory;
};

/*
 * @d is open when 0 is returned, untouched otherwise.  -EPROTO: it speaks something else, or will
 * not have what we say; -ECONNRESET, -ETIMEDOUT; open also what connect(2) says.
 */
int devio_vfiouser_open(struct devio *d, const char *path,
			const struct devio_vfiouser_options *options);
/* @sock is taken over, whatever is returned. */
int devio_vfiouser_adopt(struct devio *d, int sock, const struct devio_vfiouser_options *options);

/*
 * Answer what the device asks for until the handle's limit passes or @done says so after an answer.
 * 0, -ETIMEDOUT when nobody asked any more, or how the connection ended.
 */
int devio_vfiouser_serve(struct devio *d, bool (*done)(void *ctx), void *ctx);
/*
 * What becomes readable when the device asks, or has gone: for poll(2) only, until the next call of
 * this handle.  How many; 0: the connection has ended.
 */
unsigned devio_vfiouser_fds(const struct devio *d, int fds[2]);

#endif
