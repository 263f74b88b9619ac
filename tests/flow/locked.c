/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sharers that keep their address space locked while they are to be proven, at a real door: the main
 * loop goes on, so do others, and at the deadline who is locked is refused, alone.  What its proof
 * still finds afterwards hits nobody else, and nothing that was freed.  (daemon/door_prove.c,
 * daemon/prover.c)
 */
#include "config.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glib.h>
#include <linux/userfaultfd.h>

#include "core/guard.h"
#include "daemon/door_native.h"
#include "facts.h"
#include "holder.h"
#include "sys/fd.h"
#include "sys/fdpass.h"
#include "tap.h"
#include "wire/regmsg.h"

#define LENGTH	   (64u * 4096u)
#define DEADLINE_S 1
#define PATIENCE_S 20
#define TICK_MS	   5

struct program {
	pid_t pid;
	int orders, sock;		/* sock: its end of the registration, borrowed */
};

struct scene {
	struct faultloop *loop;
	struct door *door;
	struct holder *holder;
	struct sockaddr_un at;
	int file;
	unsigned ticks;
	struct snapshot snapshot;
};

/* --- a program ------------------------------------------------------------------------------------ */

enum { ORDER_READY = 'r', ORDER_LEAVE = 'l', ORDER_UNMAP = 'u', ORDER_LOCK = 'k' };

static void say(int sock, union regmsg *m, size_t len, const int *fd)
{
	expect_eq(fdpass_send(sock, m, len, fd, fd != NULL), (ssize_t)len);
}

static void declare(int sock, const char *name, int uffd, int file)
{
	union regmsg m;
	size_t len = regmsg_init(&m, REGMSG_HELLO, 1);

	m.hello.role = strcmp(name, "vm") == 0 ? REGMSG_ROLE_MAIN : REGMSG_ROLE_SHARER;
	m.hello.policy = REGMSG_POLICY_DISABLE;
	strcpy(m.hello.name, name);
	say(sock, &m, len, &uffd);
	len = regmsg_init(&m, REGMSG_BLOCK, 2);
	m.block.length = LENGTH;
	strcpy(m.block.name, "ram");
	say(sock, &m, len, &file);
}

static _Noreturn void live(const struct scene *s, const char *name, int orders)
{
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	int uffd = uffd_open(UFFD_FEATURE_MISSING_SHMEM, false);
	void *ram = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, s->file, 0);
	union regmsg m;
	char order;

	holder_forked(s->holder);
	expect(sock >= 0 && uffd >= 0 && ram != MAP_FAILED);
	expect_eq(connect(sock, (const struct sockaddr *)&s->at, sizeof(s->at)), 0);
	declare(sock, name, uffd, s->file);
	expect_eq(fdpass_send(orders, name, 1, &sock, 1), 1);
	while (recv(orders, &order, 1, 0) == 1) {
		if (order == ORDER_READY)
			say(sock, &m, regmsg_init(&m, REGMSG_READY, 3), NULL);
		else if (order == ORDER_LEAVE)
			say(sock, &m, regmsg_init(&m, REGMSG_LEAVE, 4), NULL);
		else if (order == ORDER_UNMAP)
			munmap(ram, LENGTH);
		else
			holder_lock(s->holder);
		expect_eq(send(orders, &order, 1, 0), 1);
	}
	_exit(0);
}

static void turn(void)
{
	while (g_main_context_iteration(NULL, FALSE))
		continue;
	usleep(1000);
}

static void order(struct program *p, char what)
{
	char done;

	expect_eq(send(p->orders, &what, 1, 0), 1);
	while (recv(p->orders, &done, 1, MSG_DONTWAIT) != 1)
		turn();
}

/* The RESULT of a request of that serial; everything before it is passed over. */
static unsigned result(struct program *p, uint32_t serial, union regmsg *m)
{
	gint64 until = g_get_monotonic_time() + PATIENCE_S * G_USEC_PER_SEC;

	for (;;) {
		cleanup_fdpass struct fdpass fds;
		ssize_t n = fdpass_recv(p->sock, m, sizeof(*m), &fds);

		expect(n == -EAGAIN || n > 0);
		if (n > 0 && m->head.serial == serial)
			return m->text.error;
		expect(g_get_monotonic_time() < until);
		if (n < 0)
			turn();
	}
}

static struct program start(struct scene *s, const char *name)
{
	cleanup_fdpass struct fdpass fds;
	struct program p;
	union regmsg m;
	int pair[2];
	char byte;

	expect_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	p.pid = fact_fork();
	if (p.pid == 0)
		live(s, name, pair[1]);
	close(pair[1]);
	p.orders = pair[0];
	while (fdpass_recv(p.orders, &byte, 1, &fds) == -EAGAIN)
		turn();
	p.sock = fdpass_steal(&fds, 0);
	expect_eq(result(&p, 2, &m), 0);
	return p;
}

/* --- the daemon's side ------------------------------------------------------------------------------ */

static void on_changed(void *ctx)
{
	(void)ctx;
}

