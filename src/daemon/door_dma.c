/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The DMA verbs of the main sharer, and what it is told of its gates.
 *
 * The gatekeeper has the gates; what is here is one struct for each that the VMM has named: who is
 * to be told of it, and which ranges it was asked to map.  A gate that is somebody else's (a device
 * of this daemon) can be declared for, sealed and waited for all the same, but its ranges are not
 * the VMM's to map.
 *
 * A verb that the fault thread has to answer waits for it, as a proof does: nothing more is read of
 * that socket until then.  Before faults are served nothing is answered by the fault thread, and
 * nobody should have to wait for a source.  So what is declared then is judged here, by what the
 * sharer itself declared, and kept; should it turn out wrong all the same (two of them declare for
 * one device), the set is not what the VMM believes, and the session is refused while that costs
 * nothing.
 *
 * Events are bounded, as the library keeps those that meet a call: DUE_TOLD ranges are on the way
 * to the VMM at a time, of all its gates together.
 */
#include "config.h"
#include "daemon/door_dma.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/guard.h"

#define DUE_TOLD   8
#define EARLY_MAX  4096			/* ranges of a gate, before faults are served */

static void gate_free(gpointer data)
{
	struct dma_gate *g = data;

	gatekeeper_forget(g->door->gates, g);
	g_array_unref(g->early);
	g_array_unref(g->said);
	g_free(g);
}

/**
 * door_use_gates - from now on sharers may declare what devices reach
 * @gates: must outlive the door
 */
void door_use_gates(struct door *d, struct gatekeeper *gates)
{
	d->gates = gates;
	d->dma = g_ptr_array_new_with_free_func(gate_free);
}

/**
 * door_dma_forget - nobody hears a client any more: what it had to map is nobody's
 */
void door_dma_forget(struct door *d, const struct client *c)
{
	for (unsigned i = d->dma ? d->dma->len : 0; i-- > 0;) {
		const struct dma_gate *g = g_ptr_array_index(d->dma, i);

		if (g->client == c)
			g_ptr_array_remove_index_fast(d->dma, i);
	}
}

/**
 * door_dma_waits - does a VMM wait for a gate of its own to open?
 *
 * Its ranges are given out here, and with us nobody would say that all are mapped.
 */
bool door_dma_waits(const struct door *d)
{
	for (unsigned i = 0; d->dma && i < d->dma->len; i++) {
		const struct dma_gate *g = g_ptr_array_index(d->dma, i);

		if (g->own && !g->told_open)
			return true;
	}
	return false;
}

/* --- what the client is told ------------------------------------------------------------------ */

static unsigned told_of(const struct client *c, const GPtrArray *all)
{
	unsigned n = 0;

	for (unsigned i = 0; i < all->len; i++) {
		const struct dma_gate *g = g_ptr_array_index(all, i);

		for (unsigned k = 0; k < g->n_due && g->client == c; k++)
			n += g->due[k].told;
	}
	return n;
}

static void tell_range(const struct dma_gate *g, const struct gate_span *s)
{
	union regmsg m;
	size_t len = regmsg_init(&m, REGMSG_DMA_RANGE, 0);

	m.dma.flags = (s->class == GATE_COHERENT ? REGMSG_DMA_COHERENT : 0) |
		      (g->enforced ? REGMSG_DMA_ENFORCED : 0);
	m.dma.directions = s->directions;
	m.dma.iova = s->iova;
	m.dma.length = s->length;
	m.dma.block_offset = s->offset;
	g_strlcpy(m.dma.gate, g->name, sizeof(m.dma.gate));
	g_strlcpy(m.dma.name, g->door->matched[s->block].offer.name, sizeof(m.dma.name));
	door_send(door_peer_of(g->door, g->client), &m, len, -1);
}
_Static_assert((int)GATE_READS == REGMSG_DMA_READS && (int)GATE_WRITES == REGMSG_DMA_WRITES,
	       "directions go over the wire as they are");

static void tell_ranges(struct dma_gate *g)
{
	unsigned told = told_of(g->client, g->door->dma);

	for (unsigned i = 0; i < g->n_due && told < DUE_TOLD; i++) {
		if (g->due[i].told)
			continue;
		g->due[i].told = true;
		told++;
		tell_range(g, &g->due[i].span);
		door_dma_note(g, g->due[i].span.iova, SAID_TOLD);
	}
}

