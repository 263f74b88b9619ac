/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_SNAPSHOT_H
#define PC_DAEMON_SNAPSHOT_H
/*
 * What the fault thread tells the main thread: state, not events.  There is one snapshot; it is
 * owned by whoever holds it (main sends it to the fault thread to be filled, the fault thread sends
 * it back), so it can neither overflow nor be read half-written.
 */
#include <stdbool.h>
#include <stdint.h>
#include "core/block.h"
#include "core/gate.h"
#include "core/ledger.h"
#include "core/session.h"
#include "core/stats.h"
#include "sys/inetdiag.h"

#define SNAPSHOT_BLOCKS  64
#define SNAPSHOT_SHARERS 64
#define SNAPSHOT_GATES	 16
#define SNAPSHOT_DUE	 8		/* ranges of a gate that are being mapped at a time */
#define SNAPSHOT_DEVICES 64
#define SNAPSHOT_DEVICE_NAME 64

struct snapshot_block {
	char name[256];
	enum block_kind kind;	/* HELD: nobody registered it, the daemon keeps its content */
	unsigned sharers;
	uint64_t length, page_size;	/* bytes */
	uint64_t pages;			/* of page_size */
	uint64_t owed;			/* discarded at the switch-over */
	/* pages by state, sum = pages */
	uint64_t present, missing, requested, stored, zero, lost, unplaced;
	/*
	 * HELD: the block's content, @length bytes.  The fault thread's (or the bulk lane's) to
	 * write as long as pages of it are missing; from the snapshot on that shows the session
	 * serving and none missing or unplaced it is written by nobody any more, and anybody may
	 * read it until the fault thread is stopped.  NULL: of another kind.
	 */
	const uint8_t *store;
	/*
	 * SHARED: the file, open until the fault thread is stopped; else -1.  PRIVATE: what
	 * is kept of it here, which stays as it is once the session serves; else NULL.
	 */
	int file;
	uint64_t file_offset;
	const uint8_t *kept;
	uint64_t first;			/* number of its first page in the ledger */
};

/* What the fault thread waits for the main thread to do. */
enum snapshot_need {
	NEED_NOTHING,
	NEED_BLOCKS,		/* the source's block list is here: say what backs each block */
	/* the package is here: prove and hand over every sharer, then say so */
	NEED_ARM,
};

enum snapshot_sharer_state {
	SHARER_JOINING,		/* said hello, not yet proven */
	SHARER_ACTIVE,		/* faults are served */
	SHARER_DISABLED,	/* ended alone; its threads stay blocked */
	SHARER_LEFT,		/* unmapped and gone by itself */
	SHARER_DEAD,		/* its process ended */
};

struct snapshot_sharer {
	uint32_t id, generation;
	char name[64];
	int32_t pid;
	bool main;
	uint32_t policy;		/* enum regmsg_policy */
	enum snapshot_sharer_state state;
	int error;			/* positive errno with the reason */
	char reason[256];		/* why it is disabled, dead … */
	uint64_t state_ns;		/* when the state was entered (CLOCK_MONOTONIC) */
	uint64_t mappings, mapped_bytes;
	uint64_t waiting;		/* threads parked now */
	uint64_t oldest_wait_ns;	/* age of the oldest of them */
	struct sharer_stats stats;
};

/* A gate, by its number at the main thread; all zero: there is none yet. */
struct snapshot_gate {
	unsigned ranges, mapped, failed;
	/* that the ranges need, those in two of them twice; bytes of whole pages */
	uint64_t pages, missing, bytes, missing_bytes;
	uint64_t lost;			/* of the missing ones, those that will not come */
	bool sealed, open, ran;		/* open: its devices may run */
	const char *blocker;		/* as gate_blocker() */
	int error;			/* of the first range that could not be mapped: -errno */
	uint64_t error_iova;
	unsigned n_due;			/* ranges to be mapped now, or being mapped */
	struct gate_span due[SNAPSHOT_DUE];
};

/* The way to the source, as the main thread filled it in. */
struct snapshot_link {
	bool on;			/* there is a network connection, or was */
	char interface[16], local[64], peer[64], via[64];
	bool up;
	uint64_t since_ns;		/* of .up */
	char cause[192];		/* why it is not */
	bool measured;			/* .tcp is of now */
	struct inetdiag tcp;
};

/* How far --source-qmp is with having the source come again. */
enum snapshot_source_step {
	SOURCE_OFF,		/* nothing is paused, or nobody can be told */
	SOURCE_CONNECTING,
	SOURCE_LOOKING,
	SOURCE_WAITING,		/* the source is in no state to resume, or not yet */
	SOURCE_PAUSING,		/* it was told that its connection is gone */
	SOURCE_ASKED,		/* it was told to resume */
	SOURCE_REFUSES,
	SOURCE_RUNS,		/* the VM runs there */
	SOURCE_STEPS,
};

struct snapshot_source_qmp {
	char path[108];		/* empty: there is none */
	enum snapshot_source_step step;
	uint64_t tries;		/* how often it was told to resume */
	char text[320];
};

/* --device-channel, as the main thread filled it in. */
struct snapshot_device_channel {
	char address[160], session[40];	/* empty: there is none */
	char peer[128];			/* who sends; empty: nobody does */
	uint64_t bytes;			/* of all connections that were let in */
	uint64_t connections, refused;
	char problem[256];		/* of the last one that was refused, or broke */
};

