/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_VHOST_DEVICE_H
#define PC_DAEMON_VHOST_DEVICE_H
/*
 * One vhost-user device of the VM: where the VMM finds it, where its back-end is, and what passes
 * between them now.
 */
#include "daemon/door_native.h"
#include "daemon/options.h"
#include "daemon/snapshot.h"
#include "wire/jsonmsg.h"

struct vhost_device;

struct vhost_device_ops {
	/* The last snapshot; NULL: none yet. */
	const struct snapshot *(*snapshot)(void *ctx);
	/* A VMM came or went, a back-end was put into quarantine or is back. */
	void (*changed)(void *ctx);
	void *ctx;
	struct door *door;
	unsigned prove_s;		/* for a process to let its mappings be seen */
};

/*
 * @o: owned from here on, in any case; @ops must outlive it.  NULL with *error: it cannot listen.
 */
struct vhost_device *vhost_device_new(struct options_vhost *o, const struct vhost_device_ops *ops,
				      GError **error);
void vhost_device_free(struct vhost_device *d);
const struct options_vhost *vhost_device_options(const struct vhost_device *d);
/* There is a fresh snapshot. */
void vhost_device_see(struct vhost_device *d);
/* Is a VMM connected? */
bool vhost_device_used(const struct vhost_device *d);
/* As an object of the array that is open in @w. */
void vhost_device_report(const struct vhost_device *d, struct jsonmsg_writer *w);

#endif
