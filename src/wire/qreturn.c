/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The return path of QEMU's migration: be16 type, be16 payload length, payload, on the main
 * connection from the destination to the source.
 *
 * What stands here is as strict as the strictest source.  A source from 10.0 on that finds one
 * malformed message (an unknown block, a range that is no whole pages, a short request before any
 * with a name, an unknown type) stops reading, and in the end declares the migration failed and
 * resumes its VM, whatever has run here since; 7.2 pauses.  So the writer has no way to write one:
 * fixed shapes, and the name is left out only when the connection has seen it.  The numbering has a
 * trap: the request with a name is 3, the short one 4.
 *
 * The reader is table-driven by type.  RECV_BITMAP is the odd one: what follows it (be64 size,
 * bitmap, end mark) is outside of its payload length, so the reader takes the size with the message
 * and leaves the rest to the caller.
 *
 * Return paths recorded from 7.2 and 10.0 are read and written again, byte for byte, in
 * tests/unit/test_qreturn.c.
 */
#include "config.h"

#include "wire/qreturn.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/guard.h"
#include "wire/cursor.h"

static struct pen message(uint8_t *out, enum qreturn_type type, size_t payload)
{
	struct pen p = pen_init(out, QRETURN_MESSAGE_MAX);

	pen_be16(&p, (uint16_t)type);
	pen_be16(&p, (uint16_t)payload);
	return p;
}

static size_t finish(const struct pen *p)
{
	assert(!p->bad); /* the caller's name was longer than a block's can be */
	return pen_used(p);
}

/**
 * qreturn_writer_init - begin a connection: no block was named yet
 */
void qreturn_writer_init(struct qreturn_writer *w)
{
	w->last_block = -1;
}

/**
 * qreturn_request - ask for pages of a block
 * @out: QRETURN_MESSAGE_MAX bytes
 * @block: any number that names the block as long as the connection lasts
 * @name: its idstr, at most 255 bytes
 * @start, @len: bytes, multiples of the block's page size at the source, inside the block
 *
 * A source with a preempt channel ends in an assertion when @len is not whole huge pages; a request
 * for what it has sent already gets no answer.
 *
 * Return: the length of the message.
 */
size_t qreturn_request(struct qreturn_writer *w, uint8_t *out, int block, const char *name,
		       uint64_t start, uint32_t len)
{
	bool named = block != w->last_block;
	struct pen p = named ? message(out, QRETURN_REQ_PAGES_ID, 8 + 4 + 1 + strlen(name))
			     : message(out, QRETURN_REQ_PAGES, 8 + 4);

	pen_be64(&p, start);
	pen_be32(&p, len);
	if (named)
		pen_cstr(&p, name);
	w->last_block = block;
	return finish(&p);
}

static size_t message_be32(uint8_t *out, enum qreturn_type type, uint32_t value)
{
	struct pen p = message(out, type, 4);

	pen_be32(&p, value);
	return finish(&p);
}

/**
 * qreturn_pong - answer a PING with its own value
 *
 * The one of value 0x42 is the commit: whoever sends it says that the VM is about to run here.
 */
size_t qreturn_pong(uint8_t *out, uint32_t value)
{
	return message_be32(out, QRETURN_PONG, value);
}

/**
 * qreturn_shut - the last message of all
 * @error: 0 when every page is here; anything else makes the source fail the migration
 *
 * Return: the length of the message.
 */
size_t qreturn_shut(uint8_t *out, uint32_t error)
{
	return message_be32(out, QRETURN_SHUT, error);
}

/**
 * qreturn_resume_ack - agree to go on after a recovery (be32 1, the only legal value)
 */
size_t qreturn_resume_ack(uint8_t *out)
{
	return message_be32(out, QRETURN_RESUME_ACK, 1);
}

/**
 * qreturn_switchover_ack - the source may switch over
 *
 * For sources with the switchover-ack capability, which is not on the wire.  7.2 takes type 7 for
 * an error, so this is sent only where the operator says so.
 */
size_t qreturn_switchover_ack(uint8_t *out)
{
	struct pen p = message(out, QRETURN_SWITCHOVER_ACK, 0);

	return finish(&p);
}

/**
 * qreturn_bitmap_head - RECV_BITMAP and the be64 @size
 * @out: QRETURN_MESSAGE_MAX bytes
 *
 * The caller sends @size bytes of bitmap (one bit a target page, 1 received, little-endian) and
 * QRETURN_BITMAP_END behind it.
 *
 * Return: the length of the head.
 */
size_t qreturn_bitmap_head(uint8_t *out, const char *name, uint64_t size)
{
	struct pen p = message(out, QRETURN_RECV_BITMAP, 1 + strlen(name));

	pen_cstr(&p, name);
	pen_be64(&p, size);
	return finish(&p);
}

/**
 * qreturn_reader_init - begin a connection
 */
void qreturn_reader_init(struct qreturn_reader *r)
{
	*r = (struct qreturn_reader){0};
}

static int fail(struct qreturn_reader *r, const char *reason)
{
	r->reason = reason;
	return -EPROTO;
}

static int read_value(struct qreturn_reader *r, struct cursor *c, struct qreturn_message *m)
{
	(void)r;
	m->value = cursor_be32(c);
	return 0;
}