/*
 * From then on the VMM may run the device, and we would not know when.  A device is a part of its
 * VM: it does not run here while the source may take the VM back.
 */
static void tell_open(struct dma_gate *g)
{
	union regmsg m;
	size_t len;

	if (g->told_open || !(g->client->told & TOLD_RUNNING) ||
	    !gatekeeper_open(g->door->gates, g->gate))
		return;
	if (g->own)
		gatekeeper_ran(g->door->gates, g->gate);
	len = regmsg_init(&m, REGMSG_DMA_OPEN, 0);
	g_strlcpy(m.dma_at.gate, g->name, sizeof(m.dma_at.gate));
	door_send(door_peer_of(g->door, g->client), &m, len, -1);
	/* Then: a successor tells it twice rather than not at all. */
	g->told_open = true;
	door_put(g->door, g->client);
}

/* LISTENING comes before everything that it makes possible. */
static void tell(struct dma_gate *g)
{
	if (!(g->client->told & TOLD_LISTENING))
		return;
	tell_ranges(g);
	tell_open(g);
}

/**
 * door_dma_look - tell the main sharer what is due of its gates
 * @serving: faults are served, or were
 */
void door_dma_look(struct door *d, bool serving)
{
	d->dma_serving |= serving;
	for (unsigned i = 0; d->dma && i < d->dma->len; i++) {
		struct dma_gate *g = g_ptr_array_index(d->dma, i);

		if (d->dma_serving)
			g_array_set_size(g->early, 0);
		tell(g);
	}
}

static void on_map(void *ctx, const struct gate_span *span)
{
	struct dma_gate *g = ctx;
	const struct said *said = door_dma_said(g, span->iova);

	if (said && said->state == SAID_MAPPED) {
		(void)gatekeeper_mapped(g->door->gates, g->gate, span->iova, 0);
		return;
	}
	g->due[g->n_due++] =
		(struct due){ .span = *span, .told = said && said->state == SAID_TOLD };
	tell(g);
}

static void on_open(void *ctx)
{
	tell(ctx);
}

/* --- which gate ------------------------------------------------------------------------------- */

static struct dma_gate *known_gate(const struct peer *p, const char *name)
{
	const GPtrArray *all = p->door->dma;

	for (unsigned i = 0; i < all->len; i++) {
		struct dma_gate *g = g_ptr_array_index(all, i);

		if (g->client == p->client && strcmp(g->name, name) == 0)
			return g;
	}
	return NULL;
}

/* One of a VMM that is gone is begun anew: the set of another is none of this one's. */
static int join_gate(struct dma_gate *g)
{
	const struct gatekeeper_user user = { .map = on_map, .open = on_open, .ctx = g };
	struct gatekeeper *k = g->door->gates;

	g->gate = gatekeeper_add(k, g->name, g->enforced, &user);
	g->own = g->gate >= 0;
	if (g->gate == -EEXIST)
		g->gate = gatekeeper_find(k, g->name);
	return g->gate < 0 ? g->gate : 0;
}

/**
 * door_dma_gate - a gate that its client did not name yet
 *
 * Return: NULL with *error.
 */
struct dma_gate *door_dma_gate(const struct peer *p, const char *name, bool enforced, int *error)
{
	struct dma_gate *g = g_new0(struct dma_gate, 1);

	g->door = p->door;
	g->client = p->client;
	g->enforced = enforced;
	g->early = g_array_new(FALSE, FALSE, sizeof(struct gate_span));
	g->said = g_array_new(FALSE, FALSE, sizeof(struct said));
	g_strlcpy(g->name, name, sizeof(g->name));
	*error = join_gate(g);
	if (*error < 0) {
		gate_free(g);
		return NULL;
	}
	g_ptr_array_add(p->door->dma, g);
	return g;
}

/* Of what is said of a gate, only a range makes one; a device of ours has one anyway. */
static struct dma_gate *find_gate(const struct peer *p, const char *name, int *error)
{
	struct dma_gate *g = known_gate(p, name);
	struct control_gate have;
	int index = g ? 0 : gatekeeper_find(p->door->gates, name);

