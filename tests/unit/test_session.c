/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The session against a table written from the rules of design.md section 3, not from the code:
 * every state, every event, every flag.
 *
 * Who runs the VM after the source is lost?  The source, while it has not heard the word that
 * commits: FAILED.  Else nobody or we: PAUSED.  There are never two.
 */
#include "config.h"

#include "core/session.h"

#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

/*
 * Columns in the order of enum session_event.  '-' illegal, '.' nothing changes, 'x' the source is
 * lost, 'r' refuse, 'h' hold, 'v' recover, 'b' back to where it was lost.
 */
static const char *const rule[SESSION_STATES] = {
	/*	 ADVISE DISCARD PACKAGE ARMED LOADED OWED-NOTHING LOST REFUSE HOLD RESUME RESUMED */
	[SESSION_IDLE]		= "A-----xr---",
	[SESSION_ADVISED]	= "-DL---xr---",
	[SESSION_DISCARDING]	= "-.L---xr---",
	[SESSION_LISTENING]	= "---O--xrh--",
	[SESSION_LOADING]	= "----R-xrh--",
	[SESSION_RUNNING]	= "-----Cx-h--",
	[SESSION_PAUSED]	= "---..-.-hv-",
	[SESSION_RECOVERING]	= "---..-x-h-b",
	[SESSION_COMPLETE]	= "------.-.--",
	[SESSION_FAILED]	= "------...--",
};
static const char *const letter[SESSION_STATES] = {
	[SESSION_ADVISED] = "A", [SESSION_DISCARDING] = "D", [SESSION_LISTENING] = "L",
	[SESSION_LOADING] = "O", [SESSION_RUNNING] = "R", [SESSION_COMPLETE] = "C",
};

/*
 * May the source run its VM again when the connection ends now?  It has handed the VM over when our
 * answer committed; without such an answer when the package had come whole.  With less than all of
 * the package we cannot run the VM ourselves.
 */
static bool source_resumes(const struct session *s)
{
	return !s->committed && s->state != SESSION_PAUSED && s->state != SESSION_RECOVERING;
}

#define FLAGS 32		/* that a session can have, together */

static enum session_state by_letter(char c)
{
	for (unsigned i = 0; i < SESSION_STATES; i++)
		if (letter[i] && letter[i][0] == c)
			return (enum session_state)i;
	cr_assert_fail("no state '%c'", c);
	return SESSION_STATES;
}

/* What session_feed must return, and the state after it. */
static int expected(const struct session *s, enum session_event event, enum session_state *to)
{
	char c = rule[s->state][event];

	*to = s->state;
	if (c == '-' || (c == 'r' && !source_resumes(s)) || (c == 'h' && source_resumes(s)) ||
	    (c == 'v' && s->held))
		return -EPROTO;
	if (c == '.')
		return 0;
	if (c == 'x')
		*to = source_resumes(s) ? SESSION_FAILED : SESSION_PAUSED;
	else if (c == 'r')
		*to = SESSION_FAILED;
	else if (c == 'h')
		*to = SESSION_PAUSED;
	else if (c == 'v')
		*to = SESSION_RECOVERING;
	else if (c == 'b')
		*to = s->loaded ? SESSION_RUNNING : s->armed ? SESSION_LOADING : SESSION_LISTENING;
	else
		*to = by_letter(c);
	return *to != s->state;
}

static void one_pair(const struct session *before, enum session_event event)
{
	struct session s = *before;
	enum session_state to;
	int want = expected(before, event, &to), got = session_feed(&s, event);

	cr_assert_eq(got, want, "%s + %s (%d%d): %d, not %d", session_state_name(before->state),
		     session_event_name(event), before->answer_commits, before->committed, got,
		     want);
	cr_assert_eq(s.state, to, "%s + %s (%d%d): to %s, not %s",
		     session_state_name(before->state), session_event_name(event),
		     before->answer_commits, before->committed, session_state_name(s.state),
		     session_state_name(to));
	cr_assert_eq(s.answer_commits, before->answer_commits);
	cr_assert_eq(s.armed, before->armed || (got >= 0 && event == SESSION_ARMED));
	cr_assert_eq(s.loaded, before->loaded ||
				       (got >= 0 && event == SESSION_LOADED && before->armed));
	cr_assert_eq(s.held, before->held || (got >= 0 && event == SESSION_HOLD &&
					      s.state == SESSION_PAUSED));
	if (got >= 0 && event == SESSION_LOADED)
		cr_assert(s.committed, "our answer leaves now");
	else if (got == 1 && event == SESSION_PACKAGE && !s.answer_commits)
		cr_assert(s.committed, "no answer is waited for");
	else
		cr_assert_eq(s.committed, before->committed,
			     "nothing else commits, and a commit is for ever");
}