static gboolean on_tick(gpointer data)
{
	((struct scene *)data)->ticks++;
	return G_SOURCE_CONTINUE;
}

static void open_scene(struct scene *s)
{
	const struct faultloop_options lo = { .max_package = 1 << 20, .max_waiters = 16 };
	const struct door_limits limits = { .max_sharers = 4, .prove_timeout_s = DEADLINE_S };
	const struct door_ops ops = { .changed = on_changed, .ctx = s };
	int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	memset(s, 0, sizeof(*s));
	s->holder = holder_new();
	s->at.sun_family = AF_UNIX;
	/* An abstract name: nothing to remove. */
	snprintf(s->at.sun_path + 1, sizeof(s->at.sun_path) - 1, "postcopy-locked-%d", (int)getpid());
	expect(listener >= 0 && bind(listener, (struct sockaddr *)&s->at, sizeof(s->at)) == 0 && listen(listener, 4) == 0);
	s->file = memfd_create("ram", MFD_CLOEXEC);
	expect(s->file >= 0 && ftruncate(s->file, LENGTH) == 0);
	expect_eq(faultloop_start(&s->loop, &lo), 0);
	s->door = door_new(listener, &limits, s->loop, &ops);
	g_timeout_add(TICK_MS, on_tick, s);
}

static const struct client *client_of(const struct scene *s, const struct program *p)
{
	GPtrArray *clients = door_clients(s->door);

	for (unsigned i = 0; i < clients->len; i++) {
		const struct client *c = g_ptr_array_index(clients, i);

		if (c->pid == p->pid)
			return c;
	}
	return NULL;
}

static void match(struct scene *s)
{
	char why[512];

	s->snapshot.n_blocks = 1;
	strcpy(s->snapshot.block[0].name, "ram");
	s->snapshot.block[0].length = LENGTH;
	s->snapshot.block[0].page_size = 4096;
	expect_eq(door_match(s->door, &s->snapshot, 0, why), 0);
}

/* Until everybody who is READY was handed over, or refused. */
static int join_all(struct scene *s)
{
	gint64 until = g_get_monotonic_time() + PATIENCE_S * G_USEC_PER_SEC;
	char why[512];
	int ret;

	while ((ret = door_join(s->door, why)) == 1) {
		expect(g_get_monotonic_time() < until);
		turn();
	}
	return ret;
}

/* As the session asks: now and then, until there is an answer that counts. */
static int strangers(struct scene *s, char *why)
{
	int ret = 1;

	for (unsigned i = 0; i < 20 && ret >= 1; i++) {
		gint64 until = g_get_monotonic_time() + 20000;

		ret = door_strangers(s->door, why);
		while (g_get_monotonic_time() < until)
			turn();
	}
	return ret;
}

static void wait_answered(const struct scene *s, const struct program *p)
{
	gint64 until = g_get_monotonic_time() + PATIENCE_S * G_USEC_PER_SEC;

	while (client_of(s, p) && client_of(s, p)->asked) {
		expect(g_get_monotonic_time() < until);
		turn();
	}
}

/* --- the facts ---------------------------------------------------------------------------------------- */

static void refused_alone(void)
{
	struct program stuck, vm;
	unsigned ticks;
	struct scene s;
	union regmsg m;
	char why[512];

	open_scene(&s);
	stuck = start(&s, "stuck");
	vm = start(&s, "vm");
	order(&stuck, ORDER_LOCK);
	order(&stuck, ORDER_READY);
	ticks = s.ticks;
	/* the other one does not wait for it */
	order(&vm, ORDER_READY);
	expect_eq(result(&vm, 3, &m), 0);
	expect(!door_problem(s.door, "stuck") && door_is_proving(s.door, "stuck"));
	expect_eq(result(&stuck, 3, &m), ETIMEDOUT);
	expect(strstr(m.text.text, "does not let its mappings be seen"));
	expect_eq(strcmp(door_problem(s.door, "stuck"), m.text.text), 0);
	/* a fifth of what there was time for, on a busy machine */
	expect(s.ticks - ticks >= DEADLINE_S * 1000 / TICK_MS / 5);
	expect(door_has_main(s.door) && !door_has(s.door, "stuck"));
	match(&s);
	expect_eq(join_all(&s), 0);
	expect_eq(client_of(&s, &vm)->state, CLIENT_JOINED);
	/* fail closed: it maps the memory and is not registered */
	expect_eq(strangers(&s, why), 1);
	expect(strstr(why, "process") && client_of(&s, &stuck)->asked);
}

/* Its proof comes to an end after all: it stays refused, but is registered now, so it makes no zeroes. */
static void late_proof(void)
{
	struct program stuck, vm;
	struct scene s;
	union regmsg m;
	char why[512];

	open_scene(&s);
	stuck = start(&s, "stuck");
	vm = start(&s, "vm");
	order(&vm, ORDER_READY);
	order(&stuck, ORDER_LOCK);
	order(&stuck, ORDER_READY);
	expect_eq(result(&stuck, 3, &m), ETIMEDOUT);
	match(&s);
	expect_eq(join_all(&s), 0);
	holder_let_go(s.holder);
	wait_answered(&s, &stuck);
	expect_eq(client_of(&s, &stuck)->state, CLIENT_REFUSED);
	expect_eq(client_of(&s, &stuck)->n_proven, 1);
	expect_eq(strangers(&s, why), 0);
}

