/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Device state that has come: it is given to nobody before all of it is right, a later attempt
 * makes void an earlier one, nothing stays of what was not whole (F35, S3-43), and no sender can
 * make more be held than is allowed (S3-44).
 */
#include "config.h"

#include "daemon/devspool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "lib/rng.h"
#include "sys/fd.h"

#define LIMIT 4096

static const uint8_t session[DEVSTATE_SESSION] = "devspool unit";

/* What changed, in words: "+nic0" began, "=nic0" complete, "-nic0" gone. */
struct heard {
	char text[256];
};

static void changed(void *ctx, const struct devspool_device *d)
{
	struct heard *h = ctx;
	char what = d->complete ? '=' : d->fd >= 0 ? '+' : '-';
	size_t at = strlen(h->text);

	snprintf(h->text + at, sizeof(h->text) - at, "%c%s ", what, d->id);
}

struct bytes {
	uint8_t at[1 << 14];
	struct pen p;
};

static struct devstate_writer begin(struct bytes *b, unsigned slot, const char *device,
				    uint32_t sequence)
{
	struct devstate_id id = { .slot = slot, .device = device, .compat = "x:1" };
	struct devstate_writer w;

	if (!b->p.start)
		b->p = pen_init(b->at, sizeof(b->at));
	id.kind = slot % 2 ? DEVSTATE_REGION : DEVSTATE_STREAM;
	memcpy(id.session, session, sizeof(session));
	devstate_put_head(&w, &b->p, &id, sequence);
	return w;
}

static void put(struct bytes *b, struct devstate_writer *w, const char *text)
{
	devstate_put_segment(w, &b->p, strlen(text));
	pen_bytes(&b->p, text, strlen(text));
	devstate_fed(w, text, strlen(text));
	devstate_put_tail(w, &b->p);
}

/* All of it, @step bytes more at a time.  The last result. */
static ssize_t feed(struct devspool_stream *t, const struct bytes *b, size_t step)
{
	size_t len = pen_used(&b->p), at = 0, end = 0;
	ssize_t n = 0;

	while (n >= 0 && (end < len || at < end)) {
		end = len - end < step ? len : end + step;
		n = devspool_stream_feed(t, b->at + at, end - at);
		at += n > 0 ? (size_t)n : 0;
		if (n == 0 && end == len)
			break;
	}
	return n < 0 ? n : (ssize_t)(len - at);
}

static void is_device(const struct devspool *s, const char *id, const char *const *segments)
{
	const struct devspool_device *d = devspool_find(s, id);
	uint64_t at = 0, length = 0, bytes = 0;
	unsigned n = 0;
	char text[LIMIT];

	cr_assert(d && d->complete && d->fd >= 0);
	for (; segments[n]; n++, at += length) {
		cr_assert_eq(devspool_segment(d->fd, &at, &length), 1);
		cr_assert_eq(length, strlen(segments[n]), "segment %u of %s", n, id);
		cr_assert_eq(pread(d->fd, text, length, (off_t)at), (ssize_t)length);
		cr_assert_arr_eq(text, segments[n], length);
		bytes += length;
	}
	cr_assert_eq(devspool_segment(d->fd, &at, &length), 0);
	cr_assert_eq(d->segments, n);
	cr_assert_eq(d->bytes, bytes);
	/* Nobody changes under a loader's hands what was found to be right. */
	cr_assert_lt(write(d->fd, "x", 1), 0);
	cr_assert_eq(errno, EPERM);
}

/* Two devices, one of them in two attempts, interleaved; however the bytes are cut. */
Test(devspool, S3_43_what_was_sent_whole_is_there)
{
	struct bytes b = { .p = { 0 } };
	struct devstate_writer nic = begin(&b, 0, "nic0", 1), gpu;

	put(&b, &nic, "stale");
	gpu = begin(&b, 1, "gpu0", 7);
	put(&b, &gpu, "first");
	devstate_put_round(&gpu, &b.p);
	nic = begin(&b, 0, "nic0", 2);
	put(&b, &nic, "fresh");
	put(&b, &gpu, "");
	devstate_put_config(&nic, &b.p, 3);
	pen_bytes(&b.p, "cfg", 3);
	devstate_fed(&nic, "cfg", 3);
	devstate_put_tail(&nic, &b.p);
	put(&b, &gpu, "last");
	devstate_put_end(&gpu, &b.p);
	put(&b, &nic, "er");
	devstate_put_end(&nic, &b.p);
	cr_assert(!b.p.bad);
	for (size_t step = 1; step < 200; step += 3) {
		struct heard h = { "" };
		struct devspool *s = devspool_new(LIMIT, changed, &h);
		struct devspool_stream *t = devspool_stream_new(s, session);
		const struct devspool_device *d;

		cr_assert_eq(feed(t, &b, step), 0, "%s", devspool_stream_reason(t));
		cr_assert_eq(devspool_stream_end(t), 0);
		cr_assert_eq(devspool_stream_bytes(t), pen_used(&b.p));
		devspool_stream_free(t);
		cr_assert_str_eq(h.text, "+nic0 +gpu0 +nic0 =gpu0 =nic0 ");
		is_device(s, "nic0", (const char *const[]){ "fresh", "er", NULL });
		is_device(s, "gpu0", (const char *const[]){ "first", "", "last", NULL });
		d = devspool_find(s, "nic0");
		cr_assert_eq(d->attempts, 2);
		cr_assert_eq(d->digest, digest_of("fresher", 7, 0));
		cr_assert_eq(d->config_len, 3);
		cr_assert_arr_eq(d->config, "cfg", 3);
		cr_assert_eq(devspool_find(s, "gpu0")->kind, DEVSTATE_REGION);
		cr_assert_eq(devspool_find(s, "gpu0")->rounds, 1);
		cr_assert_eq(devspool_at(s, 1), devspool_find(s, "gpu0"));
		cr_assert_null(devspool_at(s, 2));
		devspool_free(s);
	}
}

