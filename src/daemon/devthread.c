/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A driver, or a server, may keep a call for as long as it likes.  So each device has a thread that
 * makes all calls on it, one after the other as they were ordered, and whoever gives the orders
 * never waits (I4).  Results come back in the same order, one for each order, whatever happened:
 *
 *   the call ends            its result, and what the device says of its state then;
 *   its time passes          the call is interrupted (sys/devwatch.h); most end with -ETIMEDOUT;
 *   it does not come back    it is given up: the orders that are out end with -ETIMEDOUT, by the
 *                            hand of who looks after them, and so does each one given later.  What
 *                            the thread still brings is not looked at.
 *
 * A server may ask for memory whenever its device runs, and can end at any time.  So between two
 * orders the thread waits for its socket, too; that the server has gone is a result that nobody
 * ordered (DEVTHREAD_LOST).
 *
 * Two mailboxes and two doorbells; the only words that both sides write are those of the devwatch.
 * There is room for the result of each order that may be out and for the one that nobody ordered,
 * so the thread never waits for its reader.
 *
 * A thread that is stuck at the end cannot be joined.  It is left behind, with the handle and the
 * mailboxes it may still touch: a leak, said in the log, and at the end of the process only.
 */
#include "config.h"

#include "daemon/devthread.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include <glib.h>

#include "core/guard.h"
#include "daemon/mailbox.h"
#include "sys/clock.h"
#include "sys/devcompat.h"
#include "sys/devio_vfiouser.h"
#include "sys/fd.h"
#include "sys/migdev.h"

#define CHUNK	     (UINT64_C(256) << 10)   /* of a stream, at a time */
#define AGAIN_NS     UINT64_C(10000000)	     /* between two interruptions of one call */
#define LINGER_MS    2000		     /* for a thread to end that is in no call */
#define RESULT_SLOTS (DEVTHREAD_ORDERS * 2)

struct devthread {
	struct devthread_config config;
	char name[64];
	pthread_t thread;
	int doorbell;			/* the thread's */
	int ended;			/* rung by it, the last it does */
	struct mailbox orders, results;
	_Atomic bool quit;
	_Atomic bool is_open;		/* the watch of the handle may be looked at */
	_Atomic uint64_t loaded;
	/* main's */
	enum devthread_verb out[DEVTHREAD_ORDERS];	/* a ring: orders without a result */
	uint64_t iova[DEVTHREAD_ORDERS];
	uint32_t first, n_out;
	bool given_up;
	/* the thread's */
	struct devio io;
	struct migdev dev;
	struct devwatch opening;
	bool migrates, gone;
	uint8_t *chunk;
};

/* --- what is done --- */

static int do_open(struct devthread *t, const struct devthread_order *o, struct devthread_result *r)
{
	uint64_t until = devwatch_enter(&t->opening, "open", t->config.limit_ns);
	int err = until ? t->config.open(t->config.ctx, &t->io, &r->why) : -ETIMEDOUT;

	(void)o;
	if (!devwatch_leave(&t->opening) && !err) {
		devio_close(&t->io);
		err = -ETIMEDOUT;
	}
	if (err)
		return err;
	devio_set_limit(&t->io, t->config.limit_ns);
	atomic_store_explicit(&t->is_open, true, memory_order_release);
	err = migdev_probe(&t->dev, &t->io);
	if (err) {
		r->why = err == -EOPNOTSUPP ? "it has no state that could be moved" : NULL;
		atomic_store_explicit(&t->is_open, false, memory_order_release);
		migdev_deinit(&t->dev);
		devio_close(&t->io);
		return err;
	}
	t->migrates = true;
	r->caps = t->dev.caps;
	(void)devcompat_read(&t->io, r->compat); /* who cannot tell is compared by nothing */
	return 0;
}

static int do_set(struct devthread *t, const struct devthread_order *o, struct devthread_result *r)
{
	(void)r;
	return migdev_set(&t->dev, o->state);
}

static int do_reset(struct devthread *t, const struct devthread_order *o,
		    struct devthread_result *r)
{
	(void)o;
	(void)r;
	return migdev_reset(&t->dev);
}

