/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_CTL_SCREEN_H
#define PC_TOOLS_CTL_SCREEN_H
/* What `postcopyctl watch` shows.  Pure: view and rates in, text out. */
#include <glib.h>
#include "tools/ctl_pace.h"
#include "tools/ctl_view.h"

struct ctl_size {
	unsigned columns, rows;
};

/* A page of at most @size->rows lines of at most @size->columns columns; rows 0: as long as it
 * takes. */
void ctl_screen_page(GString *out, const struct ctl_view *v, const struct ctl_rates *r,
		     const struct ctl_size *size);
/* The same in one line, for logs. */
void ctl_screen_line(GString *out, const struct ctl_view *v, const struct ctl_rates *r);

#endif