/* It hangs up while its proof hangs: kept until it is known what is registered of it (O11), and then to its death. */
static void gone_meanwhile(void)
{
	struct program stuck;
	struct scene s;
	union regmsg m;

	open_scene(&s);
	stuck = start(&s, "stuck");
	order(&stuck, ORDER_LOCK);
	order(&stuck, ORDER_READY);
	expect_eq(result(&stuck, 3, &m), ETIMEDOUT);
	shutdown(stuck.sock, SHUT_RDWR);
	while (door_connected(s.door))
		turn();
	expect(client_of(&s, &stuck));
	holder_let_go(s.holder);
	wait_answered(&s, &stuck);
	expect(client_of(&s, &stuck) && client_of(&s, &stuck)->n_proven == 1);
	kill(stuck.pid, SIGKILL);
	for (unsigned i = 0; i < PATIENCE_S * 1000 && client_of(&s, &stuck); i++)
		turn();
	expect(!client_of(&s, &stuck));
}

/* The door closes with a proof out; its answer finds nobody. */
static void door_gone_meanwhile(void)
{
	struct program stuck;
	struct scene s;

	open_scene(&s);
	stuck = start(&s, "stuck");
	order(&stuck, ORDER_LOCK);
	order(&stuck, ORDER_READY);
	while (client_of(&s, &stuck)->state != CLIENT_PROVING)
		turn();
	door_free(s.door);
	holder_let_go(s.holder);
	for (unsigned i = 0; i < 200; i++)
		turn();
}

/* It was proven, and is locked when it is to be handed over. */
static void refused_when_it_joins(void)
{
	struct program stuck, vm;
	struct scene s;
	union regmsg m;

	open_scene(&s);
	stuck = start(&s, "stuck");
	vm = start(&s, "vm");
	order(&stuck, ORDER_READY);
	order(&vm, ORDER_READY);
	expect(result(&stuck, 3, &m) == 0 && result(&vm, 3, &m) == 0);
	order(&stuck, ORDER_LOCK);
	match(&s);
	expect_eq(join_all(&s), 0);
	expect_eq(client_of(&s, &vm)->state, CLIENT_JOINED);
	expect_eq(client_of(&s, &stuck)->state, CLIENT_REFUSED);
	expect(strstr(door_problem(s.door, "stuck"), "does not let"));
}

/* At the end it cannot be released: the others are, and it is told of the end all the same. */
static void end_with_a_locked_one(void)
{
	struct program stuck, vm;
	struct scene s;
	union regmsg m;

	open_scene(&s);
	stuck = start(&s, "stuck");
	vm = start(&s, "vm");
	order(&stuck, ORDER_READY);
	order(&vm, ORDER_READY);
	expect(result(&stuck, 3, &m) == 0 && result(&vm, 3, &m) == 0);
	match(&s);
	expect_eq(join_all(&s), 0);
	order(&stuck, ORDER_LOCK);
	door_release(s.door);
	while (!client_of(&s, &vm)->released)
		turn();
	expect(!client_of(&s, &stuck)->released);
	while (!client_of(&s, &stuck)->released)
		turn();
}

/* LEAVE is answered by what is mapped; what was sent behind READY is read behind its answer. */
static void leaving(void)
{
	struct program p;
	struct scene s;
	union regmsg m;

	open_scene(&s);
	p = start(&s, "vm");
	order(&p, ORDER_READY);
	order(&p, ORDER_LEAVE);
	expect_eq(result(&p, 3, &m), 0);
	expect_eq(result(&p, 4, &m), EBUSY);
	order(&p, ORDER_UNMAP);
	order(&p, ORDER_LEAVE);
	expect_eq(result(&p, 4, &m), 0);
	expect_eq(client_of(&s, &p)->state, CLIENT_ENDED);
	p = start(&s, "vm");
	order(&p, ORDER_READY);
	expect_eq(result(&p, 3, &m), 0);
	order(&p, ORDER_LOCK);
	order(&p, ORDER_LEAVE);
	expect_eq(result(&p, 4, &m), ETIMEDOUT);
	expect_eq(client_of(&s, &p)->state, CLIENT_READY);
}

static const struct fact facts[] = {
	{ "locked: refused at the deadline, alone; the main loop and the others go on", refused_alone },
	{ "locked: a proof that comes late registers, and changes nothing else", late_proof },
	{ "locked: O11 one that hangs up is kept until its proof is over", gone_meanwhile },
	{ "locked: a proof outlives its door", door_gone_meanwhile },
	{ "locked: refused when it is to join, the others join", refused_when_it_joins },
	{ "locked: the end is told without a release that takes too long", end_with_a_locked_one },
	{ "locked: LEAVE is answered, in order", leaving },
};

int main(void)
{
	facts_run(facts, ARRAY_LEN(facts));
	return tap_done();
}
