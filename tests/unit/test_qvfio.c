/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QEMU's sections of VFIO devices: as 7.2 and 10.2 write them (F40, S4-36, S4-25), what is refused
 * (F39, S3-44), and the order of what multifd carries (devices.md 7, VFIO v2, 7).
 */
#include "config.h"

#include "wire/qvfio.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "lib/rng.h"
#include "wire/qvfio_config.h"
#include "wire/qvfio_packet.h"

#define BYTES(text) (const uint8_t *)(text), sizeof(text) - 1

/* The wire, as written down from QEMU: one device, section 9. */
#define NAME   "\x11" "0000:00:05.0/vfio"
#define START  "\1\0\0\0\x9" NAME "\0\0\0\0\0\0\0\1"
#define PART   "\2\0\0\0\x9"
#define LAST   "\3\0\0\0\x9"
#define FULL   "\4\0\0\0\x9" NAME "\0\0\0\0\0\0\0\1"
#define FOOTER "\x7e\0\0\0\x9"
#define TAG(n) "\xff\xff\xff\xff\xef\x10\0" n
#define BE64(n) "\0\0\0\0\0\0\0" n
#define END    TAG("\1") FOOTER
#define SETUP  START TAG("\3") END
#define SPACE  "32 bytes stand for all the space" /* the shape says how long it is */
#define CONFIG FULL TAG("\2") "\0\0\0\2" SPACE "aaaabbbbccccdddd" END

static const struct qvfio_rules old_rules = {
	.segment = 1 << 16, .total = 1 << 20, .shape = { .config_space = 32 }
};

struct story {
	char text[2048];
	size_t len, data_len;
	uint8_t data[4096];
	int result; /* -ENODATA: more bytes are wanted */
	const char *reason;
};

static void hear(struct story *s, int what, const struct qvfio_event *e)
{
	static const char *const words[] = { "", "setup", "segment", "config", "", "init-sent",
					     "load-ready", "round", "saved", "configured" };

	if (what == QVFIO_DATA) {
		cr_assert(e->len && s->data_len + e->len <= sizeof(s->data));
		memcpy(s->data + s->data_len, e->at, e->len);
		s->data_len += e->len;
		return;
	}
	s->len += (size_t)snprintf(s->text + s->len, sizeof(s->text) - s->len, "%s ", words[what]);
	if (what == QVFIO_SEGMENT || what == QVFIO_CONFIG)
		s->len += (size_t)snprintf(s->text + s->len - 1, sizeof(s->text) - s->len,
					   ":%lu ", (unsigned long)e->length) - 1;
	cr_assert_lt(s->len, sizeof(s->text));
}

static void read_all(const struct qvfio_rules *rules, const uint8_t *buf, size_t len, size_t step,
		     struct story *s)
{
	struct qvfio_reader r;
	struct qvfio_event e;
	size_t at = 0, end = 0;
	int what = 0;

	*s = (struct story){ .len = 0 };
	qvfio_reader_init(&r, rules);
	while (what >= 0) {
		what = qvfio_next(&r, buf + at, end - at, &e);
		at += e.used;
		cr_assert(at <= end && r.position == at);
		if (what > 0)
			hear(s, what, &e);
		if (what != QVFIO_NEED_MORE)
			continue;
		cr_assert_lt(end - at, QVFIO_WINDOW);
		if (end == len)
			break;
		end = len - end < step ? len : end + step;
	}
	s->result = what < 0 ? what : at < len ? -ENODATA : 0;
	s->reason = r.reason;
	cr_assert_eq(s->reason != NULL, what < 0);
}

static void expect_story(const struct qvfio_rules *rules, const uint8_t *buf, size_t len,
			 const char *text, const char *data)
{
	cleanup_free struct story *s = malloc(sizeof(*s));

	for (size_t step = 1; step <= len; step++) {
		read_all(rules, buf, len, step, s);
		cr_assert_eq(s->result, 0, "step %zu: %s", step, s->reason);
		cr_assert_str_eq(s->text, text);
		cr_assert_eq(s->data_len, strlen(data) + (strstr(text, "config:") ? 52 : 0));
		cr_assert_arr_eq(s->data, data, strlen(data));
	}
}

