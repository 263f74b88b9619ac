/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The stream decoder on recorded migrations of QEMU 7.2 and 10.0 (F54, F55 need what it yields):
 * every byte is decoded, the way the bytes arrive does not matter, the encoders write the same
 * bytes again, a cut is never more than "more bytes wanted", and a flipped byte is never more than
 * an error.
 */
#include "config.h"

#include "wire/qstream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "golden.h"
#include "wire/cursor.h"

/* How many bytes arrive next? */
struct arrival {
	uint64_t seed; /* of random sizes; 0: @fixed bytes each time */
	size_t fixed;
};

static size_t arrive(struct arrival *a, size_t left)
{
	size_t n = a->fixed;

	if (a->seed) {
		a->seed = a->seed * 6364136223846793005u + 1442695040888963407u;
		n = 1 + (a->seed >> 33) % ((a->seed >> 20 & 3) ? 64 : 9000);
	}
	return n < left ? n : left;
}

/* A record, reduced to what must not depend on how it came in. */
struct seen {
	uint64_t event, position, a, b, digest;
};

struct run {
	struct qstream q;
	unsigned counts[QSTREAM_SECTION + 1];
	struct seen *seen;
	size_t n_seen, end; /* end: bytes of the stream consumed */
	int last;	    /* what qstream_next() said last: NEED_MORE, TAIL or an error */
	void (*look)(struct run *r, int event, const struct qstream_record *rec, const uint8_t *at);
	void *look_at;
};

static uint64_t digest(const void *bytes, size_t len)
{
	const uint8_t *at = bytes;
	uint64_t v = 14695981039346656037u;

	for (size_t i = 0; i < len; i++)
		v = (v ^ at[i]) * 1099511628211u;
	return v;
}

static struct seen see(int event, const struct qstream_record *rec, uint64_t position)
{
	struct seen s = {.event = (uint64_t)event, .position = position};

	switch (event) {
	case QSTREAM_HEADER:
		s.digest = digest(rec->header.machine, strlen(rec->header.machine));
		break;
	case QSTREAM_PING:
		s.a = rec->ping;
		break;
	case QSTREAM_ADVISE:
		s.a = rec->advise.summary;
		s.b = rec->advise.page_size;
		break;
	case QSTREAM_BLOCK:
		s.a = rec->block.length;
		s.b = rec->block.page_size;
		s.digest = digest(rec->block.name, strlen(rec->block.name));
		break;
	case QSTREAM_PAGE:
	case QSTREAM_ZERO:
	case QSTREAM_XBZRLE:
		s.a = rec->page.block;
		s.b = rec->page.offset;
		s.digest = digest(rec->page.data, rec->page.len);
		break;
	case QSTREAM_DISCARD:
		s.a = rec->discard.block;
		s.b = rec->discard.start;
		s.digest = rec->discard.length;
		break;
	case QSTREAM_PACKAGED:
		s.a = rec->packaged;
		break;
	case QSTREAM_RECV_BITMAP:
		s.a = rec->recv_bitmap.block;
		break;
	}
	return s;
}

static void record(struct run *r, int event, const struct qstream_record *rec, const uint8_t *at)
{
	cr_assert_leq(event, QSTREAM_SECTION);
	r->counts[event]++;
	r->seen = realloc(r->seen, (r->n_seen + 1) * sizeof(*r->seen));
	cr_assert_not_null(r->seen);
	r->seen[r->n_seen++] = see(event, rec, r->q.position);
	if (r->look)
		r->look(r, event, rec, at);
}

static size_t take_body(struct run *r, size_t here)
{
	size_t n = here < r->q.body_left ? here : r->q.body_left;

	qstream_took(&r->q, n);
	return n;
}

/*
 * Feed all of @bytes.
 */
static void feed(struct run *r, const uint8_t *bytes, size_t len, struct arrival a)
{
	size_t have = arrive(&a, len);
	struct qstream_record rec;

	for (r->end = 0;;) {
		const uint8_t *window = bytes + r->end;
		int what = qstream_next(&r->q, window, have - r->end, &rec);

		r->last = what;
		if (what < 0 || what == QSTREAM_TAIL)
			return;
		if (what > 0) {
			cr_assert_gt(rec.used, 0);
			cr_assert_leq(rec.used, have - r->end);
			record(r, what, &rec, window);
			r->end += rec.used;
			continue;
		}
		cr_assert_eq(rec.used, 0);
		if (r->q.body_left && have > r->end) {
			r->end += take_body(r, have - r->end);
			continue;
		}
		cr_assert_gt(rec.need, have - r->end, "asked again with what it asked for");
		cr_assert_leq(rec.need, QSTREAM_RECORD_MAX);
		if (have == len)
			return;
		have += arrive(&a, len - have);
	}
}

