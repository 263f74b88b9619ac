/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who has the VM at the end: our answers count when the source has them, not when we said them, and
 * what is refused while the source can go on is never held against a VM that is ours.  (F59, S1-35,
 * qemu-wire.md 12, 13.1)
 */
#include "config.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/guard.h"
#include "facts.h"
#include "stage.h"
#include "sys/clock.h"
#include "sys/uffd.h"
#include "tap.h"

/* Every page, and the end of the stream: SHUT is on its way, and nobody has read it. */
static void begin_end(struct stage *s, bool urgent)
{
	stage_open(s, &(struct stage_options){ .urgent = urgent });
	stage_send(s, false, 0, STAGE_PAGES);
	stage_end(s);
	while (!stage_look(s)->shut_sent)
		usleep(1000);
}

/* A source from 10.0 on that loses us before it has SHUT restarts its VM; ours runs already. */
static void lost_with_shut_unread(bool urgent)
{
	struct stage s;

	begin_end(&s, urgent);
	usleep(50000);
	expect_eq(stage_look(&s)->state, SESSION_RUNNING);
	close(s.main);
	s.main = -1;
	stage_wait_state(&s, SESSION_PAUSED);
	expect(s.snapshot->ownership_unknown);
	expect(strstr(s.snapshot->reason, "ownership unknown"));
	stage_close(&s);
}

static void lost_with_shut_unread_main(void) { lost_with_shut_unread(false); }
static void lost_with_shut_unread_bulk(void) { lost_with_shut_unread(true); }

#define LAST (STAGE_ROW_FIRST - 2)	/* the page that is placed last */

/* While it is placed the source goes. */
static int issue(void *ctx, int uffd, enum uffd_how how, uint64_t dst, uint64_t len,
		 const void *src, bool wake, int64_t *moved)
{
	const struct stage *s = ctx;

	if (how != UFFD_WAKE && stage_page_at(s, uffd, dst) == LAST)
		shutdown(s->main, SHUT_RDWR);
	return uffd_kernel_ops.issue(NULL, uffd, how, dst, len, src, wake, moved);
}

/*
 * The source goes between its end and our SHUT: it may have taken its VM back, so this is no
 * success.
 */
static void gone_before_shut(void)
{
	struct stage s;
	const struct uffd_ops ops = { .issue = issue, .ctx = &s };

	stage_open(&s, &(struct stage_options){ .ops = &ops });
	stage_send(&s, false, 0, LAST - 1);
	stage_send(&s, false, LAST + 1, STAGE_PAGES - LAST - 1);
	stage_send_last(&s, LAST - 1, 2);
	stage_wait_state(&s, SESSION_PAUSED);
	expect(stage_look(&s)->ownership_unknown);
	expect_eq(s.snapshot->owed_left, 0);
	stage_close(&s);
}

/* It reads SHUT and closes at once: that is the end, whichever of the two is noticed first. */
static void closed_behind_shut(bool urgent)
{
	for (unsigned i = 0; i < 20; i++) {
		struct stage s;

		begin_end(&s, urgent);
		stage_wait_shut(&s);
		close(s.main);
		s.main = -1;
		stage_wait_state(&s, SESSION_COMPLETE);
		expect(!s.snapshot->ownership_unknown && s.snapshot->complete_ns);
		stage_close(&s);
	}
}

static void closed_behind_shut_main(void) { closed_behind_shut(false); }
static void closed_behind_shut_bulk(void) { closed_behind_shut(true); }

/* Until PONG 0x42 is there the source may resume its VM, so ours is not told to run. */
static void runs_when_the_answer_arrived(void)
{
	struct stage s;

	stage_open(&s, &(struct stage_options){ .commit_ping = true });
	usleep(50000);
	expect(!stage_look(&s)->running_told);
	while (s.n_pongs < 3)
		stage_hear(&s, 10);
	for (uint64_t until = clock_ns() + STAGE_PATIENCE_MS * 1000000ull;
	     !stage_look(&s)->running_told;)
		expect(clock_ns() < until);
	stage_close(&s);
}

/* Gone with PONG 0x42 unread, it resumes its VM: ours must never be told to run. */
static void never_runs_when_the_answer_was_not_read(void)
{
	for (unsigned i = 0; i < 20; i++) {
		const struct message loaded = { .kind = MESSAGE_LOADED };
		struct stage s;

		stage_open(&s, &(struct stage_options){ .commit_ping = true, .hold_loaded = true });
		faultloop_post(s.loop, &loaded);
		usleep(i * 100);
		close(s.main);
		s.main = -1;
		for (uint64_t until = clock_ns() + STAGE_PATIENCE_MS * 1000000ull;
		     stage_look(&s)->state < SESSION_PAUSED;)
			expect(clock_ns() < until);
		expect(!stage_look(&s)->running_told);
		expect(s.snapshot->state == SESSION_FAILED ||
		       (s.snapshot->state == SESSION_PAUSED && s.snapshot->ownership_unknown));
		stage_close(&s);
	}
}

