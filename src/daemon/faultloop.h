/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_FAULTLOOP_H
#define PC_DAEMON_FAULTLOOP_H
/*
 * The fault thread.  It owns the engine, the ring, the sharers' userfaultfds, the return path and,
 * without an urgent lane, the main lane; everything here but the functions for the main thread
 * belongs to it.  See faultloop.c for the theory.
 */
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>
#include "core/engine.h"
#include "core/faultplan.h"
#include "daemon/adopt.h"
#include "daemon/backing.h"
#include "daemon/bulklane.h"
#include "daemon/gates.h"
#include "daemon/lane.h"
#include "daemon/mailbox.h"
#include "daemon/message.h"
#include "daemon/outbox.h"
#include "daemon/placer.h"
#include "daemon/recovery.h"
#include "daemon/roster.h"
#include "daemon/snapshot.h"
#include "sys/clock.h"
#include "sys/ring.h"

#define FAULTLOOP_PENDING 64

/* Kinds of completions. */
enum faultloop_cookie { COOKIE_DOORBELL = 1, COOKIE_UFFD, COOKIE_MAIN, COOKIE_URGENT, COOKIE_SEND };

struct faultloop_options {
	unsigned spin_us;
	uint64_t max_package;		/* bytes */
	uint32_t max_waiters;
	bool switchover_ack;
	/* how long the urgent lane may bring nothing that is owed behind the end; 0: the default */
	uint32_t quiet_ms;
	/* for how long the background stream rests (holdback.c); 0: the default */
	uint32_t calm_ms;
	/* what somebody waits for that long, while the source is lost, is given up; 0: never */
	uint64_t poison_ns;
	const struct uffd_ops *uffd_ops;	/* NULL: the kernel */
	struct record *record;		/* must outlive the thread; NULL: nobody keeps one */
	/* what an earlier process left, with its record; NULL: a fresh session.  See adopt.h */
	const struct faultloop_adopt *adopt;
	struct faultplan *faults;	/* borrowed; NULL: nothing is injected */
};

/* Marks in the life of a session, CLOCK_MONOTONIC; 0: not yet. */
struct faultloop_times {
	uint64_t state, paused, started, need, switchover, listening, first_fault, fault,
		first_served, running, complete;
};

struct faultloop {
	struct faultloop_options options;
	pthread_t thread;
	sem_t begun;			/* the thread has its ring, or none: `begun_error' */
	int begun_error;		/* 0 or -errno */
	struct mailbox inbox;		/* struct message, from the main thread */
	struct mailbox reports;		/* struct bulk_message */
	int doorbell;			/* rung by both writers */
	/* rung for the main thread: the state changed, or the snapshot is back */
	int notify;
	/* atomic: the thread gave up, and what was its own is the main thread's to read */
	bool over;
	struct snapshot *filled;	/* the way back of the snapshot (atomic exchange) */
	struct gates gates;		/* but for the way back of their orders, see there */

	/* --- the fault thread's own from here on --- */
	struct engine engine;
	struct faultplan *faults;	/* of the options */
	struct inject_desk *desk;	/* with it; NULL */
	void *ledger_memory;
	uint64_t ledger_size;
	struct backing backing[BLOCK_MAX];
	unsigned n_backings;
	int own_uffd;			/* our own address space; -1 */
	struct roster roster;
	unsigned next_member;		/* whose turn it is to be read first */
	struct ring *ring;
	struct outbox outbox;
	int return_fd;			/* the main connection, for sending; -1 */
	struct lane main, urgent;	/* fd -1: none (or handed over) */
	bool main_receiving, urgent_receiving;
	bool has_main, has_urgent;
	bool main_eof;			/* the stream's own end was decoded */
	bool main_closed;		/* the connection ended */
	/* SHUT is on its way: nothing is asked any more, and nothing refused */
	bool closing;
	bool shut_clean;		/* nothing was left of an earlier message then */
	/* see arrears.c: since when the urgent lane is quiet (0: none), and what it had brought */
	uint64_t arrears_ns, arrears_bytes;
	bool arrears_asked;
	/* in the outbox: the end of our answer to the package, of SHUT */
	uint64_t answer_mark, shut_mark;
	struct bulklane *bulk;
	struct bulk_message bulk_seen;	/* counters last taken over */
	struct placer placer;
	uint8_t *zeroes;
	uint64_t zeroes_size;
	/* placements to try again when time has passed */
	struct engine_action pending[FAULTLOOP_PENDING];
	unsigned n_pending;
	/* a page of that lane is pending: its buffer must not move */
	bool stalled_main, stalled_urgent;
	bool unheard;			/* a member is; see removals.c */
	bool reported;			/* a sharer tells of memory that goes, or did */
	bool given_back;		/* content of ours waits for another try, in the engine */
	bool filling;			/* a device wants more known zeroes than this turn placed */
	/* pages of these that want a huge page, and the pool has none */
	uint64_t pool_waits;
	uint64_t retry_ns;		/* when to try these again; 0: there is nothing */
	uint64_t loss_due_ns;		/* when a page is to be given up, not before; 0 */
	bool marks_due;			/* of lost pages, in some sharer */
	struct stall stall;		/* of the main sharer; the bulk thread's, too */
	bool doorbell_armed;		/* the doorbell's poll is armed */

