/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_WIRE_VHOSTMSG_H
#define PC_WIRE_VHOSTMSG_H
/*
 * vhost-user messages: a head of 12 bytes and a body, in the byte order of the host, on a stream
 * socket.  Descriptors come with the first byte of a head; here they are only counted.
 *
 * A reader takes the head, lets vhostmsg_check_head() say whether a body of that size may follow,
 * takes the body, and gives both to vhostmsg_check() or vhostmsg_check_reply().  What passes can be
 * used without another look: sums of regions do not wrap, counts are inside their arrays.
 *
 * A request that no row describes is refused, never relayed: nobody could tell whether it hands
 * over memory, starts a ring, or is answered.  Protocol features that bring such requests are kept
 * from being negotiated (VHOSTMSG_PROTOCOL_KNOWN), so no peer that keeps its word sends one.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	VHOSTMSG_REGIONS = 8,	  /* of one table, and descriptors of one message */
	VHOSTMSG_CONFIG = 256,	  /* bytes of device configuration in one message */
	VHOSTMSG_RINGS = 256,	  /* SET_VRING_KICK has eight bits for a number */
	VHOSTMSG_BODY_MAX = 4096, /* the longest known (CREATE_CRYPTO_SESSION) has under 1 KiB */
};

enum vhostmsg_flags {
	VHOSTMSG_VERSION = 0x1,
	VHOSTMSG_REPLY = 0x4,
	VHOSTMSG_NEED_REPLY = 0x8,
};

/* Front-end to back-end. */
enum vhostmsg_request {
	VHOSTMSG_GET_FEATURES = 1,
	VHOSTMSG_SET_FEATURES = 2,
	VHOSTMSG_SET_OWNER = 3,
	VHOSTMSG_RESET_OWNER = 4,
	VHOSTMSG_SET_MEM_TABLE = 5,
	VHOSTMSG_SET_LOG_BASE = 6,
	VHOSTMSG_SET_LOG_FD = 7,
	VHOSTMSG_SET_VRING_NUM = 8,
	VHOSTMSG_SET_VRING_ADDR = 9,
	VHOSTMSG_SET_VRING_BASE = 10,
	VHOSTMSG_GET_VRING_BASE = 11,
	VHOSTMSG_SET_VRING_KICK = 12,
	VHOSTMSG_SET_VRING_CALL = 13,
	VHOSTMSG_SET_VRING_ERR = 14,
	VHOSTMSG_GET_PROTOCOL_FEATURES = 15,
	VHOSTMSG_SET_PROTOCOL_FEATURES = 16,
	VHOSTMSG_GET_QUEUE_NUM = 17,
	VHOSTMSG_SET_VRING_ENABLE = 18,
	VHOSTMSG_SEND_RARP = 19,
	VHOSTMSG_NET_SET_MTU = 20,
	VHOSTMSG_SET_BACKEND_REQ_FD = 21,
	VHOSTMSG_IOTLB_MSG = 22,
	VHOSTMSG_SET_VRING_ENDIAN = 23,
	VHOSTMSG_GET_CONFIG = 24,
	VHOSTMSG_SET_CONFIG = 25,
	VHOSTMSG_CREATE_CRYPTO_SESSION = 26,
	VHOSTMSG_CLOSE_CRYPTO_SESSION = 27,
	VHOSTMSG_POSTCOPY_ADVISE = 28,
	VHOSTMSG_POSTCOPY_LISTEN = 29,
	VHOSTMSG_POSTCOPY_END = 30,
	VHOSTMSG_GET_INFLIGHT_FD = 31,
	VHOSTMSG_SET_INFLIGHT_FD = 32,
	VHOSTMSG_GPU_SET_SOCKET = 33,
	VHOSTMSG_RESET_DEVICE = 34,
	VHOSTMSG_VRING_KICK = 35,
	VHOSTMSG_GET_MAX_MEM_SLOTS = 36,
	VHOSTMSG_ADD_MEM_REG = 37,
	VHOSTMSG_REM_MEM_REG = 38,
	VHOSTMSG_SET_STATUS = 39,
	VHOSTMSG_GET_STATUS = 40,
	VHOSTMSG_GET_SHARED_OBJECT = 41,
	VHOSTMSG_SET_DEVICE_STATE_FD = 42,
	VHOSTMSG_CHECK_DEVICE_STATE = 43,
};

