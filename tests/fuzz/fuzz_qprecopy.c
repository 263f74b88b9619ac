/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The synthetic stream: a plan made of the input is written twice, in parts of different sizes, and
 * both are the same bytes; our decoder finds the plan in them again.
 *
 * Input: parts' size, section id, page bits or none, number of blocks, then for each block its
 * pages, whether they are sent and the length of its name; the rest is the device part.
 */
#include "config.h"

#include "wire/qprecopy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/guard.h"
#include "target.h"
#include "wire/cursor.h"

#define PAGE   4096u
#define BLOCKS 8
#define ROOM   (1u << 21)
struct scene {
	struct qprecopy_plan plan;
	struct qprecopy_block blocks[BLOCKS];
	char names[BLOCKS][256];
	uint8_t advise[32];
	uint8_t page[PAGE];
	unsigned parts;
};

static int give_page(void *ctx, unsigned block, uint64_t offset, const uint8_t **data)
{
	struct scene *s = ctx;

	if ((block + offset / PAGE) % 2)
		*data = s->page;
	return 0;
}

static void make_block(struct scene *s, struct cursor *c, unsigned i)
{
	unsigned pages = cursor_u8(c), sent = cursor_u8(c), name = cursor_u8(c);

	memset(s->names[i], 'a' + (int)i, name);
	s->names[i][name] = '\0';
	s->blocks[i] = (struct qprecopy_block){s->names[i], (uint64_t)pages * PAGE, sent & 1};
	if (sent & 2)
		s->blocks[i].length++; /* to be refused */
}

static void make_plan(struct scene *s, const uint8_t *data, size_t size)
{
	struct cursor c = cursor_init(data, size);
	struct pen p = pen_init(s->advise, sizeof(s->advise));

	qstream_put_advise(&p, PAGE, PAGE); /* our decoder serves sources of postcopy only */
	s->parts = 1 + cursor_be16(&c);
	s->plan = (struct qprecopy_plan){
		.machine = "pc-i440fx-7.2",
		.ram_section = cursor_u8(&c),
		.page_bits = cursor_u8(&c) & 12,
		.target_page = PAGE,
		.blocks = s->blocks,
		.n_blocks = cursor_u8(&c) % (BLOCKS + 1),
		.early = s->advise,
		.early_len = pen_used(&p),
		.page = give_page,
		.ctx = s,
	};
	for (unsigned i = 0; i < s->plan.n_blocks; i++)
		make_block(s, &c, i);
	s->plan.device = c.at;
	s->plan.device_len = cursor_left(&c);
}

/* Bytes written, in parts of at most @limit. */
static size_t write_stream(const struct scene *s, uint8_t *out, size_t limit)
{
	cleanup_free struct qprecopy *w = malloc(sizeof(*w));
	struct qprecopy_piece piece;
	const char *why;
	size_t len = 0;
	int n;

	CHECK(w && qprecopy_init(w, &s->plan, &why) == 0);
	while ((n = qprecopy_next(w, &piece, 1)) > 0) {
		size_t part = piece.len < limit ? piece.len : limit;

		CHECK(n == 1 && piece.len > 0 && part <= ROOM - len);
		memcpy(out + len, piece.at, part);
		len += part;
		qprecopy_sent(w, part);
	}
	CHECK(n == 0 && w->sent == len);
	return len;
}

/* Length of what is before the device part. */
static size_t decode(const struct scene *s, const uint8_t *stream, size_t len, uint64_t *pages)
{
	cleanup_free struct qstream *q = malloc(sizeof(*q));
	struct qstream_record rec;
	size_t at = 0;
	int what;

	CHECK(q);
	qstream_init(q, QSTREAM_MAIN, NULL);
	while ((what = qstream_next(q, stream + at, len - at, &rec)) != QSTREAM_TAIL &&
	       what != QSTREAM_EOF) {
		CHECK(what > 0);
		if (what == QSTREAM_PAGE || what == QSTREAM_ZERO)
			++*pages;
		at += rec.used;
	}
	CHECK(q->n_blocks == s->plan.n_blocks && q->ram_section == s->plan.ram_section);
	return at;
}

static void check_stream(const struct scene *s, const uint8_t *stream, size_t len)
{
	uint64_t pages = 0, want = 0;
	size_t at = decode(s, stream, len, &pages);

	for (unsigned i = 0; i < s->plan.n_blocks; i++)
		want += s->blocks[i].in_stream ? s->blocks[i].length / PAGE : 0;
	CHECK(pages == want);
	CHECK(len - at == s->plan.device_len + 8);
	CHECK(s->plan.device_len == 0 || !memcmp(stream + at, s->plan.device, s->plan.device_len));
	CHECK(!memcmp(stream + len - 8, "\0\6\0\0\0\2{}", 8));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	cleanup_free struct scene *s = calloc(1, sizeof(*s));
	cleanup_free struct qprecopy *w = malloc(sizeof(*w));
	cleanup_free uint8_t *one = malloc(ROOM), *two = malloc(ROOM);
	const char *why;
	uint64_t sent = 0;
	size_t len;
	int err;

	CHECK(s && w && one && two);
	make_plan(s, data, size);
	err = qprecopy_init(w, &s->plan, &why);
	CHECK((err == 0) == (why == NULL) && (err == 0 || err == -EINVAL));
	for (unsigned i = 0; i < s->plan.n_blocks; i++)
		sent += s->blocks[i].in_stream ? s->blocks[i].length : 0;
	if (err || sent + size > ROOM / 2)
		return 0;
	len = write_stream(s, one, SIZE_MAX);
	CHECK(write_stream(s, two, s->parts) == len && !memcmp(one, two, len));
	if (s->plan.device_len == 0 || s->plan.device[0] == 4)
		check_stream(s, one, len);
	return 0;
}
