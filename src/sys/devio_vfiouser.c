/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What devio asks of a device, in the words of vfio-user.
 *
 * Three things differ from the kernel.  A server has no word for "no such feature", only "invalid";
 * where nothing else can be invalid that is what it means.  The stream of device state has no
 * descriptor; the one in MIG_DEVICE_STATE, which servers leave 0, is none.  And a region is mapped
 * through a descriptor of its own, which came with its description.
 */
#include "config.h"

#include "sys/devio_vfiouser.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "core/guard.h"
#include "sys/devio_vfiouser_parts.h"
#include "sys/fd.h"
#include "wire/vfiocaps.h"

enum {
	FEATURE_MIGRATION = 1,
	FEATURE_DEVICE_STATE = 2,
	FEATURE_LOGGING_START = 6,
	FEATURE_LOGGING_REPORT = 8,
};

static uint32_t chunk(const struct vfiouser_link *l, size_t len)
{
	return len < l->terms.max_data ? (uint32_t)len : l->terms.max_data;
}

static int get_info(void *ctx, struct devio_info *out, uint64_t until)
{
	struct vfiomsg ask, answer;
	int err;

	vfiomsg_ask(&ask, VFIOMSG_GET_INFO, 0);
	ask.fixed.info.argsz = sizeof(ask.fixed.info);
	err = vfiouser_link_ask(ctx, &ask, -1, &answer, until);
	if (err)
		return err;
	*out = (struct devio_info){
		.flags = answer.fixed.info.flags,
		.regions = answer.fixed.info.regions,
		.irqs = answer.fixed.info.irqs,
	};
	return 0;
}

/* A description in at most @argsz bytes; how many came, and *want of them there are. */
static ssize_t describe(struct vfiouser_link *l, uint32_t index, void *bytes, uint32_t *want,
			uint64_t until)
{
	struct vfiomsg ask, answer;
	size_t head = sizeof(ask.fixed.region);
	int err;

	vfiomsg_ask(&ask, VFIOMSG_GET_REGION_INFO, 0);
	ask.fixed.region.argsz = *want;
	ask.fixed.region.index = index;
	err = vfiouser_link_ask(l, &ask, -1, &answer, until);
	if (err)
		return err;
	memcpy(bytes, &answer.fixed.region, head);
	if (answer.len)
		memcpy((uint8_t *)bytes + head, answer.data, answer.len);
	if (answer.fds) {
		close_fd(&l->region_fds[index]);
		l->region_fds[index] = vfiochan_steal(&l->main);
	}
	*want = answer.fixed.region.argsz;
	return (ssize_t)(head + answer.len);
}

static ssize_t get_region(void *ctx, uint32_t index, void *bytes, size_t room, uint64_t until)
{
	uint32_t want = VFIOCAPS_REGION_HEAD;
	ssize_t len;

	if (index >= VFIOMSG_REGIONS || room < want)
		return -EINVAL;
	len = describe(ctx, index, bytes, &want, until);
	if (len < 0 || want <= VFIOCAPS_REGION_HEAD || want > room)
		return len;
	return describe(ctx, index, bytes, &want, until);
}

/* Into @in, or, where that is NULL, from @out: as much at a time as a message carries. */
struct passage {
	uint8_t *in;
	const uint8_t *out;
};

static ssize_t pass(struct vfiouser_link *l, const struct devio_at *at, struct passage p,
		    size_t len, uint64_t until)
{
	size_t done = 0;

	while (done < len) {
		struct vfiomsg ask, answer;
		uint32_t n = chunk(l, len - done);
		struct vfiochan_into into = {
			.at = VFIOMSG_HEAD + sizeof(ask.fixed.access), .len = n,
		};
		int err;

		vfiomsg_ask(&ask, p.in ? VFIOMSG_REGION_READ : VFIOMSG_REGION_WRITE, 0);
		ask.fixed.access = (struct vfiomsg_access){ at->offset + done, at->region, n };
		ask.data = p.in ? NULL : p.out + done;
		ask.len = p.in ? 0 : n;
		into.to = p.in ? p.in + done : NULL;
		err = vfiouser_link_ask_into(l, &ask, &into, &answer, until);
		if (err)
			return err;
		done += answer.fixed.access.count;
		if (answer.fixed.access.count < n)
			break;
	}
	return (ssize_t)done;
}

static ssize_t read_region(void *ctx, const struct devio_at *at, void *buf, size_t len,
			   uint64_t until)
{
	return pass(ctx, at, (struct passage){ .in = buf }, len, until);
}

static ssize_t write_region(void *ctx, const struct devio_at *at, const void *buf, size_t len,
			    uint64_t until)
{
	return pass(ctx, at, (struct passage){ .out = buf }, len, until);
}