	enum snapshot_need need;
	/* the source's list, until the main thread matched it */
	struct qstream_block listed[BLOCK_MAX];
	unsigned n_listed;
	char machine[256], peer[128];
	uint32_t page_bits, ram_section;	/* of its stream; see snapshot.h */
	bool footers;			/* the same */
	bool held_left;			/* pages of held blocks are missing, as far as was looked */
	/* the package (or the naked tail of a precopy) */
	/* of the package or tail, while it is being received; heap */
	uint8_t *body;
	uint64_t body_size, body_have;
	bool tail;			/* it finished as precopy */
	int package_fd;
	int package_kept;		/* empty memfd for it, which outlives us; -1 */
	uint64_t package_size, device_offset, device_size;
	/* of our own source: the state of devices in front of the device part; see devsection.h */
	uint64_t states_offset, states_size;
	uint32_t pings[8];
	unsigned n_pings;

	struct adoption adoption;
	uint64_t strays;
	/* the main thread knows that pages wait for the pool, or that none do */
	bool pool_told;
	uint64_t unmaps;		/* mappings forgotten on request */
	bool running_told;		/* the source has our answer: the VM may run */
	bool ownership_unknown;
	struct recovery recovery;
	uint64_t recoveries;		/* by a resumed source, so far */
	int error;
	char reason[512];
	size_t cause_len;		/* of it: what happened; behind that what is left where */
	struct faultloop_times times;
	bool dirty;			/* the main thread has not been told of the last change */
	bool quit;
	struct snapshot *snapshot;	/* in hand, to be filled; NULL */
};

/* --- for the main thread ---------------------------------------------------------------------- */

/* Starts the thread, which has all that it needs when this returns.  0 or -errno. */
int faultloop_start(struct faultloop **out, const struct faultloop_options *options);
/* Hand a message over; waits while the mailbox is full. */
void faultloop_post(struct faultloop *f, const struct message *m);
/* Something that it looks at by itself has changed. */
void faultloop_nudge(struct faultloop *f);
/* The descriptor that becomes readable when something changed. */
int faultloop_notify_fd(const struct faultloop *f);
/* The snapshot if it came back, else NULL.  *@stale (may be NULL): ask for another. */
struct snapshot *faultloop_collect(struct faultloop *f, bool *stale);
/* The orders for gates that came back since, in the order they were done; the caller's again. */
struct gate_order *gates_collect(struct faultloop *f);
/* Ends the thread and frees everything, but for orders that nobody collected: collect first. */
void faultloop_stop(struct faultloop *f);

/* --- between the files of the fault thread ---------------------------------------------------- */

/* The thread itself. */
void *faultloop_run(void *arg);
/* Fill the snapshot in hand, if there is one, and ring for the main thread. */
void faultloop_tell_main(struct faultloop *f);
/* A fault of a sharer, as it was read at @now. */
void faultloop_fault(struct faultloop *f, struct member *m, const struct uffd_event *e,
		     uint64_t now);
