/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_CORE_SESSION_H
#define PC_CORE_SESSION_H
/*
 * One VM's stay with us, as a transition table.
 *
 *  IDLE -> ADVISED -> DISCARDING -> LISTENING -> LOADING -> RUNNING -> COMPLETE
 *                                        committed: |^ |^ |^
 *                                                  PAUSED <-> RECOVERING
 *
 * A migration that finishes as precopy walks the same way with nothing owed (ADVISED -> LISTENING).
 * Losing the source leads to FAILED while the source then resumes its VM, and to PAUSED from the
 * commit on: the two never both run.  A resumed source takes a paused session back to where it was
 * lost; one that is held (memory that nobody can vouch for, a stream that cannot go on) stays.
 */
#include <stdbool.h>

enum session_state {
	SESSION_IDLE,		/* nothing came yet */
	SESSION_ADVISED,	/* ADVISE seen: precopy runs */
	SESSION_DISCARDING,	/* switch-over: the owed ranges are being named */
	SESSION_LISTENING,	/* package here; sharers are being proven and registered */
	SESSION_LOADING,	/* faults are served; the main sharer loads the device state */
	SESSION_RUNNING,	/* committed: the VM runs here */
	SESSION_PAUSED,		/* the source is lost; present pages go on being served */
	SESSION_RECOVERING,	/* a resumed source is here; it asks what came */
	SESSION_COMPLETE,	/* every owed page is here and SHUT(0) was sent */
	SESSION_FAILED,		/* refused before the commit; the source goes on */
	SESSION_STATES,
};

enum session_event {
	SESSION_ADVISE,		/* POSTCOPY_ADVISE */
	SESSION_DISCARD,	/* POSTCOPY_RAM_DISCARD */
	SESSION_PACKAGE,	/* the package (or the tail of a precopy) was received whole */
	SESSION_ARMED,		/* every sharer proven, faults polled */
	SESSION_LOADED,		/* the main sharer said so */
	SESSION_OWED_NOTHING,	/* last owed page placed, main stream at its end */
	SESSION_SOURCE_LOST,	/* connection ended or broke its protocol */
	SESSION_REFUSE,		/* we (or the main sharer) refuse */
	SESSION_HOLD,		/* it cannot go on, and is ours: no source can mend it */
	SESSION_RESUME,		/* a resumed source connected */
	SESSION_RESUMED,	/* it knows what came, and goes on */
	SESSION_EVENTS,
};

struct session {
	enum session_state state;
	/*
	 * The source resumes its VM by itself when it loses us before we answered: the package
	 * holds PING 0x42 (QEMU >= 10.2), or it finished as precopy and waits for SHUT.  Commit is
	 * then our answer; else it is the package having come whole.
	 */
	bool answer_commits;
	bool committed;		/* there is no way back to the source */
	bool armed, loaded;	/* that came, also while paused: where a recovery goes back to */
	bool held;		/* PAUSED for good: it is not recovered */
};

void session_init(struct session *s);
/* 1 the state changed, 0 nothing changed, -EPROTO illegal here. */
int session_feed(struct session *s, enum session_event event);
/*
 * Would we be allowed to close the source connection by ourselves?  Only while it then resumes its
 * VM.
 */
bool session_may_refuse(const struct session *s);
/* Is it ours, and nobody sends? */
static inline bool session_is_paused(const struct session *s)
{
	return s->state == SESSION_PAUSED || s->state == SESSION_RECOVERING;
}
const char *session_state_name(enum session_state state);
const char *session_event_name(enum session_event event);

#endif
