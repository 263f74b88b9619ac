/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vfio-user messages: every command with its bytes as the specification draws them, then each way
 * in which a message can be wrong.  (F29, F39, S3-44, S4-25)
 */
#include "config.h"

#include "wire/vfiomsg.h"

#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"

#define BODY_MAX 128

static const struct vfiomsg_terms terms = { .max_data = 0x10000, .max_fds = 8 };

/* A message of number 0x0102; everything behind the head is `body`, `tail` of it are data. */
struct golden {
	unsigned command;
	uint32_t flags;
	size_t len, tail;
	uint8_t body[BODY_MAX];
};

/* Bytes of one field, lowest first. */
#define U16(v) (v) & 0xff, (v) >> 8
#define U32(v) (v) & 0xff, (v) >> 8 & 0xff, (v) >> 16 & 0xff, (v) >> 24 & 0xff
#define U64(v) U32(v), 0, 0, 0, 0

static const struct golden asks[] = {
	{ VFIOMSG_VERSION, 0, 7, 3, { U16(0), U16(1), '{', '}', 0 } },
	{ VFIOMSG_DMA_MAP, 0, 32, 0, { U32(32), U32(3), U64(0x2000), U64(0x100000), U64(0x4000) } },
	{ VFIOMSG_DMA_UNMAP, 0, 24, 0, { U32(24), U32(0), U64(0x100000), U64(0x4000) } },
	{ VFIOMSG_DMA_UNMAP, 0, 40, 0,
	  { U32(48), U32(1), U64(0x100000), U64(0x4000), U64(0x1000), U64(8) } },
	{ VFIOMSG_DMA_UNMAP, 0, 24, 0, { U32(24), U32(2), U64(0), U64(0) } },
	{ VFIOMSG_GET_INFO, 0, 16, 0, { U32(16), U32(0), U32(0), U32(0) } },
	{ VFIOMSG_GET_REGION_INFO, 0, 32, 0,
	  { U32(40), U32(0), U32(9), U32(0), U64(0), U64(0) } },
	{ VFIOMSG_REGION_READ, 0, 16, 0, { U64(8), U32(9), U32(8) } },
	{ VFIOMSG_REGION_WRITE, 0, 20, 4, { U64(0), U32(9), U32(4), U32(2) } },
	{ VFIOMSG_DMA_READ, 0, 16, 0, { U64(0x100010), U64(3) } },
	{ VFIOMSG_DMA_WRITE, 0, 19, 3, { U64(0x100010), U64(3), 'a', 'b', 'c' } },
	{ VFIOMSG_RESET, 0, 0, 0, { 0 } },
	{ VFIOMSG_DIRTY_PAGES, 0, 8, 0, { U32(8), U32(1) } },
	{ VFIOMSG_DIRTY_PAGES, 0, 8, 0, { U32(8), U32(2) } },
	{ VFIOMSG_DIRTY_PAGES, 0, 40, 0,
	  { U32(48), U32(4), U64(0x100000), U64(0x4000), U64(0x1000), U64(8) } },
	{ VFIOMSG_FEATURE, 0, 16, 8, { U32(16), U32(0x20002), U32(4), U32(0) } },
	{ VFIOMSG_FEATURE, 0, 8, 0, { U32(16), U32(0x10002) } },
	{ VFIOMSG_MIG_READ, 0, 8, 0, { U32(12), U32(4) } },
	{ VFIOMSG_MIG_WRITE, 0, 11, 3, { U32(11), U32(3), 'x', 'y', 'z' } },
};