static void cleanup_run(struct run *r)
{
	free(r->seen);
}
#define guard_run __attribute__((cleanup(cleanup_run)))

struct golden_stream {
	const char *name, *main; /* main: the stream with the block list; NULL: this one */
	enum qstream_channel channel;
	uint32_t section;
	const char *machine;
	bool end; /* END of ram, and EOF or the tail */
	unsigned pages, zeros, xbzrle, discards, parts;
	size_t tail; /* bytes of naked device state, and what is behind it */
};

/* Counted by a second decoder, written independently of this one. */
static const struct golden_stream streams[] = {
	{"q72-plain.c0.s2d", NULL, QSTREAM_MAIN, 2, "pc-i440fx-7.2", true, 181, 972, 0, 52, 7, 0},
	{"q72-precopy.c0.s2d", NULL, QSTREAM_MAIN, 2, "pc-i440fx-7.2", true, 5, 1101, 0, 0, 1,
	 111512},
	{"q72-xbzrle.c0.s2d", NULL, QSTREAM_MAIN, 2, "pc-i440fx-7.2", true, 229, 989, 112, 0, 13,
	 111512},
	{"q72-preempt.c0.s2d", NULL, QSTREAM_MAIN, 2, "pc-i440fx-7.2", true, 167, 972, 0, 84, 22,
	 0},
	{"q72-preempt.c1.s2d", "q72-preempt.c0.s2d", QSTREAM_URGENT, 2, "", true, 46, 0, 0, 0, 0,
	 0},
	{"q100-preempt-recover.c0.s2d", NULL, QSTREAM_MAIN, 1, "pc-i440fx-10.0", false, 295, 971, 0,
	 129, 10, 0},
	{"q100-preempt-recover.c1.s2d", "q100-preempt-recover.c0.s2d", QSTREAM_URGENT, 1, "", false,
	 129, 0, 0, 0, 0, 0},
	{"q100-preempt-recover.rec.c0.s2d", "q100-preempt-recover.c0.s2d", QSTREAM_RECOVERY, 1, "",
	 true, 0, 0, 0, 0, 0, 0},
	{"q100-preempt-recover.rec.c1.s2d", "q100-preempt-recover.c0.s2d", QSTREAM_URGENT, 1, "",
	 false, 0, 0, 0, 0, 0, 0},
};

static void expected_counts(const struct golden_stream *s, unsigned counts[QSTREAM_SECTION + 1])
{
	bool urgent = s->channel == QSTREAM_URGENT, postcopy = s->discards > 0;

	counts[QSTREAM_PAGE] = s->pages;
	counts[QSTREAM_ZERO] = s->zeros;
	counts[QSTREAM_XBZRLE] = s->xbzrle;
	counts[QSTREAM_DISCARD] = s->discards;
	counts[QSTREAM_RAM_END] = s->end && !urgent;
	counts[QSTREAM_EOF] = s->end && !s->tail;
	/* heads of PART and END, ends of PART */
	counts[QSTREAM_SECTION] = 2 * s->parts + (s->end && !urgent);
	if (s->channel == QSTREAM_RECOVERY) {
		counts[QSTREAM_RECV_BITMAP] = 6;
		counts[QSTREAM_RESUME] = 1;
	}
	if (s->channel != QSTREAM_MAIN)
		return;
	counts[QSTREAM_SECTION] += 1; /* head of START */
	counts[QSTREAM_HEADER] = counts[QSTREAM_OPEN_RETURN_PATH] = counts[QSTREAM_ADVISE] = 1;
	counts[QSTREAM_BLOCK] = 6;
	counts[QSTREAM_BLOCKS_END] = 1;
	counts[QSTREAM_PACKAGED] = postcopy;
	counts[QSTREAM_PING] = postcopy ? 3 : 1;
	counts[QSTREAM_SWITCHOVER_START] = strcmp(s->machine, "pc-i440fx-10.0") == 0;
}

/* A decoder ready for @s, after the main channel's block list where it needs one. */
static void begin(struct run *r, const struct golden_stream *s)
{
	guard_run struct run earlier = {0};

	if (!s->main) {
		qstream_init(&r->q, s->channel, NULL);
		return;
	}
	cleanup_golden struct golden g = golden_load(s->main);

	qstream_init(&earlier.q, QSTREAM_MAIN, NULL);
	feed(&earlier, g.bytes, g.len, (struct arrival){.fixed = g.len});
	qstream_init(&r->q, s->channel, &earlier.q);
}

