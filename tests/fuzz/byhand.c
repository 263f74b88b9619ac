/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "byhand.h"

#include <poll.h>
#include <stdlib.h>
#include <time.h>

#include <glib-unix.h>

#include "core/guard.h"

#define SOURCES 16

struct source {
	guint id;			/* 0: none */
	int fd;				/* -1: a timeout */
	GIOCondition condition;
	GUnixFDSourceFunc on_fd;
	GSourceFunc on_time;
	gpointer data;
	uint64_t due;
};

static struct source sources[SOURCES];
static guint last_id;
static uint64_t now_ns;

/* Shared libraries get them, too. */
#pragma GCC visibility push(default)
int __wrap_clock_gettime(clockid_t clock, struct timespec *t);
guint __wrap_g_unix_fd_add(gint fd, GIOCondition condition, GUnixFDSourceFunc function,
			   gpointer data);
guint __wrap_g_timeout_add(guint interval, GSourceFunc function, gpointer data);
gboolean __wrap_g_source_remove(guint id);
#pragma GCC visibility pop

int __wrap_clock_gettime(clockid_t clock, struct timespec *t)
{
	(void)clock;
	t->tv_sec = (time_t)(now_ns / 1000000000);
	t->tv_nsec = (long)(now_ns % 1000000000);
	return 0;
}

static guint add(struct source s)
{
	for (unsigned i = 0; i < SOURCES; i++)
		if (!sources[i].id) {
			s.id = ++last_id;
			sources[i] = s;
			return s.id;
		}
	abort(); /* nobody watches so much */
}

guint __wrap_g_unix_fd_add(gint fd, GIOCondition condition, GUnixFDSourceFunc function,
			   gpointer data)
{
	if (fd < 0)
		abort();
	return add((struct source){
		.fd = fd, .condition = condition, .on_fd = function, .data = data });
}

guint __wrap_g_timeout_add(guint interval, GSourceFunc function, gpointer data)
{
	return add((struct source){ .fd = -1,
				    .on_time = function,
				    .data = data,
				    .due = now_ns + interval * BYHAND_MS });
}

/* As with GLib it is a mistake to remove what is not there. */
gboolean __wrap_g_source_remove(guint id)
{
	for (unsigned i = 0; i < SOURCES; i++)
		if (id && sources[i].id == id) {
			sources[i].id = 0;
			return TRUE;
		}
	abort();
}

void byhand_reset(void)
{
	for (unsigned i = 0; i < SOURCES; i++)
		sources[i].id = 0;
	now_ns = 1000 * BYHAND_MS; /* 0 means never in some places */
}

/* The place may have another's source when the function returns. */
static void end(struct source *s, guint id, gboolean goes_on)
{
	if (!goes_on && s->id == id)
		s->id = 0;
}

static bool dispatch_fd(struct source *s)
{
	struct pollfd p = { .fd = s->fd, .events = (short)s->condition };
	guint id = s->id;

	if (!id || s->fd < 0 || poll(&p, 1, 0) != 1)
		return false;
	if (p.revents & POLLNVAL)
		abort(); /* closed, and still watched */
	end(s, id, s->on_fd(s->fd, (GIOCondition)p.revents, s->data));
	return true;
}

bool byhand_turn(void)
{
	bool any = false;

	for (unsigned i = 0; i < SOURCES; i++)
		any |= dispatch_fd(&sources[i]);
	return any;
}

void byhand_pass(uint64_t ns)
{
	now_ns += ns;
	for (unsigned i = 0; i < SOURCES; i++) {
		struct source *s = &sources[i];
		guint id = s->id;

		if (id && s->fd < 0 && s->due <= now_ns)
			end(s, id, s->on_time(s->data));
	}
}

unsigned byhand_sources(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < SOURCES; i++)
		n += sources[i].id != 0;
	return n;
}
