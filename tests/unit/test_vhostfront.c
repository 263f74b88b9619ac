/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The front-end of a vhost-user back-end: what each request of the VMM becomes in each state, as
 * words; and what becomes of it when the back-end does not do its part.  (P15, P26, P27, F21)
 */
#include "config.h"

#include "core/vhostfront.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"

#define PF VHOSTFRONT_PAGEFAULT
#define ACK VHOSTFRONT_REPLY_ACK
#define EVERYTHING (ACK | PF | VHOSTFRONT_MEM_SLOTS | 1)

static const char *const verbs[VHOSTFRONT_VERBS] = {
	[VHOSTFRONT_DO_RELAY] = "relay",	   [VHOSTFRONT_DO_RELAY_BASES] = "bases",
	[VHOSTFRONT_DO_ADVISE] = "ADVISE",	   [VHOSTFRONT_DO_LISTEN] = "LISTEN",
	[VHOSTFRONT_DO_END] = "END",		   [VHOSTFRONT_DO_BARRIER] = "barrier",
	[VHOSTFRONT_DO_STOP_RING] = "stop",	   [VHOSTFRONT_DO_ACK_BASES] = "ack",
	[VHOSTFRONT_DO_PROVE] = "prove",	   [VHOSTFRONT_DO_KEEP] = "keep",
	[VHOSTFRONT_DO_HOLD] = "hold",		   [VHOSTFRONT_DO_RELEASE] = "release",
	[VHOSTFRONT_DO_REPLAY] = "replay",	   [VHOSTFRONT_DO_RESTART] = "restart",
	[VHOSTFRONT_DO_DROP] = "drop",		   [VHOSTFRONT_DO_DROP_ORPHANS] = "orphans",
	[VHOSTFRONT_DO_QUARANTINE] = "quarantine", [VHOSTFRONT_DO_ANSWER] = "answer",
	[VHOSTFRONT_DO_ANSWER_BASE] = "base",	   [VHOSTFRONT_DO_PASS_ANSWER] = "pass",
	[VHOSTFRONT_DO_PASS_REPAIRED] = "repaired",
};

struct rig {
	struct vhostfront v;
	struct vhostfront_action last;
	char trace[400];
	uint64_t offers;
};

static const struct vhostfront_config usual = {
	.dialect = VHOSTFRONT_UNIVERSAL,
	.protocol = EVERYTHING,
	.answer_limit = 10,
	.proof_limit = 100,
};

/* The next action is put on the trace and into r->last. */
static bool take(struct rig *r)
{
	size_t len = strlen(r->trace);

	if (!vhostfront_next(&r->v, &r->last))
		return false;
	snprintf(r->trace + len, sizeof(r->trace) - len, "%s%s%s", len ? " " : "",
		 verbs[r->last.verb],
		 r->last.verb == VHOSTFRONT_DO_PROVE && r->last.value ? "+register" : "");
	return true;
}

/* A back-end that does all it is told; the trace says what that was. */
static void play(struct rig *r)
{
	do {
		while (take(r))
			;
		if (r->v.wait == VHOSTFRONT_AWAITS_ANSWER)
			vhostfront_answered(
				&r->v, NULL,
				r->v.said.what == VHOSTFRONT_GET_PROTOCOL ? r->offers : 0, 0);
		else if (r->v.wait == VHOSTFRONT_AWAITS_PROOF)
			vhostfront_proved(&r->v, NULL, 0);
	} while (r->v.n_actions || r->v.wait != VHOSTFRONT_IDLE);
}

static int say(struct rig *r, struct vhostfront_said said)
{
	int err;

	r->trace[0] = '\0';
	err = vhostfront_hear(&r->v, &said, 0);
	play(r);
	return err;
}

#define SAY(r, WHAT, ...) say(r, (struct vhostfront_said){ .what = VHOSTFRONT_##WHAT, __VA_ARGS__ })
#define SAYS(r, words, WHAT, ...)                                                                  \
	do {                                                                                       \
		cr_assert_eq(SAY(r, WHAT, __VA_ARGS__), 0, "%s", (r)->v.refusal);                  \
		cr_assert_str_eq((r)->trace, words);                                               \
	} while (0)
