/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The stream decoder on hand-made streams: what it accepts beyond the recorded ones, and every refusal
 * with its reason, the name it is about and its position.
 */
#include "config.h"

#include "wire/qstream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "wire/cursor.h"

#define MIB (1ull << 20)
#define SECTION 5

static const struct qstream_block blocks[] = {
	{ .name = "small", .length = 8 * 4096, .page_size = 4096 },
	{ .name = "/objects/huge", .length = 4 * MIB, .page_size = 2 * MIB },
	{ .name = "rom", .length = 4096, .page_size = 4096 },
};

/* How far a stream has come when the bytes of a test begin. */
enum place {
	FRESH,
	AT_CONFIGURATION,	/* behind the machine type */
	SETUP,			/* behind the header */
	ADVISED,
	IN_LIST,		/* list of 8 pages, not one block yet */
	PRECOPY,
	IN_PART,
	IN_LATER_PART,		/* a page of "small" came in an earlier one */
	IN_BODY,
	POSTCOPY,
	IN_POSTCOPY_PART,
	DONE,			/* behind END of ram */
	ENDED,			/* behind EOF */
	PRECOPY_DONE,		/* behind END of ram, and no package */
	URGENT,
	RECOVERY,
	RESUMED,
};

struct script {
	struct qstream q;
	struct qstream_record rec;
	uint8_t buf[2 * QSTREAM_RECORD_MAX];
	struct pen pen;
	size_t at;			/* decoded so far */
};

static int next(struct script *s)
{
	int what = qstream_next(&s->q, s->buf + s->at, pen_used(&s->pen) - s->at, &s->rec);

	if (what > 0)
		s->at += s->rec.used;
	return what;
}

static void put_list_head(struct pen *p, uint64_t total)
{
	pen_u8(p, 1);
	pen_be32(p, SECTION);
	pen_cstr(p, "ram");
	pen_be32(p, 0);
	pen_be32(p, 4);
	pen_be64(p, total | 4);
}

static void put_page(struct pen *p, uint64_t offset, const char *name)
{
	static const uint8_t page[4096] = { 1 };

	qstream_put_page_head(p, offset, name, false);
	pen_bytes(p, page, sizeof(page));
}

static void put_package(struct pen *p)
{
	qstream_put_package(p, "device", 6, true);
}

/* What lies between one place and the next.  A place is reached by passing all before it... */
static void put_step(struct pen *p, enum place step)
{
	switch (step) {
	case SETUP:
		qstream_put_header(p, "pc-q35-9.2");
		break;
	case ADVISED:
		qstream_put_advise(p, 2 * MIB | 4096, 4096);
		break;
	case IN_LIST:
		put_list_head(p, 8 * 4096);
		break;
	case PRECOPY:
		qstream_put_blocks(p, SECTION, blocks, ARRAY_LEN(blocks), 4096);
		break;
	case IN_PART:
	case IN_POSTCOPY_PART:
		qstream_put_ram_begin(p, false, SECTION);
		break;
	case IN_LATER_PART:
		qstream_put_ram_begin(p, false, SECTION);
		put_page(p, 0, "small");
		qstream_put_ram_end(p, SECTION);
		qstream_put_ram_begin(p, false, SECTION);
		break;
	case IN_BODY:
		put_package(p);
		break;
	case DONE:
	case PRECOPY_DONE:
		qstream_put_ram_begin(p, true, SECTION);
		qstream_put_ram_end(p, SECTION);
		break;
	case ENDED:
		pen_u8(p, 0);
		break;
	case RESUMED:
		qstream_put_command(p, QCMD_RESUME, NULL, 0);
		break;
	case AT_CONFIGURATION:
	case FRESH:
	case POSTCOPY:
	case URGENT:
	case RECOVERY:
		break;
	}
}

/* ...of its row, which ends with a zero. */
static const enum place routes[][8] = {
	[SETUP] = { SETUP },
	[ADVISED] = { SETUP, ADVISED },
	[IN_LIST] = { SETUP, ADVISED, IN_LIST },
	[PRECOPY] = { SETUP, ADVISED, PRECOPY },
	[IN_PART] = { SETUP, ADVISED, PRECOPY, IN_PART },
	[IN_LATER_PART] = { SETUP, ADVISED, PRECOPY, IN_LATER_PART },
	[IN_BODY] = { SETUP, ADVISED, PRECOPY, IN_BODY },
	[POSTCOPY] = { SETUP, ADVISED, PRECOPY, IN_BODY, POSTCOPY },
	[IN_POSTCOPY_PART] = { SETUP, ADVISED, PRECOPY, IN_BODY, IN_POSTCOPY_PART },
	[DONE] = { SETUP, ADVISED, PRECOPY, IN_BODY, DONE },
	[ENDED] = { SETUP, ADVISED, PRECOPY, IN_BODY, DONE, ENDED },
	[PRECOPY_DONE] = { SETUP, ADVISED, PRECOPY, PRECOPY_DONE },
	[RESUMED] = { RESUMED },
};

static bool has_route(enum place to)
{
	return to < ARRAY_LEN(routes) && routes[to][0] != FRESH;
}

static void walk(struct script *s, enum place to)
{
	int what;

	for (size_t i = 0; has_route(to) && routes[to][i] != FRESH; i++)
		put_step(&s->pen, routes[to][i]);
	/* The header ends where something else begins. */
	if (to == SETUP)
		qstream_put_ping(&s->pen, 1);
	if (to == AT_CONFIGURATION) {
		put_step(&s->pen, SETUP);
		return;
	}
	while ((what = next(s)) != QSTREAM_NEED_MORE) {
		cr_assert_gt(what, 0, "%s (%s)", s->q.reason, s->q.detail);
		if (what != QSTREAM_PACKAGED || to == IN_BODY)
			continue;
		s->at += s->q.body_left;
		qstream_took(&s->q, s->q.body_left);
	}
}

static struct script *begin(enum place place)
{
	struct script *s = calloc(1, sizeof(*s));
	bool later = place == URGENT || place == RECOVERY || place == RESUMED;

