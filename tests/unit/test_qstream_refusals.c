/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every way to refuse a stream (qemu-wire 15.12): the reason, the name it is about, and the
 * position of the record; once the bytes that matter are there, and none before.
 */
#include "config.h"

#include "script.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"

struct refusal {
	enum place place;
	const char *reason, *detail;
	const char *bytes;
	size_t len;
};

static const struct refusal refusals[] = {
	/* opening */
	{FRESH, "wrong magic", "", BYTES("GET / HT")},
	{FRESH, "turn off the multifd capability", "", BYTES("\x11\x22\x33\x44")},
	{FRESH, "tls-creds", "", BYTES("\x16\3\1\2")},
	{FRESH, "none is paused", "", BYTES("\x08\0\x0a\0")},
	{FRESH, "obsolete version", "", BYTES("QEVM\0\0\0\2\7")},
	{FRESH, "unknown version", "", BYTES("QEVM\0\0\0\4\7")},
	{FRESH, "unknown version", "", BYTES("QEVM\377\377\377\377\7")},
	{FRESH, "length of the machine type", "", BYTES("QEVM\0\0\0\3\7\0\0\0\0")},
	{FRESH, "length of the machine type", "", BYTES("QEVM\0\0\0\3\7\0\0\1\0")},
	{FRESH, "length of the machine type", "", BYTES("QEVM\0\0\0\3\7\377\377\377\377")},
	{FRESH, "name of a machine type", "p?", BYTES("QEVM\0\0\0\3\7\0\0\0\2p\n")},
	{AT_CONFIGURATION, "4 KiB", "",
	 BYTES("\5\036configuration/target-page-bits\0\0\0\1\0\0\0\15")},
	{AT_CONFIGURATION, "4 KiB", "",
	 BYTES("\5\036configuration/target-page-bits\0\0\0\1\377\377\377\377")},
	{AT_CONFIGURATION, "turn off this capability", "mapped-ram",
	 BYTES("\5\032configuration/capabilities\0\0\0\1\0\0\0\1\12mapped-ram")},
	{AT_CONFIGURATION, "turn off this capability", "x-ignore-shared",
	 BYTES("\5\032configuration/capabilities\0\0\0\1\0\0\0\2\17x-ignore-shared")},
	{AT_CONFIGURATION, "unknown version of a part", "configuration/uuid",
	 BYTES("\5\022configuration/uuid\0\0\0\2")},
	{AT_CONFIGURATION, "unknown part", "configuration/x",
	 BYTES("\5\017configuration/x\0\0\0\1")},
	/* records out of place */
	{SETUP, "unknown record type", "", BYTES("\7")},
	{SETUP, "unknown record type", "", BYTES("\x7e")},
	{SETUP, "unknown record type", "", BYTES("\377")},
	{SETUP, "ends before", "", BYTES("\0")},
	{SETUP, "has not begun", "", BYTES("\2\0\0\0\5")},
	{SETUP, "device state before the package", "dirty-bitmap",
	 BYTES("\1\0\0\0\2\14dirty-bitmap")},
	{ADVISED, "device state before the package", "0000:00:02.0/virtio-mem-device-early",
	 BYTES("\4\0\0\0\2\0440000:00:02.0/virtio-mem-device-early")},
	{PRECOPY, "device state before the package", "ram", BYTES("\4\0\0\0\2" RAM)},
	{PRECOPY, "device state before the package", "slirp", BYTES("\1\0\0\0\2\5slirp")},
	{PRECOPY, "device state before the package", "a?b", BYTES("\1\0\0\0\2\3a\0b")},
	{PRECOPY, "second START", "", BYTES("\1\0\0\0\5" RAM)},
	{PRECOPY, "ends before", "", BYTES("\0")},
	{PRECOPY, "has not begun", "", BYTES("\2\0\0\0\6")},
	{PRECOPY, "has not begun", "", BYTES("\3\0\0\0\4")},
	{POSTCOPY, "only PART and END", "timer", BYTES("\4\0\0\0\2\5timer")},
	{POSTCOPY, "only PART and END", "ram", BYTES("\1\0\0\0\5" RAM)},
	{POSTCOPY, "ends before", "", BYTES("\0")},
	{DONE, "after the END section", "", BYTES("\2\0\0\0\5")},
	{ENDED, "after the end of the stream", "", BYTES("\0")},
	{ENDED, "after the end of the stream", "", BYTES("\6\0\0\0\2{}")},
	{PRECOPY_DONE, "neither device state", "", BYTES("\2\0\0\0\5")},
	{RECOVERY, "waiting to be recovered", "", BYTES("QEVM")},
	{RECOVERY, "before the recovery is resumed", "", BYTES("\2\0\0\0\5")},
	{RECOVERY, "ends before", "", BYTES("\0")},
	{RESUMED, "has not begun", "", BYTES("\2\0\0\0\6")},
	/* commands */
	{SETUP, "unknown command", "", BYTES("\x08\0\0\0\0")},
	{SETUP, "unknown command", "", BYTES("\x08\0\x0c\0\0")},
	{SETUP, "unknown command", "", BYTES("\x08\377\377\377\377")},
	{SETUP, "wrong length", "PING", BYTES(COMMAND("\2", "\0\3"))},
	{SETUP, "wrong length", "OPEN_RETURN_PATH", BYTES(COMMAND("\1", "\0\1"))},
	{SETUP, "wrong length", "POSTCOPY_ADVISE", BYTES(COMMAND("\3", "\0\x11"))},
	{SETUP, "length of POSTCOPY_ADVISE", "",
	 BYTES(COMMAND("\3", "\0\10") "\0\0\0\0\0\0\x10\0")},
	{SETUP, "turn on the postcopy-ram capability", "", BYTES(COMMAND("\3", "\0\0"))},
	{SETUP, "target page size", "",
	 BYTES(COMMAND("\3", "\0\x10") "\0\0\0\0\0\0\x10\0"
				       "\0\0\0\0\0\0\x10\1")},
	{SETUP, "target page size", "",
	 BYTES(COMMAND("\3", "\0\x10") "\0\0\0\0\0\0\x10\0"
				       "\0\0\0\0\0\0\2\0")},
	{SETUP, "target page size", "",
	 BYTES(COMMAND("\3", "\0\x10") "\0\0\0\0\0\2\0\0"
				       "\0\0\0\0\0\2\0\0")},
	{SETUP, "target page size", "",
	 BYTES(COMMAND("\3", "\0\x10") "\0\0\0\0\0\0\x10\0"
				       "\0\0\0\0\0\0\0\0")},
	{SETUP, "page sizes of POSTCOPY_ADVISE", "",
	 BYTES(COMMAND("\3", "\0\x10") "\0\0\0\0\0\0\0\0"
				       "\0\0\0\0\0\0\x10\0")},
	{SETUP, "page sizes of POSTCOPY_ADVISE", "",
	 BYTES(COMMAND("\3", "\0\x10") "\0\0\0\0\0\0\x18\0"
				       "\0\0\0\0\0\0\x10\0")},
	{SETUP, "page sizes of POSTCOPY_ADVISE", "",
	 BYTES(COMMAND("\3", "\0\x10") "\1\0\0\0\0\0\x10\0"
				       "\0\0\0\0\0\0\x10\0")},
	{ADVISED, "second POSTCOPY_ADVISE", "",
	 BYTES(COMMAND("\3", "\0\x10") "\0\0\0\0\0\0\x10\0"
				       "\0\0\0\0\0\0\x10\0")},
	{PRECOPY, "out of place", "POSTCOPY_ADVISE", BYTES(COMMAND("\3", "\0\x10"))},
	{PRECOPY, "out of place", "OPEN_RETURN_PATH", BYTES(COMMAND("\1", "\0\0"))},
	{PRECOPY, "belongs into the package", "POSTCOPY_LISTEN", BYTES(COMMAND("\4", "\0\0"))},
	{PRECOPY, "belongs into the package", "POSTCOPY_RUN", BYTES(COMMAND("\5", "\0\0"))},
	{PRECOPY, "x-colo", "ENABLE_COLO", BYTES(COMMAND("\10", "\0\0"))},
	{SETUP, "out of place", "PACKAGED", BYTES(COMMAND("\7", "\0\4"))},
	{PRECOPY, "too short", "", BYTES(COMMAND("\7", "\0\4") "\0\0\0\x09")},
	{POSTCOPY, "out of place", "PACKAGED", BYTES(COMMAND("\7", "\0\4"))},
	{POSTCOPY, "out of place", "POSTCOPY_RAM_DISCARD", BYTES(COMMAND("\6", "\0\x14"))},
	{POSTCOPY, "out of place", "SWITCHOVER_START", BYTES(COMMAND("\13", "\0\0"))},
	{PRECOPY, "out of place", "POSTCOPY_RESUME", BYTES(COMMAND("\11", "\0\0"))},
	{PRECOPY, "out of place", "RECV_BITMAP", BYTES(COMMAND("\12", "\0\2"))},
	{RESUMED, "out of place", "RECV_BITMAP", BYTES(COMMAND("\12", "\0\2"))},
	{RECOVERY, "length of RECV_BITMAP", "", BYTES(COMMAND("\12", "\0\3") "\3ro")},
	{RECOVERY, "length of RECV_BITMAP", "", BYTES(COMMAND("\12", "\0\5") "\3romx")},
	{RECOVERY, "bitmap wanted", "rim", BYTES(COMMAND("\12", "\0\4") "\3rim")},
	/* discards */
	{ADVISED, "out of place", "POSTCOPY_RAM_DISCARD", BYTES(COMMAND("\6", "\0\x16"))},
	{PRECOPY, "wrong length", "POSTCOPY_RAM_DISCARD", BYTES(COMMAND("\6", "\0\x13"))},
	{PRECOPY, "malformed", "", BYTES(COMMAND("\6", "\0\x16") "\1\3rom\0")},
	{PRECOPY, "malformed", "", BYTES(COMMAND("\6", "\0\x16") "\0\3rom\1")},
	{PRECOPY, "length of POSTCOPY_RAM_DISCARD", "", BYTES(COMMAND("\6", "\0\x15") "\0\3rom\0")},
	{PRECOPY, "length of POSTCOPY_RAM_DISCARD", "", BYTES(COMMAND("\6", "\0\x17") "\0\3rom\0")},
	{PRECOPY, "length of POSTCOPY_RAM_DISCARD", "", BYTES(COMMAND("\6", "\0\x14") "\0\3rom\0")},
	{PRECOPY, "discard in a block", "rum", BYTES(COMMAND("\6", "\0\x16") "\0\3rum\0")},
	{PRECOPY, "discard in a block", "", BYTES(COMMAND("\6", "\0\x23") "\0\0\0")},
	{PRECOPY, "outside of its block", "rom",
	 BYTES(COMMAND("\6", "\0\x16") "\0\3rom\0"
				       "\0\0\0\0\0\0\0\0"
				       "\0\0\0\0\0\0\x20\0")},
	{PRECOPY, "outside of its block", "rom",
	 BYTES(COMMAND("\6", "\0\x16") "\0\3rom\0"
				       "\0\0\0\0\0\0\0\0"
				       "\0\0\0\0\0\0\0\0")},
	{PRECOPY, "outside of its block", "rom",
	 BYTES(COMMAND("\6", "\0\x16") "\0\3rom\0"
				       "\377\377\377\377\377\377\xf0\0"
				       "\0\0\0\0\0\0\x10\0")},
	{PRECOPY, "outside of its block", "small",
	 BYTES(COMMAND("\6", "\0\x18") "\0\5small\0"
				       "\0\0\0\0\0\0\x10\0"
				       "\377\377\377\377\377\377\xf0\0")},
	{PRECOPY, "whole pages", "small",
	 BYTES(COMMAND("\6", "\0\x18") "\0\5small\0"
				       "\0\0\0\0\0\0\x10\0"
				       "\0\0\0\0\0\0\x08\0")},
	{PRECOPY, "whole pages", "/objects/huge",
	 BYTES(COMMAND("\6", "\0\x20") "\0\15/objects/huge\0"
				       "\0\0\0\0\0\0\x10\0"
				       "\0\0\0\0\0\x20\0\0")},
	/* block list */
	{SETUP, "turn on the postcopy-ram capability", "", BYTES("\1\0\0\0\2" RAM)},
	{ADVISED, "unknown version of the section", "",
	 BYTES("\1\0\0\0\2\3ram\0\0\0\0\0\0\0\3\0\0\0\0\0\0\x10\4")},
	{ADVISED, "unknown version of the section", "",
	 BYTES("\1\0\0\0\2\3ram\0\0\0\1\0\0\0\4\0\0\0\0\0\0\x10\4")},
	{ADVISED, "without a block list", "", BYTES("\1\0\0\0\2" RAM "\0\0\0\0\0\0\x10\x14")},
	{ADVISED, "without a block list", "", BYTES("\1\0\0\0\2" RAM "\0\0\0\0\0\0\0\4")},
	{IN_LIST, "malformed name", "", BYTES("\0")},
	{IN_LIST, "malformed name", "a?", BYTES("\2a\0")},
	{IN_LIST, "malformed name", "?", BYTES("\1\x7f")},
	{IN_LIST, "multiple of its page size", "a",
	 BYTES("\1a\0\0\0\0\0\0\0\0"
	       "\1b\0\0\0\0\0\0")},
	{IN_LIST, "multiple of its page size", "a",
	 BYTES("\1a\0\0\0\0\0\0\x10\1"
	       "\1b\0\0\0\0\0\0")},
	{IN_LIST, "multiple of its page size", "a",
	 BYTES("\1a\0\0\0\0\0\0\x10\0"
	       "\0\0\0\0\0\x20\0\0")},
	{IN_LIST, "longer together", "a",
	 BYTES("\1a\0\0\0\0\0\0\x90\0"
	       "\1b\0\0\0\0\0\0")},
	{IN_LIST, "longer together", "a",
	 BYTES("\1a\377\377\377\377\377\377\xf0\0"
	       "\1b\0\0\0\0\0\0")},
	/* pages */
	{IN_PART, "before any with one", "", BYTES("\0\0\0\0\0\0\0\x28")},
	{IN_PART, "before any with one", "", BYTES("\0\0\0\0\0\0\0\x22")},
	{IN_PART, "not in the list", "nil", BYTES("\0\0\0\0\0\0\0\x08\3nil")},
	{IN_PART, "not in the list", "", BYTES("\0\0\0\0\0\0\0\x08\0")},
	{IN_PART, "not in the list", "rom?", BYTES("\0\0\0\0\0\0\0\x08\4rom\0")},
	{IN_PART, "not in the list", "ro", BYTES("\0\0\0\0\0\0\0\x08\2ro")},
	{IN_PART, "beyond the end", "rom", BYTES("\0\0\0\0\0\0\x10\x08\3rom")},
	{IN_PART, "beyond the end", "rom", BYTES("\377\377\377\377\377\377\xf0\x02\3rom")},
	{IN_LATER_PART, "beyond the end", "small", BYTES("\0\0\0\0\0\0\x80\x28")},
	{IN_PART, "other than zero", "", BYTES("\0\0\0\0\0\0\0\x02\3rom\1")},
	{IN_PART, "obsolete", "", BYTES("\0\0\0\0\0\0\0\1")},
	{IN_PART, "block list outside", "", BYTES("\0\0\0\0\0\0\x10\4")},
	{IN_PART, "RDMA", "", BYTES("\0\0\0\0\0\0\0\x80")},
	{IN_PART, "turn off the compress capability", "", BYTES("\0\0\0\0\0\0\1\0")},
	{IN_PART, "turn off the multifd capability", "", BYTES("\0\0\0\0\0\0\2\0")},
	{IN_PART, "unknown flag", "", BYTES("\0\0\0\0\0\0\4\0")},
	{IN_PART, "unknown flag", "", BYTES("\0\0\0\0\0\0\x08\x08")},
	{IN_PART, "contradict", "", BYTES("\0\0\0\0\0\0\0\x0a")},
	{IN_PART, "contradict", "", BYTES("\0\0\0\0\0\0\0\x20")},
	{IN_PART, "contradict", "", BYTES("\0\0\0\0\0\0\0\0")},
	{IN_PART, "contradict", "", BYTES("\0\0\0\0\0\0\x10\x10")},
	{IN_PART, "contradict", "", BYTES("\0\0\0\0\0\0\0\x30")},
	{IN_PART, "footer", "", BYTES("\0\0\0\0\0\0\0\x10\2\0\0\0\5")},
	{IN_PART, "footer", "", BYTES("\0\0\0\0\0\0\0\x10\x7e\0\0\0\6")},
	{IN_PART, "unknown encoding", "", BYTES("\0\0\0\0\0\0\0\x40\3rom\2\0\1")},
	{IN_PART, "longer than a page", "", BYTES("\0\0\0\0\0\0\0\x40\3rom\1\0\0")},
	{IN_PART, "longer than a page", "", BYTES("\0\0\0\0\0\0\0\x40\3rom\1\x10\1")},
	{IN_POSTCOPY_PART, "XBZRLE page after the package", "",
	 BYTES("\0\0\0\0\0\0\0\x40\3rom\1\0\1x")},
	{URGENT, "XBZRLE page after the package", "", BYTES("\0\0\0\0\0\0\0\x40\3rom\1\0\1x")},
	{URGENT, "before any with one", "", BYTES("\0\0\0\0\0\0\0\x28")},
	{URGENT, "unknown flag", "", BYTES("\0\0\0\0\0\0\4\0")},
	{URGENT, "a new migration", "", BYTES("QEVM\0\0\0\3")},
	{URGENT, "multifd channel", "", BYTES("\x11\x22\x33\x44\0\0\0\1")},
	{URGENT, "turn off the multifd capability", "", BYTES("\0\0\0\0\0\0\2\0")},
};

Test(qstream, refusals)
{
	for (size_t i = 0; i < ARRAY_LEN(refusals); i++) {
		const struct refusal *r = &refusals[i];
		cleanup_free struct script *s = script_begin(r->place);
		uint64_t position = s->q.position;

		pen_bytes(&s->pen, r->bytes, r->len);
		cr_assert_eq(script_next(s), -EPROTO, "row %zu (%s) is accepted", i, r->reason);
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
			cleanup_free struct script *s = script_begin(r->place);

			pen_bytes(&s->pen, r->bytes, len);
			int what = script_next(s);

			cr_assert_leq(what, 0, "row %zu cut to %zu", i, len);
			if (what < 0)
				cr_assert_not_null(strstr(s->q.reason, r->reason), "row %zu: %s", i,
						   s->q.reason);
			else
				cr_assert_gt(s->rec.need, pen_used(&s->pen) - s->at);
		}
	}
}
