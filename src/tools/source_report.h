/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_SOURCE_REPORT_H
#define PC_TOOLS_SOURCE_REPORT_H
/* What is printed at the end. */
#include "tools/source_session.h"

/* @duration: ns.  The summary on standard output, lines or (--json) one object. */
void source_report_print(const struct source_session *s, uint64_t duration);
/* Completed, and the destination broke no rule? */
bool source_report_is_good(const struct source_session *s);

/* The same where devices are all that was sent. */
void source_report_devices(const struct source_options *o, const struct source_devices *d,
			   const char *outcome, const char *problem);

#endif
