/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The synthetic stream: byte for byte as written down by hand, through our own decoder and back,
 * and in pieces of every size.
 */
#include "config.h"

#include "wire/qprecopy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "lib/rng.h"
#include "wire/cursor.h"

#define PAGE 4096u

/* --- memory and a way out --------------------------------------------------------------------- */

/* What the blocks hold: a page is zero or all one byte that tells which page it is. */
struct memory {
	/* by turns: the one before must be gone when the next is asked for */
	uint8_t page[2][PAGE];
	unsigned asked, fail_at;
	uint64_t last_offset;
};

static bool is_zero_page(unsigned block, uint64_t offset)
{
	return (block + offset / PAGE) % 3 == 1;
}

static uint8_t fill_of(unsigned block, uint64_t offset)
{
	return (uint8_t)(0x40 + block * 16 + offset / PAGE % 16);
}

static int give_page(void *ctx, unsigned block, uint64_t offset, const uint8_t **data)
{
	struct memory *m = ctx;
	uint8_t *page = m->page[m->asked++ % 2];

	if (m->fail_at && m->asked == m->fail_at)
		return -ENODATA;
	m->last_offset = offset;
	if (is_zero_page(block, offset))
		return 0;
	memset(page, fill_of(block, offset), PAGE);
	*data = page;
	return 0;
}

/* The writer asks ahead by as many pages as it has pieces for. */
struct store {
	uint8_t bytes[64][PAGE];
	unsigned asked;
};

static int give_stored(void *ctx, unsigned block, uint64_t offset, const uint8_t **data)
{
	struct store *s = ctx;
	uint8_t *page = s->bytes[s->asked++ % ARRAY_LEN(s->bytes)];

	if (is_zero_page(block, offset))
		return 0;
	memset(page, fill_of(block, offset), PAGE);
	*data = page;
	return 0;
}

struct sink {
	uint8_t *bytes;
	size_t len, room;
};

static void sink_free(struct sink *s)
{
	free(s->bytes);
	s->bytes = NULL;
}
#define cleanup_sink __attribute__((cleanup(sink_free)))

static void sink_add(struct sink *s, const uint8_t *at, size_t len)
{
	while (s->room - s->len < len) {
		s->room = s->room ? 2 * s->room : 65536;
		s->bytes = realloc(s->bytes, s->room);
		cr_assert_not_null(s->bytes);
	}
	memcpy(s->bytes + s->len, at, len);
	s->len += len;
}

/* Send at most @limit bytes of the pieces, as a socket would take them. */
static size_t send_some(struct sink *s, const struct qprecopy_piece *pieces, int n, size_t limit)
{
	size_t sent = 0;

	for (int i = 0; i < n && sent < limit; i++) {
		size_t part = pieces[i].len < limit - sent ? pieces[i].len : limit - sent;

		cr_assert_gt(pieces[i].len, 0, "an empty piece");
		sink_add(s, pieces[i].at, part);
		sent += part;
	}
	return sent;
}

/* All of it; @rng: in parts of random sizes. */
static int send_all(struct sink *s, struct qprecopy *w, struct rng *rng)
{
	struct qprecopy_piece pieces[QPRECOPY_PIECES];
	int n;

	for (;;) {
		unsigned max = rng ? (unsigned)rng_between(rng, 1, QPRECOPY_PIECES) :
				     QPRECOPY_PIECES;
		size_t limit = rng ? rng_between(rng, 1, 3 * PAGE) : SIZE_MAX;

		n = qprecopy_next(w, pieces, max);
		if (n <= 0)
			return n;
		cr_assert_leq((unsigned)n, max);
		qprecopy_sent(w, send_some(s, pieces, n, limit));
	}
}