Test(qstream_golden, every_byte_is_decoded)
{
	for (size_t i = 0; i < ARRAY_LEN(streams); i++) {
		const struct golden_stream *s = &streams[i];
		cleanup_golden struct golden g = golden_load(s->name);
		unsigned counts[QSTREAM_SECTION + 1] = {0};
		guard_run struct run r = {0};

		begin(&r, s);
		feed(&r, g.bytes, g.len, (struct arrival){.fixed = g.len});
		cr_assert_eq(r.last, s->tail ? QSTREAM_TAIL : QSTREAM_NEED_MORE,
			     "%s: %s (%s) at %lu", s->name, r.q.reason, r.q.detail,
			     (unsigned long)r.q.position);
		cr_assert_eq(r.end, g.len - s->tail, "%s: %zu of %zu", s->name, r.end, g.len);
		cr_assert_eq(r.q.position, r.end);
		expected_counts(s, counts);
		cr_assert_arr_eq(r.counts, counts, sizeof(counts), "%s", s->name);
		cr_assert_eq(r.q.ram_section, s->section);
		cr_assert_eq(r.q.target_page, 4096);
	}
}

static void check_blocks(struct run *r, int event, const struct qstream_record *rec,
			 const uint8_t *at)
{
	const char *machine = r->look_at;

	(void)at;
	if (event == QSTREAM_HEADER) {
		cr_assert_str_eq(rec->header.machine, machine);
		cr_assert_eq(rec->header.page_bits, 0);
		cr_assert_not(rec->header.has_uuid);
	}
	if (event == QSTREAM_ADVISE) {
		cr_assert_eq(rec->advise.summary, 4096);
		cr_assert_eq(rec->advise.page_size, 4096);
	}
}

Test(qstream_golden, blocks_have_their_names_lengths_and_page_sizes)
{
	static const struct {
		const char *name;
		uint64_t length;
	} blocks[] = {
		{"pc.ram", 4 << 20},
		{"/rom@etc/acpi/tables", 128 << 10},
		{"pc.rom", 128 << 10},
		{"pc.bios", 64 << 10},
		{"/rom@etc/table-loader", 4096},
		{"/rom@etc/acpi/rsdp", 4096},
	};

	for (size_t i = 0; i < ARRAY_LEN(streams); i++) {
		cleanup_golden struct golden g = golden_load(streams[i].name);
		guard_run struct run r = {.look = check_blocks,
					  .look_at = (void *)streams[i].machine};

		begin(&r, &streams[i]);
		feed(&r, g.bytes, g.len, (struct arrival){.fixed = g.len});
		cr_assert_eq(r.q.n_blocks, ARRAY_LEN(blocks));
		for (size_t b = 0; b < ARRAY_LEN(blocks); b++) {
			cr_assert_str_eq(r.q.blocks[b].name, blocks[b].name);
			cr_assert_eq(r.q.blocks[b].length, blocks[b].length);
			cr_assert_eq(r.q.blocks[b].page_size, 4096);
		}
	}
}

Test(qstream_golden, how_the_bytes_arrive_does_not_matter)
{
	const struct arrival arrivals[] = {
		{.fixed = 1}, {.seed = 20251120}, {.seed = 7}, {.fixed = 4096}, {.fixed = 65536}};

	for (size_t i = 0; i < ARRAY_LEN(streams); i++) {
		cleanup_golden struct golden g = golden_load(streams[i].name);
		guard_run struct run whole = {0};

		begin(&whole, &streams[i]);
		feed(&whole, g.bytes, g.len, (struct arrival){.fixed = g.len});
		for (size_t k = 0; k < ARRAY_LEN(arrivals); k++) {
			guard_run struct run r = {0};

			begin(&r, &streams[i]);
			feed(&r, g.bytes, g.len, arrivals[k]);
			cr_assert_eq(r.n_seen, whole.n_seen, "%s seed %lu", streams[i].name,
				     (unsigned long)arrivals[k].seed);
			if (r.n_seen)
				cr_assert_arr_eq(r.seen, whole.seen, r.n_seen * sizeof(*r.seen),
						 "%s seed %lu fixed %zu", streams[i].name,
						 (unsigned long)arrivals[k].seed,
						 arrivals[k].fixed);
			cr_assert_eq(r.end, whole.end);
		}
	}
}

/* Writes what was read. */
struct rewriter {
	struct pen pen;
	const uint8_t *discard_at; /* ranges of a command come one by one */
	uint64_t ranges[12][2];
	unsigned n_ranges;
	const uint8_t *body; /* where the package's begins in the stream */
};

