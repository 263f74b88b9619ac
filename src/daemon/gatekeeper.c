/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Between who declares what devices reach, who maps it, and the fault thread, which knows what is
 * there.
 *
 * Down go orders (gates.h), each owned by whoever holds it; they come back with their result, and
 * then whoever asked is told.  What is declared before faults are served is kept in order: only
 * then the blocks have numbers and a gate its size.
 *
 * Up comes state, with the snapshots.  Which ranges are due stands in each one, so a range is
 * handed to its user when it is seen for the first time, and is in hand from then on.  The answer
 * is an order; until a snapshot shows that this order was done (by its number), the range is still
 * seen as due, and nothing is done about it.  Because no more are due than one snapshot holds, no
 * more are in hand.
 *
 * A user may go at any time: it is told nothing more, and what it had in hand failed.
 */
#include "config.h"
#include "daemon/gatekeeper_parts.h"

#include <errno.h>
#include <string.h>

#define RANGES 8192			/* of a gate at a time */

struct request {
	struct gate_order order;	/* first: it is what goes and comes */
	char *block;			/* to be looked up; NULL */
	gatekeeper_done *done;		/* NULL: nobody wants to know, or any more */
	void *ctx;
};

static void request_free(gpointer data)
{
	struct request *r = data;

	free(r->order.memory);
	g_free(r->block);
	g_free(r);
}

/**
 * gatekeeper_new - no gates yet
 * @loop: must outlive all use of it, and be stopped before gatekeeper_free()
 */
struct gatekeeper *gatekeeper_new(struct faultloop *loop)
{
	struct gatekeeper *k = g_new0(struct gatekeeper, 1);

	k->loop = loop;
	k->blocks = g_ptr_array_new_with_free_func(g_free);
	k->out = g_ptr_array_new_with_free_func(request_free);
	g_queue_init(&k->kept);
	g_queue_init(&k->refused);
	return k;
}

/**
 * gatekeeper_free - forget all; NULL is fine
 *
 * After the fault thread has ended: orders that it did not give back are freed here.
 */
void gatekeeper_free(struct gatekeeper *k)
{
	if (!k)
		return;
	g_clear_handle_id(&k->idle, g_source_remove);
	g_queue_clear_full(&k->kept, request_free);
	g_queue_clear_full(&k->refused, request_free);
	g_ptr_array_unref(k->out);
	g_ptr_array_unref(k->blocks);
	g_free(k);
}

/* --- ranges that are due ---------------------------------------------------------------------- */

static struct hand *in_hand(struct kept_gate *g, uint64_t iova)
{
	for (unsigned i = 0; i < g->n_hands; i++)
		if (g->hand[i].iova == iova)
			return &g->hand[i];
	return NULL;
}

/* Those whose answers the snapshot knew of: what it shows of them is after that. */
static void drop_answered(struct gatekeeper *k, struct kept_gate *g)
{
	unsigned n = 0;

	for (unsigned i = 0; i < g->n_hands; i++)
		if (!g->hand[i].answer || g->hand[i].answer > k->seen_serial)
			g->hand[n++] = g->hand[i];
	g->n_hands = n;
}

static void dispatch(struct gatekeeper *k, struct kept_gate *g)
{
	drop_answered(k, g);
	if (g->since > k->seen_serial)
		return;
	for (unsigned i = 0; i < g->seen.n_due && g->user.map; i++) {
		const struct gate_span *span = &g->seen.due[i];

		if (g->n_hands == SNAPSHOT_DUE || in_hand(g, span->iova))
			continue;
		g->hand[g->n_hands++] = (struct hand){ .iova = span->iova };
		g->user.map(g->user.ctx, span);
	}
}

static void tell_open(struct gatekeeper *k, struct kept_gate *g)
{
	bool open = gate_is_open(k, g);

	if (open == g->open_told || !g->user.open)
		return;
	g->open_told = open;
	if (open)
		g->user.open(g->user.ctx);
}

/* --- requests --------------------------------------------------------------------------------- */

static void end(struct request *r, int error, uint64_t written)
{
	if (r->done)
		r->done(r->ctx, error, written);
	request_free(r);
}

