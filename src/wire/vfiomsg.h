/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_WIRE_VFIOMSG_H
#define PC_WIRE_VFIOMSG_H
/*
 * vfio-user messages: a head of 16 bytes and a body, in the byte order of the host, on a stream
 * socket.  Descriptors come with the first byte of a head; here they are only counted.
 *
 * A body has a fixed part, copied into the record, and a tail (data of a region, a stretch of
 * device state, a bitmap) that stays where it lies: `data` is borrowed.  Whoever reads takes the
 * head, lets vfiomsg_check_head() say whether a body of that size may follow, takes the body, and
 * gives both to vfiomsg_take() or vfiomsg_take_reply().  Whoever writes fills a record and has
 * vfiomsg_front() make the bytes that go before the tail; both should leave with one sendmsg(),
 * because servers want a head in one piece.
 *
 * Both generations are here.  The first (libvfio-user up to 2023) moves device state through a
 * region and has DIRTY_PAGES; the second has DEVICE_FEATURE and the two MIG_DATA.  Nothing
 * negotiates them: a device is asked which it has.
 *
 * What no row describes is not understood, and answered by -EOPNOTSUPP: interrupts and descriptors
 * of regions belong to the VMM, which has a connection of its own.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	VFIOMSG_HEAD = 16,
	VFIOMSG_FIXED = 40,	     /* the longest fixed part */
	VFIOMSG_FRONT = VFIOMSG_HEAD + VFIOMSG_FIXED,
	VFIOMSG_FDS = 8,	     /* descriptors of one message */
	VFIOMSG_DATA_DEFAULT = 1 << 20, /* when VERSION says nothing */
	VFIOMSG_REGIONS = 256,	     /* of a device; a PCI device has 9, and a few of its own */
	VFIOMSG_MAJOR = 0,
	VFIOMSG_MINOR = 1,
};

enum vfiomsg_command {
	VFIOMSG_VERSION = 1,
	VFIOMSG_DMA_MAP = 2,
	VFIOMSG_DMA_UNMAP = 3,
	VFIOMSG_GET_INFO = 4,
	VFIOMSG_GET_REGION_INFO = 5,
	VFIOMSG_REGION_READ = 9,
	VFIOMSG_REGION_WRITE = 10,
	VFIOMSG_DMA_READ = 11,	/* these two are the server's */
	VFIOMSG_DMA_WRITE = 12,
	VFIOMSG_RESET = 13,
	VFIOMSG_DIRTY_PAGES = 14, /* of the first generation */
	VFIOMSG_FEATURE = 16,	  /* this one and the next two are of the second */
	VFIOMSG_MIG_READ = 17,
	VFIOMSG_MIG_WRITE = 18,
	VFIOMSG_COMMANDS,
};

enum vfiomsg_flags {
	VFIOMSG_TYPE = 0xf, /* 0 a command, 1 a reply */
	VFIOMSG_REPLY = 0x1,
	VFIOMSG_NO_REPLY = 0x10,
	VFIOMSG_ERROR = 0x20,
};
enum vfiomsg_map_flags {
	VFIOMSG_MAP_READ = 1,
	VFIOMSG_MAP_WRITE = 2,
	VFIOMSG_MAP_MMAP = 4,
	VFIOMSG_MAP_FILE_IO = 8,
};
enum vfiomsg_unmap_flags {
	VFIOMSG_UNMAP_BITMAP = 1, /* and what was dirty */
	VFIOMSG_UNMAP_ALL = 2,
};
enum vfiomsg_dirty_flags {
	VFIOMSG_DIRTY_START = 1,
	VFIOMSG_DIRTY_STOP = 2,
	VFIOMSG_DIRTY_GET = 4,
};
enum vfiomsg_feature_flags { /* above the number of the feature */
	VFIOMSG_FEATURE_INDEX = 0xffff,
	VFIOMSG_FEATURE_GET = 1 << 16,
	VFIOMSG_FEATURE_SET = 1 << 17,
	VFIOMSG_FEATURE_PROBE = 1 << 18,
};

struct vfiomsg_head {
	uint16_t id, command;
	uint32_t size; /* of all of it, the head too */
	uint32_t flags, error;
};