static void rewrite_discard(struct run *r, const struct qstream_record *rec)
{
	struct rewriter *w = r->look_at;

	w->ranges[w->n_ranges][0] = rec->discard.start;
	w->ranges[w->n_ranges++][1] = rec->discard.length;
	if (r->q.discard_left > 0)
		return;
	qstream_put_discard(&w->pen, r->q.blocks[rec->discard.block].name, w->ranges, w->n_ranges);
	w->n_ranges = 0;
}

static void rewrite_package(struct run *r, const struct qstream_record *rec, const uint8_t *body)
{
	struct rewriter *w = r->look_at;
	struct qstream_package package;

	cr_assert_eq(qstream_package(body, rec->packaged, &package), 0);
	cr_assert_eq(package.n_pings, 1);
	cr_assert_eq(package.pings[0], 3);
	cr_assert_not(package.has_commit_ping);
	cr_assert_eq(package.device_len, rec->packaged - 5 - 9 - 5);
	qstream_put_package(&w->pen, package.device, package.device_len, false);
}

/* START is written as one; so its head says nothing yet. */
static void rewrite_section(struct rewriter *w, const struct qstream *q, const uint8_t *at)
{
	if (at[0] == 2 || at[0] == 3)
		qstream_put_ram_begin(&w->pen, at[0] == 3, q->ram_section);
	else if (at[0] == 0)
		qstream_put_ram_end(&w->pen, q->ram_section);
}

static void rewrite_page(struct run *r, int event, const struct qstream_record *rec,
			 const uint8_t *at)
{
	struct rewriter *w = r->look_at;
	const char *name = at[7] & 0x20 ? NULL : r->q.blocks[rec->page.block].name;

	if (event == QSTREAM_XBZRLE) { /* no encoder: the bytes as they are */
		pen_bytes(&w->pen, at, rec->used);
		return;
	}
	qstream_put_page_head(&w->pen, rec->page.offset, name, event == QSTREAM_ZERO);
	pen_bytes(&w->pen, rec->page.data, rec->page.len);
}

static void rewrite_command(struct run *r, int event, const struct qstream_record *rec)
{
	static const uint16_t plain[] = {
		[QSTREAM_OPEN_RETURN_PATH] = QCMD_OPEN_RETURN_PATH,
		[QSTREAM_SWITCHOVER_START] = QCMD_SWITCHOVER_START,
		[QSTREAM_RESUME] = QCMD_RESUME,
		[QSTREAM_RECV_BITMAP] = QCMD_RECV_BITMAP,
	};
	struct rewriter *w = r->look_at;
	uint8_t payload[256];
	struct pen p = pen_init(payload, sizeof(payload));

	if (event == QSTREAM_RECV_BITMAP)
		pen_cstr(&p, r->q.blocks[rec->recv_bitmap.block].name);
	qstream_put_command(&w->pen, plain[event], payload, (uint16_t)pen_used(&p));
}

static void rewrite(struct run *r, int event, const struct qstream_record *rec, const uint8_t *at)
{
	struct rewriter *w = r->look_at;

	switch (event) {
	case QSTREAM_HEADER:
		qstream_put_header(&w->pen, rec->header.machine);
		break;
	case QSTREAM_PING:
		qstream_put_ping(&w->pen, rec->ping);
		break;
	case QSTREAM_ADVISE:
		qstream_put_advise(&w->pen, rec->advise.summary, rec->advise.page_size);
		break;
	case QSTREAM_BLOCK: /* with the others, at the end of the list */
		break;
	case QSTREAM_BLOCKS_END:
		qstream_put_blocks(&w->pen, r->q.ram_section, r->q.blocks, r->q.n_blocks,
				   r->q.default_page);
		break;
	case QSTREAM_PAGE:
	case QSTREAM_ZERO:
	case QSTREAM_XBZRLE:
		rewrite_page(r, event, rec, at);
		break;
	case QSTREAM_DISCARD:
		rewrite_discard(r, rec);
		break;
	case QSTREAM_PACKAGED:
		rewrite_package(r, rec, at + rec->used);
		break;
	case QSTREAM_SECTION:
		rewrite_section(w, &r->q, at);
		break;
	case QSTREAM_RAM_END:
		qstream_put_ram_end(&w->pen, r->q.ram_section);
		break;
	case QSTREAM_EOF:
		pen_bytes(&w->pen, at, rec->used);
		break;
	default:
		rewrite_command(r, event, rec);
	}
}