static void send_plan(struct sink *s, const struct qprecopy_plan *plan)
{
	cleanup_free struct qprecopy *w = malloc(sizeof(*w));
	const char *why = "?";

	cr_assert_eq(qprecopy_init(w, plan, &why), 0, "%s", why);
	cr_assert_null(why);
	cr_assert_eq(send_all(s, w, NULL), 0);
	cr_assert_eq(w->sent, s->len);
}

/* --- by hand ---------------------------------------------------------------------------------- */

static const struct qprecopy_block two_blocks[] = {
	{"pc.ram", 0x100000, false},
	{"rom", 0x3000, true},
};

static struct qprecopy_plan small_plan(void *ctx)
{
	return (struct qprecopy_plan){
		.machine = "pc",
		.ram_section = 2,
		.target_page = PAGE,
		.blocks = two_blocks,
		.n_blocks = 2,
		.device = (const uint8_t *)"DEVICES",
		.device_len = 7,
		.page = give_stored,
		.ctx = ctx,
	};
}

#define TEXT(sink, text) sink_add(sink, (const uint8_t *)(text), sizeof(text) - 1)

static void expect(const struct sink *got, const struct sink *want)
{
	size_t i = 0;

	while (i < got->len && i < want->len && got->bytes[i] == want->bytes[i])
		i++;
	cr_assert(i == got->len && i == want->len, "differ at byte %zu of %zu and %zu", i, got->len,
		  want->len);
}

static void put_filled(struct sink *s, uint8_t fill)
{
	uint8_t page[PAGE];

	memset(page, fill, sizeof(page));
	sink_add(s, page, sizeof(page));
}

Test(qprecopy, bytes_are_those_of_the_specification)
{
	cleanup_free struct store *store = calloc(1, sizeof(*store));
	struct qprecopy_plan plan = small_plan(store);
	struct sink got cleanup_sink = {0}, want cleanup_sink = {0};

	TEXT(&want, "QEVM\0\0\0\3\7\0\0\0\2pc"
		    "\1\0\0\0\2\3ram\0\0\0\0\0\0\0\4\0\0\0\0\0\x10\x30\4"
		    "\6pc.ram\0\0\0\0\0\x10\0\0"
		    "\3rom\0\0\0\0\0\0\x30\0"
		    "\0\0\0\0\0\0\0\x10\x7e\0\0\0\2"
		    "\2\0\0\0\2"
		    "\0\0\0\0\0\0\0\2\3rom\0"	/* page 0 of block 1 is zero */
		    "\0\0\0\0\0\0\x10\x28");
	put_filled(&want, 0x51);
	TEXT(&want, "\0\0\0\0\0\0\x20\x28");
	put_filled(&want, 0x52);
	TEXT(&want, "\0\0\0\0\0\0\0\x10\x7e\0\0\0\2"
		    "\3\0\0\0\2\0\0\0\0\0\0\0\x10\x7e\0\0\0\2"
		    "DEVICES"
		    "\0\6\0\0\0\2{}");
	send_plan(&got, &plan);
	expect(&got, &want);
}

/* The first page of a block names it whatever came before; records that go early stand in front. */
Test(qprecopy, page_bits_early_records_and_two_blocks_in_stream)
{
	static const struct qprecopy_block blocks[] = {{"a", PAGE, true}, {"b", PAGE, true}};
	cleanup_free struct store *store = calloc(1, sizeof(*store));
	struct qprecopy_plan plan = small_plan(store);
	struct sink got cleanup_sink = {0}, want cleanup_sink = {0};

	plan.page_bits = 12;
	plan.blocks = blocks;
	plan.early = (const uint8_t *)"EARLY";
	plan.early_len = 5;
	plan.device_len = 0;
	TEXT(&want, "QEVM\0\0\0\3\7\0\0\0\2pc"
		    "\5\x1e"
		    "configuration/target-page-bits\0\0\0\1\0\0\0\x0c"
		    "EARLY"
		    "\1\0\0\0\2\3ram\0\0\0\0\0\0\0\4\0\0\0\0\0\0\x20\4"
		    "\1a\0\0\0\0\0\0\x10\0\1b\0\0\0\0\0\0\x10\0"
		    "\0\0\0\0\0\0\0\x10\x7e\0\0\0\2"
		    "\2\0\0\0\2"
		    "\0\0\0\0\0\0\0\x08\1a");
	put_filled(&want, 0x40);
	TEXT(&want, "\0\0\0\0\0\0\0\2\1b\0"
		    "\0\0\0\0\0\0\0\x10\x7e\0\0\0\2"
		    "\3\0\0\0\2\0\0\0\0\0\0\0\x10\x7e\0\0\0\2"
		    "\0\6\0\0\0\2{}");
	send_plan(&got, &plan);
	expect(&got, &want);
}

