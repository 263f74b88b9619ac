/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_GATES_H
#define PC_DAEMON_GATES_H
/*
 * The gates in the fault thread, and the orders of the main thread for them.  See gates.c; what it
 * does is declared in faultloop.h.
 */
#include <stdbool.h>
#include <stdint.h>
#include "core/engine.h"
#include "core/gate.h"
#include "daemon/snapshot.h"

enum gate_verb {
	GATES_ADD,		/* a gate with nothing in its set */
	GATES_MAP,		/* @span */
	GATES_UNMAP,		/* the addresses of @span */
	GATES_SYNC,		/* the same */
	GATES_SEAL,
	GATES_MAPPED,		/* @span.iova, as @error says */
	GATES_RETRY,		/* @span.iova, which failed */
	GATES_CLEAR,		/* begin anew, for another user */
	GATES_RAN,
	GATES_RESET,
	GATES_VERBS,
};

/*
 * Whoever holds it owns it: the main thread makes it, the fault thread does it and gives it back,
 * and so it does with what it cannot do any more.
 */
struct gate_order {
	struct gate_order *next;	/* on the way back */
	enum gate_verb verb;
	unsigned gate;			/* the main thread's number of it, below ENGINE_GATES */
	uint64_t serial;		/* of all orders, ascending from 1 */
	struct gate_span span;
	int error;			/* MAPPED: how it ended.  When it is back: 0 or -errno */
	uint64_t written;		/* UNMAP, SYNC, when it is back: bytes */
	/*
	 * ADD: the gate, and behind it gate_size() bytes, zeroed; from calloc().  NULL when it is
	 * back: the fault thread has it, until it is stopped.
	 */
	struct gate *memory;
	struct gate_config config;	/* of it: ranges, enforced */
};

struct gates {
	struct gate *gate[ENGINE_GATES];	/* by the main thread's number; NULL: none */
	/* ranges that it is told to map, and has not said how that ended */
	struct {
		unsigned n;
		uint64_t iova[SNAPSHOT_DUE];
	} due[ENGINE_GATES];
	uint64_t serial;		/* of the last order that was done */
	struct gate_order *done;	/* the way back, newest first (atomic) */
};

#endif