	cr_assert_not_null(s);
	s->pen = pen_init(s->buf, sizeof(s->buf));
	qstream_init(&s->q, QSTREAM_MAIN, NULL);
	if (later) {
		cleanup_free struct script *earlier = begin(POSTCOPY);

		qstream_init(&s->q, place == URGENT ? QSTREAM_URGENT : QSTREAM_RECOVERY, &earlier->q);
	}
	walk(s, place);
	return s;
}

#define BYTES(text) (text), sizeof(text) - 1
#define COMMAND(number, length) "\x08\0" number length
#define RAM "\3ram\0\0\0\0\0\0\0\4"

struct refusal {
	enum place place;
	const char *reason, *detail;
	const char *bytes;
	size_t len;
};

static const struct refusal refusals[] = {
	/* opening */
	{ FRESH, "wrong magic", "", BYTES("GET / HT") },
	{ FRESH, "turn off the multifd capability", "", BYTES("\x11\x22\x33\x44") },
	{ FRESH, "tls-creds", "", BYTES("\x16\3\1\2") },
	{ FRESH, "none is paused", "", BYTES("\x08\0\x0a\0") },
	{ FRESH, "obsolete version", "", BYTES("QEVM\0\0\0\2\7") },
	{ FRESH, "unknown version", "", BYTES("QEVM\0\0\0\4\7") },
	{ FRESH, "unknown version", "", BYTES("QEVM\377\377\377\377\7") },
	{ FRESH, "length of the machine type", "", BYTES("QEVM\0\0\0\3\7\0\0\0\0") },
	{ FRESH, "length of the machine type", "", BYTES("QEVM\0\0\0\3\7\0\0\1\0") },
	{ FRESH, "length of the machine type", "", BYTES("QEVM\0\0\0\3\7\377\377\377\377") },
	{ FRESH, "name of a machine type", "p?", BYTES("QEVM\0\0\0\3\7\0\0\0\2p\n") },
	{ AT_CONFIGURATION, "4 KiB", "",
	  BYTES("\5\036configuration/target-page-bits\0\0\0\1\0\0\0\15") },
	{ AT_CONFIGURATION, "4 KiB", "",
	  BYTES("\5\036configuration/target-page-bits\0\0\0\1\377\377\377\377") },
	{ AT_CONFIGURATION, "turn off this capability", "mapped-ram",
	  BYTES("\5\032configuration/capabilities\0\0\0\1\0\0\0\1\12mapped-ram") },
	{ AT_CONFIGURATION, "turn off this capability", "x-ignore-shared",
	  BYTES("\5\032configuration/capabilities\0\0\0\1\0\0\0\2\17x-ignore-shared") },
	{ AT_CONFIGURATION, "unknown version of a part", "configuration/uuid",
	  BYTES("\5\022configuration/uuid\0\0\0\2") },
	{ AT_CONFIGURATION, "unknown part", "configuration/x", BYTES("\5\017configuration/x\0\0\0\1") },
	/* records out of place */
	{ SETUP, "unknown record type", "", BYTES("\7") },
	{ SETUP, "unknown record type", "", BYTES("\x7e") },
	{ SETUP, "unknown record type", "", BYTES("\377") },
	{ SETUP, "ends before", "", BYTES("\0") },
	{ SETUP, "has not begun", "", BYTES("\2\0\0\0\5") },
	{ SETUP, "device state before the package", "dirty-bitmap", BYTES("\1\0\0\0\2\14dirty-bitmap") },
	{ ADVISED, "device state before the package", "0000:00:02.0/virtio-mem-device-early",
	  BYTES("\4\0\0\0\2\0440000:00:02.0/virtio-mem-device-early") },
	{ PRECOPY, "device state before the package", "ram", BYTES("\4\0\0\0\2" RAM) },
	{ PRECOPY, "device state before the package", "slirp", BYTES("\1\0\0\0\2\5slirp") },
	{ PRECOPY, "device state before the package", "a?b", BYTES("\1\0\0\0\2\3a\0b") },
	{ PRECOPY, "second START", "", BYTES("\1\0\0\0\5" RAM) },
	{ PRECOPY, "ends before", "", BYTES("\0") },
	{ PRECOPY, "has not begun", "", BYTES("\2\0\0\0\6") },
	{ PRECOPY, "has not begun", "", BYTES("\3\0\0\0\4") },
	{ POSTCOPY, "only PART and END", "timer", BYTES("\4\0\0\0\2\5timer") },
	{ POSTCOPY, "only PART and END", "ram", BYTES("\1\0\0\0\5" RAM) },
	{ POSTCOPY, "ends before", "", BYTES("\0") },
	{ DONE, "after the END section", "", BYTES("\2\0\0\0\5") },
	{ ENDED, "after the end of the stream", "", BYTES("\0") },
	{ ENDED, "after the end of the stream", "", BYTES("\6\0\0\0\2{}") },
	{ PRECOPY_DONE, "neither device state", "", BYTES("\2\0\0\0\5") },
	{ RECOVERY, "waiting to be recovered", "", BYTES("QEVM") },
	{ RECOVERY, "before the recovery is resumed", "", BYTES("\2\0\0\0\5") },
	{ RECOVERY, "ends before", "", BYTES("\0") },
	{ RESUMED, "has not begun", "", BYTES("\2\0\0\0\6") },
	/* commands */
	{ SETUP, "unknown command", "", BYTES("\x08\0\0\0\0") },
	{ SETUP, "unknown command", "", BYTES("\x08\0\x0c\0\0") },
	{ SETUP, "unknown command", "", BYTES("\x08\377\377\377\377") },
	{ SETUP, "wrong length", "PING", BYTES(COMMAND("\2", "\0\3")) },
	{ SETUP, "wrong length", "OPEN_RETURN_PATH", BYTES(COMMAND("\1", "\0\1")) },
	{ SETUP, "wrong length", "POSTCOPY_ADVISE", BYTES(COMMAND("\3", "\0\x11")) },
	{ SETUP, "length of POSTCOPY_ADVISE", "", BYTES(COMMAND("\3", "\0\10") "\0\0\0\0\0\0\x10\0") },
	{ SETUP, "turn on the postcopy-ram capability", "", BYTES(COMMAND("\3", "\0\0")) },
	{ SETUP, "target page size", "",
	  BYTES(COMMAND("\3", "\0\x10") "\0\0\0\0\0\0\x10\0" "\0\0\0\0\0\0\x10\1") },
	{ SETUP, "target page size", "",
	  BYTES(COMMAND("\3", "\0\x10") "\0\0\0\0\0\0\x10\0" "\0\0\0\0\0\0\2\0") },
	{ SETUP, "target page size", "",
	  BYTES(COMMAND("\3", "\0\x10") "\0\0\0\0\0\2\0\0" "\0\0\0\0\0\2\0\0") },
	{ SETUP, "target page size", "",
	  BYTES(COMMAND("\3", "\0\x10") "\0\0\0\0\0\0\x10\0" "\0\0\0\0\0\0\0\0") },
	{ SETUP, "page sizes of POSTCOPY_ADVISE", "",
	  BYTES(COMMAND("\3", "\0\x10") "\0\0\0\0\0\0\0\0" "\0\0\0\0\0\0\x10\0") },
	{ SETUP, "page sizes of POSTCOPY_ADVISE", "",
	  BYTES(COMMAND("\3", "\0\x10") "\0\0\0\0\0\0\x18\0" "\0\0\0\0\0\0\x10\0") },
	{ SETUP, "page sizes of POSTCOPY_ADVISE", "",
	  BYTES(COMMAND("\3", "\0\x10") "\1\0\0\0\0\0\x10\0" "\0\0\0\0\0\0\x10\0") },
	{ ADVISED, "second POSTCOPY_ADVISE", "",
	  BYTES(COMMAND("\3", "\0\x10") "\0\0\0\0\0\0\x10\0" "\0\0\0\0\0\0\x10\0") },
	{ PRECOPY, "out of place", "POSTCOPY_ADVISE", BYTES(COMMAND("\3", "\0\x10")) },
	{ PRECOPY, "out of place", "OPEN_RETURN_PATH", BYTES(COMMAND("\1", "\0\0")) },
	{ PRECOPY, "belongs into the package", "POSTCOPY_LISTEN", BYTES(COMMAND("\4", "\0\0")) },
	{ PRECOPY, "belongs into the package", "POSTCOPY_RUN", BYTES(COMMAND("\5", "\0\0")) },
	{ PRECOPY, "x-colo", "ENABLE_COLO", BYTES(COMMAND("\10", "\0\0")) },
	{ SETUP, "out of place", "PACKAGED", BYTES(COMMAND("\7", "\0\4")) },
	{ PRECOPY, "too short", "", BYTES(COMMAND("\7", "\0\4") "\0\0\0\x09") },
	{ POSTCOPY, "out of place", "PACKAGED", BYTES(COMMAND("\7", "\0\4")) },
	{ POSTCOPY, "out of place", "POSTCOPY_RAM_DISCARD", BYTES(COMMAND("\6", "\0\x14")) },
	{ POSTCOPY, "out of place", "SWITCHOVER_START", BYTES(COMMAND("\13", "\0\0")) },
	{ PRECOPY, "out of place", "POSTCOPY_RESUME", BYTES(COMMAND("\11", "\0\0")) },
	{ PRECOPY, "out of place", "RECV_BITMAP", BYTES(COMMAND("\12", "\0\2")) },
	{ RESUMED, "out of place", "RECV_BITMAP", BYTES(COMMAND("\12", "\0\2")) },
	{ RECOVERY, "length of RECV_BITMAP", "", BYTES(COMMAND("\12", "\0\3") "\3ro") },
	{ RECOVERY, "length of RECV_BITMAP", "", BYTES(COMMAND("\12", "\0\5") "\3romx") },
	{ RECOVERY, "bitmap wanted", "rim", BYTES(COMMAND("\12", "\0\4") "\3rim") },
	/* discards */
	{ ADVISED, "out of place", "POSTCOPY_RAM_DISCARD", BYTES(COMMAND("\6", "\0\x16")) },
	{ PRECOPY, "wrong length", "POSTCOPY_RAM_DISCARD", BYTES(COMMAND("\6", "\0\x13")) },
	{ PRECOPY, "malformed", "", BYTES(COMMAND("\6", "\0\x16") "\1\3rom\0") },
	{ PRECOPY, "malformed", "", BYTES(COMMAND("\6", "\0\x16") "\0\3rom\1") },
	{ PRECOPY, "length of POSTCOPY_RAM_DISCARD", "", BYTES(COMMAND("\6", "\0\x15") "\0\3rom\0") },
	{ PRECOPY, "length of POSTCOPY_RAM_DISCARD", "", BYTES(COMMAND("\6", "\0\x17") "\0\3rom\0") },
	{ PRECOPY, "length of POSTCOPY_RAM_DISCARD", "", BYTES(COMMAND("\6", "\0\x14") "\0\3rom\0") },
	{ PRECOPY, "discard in a block", "rum", BYTES(COMMAND("\6", "\0\x16") "\0\3rum\0") },
	{ PRECOPY, "discard in a block", "", BYTES(COMMAND("\6", "\0\x23") "\0\0\0") },
	{ PRECOPY, "outside of its block", "rom",
	  BYTES(COMMAND("\6", "\0\x16") "\0\3rom\0" "\0\0\0\0\0\0\0\0" "\0\0\0\0\0\0\x20\0") },
	{ PRECOPY, "outside of its block", "rom",
	  BYTES(COMMAND("\6", "\0\x16") "\0\3rom\0" "\0\0\0\0\0\0\0\0" "\0\0\0\0\0\0\0\0") },
	{ PRECOPY, "outside of its block", "rom",
	  BYTES(COMMAND("\6", "\0\x16") "\0\3rom\0" "\377\377\377\377\377\377\xf0\0" "\0\0\0\0\0\0\x10\0") },
	{ PRECOPY, "outside of its block", "small",
	  BYTES(COMMAND("\6", "\0\x18") "\0\5small\0" "\0\0\0\0\0\0\x10\0" "\377\377\377\377\377\377\xf0\0") },
	{ PRECOPY, "whole pages", "small",
	  BYTES(COMMAND("\6", "\0\x18") "\0\5small\0" "\0\0\0\0\0\0\x10\0" "\0\0\0\0\0\0\x08\0") },
	{ PRECOPY, "whole pages", "/objects/huge",
	  BYTES(COMMAND("\6", "\0\x20") "\0\15/objects/huge\0" "\0\0\0\0\0\0\x10\0" "\0\0\0\0\0\x20\0\0") },
	/* block list */
	{ SETUP, "turn on the postcopy-ram capability", "", BYTES("\1\0\0\0\2" RAM) },
	{ ADVISED, "unknown version of the section", "",
	  BYTES("\1\0\0\0\2\3ram\0\0\0\0\0\0\0\3\0\0\0\0\0\0\x10\4") },
	{ ADVISED, "unknown version of the section", "",
	  BYTES("\1\0\0\0\2\3ram\0\0\0\1\0\0\0\4\0\0\0\0\0\0\x10\4") },
	{ ADVISED, "without a block list", "", BYTES("\1\0\0\0\2" RAM "\0\0\0\0\0\0\x10\x14") },
	{ ADVISED, "without a block list", "", BYTES("\1\0\0\0\2" RAM "\0\0\0\0\0\0\0\4") },
	{ IN_LIST, "malformed name", "", BYTES("\0") },
	{ IN_LIST, "malformed name", "a?", BYTES("\2a\0") },
	{ IN_LIST, "malformed name", "?", BYTES("\1\x7f") },
	{ IN_LIST, "multiple of its page size", "a", BYTES("\1a\0\0\0\0\0\0\0\0" "\1b\0\0\0\0\0\0") },
	{ IN_LIST, "multiple of its page size", "a", BYTES("\1a\0\0\0\0\0\0\x10\1" "\1b\0\0\0\0\0\0") },
	{ IN_LIST, "multiple of its page size", "a", BYTES("\1a\0\0\0\0\0\0\x10\0" "\0\0\0\0\0\x20\0\0") },
	{ IN_LIST, "longer together", "a", BYTES("\1a\0\0\0\0\0\0\x90\0" "\1b\0\0\0\0\0\0") },
	{ IN_LIST, "longer together", "a", BYTES("\1a\377\377\377\377\377\377\xf0\0" "\1b\0\0\0\0\0\0") },
	/* pages */
	{ IN_PART, "before any with one", "", BYTES("\0\0\0\0\0\0\0\x28") },
	{ IN_PART, "before any with one", "", BYTES("\0\0\0\0\0\0\0\x22") },
	{ IN_PART, "not in the list", "nil", BYTES("\0\0\0\0\0\0\0\x08\3nil") },
	{ IN_PART, "not in the list", "", BYTES("\0\0\0\0\0\0\0\x08\0") },
	{ IN_PART, "not in the list", "rom?", BYTES("\0\0\0\0\0\0\0\x08\4rom\0") },
	{ IN_PART, "not in the list", "ro", BYTES("\0\0\0\0\0\0\0\x08\2ro") },
	{ IN_PART, "beyond the end", "rom", BYTES("\0\0\0\0\0\0\x10\x08\3rom") },
	{ IN_PART, "beyond the end", "rom", BYTES("\377\377\377\377\377\377\xf0\x02\3rom") },
	{ IN_LATER_PART, "beyond the end", "small", BYTES("\0\0\0\0\0\0\x80\x28") },
	{ IN_PART, "other than zero", "", BYTES("\0\0\0\0\0\0\0\x02\3rom\1") },
	{ IN_PART, "obsolete", "", BYTES("\0\0\0\0\0\0\0\1") },
	{ IN_PART, "block list outside", "", BYTES("\0\0\0\0\0\0\x10\4") },
	{ IN_PART, "RDMA", "", BYTES("\0\0\0\0\0\0\0\x80") },
	{ IN_PART, "turn off the compress capability", "", BYTES("\0\0\0\0\0\0\1\0") },
	{ IN_PART, "turn off the multifd capability", "", BYTES("\0\0\0\0\0\0\2\0") },
	{ IN_PART, "unknown flag", "", BYTES("\0\0\0\0\0\0\4\0") },
	{ IN_PART, "unknown flag", "", BYTES("\0\0\0\0\0\0\x08\x08") },
	{ IN_PART, "contradict", "", BYTES("\0\0\0\0\0\0\0\x0a") },
	{ IN_PART, "contradict", "", BYTES("\0\0\0\0\0\0\0\x20") },
	{ IN_PART, "contradict", "", BYTES("\0\0\0\0\0\0\0\0") },
	{ IN_PART, "contradict", "", BYTES("\0\0\0\0\0\0\x10\x10") },
	{ IN_PART, "contradict", "", BYTES("\0\0\0\0\0\0\0\x30") },
	{ IN_PART, "footer", "", BYTES("\0\0\0\0\0\0\0\x10\2\0\0\0\5") },
	{ IN_PART, "footer", "", BYTES("\0\0\0\0\0\0\0\x10\x7e\0\0\0\6") },
	{ IN_PART, "unknown encoding", "", BYTES("\0\0\0\0\0\0\0\x40\3rom\2\0\1") },
	{ IN_PART, "longer than a page", "", BYTES("\0\0\0\0\0\0\0\x40\3rom\1\0\0") },
	{ IN_PART, "longer than a page", "", BYTES("\0\0\0\0\0\0\0\x40\3rom\1\x10\1") },
	{ IN_POSTCOPY_PART, "XBZRLE page after the package", "", BYTES("\0\0\0\0\0\0\0\x40\3rom\1\0\1x") },
	{ URGENT, "XBZRLE page after the package", "", BYTES("\0\0\0\0\0\0\0\x40\3rom\1\0\1x") },
	{ URGENT, "before any with one", "", BYTES("\0\0\0\0\0\0\0\x28") },
	{ URGENT, "unknown flag", "", BYTES("\0\0\0\0\0\0\4\0") },
	{ URGENT, "a new migration", "", BYTES("QEVM\0\0\0\3") },
	{ URGENT, "multifd channel", "", BYTES("\x11\x22\x33\x44\0\0\0\1") },
	{ URGENT, "turn off the multifd capability", "", BYTES("\0\0\0\0\0\0\2\0") },
};

