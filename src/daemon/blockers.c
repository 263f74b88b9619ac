/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"
#include "daemon/blockers.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <glib.h>

/**
 * blockers_add - name one
 * @name: as in postcopyctl(1), "sharer:vmm"
 * @step: the one that it blocks
 * @fmt: what is missing and what to do, for people
 */
void blockers_add(struct blockers *b, const char *name, const char *step, const char *fmt, ...)
{
	struct control_blocker *to = &b->list[b->n];
	va_list args;

	if (b->n == BLOCKERS_MAX)
		return;
	b->n++;
	*to = (struct control_blocker){ .since_ns = b->since_ns };
	g_strlcpy(to->name, name, sizeof(to->name));
	g_strlcpy(to->step, step, sizeof(to->step));
	va_start(args, fmt);
	vsnprintf(to->text, sizeof(to->text), fmt, args);
	va_end(args);
}

/**
 * blockers_list - copy at most @max of them
 */
unsigned blockers_list(const struct blockers *b, struct control_blocker *out, unsigned max)
{
	unsigned n = b->n < max ? b->n : max;

	memcpy(out, b->list, n * sizeof(out[0]));
	return n;
}
