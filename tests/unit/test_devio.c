/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What every transport of a device has in common: deadlines (F31, S3-76: a call that hangs is
 * interrupted, or given up), one meaning for each error, registers in one access (S3-01), windows
 * in any (S3-33).
 */
#include "config.h"

#include "sys/devio.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "sys/clock.h"

#define SECOND UINT64_C(1000000000)

/* --- a transport that answers as it is told --- */

struct script {
	ssize_t answer[8]; /* one after the other, the last for ever */
	unsigned calls, closed;
	struct devio_at at[64];
	size_t len[64];
	uint8_t region[64];
	int pipe[2]; /* read from by mig_read */
};

static ssize_t next_answer(struct script *s)
{
	unsigned n = s->calls++;

	return s->answer[n < ARRAY_LEN(s->answer) ? n : ARRAY_LEN(s->answer) - 1];
}

static int s_reset(void *ctx, uint64_t until)
{
	(void)until;
	return (int)next_answer(ctx);
}

static int s_feature(void *ctx, uint32_t flags, void *data, size_t len, uint64_t until)
{
	(void)flags, (void)data, (void)len, (void)until;
	return (int)next_answer(ctx);
}

static ssize_t s_region(void *ctx, uint32_t index, void *bytes, size_t room, uint64_t until)
{
	struct script *s = ctx;

	(void)index, (void)until;
	memcpy(bytes, s->region, sizeof(s->region) < room ? sizeof(s->region) : room);
	return next_answer(ctx);
}

/* Registers only: no access is wider than 8 bytes. */
static ssize_t s_read(void *ctx, const struct devio_at *at, void *buf, size_t len, uint64_t until)
{
	struct script *s = ctx;
	ssize_t answer = next_answer(ctx);

	(void)until;
	s->at[s->calls - 1] = *at;
	s->len[s->calls - 1] = len;
	if (answer < 0)
		return answer;
	if (len > 8)
		return -EINVAL;
	for (size_t i = 0; i < len; i++)
		((uint8_t *)buf)[i] = (uint8_t)(at->offset + i);
	return (ssize_t)len - answer;
}

static ssize_t s_mig_read(void *ctx, void *buf, size_t len, uint64_t until)
{
	struct script *s = ctx;
	ssize_t n;

	(void)until;
	n = read(s->pipe[0], buf, len);
	return n < 0 ? -errno : n;
}

static ssize_t s_mig_write(void *ctx, const void *buf, size_t len, uint64_t until)
{
	(void)buf, (void)len, (void)until;
	return next_answer(ctx);
}

static void s_close(void *ctx)
{
	((struct script *)ctx)->closed++;
}

static const struct devio_ops scripted = {
	.region = s_region,
	.read = s_read,
	.reset = s_reset,
	.feature = s_feature,
	.mig_read = s_mig_read,
	.mig_write = s_mig_write,
	.close = s_close,
};

/* --- errors --- */

Test(devio, what_a_device_does_not_have)
{
	static const struct devio_ops bare = { .close = s_close };
	struct script s = { .answer = { -ENOTTY, -EINVAL, -ENOTTY, 0, -ENODEV } };
	struct devio_precopy precopy;
	struct devio_map map;
	struct vfiocaps_region r = { 0 };
	struct devio d, none;
	uint64_t word = 0;

	devio_init(&d, &scripted, &s);
	cr_assert_eq(devio_feature_get(&d, 1, &word, sizeof(word)), -EOPNOTSUPP);
	cr_assert_eq(devio_feature_has(&d, 1, DEVIO_GET), 0, "a server's way to say so");
	cr_assert_eq(devio_feature_has(&d, 1, DEVIO_GET), 0, "the kernel's way");
	cr_assert_eq(devio_feature_has(&d, 1, DEVIO_GET), 1);
	cr_assert_eq(devio_feature_has(&d, 1, DEVIO_GET), -ENODEV);
	cr_assert_eq(devio_mig_precopy(&d, &precopy), -EOPNOTSUPP);
	cr_assert_eq(devio_map(&d, &r, 0, 4096, &map), -EOPNOTSUPP);
	devio_init(&none, &bare, &s);
	cr_assert_eq(devio_reset(&none), -EOPNOTSUPP);
	cr_assert_eq(devio_mig_read(&none, &word, 8), -EOPNOTSUPP);
	cr_assert_eq(devio_mig_write(&none, &word, 8), -EOPNOTSUPP);
	cr_assert_eq(devio_feature_set(&none, 1, &word, sizeof(word)), -EOPNOTSUPP);
	devio_close(&none);
	devio_close(&d);
	devio_close(&d);
	cr_assert_eq(s.closed, 2);
}

