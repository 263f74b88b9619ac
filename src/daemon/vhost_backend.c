/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The process is the one that made the socket on which it listens (SO_PEERCRED): what it says of
 * itself is not asked.  Where it is another, or one in a pid namespace that we do not see, what it
 * was told of is not found in it, and it is refused.
 *
 * Each connection that was advised is a sharer of its own, by its own userfaultfd.  When it ends
 * the sharer stays in the registry until the process has ended or unmapped what it was told of, for
 * its threads may be asleep on it (door_orphan.c).
 */
#include "config.h"
#include "daemon/vhost_backend.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "core/guard.h"
#include "daemon/vhost_repair.h"
#include "sys/fd.h"
#include "sys/fdpass.h"

struct vhost_backend {
	const struct options_vhost *o;
	struct door *door;
	const struct vhost_backend_ops *ops;
	void *ctx;
	pid_t pid;
	struct vhost_repair *repair;	/* NULL: we serve its faults */
	struct door_ward *ward;		/* NULL: it was not advised */
	bool telling;			/* it is told of memory */
};

static void on_checked(void *ctx, const char *wrong)
{
	struct vhost_backend *b = ctx;

	b->ops->proved(b->ctx, wrong);
}

static void on_found(void *ctx, const char *wrong, const uint64_t *address)
{
	struct vhost_backend *b = ctx;

	b->ops->found(b->ctx, wrong, address);
}

/**
 * vhost_backend_new - it is not connected
 */
struct vhost_backend *vhost_backend_new(const struct options_vhost *o, struct door *door,
					unsigned prove_s, const struct vhost_backend_ops *ops,
					void *ctx)
{
	static const struct vhost_repair_ops repair_ops = { .found = on_found,
							    .checked = on_checked };
	struct vhost_backend *b = g_new0(struct vhost_backend, 1);

	b->o = o;
	b->door = door;
	b->ops = ops;
	b->ctx = ctx;
	if (o->repair)
		b->repair = vhost_repair_new(prove_s, &repair_ops, b);
	return b;
}

/**
 * vhost_backend_free - NULL is fine
 */
void vhost_backend_free(struct vhost_backend *b)
{
	if (!b)
		return;
	vhost_backend_hung_up(b, NULL);
	vhost_repair_free(b->repair);
	g_free(b);
}

/**
 * vhost_backend_connect - is it there?
 */
int vhost_backend_connect(struct vhost_backend *b)
{
	cleanup_fd int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct fdpass_peer peer;
	int ret;

	if (sock < 0)
		return -errno;
	g_strlcpy(addr.sun_path, b->o->back, sizeof(addr.sun_path));
	if (connect(sock, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return -errno;
	ret = fdpass_peer(sock, &peer);
	if (ret < 0)
		return ret;
	b->pid = peer.pid;
	return steal_fd(&sock);
}

static void on_proved(void *ctx, const char *wrong)
{
	struct vhost_backend *b = ctx;

	b->ops->proved(b->ctx, wrong);
}

static void on_ended(void *ctx, const char *why)
{
	struct vhost_backend *b = ctx;

	b->ops->ended(b->ctx, why);
}

/**
 * vhost_backend_advised - it gave us its userfaultfd
 */
const char *vhost_backend_advised(struct vhost_backend *b, int uffd)
{
	static const struct door_ward_ops ops = { on_proved, on_ended };
	const struct door_ward_about about = {
		.name = b->o->name, .pid = b->pid, .policy = b->o->policy, .uffd = uffd
	};
	const char *why = NULL;

	if (b->pid <= 0) {
		close(uffd);
		return "its process is in another pid namespace: what it maps cannot be seen";
	}
	b->ward = door_ward_new(b->door, &about, &ops, b, &why);
	if (!b->ward)
		return why;
	door_ward_changing(b->ward, b->telling);
	return NULL;
}

/**
 * vhost_backend_may_tell - may what it maps change now?  Then it does
 */
bool vhost_backend_may_tell(struct vhost_backend *b)
{
	if (b->pid > 0 && !door_ward_may_change(b->door, b->pid))
		return false;
	b->telling = true;
	if (b->ward)
		door_ward_changing(b->ward, true);
	return true;
}

/**
 * vhost_backend_settled - it does not change any more
 */
void vhost_backend_settled(struct vhost_backend *b)
{
	b->telling = false;
	if (b->ward)
		door_ward_changing(b->ward, false);
}

/**
 * vhost_backend_prove - have all that it maps proven, and these regions among it
 */
void vhost_backend_prove(struct vhost_backend *b, const struct vhost_region *told, unsigned n)
{
	struct door_region regions[VHOST_RECORD_REGIONS];

	if (b->repair) {
		vhost_repair_check(b->repair, b->pid, told, n);
		return;
	}
	if (!b->ward) {
		b->ops->proved(b->ctx, "it was not advised");
		return;
	}
	for (unsigned i = 0; i < n; i++)
		regions[i] = (struct door_region){ told[i].dev, told[i].inode, told[i].offset,
						   told[i].length };
	door_ward_prove(b->ward, regions, n);
}

/**
 * vhost_backend_find - where has it mapped these?
 */
void vhost_backend_find(struct vhost_backend *b, const struct vhost_region *told, unsigned n)
{
	vhost_repair_find(b->repair, b->pid, told, n);
}

/**
 * vhost_backend_hung_up - the connection is over, and its sharer is nobody's any more
 */
void vhost_backend_hung_up(struct vhost_backend *b, const char *reason)
{
	if (b->ward && reason)
		door_ward_disable(b->ward, reason);
	door_ward_free(b->ward);
	b->ward = NULL;
	b->telling = false;
	b->pid = 0;
}

pid_t vhost_backend_pid(const struct vhost_backend *b)
{
	return b->pid;
}

uint32_t vhost_backend_sharer(const struct vhost_backend *b)
{
	return b->ward ? door_ward_id(b->ward) : 0;
}
