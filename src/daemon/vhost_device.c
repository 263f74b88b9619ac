/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * It listens where the VMM expects its back-end.  When a VMM comes the back-end is connected to, as
 * often as it takes: until then nothing of the VMM is read, and it waits as for a back-end that is
 * slow to accept.  There is one VMM at a time; another waits in the backlog.
 *
 * A back-end that is put into quarantine is connected to anew, with more patience each time, and
 * told what it has to know (vhost_relay_join).  When that is not possible the VMM's connection
 * ends, too, so that the VMM can do what it does about a back-end that is gone: many connect again.
 */
#include "config.h"
#include "daemon/vhost_device.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <glib-unix.h>

#include "core/guard.h"
#include "daemon/listen.h"
#include "daemon/vhost_backend.h"
#include "daemon/vhost_relay.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "wire/regmsg.h"

#define RETRY_MS     200	/* for a back-end that is not there */
#define RETRY_MAX_MS 5000	/* for one that was put into quarantine again and again */
#define TRIES	     8		/* so often, for one VMM */
#define NS	     UINT64_C(1000000000)

struct vhost_device {
	struct options_vhost *o;
	const struct vhost_device_ops *ops;
	int listen_fd, front;		/* front: of a VMM that waits for the back-end; -1 */
	guint accept, front_gone, retry, reap;
	unsigned retry_ms, tries;
	struct vhost_backend *backend;
	struct vhost_relay *relay;	/* NULL: no VMM, or no back-end yet */
	bool over;			/* the relay is, and will be freed */
	uint64_t since;			/* of the state or problem */
	uint64_t connections, quarantines, joins;
	char problem[256];		/* the last one; "" */
	/* repair: the VMM is in its own postcopy, on a connection before */
	bool begun;
	bool logged;			/* that the back-end is not there */
};

static void note(struct vhost_device *d, const char *problem)
{
	g_strlcpy(d->problem, problem, sizeof(d->problem));
	d->since = clock_ns();
}

static bool is_serving(const struct vhost_device *d)
{
	const struct snapshot *s = d->ops->snapshot(d->ops->ctx);

	return s && s->listening_ns && s->state <= SESSION_COMPLETE;
}

/* Whether a VMM's own postcopy is over is not ours to say. */
static bool is_resident(const struct vhost_device *d)
{
	const struct snapshot *s = d->ops->snapshot(d->ops->ctx);

	return !d->o->repair && s && s->state == SESSION_COMPLETE && s->running_told;
}

/* --- what the relay asks of us ---------------------------------------------------------------- */

static const char *on_advised(void *ctx, int uffd)
{
	return vhost_backend_advised(((struct vhost_device *)ctx)->backend, uffd);
}

static bool on_may_tell(void *ctx)
{
	return vhost_backend_may_tell(((struct vhost_device *)ctx)->backend);
}

static void on_settled(void *ctx)
{
	vhost_backend_settled(((struct vhost_device *)ctx)->backend);
}

static void on_prove(void *ctx, const struct vhost_region *told, unsigned n)
{
	vhost_backend_prove(((struct vhost_device *)ctx)->backend, told, n);
}

static void on_find(void *ctx, const struct vhost_region *told, unsigned n)
{
	vhost_backend_find(((struct vhost_device *)ctx)->backend, told, n);
}

static const struct snapshot_sharer *find_sharer(const struct vhost_device *d)
{
	const struct snapshot *s = d->ops->snapshot(d->ops->ctx);
	uint32_t id = vhost_backend_sharer(d->backend);

	for (unsigned i = 0; id && s && i < s->n_sharers; i++)
		if (s->sharer[i].id == id)
			return &s->sharer[i];
	return NULL;
}

/* As the last snapshot shows it: there is one each time somebody asks, and at each change. */
static bool on_waits(void *ctx)
{
	const struct snapshot_sharer *s = find_sharer(ctx);

	return s && s->state == SHARER_ACTIVE && s->waiting;
}