/* S3-08: what a device refuses is told as it is; only EINTR is not its answer. */
Test(devio, other_errors_are_forwarded)
{
	struct script s = { .answer = { -EINVAL, -EIO, -EINTR, -EINTR, -EBUSY } };
	struct devio d;
	uint64_t word = 0;

	devio_init(&d, &scripted, &s);
	cr_assert_eq(devio_feature_set(&d, 2, &word, 8), -EINVAL);
	cr_assert_eq(devio_reset(&d), -EIO);
	cr_assert_eq(devio_reset(&d), -EBUSY);
	cr_assert_eq(s.calls, 5);
	devio_close(&d);
}

Test(devio, a_region_is_what_was_asked_for)
{
	struct script s = { .answer = { 32, 31, 4097, 32, -EINVAL, 32 } };
	struct vfiocaps_region r;
	struct devio d;

	s.region[0] = 32;
	s.region[4] = 7;
	s.region[8] = 9;
	s.region[17] = 0x50;
	s.region[25] = 0x30;
	devio_init(&d, &scripted, &s);
	cr_assert_eq(devio_region(&d, 9, &r), 0);
	cr_assert_eq(r.index, 9);
	cr_assert_eq(r.flags, 7);
	cr_assert_eq(r.size, 0x5000);
	cr_assert_eq(r.offset, 0x3000);
	cr_assert_eq(devio_region(&d, 9, &r), -EPROTO, "shorter than its head");
	cr_assert_eq(devio_region(&d, 9, &r), -EPROTO, "more than there was room for");
	cr_assert_eq(devio_region(&d, 8, &r), -EPROTO, "another region");
	cr_assert_eq(devio_region(&d, 9, &r), -EINVAL);
	s.region[1] = 0x20;
	cr_assert_eq(devio_region(&d, 9, &r), -E2BIG);
	devio_close(&d);
}

/* --- accesses --- */

/* S3-01: one access of the register's width; a short one is a failure. */
Test(devio, registers_in_one_access)
{
	struct script s = { .answer = { 0, 1 } };
	struct devio_at at = { .region = 9, .width = 8, .offset = 16 };
	uint8_t buf[8];
	struct devio d;

	devio_init(&d, &scripted, &s);
	cr_assert_eq(devio_read(&d, &at, buf, 8), 0);
	cr_assert_eq(s.calls, 1);
	cr_assert_eq(s.at[0].region, 9);
	cr_assert_eq(s.at[0].width, 8);
	cr_assert_eq(s.at[0].offset, 16);
	cr_assert_eq(buf[7], 23);
	cr_assert_eq(devio_read(&d, &at, buf, 8), -EIO);
	devio_close(&d);
}

/* S3-33: a window that cannot be read in one piece is read in natural widths. */
Test(devio, windows_in_natural_widths)
{
	static const unsigned widths[] = { 1, 2, 4, 8, 8, 8, 2, 1 };
	struct script s = { 0 };
	struct devio_at at = { .region = 9, .offset = 33 };
	uint8_t buf[34];
	struct devio d;

	devio_init(&d, &scripted, &s);
	cr_assert_eq(devio_read(&d, &at, buf, sizeof(buf)), 0);
	cr_assert_eq(s.calls, 1 + ARRAY_LEN(widths));
	for (unsigned i = 0; i < ARRAY_LEN(widths); i++) {
		cr_assert_eq(s.len[1 + i], widths[i], "access %u: %zu", i, s.len[1 + i]);
		cr_assert_eq(s.at[1 + i].width, widths[i]);
	}
	for (unsigned i = 0; i < sizeof(buf); i++)
		cr_assert_eq(buf[i], 33 + i);
	devio_close(&d);
}