#define REFUSES(r, word, WHAT, ...)                                                                \
	do {                                                                                       \
		cr_assert_eq(SAY(r, WHAT, __VA_ARGS__), -EPROTO);                                  \
		cr_assert_str_eq((r)->trace, "");                                                  \
		cr_assert(strstr((r)->v.refusal, word), "%s", (r)->v.refusal);                     \
	} while (0)

static void after(struct rig *r, const char *words)
{
	r->trace[0] = '\0';
	play(r);
	cr_assert_str_eq(r->trace, words);
}

/* Connected and negotiated; the VMM takes what it is shown but REPLY_ACK. */
static void connect_with(struct rig *r, const struct vhostfront_config *config, uint64_t offers)
{
	memset(r, 0, sizeof(*r));
	r->offers = offers;
	vhostfront_init(&r->v, config);
	SAYS(r, "relay pass", GET_PROTOCOL, .wants = true, .data = true);
	SAYS(r, "relay keep", SET_PROTOCOL, .value = r->last.value & ~ACK);
}

static void connect_to(struct rig *r, enum vhostfront_dialect dialect, bool repair)
{
	struct vhostfront_config config = usual;

	config.dialect = dialect;
	config.repair = repair;
	connect_with(r, &config, EVERYTHING);
}

static void fed(struct rig *r, const char *words)
{
	r->trace[0] = '\0';
	vhostfront_fed(&r->v, 0);
	play(r);
	cr_assert_str_eq(r->trace, words);
}

static void resident(struct rig *r, const char *words)
{
	vhostfront_resident(&r->v, 0);
	after(r, words);
}

/* --- the dialects --- */

Test(vhostfront, P15_early)
{
	struct vhostfront_config config = usual;
	struct rig r;

	config.early = true;
	connect_with(&r, &config, EVERYTHING);
	SAYS(&r, "ADVISE relay prove+register keep answer", TABLE, .wants = true);
	SAYS(&r, "hold", RING_ADDR);
	SAYS(&r, "hold answer", RING_ENABLE, .value = 1, .wants = true);
	vhostfront_serving(&r.v, 0);
	after(&r, "release");
	SAYS(&r, "relay keep", RING_ADDR, .fed = true);
	fed(&r, "");
	SAYS(&r, "relay keep", RING_KICK);
}

Test(vhostfront, P15_universal)
{
	struct rig r;

	connect_to(&r, VHOSTFRONT_UNIVERSAL, false);
	SAYS(&r, "ADVISE relay prove+register keep", TABLE);
	SAYS(&r, "relay keep", RING_ADDR);
	SAYS(&r, "relay keep", RING_KICK);
	SAYS(&r, "relay prove+register keep answer", ADD_SLOT, .wants = true);
	SAYS(&r, "relay keep pass", DROP_SLOT, .wants = true);
	resident(&r, "END drop");
	resident(&r, "");
	SAYS(&r, "relay keep", TABLE);
}

Test(vhostfront, P15_spec)
{
	struct rig r;

	connect_to(&r, VHOSTFRONT_SPEC, false);
	SAYS(&r, "ADVISE LISTEN bases ack barrier prove keep answer", TABLE, .wants = true);
	SAYS(&r, "bases ack barrier prove keep", TABLE);
	REFUSES(&r, "slot", ADD_SLOT);
	SAYS(&r, "relay keep", RING_KICK);
	resident(&r, "END drop");
}

Test(vhostfront, P15_rust)
{
	struct rig r;

	connect_to(&r, VHOSTFRONT_RUST, false);
	SAYS(&r, "relay ADVISE LISTEN prove keep", TABLE);
	SAYS(&r, "relay prove+register keep", ADD_SLOT);
	resident(&r, "END drop");
}