/* The descriptor is of the whole region, wherever it says that it begins. */
static int map_region(void *ctx, const struct vfiocaps_region *r, uint64_t offset,
		      uint64_t len, struct devio_map *out)
{
	struct vfiouser_link *l = ctx;
	int prot = (r->flags & VFIOCAPS_READ ? PROT_READ : 0) |
		   (r->flags & VFIOCAPS_WRITE ? PROT_WRITE : 0);
	uint64_t at;
	void *base;

	if (r->index >= VFIOMSG_REGIONS || l->region_fds[r->index] < 0)
		return -EOPNOTSUPP;
	if (!add_u64(r->offset, offset, &at) || at > INT64_MAX)
		return -EPROTO;
	base = mmap(NULL, len, prot, MAP_SHARED, l->region_fds[r->index], (off_t)at);
	if (base == MAP_FAILED)
		return -errno;
	*out = (struct devio_map){ .base = base, .len = len, .shared_file = true,
				   .fd = l->region_fds[r->index], .at = at };
	return 0;
}

static int reset(void *ctx, uint64_t until)
{
	struct vfiomsg ask, answer;

	vfiomsg_ask(&ask, VFIOMSG_RESET, 0);
	return vfiouser_link_ask(ctx, &ask, -1, &answer, until);
}

/* --- features -------------------------------------------------------------------------------- */

/* Can -EINVAL only mean that there is no such feature? */
static bool only_unknown(uint32_t flags)
{
	return flags & DEVIO_PROBE || flags == (FEATURE_MIGRATION | DEVIO_GET);
}

/* One whose struct is the same here and in the kernel. */
static int plain_feature(void *ctx, uint32_t flags, void *data, size_t len, uint64_t until)
{
	const int none = -1;
	struct vfiomsg ask, answer;
	bool set = flags & DEVIO_SET && !(flags & DEVIO_PROBE);
	int err;

	if (len > chunk(ctx, len))
		return -E2BIG;
	vfiomsg_ask(&ask, VFIOMSG_FEATURE, 0);
	ask.fixed.feature = (struct vfiomsg_feature){ (uint32_t)(8 + len), flags };
	ask.data = data;
	ask.len = set ? len : 0;
	err = vfiouser_link_ask(ctx, &ask, -1, &answer, until);
	if (err == -EINVAL && only_unknown(flags))
		return -EOPNOTSUPP;
	if (err)
		return err;
	if (answer.len != len && (answer.len || !set)) /* what was told need not be repeated */
		return -EPROTO;
	if (answer.len)
		memcpy(data, answer.data, answer.len);
	if ((flags & VFIOMSG_FEATURE_INDEX) == FEATURE_DEVICE_STATE && len == 8)
		memcpy((uint8_t *)data + 4, &none, sizeof(none));
	return 0;
}

static int feature(void *ctx, uint32_t flags, void *data, size_t len, uint64_t until)
{
	switch (flags) {
	case FEATURE_LOGGING_START | DEVIO_SET:
		return vfiouser_link_log_start(ctx, flags, data, len, until);
	case FEATURE_LOGGING_REPORT | DEVIO_GET:
		return vfiouser_link_log_report(ctx, flags, data, len, until);
	default:
		return plain_feature(ctx, flags, data, len, until);
	}
}

/* --- the stream ------------------------------------------------------------------------------ */

static ssize_t mig_read(void *ctx, void *buf, size_t len, uint64_t until)
{
	struct vfiomsg ask, answer;
	uint32_t n = chunk(ctx, len);
	struct vfiochan_into into = {
		.at = VFIOMSG_HEAD + sizeof(ask.fixed.stretch), .len = n, .to = buf,
	};
	int err;

	vfiomsg_ask(&ask, VFIOMSG_MIG_READ, 0);
	ask.fixed.stretch = (struct vfiomsg_stretch){ 8 + n, n };
	err = vfiouser_link_ask_into(ctx, &ask, &into, &answer, until);
	return err ? err : (ssize_t)answer.fixed.stretch.size; /* behind it there may be padding */
}

static ssize_t mig_write(void *ctx, const void *buf, size_t len, uint64_t until)
{
	struct vfiomsg ask, answer;
	uint32_t n = chunk(ctx, len);
	int err;

	vfiomsg_ask(&ask, VFIOMSG_MIG_WRITE, 0);
	ask.fixed.stretch = (struct vfiomsg_stretch){ 8 + n, n };
	ask.data = buf;
	ask.len = n;
	err = vfiouser_link_ask(ctx, &ask, -1, &answer, until);
	return err ? err : (ssize_t)n;
}

/* --- memory ---------------------------------------------------------------------------------- */

/* By its descriptor, or without one: then the device asks for the bytes. */
static int dma_map(void *ctx, const struct devio_dma *m, uint64_t until)
{
	struct vfiomsg ask, answer;

	vfiomsg_ask(&ask, VFIOMSG_DMA_MAP, 0);
	ask.fds = m->fd >= 0;
	ask.fixed.map = (struct vfiomsg_map){
		.argsz = sizeof(ask.fixed.map),
		.flags = (m->prot & PROT_READ ? VFIOMSG_MAP_READ : 0) |
			 (m->prot & PROT_WRITE ? VFIOMSG_MAP_WRITE : 0),
		.offset = m->offset,
		.iova = m->iova,
		.size = m->size,
	};
	return vfiouser_link_ask(ctx, &ask, m->fd, &answer, until);
}

