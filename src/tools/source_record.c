// SPDX-License-Identifier: GPL-2.0-or-later
#include "config.h"

#include "source_record.h"

#include <errno.h>

#include "core/guard.h"
#include "wire/cursor.h"
#include "wire/qstream.h"

#define NO_COMMAND 99

struct record {
	struct source_lane *lane;
	uint8_t *buf;
	size_t len;
};

/* Each changes the record or sends something before it.  0, or -ECONNABORTED. */
typedef int (*record_action)(struct source_session *s, struct record *r,
			     const struct source_fault *f);

static int strike(struct source_session *s, struct record *r, const struct source_fault *f)
{
	(void)r;
	return source_session_strike(s, f);
}

static int truncate_record(struct source_session *s, struct record *r, const struct source_fault *f)
{
	if (source_session_send(s, r->lane, r->buf, r->len / 2) < 0)
		return -ECONNABORTED;
	return source_session_strike(s, f);
}

static int corrupt(struct source_session *s, struct record *r, const struct source_fault *f)
{
	(void)s;
	(void)f;
	if (r->len)
		r->buf[r->len / 2] ^= 0xff;
	return 0;
}

static int skip(struct source_session *s, struct record *r, const struct source_fault *f)
{
	(void)s;
	(void)f;
	r->len = 0;
	return 0;
}

/*
 * A whole PART section: legal anywhere but here.  It leaves together with the record, or the answer
 * to that might end the session first.
 */
static int extra(struct source_session *s, struct record *r, const struct source_fault *f)
{
	uint8_t buf[1024];
	struct pen p = pen_init(buf, sizeof(buf));

	(void)f;
	pen_bytes(&p, r->buf, r->len);
	qstream_put_ram_begin(&p, false, SOURCE_RAM_SECTION);
	qstream_put_ram_end(&p, SOURCE_RAM_SECTION);
	r->len = 0;
	return source_session_send(s, r->lane, buf, pen_used(&p));
}

static int unknown_command(struct source_session *s, struct record *r, const struct source_fault *f)
{
	uint8_t buf[16];
	struct pen p = pen_init(buf, sizeof(buf));

	(void)f;
	qstream_put_command(&p, NO_COMMAND, NULL, 0);
	return source_session_send(s, r->lane, buf, pen_used(&p));
}

/* PACKAGED: 08, be16 command, be16 length of the payload, be32 length of the package. */
static int huge_length(struct source_session *s, struct record *r, const struct source_fault *f)
{
	struct pen p = pen_init(r->buf + 5, 4);

	(void)s;
	(void)f;
	pen_be32(&p, UINT32_MAX);
	return 0;
}

static const record_action actions[SOURCE_N_ACTIONS] = {
	[SOURCE_DELAY] = strike,
	[SOURCE_DROP] = strike,
	[SOURCE_DIE] = strike,
	[SOURCE_TRUNCATE] = truncate_record,
	[SOURCE_CORRUPT] = corrupt,
	[SOURCE_SKIP] = skip,
	[SOURCE_EXTRA] = extra,
	[SOURCE_UNKNOWN_COMMAND] = unknown_command,
	[SOURCE_HUGE_LENGTH] = huge_length,
};

static int send_in_turn(struct source_session *s, struct record *r, const char *name)
{
	struct source_fault *f;

	while ((f = source_faults_at_record(&s->options->faults, name))) {
		record_action act = actions[f->kind->action];

		if (act && act(s, r, f) < 0)
			return -ECONNABORTED;
	}
	return r->len ? source_session_send(s, r->lane, r->buf, r->len) : 0;
}

/**
 * source_record_send - send a record of the main connection, in a turn of its own
 * @name: one of source_fault_records()
 * @buf: may be changed by a fault
 * @len: 0 where there is nothing to send but faults can strike
 *
 * Return: 0, or -ECONNABORTED, the session being over.
 */
int source_record_send(struct source_session *s, struct source_lane *l, const char *name,
		       uint8_t *buf, size_t len)
{
	struct record record = {.lane = l, .buf = buf, .len = len};
	int r;

	source_lane_begin_turn(l, false);
	r = send_in_turn(s, &record, name);
	source_lane_end_turn(l);
	return r;
}