/* What ends or begins without a word of the fault thread. */
static gboolean on_idle(gpointer data)
{
	struct gatekeeper *k = data;
	struct request *r;

	k->idle = 0;
	while ((r = g_queue_pop_head(&k->refused)))
		end(r, r->order.error, 0);
	for (unsigned i = 0; i < k->n; i++) {
		dispatch(k, &k->gate[i]);
		tell_open(k, &k->gate[i]);
	}
	return G_SOURCE_REMOVE;
}

static void soon(struct gatekeeper *k)
{
	if (!k->idle)
		k->idle = g_idle_add(on_idle, k);
}

static void refuse(struct gatekeeper *k, struct request *r, int error)
{
	r->order.error = error;
	g_queue_push_tail(&k->refused, r);
	soon(k);
}

static int find_block(const struct gatekeeper *k, struct request *r)
{
	for (guint i = 0; r->block && i < k->blocks->len; i++)
		if (strcmp(g_ptr_array_index(k->blocks, i), r->block) == 0) {
			r->order.span.block = i;
			return 0;
		}
	return r->block ? -ENOENT : 0;
}

static int give_memory(const struct gatekeeper *k, struct request *r)
{
	r->order.memory = calloc(1, sizeof(struct gate) + gate_size(RANGES, k->pages));
	r->order.config = (struct gate_config){
		.ranges = RANGES, .enforced = k->gate[r->order.gate].enforced,
	};
	return r->order.memory ? 0 : -ENOMEM;
}

static void send(struct gatekeeper *k, struct request *r)
{
	struct message m = { .kind = MESSAGE_GATE, .gate = &r->order };
	int ret = r->order.verb == GATES_ADD ? give_memory(k, r) : find_block(k, r);

	if (ret < 0) {
		refuse(k, r, ret);
		return;
	}
	r->order.serial = ++k->serial;
	if (r->order.verb == GATES_MAP || r->order.verb == GATES_CLEAR)
		k->gate[r->order.gate].changed = k->serial;
	if (r->order.verb == GATES_CLEAR)
		k->gate[r->order.gate].since = k->serial;
	g_ptr_array_add(k->out, r);
	faultloop_post(k->loop, &m);
}

/*
 * What is unmapped before anything was given to the fault thread was never mapped: told one after
 * the other, the range might be given out in between.
 */
static bool takes_back(struct gatekeeper *k, const struct request *unmap)
{
	const struct gate_span *gone = &unmap->order.span;

	if (unmap->order.verb != GATES_UNMAP)
		return false;
	for (GList *l = k->kept.head, *next; l; l = next) {
		struct request *r = l->data;

		next = l->next;
		if (r->order.verb != GATES_MAP || r->order.gate != unmap->order.gate ||
		    r->order.span.iova - gone->iova >= gone->length)
			continue;
		g_queue_delete_link(&k->kept, l);
		refuse(k, r, 0);
	}
	return true;
}

static void submit(struct gatekeeper *k, struct request *r)
{
	if (k->stage == EARLY && takes_back(k, r))
		refuse(k, r, 0);
	else if (k->stage == EARLY)
		g_queue_push_tail(&k->kept, r);
	else if (k->stage == OVER)
		refuse(k, r, -ECANCELED);
	else if (r->order.gate >= k->n)
		refuse(k, r, -ENOENT);
	else
		send(k, r);
}

static struct request *request_new(enum gate_verb verb, int gate, gatekeeper_done *done, void *ctx)
{
	struct request *r = g_new0(struct request, 1);

	r->order.verb = verb;
	r->order.gate = (unsigned)gate;
	r->done = done;
	r->ctx = ctx;
	return r;
}

static void submit_plain(struct gatekeeper *k, enum gate_verb verb, int gate)
{
	submit(k, request_new(verb, gate, NULL, NULL));
}

/* --- gates ------------------------------------------------------------------------------------ */

/**
 * gatekeeper_find - the number of a gate, or -ENOENT
 */
