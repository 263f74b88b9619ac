/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_ATTENDANCE_H
#define PC_DAEMON_ATTENDANCE_H
/* Who must be there before faults can be served, and is not. */
#include "daemon/blockers.h"
#include "daemon/door_native.h"
#include "daemon/handover_qemu.h"
#include "daemon/options.h"

/* A blocker for each.  @handover: who speaks for the main sharer; NULL. */
void attendance_take(struct blockers *b, struct door *door, const struct options *o,
		     const struct handover *handover);

#endif