/* 7.2 with a migration region: segments keep their sizes; an iteration without any says 0. */
Test(qvfio, F40_as_qemu_7_2_writes_it)
{
	static const char wire[] = SETUP PART TAG("\4") BE64("\0") END
		PART TAG("\4") BE64("\3") "abc" END
		LAST TAG("\4") BE64("\2") "de" TAG("\4") BE64("\0") TAG("\4") BE64("\1") "f" END
		CONFIG;

	expect_story(&old_rules, BYTES(wire),
		     "setup segment:0 round segment:3 round segment:2 segment:0 segment:1 saved "
		     "config:52 configured ",
		     "abcdef");
}

/* 10.2 with a stream: an iteration without data has only its end; 05 takes the end's place. */
Test(qvfio, F40_as_qemu_10_2_writes_it)
{
	static const char wire[] = SETUP PART TAG("\4") BE64("\3") "abc" TAG("\5") FOOTER
		PART END LAST TAG("\4") BE64("\2") "de" END CONFIG;
	struct qvfio_rules rules = old_rules;

	rules.switchover_ack = true;
	expect_story(&rules, BYTES(wire),
		     "setup segment:3 init-sent round round segment:2 saved config:52 configured ",
		     "abcde");
}

Test(qvfio, F40_beside_multifd)
{
	static const char ready[] = SETUP PART TAG("\4") BE64("\3") "abc" END
		LAST END FULL TAG("\6") FOOTER;
	static const char dummy[] = SETUP LAST END FULL END;
	struct qvfio_rules rules = old_rules;

	rules.multifd = true;
	expect_story(&rules, BYTES(ready), "setup segment:3 round saved load-ready configured ",
		     "abc");
	expect_story(&rules, BYTES(dummy), "setup saved configured ", "");
}

Test(qvfio, S4_36_what_is_written_is_what_qemu_writes)
{
	static const char want[] = SETUP PART TAG("\4") BE64("\3") "abc" TAG("\5") FOOTER
		LAST TAG("\4") BE64("\2") "de" END CONFIG;
	static const char name[] = "0000:00:05.0/vfio";
	uint8_t buf[1024];
	struct pen p = pen_init(buf, sizeof(buf));

	qvfio_put_begin(&p, QVFIO_START, 9, name, 0);
	qvfio_put_setup(&p);
	qvfio_put_footer(&p, 9);
	qvfio_put_begin(&p, QVFIO_PART, 9, name, 0);
	qvfio_put_data(&p, 3);
	pen_bytes(&p, "abc", 3);
	qvfio_put_init_sent(&p);
	qvfio_put_footer(&p, 9);
	qvfio_put_begin(&p, QVFIO_LAST, 9, name, 0);
	qvfio_put_data(&p, 2);
	pen_bytes(&p, "de", 2);
	qvfio_put_done(&p);
	qvfio_put_footer(&p, 9);
	qvfio_put_begin(&p, QVFIO_FULL, 9, name, 0);
	qvfio_put_config(&p);
	pen_be32(&p, 2);
	pen_bytes(&p, SPACE "aaaabbbbccccdddd", 48);
	qvfio_put_done(&p);
	qvfio_put_footer(&p, 9);
	cr_assert_eq(pen_used(&p), sizeof(want) - 1);
	cr_assert_arr_eq(buf, want, sizeof(want) - 1);
}

#define ROW(wire, why) { BYTES(wire), why, false, false }

