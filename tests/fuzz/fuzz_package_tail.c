/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The parts that are cut, not decoded.  Byte 0 chooses: a package body, naked device state, an
 * XBZRLE delta.  The parts always lie within the input and add up to it.
 */
#include "config.h"

#include "wire/qstream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/guard.h"
#include "target.h"

#define COMMAND_LEN 5
#define PING_LEN    9
#define PAGE_LEN    4096
static void opening(const uint8_t *bytes, size_t len)
{
	struct qstream_opening_page page = { .offset = 1 };
	enum qstream_opening what = qstream_opening(bytes, len, &page);

	CHECK(what <= QSTREAM_OPENS_NOTHING);
	CHECK(what != QSTREAM_OPENS_MORE || len < QSTREAM_OPENING_MAX);
	CHECK(what != QSTREAM_OPENS_URGENT ||
	      (page.offset % PAGE_LEN == 0 && strlen(page.name) < 256));
}

static void package(const uint8_t *body, size_t len)
{
	struct qstream_package out;
	int err = qstream_package(body, len, &out);

	CHECK(err == 0 || err == -EPROTO);
	if (err)
		return;
	CHECK(out.device == body + COMMAND_LEN && out.n_pings <= 8);
	CHECK(2 * COMMAND_LEN + out.device_len + PING_LEN * (size_t)out.n_pings == len);
}

static void tail(const uint8_t *buf, size_t len)
{
	size_t device_len = 0;

	if (!qstream_tail(buf, len, &device_len))
		return;
	CHECK(device_len + 8 <= len);
	CHECK(buf[device_len] == 0 && buf[device_len + 1] == 6);
	CHECK(buf[device_len + 6] == '{' && buf[len - 1] == '}');
}

static void delta(const uint8_t *bytes, size_t len)
{
	cleanup_free uint8_t *page = calloc(1, PAGE_LEN);
	int err;

	CHECK(page);
	err = qstream_xbzrle(page, PAGE_LEN, bytes, len);
	CHECK(err == 0 || err == -EPROTO);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const parts[])(const uint8_t *bytes, size_t len) = { package, tail, delta,
									   opening };
	cleanup_free uint8_t *exact = NULL;

	if (size < 2)
		return 0;
	exact = exactly(data + 1, size - 1);
	parts[data[0] % ARRAY_LEN(parts)](exact, size - 1);
	return 0;
}