/* At every byte: what had ended stays, the rest goes, and all of it can come again. */
Test(devspool, S3_43_what_was_cut_is_dropped_and_comes_again)
{
	struct bytes b = { .p = { 0 } }, cut;
	struct devstate_writer nic = begin(&b, 0, "nic0", 1), gpu;
	size_t whole;

	put(&b, &nic, "net");
	devstate_put_end(&nic, &b.p);
	whole = pen_used(&b.p);
	gpu = begin(&b, 1, "gpu0", 1);
	put(&b, &gpu, "graphics");
	devstate_put_end(&gpu, &b.p);
	for (size_t len = 0; len < pen_used(&b.p); len++) {
		struct heard h = { "" };
		struct devspool *s = devspool_new(LIMIT, changed, &h);
		struct devspool_stream *t = devspool_stream_new(s, session);
		const struct devspool_device *d;

		cut = b;
		cut.p.at = cut.p.start + len;
		(void)feed(t, &cut, 64);
		devspool_stream_free(t);
		d = devspool_find(s, "gpu0");
		cr_assert(!d || (!d->complete && d->fd < 0 && !d->bytes && !d->received));
		if (len >= whole)
			is_device(s, "nic0", (const char *const[]){ "net", NULL });
		t = devspool_stream_new(s, session);
		cr_assert_eq(feed(t, &b, 64), 0);
		devspool_stream_free(t);
		is_device(s, "nic0", (const char *const[]){ "net", NULL });
		is_device(s, "gpu0", (const char *const[]){ "graphics", NULL });
		devspool_free(s);
	}
}

/* Not one byte of a stream can be another one without its being found. */
Test(devspool, S3_44_damage)
{
	struct bytes b = { .p = { 0 } };
	struct devstate_writer w = begin(&b, 0, "nic0", 1);
	struct rng rng = { .state = rng_seed() };

	put(&b, &w, "net");
	devstate_put_end(&w, &b.p);
	for (size_t i = 0; i < pen_used(&b.p); i++) {
		struct heard h = { "" };
		struct devspool *s = devspool_new(LIMIT, changed, &h);
		struct devspool_stream *t = devspool_stream_new(s, session);
		uint8_t was = b.at[i];

		b.at[i] ^= (uint8_t)(1u << rng_below(&rng, 8));
		cr_assert_eq(feed(t, &b, 64), -EPROTO, "byte %zu", i);
		cr_assert(devspool_stream_reason(t)[0]);
		cr_assert_eq(devspool_stream_feed(t, b.at, 0), -EPROTO);
		cr_assert_eq(devspool_stream_end(t), -EPROTO);
		devspool_stream_free(t);
		cr_assert(!devspool_find(s, "nic0") || !devspool_find(s, "nic0")->complete);
		b.at[i] = was;
		devspool_free(s);
	}
}

/* A file that somebody loads from stays what it was, whatever comes later. */
Test(devspool, a_later_stream_begins_another_attempt)
{
	struct bytes old = { .p = { 0 } }, new = { .p = { 0 } };
	struct devstate_writer w = begin(&old, 0, "nic0", 1);
	struct heard h = { "" };
	struct devspool *s = devspool_new(LIMIT, changed, &h);
	struct devspool_stream *t = devspool_stream_new(s, session);
	cleanup_fd int loaded = -1;
	uint64_t at = 0, length;
	char text[3];

	put(&old, &w, "old");
	devstate_put_end(&w, &old.p);
	w = begin(&new, 3, "nic0", 1);
	put(&new, &w, "anew");
	devstate_put_end(&w, &new.p);
	cr_assert_eq(feed(t, &old, 64), 0);
	devspool_stream_free(t);
	loaded = fcntl(devspool_find(s, "nic0")->fd, F_DUPFD_CLOEXEC, 0);
	t = devspool_stream_new(s, session);
	cr_assert_eq(feed(t, &new, 64), 0);
	devspool_stream_free(t);
	is_device(s, "nic0", (const char *const[]){ "anew", NULL });
	cr_assert_eq(devspool_find(s, "nic0")->attempts, 2);
	cr_assert_eq(devspool_find(s, "nic0")->kind, DEVSTATE_REGION);
	cr_assert_eq(devspool_segment(loaded, &at, &length), 1);
	cr_assert_eq(pread(loaded, text, 3, (off_t)at), 3);
	cr_assert_arr_eq(text, "old", 3);
	devspool_shut(s);
	t = devspool_stream_new(s, session);
	cr_assert_eq(feed(t, &new, 64), -EPERM);
	devspool_stream_free(t);
	is_device(s, "nic0", (const char *const[]){ "anew", NULL });
	devspool_free(s);
}