static const struct {
	const uint8_t *wire;
	size_t len;
	const char *reason;
	bool switchover_ack, multifd;
} refused[] = {
	ROW(SETUP PART TAG("\7") END, "unknown tag"),
	ROW(SETUP PART TAG("\0") END, "unknown tag"),
	ROW(SETUP PART BE64("\3"), "unknown tag"),
	/* the empty iteration without its length: the end would be read as one (S4-25) */
	ROW(SETUP PART TAG("\4") TAG("\1") FOOTER, "segment is longer than allowed"),
	ROW(SETUP PART TAG("\4") "\0\0\0\0\0\1\0\1", "segment is longer than allowed"),
	ROW(SETUP PART TAG("\4") BE64("\1") "a" TAG("\4") BE64("\1"), "second segment in an iteration"),
	ROW(SETUP PART TAG("\2"), "tag in the wrong section"),
	ROW(SETUP LAST TAG("\5"), "tag in the wrong section"),
	ROW(SETUP LAST TAG("\3"), "tag in the wrong section"),
	ROW(START TAG("\4") BE64("\1"), "tag in the wrong section"),
	ROW(START TAG("\1"), "tag in the wrong section"),
	ROW(START TAG("\3") TAG("\3"), "no end where one must be"),
	ROW(SETUP LAST END FULL TAG("\4") BE64("\1"), "tag in the wrong section"),
	ROW(SETUP LAST END FULL END, "section without a configuration"),
	ROW(SETUP PART TAG("\5") FOOTER, "initial data told of without switchover-ack"),
	{ BYTES(SETUP PART TAG("\5") FOOTER PART TAG("\5") FOOTER), "initial data told of twice", true,
	  false },
	ROW(SETUP LAST END FULL TAG("\6"),
	    "configuration told of that came on no multifd channel"),
	{ BYTES(SETUP LAST TAG("\4") BE64("\1")), "segment on the main channel, beside multifd", false,
	  true },
	{ BYTES(SETUP LAST END FULL TAG("\2")),
	  "configuration on the main channel, beside multifd", false, true },
	ROW(SETUP LAST END FULL TAG("\2") "\0\0\0\2" SPACE "aaaabbbbccccdddd\5",
	    "configuration has a subsection"),
	ROW(SETUP LAST END FULL TAG("\2") "\0\0\0\2" SPACE "aaaabbbbccccdddd" TAG("\2"),
	    "no end where one must be"),
	ROW(PART, "section out of order"),
	ROW(LAST, "section out of order"),
	ROW(FULL, "section out of order"),
	ROW(SETUP START, "section out of order"),
	ROW(SETUP FULL, "section out of order"),
	ROW(SETUP LAST END PART, "section out of order"),
	ROW(SETUP LAST END LAST, "section out of order"),
	ROW(SETUP LAST END CONFIG FULL, "section out of order"),
	ROW(SETUP "\2\0\0\0\x8", "section of another id"),
	ROW("\0\0\0\0\x9", "not a section"),
	ROW("\7\0\0\0\x9", "not a section"),
	ROW(START TAG("\3") TAG("\1") "\x7e\0\0\0\x8", "section without its footer"),
	ROW(START TAG("\3") TAG("\1") "\2\0\0\0\x9", "section without its footer"),
	ROW("\1\0\0\0\x9\3ram\0\0\0\0\0\0\0\4", "section is no VFIO device's"),
	ROW("\1\0\0\0\x9\5/vfio\0\0\0\0\0\0\0\1", "section is no VFIO device's"),
	ROW("\1\0\0\0\x9" NAME "\0\0\0\0\0\0\0\2", "unknown version of a VFIO section"),
	ROW("\1\0\0\0\x9\6a\0/vfi\0\0\0\0\0\0\0\1", "malformed name"),
	ROW(SETUP LAST END "\4\0\0\0\x9\6x/vfio\0\0\0\0\0\0\0\1", "section is another device's"),
	ROW(SETUP LAST END "\4\0\0\0\x9" NAME "\0\0\0\1\0\0\0\1", "section is another device's"),
};

Test(qvfio, F39_what_is_refused)
{
	cleanup_free struct story *s = malloc(sizeof(*s));

	for (unsigned i = 0; i < ARRAY_LEN(refused); i++) {
		struct qvfio_rules rules = old_rules;

		rules.switchover_ack = refused[i].switchover_ack;
		rules.multifd = refused[i].multifd;
		for (size_t step = 1; step < 1024; step *= 7) {
			read_all(&rules, refused[i].wire, refused[i].len, step, s);
			cr_assert_eq(s->result, -EPROTO, "row %u, step %zu", i, step);
			cr_assert_str_eq(s->reason, refused[i].reason, "row %u", i);
		}
	}
}

Test(qvfio, F39_all_of_a_device_is_bounded)
{
	static const char wire[] = SETUP PART TAG("\4") BE64("\3") "abc" END
		LAST TAG("\4") BE64("\3");
	struct qvfio_rules rules = old_rules;
	cleanup_free struct story *s = malloc(sizeof(*s));

	rules.total = 5;
	read_all(&rules, BYTES(wire), 1, s);
	cr_assert_str_eq(s->reason, "device state is longer than allowed");
}

Test(qvfio, length_of_a_configuration)
{
	cr_assert_eq(qvfio_config_length(&(struct qvfio_shape){ 256, 0 }), 4 + 256 + 16);
	cr_assert_eq(qvfio_config_length(&(struct qvfio_shape){ 4096, 1 }), 4116 + 16 + 1);
	cr_assert_eq(qvfio_config_length(&(struct qvfio_shape){ 4096, 9 }), 4116 + 144 + 2);
	cr_assert_eq(qvfio_config_length(&(struct qvfio_shape){ 4096, 2048 }), 4116 + 32768 + 256);
}

