/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_CTL_FORMAT_H
#define PC_TOOLS_CTL_FORMAT_H
/* Numbers and texts for people.  Pure: values in, text out. */
#include <stdint.h>
#include <glib.h>

/* Every one returns @buf. */
struct ctl_text {
	char s[32];
};
const char *ctl_format_bytes(struct ctl_text *buf, uint64_t bytes);	/* "512 B", "1.50 GiB" */
const char *ctl_format_time(struct ctl_text *buf, uint64_t ns);	/* "-" for 0, "850 ns", "1h02m" */
const char *ctl_format_rate(struct ctl_text *buf, double per_second);/* "0", "950", "12.3k" */
/* @part of @whole in percent, never rounded up to 100.0 before it is all there; "-" of nothing. */
const char *ctl_format_percent(struct ctl_text *buf, uint64_t part, uint64_t whole);
/* A copy of @text (UTF-8) that cannot command a terminal: '?' for what is not printable. */
char *ctl_format_plain(const char *text);
/* Terminal columns of @text (UTF-8). */
unsigned ctl_format_width(const char *text);

#endif