Test(qprecopy, without_a_page_in_the_stream)
{
	cleanup_free struct store *store = calloc(1, sizeof(*store));
	struct qprecopy_plan plan = small_plan(store);
	struct sink got cleanup_sink = {0}, want cleanup_sink = {0};

	plan.n_blocks = 1;
	TEXT(&want, "QEVM\0\0\0\3\7\0\0\0\2pc"
		    "\1\0\0\0\2\3ram\0\0\0\0\0\0\0\4\0\0\0\0\0\x10\0\4"
		    "\6pc.ram\0\0\0\0\0\x10\0\0"
		    "\0\0\0\0\0\0\0\x10\x7e\0\0\0\2"
		    "\2\0\0\0\2\0\0\0\0\0\0\0\x10\x7e\0\0\0\2"
		    "\3\0\0\0\2\0\0\0\0\0\0\0\x10\x7e\0\0\0\2"
		    "DEVICES\0\6\0\0\0\2{}");
	send_plan(&got, &plan);
	expect(&got, &want);
	cr_assert_eq(store->asked, 0);
}

/* --- through the decoder ---------------------------------------------------------------------- */

/*
 * Our decoder serves postcopy sources and wants their ADVISE, which a precopy stream has not; it
 * goes in as a record that is early.
 */
static size_t put_advise(uint8_t *buf, size_t room)
{
	struct pen p = pen_init(buf, room);

	qstream_put_advise(&p, PAGE, PAGE);
	cr_assert_not(p.bad);
	return pen_used(&p);
}

struct seen {
	unsigned blocks, pages, zeros;
	uint64_t next[QSTREAM_MAX_BLOCKS]; /* offset that the next page of the block must have */
};

static void see_page(struct seen *seen, const struct qstream_record *rec, int what)
{
	unsigned b = rec->page.block;

	cr_assert_eq(rec->page.offset, seen->next[b]);
	seen->next[b] += PAGE;
	cr_assert_eq(what == QSTREAM_ZERO, is_zero_page(b, rec->page.offset));
	if (what == QSTREAM_ZERO) {
		seen->zeros++;
		return;
	}
	seen->pages++;
	for (unsigned i = 0; i < PAGE; i++)
		cr_assert_eq(rec->page.data[i], fill_of(b, rec->page.offset));
}

/* Decode up to the naked device state; returns where it begins. */
static size_t decode(const struct sink *s, const struct qprecopy_plan *plan, struct seen *seen)
{
	struct qstream_record rec;
	cleanup_free struct qstream *q = malloc(sizeof(*q));
	size_t at = 0;
	int what;

	qstream_init(q, QSTREAM_MAIN, NULL);
	while ((what = qstream_next(q, s->bytes + at, s->len - at, &rec)) != QSTREAM_TAIL) {
		cr_assert_gt(what, 0, "%s at %zu", q->reason, at);
		if (what == QSTREAM_HEADER)
			cr_assert_str_eq(rec.header.machine, plan->machine);
		if (what == QSTREAM_BLOCK) {
			cr_assert_str_eq(rec.block.name, plan->blocks[seen->blocks].name);
			cr_assert_eq(rec.block.length, plan->blocks[seen->blocks].length);
			seen->blocks++;
		}
		if (what == QSTREAM_PAGE || what == QSTREAM_ZERO)
			see_page(seen, &rec, what);
		at += rec.used;
	}
	cr_assert_eq(q->ram_section, plan->ram_section);
	cr_assert_eq(q->page_bits, plan->page_bits);
	return at;
}

