/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading and writing without a check at each field.  Both ends keep a `bad` that never clears, so
 * a codec handles its fields in a row and looks once at the end; what it did with the zeroes
 * meanwhile must be harmless (no index, no length taken on trust).  Nothing is read past the end
 * and nothing is written in part.
 */
#include "config.h"

#include "wire/cursor.h"

#include <string.h>

/**
 * cursor_init - read @len bytes at @buf, which stay the caller's
 * @buf: may be NULL when @len is 0
 */
struct cursor cursor_init(const void *buf, size_t len)
{
	const uint8_t *bytes = buf;

	return (struct cursor){.at = bytes, .end = len ? bytes + len : bytes};
}

/**
 * cursor_left - bytes not read yet; 0 when bad, as nothing can be read any more
 */
size_t cursor_left(const struct cursor *c)
{
	return c->bad ? 0 : (size_t)(c->end - c->at);
}

/**
 * cursor_bytes - the next @len bytes where they lie
 *
 * Return: a pointer into the caller's buffer; NULL, and the cursor bad, when there are fewer.
 */
const uint8_t *cursor_bytes(struct cursor *c, size_t len)
{
	const uint8_t *bytes = c->at;

	if (c->bad || len > (size_t)(c->end - c->at)) {
		c->bad = true;
		return NULL;
	}
	c->at += len;
	return bytes;
}

/* The next @len <= 8 bytes as one number. */
static uint64_t take(struct cursor *c, unsigned len)
{
	const uint8_t *bytes = cursor_bytes(c, len);
	uint64_t v = 0;

	for (unsigned i = 0; bytes && i < len; i++)
		v = v << 8 | bytes[i];
	return v;
}

/**
 * cursor_u8 - the next byte; 0 when bad, like its wider sisters
 */
uint8_t cursor_u8(struct cursor *c)
{
	return (uint8_t)take(c, 1);
}

uint16_t cursor_be16(struct cursor *c)
{
	return (uint16_t)take(c, 2);
}

uint32_t cursor_be32(struct cursor *c)
{
	return (uint32_t)take(c, 4);
}

uint64_t cursor_be64(struct cursor *c)
{
	return take(c, 8);
}

/**
 * cursor_cstr - a counted string (u8 length, bytes), as QEMU writes names
 * @out: a copy with a NUL behind it; "" when bad
 *
 * A NUL among the bytes makes the cursor bad: behind it two names that differ on the wire would be
 * equal here.
 */
void cursor_cstr(struct cursor *c, char out[256])
{
	size_t len = cursor_u8(c);
	const uint8_t *bytes = cursor_bytes(c, len);

	out[0] = '\0';
	if (!bytes)
		return;
	if (len && memchr(bytes, '\0', len)) {
		c->bad = true;
		return;
	}
	if (len)
		memcpy(out, bytes, len);
	out[len] = '\0';
}

/**
 * pen_init - write into the @len bytes at @buf, which stay the caller's
 */
struct pen pen_init(void *buf, size_t len)
{
	uint8_t *bytes = buf;

	return (struct pen){.start = bytes, .at = bytes, .end = len ? bytes + len : bytes};
}

/**
 * pen_used - bytes written; without meaning when bad
 */
size_t pen_used(const struct pen *p)
{
	return (size_t)(p->at - p->start);
}

/**
 * pen_bytes - append @len bytes, whole or not at all
 *
 * What does not fit leaves the pen where it was, and bad for ever.
 */
void pen_bytes(struct pen *p, const void *bytes, size_t len)
{
	if (p->bad || len > (size_t)(p->end - p->at)) {
		p->bad = true;
		return;
	}
	if (len)
		memcpy(p->at, bytes, len);
	p->at += len;
}

static void put(struct pen *p, uint64_t v, unsigned len)
{
	uint8_t bytes[8];

	for (unsigned i = 0; i < len; i++)
		bytes[i] = (uint8_t)(v >> (8 * (len - 1 - i)));
	pen_bytes(p, bytes, len);
}

void pen_u8(struct pen *p, uint8_t v)
{
	put(p, v, 1);
}

void pen_be16(struct pen *p, uint16_t v)
{
	put(p, v, 2);
}

void pen_be32(struct pen *p, uint32_t v)
{
	put(p, v, 4);
}

void pen_be64(struct pen *p, uint64_t v)
{
	put(p, v, 8);
}

/**
 * pen_cstr - append a counted string
 *
 * More than 255 bytes have no encoding: bad.
 */
void pen_cstr(struct pen *p, const char *text)
{
	size_t len = strlen(text);

	if (len > UINT8_MAX) {
		p->bad = true;
		return;
	}
	pen_u8(p, (uint8_t)len);
	pen_bytes(p, text, len);
}