/* Back-end to front-end, on the socket that SET_BACKEND_REQ_FD handed over. */
enum vhostmsg_backend_request {
	VHOSTMSG_BACKEND_IOTLB_MSG = 1,
	VHOSTMSG_BACKEND_CONFIG_CHANGE = 2,
	VHOSTMSG_BACKEND_HOST_NOTIFIER = 3,
	VHOSTMSG_BACKEND_VRING_CALL = 4,
	VHOSTMSG_BACKEND_VRING_ERR = 5,
	VHOSTMSG_BACKEND_OBJECT_ADD = 6,
	VHOSTMSG_BACKEND_OBJECT_REMOVE = 7,
	VHOSTMSG_BACKEND_OBJECT_LOOKUP = 8,
};

#define VHOSTMSG_BIT(n) (UINT64_C(1) << (n))
/* Bits of the protocol features. */
#define VHOSTMSG_P_MQ		VHOSTMSG_BIT(0)
#define VHOSTMSG_P_LOG_SHMFD	VHOSTMSG_BIT(1)
#define VHOSTMSG_P_RARP		VHOSTMSG_BIT(2)
#define VHOSTMSG_P_REPLY_ACK	VHOSTMSG_BIT(3)
#define VHOSTMSG_P_MTU		VHOSTMSG_BIT(4)
#define VHOSTMSG_P_BACKEND_REQ	VHOSTMSG_BIT(5)
#define VHOSTMSG_P_CROSS_ENDIAN VHOSTMSG_BIT(6)
#define VHOSTMSG_P_CRYPTO	VHOSTMSG_BIT(7)
#define VHOSTMSG_P_PAGEFAULT	VHOSTMSG_BIT(8)
#define VHOSTMSG_P_CONFIG	VHOSTMSG_BIT(9)
#define VHOSTMSG_P_BACKEND_FD	VHOSTMSG_BIT(10)
#define VHOSTMSG_P_NOTIFIER	VHOSTMSG_BIT(11)
#define VHOSTMSG_P_INFLIGHT	VHOSTMSG_BIT(12)
#define VHOSTMSG_P_RESET	VHOSTMSG_BIT(13)
#define VHOSTMSG_P_INBAND	VHOSTMSG_BIT(14)
#define VHOSTMSG_P_MEM_SLOTS	VHOSTMSG_BIT(15)
#define VHOSTMSG_P_STATUS	VHOSTMSG_BIT(16)
#define VHOSTMSG_P_XEN_MMAP	VHOSTMSG_BIT(17)
#define VHOSTMSG_P_OBJECT	VHOSTMSG_BIT(18)
#define VHOSTMSG_P_DEVICE_STATE VHOSTMSG_BIT(19)
/*
 * What may be negotiated through us.  Rings kicked in band could start behind our back, Xen's
 * regions have another layout, and what lies above bit 19 is not known yet.
 */
#define VHOSTMSG_PROTOCOL_KNOWN \
	((VHOSTMSG_BIT(20) - 1) & ~(VHOSTMSG_P_INBAND | VHOSTMSG_P_XEN_MMAP))
/* Bits of the features. */
#define VHOSTMSG_F_LOG_ALL	     VHOSTMSG_BIT(26)
#define VHOSTMSG_F_PROTOCOL_FEATURES VHOSTMSG_BIT(30)
/*
 * In the number of a ring, and in the answer to SET_DEVICE_STATE_FD: no descriptor comes with it.
 */
#define VHOSTMSG_NO_FD VHOSTMSG_BIT(8)

struct vhostmsg_head {
	uint32_t request, flags, size;
};

struct vhostmsg_region {
	uint64_t gpa, size;
	uint64_t va;	 /* the front-end's; in an answer during postcopy the back-end's */
	uint64_t offset; /* in the descriptor */
};

