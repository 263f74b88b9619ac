/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_VHOST_RELAY_H
#define PC_DAEMON_VHOST_RELAY_H
/*
 * The two connections of one vhost-user device, the VMM's and the back-end's, and what passes
 * between them: does what core/vhostfront decides.  Main thread only, and nothing here waits.
 */
#include <stdbool.h>
#include "core/vhostfront.h"
#include "daemon/vhost_record.h"

struct vhost_relay;

struct vhost_relay_ops {
	/*
	 * The back-end's userfaultfd; takes it over.  NULL, or why it cannot be served (static
	 * text).
	 */
	const char *(*advised)(void *ctx, int uffd);
	/*
	 * Is nobody looking at the back-end's mappings now?  Then they may change, and nobody does
	 * until settled() is called.
	 */
	bool (*may_tell)(void *ctx);
	void (*settled)(void *ctx);
	/* What it maps of these is to be registered and proven: vhost_relay_proved(), later. */
	void (*prove)(void *ctx, const struct vhost_region *told, unsigned n);
	/*
	 * Repair: where it has mapped these, which is what it should have said:
	 * vhost_relay_found(), later.
	 */
	void (*find)(void *ctx, const struct vhost_region *told, unsigned n);
	/* Does a thread of the back-end wait for a page? */
	bool (*waits)(void *ctx);
	/* Its connection is closed, see vhost_relay_state(). */
	void (*quarantined)(void *ctx);
	/* Nobody waits on the userfaultfd of this connection, of those that were lost, any more. */
	void (*drop)(void *ctx);
	void (*drop_orphans)(void *ctx);
	/* It is over, from inside a callback of the main loop; free it later. */
	void (*over)(void *ctx, const char *why);
};

/*
 * @front: the VMM's socket, @back: the back-end's; owned from here on.  @ops is kept, the
 * configuration is copied.
 */
struct vhost_relay *vhost_relay_new(int front, int back, const struct vhostfront_config *config,
				    const struct vhost_relay_ops *ops, void *ctx);
void vhost_relay_free(struct vhost_relay *r);

/* NULL: what it maps is registered and verified. */
void vhost_relay_proved(struct vhost_relay *r, const char *wrong);
/* One address for each region; @wrong: they could not be found. */
void vhost_relay_found(struct vhost_relay *r, const char *wrong, const uint64_t *address);
/* may_tell() may have another answer now. */
void vhost_relay_go_on(struct vhost_relay *r);
void vhost_relay_serving(struct vhost_relay *r);
void vhost_relay_resident(struct vhost_relay *r);
/* The back-end's end was seen elsewhere. */
void vhost_relay_lost(struct vhost_relay *r, const char *why);
/*
 * It is connected anew, after a quarantine.  0, or -EPROTO with *why: what it was told cannot be
 * told again.
 */
int vhost_relay_join(struct vhost_relay *r, int back, const char **why);

/* It is not to be gone on with: ends both. */
void vhost_relay_hang_up(struct vhost_relay *r, const char *why);

/* Never to be changed by others. */
const struct vhostfront *vhost_relay_state(const struct vhost_relay *r);
/* Requests of the VMM so far, and answers to it. */
void vhost_relay_count(const struct vhost_relay *r, uint64_t *requests, uint64_t *answers);

#endif
