/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sharers that keep their address space locked while they are to be proven, at a real door: the
 * main loop goes on, so do others, and at the deadline who is locked is refused, alone.  What its
 * proof still finds afterwards hits nobody else, and nothing that was freed.  (daemon/door_prove.c,
 * daemon/prover.c)
 */
#include "config.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

#include <glib.h>

#include "core/guard.h"
#include "facts.h"
#include "lockstage.h"
#include "tap.h"

/* As the session asks: now and then, until that is the answer. */
static void wait_strangers(struct scene *s, int want, char *why)
{
	gint64 until = g_get_monotonic_time() + LOCKSTAGE_PATIENCE_S * G_USEC_PER_SEC;

	while (door_strangers(s->door, why) != want) {
		gint64 next = g_get_monotonic_time() + 20000;

		expect(next < until);
		while (g_get_monotonic_time() < next)
			lockstage_turn();
	}
}

static void refused_alone(void)
{
	struct program stuck, vm;
	unsigned ticks;
	struct scene s;
	union regmsg m;
	char why[512];

	lockstage_open(&s);
	stuck = lockstage_start(&s, "stuck");
	vm = lockstage_start(&s, "vm");
	lockstage_order(&stuck, ORDER_LOCK);
	lockstage_order(&stuck, ORDER_READY);
	ticks = s.ticks;
	/* the other one does not wait for it */
	lockstage_order(&vm, ORDER_READY);
	expect_eq(lockstage_result(&vm, 3, &m), 0);
	expect(!door_problem(s.door, "stuck") && door_is_proving(s.door, "stuck"));
	expect_eq(lockstage_result(&stuck, 3, &m), ETIMEDOUT);
	expect(strstr(m.text.text, "does not let its mappings be seen"));
	expect_eq(strcmp(door_problem(s.door, "stuck"), m.text.text), 0);
	lockstage_ticked(&s, ticks);
	expect(door_has_main(s.door) && !door_has(s.door, "stuck"));
	lockstage_match(&s);
	expect_eq(lockstage_join(&s), 0);
	expect_eq(lockstage_client(&s, &vm)->state, CLIENT_JOINED);
	/* fail closed: it maps the memory and is not registered */
	wait_strangers(&s, 1, why);
	expect(strstr(why, "process") && lockstage_client(&s, &stuck)->asked);
}

/*
 * Its proof comes to an end after all: it stays refused, but is registered now, so it makes no
 * zeroes.
 */
static void late_proof(void)
{
	struct program stuck, vm;
	struct scene s;
	union regmsg m;
	char why[512];

	lockstage_open(&s);
	stuck = lockstage_start(&s, "stuck");
	vm = lockstage_start(&s, "vm");
	lockstage_order(&vm, ORDER_READY);
	lockstage_order(&stuck, ORDER_LOCK);
	lockstage_order(&stuck, ORDER_READY);
	expect_eq(lockstage_result(&stuck, 3, &m), ETIMEDOUT);
	lockstage_match(&s);
	expect_eq(lockstage_join(&s), 0);
	holder_let_go(s.holder);
	lockstage_answered(&s, &stuck);
	expect_eq(lockstage_client(&s, &stuck)->state, CLIENT_REFUSED);
	expect_eq(lockstage_client(&s, &stuck)->n_proven, 1);
	wait_strangers(&s, 0, why);
}

/*
 * It hangs up while its proof hangs: kept until it is known what is registered of it (O11), and
 * then to its death.
 */
static void gone_meanwhile(void)
{
	struct program stuck;
	struct scene s;
	union regmsg m;

	lockstage_open(&s);
	stuck = lockstage_start(&s, "stuck");
	lockstage_order(&stuck, ORDER_LOCK);
	lockstage_order(&stuck, ORDER_READY);
	expect_eq(lockstage_result(&stuck, 3, &m), ETIMEDOUT);
	shutdown(stuck.sock, SHUT_RDWR);
	while (door_connected(s.door))
		lockstage_turn();
	expect(lockstage_client(&s, &stuck));
	holder_let_go(s.holder);
	lockstage_answered(&s, &stuck);
	expect(lockstage_client(&s, &stuck) && lockstage_client(&s, &stuck)->n_proven == 1);
	kill(stuck.pid, SIGKILL);
	for (unsigned i = 0; i < LOCKSTAGE_PATIENCE_S * 1000 && lockstage_client(&s, &stuck); i++)
		lockstage_turn();
	expect(!lockstage_client(&s, &stuck));
}

/* The door closes with a proof out; its answer finds nobody. */
static void door_gone_meanwhile(void)
{
	struct program stuck;
	struct scene s;

	lockstage_open(&s);
	stuck = lockstage_start(&s, "stuck");
	lockstage_order(&stuck, ORDER_LOCK);
	lockstage_order(&stuck, ORDER_READY);
	while (lockstage_client(&s, &stuck)->state != CLIENT_PROVING)
		lockstage_turn();
	door_free(s.door);
	holder_let_go(s.holder);
	for (unsigned i = 0; i < 200; i++)
		lockstage_turn();
}

