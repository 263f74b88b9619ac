/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_SOURCE_SINK_H
#define PC_TOOLS_SOURCE_SINK_H
/*
 * Where the state of devices is written to: a connection of its own, or the memory that a package
 * is made of.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tools/source_fault.h"
#include "tools/source_lane.h"
#include "wire/devstate.h"

struct source_sink {
	struct source_lane lane; /* not open: into memory */
	bool dialled;
	uint8_t *bytes;	 /* owned */
	size_t len, room;
	struct source_faults *faults; /* of the connection; the caller's */
	uint8_t session[DEVSTATE_SESSION];
	char problem[160]; /* what is wrong with it */
};

/* @faults: outlives it. */
void source_sink_init(struct source_sink *k, struct source_faults *faults);
void source_sink_deinit(struct source_sink *k);
/* Connect, and say whose devices come.  0 or -errno. */
int source_sink_dial(struct source_sink *k, const char *address);
/* All of it.  0 or -errno. */
int source_sink_write(struct source_sink *k, const void *bytes, size_t len);
/* No more comes.  0: all of it has arrived, and is right; -errno. */
int source_sink_finish(struct source_sink *k);

#endif