static gboolean on_retry(gpointer data);

static void on_quarantined(void *ctx)
{
	struct vhost_device *d = ctx;

	note(d, vhost_relay_state(d->relay)->reason);
	g_warning("vhost-user %s: put into quarantine: %s", d->o->name, d->problem);
	d->quarantines++;
	vhost_backend_hung_up(d->backend, d->problem);
	if (++d->tries > TRIES) {
		vhost_relay_hang_up(d->relay, d->problem);
		return;
	}
	if (!d->retry)
		d->retry = g_timeout_add(d->retry_ms, on_retry, d);
	d->retry_ms = MIN(2 * d->retry_ms, RETRY_MAX_MS);
}

static void on_nothing(void *ctx)
{
	(void)ctx; /* what is registered is undone when the session is complete: door_release() */
}

static gboolean on_connection(gint fd, GIOCondition condition, gpointer data);

static gboolean on_reap(gpointer data)
{
	struct vhost_device *d = data;

	const struct vhostfront *v = vhost_relay_state(d->relay);

	d->reap = 0;
	d->begun = v->listening || v->begun;
	vhost_relay_free(g_steal_pointer(&d->relay));
	vhost_backend_hung_up(d->backend, NULL);
	d->over = false;
	d->accept = g_unix_fd_add(d->listen_fd, G_IO_IN, on_connection, d);
	d->ops->changed(d->ops->ctx);
	return G_SOURCE_REMOVE;
}

static void on_over(void *ctx, const char *why)
{
	struct vhost_device *d = ctx;

	g_message("vhost-user %s: both connections are closed: %s", d->o->name, why);
	if (vhost_relay_state(d->relay)->reason == NULL)
		note(d, why);
	g_clear_handle_id(&d->retry, g_source_remove);
	d->over = true;
	d->reap = g_idle_add_full(G_PRIORITY_DEFAULT, on_reap, d, NULL);
}

static const struct vhost_relay_ops relay_ops = {
	.advised = on_advised,
	.may_tell = on_may_tell,
	.settled = on_settled,
	.prove = on_prove,
	.find = on_find,
	.waits = on_waits,
	.quarantined = on_quarantined,
	.drop = on_nothing,
	.drop_orphans = on_nothing,
	.over = on_over,
};

/* --- connections ------------------------------------------------------------------------------ */

static void begin(struct vhost_device *d, int back)
{
	const struct vhostfront_config config = {
		.dialect = d->o->dialect,
		.may_gate = d->o->may_gate,
		.repair = d->o->repair,
		.begun = d->begun,
		.early = !d->o->repair && !is_serving(d),
		.protocol = VHOSTMSG_PROTOCOL_KNOWN,
		.answer_limit = d->o->answer_s * NS,
		/*
		 * The prover's own deadline comes first, and has more to say; it asks up to three
		 * times.
		 */
		.proof_limit = (4 * d->ops->prove_s + 1) * NS,
	};

	g_clear_handle_id(&d->front_gone, g_source_remove);
	d->relay = vhost_relay_new(steal_fd(&d->front), back, &config, &relay_ops, d);
	if (is_resident(d))
		vhost_relay_resident(d->relay);
}

static void join(struct vhost_device *d, int back)
{
	const char *why = NULL;

	if (vhost_relay_join(d->relay, back, &why) < 0) {
		vhost_relay_hang_up(d->relay, why);
		return;
	}
	d->joins++;
	d->since = clock_ns();
	g_message("vhost-user %s: the back-end is back, process %d", d->o->name,
		  (int)vhost_backend_pid(d->backend));
}