Test(session, every_state_every_event_every_flag)
{
	unsigned pairs = 0;

	for (unsigned state = 0; state < SESSION_STATES; state++)
		for (unsigned event = 0; event < SESSION_EVENTS; event++)
			for (unsigned flags = 0; flags < FLAGS; flags++) {
				struct session s = {
					.state = (enum session_state)state,
					.answer_commits = flags & 1,
					.committed = flags & 2,
					.armed = flags & 4,
					.loaded = flags & 8,
					.held = flags & 16,
				};

				one_pair(&s, (enum session_event)event);
				pairs++;
			}
	cr_assert_eq(pairs, SESSION_STATES * SESSION_EVENTS * FLAGS);
}

Test(session, the_table_has_a_column_for_every_event)
{
	for (unsigned state = 0; state < SESSION_STATES; state++)
		cr_assert_eq(strlen(rule[state]), SESSION_EVENTS, "%s", session_state_name(state));
}

/* Walk all that can be reached and ask in each state: who runs the VM if the source is lost now? */
static void explore(struct session s, bool seen[SESSION_STATES][FLAGS])
{
	unsigned flags = s.answer_commits | s.committed << 1 | s.armed << 2 | s.loaded << 3 |
			 s.held << 4;
	struct session lost = s;

	if (seen[s.state][flags])
		return;
	seen[s.state][flags] = true;
	if (s.state == SESSION_RUNNING)
		cr_assert(s.committed, "the VM runs here and the source does not know");
	if (s.state == SESSION_PAUSED || s.state == SESSION_RECOVERING)
		cr_assert(s.committed, "paused, and the source may run its VM");
	cr_assert(!s.held || s.state == SESSION_PAUSED, "held is for good");
	cr_assert(session_feed(&lost, SESSION_SOURCE_LOST) >= 0, "a loss is legal everywhere");
	if (source_resumes(&s))
		cr_assert_eq(lost.state, SESSION_FAILED, "%s: two running VMs",
			     session_state_name(s.state));
	else
		cr_assert_neq(lost.state, SESSION_FAILED, "%s: no running VM, and it could be one",
			      session_state_name(s.state));
	if (session_may_refuse(&s))
		cr_assert(source_resumes(&s), "%s: a refusal would leave no VM",
			  session_state_name(s.state));
	for (unsigned event = 0; event < SESSION_EVENTS; event++) {
		struct session next = s;

		if (session_feed(&next, (enum session_event)event) >= 0)
			explore(next, seen);
	}
	/* what the caller sets: the package holds the question that we answer to commit */
	if (s.state == SESSION_ADVISED || s.state == SESSION_DISCARDING) {
		s.answer_commits = true;
		explore(s, seen);
	}
}

Test(session, never_two_running_vms)
{
	bool seen[SESSION_STATES][FLAGS] = { { false } };
	struct session s;

	session_init(&s);
	explore(s, seen);
	for (unsigned state = 0; state < SESSION_STATES; state++) {
		bool reached = false;

		for (unsigned flags = 0; flags < FLAGS; flags++)
			reached |= seen[state][flags];
		cr_assert(reached, "%s was not reached", session_state_name(state));
	}
}

static void walk(struct session *s, const enum session_event *events, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		cr_assert_geq(session_feed(s, events[i]), 0, "%s in %s",
			      session_event_name(events[i]), session_state_name(s->state));
}

Test(session, a_postcopy_from_beginning_to_end)
{
	static const enum session_event way[] = {
		SESSION_ADVISE, SESSION_DISCARD, SESSION_DISCARD, SESSION_PACKAGE, SESSION_ARMED,
		SESSION_LOADED, SESSION_OWED_NOTHING, SESSION_SOURCE_LOST,
	};
	struct session s;

	session_init(&s);
	cr_expect_eq(s.state, SESSION_IDLE);
	cr_expect(session_may_refuse(&s));
	walk(&s, way, 8);
	cr_expect_eq(s.state, SESSION_COMPLETE);
	cr_expect_not(session_may_refuse(&s));
}

Test(session, a_precopy_walks_the_same_way)
{
	static const enum session_event way[] = {
		SESSION_ADVISE, SESSION_PACKAGE,      SESSION_ARMED,
		SESSION_LOADED, SESSION_OWED_NOTHING,
	};
	struct session s;

	session_init(&s);
	s.answer_commits = true;
	walk(&s, way, 3);
	cr_expect(session_may_refuse(&s), "the source waits for SHUT");
	walk(&s, way + 3, 2);
	cr_expect_eq(s.state, SESSION_COMPLETE);
}

/* Without a question to answer, the package commits: we never close by ourselves afterwards. */
Test(session, commit_by_the_package)
{
	struct session s;

	session_init(&s);
	walk(&s, (enum session_event[]){ SESSION_ADVISE, SESSION_DISCARD }, 2);
	cr_expect(session_may_refuse(&s));
	walk(&s, (enum session_event[]){ SESSION_PACKAGE }, 1);
	cr_expect(s.committed);
	cr_expect_not(session_may_refuse(&s));
	cr_expect_eq(session_feed(&s, SESSION_REFUSE), -EPROTO);
	cr_expect_eq(s.state, SESSION_LISTENING);
	cr_expect_eq(session_feed(&s, SESSION_SOURCE_LOST), 1);
	cr_expect_eq(s.state, SESSION_PAUSED);
}

