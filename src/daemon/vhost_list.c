/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * They may come and go while a session is on.  A VMM keeps its connections as long as it lives, so
 * this daemon does, too: there is no way to get out from between two programs that know nothing of
 * us.
 */
#include "config.h"
#include "daemon/vhost_list.h"

#include <string.h>

#include <gio/gio.h>

#include "sys/clock.h"

struct vhost_list {
	struct vhost_device_ops ops;
	GPtrArray *devices;		/* struct vhost_device */
};

/**
 * vhost_list_new - there is none yet
 */
struct vhost_list *vhost_list_new(const struct vhost_device_ops *ops)
{
	struct vhost_list *l = g_new0(struct vhost_list, 1);

	l->ops = *ops;
	l->devices = g_ptr_array_new_with_free_func((GDestroyNotify)vhost_device_free);
	return l;
}

/**
 * vhost_list_free - before the door is freed; NULL is fine
 */
void vhost_list_free(struct vhost_list *l)
{
	if (!l)
		return;
	g_ptr_array_unref(l->devices);
	g_free(l);
}

static struct vhost_device *at(const struct vhost_list *l, unsigned i)
{
	return g_ptr_array_index(l->devices, i);
}

/**
 * vhost_list_add - one more; its front is listened on when this returns
 */
bool vhost_list_add(struct vhost_list *l, struct options_vhost *o, GError **error)
{
	struct vhost_device *d;

	for (unsigned i = 0; i < l->devices->len; i++)
		if (options_meet_vhost(vhost_device_options(at(l, i)), o, error)) {
			options_free_vhost(o);
			return false;
		}
	d = vhost_device_new(o, &l->ops, error);
	if (!d)
		return false;
	g_ptr_array_add(l->devices, d);
	return true;
}

/**
 * vhost_list_remove - listen for its VMM no more
 * @force: close both connections of one that is used, too
 */
bool vhost_list_remove(struct vhost_list *l, const char *name, bool force, GError **error)
{
	for (unsigned i = 0; i < l->devices->len; i++) {
		if (strcmp(vhost_device_options(at(l, i))->name, name) != 0)
			continue;
		if (vhost_device_used(at(l, i)) && !force) {
			g_set_error(
				error, G_IO_ERROR, G_IO_ERROR_BUSY,
				"a VMM uses it: its device would be gone (force removes it all the same)");
			return false;
		}
		g_ptr_array_remove_index(l->devices, i);
		return true;
	}
	g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
		    "there is no vhost-user back-end named %s", name);
	return false;
}

/**
 * vhost_list_see - there is a fresh snapshot
 */
void vhost_list_see(struct vhost_list *l)
{
	for (unsigned i = 0; i < l->devices->len; i++)
		vhost_device_see(at(l, i));
}

/**
 * vhost_list_used - how many have a VMM
 */
unsigned vhost_list_used(const struct vhost_list *l)
{
	unsigned n = 0;

	for (unsigned i = 0; i < l->devices->len; i++)
		n += vhost_device_used(at(l, i));
	return n;
}

/**
 * vhost_list_repairs - does a VMM that does its own postcopy use one?
 */
bool vhost_list_repairs(const struct vhost_list *l)
{
	for (unsigned i = 0; i < l->devices->len; i++)
		if (vhost_device_used(at(l, i)) && vhost_device_options(at(l, i))->repair)
			return true;
	return false;
}

/**
 * vhost_list_report - all of them
 */
void vhost_list_report(const struct vhost_list *l, struct jsonmsg_writer *w, const char *key)
{
	jsonmsg_begin_object(w, key);
	jsonmsg_put_u64(w, "now_ns", clock_ns());
	jsonmsg_begin_array(w, "devices");
	for (unsigned i = 0; i < l->devices->len; i++)
		vhost_device_report(at(l, i), w);
	jsonmsg_end(w);
	jsonmsg_end(w);
}
