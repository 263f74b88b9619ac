/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Connections that say nothing: how long one may, and which makes room for another.  On a UNIX
 * socket, with the fault thread's mailbox in our hands.
 */
#include "config.h"

#include "daemon/channel.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "sys/fd.h"
#include "wire/qstream.h"

#define KEPT	 32u		/* as many as are kept */
#define FAR_MS	 60000u
#define SOON_MS	 50u
#define PATIENCE 10		/* seconds */

struct rig {
	struct channel *channel;
	struct sockaddr_un at;
	int sock[2 * KEPT];
	unsigned n, refused;
	char why[256];			/* of the last one */
	unsigned mains, urgents, expected, recoveries, returned;
};

static struct rig *here;		/* faultloop_post() knows no other way */

/* In the fault thread's place: what it is handed. */
void faultloop_post(struct faultloop *f, const struct message *m)
{
	int fd = m->lane.fd;

	(void)f;
	cr_assert_eq(m->kind, MESSAGE_LANE);
	here->mains += !m->lane.urgent;
	here->recoveries += m->lane.recovery && !m->lane.urgent;
	here->urgents += m->lane.urgent && fd >= 0;
	here->expected += m->lane.urgent && fd < 0;
	close_fd(&fd);
}

static void refused(void *ctx, const char *text)
{
	struct rig *r = ctx;

	r->refused++;
	g_strlcpy(r->why, text, sizeof(r->why));
}

static void returned(void *ctx)
{
	((struct rig *)ctx)->returned++;
}

static const struct snapshot *no_snapshot(void *ctx)
{
	(void)ctx;
	return NULL;
}

static void open_rig(struct rig *r, unsigned silent_ms)
{
	struct channel_ops ops = { .refused = refused, .snapshot = no_snapshot, .ctx = r,
				   .returned = returned, .silent_ms = silent_ms };
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memset(r, 0, sizeof(*r));
	r->at.sun_family = AF_UNIX;
	snprintf(r->at.sun_path + 1, sizeof(r->at.sun_path) - 1, "postcopy-channel-%d",
		 (int)getpid());
	cr_assert_eq(bind(listener, (struct sockaddr *)&r->at, sizeof(r->at)), 0);
	cr_assert_eq(listen(listener, 128), 0);
	r->channel = channel_new(listener, NULL, &ops);
	here = r;
}

static void settle(void)
{
	while (g_main_context_iteration(NULL, FALSE))
		;
}

/* One more connection; its number. */
static unsigned come(struct rig *r)
{
	r->sock[r->n] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert_eq(connect(r->sock[r->n], (struct sockaddr *)&r->at, sizeof(r->at)), 0);
	settle();
	return r->n++;
}

static void say(struct rig *r, unsigned who, const void *what, size_t len)
{
	cr_assert_eq(send(r->sock[who], what, len, MSG_NOSIGNAL), (ssize_t)len);
	settle();
}

