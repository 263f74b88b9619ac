/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The reader of device state.
 *
 * What a device saves is opaque, loading half of it or another device's ruins the device, and who
 * sent it may be broken or hostile.  So each record says what it belongs to (device, attempt,
 * number), and nothing is taken from a record's head before the head's own digest was right: a
 * damaged length is found at once, not after the bytes it promises.  The digest behind a body is
 * seeded with that of its head, so a body is right behind its own head only.
 *
 * Segments stay what they were.  A migration region (VFIO v1) must be given back the pieces it gave
 * out, in their order; who loads a v2 stream may cut it as it likes.  A body is handed on as it
 * comes, because a segment may be larger than anybody wants to hold, so it is whole only with
 * DEVSTATE_WHOLE: a v1 loader commits a segment then, a v2 loader goes on after it.
 *
 * An attempt can be given up and begun anew (a device that failed, a source that went back to
 * running it): a HEAD with a larger sequence makes void what came before.  It stands between
 * records, as every other: a sender that cannot end a body closes the channel.
 *
 * The tables: what a type may hold, and who reads it.
 */
#include "config.h"

#include "wire/devstate.h"

#include <errno.h>
#include <string.h>

#include "core/guard.h"
#include "wire/devstate_parts.h"

/* What a record's head says. */
struct record {
	uint8_t version, type;
	uint16_t slot;
	uint32_t sequence, number;
	uint64_t length, digest;
};

static int fail(struct devstate_reader *r, const char *reason)
{
	r->reason = reason;
	return -EPROTO;
}

/**
 * devstate_greeting - whose session a channel belongs to
 * @buf, @len: what came on it so far
 *
 * Return: DEVSTATE_GREETING; 0 read more; -EPROTO or -EPROTONOSUPPORT with *why.
 */
int devstate_greeting(const uint8_t *buf, size_t len, uint8_t session[DEVSTATE_SESSION],
		      const char **why)
{
	struct cursor c = cursor_init(buf, len);
	uint64_t magic = cursor_be64(&c);
	uint32_t version = cursor_be32(&c), size = cursor_be32(&c);
	const uint8_t *uuid = cursor_bytes(&c, DEVSTATE_SESSION);
	uint64_t digest = cursor_be64(&c);

	if (len >= sizeof(magic) && magic != DEVSTATE_HELLO) {
		*why = "no channel for device state";
		return -EPROTO;
	}
	if (c.bad)
		return 0;
	if (digest != digest_of(buf, DEVSTATE_GREETING - sizeof(digest), 0)) {
		*why = "greeting is damaged";
		return -EPROTO;
	}
	if (version != DEVSTATE_VERSION || size != DEVSTATE_GREETING) {
		*why = "another version of the device state's format";
		return -EPROTONOSUPPORT;
	}
	memcpy(session, uuid, DEVSTATE_SESSION);
	return DEVSTATE_GREETING;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -EINVAL;
}

/**
 * devstate_session - 8-4-4-4-12 hexadecimal digits, of either case
 */
int devstate_session(const char *text, uint8_t session[DEVSTATE_SESSION])
{
	static const char form[] = "00000000-0000-0000-0000-000000000000";
	unsigned n = 0;

	if (strlen(text) != sizeof(form) - 1)
		return -EINVAL;
	for (unsigned i = 0; form[i]; i++) {
		int digit = hex_digit(text[i]);

		if (form[i] == '-' ? text[i] != '-' : digit < 0)
			return -EINVAL;
		if (form[i] == '-')
			continue;
		session[n / 2] = (uint8_t)(session[n / 2] << 4 | digit);
		n++;
	}
	return 0;
}

/**
 * devstate_reader_init - begin a stream
 * @session: records of any other are refused
 * @limits: what a sender can make somebody hold
 */
void devstate_reader_init(struct devstate_reader *r, const uint8_t session[DEVSTATE_SESSION],
			  const struct devstate_limits *limits)
{
	*r = (struct devstate_reader){ .limits = *limits };
	memcpy(r->session, session, DEVSTATE_SESSION);
}

static struct record get_record(struct cursor *c)
{
	struct record rec;
	uint32_t magic = cursor_be32(c);

	rec.version = cursor_u8(c);
	rec.type = cursor_u8(c);
	rec.slot = cursor_be16(c);
	rec.sequence = cursor_be32(c);
	rec.number = cursor_be32(c);
	rec.length = cursor_be64(c);
	rec.digest = cursor_be64(c);
	if (magic != DEVSTATE_MAGIC)
		rec.type = 0;
	return rec;
}

/* What a HEAD is followed by: the next record of what it began, or another HEAD. */
static const char *order_fault(const struct devstate_reader *r, const struct record *rec)
{
	const struct devstate_device *d = &r->devices[rec->slot];

	if (rec->type == TYPE_HEAD) {
		if (rec->number != 0 || rec->sequence == 0)
			return "head of a device is not its first record";
		return d->begun && rec->sequence <= d->sequence ? "attempt is not newer" : NULL;
	}
	if (!d->begun)
		return "record of a device that has no head";
	if (rec->sequence != d->sequence)
		return "record of another attempt";
	if (d->ended)
		return "record behind the end of its device";
	return rec->number == d->number ? NULL : "record is lost, doubled or out of order";
}

