/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The gates, where the pages are.  The main thread orders what somebody declares or says; what
 * happens here by itself is state: how much is missing, which ranges are to be mapped now, whether
 * the devices may run.  It stands in each snapshot, and nothing is told twice or lost.
 *
 * A range that is ready is shown as due until an order says how its mapping ended, and only so many
 * of a gate are due at a time; the next ones follow by the answers.  An order and a snapshot pass
 * each other on the way, so the snapshot has the number of the last order that was done: whoever
 * reads it knows which of his own are in it.
 *
 * The memory of a gate comes with the order that adds it, so there is no heap here; it is freed
 * when the thread has ended.  Gates are added when faults are served, behind the last discard.  A
 * session that is halted has nothing mapped any more, and lets no device run.
 */
#include "config.h"
#include "daemon/gates.h"

#include <errno.h>
#include <stdlib.h>

#include "core/guard.h"
#include "daemon/faultloop.h"

/**
 * gates_return - give an order back, done or not
 * @error: 0 or -errno
 */
void gates_return(struct faultloop *f, struct gate_order *o, int error)
{
	o->error = error;
	o->next = __atomic_load_n(&f->gates.done, __ATOMIC_RELAXED);
	while (!__atomic_compare_exchange_n(&f->gates.done, &o->next, o, false, __ATOMIC_RELEASE,
					    __ATOMIC_RELAXED))
		continue;
}

/**
 * gates_collect - take the orders that came back, for the main thread
 *
 * After faultloop_collect(): what a snapshot shows then was ordered before.
 *
 * Return: a list in the order in which they were done, NULL when there is none.
 */
struct gate_order *gates_collect(struct faultloop *f)
{
	struct gate_order *newest = __atomic_exchange_n(&f->gates.done, NULL, __ATOMIC_ACQUIRE);
	struct gate_order *list = NULL;

	while (newest) {
		struct gate_order *o = newest;

		newest = o->next;
		o->next = list;
		list = o;
	}
	return list;
}

/* --- orders ----------------------------------------------------------------------------------- */

typedef int order_handler(struct faultloop *f, struct gate *g, struct gate_order *o);

static int on_add(struct faultloop *f, struct gate *g, struct gate_order *o)
{
	int ret;

	if (g || f->times.listening == 0)
		return -EPROTO;
	o->config.ledger = &f->engine.ledger;
	o->config.blocks = &f->engine.blocks;
	gate_init(o->memory, o->memory + 1, &o->config);
	ret = engine_add_gate(&f->engine, o->memory);
	if (ret < 0)
		return ret;
	gate_serve(o->memory);
	f->gates.gate[o->gate] = steal_ptr(&o->memory);
	return 0;
}

static int on_map(struct faultloop *f, struct gate *g, struct gate_order *o)
{
	(void)f;
	return gate_map(g, &o->span);
}

/* The caller walks before it unmaps: behind it nobody knows any more what was written. */
static int on_sync(struct faultloop *f, struct gate *g, struct gate_order *o)
{
	struct gate_piece piece;
	struct gate_walk walk;
	uint64_t last;

	(void)f;
	if (o->span.length == 0 || !add_u64(o->span.iova, o->span.length - 1, &last))
		return -EINVAL;
	o->written = 0;
	gate_walk(&walk, g, o->span.iova, o->span.length);
	while (gate_written(&walk, &piece))
		o->written += piece.length;
	return 0;
}

static int on_unmap(struct faultloop *f, struct gate *g, struct gate_order *o)
{
	int ret = on_sync(f, g, o);

	if (ret == 0)
		ret = gate_unmap(g, o->span.iova, o->span.length);
	return ret < 0 ? ret : 0;
}

static int on_seal(struct faultloop *f, struct gate *g, struct gate_order *o)
{
	(void)f;
	(void)o;
	gate_seal(g);
	return 0;
}

static int on_mapped(struct faultloop *f, struct gate *g, struct gate_order *o)
{
	uint64_t *due = f->gates.due[o->gate].iova;
	unsigned *n = &f->gates.due[o->gate].n, at = 0;

	while (at < *n && due[at] != o->span.iova)
		at++;
	if (at == *n)
		return -ENOENT;
	due[at] = due[--*n];
	return gate_mapped(g, o->span.iova, o->error);
}

static int on_retry(struct faultloop *f, struct gate *g, struct gate_order *o)
{
	(void)f;
	return gate_retry(g, o->span.iova);
}

static int on_clear(struct faultloop *f, struct gate *g, struct gate_order *o)
{
	f->gates.due[o->gate].n = 0;
	gate_clear(g);
	return 0;
}