/* Bytes went out to the source. */
void faultloop_sent(struct faultloop *f, size_t n);
/* Feed the session; a change is told to the main thread.  As session_feed(). */
int faultloop_feed(struct faultloop *f, enum session_event event);
/* Is there no source to be asked, or read?  A resumed one is, when it knows what came. */
static inline bool faultloop_halted(const struct faultloop *f)
{
	return f->engine.session.state == SESSION_FAILED ||
	       f->engine.session.state == SESSION_PAUSED ||
	       f->engine.session.state == SESSION_RECOVERING;
}
/*
 * Are faults answered (as far as pages are here)?  To the end: a late message must not find nobody.
 */
static inline bool faultloop_serving(const struct faultloop *f)
{
	return f->engine.session.armed && f->engine.session.state <= SESSION_COMPLETE;
}
/* Was a page given up, by us or by an earlier process? */
static inline bool faultloop_lost(const struct faultloop *f)
{
	for (unsigned i = 0; i < f->engine.blocks.n; i++)
		if (f->engine.blocks.block[i].lost)
			return true;
	return false;
}
/* Pages at hand, on either side, that wait for the pool of huge pages. */
static inline uint64_t faultloop_pool_waits(const struct faultloop *f)
{
	return f->pool_waits + (f->bulk && bulklane_dry(f->bulk));
}
static inline void faultloop_changed(struct faultloop *f)
{
	f->dirty = true;
}
/* The time as this turn has read it last, or reads it now: for what follows without waiting. */
static inline uint64_t faultloop_now(struct faultloop *f)
{
	if (f->placer.now == 0)
		f->placer.now = clock_ns();
	return f->placer.now;
}

