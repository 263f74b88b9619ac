/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_DEVICES_H
#define PC_DAEMON_DEVICES_H
/*
 * The devices of VFIO that a VM has here: loaded before it runs, started when all they reach is
 * there.  Main thread only; see devices.c.
 */
#include <stdbool.h>
#include <glib.h>
#include "daemon/blockers.h"
#include "daemon/devspool.h"
#include "daemon/door_native.h"
#include "daemon/gatekeeper.h"
#include "daemon/options.h"
#include "wire/jsonmsg.h"

struct devices;

struct devices_config {
	const struct options *options;
	struct gatekeeper *gates;
	struct devspool *spool;
	const struct door *door;	/* has the blocks' files */
	/* What holds the VM may have ended. */
	void (*changed)(void *ctx);
	/* The VM is not worth running; nothing happens when it is ours already. */
	void (*refuse)(void *ctx, int error, const char *reason);
	void (*event)(void *ctx, const char *name, const char *text);
	void *ctx;
};

/* NULL with *error. */
struct devices *devices_new(const struct devices_config *config, GError **error);
void devices_free(struct devices *all);
/* Each snapshot, which stays until the next one. */
void devices_look(struct devices *all, const struct snapshot *s);
/* State of a device has come, or gone. */
void devices_state_changed(struct devices *all);
/*
 * Somebody wants the VM to run: may it?  Once this was true, devices that wait are started as soon
 * as the session runs; false: ops.changed tells when to ask again.
 */
bool devices_may_run(struct devices *all);
/* Would the VM lose one that it uses, if this daemon ended? */
bool devices_used(const struct devices *all);
/* What of them is in the way: "device:ID". */
void devices_blockers(const struct devices *all, struct blockers *b);
/* As member @key of the object that is open in @w. */
void devices_report(const struct devices *all, struct jsonmsg_writer *w, const char *key);

#endif