Test(qstream, refusals)
{
	for (size_t i = 0; i < ARRAY_LEN(refusals); i++) {
		const struct refusal *r = &refusals[i];
		cleanup_free struct script *s = begin(r->place);
		uint64_t position = s->q.position;

		pen_bytes(&s->pen, r->bytes, r->len);
		cr_assert_eq(next(s), -EPROTO, "row %zu (%s) is accepted", i, r->reason);
		cr_assert_not_null(strstr(s->q.reason, r->reason), "row %zu: %s, not %s", i,
				   s->q.reason, r->reason);
		cr_assert_str_eq(s->q.detail, r->detail, "row %zu: %s", i, r->reason);
		cr_assert_eq(s->q.position, position, "row %zu", i);
		cr_assert_eq(qstream_next(&s->q, (const uint8_t *)"\0", 1, &s->rec), -EPROTO);
		cr_assert_not_null(strstr(s->q.reason, r->reason), "the first error stays");
	}
}

/* Every refusal fires as soon as its last byte is there, and none before. */
Test(qstream, a_refusal_cut_short_wants_more_or_is_the_same_refusal)
{
	for (size_t i = 0; i < ARRAY_LEN(refusals); i++) {
		const struct refusal *r = &refusals[i];

		for (size_t len = 0; len < r->len; len++) {
			cleanup_free struct script *s = begin(r->place);

			pen_bytes(&s->pen, r->bytes, len);
			int what = next(s);

			cr_assert_leq(what, 0, "row %zu cut to %zu", i, len);
			if (what < 0)
				cr_assert_not_null(strstr(s->q.reason, r->reason), "row %zu: %s", i,
						   s->q.reason);
			else
				cr_assert_gt(s->rec.need, pen_used(&s->pen) - s->at);
		}
	}
}

