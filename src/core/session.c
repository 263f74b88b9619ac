/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Everything that may happen to a session is in one table of state and event, and what is not in it
 * is illegal.  Two of its verdicts depend on more than the state, because the same event means
 * opposite things on the two sides of the commit:
 *
 *                    not committed                        committed
 *   source lost      FAILED, the source resumes its VM    PAUSED, only we have the VM
 *   refuse           FAILED, the source resumes its VM    illegal: there would be no VM at all
 *   hold             illegal: it is to be refused         PAUSED, and never recovered
 *
 * Where the commit lies is the source's rule, not ours.  A QEMU before 10.2 gives its VM away as
 * soon as the package has been sent; from 10.2 on it waits in postcopy-device for the PONG of value
 * 0x42, and a migration that finished as precopy waits for SHUT.  Until then each of those resumes
 * its VM when the connection ends.
 *
 * A recovery goes back to where the source was lost, with what came meanwhile: the main sharer may
 * have loaded its state while nobody was there to be told.  It begins in PAUSED only, and every
 * failure of it ends there, so it can be tried again for as long as there is a source.
 *
 * There are never two running VMs (tests/unit/test_session.c walks every path of the table for
 * that), and a committed session that cannot go on is PAUSED, never FAILED.
 */
#include "config.h"
#include "core/session.h"

#include <errno.h>

#include "core/guard.h"

/*
 * What an event does in a state: nothing may happen (0), it is legal but changes nothing, or a new
 * state.
 */
enum verdict {
	NO = 0, SAME, TO_ADVISED, TO_DISCARDING, TO_LISTENING, TO_LOADING, TO_RUNNING, TO_COMPLETE,
	TO_LOST,	/* FAILED while the source resumes its VM, else PAUSED */
	TO_REFUSED,	/* FAILED while we may refuse, else illegal */
	TO_HELD,	/* PAUSED for good when it is ours, else illegal */
	TO_RECOVERING,	/* unless it is held */
	TO_RESUMED,	/* where it was lost, or what it came to since */
};

static const unsigned char table[SESSION_STATES][SESSION_EVENTS] = {
	[SESSION_IDLE] = {
		[SESSION_ADVISE] = TO_ADVISED,
		[SESSION_SOURCE_LOST] = TO_LOST, [SESSION_REFUSE] = TO_REFUSED,
	},
	[SESSION_ADVISED] = {
		[SESSION_DISCARD] = TO_DISCARDING, [SESSION_PACKAGE] = TO_LISTENING,
		[SESSION_SOURCE_LOST] = TO_LOST, [SESSION_REFUSE] = TO_REFUSED,
	},
	[SESSION_DISCARDING] = {
		[SESSION_DISCARD] = SAME, [SESSION_PACKAGE] = TO_LISTENING,
		[SESSION_SOURCE_LOST] = TO_LOST, [SESSION_REFUSE] = TO_REFUSED,
	},
	[SESSION_LISTENING] = {
		[SESSION_ARMED] = TO_LOADING,
		[SESSION_SOURCE_LOST] = TO_LOST, [SESSION_REFUSE] = TO_REFUSED,
		[SESSION_HOLD] = TO_HELD,
	},
	[SESSION_LOADING] = {
		[SESSION_LOADED] = TO_RUNNING,
		[SESSION_SOURCE_LOST] = TO_LOST, [SESSION_REFUSE] = TO_REFUSED,
		[SESSION_HOLD] = TO_HELD,
	},
	[SESSION_RUNNING] = {
		[SESSION_OWED_NOTHING] = TO_COMPLETE, [SESSION_SOURCE_LOST] = TO_LOST,
		[SESSION_HOLD] = TO_HELD,
	},
	[SESSION_PAUSED] = {
		[SESSION_ARMED] = SAME, [SESSION_LOADED] = SAME, [SESSION_SOURCE_LOST] = SAME,
		[SESSION_HOLD] = TO_HELD, [SESSION_RESUME] = TO_RECOVERING,
	},
	[SESSION_RECOVERING] = {
		[SESSION_ARMED] = SAME, [SESSION_LOADED] = SAME, [SESSION_SOURCE_LOST] = TO_LOST,
		[SESSION_HOLD] = TO_HELD, [SESSION_RESUMED] = TO_RESUMED,
	},
	[SESSION_COMPLETE] = {
		[SESSION_SOURCE_LOST] = SAME, [SESSION_HOLD] = SAME,
	},
	[SESSION_FAILED] = {
		[SESSION_SOURCE_LOST] = SAME, [SESSION_REFUSE] = SAME, [SESSION_HOLD] = SAME,
	},
};