/* The back-end, for a VMM that waits for it, or for one that had another. */
static void try_connect(struct vhost_device *d)
{
	int back = vhost_backend_connect(d->backend);

	if (back < 0) {
		g_autofree char *text = g_strdup_printf("no back-end at %s: %s", d->o->back,
							g_strerror(-back));

		if (!d->logged)
			g_message("vhost-user %s: waits for %s", d->o->name, text);
		if (!d->logged && !d->relay)
			note(d, text);
		d->logged = true;
		d->retry = g_timeout_add(RETRY_MS, on_retry, d);
		return;
	}
	d->logged = false;
	if (d->relay)
		join(d, back);
	else
		begin(d, back);
	if (!d->relay || !vhost_relay_state(d->relay)->reason)
		note(d, "");
}

static gboolean on_retry(gpointer data)
{
	struct vhost_device *d = data;

	d->retry = 0;
	if (!d->over)
		try_connect(d);
	return G_SOURCE_REMOVE;
}

/* The VMM goes away before its back-end comes. */
static gboolean on_front_gone(gint fd, GIOCondition condition, gpointer data)
{
	struct vhost_device *d = data;

	(void)fd;
	(void)condition;
	d->front_gone = 0;
	close_fd(&d->front);
	g_clear_handle_id(&d->retry, g_source_remove);
	note(d, "the VMM hung up before the back-end was there");
	d->accept = g_unix_fd_add(d->listen_fd, G_IO_IN, on_connection, d);
	return G_SOURCE_REMOVE;
}

static gboolean on_connection(gint fd, GIOCondition condition, gpointer data)
{
	struct vhost_device *d = data;

	(void)condition;
	d->front = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (d->front < 0)
		return G_SOURCE_CONTINUE;
	d->accept = 0;
	d->connections++;
	d->retry_ms = RETRY_MS;
	d->tries = 0;
	d->logged = false;
	d->front_gone = g_unix_fd_add(d->front, G_IO_HUP, on_front_gone, d);
	try_connect(d);
	return G_SOURCE_REMOVE;
}

/* --- life ------------------------------------------------------------------------------------- */

static void on_proved(void *ctx, const char *wrong)
{
	struct vhost_device *d = ctx;

	if (wrong)
		note(d, wrong);
	if (d->relay)
		vhost_relay_proved(d->relay, wrong ? d->problem : NULL);
}

static void on_found(void *ctx, const char *wrong, const uint64_t *address)
{
	struct vhost_device *d = ctx;

	if (wrong)
		note(d, wrong);
	if (d->relay)
		vhost_relay_found(d->relay, wrong ? d->problem : NULL, address);
}

static void on_ended(void *ctx, const char *why)
{
	struct vhost_device *d = ctx;

	note(d, why);
	if (d->relay)
		vhost_relay_lost(d->relay, d->problem);
}

/**
 * vhost_device_new - listen for its VMM
 * @o: owned from here on, in any case
 * @ops: must outlive it
 */
struct vhost_device *vhost_device_new(struct options_vhost *o, const struct vhost_device_ops *ops,
				      GError **error)
{
	static const struct vhost_backend_ops backend_ops = { on_proved, on_found, on_ended };
	struct vhost_device *d;
	int fd = listen_unix(o->front, SOCK_STREAM, o->group, error);

	if (fd < 0) {
		options_free_vhost(o);
		return NULL;
	}
	d = g_new0(struct vhost_device, 1);
	d->o = o;
	d->ops = ops;
	d->listen_fd = fd;
	d->front = -1;
	d->retry_ms = RETRY_MS;
	d->since = clock_ns();
	d->backend = vhost_backend_new(o, ops->door, ops->prove_s, &backend_ops, d);
	d->accept = g_unix_fd_add(fd, G_IO_IN, on_connection, d);
	return d;
}

/**
 * vhost_device_free - close both connections, and listen no more; NULL is fine
 */
void vhost_device_free(struct vhost_device *d)
{
	if (!d)
		return;
	g_clear_handle_id(&d->accept, g_source_remove);
	g_clear_handle_id(&d->front_gone, g_source_remove);
	g_clear_handle_id(&d->retry, g_source_remove);
	g_clear_handle_id(&d->reap, g_source_remove);
	vhost_relay_free(d->relay);
	vhost_backend_free(d->backend);
	close_fd(&d->front);
	close_fd(&d->listen_fd);
	unlink(d->o->front);
	options_free_vhost(d->o);
	g_free(d);
}

