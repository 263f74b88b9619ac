/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What can be done about a source that is lost, from the main thread: pause on purpose, listen for
 * the resumed source, give up.
 *
 * Whether a step may be taken is decided by the fault thread, which alone knows the session as it
 * is now.  What is refused here is what the last snapshot refuses already, so that whoever asks
 * hears why.
 */
#include "config.h"
#include "daemon/phases_parts.h"

#include <errno.h>

#include <gio/gio.h>

/**
 * phases_pause - end the connections of the source on purpose; see phases_parts.h
 */
void phases_pause(struct phases *p, const char *reason)
{
	struct message m = { .kind = MESSAGE_PAUSE };

	g_strlcpy(m.pause.reason, reason, sizeof(m.pause.reason));
	faultloop_post(p->loop, &m);
	phases_refresh(p);
}

static bool fail(GError **error, const char *text)
{
	g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_FAILED, text);
	return false;
}

/**
 * phases_recover - listen for the resumed source; see phases_parts.h
 */
bool phases_recover(struct phases *p, const struct options_address *where, GError **error)
{
	const struct snapshot *s = p->snapshot;

	(void)where;
	if (!s || s->state != SESSION_PAUSED)
		return fail(error, "nothing is paused");
	if (s->held)
		return fail(error, "the session is held: no source can mend what happened");
	return true;
}

/**
 * phases_cancel - give the session up; see phases_parts.h
 */
bool phases_cancel(struct phases *p, bool force, GError **error)
{
	const struct snapshot *s = p->snapshot;

	if (s && s->state == SESSION_COMPLETE)
		return fail(error, "everything is here: there is nothing to cancel");
	if (s && s->committed && s->state != SESSION_FAILED && !force)
		return fail(error, "the VM is ours: to cancel loses it (--force)");
	if (s && s->committed && s->state != SESSION_FAILED)
		phases_end(p, 1);
	else
		phases_refuse(p, ECANCELED, "cancelled by the operator");
	return true;
}
