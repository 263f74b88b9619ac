/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_REPORT_H
#define PC_DAEMON_REPORT_H
/*
 * What the control socket tells about the daemon: a snapshot as JSON, field by field as
 * postcopyd-control(7) documents it.
 */
#include "daemon/control.h"
#include "daemon/snapshot.h"
#include "wire/jsonmsg.h"

/* Each writes one member @key of the object that is open in @w. */
void report_status(struct jsonmsg_writer *w, const char *key, const struct snapshot *s);
void report_sharers(struct jsonmsg_writer *w, const char *key, const struct snapshot *s);
void report_blocks(struct jsonmsg_writer *w, const char *key, const struct snapshot *s);
void report_stats(struct jsonmsg_writer *w, const char *key, const struct snapshot *s);
void report_blockers(struct jsonmsg_writer *w, const char *key, const struct control_blocker *b,
		     unsigned n);
/* The members of an event, into the object that is open; @s: NULL: there is no snapshot. */
void report_event(struct jsonmsg_writer *w, const char *name, const char *text,
		  const struct snapshot *s);

#endif
