// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * From the package on the VM's memory is in two places, and a lost connection is a pause: the
 *source keeps what it has, connects again and is told what arrived.
 *
 *	main thread				return thread
 *	connect, as often as it takes
 *	[urgent connection, as 7.2 does it]
 *	RECV_BITMAP of every block		answers: received is claimed, the rest is owed
 *	[urgent connection, as later ones]
 *	RESUME					RESUME_ACK: what is asked for is answered again
 *	background, END, end of the stream
 *
 * What goes wrong in between is one more loss, and the next attempt begins at the beginning:
 *nothing of the handshake is kept, since every bitmap replaces what was believed before.  The time
 *that is allowed for it runs from the loss that began the pause to the end of the handshake.
 *
 * A QEMU from 10.0 on lets its VM run again when it loses the connection between the end of its
 * stream and SHUT.  This one goes on trying, as 7.2, whose VM stays stopped: whoever asks for
 * reconnections wants the VM at the destination.
 */
#include "config.h"

#include "source_resume.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/guard.h"
#include "tools/source_record.h"
#include "wire/cursor.h"
#include "wire/qstream.h"

#define MS	    1000000u /* ns */
#define FIRST_WAIT  (50 * MS)
#define LONGEST	    (1000 * MS)
#define CONNECT_MS  2000u /* one attempt: a way that swallows packets must not hold us up */
#define RECORD_ROOM 512u

/**
 * source_resume_is_due - was it lost where a source pauses, and may it come back?
 */
bool source_resume_is_due(const struct source_session *s)
{
	enum source_end end = atomic_load(&s->end);
	const struct source_options *o = s->options;

	return o->reconnect &&
	       (end == SOURCE_LOST || end == SOURCE_DROPPED || end == SOURCE_GARBAGE) &&
	       atomic_load(&s->phase) >= SOURCE_ACTIVE &&
	       (!o->commit_ping || atomic_load(&s->check.committed));
}

/* --- connecting ----------------------------------------------------------------------------- */

static uint64_t deadline_of(const struct source_session *s)
{
	uint64_t limit = s->options->reconnect_ns;

	return limit == UINT64_MAX ? UINT64_MAX : s->resume.since + limit;
}

static void sleep_ns(uint64_t ns)
{
	struct timespec ts = {.tv_sec = (time_t)(ns / 1000000000u),
			      .tv_nsec = (long)(ns % 1000000000u)};

	while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
		;
}

static void begin_pause(struct source_session *s)
{
	struct source_resume *r = &s->resume;

	if (r->paused)
		return;
	*r = (struct source_resume){
		.paused = true, .since = source_session_now(), .was = atomic_load(&s->phase)};
	fprintf(stderr, "postcopy-source: paused: %s; connecting again\n", s->problem);
}

/* Only from this attempt on: at once, then later and later. */
static uint64_t next_wait(uint64_t wait)
{
	if (!wait)
		return FIRST_WAIT;
	return wait * 2 < LONGEST ? wait * 2 : LONGEST;
}

/* Sleeps before an attempt.  False: no time would be left for it. */
static bool may_try(struct source_session *s)
{
	struct source_resume *r = &s->resume;
	uint64_t deadline = deadline_of(s), now = source_session_now();
	uint64_t left = now < deadline ? deadline - now : 0;
	bool in_time = r->wait < left;

	sleep_ns(in_time ? r->wait : left);
	r->wait = next_wait(r->wait);
	return in_time;
}

static int give_up(struct source_session *s, const char *last)
{
	char why[sizeof(s->problem)];

	snprintf(why, sizeof(why), "%s", last);
	snprintf(s->problem, sizeof(s->problem), "not resumed within %" PRIu64 " s: %.200s",
		 s->options->reconnect_ns / 1000000000u, why);
	return -ETIMEDOUT;
}

/**
 * source_resume_connect - paused, until there is a connection
 *
 * No other thread is there.  Return: 0, and the session goes on, resuming; -ETIMEDOUT, and it stays
 * ended as it was, with the last reason.
 */
int source_resume_connect(struct source_session *s)
{
	char last[sizeof(s->problem)];
	int r = -ECONNREFUSED;

	begin_pause(s);
	snprintf(last, sizeof(last), "%s", s->problem);
	atomic_store(&s->phase, s->resume.was);
	source_lane_close(&s->main);
	source_lane_close(&s->urgent);
	while (r < 0) {
		if (!may_try(s))
			return give_up(s, last);
		r = source_lane_dial_within(&s->main, s->options->to, CONNECT_MS);
		if (r < 0)
			snprintf(last, sizeof(last), "%s: %s", s->options->to, strerror(-r));
	}
	source_session_again(s);
	return 0;
}

/* --- the handshake: main thread ------------------------------------------------------------- */

static int send_pen(struct source_session *s, const char *name, struct pen *p)
{
	return source_record_send(s, &s->main, name, p->start, pen_used(p));
}

