// SPDX-License-Identifier: GPL-2.0-or-later
#include "config.h"

#include "source_return.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "core/guard.h"
#include "tools/source_bitmap.h"
#include "tools/source_pager.h"
#include "tools/source_record.h"
#include "tools/source_resume.h"
#include "wire/qreturn.h"

#define WINDOW		 16384
#define GRACE_AFTER_SHUT 2 /* seconds in which the destination should close */

struct reader {
	struct source_session *session;
	struct source_pager pager;
	struct qreturn_reader wire;
	struct source_block *last; /* of the last request */
	struct source_bitmap bitmap;
	uint8_t window[WINDOW];
	size_t have;
};

static struct source_block *find_block(struct reader *r, const char *name)
{
	struct source_session *s = r->session;

	if (r->last && strcmp(r->last->spec.name, name) == 0)
		return r->last;
	for (unsigned i = 0; i < s->n_ready; i++)
		if (strcmp(s->blocks[i].spec.name, name) == 0)
			return r->last = &s->blocks[i];
	return NULL;
}

/* Every page once: a page asked for again, or sent already, is not answered (as QEMU). */
static int on_request(struct reader *r, const struct qreturn_message *m)
{
	struct source_session *s = r->session;
	struct source_block *b = find_block(r, m->name);
	uint64_t first, end;

	atomic_store_explicit(&s->asked_at, source_session_now(), memory_order_relaxed);
	if (!source_check_request(&s->check, atomic_load(&s->phase), b, m->name, m->start,
				  m->length))
		return 0;
	end = (m->start + m->length) / b->spec.page_size;
	first = m->start / b->spec.page_size;
	for (uint64_t page = first; page < end; page++)
		source_check_page(&s->check, b, page);
	return source_pager_answer(&r->pager, b, first, end);
}

/*
 * Whoever waits for the end of the migration is told, and we stay to see that nothing follows.  The
 * destination closes once it has seen us do so; one that does not is not waited for longer.
 * With a fault due between the end of the stream and SHUT, the SHUT comes too late.
 */
static int on_shut(struct reader *r, const struct qreturn_message *m)
{
	struct source_session *s = r->session;
	struct timeval grace = {.tv_sec = GRACE_AFTER_SHUT};

	if (source_faults_awaits(&s->options->faults, "shut"))
		return 0;
	setsockopt(s->main.fd, SOL_SOCKET, SO_RCVTIMEO, &grace, sizeof(grace));
	source_check_shut(&s->check, atomic_load(&s->phase), m->value);
	source_session_end(s, SOURCE_FINISHED, "SHUT %" PRIu32, m->value);
	return 0;
}

static int on_pong(struct reader *r, const struct qreturn_message *m)
{
	source_check_pong(&r->session->check, m->value);
	source_session_notify(r->session);
	return 0;
}

static int on_switchover_ack(struct reader *r, const struct qreturn_message *m)
{
	(void)m;
	source_check_switchover_ack(&r->session->check);
	return 0;
}

/* Its size is told; it and its end mark follow (take_bitmap). */
static int on_bitmap(struct reader *r, const struct qreturn_message *m)
{
	struct source_session *s = r->session;
	struct source_block *b = source_resume_block(s, m->name);

	if (!b)
		return -EPROTO;
	if (source_record_send(s, &s->main, "bitmap", NULL, 0) < 0)
		return -ECONNABORTED;
	return source_bitmap_begin(&r->bitmap, &s->check, b, m->bitmap_size);
}

static int on_resume_ack(struct reader *r, const struct qreturn_message *m)
{
	(void)m;
	return source_resume_on_ack(r->session);
}

static int (*const handlers[])(struct reader *r, const struct qreturn_message *m) = {
	[QRETURN_SHUT] = on_shut,
	[QRETURN_PONG] = on_pong,
	[QRETURN_REQ_PAGES_ID] = on_request,
	[QRETURN_REQ_PAGES] = on_request,
	[QRETURN_RECV_BITMAP] = on_bitmap,
	[QRETURN_RESUME_ACK] = on_resume_ack,
	[QRETURN_SWITCHOVER_ACK] = on_switchover_ack,
};

