/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Device state on its way: what was written is read again however it is cut (F35, S3-43), and every
 * truncation, every flipped bit and every record out of place is found (F35, F39, S3-44, S4-25).
 */
#include "config.h"

#include "wire/devstate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "lib/rng.h"
#include "wire/devstate_parts.h"

static const uint8_t session[DEVSTATE_SESSION] = { 0xde, 0xad, 0xbe, 0xef, 1, 2, 3, 4,
						   5,	 6,    7,    8,	   9, 10, 11, 12 };
static const struct devstate_limits limits = { .segment = 1 << 16, .total = 1 << 20 };

static struct devstate_id id_of(unsigned slot, enum devstate_kind kind, const char *device)
{
	struct devstate_id id = { .slot = slot, .kind = kind, .device = device, .compat = "x:1" };

	memcpy(id.session, session, sizeof(session));
	return id;
}

static void put_body(struct devstate_writer *w, struct pen *p, const uint8_t *bytes, size_t len,
		     bool config)
{
	if (config)
		devstate_put_config(w, p, len);
	else
		devstate_put_segment(w, p, len);
	pen_bytes(p, bytes, len);
	devstate_fed(w, bytes, len);
	devstate_put_tail(w, p);
}

/* What a reader said, in words: "B0:0 S0:3 W0 E0". */
struct story {
	char text[4096];
	size_t len;
	uint8_t data[1 << 17];
	size_t data_len;
	int result; /* of the reader, at the end */
};

static void tell(struct story *s, int what, unsigned slot, uint64_t number)
{
	static const char letters[] = " BSC-WRE";

	s->len += (size_t)snprintf(s->text + s->len, sizeof(s->text) - s->len, "%c%u", letters[what],
				   slot);
	if (what <= DEVSTATE_CONFIG)
		s->len += (size_t)snprintf(s->text + s->len, sizeof(s->text) - s->len, ":%lu",
					   (unsigned long)number);
	cr_assert_lt(s->len + 1, sizeof(s->text));
	s->text[s->len++] = ' ';
	s->text[s->len] = '\0';
}

static void hear(struct story *s, int what, const struct devstate_event *e)
{
	if (what != DEVSTATE_DATA) {
		tell(s, what, e->slot, what == DEVSTATE_BEGIN ? e->again : e->length);
		return;
	}
	cr_assert(e->len > 0 && s->data_len + e->len <= sizeof(s->data));
	memcpy(s->data + s->data_len, e->at, e->len);
	s->data_len += e->len;
}

/* Feed a window that grows by @step bytes whenever the reader wants more. */
static void read_all(struct devstate_reader *r, const uint8_t *buf, size_t len, size_t step,
		     struct story *s)
{
	size_t at = 0, end = 0;
	struct devstate_event e;
	int what = 0;

	*s = (struct story){ .len = 0 };
	while (what >= 0) {
		what = devstate_next(r, buf + at, end - at, &e);
		cr_assert(e.used <= end - at);
		if (what > 0)
			hear(s, what, &e);
		at += e.used;
		if (what != DEVSTATE_NEED_MORE)
			continue;
		cr_assert_lt(end - at, DEVSTATE_WINDOW);
		if (end == len)
			break;
		end = len - end < step ? len : end + step;
	}
	cr_assert_eq(r->position, at);
	s->result = what < 0 ? what : at < len ? -ENODATA : devstate_finish(r);
}

static struct devstate_reader *reader(void)
{
	struct devstate_reader *r = malloc(sizeof(*r));

	cr_assert_not_null(r);
	devstate_reader_init(r, session, &limits);
	return r;
}

static void read_story(const uint8_t *buf, size_t len, size_t step, struct story *s)
{
	cleanup_free struct devstate_reader *r = reader();

	read_all(r, buf, len, step, s);
	cr_assert_eq(s->result == -EPROTO, r->reason != NULL);
}

