/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * devstate: any bytes, as a hostile sender's device state and as the greeting of its channel.  A
 * reader that gets all at once and one that gets little at a time hear the same; what they hear
 * keeps what devstate.h promises: bodies of the length they began with, inside the limits.
 *
 * The first byte is how much the second one gets at a time.
 */
#include "config.h"

#include "wire/devstate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/guard.h"
#include "target.h"
#include "wire/devsection.h"
#include "wire/devstate_parts.h"

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);

static const uint8_t session[DEVSTATE_SESSION] = "fuzz";
static const struct devstate_limits limits = { .segment = 4096, .total = 10000 };

/* What was heard: everything but how the bodies were cut. */
struct heard {
	uint64_t promised[DEVSTATE_SLOTS]; /* of the body at hand */
	struct digest digest;
	int result;
	uint64_t position;
};

static void hear(struct heard *h, const struct devstate_reader *r, int what,
		 const struct devstate_event *e)
{
	CHECK(e->slot < DEVSTATE_SLOTS && r->devices[e->slot].begun);
	CHECK(r->devices[e->slot].bytes <= limits.total);
	if (what == DEVSTATE_DATA) {
		CHECK(e->len > 0 && e->len == e->used && e->len <= h->promised[e->slot]);
		h->promised[e->slot] -= e->len;
		digest_feed(&h->digest, e->at, e->len);
		return;
	}
	if (what == DEVSTATE_SEGMENT || what == DEVSTATE_CONFIG) {
		CHECK(what == DEVSTATE_CONFIG ? e->length <= DEVSTATE_CONFIG_MAX
					      : e->length <= limits.segment);
		h->promised[e->slot] = e->length;
	}
	CHECK(what != DEVSTATE_WHOLE || h->promised[e->slot] == 0);
	CHECK(what != DEVSTATE_END || r->devices[e->slot].ended);
	digest_feed(&h->digest, &what, sizeof(what));
	digest_feed(&h->digest, &e->slot, sizeof(e->slot));
}

/* One event from a window that is exactly as large as it is said to be. */
static int step(struct devstate_reader *r, const uint8_t *bytes, size_t len, struct heard *h,
		size_t *used)
{
	cleanup_free uint8_t *window = exactly(bytes, len);
	struct devstate_event e;
	int what = devstate_next(r, window, len, &e);

	CHECK(what >= 0 || (what == -EPROTO && r->reason));
	CHECK(what > 0 ? e.used > 0 && e.used <= len : e.used == 0);
	CHECK(what != DEVSTATE_NEED_MORE || len < DEVSTATE_WINDOW);
	if (what > 0)
		hear(h, r, what, &e);
	*used = e.used;
	return what;
}

static void read_all(const uint8_t *data, size_t size, size_t piece, struct heard *h)
{
	cleanup_free struct devstate_reader *r = malloc(sizeof(*r));
	size_t at = 0, end = 0, used;
	int what = 1;

	CHECK(r);
	*h = (struct heard){ .result = 0 };
	digest_init(&h->digest, 0);
	devstate_reader_init(r, session, &limits);
	while (what > 0 || (what == DEVSTATE_NEED_MORE && end < size)) {
		if (what == DEVSTATE_NEED_MORE)
			end = size - end < piece ? size : end + piece;
		what = step(r, data + at, end - at, h, &used);
		at += used;
	}
	CHECK(r->position == at);
	h->position = at;
	h->result = what < 0 ? what : devstate_finish(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t named[DEVSTATE_SESSION];
	struct devsection section;
	const char *why = NULL;
	struct heard whole, pieces;
	int n = devstate_greeting(data, size, named, &why);

	CHECK(n == 0 || n == DEVSTATE_GREETING || (n < 0 && why));
	n = devsection_find(data, size, &section, &why);
	CHECK(n <= 0 || (section.at + section.len < section.end && section.end <= size));
	if (size == 0)
		return 0;
	read_all(data + 1, size - 1, size, &whole);
	read_all(data + 1, size - 1, 1u + data[0], &pieces);
	CHECK(whole.result == pieces.result && whole.position == pieces.position);
	CHECK(digest_value(&whole.digest) == digest_value(&pieces.digest));
	return 0;
}

static void poke(uint8_t *at, uint64_t value)
{
	struct pen p = pen_init(at, sizeof(value));

	pen_be64(&p, value);
}

/* Give a record true digests; how long it is, 0 when it is not all there. */
static size_t mend(uint8_t *at, size_t len)
{
	struct cursor c = cursor_init(at + 16, 8);
	struct pen magic = pen_init(at, 5);
	uint64_t length, digest;

	if (len < DEVSTATE_RECORD_HEAD)
		return 0;
	pen_be32(&magic, DEVSTATE_MAGIC);
	pen_u8(&magic, DEVSTATE_VERSION);
	length = cursor_be64(&c);
	digest = digest_of(at, DEVSTATE_HEAD_DIGEST, 0);
	poke(at + DEVSTATE_HEAD_DIGEST, digest);
	len -= DEVSTATE_RECORD_HEAD;
	if (length > len || len - length < DEVSTATE_RECORD_TAIL)
		return 0;
	at += DEVSTATE_RECORD_HEAD;
	poke(at + length, digest_of(at, length, digest));
	return DEVSTATE_RECORD_HEAD + length + DEVSTATE_RECORD_TAIL;
}

/* Most mutants get true digests, or none would be looked into. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
	size_t at = 1, n = 1;

	size = LLVMFuzzerMutate(data, size, max);
	if (seed % 8 == 0)
		return size;
	for (; n > 0 && at < size; at += n)
		n = mend(data + at, size - at);
	return size;
}
