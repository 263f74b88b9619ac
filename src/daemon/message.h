/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_MESSAGE_H
#define PC_DAEMON_MESSAGE_H
/*
 * What the main thread and the bulk lane tell the fault thread.  By value; a descriptor in a
 * message belongs to the receiver.
 */
#include <stdbool.h>
#include <stdint.h>
#include "core/engine.h"
#include "daemon/gates.h"
#include "daemon/snapshot.h"

enum message_kind {
	MESSAGE_LANE,		/* a connection of the source */
	MESSAGE_BLOCK,		/* what backs a block of the source's list */
	MESSAGE_BLOCKS_DONE,
	MESSAGE_JOIN,		/* a sharer, proven; its mappings follow */
	MESSAGE_MAP,
	MESSAGE_UNMAP,		/* of a sharer: gone, not to be placed through any more */
	MESSAGE_ARMED,		/* every sharer there is has been told: serve faults */
	MESSAGE_LOADED,		/* the main sharer loaded the device state */
	MESSAGE_GONE,		/* a sharer ended */
	MESSAGE_WANT,		/* pages ahead of need */
	MESSAGE_PAUSE,		/* on purpose: end the connections of the source, wait for it */
	MESSAGE_STOP,		/* refuse or, after the commit, hold the session */
	MESSAGE_BEREFT,		/* the VM was ended, for its source is lost */
	MESSAGE_GATE,		/* an order for a gate: do it and give it back */
	MESSAGE_ADOPTED,	/* every sharer of an earlier process has been told of again */
	MESSAGE_SNAPSHOT,	/* fill it and give it back */
	MESSAGE_QUIT,
};

struct message {
	enum message_kind kind;
	union {
		struct {
			int fd;			/* -1: an urgent one is to be expected */
			bool urgent;
			bool recovery;		/* of a resumed source: there is no header */
			char peer[128];
		} lane;
		struct {
			unsigned index;		/* in the source's list */
			enum block_kind kind;
			/* SHARED; of another kind: a memfd for the store, or -1 */
			int file;
			uint64_t file_offset;
		} block;
		struct {
			/* memfds, empty, which outlive us; -1: memory of our own */
			int ledger, package;
		} blocks_done;
		struct {
			uint32_t id;
			char name[64];
			int32_t pid;
			bool main;
			bool spoken_for;	/* roster.h */
			uint32_t policy;
			int uffd;
			bool reports;		/* uffd_reports_gone() of it */
			/* MAPs that follow, without which its faults mean nothing */
			unsigned maps;
		} join;
		struct {
			uint32_t id;
			struct mapping mapping;
		} map;			/* MAP, UNMAP */
		struct {
			uint32_t id;
			enum snapshot_sharer_state how;
			int error;
			char reason[256];
		} gone;
		struct {
			unsigned block;
			uint64_t offset, length;
			enum request_class class;
		} want;
		struct {
			int error;
			bool refuse_only;	/* nothing, when the commit came first */
			char reason[512];
		} stop;
		struct {
			char reason[256];
		} pause;
		struct {
			char reason[256];
		} bereft;
		/* ownership goes along, and comes back */
		struct gate_order *gate;
		struct snapshot *snapshot;
	};
};

enum bulk_kind {
	BULK_REPORT,		/* pages were placed */
	BULK_PING,		/* answer it */
	BULK_ENDED,		/* the stream's own end */
	BULK_CLOSED,		/* the connection's end: error 0 at EOF, else positive errno */
	/* the stream cannot be understood; the reason is in the lane's decoder */
	BULK_BROKEN,
	BULK_OVER,		/* the last word: the thread has ended, or is about to */
};

struct bulk_message {
	enum bulk_kind kind;
	uint64_t bytes, batches, duplicates;	/* of the lane, since the hand-over */
	uint64_t fallbacks, again;
	union {
		struct engine_report report;
		uint32_t ping;
		int error;
	};
};

#endif
