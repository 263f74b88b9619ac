/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_SYS_DIRTY_DEVICE_H
#define PC_SYS_DIRTY_DEVICE_H
/*
 * A device that logs what it writes itself (VFIO DMA logging), through its handle.
 *
 * Any error, of any call, means that all it was to log is dirty, now and at each later question: a
 * log that failed once may have lost anything.  dirty_device_start() again begins anew.
 */
#include <stdbool.h>
#include <stdint.h>

#include "core/dirtymark.h"
#include "sys/devio.h"

enum { DIRTY_DEVICE_RANGES = 256 }; /* what every kernel takes */

struct dirty_device_range {
	uint64_t iova, length;
};

struct dirty_device {
	struct devio *io;
	bool logging;
	int error; /* -errno that ended it; 0 none */
	uint64_t page; /* bytes a bit of a report stands for */
	unsigned n;
	struct dirty_device_range range[DIRTY_DEVICE_RANGES];
};

/* Does the device log, and can it say what it logged?  Some kernels can begin, and not report. */
bool dirty_device_can(struct devio *io);
/*
 * Log writes into these areas: ascending, apart, whole pages; as many as there are.  0 or -errno;
 * with an error all of them are dirty until it succeeds.
 */
int dirty_device_start(struct dirty_device *d, struct devio *io,
		       const struct dirty_device_range *ranges, unsigned n);
/* What it wrote since it was asked before; 0, or -errno with all of it marked. */
int dirty_device_collect(struct dirty_device *d, struct dirtymark *m);
int dirty_device_stop(struct dirty_device *d);

#endif
