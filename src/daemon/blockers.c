/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"
#include "daemon/blockers.h"

#include <inttypes.h>
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

/*
 * It goes on by itself once there are huge pages; until then all that comes behind these stands
 * still, so it is said in the log, too.
 */
static void note_pool(struct blockers *b, const struct snapshot *s)
{
	if (s->pool_waits)
		blockers_add(
			b, "hugepages", "complete",
			"hugepages pool empty: %" PRIu64 " pages wait, and what comes behind them; "
			"enlarge the pool (/proc/sys/vm/nr_hugepages), or free what others hold of it",
			s->pool_waits);
	if (s->pool_waits && !b->pool_warned)
		g_warning("%s", b->list[b->n - 1].text);
	b->pool_warned = s->pool_waits > 0;
}

/*
 * A real source sends nothing twice and owes nothing behind its end, so this is in the log, too,
 * while there is time to look.
 */
static void note_arrears(struct blockers *b, const struct snapshot *s)
{
	if (!s->arrears_ns || !s->owed_left || s->state != SESSION_RUNNING)
		return;
	blockers_add(
		b, "arrears", "complete",
		"the source has ended its stream and owes %" PRIu64
		" pages; they were asked for, and "
		"only its urgent channel can bring them: when it stays quiet the session is paused; leave the source as it is",
		s->owed_left);
	b->list[b->n - 1].since_ns = s->arrears_ns;
	if (!b->arrears_warned)
		g_warning("%s", b->list[b->n - 1].text);
	b->arrears_warned = true;
}

/**
 * blockers_running - what keeps a session that serves faults from its end
 */
void blockers_running(struct blockers *b, const struct snapshot *s)
{
	note_pool(b, s);
	note_arrears(b, s);
	if (s->state == SESSION_RUNNING && s->owed_left)
		blockers_add(b, "memory", "complete",
			     "%" PRIu64 " of %" PRIu64 " owed pages are not here yet", s->owed_left,
			     s->owed);
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