/* To the request in the same place. */
static const struct golden answers[] = {
	{ VFIOMSG_VERSION, 1, 4, 0, { U16(0), U16(0) } },
	{ VFIOMSG_DMA_MAP, 1, 0, 0, { 0 } },
	{ VFIOMSG_DMA_UNMAP, 1, 24, 0, { U32(24), U32(0), U64(0x100000), U64(0x4000) } },
	{ VFIOMSG_DMA_UNMAP, 1, 48, 8,
	  { U32(48), U32(1), U64(0x100000), U64(0x4000), U64(0x1000), U64(8), U64(0xf) } },
	{ VFIOMSG_DMA_UNMAP, 1, 24, 0, { U32(24), U32(2), U64(0), U64(0) } },
	{ VFIOMSG_GET_INFO, 1, 16, 0, { U32(16), U32(3), U32(10), U32(5) } },
	{ VFIOMSG_GET_REGION_INFO, 1, 40, 8,
	  { U32(40), U32(0xf), U32(9), U32(32), U64(0x5000), U64(0x3000), U16(6), U16(1) } },
	{ VFIOMSG_REGION_READ, 1, 24, 8, { U64(8), U32(9), U32(8), U64(77) } },
	{ VFIOMSG_REGION_WRITE, 1, 16, 0, { U64(0), U32(9), U32(4) } },
	{ VFIOMSG_DMA_READ, 1, 19, 3, { U64(0x100010), U64(3), 'a', 'b', 'c' } },
	{ VFIOMSG_DMA_WRITE, 1, 16, 0, { U64(0x100010), U64(3) } },
	{ VFIOMSG_RESET, 1, 0, 0, { 0 } },
	{ VFIOMSG_DIRTY_PAGES, 1, 8, 0, { U32(8), U32(1) } },
	{ VFIOMSG_DIRTY_PAGES, 1, 8, 0, { U32(8), U32(2) } },
	{ VFIOMSG_DIRTY_PAGES, 1, 48, 40,
	  { U32(48), U32(4), U64(0x100000), U64(0x4000), U64(0x1000), U64(8), U64(0xf) } },
	{ VFIOMSG_FEATURE, 1, 16, 8, { U32(16), U32(0x20002), U32(4), U32(0) } },
	{ VFIOMSG_FEATURE, 1, 16, 8, { U32(16), U32(0x10002), U32(4), U32(0) } },
	{ VFIOMSG_MIG_READ, 1, 12, 4, { U32(12), U32(4), 1, 2, 3, 4 } },
	{ VFIOMSG_MIG_WRITE, 1, 0, 0, { 0 } },
};
_Static_assert(ARRAY_LEN(asks) == ARRAY_LEN(answers), "a request has no answer");

static enum vfiomsg_way way_of(unsigned command)
{
	return command == VFIOMSG_DMA_READ || command == VFIOMSG_DMA_WRITE ? VFIOMSG_TO_CLIENT :
									     VFIOMSG_TO_SERVER;
}

static void set_head(struct vfiomsg *m, const struct golden *g, size_t len)
{
	memset(m, 0, sizeof(*m));
	m->head = (struct vfiomsg_head){
		.id = 0x0102,
		.command = (uint16_t)g->command,
		.size = (uint32_t)(VFIOMSG_HEAD + len),
		.flags = g->flags,
	};
}

/* The first @len bytes of a body, in memory that ends there. */
static uint8_t *cut(const struct golden *g, size_t len)
{
	uint8_t *bytes = malloc(len ? len : 1);

	cr_assert(bytes && len <= BODY_MAX);
	memcpy(bytes, g->body, len);
	return bytes;
}

static int take(struct vfiomsg *m, const struct golden *g, size_t len)
{
	cleanup_free uint8_t *body = cut(g, len);
	const char *why = NULL;
	int err;

	set_head(m, g, len);
	err = vfiomsg_take(m, body, way_of(g->command), &terms, &why);
	cr_expect_eq(why != NULL, err != 0, "%s: %d and %s", vfiomsg_name(g->command), err, why);
	m->data = NULL; /* it went with the body */
	return err;
}

static int take_reply(struct vfiomsg *m, const struct golden *g, size_t len,
		      const struct golden *asked)
{
	cleanup_free uint8_t *body = cut(g, len);
	const char *why = NULL;
	struct vfiomsg ask;
	int err;

	cr_assert_eq(take(&ask, asked, asked->len), 0);
	set_head(m, g, len);
	err = vfiomsg_take_reply(m, body, &ask, &terms, &why);
	cr_expect_eq(why != NULL, err != 0, "%s: %d and %s", vfiomsg_name(g->command), err, why);
	cr_expect(err == 0 || err == -EPROTO, "a reply is right or it is no protocol: %d", err);
	m->data = NULL;
	return err;
}

/* Bytes to a record and back to the same bytes. */
static void expect_bytes(struct vfiomsg *m, const struct golden *g)
{
	uint8_t front[VFIOMSG_FRONT];
	size_t n;

	cr_expect_eq(m->len, g->tail, "%s: a tail of %zu", vfiomsg_name(g->command), m->len);
	m->head.size = 0;
	n = vfiomsg_front(m, front);
	cr_assert_eq(n, VFIOMSG_HEAD + g->len - g->tail, "%s", vfiomsg_name(g->command));
	cr_expect_eq(m->head.size, VFIOMSG_HEAD + g->len);
	cr_expect_eq(memcmp(front + VFIOMSG_HEAD, g->body, g->len - g->tail), 0, "%s",
		     vfiomsg_name(g->command));
}

