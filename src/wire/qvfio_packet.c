/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Multifd packets with VFIO device state: be32 magic, version and flags, the device's idstr in
 * 256 bytes, be32 instance and size; then, inside of that size, be32 version, index and flags, and
 * data.
 *
 * What is held is a window of indices above the next one, so a sender can neither make us search
 * nor hold without end.
 */
#include "config.h"

#include "wire/qvfio_packet.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/guard.h"

#define PACKET_MAGIC	    0x11223344u
#define PACKET_VERSION	    1u
#define PACKET_DEVICE_STATE 0x40u
#define STATE_VERSION	    0u
#define STATE_CONFIG	    1u
#define STATE_HEAD	    12u /* inside of the packet's size */
#define NAME_FIELD	    256

/**
 * qvfio_put_packet - a packet up to its data
 */
void qvfio_put_packet(struct pen *p, const struct qvfio_packet *packet)
{
	char name[NAME_FIELD] = "";

	assert(strlen(packet->name) < NAME_FIELD && packet->length <= UINT32_MAX - STATE_HEAD);
	memcpy(name, packet->name, strlen(packet->name));
	pen_be32(p, PACKET_MAGIC);
	pen_be32(p, PACKET_VERSION);
	pen_be32(p, PACKET_DEVICE_STATE);
	pen_bytes(p, name, sizeof(name));
	pen_be32(p, packet->instance);
	pen_be32(p, STATE_HEAD + packet->length);
	pen_be32(p, STATE_VERSION);
	pen_be32(p, packet->index);
	pen_be32(p, packet->config ? STATE_CONFIG : 0);
}

static int refuse(const char **why, const char *reason)
{
	*why = reason;
	return -EPROTO;
}

/* What is inside of the packet's size. */
static int read_inside(struct cursor *c, uint32_t size, struct qvfio_packet *packet,
		       const char **why)
{
	uint32_t version = cursor_be32(c), flags;

	packet->index = cursor_be32(c);
	flags = cursor_be32(c);
	if (version != STATE_VERSION)
		return refuse(why, "unknown version of device state");
	if (packet->index == UINT32_MAX)
		return refuse(why, "index of a packet is out of range");
	if (flags & ~STATE_CONFIG)
		return refuse(why, "unknown flags of device state");
	packet->config = flags & STATE_CONFIG;
	packet->length = size - STATE_HEAD;
	return QVFIO_PACKET_HEAD;
}

/**
 * qvfio_packet - the head of a packet with device state
 * @buf, @len: bytes from the packet's beginning on
 * @limit: bytes of data, above which it is refused
 *
 * A packet with pages has the same magic and no 0x40 among its flags; it is refused, too: the
 * caller looks at the flags first where both can come.
 */
int qvfio_packet(const uint8_t *buf, size_t len, uint32_t limit, struct qvfio_packet *packet,
		 const char **why)
{
	struct cursor c = cursor_init(buf, len);
	uint32_t magic = cursor_be32(&c), version = cursor_be32(&c), flags = cursor_be32(&c), size;
	const uint8_t *name = cursor_bytes(&c, NAME_FIELD);

	packet->instance = cursor_be32(&c);
	size = cursor_be32(&c);
	if (len < QVFIO_PACKET_HEAD)
		return 0;
	if (magic != PACKET_MAGIC || version != PACKET_VERSION)
		return refuse(why, "not a multifd packet");
	if (!(flags & PACKET_DEVICE_STATE))
		return refuse(why, "multifd packet without device state");
	if (!memchr(name, '\0', NAME_FIELD) || name[0] == '\0')
		return refuse(why, "malformed name");
	if (size < STATE_HEAD)
		return refuse(why, "short packet");
	if (size - STATE_HEAD > limit)
		return refuse(why, "packet is longer than allowed");
	memcpy(packet->name, name, NAME_FIELD);
	return read_inside(&c, size, packet, why);
}

/**
 * qvfio_order_init - nothing has come
 */
void qvfio_order_init(struct qvfio_order *o, uint64_t room)
{
	*o = (struct qvfio_order){ .room = room };
}

static bool is_held(const struct qvfio_order *o, uint32_t index)
{
	unsigned at = index % QVFIO_AHEAD;

	return o->present[at / 64] & UINT64_C(1) << at % 64;
}

static void flip(struct qvfio_order *o, uint32_t index)
{
	unsigned at = index % QVFIO_AHEAD;

	o->present[at / 64] ^= UINT64_C(1) << at % 64;
}

static const char *order_fault(const struct qvfio_order *o, const struct qvfio_packet *packet)
{
	if (packet->index < o->next || (packet->index - o->next < QVFIO_AHEAD &&
					is_held(o, packet->index)))
		return "packet came twice";
	if (packet->index - o->next >= QVFIO_AHEAD)
		return "packet is too far ahead";
	if (o->has_config && (packet->config || packet->index > o->config))
		return "packet behind the configuration";
	if (packet->config && o->seen && o->last > packet->index)
		return "packet behind the configuration";
	if (packet->length > o->room - o->held)
		return "more packets ahead than are held";
	return NULL;
}

/**
 * qvfio_order_add - a packet is there, whole
 *
 * Return: 0; -EPROTO for one that came before, is behind the configuration, or would have the
 * caller hold more than it wanted to.
 */
int qvfio_order_add(struct qvfio_order *o, const struct qvfio_packet *packet)
{
	if (!o->reason)
		o->reason = order_fault(o, packet);
	if (o->reason)
		return -EPROTO;
	flip(o, packet->index);
	o->length[packet->index % QVFIO_AHEAD] = packet->length;
	o->held += packet->length;
	if (!o->seen || packet->index > o->last)
		o->last = packet->index;
	o->seen = true;
	if (packet->config)
		o->config = packet->index;
	o->has_config |= packet->config;
	return 0;
}

/**
 * qvfio_order_take - the next packet, once it is there
 */
bool qvfio_order_take(struct qvfio_order *o, uint32_t *index)
{
	if (o->reason || !is_held(o, o->next))
		return false;
	flip(o, o->next);
	o->held -= o->length[o->next % QVFIO_AHEAD];
	*index = o->next++;
	return true;
}

/**
 * qvfio_order_whole - has all of the device been taken?
 */
bool qvfio_order_whole(const struct qvfio_order *o)
{
	return !o->reason && o->has_config && o->next > o->config;
}