Test(devstate, sessions_as_people_write_them)
{
	static const char *const bad[] = {
		"", "0bd5dcd8-47f2-4e5b-9a4c-3d1b0a6f7e2", "0bd5dcd8-47f2-4e5b-9a4c-3d1b0a6f7e211",
		"0bd5dcd8047f2-4e5b-9a4c-3d1b0a6f7e21", "0bd5dcd8-47f2-4e5b-9a4c-3d1b0a6f7e2-",
		"gbd5dcd8-47f2-4e5b-9a4c-3d1b0a6f7e21",
	};
	static const uint8_t wanted[] = { 0x0b, 0xd5, 0xdc, 0xd8, 0x47, 0xf2, 0x4e, 0x5b,
					  0x9a, 0x4c, 0x3d, 0x1b, 0x0a, 0x6f, 0x7e, 0x21 };
	uint8_t out[DEVSTATE_SESSION];

	cr_assert_eq(devstate_session("0BD5dcd8-47f2-4e5b-9a4c-3d1b0a6f7e21", out), 0);
	cr_assert_arr_eq(out, wanted, sizeof(out));
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		cr_assert_eq(devstate_session(bad[i], out), -EINVAL, "%s", bad[i]);
}

/* Two devices, one of them in two attempts, interleaved; an empty iteration; an empty segment. */
static size_t put_sample(uint8_t *out, size_t room)
{
	struct devstate_id nic = id_of(0, DEVSTATE_STREAM, "nic0");
	struct devstate_id gpu = id_of(7, DEVSTATE_REGION, "gpu0");
	struct devstate_writer n, g;
	struct pen p = pen_init(out, room);

	devstate_put_head(&n, &p, &nic, 1);
	put_body(&n, &p, (const uint8_t *)"stale", 5, false);
	devstate_put_head(&g, &p, &gpu, 4);
	devstate_put_round(&g, &p); /* nothing to send in it (S4-25, S3-40) */
	devstate_put_head(&n, &p, &nic, 2);
	put_body(&g, &p, (const uint8_t *)"abc", 3, false);
	put_body(&n, &p, (const uint8_t *)"config", 6, true);
	put_body(&g, &p, NULL, 0, false);
	devstate_put_round(&g, &p);
	put_body(&g, &p, (const uint8_t *)"de", 2, false);
	devstate_put_end(&g, &p);
	put_body(&n, &p, (const uint8_t *)"fresh", 5, false);
	devstate_put_end(&n, &p);
	cr_assert_not(p.bad);
	return pen_used(&p);
}

Test(devstate, F35_round_trip_however_it_is_cut)
{
	uint8_t buf[4096];
	size_t len = put_sample(buf, sizeof(buf));
	cleanup_free struct story *s = malloc(sizeof(*s));

	for (size_t step = 1; step <= len; step++) {
		read_story(buf, len, step, s);
		cr_assert_eq(s->result, 0, "step %zu", step);
		cr_assert_str_eq(s->text, "B0:0 S0:5 W0 B7:0 R7 B0:1 S7:3 W7 C0:6 W0 S7:0 W7 R7 "
					  "S7:2 W7 E7 S0:5 W0 E0 ");
		cr_assert_eq(s->data_len, 21);
		cr_assert_arr_eq(s->data, "staleabcconfigdefresh", 21);
	}
}

Test(devstate, S3_43_head_tells_who_it_is)
{
	cleanup_free struct devstate_reader *r = reader();
	cleanup_free struct story *s = malloc(sizeof(*s));
	uint8_t buf[4096];

	read_all(r, buf, put_sample(buf, sizeof(buf)), 64, s);
	cr_assert_str_eq(r->devices[0].device, "nic0");
	cr_assert_str_eq(r->devices[7].device, "gpu0");
	cr_assert_str_eq(r->devices[7].compat, "x:1");
	cr_assert_eq(r->devices[0].kind, DEVSTATE_STREAM);
	cr_assert_eq(r->devices[7].kind, DEVSTATE_REGION);
	cr_assert_eq(r->devices[0].sequence, 2);
	cr_assert_eq(r->devices[7].sequence, 4);
	cr_assert_eq(r->devices[0].bytes, 5, "what came of the first attempt is void");
	cr_assert_eq(r->devices[7].segments, 3);
}