int gatekeeper_find(const struct gatekeeper *k, const char *name)
{
	for (unsigned i = 0; i < k->n; i++)
		if (strcmp(k->gate[i].name, name) == 0)
			return (int)i;
	return -ENOENT;
}

/* What snapshots show until this order was done is another's. */
static int take_over(struct gatekeeper *k, int index, bool enforced,
		     const struct gatekeeper_user *user)
{
	struct kept_gate *g = &k->gate[index];

	if (!g->forgotten)
		return -EEXIST;
	if (g->enforced != enforced)
		return -EINVAL;
	submit_plain(k, GATES_CLEAR, index);
	g->user = *user;
	g->forgotten = g->open_told = false;
	return index;
}

/**
 * gatekeeper_add - a gate, closed, with nothing in its set
 * @name: as the device is called, copied
 * @enforced: what is not mapped cannot be reached
 * @user: copied
 *
 * Return: its number, also that of one whose user was forgotten; -EEXIST, -ENOSPC, -EINVAL.
 */
int gatekeeper_add(struct gatekeeper *k, const char *name, bool enforced,
		   const struct gatekeeper_user *user)
{
	int index = gatekeeper_find(k, name);
	struct kept_gate *g;

	if (index >= 0)
		return take_over(k, index, enforced, user);
	if (!*name || strlen(name) >= sizeof(g->name))
		return -EINVAL;
	if (k->n == SNAPSHOT_GATES)
		return -ENOSPC;
	g = &k->gate[k->n];
	*g = (struct kept_gate){ .enforced = enforced, .user = *user, .rate = GATE_NOT_RATED };
	g_strlcpy(g->name, name, sizeof(g->name));
	index = (int)k->n++;
	submit_plain(k, GATES_ADD, index);
	return index;
}

static void forget_request(gpointer data, gpointer ctx)
{
	struct request *r = data;

	if (r->ctx == ctx)
		r->done = NULL;
}

static void forget_user(struct gatekeeper *k, int index)
{
	struct kept_gate *g = &k->gate[index];

	g->user = (struct gatekeeper_user){ 0 };
	g->forgotten = true;
	for (unsigned i = 0; i < g->n_hands; i++)
		if (!g->hand[i].answer)
			gatekeeper_mapped(k, index, g->hand[i].iova, -ECANCELED);
}

/**
 * gatekeeper_forget - who asked with, or uses a gate by, this context goes away
 */
void gatekeeper_forget(struct gatekeeper *k, const void *ctx)
{
	g_queue_foreach(&k->kept, forget_request, (gpointer)ctx);
	g_queue_foreach(&k->refused, forget_request, (gpointer)ctx);
	g_ptr_array_foreach(k->out, forget_request, (gpointer)ctx);
	for (unsigned i = 0; i < k->n; i++)
		if (!k->gate[i].forgotten && k->gate[i].user.ctx == ctx)
			forget_user(k, (int)i);
}

/**
 * gatekeeper_map - devices of a gate shall reach a part of a block
 *
 * See gatekeeper.h for the arguments.
 */
void gatekeeper_map(struct gatekeeper *k, int gate, const char *block, const struct gate_span *span,
		    gatekeeper_done *done, void *ctx)
{
	struct request *r = request_new(GATES_MAP, gate, done, ctx);

	r->order.span = *span;
	r->block = g_strdup(block);
	submit(k, r);
}

/**
 * gatekeeper_unmap - devices of a gate reach these addresses no more
 */
void gatekeeper_unmap(struct gatekeeper *k, int gate, uint64_t iova, uint64_t length,
		      gatekeeper_done *done, void *ctx)
{
	struct request *r = request_new(GATES_UNMAP, gate, done, ctx);

	r->order.span = (struct gate_span){ .iova = iova, .length = length };
	submit(k, r);
}

/**
 * gatekeeper_sync - how much may devices have written there?
 */
void gatekeeper_sync(struct gatekeeper *k, int gate, uint64_t iova, uint64_t length,
		     gatekeeper_done *done, void *ctx)
{
	struct request *r = request_new(GATES_SYNC, gate, done, ctx);

	r->order.span = (struct gate_span){ .iova = iova, .length = length };
	submit(k, r);
}