static int dma_unmap(void *ctx, uint64_t iova, uint64_t size, uint64_t until)
{
	struct vfiomsg ask, answer;

	vfiomsg_ask(&ask, VFIOMSG_DMA_UNMAP, 0);
	ask.fixed.unmap = (struct vfiomsg_unmap){ .argsz = 24, .iova = iova, .size = size };
	return vfiouser_link_ask(ctx, &ask, -1, &answer, until);
}

static const struct devio_ops ops;

/* Begin a call that devio does not know. */
static uint64_t enter(struct devio *d, const char *what)
{
	assert(d->ops == &ops);
	return devwatch_enter(&d->watch, what, d->limit_ns);
}

static int leave(struct devio *d, int ret)
{
	return devwatch_leave(&d->watch) ? ret : -ETIMEDOUT;
}

/**
 * devio_vfiouser_serve - answer what the device asks for
 */
int devio_vfiouser_serve(struct devio *d, bool (*done)(void *ctx), void *ctx)
{
	uint64_t until = enter(d, "dma");
	int ret = 0;

	if (until == 0)
		return -ETIMEDOUT;
	while (ret == 0) {
		ret = vfiouser_link_serve(d->ctx, until);
		if (ret == 0 && done(ctx))
			break;
	}
	return leave(d, ret);
}

/**
 * devio_vfiouser_fds - what to wait for when there is nothing to be asked
 */
unsigned devio_vfiouser_fds(const struct devio *d, int fds[2])
{
	const struct vfiouser_link *l = d->ctx;
	unsigned n = 0;

	assert(d->ops == &ops);
	if (l->main.fd >= 0)
		fds[n++] = l->main.fd;
	if (l->twin.fd >= 0)
		fds[n++] = l->twin.fd;
	return n;
}

/* --- beginning and end ----------------------------------------------------------------------- */

static void link_free(struct vfiouser_link *l)
{
	vfiochan_deinit(&l->main);
	vfiochan_deinit(&l->twin);
	for (unsigned i = 0; i < VFIOMSG_REGIONS; i++)
		close_fd(&l->region_fds[i]);
	free(l->data);
	free(l);
}

static void link_freep(struct vfiouser_link **l)
{
	if (*l)
		link_free(*l);
}

static void close_link(void *ctx)
{
	link_free(ctx);
}

static const struct devio_ops ops = {
	.info = get_info,
	.region = get_region,
	.read = read_region,
	.write = write_region,
	.map = map_region,
	.reset = reset,
	.feature = feature,
	.mig_read = mig_read,
	.mig_write = mig_write,
	.dma_map = dma_map,
	.dma_unmap = dma_unmap,
	.close = close_link,
};

static struct vfiouser_link *link_new(const struct devio_vfiouser_options *o)
{
	struct vfiouser_link *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->main.fd = l->twin.fd = -1;
	for (unsigned i = 0; i < VFIOMSG_REGIONS; i++)
		l->region_fds[i] = -1;
	l->terms = (struct vfiomsg_terms){
		.max_data = o->max_data ? o->max_data : VFIOMSG_DATA_DEFAULT,
		.max_fds = VFIOMSG_FDS,
	};
	if (o->memory)
		l->memory = *o->memory;
	l->data = malloc(l->terms.max_data);
	if (l->data)
		return l;
	link_free(l);
	return NULL;
}

/**
 * devio_vfiouser_adopt - a device behind a connected socket
 */
int devio_vfiouser_adopt(struct devio *d, int sock, const struct devio_vfiouser_options *options)
{
	__attribute__((cleanup(link_freep))) struct vfiouser_link *l = link_new(options);
	cleanup_fd int fd = sock;
	struct devio device;
	uint64_t until;
	size_t tail;
	int err;

	if (!l)
		return -ENOMEM;
	tail = l->terms.max_data > VFIOCAPS_MAX ? l->terms.max_data : VFIOCAPS_MAX;
	err = vfiochan_init(&l->main, steal_fd(&fd), VFIOMSG_FRONT + tail);
	if (err)
		return err;
	devio_init(&device, &ops, l);
	devio_set_limit(&device, options->limit_ns);
	until = devwatch_enter(&device.watch, "version", options->limit_ns);
	err = vfiouser_link_agree(l, options->no_twin, until);
	devwatch_leave(&device.watch);
	if (err)
		return err;
	*d = device;
	steal_ptr(&l);
	return 0;
}

/**
 * devio_vfiouser_open - a device behind a path
 */
int devio_vfiouser_open(struct devio *d, const char *path,
			const struct devio_vfiouser_options *options)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	cleanup_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	memcpy(addr.sun_path, path, strlen(path));
	/* A full queue is told at once (EAGAIN): who is not being served is not waited for. */
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)))
		return -errno;
	return devio_vfiouser_adopt(d, steal_fd(&fd), options);
}
