/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A device that logs its own writes (F42, F43, S4-18): what it is asked, what is made of its
 * answers, and that every error, of every call, makes all of it dirty.  The device is a few lines
 * of the test's own, with the limits that the kernel has (devices.md 3.3).
 */
#include "config.h"

#include "sys/dirty_device.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/vfio.h>

#include <criterion/criterion.h>

#include "core/guard.h"

#define P UINT64_C(4096)

enum { LOG_WORDS = 64, PAGES = LOG_WORDS * 64 };

/* What the device wrote, what it was told, and what goes wrong. */
struct logger {
	uint64_t page; /* that it logs in; 0: as it is asked */
	bool no_report, on, wrote[PAGES];
	unsigned n, starts, reports;
	struct vfio_device_feature_dma_logging_range range[DIRTY_DEVICE_RANGES];
	int fail_start, fail_report; /* -errno */
	unsigned report_that_fails;  /* 1: the first */
};

static int log_start(struct logger *l, struct vfio_device_feature_dma_logging_control *c)
{
	l->starts++;
	if (l->fail_start)
		return l->fail_start;
	if (c->num_ranges == 0)
		return -EINVAL;
	if (c->num_ranges > DIRTY_DEVICE_RANGES)
		return -E2BIG;
	l->n = c->num_ranges;
	memcpy(l->range, (const void *)(uintptr_t)c->ranges, l->n * sizeof(l->range[0]));
	if (l->page)
		c->page_size = l->page;
	l->on = true;
	return 0;
}

static bool is_logged(const struct logger *l, uint64_t iova, uint64_t length)
{
	for (unsigned i = 0; i < l->n; i++)
		if (iova >= l->range[i].iova &&
		    iova + length <= l->range[i].iova + l->range[i].length)
			return true;
	return false;
}

static int log_report(struct logger *l, const struct vfio_device_feature_dma_logging_report *r)
{
	uint64_t *bits = (uint64_t *)(uintptr_t)r->bitmap;

	if (++l->reports == l->report_that_fails)
		return l->fail_report;
	if (!l->on || !is_logged(l, r->iova, r->length) || r->page_size < P)
		return -EINVAL;
	for (uint64_t a = r->iova; a < r->iova + r->length; a += P) {
		uint64_t n = (a - r->iova) / r->page_size;

		if (a / P < PAGES && l->wrote[a / P])
			bits[n / 64] |= UINT64_C(1) << n % 64;
		if (a / P < PAGES)
			l->wrote[a / P] = false;
	}
	return 0;
}

static int feature(void *ctx, uint32_t flags, void *data, size_t len, uint64_t until)
{
	struct logger *l = ctx;

	(void)until;
	(void)len;
	if (flags & DEVIO_PROBE)
		return l->no_report && (flags & 0xffff) == VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT
			       ? -EOPNOTSUPP
			       : 0;
	switch (flags & 0xffff) {
	case VFIO_DEVICE_FEATURE_DMA_LOGGING_START:
		return log_start(l, data);
	case VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP:
		l->on = false;
		return 0;
	case VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT:
		return log_report(l, data);
	default:
		return -EOPNOTSUPP;
	}
}

static const struct devio_ops ops = { .feature = feature };

struct bench {
	struct logger l;
	struct devio io;
	struct dirty_device d;
	struct dirtymark mark;
	uint64_t words[LOG_WORDS];
};

static struct bench *bench(void)
{
	struct bench *b = calloc(1, sizeof(*b));

	cr_assert_not_null(b);
	devio_init(&b->io, &ops, &b->l);
	dirtymark_init(&b->mark, b->words, sizeof(b->words));
	return b;
}

/* Pages [first, first + n) are dirty, and no other; the log is clean again. */
static void expect_dirty(struct bench *b, uint64_t first, uint64_t n)
{
	for (uint64_t i = 0; i < PAGES; i++)
		cr_assert_eq(b->words[i / 64] >> i % 64 & 1, i - first < n, "page %lu",
			     (unsigned long)i);
	memset(b->words, 0, sizeof(b->words));
}

static const struct dirty_device_range one[] = { { 10 * P, 100 * P } };

Test(dirty_device, S4_18_what_the_device_wrote)
{
	cleanup_free struct bench *b = bench();

	cr_assert(dirty_device_can(&b->io));
	cr_assert_eq(dirty_device_start(&b->d, &b->io, one, 1), 0);
	cr_assert_eq(dirty_device_collect(&b->d, &b->mark), 0);
	expect_dirty(b, 0, 0);
	b->l.wrote[12] = b->l.wrote[13] = b->l.wrote[9] = true;
	cr_assert_eq(dirty_device_collect(&b->d, &b->mark), 0);
	expect_dirty(b, 12, 2);
	cr_assert_eq(dirty_device_collect(&b->d, &b->mark), 0);
	expect_dirty(b, 0, 0);
	cr_assert_eq(dirty_device_stop(&b->d), 0);
	cr_assert_eq(dirty_device_stop(&b->d), 0);
	cr_assert_not(b->l.on);
}

Test(dirty_device, larger_pages_than_asked_for)
{
	cleanup_free struct bench *b = bench();

	b->l.page = 16 * P;
	cr_assert_eq(dirty_device_start(&b->d, &b->io, one, 1), 0);
	b->l.wrote[10 + 17] = true;
	cr_assert_eq(dirty_device_collect(&b->d, &b->mark), 0);
	expect_dirty(b, 26, 16);
}