Test(vfiomsg, F29_every_request_and_its_answer)
{
	for (size_t i = 0; i < ARRAY_LEN(asks); i++) {
		struct vfiomsg m;

		cr_expect_eq(take(&m, &asks[i], asks[i].len), 0, "%zu: %s", i,
			     vfiomsg_name(asks[i].command));
		expect_bytes(&m, &asks[i]);
		cr_expect_eq(take_reply(&m, &answers[i], answers[i].len, &asks[i]), 0, "%zu: %s",
			     i, vfiomsg_name(asks[i].command));
		expect_bytes(&m, &answers[i]);
	}
}

Test(vfiomsg, the_head_byte_by_byte)
{
	static const uint8_t command[] = { 2, 1, 9, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
					   8, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 4, 0, 0, 0 };
	static const uint8_t failure[] = { 2, 1, 9, 0, 16, 0, 0, 0, 0x21, 0, 0, 0, 22, 0, 0, 0 };
	uint8_t front[VFIOMSG_FRONT];
	struct vfiomsg m, reply;

	vfiomsg_ask(&m, VFIOMSG_REGION_READ, 0x0102);
	m.fixed.access = (struct vfiomsg_access){ .offset = 8, .region = 9, .count = 4 };
	cr_assert_eq(vfiomsg_front(&m, front), sizeof(command));
	cr_expect_arr_eq(front, command, sizeof(command));
	vfiomsg_fail(&reply, &m.head, -EINVAL);
	cr_assert_eq(vfiomsg_front(&reply, front), sizeof(failure));
	cr_expect_arr_eq(front, failure, sizeof(failure));
	vfiomsg_answer(&reply, &m);
	cr_expect_eq(reply.head.id, 0x0102);
	cr_expect_eq(reply.head.flags, VFIOMSG_REPLY);
}

/* Where a tail may have any length. */
static bool ask_may_be(const struct golden *g, size_t len)
{
	return (g->command == VFIOMSG_VERSION && (len == 4 || len > g->len)) ||
	       (g->command == VFIOMSG_FEATURE && len >= 8 && len <= 16);
}

/* Of every request each shorter one; and one byte more. */
Test(vfiomsg, F39_short_and_long_requests)
{
	for (size_t i = 0; i < ARRAY_LEN(asks); i++)
		for (size_t len = 0; len <= asks[i].len + 1; len++) {
			struct vfiomsg m;
			int err = take(&m, &asks[i], len);

			if (len == asks[i].len || ask_may_be(&asks[i], len))
				continue;
			cr_expect(err == -EPROTO || err == -EBADMSG, "%s of %zu: %d",
				  vfiomsg_name(asks[i].command), len, err);
		}
}

static bool may_be_shorter(const struct golden *g, size_t len)
{
	return (g->command == VFIOMSG_VERSION && len >= 4) ||
	       (g->command == VFIOMSG_FEATURE && len >= 8) ||
	       (g->command == VFIOMSG_DIRTY_PAGES && len == 8);
}

Test(vfiomsg, F39_short_and_long_replies)
{
	struct vfiomsg m;

	for (size_t i = 0; i < ARRAY_LEN(answers); i++) {
		const struct golden *g = &answers[i];

		for (size_t len = 0; len < g->len; len++)
			cr_expect_eq(take_reply(&m, g, len, &asks[i]),
				     may_be_shorter(g, len) ? 0 : -EPROTO, "%s of %zu",
				     vfiomsg_name(g->command), len);
		if (g->command != VFIOMSG_VERSION) /* a NUL more is text */
			cr_expect_eq(take_reply(&m, g, g->len + 1, &asks[i]), -EPROTO,
				     "%s and a byte", vfiomsg_name(g->command));
	}
}

