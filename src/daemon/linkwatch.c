/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Is there a way to the source?
 *
 * TCP alone finds out late: what is sent into nothing is sent again for half a minute
 * (sock_tune()), and a connection that rests notices nothing at all.  Meanwhile threads wait, and a
 * source that could be reached on another way is not asked to come.  Two witnesses are heard
 * instead.
 *
 * This host: sys/netpath says whether a packet would leave at all.  Events of rtnetlink only say
 * when to look, a few together (DEBOUNCE_MS), so none of them is needed: a look sees the addresses,
 * the route, the interface and the neighbour as they are.  A route that changes to another that
 * leads there is no loss.
 *
 * The source's host: its TCP acknowledges whatever comes, however busy or stopped the source is,
 * and also when the source does not read (window probes).  So silence means something once an
 * answer of that kernel is due: bytes of ours on their way, or a probe.  It is counted from when an
 * answer became due, not from the last word, which may be an hour old on a connection that rested.
 * For such a connection sock_tune() has the keepalive of TCP ask after each second of rest, so that
 * there is always something due within a second; that costs one empty segment a second, and is
 * answered by the kernel of a source that is stopped, too.  (A message of the protocol would not
 * do: the source answers when it gets to it.)
 *
 * What is heard comes from sock_diag by addresses (sys/inetdiag): the descriptor of the connection
 * is the fault thread's.  A connection that came from another network namespace (--incoming-fd) is
 * not found there: then nothing is said about the way.
 *
 * No way for longer than the grace time pauses the session, if its VM is here: the source is told
 * nothing by that, but we listen for it.  Before the commit nothing is done, since the VM is the
 * source's and losing the connection would only end the migration; neither behind the end of the
 * main stream, where a source from 10.0 on takes a lost connection for a reason to run its VM.
 *
 * A paused session sends nothing, so nobody would find out that the way is back.  While it was
 * silence that paused it the source's host is asked each second (sys/reach).  A neighbour that did
 * not answer is asked by packets only: the kernel is told to ask again (netpath_knock()).
 */
#include "config.h"
#include "daemon/linkwatch.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <glib-unix.h>

#include "sys/clock.h"
#include "sys/fd.h"
#include "sys/inetdiag.h"
#include "sys/netpath.h"
#include "sys/reach.h"

#define DEBOUNCE_MS	20
#define TICK_MS		100
#define KNOCK_NS	1000000000ull
#define SILENCE_NS	2000000000ull	/* that is worth a word when there is no grace time */

/* As far as the session goes. */
enum duty {
	IDLE,		/* no connection, or nothing depends on it any more */
	REPORT,		/* the VM is the source's */
	GUARD,		/* the VM is ours: pause */
	AWAIT,		/* paused: the way back matters */
};

struct linkwatch {
	uint64_t grace_ns;
	struct linkwatch_ops ops;
	struct netpath *path;		/* NULL: there is no rtnetlink for us */
	int diag;			/* for inetdiag; -1 */
	guint watch, debounce, tick;
	enum duty duty;
	char uri[ENDS_URI];		/* where the source came to; empty: it never did */
	bool networked;			/* there is, or was, a connection to watch */
	struct ends ends;
	struct netpath_view view;
	struct inetdiag tcp;
	bool measured;			/* .tcp is of now */
	uint64_t due_ns;		/* since when an answer of the source's TCP is due; 0 */
	bool silent;			/* for too long */
	bool down, asked;		/* asked: for a pause of this connection */
	uint64_t since_ns;		/* when .down became what it is */
	uint64_t event_ns;		/* the first event that was not looked at; 0 */
	uint64_t knocked_ns;
	int reach;			/* of sys/reach, while it is asked; -1 */
	char cause[192];
};

/* --- what is wrong ---------------------------------------------------------------------------- */

static void describe(const struct linkwatch *l, char *out, size_t len)
{
	static const char *const of_interface[NETPATH_STATES] = {
		[NETPATH_NO_LINK] = "is gone",
		[NETPATH_LINK_DOWN] = "is switched off",
		[NETPATH_NO_CARRIER] = "has no carrier",
	};
	const char *what = of_interface[l->view.state];
	char local[ENDS_TEXT], peer[ENDS_TEXT], hop[ENDS_TEXT];

	ends_text(&l->ends.local, local, sizeof(local));
	ends_text(&l->ends.peer, peer, sizeof(peer));
	ends_text(&l->view.hop, hop, sizeof(hop));
	if (what)
		snprintf(out, len, "interface %s %s", l->view.interface, what);
	else if (l->view.state == NETPATH_NO_ADDRESS)
		snprintf(out, len, "%s is no address of this host any more", local);
	else if (l->view.state == NETPATH_NO_ROUTE)
		snprintf(out, len, "there is no route to %s", peer);
	else if (l->view.state == NETPATH_NO_NEIGHBOUR)
		snprintf(out, len, "%s %s does not answer on %s",
			 *l->view.via ? "the gateway" : "the neighbour", hop, l->view.interface);
	else
		snprintf(out, len, "nothing comes back from %s, though an answer is due", peer);
}

