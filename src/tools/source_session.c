// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * How a migration ends is decided once, by whoever finds out first; the connections are closed in
 * the manner of that end, which makes the other thread's calls return.  What the end means for the
 * VM is the table of QEMU's behaviour in source_session_outcome(): the same loss lets a source
 * resume, pause or not know, depending on what was sent and answered.
 */
#include "config.h"

#include "source_session.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/guard.h"

static int init_blocks(struct source_session *s)
{
	const struct source_options *o = s->options;

	s->blocks = calloc(o->n_blocks, sizeof(*s->blocks));
	if (!s->blocks)
		return -ENOMEM;
	while (s->n_ready < o->n_blocks) {
		int r = source_block_init(&s->blocks[s->n_ready], &o->blocks[s->n_ready]);

		s->n_ready++;
		if (r < 0)
			return r;
	}
	return 0;
}

/**
 * source_session_init - 0 or -errno; source_session_deinit() after either
 */
int source_session_init(struct source_session *s, struct source_options *o)
{
	pthread_condattr_t attr;

	memset(s, 0, sizeof(*s));
	s->options = o;
	source_lane_init(&s->main);
	source_lane_init(&s->urgent);
	pthread_mutex_init(&s->mutex, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->cond, &attr);
	pthread_condattr_destroy(&attr);
	return init_blocks(s);
}

void source_session_deinit(struct source_session *s)
{
	while (s->n_ready)
		source_block_deinit(&s->blocks[--s->n_ready]);
	free(steal_ptr(&s->blocks));
	source_lane_deinit(&s->main);
	source_lane_deinit(&s->urgent);
	pthread_cond_destroy(&s->cond);
	pthread_mutex_destroy(&s->mutex);
}

static void close_lane(struct source_lane *l, enum source_end end)
{
	if (end == SOURCE_DROPPED || end == SOURCE_DIED)
		source_lane_drain(l);
	if (end == SOURCE_DIED)
		source_lane_reset(l);
	else if (end != SOURCE_FINISHED)
		source_lane_hang_up(l);
}

/**
 * source_session_end - it is over, for both threads; the first call counts
 * @end: closes both lanes in its manner; SOURCE_FINISHED leaves them open
 */
void source_session_end(struct source_session *s, enum source_end end, const char *fmt, ...)
{
	enum source_end none = SOURCE_GOES_ON;
	va_list ap;

	if (!atomic_compare_exchange_strong(&s->end, &none, end))
		return;
	pthread_mutex_lock(&s->mutex);
	va_start(ap, fmt);
	vsnprintf(s->problem, sizeof(s->problem), fmt, ap);
	va_end(ap);
	pthread_cond_broadcast(&s->cond);
	pthread_mutex_unlock(&s->mutex);
	close_lane(&s->main, end);
	close_lane(&s->urgent, end);
}

bool source_session_goes_on(const struct source_session *s)
{
	return atomic_load(&s->end) == SOURCE_GOES_ON;
}

/**
 * source_session_again - the end was a pause, and there is a new main connection
 *
 * No other thread is there.  Who had a page in hand has it no more; nobody waits for a PONG that
 * was lost; and what was to end the stream early has done so.
 */
void source_session_again(struct source_session *s)
{
	s->problem[0] = '\0';
	source_check_forget_pings(&s->check);
	atomic_store(&s->early_eof, false);
	atomic_store(&s->answering, false);
	atomic_store(&s->hint, 0);
	atomic_store(&s->resume.bitmaps, 0);
	atomic_store(&s->resume.asked, false);
	atomic_store(&s->resume.acknowledged, false);
	atomic_store(&s->phase, SOURCE_RESUMING);
	atomic_store(&s->end, SOURCE_GOES_ON);
}

/**
 * source_session_notify - something that source_session_wait() may wait for has changed
 */
void source_session_notify(struct source_session *s)
{
	pthread_mutex_lock(&s->mutex);
	pthread_cond_broadcast(&s->cond);
	pthread_mutex_unlock(&s->mutex);
}

/**
 * source_session_now - CLOCK_MONOTONIC, nanoseconds
 */
uint64_t source_session_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* False when the deadline has passed. */
static bool sleep_until(struct source_session *s, uint64_t deadline)
{
	struct timespec ts = {.tv_sec = (time_t)(deadline / 1000000000u),
			      .tv_nsec = (long)(deadline % 1000000000u)};

	if (deadline == UINT64_MAX)
		return pthread_cond_wait(&s->cond, &s->mutex) == 0;
	return pthread_cond_timedwait(&s->cond, &s->mutex, &ts) == 0;
}

