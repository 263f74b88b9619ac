/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_SOURCE_LANE_H
#define PC_TOOLS_SOURCE_LANE_H
/*
 * One connection to the destination and whose turn it is to write to it.
 *
 * A turn is one unbroken stretch of records.  Whoever answers a request goes before the background,
 * however often that asks; a plain mutex would not promise it.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct source_block;

struct source_lane {
	int fd; /* -1: not open */
	bool tcp;
	_Atomic uint64_t bytes;		 /* written */
	const struct source_block *last; /* of the last page record; owned by who has the turn */
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	bool busy;
	unsigned urgent_waiting;
};

void source_lane_init(struct source_lane *l);
void source_lane_deinit(struct source_lane *l);
/* @address: tcp:HOST:PORT (HOST may be in brackets) or unix:PATH.  0 or -errno. */
int source_lane_dial(struct source_lane *l, const char *address);
/* The same, of which each attempt to connect takes @ms at most (not the look-up of a name). */
int source_lane_dial_within(struct source_lane *l, const char *address, unsigned ms);
/* Nobody uses it any more; it can be dialled again. */
void source_lane_close(struct source_lane *l);

void source_lane_begin_turn(struct source_lane *l, bool urgent);
void source_lane_end_turn(struct source_lane *l);

/* All of it.  0 or -errno.  Needs the turn. */
int source_lane_write(struct source_lane *l, const void *buf, size_t len);
/* From any thread: both directions end, blocked calls return. */
void source_lane_hang_up(struct source_lane *l);
/* No more to send; the other direction goes on. */
void source_lane_finish(struct source_lane *l);
/* Wait, at most a second, until the other end has all that was written. */
void source_lane_drain(const struct source_lane *l);
/* From any thread: both directions end at once, with RST.  A UNIX socket only hangs up. */
void source_lane_reset(struct source_lane *l);

#endif