static void expect_block(const struct script *s, const struct qstream_block *want)
{
	cr_assert_str_eq(s->rec.block.name, want->name);
	cr_assert_eq(s->rec.block.length, want->length);
	cr_assert_eq(s->rec.block.page_size, want->page_size);
}

Test(qstream, block_list_with_two_page_sizes)
{
	cleanup_free struct script *s = begin(ADVISED);

	put_step(&s->pen, PRECOPY);
	cr_assert_eq(next(s), QSTREAM_SECTION);
	for (size_t i = 0; i < ARRAY_LEN(blocks); i++) {
		cr_assert_eq(next(s), QSTREAM_BLOCK);
		expect_block(s, &blocks[i]);
	}
	cr_assert_eq(next(s), QSTREAM_BLOCKS_END);
	cr_assert(s->q.footers);
	cr_assert_eq(s->q.ram_section, SECTION);
	cr_assert_eq(s->q.default_page, 4096);
}

/* Then every block carries its size, also the smallest one (the source's host page is smaller). */
Test(qstream, block_list_of_huge_pages_only)
{
	static const struct qstream_block huge[] = {
		{ .name = "m0", .length = 2 * MIB, .page_size = 2 * MIB },
		{ .name = "m1", .length = 2048 * MIB, .page_size = 1024 * MIB },
	};
	cleanup_free struct script *s = begin(FRESH);

	put_step(&s->pen, SETUP);
	qstream_put_advise(&s->pen, 1026 * MIB, 4096);
	qstream_put_blocks(&s->pen, SECTION, huge, 2, 4096);
	cr_assert_eq(next(s), QSTREAM_HEADER);
	cr_assert_eq(next(s), QSTREAM_ADVISE);
	cr_assert_eq(next(s), QSTREAM_SECTION);
	cr_assert_eq(next(s), QSTREAM_BLOCK);
	expect_block(s, &huge[0]);
	cr_assert_eq(next(s), QSTREAM_BLOCK);
	expect_block(s, &huge[1]);
	cr_assert_eq(next(s), QSTREAM_BLOCKS_END);
}

