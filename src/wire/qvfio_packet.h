/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_WIRE_QVFIO_PACKET_H
#define PC_WIRE_QVFIO_PACKET_H
/*
 * VFIO device state on multifd channels (10.0 and later, x-migration-multifd-transfer): the heads
 * of its packets, and the order of what they carry.
 *
 * Packets of a device come on several channels, in any order.  Who orders them holds no data: it
 * says which packet is next, and how much the caller holds of those that are not.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/qvfio.h"

enum { QVFIO_AHEAD = 1024 }; /* packets that can be held */

struct qvfio_packet {
	char name[256]; /* idstr */
	uint32_t instance;
	uint32_t index;	 /* place in the device's order */
	bool config;	 /* the configuration, which is the last */
	uint32_t length; /* bytes of data that follow */
};

void qvfio_put_packet(struct pen *p, const struct qvfio_packet *packet);
/*
 * The head at @buf.  QVFIO_PACKET_HEAD; 0: not all of it is there; -EPROTO with *why.
 * @limit: bytes of data a packet may have.
 */
int qvfio_packet(const uint8_t *buf, size_t len, uint32_t limit, struct qvfio_packet *packet,
		 const char **why);

struct qvfio_order {
	uint64_t room; /* bytes that may be held */
	uint64_t held;
	uint32_t next; /* index that is loaded next */
	uint32_t last; /* the highest index seen */
	bool seen, has_config;
	uint32_t config; /* its index */
	uint32_t length[QVFIO_AHEAD];
	uint64_t present[QVFIO_AHEAD / 64]; /* of index: bit index % QVFIO_AHEAD */
	const char *reason;
};

/* @room: bytes that the caller is willing to hold. */
void qvfio_order_init(struct qvfio_order *o, uint64_t room);
/* A packet has come, whole: it is held.  0, or -EPROTO (for good) with o->reason. */
int qvfio_order_add(struct qvfio_order *o, const struct qvfio_packet *packet);
/* Is the next packet there?  If so, *index is its, and it is held no more: load it now. */
bool qvfio_order_take(struct qvfio_order *o, uint32_t *index);
/* Was everything taken, up to the configuration? */
bool qvfio_order_whole(const struct qvfio_order *o);

#endif
