/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * qreturn: any bytes as a return path.  What is read stays within the window, and the writer makes
 * the same bytes of it again.
 */
#include "config.h"

#include "wire/qreturn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/guard.h"
#include "target.h"

static size_t write_again(struct qreturn_writer *w, const struct qreturn_message *m, uint8_t *out)
{
	switch (m->type) {
	case QRETURN_SHUT:
		return qreturn_shut(out, m->value);
	case QRETURN_PONG:
		return qreturn_pong(out, m->value);
	case QRETURN_REQ_PAGES_ID:
		return qreturn_request(w, out, w->last_block + 1, m->name, m->start, m->length);
	case QRETURN_REQ_PAGES:
		return qreturn_request(w, out, w->last_block, m->name, m->start, m->length);
	case QRETURN_RECV_BITMAP:
		return qreturn_bitmap_head(out, m->name, m->bitmap_size);
	case QRETURN_RESUME_ACK:
		return qreturn_resume_ack(out);
	case QRETURN_SWITCHOVER_ACK:
		return qreturn_switchover_ack(out);
	}
	abort();
}

/* The next message or bitmap of @bytes; how many bytes it took, 0 at the end. */
static size_t step(struct qreturn_reader *r, struct qreturn_writer *w, const uint8_t *bytes,
		   size_t len)
{
	uint8_t again[QRETURN_MESSAGE_MAX];
	cleanup_free uint8_t *window = exactly(bytes, len);
	struct qreturn_message m;
	int what = qreturn_next(r, window, len, &m);

	CHECK(what >= 0 || (what == -EPROTO && r->reason));
	if (what > 0) {
		CHECK(m.used > 0 && m.used <= len && (int)m.type == what);
		CHECK(write_again(w, &m, again) == m.used && memcmp(again, bytes, m.used) == 0);
		return m.used;
	}
	CHECK(m.used == 0);
	if (what == QRETURN_NEED_MORE && r->body_left && len) {
		size_t n = len < r->body_left ? len : (size_t)r->body_left;

		qreturn_took(r, n);
		return n;
	}
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct qreturn_reader r;
	struct qreturn_writer w;
	size_t at = 0, n;

	qreturn_reader_init(&r);
	qreturn_writer_init(&w);
	while ((n = step(&r, &w, data + at, size - at)) > 0)
		at += n;
	CHECK(r.position == at);
	return 0;
}