Test(vhostfront, gated)
{
	struct rig r;

	connect_to(&r, VHOSTFRONT_GATED, false);
	SAYS(&r, "relay keep", OTHER);
	SAYS(&r, "hold answer", TABLE, .wants = true);
	SAYS(&r, "hold", ADD_SLOT);
	SAYS(&r, "relay pass", OTHER, .wants = true, .data = true);
	SAYS(&r, "hold answer", OTHER, .wants = true);
	SAYS(&r, "hold", RING_BASE, .ring = 3, .value = 77);
	SAYS(&r, "hold", RING_KICK, .ring = 3);
	SAYS(&r, "hold base", RING_STOP, .ring = 3, .wants = true, .data = true);
	cr_assert(r.last.ring == 3 && r.last.value == 77);
	resident(&r, "release");
	SAYS(&r, "relay keep", TABLE, .fed = true);
	SAYS(&r, "relay keep", RING_KICK, .fed = true);
	cr_assert(!vhostfront_ready(&r.v, false));
	fed(&r, "");
	SAYS(&r, "relay keep", RING_KICK);
	cr_assert(!r.v.ended, "nobody was advised");
}

/* A VMM that never stops talking is no reason to run out of memory. */
Test(vhostfront, holds_no_more_than_that)
{
	struct rig r;

	connect_to(&r, VHOSTFRONT_GATED, false);
	SAYS(&r, "hold", TABLE);
	for (unsigned i = 1; i < VHOSTFRONT_HELD; i++)
		SAYS(&r, "hold", RING_BASE, .ring = i % VHOSTFRONT_RINGS);
	REFUSES(&r, "can be held", RING_BASE, .ring = 3);
	resident(&r, "release");
}

/* A back-end without PAGEFAULT: waits, or is refused. */
Test(vhostfront, cannot_fault)
{
	struct vhostfront_config config = usual;
	struct rig r;

	connect_with(&r, &config, EVERYTHING & ~PF);
	REFUSES(&r, "PAGEFAULT", TABLE);
	config.may_gate = true;
	connect_with(&r, &config, EVERYTHING & ~PF);
	SAYS(&r, "hold", TABLE);
	cr_assert_eq(r.v.dialect, VHOSTFRONT_GATED);
	connect_with(&r, &config, 0);
	SAYS(&r, "hold", TABLE);
}

Test(vhostfront, without_acknowledgements_there_is_a_barrier)
{
	struct rig r;

	connect_with(&r, &usual, EVERYTHING & ~ACK);
	SAYS(&r, "ADVISE relay barrier prove+register keep", TABLE);
}

Test(vhostfront, features_are_hidden_and_added)
{
	static const struct {
		enum vhostfront_dialect dialect;
		bool repair;
		uint64_t shown, told;
	} cases[] = {
		{ VHOSTFRONT_UNIVERSAL, false, EVERYTHING & ~PF, ACK | PF | 1 },
		{ VHOSTFRONT_SPEC, false, ACK | 1, ACK | PF | 1 },
		{ VHOSTFRONT_RUST, false, EVERYTHING & ~PF, ACK | PF | 1 },
		{ VHOSTFRONT_GATED, false, EVERYTHING & ~PF, 1 },
		{ VHOSTFRONT_UNIVERSAL, true, ACK | PF | 1, 1 },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct vhostfront_config config = usual;
		struct rig r = { .offers = EVERYTHING | UINT64_C(1) << 40 };

		config.dialect = cases[i].dialect;
		config.repair = cases[i].repair;
		vhostfront_init(&r.v, &config);
		SAYS(&r, "relay pass", GET_PROTOCOL, .wants = true, .data = true);
		cr_assert_eq(r.last.value, cases[i].shown, "%zu", i);
		REFUSES(&r, "not offered", SET_PROTOCOL, .value = UINT64_C(1) << 40);
		if (!cases[i].repair)
			REFUSES(&r, "not offered", SET_PROTOCOL, .value = PF);
		SAYS(&r, "relay keep", SET_PROTOCOL, .value = 1);
		cr_assert_eq(r.v.agreed, cases[i].told, "%zu", i);
	}
}

Test(vhostfront, a_table_that_is_in_force_is_not_told_again)
{
	struct rig r;

	connect_to(&r, VHOSTFRONT_SPEC, false);
	SAYS(&r, "ADVISE LISTEN bases ack barrier prove keep", TABLE, .same = true);
	SAYS(&r, "answer", TABLE, .same = true, .wants = true);
	SAYS(&r, "", TABLE, .same = true);
}