Test(vfiomsg, heads_that_are_none)
{
	static const struct {
		uint32_t size, flags;
		int err;
		const char *text;
	} rows[] = {
		{ 16, 0, 0, "a command" },
		{ 16, 0x10, 0, "a command that wants no reply" },
		{ 16, 0x1, 0, "a reply" },
		{ 16, 0x21, 0, "a failure" },
		{ 15, 0, -EPROTO, "shorter than a head" },
		{ 0, 1, -EPROTO, "nothing" },
		{ 0x10000 + VFIOMSG_FRONT, 0, 0, "as long as may be" },
		{ 0x10000 + VFIOMSG_FRONT + 1, 0, -EPROTO, "longer than was agreed on" },
		{ UINT32_MAX, 1, -EPROTO, "four gigabytes" },
		{ 16, 0x2, -EPROTO, "a third type" },
		{ 16, 0xf, -EPROTO, "a sixteenth type" },
		{ 16, 0x20, -EPROTO, "a command that failed" },
		{ 16, 0x11, -EPROTO, "a reply that wants no reply" },
		{ 16, 0x40, -EPROTO, "a flag nobody knows" },
		{ 16, 0x80000001, -EPROTO, "another one" },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct vfiomsg_head head = { 1, 13, rows[i].size, rows[i].flags, 0 };

		cr_expect_eq(vfiomsg_check_head(&head, &terms, NULL), rows[i].err, "%s",
			     rows[i].text);
	}
}

/* What may be said of itself is not bounded by a small agreement on data. */
Test(vfiomsg, descriptions_fit_whatever_was_agreed_on)
{
	static const struct vfiomsg_terms small = { .max_data = 1, .max_fds = 1 };
	struct vfiomsg_head head = { 1, VFIOMSG_GET_REGION_INFO, 16 + 65536, 1, 0 };

	cr_expect_eq(vfiomsg_check_head(&head, &small, NULL), 0);
	head.size = 16 + 65536 + 41;
	cr_expect_eq(vfiomsg_check_head(&head, &small, NULL), -EPROTO);
}

Test(vfiomsg, replies_to_something_else)
{
	static const struct {
		struct vfiomsg_head head;
		unsigned fds;
		int err, error;
		const char *text;
	} rows[] = {
		{ { 7, VFIOMSG_RESET, 16, 1, 0 }, 0, 0, 0, "the answer" },
		{ { 7, VFIOMSG_RESET, 16, 1, 5 }, 0, 0, 0, "no failure without its flag" },
		{ { 8, VFIOMSG_RESET, 16, 1, 0 }, 0, -EPROTO, 0, "to another request" },
		{ { 7, VFIOMSG_GET_INFO, 16, 1, 0 }, 0, -EPROTO, 0, "to another command" },
		{ { 7, VFIOMSG_RESET, 16, 0, 0 }, 0, -EPROTO, 0, "a command" },
		{ { 7, VFIOMSG_RESET, 15, 1, 0 }, 0, -EPROTO, 0, "short of a head" },
		{ { 7, VFIOMSG_RESET, 1 << 30, 1, 0 }, 0, -EPROTO, 0, "too long" },
		{ { 7, VFIOMSG_RESET, 17, 1, 0 }, 0, -EPROTO, 0, "a byte where none belongs" },
		{ { 7, VFIOMSG_RESET, 16, 1, 0 }, 1, -EPROTO, 0, "with a descriptor" },
		{ { 7, VFIOMSG_RESET, 16, 0x21, EBUSY }, 0, 0, -EBUSY, "a failure" },
		{ { 7, VFIOMSG_RESET, 16, 0x21, 0 }, 0, 0, -EINVAL, "fails with success" },
		{ { 7, VFIOMSG_RESET, 16, 0x21, 4095 }, 0, 0, -4095, "the last errno" },
		{ { 7, VFIOMSG_RESET, 16, 0x21, 4096 }, 0, 0, -EINVAL, "no errno" },
		{ { 7, VFIOMSG_RESET, 16, 0x21, 0x80000000 }, 0, 0, -EINVAL, "negative" },
		{ { 7, VFIOMSG_RESET, 16, 0x21, (uint32_t)-EIO }, 0, 0, -EINVAL, "turned round" },
		{ { 7, VFIOMSG_RESET, 20, 0x21, EBUSY }, 0, -EPROTO, 0, "a failure with a body" },
		{ { 7, VFIOMSG_RESET, 16, 0x21, EBUSY }, 1, -EPROTO, 0, "a failure with a gift" },
	};
	static const uint8_t body[16];
	struct vfiomsg ask, m;

	vfiomsg_ask(&ask, VFIOMSG_RESET, 7);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		m = (struct vfiomsg){ .head = rows[i].head, .fds = rows[i].fds };
		cr_expect_eq(vfiomsg_take_reply(&m, body, &ask, &terms, NULL), rows[i].err, "%s",
			     rows[i].text);
		if (rows[i].err == 0)
			cr_expect_eq(vfiomsg_error(&m.head), rows[i].error, "%s", rows[i].text);
	}
}