/* --on-loss, as the main thread filled it in. */
struct snapshot_loss {
	const char *policy, *stage;	/* static; NULL: nobody looked */
	unsigned after_s;
	uint64_t due_ns;		/* when the VM is stopped or ended; 0 */
	char text[256];			/* what was done; empty: nothing */
};

/* A salvage, as the main thread filled it in. */
struct snapshot_salvage {
	const char *stage;		/* static; NULL: there was none */
	char dir[512], text[640];	/* of the last one; what became of it, or empty */
	uint64_t bytes_done, bytes_total;
};

/* What there is of a device's state, as the main thread filled it in. */
struct snapshot_device_state {
	char id[SNAPSHOT_DEVICE_NAME], compat[SNAPSHOT_DEVICE_NAME];
	bool region;			/* VFIO v1: in segments that stay as they are */
	bool complete, coming;
	uint64_t attempts, segments, bytes, rounds;
	uint64_t received;		/* bytes so far, of a segment that is not whole, too */
	uint64_t digest;		/* XXH64 of the bytes, when complete */
};

/* What is injected, as the main thread filled it in. */
struct snapshot_faults {
	bool enabled;
	uint64_t rules, fires;
};

/* Who serves, as the main thread filled it in. */
struct snapshot_worker {
	int32_t pid;
	unsigned generation, restarts;	/* see vault.h */
	char last[32];			/* how the one before ended */
	const char *keeper;		/* "keeper", "fd-store"; NULL: nobody */
	char upgrade[256];		/* why the last try to upgrade was refused */
};

/* While the source is waited for, as the main thread filled it in. */
struct snapshot_recover {
	bool listening;
	char address[200];		/* where; HOST stands for what we do not know */
	char command[320];		/* what to say to the QMP of the source */
	uint64_t until_ns;		/* then nobody is let in any more by itself; 0: no limit */
};

struct snapshot {
	uint64_t now_ns;		/* CLOCK_MONOTONIC when it was filled */
	enum session_state state;
	enum snapshot_need need;
	uint64_t state_ns;		/* when the state was entered */
	uint64_t started_ns;		/* connection accepted; 0: not yet */
	uint64_t switchover_ns;		/* package received; 0 */
	uint64_t listening_ns;		/* faults served from here; 0 */
	uint64_t first_fault_ns, first_served_ns;	/* 0 */
	uint64_t running_ns, complete_ns;		/* 0 */
	bool committed, commit_ping, urgent_lane;
	bool held;			/* PAUSED for good: no source can mend it */
	uint64_t recoveries;		/* by a resumed source, so far */
	uint64_t resumed;		/* resumed sources that were heard, or refused, so far */
	uint64_t paused_ns;		/* PAUSED, RECOVERING: since when nobody sends; else 0 */
	bool ownership_unknown;		/* lost between the end of the stream and SHUT */
	bool main_eof, shut_sent;
	/* behind the end of the stream pages are owed: since when the urgent lane brings none; 0 */
	uint64_t arrears_ns;
	bool source_closed;		/* the main connection ended */
	bool running_told;		/* our answer has left us: the main sharer may run its VM */
	/* pages found and punched at LISTENING that nobody may have written */
	uint64_t strays;
	uint64_t pool_waits;		/* pages at hand that wait for the pool of huge pages */
	/* mappings that were forgotten since the start: see door_mapped.c */
	uint64_t unmaps;
	int error;			/* positive errno of FAILED / PAUSED */
	/* of FAILED / PAUSED: what happened, what is left where, what to do */
	char reason[512];
	char machine[256];		/* machine type of the source */
	/* of its stream: log2 of the target page size (0: not said), section id of ram */
	uint32_t page_bits, ram_section;
	char source[128];		/* its address */
	uint64_t package_bytes, package_device_offset, package_device_bytes;
	/* records of devices' state in the package, in front of its device part; 0: none */
	uint64_t package_states_offset, package_states_bytes;
	/* sealed memfd, owned by the fault thread until the session ends; -1 */
	int package_fd;
	uint64_t owed, owed_left;	/* pages */
	uint64_t faults_in_flight;	/* threads parked, all sharers */
	uint64_t requests_in_flight;	/* pages asked for and not here */
	uint64_t store_bytes;		/* extra memory for held and not yet placed content */
	struct snapshot_link link;
	struct snapshot_source_qmp source_qmp;
	unsigned n_blocks, n_sharers;
	/* for who only reads it; once the session serves, until the fault thread is stopped */
	const struct ledger *ledger;
	uint64_t gate_serial;		/* of the last order that was done: see gates.h */
	struct snapshot_gate gate[SNAPSHOT_GATES];
	struct snapshot_recover recover;
	struct snapshot_device_channel device_channel;
	struct snapshot_faults faults;
	struct snapshot_loss loss;
	struct snapshot_salvage salvage;
	struct snapshot_worker worker;
	unsigned n_device_states;
	struct snapshot_device_state device_state[SNAPSHOT_DEVICES];
	struct stats stats;
	struct sharer_stats total;	/* over all sharers, gone ones included */
	struct snapshot_block block[SNAPSHOT_BLOCKS];
	struct snapshot_sharer sharer[SNAPSHOT_SHARERS];
};

#endif