	*error = index;
	if (g || index < 0)
		return g;
	gatekeeper_report(p->door->gates, index, &have);
	return door_dma_gate(p, name, have.enforced, error);
}

/* --- answers ---------------------------------------------------------------------------------- */

static const struct {
	enum regmsg_type type;
	int error;
	const char *text;
} texts[] = {
	{ REGMSG_DMA_MAP, EEXIST, "some of these device addresses are in use" },
	{ REGMSG_DMA_MAP, ENOSPC, "there are too many gates, or too many ranges in this one" },
	{ REGMSG_DMA_MAP, ENOENT, "the source has no block of this name" },
	{ REGMSG_DMA_UNMAP, EINVAL, "a range would be cut: ranges are unmapped whole" },
	{ REGMSG_DMA_UNMAP, EBUSY, "a range there is being mapped: say first how that ended" },
	{ REGMSG_DMA_MAPPED, ENOENT, "nobody asked for a range at this address to be mapped" },
	{ REGMSG_DMA_RETRY, ENOENT, "no range that begins at this address has failed" },
	{ 0, ENOENT, "there is no gate of this name: one begins with its first range" },
	{ 0, ECANCELED, "the session serves no faults any more" },
};

static const char *text_of(enum regmsg_type type, int error)
{
	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		if (texts[i].error == -error && (!texts[i].type || texts[i].type == type))
			return texts[i].text;
	return g_strerror(-error);
}

/* The request that waits is answered, with what devices may have written; its socket is read on. */
static void answer(struct dma_gate *g, enum regmsg_type type, int error, uint64_t written)
{
	struct peer *p = door_peer_of(g->door, g->client);
	union regmsg m;
	size_t len = regmsg_text(&m, REGMSG_RESULT, p->awaited, -error, "%s",
				 error ? text_of(type, error) : "");

	m.result.written = written;
	door_send(p, &m, len, -1);
	p->awaited = 0;
	door_answer(g->door, g->client, 0, NULL);
}

static void on_map_done(void *ctx, int error, uint64_t written)
{
	struct dma_gate *g = ctx;

	if (!error)
		door_dma_say(g, &g->asked);
	answer(g, REGMSG_DMA_MAP, error, written);
}

/* A successor that still has it counts what was written there once more. */
static void on_unmap_done(void *ctx, int error, uint64_t written)
{
	struct dma_gate *g = ctx;

	answer(g, REGMSG_DMA_UNMAP, error, written);
	if (!error)
		door_dma_unsay(g, &g->asked);
}

static void on_sync_done(void *ctx, int error, uint64_t written)
{
	answer(ctx, REGMSG_DMA_SYNC, error, written);
}

/* What failed before a restart is given out again by that. */
static void on_retry_done(void *ctx, int error, uint64_t written)
{
	struct dma_gate *g = ctx;
	bool again = g->door->adopted && door_dma_said(g, g->asked.iova);

	answer(g, REGMSG_DMA_RETRY, error == -ENOENT && again ? 0 : error, written);
}

/* It was accepted, and must hold: a set with a hole is worse than no migration. */
static void on_kept_done(void *ctx, int error, uint64_t written)
{
	struct message stop = { .kind = MESSAGE_STOP, .stop.error = EINVAL };
	const struct dma_gate *g = ctx;

	(void)written;
	if (!error || error == -ECANCELED)
		return;
	snprintf(stop.stop.reason, sizeof(stop.stop.reason),
		 "what sharer %s declared for gate %s before there was a source cannot be: %s",
		 g->client->name, g->name, text_of(REGMSG_DMA_MAP, error));
	faultloop_post(g->door->loop, &stop);
}

/* Nothing more is read of its socket until then. */
static gatekeeper_done *wait_for(struct peer *p, uint32_t serial, gatekeeper_done *done)
{
	p->awaited = serial;
	door_wait(p->door, p->client);
	return done;
}

static int refuse(struct peer *p, const union regmsg *m, int error, const char *text)
{
	door_result(p, m->head.serial, error, text ? text : error ? text_of(m->head.type, error) : "");
	return 0;
}

/* --- what is kept before faults are served ---------------------------------------------------- */