/* Nobody could tell which of the two is newer. */
Test(devspool, one_device_comes_one_way_at_a_time)
{
	struct bytes b = { .p = { 0 } };
	struct devstate_writer w = begin(&b, 0, "nic0", 1);
	struct heard h = { "" };
	struct devspool *s = devspool_new(LIMIT, changed, &h);
	struct devspool_stream *one = devspool_stream_new(s, session),
			       *two = devspool_stream_new(s, session);

	cr_assert_eq(feed(one, &b, 64), 0);
	cr_assert_eq(feed(two, &b, 64), -EBUSY);
	devspool_stream_free(two);
	cr_assert_str_eq(h.text, "+nic0 ");
	b.p = pen_init(b.at, sizeof(b.at));
	put(&b, &w, "x");
	devstate_put_end(&w, &b.p);
	cr_assert_eq(feed(one, &b, 64), 0);
	devspool_stream_free(one);
	is_device(s, "nic0", (const char *const[]){ "x", NULL });
	devspool_free(s);
}

/* What one segment, all segments, all devices, and what is only promised can take. */
Test(devspool, S3_44_no_more_than_allowed)
{
	static const uint64_t lengths[] = { LIMIT - 7, LIMIT + 1, UINT64_MAX - 7, UINT64_MAX };
	struct heard h = { "" };
	struct devspool *s = devspool_new(LIMIT, changed, &h);
	struct bytes more = { .p = { 0 } };
	struct devstate_writer full;
	struct devspool_stream *t;

	for (unsigned i = 0; i < ARRAY_LEN(lengths); i++) {
		struct bytes b = { .p = { 0 } };
		struct devstate_writer w = begin(&b, 0, "nic0", 1);

		devstate_put_segment(&w, &b.p, lengths[i]);
		t = devspool_stream_new(s, session);
		cr_assert_lt(feed(t, &b, 64), 0, "%lu", (unsigned long)lengths[i]);
		devspool_stream_free(t);
	}
	t = devspool_stream_new(s, session);
	for (unsigned i = 0; i < LIMIT / 1024; i++) {
		struct bytes b = { .p = { 0 } };
		char name[] = { (char)('a' + i), 0 };
		struct devstate_writer w = begin(&b, i, name, 1);
		char text[1024 - 7] = "";

		memset(text, 'x', sizeof(text) - 1);
		put(&b, &w, text);
		cr_assert_eq(feed(t, &b, 64), 0, "%u %s", i, devspool_stream_reason(t));
	}
	full = begin(&more, 9, "one more", 1);
	put(&more, &full, "");
	cr_assert_eq(feed(t, &more, 64), -ENOSPC);
	devspool_stream_free(t);
	devspool_free(s);
}

/* Segments without a byte cost something, too. */
Test(devspool, S3_44_empty_segments_and_many_devices)
{
	struct heard h = { "" };
	struct devspool *s = devspool_new(LIMIT, changed, &h);
	struct devspool_stream *t = devspool_stream_new(s, session);
	struct bytes b = { .p = { 0 } };
	struct devstate_writer w = begin(&b, 0, "nic0", 1);
	ssize_t n = 0;

	for (unsigned i = 0; i <= LIMIT / sizeof(uint64_t) && n == 0; i++) {
		n = feed(t, &b, sizeof(b.at));
		b.p = pen_init(b.at, sizeof(b.at));
		put(&b, &w, "");
	}
	cr_assert_eq(feed(t, &b, sizeof(b.at)), -ENOSPC);
	devspool_stream_free(t);
	for (unsigned i = 0; i <= DEVSPOOL_DEVICES; i++) {
		char name[8];

		snprintf(name, sizeof(name), "dev%u", i);
		t = devspool_stream_new(s, session);
		b.p = pen_init(b.at, sizeof(b.at));
		w = begin(&b, 0, name, 1);
		devstate_put_end(&w, &b.p);
		/* nic0 is one of them. */
		cr_assert_eq(feed(t, &b, 64), i < DEVSPOOL_DEVICES - 1 ? 0 : -ENOSPC, "%u", i);
		devspool_stream_free(t);
	}
	devspool_free(s);
}
