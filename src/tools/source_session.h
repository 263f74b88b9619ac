/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_SOURCE_SESSION_H
#define PC_TOOLS_SOURCE_SESSION_H
/*
 * One migration: what the two threads of the source share.
 *
 * The main thread sends the stream and the background; the return thread reads requests and answers
 * them, on the urgent lane when there is one and otherwise on main, between two turns of the
 * background.  A page belongs to who claims it in its block.  Numbers are atomics; `mutex` and
 * `cond` only serve to sleep until one of them changed.  Whoever finds the connection gone ends the
 * session for both (source_session_end); the first reason counts.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tools/source_check.h"
#include "tools/source_devices.h"
#include "tools/source_lane.h"
#include "tools/source_options.h"

#define SOURCE_RAM_SECTION 2u

enum source_end {
	SOURCE_GOES_ON,
	SOURCE_FINISHED, /* SHUT came */
	SOURCE_LOST,	 /* the destination closed, or the network did */
	SOURCE_DROPPED,	 /* we closed, as told: all that was sent arrives */
	SOURCE_DIED,	 /* we reset, as told */
	SOURCE_GARBAGE,	 /* the return path cannot be parsed any more */
	SOURCE_FAILED,	 /* our own trouble: a file that cannot be read, no memory */
};

/*
 * Between a loss and RESUME_ACK: see source_resume.c.  What is no atomic is the return thread's
 * while there is one.
 */
struct source_resume {
	bool paused;
	enum source_phase was;	  /* when the pause began */
	uint64_t since, wait;	  /* monotonic ns; ns before the next attempt */
	atomic_uint bitmaps;	  /* read on this connection */
	atomic_bool asked;	  /* RESUME left */
	atomic_bool acknowledged; /* RESUME_ACK came */
};

struct source_session {
	struct source_options *options;
	struct source_block *blocks; /* owned, options->n_blocks of them */
	unsigned n_ready;	     /* blocks that were initialised */
	struct source_lane main, urgent;
	struct source_devices *devices; /* the caller's; NULL: none */
	struct source_check check;

	_Atomic enum source_phase phase;
	_Atomic enum source_end end;
	atomic_bool early_eof;	   /* a fault ended the stream with pages owed */
	atomic_bool answering;	   /* a request is being answered right now */
	_Atomic uint64_t owed;	   /* pages not yet sent */
	_Atomic uint64_t ordinal;  /* pages that left after the switch-over */
	_Atomic uint64_t hint;	   /* where a request was, for the background; 0: none */
	_Atomic uint64_t asked_at; /* monotonic ns of the last request */

	_Atomic uint64_t pages, zero, withheld, urgent_pages;
	_Atomic uint64_t resent; /* of pages: those that had left before */
	uint64_t precopied;
	struct source_resume resume;
	uint64_t reconnects, paused_ns;

	pthread_mutex_t mutex;
	pthread_cond_t cond;
	char problem[256]; /* text for SOURCE_LOST, _GARBAGE, _FAILED; under mutex */
};

int source_session_init(struct source_session *s, struct source_options *o);
void source_session_deinit(struct source_session *s);

/* The first call counts.  Closes both lanes in the manner of @end, but for SOURCE_FINISHED. */
void source_session_end(struct source_session *s, enum source_end end, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
bool source_session_goes_on(const struct source_session *s);
/* On a new connection: the end was none.  No other thread is there. */
void source_session_again(struct source_session *s);
void source_session_notify(struct source_session *s);
/*
 * Sleep until @ready says so (1), the session is over (-ECONNABORTED) or the monotonic @deadline in
 * ns has passed (0); UINT64_MAX: none.
 */
int source_session_wait(struct source_session *s, bool (*ready)(const struct source_session *s),
			uint64_t deadline);
uint64_t source_session_now(void);

/* Write with the turn held; byte faults strike here.  0, or -ECONNABORTED: the session is over. */
int source_session_send(struct source_session *s, struct source_lane *l, const void *buf,
			size_t len);
/* DELAY, DROP and DIE, the same everywhere.  As source_session_send(). */
int source_session_strike(struct source_session *s, const struct source_fault *f);

/* What this means for the VM at the source: "completed", "source-resumes", ... */
const char *source_session_outcome(const struct source_session *s);

#endif
