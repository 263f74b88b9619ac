/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The reader of QEMU's VFIO sections.
 *
 * A section holds tags, be64 each, of which only DATA brings its length: an iteration with nothing
 * in it must still say so, or its end would be taken for the length of what follows.  What a tag is
 * followed by depends on where it stands, so the grammar is one table of which tag may stand in
 * which section, and what is done with it:
 *
 *   START  SETUP END
 *   PART   [DATA length bytes] (END | INIT_SENT)
 *   LAST   { DATA length bytes } END
 *   FULL   CONFIG bytes END | END | LOAD_READY
 *
 * The configuration is a vmstate and has no length at all.  How long it is follows from the device,
 * which the destination has, too: the shape.  A subsection behind it (a display) has no length
 * either, and nobody here knows one: it is refused.
 *
 * With multifd, what LAST and FULL would hold comes in packets (qvfio_packet.c), and the sections
 * are empty.
 */
#include "config.h"

#include "wire/qvfio.h"

#include <errno.h>
#include <string.h>

#include "core/guard.h"
#include "wire/qvfio_parts.h"

/* How far the device has come. */
enum stage { STAGE_NEW, STAGE_ITERATES, STAGE_SAVED, STAGE_WHOLE };

/* What the next byte is. */
enum state {
	AT_SECTION,
	AT_TAG,
	AT_SETUP_END, /* the tag that must stand behind SETUP */
	AT_BYTES,
	AT_CONFIG_END, /* the tag behind the configuration */
	AT_FOOTER,
};

/* Read, but nothing that anybody must be told of. */
#define PROGRESS 1000

static int fail(struct qvfio_reader *r, const char *reason)
{
	r->reason = reason;
	return -EPROTO;
}

/**
 * qvfio_config_length - bytes of a device's configuration
 *
 * The version, the configuration space, four interrupt lines, and for MSI-X its table and which of
 * its vectors are pending.
 */
uint64_t qvfio_config_length(const struct qvfio_shape *shape)
{
	uint64_t msix = shape->vectors ? 16ull * shape->vectors + (shape->vectors + 7ull) / 8 : 0;

	return 4 + (uint64_t)shape->config_space + 16 + msix;
}

/**
 * qvfio_reader_init - nothing of the device has come
 */
void qvfio_reader_init(struct qvfio_reader *r, const struct qvfio_rules *rules)
{
	*r = (struct qvfio_reader){ .rules = *rules, .stage = STAGE_NEW, .state = AT_SECTION };
}

/* Sections in their order; what a device is at when one of them may begin, and is then. */
static const struct {
	unsigned from; /* bits of enum stage */
	enum stage to;
	enum qvfio_what ended;
} sections[] = {
	[QVFIO_START] = { 1 << STAGE_NEW, STAGE_ITERATES, QVFIO_SETUP },
	[QVFIO_PART] = { 1 << STAGE_ITERATES, STAGE_ITERATES, QVFIO_ROUND },
	[QVFIO_LAST] = { 1 << STAGE_ITERATES, STAGE_SAVED, QVFIO_SAVED },
	[QVFIO_FULL] = { 1 << STAGE_SAVED, STAGE_WHOLE, QVFIO_CONFIGURED },
};

static bool is_vfio(const char *name)
{
	static const char tail[] = "/vfio";
	size_t len = strlen(name);

	return len >= sizeof(tail) && strcmp(name + len - (sizeof(tail) - 1), tail) == 0;
}

/* START says who it is; FULL must say the same. */
static const char *name_fault(struct qvfio_reader *r, const char *name, uint32_t instance,
			      uint32_t version)
{
	if (!is_vfio(name))
		return "section is no VFIO device's";
	if (version != QVFIO_VERSION)
		return "unknown version of a VFIO section";
	if (r->section == QVFIO_FULL)
		return strcmp(name, r->name) == 0 && instance == r->instance
			       ? NULL
			       : "section is another device's";
	memcpy(r->name, name, strlen(name) + 1);
	r->instance = instance;
	return NULL;
}

