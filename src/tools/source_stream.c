// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The records around the pages, in QEMU's order, each sent under a name so that a fault can strike
 * it.
 */
#include "config.h"

#include "source_stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/guard.h"
#include "tools/source_record.h"
#include "wire/cursor.h"
#include "wire/qstream.h"

#define EOF_BYTE       0x00
#define DESCRIPTION    0x06
#define DISCARD_RANGES 12u   /* in one command, as QEMU */
#define RECORD_ROOM    1024u /* any record but block list and package */
#define BLOCK_ROOM     (1 + 255 + 8 + 8)
#define PACKAGE_ROOM   128u /* the package beside its device part */
#define EOS_WORD       0x10u

static int send_pen(struct source_session *s, const char *name, const struct pen *p)
{
	if (p->bad) {
		source_session_end(s, SOURCE_FAILED, "record %s does not fit its buffer", name);
		return -ECONNABORTED;
	}
	return source_record_send(s, &s->main, name, p->start, pen_used(p));
}

static int send_command(struct source_session *s, const char *name, uint16_t command)
{
	uint8_t buf[RECORD_ROOM];
	struct pen p = pen_init(buf, sizeof(buf));

	qstream_put_command(&p, command, NULL, 0);
	return send_pen(s, name, &p);
}

static int send_ping(struct source_session *s, const char *name, uint32_t value)
{
	uint8_t buf[RECORD_ROOM];
	struct pen p = pen_init(buf, sizeof(buf));

	source_check_ping(&s->check, value);
	qstream_put_ping(&p, value);
	return send_pen(s, name, &p);
}

/* --- before --------------------------------------------------------------------------------- */

static int send_header(struct source_session *s)
{
	uint8_t buf[RECORD_ROOM];
	struct pen p = pen_init(buf, sizeof(buf));

	qstream_put_header(&p, s->options->machine);
	return send_pen(s, "header", &p);
}

static int send_advise(struct source_session *s)
{
	uint8_t buf[RECORD_ROOM];
	struct pen p = pen_init(buf, sizeof(buf));
	uint64_t summary = 0;

	for (unsigned i = 0; i < s->n_ready; i++)
		summary |= s->blocks[i].spec.page_size;
	qstream_put_advise(&p, summary, SOURCE_TARGET_PAGE);
	return send_pen(s, "advise", &p);
}

static int send_blocks(struct source_session *s)
{
	cleanup_free struct qstream_block *list = calloc(s->n_ready, sizeof(*list));
	size_t room = RECORD_ROOM + (size_t)s->n_ready * BLOCK_ROOM;
	cleanup_free uint8_t *buf = malloc(room);
	struct pen p;

	if (!list || !buf) {
		source_session_end(s, SOURCE_FAILED, "out of memory");
		return -ECONNABORTED;
	}
	for (unsigned i = 0; i < s->n_ready; i++) {
		const struct source_block_spec *spec = &s->blocks[i].spec;

		strcpy(list[i].name, spec->name);
		list[i].length = spec->length;
		list[i].page_size = spec->page_size;
	}
	p = pen_init(buf, room);
	qstream_put_blocks(&p, SOURCE_RAM_SECTION, list, s->n_ready, SOURCE_TARGET_PAGE);
	return send_pen(s, "blocks", &p);
}

/**
 * source_stream_open - header, return path, PING 1, ADVISE and the block list
 */
int source_stream_open(struct source_session *s)
{
	if (send_header(s) < 0 || send_command(s, "return-path", QCMD_OPEN_RETURN_PATH) < 0 ||
	    send_ping(s, "ping1", 1) < 0 || send_advise(s) < 0)
		return -ECONNABORTED;
	return send_blocks(s);
}

/* --- switch-over ---------------------------------------------------------------------------- */

static int send_ranges(struct source_session *s, const char *block, const uint64_t (*ranges)[2],
		       unsigned n)
{
	uint8_t buf[RECORD_ROOM];
	struct pen p = pen_init(buf, sizeof(buf));

	qstream_put_discard(&p, block, ranges, n);
	return send_pen(s, "discard", &p);
}

