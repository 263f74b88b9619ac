/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TESTS_SCRIPT_H
#define PC_TESTS_SCRIPT_H
/* Hand-made migration streams: a decoder is led to a place, and the test writes on from there. */
#include "wire/cursor.h"
#include "wire/qstream.h"

#define MIB	       (1ull << 20)
#define SCRIPT_SECTION 5 /* id of ram */
#define SCRIPT_BLOCKS  3

extern const struct qstream_block script_blocks[SCRIPT_BLOCKS];

/* How far a stream has come when the bytes of a test begin. */
enum place {
	FRESH,
	AT_CONFIGURATION, /* behind the machine type */
	SETUP,		  /* behind the header */
	ADVISED,
	IN_LIST, /* list of 8 pages, not one block yet */
	PRECOPY,
	IN_PART,
	IN_LATER_PART, /* a page of "small" came in an earlier one */
	IN_BODY,
	POSTCOPY,
	IN_POSTCOPY_PART,
	DONE,	      /* behind END of ram */
	ENDED,	      /* behind EOF */
	PRECOPY_DONE, /* behind END of ram, and no package */
	URGENT,
	RECOVERY,
	RESUMED,
};

struct script {
	struct qstream q;
	struct qstream_record rec;
	uint8_t buf[2 * QSTREAM_RECORD_MAX];
	struct pen pen;
	size_t at; /* decoded so far */
};

/* The caller frees. */
struct script *script_begin(enum place place);
/* The next record, as qstream_next(). */
int script_next(struct script *s);
/* Write what leads to @step from the place before it. */
void script_put_step(struct script *s, enum place step);
/* START of ram up to the sum of the block lengths. */
void script_put_list_head(struct pen *p, uint64_t total);
/* A page of 4 KiB that begins with a 1. */
void script_put_page(struct pen *p, uint64_t offset, const char *name);
void script_put_package(struct pen *p);

#define BYTES(text)		(text), sizeof(text) - 1
#define COMMAND(number, length) "\x08\0" number length
#define RAM			"\3ram\0\0\0\0\0\0\0\4"

#endif
