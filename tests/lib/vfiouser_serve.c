/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the commands of vfio-user do.  As the server that is in use restricts itself, so does this
 * one: while the device is stopped, only its regions, its features and its stream can be used, and
 * in STOP_COPY not even its regions.
 */
#include "config.h"

#include "vfiouser.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/guard.h"
#include "sys/fd.h"

#define ROOM 4096 /* of answers that carry no data */

/* A request that is being handled: its descriptor is taken, or closed. */
struct job {
	const struct vfiomsg *ask;
	struct vfiomsg *answer;
	int fd;
};

/* --- who we are ------------------------------------------------------------------------------ */

static int open_twin(struct vfiouser *s)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return -errno;
	s->twin = pair[0];
	s->gift = pair[1];
	s->said.twin = s->said.twin_fd = true;
	return 0;
}

static int version(struct vfiouser *s, struct job *j)
{
	struct vfioterms theirs;
	uint16_t minor = j->ask->fixed.version.minor;
	size_t len;
	char *text;

	if (s->agreed || j->ask->fixed.version.major != VFIOMSG_MAJOR ||
	    vfioterms_read(&theirs, j->ask->data, j->ask->len, NULL) ||
	    theirs.pgsize != VFIOTERMS_PGSIZE)
		return -EINVAL;
	if (theirs.twin && s->allow_twin && open_twin(s))
		return -EINVAL;
	text = vfioterms_print(&s->said, &len);
	if (!text)
		return -ENOMEM;
	free(s->out);
	s->out = (uint8_t *)text;
	j->answer->fixed.version.minor = minor < VFIOMSG_MINOR ? minor : VFIOMSG_MINOR;
	j->answer->data = s->out;
	j->answer->len = len;
	s->terms = vfioterms_agree(&s->said, &theirs);
	s->terms.max_fds = VFIOMSG_FDS;
	s->agreed = true;
	return 0;
}

static int info(struct vfiouser *s, struct job *j)
{
	j->answer->fixed.info = (struct vfiomsg_info){
		.argsz = sizeof(struct vfiomsg_info),
		.flags = 3, /* can be reset, is PCI */
		.regions = s->generation == 1 ? VFIOUSER_MIGRATION + 1 : VFIOUSER_MIGRATION,
		.irqs = 5,
	};
	return 0;
}

static uint64_t region_size(const struct vfiouser *s, uint32_t index)
{
	switch (index) {
	case VFIOUSER_BAR:
		return VFIOUSER_REGS * 8;
	case VFIOUSER_CONFIG:
		return 256;
	case VFIOUSER_MIGRATION:
		return s->generation == 1 ? VFIOUSER_WINDOW + VFIOUSER_WINDOW_SIZE : 0;
	default:
		return 0;
	}
}

/* What comes behind the description of the migration region, when there is room. */
struct migration_caps {
	uint16_t type_id, type_version;
	uint32_t type_next, type, subtype;
	uint16_t sparse_id, sparse_version;
	uint32_t sparse_next, areas, reserved;
	uint64_t offset, size;
};
_Static_assert(sizeof(struct migration_caps) == 48, "capabilities");

static void describe_migration(struct vfiouser *s, struct job *j)
{
	static const struct migration_caps caps = {
		2, 1, 48, 3, 1, 1, 1, 0, 1, 0, VFIOUSER_WINDOW, VFIOUSER_WINDOW_SIZE,
	};
	struct vfiomsg_region *r = &j->answer->fixed.region;
	size_t len = s->map_window ? sizeof(caps) : offsetof(struct migration_caps, sparse_id);

	r->flags |= 8 | (s->map_window ? 4 : 0);
	r->argsz += (uint32_t)len;
	if (j->ask->fixed.region.argsz < r->argsz)
		return;
	r->cap_offset = sizeof(*r);
	memcpy(s->out, &caps, len);
	if (!s->map_window)
		memset(s->out + 4, 0, 4); /* nothing follows */
	j->answer->data = s->out;
	j->answer->len = len;
	if (s->map_window)
		s->gift = dup(s->window_fd);
}

static int region_info(struct vfiouser *s, struct job *j)
{
	uint32_t index = j->ask->fixed.region.index;

	if (index > VFIOUSER_MIGRATION || (s->generation == 2 && index == VFIOUSER_MIGRATION))
		return -EINVAL;
	j->answer->fixed.region = (struct vfiomsg_region){
		.argsz = sizeof(struct vfiomsg_region),
		.flags = region_size(s, index) ? 3 : 0,
		.index = index,
		.size = region_size(s, index),
	};
	if (index == VFIOUSER_MIGRATION)
		describe_migration(s, j);
	return 0;
}

