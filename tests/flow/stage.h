/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TESTS_STAGE_H
#define PC_TESTS_STAGE_H
/*
 * A whole session of the fault thread in one test program: sharers that are processes with
 * userfaultfds of their own and a thread per page they wait for, a source whose bytes the test
 * writes record by record, and between them a real `struct faultloop` whose kernel may be replaced.
 *
 * One block, "m", of STAGE_PAGES pages, all owed, in a file that all sharers map.  What a sharer's
 * thread saw in its page stands in memory that the test shares with it, so that a page that was
 * woken too early, or never, shows.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/faultloop.h"
#include "daemon/record.h"
#include "wire/qreturn.h"

#define STAGE_PAGES	128u
#define STAGE_ROW_FIRST 64u
#define STAGE_ROW_N	64u		/* as long as a run of zero pages may be */
#define STAGE_SHARERS	12u		/* at most */
#define STAGE_MAIN	0u		/* the main sharer's number */
#define STAGE_PATIENCE_MS 10000

struct stage_options {
	/* a second lane, so that the main one is read by the bulk thread */
	bool urgent;
	bool commit_ping;		/* the commit is our answer to PING 0x42 */
	/* the row of zero pages comes before the switch-over, and is not owed */
	bool row_known;
	bool hold_loaded;		/* do not say "loaded": stay before the commit */
	/* the block is memory of the only sharer's own, not a file */
	bool private;
	uint64_t uffd_features;		/* of the sharers' userfaultfds */
	unsigned sharers;		/* default 2 */
	bool late_map;			/* the last sharer's mapping is told by stage_map() */
	uint32_t max_waiters;		/* default 1024 */
	/* how long pages may be owed behind the end of the main stream; 0: the default */
	uint32_t quiet_ms;
	/* for how long the background stream rests; 0: the default */
	uint32_t calm_ms;
	/* this sharer forks all the time (forker.h); 0: nobody does */
	unsigned forks;
	const struct uffd_ops *ops;	/* NULL: the kernel */
	/* what a successor needs is kept, and stage_adopt() is it */
	bool kept;
	/* told of the fault thread as soon as there is one; NULL */
	_Atomic(const struct faultloop *) *watch;
};

/* What one thread of a sharer saw. */
struct stage_seen {
	_Atomic bool done;
	uint64_t first, last;		/* words of the page */
};

struct stage_sharer {
	pid_t pid;
	int sock, uffd;
	uint64_t address;
};

struct stage {
	struct stage_options options;
	struct faultloop *loop;
	struct snapshot *snapshot;
	int memfd, main, urgent;	/* main, urgent: the source's ends */
	int lane[2];			/* ours, of both, until the fault thread has them */
	struct record *record;		/* kept: */
	int ledger, package, store;
	struct stage_sharer sharer[STAGE_SHARERS];
	struct stage_seen (*seen)[STAGE_PAGES];	/* [sharer][page] */
	bool touched[STAGE_PAGES];	/* by a sharer, whose faults are served */
	/* what came back on the return path */
	struct qreturn_reader reader;
	uint8_t back[65536];
	size_t n_back;
	bool requested[STAGE_PAGES];
	unsigned n_requested, n_requested_twice, n_pongs;
	uint32_t pong[8];
	/* what the daemon has, as it told a resumed source; it may go on */
	bool received[STAGE_PAGES];
	bool resumed;
	bool shut, hung_up;
	/* of a life that ended nobody knows whether its SHUT had left: the next says it again */
	bool may_repeat;
	uint32_t shut_value;
};

/*
 * Up to and with LISTENING, and "loaded" unless it is held.  Everything that fails ends the fact.
 */
void stage_open(struct stage *s, const struct stage_options *options);
void stage_loaded(struct stage *s);
/*
 * The same in steps: what lies outside of the daemon; the daemon.  Between them the test may fork,
 * and have the daemon killed.
 */
void stage_prepare(struct stage *s, const struct stage_options *options);
void stage_begin(struct stage *s);
/* Another daemon takes over what one that ended has left; its sharers are told of again. */
void stage_adopt(struct stage *s);
/*
 * The source comes again, on new connections, asks what came, and goes on; behind it nothing was
 * requested yet, and it hears requests for what is waited for.
 */
void stage_resume(struct stage *s);
/* What it needs for that, as the vault gives it. */
void stage_left(const struct stage *s, struct faultloop_adopt *left);
/* The daemon's main thread tells where sharer @who has the block. */
void stage_map(struct stage *s, unsigned who);
/* Threads of sharer @who, one each, read pages [first, first+n). */
void stage_touch(struct stage *s, unsigned who, unsigned first, unsigned n);
/* Sharer @who forks a process that reads this page. */
void stage_fork(struct stage *s, unsigned who, unsigned page);
/* Somebody wants these pages before he touches them. */
void stage_want(struct stage *s, enum request_class class, unsigned first, unsigned n);
/* The daemon's main thread says that this sharer has gone. */
void stage_gone(struct stage *s, unsigned who);
/* The source sends these pages, on the urgent lane or on the main one. */
void stage_send(struct stage *s, bool urgent, unsigned first, unsigned n);
/* The same on the main lane, with the end of the stream behind it, at once. */
void stage_send_last(struct stage *s, unsigned first, unsigned n);
/* The end of the main stream. */
void stage_end(struct stage *s);
/* Read what came back, waiting at most @ms for the first byte. */
void stage_hear(struct stage *s, int ms);

const struct snapshot *stage_look(struct stage *s);
void stage_wait_state(struct stage *s, enum session_state state);
/* Until so many pages are known to be zero and not placed. */
void stage_wait_zero(struct stage *s, uint64_t pages);
/* Until so many threads are parked in the engine. */
void stage_wait_parked(struct stage *s, uint64_t threads);
void stage_wait_shut(struct stage *s);
/* Until the threads of @who have seen these pages, and that what they saw is right. */
void stage_wait_seen(struct stage *s, unsigned who, unsigned first, unsigned n);
bool stage_seen(const struct stage *s, unsigned who, unsigned page);
/* Every fourth page is zero, and a row of them is. */
static inline bool stage_zero(unsigned page)
{
	return page % 4 == 3 || (page >= STAGE_ROW_FIRST && page < STAGE_ROW_FIRST + STAGE_ROW_N);
}
uint64_t stage_word(unsigned page);
/* Content of the whole file is the source's. */
void stage_check_content(const struct stage *s);
/* The page a placement at @address through @uffd is about, or STAGE_PAGES. */
unsigned stage_page_at(const struct stage *s, int uffd, uint64_t address);
void stage_close(struct stage *s);

#endif
