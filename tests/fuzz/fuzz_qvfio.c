/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * qvfio: any bytes as the sections of a VFIO device, as heads of multifd packets and their order,
 * and as the configuration of a device.  A reader that gets all at once and one that gets little at
 * a time hear the same; no body is longer than allowed; packets are taken in order, each once.
 *
 * The first byte says what the bytes are (low two bits: sections, packets, configuration) and what
 * the rules are; the second how much the second reader gets at a time.
 */
#include "config.h"

#include "wire/qvfio.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/guard.h"
#include "target.h"
#include "wire/digest.h"
#include "wire/qvfio_config.h"
#include "wire/qvfio_packet.h"

enum { SEGMENT_MAX = 1000, TOTAL_MAX = 3000, SWITCHOVER = 4, MULTIFD = 8 };

struct heard {
	uint64_t promised, bytes, position;
	struct digest digest;
	int result;
};

static void hear(struct heard *h, int what, const struct qvfio_event *e)
{
	if (what == QVFIO_DATA) {
		CHECK(e->len > 0 && e->len <= e->used && e->len <= h->promised);
		h->promised -= e->len;
		digest_feed(&h->digest, e->at, e->len);
		return;
	}
	CHECK(h->promised == 0);
	if (what == QVFIO_SEGMENT) {
		h->bytes += e->length;
		CHECK(e->length <= SEGMENT_MAX && h->bytes <= TOTAL_MAX);
	}
	if (what == QVFIO_SEGMENT || what == QVFIO_CONFIG)
		h->promised = e->length;
	digest_feed(&h->digest, &what, sizeof(what));
}

static int step(struct qvfio_reader *r, const uint8_t *bytes, size_t len, struct heard *h,
		size_t *used)
{
	cleanup_free uint8_t *window = exactly(bytes, len);
	struct qvfio_event e;
	int what = qvfio_next(r, window, len, &e);

	CHECK(what >= 0 || (what == -EPROTO && r->reason));
	CHECK(e.used <= len && (what != QVFIO_NEED_MORE || len - e.used < QVFIO_WINDOW));
	if (what > 0)
		hear(h, what, &e);
	*used = e.used;
	return what;
}

static void read_all(const struct qvfio_rules *rules, const uint8_t *data, size_t size,
		     size_t piece, struct heard *h)
{
	struct qvfio_reader r;
	size_t at = 0, end = 0, used;
	int what = 1;

	*h = (struct heard){ .result = 0 };
	digest_init(&h->digest, 0);
	qvfio_reader_init(&r, rules);
	while (what > 0 || (what == QVFIO_NEED_MORE && end < size)) {
		if (what == QVFIO_NEED_MORE)
			end = size - end < piece ? size : end + piece;
		what = step(&r, data + at, end - at, h, &used);
		at += used;
	}
	CHECK(r.position == at);
	h->position = at;
	h->result = what;
}

static void try_sections(uint8_t how, uint8_t piece, const uint8_t *data, size_t size)
{
	struct qvfio_rules rules = { .segment = SEGMENT_MAX,
				     .total = TOTAL_MAX,
				     .shape = { .config_space = 256, .vectors = how >> 4 },
				     .switchover_ack = how & SWITCHOVER,
				     .multifd = how & MULTIFD };
	struct heard whole, pieces;

	read_all(&rules, data, size, size + 1, &whole);
	read_all(&rules, data, size, 1u + piece, &pieces);
	CHECK(whole.result == pieces.result && whole.position == pieces.position);
	CHECK(digest_value(&whole.digest) == digest_value(&pieces.digest));
}

/* Heads one behind the other; their data is left out. */
static void try_packets(const uint8_t *data, size_t size)
{
	cleanup_free struct qvfio_order *o = malloc(sizeof(*o));
	struct qvfio_packet packet;
	const char *why = NULL;
	uint32_t index, next = 0;
	int n;

	CHECK(o);
	qvfio_order_init(o, TOTAL_MAX);
	while ((n = qvfio_packet(data, size, SEGMENT_MAX, &packet, &why)) > 0) {
		uint8_t again[QVFIO_PACKET_HEAD];
		struct pen p = pen_init(again, sizeof(again));

		CHECK(n == QVFIO_PACKET_HEAD && packet.length <= SEGMENT_MAX);
		qvfio_put_packet(&p, &packet);
		CHECK(pen_used(&p) == sizeof(again));
		data += n;
		size -= (size_t)n;
		if (qvfio_order_add(o, &packet) != 0)
			break;
		for (; qvfio_order_take(o, &index); next++)
			CHECK(index == next);
		CHECK(o->held <= TOTAL_MAX);
	}
	CHECK(n >= 0 || why);
	CHECK(!qvfio_order_whole(o) || o->held == 0);
}

static void try_config(const uint8_t *data, size_t size)
{
	uint8_t own[QVFIO_CONFIG_SPACE] = { 0 }, came[QVFIO_CONFIG_SPACE] = { 0 };
	struct qvfio_device here = { .config = own, .top = UINT64_C(1) << 40 };
	struct qvfio_shape shape;
	const char *why = NULL;
	int err;

	memcpy(own, data, size < sizeof(own) ? size : sizeof(own));
	memcpy(came, own, sizeof(own));
	if (size > sizeof(own) + QVFIO_BARS)
		memcpy(came + 0x10, data + sizeof(own) + QVFIO_BARS,
		       size - sizeof(own) - QVFIO_BARS < 24 ? size - sizeof(own) - QVFIO_BARS : 24);
	for (size_t i = 0; i < QVFIO_BARS && sizeof(own) + i < size; i++)
		here.bars[i] = UINT64_C(1) << data[sizeof(own) + i] % 64;
	err = qvfio_config_check(came, &here, &why);
	CHECK(err == 0 ? !why : err == -EINVAL && why);
	if (qvfio_config_shape(came, &shape) == 0)
		CHECK(qvfio_config_length(&shape) <= 4 + 4096 + 16 + 2048 * 16 + 256);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	if ((data[0] & 3) == 0)
		try_sections(data[0], data[1], data + 2, size - 2);
	else if ((data[0] & 3) == 1)
		try_packets(data + 2, size - 2);
	else
		try_config(data + 2, size - 2);
	return 0;
}
