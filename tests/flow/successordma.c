/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a VMM declared for its devices, when postcopyd dies and is followed by another (workers.h).
 * The gatekeeper of each worker is real; its fault thread is the test, which does the orders and
 * shows what is due.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/guard.h"
#include "daemon/door_dma.h"
#include "facts.h"
#include "tap.h"
#include "workers.h"

#define GATE "0000:01:00.0"

static unsigned collected;		/* of the log */

/* Every order was done, and well. */
struct gate_order *gates_collect(struct faultloop *f)
{
	struct gate_order *first_order = NULL, **last = &first_order;

	(void)f;
	for (; collected < fault_thread.n; collected++) {
		struct gate_order *o = fault_thread.said[collected].gate;

		if (fault_thread.said[collected].kind != MESSAGE_GATE)
			continue;
		free(o->memory);
		o->memory = NULL;
		*last = o;
		last = &o->next;
	}
	*last = NULL;
	return first_order;
}

static void furnish(struct scene *s)
{
	collected = 0;
	s->gates = gatekeeper_new(NULL);
	door_use_gates(s->door, s->gates);
}

/* A look at the session, and then at what came of orders. */
static void look(struct scene *s)
{
	for (unsigned i = 0; i < fault_thread.n; i++)
		if (fault_thread.said[i].kind == MESSAGE_GATE)
			s->snapshot.gate_serial++;
	gatekeeper_look(s->gates, &s->snapshot);
	gatekeeper_collect(s->gates);
	tell(s, SESSION_RUNNING);
	for (int i = 0; i < 3; i++)
		turn();
}

/* The orders of a kind, and the last of them. */
static unsigned ordered(enum gate_verb verb, struct gate_order *last)
{
	unsigned n = 0;

	for (unsigned i = 0; i < fault_thread.n; i++) {
		if (fault_thread.said[i].kind != MESSAGE_GATE ||
		    fault_thread.order[i].verb != verb)
			continue;
		*last = fault_thread.order[i];
		n++;
	}
	return n;
}

static void furnished(struct scene *s)
{
	union regmsg m;

	memset(s, 0, sizeof(*s));
	workers_furnish = furnish;
	serve(s, REGMSG_ROLE_MAIN);
	s->snapshot.listening_ns = 1;
	s->snapshot.running_told = true;
	client(s)->loaded = true;
	tell(s, SESSION_RUNNING);
	expect_eq(hear(s, &m), REGMSG_RUNNING);
	look(s);
}

static void say_range(struct scene *s, uint32_t serial, uint64_t iova)
{
	union regmsg m;
	size_t len = regmsg_init(&m, REGMSG_DMA_MAP, serial);

	m.dma.directions = REGMSG_DMA_READS | REGMSG_DMA_WRITES;
	m.dma.iova = iova;
	m.dma.length = 8192;
	m.dma.block_offset = iova;
	strcpy(m.dma.gate, GATE);
	strcpy(m.dma.name, "ram");
	say(s, &m, len, -1);
}

static void say_at(struct scene *s, enum regmsg_type type, uint32_t serial, uint64_t iova)
{
	union regmsg m;
	size_t len = regmsg_init(&m, type, serial);

	m.dma_at.iova = iova;
	m.dma_at.length = type == REGMSG_DMA_UNMAP ? 8192 : 0;
	strcpy(m.dma_at.gate, GATE);
	say(s, &m, len, -1);
}

/* The fault thread's answer lets it be answered. */
static int settled(struct scene *s, uint32_t serial)
{
	union regmsg m;
	int type;

	while ((type = heard(s, &m)) == 0) {
		turn();
		gatekeeper_collect(s->gates);
	}
	expect_eq(type, REGMSG_RESULT);
	expect_eq(m.head.serial, serial);
	return m.result.error;
}

