/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sharer.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

uint64_t sharer_report_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

void sharer_report(const char *event, const char *fmt, ...)
{
	va_list args;

	/* The stream's lock keeps lines of different threads apart. */
	flockfile(stdout);
	printf("{\"event\":\"%s\",\"t_us\":%" PRIu64, event, sharer_report_now_ns() / 1000);
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	puts("}");
	fflush(stdout);
	funlockfile(stdout);
}

void sharer_report_bare(const char *event)
{
	sharer_report(event, "%s", "");
}

const char *sharer_report_quote(char *out, size_t room, const char *text)
{
	size_t n = 0;

	out[n++] = '"';
	for (; *text && n + 8 < room; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\')
			n += (size_t)snprintf(out + n, room - n, "\\%c", c);
		else if (c < 0x20)
			n += (size_t)snprintf(out + n, room - n, "\\u%04x", c);
		else
			out[n++] = (char)c;
	}
	out[n++] = '"';
	out[n] = '\0';
	return out;
}
