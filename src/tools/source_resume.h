/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_SOURCE_RESUME_H
#define PC_TOOLS_SOURCE_RESUME_H
/* A lost connection in postcopy: connect again, and agree on what is still to be sent. */
#include "tools/source_session.h"

/* Is it for us to go on after this end?  No other thread is there. */
bool source_resume_is_due(const struct source_session *s);
/*
 * Connect again, however often it takes; the session then goes on.  0, or -ETIMEDOUT: the time for
 * it is over, and the session with it.
 */
int source_resume_connect(struct source_session *s);
/* The main thread's side of the handshake.  0, or -ECONNABORTED: paused again. */
int source_resume_shake(struct source_session *s);

/* The return thread's side.  Whose bitmap is due; NULL, with a violation: not that one's. */
struct source_block *source_resume_block(struct source_session *s, const char *name);
/* One was read, and has taken effect. */
void source_resume_on_bitmap(struct source_session *s);
/* 0, or -EPROTO with a violation: it is not due. */
int source_resume_on_ack(struct source_session *s);

#endif