/* It was proven, and is locked when it is to be handed over. */
static void refused_when_it_joins(void)
{
	struct program stuck, vm;
	struct scene s;
	union regmsg m;

	lockstage_open(&s);
	stuck = lockstage_start(&s, "stuck");
	vm = lockstage_start(&s, "vm");
	lockstage_order(&stuck, ORDER_READY);
	lockstage_order(&vm, ORDER_READY);
	expect(lockstage_result(&stuck, 3, &m) == 0 && lockstage_result(&vm, 3, &m) == 0);
	lockstage_order(&stuck, ORDER_LOCK);
	lockstage_match(&s);
	expect_eq(lockstage_join(&s), 0);
	expect_eq(lockstage_client(&s, &vm)->state, CLIENT_JOINED);
	expect_eq(lockstage_client(&s, &stuck)->state, CLIENT_REFUSED);
	expect(strstr(door_problem(s.door, "stuck"), "does not let"));
}

/* At the end it cannot be released: the others are, and it is told of the end all the same. */
static void end_with_a_locked_one(void)
{
	struct program stuck, vm;
	struct scene s;
	union regmsg m;

	lockstage_open(&s);
	stuck = lockstage_start(&s, "stuck");
	vm = lockstage_start(&s, "vm");
	lockstage_order(&stuck, ORDER_READY);
	lockstage_order(&vm, ORDER_READY);
	expect(lockstage_result(&stuck, 3, &m) == 0 && lockstage_result(&vm, 3, &m) == 0);
	lockstage_match(&s);
	expect_eq(lockstage_join(&s), 0);
	lockstage_order(&stuck, ORDER_LOCK);
	door_release(s.door);
	while (!lockstage_client(&s, &vm)->released)
		lockstage_turn();
	expect(!lockstage_client(&s, &stuck)->released);
	while (!lockstage_client(&s, &stuck)->released)
		lockstage_turn();
}

/* LEAVE is answered by what is mapped; what was sent behind READY is read behind its answer. */
static void leaving(void)
{
	struct program p;
	struct scene s;
	union regmsg m;

	lockstage_open(&s);
	p = lockstage_start(&s, "vm");
	lockstage_order(&p, ORDER_READY);
	lockstage_order(&p, ORDER_LEAVE);
	expect_eq(lockstage_result(&p, 3, &m), 0);
	expect_eq(lockstage_result(&p, 4, &m), EBUSY);
	lockstage_order(&p, ORDER_UNMAP);
	lockstage_order(&p, ORDER_LEAVE);
	expect_eq(lockstage_result(&p, 4, &m), 0);
	expect_eq(lockstage_client(&s, &p)->state, CLIENT_ENDED);
	p = lockstage_start(&s, "vm");
	lockstage_order(&p, ORDER_READY);
	expect_eq(lockstage_result(&p, 3, &m), 0);
	lockstage_order(&p, ORDER_LOCK);
	lockstage_order(&p, ORDER_LEAVE);
	expect_eq(lockstage_result(&p, 4, &m), ETIMEDOUT);
	expect_eq(lockstage_client(&s, &p)->state, CLIENT_READY);
}

/*
 * S1-27: one leaves just when everything is there.  What the daemon asks about it then, of its own
 * accord, is not in its way.
 */
static void leaving_at_the_end(void)
{
	struct program vm;
	struct scene s;
	union regmsg m;

	lockstage_open(&s);
	vm = lockstage_start(&s, "vm");
	lockstage_order(&vm, ORDER_READY);
	expect_eq(lockstage_result(&vm, 3, &m), 0);
	lockstage_match(&s);
	expect_eq(lockstage_join(&s), 0);
	lockstage_order(&vm, ORDER_UNMAP);
	/* no turn of the main loop in between: the question is out when this is read */
	lockstage_say(vm.sock, &m, regmsg_init(&m, REGMSG_LEAVE, 4), NULL);
	door_release(s.door);
	expect_eq(lockstage_result(&vm, 4, &m), 0);
	expect_eq(lockstage_client(&s, &vm)->state, CLIENT_ENDED);
}

static const struct fact facts[] = {
	{ "locked: refused at the deadline, alone; the main loop and the others go on",
	  refused_alone },
	{ "locked: a proof that comes late registers, and changes nothing else", late_proof },
	{ "locked: O11 one that hangs up is kept until its proof is over", gone_meanwhile },
	{ "locked: a proof outlives its door", door_gone_meanwhile },
	{ "locked: refused when it is to join, the others join", refused_when_it_joins },
	{ "locked: the end is told without a release that takes too long", end_with_a_locked_one },
	{ "locked: LEAVE is answered, in order", leaving },
	{ "locked: S1-27 LEAVE just at the end", leaving_at_the_end },
};

int main(void)
{
	facts_run(facts, ARRAY_LEN(facts));
	return tap_done();
}
