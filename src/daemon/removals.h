/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_REMOVALS_H
#define PC_DAEMON_REMOVALS_H
/*
 * What sharers tell of their memory beside faults; the fault thread's.  See removals.c.
 */
#include "daemon/faultloop.h"
#include "sys/uffd.h"

/* Apply them, before the faults of the same batch. */
void removals_take(struct faultloop *f, struct member *m, const struct uffd_event *events, int n);
/* How many messages may be read of it now? */
unsigned removals_room(const struct faultloop *f, const struct member *m);
/* Is there no room for a fault that was read?  Then it comes again when there is. */
bool removals_later(struct faultloop *f, struct member *m);
/* Once a turn: whoever was not heard faults once more, if there is room. */
void removals_again(struct faultloop *f);

#endif
