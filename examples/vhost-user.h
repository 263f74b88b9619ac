/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef EXAMPLE_VHOST_USER_H
#define EXAMPLE_VHOST_USER_H
/* What of the protocol is used here; docs/interop/vhost-user.rst of QEMU is its text. */
#include <stdint.h>

enum {
	GET_FEATURES = 1,
	SET_FEATURES,
	SET_OWNER,
	RESET_OWNER,
	SET_MEM_TABLE,
	SET_LOG_BASE,
	SET_LOG_FD,
	SET_VRING_NUM,
	SET_VRING_ADDR,
	SET_VRING_BASE,
	GET_VRING_BASE,
	SET_VRING_KICK,
	SET_VRING_CALL,
	SET_VRING_ERR,
	GET_PROTOCOL_FEATURES,
	SET_PROTOCOL_FEATURES,
	GET_QUEUE_NUM,
	SET_VRING_ENABLE,
	GET_CONFIG = 24,
};
#define BIT(n)		    (UINT64_C(1) << (n))
#define F_PROTOCOL_FEATURES BIT(30)
#define P_MQ		    BIT(0)
#define P_REPLY_ACK	    BIT(3)
#define P_CONFIG	    BIT(9)
#define FLAG_REPLY	    (1u | 4u)
#define FLAG_NEED_REPLY	    8u

enum { REGIONS = 8 }; /* of one table */

struct message {
	uint32_t request, flags, size;
	union {
		uint64_t u64;
		struct {
			uint32_t index, num;
		} state;
		struct {
			uint32_t index, flags;
			uint64_t desc, used, avail, log;
		} addr;
		struct {
			uint32_t n, pad;
			struct {
				uint64_t guest, size, user, offset;
			} region[REGIONS];
		} memory;
		struct {
			uint32_t offset, size, flags;
			uint8_t data[256];
		} config;
		uint8_t bytes[512];
	} __attribute__((packed)) body;
} __attribute__((packed));

#endif
