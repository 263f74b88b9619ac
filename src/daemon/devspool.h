/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_DEVSPOOL_H
#define PC_DAEMON_DEVSPOOL_H
/*
 * The state of devices that has come, by whatever way: for each device one attempt at most, held in
 * a memfd until somebody loads it.  For the main thread; what is complete is a sealed file, which
 * any thread may read.  devspool.c has the theory.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/snapshot.h"
#include "wire/devstate.h"

enum { DEVSPOOL_DEVICES = DEVSTATE_SLOTS };

struct devspool;
struct devspool_stream;

/* What is there of a device.  It stays where it is as long as the spool; the rest may change. */
struct devspool_device {
	char id[DEVSTATE_NAME], compat[DEVSTATE_NAME];
	enum devstate_kind kind;
	bool complete;	    /* all of it is here, and right */
	unsigned attempts;  /* at sending it, that began here */
	uint64_t segments, bytes, rounds;
	uint64_t digest;    /* XXH64 of these bytes, when complete */
	uint64_t received;  /* of its segments so far: @bytes, and the piece of one that follows */
	uint8_t *config;    /* what is not the device's own to load; NULL: none came */
	size_t config_len;
	/*
	 * Its segments, see devspool_segment(); the spool's own, sealed when complete, -1 when
	 * nothing is there.  A copy of the descriptor outlives what becomes of the device here.
	 */
	int fd;
};

/* A device began, is complete, or what was there of it went. */
typedef void devspool_changed(void *ctx, const struct devspool_device *device);

/* @limit: bytes held for all devices together. */
struct devspool *devspool_new(uint64_t limit, devspool_changed *changed, void *ctx);
void devspool_free(struct devspool *s);
/* NULL: nothing came of it, ever. */
const struct devspool_device *devspool_find(const struct devspool *s, const char *id);
/* From 0 on, in the order in which they came; NULL: there are no more. */
const struct devspool_device *devspool_at(const struct devspool *s, unsigned i);
/* What there is of each, for reports. */
void devspool_fill(const struct devspool *s, struct snapshot *out);
/* No attempt begins any more: the devices that were loaded run. */
void devspool_shut(struct devspool *s);

/* --- a stream of records --- */

struct devspool_stream *devspool_stream_new(struct devspool *s,
					    const uint8_t session[DEVSTATE_SESSION]);
/*
 * Take bytes: as many as make whole records or parts of bodies.  With DEVSTATE_WINDOW bytes given
 * it takes some.  -EPROTO, -ENOSPC, -EBUSY, -EPERM, -ENOMEM, for good: devspool_stream_reason().
 */
ssize_t devspool_stream_feed(struct devspool_stream *t, const uint8_t *buf, size_t len);
/* No more bytes will come, none are left over.  0; -EPROTO: a device is not whole. */
int devspool_stream_end(struct devspool_stream *t);
/* Why it is refused; valid as long as the stream. */
const char *devspool_stream_reason(const struct devspool_stream *t);
uint64_t devspool_stream_bytes(const struct devspool_stream *t);
/* Gives up what it began and did not end. */
void devspool_stream_free(struct devspool_stream *t);

/* --- reading a device, in any thread --- */

/*
 * The length of the segment at *at of a complete device's file; *at then is that of its bytes, and
 * behind these is the next segment.  1; 0: there are no more; -errno.
 */
int devspool_segment(int fd, uint64_t *at, uint64_t *length);

#endif
