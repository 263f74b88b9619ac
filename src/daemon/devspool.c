/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Device state is loaded from here, and never from a connection: a device that got half of its
 * state is ruined, and whether the second half is right is known when it has come.  So bytes are
 * written to a file as they come, and the file is given to nobody before the last digest in it was
 * right; then it is sealed, and cannot change any more under whom it is loaded by.
 *
 * A stream is one connection, or the part of a package; its records say the rest.  What it began
 * and did not end is dropped with it, what it ended stays.  A device whose state comes again, in
 * the same stream or in another one, is saved anew: what came before is void, also when it was
 * complete, because its source has run since.  Two streams never carry one device at a time: the
 * later one is refused, since nothing tells which of the two is the newer state.
 *
 * The file has the segments one behind the other, each behind its length: who loads a migration
 * region needs their boundaries, and whoever has the descriptor has all that there is to know.
 *
 * What a sender can make us hold is bounded: bytes of all devices together, lengths included; the
 * number of devices; nothing is allocated by a length that was not compared with what is left.
 */
#include "config.h"

#include "daemon/devspool.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <glib.h>

#include "core/guard.h"
#include "sys/fd.h"

#define LENGTH sizeof(uint64_t)

struct entry {
	struct devspool_device d;
	struct devspool_stream *by; /* that it comes from now; NULL: none */
	struct digest sum;
	uint64_t held;	    /* bytes of the file, counted when they were promised */
	bool in_config;
};

struct devspool {
	struct entry *entries[DEVSPOOL_DEVICES];
	unsigned n;
	bool shut;
	uint64_t limit, held;
	devspool_changed *changed;
	void *ctx;
};

struct devspool_stream {
	struct devspool *spool;
	struct devstate_reader reader;
	struct entry *slots[DEVSTATE_SLOTS];
	char reason[160]; /* empty: none, or the reader's */
	int error;
};

/**
 * devspool_new - with nothing in it
 * @limit: of the bytes of all devices together
 * @changed: called from within devspool_stream_*() functions
 */
struct devspool *devspool_new(uint64_t limit, devspool_changed *changed, void *ctx)
{
	struct devspool *s = g_new0(struct devspool, 1);

	s->limit = limit;
	s->changed = changed;
	s->ctx = ctx;
	return s;
}

/* What was there of it is gone; who it is, and how often it came, stays. */
static void drop(struct devspool *s, struct entry *e)
{
	close_fd(&e->d.fd);
	g_clear_pointer(&e->d.config, g_free);
	s->held -= e->held;
	e->held = 0;
	e->by = NULL;
	e->d.complete = false;
	e->d.segments = e->d.bytes = e->d.rounds = e->d.received = e->d.digest = 0;
	e->d.config_len = 0;
}

/**
 * devspool_free - NULL is fine; its streams go before
 */
void devspool_free(struct devspool *s)
{
	if (!s)
		return;
	for (unsigned i = 0; i < s->n; i++) {
		drop(s, s->entries[i]);
		g_free(s->entries[i]);
	}
	g_free(s);
}

static struct entry *find(const struct devspool *s, const char *id)
{
	for (unsigned i = 0; i < s->n; i++)
		if (strcmp(s->entries[i]->d.id, id) == 0)
			return s->entries[i];
	return NULL;
}

/**
 * devspool_find - what is there of a device
 */
const struct devspool_device *devspool_find(const struct devspool *s, const char *id)
{
	const struct entry *e = find(s, id);

	return e ? &e->d : NULL;
}

/**
 * devspool_at - the @i-th device that ever began
 */
const struct devspool_device *devspool_at(const struct devspool *s, unsigned i)
{
	return i < s->n ? &s->entries[i]->d : NULL;
}

/**
 * devspool_fill - what a report says of them
 */
void devspool_fill(const struct devspool *s, struct snapshot *out)
{
	_Static_assert((int)DEVSPOOL_DEVICES <= (int)SNAPSHOT_DEVICES, "all devices");
	_Static_assert((int)DEVSTATE_NAME <= (int)SNAPSHOT_DEVICE_NAME, "names");
	out->n_device_states = s->n;
	for (unsigned i = 0; i < s->n; i++) {
		const struct devspool_device *d = &s->entries[i]->d;
		struct snapshot_device_state *o = &out->device_state[i];

		*o = (struct snapshot_device_state){
			.region = d->kind == DEVSTATE_REGION, .complete = d->complete,
			.coming = s->entries[i]->by, .attempts = d->attempts,
			.segments = d->segments, .bytes = d->bytes, .rounds = d->rounds,
			.received = d->received, .digest = d->digest,
		};
		g_strlcpy(o->id, d->id, sizeof(o->id));
		g_strlcpy(o->compat, d->compat, sizeof(o->compat));
	}
}