/**
 * source_session_wait - sleep until something is so
 * @ready: looked at after every notify
 * @deadline: CLOCK_MONOTONIC, nanoseconds; UINT64_MAX: none
 *
 * Return: 1 it is so, 0 the deadline has passed, -ECONNABORTED the session is over.
 */
int source_session_wait(struct source_session *s, bool (*ready)(const struct source_session *s),
			uint64_t deadline)
{
	bool in_time = true, is_ready = false;

	pthread_mutex_lock(&s->mutex);
	while (source_session_goes_on(s) && !(is_ready = ready(s)) && in_time)
		in_time = sleep_until(s, deadline);
	pthread_mutex_unlock(&s->mutex);
	if (!source_session_goes_on(s))
		return -ECONNABORTED;
	return is_ready;
}

/* --- sending, with faults ------------------------------------------------------------------- */

static int write_all(struct source_session *s, struct source_lane *l, const uint8_t *buf,
		     size_t len)
{
	int r;

	if (!source_session_goes_on(s))
		return -ECONNABORTED;
	r = source_lane_write(l, buf, len);
	if (r == 0)
		return 0;
	source_session_end(s, SOURCE_LOST, "%s connection: %s", l == &s->main ? "main" : "urgent",
			   strerror(-r));
	return -ECONNABORTED;
}

static void pause_ms(uint64_t ms)
{
	struct timespec ts = {.tv_sec = (time_t)(ms / 1000),
			      .tv_nsec = (long)(ms % 1000) * 1000000};

	while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
		;
}

/**
 * source_session_strike - DELAY, DROP and DIE, the same everywhere; as source_session_send()
 */
int source_session_strike(struct source_session *s, const struct source_fault *f)
{
	if (f->kind->action == SOURCE_DELAY) {
		pause_ms(f->arg);
		return 0;
	}
	source_session_end(s, f->kind->action == SOURCE_DIE ? SOURCE_DIED : SOURCE_DROPPED,
			   "fault %s", f->kind->name);
	return -ECONNABORTED;
}

/* One byte of the main connection, wrong, late, or the last one. */
static int strike_byte(struct source_session *s, const struct source_fault *f, const uint8_t *at)
{
	uint8_t flipped = *at ^ 0xff;

	if (f->kind->action == SOURCE_CORRUPT)
		return write_all(s, &s->main, &flipped, 1);
	if (source_session_strike(s, f) < 0)
		return -ECONNABORTED;
	return write_all(s, &s->main, at, 1);
}

/**
 * source_session_send - write with the turn held; byte faults strike here
 *
 * Return: 0, or -ECONNABORTED, the session then being over.
 */
int source_session_send(struct source_session *s, struct source_lane *l, const void *buf,
			size_t len)
{
	const uint8_t *at = buf, *end = at + len;
	struct source_fault *f;
	uint64_t offset;

	while (l == &s->main && at < end &&
	       (f = source_faults_at_byte(&s->options->faults, SOURCE_AT_BYTE, l->bytes,
					  (uint64_t)(end - at), &offset))) {
		if (write_all(s, l, at, offset) < 0 || strike_byte(s, f, at + offset) < 0)
			return -ECONNABORTED;
		at += offset + 1;
	}
	return write_all(s, l, at, (size_t)(end - at));
}

/* --- what it means -------------------------------------------------------------------------- */

static const char *lost_outcome(const struct source_session *s)
{
	enum source_phase phase = atomic_load(&s->phase);

	if (phase == SOURCE_RESUMING)
		phase = s->resume.was;
	if (phase == SOURCE_ENDED)
		return "ownership-unknown";
	if (phase < SOURCE_ACTIVE)
		return "source-resumes";
	if (s->options->commit_ping && !atomic_load(&s->check.committed))
		return "source-resumes";
	return "postcopy-paused";
}

/**
 * source_session_outcome - what a source does with its VM after this end
 *
 * Return: "completed"; "source-resumes" while the destination has not committed; "postcopy-paused";
 * "ownership-unknown" between the end of the stream and SHUT.
 */
const char *source_session_outcome(const struct source_session *s)
{
	if (atomic_load(&s->end) != SOURCE_FINISHED)
		return lost_outcome(s);
	return s->check.shut == 0 && atomic_load(&s->phase) == SOURCE_ENDED ? "completed"
									    : "source-resumes";
}