static int ask_for_bitmap(struct source_session *s, const char *block)
{
	uint8_t name[256], buf[RECORD_ROOM];
	struct pen payload = pen_init(name, sizeof(name)), p = pen_init(buf, sizeof(buf));

	pen_cstr(&payload, block);
	qstream_put_command(&p, QCMD_RECV_BITMAP, name, (uint16_t)pen_used(&payload));
	return send_pen(s, "recv-bitmap", &p);
}

static int say_resume(struct source_session *s)
{
	uint8_t buf[RECORD_ROOM];
	struct pen p = pen_init(buf, sizeof(buf));

	atomic_store(&s->resume.asked, true);
	qstream_put_command(&p, QCMD_RESUME, NULL, 0);
	return send_pen(s, "resume", &p);
}

static bool has_bitmaps(const struct source_session *s)
{
	return atomic_load(&s->resume.bitmaps) == s->n_ready;
}

static bool has_ack(const struct source_session *s)
{
	return atomic_load(&s->resume.acknowledged);
}

static int wait_for(struct source_session *s, bool (*ready)(const struct source_session *s),
		    const char *what)
{
	int r = source_session_wait(s, ready, deadline_of(s));

	if (r == 0)
		source_session_end(s, SOURCE_LOST, "%s did not come", what);
	return r == 1 ? 0 : -ECONNABORTED;
}

static int dial_urgent(struct source_session *s)
{
	int r = source_lane_dial_within(&s->urgent, s->options->to, CONNECT_MS);

	if (r < 0)
		source_session_end(s, SOURCE_LOST, "urgent connection: %s", strerror(-r));
	return r < 0 ? -ECONNABORTED : 0;
}

/**
 * source_resume_shake - on a new main connection, up to RESUME_ACK
 *
 * Return: 0, what is owed being known; -ECONNABORTED: the session is over (for now).
 */
int source_resume_shake(struct source_session *s)
{
	const struct source_options *o = s->options;

	if (source_record_send(s, &s->main, "reconnect", NULL, 0) < 0 ||
	    (o->old_preempt && dial_urgent(s) < 0))
		return -ECONNABORTED;
	for (unsigned i = 0; i < s->n_ready; i++)
		if (ask_for_bitmap(s, s->blocks[i].spec.name) < 0)
			return -ECONNABORTED;
	if (wait_for(s, has_bitmaps, "bitmaps of the destination") < 0 ||
	    (o->preempt && !o->old_preempt && dial_urgent(s) < 0) || say_resume(s) < 0 ||
	    wait_for(s, has_ack, "RESUME_ACK") < 0)
		return -ECONNABORTED;
	return source_record_send(s, &s->main, "resumed", NULL, 0);
}

/* --- the handshake: return thread ----------------------------------------------------------- */

/**
 * source_resume_block - whose bitmap is due; NULL, with a violation, when it is not @name's
 */
struct source_block *source_resume_block(struct source_session *s, const char *name)
{
	unsigned next = atomic_load(&s->resume.bitmaps);

	if (atomic_load(&s->phase) != SOURCE_RESUMING)
		source_check_violation(&s->check, "bitmap of %.100s outside a recovery", name);
	else if (next == s->n_ready)
		source_check_violation(&s->check, "bitmap of %.100s that is not due", name);
	else if (strcmp(s->blocks[next].spec.name, name) != 0)
		source_check_violation(&s->check, "bitmap of %.80s where that of %.80s is due",
				       name, s->blocks[next].spec.name);
	else
		return &s->blocks[next];
	return NULL;
}

/**
 * source_resume_on_bitmap - one was read and has taken effect
 */
void source_resume_on_bitmap(struct source_session *s)
{
	atomic_fetch_add(&s->resume.bitmaps, 1);
	source_session_notify(s);
}

/* The return thread knows first: the connection can be lost before the main thread is awake. */
static void end_pause(struct source_session *s)
{
	s->resume.paused = false;
	s->paused_ns += source_session_now() - s->resume.since;
	s->reconnects++;
	fprintf(stderr, "postcopy-source: resumed\n");
}

/**
 * source_resume_on_ack - from here on requests are answered
 */
int source_resume_on_ack(struct source_session *s)
{
	bool resuming = atomic_load(&s->phase) == SOURCE_RESUMING;
	uint64_t owed = 0;

	if (!resuming || !atomic_load(&s->resume.asked)) {
		source_check_violation(&s->check, "RESUME_ACK %s",
				       resuming ? "that is not due" : "outside a recovery");
		return -EPROTO;
	}
	for (unsigned i = 0; i < s->n_ready; i++)
		owed += source_block_count_owed(&s->blocks[i]);
	end_pause(s);
	atomic_store(&s->owed, owed);
	atomic_store(&s->phase, SOURCE_ACTIVE);
	atomic_store(&s->resume.acknowledged, true);
	source_session_notify(s);
	return 0;
}