Test(devstate, F35_every_truncation_is_found)
{
	uint8_t buf[4096];
	size_t len = put_sample(buf, sizeof(buf));
	cleanup_free struct story *s = malloc(sizeof(*s));

	for (size_t cut = 1; cut < len; cut++) {
		read_story(buf, cut, len, s);
		cr_assert(s->result == -EPROTO || s->result == -ENODATA, "cut at %zu: %d", cut,
			  s->result);
	}
	read_story(buf, 0, 1, s);
	cr_assert_eq(s->result, 0, "no device at all");
}

Test(devstate, F35_every_flipped_bit_is_found)
{
	uint8_t buf[4096];
	size_t len = put_sample(buf, sizeof(buf));
	cleanup_free struct story *s = malloc(sizeof(*s));

	for (size_t bit = 0; bit < 8 * len; bit++) {
		buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
		read_story(buf, len, len, s);
		cr_assert_eq(s->result, -EPROTO, "bit %zu", bit);
		buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
}

Test(devstate, S3_44_a_damaged_length_is_not_waited_for)
{
	uint8_t buf[256];
	struct devstate_id id = id_of(0, DEVSTATE_STREAM, "nic0");
	struct devstate_writer w;
	struct pen p = pen_init(buf, sizeof(buf));
	cleanup_free struct story *s = malloc(sizeof(*s));
	size_t at;

	devstate_put_head(&w, &p, &id, 1);
	at = pen_used(&p);
	devstate_put_segment(&w, &p, 8);
	buf[at + 16] ^= 0x80;
	read_story(buf, pen_used(&p), 1, s);
	cr_assert_eq(s->result, -EPROTO);
	cr_assert_str_eq(s->text, "B0:0 ", "no body was promised to the caller");
}

/* --- records out of place, with digests that are right --- */

struct forged {
	uint8_t version, type;
	uint16_t slot;
	uint32_t sequence, number;
	uint64_t length;
	const char *body; /* length bytes */
};

static void put_forged(struct pen *p, const struct forged *f)
{
	size_t at = pen_used(p);
	uint64_t digest;

	pen_be32(p, DEVSTATE_MAGIC);
	pen_u8(p, f->version);
	pen_u8(p, f->type);
	pen_be16(p, f->slot);
	pen_be32(p, f->sequence);
	pen_be32(p, f->number);
	pen_be64(p, f->length);
	digest = digest_of(p->start + at, DEVSTATE_HEAD_DIGEST, 0);
	pen_be64(p, digest);
	if (!f->body)
		return;
	pen_bytes(p, f->body, f->length);
	pen_be64(p, digest_of(f->body, f->length, digest));
}

#define SESSION	     "\xde\xad\xbe\xef\1\2\3\4\5\6\7\x8\x9\xa\xb\xc"
#define BODY(text)   sizeof(text) - 1, text
#define NIC	     SESSION "\2\0\4nic0\3x:1"
#define END(s, b)    "\0\0\0\0\0\0\0" s "\0\0\0\0\0\0\0" b

/* Behind the HEAD of nic0 in slot 0, attempt 3, and a SEGMENT of one byte, record 1. */
static const struct {
	struct forged record;
	const char *reason; /* NULL: right */
} forgeries[] = {
	{ { 1, TYPE_ROUND, 0, 3, 2, BODY("") }, NULL },
	{ { 1, TYPE_END, 0, 3, 2, BODY(END("\1", "\1")) }, NULL },
	{ { 1, TYPE_SEGMENT, 0, 3, 2, 1 << 16, NULL }, NULL },
	{ { 1, TYPE_HEAD, 0, 4, 0, BODY(NIC) }, NULL },
	{ { 1, TYPE_HEAD, 1, 1, 0, BODY(SESSION "\1\0\4nic1\0") }, NULL },
	{ { 2, TYPE_ROUND, 0, 3, 2, BODY("") }, "another version of the device state's format" },
	{ { 1, 0, 0, 3, 2, BODY("") }, "unknown record" },
	{ { 1, 6, 0, 3, 2, BODY("") }, "unknown record" },
	{ { 1, 255, 0, 3, 2, BODY("") }, "unknown record" },
	{ { 1, TYPE_HEAD, 64, 1, 0, BODY(NIC) }, "more devices than there are slots" },
	{ { 1, TYPE_ROUND, 0, 3, 2, BODY("x") }, "record has the wrong length for its type" },
	{ { 1, TYPE_END, 0, 3, 2, BODY("") }, "record has the wrong length for its type" },
	{ { 1, TYPE_CONFIG, 0, 3, 2, 65537, NULL }, "record has the wrong length for its type" },
	{ { 1, TYPE_HEAD, 1, 1, 0, UINT64_MAX, NULL }, "record has the wrong length for its type" },
	{ { 1, TYPE_HEAD, 0, 4, 2, BODY(NIC) }, "head of a device is not its first record" },
	{ { 1, TYPE_HEAD, 1, 0, 0, BODY(NIC) }, "head of a device is not its first record" },
	{ { 1, TYPE_HEAD, 0, 3, 0, BODY(NIC) }, "attempt is not newer" },
	{ { 1, TYPE_HEAD, 0, 2, 0, BODY(NIC) }, "attempt is not newer" },
	{ { 1, TYPE_ROUND, 1, 3, 2, BODY("") }, "record of a device that has no head" },
	{ { 1, TYPE_ROUND, 0, 2, 2, BODY("") }, "record of another attempt" },
	{ { 1, TYPE_ROUND, 0, 4, 2, BODY("") }, "record of another attempt" },
	{ { 1, TYPE_ROUND, 0, 3, 1, BODY("") }, "record is lost, doubled or out of order" },
	{ { 1, TYPE_ROUND, 0, 3, 3, BODY("") }, "record is lost, doubled or out of order" },
	{ { 1, TYPE_HEAD, 0, 4, 0, BODY("\xde\xad\xbe\xef\1\2\3\4\5\6\7\x8\x9\xa\xb\0\2\0\4nic0\0") },
	  "device of another session" },
	{ { 1, TYPE_HEAD, 0, 4, 0, BODY(SESSION "\3\0\4nic0\0") },
	  "unknown kind of device state" },
	{ { 1, TYPE_HEAD, 0, 4, 0, BODY(SESSION "\1\0\4nic0\0") },
	  "device has become one of another kind" },
	{ { 1, TYPE_HEAD, 0, 4, 0, BODY(SESSION "\2\0\4nic1\0") }, "slot has another device" },
	{ { 1, TYPE_HEAD, 1, 1, 0, BODY(NIC) }, "device has another slot" },
	{ { 1, TYPE_HEAD, 1, 1, 0, BODY(SESSION "\2\1\4nic1\0") }, "head of a device is malformed" },
	{ { 1, TYPE_HEAD, 1, 1, 0, BODY(SESSION "\2\0\0\4nic1") }, "head of a device is malformed" },
	{ { 1, TYPE_HEAD, 1, 1, 0, BODY(SESSION "\2\0\4ni\n1\0") }, "head of a device is malformed" },
	{ { 1, TYPE_HEAD, 1, 1, 0, BODY(SESSION "\2\0\4nic1\0z") }, "head of a device is malformed" },
	{ { 1, TYPE_HEAD, 1, 1, 0, BODY(SESSION "\2\0\5nic1\0") }, "head of a device is malformed" },
	{ { 1, TYPE_HEAD, 1, 1, 0,
	    BODY(SESSION "\2\0\x40" "0123456789abcdef0123456789abcdef"
			 "0123456789abcdef0123456789abcdef\0") },
	  "head of a device is malformed" },
	{ { 1, TYPE_END, 0, 3, 2, BODY(END("\2", "\1")) },
	  "end of a device does not count what came" },
	{ { 1, TYPE_END, 0, 3, 2, BODY(END("\1", "\0")) },
	  "end of a device does not count what came" },
	{ { 1, TYPE_SEGMENT, 0, 3, 2, (1 << 16) + 1, NULL }, "segment is longer than allowed" },
	{ { 1, TYPE_SEGMENT, 0, 3, 2, UINT64_MAX, NULL }, "segment is longer than allowed" },
};

Test(devstate, F39_records_out_of_place)
{
	cleanup_free struct story *s = malloc(sizeof(*s));

	for (unsigned i = 0; i < ARRAY_LEN(forgeries); i++) {
		cleanup_free struct devstate_reader *r = reader();
		struct devstate_id id = id_of(0, DEVSTATE_STREAM, "nic0");
		struct devstate_writer w;
		uint8_t buf[1024];
		struct pen p = pen_init(buf, sizeof(buf));

		devstate_put_head(&w, &p, &id, 3);
		put_body(&w, &p, (const uint8_t *)"x", 1, false);
		put_forged(&p, &forgeries[i].record);
		cr_assert_not(p.bad);
		read_all(r, buf, pen_used(&p), 999, s);
		if (!forgeries[i].reason) {
			cr_assert(s->result == 0 || strstr(r->reason, "ends"), "row %u: %s", i,
				  r->reason);
			continue;
		}
		cr_assert_eq(s->result, -EPROTO, "row %u", i);
		cr_assert_str_eq(r->reason, forgeries[i].reason, "row %u", i);
	}
}

Test(devstate, F39_all_of_a_device_is_bounded)
{
	cleanup_free struct devstate_reader *r = reader();
	cleanup_free struct story *s = malloc(sizeof(*s));
	struct devstate_id id = id_of(3, DEVSTATE_REGION, "nic0");
	struct devstate_writer w;
	struct devstate_event e;
	uint8_t buf[256];
	struct pen p = pen_init(buf, sizeof(buf));

	r->limits.total = 5;
	devstate_put_head(&w, &p, &id, 1);
	put_body(&w, &p, (const uint8_t *)"abc", 3, false);
	devstate_put_segment(&w, &p, 3);
	read_all(r, buf, pen_used(&p), 1, s);
	cr_assert_eq(s->result, -EPROTO);
	cr_assert_str_eq(r->reason, "device state is longer than allowed");
	cr_assert_eq(devstate_next(r, buf, pen_used(&p), &e), -EPROTO, "for good");
	cr_assert_eq(e.used, 0);
	cr_assert_eq(devstate_finish(r), -EPROTO);
}

Test(devstate, S4_22_one_configuration_at_most)
{
	cleanup_free struct devstate_reader *r = reader();
	cleanup_free struct story *s = malloc(sizeof(*s));
	struct devstate_id id = id_of(3, DEVSTATE_REGION, "nic0");
	struct devstate_writer w;
	uint8_t buf[512];
	struct pen p = pen_init(buf, sizeof(buf));

	devstate_put_head(&w, &p, &id, 1);
	put_body(&w, &p, (const uint8_t *)"abc", 3, true);
	put_body(&w, &p, (const uint8_t *)"abc", 3, true);
	read_all(r, buf, pen_used(&p), 1, s);
	cr_assert_str_eq(r->reason, "second configuration of a device");
	cr_assert_eq(r->devices[3].bytes, 0, "it is not of the device's own state");
}

/* --- the greeting of a channel --- */

Test(devstate, F35_greeting)
{
	uint8_t buf[DEVSTATE_GREETING], got[DEVSTATE_SESSION];
	struct pen p = pen_init(buf, sizeof(buf));
	const char *why = NULL;

	devstate_put_greeting(&p, session);
	cr_assert_eq(pen_used(&p), DEVSTATE_GREETING);
	cr_assert_arr_eq(buf, "PCDEVCH1\0\0\0\1\0\0\0\x28", 16);
	for (size_t len = 0; len < DEVSTATE_GREETING; len++)
		cr_assert_eq(devstate_greeting(buf, len, got, &why), 0);
	cr_assert_eq(devstate_greeting(buf, DEVSTATE_GREETING, got, &why), DEVSTATE_GREETING);
	cr_assert_arr_eq(got, session, sizeof(session));
	for (size_t bit = 0; bit < 8 * DEVSTATE_GREETING; bit++) {
		buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
		why = NULL;
		cr_assert_eq(devstate_greeting(buf, DEVSTATE_GREETING, got, &why), -EPROTO);
		cr_assert_not_null(why);
		buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
}

Test(devstate, greeting_of_another_version_and_of_something_else)
{
	uint8_t buf[DEVSTATE_GREETING] = "PCDEVCH1\0\0\0\2\0\0\0\x28", got[DEVSTATE_SESSION];
	struct pen p = pen_init(buf + 32, 8);
	const char *why = NULL;

	pen_be64(&p, digest_of(buf, 32, 0));
	cr_assert_eq(devstate_greeting(buf, sizeof(buf), got, &why), -EPROTONOSUPPORT);
	cr_assert_eq(devstate_greeting((const uint8_t *)"QEVM\0\0\0\3", 8, got, &why), -EPROTO);
	cr_assert_str_eq(why, "no channel for device state");
}

/* --- random streams, cut at random --- */

static void put_random(struct rng *rng, struct pen *p, struct story *want)
{
	struct devstate_id id = id_of(0, DEVSTATE_REGION, "random");
	struct devstate_writer w;
	uint8_t body[300];

	*want = (struct story){ .len = 0 };
	devstate_put_head(&w, p, &id, 1);
	tell(want, DEVSTATE_BEGIN, 0, 0);
	for (unsigned n = (unsigned)rng_below(rng, 30); n-- > 0;) {
		size_t len = rng_below(rng, sizeof(body));

		if (rng_percent(rng, 20)) {
			devstate_put_round(&w, p);
			tell(want, DEVSTATE_ROUND, 0, 0);
			continue;
		}
		for (size_t i = 0; i < len; i++)
			body[i] = (uint8_t)rng_next(rng);
		put_body(&w, p, body, len, false);
		tell(want, DEVSTATE_SEGMENT, 0, len);
		tell(want, DEVSTATE_WHOLE, 0, 0);
		memcpy(want->data + want->data_len, body, len);
		want->data_len += len;
	}
	devstate_put_end(&w, p);
	tell(want, DEVSTATE_END, 0, 0);
}

Test(devstate, S3_44_segments_keep_size_and_order)
{
	struct rng rng = { rng_seed() };
	cleanup_free struct story *want = malloc(sizeof(*want)), *got = malloc(sizeof(*got));

	for (unsigned run = 0; run < 200; run++) {
		uint8_t buf[16384];
		struct pen p = pen_init(buf, sizeof(buf));

		put_random(&rng, &p, want);
		cr_assert_not(p.bad);
		read_story(buf, pen_used(&p), rng_between(&rng, 1, 700), got);
		cr_assert_eq(got->result, 0);
		cr_assert_str_eq(got->text, want->text);
		cr_assert_eq(got->data_len, want->data_len);
		cr_assert(memcmp(got->data, want->data, want->data_len) == 0);
	}
}