/* A good message, one field of it changed. */
static struct golden changed(const struct golden *g, size_t at, size_t width, uint64_t v)
{
	struct golden other = *g;

	memcpy(other.body + at, &v, width);
	return other;
}

static const struct golden *find(const struct golden *all, unsigned command, size_t len)
{
	size_t i = 0;

	while (i < ARRAY_LEN(asks) - 1 && (all[i].command != command || all[i].len != len))
		i++;
	cr_assert(all[i].command == command && all[i].len == len, "no such message");
	return &all[i];
}

struct change {
	unsigned command; /* and len: which of the requests */
	size_t len, at, width;
	uint64_t v;
	int err;
	const char *text;
};

static void expect_changes(const struct change *rows, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct golden g = changed(find(asks, rows[i].command, rows[i].len), rows[i].at,
					  rows[i].width, rows[i].v);
		struct vfiomsg m;

		cr_expect_eq(take(&m, &g, g.len), rows[i].err, "%s: %s",
			     vfiomsg_name(rows[i].command), rows[i].text);
	}
}

Test(vfiomsg, requests_for_memory_that_nobody_may_make)
{
	static const struct change rows[] = {
		{ VFIOMSG_VERSION, 7, 6, 1, '}', -EBADMSG, "no NUL" },
		{ VFIOMSG_VERSION, 7, 4, 1, 0, -EBADMSG, "a NUL too early" },
		{ VFIOMSG_DMA_MAP, 32, 0, 4, 31, -EBADMSG, "argsz" },
		{ VFIOMSG_DMA_MAP, 32, 4, 4, 16, -EBADMSG, "flags" },
		{ VFIOMSG_DMA_MAP, 32, 24, 8, 0, -EBADMSG, "empty" },
		{ VFIOMSG_DMA_MAP, 32, 16, 8, UINT64_MAX - 0x3ffe, -EBADMSG, "wraps" },
		{ VFIOMSG_DMA_MAP, 32, 16, 8, UINT64_MAX - 0x3fff, 0, "up to the last byte" },
		{ VFIOMSG_DMA_MAP, 32, 8, 8, UINT64_MAX, -EBADMSG, "wraps in its file" },
		{ VFIOMSG_DMA_UNMAP, 24, 0, 4, 23, -EBADMSG, "argsz" },
		{ VFIOMSG_DMA_UNMAP, 24, 4, 4, 4, -EBADMSG, "flags" },
		{ VFIOMSG_DMA_UNMAP, 24, 4, 4, 2, -EBADMSG, "all, and a range" },
		{ VFIOMSG_DMA_UNMAP, 24, 16, 8, 0, -EBADMSG, "empty" },
		{ VFIOMSG_DMA_UNMAP, 24, 16, 8, UINT64_MAX, -EBADMSG, "wraps" },
		{ VFIOMSG_DMA_UNMAP, 24, 4, 4, 1, -EPROTO, "a bitmap that is not told" },
		{ VFIOMSG_DMA_UNMAP, 40, 4, 4, 0, -EPROTO, "a bitmap not asked for" },
		{ VFIOMSG_DMA_UNMAP, 40, 32, 8, 0x10001, -EBADMSG, "a bitmap too long" },
		{ VFIOMSG_DMA_READ, 16, 8, 8, 0x10001, -EBADMSG, "more than agreed on" },
		{ VFIOMSG_DMA_READ, 16, 8, 8, UINT64_MAX, -EBADMSG, "everything" },
		{ VFIOMSG_DMA_READ, 16, 0, 8, UINT64_MAX, -EBADMSG, "wraps" },
		{ VFIOMSG_DMA_WRITE, 19, 8, 8, 4, -EPROTO, "counts more than it has" },
		{ VFIOMSG_DMA_WRITE, 19, 12, 4, 1, -EPROTO, "a count of eight bytes" },
	};

	expect_changes(rows, ARRAY_LEN(rows));
}