union vhostmsg_body {
	uint64_t u64;
	struct vhostmsg_state {
		uint32_t index, num;
	} state;
	struct vhostmsg_addr {
		uint32_t index, flags;
		uint64_t desc, used, avail, log;
	} addr;
	struct vhostmsg_memory {
		uint32_t n, pad;
		struct vhostmsg_region regions[VHOSTMSG_REGIONS]; /* n are sent */
	} memory;
	struct vhostmsg_memreg {
		uint64_t pad;
		struct vhostmsg_region region;
	} memreg;
	struct vhostmsg_log {
		uint64_t size, offset;
	} log;
	struct vhostmsg_inflight {
		uint64_t size, offset;
		uint16_t queues, queue_size;
		uint32_t tail; /* the text adds up to 20 bytes, everybody sends 24 */
	} inflight;
	struct vhostmsg_config {
		uint32_t offset, size, flags;
		uint8_t data[VHOSTMSG_CONFIG]; /* size are sent */
	} config;
	struct vhostmsg_iotlb {
		uint64_t iova, size, uaddr;
		uint8_t perm, type, pad[6];
	} iotlb;
	struct vhostmsg_area {
		uint64_t index, size, offset;
	} area;
	struct vhostmsg_transfer {
		uint32_t direction, phase;
	} transfer;
	uint8_t bytes[VHOSTMSG_BODY_MAX];
};

/*
 * On the wire the body follows the head at once; here it is aligned, so the two are sent and
 * received apart.
 */
struct vhostmsg {
	struct vhostmsg_head head;
	unsigned fds; /* descriptors that came, or must go, with it; who holds them is not told */
	union vhostmsg_body body;
};

enum vhostmsg_way {
	VHOSTMSG_TO_BACKEND,   /* requests of the front-end */
	VHOSTMSG_FROM_BACKEND, /* requests of the back-end, on its own socket */
	VHOSTMSG_WAYS,
};

/*
 * How memory is told.  After POSTCOPY_LISTEN, SET_MEM_TABLE and ADD_MEM_REG are answered with
 * themselves, the back-end's addresses in them, and a u64 under the same number closes the
 * exchange.
 */
enum vhostmsg_form {
	VHOSTMSG_PLAIN,
	VHOSTMSG_BASES,
	VHOSTMSG_BASES_ACK,
};

/* What two peers agreed on; it decides sizes, descriptors and answers. */
struct vhostmsg_terms {
	uint64_t protocol; /* as SET_PROTOCOL_FEATURES said */
	enum vhostmsg_form form;
};

enum vhostmsg_answer {
	VHOSTMSG_SILENCE,
	VHOSTMSG_ACK,  /* a u64, 0 is success; because NEED_REPLY asked for it */
	VHOSTMSG_DATA, /* the request's own answer */
};

/*
 * The checks return 0; -EPROTO for what is no message of the protocol, or stands where it must not;
 * -EOPNOTSUPP for a request that was not negotiated; -E2BIG for more regions than a table has;
 * -EBADMSG for bad content.  @why: what is wrong, static text; untouched when nothing is; may be
 * NULL.
 */
int vhostmsg_check_head(const struct vhostmsg_head *head, enum vhostmsg_way way, bool reply,
			const char **why);
int vhostmsg_check(const struct vhostmsg *m, enum vhostmsg_way way,
		   const struct vhostmsg_terms *terms, const char **why);
/* @asked: the request, with the terms it was sent under */
int vhostmsg_check_reply(const struct vhostmsg *m, const struct vhostmsg *asked,
			 enum vhostmsg_way way, const struct vhostmsg_terms *terms,
			 const char **why);
/* What answers a request that passed. */
enum vhostmsg_answer vhostmsg_expects(const struct vhostmsg *m, enum vhostmsg_way way,
				      const struct vhostmsg_terms *terms);
/* "SET_MEM_TABLE"; "unknown" for what has no row. */
const char *vhostmsg_name(enum vhostmsg_way way, uint32_t request);

/* Of a table or of one region, in either direction: how many, and the @i-th. */
unsigned vhostmsg_regions(const struct vhostmsg *m);
const struct vhostmsg_region *vhostmsg_region(const struct vhostmsg *m, unsigned i);
/*
 * Are the addresses in the answer those that were sent?  Then it says nothing about the back-end's.
 */
bool vhostmsg_bases_echoed(const struct vhostmsg *reply, const struct vhostmsg *asked);

/* Each makes a whole message and sets its size; the caller fills what is left and sets fds. */
void vhostmsg_ask(struct vhostmsg *m, enum vhostmsg_request request, uint32_t need_reply);
void vhostmsg_ask_u64(struct vhostmsg *m, enum vhostmsg_request request, uint32_t need_reply,
		      uint64_t value);
/* The first, or another, region of a table; the size grows.  -E2BIG when it is full. */
int vhostmsg_add_region(struct vhostmsg *m, const struct vhostmsg_region *region);
void vhostmsg_reply_u64(struct vhostmsg *m, uint32_t request, uint64_t value);

#endif