/* "10:03:07", of a moment of CLOCK_MONOTONIC. */
static char *clock_of(uint64_t ns)
{
	gint64 ago_us = (gint64)((clock_ns() - ns) / 1000);
	g_autoptr(GDateTime) now = g_date_time_new_now_local();
	g_autoptr(GDateTime) then = g_date_time_add(now, -ago_us);

	return g_date_time_format(then, "%H:%M:%S");
}

/* --- what TCP says ---------------------------------------------------------------------------- */

static void judge_silence(struct linkwatch *l, uint64_t now)
{
	uint64_t heard = now - inetdiag_silence(&l->tcp) * 1000000ull;
	uint64_t limit = l->grace_ns ? l->grace_ns : SILENCE_NS;

	if (!inetdiag_waits(&l->tcp))
		l->due_ns = 0;
	else if (!l->due_ns || heard > l->due_ns)
		l->due_ns = now;
	l->silent = l->due_ns && now - l->due_ns >= limit;
}

static void ask_tcp(struct linkwatch *l, uint64_t now)
{
	/* Once it was asked to end, what the connection says is of no meaning. */
	if (l->asked || (l->duty != REPORT && l->duty != GUARD))
		return;
	l->measured = l->diag >= 0 && inetdiag_ask(l->diag, &l->ends, &l->tcp) == 0;
	if (l->measured)
		judge_silence(l, now);
	else
		l->silent = false;
}

/* --- the verdict ------------------------------------------------------------------------------ */

static void say(struct linkwatch *l, bool down)
{
	g_autofree char *text = NULL, *when = clock_of(l->since_ns);

	if (down) {
		text = g_strdup_printf("no way to the source since %s: %s", when, l->cause);
		g_warning("%s", text);
	} else {
		text = g_strdup_printf("there is a way to the source again, by interface %s",
				       l->view.interface);
		g_message("%s", text);
	}
	l->ops.event(l->ops.ctx, down ? "link-down" : "link-up", text);
}

static void settle(struct linkwatch *l, bool down, uint64_t now)
{
	if (down)
		describe(l, l->cause, sizeof(l->cause));
	if (down == l->down)
		return;
	l->down = down;
	l->since_ns = l->event_ns ? l->event_ns : now;
	if (down && l->silent)
		l->since_ns = l->due_ns;
	say(l, down);
	if (!down)
		l->cause[0] = '\0';
	if (!down && l->duty == AWAIT)
		l->ops.returned(l->ops.ctx);
}

/* Paused: is there an answer to what was asked?  If not, ask again when it is time. */
static void knock(struct linkwatch *l, uint64_t now)
{
	if (l->reach >= 0 && reach_answer(l->reach) > 0)
		l->silent = false;
	if (!l->silent || now - l->knocked_ns >= KNOCK_NS)
		close_fd(&l->reach);
	if (now - l->knocked_ns < KNOCK_NS)
		return;
	l->knocked_ns = now;
	if (l->view.state == NETPATH_NO_NEIGHBOUR)
		netpath_knock(l->path, &l->view);
	else if (l->silent && l->view.state == NETPATH_UP)
		l->reach = reach_ask(&l->ends);
}

static void act(struct linkwatch *l, uint64_t now)
{
	g_autofree char *reason = NULL, *when = NULL;

	if (!l->down || l->duty != GUARD || l->asked || !l->grace_ns ||
	    (now - l->since_ns < l->grace_ns && !l->silent))
		return;
	l->asked = true;
	when = clock_of(l->since_ns);
	reason = g_strdup_printf("%s since %s", l->cause, when);
	l->ops.pause(l->ops.ctx, reason);
}

static void look(struct linkwatch *l)
{
	enum netpath_state before = l->view.state;
	uint64_t now = clock_ns();

	if (!l->networked || l->duty == IDLE)
		return;
	netpath_look(l->path, &l->ends, &l->view);
	ask_tcp(l, now);
	/* What was silent is heard of again. */
	if (l->asked && before != NETPATH_UP && l->view.state == NETPATH_UP)
		l->silent = false;
	if (l->duty == AWAIT && l->down)
		knock(l, now);
	settle(l, l->view.state != NETPATH_UP || l->silent, now);
	act(l, now);
	l->event_ns = 0;
}

/* --- when to look ----------------------------------------------------------------------------- */

static gboolean on_tick(gpointer data)
{
	look(data);
	return G_SOURCE_CONTINUE;
}

static gboolean on_settled(gpointer data)
{
	struct linkwatch *l = data;

	l->debounce = 0;
	look(l);
	return G_SOURCE_REMOVE;
}