static int on_ran(struct faultloop *f, struct gate *g, struct gate_order *o)
{
	(void)f;
	(void)o;
	gate_ran(g);
	return 0;
}

static int on_reset(struct faultloop *f, struct gate *g, struct gate_order *o)
{
	(void)f;
	(void)o;
	gate_reset(g);
	return 0;
}

/**
 * gates_order - do an order, and give it back
 */
void gates_order(struct faultloop *f, struct gate_order *o)
{
	static order_handler *const handlers[GATES_VERBS] = {
		[GATES_ADD] = on_add,	   [GATES_MAP] = on_map,   [GATES_UNMAP] = on_unmap,
		[GATES_SYNC] = on_sync,	   [GATES_SEAL] = on_seal, [GATES_MAPPED] = on_mapped,
		[GATES_RAN] = on_ran,	   [GATES_RESET] = on_reset, [GATES_RETRY] = on_retry,
		[GATES_CLEAR] = on_clear,
	};
	struct gate *g = f->gates.gate[o->gate];
	int ret = g || o->verb == GATES_ADD ? handlers[o->verb](f, g, o) : -ENOENT;

	f->gates.serial = o->serial;
	gates_return(f, o, ret);
	faultloop_changed(f);
}

/* --- ranges that are ready -------------------------------------------------------------------- */

/*
 * What is ready and not told of yet.  gate_next() says once that the gate is open, which a snapshot
 * says always.
 */
static void take_ready(struct faultloop *f, unsigned index)
{
	struct gate *g = f->gates.gate[index];

	while (f->gates.due[index].n < SNAPSHOT_DUE) {
		uint64_t iova;
		enum gate_outcome outcome = gate_next(g, &iova);

		if (outcome == GATE_NOTHING)
			return;
		faultloop_changed(f);
		if (outcome == GATE_READY)
			f->gates.due[index].iova[f->gates.due[index].n++] = iova;
	}
}

/**
 * gates_turn - ranges that became ready are due, as many as are shown
 */
void gates_turn(struct faultloop *f)
{
	if (faultloop_halted(f))
		return;
	for (unsigned i = 0; i < ENGINE_GATES; i++)
		if (f->gates.gate[i])
			take_ready(f, i);
}

/* --- what is shown ---------------------------------------------------------------------------- */

static void fill_error(const struct gate *g, struct snapshot_gate *to)
{
	for (uint32_t at = 0; g->failed && at < g->n && to->error == 0; at++) {
		const struct gate_range *r = &g->range[g->by_iova[at]];

		to->error = r->stage == GATE_FAILED ? r->error : 0;
		to->error_iova = r->span.iova;
	}
}

/* Pages that were given up (--on-loss): they stay missing, and the gate closed. */
static void fill_lost(const struct faultloop *f, const struct gate *g, struct snapshot_gate *to)
{
	uint64_t count[PAGE_STATES];
	bool lost = faultloop_lost(f);

	for (uint32_t at = 0; lost && at < g->n; at++) {
		const struct gate_range *r = &g->range[g->by_iova[at]];

		ledger_count(&f->engine.ledger, r->first, r->first + r->pages, count);
		to->lost += count[PAGE_LOST];
	}
}

static void fill_gate(const struct faultloop *f, unsigned index, struct snapshot_gate *to)
{
	const struct gate *g = f->gates.gate[index];

	*to = (struct snapshot_gate){
		.ranges = g->n, .mapped = g->mapped, .failed = g->failed,
		.pages = g->pages, .missing = g->missing,
		.bytes = g->bytes, .missing_bytes = g->missing_bytes,
		.sealed = g->sealed, .ran = g->ran,
		.open = !faultloop_halted(f) && gate_may_run(g) == 0,
		.blocker = gate_blocker(g),
	};
	fill_error(g, to);
	fill_lost(f, g, to);
	if (faultloop_halted(f))
		return;
	to->n_due = f->gates.due[index].n;
	for (unsigned i = 0; i < to->n_due; i++)
		to->due[i] = gate_find(g, f->gates.due[index].iova[i])->span;
}

/**
 * gates_fill - the gates as a snapshot shows them
 * @s: its gates are zero
 */
void gates_fill(const struct faultloop *f, struct snapshot *s)
{
	s->gate_serial = f->gates.serial;
	for (unsigned i = 0; i < SNAPSHOT_GATES; i++)
		if (f->gates.gate[i])
			fill_gate(f, i, &s->gate[i]);
}

/**
 * gates_free - free the gates' memory; the thread has ended, and the engine is used no more
 */
void gates_free(struct faultloop *f)
{
	for (unsigned i = 0; i < ENGINE_GATES; i++)
		free(f->gates.gate[i]);
}
