/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_VHOST_BACKEND_H
#define PC_DAEMON_VHOST_BACKEND_H
/*
 * A vhost-user back-end as a process that shares the memory: who it is, and what it maps.
 */
#include <stdbool.h>
#include <stdint.h>
#include "daemon/door_native.h"
#include "daemon/options.h"
#include "daemon/vhost_record.h"

struct vhost_backend;

struct vhost_backend_ops {
	/* As vhost_relay_proved(). */
	void (*proved)(void *ctx, const char *wrong);
	/* As vhost_relay_found(). */
	void (*found)(void *ctx, const char *wrong, const uint64_t *address);
	/* It cannot be served any more. */
	void (*ended)(void *ctx, const char *why);
};

/* @o, @door: must outlive it; @prove_s: for its process to let its mappings be seen. */
struct vhost_backend *vhost_backend_new(const struct options_vhost *o, struct door *door,
					unsigned prove_s, const struct vhost_backend_ops *ops,
					void *ctx);
void vhost_backend_free(struct vhost_backend *b);

/*
 * A new connection: the socket, never waiting; -errno when nobody is there, or who it is cannot be
 * known.
 */
int vhost_backend_connect(struct vhost_backend *b);
/* Its userfaultfd, owned from here on.  NULL, or why it cannot be served. */
const char *vhost_backend_advised(struct vhost_backend *b, int uffd);
/* See struct vhost_relay_ops. */
bool vhost_backend_may_tell(struct vhost_backend *b);
void vhost_backend_settled(struct vhost_backend *b);
void vhost_backend_prove(struct vhost_backend *b, const struct vhost_region *told, unsigned n);
void vhost_backend_find(struct vhost_backend *b, const struct vhost_region *told, unsigned n);
/* Its connection is over; @reason: it was put into quarantine, NULL: it was not. */
void vhost_backend_hung_up(struct vhost_backend *b, const char *reason);
/* 0: it is not connected. */
pid_t vhost_backend_pid(const struct vhost_backend *b);
/* The sharer that it is; 0: none yet. */
uint32_t vhost_backend_sharer(const struct vhost_backend *b);

#endif