/* --- the configuration against the device that is here --- */

/* A device with a 64-bit BAR of 16 KiB, an I/O BAR of 32 bytes, and a 32-bit one of 4 KiB. */
static void make_device(uint8_t config[QVFIO_CONFIG_SPACE], struct qvfio_device *here)
{
	static const uint8_t head[] = { 0x86, 0x80, 0x21, 0x15, [6] = 0x10, [8] = 1, 0, 0, 2 };
	static const uint8_t bars[] = { 0x0c, 0,    0x10, 0, 1,	   0, 0, 0,
					0x01, 0xc0, 0,	  0, 0x00, 0, 0x20, 0xfe };
	static const uint8_t caps[] = { 0x11, 0x50, 0x08, 0x80, [16] = 0x10, 0 };

	memset(config, 0, QVFIO_CONFIG_SPACE);
	memcpy(config, head, sizeof(head));
	memcpy(config + 0x10, bars, sizeof(bars));
	config[0x34] = 0x40;
	memcpy(config + 0x40, caps, sizeof(caps));
	*here = (struct qvfio_device){ .config = config,
				       .bars = { 16384, 0, 32, 4096 },
				       .top = UINT64_C(1) << 39 };
}

static const struct {
	uint8_t offset, value[4];
	const char *reason; /* NULL: right */
} changes[] = {
	{ 0x04, { 7, 0, 0x10, 0 }, NULL },
	{ 0x10, { 0x0c, 0x40, 0x10, 0 }, NULL },
	{ 0x10, { 0x0c, 0xc0, 0xff, 0xff }, NULL },
	{ 0x1c, { 0, 0xf0, 0xff, 0xff }, NULL }, /* is being sized */
	{ 0x1c, { 0, 0, 0, 0 }, NULL },		 /* not assigned */
	{ 0x00, { 0x86, 0x80, 0x22, 0x15 }, "configuration is another device's" },
	{ 0x08, { 2, 0, 0, 2 }, "configuration is of another revision or class" },
	{ 0x0c, { 0, 0, 1, 0 }, "configuration has another header" },
	{ 0x2c, { 1, 0, 0, 0 }, "configuration is another subsystem's" },
	{ 0x10, { 0x04, 0, 0x10, 0 }, "BAR of another kind" },
	{ 0x10, { 0x0d, 0, 0x10, 0 }, "BAR of another kind" },
	{ 0x10, { 0x0c, 0x10, 0x10, 0 }, "BAR is not aligned to its size" },
	{ 0x14, { 0x80, 0, 0, 0 }, "BAR is beyond what the guest can address" },
	{ 0x14, { 0xff, 0xff, 0xff, 0xff }, "BAR is beyond what the guest can address" },
	{ 0x18, { 0x01, 0, 1, 0 }, "BAR is beyond what the guest can address" },
	{ 0x18, { 0x11, 0xc0, 0, 0 }, "BAR is not aligned to its size" },
	{ 0x20, { 0, 0, 0x10, 0xfe }, "BAR that the device does not have" },
	{ 0x24, { 1, 0, 0, 0 }, "BAR that the device does not have" },
};

Test(qvfio, S4_22_hostile_bars_are_refused)
{
	uint8_t own[QVFIO_CONFIG_SPACE], came[QVFIO_CONFIG_SPACE];
	struct qvfio_device here;
	const char *why;

	make_device(own, &here);
	for (unsigned i = 0; i < ARRAY_LEN(changes); i++) {
		memcpy(came, own, sizeof(own));
		memcpy(came + changes[i].offset, changes[i].value, 4);
		cr_assert_eq(qvfio_config_check(came, &here, &why), changes[i].reason ? -EINVAL : 0,
			     "row %u", i);
		if (changes[i].reason)
			cr_assert_str_eq(why, changes[i].reason, "row %u", i);
	}
}

Test(qvfio, S4_22_bars_on_top_of_each_other)
{
	uint8_t own[QVFIO_CONFIG_SPACE], came[QVFIO_CONFIG_SPACE];
	struct qvfio_device here;
	const char *why = NULL;

	make_device(own, &here);
	memcpy(came, own, sizeof(own));
	memcpy(came + 0x10, "\x0c\0\x20\xfe\0\0\0\0", 8);
	cr_assert_eq(qvfio_config_check(came, &here, &why), -EINVAL);
	cr_assert_str_eq(why, "BARs lie on top of each other");
	memcpy(came + 0x10, "\x0c\xc0\x1f\xfe\0\0\0\0", 8);
	cr_assert_eq(qvfio_config_check(came, &here, &why), 0, "next to each other: %s", why);
}