static void random_blocks(struct rng *rng, struct qprecopy_block *blocks, char (*names)[256],
			  unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		snprintf(
			names[i], 256, "%u-%.*s", i, (int)rng_below(rng, 250),
			"/rom@etc/acpi/tables-0000:00:02.0/vga.vram-0000:00:02.0/vga.vram-a name "
			"of two hundred and fifty five bytes is legal and no machine has one, but a "
			"head must have room for it: ............................................."
			"..................................");
		blocks[i] = (struct qprecopy_block){
			names[i], PAGE * rng_between(rng, 1, i % 4 ? 5 : 80), rng_percent(rng, 60)};
	}
}

Test(qprecopy, decodes_to_what_was_planned)
{
	struct rng rng = {rng_seed()};
	cleanup_free struct qprecopy *w = malloc(sizeof(*w));
	cleanup_free struct store *store = malloc(sizeof(*store));
	struct qprecopy_block blocks[12];
	char names[12][256];
	uint8_t device[3000], advise[64];

	for (unsigned round = 0; round < 60; round++) {
		unsigned n = (unsigned)rng_between(&rng, 1, 12), pages = 0;
		struct sink got cleanup_sink = {0};
		struct seen seen = {0};
		size_t from, device_len = 0;
		const char *why;
		struct qprecopy_plan plan = {
			.machine = "pc-i440fx-7.2",
			.page_bits = rng_percent(&rng, 50) ? 12 : 0,
			.ram_section = (uint32_t)rng_next(&rng),
			.target_page = PAGE,
			.blocks = blocks,
			.n_blocks = n,
			.early = advise,
			.early_len = put_advise(advise, sizeof(advise)),
			.device = device,
			.device_len = rng_between(&rng, 1, sizeof(device)),
			.page = give_stored,
			.ctx = store,
		};

		memset(device, 0x11, sizeof(device));
		device[0] = 4;
		store->asked = 0;
		random_blocks(&rng, blocks, names, n);
		for (unsigned i = 0; i < n; i++)
			pages += blocks[i].in_stream ? (unsigned)(blocks[i].length / PAGE) : 0;
		cr_assert_eq(qprecopy_init(w, &plan, &why), 0, "%s", why);
		cr_assert_eq(send_all(&got, w, &rng), 0);
		from = decode(&got, &plan, &seen);
		cr_assert_eq(seen.blocks, n);
		cr_assert_eq(seen.pages + seen.zeros, pages);
		cr_assert_eq(store->asked, pages, "every page once");
		for (unsigned i = 0; i < n; i++)
			cr_assert_eq(seen.next[i], blocks[i].in_stream ? blocks[i].length : 0);
		cr_assert_eq(qstream_tail(got.bytes + from, got.len - from, &device_len), 1);
		cr_assert_eq(device_len, plan.device_len);
		cr_assert_arr_eq(got.bytes + from, device, device_len);
	}
}

/* --- one page at a time ----------------------------------------------------------------------- */

/* As many pages are asked for as pieces are ready, never the whole block. */
Test(qprecopy, never_holds_more_than_its_pieces)
{
	static const struct qprecopy_block blocks[] = {{"vram", 4096ull * PAGE, true}};
	cleanup_free struct store *store = calloc(1, sizeof(*store));
	cleanup_free struct qprecopy *w = malloc(sizeof(*w));
	struct qprecopy_plan plan = small_plan(store);
	struct qprecopy_piece pieces[QPRECOPY_PIECES];
	const char *why;

	plan.blocks = blocks;
	plan.n_blocks = 1;
	cr_assert_eq(qprecopy_init(w, &plan, &why), 0);
	for (unsigned before = 0; qprecopy_next(w, pieces, QPRECOPY_PIECES) > 0;) {
		cr_assert_leq(store->asked - before, QPRECOPY_PIECES + QPRECOPY_HEADS / 9);
		before = store->asked;
		qprecopy_sent(w, pieces[0].len);
	}
	cr_assert_eq(store->asked, 4096);
	cr_assert_eq(qprecopy_next(w, pieces, 1), 0, "and it stays complete");
}