/* A name of @min characters at least, all of them printable. */
static bool get_name(struct cursor *c, char out[DEVSTATE_NAME], size_t min)
{
	char text[256];
	size_t len;

	cursor_cstr(c, text);
	len = strlen(text);
	if (c->bad || len < min || len >= DEVSTATE_NAME)
		return false;
	for (size_t i = 0; i < len; i++)
		if (text[i] < ' ' || text[i] > '~')
			return false;
	memcpy(out, text, len + 1);
	return true;
}

/* Every device has one slot, and every slot one device. */
static const char *name_fault(const struct devstate_reader *r, unsigned slot,
			      const struct devstate_device *d)
{
	for (unsigned i = 0; i < DEVSTATE_SLOTS; i++) {
		const struct devstate_device *other = &r->devices[i];

		if (!other->begun || (strcmp(other->device, d->device) == 0) == (i == slot))
			continue;
		return i == slot ? "slot has another device" : "device has another slot";
	}
	return NULL;
}

static int read_head(struct devstate_reader *r, const struct record *rec, struct cursor *c,
		     struct devstate_event *e)
{
	struct devstate_device d = { .begun = true, .sequence = rec->sequence, .number = 1 };
	const uint8_t *session = cursor_bytes(c, DEVSTATE_SESSION);
	uint8_t kind = cursor_u8(c), zero = cursor_u8(c);
	const char *fault;

	if (!get_name(c, d.device, 1) || !get_name(c, d.compat, 0) || cursor_left(c) != 0 || zero)
		return fail(r, "head of a device is malformed");
	if (memcmp(session, r->session, DEVSTATE_SESSION) != 0)
		return fail(r, "device of another session");
	if (kind != DEVSTATE_REGION && kind != DEVSTATE_STREAM)
		return fail(r, "unknown kind of device state");
	d.kind = kind;
	fault = name_fault(r, rec->slot, &d);
	if (fault)
		return fail(r, fault);
	e->again = r->devices[rec->slot].begun;
	if (e->again && r->devices[rec->slot].kind != d.kind)
		return fail(r, "device has become one of another kind");
	r->devices[rec->slot] = d;
	return DEVSTATE_BEGIN;
}

static int read_round(struct devstate_reader *r, const struct record *rec, struct cursor *c,
		      struct devstate_event *e)
{
	(void)c;
	(void)e;
	r->devices[rec->slot].number++;
	return DEVSTATE_ROUND;
}

static int read_end(struct devstate_reader *r, const struct record *rec, struct cursor *c,
		    struct devstate_event *e)
{
	struct devstate_device *d = &r->devices[rec->slot];
	uint64_t segments = cursor_be64(c), bytes = cursor_be64(c);

	(void)e;
	if (segments != d->segments || bytes != d->bytes)
		return fail(r, "end of a device does not count what came");
	d->ended = true;
	return DEVSTATE_END;
}

static int begin_body(struct devstate_reader *r, const struct record *rec,
		      struct devstate_event *e)
{
	r->in_body = true;
	r->slot = rec->slot;
	r->left = rec->length;
	digest_init(&r->body, rec->digest);
	r->devices[rec->slot].number++;
	e->length = rec->length;
	return rec->type == TYPE_CONFIG ? DEVSTATE_CONFIG : DEVSTATE_SEGMENT;
}

static int begin_segment(struct devstate_reader *r, const struct record *rec,
			 struct devstate_event *e)
{
	struct devstate_device *d = &r->devices[rec->slot];

	if (rec->length > r->limits.segment)
		return fail(r, "segment is longer than allowed");
	if (rec->length > r->limits.total - d->bytes)
		return fail(r, "device state is longer than allowed");
	d->segments++;
	d->bytes += rec->length;
	return begin_body(r, rec, e);
}

static int begin_config(struct devstate_reader *r, const struct record *rec,
			struct devstate_event *e)
{
	struct devstate_device *d = &r->devices[rec->slot];

	if (d->has_config)
		return fail(r, "second configuration of a device");
	d->has_config = true;
	return begin_body(r, rec, e);
}

/* Either of the two: read a record whose @max bytes are in the window, or begin a body. */
static const struct shape {
	uint64_t min, max;
	int (*read)(struct devstate_reader *r, const struct record *rec, struct cursor *c,
		    struct devstate_event *e);
	int (*begin)(struct devstate_reader *r, const struct record *rec,
		     struct devstate_event *e);
} shapes[] = {
	[TYPE_HEAD] = { DEVSTATE_SESSION + 5, DEVSTATE_SESSION + 2 + 2 * DEVSTATE_NAME,
			.read = read_head },
	[TYPE_SEGMENT] = { 0, UINT64_MAX, .begin = begin_segment },
	[TYPE_CONFIG] = { 0, DEVSTATE_CONFIG_MAX, .begin = begin_config },
	[TYPE_ROUND] = { 0, 0, .read = read_round },
	[TYPE_END] = { 16, 16, .read = read_end },
};