Test(qvfio, shape_by_capabilities)
{
	uint8_t config[QVFIO_CONFIG_SPACE];
	struct qvfio_device here;
	struct qvfio_shape shape;

	make_device(config, &here);
	cr_assert_eq(qvfio_config_shape(config, &shape), 0);
	cr_assert_eq(shape.config_space, 4096);
	cr_assert_eq(shape.vectors, 9);
	config[0x51] = 0x40;
	cr_assert_eq(qvfio_config_shape(config, &shape), -EINVAL, "a loop");
	config[0x51] = 0x20;
	cr_assert_eq(qvfio_config_shape(config, &shape), -EINVAL, "into the head");
	config[6] = 0;
	cr_assert_eq(qvfio_config_shape(config, &shape), 0);
	cr_assert_eq(shape.config_space, 256);
	cr_assert_eq(shape.vectors, 0);
}

/* --- multifd --- */

static struct qvfio_packet packet_of(uint32_t index, uint32_t length, bool config)
{
	return (struct qvfio_packet){ .name = "0000:00:05.0/vfio",
				      .index = index,
				      .length = length,
				      .config = config };
}

Test(qvfio, F40_head_of_a_packet)
{
	struct qvfio_packet packet = packet_of(7, 100, true), got;
	uint8_t buf[QVFIO_PACKET_HEAD];
	struct pen p = pen_init(buf, sizeof(buf));
	const char *why = NULL;

	packet.instance = 3;
	qvfio_put_packet(&p, &packet);
	cr_assert_eq(pen_used(&p), QVFIO_PACKET_HEAD);
	cr_assert_arr_eq(buf, "\x11\x22\x33\x44\0\0\0\1\0\0\0\x40" "0000:00:05.0/vfio\0", 30);
	cr_assert_arr_eq(buf + 268, "\0\0\0\3\0\0\0\x70\0\0\0\0\0\0\0\7\0\0\0\1", 20);
	for (size_t len = 0; len < sizeof(buf); len++)
		cr_assert_eq(qvfio_packet(buf, len, 100, &got, &why), 0);
	cr_assert_eq(qvfio_packet(buf, sizeof(buf), 100, &got, &why), QVFIO_PACKET_HEAD);
	cr_assert_str_eq(got.name, packet.name);
	cr_assert(got.index == 7 && got.instance == 3 && got.length == 100 && got.config);
}

static const struct {
	unsigned offset;
	const char *bytes;
	size_t len;
	const char *reason;
} bad_packets[] = {
	{ 0, "\x11\x22\x33\x45", 4, "not a multifd packet" },
	{ 4, "\0\0\0\2", 4, "not a multifd packet" },
	{ 8, "\0\0\0\0", 4, "multifd packet without device state" },
	{ 12, "\0", 1, "malformed name" },
	{ 272, "\0\0\0\x0b", 4, "short packet" },
	{ 272, "\0\0\0\x71", 4, "packet is longer than allowed" },
	{ 272, "\xff\xff\xff\xff", 4, "packet is longer than allowed" },
	{ 276, "\0\0\0\1", 4, "unknown version of device state" },
	{ 280, "\xff\xff\xff\xff", 4, "index of a packet is out of range" },
	{ 284, "\0\0\0\2", 4, "unknown flags of device state" },
};

Test(qvfio, F39_heads_of_packets_that_are_refused)
{
	for (unsigned i = 0; i < ARRAY_LEN(bad_packets); i++) {
		struct qvfio_packet packet = packet_of(7, 100, true), got;
		uint8_t buf[QVFIO_PACKET_HEAD];
		struct pen p = pen_init(buf, sizeof(buf));
		const char *why = NULL;

		qvfio_put_packet(&p, &packet);
		memcpy(buf + bad_packets[i].offset, bad_packets[i].bytes, bad_packets[i].len);
		cr_assert_eq(qvfio_packet(buf, sizeof(buf), 100, &got, &why), -EPROTO, "row %u", i);
		cr_assert_str_eq(why, bad_packets[i].reason, "row %u", i);
	}
}