static int read_section(struct qvfio_reader *r, struct cursor *c)
{
	uint8_t type = cursor_u8(c);
	uint32_t id = cursor_be32(c), instance = 0, version = 0;
	bool named = type == QVFIO_START || type == QVFIO_FULL;
	char name[256] = "";
	struct cursor peek;

	if (c->bad)
		return 0;
	if (type < QVFIO_START || type > QVFIO_FULL)
		return fail(r, "not a section");
	if (!(sections[type].from & 1u << r->stage))
		return fail(r, "section out of order");
	if (type != QVFIO_START && id != r->id)
		return fail(r, "section of another id");
	peek = *c;
	if (named && cursor_left(&peek) < 1u + cursor_u8(&peek) + 8)
		return 0;
	r->section = type;
	r->id = id;
	r->had_data = false;
	r->state = AT_TAG;
	if (!named)
		return PROGRESS;
	cursor_cstr(c, name);
	instance = cursor_be32(c);
	version = cursor_be32(c);
	r->reason = c->bad ? "malformed name" : name_fault(r, name, instance, version);
	return r->reason ? -EPROTO : PROGRESS;
}

static int tag_end(struct qvfio_reader *r, struct cursor *c, struct qvfio_event *e)
{
	(void)c;
	(void)e;
	if (r->section == QVFIO_FULL && !r->rules.multifd)
		return fail(r, "section without a configuration");
	r->state = AT_FOOTER;
	return PROGRESS;
}

static int tag_setup(struct qvfio_reader *r, struct cursor *c, struct qvfio_event *e)
{
	(void)c;
	(void)e;
	r->state = AT_SETUP_END;
	return PROGRESS;
}

static int tag_data(struct qvfio_reader *r, struct cursor *c, struct qvfio_event *e)
{
	uint64_t length = cursor_be64(c);

	if (c->bad)
		return 0;
	if (r->section == QVFIO_PART && r->had_data)
		return fail(r, "second segment in an iteration");
	if (r->section == QVFIO_LAST && r->rules.multifd)
		return fail(r, "segment on the main channel, beside multifd");
	if (length > r->rules.segment)
		return fail(r, "segment is longer than allowed");
	if (length > r->rules.total - r->bytes)
		return fail(r, "device state is longer than allowed");
	r->had_data = true;
	r->bytes += length;
	r->left = length;
	r->state = AT_BYTES;
	e->length = length;
	return QVFIO_SEGMENT;
}

static int tag_config(struct qvfio_reader *r, struct cursor *c, struct qvfio_event *e)
{
	(void)c;
	if (r->rules.multifd)
		return fail(r, "configuration on the main channel, beside multifd");
	r->left = qvfio_config_length(&r->rules.shape);
	r->state = AT_BYTES;
	e->length = r->left;
	return QVFIO_CONFIG;
}

static int tag_init_sent(struct qvfio_reader *r, struct cursor *c, struct qvfio_event *e)
{
	(void)c;
	(void)e;
	if (!r->rules.switchover_ack)
		return fail(r, "initial data told of without switchover-ack");
	if (r->init_sent)
		return fail(r, "initial data told of twice");
	r->init_sent = true;
	r->state = AT_FOOTER;
	return QVFIO_INIT_SENT;
}

static int tag_load_ready(struct qvfio_reader *r, struct cursor *c, struct qvfio_event *e)
{
	(void)c;
	(void)e;
	if (!r->rules.multifd)
		return fail(r, "configuration told of that came on no multifd channel");
	r->state = AT_FOOTER;
	return QVFIO_LOAD_READY;
}

#define IN(section) (1u << (section))

/* As qvfio_next(), or PROGRESS. */
static const struct {
	unsigned where; /* bits of enum qvfio_section */
	int (*read)(struct qvfio_reader *r, struct cursor *c, struct qvfio_event *e);
} tags[] = {
	[TAG_NUMBER_END] = { IN(QVFIO_PART) | IN(QVFIO_LAST) | IN(QVFIO_FULL), tag_end },
	[TAG_NUMBER_CONFIG] = { IN(QVFIO_FULL), tag_config },
	[TAG_NUMBER_SETUP] = { IN(QVFIO_START), tag_setup },
	[TAG_NUMBER_DATA] = { IN(QVFIO_PART) | IN(QVFIO_LAST), tag_data },
	[TAG_NUMBER_INIT_SENT] = { IN(QVFIO_PART), tag_init_sent },
	[TAG_NUMBER_LOAD_READY] = { IN(QVFIO_FULL), tag_load_ready },
};

