/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_SOURCE_VFIO_H
#define PC_TOOLS_SOURCE_VFIO_H
/* One device of the VM, whose state is to be sent: opened, asked, read, and loaded again. */
#include <stdbool.h>
#include <stdint.h>

#include "core/devgroup.h"
#include "sys/migdev.h"
#include "tools/source_options.h"
#include "tools/source_sink.h"

struct source_vfio {
	const struct source_vfio_spec *spec; /* the options' */
	struct devio io;
	struct migdev mig;
	bool open, probed;
	struct devstate_writer writer;
	struct digest digest;	/* of the bytes of its segments */
	int copy;		/* its segments, each behind its length; -1: none */
	uint64_t rounds, busy_ns; /* time in calls since it was to be quiesced */
	const char *what;	/* it does, or did last */
};

void source_vfio_init(struct source_vfio *v, const struct source_vfio_spec *spec);
/* 0 or -errno with *why, static text or NULL. */
int source_vfio_open(struct source_vfio *v, const char **why);
void source_vfio_deinit(struct source_vfio *v);
/* Say who it is: the first record. */
int source_vfio_begin(struct source_vfio *v, struct source_sink *k, unsigned slot);
/* Read what there is while it runs, about @most bytes: how many, or -errno. */
int64_t source_vfio_round(struct source_vfio *v, struct source_sink *k, uint64_t most);
/* Do what a group asks for.  0 or -errno. */
int source_vfio_act(struct source_vfio *v, const struct devgroup_action *a, struct source_sink *k);

#endif
