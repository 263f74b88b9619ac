/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_SYS_DEVIO_H
#define PC_SYS_DEVIO_H
/*
 * One handle of a device behind the VFIO interface, whoever implements it: the kernel
 * (devio_vfio.c), a vfio-user server (devio_vfiouser.c), a script of a test (tests/lib/fakedev.c).
 * Regions, features, the stream of device state, reset; no word of what the state means.
 *
 * A handle belongs to one thread, which may wait in every call, and which nobody waits for:
 * devio_watch() is for who looks after it (sys/devwatch.h).
 *
 * Results: 0, a number of bytes, or -errno.  Everywhere
 *	-EOPNOTSUPP	the device has no such thing (the kernel's ENOTTY)
 *	-EIO		fewer bytes were transferred than asked; also what the device itself says
 *	-ETIMEDOUT	the deadline passed.  What the call did is unknown: read the state again
 *	-EPROTO		the other side broke the interface
 *	-ECONNRESET	the other side has gone
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "sys/devwatch.h"
#include "wire/vfiocaps.h"

enum devio_flag { /* of struct devio_info */
	DEVIO_RESET = 1,
};

struct devio_info {
	uint32_t flags; /* the kernel's; enum devio_flag are what we look at */
	uint32_t regions;
	uint32_t irqs;
};

/* Where in a device. */
struct devio_at {
	uint32_t region;
	uint32_t width; /* of the access: 1, 2, 4 or 8; 0: any, for what is no register */
	uint64_t offset;
};

enum devio_feature_op { /* upper half of the flags of a feature */
	DEVIO_GET = 1 << 16,
	DEVIO_SET = 1 << 17,
	DEVIO_PROBE = 1 << 18,
};

/* Of what is known how much is left to be read before the device stops (v2). */
struct devio_precopy {
	uint64_t initial, dirty;
};

/* A part of a region in our memory. */
struct devio_map {
	uint8_t *base; /* NULL: none */
	uint64_t len;
	bool shared_file; /* its owner can truncate it: look at it by devio_map_read() only */
	int fd;		  /* of such a file, the transport's */
	uint64_t at;	  /* and where in it */
};

/* Memory that a device is to reach. */
struct devio_dma {
	uint64_t iova, size;
	uint32_t prot;	 /* PROT_READ, PROT_WRITE: what the device may do */
	void *address;	 /* in our space: the kernel pins what is there; NULL: none */
	int fd;		 /* what a server maps for itself, stays the caller's; -1: it asks us */
	uint64_t offset; /* in the descriptor */
};

/*
 * What a transport does.  @until: CLOCK_MONOTONIC in ns, DEVWATCH_NEVER for none; who can bound
 * its waiting returns -ETIMEDOUT at that time, who cannot (the kernel) forwards EINTR.  Numbers of
 * bytes are what was transferred, also when it is too little.  NULL: the device has no such thing.
 */
struct devio_ops {
	int (*info)(void *ctx, struct devio_info *out, uint64_t until);
	/* Fills at most @room bytes, as VFIO describes a region; their number is returned. */
	ssize_t (*region)(void *ctx, uint32_t index, void *bytes, size_t room, uint64_t until);
	ssize_t (*read)(void *ctx, const struct devio_at *at, void *buf, size_t len,
			uint64_t until);
	ssize_t (*write)(void *ctx, const struct devio_at *at, const void *buf, size_t len,
			 uint64_t until);
	/* @r: from region(), @offset and @len within it. */
	int (*map)(void *ctx, const struct vfiocaps_region *r, uint64_t offset, uint64_t len,
		   struct devio_map *out);
	int (*reset)(void *ctx, uint64_t until);
	/* @flags: index and enum devio_feature_op; @data: without the header, in and out. */
	int (*feature)(void *ctx, uint32_t flags, void *data, size_t len, uint64_t until);
	/*
	 * The stream that the last change of state began.  read: 0 its end, -ENOMSG nothing now.
	 * The transport owns the descriptor, if there is one, and ends it with the stream.
	 */
	ssize_t (*mig_read)(void *ctx, void *buf, size_t len, uint64_t until);
	ssize_t (*mig_write)(void *ctx, const void *buf, size_t len, uint64_t until);
	int (*mig_precopy)(void *ctx, struct devio_precopy *out, uint64_t until);
	int (*dma_map)(void *ctx, const struct devio_dma *m, uint64_t until);
	int (*dma_unmap)(void *ctx, uint64_t iova, uint64_t size, uint64_t until);
	void (*close)(void *ctx);
};