static gboolean on_event(gint fd, GIOCondition condition, gpointer data)
{
	struct linkwatch *l = data;

	(void)fd;
	(void)condition;
	if (!netpath_drain(l->path))
		return G_SOURCE_CONTINUE;
	if (!l->event_ns)
		l->event_ns = clock_ns();
	if (!l->debounce)
		l->debounce = g_timeout_add(DEBOUNCE_MS, on_settled, l);
	return G_SOURCE_CONTINUE;
}

static enum duty duty_of(const struct snapshot *s)
{
	if (s->state == SESSION_PAUSED)
		return AWAIT;
	if (s->state == SESSION_IDLE || s->state >= SESSION_COMPLETE || s->source_closed)
		return IDLE;
	return s->committed && !s->main_eof ? GUARD : REPORT;
}

/**
 * linkwatch_see - how far the session is
 *
 * What is going on is looked at anew when that changes: a way that was lost before the commit
 * pauses when the commit comes.
 */
void linkwatch_see(struct linkwatch *l, const struct snapshot *s)
{
	enum duty duty = duty_of(s);

	if (duty == l->duty)
		return;
	l->duty = duty;
	if (duty != REPORT && duty != GUARD)
		l->measured = false;
	if (duty == IDLE || !l->networked)
		g_clear_handle_id(&l->tick, g_source_remove);
	else if (!l->tick)
		l->tick = g_timeout_add(TICK_MS, on_tick, l);
	look(l);
}

/**
 * linkwatch_attach - watch the way of this connection from here on
 * @fd: connected; not kept
 */
void linkwatch_attach(struct linkwatch *l, int fd)
{
	bool was_down = l->networked && l->down;
	struct inetdiag tcp;

	l->networked = false;
	close_fd(&l->reach);
	if (ends_of(fd, &l->ends) < 0)
		return;
	ends_uri(&l->ends.local, l->uri, sizeof(l->uri));
	l->networked = l->path && l->diag >= 0 && ends_networked(&l->ends) &&
		       inetdiag_ask(l->diag, &l->ends, &tcp) == 0;
	l->view = (struct netpath_view){ 0 };
	l->asked = l->silent = l->measured = l->down = false;
	l->due_ns = l->event_ns = 0;
	l->since_ns = clock_ns();
	l->cause[0] = '\0';
	/* Not before it is known how far the session is with it. */
	l->duty = IDLE;
	if (l->networked)
		netpath_look(l->path, &l->ends, &l->view);
	/* Whoever was told that it is gone hears of this, too: the source was faster than we. */
	if (l->networked && was_down)
		say(l, false);
}

/* --- for people ------------------------------------------------------------------------------- */

/**
 * linkwatch_fill - what `status' says of the link
 */
void linkwatch_fill(struct linkwatch *l, struct snapshot_link *out)
{
	*out = (struct snapshot_link){ .on = l->networked };
	if (!l->networked)
		return;
	ends_text(&l->ends.local, out->local, sizeof(out->local));
	ends_text(&l->ends.peer, out->peer, sizeof(out->peer));
	g_strlcpy(out->interface, l->view.interface, sizeof(out->interface));
	g_strlcpy(out->via, l->view.via, sizeof(out->via));
	g_strlcpy(out->cause, l->cause, sizeof(out->cause));
	out->up = !l->down;
	out->since_ns = l->since_ns;
	out->measured = l->measured;
	out->tcp = l->tcp;
}

/**
 * linkwatch_uri - where the source came to, as it can be told to come again
 *
 * A socket that listens on every address does not know by which of them it is reached; a connection
 * does.
 */
const char *linkwatch_uri(const struct linkwatch *l)
{
	return l && *l->uri ? l->uri : NULL;
}

/**
 * linkwatch_new - begin to listen to the network
 *
 * Where the kernel does not let us, `status' says nothing about the way, and nothing is paused.
 */
struct linkwatch *linkwatch_new(unsigned grace_s, const struct linkwatch_ops *ops)
{
	struct linkwatch *l = g_new0(struct linkwatch, 1);
	int ret = netpath_new(&l->path);

	l->grace_ns = grace_s * 1000000000ull;
	l->ops = *ops;
	l->diag = inetdiag_open();
	l->reach = -1;
	if (l->diag < 0 || ret < 0)
		g_message("the way to the source is not watched: there is no netlink");
	else
		l->watch = g_unix_fd_add(netpath_fd(l->path), G_IO_IN | G_IO_ERR, on_event, l);
	return l;
}

void linkwatch_free(struct linkwatch *l)
{
	if (!l)
		return;
	g_clear_handle_id(&l->watch, g_source_remove);
	g_clear_handle_id(&l->debounce, g_source_remove);
	g_clear_handle_id(&l->tick, g_source_remove);
	netpath_free(l->path);
	close_fd(&l->diag);
	close_fd(&l->reach);
	g_free(l);
}