Test(vfiomsg, requests_to_a_device_that_nobody_may_make)
{
	static const struct change rows[] = {
		{ VFIOMSG_GET_INFO, 16, 0, 4, 15, -EBADMSG, "argsz" },
		{ VFIOMSG_GET_REGION_INFO, 32, 0, 4, 31, -EBADMSG, "argsz" },
		{ VFIOMSG_REGION_READ, 16, 12, 4, 0x10001, -EBADMSG, "more than agreed on" },
		{ VFIOMSG_REGION_READ, 16, 12, 4, 0x10000, 0, "as much as agreed on" },
		{ VFIOMSG_REGION_READ, 16, 8, 4, VFIOMSG_REGIONS, -EBADMSG, "no such region" },
		{ VFIOMSG_REGION_READ, 16, 0, 8, UINT64_MAX, -EBADMSG, "wraps" },
		{ VFIOMSG_REGION_WRITE, 20, 12, 4, 5, -EPROTO, "counts more than it has" },
		{ VFIOMSG_REGION_WRITE, 20, 12, 4, 3, -EPROTO, "has more than it counts" },
		{ VFIOMSG_DIRTY_PAGES, 8, 4, 4, 0, -EBADMSG, "none" },
		{ VFIOMSG_DIRTY_PAGES, 8, 4, 4, 3, -EBADMSG, "start and stop" },
		{ VFIOMSG_DIRTY_PAGES, 8, 4, 4, 8, -EBADMSG, "something else" },
		{ VFIOMSG_DIRTY_PAGES, 8, 4, 4, 4, -EPROTO, "get, without a range" },
		{ VFIOMSG_DIRTY_PAGES, 8, 0, 4, 7, -EBADMSG, "argsz" },
		{ VFIOMSG_DIRTY_PAGES, 40, 0, 4, 39, -EBADMSG, "argsz of get" },
		{ VFIOMSG_DIRTY_PAGES, 40, 16, 8, 0, -EBADMSG, "empty" },
		{ VFIOMSG_DIRTY_PAGES, 40, 32, 8, 0x10001, -EBADMSG, "a bitmap too long" },
		{ VFIOMSG_FEATURE, 16, 0, 4, 15, -EBADMSG, "argsz" },
		{ VFIOMSG_MIG_READ, 8, 0, 4, 11, -EBADMSG, "argsz" },
		{ VFIOMSG_MIG_READ, 8, 4, 4, 0x10001, -EBADMSG, "more than agreed on" },
		{ VFIOMSG_MIG_WRITE, 11, 4, 4, 4, -EPROTO, "counts more than it has" },
		{ VFIOMSG_MIG_WRITE, 11, 0, 4, 10, -EBADMSG, "argsz" },
	};

	expect_changes(rows, ARRAY_LEN(rows));
}

Test(vfiomsg, answers_that_do_not_fit_their_question)
{
	static const struct {
		unsigned command;
		size_t len, at, width;
		uint64_t v;
		const char *text;
	} rows[] = {
		{ VFIOMSG_VERSION, 4, 0, 2, 1, "another major version" },
		{ VFIOMSG_VERSION, 4, 2, 2, 2, "a later minor version" },
		{ VFIOMSG_DMA_UNMAP, 24, 8, 8, 0x200000, "another range" },
		{ VFIOMSG_DMA_UNMAP, 24, 4, 4, 2, "everything" },
		{ VFIOMSG_DMA_UNMAP, 48, 4, 4, 0, "no bitmap after all" },
		{ VFIOMSG_GET_INFO, 16, 8, 4, VFIOMSG_REGIONS + 1, "too many regions" },
		{ VFIOMSG_GET_REGION_INFO, 40, 8, 4, 8, "another region" },
		{ VFIOMSG_GET_REGION_INFO, 40, 0, 4, 31, "shorter than its struct" },
		{ VFIOMSG_REGION_READ, 24, 0, 8, 16, "another offset" },
		{ VFIOMSG_REGION_READ, 24, 8, 4, 8, "another region" },
		{ VFIOMSG_REGION_READ, 24, 12, 4, 16, "more than asked for" },
		{ VFIOMSG_REGION_READ, 24, 12, 4, 4, "less than it holds" },
		{ VFIOMSG_REGION_WRITE, 16, 12, 4, 5, "more than was written" },
		{ VFIOMSG_DMA_READ, 19, 0, 8, 1, "other memory" },
		{ VFIOMSG_DMA_READ, 19, 8, 8, UINT64_MAX, "everything" },
		{ VFIOMSG_DMA_WRITE, 16, 8, 8, 4, "more than was written" },
		{ VFIOMSG_DIRTY_PAGES, 48, 8, 8, 0, "another range" },
		{ VFIOMSG_DIRTY_PAGES, 48, 32, 8, 16, "another bitmap" },
		{ VFIOMSG_FEATURE, 16, 4, 4, 0x20001, "another feature" },
		{ VFIOMSG_MIG_READ, 12, 4, 4, 5, "more than asked for" },
		{ VFIOMSG_MIG_READ, 12, 4, 4, UINT32_MAX, "far more" },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		const struct golden *good = find(answers, rows[i].command, rows[i].len);
		struct golden g = changed(good, rows[i].at, rows[i].width, rows[i].v);
		struct vfiomsg m;

		cr_expect_eq(take_reply(&m, &g, g.len, &asks[good - answers]), -EPROTO, "%s: %s",
			     vfiomsg_name(rows[i].command), rows[i].text);
	}
}

