/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The writer of device state.  It takes no copy of a body: the caller sends the bytes and tells of
 * them, and what is written here is what stands around them.  Running out of room shows in p->bad.
 */
#include "config.h"

#include "wire/devstate.h"

#include <assert.h>
#include <string.h>

#include "wire/devstate_parts.h"

/**
 * devstate_put_greeting - the first bytes on a channel that carries device state only
 */
void devstate_put_greeting(struct pen *p, const uint8_t session[DEVSTATE_SESSION])
{
	uint8_t out[DEVSTATE_GREETING];
	struct pen g = pen_init(out, sizeof(out));

	pen_be64(&g, DEVSTATE_HELLO);
	pen_be32(&g, DEVSTATE_VERSION);
	pen_be32(&g, DEVSTATE_GREETING);
	pen_bytes(&g, session, DEVSTATE_SESSION);
	pen_be64(&g, digest_of(out, pen_used(&g), 0));
	pen_bytes(p, out, sizeof(out));
}

/* A record's head; the digest of what follows is seeded with its own, so neither goes elsewhere. */
static void put_record(struct devstate_writer *w, struct pen *p, enum devstate_type type,
		       uint64_t length)
{
	uint8_t out[DEVSTATE_RECORD_HEAD];
	struct pen h = pen_init(out, sizeof(out));
	uint64_t digest;

	assert(w->left == 0); /* the body before was told of to its end */
	pen_be32(&h, DEVSTATE_MAGIC);
	pen_u8(&h, DEVSTATE_VERSION);
	pen_u8(&h, (uint8_t)type);
	pen_be16(&h, (uint16_t)w->slot);
	pen_be32(&h, w->sequence);
	pen_be32(&h, w->number++);
	pen_be64(&h, length);
	digest = digest_of(out, DEVSTATE_HEAD_DIGEST, 0);
	pen_be64(&h, digest);
	pen_bytes(p, out, sizeof(out));
	digest_init(&w->body, digest);
	w->left = length;
}

/* A record that is written in one piece. */
static void put_whole(struct devstate_writer *w, struct pen *p, enum devstate_type type,
		      const struct pen *body)
{
	put_record(w, p, type, pen_used(body));
	pen_bytes(p, body->start, pen_used(body));
	devstate_fed(w, body->start, pen_used(body));
	devstate_put_tail(w, p);
}

/**
 * devstate_put_head - who is saved, and which attempt it is
 * @w: made by this; a later attempt at the same device goes on with it
 */
void devstate_put_head(struct devstate_writer *w, struct pen *p, const struct devstate_id *id,
		       uint32_t sequence)
{
	uint8_t out[DEVSTATE_SESSION + 4 + 2 * DEVSTATE_NAME];
	struct pen body = pen_init(out, sizeof(out));

	assert(sequence > 0 && id->slot < DEVSTATE_SLOTS);
	assert(id->device[0] && strlen(id->device) < DEVSTATE_NAME);
	assert(strlen(id->compat) < DEVSTATE_NAME);
	*w = (struct devstate_writer){ .slot = id->slot, .sequence = sequence };
	pen_bytes(&body, id->session, DEVSTATE_SESSION);
	pen_u8(&body, (uint8_t)id->kind);
	pen_u8(&body, 0);
	pen_cstr(&body, id->device);
	pen_cstr(&body, id->compat);
	put_whole(w, p, TYPE_HEAD, &body);
}

/**
 * devstate_put_segment - the head of a segment
 * @length: bytes; 0 is legal.  For DEVSTATE_REGION, what the device exposed at once.
 */
void devstate_put_segment(struct devstate_writer *w, struct pen *p, uint64_t length)
{
	put_record(w, p, TYPE_SEGMENT, length);
	w->segments++;
	w->bytes += length;
}

/**
 * devstate_put_config - the head of the configuration, which is not what the device itself saved
 * @length: bytes, DEVSTATE_CONFIG_MAX at most
 */
void devstate_put_config(struct devstate_writer *w, struct pen *p, uint64_t length)
{
	assert(length <= DEVSTATE_CONFIG_MAX);
	put_record(w, p, TYPE_CONFIG, length);
}

/**
 * devstate_fed - these bytes of the body were sent
 */
void devstate_fed(struct devstate_writer *w, const void *bytes, size_t len)
{
	assert(len <= w->left);
	digest_feed(&w->body, bytes, len);
	w->left -= len;
}

/**
 * devstate_put_tail - the digest behind a body of which all was sent
 */
void devstate_put_tail(struct devstate_writer *w, struct pen *p)
{
	assert(w->left == 0);
	pen_be64(p, digest_value(&w->body));
}

/**
 * devstate_put_round - an iteration ends; there may have been nothing in it
 */
void devstate_put_round(struct devstate_writer *w, struct pen *p)
{
	struct pen nothing = pen_init(NULL, 0);

	put_whole(w, p, TYPE_ROUND, &nothing);
}

/**
 * devstate_put_end - all of the device was sent
 */
void devstate_put_end(struct devstate_writer *w, struct pen *p)
{
	uint8_t out[16];
	struct pen body = pen_init(out, sizeof(out));

	pen_be64(&body, w->segments);
	pen_be64(&body, w->bytes);
	put_whole(w, p, TYPE_END, &body);
}