/* argsz: how long an answer may be, or would have been, without the head of the message */
union vfiomsg_fixed {
	struct vfiomsg_version {
		uint16_t major, minor;
	} version; /* then JSON and a NUL, or nothing */
	struct vfiomsg_map {
		uint32_t argsz, flags;
		uint64_t offset, iova, size;
	} map;
	struct vfiomsg_unmap {
		uint32_t argsz, flags;
		uint64_t iova, size;
		uint64_t pgsize, bitmap; /* only with VFIOMSG_UNMAP_BITMAP; bytes */
	} unmap;
	struct vfiomsg_info {
		uint32_t argsz, flags, regions, irqs;
	} info;
	struct vfiomsg_region {
		uint32_t argsz, flags, index, cap_offset;
		uint64_t size, offset;
	} region; /* then capabilities: wire/vfiocaps.h reads the body as a whole */
	struct vfiomsg_access {
		uint64_t offset;
		uint32_t region, count;
	} access;
	struct vfiomsg_dma {
		uint64_t address, count; /* there is a client that sends four bytes of count */
	} dma;
	struct vfiomsg_dirty {
		uint32_t argsz, flags;
		uint64_t iova, size, pgsize, bitmap; /* only with VFIOMSG_DIRTY_GET */
	} dirty;
	struct vfiomsg_feature {
		uint32_t argsz, flags;
	} feature;
	struct vfiomsg_stretch {
		uint32_t argsz, size;
	} stretch; /* of device state */
	uint8_t bytes[VFIOMSG_FIXED];
};

struct vfiomsg {
	struct vfiomsg_head head;
	unsigned fds; /* that came, or must go, with it; who holds them is not told */
	union vfiomsg_fixed fixed;
	const uint8_t *data; /* the tail, borrowed */
	size_t len;
};

enum vfiomsg_way {
	VFIOMSG_TO_SERVER,
	VFIOMSG_TO_CLIENT, /* DMA of the device */
};

/* What both ends agreed on (wire/vfioterms.h); it bounds sizes. */
struct vfiomsg_terms {
	uint32_t max_data; /* bytes of a tail that carries data */
	uint32_t max_fds;
};

/*
 * Each returns 0; -EPROTO for what is no message of the protocol, after which nothing can be
 * understood on this socket; of a request also -EBADMSG for content that no peer may ask for and
 * -EOPNOTSUPP for a command without a row: both can be answered with an error.
 * @why: what is wrong, static text; untouched when nothing is; may be NULL.
 */
int vfiomsg_check_head(const struct vfiomsg_head *head, const struct vfiomsg_terms *terms,
		       const char **why);
/* @m: head and fds are set; @body: head.size - VFIOMSG_HEAD bytes, which stay the caller's */
int vfiomsg_take(struct vfiomsg *m, const void *body, enum vfiomsg_way way,
		 const struct vfiomsg_terms *terms, const char **why);
/* Is it the answer to @asked?  When it says that the request failed, vfiomsg_error() tells how. */
int vfiomsg_take_reply(struct vfiomsg *m, const void *body, const struct vfiomsg *asked,
		       const struct vfiomsg_terms *terms, const char **why);

/* Is it a command, by its head?  Between a request and its answer the server may ask for DMA. */
static inline bool vfiomsg_is_command(const struct vfiomsg_head *head)
{
	return (head->flags & VFIOMSG_TYPE) == 0;
}
/* 0, or -errno, which is an errno of Linux whatever the peer said. */
int vfiomsg_error(const struct vfiomsg_head *reply);

/* Begin a request, or the answer to one: everything but the head is zero. */
void vfiomsg_ask(struct vfiomsg *m, enum vfiomsg_command command, uint16_t id);
void vfiomsg_answer(struct vfiomsg *m, const struct vfiomsg *asked);
/* A whole answer that says: it failed.  @err: -errno */
void vfiomsg_fail(struct vfiomsg *m, const struct vfiomsg_head *asked, int err);
/* Sets head.size by what is filled in.  Bytes of @front; @m->data goes behind them. */
size_t vfiomsg_front(struct vfiomsg *m, uint8_t front[VFIOMSG_FRONT]);

/* "REGION_READ"; "unknown" for what has no row. */
const char *vfiomsg_name(unsigned command);

#endif