/**
 * gatekeeper_seal - the set of a gate is whole
 */
void gatekeeper_seal(struct gatekeeper *k, int gate)
{
	submit_plain(k, GATES_SEAL, gate);
}

/**
 * gatekeeper_mapped - how the mapping of a range ended, that its user was told to map
 * @error: 0 or -errno: the gate stays closed then, until it is tried again or unmapped
 *
 * Return: 0; -ENOENT: nobody was told to map that.
 */
int gatekeeper_mapped(struct gatekeeper *k, int gate, uint64_t iova, int error)
{
	struct hand *h = gate >= 0 && (unsigned)gate < k->n ? in_hand(&k->gate[gate], iova) : NULL;
	struct request *r;

	if (!h || h->answer)
		return -ENOENT;
	r = request_new(GATES_MAPPED, gate, NULL, NULL);
	r->order.span.iova = iova;
	r->order.error = error;
	h->answer = k->serial + 1;
	submit(k, r);
	return 0;
}

/**
 * gatekeeper_retry - a range that could not be mapped is to be given out again
 */
void gatekeeper_retry(struct gatekeeper *k, int gate, uint64_t iova, gatekeeper_done *done,
		      void *ctx)
{
	struct request *r = request_new(GATES_RETRY, gate, done, ctx);

	r->order.span.iova = iova;
	submit(k, r);
}

/**
 * gatekeeper_ran - a device of a gate was given a state in which it reaches memory
 */
void gatekeeper_ran(struct gatekeeper *k, int gate)
{
	submit_plain(k, GATES_RAN, gate);
}

/**
 * gatekeeper_reset - no device of a gate does anything any more
 */
void gatekeeper_reset(struct gatekeeper *k, int gate)
{
	submit_plain(k, GATES_RESET, gate);
}

/**
 * gatekeeper_open - may the devices of a gate run?
 */
bool gatekeeper_open(const struct gatekeeper *k, int gate)
{
	return gate >= 0 && (unsigned)gate < k->n && gate_is_open(k, &k->gate[gate]);
}

/* --- what the fault thread says --------------------------------------------------------------- */

/* Faults are served: the blocks are final, and what was declared until now is ordered. */
static void begin(struct gatekeeper *k, const struct snapshot *s)
{
	struct request *r;

	k->stage = SERVED;
	for (unsigned i = 0; i < s->n_blocks; i++) {
		g_ptr_array_add(k->blocks, g_strdup(s->block[i].name));
		k->pages += s->block[i].pages;
	}
	while ((r = g_queue_pop_head(&k->kept)))
		submit(k, r);
}

/* It ends without ever serving. */
static void give_up(struct gatekeeper *k)
{
	struct request *r;

	k->stage = OVER;
	while ((r = g_queue_pop_head(&k->kept)))
		submit(k, r);
}

/**
 * gatekeeper_look - what became of the gates, as a snapshot shows it
 *
 * What is due is given to be mapped, and who may run is told so.
 */
void gatekeeper_look(struct gatekeeper *k, const struct snapshot *s)
{
	k->halted = s->state == SESSION_FAILED || s->state == SESSION_PAUSED;
	if (k->stage == EARLY && s->listening_ns)
		begin(k, s);
	else if (k->stage == EARLY && k->halted)
		give_up(k);
	k->seen_serial = s->gate_serial;
	for (unsigned i = 0; i < k->n; i++) {
		k->gate[i].seen = s->gate[i];
		gatekeeper_rate(&k->gate[i], s->now_ns);
		dispatch(k, &k->gate[i]);
		tell_open(k, &k->gate[i]);
	}
}

/**
 * gatekeeper_collect - take the orders that came back, and tell who asked
 */
void gatekeeper_collect(struct gatekeeper *k)
{
	struct gate_order *o = gates_collect(k->loop), *next;

	for (; o; o = next) {
		struct request *r = (struct request *)o;
		guint at;

		next = o->next;
		if (g_ptr_array_find(k->out, r, &at))
			end(g_ptr_array_steal_index_fast(k->out, at), o->error, o->written);
	}
}
