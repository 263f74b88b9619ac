/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_CTL_TERM_H
#define PC_TOOLS_CTL_TERM_H
/* The terminal under `watch`: its second screen, without echo or cursor, and everything as before
 * afterwards. */
#include <stdbool.h>
#include <termios.h>
#include "tools/ctl_screen.h"

struct ctl_term {
	bool on;
	bool keys; /* stdin is ours too: no echo, keys come at once */
	struct termios before;
};

/* Is stdout a terminal that can be drawn on? */
bool ctl_term_usable(void);
void ctl_term_enter(struct ctl_term *t);
/* Idempotent. */
void ctl_term_leave(struct ctl_term *t);
struct ctl_size ctl_term_size(void);
/* Show @page, in one write so that it does not flicker. */
void ctl_term_draw(const char *page);

#endif