/* --- rings --- */

/* QEMU enables the rings of a network device before it tells of memory. */
Test(vhostfront, rings_wait_for_the_proof)
{
	struct rig r;

	connect_to(&r, VHOSTFRONT_UNIVERSAL, false);
	SAYS(&r, "relay keep", RING_BASE, .ring = 1, .value = 5);
	SAYS(&r, "hold answer", RING_ENABLE, .ring = 1, .value = 1, .wants = true);
	SAYS(&r, "hold", RING_BASE, .ring = 1, .value = 9);
	SAYS(&r, "hold base", RING_STOP, .ring = 1, .wants = true, .data = true);
	cr_assert_eq(r.last.value, 9);
	SAYS(&r, "hold", RING_ADDR);
	SAYS(&r, "hold", RING_KICK);
	SAYS(&r, "relay keep", SET_FEATURES);
	SAYS(&r, "ADVISE relay prove+register keep release", TABLE);
	cr_assert(!vhostfront_ready(&r.v, false));
	SAYS(&r, "relay keep", RING_KICK, .fed = true, .wants = true);
	fed(&r, "");
	REFUSES(&r, "no ring", RING_KICK, .ring = VHOSTFRONT_RINGS);
}

/* libvhost-user maps everything anew, with threads at work. */
Test(vhostfront, rings_stop_for_a_new_table)
{
	struct rig r;

	connect_to(&r, VHOSTFRONT_UNIVERSAL, false);
	SAY(&r, TABLE);
	SAY(&r, RING_KICK, .ring = 0);
	SAY(&r, RING_KICK, .ring = 70);
	SAY(&r, RING_KICK, .ring = 255);
	SAYS(&r, "relay prove+register keep", ADD_SLOT);
	SAYS(&r, "stop stop stop relay prove+register keep answer restart release", TABLE,
	     .wants = true);
	SAYS(&r, "relay keep", RING_KICK, .fed = true, .ring = 70);
	fed(&r, "");
	SAYS(&r, "relay keep pass", RING_STOP, .ring = 70, .wants = true, .data = true);
	SAYS(&r, "relay prove+register keep", TABLE);
}

/* --- when it goes wrong --- */

static void lost(struct rig *r, const char *words, const char *reason)
{
	cr_assert(r->v.reason && strstr(r->v.reason, reason), "%s",
		  r->v.reason ? r->v.reason : "no quarantine");
	after(r, words);
	cr_assert(!vhostfront_ready(&r->v, false) && !vhostfront_ready(&r->v, true));
}

static void hear(struct rig *r, enum vhostfront_what what, bool wants)
{
	cr_assert_eq(vhostfront_hear(&r->v,
				     &(struct vhostfront_said){ .what = what, .wants = wants }, 0),
		     0);
	while (take(r))
		;
}

/* The back-end does @n of the things that a table needs, and not the next. */
static void stall(enum vhostfront_dialect dialect, unsigned n)
{
	struct rig r;
	uint64_t limit;

	connect_to(&r, dialect, false);
	hear(&r, VHOSTFRONT_TABLE, false);
	for (unsigned i = 0; i < n; i++) {
		if (r.v.wait == VHOSTFRONT_AWAITS_ANSWER)
			vhostfront_answered(&r.v, NULL, 0, 0);
		else
			vhostfront_proved(&r.v, NULL, 0);
		while (take(&r))
			;
	}
	cr_assert_neq(r.v.wait, VHOSTFRONT_IDLE);
	limit = r.v.wait == VHOSTFRONT_AWAITS_PROOF ? 100 : 10;
	vhostfront_tick(&r.v, limit - 1);
	cr_assert_null(r.v.reason);
	vhostfront_tick(&r.v, limit);
	r.trace[0] = '\0';
	lost(&r, "keep quarantine", "in time");
	cr_assert_eq(r.v.since, limit);
}

Test(vhostfront, answers_that_do_not_come)
{
	for (unsigned n = 0; n < 3; n++)
		stall(VHOSTFRONT_UNIVERSAL, n);
	for (unsigned n = 0; n < 5; n++)
		stall(VHOSTFRONT_SPEC, n);
	for (unsigned n = 0; n < 4; n++)
		stall(VHOSTFRONT_RUST, n);
}