/* A 64 KiB host: the lowest bit of the summary is the default, though target pages are smaller. */
Test(qstream, default_page_size_is_the_smallest_one)
{
	static const struct qstream_block block = { "m", 1 * MIB, 65536 };
	cleanup_free struct script *s = begin(FRESH);

	put_step(&s->pen, SETUP);
	qstream_put_advise(&s->pen, 65536, 4096);
	qstream_put_blocks(&s->pen, SECTION, &block, 1, 65536);
	cr_assert_eq(next(s), QSTREAM_HEADER);
	cr_assert_eq(next(s), QSTREAM_ADVISE);
	cr_assert_eq(next(s), QSTREAM_SECTION);
	cr_assert_eq(next(s), QSTREAM_BLOCK);
	expect_block(s, &block);
}

Test(qstream, page_sizes_of_the_list_are_those_of_advise)
{
	cleanup_free struct script *s = begin(ADVISED);

	qstream_put_blocks(&s->pen, SECTION, blocks, 1, 4096);
	cr_assert_eq(next(s), QSTREAM_SECTION);
	cr_assert_eq(next(s), QSTREAM_BLOCK);
	cr_assert_eq(next(s), -EPROTO);
	cr_assert_not_null(strstr(s->q.reason, "not those of ADVISE"));
}

static void refuse_list_end(const char *bytes, size_t len, const char *reason)
{
	cleanup_free struct script *s = begin(IN_LIST);

	pen_cstr(&s->pen, "all");
	pen_be64(&s->pen, 8 * 4096);
	pen_bytes(&s->pen, bytes, len);
	cr_assert_eq(next(s), QSTREAM_BLOCK);
	cr_assert_eq(next(s), -EPROTO);
	cr_assert_not_null(strstr(s->q.reason, reason), "%s", s->q.reason);
}

Test(qstream, list_ends_where_its_total_says)
{
	refuse_list_end(BYTES("\1b\0\0\0\0\0\0\x10\0\0\0\0\0\0\0"), "does not end");
	refuse_list_end(BYTES("\0\0\0\0\0\0\2\0"), "turn off the multifd capability");
}