static bool overlaps(const struct gate_span *a, const struct gate_span *b)
{
	return a->iova <= b->iova + (b->length - 1) && b->iova <= a->iova + (a->length - 1);
}

static bool contains(const struct gate_span *a, const struct gate_span *b)
{
	return a->iova <= b->iova && b->iova + (b->length - 1) <= a->iova + (a->length - 1);
}

static int keep(struct dma_gate *g, const struct gate_span *span)
{
	for (guint i = 0; i < g->early->len; i++)
		if (overlaps(&g_array_index(g->early, struct gate_span, i), span))
			return -EEXIST;
	if (g->early->len == EARLY_MAX)
		return -ENOSPC;
	g_array_append_val(g->early, *span);
	return 0;
}

static int keep_not(struct dma_gate *g, const struct gate_span *span)
{
	for (guint i = 0; i < g->early->len; i++) {
		const struct gate_span *s = &g_array_index(g->early, struct gate_span, i);

		if (overlaps(s, span) && !contains(span, s))
			return -EINVAL;
	}
	for (guint i = g->early->len; i-- > 0;)
		if (overlaps(&g_array_index(g->early, struct gate_span, i), span))
			g_array_remove_index_fast(g->early, i);
	return 0;
}

/* --- verbs ------------------------------------------------------------------------------------ */

static const char *map_problem(const struct client *c, const struct regmsg_dma *m, int *error)
{
	int at = client_find(c, m->name);

	*error = -ENOENT;
	if (at < 0)
		return "this sharer declared no block of this name";
	*error = -EINVAL;
	if (!range_inside(m->block_offset, m->length, c->offer[at].length))
		return "not a range of the block";
	return NULL;
}

static int on_dma_map(struct peer *p, const union regmsg *m)
{
	const struct regmsg_dma *r = &m->dma;
	const struct gate_span span = {
		.iova = r->iova,
		.length = r->length,
		.offset = r->block_offset,
		.class = r->flags & REGMSG_DMA_COHERENT ? GATE_COHERENT : GATE_STREAMING,
		.directions = r->directions,
	};
	bool enforced = r->flags & REGMSG_DMA_ENFORCED;
	struct dma_gate *g = known_gate(p, r->gate);
	int error = 0;
	const char *why = map_problem(p->client, r, &error);

	if (why)
		return refuse(p, m, error, why);
	if (!g)
		g = door_dma_gate(p, r->gate, enforced, &error);
	if (!g)
		return refuse(p, m, error, NULL);
	if (g->own && g->enforced != enforced)
		return refuse(p, m, -EINVAL, "ENFORCED is the same for all ranges of a gate");
	g->told_open = false;
	error = p->door->dma_serving ? 0 : keep(g, &span);
	if (error)
		return refuse(p, m, error, NULL);
	g->asked = span;
	g->asked.block = (unsigned)client_find(p->client, r->name);
	if (!p->door->dma_serving) {
		door_dma_say(g, &g->asked);
		door_result(p, m->head.serial, 0, "");
	}
	gatekeeper_map(p->door->gates, g->gate, r->name, &span,
		       p->door->dma_serving ? wait_for(p, m->head.serial, on_map_done) :
					      on_kept_done,
		       g);
	return 0;
}

static int unmap(struct peer *p, struct dma_gate *g, const union regmsg *m)
{
	const struct gate_span span = { .iova = m->dma_at.iova, .length = m->dma_at.length };
	int error = p->door->dma_serving ? 0 : keep_not(g, &span);

	/* It would go on to reach what nobody counts any more. */
	if (p->door->dma_serving && !g->own)
		return refuse(p, m, -EPERM, "this device is the daemon's, which keeps it mapped");
	if (error)
		return refuse(p, m, error, NULL);
	g->asked = span;
	if (!p->door->dma_serving) {
		door_dma_unsay(g, &span);
		door_result(p, m->head.serial, 0, "");
	}
	gatekeeper_unmap(p->door->gates, g->gate, span.iova, span.length,
			 p->door->dma_serving ? wait_for(p, m->head.serial, on_unmap_done) :
						on_kept_done,
			 g);
	return 0;
}