static void due(struct scene *s, unsigned n, const uint64_t *iova)
{
	struct snapshot_gate *g = &s->snapshot.gate[0];

	g->n_due = n;
	for (unsigned i = 0; i < n; i++)
		g->due[i] = (struct gate_span){ .iova = iova[i],
						.length = 8192,
						.offset = iova[i],
						.directions = GATE_READS | GATE_WRITES };
	look(s);
}

static void hear_range(struct scene *s, uint64_t iova)
{
	union regmsg m;

	expect_eq(hear(s, &m), REGMSG_DMA_RANGE);
	expect_eq(m.dma.iova, iova);
}

static void nothing_heard(struct scene *s)
{
	union regmsg m;

	for (int i = 0; i < 5; i++)
		turn();
	expect_eq(heard(s, &m), 0);
}

/* F47: mapped is not asked for again, asked for neither, and the rest is. */
static void a_set_is_declared_again(void)
{
	static const uint64_t all[] = { 0, 16384, 32768 };
	struct gate_order o;
	struct scene s;
	union regmsg m;

	furnished(&s);
	for (unsigned i = 0; i < 3; i++) {
		say_range(&s, 10 + i, all[i]);
		expect_eq(settled(&s, 10 + i), 0);
	}
	due(&s, 2, all);
	hear_range(&s, 0);
	hear_range(&s, 16384);
	say_at(&s, REGMSG_DMA_MAPPED, 20, 0);
	expect_eq(settled(&s, 20), 0);
	say_at(&s, REGMSG_DMA_SEAL, 21, 0);
	expect_eq(settled(&s, 21), 0);

	s.snapshot.gate[0] = (struct snapshot_gate){ 0 };
	s.snapshot.gate_serial = 0;
	restart(&s);
	expect_eq(ordered(GATES_MAP, &o), 0);
	look(&s);
	expect_eq(ordered(GATES_ADD, &o), 1);
	expect_eq(ordered(GATES_MAP, &o), 3);
	expect(o.span.length == 8192 && o.span.offset == o.span.iova && o.span.block == 0);
	expect_eq(ordered(GATES_SEAL, &o), 1);
	expect_eq(ordered(GATES_RAN, &o), 0);
	due(&s, 3, all);
	expect_eq(ordered(GATES_MAPPED, &o), 1);
	expect(o.span.iova == 0 && o.error == 0);
	hear_range(&s, 32768);
	nothing_heard(&s);
	say_at(&s, REGMSG_DMA_MAPPED, 22, 16384);
	expect_eq(settled(&s, 22), 0);
	expect_eq(ordered(GATES_MAPPED, &o), 2);
	expect_eq(o.span.iova, 16384);
	say_at(&s, REGMSG_DMA_MAPPED, 23, 32768);
	expect_eq(settled(&s, 23), 0);
	s.snapshot.gate[0].n_due = 0;
	s.snapshot.gate[0].open = s.snapshot.gate[0].sealed = true;
	look(&s);
	expect_eq(hear(&s, &m), REGMSG_DMA_OPEN);
	expect_eq(ordered(GATES_RAN, &o), 1);

	/* Told once, and the device counts as running. */
	s.snapshot.gate_serial = 0;
	restart(&s);
	look(&s);
	look(&s);
	nothing_heard(&s);
	expect_eq(ordered(GATES_RAN, &o), 1);
	expect_eq(ordered(GATES_MAP, &o), 3);
}

/* What was unmapped stays so, and what was not declared is not. */
static void only_what_is_declared(void)
{
	struct gate_order o;
	struct scene s;

	furnished(&s);
	say_range(&s, 10, 0);
	expect_eq(settled(&s, 10), 0);
	say_range(&s, 11, 16384);
	expect_eq(settled(&s, 11), 0);
	say_at(&s, REGMSG_DMA_UNMAP, 12, 0);
	expect_eq(settled(&s, 12), 0);
	/* It was taken, and nobody knows what the fault thread made of it. */
	say_range(&s, 13, 65536);
	read_and_die(&s);
	expect_eq(settled(&s, 13), ERESTART);
	s.snapshot.gate_serial = 0;
	look(&s);
	expect_eq(ordered(GATES_MAP, &o), 1);
	expect_eq(o.span.iova, 16384);
	expect_eq(ordered(GATES_SEAL, &o), 0);
	say_range(&s, 14, 65536);
	expect_eq(settled(&s, 14), 0);
	expect_eq(ordered(GATES_MAP, &o), 2);
}