Test(qstream, a_block_is_listed_once)
{
	cleanup_free struct script *s = begin(IN_LIST);

	for (int i = 0; i < 2; i++) {
		pen_cstr(&s->pen, "twin");
		pen_be64(&s->pen, 4 * 4096);
	}
	pen_be64(&s->pen, 0x10);
	cr_assert_eq(next(s), QSTREAM_BLOCK);
	cr_assert_eq(next(s), -EPROTO);
	cr_assert_not_null(strstr(s->q.reason, "listed twice"));
	cr_assert_str_eq(s->q.detail, "twin");
}

/* @n blocks of one page; returns what the list ended with. */
static int list_of(unsigned n, size_t name_len)
{
	cleanup_free struct qstream_block *many = calloc(n, sizeof(*many));
	cleanup_free struct script *s = begin(FRESH);
	int what;

	cr_assert_not_null(many);
	for (unsigned i = 0; i < n; i++) {
		memset(many[i].name, 'n', name_len);
		many[i].name[0] = (char)('!' + i);
		many[i].length = many[i].page_size = 4096;
	}
	put_step(&s->pen, SETUP);
	qstream_put_advise(&s->pen, 4096, 4096);
	qstream_put_blocks(&s->pen, SECTION, many, n, 4096);
	cr_assert_not(s->pen.bad);
	while ((what = next(s)) > 0 && what != QSTREAM_BLOCKS_END)
		if (what == QSTREAM_BLOCK)
			expect_block(s, &many[s->q.n_blocks - 1]);
	if (what < 0)
		cr_assert_not_null(strstr(s->q.reason, "more blocks than"));
	return what;
}

Test(qstream, limits_of_the_block_list)
{
	cr_assert_eq(list_of(QSTREAM_MAX_BLOCKS, 255), QSTREAM_BLOCKS_END);
	cr_assert_eq(list_of(QSTREAM_MAX_BLOCKS, 1), QSTREAM_BLOCKS_END);
	cr_assert_eq(list_of(QSTREAM_MAX_BLOCKS + 1, 1), -EPROTO);
}

Test(qstream, lengths_near_the_top_of_the_address_space)
{
	cleanup_free struct script *s = begin(ADVISED);

	put_list_head(&s->pen, -8192ull);
	pen_cstr(&s->pen, "a");
	pen_be64(&s->pen, -12288ull);
	pen_cstr(&s->pen, "b");
	pen_be64(&s->pen, 8192);
	pen_be64(&s->pen, 0x10);
	cr_assert_eq(next(s), QSTREAM_SECTION);
	cr_assert_eq(next(s), QSTREAM_BLOCK);
	cr_assert_eq(next(s), -EPROTO, "the sum must not wrap");
	cr_assert_not_null(strstr(s->q.reason, "longer together"));
}

/* Old machine types: no configuration, no footers (their absence is seen once, behind the list). */
Test(qstream, machine_types_without_configuration_and_footers)
{
	cleanup_free struct script *s = begin(FRESH);

	pen_be32(&s->pen, 0x5145564d);
	pen_be32(&s->pen, 3);
	qstream_put_advise(&s->pen, 4096, 4096);
	put_list_head(&s->pen, 4096);
	pen_cstr(&s->pen, "ram0");
	pen_be64(&s->pen, 4096);
	pen_be64(&s->pen, 0x10);
	qstream_put_ram_begin(&s->pen, false, SECTION);
	put_page(&s->pen, 0, "ram0");
	pen_be64(&s->pen, 0x10);
	put_package(&s->pen);
	cr_assert_eq(next(s), QSTREAM_HEADER);
	cr_assert_str_empty(s->rec.header.machine);
	cr_assert_eq(next(s), QSTREAM_ADVISE);
	cr_assert_eq(next(s), QSTREAM_SECTION);
	cr_assert_eq(next(s), QSTREAM_BLOCK);
	cr_assert_eq(next(s), QSTREAM_BLOCKS_END);
	cr_assert_not(s->q.footers);
	cr_assert_eq(next(s), QSTREAM_SECTION);
	cr_assert_eq(next(s), QSTREAM_PAGE);
	cr_assert_eq(next(s), QSTREAM_SECTION);
	cr_assert_eq(s->rec.used, 8);
	cr_assert_eq(next(s), QSTREAM_PACKAGED);
}

Test(qstream, configuration_with_every_part)
{
	cleanup_free struct script *s = begin(AT_CONFIGURATION);
	static const char parts[] = "\5\036configuration/target-page-bits\0\0\0\1\0\0\0\14"
				    "\5\032configuration/capabilities\0\0\0\1\0\0\0\0"
				    "\5\022configuration/uuid\0\0\0\1" "0123456789abcdef";

	pen_bytes(&s->pen, parts, sizeof(parts) - 1);
	cr_assert_eq(next(s), QSTREAM_NEED_MORE, "another part may follow");
	cr_assert_eq(s->rec.need, pen_used(&s->pen) + 1);
	qstream_put_advise(&s->pen, 4096, 16384);
	cr_assert_eq(next(s), QSTREAM_HEADER);
	cr_assert_str_eq(s->rec.header.machine, "pc-q35-9.2");
	cr_assert_eq(s->rec.header.page_bits, 12);
	cr_assert(s->rec.header.has_uuid);
	cr_assert_arr_eq(s->rec.header.uuid, "0123456789abcdef", 16);
	cr_assert_eq(next(s), -EPROTO);
	cr_assert_not_null(strstr(s->q.reason, "not that of the header"));
}

Test(qstream, a_configuration_without_an_end_is_refused)
{
	cleanup_free struct script *s = begin(AT_CONFIGURATION);
	static const char uuid[] = "\5\022configuration/uuid\0\0\0\1" "0123456789abcdef";
	int what = QSTREAM_NEED_MORE;

	while (what == QSTREAM_NEED_MORE && pen_used(&s->pen) <= QSTREAM_RECORD_MAX + sizeof(uuid)) {
		pen_bytes(&s->pen, uuid, sizeof(uuid) - 1);
		what = next(s);
	}
	cr_assert_eq(what, -EPROTO);
	cr_assert_not_null(strstr(s->q.reason, "longer than any"));
}