static int read_range(struct qreturn_reader *r, struct cursor *c, struct qreturn_message *m)
{
	uint64_t end;

	m->start = cursor_be64(c);
	m->length = cursor_be32(c);
	if (m->length == 0)
		return fail(r, "request for no bytes");
	if (!add_u64(m->start, m->length, &end))
		return fail(r, "request past the end of the address space");
	return 0;
}

static int read_request(struct qreturn_reader *r, struct cursor *c, struct qreturn_message *m)
{
	if (r->last_name[0] == '\0')
		return fail(r, "request without a block name before any with one");
	memcpy(m->name, r->last_name, sizeof(m->name));
	return read_range(r, c, m);
}

/* The name is all that is left of the payload. */
static int read_name(struct qreturn_reader *r, struct cursor *c, struct qreturn_message *m)
{
	cursor_cstr(c, m->name);
	if (c->bad || cursor_left(c) != 0 || m->name[0] == '\0')
		return fail(r, "malformed block name");
	return 0;
}

static int read_request_id(struct qreturn_reader *r, struct cursor *c, struct qreturn_message *m)
{
	int err = read_range(r, c, m);

	if (!err)
		err = read_name(r, c, m);
	if (!err)
		memcpy(r->last_name, m->name, sizeof(r->last_name));
	return err;
}

static int read_resume_ack(struct qreturn_reader *r, struct cursor *c, struct qreturn_message *m)
{
	m->value = cursor_be32(c);
	return m->value == 1 ? 0 : fail(r, "resume acknowledged with a value other than 1");
}

static int read_nothing(struct qreturn_reader *r, struct cursor *c, struct qreturn_message *m)
{
	(void)r;
	(void)c;
	(void)m;
	return 0;
}

static const struct shape {
	uint16_t min, max; /* payload, bytes */
	int (*read)(struct qreturn_reader *r, struct cursor *c, struct qreturn_message *m);
} shapes[] = {
	[QRETURN_SHUT] = {4, 4, read_value},
	[QRETURN_PONG] = {4, 4, read_value},
	[QRETURN_REQ_PAGES_ID] = {14, 13 + 255, read_request_id},
	[QRETURN_REQ_PAGES] = {12, 12, read_request},
	[QRETURN_RECV_BITMAP] = {2, 1 + 255, read_name},
	[QRETURN_RESUME_ACK] = {4, 4, read_resume_ack},
	[QRETURN_SWITCHOVER_ACK] = {0, 0, read_nothing},
};

/* The be64 behind a RECV_BITMAP is outside of its payload, but read with it. */
static int read_bitmap_size(struct qreturn_reader *r, struct cursor *c, struct qreturn_message *m)
{
	m->bitmap_size = cursor_be64(c);
	if (m->bitmap_size == 0 || m->bitmap_size % 8 != 0)
		return fail(r, "bitmap size is not a multiple of 8");
	if (!add_u64(m->bitmap_size, 8, &r->body_left))
		return fail(r, "bitmap size past the end of the address space");
	return 0;
}

/* What can be said against a message before its payload is there, or NULL. */
static const char *head_fault(uint16_t type, uint16_t payload)
{
	if (type >= ARRAY_LEN(shapes) || !shapes[type].read)
		return "unknown message type";
	if (payload < shapes[type].min || payload > shapes[type].max)
		return "message has the wrong length for its type";
	return NULL;
}

static int read_message(struct qreturn_reader *r, uint16_t type, struct cursor payload,
			struct cursor *after, struct qreturn_message *m)
{
	int err = shapes[type].read(r, &payload, m);

	if (!err && type == QRETURN_RECV_BITMAP)
		err = read_bitmap_size(r, after, m);
	return err;
}

/**
 * qreturn_next - read the next message of a window
 * @buf, @len: bytes from r->position on; the caller drops m->used of them and calls again
 * @m: filled for a message; m->used is 0 otherwise
 *
 * Return: the enum qreturn_type of a whole message; QRETURN_NEED_MORE, with nothing consumed;
 * -EPROTO with r->reason (static text) and r->position at the offending message, now and ever
 * after.
 */
int qreturn_next(struct qreturn_reader *r, const uint8_t *buf, size_t len,
		 struct qreturn_message *m)
{
	struct cursor c = cursor_init(buf, len);
	uint16_t type = cursor_be16(&c);
	uint16_t payload = cursor_be16(&c);

	m->used = 0;
	if (r->reason)
		return -EPROTO;
	if (c.bad || r->body_left)
		return QRETURN_NEED_MORE;
	r->reason = head_fault(type, payload);
	if (r->reason)
		return -EPROTO;

	size_t used = 4u + payload + (type == QRETURN_RECV_BITMAP ? 8 : 0);
	const uint8_t *bytes = cursor_bytes(&c, payload);

	if (len < used)
		return QRETURN_NEED_MORE;
	if (read_message(r, type, cursor_init(bytes, payload), &c, m))
		return -EPROTO;
	m->type = type;
	m->used = used;
	r->position += used;
	return type;
}

/**
 * qreturn_took - the caller took @n bytes of what follows a RECV_BITMAP out of the window
 *
 * Those are m->bitmap_size bytes and the 8 of the end mark, which is the caller's to check.  Until
 * all are taken qreturn_next() wants more.
 */
void qreturn_took(struct qreturn_reader *r, uint64_t n)
{
	assert(n <= r->body_left);
	r->body_left -= n;
	r->position += n;
}
