/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Programs that declare nothing, and keep their address space locked when it is to be seen what
 * they have mapped.  (daemon/door_mapped.c, daemon/prove_mapped.c, door_lingered())
 */
#include "config.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib.h>

#include "core/guard.h"
#include "facts.h"
#include "lockstage.h"
#include "sys/fdpass.h"
#include "sys/maps.h"
#include "tap.h"

/* It says that it mapped the file at @address; where the answer comes. */
static int mapped(const struct scene *s, const struct program *p, uint64_t address)
{
	union regmsg m;
	size_t len = regmsg_init(&m, REGMSG_MAPPED, 5);
	struct stat st;
	int pair[2];

	expect_eq(fstat(s->file, &st), 0);
	expect_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	m.mapped.address = address;
	m.mapped.length = LOCKSTAGE_LENGTH;
	m.mapped.dev = st.st_dev;
	m.mapped.inode = st.st_ino;
	lockstage_say(p->sock, &m, len, &pair[1]);
	close(pair[1]);
	return pair[0];
}

/* 0: served; else the error. */
static unsigned map_answer(int from)
{
	gint64 until = g_get_monotonic_time() + LOCKSTAGE_PATIENCE_S * G_USEC_PER_SEC;
	union regmsg m;
	ssize_t n;

	while ((n = recv(from, &m, sizeof(m), MSG_DONTWAIT)) < 0) {
		expect(g_get_monotonic_time() < until);
		lockstage_turn();
	}
	expect(n > 0);
	close(from);
	return m.head.type == REGMSG_SERVED ? 0 : m.text.error;
}

/* A main sharer and one that declares nothing, both handed over. */
static void open_with_unaware(struct scene *s, struct program *vm, struct program *p)
{
	union regmsg m;

	lockstage_open(s);
	*vm = lockstage_start(s, "vm");
	*p = lockstage_start(s, lockstage_unaware);
	lockstage_order(vm, ORDER_READY);
	expect_eq(lockstage_result(vm, 3, &m), 0);
	lockstage_match(s);
	expect_eq(lockstage_join(s), 0);
	expect_eq(lockstage_client(s, p)->state, CLIENT_JOINED);
	expect_eq(lockstage_client(s, p)->n_proven, 1);
}

/* Where its newest mapping is: the one that was not proven. */
static uint64_t unproven(const struct scene *s, const struct program *p)
{
	cleanup_free struct maps_vma *vma = NULL;
	const struct client *c = lockstage_client(s, p);
	struct stat st;
	int n;

	expect_eq(fstat(s->file, &st), 0);
	n = maps_of_file(p->pid, st.st_dev, st.st_ino, &vma);
	/* The kernel does not join them: each shows the file from its beginning. */
	expect_eq(n, 2);
	return vma[0].start == c->proven[0].address ? vma[1].start : vma[0].start;
}

static void maps_while_locked(void)
{
	struct program vm, p;
	uint64_t address, at;
	unsigned ticks;
	struct scene s;
	union regmsg m;
	int reply;

	open_with_unaware(&s, &vm, &p);
	lockstage_order(&p, ORDER_MAP);
	address = unproven(&s, &p);
	lockstage_order(&p, ORDER_LOCK);
	ticks = s.ticks;
	reply = mapped(&s, &p, address);
	/* another is answered meanwhile */
	lockstage_order(&vm, ORDER_UNMAP);
	lockstage_order(&vm, ORDER_LEAVE);
	expect_eq(lockstage_result(&vm, 4, &m), 0);
	expect_eq(map_answer(reply), ETIMEDOUT);
	lockstage_ticked(&s, ticks);
	expect(lockstage_client(&s, &p)->asked && lockstage_client(&s, &p)->state == CLIENT_JOINED);
	/* nobody waits behind it */
	expect_eq(map_answer(mapped(&s, &p, address)), EBUSY);
	holder_let_go(s.holder);
	lockstage_answered(&s, &p);
	/* its mapping was given up, so what lies there now is none of ours */
	expect_eq(maps_proven(p.pid, address, address + LOCKSTAGE_LENGTH, &at), 0);
	expect_eq(lockstage_client(&s, &p)->n_proven, 1);
	expect_eq(map_answer(mapped(&s, &p, address)), 0);
	expect_eq(maps_proven(p.pid, address, address + LOCKSTAGE_LENGTH, &at), 1);
	expect_eq(lockstage_client(&s, &p)->n_proven, 2);
}

/*
 * The end comes while it is being looked at: what was registered is released, and then its thread
 * goes on.
 */
static void maps_at_the_end(void)
{
	struct program vm, p;
	uint64_t address, at;
	struct scene s;
	int reply;

	open_with_unaware(&s, &vm, &p);
	lockstage_order(&p, ORDER_MAP);
	address = unproven(&s, &p);
	lockstage_order(&p, ORDER_LOCK);
	reply = mapped(&s, &p, address);
	while (!lockstage_client(&s, &p)->asked)
		lockstage_turn();
	door_release(s.door);
	holder_let_go(s.holder);
	while (!lockstage_client(&s, &p)->released) {
		door_release(s.door);
		lockstage_turn();
	}
	s.snapshot.state = SESSION_COMPLETE;
	door_tell(s.door, &s.snapshot);
	expect_eq(map_answer(reply), 0);
	expect_eq(maps_proven(p.pid, address, address + LOCKSTAGE_LENGTH, &at), 0);
}

/* Does it map anything still?  As long as that is not known it does. */
static void hangs_up_while_locked(void)
{
	struct program vm, p;
	unsigned ticks;
	struct scene s;

	open_with_unaware(&s, &vm, &p);
	lockstage_order(&p, ORDER_UNMAP);
	lockstage_order(&p, ORDER_LOCK);
	ticks = s.ticks;
	shutdown(p.sock, SHUT_RDWR);
	while (!lockstage_client(&s, &p)->overdue)
		lockstage_turn();
	lockstage_ticked(&s, ticks);
	expect_eq(lockstage_client(&s, &p)->state, CLIENT_JOINED);
	holder_let_go(s.holder);
	lockstage_answered(&s, &p);
	expect_eq(lockstage_client(&s, &p)->state, CLIENT_JOINED);
}

static const struct fact facts[] = {
	{ "locked: a MAPPED fails at the deadline, and what it told of is let alone",
	  maps_while_locked },
	{ "locked: a MAPPED at the end is answered when nothing is registered any more",
	  maps_at_the_end },
	{ "locked: who hangs up counts as mapping the memory as long as nobody can look",
	  hangs_up_while_locked },
};

int main(void)
{
	facts_run(facts, ARRAY_LEN(facts));
	return tap_done();
}
