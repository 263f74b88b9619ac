/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_PHASES_H
#define PC_DAEMON_PHASES_H
/*
 * Drives a session from the main thread: reads what the fault thread's snapshot says it needs, does
 * it or names the blocker, and decides when the daemon may end.
 */
#include <glib.h>
#include "daemon/control.h"
#include "daemon/door_native.h"
#include "daemon/faultloop.h"
#include "daemon/options.h"
#include "daemon/vault.h"

struct phases;

/*
 * @state: file for the package (--device-state), owned from here on; -1.  Listening sockets are
 * owned from here on too.
 */
struct phases_fds {
	int incoming, door, control, state, devices;
	const char *devices_shown; /* where --device-channel listens, for people */
	struct vault *vault;	   /* must outlive it */
};

/* Not an exit code: another worker follows this one, which must touch nothing any more. */
#define PHASES_FOLLOWED (-1)

/* @ended is called once, when the daemon should end, with its exit code. */
struct phases *phases_new(const struct options *o, const struct phases_fds *fds,
			  void (*ended)(void *ctx, int code), void *ctx, GError **error);
void phases_free(struct phases *p);
/* A signal asks to stop.  False: refused, while a committed VM depends on us. */
bool phases_stop(struct phases *p);

#endif