/* --- memory of the client -------------------------------------------------------------------- */

static struct vfiouser_mapping *find(struct vfiouser *s, uint64_t iova, uint64_t size)
{
	for (unsigned i = 0; i < s->n_mappings; i++) {
		struct vfiouser_mapping *m = &s->mappings[i];

		if (iova < m->iova + m->size && m->iova < iova + size)
			return m;
	}
	return NULL;
}

static int map(struct vfiouser *s, struct job *j)
{
	const struct vfiomsg_map *m = &j->ask->fixed.map;

	if (s->n_mappings == VFIOUSER_MAPPINGS || find(s, m->iova, m->size))
		return -EINVAL;
	s->mappings[s->n_mappings++] = (struct vfiouser_mapping){
		m->iova, m->size, m->offset, steal_fd(&j->fd),
	};
	return 0;
}

static void drop(struct vfiouser *s, struct vfiouser_mapping *m)
{
	close_fd(&m->fd);
	*m = s->mappings[--s->n_mappings];
}

static int unmap(struct vfiouser *s, struct job *j)
{
	const struct vfiomsg_unmap *u = &j->ask->fixed.unmap;
	struct vfiouser_mapping *m = find(s, u->iova, u->size);

	if (u->flags & VFIOMSG_UNMAP_BITMAP)
		return -EOPNOTSUPP;
	if (u->flags & VFIOMSG_UNMAP_ALL)
		while (s->n_mappings)
			drop(s, &s->mappings[0]);
	else if (!m || m->iova != u->iova || m->size != u->size)
		return -ENOENT;
	else
		drop(s, m);
	j->answer->fixed.unmap = *u;
	return 0;
}

/* The client has the memory: ask it, on the socket that is for that. */
static int by_message(struct vfiouser *s, bool write, uint64_t address, uint64_t *value)
{
	struct vfiomsg ask, answer;
	cleanup_free uint8_t *body = NULL;
	int sock = s->twin >= 0 ? s->twin : s->sock, err;

	vfiomsg_ask(&ask, write ? VFIOMSG_DMA_WRITE : VFIOMSG_DMA_READ, s->next_id++);
	ask.fixed.dma = (struct vfiomsg_dma){ address, sizeof(*value) };
	ask.data = (const uint8_t *)value;
	ask.len = write ? sizeof(*value) : 0;
	err = vfiouser_send(sock, &ask, -1);
	err = err ? err : vfiouser_receive(sock, &answer, &body, NULL, &s->terms);
	err = err ? err : vfiomsg_take_reply(&answer, body, &ask, &s->terms, NULL);
	err = err ? err : vfiomsg_error(&answer.head);
	if (!err && answer.fixed.dma.count != sizeof(*value))
		return -EIO;
	if (!err && !write)
		memcpy(value, answer.data, sizeof(*value));
	return err;
}

int vfiouser_dma(struct vfiouser *s, bool write, uint64_t address, uint64_t *value)
{
	struct vfiouser_mapping *m = find(s, address, sizeof(*value));
	ssize_t n;
	off_t at;

	if (!m || !range_inside(address - m->iova, sizeof(*value), m->size))
		return -EFAULT;
	if (write)
		vfiouser_log(s, address);
	if (m->fd < 0)
		return by_message(s, write, address, value);
	at = (off_t)(address - m->iova + m->offset);
	n = write ? pwrite(m->fd, value, sizeof(*value), at) :
		    pread(m->fd, value, sizeof(*value), at);
	return n == sizeof(*value) ? 0 : -EFAULT;
}

/* --- regions --------------------------------------------------------------------------------- */

static int read_region(struct vfiouser *s, struct job *j)
{
	const struct vfiomsg_access *a = &j->ask->fixed.access;
	int err = 0;

	s->regs[VFIOUSER_REG_DIGEST] = vfiouser_device_digest(&s->device);
	free(s->out);
	s->out = calloc(1, a->count + 8);
	if (!s->out)
		return -ENOMEM;
	if (a->region > VFIOUSER_MIGRATION ||
	    !range_inside(a->offset, a->count, region_size(s, a->region)))
		return -EINVAL;
	if (a->region == VFIOUSER_BAR)
		memcpy(s->out, (uint8_t *)s->regs + a->offset, a->count);
	else if (a->region == VFIOUSER_MIGRATION)
		err = vfiouser_v1_read(s, a, s->out);
	j->answer->fixed.access = *a;
	j->answer->data = s->out;
	j->answer->len = a->count;
	return err;
}

