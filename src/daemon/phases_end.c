/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * When the daemon may end: by itself, when somebody tells it to, and when it must not.
 */
#include "config.h"
#include "daemon/phases_parts.h"

#include <errno.h>

#include "sys/clock.h"

#define GRACE_MS	5000		/* for sharers and source to close after the end */
#define FLUSH_MS	200		/* for the last messages to be read */
#define AGAIN_NS	5000000000ull

/* The program of --hook hears the last word before we go. */
static void end(struct phases *p, int code)
{
	if (p->ending)
		return;
	p->ending = true;
	p->end_code = code;
	if (!hooks_busy(p->hooks))
		p->ended(p->ctx, code);
}

void phases_hook_ended(void *ctx)
{
	struct phases *p = ctx;

	if (!p->ending)
		phases_refresh(p);
	else if (!hooks_busy(p->hooks))
		p->ended(p->ctx, p->end_code);
}

/* Is all memory here, and somebody not done with us all the same? */
static bool is_used(const struct phases *p)
{
	return vhost_list_used(p->vhosts) || door_dma_waits(p->door) || devices_used(p->devices);
}

static gboolean on_end_timer(gpointer data)
{
	struct phases *p = data;

	p->end_timer = 0;
	/* A VMM may have come meanwhile. */
	if (!p->leaving && p->seen == SESSION_COMPLETE && is_used(p))
		return G_SOURCE_REMOVE;
	if (p->leaving)
		end(p, p->leave_code);
	else
		end(p, p->seen == SESSION_COMPLETE ? 0 : 1);
	return G_SOURCE_REMOVE;
}

static void end_after(struct phases *p, unsigned ms)
{
	if (!p->end_timer)
		p->end_timer = g_timeout_add(ms, on_end_timer, p);
}

/*
 * A committed VM depends on this process until its last page is here: with it the missing pages
 * would be gone for good.  What stands between it and its devices it loses with us, too, at any
 * time.
 *
 * Return: why not, or NULL.
 */
static const char *needed_for(const struct phases *p)
{
	static const char devices[] = "vhost-user devices of a VM go through this daemon";
	static const char loaded[] = "devices of a VM end with this daemon, which holds them";
	const struct snapshot *s = p->snapshot;

	if (vhost_list_repairs(p->vhosts))
		return devices;
	if (!s || !s->committed || s->state == SESSION_FAILED)
		return NULL;
	if (s->state != SESSION_COMPLETE)
		return "a committed VM depends on this daemon: its missing pages would never come";
	if (vhost_list_used(p->vhosts))
		return devices;
	return devices_used(p->devices) ? loaded : NULL;
}

/* The commit may have come before the refusal. */
static void go_on_leaving(struct phases *p, const struct snapshot *s)
{
	if (s->state == SESSION_COMPLETE) {
		end(p, p->leave_code);
	} else if (s->state == SESSION_FAILED) {
		end_after(p, FLUSH_MS);
	} else if (s->committed) {
		p->leaving = false;
		p->stop_asked = clock_ns();
		g_warning("%s; not stopping; ask again within 5 s to end it all the same",
			  needed_for(p));
	}
}

/*
 * Not at once: between a snapshot and now the VM may have become ours.  The session is refused
 * first, by the thread that knows.
 */
static void leave(struct phases *p, int code)
{
	p->leaving = true;
	p->leave_code = code;
	phases_refuse(p, ECANCELED, "the daemon was told to stop");
	phases_refresh(p);
}

/*
 * A failed session ends when the last words were read.  A complete one waits for sharers and source
 * to hang up, which they do by themselves, and for no longer than the grace time.  A VMM whose
 * vhost-user devices go through us is waited for as long as it lives, and one that has still to map
 * memory for a device of its own as long as it stays.
 */
void phases_maybe_end(struct phases *p, const struct snapshot *s)
{
	if (p->leaving)
		go_on_leaving(p, s);
	if (!p->options->exit_when_done)
		return;
	if (s->state == SESSION_FAILED)
		end_after(p, FLUSH_MS);
	if (s->state != SESSION_COMPLETE || !s->running_told || !door_released(p->door) ||
	    (p->handover && !handover_over(p->handover)) || is_used(p))
		return;
	end_after(p, GRACE_MS);
	if (s->source_closed && door_connected(p->door) == 0)
		end(p, 0);
}

static gboolean quit_soon(gpointer data)
{
	struct phases *p = data;

	end(p, p->leave_code);
	return G_SOURCE_REMOVE;
}

/**
 * phases_end - soon, whatever becomes of the session
 */
void phases_end(struct phases *p, int code)
{
	p->leave_code = code;
	g_timeout_add(FLUSH_MS, quit_soon, p);
}

bool phases_control_quit(void *ctx, bool force, const char **why)
{
	struct phases *p = ctx;

	const char *needed = needed_for(p);

	if (!force && needed) {
		*why = needed;
		return false;
	}
	if (force)
		phases_end(p, 0);
	else
		leave(p, 0);
	return true;
}

/**
 * phases_stop - a signal asks to stop
 *
 * Before the commit the session is refused, and the daemon ends when that is done.
 *
 * Return: false when refused: a committed VM depends on us, and this was not the second time within
 * 5 s.
 */
bool phases_stop(struct phases *p)
{
	int code = p->seen == SESSION_COMPLETE || p->seen == SESSION_IDLE ? 0 : 1;
	uint64_t now = clock_ns(), asked = p->stop_asked;

	p->stop_asked = now;
	if (asked && now - asked <= AGAIN_NS) {
		end(p, code);
	} else if (!needed_for(p)) {
		leave(p, code);
	} else {
		g_warning("%s; not stopping; ask again within 5 s to end it all the same",
			  needed_for(p));
		return false;
	}
	return true;
}