/* The bytes of one segment, which begin at @at of the file. */
static int load_segment(struct devthread *t, int fd, uint64_t at, uint64_t length)
{
	int err = migdev_segment(&t->dev, length);

	for (uint64_t done = 0; !err && done < length;) {
		size_t want = length - done < CHUNK ? (size_t)(length - done) : CHUNK;
		ssize_t n = pread(fd, t->chunk, want, (off_t)(at + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ENODATA;
		err = migdev_load(&t->dev, t->chunk, (size_t)n);
		done += (uint64_t)n;
		atomic_fetch_add_explicit(&t->loaded, (uint64_t)n, memory_order_relaxed);
	}
	return err;
}

static int do_load(struct devthread *t, const struct devthread_order *o, struct devthread_result *r)
{
	uint64_t at = 0, length;
	int ret;

	(void)r;
	if (!t->chunk)
		t->chunk = g_malloc(CHUNK);
	atomic_store_explicit(&t->loaded, 0, memory_order_relaxed);
	while ((ret = o->segment(o->fd, &at, &length)) == 1) {
		ret = length ? load_segment(t, o->fd, at, length) : 0;
		if (ret)
			break;
		at += length;
	}
	return ret;
}

static int do_map(struct devthread *t, const struct devthread_order *o, struct devthread_result *r)
{
	int err = devio_dma_map(&t->io, &o->dma);

	r->why = err ? devio_dma_why(err) : NULL;
	return err;
}

static int do_unmap(struct devthread *t, const struct devthread_order *o,
		    struct devthread_result *r)
{
	(void)r;
	return devio_dma_unmap(&t->io, o->dma.iova, o->dma.size);
}

static void work(struct devthread *t, struct devthread_order *o)
{
	static int (*const jobs[])(struct devthread *, const struct devthread_order *,
				   struct devthread_result *) = {
		[DEVTHREAD_OPEN] = do_open,   [DEVTHREAD_SET] = do_set,
		[DEVTHREAD_RESET] = do_reset, [DEVTHREAD_LOAD] = do_load,
		[DEVTHREAD_MAP] = do_map,     [DEVTHREAD_UNMAP] = do_unmap,
	};
	_Static_assert(ARRAY_LEN(jobs) == DEVTHREAD_VERBS, "every verb is done");
	struct devthread_result r = { .verb = o->verb, .iova = o->dma.iova };
	bool ready = o->verb == DEVTHREAD_OPEN || t->migrates;

	r.error = ready ? jobs[o->verb](t, o, &r) : -ENODEV;
	r.state = t->migrates ? t->dev.state : -ENODEV;
	if (o->verb == DEVTHREAD_LOAD)
		close_fd(&o->fd);
	mailbox_put(&t->results, &r);
	doorbell_ring(t->config.doorbell);
}

/* --- between orders --- */

static bool once(void *ctx)
{
	(void)ctx;
	return true;
}

/* It asks, or it has gone. */
static void hear(struct devthread *t)
{
	struct devthread_result r = { .verb = DEVTHREAD_LOST, .state = -ECONNRESET };
	int fds[2];

	r.error = devio_vfiouser_serve(&t->io, once, NULL);
	if (devio_vfiouser_fds(&t->io, fds))
		return;
	if (!r.error)
		r.error = -ECONNRESET;
	t->gone = true;
	mailbox_put(&t->results, &r);
	doorbell_ring(t->config.doorbell);
}

static void rest(struct devthread *t)
{
	bool listens = t->config.asks && t->migrates && !t->gone;
	struct pollfd p[3] = { { .fd = t->doorbell, .events = POLLIN } };
	unsigned n = 0;
	int fds[2];

	if (listens)
		n = devio_vfiouser_fds(&t->io, fds);
	for (unsigned i = 0; i < n; i++)
		p[i + 1] = (struct pollfd){ .fd = fds[i], .events = POLLIN };
	if (listens && n == 0)
		hear(t);
	else if (poll(p, n + 1, -1) > 0 && doorbell_clear(t->doorbell) == 0)
		hear(t);
}

static void *run(void *arg)
{
	struct devthread *t = arg;
	struct devthread_order o;

	while (!atomic_load_explicit(&t->quit, memory_order_acquire)) {
		if (mailbox_get(&t->orders, &o))
			work(t, &o);
		else
			rest(t);
	}
	migdev_deinit(&t->dev);
	devio_close(&t->io);
	doorbell_ring(t->ended);
	return NULL;
}

/* --- main's side --- */

static void release(struct devthread *t)
{
	struct devthread_order o;

	while (t->orders.slot && mailbox_get(&t->orders, &o))
		if (o.verb == DEVTHREAD_LOAD)
			close_fd(&o.fd);
	mailbox_deinit(&t->orders);
	mailbox_deinit(&t->results);
	close_fd(&t->doorbell);
	close_fd(&t->ended);
	g_free(t->chunk);
	g_free(t);
}

/* Signals are the main thread's, but for the one that interrupts. */
static int begin(struct devthread *t)
{
	sigset_t all, old;
	int ret;

	sigfillset(&all);
	sigdelset(&all, SIGURG);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = -pthread_create(&t->thread, NULL, run, t);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return ret;
}

/**
 * devthread_new - a thread that waits for orders
 * @config: copied, but for what it points to
 */
struct devthread *devthread_new(const struct devthread_config *config)
{
	struct devthread *t = g_new0(struct devthread, 1);
	int ret;

	t->config = *config;
	g_strlcpy(t->name, config->name, sizeof(t->name));
	devwatch_init(&t->opening);
	t->doorbell = doorbell_new();
	t->ended = doorbell_new();
	ret = MIN(t->doorbell, t->ended);
	ret = MIN(ret, 0);
	ret = ret ? ret : mailbox_init(&t->orders, sizeof(struct devthread_order),
				       DEVTHREAD_ORDERS, t->doorbell);
	ret = ret ? ret : mailbox_init(&t->results, sizeof(struct devthread_result), RESULT_SLOTS,
				       config->doorbell);
	ret = ret ? ret : begin(t);
	if (!ret)
		return t;
	release(t);
	return NULL;
}

/**
 * devthread_put - one more thing to do
 *
 * To one that was given up it ends with -ETIMEDOUT, like the others.
 */
bool devthread_put(struct devthread *t, const struct devthread_order *order)
{
	uint32_t at = (t->first + t->n_out) % DEVTHREAD_ORDERS;

	if (t->n_out == DEVTHREAD_ORDERS)
		return false;
	t->out[at] = order->verb;
	t->iova[at] = order->dma.iova;
	t->n_out++;
	if (!t->given_up && mailbox_put(&t->orders, order)) {
		mailbox_ring(&t->orders);
		return true;
	}
	if (order->verb == DEVTHREAD_LOAD)
		close(order->fd);
	doorbell_ring(t->config.doorbell);
	return true;
}

static void end_first(struct devthread *t)
{
	t->first = (t->first + 1) % DEVTHREAD_ORDERS;
	t->n_out--;
}

/**
 * devthread_get - the next result; false: there is none yet
 */
bool devthread_get(struct devthread *t, struct devthread_result *result)
{
	if (!t->given_up) {
		if (!mailbox_get(&t->results, result))
			return false;
		if (result->verb != DEVTHREAD_LOST)
			end_first(t);
		return true;
	}
	if (t->n_out == 0)
		return false;
	*result = (struct devthread_result){
		.verb = t->out[t->first], .error = -ETIMEDOUT, .state = -ETIMEDOUT,
		.why = "it never came back from a call", .iova = t->iova[t->first],
	};
	end_first(t);
	return true;
}

static struct devwatch *watch(const struct devthread *t)
{
	struct devthread *owner = (struct devthread *)t;

	if (atomic_load_explicit(&t->is_open, memory_order_acquire))
		return devio_watch(&owner->io);
	return &owner->opening;
}

/**
 * devthread_doing - which call is it in?
 */
bool devthread_doing(const struct devthread *t, struct devwatch_call *out)
{
	return devwatch_look(watch(t), out);
}

static void give_up(struct devthread *t, const struct devwatch_call *call)
{
	devwatch_give_up(watch(t));
	t->given_up = true;
	g_warning("device %s: '%s' never came back; it is left to itself", t->name, call->what);
	doorbell_ring(t->config.doorbell);
}

/**
 * devthread_look - is a call out for too long?
 */
uint64_t devthread_look(struct devthread *t, uint64_t now)
{
	struct devwatch_call call;
	uint64_t grace;

	if (t->given_up || t->n_out == 0)
		return UINT64_MAX;
	if (!devthread_doing(t, &call))
		return now + AGAIN_NS;
	if (call.until > now)
		return call.until;
	/* as long again as it was given, for what comes back when it is interrupted */
	if (!add_u64(call.until, t->config.limit_ns, &grace) || now < grace) {
		devwatch_interrupt(watch(t), &call);
		return now + AGAIN_NS;
	}
	give_up(t, &call);
	return UINT64_MAX;
}

/**
 * devthread_given_up - nobody waits for it any more
 */
bool devthread_given_up(const struct devthread *t)
{
	return t->given_up;
}

/**
 * devthread_loaded - bytes of the stream that the device has taken
 */
uint64_t devthread_loaded(const struct devthread *t)
{
	return atomic_load_explicit(&t->loaded, memory_order_relaxed);
}

/* A signal handler's turn does not count. */
static bool ends_soon(const struct devthread *t)
{
	struct pollfd p = { .fd = t->ended, .events = POLLIN };
	int n;

	do
		n = poll(&p, 1, LINGER_MS);
	while (n < 0 && errno == EINTR);
	return n > 0;
}

/**
 * devthread_free - end it; NULL is fine
 *
 * Waits for a thread that is between two calls, for a moment.
 */
bool devthread_free(struct devthread *t)
{
	struct devwatch_call call;

	if (!t)
		return true;
	devwatch_give_up(watch(t));
	atomic_store_explicit(&t->quit, true, memory_order_release);
	doorbell_ring(t->doorbell);
	if (devthread_doing(t, &call))
		devwatch_interrupt(watch(t), &call);
	if (!ends_soon(t)) {
		g_warning("device %s: its thread is stuck in '%s' and is left behind", t->name,
			  devthread_doing(t, &call) ? call.what : "?");
		return false;
	}
	pthread_join(t->thread, NULL);
	release(t);
	return true;
}