/* Declared, and the answer lost: it is one that was declared. */
static void declared_and_not_answered(void)
{
	struct gate_order o;
	struct scene s;

	furnished(&s);
	say_range(&s, 10, 0);
	expect_eq(settled(&s, 10), 0);
	client(&s)->noted = 10;
	client(&s)->noted_type = REGMSG_DMA_MAP;
	client(&s)->noted_spans = 0;
	door_put(s.door, client(&s));
	restart(&s);
	expect_eq(settled(&s, 10), 0);
	s.snapshot.gate_serial = 0;
	look(&s);
	expect_eq(ordered(GATES_MAP, &o), 1);
}

/* The VMM is quicker than we are: what it was asked for by the dead it says to the successor. */
static void mapped_before_it_is_due(void)
{
	static const uint64_t at = 0;
	struct gate_order o;
	struct scene s;

	furnished(&s);
	say_range(&s, 10, 0);
	expect_eq(settled(&s, 10), 0);
	due(&s, 1, &at);
	hear_range(&s, 0);
	s.snapshot.gate[0].n_due = 0;
	s.snapshot.gate_serial = 0;
	restart(&s);
	say_at(&s, REGMSG_DMA_MAPPED, 11, 0);
	expect_eq(settled(&s, 11), 0);
	look(&s);
	due(&s, 1, &at);
	expect_eq(ordered(GATES_MAPPED, &o), 1);
	nothing_heard(&s);
}

/* More than the record holds: it must not open, whatever is said, until it is declared anew. */
static void a_torn_set_stays_closed(void)
{
	struct dma_gate *g;
	struct gate_order o;
	struct said said = { .span = { .length = 4096 } };
	struct scene s;

	furnished(&s);
	say_range(&s, 10, 0);
	expect_eq(settled(&s, 10), 0);
	g = g_ptr_array_index(s.door->dma, 0);
	for (unsigned i = 1; i <= DOOR_SPANS; i++) {
		said.span.iova = (uint64_t)i << 20;
		g_array_append_val(g->said, said);
	}
	say_at(&s, REGMSG_DMA_SEAL, 11, 0);
	expect_eq(settled(&s, 11), 0);
	s.snapshot.gate_serial = 0;
	restart(&s);
	look(&s);
	expect_eq(ordered(GATES_SEAL, &o), 0);
	say_at(&s, REGMSG_DMA_SEAL, 12, 0);
	expect_eq(settled(&s, 12), ECONNABORTED);
	restart(&s);
	say_at(&s, REGMSG_DMA_SEAL, 13, 0);
	expect_eq(settled(&s, 13), ECONNABORTED);
	say_at(&s, REGMSG_DMA_RESET, 14, 0);
	expect_eq(settled(&s, 14), 0);
	s.snapshot.gate_serial = 0;
	look(&s);
	say_range(&s, 15, 0);
	expect_eq(settled(&s, 15), 0);
	say_at(&s, REGMSG_DMA_SEAL, 16, 0);
	expect_eq(settled(&s, 16), 0);
	expect_eq(ordered(GATES_SEAL, &o), 1);
}

static const struct fact facts[] = {
	{ "F47 F17 a set outlives a restart", a_set_is_declared_again },
	{ "F47 F17 what was unmapped stays so", only_what_is_declared },
	{ "F47 F17 a range whose answer was lost", declared_and_not_answered },
	{ "F47 F17 a range is mapped before it is asked for again", mapped_before_it_is_due },
	{ "F47 F17 a set that is not known whole stays closed", a_torn_set_stays_closed },
};

int main(void)
{
	facts_run(facts, ARRAY_LEN(facts));
	return tap_done();
}
