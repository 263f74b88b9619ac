/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_WIRE_QSTREAM_PARTS_H
#define PC_WIRE_QSTREAM_PARTS_H
/*
 * What the files of the stream decoder share: the numbers on the wire, the states of the grammar
 * and the readers.  A reader looks at the window from its first byte and has three outcomes, those
 * of qstream_next(): an event with rec->used set, qstream_short(), or qstream_fail().  It changes
 * *q only when the record is complete.
 */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "wire/cursor.h"
#include "wire/qstream.h"

#define QSTREAM_MAGIC	      0x5145564du
#define QSTREAM_VERSION	      3
#define QSTREAM_MULTIFD_MAGIC 0x11223344u

enum qstream_type {
	TYPE_EOF = 0x00,
	TYPE_START = 0x01,
	TYPE_PART = 0x02,
	TYPE_END = 0x03,
	TYPE_FULL = 0x04,
	TYPE_SUBSECTION = 0x05,
	TYPE_VMDESCRIPTION = 0x06,
	TYPE_CONFIGURATION = 0x07,
	TYPE_COMMAND = 0x08,
	TYPE_FOOTER = 0x7e,
};

/* Low bits of a ram word; what is left is the offset. */
enum qstream_flag {
	FLAG_FULL = 0x001,
	FLAG_ZERO = 0x002,
	FLAG_MEM_SIZE = 0x004,
	FLAG_PAGE = 0x008,
	FLAG_EOS = 0x010,
	FLAG_CONTINUE = 0x020,
	FLAG_XBZRLE = 0x040,
	FLAG_HOOK = 0x080,
	FLAG_COMPRESS = 0x100,
	FLAG_MULTIFD_FLUSH = 0x200,
};

#define PAGE_BITS_NAME	   "configuration/target-page-bits"
#define SUBSECTION_VERSION 1
#define RAM_IDSTR   "ram"
#define RAM_VERSION 4
#define WORD_LEN    8u /* of a ram word */
#define FOOTER_LEN  5u
#define BRACKET_LEN 5u /* type and section id */
#define COMMAND_LEN 5u /* type, number, payload length */
#define RANGE_LEN   16u

/* What the next byte begins. */
enum qstream_phase {
	PHASE_HEADER,
	PHASE_RECORD,
	PHASE_LIST,   /* an entry of the block list, or its end */
	PHASE_PART,   /* a ram word */
	PHASE_END,    /* a ram word, in the END section */
	PHASE_RANGES, /* the next range of a discard command */
	PHASE_BODY,   /* package body; the caller takes it */
	PHASE_URGENT, /* a ram word, outside of any section */
	PHASE_TAIL,
	PHASE_EOF,
	PHASE_FAILED,
};

/* How far the migration is; one bit each, so that a table can say where a record is at home. */
enum qstream_stage {
	STAGE_SETUP = 1, /* up to the block list */
	STAGE_PRECOPY = 2,
	STAGE_POSTCOPY = 4, /* from the package on, or from POSTCOPY_RESUME */
	STAGE_RECOVERY = 8, /* new connection, up to POSTCOPY_RESUME */
	STAGE_DONE = 16,    /* after END of ram */
	STAGE_TAIL = 32,    /* the same, but no package came: precopy */
};

/* A length-prefixed name where it lies in the window; bytes is NULL when it is not all there. */
struct qstream_name {
	const uint8_t *bytes;
	size_t len;
};

static inline uint64_t qstream_be64(const uint8_t *at)
{
	uint64_t v;

	memcpy(&v, at, sizeof(v));
	return be64toh(v);
}

static inline uint32_t qstream_be32(const uint8_t *at)
{
	uint32_t v;

	memcpy(&v, at, sizeof(v));
	return be32toh(v);
}

static inline uint16_t qstream_be16(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}

/* The window is too short; @need bytes would bring the reader further. */
static inline int qstream_short(struct qstream_record *rec, size_t need)
{
	rec->used = 0;
	rec->need = need;
	return QSTREAM_NEED_MORE;
}

struct qstream_name qstream_take_name(struct cursor *c);
/* Not empty, no control characters (a NUL is one). */
bool qstream_name_is_sane(struct qstream_name name);
/* Number of the block, -1 when there is none. */
int qstream_find_block(const struct qstream *q, struct qstream_name name);

extern const char qstream_multifd_channel[]; /* reason of a refusal */

/* For good: -EPROTO now and ever after. */
int qstream_fail(struct qstream *q, const char *reason);
int qstream_fail_name(struct qstream *q, const char *reason, struct qstream_name name);
int qstream_fail_text(struct qstream *q, const char *reason, const char *detail);

int qstream_read_header(struct qstream *q, const uint8_t *buf, size_t len,
			struct qstream_record *rec);
int qstream_read_list_head(struct qstream *q, const uint8_t *buf, size_t len,
			   struct qstream_record *rec);
int qstream_read_list(struct qstream *q, const uint8_t *buf, size_t len,
		      struct qstream_record *rec);
int qstream_read_command(struct qstream *q, const uint8_t *buf, size_t len,
			 struct qstream_record *rec);
int qstream_read_range(struct qstream *q, const uint8_t *buf, size_t len,
		       struct qstream_record *rec);

#endif