Test(vhostfront, answers_that_are_wrong)
{
	struct rig r;

	connect_to(&r, VHOSTFRONT_UNIVERSAL, false);
	vhostfront_answered(&r.v, NULL, 0, 0);
	lost(&r, "quarantine", "nobody asked");

	connect_to(&r, VHOSTFRONT_UNIVERSAL, false);
	hear(&r, VHOSTFRONT_TABLE, true);
	vhostfront_answered(&r.v, "no descriptor", 0, 0);
	cr_assert(vhostfront_next(&r.v, &r.last) && r.last.urged, "the VMM waits");
	lost(&r, "", "no descriptor");

	connect_to(&r, VHOSTFRONT_SPEC, false);
	hear(&r, VHOSTFRONT_TABLE, false);
	vhostfront_answered(&r.v, NULL, 0, 0);
	vhostfront_answered(&r.v, NULL, UINT64_MAX, 0);
	lost(&r, "LISTEN keep quarantine", "LISTEN");
}

Test(vhostfront, what_is_not_registered_does_not_run)
{
	struct rig r;

	connect_to(&r, VHOSTFRONT_UNIVERSAL, false);
	hear(&r, VHOSTFRONT_TABLE, false);
	vhostfront_answered(&r.v, NULL, 0, 0);
	vhostfront_answered(&r.v, NULL, 0, 0);
	vhostfront_proved(&r.v, "a mapping has no um", 0);
	lost(&r, "relay prove+register keep quarantine", "no um");
	vhostfront_proved(&r.v, NULL, 0);
	vhostfront_answered(&r.v, NULL, 0, 0);
	vhostfront_lost(&r.v, "again", 0);
	lost(&r, "", "no um");
	resident(&r, "orphans");
}

Test(vhostfront, a_refused_table)
{
	struct rig r;

	connect_to(&r, VHOSTFRONT_UNIVERSAL, false);
	hear(&r, VHOSTFRONT_TABLE, true);
	vhostfront_answered(&r.v, NULL, 0, 0);
	vhostfront_answered(&r.v, NULL, 1, 0);
	after(&r, "relay answer");
	cr_assert_eq(r.last.value, 1);
	SAYS(&r, "hold", RING_KICK);
	hear(&r, VHOSTFRONT_TABLE, false);
	vhostfront_answered(&r.v, NULL, 1, 0);
	lost(&r, "keep quarantine", "refused the memory table");
}

Test(vhostfront, F15_a_new_back_end_is_advised_before_its_table)
{
	struct rig r;

	connect_to(&r, VHOSTFRONT_UNIVERSAL, false);
	SAY(&r, TABLE);
	SAY(&r, RING_KICK);
	vhostfront_lost(&r.v, "it died", 7);
	lost(&r, "quarantine", "died");
	cr_assert_eq(vhostfront_joined(&r.v), 0);
	after(&r, "replay");
	SAYS(&r, "relay keep", SET_PROTOCOL, .fed = true, .value = 1);
	SAYS(&r, "hold", RING_KICK, .fed = true);
	SAYS(&r, "ADVISE relay prove+register keep", TABLE, .fed = true, .wants = true);
	fed(&r, "release");
	SAYS(&r, "relay keep", RING_KICK, .fed = true);
	fed(&r, "");
	resident(&r, "orphans END drop");
}

Test(vhostfront, P27_the_end_comes_when_everything_is_there)
{
	struct rig r;

	connect_to(&r, VHOSTFRONT_UNIVERSAL, false);
	hear(&r, VHOSTFRONT_TABLE, false);
	vhostfront_resident(&r.v, 0); /* in the middle of the exchange */
	after(&r, "relay prove+register keep END drop");

	connect_to(&r, VHOSTFRONT_UNIVERSAL, false);
	SAY(&r, TABLE);
	vhostfront_resident(&r.v, 0);
	while (take(&r))
		;
	vhostfront_tick(&r.v, 10);
	lost(&r, "drop quarantine", "POSTCOPY_END");

	connect_to(&r, VHOSTFRONT_UNIVERSAL, false);
	resident(&r, "");
	SAYS(&r, "relay keep", TABLE);
	SAYS(&r, "relay keep", RING_KICK);
}