Test(session, commit_by_our_answer)
{
	struct session s;

	session_init(&s);
	s.answer_commits = true;
	walk(&s,
	     (enum session_event[]){ SESSION_ADVISE, SESSION_DISCARD, SESSION_PACKAGE,
				     SESSION_ARMED },
	     4);
	cr_expect_not(s.committed);
	cr_expect(session_may_refuse(&s));
	walk(&s, (enum session_event[]){ SESSION_LOADED }, 1);
	cr_expect(s.committed);
	cr_expect_not(session_may_refuse(&s));
	cr_expect_eq(session_feed(&s, SESSION_REFUSE), -EPROTO);
}

/* Lost and found, in each of the states in which it can be ours, as often as it happens. */
Test(session, F59_a_recovery_goes_back_to_where_it_was_lost)
{
	static const enum session_event way[] = { SESSION_ARMED, SESSION_LOADED };
	static const enum session_state at[] = { SESSION_LISTENING, SESSION_LOADING,
						 SESSION_RUNNING };
	struct session s;

	session_init(&s);
	walk(&s, (enum session_event[]){ SESSION_ADVISE, SESSION_DISCARD, SESSION_PACKAGE }, 3);
	for (unsigned i = 0; i < 3; i++) {
		cr_assert_eq(s.state, at[i]);
		for (unsigned k = 0; k < 3; k++) {
			walk(&s, (enum session_event[]){ SESSION_SOURCE_LOST, SESSION_RESUME }, 2);
			cr_assert_eq(s.state, SESSION_RECOVERING);
			cr_assert_not(session_may_refuse(&s));
			/* it breaks in the middle, and comes again */
			walk(&s, (enum session_event[]){ SESSION_SOURCE_LOST, SESSION_RESUME,
							 SESSION_RESUMED }, 3);
			cr_assert_eq(s.state, at[i]);
		}
		if (i < 2)
			walk(&s, &way[i], 1);
	}
	walk(&s, (enum session_event[]){ SESSION_OWED_NOTHING }, 1);
}

/* What the main sharer did while nobody was there to be told counts when somebody is. */
Test(session, F59_what_came_while_paused_is_remembered)
{
	struct session s;

	session_init(&s);
	walk(&s, (enum session_event[]){ SESSION_ADVISE, SESSION_DISCARD, SESSION_PACKAGE,
					 SESSION_SOURCE_LOST, SESSION_ARMED, SESSION_RESUME,
					 SESSION_LOADED, SESSION_RESUMED }, 8);
	cr_assert_eq(s.state, SESSION_RUNNING);
}

Test(session, what_is_held_is_not_recovered)
{
	struct session s;

	session_init(&s);
	walk(&s, (enum session_event[]){ SESSION_ADVISE, SESSION_DISCARD }, 2);
	cr_assert_eq(session_feed(&s, SESSION_HOLD), -EPROTO, "it is to be refused");
	walk(&s, (enum session_event[]){ SESSION_PACKAGE, SESSION_ARMED, SESSION_LOADED,
					 SESSION_SOURCE_LOST }, 4);
	cr_assert_not(s.held);
	cr_assert_eq(session_feed(&s, SESSION_HOLD), 0);
	cr_assert(s.held);
	cr_assert_eq(session_feed(&s, SESSION_RESUME), -EPROTO);
	cr_assert_eq(s.state, SESSION_PAUSED);
}

Test(session, O7_discard_only_before_the_package)
{
	for (unsigned state = SESSION_LISTENING; state < SESSION_STATES; state++)
		for (unsigned flags = 0; flags < 4; flags++) {
			struct session s = { .state = (enum session_state)state,
					     .answer_commits = flags & 1,
					     .committed = flags & 2 };

			cr_assert_eq(session_feed(&s, SESSION_DISCARD), -EPROTO);
		}
}

Test(session, every_state_and_event_has_a_name_of_its_own)
{
	for (unsigned i = 0; i < SESSION_STATES; i++)
		for (unsigned k = 0; k < i; k++)
			cr_assert_str_neq(session_state_name(i), session_state_name(k));
	for (unsigned i = 0; i < SESSION_EVENTS; i++)
		for (unsigned k = 0; k < i; k++)
			cr_assert_str_neq(session_event_name(i), session_event_name(k));
	cr_assert_str_eq(session_state_name(SESSION_STATES), "?");
	cr_assert_str_eq(session_event_name(SESSION_EVENTS), "?");
	cr_assert_str_eq(session_state_name((enum session_state)-1), "?");
}