/**
 * session_init - nothing came yet
 */
void session_init(struct session *s)
{
	*s = (struct session){ .state = SESSION_IDLE };
}

/* Is there no way back?  Who is paused is past it. */
static bool is_ours(const struct session *s)
{
	return s->committed || session_is_paused(s);
}

/**
 * session_may_refuse - would closing the connection by ourselves let the source resume its VM?
 */
bool session_may_refuse(const struct session *s)
{
	return s->state != SESSION_COMPLETE && !is_ours(s);
}

/* The state behind a verdict that changes it; for a lost source the side of the commit decides. */
static enum session_state target(const struct session *s, unsigned char verdict)
{
	static const unsigned char plain[] = {
		[TO_ADVISED] = SESSION_ADVISED, [TO_DISCARDING] = SESSION_DISCARDING,
		[TO_LISTENING] = SESSION_LISTENING, [TO_LOADING] = SESSION_LOADING,
		[TO_RUNNING] = SESSION_RUNNING, [TO_COMPLETE] = SESSION_COMPLETE,
		[TO_REFUSED] = SESSION_FAILED, [TO_HELD] = SESSION_PAUSED,
		[TO_RECOVERING] = SESSION_RECOVERING,
	};

	if (verdict == TO_LOST)
		return session_may_refuse(s) ? SESSION_FAILED : SESSION_PAUSED;
	if (verdict == TO_RESUMED)
		return s->loaded ? SESSION_RUNNING : s->armed ? SESSION_LOADING : SESSION_LISTENING;
	return (enum session_state)plain[verdict];
}

/* Is what the table says against what else is known of the session? */
static bool is_barred(const struct session *s, unsigned char verdict)
{
	if (verdict == TO_REFUSED)
		return !session_may_refuse(s);
	if (verdict == TO_HELD)
		return !is_ours(s);
	return verdict == NO || (verdict == TO_RECOVERING && s->held);
}

/* What is remembered of a legal event, whether it changes the state or not. */
static void note(struct session *s, enum session_event event, unsigned char verdict)
{
	s->armed |= event == SESSION_ARMED;
	s->loaded |= event == SESSION_LOADED && s->armed;
	s->held |= verdict == TO_HELD;
	if (event == SESSION_LOADED || (event == SESSION_PACKAGE && !s->answer_commits))
		s->committed = true;
}

/**
 * session_feed - something happened
 *
 * Also decides the commit: by the package where the source does not wait for an answer, else by
 * LOADED, which is what our answer tells.
 *
 * Return: 1 the state changed, 0 legal but nothing changed, -EPROTO illegal in this state, which
 * stays.
 */
int session_feed(struct session *s, enum session_event event)
{
	unsigned char verdict = table[s->state][event];
	enum session_state from = s->state;

	if (is_barred(s, verdict))
		return -EPROTO;
	if (verdict != SAME)
		s->state = target(s, verdict);
	note(s, event, verdict);
	return s->state != from;
}

/**
 * session_state_name - the word for a state in reports and on the control socket; static, "?" for
 * none
 */
const char *session_state_name(enum session_state state)
{
	static const char *const names[SESSION_STATES] = {
		"idle", "advised", "discarding", "listening", "loading", "running", "paused",
		"recovering", "complete", "failed",
	};

	return (unsigned)state < ARRAY_LEN(names) ? names[state] : "?";
}

/**
 * session_event_name - the same for an event
 */
const char *session_event_name(enum session_event event)
{
	static const char *const names[SESSION_EVENTS] = {
		"advise", "discard", "package", "armed", "loaded", "owed-nothing", "source-lost",
		"refuse", "hold", "resume", "resumed",
	};

	return (unsigned)event < ARRAY_LEN(names) ? names[event] : "?";
}
