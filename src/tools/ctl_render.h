/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_CTL_RENDER_H
#define PC_TOOLS_CTL_RENDER_H
/* The answers of postcopyctl for people.  Pure: a view in, text out, every line ends with '\n'. */
#include <glib.h>
#include "tools/ctl_format.h"
#include "tools/ctl_view.h"

void ctl_render_status(GString *out, const struct ctl_view *v);
void ctl_render_sharers(GString *out, const struct ctl_view *v);
void ctl_render_blocks(GString *out, const struct ctl_view *v);
void ctl_render_stats(GString *out, const struct ctl_view *v);
void ctl_render_blockers(GString *out, const struct ctl_view *v);
void ctl_render_handover(GString *out, const struct ctl_view *v);	/* ctl_handover.c */

/* Parts that the screen of `watch` uses as well. */
void ctl_render_latency(GString *out, const struct ctl_view *v);
/* "running for 12.3 s"; returns @buf->s. */
const char *ctl_render_state(struct ctl_text *buf, const struct ctl_status *s);
/* Time between two moments of the daemon's clock; 0 when @since is 0 or later than @now. */
uint64_t ctl_render_age(uint64_t now, uint64_t since);

#endif