/* verdict.c: how a session ends. */
/* It cannot go on: refused while the source then resumes its VM, held (PAUSED) afterwards. */
void verdict_halt(struct faultloop *f, int error, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* A connection of the source broke: error 0 at EOF. */
void verdict_lost(struct faultloop *f, int error);
/* On purpose: the connections of the source end, and a resumed one may come. */
void verdict_pause(struct faultloop *f, const char *reason);
/* An earlier process had it, and ended. */
void verdict_restarted(struct faultloop *f);
/* The main connection's end. */
void verdict_closed(struct faultloop *f, int error);
/* SHUT(0), once nothing is owed. */
void verdict_end(struct faultloop *f);
/* Has our answer left?  Then the VM may run. */
void verdict_tell_running(struct faultloop *f);
/* A sharer ends; by its policy the session may end with it. */
void verdict_member(struct faultloop *f, struct member *m, enum snapshot_sharer_state how,
		    int error, const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/* The handshake with a resumed source ended: PAUSED again, with the reason; or it goes on. */
void verdict_not_recovered(struct faultloop *f, int error, const char *why);
void verdict_recovered(struct faultloop *f);

/* recovery.c: the session without a source, and with one that comes again. */
void recovery_begin(struct faultloop *f);
void recovery_connect(struct faultloop *f, int fd, const char *peer);
/* An urgent connection that is not to be read now: true when it was kept, or closed. */
bool recovery_keeps_urgent(struct faultloop *f, int fd);
/* True when there is more to do. */
bool recovery_turn(struct faultloop *f);
bool recovery_waits(const struct faultloop *f);

/*
 * arrears.c: pages that are owed behind the end of the main stream.  When to look again,
 * nanoseconds; -1: there are none.
 */
void arrears_chase(struct faultloop *f, uint64_t now);
int64_t arrears_wait(const struct faultloop *f);

/*
 * holdback.c: the background stream, while nobody can use it.  Nothing is taken from the main lane,
 * or no more than so many bytes; when that ends by itself, nanoseconds (-1: it does not apply).
 */
bool holdback_rests(const struct faultloop *f);
size_t holdback_room(const struct faultloop *f, struct lane *l);
int64_t holdback_wait(const struct faultloop *f);
/* The VM is about to go on: the main lane stays with the fault thread. */
bool holdback_loading(const struct faultloop *f);

/* lanework.c: the receive buffers.  True when there is more than one turn may take. */
bool lanework_run(struct faultloop *f, struct lane *l);
/* Is the main lane this thread's?  Or the bulk thread's, or about to be. */
bool lanework_has_main(const struct faultloop *f);
/*
 * As soon as faults are served and an urgent lane is there, the main lane goes to its own thread.
 */
void lanework_hand_over(struct faultloop *f);

/*
 * intake.c: the main lane until faults are served.  Handles the record at hand; false: read no
 * further now.
 */
bool intake_record(struct faultloop *f, struct lane *l);
/* Takes bytes of a package or tail out of the lane's buffer. */
void intake_body(struct faultloop *f, struct lane *l);
static inline bool intake_wants_body(const struct faultloop *f)
{
	return f->body != NULL;
}
/* The connection has ended: is a whole package among the bytes that were not looked at yet? */
bool intake_holds_package(const struct lane *l);
int intake_blocks_done(struct faultloop *f, int ledger);
/* Memory that depends on the longest page.  0 or -errno. */
int intake_use_pages(struct faultloop *f);
/* The urgent lane's decoder learns the blocks; whichever of the two comes last calls it. */
int intake_urgent(struct faultloop *f);
/* ARMED: sweep, register our own mappings, serve. */
int intake_armed(struct faultloop *f);

/* perform.c: do what the engine wants done. */
void perform_actions(struct faultloop *f);
void perform_pending(struct faultloop *f);
/*
 * Whoever sleeps in that range of the sharer's space tries its access again, and may fault again.
 * False: refused, and to be said again.
 */
bool perform_wake(struct faultloop *f, const struct member *m, uint64_t address, uint64_t length);
/* The same of all that it maps. */
bool perform_wake_all(struct faultloop *f, const struct member *m);
/* An action that was taken out before. */
void perform_again(struct faultloop *f, const struct engine_action *a);

/* loss.c: pages of a lost source. */
void loss_turn(struct faultloop *f);
/* When to look again, nanoseconds; -1. */
int64_t loss_wait(const struct faultloop *f);
/* As placements: true when it is over. */
bool loss_poison(struct faultloop *f, struct engine_action *a);
void loss_mapped(struct faultloop *f, struct member *m);
bool loss_owes(const struct faultloop *f);
/* The VM was ended because of it: nothing can mend this session. */
void loss_bereft(struct faultloop *f, const char *reason);

/* gates.c: what holds devices. */
/* Do an order, and give it back. */
void gates_order(struct faultloop *f, struct gate_order *o);
/* Give an order back that is not done. */
void gates_return(struct faultloop *f, struct gate_order *o, int error);
/* Once a turn: ranges that became ready are due, as many as are shown. */
void gates_turn(struct faultloop *f);
void gates_fill(const struct faultloop *f, struct snapshot *s);
/* The gates' memory; after the thread ended. */
void gates_free(struct faultloop *f);

/* fill.c */
void fill_snapshot(const struct faultloop *f, struct snapshot *s, uint64_t now);

/* adopt.c: what an earlier process left. */
/* Before the thread runs: stand where that one stood.  0 or -errno, with options.adopt->why. */
int adopt_begin(struct faultloop *f);
/* Every sharer it had has been told of again. */
void adopt_told(struct faultloop *f);
/* Is there something that is nobody's yet: pages in hand, threads that have to be woken? */
static inline bool adopt_waits(const struct faultloop *f)
{
	return f->adoption.begun && !f->adoption.over;
}
/* Wake who may sleep for what it did not do any more.  True when there is more of it. */
bool adopt_turn(struct faultloop *f);

/* inject_desk.c: somebody comes past a point that is about a sharer's page. */
void inject_fault_met(struct faultloop *f, enum faultplan_point point, const struct member *m,
		      uint64_t address);
static inline void inject_fault(struct faultloop *f, enum faultplan_point point,
				const struct member *m, uint64_t address)
{
	if (__builtin_expect(f->faults != NULL, false))
		inject_fault_met(f, point, m, address);
}

/* errands.c: messages of the other threads. */
void errands_inbox(struct faultloop *f);
void errands_reports(struct faultloop *f);
/* Our answer to the package. */
void errands_answer(struct faultloop *f);
/* An urgent connection of the source that there is; -1: one is to be expected. */
void errands_urgent(struct faultloop *f, int fd);
/* A message that the fault thread will not read any more; for the main thread, then. */
void errands_orphan(struct faultloop *f, const struct message *m);

#endif