static int discard_block(struct source_session *s, const struct source_block *b)
{
	uint64_t ranges[DISCARD_RANGES][2];
	uint64_t from, to = 0;
	unsigned n = 0;

	while ((from = source_block_next_owed(b, to)) < b->n_pages) {
		to = source_block_next_claimed(b, from);
		ranges[n][0] = from * b->spec.page_size;
		ranges[n][1] = (to - from) * b->spec.page_size;
		if (++n < DISCARD_RANGES)
			continue;
		if (send_ranges(s, b->spec.name, (const uint64_t(*)[2])ranges, n) < 0)
			return -ECONNABORTED;
		n = 0;
	}
	return n ? send_ranges(s, b->spec.name, (const uint64_t(*)[2])ranges, n) : 0;
}

/**
 * source_stream_discard - the switch-over, up to PING 2: what is owed is discarded
 *
 * The source forgets at the discards which block it named last.
 */
int source_stream_discard(struct source_session *s)
{
	if (s->options->commit_ping && send_command(s, "switchover", QCMD_SWITCHOVER_START) < 0)
		return -ECONNABORTED;
	for (unsigned i = 0; i < s->n_ready; i++)
		if (discard_block(s, &s->blocks[i]) < 0)
			return -ECONNABORTED;
	s->main.last = NULL;
	return send_ping(s, "ping2", 2);
}

static int send_package(struct source_session *s, const struct source_device *d)
{
	size_t room = PACKAGE_ROOM + d->len;
	cleanup_free uint8_t *buf = malloc(room);
	struct pen p;

	if (!buf) {
		source_session_end(s, SOURCE_FAILED, "out of memory");
		return -ECONNABORTED;
	}
	source_check_ping(&s->check, 3);
	if (s->options->commit_ping)
		source_check_ping(&s->check, QSTREAM_COMMIT_PING);
	p = pen_init(buf, room);
	qstream_put_package(&p, d->sections, d->len, s->options->commit_ping);
	return send_pen(s, "package", &p);
}

/**
 * source_stream_package - the package and PING 4
 *
 * Requests are legal from the first byte of the package on: LISTEN comes before the device part.
 */
int source_stream_package(struct source_session *s, const struct source_device *d)
{
	atomic_store(&s->phase, SOURCE_PACKAGE);
	if (send_package(s, d) < 0)
		return -ECONNABORTED;
	atomic_store(&s->phase, SOURCE_ACTIVE);
	return send_ping(s, "ping4", 4);
}

/* --- after ---------------------------------------------------------------------------------- */

static int send_end(struct source_session *s)
{
	uint8_t buf[RECORD_ROOM];
	struct pen p = pen_init(buf, sizeof(buf));

	qstream_put_ram_begin(&p, true, SOURCE_RAM_SECTION);
	qstream_put_ram_end(&p, SOURCE_RAM_SECTION);
	return send_pen(s, "end", &p);
}

static int send_device(struct source_session *s, const struct source_device *d)
{
	cleanup_free uint8_t *copy = malloc(d->len + 1);

	if (!copy) {
		source_session_end(s, SOURCE_FAILED, "out of memory");
		return -ECONNABORTED;
	}
	memcpy(copy, d->sections, d->len);
	return source_record_send(s, &s->main, "device", copy, d->len);
}

/* The destination may answer SHUT as soon as it has read the end, so the phase changes before. */
static int send_eof(struct source_session *s, const struct source_device *d)
{
	uint8_t buf[RECORD_ROOM];
	struct pen p = pen_init(buf, sizeof(buf));

	pen_u8(&p, EOF_BYTE);
	if (d) {
		pen_u8(&p, DESCRIPTION);
		pen_be32(&p, (uint32_t)strlen(d->description));
		pen_bytes(&p, d->description, strlen(d->description));
	}
	atomic_store(&s->phase, SOURCE_ENDED);
	return send_pen(s, "eof", &p);
}

static int send_eos(struct source_session *s)
{
	uint8_t buf[RECORD_ROOM];
	struct pen p = pen_init(buf, sizeof(buf));

	pen_be64(&p, EOS_WORD);
	return source_record_send(s, &s->urgent, "eos", p.start, pen_used(&p));
}

/**
 * source_stream_close - END of ram and the end of the stream
 * @d: naked device state and its description in between; NULL after a package
 */
int source_stream_close(struct source_session *s, const struct source_device *d)
{
	if (send_end(s) < 0 || (d && send_device(s, d) < 0) || send_eof(s, d) < 0)
		return -ECONNABORTED;
	if (s->options->old_preempt && send_eos(s) < 0)
		return -ECONNABORTED;
	return source_record_send(s, &s->main, "shut", NULL, 0);
}