static bool is_open(const struct rig *r, unsigned who)
{
	char byte;

	return recv(r->sock[who], &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

static void wait_refused(const struct rig *r, unsigned n)
{
	gint64 until = g_get_monotonic_time() + PATIENCE * G_USEC_PER_SEC;

	while (r->refused < n) {
		cr_assert_lt(g_get_monotonic_time(), until);
		g_main_context_iteration(NULL, FALSE);
	}
}

static void close_rig(struct rig *r)
{
	channel_free(r->channel);
	for (unsigned i = 0; i < r->n; i++)
		close_fd(&r->sock[i]);
}

/* While no main channel is known nobody is silent for long. */
Test(channel, A1_who_says_nothing_goes_when_its_time_is_over)
{
	struct rig r;
	unsigned first;

	open_rig(&r, SOON_MS);
	first = come(&r);
	cr_assert(is_open(&r, first));
	wait_refused(&r, 1);
	cr_assert_not(is_open(&r, first));
	cr_assert_not_null(strstr(r.why, "it said nothing"));
	cr_assert_eq(r.mains + r.urgents + r.expected, 0);
	close_rig(&r);
}

/* With one it may take as long as it likes: an old source's urgent channel may never speak. */
Test(channel, A1_beside_the_main_channel_silence_is_no_reason)
{
	struct rig r;
	unsigned main, silent;
	gint64 until;

	open_rig(&r, 4 * SOON_MS);
	silent = come(&r);
	main = come(&r);
	say(&r, main, "QEVM", 4);
	cr_assert_eq(r.mains, 1);
	cr_assert_eq(r.expected, 1, "one is to be expected");
	come(&r);
	until = g_get_monotonic_time() + 8 * SOON_MS * 1000;
	while (g_get_monotonic_time() < until)
		g_main_context_iteration(NULL, FALSE);
	cr_assert(is_open(&r, silent));
	cr_assert(is_open(&r, 2));
	cr_assert_eq(r.refused, 0);
	cr_assert_eq(r.expected, 1, "said once");
	close_rig(&r);
}

/* Before the main channel the one that is silent for longest makes room. */
Test(channel, A1_the_oldest_makes_room_before_the_main_channel)
{
	struct rig r;

	open_rig(&r, FAR_MS);
	for (unsigned i = 0; i < KEPT; i++)
		come(&r);
	cr_assert_eq(r.refused, 0);
	for (unsigned i = 0; i < 3; i++) {
		come(&r);
		cr_assert_eq(r.refused, i + 1);
		cr_assert_not(is_open(&r, i));
		cr_assert(is_open(&r, i + 1));
		cr_assert_not_null(strstr(r.why, "too many"));
	}
	close_rig(&r);
}

/* Beside it the first stays, and the second of them makes room. */
Test(channel, A1_the_first_stays_beside_the_main_channel)
{
	static const uint8_t eos[8] = { [7] = 0x10 };
	struct rig r;
	unsigned main;

	open_rig(&r, FAR_MS);
	come(&r);
	main = come(&r);
	say(&r, main, "QEVM", 4);
	for (unsigned i = 1; i < KEPT; i++)
		come(&r);
	cr_assert_eq(r.refused, 0);
	for (unsigned i = 0; i < 3; i++) {
		come(&r);
		cr_assert_eq(r.refused, i + 1);
		cr_assert(is_open(&r, 0));
		cr_assert_not(is_open(&r, main + 1 + i));
		cr_assert(is_open(&r, main + 2 + i));
	}
	/* It speaks: who is left goes. */
	say(&r, 0, eos, sizeof(eos));
	cr_assert_eq(r.urgents, 1);
	cr_assert_eq(r.refused, 3 + KEPT - 1);
	cr_assert_not_null(strstr(r.why, "running already"));
	close_rig(&r);
}

static const uint8_t recovery[] = { 8, 0, 10, 0, 2, 1, 'm' }, magic[] = { 'Q', 'E', 'V', 'M' };

/* As the fault thread tells it: paused, and so many resumed sources were heard. */
static void tell(struct rig *r, enum session_state state, uint64_t resumed, bool held)
{
	struct snapshot *s = g_new0(struct snapshot, 1);

	s->state = state;
	s->resumed = resumed;
	s->held = held;
	channel_see(r->channel, s);
	g_free(s);
}

/* One at a time, as often as it breaks; whoever is no source that comes again is refused. */
Test(channel, F59_one_resumed_source_at_a_time_when_paused)
{
	struct rig r;
	unsigned i;

	open_rig(&r, FAR_MS);
	say(&r, i = come(&r), recovery, sizeof(recovery));
	cr_assert_not(is_open(&r, i), "there is nothing to recover");
	say(&r, come(&r), magic, sizeof(magic));
	cr_assert_eq(r.mains, 1);
	tell(&r, SESSION_PAUSED, 0, true);
	say(&r, i = come(&r), magic, sizeof(magic));
	cr_assert_not(is_open(&r, i), "held");
	tell(&r, SESSION_PAUSED, 0, false);
	say(&r, i = come(&r), magic, sizeof(magic));
	cr_assert_not(is_open(&r, i), "a new migration while one is paused");
	cr_assert_not_null(strstr(r.why, "resumed"));
	say(&r, come(&r), recovery, sizeof(recovery));
	cr_assert_eq(r.mains, 2);
	cr_assert_eq(r.recoveries, 1);
	/* a snapshot from before it came */
	tell(&r, SESSION_PAUSED, 0, false);
	say(&r, i = come(&r), magic, sizeof(magic));
	cr_assert_not(is_open(&r, i), "there is one");
	tell(&r, SESSION_PAUSED, 1, false);
	say(&r, come(&r), recovery, sizeof(recovery));
	cr_assert_eq(r.recoveries, 2);
	cr_assert_eq(r.returned, 0);
	close_rig(&r);
}

Test(channel, F59_a_source_that_comes_again_too_early_is_let_in_when_we_are_paused)
{
	struct rig r;
	unsigned i;

	open_rig(&r, FAR_MS);
	say(&r, come(&r), magic, sizeof(magic));
	say(&r, i = come(&r), recovery, sizeof(recovery));
	cr_assert_eq(r.returned, 1, "we are to pause");
	cr_assert(is_open(&r, i));
	tell(&r, SESSION_PAUSED, 0, false);
	for (unsigned n = 0; n < 1000 && r.recoveries == 0; n++)
		g_main_context_iteration(NULL, TRUE);
	cr_assert_eq(r.recoveries, 1);
	cr_assert_eq(r.returned, 1);
	close_rig(&r);
}

Test(channel, F59_nobody_is_let_in_when_the_time_is_over)
{
	struct rig r;
	unsigned i;

	open_rig(&r, FAR_MS);
	say(&r, come(&r), magic, sizeof(magic));
	tell(&r, SESSION_PAUSED, 0, false);
	channel_open(r.channel, false);
	say(&r, i = come(&r), recovery, sizeof(recovery));
	cr_assert_not(is_open(&r, i));
	cr_assert_not_null(strstr(r.why, "recover-timeout"));
	channel_open(r.channel, true);
	say(&r, come(&r), recovery, sizeof(recovery));
	cr_assert_eq(r.recoveries, 1);
	close_rig(&r);
}
