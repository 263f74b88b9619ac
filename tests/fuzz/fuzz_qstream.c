/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * qstream: byte 0 chooses where the stream begins, byte 1 how it arrives (0: at once; else the seed
 * of the piece sizes), the rest is the stream.  Whatever it holds, every record stays within the
 * window and its block, an error has a reason, and the pieces give the same records as the whole.
 */
#include "config.h"

#include "wire/qstream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/guard.h"
#include "target.h"
#include "wire/cursor.h"

#define SECTION 2 /* as in tests/fixtures/q72-* */
static const struct qstream_block blocks[] = {
	{"pc.ram", 4 << 20, 4096},
	{"/rom@etc/acpi/tables", 128 << 10, 4096},
	{"pc.rom", 128 << 10, 4096},
	{"pc.bios", 64 << 10, 4096},
	{"/rom@etc/table-loader", 4096, 4096},
	{"/rom@etc/acpi/rsdp", 4096, 4096},
	{"huge", 4 << 20, 2 << 20},
};

/* A main channel behind its block list. */
static void past_blocks(struct qstream *q)
{
	uint8_t bytes[1024];
	struct pen p = pen_init(bytes, sizeof(bytes));
	struct qstream_record rec;
	size_t at = 0;

	qstream_put_header(&p, "pc-i440fx-7.2");
	qstream_put_advise(&p, 2 << 20 | 4096, 4096);
	qstream_put_blocks(&p, SECTION, blocks, ARRAY_LEN(blocks), 4096);
	CHECK(!p.bad);
	qstream_init(q, QSTREAM_MAIN, NULL);
	while (qstream_next(q, bytes + at, pen_used(&p) - at, &rec) > 0)
		at += rec.used;
	CHECK(at == pen_used(&p) && !q->reason);
	q->position = 0; /* of the part that is fuzzed */
}

static void begin(struct qstream *q, uint8_t where)
{
	struct qstream main_channel;

	switch (where % 4) {
	case 0:
		qstream_init(q, QSTREAM_MAIN, NULL);
		break;
	case 1:
		past_blocks(&main_channel);
		qstream_init(q, QSTREAM_URGENT, &main_channel);
		break;
	case 2:
		past_blocks(&main_channel);
		qstream_init(q, QSTREAM_RECOVERY, &main_channel);
		break;
	case 3:
		past_blocks(q);
		break;
	}
}

static void check_page(const struct qstream *q, int what, const struct qstream_record *rec,
		       const uint8_t *window)
{
	CHECK(rec->page.block < q->n_blocks);
	CHECK(rec->page.offset % q->target_page == 0);
	CHECK(range_inside(rec->page.offset, q->target_page, q->blocks[rec->page.block].length));
	CHECK((what == QSTREAM_ZERO) == !rec->page.data);
	CHECK(what != QSTREAM_PAGE || rec->page.len == q->target_page);
	CHECK(what != QSTREAM_XBZRLE || (rec->page.len > 0 && rec->page.len <= q->target_page));
	if (rec->page.data)
		CHECK(rec->page.data + rec->page.len == window + rec->used);
}

static void check_record(const struct qstream *q, int what, const struct qstream_record *rec,
			 const uint8_t *window, size_t len)
{
	CHECK(rec->used > 0 && rec->used <= len && rec->used <= QSTREAM_RECORD_MAX);
	if (what == QSTREAM_PAGE || what == QSTREAM_ZERO || what == QSTREAM_XBZRLE)
		check_page(q, what, rec, window);
	if (what == QSTREAM_DISCARD)
		CHECK(range_inside(rec->discard.start, rec->discard.length,
				   q->blocks[rec->discard.block].length));
	if (what == QSTREAM_RECV_BITMAP)
		CHECK(rec->recv_bitmap.block < q->n_blocks);
	CHECK(q->n_blocks <= QSTREAM_MAX_BLOCKS);
}

/* Everything that came out of a stream, as one number. */
struct sum {
	uint64_t hash;
	int last;
	uint64_t position;
};

static void add(struct sum *s, uint64_t v)
{
	s->hash = (s->hash ^ v) * 1099511628211u;
}

static void add_record(struct sum *s, int what, const struct qstream_record *rec)
{
	add(s, (uint64_t)what);
	add(s, rec->used);
	if (what == QSTREAM_PAGE || what == QSTREAM_ZERO) {
		add(s, rec->page.block);
		add(s, rec->page.offset);
	} else if (what == QSTREAM_DISCARD) {
		add(s, rec->discard.start);
		add(s, rec->discard.length);
	}
}

/* One call.  True when there may be more: @have was enlarged or *at moved on. */
static bool step(struct qstream *q, struct sum *s, const uint8_t *bytes, size_t *at, size_t have)
{
	cleanup_free uint8_t *window = exactly(bytes + *at, have - *at);
	struct qstream_record rec;
	int what = qstream_next(q, window, have - *at, &rec);

	s->last = what;
	if (what > 0 && what != QSTREAM_TAIL) {
		check_record(q, what, &rec, window, have - *at);
		add_record(s, what, &rec);
		*at += rec.used;
		return true;
	}
	if (what == QSTREAM_NEED_MORE && q->body_left && have > *at) {
		size_t n = have - *at < q->body_left ? have - *at : q->body_left;

		qstream_took(q, n);
		*at += n;
		return true;
	}
	if (what == QSTREAM_NEED_MORE)
		CHECK(rec.used == 0 && rec.need > have - *at && rec.need <= QSTREAM_RECORD_MAX);
	if (what < 0)
		CHECK(what == -EPROTO && q->reason && memchr(q->detail, '\0', sizeof(q->detail)));
	return false;
}

static struct sum run(uint8_t where, uint8_t pieces, const uint8_t *bytes, size_t len)
{
	struct sum s = {.hash = 14695981039346656037u};
	uint64_t random = pieces;
	size_t at = 0, have = pieces ? 0 : len;
	struct qstream q;

	begin(&q, where);
	for (;;) {
		if (step(&q, &s, bytes, &at, have))
			continue;
		if (s.last != QSTREAM_NEED_MORE || have == len)
			break;
		random = random * 6364136223846793005u + 1442695040888963407u;
		have += 1 + (random >> 33) % (random >> 60 ? 700 : 9);
		have = have < len ? have : len;
	}
	s.position = q.position;
	CHECK(q.position == at);
	return s;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sum whole, pieces;

	if (size < 2)
		return 0;
	whole = run(data[0], 0, data + 2, size - 2);
	if (data[1] == 0)
		return 0;
	pieces = run(data[0], data[1], data + 2, size - 2);
	CHECK(whole.hash == pieces.hash && whole.last == pieces.last);
	CHECK(whole.position == pieces.position);
	return 0;
}