/* One server fills an answer up to what was asked for; only the inner size counts. */
Test(vfiomsg, device_state_with_padding)
{
	const struct golden *ask = find(asks, VFIOMSG_MIG_READ, 8);
	struct golden g = changed(find(answers, VFIOMSG_MIG_READ, 12), 4, 4, 1);
	struct vfiomsg m;

	cr_expect_eq(take_reply(&m, &g, 12, ask), 0, "three bytes of padding");
	cr_expect_eq(m.fixed.stretch.size, 1);
	cr_expect_eq(take_reply(&m, &g, 9, ask), 0, "none");
	cr_expect_eq(take_reply(&m, &g, 8, ask), -EPROTO, "and no byte at all");
	cr_expect_eq(take_reply(&m, &g, 13, ask), -EPROTO, "padding beyond what was asked for");
	g = changed(&g, 4, 4, 0);
	cr_expect_eq(take_reply(&m, &g, 8, ask), 0, "the end");
}

/* One whose capabilities did not fit: any length up to what was asked for, and its true argsz. */
Test(vfiomsg, a_region_that_must_be_asked_again)
{
	const struct golden *ask = find(asks, VFIOMSG_GET_REGION_INFO, 32);
	struct golden g = changed(find(answers, VFIOMSG_GET_REGION_INFO, 40), 0, 4, 80);
	struct vfiomsg m;

	for (size_t len = 32; len <= 40; len++)
		cr_expect_eq(take_reply(&m, &g, len, ask), 0, "%zu bytes", len);
	cr_expect_eq(take_reply(&m, &g, 41, ask), -EPROTO);
	cr_expect_eq(take_reply(&m, &g, 31, ask), -EPROTO);
}

Test(vfiomsg, commands_of_the_other_end)
{
	static const uint8_t body[64];

	for (unsigned command = 0; command < 40; command++)
		for (unsigned way = VFIOMSG_TO_SERVER; way <= VFIOMSG_TO_CLIENT; way++) {
			struct vfiomsg m = { .head = { 1, (uint16_t)command, 16 + 64, 0, 0 } };
			bool known = strcmp(vfiomsg_name(command), "unknown") != 0;
			int err = vfiomsg_take(&m, body, (enum vfiomsg_way)way, &terms, NULL);

			cr_expect_eq(err == -EOPNOTSUPP, !known, "%u: %d", command, err);
			if (known && way != way_of(command))
				cr_expect_eq(err, -EPROTO, "%u: %d", command, err);
		}
}

Test(vfiomsg, descriptors_are_counted)
{
	static const struct vfiomsg_terms none = { .max_data = 0x10000, .max_fds = 0 };
	struct vfiomsg m;

	for (size_t i = 0; i < ARRAY_LEN(asks); i++) {
		unsigned most = asks[i].command == VFIOMSG_DMA_MAP;

		for (unsigned fds = 0; fds <= 9; fds++) {
			set_head(&m, &asks[i], asks[i].len);
			m.fds = fds;
			cr_expect_eq(vfiomsg_take(&m, asks[i].body, way_of(asks[i].command), &terms,
						  NULL),
				     fds <= most ? 0 : -EPROTO, "%s with %u",
				     vfiomsg_name(asks[i].command), fds);
		}
	}
	set_head(&m, find(asks, VFIOMSG_DMA_MAP, 32), 32);
	m.fds = 1;
	cr_expect_eq(vfiomsg_take(&m, find(asks, VFIOMSG_DMA_MAP, 32)->body, VFIOMSG_TO_SERVER,
				  &none, NULL),
		     -EPROTO, "none may come");
}
