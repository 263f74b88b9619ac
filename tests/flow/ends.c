/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who has the VM at the end: our answers count when the source has them, not when we said them, and what is refused while the
 * source can go on is never held against a VM that is ours.  (F59, S1-35, qemu-wire.md 12, 13.1)
 */
#include "config.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "core/guard.h"
#include "facts.h"
#include "stage.h"
#include "sys/clock.h"
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
	for (uint64_t until = clock_ns() + STAGE_PATIENCE_MS * 1000000ull; !stage_look(&s)->running_told;)
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
	for (uint64_t until = clock_ns() + STAGE_PATIENCE_MS * 1000000ull; !stage_look(&s)->running_told;)
		expect(clock_ns() < until);
	stage_close(&s);
}

/*
 * A time-out or a signal that was decided on what the session was a moment ago.  The VM is ours by then: it goes on.
 */
static void refusal_behind_the_commit(bool commit_ping)
{
	const struct message loaded = { .kind = MESSAGE_LOADED };
	struct message stop = { .kind = MESSAGE_STOP, .stop = { .error = ETIMEDOUT, .refuse_only = true } };
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
	struct message stop = { .kind = MESSAGE_STOP, .stop = { .error = ETIMEDOUT, .refuse_only = true } };
	struct stage s;

	stage_open(&s, &(struct stage_options){ .commit_ping = true, .hold_loaded = true });
	strcpy(stop.stop.reason, "gave up");
	faultloop_post(s.loop, &stop);
	stage_wait_state(&s, SESSION_FAILED);
	while (!s.hung_up)
		stage_hear(&s, 10);
	stage_close(&s);
}

static const struct fact facts[] = {
	{ "F59 lost while SHUT is unread: ownership unknown, single lane", lost_with_shut_unread_main },
	{ "F59 lost while SHUT is unread: ownership unknown, bulk lane", lost_with_shut_unread_bulk },
	{ "F59 closed right behind SHUT: complete, single lane", closed_behind_shut_main },
	{ "F59 closed right behind SHUT: complete, bulk lane", closed_behind_shut_bulk },
	{ "F59 the VM runs when PONG 0x42 has arrived", runs_when_the_answer_arrived },
	{ "F59 gone with PONG 0x42 unread: the VM is never told to run",
	  never_runs_when_the_answer_was_not_read },
	{ "F59 a refusal that comes behind LOADED changes nothing", refusal_behind_loaded },
	{ "F59 a refusal that comes behind the package changes nothing", refusal_behind_the_package },
	{ "F59 a refusal before the commit ends it", refusal_before_the_commit },
	{ "F59 requests behind PONG 0x42 do not hold the VM up", runs_while_requests_are_unread },
};

int main(void)
{
	facts_run(facts, ARRAY_LEN(facts));
	return tap_done();
}