/* Requests that nobody has read yet are behind the answer: they do not keep the VM from running. */
static void runs_while_requests_are_unread(void)
{
	struct stage s;

	stage_open(&s, &(struct stage_options){ .commit_ping = true, .hold_loaded = true });
	stage_loaded(&s);
	while (s.n_pongs < 3)
		stage_hear(&s, 10);
	stage_touch(&s, STAGE_MAIN, 0, 8);
	stage_wait_parked(&s, 8);
	for (uint64_t until = clock_ns() + STAGE_PATIENCE_MS * 1000000ull;
	     !stage_look(&s)->running_told;)
		expect(clock_ns() < until);
	stage_close(&s);
}

/*
 * A time-out or a signal that was decided on what the session was a moment ago.  The VM is ours by
 * then: it goes on.
 */
static void refusal_behind_the_commit(bool commit_ping)
{
	const struct message loaded = { .kind = MESSAGE_LOADED };
	struct message stop = { .kind = MESSAGE_STOP,
				.stop = { .error = ETIMEDOUT, .refuse_only = true } };
	struct stage s;

	stage_open(&s, &(struct stage_options){ .commit_ping = commit_ping, .hold_loaded = true });
	if (commit_ping)
		faultloop_post(s.loop, &loaded);
	strcpy(stop.stop.reason, "gave up");
	faultloop_post(s.loop, &stop);
	expect_eq(stage_look(&s)->state, commit_ping ? SESSION_RUNNING : SESSION_LOADING);
	if (!commit_ping)
		stage_loaded(&s);
	stage_send(&s, false, 0, STAGE_PAGES);
	stage_end(&s);
	stage_wait_shut(&s);
	stage_wait_state(&s, SESSION_COMPLETE);
	stage_check_content(&s);
	stage_close(&s);
}

static void refusal_behind_loaded(void) { refusal_behind_the_commit(true); }
static void refusal_behind_the_package(void) { refusal_behind_the_commit(false); }

static void refusal_before_the_commit(void)
{
	struct message stop = { .kind = MESSAGE_STOP,
				.stop = { .error = ETIMEDOUT, .refuse_only = true } };
	struct stage s;

	stage_open(&s, &(struct stage_options){ .commit_ping = true, .hold_loaded = true });
	strcpy(stop.stop.reason, "gave up");
	faultloop_post(s.loop, &stop);
	stage_wait_state(&s, SESSION_FAILED);
	while (!s.hung_up)
		stage_hear(&s, 10);
	stage_close(&s);
}

/* --- the stream has ended, and pages are owed ------------------------------------------------- */

#define LEFT_FIRST 100u		/* owed behind the end: */
#define LEFT_N	   (STAGE_PAGES - LEFT_FIRST)

static unsigned asked_of_the_rest(const struct stage *s)
{
	unsigned n = 0;

	for (unsigned page = LEFT_FIRST; page < STAGE_PAGES; page++)
		n += s->requested[page];
	return n;
}

/*
 * One thread waits for the first page of the rest, so that it is asked for; nobody asked for the
 * others.
 */
static void begin_arrears(struct stage *s, uint32_t quiet_ms)
{
	stage_open(s, &(struct stage_options){ .urgent = true, .quiet_ms = quiet_ms });
	stage_touch(s, 1, LEFT_FIRST, 1);
	stage_wait_parked(s, 1);
	stage_send(s, false, 0, LEFT_FIRST);
	stage_end(s);
}

/* All that is owed is asked for, once, and what comes on the urgent lane is the end of it. */
static void arrears_are_asked_for(void)
{
	uint64_t since;
	struct stage s;

	begin_arrears(&s, 0);
	for (unsigned i = 0; i < 500 && asked_of_the_rest(&s) < LEFT_N; i++)
		stage_hear(&s, 20);
	expect_eq(asked_of_the_rest(&s), LEFT_N);
	expect_eq(s.n_requested_twice, 0);
	since = stage_look(&s)->arrears_ns;
	expect(since && s.snapshot->state == SESSION_RUNNING && !s.snapshot->shut_sent);
	stage_send(&s, true, LEFT_FIRST, 1);
	stage_wait_seen(&s, 1, LEFT_FIRST, 1);
	for (uint64_t until = clock_ns() + STAGE_PATIENCE_MS * 1000000ull;
	     stage_look(&s)->arrears_ns == since;)
		expect(clock_ns() < until);	/* what comes gives the others time */
	expect(!s.shut);
	stage_send(&s, true, LEFT_FIRST + 1, LEFT_N - 1);
	stage_wait_shut(&s);
	stage_wait_state(&s, SESSION_COMPLETE);
	stage_check_content(&s);
	stage_close(&s);
}