Test(devio, a_stream_takes_something_or_fails)
{
	struct script s = { .answer = { 3, 0, 5 } };
	struct devio d;

	devio_init(&d, &scripted, &s);
	cr_assert_eq(devio_mig_write(&d, "abcd", 4), 3);
	cr_assert_eq(devio_mig_write(&d, "abcd", 4), -EIO);
	cr_assert_eq(devio_mig_write(&d, "abcd", 4), -EPROTO, "more than it was given");
	devio_close(&d);
}

/* --- deadlines --- */

struct caller {
	struct devio d;
	struct script s;
	pthread_t thread;
	ssize_t result;
	_Atomic bool back;
};

static void *read_the_stream(void *arg)
{
	struct caller *c = arg;
	char byte;

	c->result = devio_mig_read(&c->d, &byte, 1);
	c->back = true;
	return NULL;
}

/* Until the thread is in its call, and the call is one that hangs. */
static void caller_start(struct caller *c, uint64_t limit_ns, struct devwatch_call *seen)
{
	cr_assert_eq(devwatch_prepare(), 0);
	cr_assert_eq(pipe(c->s.pipe), 0);
	devio_init(&c->d, &scripted, &c->s);
	devio_set_limit(&c->d, limit_ns);
	cr_assert_eq(pthread_create(&c->thread, NULL, read_the_stream, c), 0);
	while (!devwatch_look(devio_watch(&c->d), seen))
		sched_yield();
}

static void caller_end(struct caller *c)
{
	struct devwatch_call seen;

	pthread_join(c->thread, NULL);
	cr_assert_not(devwatch_look(devio_watch(&c->d), &seen), "it is over");
	close(c->s.pipe[0]);
	close(c->s.pipe[1]);
	devio_close(&c->d);
}

/* S3-76, S3-79: past its deadline a call that can be interrupted ends; the signal is repeated. */
Test(devio, a_call_that_hangs_is_interrupted, .timeout = 60)
{
	struct caller c = { 0 };
	struct devwatch_call seen;

	caller_start(&c, SECOND / 20, &seen);
	cr_assert_str_eq(seen.what, "stream read");
	cr_assert_eq(seen.until, seen.since + SECOND / 20);
	while (!c.back)
		if (clock_ns() > seen.until)
			devwatch_interrupt(devio_watch(&c.d), &seen);
	cr_assert_eq(c.result, -ETIMEDOUT);
	cr_assert_eq(devwatch_interrupt(devio_watch(&c.d), &seen), -ESRCH);
	caller_end(&c);
}

/* A signal before the deadline, or where there is none, changes nothing. */
Test(devio, a_call_goes_on_until_its_deadline, .timeout = 60)
{
	struct caller c = { 0 };
	struct devwatch_call seen;

	caller_start(&c, 0, &seen);
	cr_assert_eq(seen.until, DEVWATCH_NEVER);
	for (unsigned i = 0; i < 1000; i++)
		cr_assert_eq(devwatch_interrupt(devio_watch(&c.d), &seen), 0);
	cr_assert_eq(write(c.s.pipe[1], "x", 1), 1);
	pthread_join(c.thread, NULL);
	cr_assert_eq(c.result, 1);
	c.thread = pthread_self();
	close(c.s.pipe[0]);
	close(c.s.pipe[1]);
	devio_close(&c.d);
}

/* F33: who does not come back is written off, and makes no further call if it does. */
Test(devio, a_thread_that_is_given_up, .timeout = 60)
{
	struct caller c = { 0 };
	struct devwatch_call seen;

	caller_start(&c, SECOND / 20, &seen);
	devwatch_give_up(devio_watch(&c.d));
	cr_assert(devwatch_look(devio_watch(&c.d), &seen), "it is still out");
	cr_assert_eq(write(c.s.pipe[1], "x", 1), 1);
	while (!c.back)
		sched_yield();
	cr_assert_eq(c.result, -ETIMEDOUT, "nobody waits for that byte any more");
	cr_assert_eq(devio_reset(&c.d), -ETIMEDOUT);
	cr_assert_eq(c.s.calls, 0);
	caller_end(&c);
	cr_assert_eq(c.s.closed, 1);
}
