/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What people read: short, aligned, and never saying more than is known.  A percentage reaches
 * 100.0 only when nothing is missing, and no text of a peer reaches the terminal with a byte that
 * could command it.
 */
#include "config.h"
#include "tools/ctl_format.h"
#include <string.h>
#include "core/guard.h"

#define NS_PER_US 1000ull
#define NS_PER_MS (1000 * NS_PER_US)
#define NS_PER_S  (1000 * NS_PER_MS)

G_GNUC_PRINTF(2, 3)
static const char *put(struct ctl_text *buf, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	g_vsnprintf(buf->s, sizeof(buf->s), fmt, ap);
	va_end(ap);
	return buf->s;
}

/* Three significant digits at least, none behind the point from 100 on. */
static const char *put_scaled(struct ctl_text *buf, double v, const char *unit)
{
	return put(buf, "%.*f%s", v < 9.995 ? 2 : v < 99.95 ? 1 : 0, v, unit);
}

/**
 * ctl_format_bytes - "512 B", "1.50 GiB"
 *
 * Sizes that are whole stay whole: "4 KiB", not "4.00 KiB".
 */
const char *ctl_format_bytes(struct ctl_text *buf, uint64_t bytes)
{
	static const char *const units[] = {" KiB", " MiB", " GiB", " TiB", " PiB", " EiB"};
	double v = (double)bytes / 1024;
	unsigned i = 0;

	if (bytes < 1024)
		return put(buf, "%u B", (unsigned)bytes);
	for (; v >= 1023.5 && i + 1 < ARRAY_LEN(units); i++)
		v /= 1024;
	if (v == (double)(unsigned)v)
		return put(buf, "%u%s", (unsigned)v, units[i]);
	return put_scaled(buf, v, units[i]);
}

static const char *put_long_time(struct ctl_text *buf, uint64_t seconds)
{
	unsigned long long s = seconds % 60, m = seconds / 60 % 60, h = seconds / 3600;

	return h ? put(buf, "%lluh%02llum", h, m) : put(buf, "%llum%02llus", m, s);
}

/**
 * ctl_format_time - "850 ns", "12.3 ms", "1h02m"; "-" for 0, which means never or not yet
 */
const char *ctl_format_time(struct ctl_text *buf, uint64_t ns)
{
	if (ns == 0)
		return put(buf, "-");
	if (ns < NS_PER_US)
		return put(buf, "%u ns", (unsigned)ns);
	if (ns < 999500)
		return put_scaled(buf, (double)ns / NS_PER_US, " us");
	if (ns < 999500 * NS_PER_US)
		return put_scaled(buf, (double)ns / NS_PER_MS, " ms");
	if (ns < 60 * NS_PER_S)
		return put(buf, "%.1f s", (double)ns / NS_PER_S);
	return put_long_time(buf, ns / NS_PER_S);
}

/**
 * ctl_format_rate - "950", "12.3k": powers of 1000
 */
const char *ctl_format_rate(struct ctl_text *buf, double per_second)
{
	static const char *const units[] = {"k", "M", "G", "T"};
	double v = per_second / 1000;
	unsigned i = 0;

	if (per_second < 999.5)
		return put(buf, "%.0f", per_second);
	for (; v >= 999.5 && i + 1 < ARRAY_LEN(units); i++)
		v /= 1000;
	return put_scaled(buf, v, units[i]);
}

/**
 * ctl_format_percent - @part of @whole
 *
 * Never rounded up to 100.0 before it is all there; "-" of nothing.
 */
const char *ctl_format_percent(struct ctl_text *buf, uint64_t part, uint64_t whole)
{
	double v = whole ? 100.0 * (double)part / (double)whole : 0;

	if (whole == 0)
		return put(buf, "-");
	return put(buf, "%.1f%%", part < whole ? MIN(v, 99.9) : v);
}

/**
 * ctl_format_plain - a copy that cannot command a terminal
 * @text: UTF-8
 *
 * Return: '?' for whatever is not printable; to be g_free()d.
 */
char *ctl_format_plain(const char *text)
{
	GString *out = g_string_new(NULL);

	for (; *text; text = g_utf8_next_char(text)) {
		gunichar c = g_utf8_get_char(text);

		g_string_append_unichar(out, g_unichar_isprint(c) ? c : '?');
	}
	return g_string_free(out, FALSE);
}

/**
 * ctl_format_width - terminal columns of @text (UTF-8); wide characters take two
 */
unsigned ctl_format_width(const char *text)
{
	unsigned width = 0;

	for (; *text; text = g_utf8_next_char(text)) {
		gunichar c = g_utf8_get_char(text);

		width += g_unichar_iszerowidth(c) ? 0 : g_unichar_iswide(c) ? 2 : 1;
	}
	return width;
}