/* Nothing comes: held, with both connections, nobody woken, nothing made of zeroes, and no SHUT. */
static void arrears_that_never_come(void)
{
	struct stage s;

	begin_arrears(&s, 300);
	stage_wait_state(&s, SESSION_PAUSED);
	expect(strstr(s.snapshot->reason, "28 pages still owed") &&
	       strstr(s.snapshot->reason, "urgent channel"));
	expect(strstr(s.snapshot->reason, "only at the source") &&
	       strstr(s.snapshot->reason, "do not restart it"));
	expect(!s.snapshot->ownership_unknown && !s.snapshot->shut_sent);
	stage_hear(&s, 50);
	expect_eq(asked_of_the_rest(&s), LEFT_N);
	expect(!s.shut && !s.hung_up);
	expect_eq(send(s.urgent, "", 0, MSG_NOSIGNAL), 0);
	expect_eq(recv(s.urgent, &(char){ 0 }, 1, MSG_DONTWAIT), -1);
	expect_eq(errno, EAGAIN);
	expect(!stage_seen(&s, 1, LEFT_FIRST));
	expect_eq(stage_look(&s)->owed_left, LEFT_N);
	stage_close(&s);
}

/*
 * Everything is here before the VMM has loaded: nothing is chased any more, however long that
 * takes.
 */
static void arrears_that_came_before_loaded(void)
{
	struct stage s;
	uint64_t calls;

	stage_open(&s,
		   &(struct stage_options){ .urgent = true, .quiet_ms = 700, .hold_loaded = true });
	stage_send(&s, false, 0, LEFT_FIRST);
	stage_end(&s);
	for (uint64_t until = clock_ns() + STAGE_PATIENCE_MS * 1000000ull;
	     !stage_look(&s)->arrears_ns;)
		expect(clock_ns() < until);
	stage_send(&s, true, LEFT_FIRST, LEFT_N);
	for (uint64_t until = clock_ns() + STAGE_PATIENCE_MS * 1000000ull;
	     stage_look(&s)->owed_left;)
		expect(clock_ns() < until);
	calls = stage_look(&s)->stats.ring_syscalls;
	usleep(900000);
	expect_eq(stage_look(&s)->state, SESSION_LOADING);
	expect(s.snapshot->stats.ring_syscalls < calls + 100);
	stage_loaded(&s);
	stage_wait_shut(&s);
	stage_close(&s);
}

static const struct fact facts[] = {
	{ "F59 lost while SHUT is unread: ownership unknown, single lane",
	  lost_with_shut_unread_main },
	{ "F59 lost while SHUT is unread: ownership unknown, bulk lane",
	  lost_with_shut_unread_bulk },
	{ "F59 closed right behind SHUT: complete, single lane", closed_behind_shut_main },
	{ "F59 closed right behind SHUT: complete, bulk lane", closed_behind_shut_bulk },
	{ "A10 the source goes between its end and SHUT: ownership unknown", gone_before_shut },
	{ "F59 the VM runs when PONG 0x42 has arrived", runs_when_the_answer_arrived },
	{ "F59 gone with PONG 0x42 unread: the VM is never told to run",
	  never_runs_when_the_answer_was_not_read },
	{ "F59 a refusal that comes behind LOADED changes nothing", refusal_behind_loaded },
	{ "F59 a refusal that comes behind the package changes nothing",
	  refusal_behind_the_package },
	{ "F59 a refusal before the commit ends it", refusal_before_the_commit },
	{ "A10 owed behind the end of the stream: asked for, and the urgent lane brings it",
	  arrears_are_asked_for },
	{ "A10 owed behind the end of the stream, and nothing comes: held, no SHUT",
	  arrears_that_never_come },
	{ "A10 owed behind the end of the stream: all came before the VMM loaded",
	  arrears_that_came_before_loaded },
	{ "F59 requests behind PONG 0x42 do not hold the VM up", runs_while_requests_are_unread },
};

int main(void)
{
	facts_run(facts, ARRAY_LEN(facts));
	return tap_done();
}