const struct options_vhost *vhost_device_options(const struct vhost_device *d)
{
	return d->o;
}

/**
 * vhost_device_see - does the last snapshot change anything?
 */
void vhost_device_see(struct vhost_device *d)
{
	if (!d->relay)
		return;
	if (is_serving(d))
		vhost_relay_serving(d->relay);
	if (is_resident(d))
		vhost_relay_resident(d->relay);
	vhost_relay_go_on(d->relay);
}

/**
 * vhost_device_used - is a VMM connected?
 */
bool vhost_device_used(const struct vhost_device *d)
{
	return d->front >= 0 || (d->relay && !d->over);
}

/* --- the report ------------------------------------------------------------------------------- */

static const char *state_of(const struct vhost_device *d)
{
	if (d->relay && !d->over)
		return vhost_relay_state(d->relay)->reason ? "quarantined" : "connected";
	return d->front >= 0 ? "connecting" : "listening";
}

/* What the back-end is to the pages, in a word. */
static const char *stage_of(const struct vhostfront *v)
{
	if (v->reason)
		return NULL;
	if (v->wait == VHOSTFRONT_AWAITS_PROOF)
		return "proving";
	if (v->resident)
		return v->advised ? "ending" : "free";
	if (v->gating)
		return "gated";
	if (v->held)
		return "held";
	return v->proven ? "served" : "unproven";
}

static void put_relay(const struct vhost_device *d, struct jsonmsg_writer *w)
{
	const struct vhostfront *v = vhost_relay_state(d->relay);
	const struct snapshot_sharer *s = find_sharer(d);
	uint64_t requests, answers;

	vhost_relay_count(d->relay, &requests, &answers);
	jsonmsg_put_text(w, "dialect", vhostfront_dialect_name(v->dialect));
	jsonmsg_put_text(w, "stage", stage_of(v));
	jsonmsg_put_i64(w, "pid", vhost_backend_pid(d->backend));
	jsonmsg_put_u64(w, "sharer", vhost_backend_sharer(d->backend));
	jsonmsg_put_u64(w, "waiting", s ? s->waiting : 0);
	jsonmsg_put_u64(w, "held", v->held);
	jsonmsg_put_u64(w, "requests", requests);
	jsonmsg_put_u64(w, "answers", answers);
}

/**
 * vhost_device_report - one object of an array
 */
void vhost_device_report(const struct vhost_device *d, struct jsonmsg_writer *w)
{
	static const char *const policies[] = {
		[REGMSG_POLICY_IGNORE] = "ignore",
		[REGMSG_POLICY_DISABLE] = "disable",
		[REGMSG_POLICY_FAIL] = "fail",
	};

	jsonmsg_begin_object(w, NULL);
	jsonmsg_put_text(w, "name", d->o->name);
	jsonmsg_put_text(w, "front", d->o->front);
	jsonmsg_put_text(w, "back", d->o->back);
	jsonmsg_put_text(w, "policy", policies[d->o->policy]);
	jsonmsg_put_bool(w, "gate", d->o->may_gate);
	jsonmsg_put_bool(w, "repair", d->o->repair);
	jsonmsg_put_text(w, "state", state_of(d));
	jsonmsg_put_u64(w, "since_ns", d->since);
	jsonmsg_put_text(w, "reason", d->problem[0] ? d->problem : NULL);
	jsonmsg_put_u64(w, "connections", d->connections);
	jsonmsg_put_u64(w, "quarantines", d->quarantines);
	jsonmsg_put_u64(w, "rejoined", d->joins);
	if (d->relay && !d->over)
		put_relay(d, w);
	else
		jsonmsg_put_text(w, "dialect", vhostfront_dialect_name(d->o->dialect));
	jsonmsg_end(w);
}