Test(dirty_device, S4_18_a_log_that_cannot_be_read_is_none)
{
	cleanup_free struct bench *b = bench();

	b->l.no_report = true;
	cr_assert_not(dirty_device_can(&b->io));
}

/* Any error, of any call: all of it, then and later, until it was begun anew. */
Test(dirty_device, F42_every_error_is_all_dirty)
{
	static const struct dirty_device_range two[] = { { 10 * P, 5 * P }, { 15 * P, 5 * P } };
	static const int errors[] = { -EINVAL, -E2BIG, -EOPNOTSUPP, -EIO,
				      -ETIMEDOUT, -ECONNRESET, -EPROTO };

	for (unsigned i = 0; i < 2 * ARRAY_LEN(errors); i++) {
		cleanup_free struct bench *b = bench();
		int err = errors[i / 2];

		cr_assert_eq(dirty_device_start(&b->d, &b->io, two, 2), 0);
		b->l.report_that_fails = 1 + i % 2;
		b->l.fail_report = err;
		cr_assert_eq(dirty_device_collect(&b->d, &b->mark), err);
		expect_dirty(b, 10, 10);
		cr_assert_eq(dirty_device_collect(&b->d, &b->mark), err, "it lost something");
		expect_dirty(b, 10, 10);
		cr_assert_eq(dirty_device_start(&b->d, &b->io, two, 2), 0);
		cr_assert_eq(dirty_device_collect(&b->d, &b->mark), 0);
		expect_dirty(b, 0, 0);
		b->l.fail_start = err;
		cr_assert_eq(dirty_device_start(&b->d, &b->io, two, 2), err);
		cr_assert_eq(dirty_device_collect(&b->d, &b->mark), err);
		expect_dirty(b, 10, 10);
	}
}

Test(dirty_device, F42_not_logging_is_all_dirty)
{
	cleanup_free struct bench *b = bench();

	cr_assert_eq(dirty_device_start(&b->d, &b->io, one, 1), 0);
	cr_assert_eq(dirty_device_stop(&b->d), 0);
	cr_assert_eq(dirty_device_collect(&b->d, &b->mark), -EINVAL);
	expect_dirty(b, 10, 100);
}

Test(dirty_device, F42_pages_that_are_none)
{
	static const struct dirty_device_range top[] = { { -2 * P, P } };
	static const uint64_t pages[] = { 3 * P, UINT64_C(1) << 31, UINT64_C(1) << 60 };
	cleanup_free struct bench *b = bench();

	for (unsigned i = 0; i < ARRAY_LEN(pages); i++) {
		b->l.page = pages[i];
		cr_assert_eq(dirty_device_start(&b->d, &b->io, one, 1), -EPROTO, "row %u", i);
		cr_assert_eq(dirty_device_collect(&b->d, &b->mark), -EPROTO);
		expect_dirty(b, 10, 100);
	}
	b->l.page = UINT64_C(1) << 30;
	cr_assert_eq(dirty_device_start(&b->d, &b->io, top, 1), 0);
	cr_assert_eq(dirty_device_collect(&b->d, &b->mark), -EPROTO);
	cr_assert_eq(b->mark.strays, 1);
}

Test(dirty_device, areas_that_are_none)
{
	static const struct dirty_device_range rows[][2] = {
		{ { 10 * P, 0 }, { 20 * P, P } },
		{ { 10 * P + 1, P }, { 20 * P, P } },
		{ { 10 * P, P - 1 }, { 20 * P, P } },
		{ { 10 * P, 11 * P }, { 20 * P, P } },
		{ { 20 * P, P }, { 10 * P, P } },
		{ { 10 * P, P }, { 10 * P, P } },
		{ { 10 * P, P }, { -P, P } },
	};
	cleanup_free struct bench *b = bench();

	for (unsigned i = 0; i < ARRAY_LEN(rows); i++)
		cr_assert_eq(dirty_device_start(&b->d, &b->io, rows[i], 2), -EINVAL, "row %u", i);
	cr_assert_eq(dirty_device_start(&b->d, &b->io, rows[0], 0), -EINVAL);
	cr_assert_eq(b->l.starts, 0);
}

/* 257 are E2BIG: the two with the smallest gap are logged as one (F45). */
Test(dirty_device, F45_more_areas_than_a_device_knows)
{
	enum { MANY = 300 };
	cleanup_free struct bench *b = bench();
	struct dirty_device_range many[MANY];

	for (unsigned i = 0; i < MANY; i++)
		many[i] = (struct dirty_device_range){ i * 10 * P + i % 3 * P, 5 * P };
	cr_assert_eq(dirty_device_start(&b->d, &b->io, many, MANY), 0);
	cr_assert_eq(b->l.n, DIRTY_DEVICE_RANGES);
	for (unsigned i = 0; i < MANY; i++)
		cr_assert(is_logged(&b->l, many[i].iova, many[i].length), "area %u", i);
	for (unsigned i = 1; i < b->l.n; i++)
		cr_assert(b->l.range[i].iova >
			  b->l.range[i - 1].iova + b->l.range[i - 1].length);
	b->l.wrote[many[299].iova / P + 4] = true;
	cr_assert_eq(dirty_device_collect(&b->d, &b->mark), 0);
	expect_dirty(b, many[299].iova / P + 4, 1);
}
