/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Those named by --expect, and the VMM: without the main sharer nobody could load the device state.
 */
#include "config.h"
#include "daemon/attendance.h"

#include <stdio.h>

static void miss_expected(struct blockers *b, struct door *door, const char *name)
{
	const char *problem = door_problem(door, name);
	char blocker[64];

	snprintf(blocker, sizeof(blocker), "sharer:%s", name);
	if (problem)
		blockers_add(b, blocker, "listening", "sharer %s (--expect) was refused: %s", name,
			     problem);
	else if (door_is_proving(door, name))
		blockers_add(b, blocker, "listening", "sharer %s (--expect) is being proven", name);
	else
		blockers_add(
			b, blocker, "listening",
			"sharer %s (--expect) has not registered: start it, or drop the option",
			name);
}

static void miss_main(struct blockers *b, const struct options *o, const struct handover *handover)
{
	char waits[1024];

	if (handover)
		blockers_add(b, "main-sharer", "listening", "the hand-over to QEMU waits for %s",
			     handover_waits(handover, waits, sizeof(waits)));
	else
		blockers_add(b, "main-sharer", "listening",
			     "no main sharer (the VMM) has registered on %s",
			     o->register_path ? o->register_path : "the register socket");
}

/**
 * attendance_take - name everybody who is missing
 */
void attendance_take(struct blockers *b, struct door *door, const struct options *o,
		     const struct handover *handover)
{
	for (char **e = o->expect; *e; e++)
		if (!door_has(door, *e))
			miss_expected(b, door, *e);
	if (!door_has_main(door))
		miss_main(b, o, handover);
}
