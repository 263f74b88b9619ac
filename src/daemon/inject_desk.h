/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_INJECT_DESK_H
#define PC_DAEMON_INJECT_DESK_H
/*
 * What the fault thread holds back because a rule says so: made with --enable-faults only, so each
 * of these begins with a comparison.  Belongs to the fault thread.
 */
#include "daemon/faultloop.h"
#include "daemon/inject.h"

#define INJECT_HELD 256

enum inject_kind { INJECT_FAULT, INJECT_REQUEST, INJECT_WAKE };

struct inject_held {
	enum inject_kind kind;
	uint32_t rule;			/* goes on when that is removed */
	uint64_t due_ns;		/* or then; UINT64_MAX: never by itself */
	uint64_t read_ns;		/* FAULT */
	struct sharer_ref sharer;	/* FAULT */
	union {
		struct uffd_event event;
		struct engine_request request;
		struct engine_action wake;
	};
};

struct inject_desk {
	unsigned n;
	struct inject_held held[INJECT_HELD];
	uint64_t removals;		/* of the plan, as last looked at */
	uint64_t lane_due[2];		/* nothing is taken from a lane before; 0 */
	uint64_t pong_due, shut_due;	/* our answer waits for that; 0 */
	bool shut_asked, busy;
};

/* Is the fault kept for later?  Else it is to be served, perhaps for the second time. */
bool inject_holds_fault(struct faultloop *f, struct member *m, const struct uffd_event *e,
			uint64_t now);
bool inject_holds_request(struct faultloop *f, const struct engine_request *r);
/* *@twice: wake it twice. */
bool inject_holds_wake(struct faultloop *f, const struct engine_action *a, bool *twice);
/* Is the sharer not to be read? */
bool inject_wedges(struct faultloop *f, struct member *m);
/* The session has come to another state. */
void inject_state(struct faultloop *f, enum session_event event);
/* Our answer to the package, or SHUT, is not to be said yet. */
bool inject_holds_pong(struct faultloop *f);
bool inject_holds_shut(struct faultloop *f);
/* Bytes are about to be sent to the source. */
void inject_return(struct faultplan *plan, int fd);
/* @n bytes came on a lane of the fault thread. */
void inject_arrived(struct faultloop *f, struct lane *l, int n);
/* Is nothing to be taken from the lane now? */
static inline bool inject_rests(const struct faultloop *f, const struct lane *l)
{
	return f->desk && f->desk->lane_due[l->id] != 0;
}
/* Once a turn: what is due goes on. */
void inject_turn(struct faultloop *f);
/* In how many nanoseconds there is something to do; -1: not by itself. */
int64_t inject_wait(const struct faultloop *f);

/* inject_lane.c, for both threads: bytes came, a record is next, a page is whole. */
/* Returns the milliseconds for which nothing is to be taken from the lane. */
uint64_t inject_received(struct faultplan *plan, struct lane *l, size_t n);
void inject_record(struct faultplan *plan, struct lane *l);
void inject_content(struct faultplan *plan, const struct lane_page *p, uint64_t page_size);

#endif
