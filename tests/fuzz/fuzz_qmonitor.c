/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The monitor's texts.  Byte 0 chooses: `info ramblock`, `info mtree -f` with or without devices,
 * `gpa2hva`.  What is accepted makes sense; what is refused has a reason.
 */
#include "config.h"

#include "wire/qmonitor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/guard.h"
#include "target.h"

#define ROOM 16
static void check_name(const char *name)
{
	size_t len = strnlen(name, QMONITOR_NAME_MAX);

	CHECK(len > 0 && len < QMONITOR_NAME_MAX && !strpbrk(name, "\r\n"));
}

static void check_outcome(int r, const char *why)
{
	CHECK((r == -EPROTO) == (why != NULL));
	CHECK(r >= -E2BIG || r == -EPROTO || r == -ENOENT);
	CHECK(r <= ROOM);
}

static void ramblock(const char *text, size_t len)
{
	struct qmonitor_block out[ROOM];
	const char *why;
	int n = qmonitor_ramblock(text, len, out, ROOM, &why);

	check_outcome(n, why);
	for (int i = 0; i < n; i++) {
		check_name(out[i].name);
		CHECK(is_power_of_two(out[i].page_size) && out[i].used <= out[i].total);
		CHECK(out[i].has_address == out[0].has_address);
		CHECK(!out[i].has_address || out[i].address + out[i].total >= out[i].address);
	}
}

static void view(const char *text, size_t len, bool devices)
{
	struct qmonitor_range out[ROOM];
	struct qmonitor_view into = {out, ROOM, devices};
	const char *why;
	int n = qmonitor_flatview(text, len, &into, &why);

	check_outcome(n, why);
	for (int i = 0; i < n; i++) {
		check_name(out[i].name);
		CHECK(out[i].start <= out[i].last && (i == 0 || out[i].start > out[i - 1].last));
		CHECK(out[i].offset + (out[i].last - out[i].start) >= out[i].offset);
		CHECK(devices || out[i].kind != QMONITOR_OTHER);
	}
}

static void flatview(const char *text, size_t len)
{
	view(text, len, false);
}

static void flatview_with_devices(const char *text, size_t len)
{
	view(text, len, true);
}

static void gpa2hva(const char *text, size_t len)
{
	struct qmonitor_place out;
	const char *why;
	int r = qmonitor_gpa2hva(text, len, &out, &why);

	check_outcome(r, why);
	if (r == 0) {
		check_name(out.name);
		CHECK(out.address != 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const parts[])(const char *text, size_t len) = {
		ramblock, flatview, flatview_with_devices, gpa2hva};
	cleanup_free char *exact = NULL;

	if (size < 1)
		return 0;
	exact = (char *)exactly(data + 1, size - 1);
	parts[data[0] % ARRAY_LEN(parts)](exact, size - 1);
	return 0;
}