_Static_assert(DEVSTATE_RECORD_HEAD + DEVSTATE_SESSION + 2 + 2 * DEVSTATE_NAME +
	       DEVSTATE_RECORD_TAIL <= DEVSTATE_WINDOW, "a window holds every record but bodies");

/* What can be said against a record by its head, or NULL. */
static const char *head_fault(const struct devstate_reader *r, const struct record *rec,
			      const uint8_t *bytes)
{
	if (rec->digest != digest_of(bytes, DEVSTATE_HEAD_DIGEST, 0))
		return "head of a record is damaged";
	if (rec->version != DEVSTATE_VERSION)
		return "another version of the device state's format";
	if (rec->type >= ARRAY_LEN(shapes) || (!shapes[rec->type].read && !shapes[rec->type].begin))
		return "unknown record";
	if (rec->slot >= DEVSTATE_SLOTS)
		return "more devices than there are slots";
	if (rec->length < shapes[rec->type].min || rec->length > shapes[rec->type].max)
		return "record has the wrong length for its type";
	return order_fault(r, rec);
}

/* The window holds a record's head and all behind it. */
static int read_whole(struct devstate_reader *r, const struct record *rec, struct cursor *c,
		      struct devstate_event *e)
{
	const uint8_t *bytes = cursor_bytes(c, rec->length);
	uint64_t digest = cursor_be64(c);
	struct cursor body;

	if (c->bad)
		return DEVSTATE_NEED_MORE;
	if (digest != digest_of(bytes, rec->length, rec->digest))
		return fail(r, "record is damaged");
	body = cursor_init(bytes, rec->length);
	e->used = DEVSTATE_RECORD_HEAD + rec->length + DEVSTATE_RECORD_TAIL;
	return shapes[rec->type].read(r, rec, &body, e);
}

static int next_record(struct devstate_reader *r, const uint8_t *buf, size_t len,
		       struct devstate_event *e)
{
	struct cursor c = cursor_init(buf, len);
	struct record rec = get_record(&c);

	if (c.bad)
		return DEVSTATE_NEED_MORE;
	r->reason = head_fault(r, &rec, buf);
	if (r->reason)
		return -EPROTO;
	e->slot = rec.slot;
	if (shapes[rec.type].read)
		return read_whole(r, &rec, &c, e);
	e->used = DEVSTATE_RECORD_HEAD;
	return shapes[rec.type].begin(r, &rec, e);
}

/* Inside a body: its next bytes, or the digest behind it. */
static int next_data(struct devstate_reader *r, const uint8_t *buf, size_t len,
		     struct devstate_event *e)
{
	struct cursor c = cursor_init(buf, len);

	e->slot = r->slot;
	if (r->left && len) {
		e->at = buf;
		e->len = len < r->left ? len : (size_t)r->left;
		e->used = e->len;
		digest_feed(&r->body, e->at, e->len);
		r->left -= e->len;
		return DEVSTATE_DATA;
	}
	if (len < DEVSTATE_RECORD_TAIL)
		return DEVSTATE_NEED_MORE;
	if (cursor_be64(&c) != digest_value(&r->body))
		return fail(r, "body is damaged");
	r->in_body = false;
	e->used = DEVSTATE_RECORD_TAIL;
	return DEVSTATE_WHOLE;
}

/**
 * devstate_next - what comes next in a window
 * @buf, @len: bytes from r->position on; the caller drops e->used of them and calls again
 * @e: filled for an event; e->used is 0 otherwise
 *
 * Return: the enum devstate_what; DEVSTATE_NEED_MORE, with nothing consumed, which does not happen
 * when the window holds DEVSTATE_WINDOW bytes; -EPROTO with r->reason (static text) and r->position
 * at what is offending, now and ever after.
 */
int devstate_next(struct devstate_reader *r, const uint8_t *buf, size_t len,
		  struct devstate_event *e)
{
	int what;

	*e = (struct devstate_event){ .used = 0 };
	if (r->reason)
		return -EPROTO;
	what = r->in_body ? next_data(r, buf, len, e) : next_record(r, buf, len, e);
	if (what <= 0)
		e->used = 0;
	r->position += e->used;
	return what;
}

/**
 * devstate_finish - no more bytes will come
 *
 * The caller has none left over.  No device at all is fine.
 */
int devstate_finish(struct devstate_reader *r)
{
	if (r->reason)
		return -EPROTO;
	if (r->in_body)
		return fail(r, "device state ends inside a segment");
	for (unsigned i = 0; i < DEVSTATE_SLOTS; i++)
		if (r->devices[i].begun && !r->devices[i].ended)
			return fail(r, "device state ends before its device");
	return 0;
}
