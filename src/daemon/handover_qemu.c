/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Theory of operation
 *
 * QEMU is started with a preload that lends us its userfaultfd, and with -incoming defer.  It knows
 * of us no more than that somebody talks to its monitor and then migrates a VM to it: a small
 * stream that looks finished as precopy, with every block in its list, the pages of a few, and the
 * device state.  Its faults on all the rest come to us as anybody's would.  So at the door it is a
 * main sharer like others, and this file says for it what it cannot say itself: which blocks it has
 * and where, that it is ready, that it has loaded.
 *
 * handover_step() looks at the last snapshot and at what the monitor said since, does what is due
 * in the phase it is in, and goes on to the next as far as it can; so, as in phases.c, nothing
 * depends on having seen every state, and a step too many is harmless.
 *
 * Two rules come from faults being served by the same process that drives the monitor.  QEMU's main
 * thread sleeps when it touches a page that is missing, while it loads too, and answers nothing
 * until the page is there: from LISTENING on no answer has a deadline, and no page may ever depend
 * on one.  Hence the fault thread never hears of any of this.  And the VM may run only when the
 * source has our answer (running_told), for until then the source may run it.
 *
 * A QEMU that ends before it had loaded has run nothing.  Everything it needs is still here (the
 * package, the held blocks, the file of its memory, the source's connection), so another can take
 * its place: handover_fail.c says when.  What the first one may have written into its memory while
 * it loaded (rings that its devices look into) stays as it is.
 */
#include "config.h"
#include "daemon/handover_parts.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/guard.h"
#include "sys/clock.h"
#include "sys/fd.h"

#define WANT_AGAIN_NS 100000000ull
#define REOPEN_NS     50000000ull	/* a monitor that closes is not tried at once */

/* A row for each phase: its name, and how often to look again without being told (ms; 0: never). */
static const struct {
	const char *name;
	unsigned tick_ms;
} states[HANDOVER_STATES] = {
	[HANDOVER_WAIT_QMP] = { "wait-qmp", 100 },
	[HANDOVER_WAIT_PRELOAD] = { "wait-preload", 20 },
	[HANDOVER_INMIGRATE] = { "inmigrate", 100 },
	[HANDOVER_DECLARED] = { "declared", 0 },
	[HANDOVER_PRIVATE] = { "private", 50 },
	[HANDOVER_STREAMING] = { "streaming", 0 },
	[HANDOVER_LOADING] = { "loading", 20 },
	[HANDOVER_LOADED] = { "loaded", 0 },
	[HANDOVER_CONT] = { "cont", 20 },
	[HANDOVER_RUNNING] = { "running", 0 },
	[HANDOVER_COMPLETE] = { "complete", 0 },
	[HANDOVER_FAILED] = { "failed", 0 },
	[HANDOVER_RETRY] = { "retry", 100 },
};

/**
 * handover_state_name - the word for a phase on the control socket; static
 */
const char *handover_state_name(enum handover_state state)
{
	return states[state].name;
}

/* --- phases ----------------------------------------------------------------------------------- */

static gboolean on_tick(gpointer data)
{
	struct handover *h = data;

	h->again = true;
	h->ops.refresh(h->ops.ctx);
	handover_step(h);
	return G_SOURCE_CONTINUE;
}

/**
 * handover_enter - go on to a phase: noted with its time, and told
 */
void handover_enter(struct handover *h, enum handover_state state)
{
	char waits[1024], event[32];

	g_clear_handle_id(&h->timer, g_source_remove);
	/* A monitor takes one client at a time: others may have it now. */
	if (state == HANDOVER_COMPLETE || state == HANDOVER_FAILED) {
		qmp_free(steal_ptr(&h->qmp));
		ram_query_free(steal_ptr(&h->query));
		ram_query_free(steal_ptr(&h->known));
	}
	h->state = state;
	h->since_ns = clock_ns();
	h->asked = h->again = false;
	/* A QEMU that is restarted again and again: the newest are kept. */
	if (h->n_moments == HANDOVER_TIMELINE)
		memmove(h->moment, h->moment + 1, --h->n_moments * sizeof(h->moment[0]));
	h->moment[h->n_moments++] = (struct handover_moment){ state, h->since_ns };
	if (states[state].tick_ms)
		h->timer = g_timeout_add(states[state].tick_ms, on_tick, h);
	handover_waits(h, waits, sizeof(waits));
	if (state == HANDOVER_FAILED)
		g_warning("hand-over failed: %s; %s", h->reason, h->advice);
	else
		g_info("hand-over %s: %s", states[state].name, waits);
	snprintf(event, sizeof(event), "handover-%s", states[state].name);
	h->ops.event(h->ops.ctx, event, waits);
}

/**
 * handover_client - the QEMU at hand as the door knows it; NULL when it knows it no more
 *
 * Never kept: it may be gone after any turn of the main loop.
 */
struct client *handover_client(const struct handover *h)
{
	GPtrArray *clients = door_clients(h->door);

	for (unsigned i = 0; h->client && i < clients->len; i++) {
		struct client *c = g_ptr_array_index(clients, i);

		if (c->id == h->client)
			return c;
	}
	return NULL;
}

/**
 * handover_drop_qemu - forget everything of the QEMU at hand
 *
 * The monitor's client first: its answers come to the others.
 */
void handover_drop_qemu(struct handover *h)
{
	qmp_free(steal_ptr(&h->qmp));
	ram_query_free(steal_ptr(&h->query));
	ram_query_free(steal_ptr(&h->known));
	handover_stream_free(steal_ptr(&h->stream));
	h->frozen = FROZEN_NOT;
	h->pid = h->stranger = 0;
	h->client = h->looked_at = 0;
	h->preparation = 0;
	h->prepared = h->foreseen = h->sent = h->closed = h->stopped = false;
	h->version[0] = h->status[0] = '\0';
}

/* --- the monitor ------------------------------------------------------------------------------ */

static void on_ready(void *ctx)
{
	handover_step(ctx);
}

/* The end of loading is told; what QEMU made of it is asked for. */
static void on_event(void *ctx, const struct qmp_event *e)
{
	struct handover *h = ctx;

	if (e->kind != QMP_EVENT_MIGRATION || h->state != HANDOVER_LOADING)
		return;
	h->again = true;
	handover_step(h);
}

/*
 * Most often QEMU has ended, which its pidfd tells, too; one that is ending may still take a
 * connection, and closes it.  One that lives on is asked for another connection, and what was asked
 * on the old one is asked again.  So the end of a connection never ends more than that: who waits
 * for QEMU is told what its monitor last said, and gives up when it likes.
 */
static void on_closed(void *ctx, const char *why)
{
	struct handover *h = ctx;

	g_info("the monitor of QEMU: %s", why);
	g_strlcpy(h->monitor_said, why, sizeof(h->monitor_said));
	qmp_free(steal_ptr(&h->qmp));
	h->reopen_ns = clock_ns() + REOPEN_NS;
	h->asked = false;
	ram_query_free(steal_ptr(&h->query));
	ram_query_free(steal_ptr(&h->known));
	if (h->state == HANDOVER_INMIGRATE && !h->prepared)
		h->preparation = 0;
	h->ops.refresh(h->ops.ctx);
}

/**
 * handover_asks - can QEMU be asked something now?  Its monitor is opened where it is not
 */
bool handover_asks(struct handover *h)
{
	static const struct qmp_ops ops = { on_ready, on_event, on_closed };

	if (!h->qmp && clock_ns() < h->reopen_ns)
		return false;
	if (!h->qmp)
		h->qmp = qmp_new(h->options->qemu.monitor, &ops, h);
	return qmp_is_ready(h->qmp);
}

/* --- WAIT-QMP, WAIT-PRELOAD, RETRY ------------------------------------------------------------ */

static void at_wait_qmp(struct handover *h, const struct snapshot *s)
{
	(void)s;
	if (!handover_asks(h))
		return;
	g_strlcpy(h->version, qmp_version(h->qmp), sizeof(h->version));
	h->monitor_said[0] = '\0';
	handover_enter(h, HANDOVER_WAIT_PRELOAD);
}

/* Who answers at the monitor and who lent its userfaultfd must be the same process. */
static void at_wait_preload(struct handover *h, const struct snapshot *s)
{
	const struct client *c = door_unaware_main(h->door);
	pid_t pid = h->qmp ? qmp_peer_pid(h->qmp) : 0;

	(void)s;
	h->stranger = c && c->pid != pid ? c->pid : 0;
	if (!h->qmp) {
		handover_enter(h, h->retrying ? HANDOVER_RETRY : HANDOVER_WAIT_QMP);
	} else if (c && c->pid == pid) {
		h->pid = pid;
		h->client = c->id;
		handover_enter(h, HANDOVER_INMIGRATE);
	}
}

/* --- DECLARED, PRIVATE: what has to be in the stream ------------------------------------------ */

/* Of blocks that we hold: the pages that are not here, and whether any of them was asked for. */
static uint64_t held_missing(const struct snapshot *s, bool *asked)
{
	uint64_t missing = 0;

	*asked = false;
	for (unsigned i = 0; i < s->n_blocks; i++)
		if (s->block[i].kind == BLOCK_HELD) {
			missing += s->block[i].missing;
			*asked |= s->block[i].requested > 0;
		}
	return missing;
}

/* Ahead of everything that nobody sleeps for: the VM cannot go on before they are here. */
static void want_held(struct handover *h, const struct snapshot *s, enum request_class class)
{
	h->wanted_ns = clock_ns();
	for (unsigned i = 0; i < s->n_blocks; i++) {
		struct message want = { .kind = MESSAGE_WANT };

		if (s->block[i].kind != BLOCK_HELD || !s->block[i].missing)
			continue;
		want.want.block = i;
		want.want.length = s->block[i].length;
		want.want.class = class;
		faultloop_post(h->loop, &want);
	}
}

static void at_declared(struct handover *h, const struct snapshot *s)
{
	const struct client *c = handover_client(h);

	if (c && c->state == CLIENT_REFUSED) {
		handover_fail(h, EACCES, "the daemon must be able to look into QEMU",
			      "QEMU (process %d) cannot be served: %s", (int)h->pid, c->problem);
		return;
	}
	/*
	 * While everybody is proven: what nothing has to be proven for is on its way then, and not
	 * behind all that the source sends.
	 */
	if (s->need == NEED_ARM && !h->wanted_ns)
		want_held(h, s, CLASS_PREFETCH);
	if (s->state != SESSION_LOADING || !c || c->state != CLIENT_JOINED)
		return;
	h->retrying = false;
	h->retry_until_ns = 0;
	want_held(h, s, CLASS_DMA);
	handover_enter(h, HANDOVER_PRIVATE);
}

static void start_stream(struct handover *h, const struct snapshot *s);

static void at_private(struct handover *h, const struct snapshot *s)
{
	bool asked;

	if (s->state != SESSION_LOADING)
		return;
	if (held_missing(s, &asked) == 0)
		start_stream(h, s);
	/* A wish that found no room was dropped. */
	else if (!asked && clock_ns() - h->wanted_ns > WANT_AGAIN_NS)
		want_held(h, s, CLASS_DMA);
}

/* --- STREAMING, LOADING ----------------------------------------------------------------------- */

static void on_sent(void *ctx)
{
	struct handover *h = ctx;

	h->sent = true;
	h->stream_bytes = handover_stream_bytes(h->stream);
	handover_step(h);
}

/* Behind its end QEMU may close when it likes; before it, it has given up. */
static void on_stream_closed(void *ctx, const char *why)
{
	struct handover *h = ctx;
	const struct snapshot *s = h->ops.snapshot(h->ops.ctx);

	h->closed = h->again = true;
	if (why)
		handover_lost(h, s, why);
	else
		handover_step(h);
}

static void start_stream(struct handover *h, const struct snapshot *s)
{
	const struct handover_stream_ops ops = { on_sent, on_stream_closed, h };
	const struct handover_target to = { h->options->qemu.incoming, h->pid };
	const uint8_t *device;
	char why[512];
	size_t len;

	h->stream = handover_stream_new(&to, s, &ops, why);
	if (!h->stream) {
		handover_lost(h, s, why);
		return;
	}
	device = handover_stream_device(h->stream, &len);
	qglobalstate_find(device, len, &h->run);
	handover_enter(h, HANDOVER_STREAMING);
}

static void at_streaming(struct handover *h, const struct snapshot *s)
{
	(void)s;
	if (h->sent)
		handover_enter(h, HANDOVER_LOADING);
}

/* Asked only when it has closed the stream and still waits for one. */
static void on_migrate(void *ctx, const struct qmp_answer *a)
{
	struct handover *h = ctx;
	g_autofree char *how = NULL;

	h->asked = false;
	if (h->state != HANDOVER_LOADING || a->outcome != QMP_OK || strcmp(qmp_status(a), "failed"))
		return;
	how = g_strdup_printf("it could not load the stream: %s",
			      jsonmsg_text(a->value, "error-desc", "see its own messages"));
	handover_lost(h, h->ops.snapshot(h->ops.ctx), how);
	handover_step(h);
}

static void on_status(void *ctx, const struct qmp_answer *a)
{
	struct handover *h = ctx;
	struct qmp_call call = { on_migrate, h, 0 };

	h->asked = false;
	if (h->state != HANDOVER_LOADING || a->outcome != QMP_OK)
		return;
	g_strlcpy(h->status, qmp_status(a), sizeof(h->status));
	if (!strcmp(h->status, "inmigrate")) {
		h->asked = h->closed;
		if (h->closed)
			qmp_query_migrate(h->qmp, call);
		return;
	}
	if (!strcmp(h->status, "running"))
		g_warning(
			"QEMU (process %d) runs the VM before it was told to: somebody else said cont",
			(int)h->pid);
	handover_enter(h, HANDOVER_LOADED);
	handover_step(h);
}

/* No answer has a deadline here: its main thread sleeps as long as the source is silent. */
static void at_loading(struct handover *h, const struct snapshot *s)
{
	struct qmp_call call = { on_status, h, 0 };

	(void)s;
	if (!handover_asks(h) || h->asked || !h->again)
		return;
	h->again = false;
	h->asked = true;
	h->asked_ns = clock_ns();
	qmp_query_status(h->qmp, call);
}

/* --- LOADED, CONT, RUNNING -------------------------------------------------------------------- */

/* Said once; the session may have ended meanwhile, then it is not heard. */
static void at_loaded(struct handover *h, const struct snapshot *s)
{
	struct client *c = handover_client(h);

	if (!h->asked && c && door_loaded(h->door, c) == 0)
		h->asked = true;
	if (!s->running_told || !h->asked)
		return;
	handover_stream_free(steal_ptr(&h->stream));
	handover_enter(h, HANDOVER_CONT);
}

static bool may_continue(struct handover *h)
{
	enum options_cont cont = h->options->qemu.cont;

	h->left[0] = '\0';
	if (cont == OPTIONS_CONT_NO)
		g_strlcpy(h->left, "cont=no: somebody else says cont", sizeof(h->left));
	else if (cont == OPTIONS_CONT_AUTO && h->run.run == QGLOBALSTATE_STOPPED)
		snprintf(h->left, sizeof(h->left), "it was %s at the source", h->run.text);
	else if (cont == OPTIONS_CONT_AUTO && h->run.run == QGLOBALSTATE_UNKNOWN)
		snprintf(
			h->left, sizeof(h->left),
			"the source did not tell whether it ran (%.60s): say cont at its monitor if it did",
			h->run.reason ? h->run.reason : "no globalstate");
	return !h->left[0];
}

static void on_cont(void *ctx, const struct qmp_answer *a)
{
	struct handover *h = ctx;

	if (h->state != HANDOVER_CONT || a->outcome == QMP_CLOSED)
		return;
	if (a->outcome == QMP_OK)
		g_strlcpy(h->status, "running", sizeof(h->status));
	else
		snprintf(h->left, sizeof(h->left), "QEMU refused: %.120s", a->text);
	handover_enter(h, HANDOVER_RUNNING);
	handover_step(h);
}

static void at_cont(struct handover *h, const struct snapshot *s)
{
	struct qmp_call call = { on_cont, h, 0 };

	(void)s;
	if (!may_continue(h)) {
		g_message("the VM is left as it is: %s", h->left);
		handover_enter(h, HANDOVER_RUNNING);
	} else if (!h->asked && handover_asks(h)) {
		h->asked = true;
		qmp_cont(h->qmp, call);
	}
}

static void at_running(struct handover *h, const struct snapshot *s)
{
	bool frozen = h->frozen >= FROZEN_ASKING && h->frozen <= FROZEN_GOING_ON;

	if (s->state == SESSION_COMPLETE && !frozen)
		handover_enter(h, HANDOVER_COMPLETE);
}

/* --- step ------------------------------------------------------------------------------------- */

/* Of a QEMU that is at the door: is it still? */
static bool qemu_is_gone(const struct handover *h)
{
	const struct client *c = handover_client(h);

	return h->client && (!c || c->state == CLIENT_ENDED);
}

/* The session was refused, or nobody came in time: true when the attempt is over. */
static bool is_hopeless(struct handover *h, const struct snapshot *s)
{
	if (s->state == SESSION_FAILED) {
		h->stopped = true;
		handover_fail(h, ECANCELED, "the source keeps its VM; end this QEMU",
			      "the migration was refused: %.440s", s->reason);
		return true;
	}
	if (h->retry_until_ns && clock_ns() > h->retry_until_ns) {
		h->retry_until_ns = 0;
		handover_fail(
			h, ETIMEDOUT,
			"the source goes on running its VM; migrate again when the cause is removed",
			"no other QEMU came within %u s (retry= of --qemu)",
			h->options->qemu.retry_s);
		return true;
	}
	return false;
}

/* What is due in the phase it is in; on to the next as far as that goes. */
static void run_phases(struct handover *h, const struct snapshot *s)
{
	static void (*const phases[HANDOVER_STATES])(struct handover *, const struct snapshot *) = {
		[HANDOVER_WAIT_QMP] = at_wait_qmp,
		[HANDOVER_WAIT_PRELOAD] = at_wait_preload,
		[HANDOVER_INMIGRATE] = handover_at_inmigrate,
		[HANDOVER_DECLARED] = at_declared,
		[HANDOVER_PRIVATE] = at_private,
		[HANDOVER_STREAMING] = at_streaming,
		[HANDOVER_LOADING] = at_loading,
		[HANDOVER_LOADED] = at_loaded,
		[HANDOVER_CONT] = at_cont,
		[HANDOVER_RUNNING] = at_running,
		[HANDOVER_FAILED] = handover_at_failed,
		[HANDOVER_RETRY] = at_wait_qmp,
	};
	enum handover_state before;

	do {
		before = h->state;
		if (phases[before])
			phases[before](h, s);
	} while (h->state != before);
}

/**
 * handover_step - do what is due
 *
 * Whenever there is a new snapshot, and whenever QEMU said something.
 */
void handover_step(struct handover *h)
{
	const struct snapshot *s = h->ops.snapshot(h->ops.ctx);

	if (!s)
		return;
	if (h->state < HANDOVER_COMPLETE || h->state == HANDOVER_RETRY) {
		if (qemu_is_gone(h))
			handover_lost(
				h, s,
				"its process ended, or the preload in it closed its connection");
		if (h->state != HANDOVER_FAILED && is_hopeless(h, s))
			return;
	}
	run_phases(h, s);
}

/**
 * handover_over - nothing more will be done
 */
bool handover_over(const struct handover *h)
{
	return h->state == HANDOVER_COMPLETE || h->state == HANDOVER_FAILED;
}

/* --- life ------------------------------------------------------------------------------------- */

/**
 * handover_new - begin to look for QEMU
 * @o, @door, @loop: must outlive it; o->qemu.monitor is set
 * @ops: copied
 */
struct handover *handover_new(const struct options *o, struct door *door, struct faultloop *loop,
			      const struct handover_ops *ops)
{
	struct handover *h = g_new0(struct handover, 1);

	h->options = o;
	h->door = door;
	h->loop = loop;
	h->ops = *ops;
	h->attempt = 1;
	h->prover = prover_new(o->prove_timeout_s, h);
	handover_enter(h, HANDOVER_WAIT_QMP);
	return h;
}

/**
 * handover_free - let go of QEMU, whatever it does; NULL is fine
 */
void handover_free(struct handover *h)
{
	if (!h)
		return;
	g_clear_handle_id(&h->timer, g_source_remove);
	handover_drop_qemu(h);
	prover_free(h->prover);
	handover_blocks_clear(&h->blocks);
	g_free(h);
}