/* --- repair mode --- */

static void repair_listening(struct rig *r)
{
	connect_to(r, VHOSTFRONT_UNIVERSAL, true);
	SAYS(r, "relay pass", ADVISE, .wants = true, .data = true);
	SAYS(r, "relay pass", LISTEN, .wants = true, .data = true);
}

Test(vhostfront, repair)
{
	struct rig r;

	repair_listening(&r);
	SAYS(&r, "hold", RING_ENABLE);
	SAYS(&r, "bases keep repaired", TABLE, .wants = true, .data = true);
	SAYS(&r, "hold", RING_KICK);
	SAYS(&r, "ack barrier prove release", BASES_ACK);
	SAYS(&r, "relay keep", RING_KICK, .fed = true);
	fed(&r, "");
	SAYS(&r, "relay keep", RING_KICK);
	REFUSES(&r, "slot", ADD_SLOT);
	SAYS(&r, "bases keep repaired", TABLE, .wants = true, .data = true);
	SAYS(&r, "hold", RING_ADDR);
	resident(&r, "release");
	fed(&r, "");
	SAYS(&r, "relay pass", END, .wants = true, .data = true);
	SAYS(&r, "relay keep", TABLE);
}

Test(vhostfront, repair_without_postcopy)
{
	struct rig r;

	connect_to(&r, VHOSTFRONT_UNIVERSAL, true);
	SAYS(&r, "relay pass", ADVISE, .wants = true, .data = true);
	SAYS(&r, "relay keep pass", TABLE, .wants = true);
	SAYS(&r, "relay keep", RING_KICK);
	REFUSES(&r, "nobody told", BASES_ACK);
}

Test(vhostfront, repair_takes_in_no_new_back_end)
{
	struct vhostfront_config config = usual;
	struct rig r;

	repair_listening(&r);
	vhostfront_lost(&r.v, "it died", 0);
	lost(&r, "quarantine", "died");
	cr_assert_eq(vhostfront_joined(&r.v), -EPROTO);
	cr_assert(strstr(r.v.refusal, "zeroes"));
	config.repair = config.begun = true;
	connect_with(&r, &config, EVERYTHING);
	REFUSES(&r, "zeroes", TABLE);
}

Test(vhostfront, repair_refuses_multiqueue_net)
{
	struct rig r;

	repair_listening(&r);
	REFUSES(&r, "multiqueue", SET_FEATURES, .value = VHOSTFRONT_NET_MQ);
	connect_to(&r, VHOSTFRONT_UNIVERSAL, true);
	SAY(&r, SET_FEATURES, .value = VHOSTFRONT_NET_MQ);
	REFUSES(&r, "multiqueue", ADVISE);
	REFUSES(&r, "multiqueue", LISTEN);
}

Test(vhostfront, repair_listen_refused)
{
	struct vhostfront_said listen = { .what = VHOSTFRONT_LISTEN, .wants = true, .data = true };
	struct rig r;

	connect_to(&r, VHOSTFRONT_UNIVERSAL, true);
	cr_assert_eq(vhostfront_hear(&r.v, &listen, 0), 0);
	vhostfront_answered(&r.v, NULL, 1, 0);
	cr_assert(!r.v.listening);
}

Test(vhostfront, no_postcopy_of_the_vmm_in_ours)
{
	struct rig r;

	connect_to(&r, VHOSTFRONT_UNIVERSAL, false);
	REFUSES(&r, "of its own", ADVISE);
	REFUSES(&r, "of its own", LISTEN);
	REFUSES(&r, "of its own", END);
	REFUSES(&r, "nobody told", BASES_ACK);
}

Test(vhostfront, names)
{
	cr_assert_str_eq(vhostfront_dialect_name(VHOSTFRONT_UNIVERSAL), "universal");
	cr_assert_str_eq(vhostfront_dialect_name(VHOSTFRONT_GATED), "gated");
	cr_assert_str_eq(vhostfront_dialect_name(VHOSTFRONT_DIALECTS), "?");
}