static int write_bar(struct vfiouser *s, const struct vfiomsg *ask)
{
	const struct vfiomsg_access *a = &ask->fixed.access;
	uint64_t *command = &s->regs[VFIOUSER_REG_COMMAND], what;

	if (a->count != 8 || a->offset % 8)
		return -EINVAL;
	memcpy((uint8_t *)s->regs + a->offset, ask->data, a->count);
	what = *command;
	*command = 0;
	if (!what)
		return 0;
	return vfiouser_dma(s, what == 1, s->regs[VFIOUSER_REG_ADDRESS],
			    &s->regs[VFIOUSER_REG_VALUE]);
}

static int write_region(struct vfiouser *s, struct job *j)
{
	const struct vfiomsg_access *a = &j->ask->fixed.access;

	if (a->region > VFIOUSER_MIGRATION ||
	    !range_inside(a->offset, a->count, region_size(s, a->region)))
		return -EINVAL;
	j->answer->fixed.access = *a;
	if (a->region == VFIOUSER_BAR)
		return write_bar(s, j->ask);
	return a->region == VFIOUSER_MIGRATION ? vfiouser_v1_write(s, a, j->ask->data) : 0;
}

static int reset(struct vfiouser *s, struct job *j)
{
	(void)j;
	memset(s->regs, 0, sizeof(s->regs));
	if (!s->reset_keeps || s->generation == 1)
		vfiouser_device_reset(&s->device);
	return 0;
}

/* --- second generation ----------------------------------------------------------------------- */

static int feature_state(struct vfiouser *s, struct job *j, uint32_t op)
{
	uint32_t pair[2] = { 0 };
	int err = 0;

	if (op == VFIOMSG_FEATURE_SET) {
		if (j->ask->len != sizeof(pair))
			return -EINVAL;
		memcpy(pair, j->ask->data, sizeof(pair));
		err = vfiouser_device_go(&s->device, pair[0]);
	}
	pair[0] = s->device.state;
	pair[1] = 0;
	memcpy(s->out, pair, sizeof(pair));
	j->answer->data = s->out;
	j->answer->len = sizeof(pair);
	return err;
}

static int feature_migration(struct vfiouser *s, struct job *j, uint32_t op)
{
	uint64_t flags = 1 | 4; /* STOP_COPY, PRE_COPY */

	(void)op;
	memcpy(s->out, &flags, sizeof(flags));
	j->answer->data = s->out;
	j->answer->len = sizeof(flags);
	return 0;
}

static int feature_log_start(struct vfiouser *s, struct job *j, uint32_t op)
{
	(void)op;
	j->answer->data = j->ask->data; /* as it came */
	j->answer->len = j->ask->len;
	return vfiouser_log_start(s, j->ask);
}

static int feature_log_stop(struct vfiouser *s, struct job *j, uint32_t op)
{
	(void)op;
	(void)j;
	return vfiouser_log_stop(s);
}

static int feature_log_report(struct vfiouser *s, struct job *j, uint32_t op)
{
	(void)op;
	j->answer->data = s->out;
	j->answer->len = ROOM;
	return vfiouser_log_report(s, j->ask, s->out, &j->answer->len);
}

static const struct {
	uint32_t ops;
	size_t least; /* of argsz, behind its own 8 bytes */
	int (*handle)(struct vfiouser *s, struct job *j, uint32_t op);
} features[] = {
	[1] = { VFIOMSG_FEATURE_GET, 8, feature_migration },
	[2] = { VFIOMSG_FEATURE_GET | VFIOMSG_FEATURE_SET, 8, feature_state },
	[6] = { VFIOMSG_FEATURE_SET, 16, feature_log_start },
	[7] = { VFIOMSG_FEATURE_SET, 0, feature_log_stop },
	[8] = { VFIOMSG_FEATURE_GET, 24, feature_log_report },
};

static int feature(struct vfiouser *s, struct job *j)
{
	const struct vfiomsg_feature *f = &j->ask->fixed.feature;
	uint32_t index = f->flags & VFIOMSG_FEATURE_INDEX;
	uint32_t op = f->flags & (VFIOMSG_FEATURE_GET | VFIOMSG_FEATURE_SET);
	bool probe = f->flags & VFIOMSG_FEATURE_PROBE;

	if (s->generation == 1 || index >= ARRAY_LEN(features) || op & ~features[index].ops ||
	    (op == 0 && !probe) || !features[index].handle)
		return -EINVAL;
	j->answer->fixed.feature = *f;
	if (probe)
		return 0;
	if (!is_power_of_two(op) || f->argsz < sizeof(*f) + features[index].least)
		return -EINVAL;
	return features[index].handle(s, j, op);
}