/**
 * devspool_shut - refuse attempts from now on
 */
void devspool_shut(struct devspool *s)
{
	s->shut = true;
}

/* --- what records say ------------------------------------------------------------------------- */

static int refuse(struct devspool_stream *t, int error, const char *fmt, ...)
	G_GNUC_PRINTF(3, 4);
static int refuse(struct devspool_stream *t, int error, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(t->reason, sizeof(t->reason), fmt, ap);
	va_end(ap);
	return error;
}

static struct entry *find_or_add(struct devspool *s, const char *id)
{
	struct entry *e = find(s, id);

	if (e || s->n == DEVSPOOL_DEVICES)
		return e;
	e = s->entries[s->n++] = g_new0(struct entry, 1);
	g_strlcpy(e->d.id, id, sizeof(e->d.id));
	e->d.fd = -1;
	return e;
}

static int begin(struct devspool_stream *t, const struct devstate_event *event)
{
	const struct devstate_device *says = &t->reader.devices[event->slot];
	struct devspool *s = t->spool;
	struct entry *e;

	if (s->shut)
		return refuse(t, -EPERM, "devices run already, nothing is loaded any more");
	e = find_or_add(s, says->device);
	if (!e)
		return refuse(t, -ENOSPC, "more devices than %d", DEVSPOOL_DEVICES);
	if (e->by && e->by != t)
		return refuse(t, -EBUSY, "device '%s' comes by another way already", e->d.id);
	drop(s, e);
	e->d.fd = memfd_create("postcopy-device-state", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (e->d.fd < 0)
		return refuse(t, -errno, "device '%s': %s", e->d.id, g_strerror(errno));
	g_strlcpy(e->d.compat, says->compat, sizeof(e->d.compat));
	e->d.kind = says->kind;
	e->d.attempts++;
	digest_init(&e->sum, 0);
	t->slots[event->slot] = e;
	e->by = t;
	s->changed(s->ctx, &e->d);
	return 0;
}

/* Before anything of it is there: is there room for a body? */
static int promise(struct devspool_stream *t, struct entry *e, uint64_t bytes)
{
	struct devspool *s = t->spool;

	if (bytes > s->limit - s->held)
		return refuse(t, -ENOSPC,
			      "device '%s': with %" PRIu64 " bytes more, devices' states are larger "
			      "than %" PRIu64 " bytes",
			      e->d.id, bytes, s->limit);
	s->held += bytes;
	e->held += bytes;
	return 0;
}

static int put(struct devspool_stream *t, struct entry *e, const void *bytes, size_t len)
{
	const uint8_t *at = bytes;

	while (len) {
		ssize_t n = write(e->d.fd, at, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return refuse(t, n < 0 ? -errno : -EIO, "device '%s': cannot hold it: %s",
				      e->d.id, g_strerror(n < 0 ? errno : EIO));
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

static int begin_segment(struct devspool_stream *t, const struct devstate_event *event)
{
	struct entry *e = t->slots[event->slot];
	uint64_t room;
	int ret = -ENOSPC;

	if (add_u64(event->length, LENGTH, &room))
		ret = promise(t, e, room);
	e->in_config = false;
	return ret < 0 ? ret : put(t, e, &event->length, LENGTH);
}

static int begin_config(struct devspool_stream *t, const struct devstate_event *event)
{
	struct entry *e = t->slots[event->slot];
	int ret = promise(t, e, event->length);

	if (ret < 0)
		return ret;
	e->in_config = true;
	e->d.config = g_malloc(event->length + 1); /* of no bytes, too, it is not NULL */
	e->d.config_len = 0;
	return 0;
}

static int take_data(struct devspool_stream *t, const struct devstate_event *event)
{
	struct entry *e = t->slots[event->slot];

	if (e->in_config) {
		memcpy(e->d.config + e->d.config_len, event->at, event->len);
		e->d.config_len += event->len;
		return 0;
	}
	e->d.received += event->len;
	digest_feed(&e->sum, event->at, event->len);
	return put(t, e, event->at, event->len);
}

static int take_whole(struct devspool_stream *t, const struct devstate_event *event)
{
	struct entry *e = t->slots[event->slot];

	if (e->in_config)
		return 0;
	e->d.segments++;
	e->d.bytes = e->d.received;
	return 0;
}

static int take_round(struct devspool_stream *t, const struct devstate_event *event)
{
	t->slots[event->slot]->d.rounds++;
	return 0;
}

static int take_end(struct devspool_stream *t, const struct devstate_event *event)
{
	const int seals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	struct entry *e = t->slots[event->slot];

	if (fcntl(e->d.fd, F_ADD_SEALS, seals) < 0)
		return refuse(t, -errno, "device '%s': %s", e->d.id, g_strerror(errno));
	e->d.digest = digest_value(&e->sum);
	e->d.complete = true;
	e->by = NULL;
	t->spool->changed(t->spool->ctx, &e->d);
	return 0;
}

/* --- streams ---------------------------------------------------------------------------------- */

/**
 * devspool_stream_new - somebody begins to send
 * @session: whose devices they must be
 */
struct devspool_stream *devspool_stream_new(struct devspool *s,
					    const uint8_t session[DEVSTATE_SESSION])
{
	const struct devstate_limits limits = { .segment = s->limit, .total = s->limit };
	struct devspool_stream *t = g_new0(struct devspool_stream, 1);

	t->spool = s;
	devstate_reader_init(&t->reader, session, &limits);
	return t;
}

/* One event.  1; 0: more bytes are needed; -errno. */
static int step(struct devspool_stream *t, const uint8_t *buf, size_t len, size_t *used)
{
	static int (*const takes[])(struct devspool_stream *, const struct devstate_event *) = {
		[DEVSTATE_BEGIN] = begin,	  [DEVSTATE_SEGMENT] = begin_segment,
		[DEVSTATE_CONFIG] = begin_config, [DEVSTATE_DATA] = take_data,
		[DEVSTATE_WHOLE] = take_whole,	  [DEVSTATE_ROUND] = take_round,
		[DEVSTATE_END] = take_end,
	};
	struct devstate_event event;
	int what = devstate_next(&t->reader, buf, len, &event), ret;

	*used = event.used;
	if (what <= 0)
		return what;
	ret = takes[what](t, &event);
	return ret < 0 ? ret : 1;
}

/**
 * devspool_stream_feed - take what can be taken
 * @buf, @len: the bytes behind those that were taken
 *
 * Return: how many were taken; or -errno, now and ever after.
 */
ssize_t devspool_stream_feed(struct devspool_stream *t, const uint8_t *buf, size_t len)
{
	size_t at = 0, used = 0;
	int ret = t->error;

	while (ret >= 0) {
		ret = step(t, buf + at, len - at, &used);
		at += used;
		if (ret == 0)
			return (ssize_t)at;
	}
	t->error = ret;
	return ret;
}

/**
 * devspool_stream_end - the bytes have ended
 */
int devspool_stream_end(struct devspool_stream *t)
{
	return t->error ? t->error : devstate_finish(&t->reader);
}

/**
 * devspool_stream_reason - what is wrong with it; empty: nothing
 */
const char *devspool_stream_reason(const struct devspool_stream *t)
{
	if (t->reason[0])
		return t->reason;
	return t->reader.reason ? t->reader.reason : "";
}

/**
 * devspool_stream_bytes - how many it took
 */
uint64_t devspool_stream_bytes(const struct devspool_stream *t)
{
	return t->reader.position;
}

/**
 * devspool_stream_free - it is over, as it should be or not; NULL is fine
 */
void devspool_stream_free(struct devspool_stream *t)
{
	if (!t)
		return;
	for (unsigned i = 0; i < DEVSTATE_SLOTS; i++) {
		struct entry *e = t->slots[i];

		if (!e || e->by != t)
			continue;
		drop(t->spool, e);
		t->spool->changed(t->spool->ctx, &e->d);
	}
	g_free(t);
}

/* --- for who loads it ------------------------------------------------------------------------- */

/**
 * devspool_segment - go to the next segment of a file
 * @fd: of a device that is complete
 * @at: 0 at first; then the end of the segment before
 *
 * Return: 1, with *at where its *length bytes begin; 0 at the end; -errno.
 */
int devspool_segment(int fd, uint64_t *at, uint64_t *length)
{
	ssize_t n = pread(fd, length, LENGTH, (off_t)*at);

	if (n <= 0)
		return n < 0 ? -errno : 0;
	if (n != (ssize_t)LENGTH)
		return -EIO;
	*at += LENGTH;
	return 1;
}