Test(qstream, the_longest_records_fit_their_limit)
{
	cleanup_free struct script *s = begin(FRESH);
	static const uint8_t page[65536];
	struct qstream_block block = { .length = 65536, .page_size = 65536 };

	memset(block.name, 'b', 255);
	put_step(&s->pen, SETUP);
	qstream_put_advise(&s->pen, 65536, 65536);
	qstream_put_blocks(&s->pen, SECTION, &block, 1, 65536);
	qstream_put_ram_begin(&s->pen, false, SECTION);
	qstream_put_page_head(&s->pen, 0, block.name, false);
	for (int what = 1; what > 0;)
		what = next(s);
	cr_assert_null(s->q.reason);
	cr_assert_eq(s->rec.need, 8 + 256 + 65536);
	cr_assert_lt(s->rec.need, QSTREAM_RECORD_MAX);
	pen_bytes(&s->pen, page, sizeof(page));
	cr_assert_eq(next(s), QSTREAM_PAGE);
	cr_assert_eq(s->rec.page.len, 65536);
	cr_assert_eq(s->rec.page.data, s->buf + s->at - 65536);
}

Test(qstream, discard_yields_its_ranges_one_by_one)
{
	cleanup_free struct script *s = begin(PRECOPY);
	uint64_t ranges[12][2];

	for (unsigned i = 0; i < 12; i++) {
		ranges[i][0] = 4096 * (i % 8);
		ranges[i][1] = 4096;
	}
	qstream_put_discard(&s->pen, "small", ranges, 12);
	qstream_put_discard(&s->pen, "/objects/huge", &(uint64_t[2]){ 0, 4 * MIB }, 1);
	qstream_put_ping(&s->pen, 2);
	for (unsigned i = 0; i < 12; i++) {
		cr_assert_eq(next(s), QSTREAM_DISCARD, "%s", s->q.reason);
		cr_assert_eq(s->rec.discard.block, 0);
		cr_assert_eq(s->rec.discard.start, ranges[i][0]);
		cr_assert_eq(s->rec.discard.length, ranges[i][1]);
		cr_assert_eq(s->q.discard_left, 11 - i);
	}
	cr_assert_eq(next(s), QSTREAM_DISCARD);
	cr_assert_eq(s->rec.discard.block, 1);
	cr_assert_eq(s->rec.discard.length, 4 * MIB);
	cr_assert_eq(next(s), QSTREAM_PING);
	cr_assert_eq(s->rec.ping, 2);
}

Test(qstream, a_bad_range_is_refused_where_it_stands)
{
	cleanup_free struct script *s = begin(PRECOPY);
	static const uint64_t ranges[][2] = { { 0, 4096 }, { 4096, 4096 }, { 8 * 4096, 4096 } };

	qstream_put_discard(&s->pen, "small", ranges, 3);
	cr_assert_eq(next(s), QSTREAM_DISCARD);
	cr_assert_eq(next(s), QSTREAM_DISCARD);
	uint64_t position = s->q.position;

	cr_assert_eq(next(s), -EPROTO);
	cr_assert_eq(s->q.position, position);
	cr_assert_str_eq(s->q.detail, "small");
}

Test(qstream, pages_of_every_kind)
{
	cleanup_free struct script *s = begin(IN_PART);

	put_page(&s->pen, 7 * 4096, "small");
	qstream_put_page_head(&s->pen, 6 * 4096, NULL, true);
	qstream_put_page_head(&s->pen, 0, "rom", true);
	put_page(&s->pen, 0, NULL);
	pen_be64(&s->pen, 0x60);
	pen_bytes(&s->pen, "\1\0\3abc", 6);
	cr_assert_eq(next(s), QSTREAM_PAGE);
	cr_assert_eq(s->rec.page.block, 0);
	cr_assert_eq(s->rec.page.offset, 7 * 4096);
	cr_assert_eq(s->rec.page.len, 4096);
	cr_assert_eq(s->rec.page.data[0], 1);
	cr_assert_eq(next(s), QSTREAM_ZERO);
	cr_assert_eq(s->rec.page.block, 0);
	cr_assert_eq(s->rec.page.offset, 6 * 4096);
	cr_assert_null(s->rec.page.data);
	cr_assert_eq(next(s), QSTREAM_ZERO);
	cr_assert_eq(s->rec.page.block, 2);
	cr_assert_eq(next(s), QSTREAM_PAGE);
	cr_assert_eq(s->rec.page.block, 2);
	cr_assert_eq(next(s), QSTREAM_XBZRLE);
	cr_assert_eq(s->rec.page.len, 3);
	cr_assert_arr_eq(s->rec.page.data, "abc", 3);
}

Test(qstream, last_block_outlives_its_section)
{
	cleanup_free struct script *s = begin(IN_LATER_PART);

	put_page(&s->pen, 4096, NULL);
	cr_assert_eq(next(s), QSTREAM_PAGE);
	cr_assert_eq(s->rec.page.block, 0);
	cr_assert_eq(s->rec.page.offset, 4096);
}

/* A page is short until its last byte; then it wants exactly the bytes of the record. */
Test(qstream, a_page_in_pieces)
{
	cleanup_free struct script *s = begin(IN_PART);

	put_page(&s->pen, 0, "small");
	for (size_t len = 0; len < 8 + 6 + 4096; len++) {
		cr_assert_eq(qstream_next(&s->q, s->buf + s->at, len, &s->rec), QSTREAM_NEED_MORE);
		cr_assert_eq(s->rec.used, 0);
		if (len >= 8 + 6)
			cr_assert_eq(s->rec.need, 8 + 6 + 4096);
	}
	cr_assert_eq(next(s), QSTREAM_PAGE);
}