struct devio {
	const struct devio_ops *ops; /* NULL: closed */
	void *ctx;		     /* the transport's, closed with the handle */
	uint64_t limit_ns;	     /* for each call, 0: none */
	struct devwatch watch;
};

/* Takes @ctx over. */
void devio_init(struct devio *d, const struct devio_ops *ops, void *ctx);
/* Idempotent. */
void devio_close(struct devio *d);
#define cleanup_devio __attribute__((cleanup(devio_close)))

/* How long each of the calls that follow may take; 0: for ever. */
void devio_set_limit(struct devio *d, uint64_t limit_ns);
/* For another thread: what is being waited for. */
struct devwatch *devio_watch(struct devio *d);

int devio_info(struct devio *d, struct devio_info *out);
int devio_region(struct devio *d, uint32_t index, struct vfiocaps_region *out);
/* All of @len or an error. */
int devio_read(struct devio *d, const struct devio_at *at, void *buf, size_t len);
int devio_write(struct devio *d, const struct devio_at *at, const void *buf, size_t len);
int devio_reset(struct devio *d);

/* @index: VFIO_DEVICE_FEATURE_*; of SET @data may come back changed. */
int devio_feature_get(struct devio *d, uint16_t index, void *data, size_t len);
int devio_feature_set(struct devio *d, uint16_t index, void *data, size_t len);
/* @ops: DEVIO_GET, DEVIO_SET.  1, 0, or -errno when it cannot be told. */
int devio_feature_has(struct devio *d, uint16_t index, uint32_t ops);

/* Bytes; 0: the end; -ENOMSG: nothing now. */
ssize_t devio_mig_read(struct devio *d, void *buf, size_t len);
/* Bytes taken, never 0. */
ssize_t devio_mig_write(struct devio *d, const void *buf, size_t len);
int devio_mig_precopy(struct devio *d, struct devio_precopy *out);

/*
 * Let the device reach memory: the addresses of all devices that share a container are the same
 * ones.  -EFAULT: a page was missing, and nothing is mapped; -ENOMEM, -ENOSPC: our limits, see
 * devio_dma_why(); -EEXIST: the addresses are in use; -EINVAL: no whole pages, out of the device's
 * reach, or (servers) not in this state of the device.
 */
int devio_dma_map(struct devio *d, const struct devio_dma *m);
/* Whole mappings.  -EINVAL: it would cut one; -ENOENT: there was none. */
int devio_dma_unmap(struct devio *d, uint64_t iova, uint64_t size);
/* What such an error means and what can be done, for people; static, or NULL. */
const char *devio_dma_why(int err);

/* Whole pages of a region that can be mapped.  0 or -errno. */
int devio_map(struct devio *d, const struct vfiocaps_region *r, uint64_t offset, uint64_t len,
	      struct devio_map *out);
/* Idempotent; before the handle is closed. */
void devio_unmap(struct devio_map *m);
#define cleanup_devio_map __attribute__((cleanup(devio_unmap)))
/* Copy out of, or into, what is mapped; -EFAULT when it is no longer there. */
int devio_map_read(const struct devio_map *m, uint64_t offset, void *buf, size_t len);
int devio_map_write(const struct devio_map *m, uint64_t offset, const void *buf, size_t len);

#endif