/* Before faults are served no device has reached anything. */
static int sync_range(struct peer *p, struct dma_gate *g, const union regmsg *m)
{
	if (!p->door->dma_serving)
		return refuse(p, m, 0, NULL);
	gatekeeper_sync(p->door->gates, g->gate, m->dma_at.iova, m->dma_at.length,
			wait_for(p, m->head.serial, on_sync_done), g);
	return 0;
}

static int seal(struct peer *p, struct dma_gate *g, const union regmsg *m)
{
	if (g->torn)
		return refuse(p, m, -ECONNABORTED,
			      "a restart of postcopyd lost this set: stop and reset the device, and declare it anew");
	g->sealed = true;
	gatekeeper_seal(p->door->gates, g->gate);
	return refuse(p, m, 0, NULL);
}

static int reset(struct peer *p, struct dma_gate *g, const union regmsg *m)
{
	if (!g->own)
		return refuse(p, m, -EPERM, "this device is the daemon's, which resets it");
	g->told_open = g->torn = false;
	gatekeeper_reset(p->door->gates, g->gate);
	return refuse(p, m, 0, NULL);
}

static int retry(struct peer *p, struct dma_gate *g, const union regmsg *m)
{
	if (!p->door->dma_serving)
		return refuse(p, m, -ENOENT, NULL);
	g->asked.iova = m->dma_at.iova;
	gatekeeper_retry(p->door->gates, g->gate, m->dma_at.iova,
			 wait_for(p, m->head.serial, on_retry_done), g);
	return 0;
}

/*
 * An earlier process asked for it, and this one has not come to it: when it does it knows.  One
 * that failed it asks for again.
 */
static int mapped_early(struct peer *p, struct dma_gate *g, const union regmsg *m)
{
	if (!m->dma_at.error)
		door_dma_note(g, m->dma_at.iova, SAID_MAPPED);
	return refuse(p, m, 0, NULL);
}

/* Only what it was asked for, so that no number of answers goes further than here. */
static int mapped(struct peer *p, struct dma_gate *g, const union regmsg *m)
{
	unsigned at = 0;

	if (!g->own)
		return refuse(p, m, -EPERM, "this device is the daemon's, which maps for it");
	while (at < g->n_due && !(g->due[at].told && g->due[at].span.iova == m->dma_at.iova))
		at++;
	if (at == g->n_due && p->door->adopted && door_dma_said(g, m->dma_at.iova))
		return mapped_early(p, g, m);
	if (at == g->n_due)
		return refuse(p, m, -ENOENT, NULL);
	g->due[at] = g->due[--g->n_due];
	door_dma_note(g, m->dma_at.iova, m->dma_at.error ? SAID_NOT_MAPPED : SAID_MAPPED);
	if (m->dma_at.error)
		g_message("sharer %s could not map 0x%" PRIx64 " for gate %s: %s", p->client->name,
			  m->dma_at.iova, g->name, g_strerror(m->dma_at.error));
	refuse(p, m, gatekeeper_mapped(p->door->gates, g->gate, m->dma_at.iova, -m->dma_at.error),
	       NULL);
	door_dma_look(p->door, false);
	return 0;
}

typedef int verb(struct peer *p, struct dma_gate *g, const union regmsg *m);

static verb *const verbs[] = {
	[REGMSG_DMA_UNMAP] = unmap,   [REGMSG_DMA_SYNC] = sync_range, [REGMSG_DMA_SEAL] = seal,
	[REGMSG_DMA_MAPPED] = mapped, [REGMSG_DMA_RETRY] = retry,     [REGMSG_DMA_RESET] = reset,
};

/**
 * door_dma - a verb of the main sharer
 *
 * Return: 0, or a negative code when the connection must end.
 */
int door_dma(struct peer *p, const union regmsg *m, struct fdpass *fds)
{
	struct dma_gate *g;
	int error;

	(void)fds;
	if (!p->door->dma)
		return refuse(p, m, -ENOTSUP, "this daemon keeps no gates");
	if (!p->client->main || p->client->unaware)
		return refuse(p, m, -EPERM,
			      "only a main sharer that declares its memory says what devices reach");
	if (m->head.type == REGMSG_DMA_MAP)
		return on_dma_map(p, m);
	g = find_gate(p, m->dma_at.gate, &error);
	if (!g)
		return refuse(p, m, error, text_of(0, error));
	return verbs[m->head.type](p, g, m);
}