Test(qstream_golden, the_encoders_write_the_same_bytes)
{
	for (size_t i = 0; i < ARRAY_LEN(streams); i++) {
		cleanup_golden struct golden g = golden_load(streams[i].name);
		cleanup_free uint8_t *again = malloc(g.len + 1);
		struct rewriter w = {.pen = pen_init(again, g.len)};
		guard_run struct run r = {.look = rewrite, .look_at = &w};

		begin(&r, &streams[i]);
		feed(&r, g.bytes, g.len, (struct arrival){.fixed = g.len});
		cr_assert_not(w.pen.bad, "%s", streams[i].name);
		cr_assert_eq(pen_used(&w.pen), r.end, "%s", streams[i].name);
		if (r.end)
			cr_assert_arr_eq(again, g.bytes, r.end, "%s", streams[i].name);
	}
}

/* An exact copy, so that a sanitizer sees a read behind the last byte. */
static uint8_t *exact(const uint8_t *bytes, size_t len)
{
	uint8_t *copy = malloc(len ? len : 1);

	cr_assert_not_null(copy);
	memcpy(copy, bytes, len);
	return copy;
}

Test(qstream_golden, a_cut_wants_more)
{
	for (size_t i = 0; i < ARRAY_LEN(streams); i++) {
		cleanup_golden struct golden g = golden_load(streams[i].name);
		guard_run struct run ready = {0}, whole = {0};

		begin(&ready, &streams[i]);
		whole.q = ready.q;
		feed(&whole, g.bytes, g.len, (struct arrival){.fixed = g.len});
		for (size_t k = 0; k < whole.n_seen; k += 1 + k / 50) {
			size_t cut = whole.seen[k].position;
			cleanup_free uint8_t *some = exact(g.bytes, cut);
			guard_run struct run r = {.q = ready.q};

			feed(&r, some, cut, (struct arrival){.fixed = cut});
			cr_assert_eq(r.last, QSTREAM_NEED_MORE, "%s cut at %zu: %s",
				     streams[i].name, cut, r.q.reason);
			cr_assert_leq(r.n_seen, k + 1);
			cr_assert_geq(r.n_seen, k, "only a header needs the byte behind it");
		}
	}
}

/* POSTCOPY_TEST_SEED repeats a run. */
static uint64_t test_seed(void)
{
	const char *given = getenv("POSTCOPY_TEST_SEED");

	return given ? strtoull(given, NULL, 0) : 20251120;
}

static size_t pick(struct arrival *a, size_t n)
{
	a->seed = a->seed * 6364136223846793005u + 1442695040888963407u;
	return (a->seed >> 33) % n;
}

/* Mostly where records begin: a byte inside a page means nothing to the decoder. */
static size_t pick_byte(struct arrival *random, const struct run *whole, size_t len)
{
	size_t at = pick(random, len);

	if (whole->n_seen && pick(random, 8))
		at = whole->seen[pick(random, whole->n_seen)].position + pick(random, 40);
	return at < len ? at : len - 1;
}

/* Feed @g with one wrong byte to a decoder in the state of @ready; 1 when it found an error. */
static unsigned spoil(const struct qstream *ready, struct golden *g, size_t at, uint8_t change)
{
	guard_run struct run r = {.q = *ready};

	g->bytes[at] ^= change;
	feed(&r, g->bytes, g->len, (struct arrival){.fixed = g->len});
	g->bytes[at] ^= change;
	if (r.last == QSTREAM_NEED_MORE || r.last == QSTREAM_TAIL)
		return 0;
	cr_assert_eq(r.last, -EPROTO);
	cr_assert_not_null(r.q.reason);
	cr_assert_eq(r.q.position, r.end, "byte %zu, change %#x", at, change);
	return 1;
}

Test(qstream_golden, a_wrong_byte_is_an_error_with_a_reason_or_another_record)
{
	struct arrival random = {.seed = test_seed()};
	unsigned errors = 0;

	cr_log_info("POSTCOPY_TEST_SEED=%lu", (unsigned long)random.seed);
	for (size_t i = 0; i < ARRAY_LEN(streams); i++) {
		cleanup_golden struct golden g = golden_load(streams[i].name);
		guard_run struct run ready = {0}, whole = {0};

		begin(&ready, &streams[i]);
		whole.q = ready.q;
		feed(&whole, g.bytes, g.len, (struct arrival){.fixed = g.len});
		for (unsigned n = 0; g.len && n < 150; n++)
			errors += spoil(&ready.q, &g, pick_byte(&random, &whole, g.len),
					(uint8_t)(1 + pick(&random, 255)));
	}
	cr_assert_gt(errors, 100, "seed %lu", (unsigned long)test_seed());
}