/* QEMU >= 10.1 flushes with one; a source whose pages all go to the urgent channel sends many. */
Test(qstream, empty_sections_give_their_bytes_back)
{
	cleanup_free struct script *s = begin(PRECOPY);

	for (unsigned i = 0; i < 2; i++) {
		qstream_put_ram_begin(&s->pen, false, SECTION);
		qstream_put_ram_end(&s->pen, SECTION);
		cr_assert_eq(next(s), QSTREAM_SECTION);
		cr_assert_eq(s->rec.used, 5);
		cr_assert_eq(next(s), QSTREAM_SECTION);
		cr_assert_eq(s->rec.used, 13);
		cr_assert_eq(next(s), QSTREAM_NEED_MORE);
	}
}

Test(qstream, package_waits_for_its_body)
{
	cleanup_free struct script *s = begin(PRECOPY);

	put_package(&s->pen);
	qstream_put_ping(&s->pen, 4);
	cr_assert_eq(next(s), QSTREAM_PACKAGED);
	cr_assert_eq(s->rec.packaged, 5 + 6 + 9 + 9 + 5);
	cr_assert(s->q.packaged);
	cr_assert_eq(next(s), QSTREAM_NEED_MORE);
	cr_assert_eq(s->rec.need, s->q.body_left);
	qstream_took(&s->q, 30);
	s->at += 30;
	cr_assert_eq(next(s), QSTREAM_NEED_MORE);
	cr_assert_eq(s->rec.need, 4);
	qstream_took(&s->q, 4);
	s->at += 4;
	cr_assert_eq(next(s), QSTREAM_PING);
	cr_assert_eq(s->q.position, s->at);
}

Test(qstream, the_largest_package_does_not_ask_for_more_than_a_window)
{
	cleanup_free struct script *s = begin(PRECOPY);

	qstream_put_command(&s->pen, QCMD_PACKAGED, "\377\377\377\377", 4);
	cr_assert_eq(next(s), QSTREAM_PACKAGED);
	cr_assert_eq(s->rec.packaged, UINT32_MAX);
	cr_assert_eq(next(s), QSTREAM_NEED_MORE);
	cr_assert_eq(s->rec.need, QSTREAM_RECORD_MAX);
	qstream_took(&s->q, UINT32_MAX);
	put_step(&s->pen, DONE);
	s->at = s->pen.at - s->buf - 18;
	cr_assert_eq(next(s), QSTREAM_SECTION);
	cr_assert_eq(next(s), QSTREAM_RAM_END);
	cr_assert_gt(s->q.position, UINT32_MAX);
}

Test(qstream, end_of_ram_may_carry_pages)
{
	cleanup_free struct script *s = begin(POSTCOPY);

	qstream_put_ram_begin(&s->pen, true, SECTION);
	put_page(&s->pen, 0, "rom");
	qstream_put_ram_end(&s->pen, SECTION);
	qstream_put_ping(&s->pen, 9);
	pen_u8(&s->pen, 0);
	cr_assert_eq(next(s), QSTREAM_SECTION);
	cr_assert_eq(next(s), QSTREAM_PAGE);
	cr_assert_eq(next(s), QSTREAM_RAM_END);
	cr_assert_eq(next(s), QSTREAM_PING);
	cr_assert_eq(next(s), QSTREAM_EOF);
	cr_assert_eq(next(s), QSTREAM_NEED_MORE);
}

static void expect_tail(const char *bytes, size_t len)
{
	cleanup_free struct script *s = begin(PRECOPY_DONE);
	size_t at = s->at;

	pen_bytes(&s->pen, bytes, len);
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(next(s), QSTREAM_TAIL, "for ever");
		cr_assert_eq(s->rec.used, 0);
		cr_assert_eq(s->at, at);
	}
}

Test(qstream, precopy_ends_in_the_tail)
{
	expect_tail(BYTES("\4"));
	expect_tail(BYTES("\4\0\0\0\0\5timer"));
	expect_tail(BYTES("\0\6\0\0\0\2{}"));
}

Test(qstream, recovery_keeps_section_and_blocks)
{
	cleanup_free struct script *s = begin(RECOVERY);

	qstream_put_command(&s->pen, QCMD_RECV_BITMAP, "\3rom", 4);
	qstream_put_command(&s->pen, QCMD_RESUME, NULL, 0);
	qstream_put_ram_begin(&s->pen, false, SECTION);
	put_page(&s->pen, 0, "rom");
	cr_assert_eq(s->q.position, 0);
	cr_assert_eq(next(s), QSTREAM_RECV_BITMAP);
	cr_assert_eq(s->rec.recv_bitmap.block, 2);
	cr_assert_eq(next(s), QSTREAM_RESUME);
	cr_assert_eq(next(s), QSTREAM_SECTION);
	cr_assert_eq(next(s), QSTREAM_PAGE);
}

Test(qstream, the_last_block_is_forgotten_with_the_connection)
{
	cleanup_free struct script *first = begin(POSTCOPY);
	cleanup_free struct script *s = begin(FRESH);

	qstream_put_ram_begin(&first->pen, false, SECTION);
	put_page(&first->pen, 0, "small");
	cr_assert_eq(next(first), QSTREAM_SECTION);
	cr_assert_eq(next(first), QSTREAM_PAGE);
	qstream_init(&s->q, QSTREAM_URGENT, &first->q);
	put_page(&s->pen, 0, NULL);
	cr_assert_eq(next(s), -EPROTO);
	cr_assert_not_null(strstr(s->q.reason, "before any with one"));
}

Test(qstream, urgent_channel_ends_with_its_word)
{
	cleanup_free struct script *s = begin(URGENT);

	qstream_put_page_head(&s->pen, 0, "rom", true);
	put_page(&s->pen, 0, NULL);
	put_page(&s->pen, 0, "small");
	pen_be64(&s->pen, 0x10);
	cr_assert_eq(next(s), QSTREAM_ZERO);
	cr_assert_eq(next(s), QSTREAM_PAGE);
	cr_assert_eq(s->rec.page.block, 2);
	cr_assert_eq(next(s), QSTREAM_PAGE);
	cr_assert_eq(next(s), QSTREAM_EOF);
	cr_assert_eq(next(s), QSTREAM_NEED_MORE);
	pen_u8(&s->pen, 0);
	cr_assert_eq(next(s), -EPROTO);
}