/* A source that is dead, or cut off, hears nothing. */
static bool is_deaf(const struct source_session *s)
{
	enum source_end end = atomic_load(&s->end);

	return end == SOURCE_DROPPED || end == SOURCE_DIED;
}

static int handle(struct reader *r, const struct qreturn_message *m)
{
	struct source_check *c = &r->session->check;

	if (is_deaf(r->session))
		return -ECONNABORTED;
	if (atomic_load(&c->has_shut) && m->type != QRETURN_SHUT) {
		source_check_violation(c, "message of type %d after SHUT", m->type);
		return 0;
	}
	return handlers[m->type](r, m);
}

/* The bytes of a bitmap that is being read.  1, with how many it took, or -errno. */
static int take_bitmap(struct reader *r, const uint8_t *bytes, size_t *n)
{
	int e;

	*n = source_bitmap_take(&r->bitmap, bytes, *n);
	qreturn_took(&r->wire, *n);
	if (!source_bitmap_is_whole(&r->bitmap))
		return 1;
	e = source_bitmap_apply(&r->bitmap);
	if (e < 0)
		return e;
	source_resume_on_bitmap(r->session);
	return 1;
}

/* One message of the window, or a piece of a bitmap.  1, with what it took; 0; or -errno. */
static int take_one(struct reader *r, const uint8_t *bytes, size_t n, size_t *used)
{
	struct qreturn_message m;
	int type, e;

	*used = n;
	if (r->bitmap.block)
		return n ? take_bitmap(r, bytes, used) : 0;
	type = qreturn_next(&r->wire, bytes, n, &m);
	*used = m.used;
	if (type < 0)
		source_check_violation(&r->session->check, "return path at byte %" PRIu64 ": %s",
				       r->wire.position, r->wire.reason);
	if (type <= 0)
		return type;
	e = handle(r, &m);
	return e < 0 ? e : 1;
}

/* All whole messages of the window.  0, or -errno when nothing can be read any more. */
static int drain_window(struct reader *r)
{
	size_t at = 0, used;
	int e;

	while ((e = take_one(r, r->window + at, r->have - at, &used)) > 0)
		at += used;
	memmove(r->window, r->window + at, r->have - at);
	r->have -= at;
	return e;
}

/* 1: more to handle; 0: the connection ended. */
static int receive(struct reader *r)
{
	ssize_t n;

	do {
		n = recv(r->session->main.fd, r->window + r->have, WINDOW - r->have, 0);
	} while (n < 0 && errno == EINTR);
	if (n > 0) {
		r->have += (size_t)n;
		return 1;
	}
	source_session_end(r->session, SOURCE_LOST, "return path: %s",
			   n == 0 ? "closed by the destination" : strerror(errno));
	return 0;
}

static void read_on(struct reader *r)
{
	int e = 0;

	while (e == 0 && receive(r))
		e = drain_window(r);
	if (e == -EPROTO)
		source_session_end(r->session, SOURCE_GARBAGE, "%s", r->session->check.last);
	if (e == -ENOMEM)
		source_session_end(r->session, SOURCE_FAILED, "out of memory");
}

/**
 * source_return_main - the return thread, until the connection ends; for pthread_create()
 */
void *source_return_main(void *session)
{
	struct source_session *s = session;
	struct reader r = {.session = s};
	struct source_lane *lane = s->options->preempt ? &s->urgent : &s->main;

	qreturn_reader_init(&r.wire);
	if (source_pager_init(&r.pager, s, lane, true) < 0)
		source_session_end(s, SOURCE_FAILED, "out of memory");
	else
		read_on(&r);
	source_pager_deinit(&r.pager);
	source_bitmap_deinit(&r.bitmap);
	return NULL;
}
