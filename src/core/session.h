/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_CORE_SESSION_H
#define PC_CORE_SESSION_H
/*
 * One VM's stay with us, as a transition table.
 *
 *  IDLE -> ADVISED -> DISCARDING -> LISTENING -> LOADING -> RUNNING -> COMPLETE
 *             \            \____________\___________\__________\-> PAUSED   (source lost after the commit)
 *              \-> COMPLETE (it finished as precopy)     any state before the commit -> FAILED
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
	SESSION_COMPLETE,	/* every owed page is here and SHUT(0) was sent */
	SESSION_FAILED,		/* refused before the commit; the source goes on */
	SESSION_STATES,
};

enum session_event {
	SESSION_ADVISE,		/* POSTCOPY_ADVISE */
	SESSION_DISCARD,	/* POSTCOPY_RAM_DISCARD */
	SESSION_PACKAGE,	/* the package was received whole */
	SESSION_ARMED,		/* every sharer proven, faults polled */
	SESSION_LOADED,		/* the main sharer said so */
	SESSION_OWED_NOTHING,	/* last owed page placed, main stream at its end */
	SESSION_PRECOPY_END,	/* finished as precopy and loaded */
	SESSION_SOURCE_LOST,	/* connection ended or broke its protocol */
	SESSION_REFUSE,		/* we (or the main sharer) refuse */
	SESSION_RESUMED,	/* recovery: the source is back */
	SESSION_EVENTS,
};

struct session {
	enum session_state state;
	bool commit_ping;	/* the package holds PING 0x42: commit is our answer to it */
	bool package_begun;	/* first byte of the package was received */
	bool committed;		/* there is no way back to the source */
};

void session_init(struct session *s);
/* 1 the state changed, 0 legal but nothing changed, -EPROTO illegal here (state untouched). */
int session_feed(struct session *s, enum session_event event);
/* Would we be allowed to close the source connection by ourselves?  Only while it then resumes its VM. */
bool session_may_refuse(const struct session *s);
const char *session_state_name(enum session_state state);
const char *session_event_name(enum session_event event);

#endif
