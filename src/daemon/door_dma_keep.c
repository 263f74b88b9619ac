/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a VMM declared for its devices, left to a successor and taken from an earlier process.
 *
 * The gates themselves die with the fault thread that had them.  A successor declares the same
 * ranges for gates of its own, which then know from the ledger what is missing.  A range that the
 * VMM has mapped becomes due like any other, and is said to be mapped at once: the VMM is not asked
 * for it twice.  One that it was asked for and has not answered is not asked for again either.
 *
 * A gate opens when all of its set is mapped.  A set that is not known whole, because the record
 * has no room for it, is torn: its gate stays closed and cannot be sealed, until the VMM has reset
 * the device and declares all of it anew.
 */
#include "config.h"
#include "daemon/door_dma.h"
#include "daemon/door_record.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/guard.h"

/* --- what is declared ------------------------------------------------------------------------- */

/**
 * door_dma_said - the range that begins at this address; NULL
 */
struct said *door_dma_said(const struct dma_gate *g, uint64_t iova)
{
	for (guint i = 0; i < g->said->len; i++) {
		struct said *s = &g_array_index(g->said, struct said, i);

		if (s->span.iova == iova)
			return s;
	}
	return NULL;
}

/**
 * door_dma_say - one more
 */
void door_dma_say(struct dma_gate *g, const struct gate_span *span)
{
	const struct said said = { .span = *span };

	if (g->door->record)
		g_array_append_val(g->said, said);
}

/**
 * door_dma_unsay - those that lie in @span are not declared any more
 */
void door_dma_unsay(struct dma_gate *g, const struct gate_span *span)
{
	for (guint i = g->said->len; i-- > 0;) {
		const struct gate_span *s = &g_array_index(g->said, struct said, i).span;

		if (s->iova >= span->iova && s->iova - span->iova < span->length)
			g_array_remove_index_fast(g->said, i);
	}
	door_put(g->door, g->client);
}

/**
 * door_dma_note - how far the range at this address is
 */
void door_dma_note(struct dma_gate *g, uint64_t iova, enum said_state state)
{
	struct said *s = door_dma_said(g, iova);

	if (!s)
		return;
	s->state = state;
	door_put(g->door, g->client);
}

/**
 * door_dma_count - how many ranges this client has declared, at all its gates
 */
unsigned door_dma_count(const struct door *d, const struct client *c)
{
	unsigned n = 0;

	for (unsigned i = 0; d->dma && i < d->dma->len; i++) {
		const struct dma_gate *g = g_ptr_array_index(d->dma, i);

		n += g->client == c ? g->said->len : 0;
	}
	return n;
}

/* --- the record ------------------------------------------------------------------------------- */

static void put_span(struct record_span *to, unsigned gate, const struct said *s)
{
	*to = (struct record_span){
		.iova = s->span.iova,
		.length = s->span.length,
		.offset = s->span.offset,
		.gate = (uint8_t)gate,
		.offer = (uint8_t)s->span.block,
		.class = (uint8_t)s->span.class,
		.directions = (uint8_t)s->span.directions,
		.state = (uint8_t)s->state,
	};
}

static void put_gate(const struct dma_gate *g, struct record_client *r)
{
	struct record_gate *to = &r->gate[r->n_gates];

	memcpy(to->name, g->name, sizeof(to->name));
	to->own = g->own;
	to->enforced = g->enforced;
	to->sealed = g->sealed;
	to->told_open = g->told_open;
	to->torn = g->torn || g->said->len > DOOR_SPANS - r->n_spans;
	for (guint i = 0; i < g->said->len && !to->torn; i++)
		put_span(&r->span[r->n_spans++], r->n_gates,
			 &g_array_index(g->said, struct said, i));
	r->n_gates++;
}

/**
 * door_dma_put - the gates of a client go into its record
 */
void door_dma_put(const struct door *d, const struct client *c, struct record_client *r)
{
	for (unsigned i = 0; d->dma && i < d->dma->len; i++) {
		const struct dma_gate *g = g_ptr_array_index(d->dma, i);

		if (g->client == c && r->n_gates < SNAPSHOT_GATES)
			put_gate(g, r);
	}
}

/* The set has a hole then, and must not be believed to be whole. */
static void on_declared(void *ctx, int error, uint64_t written)
{
	struct message stop = { .kind = MESSAGE_STOP, .stop.error = EIO };
	const struct dma_gate *g = ctx;

	(void)written;
	if (!error || error == -ECANCELED)
		return;
	snprintf(stop.stop.reason, sizeof(stop.stop.reason),
		 "what sharer %s declared for gate %s cannot be declared again: %s",
		 g->client->name, g->name, g_strerror(-error));
	faultloop_post(g->door->loop, &stop);
}

static void declare(struct dma_gate *g, const struct record_span *r)
{
	struct said said = {
		.span = { .iova = r->iova, .length = r->length, .block = r->offer,
			  .offset = r->offset, .class = (enum gate_class)r->class,
			  .directions = r->directions },
		.state = (enum said_state)r->state,
	};

	if (r->offer >= g->client->n_offers)
		return;
	g_array_append_val(g->said, said);
	gatekeeper_map(g->door->gates, g->gate, g->client->offer[r->offer].name, &said.span,
		       on_declared, g);
}

static void revive_gate(struct peer *p, const struct record_client *r, unsigned index)
{
	const struct record_gate *from = &r->gate[index];
	struct dma_gate *g;
	int error = 0;

	/* A device of ours has a gate when it is there. */
	if (!from->own && gatekeeper_find(p->door->gates, from->name) < 0)
		return;
	g = door_dma_gate(p, from->name, from->enforced, &error);
	if (!g) {
		g_warning("sharer %s: gate %s cannot be taken over: %s", p->client->name,
			  from->name, g_strerror(-error));
		return;
	}
	g->told_open = from->told_open;
	g->torn = from->torn;
	for (unsigned i = 0; i < r->n_spans; i++)
		if (r->span[i].gate == index)
			declare(g, &r->span[i]);
	if (g->torn)
		g_warning("sharer %s: the set of gate %s was too large to be kept for a restart: it stays closed until it is reset and declared anew",
			  p->client->name, g->name);
	g->sealed = from->sealed && !g->torn;
	if (g->sealed)
		gatekeeper_seal(p->door->gates, g->gate);
	if (g->own && g->told_open)
		gatekeeper_ran(p->door->gates, g->gate);
}

/**
 * door_dma_revive - declare again what was declared to an earlier process
 */
void door_dma_revive(struct peer *p, const struct record_client *r)
{
	for (unsigned i = 0; p->door->dma && i < r->n_gates; i++)
		revive_gate(p, r, i);
}
