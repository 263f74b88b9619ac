/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_VHOST_REPAIR_H
#define PC_DAEMON_VHOST_REPAIR_H
/*
 * Where a vhost-user back-end has mapped what it was told, and whether that is registered: for a
 * VMM that does its own postcopy and is told wrong addresses.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "daemon/vhost_record.h"
#include "sys/maps.h"

struct vhost_repair;

struct vhost_repair_ops {
	/* One address for each region; NULL with @wrong. */
	void (*found)(void *ctx, const char *wrong, const uint64_t *address);
	/* @wrong: NULL: all that it maps of these files is registered. */
	void (*checked)(void *ctx, const char *wrong);
};

/* @deadline_s: for a process to let its mappings be seen. */
struct vhost_repair *vhost_repair_new(unsigned deadline_s, const struct vhost_repair_ops *ops,
				      void *ctx);
/* Nobody is told of what is still out; NULL is fine. */
void vhost_repair_free(struct vhost_repair *r);
/* Neither waits; the answer comes through the main loop.  What was asked before is forgotten. */
void vhost_repair_find(struct vhost_repair *r, pid_t pid, const struct vhost_region *told,
		       unsigned n);
void vhost_repair_check(struct vhost_repair *r, pid_t pid, const struct vhost_region *told,
			unsigned n);

/* The address of a region among the mappings of its file; 0: there is none. */
uint64_t vhost_repair_address(const struct vhost_region *told, const struct maps_vma *vma,
			      unsigned n);

#endif
