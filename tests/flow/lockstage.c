/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "lockstage.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <glib.h>
#include <linux/userfaultfd.h>

#include "facts.h"
#include "sys/fdpass.h"
#include "tap.h"

/* --- a program -------------------------------------------------------------------------------- */

const char lockstage_unaware[] = "unaware";

void lockstage_say(int sock, union regmsg *m, size_t len, const int *fd)
{
	expect_eq(fdpass_send(sock, m, len, fd, fd != NULL), (ssize_t)len);
}

static void declare(int sock, const char *name, int uffd, int file)
{
	union regmsg m;
	size_t len = regmsg_init(&m, REGMSG_HELLO, 1);

	m.hello.role = strcmp(name, "vm") == 0 ? REGMSG_ROLE_MAIN : REGMSG_ROLE_SHARER;
	m.hello.policy = REGMSG_POLICY_DISABLE;
	m.hello.flags = strcmp(name, lockstage_unaware) == 0 ? REGMSG_HELLO_UNAWARE : 0;
	strcpy(m.hello.name, name);
	lockstage_say(sock, &m, len, &uffd);
	if (m.hello.flags)
		return;
	len = regmsg_init(&m, REGMSG_BLOCK, 2);
	m.block.length = LOCKSTAGE_LENGTH;
	strcpy(m.block.name, "ram");
	lockstage_say(sock, &m, len, &file);
}

static _Noreturn void live(const struct scene *s, const char *name, int orders)
{
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	int uffd = uffd_open(UFFD_FEATURE_MISSING_SHMEM, false);
	void *ram = mmap(NULL, LOCKSTAGE_LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, s->file, 0);
	union regmsg m;
	char order;

	holder_forked(s->holder);
	expect(sock >= 0 && uffd >= 0 && ram != MAP_FAILED);
	expect_eq(connect(sock, (const struct sockaddr *)&s->at, sizeof(s->at)), 0);
	declare(sock, name, uffd, s->file);
	expect_eq(fdpass_send(orders, name, 1, &sock, 1), 1);
	while (recv(orders, &order, 1, 0) == 1) {
		if (order == ORDER_READY)
			lockstage_say(sock, &m, regmsg_init(&m, REGMSG_READY, 3), NULL);
		else if (order == ORDER_LEAVE)
			lockstage_say(sock, &m, regmsg_init(&m, REGMSG_LEAVE, 4), NULL);
		else if (order == ORDER_UNMAP)
			munmap(ram, LOCKSTAGE_LENGTH);
		else if (order == ORDER_MAP)
			expect(mmap(NULL, LOCKSTAGE_LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED,
				    s->file, 0) != MAP_FAILED);
		else
			holder_lock(s->holder);
		expect_eq(send(orders, &order, 1, 0), 1);
	}
	_exit(0);
}

void lockstage_turn(void)
{
	while (g_main_context_iteration(NULL, FALSE))
		continue;
	usleep(1000);
}

void lockstage_order(struct program *p, enum lockstage_order what)
{
	char done = (char)what;

	expect_eq(send(p->orders, &done, 1, 0), 1);
	while (recv(p->orders, &done, 1, MSG_DONTWAIT) != 1)
		lockstage_turn();
}

/* The RESULT of a request of that serial; everything before it is passed over. */
unsigned lockstage_result(struct program *p, uint32_t serial, union regmsg *m)
{
	gint64 until = g_get_monotonic_time() + LOCKSTAGE_PATIENCE_S * G_USEC_PER_SEC;

	for (;;) {
		cleanup_fdpass struct fdpass fds;
		ssize_t n = fdpass_recv(p->sock, m, sizeof(*m), &fds);

		expect(n == -EAGAIN || n > 0);
		if (n > 0 && m->head.serial == serial)
			return m->text.error;
		expect(g_get_monotonic_time() < until);
		if (n < 0)
			lockstage_turn();
	}
}

struct program lockstage_start(struct scene *s, const char *name)
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
		lockstage_turn();
	p.sock = fdpass_steal(&fds, 0);
	if (strcmp(name, lockstage_unaware) == 0)
		(void)lockstage_result(&p, 1, &m);	/* WELCOME */
	else
		expect_eq(lockstage_result(&p, 2, &m), 0);
	return p;
}

/* --- the daemon's side ------------------------------------------------------------------------ */

static void on_changed(void *ctx)
{
	(void)ctx;
}

static gboolean on_tick(gpointer data)
{
	((struct scene *)data)->ticks++;
	return G_SOURCE_CONTINUE;
}

void lockstage_open(struct scene *s)
{
	const struct faultloop_options lo = { .max_package = 1 << 20, .max_waiters = 16 };
	const struct door_limits limits = { .max_sharers = 4,
					    .prove_timeout_s = LOCKSTAGE_DEADLINE_S };
	const struct door_ops ops = { .changed = on_changed, .ctx = s };
	int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	memset(s, 0, sizeof(*s));
	s->holder = holder_new();
	s->at.sun_family = AF_UNIX;
	/* An abstract name: nothing to remove. */
	snprintf(s->at.sun_path + 1, sizeof(s->at.sun_path) - 1, "postcopy-locked-%d",
		 (int)getpid());
	expect(listener >= 0 && bind(listener, (struct sockaddr *)&s->at, sizeof(s->at)) == 0 &&
	       listen(listener, 4) == 0);
	s->file = memfd_create("ram", MFD_CLOEXEC);
	expect(s->file >= 0 && ftruncate(s->file, LOCKSTAGE_LENGTH) == 0);
	expect_eq(faultloop_start(&s->loop, &lo), 0);
	s->door = door_new(listener, &limits, s->loop, &ops, NULL, NULL);
	g_timeout_add(LOCKSTAGE_TICK_MS, on_tick, s);
}

const struct client *lockstage_client(const struct scene *s, const struct program *p)
{
	GPtrArray *clients = door_clients(s->door);

	for (unsigned i = 0; i < clients->len; i++) {
		const struct client *c = g_ptr_array_index(clients, i);

		if (c->pid == p->pid)
			return c;
	}
	return NULL;
}

void lockstage_match(struct scene *s)
{
	char why[512];

	s->snapshot.n_blocks = 1;
	strcpy(s->snapshot.block[0].name, "ram");
	s->snapshot.block[0].length = LOCKSTAGE_LENGTH;
	s->snapshot.block[0].page_size = 4096;
	expect_eq(door_match(s->door, &s->snapshot, 0, why), 0);
}

/* Until everybody who is READY was handed over, or refused. */
int lockstage_join(struct scene *s)
{
	gint64 until = g_get_monotonic_time() + LOCKSTAGE_PATIENCE_S * G_USEC_PER_SEC;
	char why[512];
	int ret;

	while ((ret = door_join(s->door, why)) == 1) {
		expect(g_get_monotonic_time() < until);
		lockstage_turn();
	}
	return ret;
}

void lockstage_answered(const struct scene *s, const struct program *p)
{
	gint64 until = g_get_monotonic_time() + LOCKSTAGE_PATIENCE_S * G_USEC_PER_SEC;

	while (lockstage_client(s, p) && lockstage_client(s, p)->asked) {
		expect(g_get_monotonic_time() < until);
		lockstage_turn();
	}
}

void lockstage_ticked(const struct scene *s, unsigned since)
{
	expect(s->ticks - since >= LOCKSTAGE_DEADLINE_S * 1000 / LOCKSTAGE_TICK_MS / 5);
}