static void expect_taken(struct qvfio_order *o, const char *indices)
{
	uint32_t index;

	for (; *indices; indices++) {
		cr_assert(qvfio_order_take(o, &index));
		cr_assert_eq(index, (uint32_t)(*indices - '0'));
	}
	cr_assert_not(qvfio_order_take(o, &index));
}

static int add(struct qvfio_order *o, uint32_t index, uint32_t length, bool config)
{
	struct qvfio_packet packet = packet_of(index, length, config);

	return qvfio_order_add(o, &packet);
}

Test(qvfio, S3_44_packets_are_loaded_in_order)
{
	cleanup_free struct qvfio_order *o = malloc(sizeof(*o));

	qvfio_order_init(o, 100);
	cr_assert_eq(add(o, 2, 40, false), 0);
	expect_taken(o, "");
	cr_assert_eq(add(o, 0, 50, false), 0);
	cr_assert_eq(o->held, 90);
	expect_taken(o, "0");
	cr_assert_eq(add(o, 3, 10, true), 0);
	cr_assert_not(qvfio_order_whole(o));
	cr_assert_eq(add(o, 1, 0, false), 0);
	expect_taken(o, "123");
	cr_assert(qvfio_order_whole(o));
	cr_assert_eq(o->held, 0);
}

/* What comes: index, length, configuration; the last of them is refused. */
static const struct {
	struct {
		uint32_t index, length;
		bool config;
	} packets[4];
	unsigned n;
	const char *reason;
} bad_orders[] = {
	{ { { 1, 1, false }, { 1, 1, false } }, 2, "packet came twice" },
	{ { { 0, 1, false }, { 0, 1, false } }, 2, "packet came twice" },
	{ { { QVFIO_AHEAD, 1, false } }, 1, "packet is too far ahead" },
	{ { { UINT32_MAX - 1, 1, false } }, 1, "packet is too far ahead" },
	{ { { 1, 60, false }, { 2, 41, false } }, 2, "more packets ahead than are held" },
	{ { { 1, 1, true }, { 2, 1, false } }, 2, "packet behind the configuration" },
	{ { { 0, 1, true }, { 1, 1, false } }, 2, "packet behind the configuration" },
	{ { { 2, 1, false }, { 1, 1, true } }, 2, "packet behind the configuration" },
	{ { { 0, 1, false }, { 1, 1, false }, { 2, 1, true }, { 1, 1, true } }, 4,
	  "packet came twice" },
};

Test(qvfio, F39_packets_that_are_refused)
{
	for (unsigned i = 0; i < ARRAY_LEN(bad_orders); i++) {
		cleanup_free struct qvfio_order *o = malloc(sizeof(*o));
		uint32_t index;

		qvfio_order_init(o, 100);
		for (unsigned k = 0; k < bad_orders[i].n; k++) {
			int want = k + 1 == bad_orders[i].n ? -EPROTO : 0;

			cr_assert_eq(add(o, bad_orders[i].packets[k].index,
					 bad_orders[i].packets[k].length,
					 bad_orders[i].packets[k].config),
				     want, "row %u, packet %u", i, k);
			while (qvfio_order_take(o, &index))
				;
		}
		cr_assert_str_eq(o->reason, bad_orders[i].reason, "row %u", i);
		cr_assert_eq(add(o, 5, 1, false), -EPROTO, "for good");
		cr_assert_not(qvfio_order_whole(o));
	}
}

Test(qvfio, packets_in_random_order)
{
	struct rng rng = { rng_seed() };
	cleanup_free struct qvfio_order *o = malloc(sizeof(*o));
	uint32_t indices[3000], next = 0, index;

	for (unsigned i = 0; i < ARRAY_LEN(indices); i++)
		indices[i] = i;
	for (unsigned i = 0; i + 1 < ARRAY_LEN(indices); i++) {
		unsigned k = i + (unsigned)rng_below(&rng, 2), other = indices[k];

		indices[k] = indices[i];
		indices[i] = other;
	}
	qvfio_order_init(o, UINT64_MAX);
	for (unsigned i = 0; i < ARRAY_LEN(indices); i++) {
		cr_assert_eq(add(o, indices[i], 9, indices[i] + 1 == ARRAY_LEN(indices)), 0);
		for (; qvfio_order_take(o, &index); next++)
			cr_assert_eq(index, next);
	}
	cr_assert_eq(next, ARRAY_LEN(indices));
	cr_assert(qvfio_order_whole(o));
}
