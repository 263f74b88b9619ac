/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_VHOST_LIST_H
#define PC_DAEMON_VHOST_LIST_H
/* The vhost-user devices of the VM that go through this daemon.  Main thread only. */
#include "daemon/vhost_device.h"

struct vhost_list;

/* @ops: copied. */
struct vhost_list *vhost_list_new(const struct vhost_device_ops *ops);
void vhost_list_free(struct vhost_list *l);
/* @o: owned from here on, in any case.  False with *error. */
bool vhost_list_add(struct vhost_list *l, struct options_vhost *o, GError **error);
/* False with *error: there is none of that name, or a VMM uses it and !force. */
bool vhost_list_remove(struct vhost_list *l, const char *name, bool force, GError **error);
/* As vhost_device_see(), for each. */
void vhost_list_see(struct vhost_list *l);
/* How many have a VMM. */
unsigned vhost_list_used(const struct vhost_list *l);
/* Is one of these for a VMM that does its own postcopy? */
bool vhost_list_repairs(const struct vhost_list *l);
/* As member @key of the object that is open in @w. */
void vhost_list_report(const struct vhost_list *l, struct jsonmsg_writer *w, const char *key);

#endif