static int mig_read(struct vfiouser *s, struct job *j)
{
	uint32_t asked = j->ask->fixed.stretch.size, n;

	if (s->generation == 1 || (s->device.state != VFIOUSER_PRE_COPY &&
				   s->device.state != VFIOUSER_STOP_COPY))
		return -EINVAL;
	free(s->out);
	s->out = calloc(1, asked + 1);
	if (!s->out)
		return -ENOMEM;
	n = (uint32_t)vfiouser_device_save(&s->device, s->out, asked);
	j->answer->fixed.stretch = (struct vfiomsg_stretch){ 8 + n, n };
	j->answer->data = s->out;
	j->answer->len = s->pad ? asked : n;
	return 0;
}

static int mig_write(struct vfiouser *s, struct job *j)
{
	if (s->generation == 1)
		return -EINVAL;
	return vfiouser_device_load(&s->device, j->ask->data, j->ask->len);
}

/* --------------------------------------------------------------------------------------------- */

static const struct command {
	int (*handle)(struct vfiouser *s, struct job *j);
	bool stopped, copying; /* also in STOP, in STOP_COPY */
} commands[VFIOMSG_COMMANDS] = {
	[VFIOMSG_VERSION] = { version, true, true },
	[VFIOMSG_DMA_MAP] = { map, false, false },
	[VFIOMSG_DMA_UNMAP] = { unmap, false, false },
	[VFIOMSG_GET_INFO] = { info, false, false },
	[VFIOMSG_GET_REGION_INFO] = { region_info, false, false },
	[VFIOMSG_REGION_READ] = { read_region, true, false },
	[VFIOMSG_REGION_WRITE] = { write_region, true, false },
	[VFIOMSG_RESET] = { reset, false, false },
	[VFIOMSG_FEATURE] = { feature, true, true },
	[VFIOMSG_MIG_READ] = { mig_read, true, true },
	[VFIOMSG_MIG_WRITE] = { mig_write, false, false },
};

static bool allowed(const struct vfiouser *s, const struct command *c)
{
	if (s->generation == 1) /* its registers are in a region, and there is no other way out */
		return true;
	if (s->device.state == VFIOUSER_STOP_COPY)
		return c->copying;
	return s->device.state != VFIOUSER_STOP || c->stopped;
}

static int handle(struct vfiouser *s, const struct vfiomsg *ask, struct vfiomsg *answer, int *fd)
{
	const struct command *c = &commands[ask->head.command];
	struct job j = { ask, answer, steal_fd(fd) };
	int err = -EOPNOTSUPP;

	free(s->out);
	s->out = calloc(1, ROOM);
	if (c->handle && s->out)
		err = allowed(s, c) ? c->handle(s, &j) : -EINVAL;
	close_fd(&j.fd);
	return err;
}

/* One request and its answer; an error ends the conversation. */
static int turn(struct vfiouser *s)
{
	cleanup_fd int fd = -1;
	struct vfiomsg ask, answer;
	int err = vfiouser_receive(s->sock, &ask, &s->in, &fd, &s->terms);
	enum vfiouser_state before = s->device.state;
	bool was_agreed = s->agreed;

	if (err || (!s->agreed && ask.head.command != VFIOMSG_VERSION))
		return err ? err : -EPROTO;
	err = vfiomsg_take(&ask, s->in, VFIOMSG_TO_SERVER, &s->terms, NULL);
	if (err == -EPROTO)
		return err;
	vfiomsg_answer(&answer, &ask);
	err = err ? err : handle(s, &ask, &answer, &fd);
	vfiouser_trace(s, &ask, err);
	if (err)
		vfiomsg_fail(&answer, &ask.head, err == -EBADMSG ? -EINVAL : err);
	if (ask.head.flags & VFIOMSG_NO_REPLY)
		return 0;
	if (s->early)
		vfiouser_work(s, before);
	err = vfiouser_answer(s, &answer);
	if (!s->early)
		vfiouser_work(s, before);
	return was_agreed || s->agreed ? err : -EPROTO;
}

void vfiouser_serve(struct vfiouser *s)
{
	while (turn(s) == 0)
		continue;
	while (s->n_mappings)
		drop(s, &s->mappings[0]);
	close_fd(&s->twin);
	close_fd(&s->gift);
	free(s->in);
	free(s->out);
	free(s->late);
	s->in = s->out = NULL;
	s->late = NULL;
}
