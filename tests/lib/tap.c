/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "tap.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* One program, one report. */
static struct {
	unsigned planned, run, failed;
	bool has_plan;
} tap;

static bool must_run(void)
{
	const char *v = getenv("POSTCOPY_TESTS_MUST_RUN");

	return v && v[0] == '1';
}

void tap_plan(unsigned n)
{
	tap.planned = n;
	tap.has_plan = true;
	printf("1..%u\n", n);
	fflush(stdout);
}

bool tap_ok(bool good, const char *format, ...)
{
	va_list args;

	tap.run++;
	tap.failed += !good;
	printf("%sok %u - ", good ? "" : "not ", tap.run);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
	return good;
}

void tap_skip(const char *name, const char *reason)
{
	if (must_run()) {
		tap_ok(false, "%s (must run, but: %s)", name, reason);
		return;
	}
	tap.run++;
	printf("ok %u - %s # SKIP %s\n", tap.run, name, reason);
	fflush(stdout);
}

void tap_note(const char *format, ...)
{
	va_list args;

	fputs("# ", stdout);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
}

void tap_skip_all(const char *reason)
{
	if (must_run())
		tap_bail_out("must run, but: %s", reason);
	printf("1..0 # SKIP %s\n", reason);
	exit(0);
}

void tap_bail_out(const char *format, ...)
{
	va_list args;

	fputs("Bail out! ", stdout);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	exit(99);
}

int tap_done(void)
{
	if (!tap.has_plan)
		tap_plan(tap.run);
	if (tap.run != tap.planned)
		tap_note("planned %u, ran %u", tap.planned, tap.run);
	return tap.failed > 0 || tap.run != tap.planned;
}
