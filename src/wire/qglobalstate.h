/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_WIRE_QGLOBALSTATE_H
#define PC_WIRE_QGLOBALSTATE_H
/*
 * The section "globalstate" of a device part: what the source's VM did when it was stopped for the
 * switch-over.  Whether the VM may run at the destination depends on it: one that an operator
 * had paused stays paused.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QGLOBALSTATE_TEXT_MAX 32 /* a run state's name with its NUL */

enum qglobalstate_run {
	QGLOBALSTATE_UNKNOWN, /* no such section, more than one, or one that makes no sense */
	QGLOBALSTATE_RUNNING, /* it ran: it may run here */
	QGLOBALSTATE_STOPPED, /* paused, suspended, shut down, ...: .text says which */
};

struct qglobalstate {
	enum qglobalstate_run run;
	char text[QGLOBALSTATE_TEXT_MAX]; /* the source's word for it; "unknown" */
	bool was_suspended; /* the guest slept when the VM was stopped (QEMU >= 9.0 tells) */
	const char *reason; /* of UNKNOWN, static text; else NULL */
};

/* @device: struct qstream_package's.  Returns out->run. */
enum qglobalstate_run qglobalstate_find(const uint8_t *device, size_t len,
					struct qglobalstate *out);

#endif
