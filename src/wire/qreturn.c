/* SPDX-License-Identifier: LGPL-2.1-or-later */
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

void qreturn_writer_init(struct qreturn_writer *w)
{
	w->last_block = -1;
}

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

size_t qreturn_pong(uint8_t *out, uint32_t value)
{
	return message_be32(out, QRETURN_PONG, value);
}

size_t qreturn_shut(uint8_t *out, uint32_t error)
{
	return message_be32(out, QRETURN_SHUT, error);
}

size_t qreturn_resume_ack(uint8_t *out)
{
	return message_be32(out, QRETURN_RESUME_ACK, 1);
}

size_t qreturn_switchover_ack(uint8_t *out)
{
	struct pen p = message(out, QRETURN_SWITCHOVER_ACK, 0);

	return finish(&p);
}

size_t qreturn_bitmap_head(uint8_t *out, const char *name, uint64_t size)
{
	struct pen p = message(out, QRETURN_RECV_BITMAP, 1 + strlen(name));

	pen_cstr(&p, name);
	pen_be64(&p, size);
	return finish(&p);
}

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

void qreturn_took(struct qreturn_reader *r, uint64_t n)
{
	assert(n <= r->body_left);
	r->body_left -= n;
	r->position += n;
}