Test(qprecopy, a_page_that_cannot_be_had_ends_the_stream)
{
	struct memory memory = {.fail_at = 3};
	cleanup_free struct qprecopy *w = malloc(sizeof(*w));
	struct qprecopy_plan plan = small_plan(&memory);
	struct sink got cleanup_sink = {0};
	struct qprecopy_piece piece;
	const char *why;

	plan.page = give_page;
	cr_assert_eq(qprecopy_init(w, &plan, &why), 0);
	cr_assert_eq(send_all(&got, w, NULL), -ENODATA);
	cr_assert_eq(memory.last_offset, PAGE, "the first two are sent");
	cr_assert_eq(got.bytes[got.len - 1], 0x51, "what is before the page is, whole");
	cr_assert_eq(qprecopy_next(w, &piece, 1), -ENODATA, "for good");
	cr_assert_eq(memory.asked, 3, "and it does not ask again");
}

/* --- refusals --------------------------------------------------------------------------------- */

static const char *refusal(struct qprecopy_plan plan)
{
	cleanup_free struct qprecopy *w = malloc(sizeof(*w));
	const char *why = NULL;

	cr_assert_eq(qprecopy_init(w, &plan, &why), -EINVAL);
	cr_assert_not_null(why);
	return why;
}

#define REFUSES(part, ...)                                                                         \
	do {                                                                                       \
		struct qprecopy_plan plan = small_plan(NULL);                                      \
		__VA_ARGS__;                                                                       \
		cr_assert_not_null(strstr(refusal(plan), part), "%s", refusal(plan));              \
	} while (0)

Test(qprecopy, refuses_what_no_destination_would_take)
{
	static const struct qprecopy_block odd[] = {{"a", PAGE + 1, false}};
	static const struct qprecopy_block empty[] = {{"a", 0, false}};
	static const struct qprecopy_block nameless[] = {{"", PAGE, false}};
	static const struct qprecopy_block twice[] = {{"a", PAGE, false}, {"a", PAGE, true}};
	static const struct qprecopy_block huge[] = {{"a", 1ull << 63, false},
						     {"b", 1ull << 63, false}};
	char longest[300];
	struct qprecopy_block tall[] = {{longest, PAGE, false}};

	memset(longest, 'x', sizeof(longest));
	longest[256] = '\0';
	REFUSES("machine", plan.machine = "");
	REFUSES("machine", plan.machine = NULL);
	REFUSES("machine", plan.machine = longest);
	REFUSES("page size", plan.target_page = 0);
	REFUSES("page size", plan.target_page = 512);
	REFUSES("page size", plan.target_page = 4097);
	REFUSES("header", plan.page_bits = 16);
	REFUSES("header", plan.page_bits = 11);
	REFUSES("no block", plan.n_blocks = 0);
	REFUSES("no block", plan.n_blocks = QSTREAM_MAX_BLOCKS + 1);
	REFUSES("whole pages", (plan.blocks = odd, plan.n_blocks = 1));
	REFUSES("whole pages", (plan.blocks = empty, plan.n_blocks = 1));
	REFUSES("name of a block", (plan.blocks = nameless, plan.n_blocks = 1));
	REFUSES("name of a block", (plan.blocks = tall, plan.n_blocks = 1));
	REFUSES("same name", plan.blocks = twice);
	REFUSES("address space", plan.blocks = huge);
}