static int read_tag(struct qvfio_reader *r, struct cursor *c, struct qvfio_event *e)
{
	uint64_t tag = cursor_be64(c), number = tag ^ TAG_FIRST;

	if (c->bad)
		return 0;
	if (number >= ARRAY_LEN(tags) || !tags[number].read)
		return fail(r, "unknown tag");
	if (!(tags[number].where & IN(r->section)))
		return fail(r, "tag in the wrong section");
	return tags[number].read(r, c, e);
}

/* Behind SETUP and behind the configuration stands END and nothing else. */
static int read_end(struct qvfio_reader *r, struct cursor *c)
{
	struct cursor peek = *c;

	if (r->state == AT_CONFIG_END && cursor_u8(&peek) == QVFIO_SUBSECTION)
		return fail(r, "configuration has a subsection");
	if (cursor_be64(c) != TAG_END && !c->bad)
		return fail(r, "no end where one must be");
	if (c->bad)
		return 0;
	r->state = AT_FOOTER;
	return PROGRESS;
}

static int read_footer(struct qvfio_reader *r, struct cursor *c)
{
	uint8_t mark = cursor_u8(c);
	uint32_t id = cursor_be32(c);

	if (c->bad)
		return 0;
	if (mark != QVFIO_FOOTER || id != r->id)
		return fail(r, "section without its footer");
	r->stage = sections[r->section].to;
	r->state = AT_SECTION;
	return sections[r->section].ended;
}

static int read_bytes(struct qvfio_reader *r, struct cursor *c, struct qvfio_event *e)
{
	size_t have = cursor_left(c);

	if (have == 0)
		return 0;
	e->len = have < r->left ? have : (size_t)r->left;
	e->at = cursor_bytes(c, e->len);
	r->left -= e->len;
	return QVFIO_DATA;
}

/* The state that follows when all bytes of a segment or a configuration were read. */
static void leave_bytes(struct qvfio_reader *r)
{
	if (r->state == AT_BYTES && r->left == 0)
		r->state = r->section == QVFIO_FULL ? AT_CONFIG_END : AT_TAG;
}

static int read_state(struct qvfio_reader *r, struct cursor *c, struct qvfio_event *e)
{
	switch ((enum state)r->state) {
	case AT_SECTION:
		return read_section(r, c);
	case AT_TAG:
		return read_tag(r, c, e);
	case AT_SETUP_END:
	case AT_CONFIG_END:
		return read_end(r, c);
	case AT_BYTES:
		return read_bytes(r, c, e);
	case AT_FOOTER:
		return read_footer(r, c);
	}
	return fail(r, "no such state");
}

/**
 * qvfio_next - what comes next in a window
 * @buf, @len: bytes from r->position on; the caller drops e->used of them and calls again
 * @e: filled for an event; e->used may be more than 0 without one
 *
 * Return: the enum qvfio_what; QVFIO_NEED_MORE, which does not happen when QVFIO_WINDOW bytes are
 * left behind e->used; -EPROTO with r->reason (static text), now and ever after.
 */
int qvfio_next(struct qvfio_reader *r, const uint8_t *buf, size_t len, struct qvfio_event *e)
{
	struct cursor c = cursor_init(buf, len);
	int what;

	*e = (struct qvfio_event){ .used = 0 };
	if (r->reason)
		return -EPROTO;
	do {
		struct cursor at = c;

		leave_bytes(r);
		what = read_state(r, &at, e);
		if (what <= 0)
			break;
		c = at;
	} while (what == PROGRESS);
	e->used = len - (size_t)(c.end - c.at);
	r->position += e->used;
	return what;
}
