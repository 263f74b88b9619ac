/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "workers.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <linux/userfaultfd.h>

#include "daemon/gatekeeper.h"
#include "facts.h"
#include "sys/fd.h"
#include "tap.h"

/* --- the vault: as vault.h says, and nobody dies really --------------------------------------- */

int *kept(struct vault *v, const char *name)
{
	for (unsigned i = 0; i < v->n; i++)
		if (strcmp(v->kept[i].name, name) == 0)
			return &v->kept[i].fd;
	return NULL;
}

int vault_keep(struct vault *v, const char *name, int fd)
{
	vault_drop(v, name);
	expect(v->n < KEPT && strlen(name) < sizeof(v->kept[0].name));
	strcpy(v->kept[v->n].name, name);
	v->kept[v->n].fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	expect(v->kept[v->n++].fd >= 0);
	return 0;
}

void vault_drop(struct vault *v, const char *name)
{
	for (unsigned i = 0; i < v->n; i++)
		if (strcmp(v->kept[i].name, name) == 0) {
			close_fd(&v->kept[i].fd);
			v->kept[i] = v->kept[--v->n];
			return;
		}
}

int vault_take(struct vault *v, const char *name)
{
	const int *fd = kept(v, name);

	return fd ? fcntl(*fd, F_DUPFD_CLOEXEC, 0) : -1;
}

/* --- the fault thread: what it was told ------------------------------------------------------- */

struct workers_log fault_thread;
void (*workers_furnish)(struct scene *s);

void faultloop_post(struct faultloop *f, const struct message *m)
{
	int fd = m->kind == MESSAGE_JOIN ? m->join.uffd : -1;

	(void)f;
	expect(fault_thread.n < SAID);
	if (m->kind == MESSAGE_GATE)
		fault_thread.order[fault_thread.n] = *m->gate;
	fault_thread.said[fault_thread.n++] = *m;
	close_fd(&fd);
}

/* The place of the first message of this kind; -1. */
int told(enum message_kind kind)
{
	for (unsigned i = 0; i < fault_thread.n; i++)
		if (fault_thread.said[i].kind == kind)
			return (int)i;
	return -1;
}

const struct message *first(enum message_kind kind)
{
	expect(told(kind) >= 0);
	return &fault_thread.said[told(kind)];
}

/* --- the sharer ------------------------------------------------------------------------------- */

static void on_changed(void *ctx)
{
	(void)ctx;
}

static _Noreturn void live(const struct sockaddr_un *at, int file, int back)
{
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	int uffd = uffd_open(UFFD_FEATURE_MISSING_SHMEM, false);
	void *ram = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	uint64_t address = (uintptr_t)ram;
	const int fds[] = { sock, uffd };
	char order;

	expect(sock >= 0 && uffd >= 0 && ram != MAP_FAILED);
	expect_eq(connect(sock, (const struct sockaddr *)at, sizeof(*at)), 0);
	expect_eq(fdpass_send(back, &address, sizeof(address), fds, 2), sizeof(address));
	close(sock);
	while (recv(back, &order, 1, 0) == 1) {
		munmap(ram, LENGTH);
		expect_eq(send(back, &order, 1, 0), 1);
	}
	_exit(0);
}

void turn(void)
{
	while (g_main_context_iteration(NULL, FALSE))
		continue;
	usleep(1000);
}

void unmap(struct scene *s)
{
	char order = 'u';

	expect_eq(send(s->orders, &order, 1, 0), 1);
	while (recv(s->orders, &order, 1, MSG_DONTWAIT) != 1)
		turn();
}

/* The next packet that the daemon sent; its type, 0 when there is none, -1 at the end. */
int heard(struct scene *s, union regmsg *m)
{
	cleanup_fdpass struct fdpass fds;
	ssize_t n = fdpass_recv(s->sock, m, sizeof(*m), &fds);

	if (n == -EAGAIN)
		return 0;
	if (n <= 0)
		return -1;
	expect_eq(regmsg_check(m, (size_t)n, NULL), 0);
	expect_eq(fds.n, regmsg_fds(m));
	return m->head.type;
}

int hear(struct scene *s, union regmsg *m)
{
	gint64 until = g_get_monotonic_time() + PATIENCE_S * G_USEC_PER_SEC;
	int type;

	while ((type = heard(s, m)) == 0) {
		expect(g_get_monotonic_time() < until);
		turn();
	}
	return type;
}

void say(struct scene *s, union regmsg *m, size_t len, int fd)
{
	expect_eq(fdpass_send(s->sock, m, len, &fd, fd >= 0), (ssize_t)len);
}

void say_plain(struct scene *s, enum regmsg_type type, uint32_t serial)
{
	union regmsg m;
	size_t len = regmsg_init(&m, type, serial);

	say(s, &m, len, -1);
}

void say_block(struct scene *s, uint32_t serial)
{
	union regmsg m;
	size_t len = regmsg_init(&m, REGMSG_BLOCK, serial);

	m.block.length = LENGTH;
	strcpy(m.block.name, "ram");
	say(s, &m, len, s->file);
}

/* The answer to that call: positive errno. */
int answer(struct scene *s, uint32_t serial)
{
	union regmsg m;

	expect_eq(hear(s, &m), REGMSG_RESULT);
	expect_eq(m.head.serial, serial);
	return m.result.error;
}

/* --- the workers ------------------------------------------------------------------------------ */

int try_worker(struct scene *s, GError **error)
{
	const struct door_ops ops = { .changed = on_changed, .ctx = s };
	const struct door_limits limits = { .max_sharers = 4, .prove_timeout_s = 10 };

	fault_thread.n = 0;
	s->door = door_new(dup(s->listener), &limits, NULL, &ops, &s->vault, s->record);
	if (workers_furnish)
		workers_furnish(s);
	return s->workers++ ? door_adopt(s->door, &s->vault, s->record, error) : 0;
}

void begin_worker(struct scene *s)
{
	GError *error = NULL;

	expect_eq(try_worker(s, &error), 0);
}

/* Nothing is undone: what it did is what others see. */
void kill_worker(struct scene *s)
{
	s->door->vault = NULL;
	s->door->record = NULL;
	door_free(s->door);
	gatekeeper_free(s->gates);
	s->door = NULL;
	s->gates = NULL;
}

void restart(struct scene *s)
{
	kill_worker(s);
	begin_worker(s);
}

struct client *client(struct scene *s)
{
	expect(s->door->clients->len >= 1);
	return g_ptr_array_index(s->door->clients, 0);
}

struct peer *peer(struct scene *s)
{
	return door_peer_of(s->door, client(s));
}

/* A worker, and a sharer that has connected. */
int open_scene(struct scene *s)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	struct fdpass fds;
	int pair[2];

	memset(s, 0, sizeof(*s));
	s->snapshot.package_fd = -1;
	s->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	snprintf(at.sun_path + 1, sizeof(at.sun_path) - 1, "postcopy-successor-%d", (int)getpid());
	expect(s->listener >= 0 && bind(s->listener, (struct sockaddr *)&at, sizeof(at)) == 0 &&
	       listen(s->listener, 4) == 0);
	expect_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	s->file = memfd_create("ram", MFD_CLOEXEC);
	expect(s->file >= 0 && ftruncate(s->file, LENGTH) == 0);
	expect_eq(record_new(&s->record), 0);
	s->pid = fact_fork();
	if (s->pid == 0)
		live(&at, s->file, pair[1]);
	close(pair[1]);
	s->orders = pair[0];
	begin_worker(s);
	while (fdpass_recv(pair[0], &s->address, sizeof(s->address), &fds) == -EAGAIN)
		turn();
	s->sock = fdpass_steal(&fds, 0);
	return fdpass_steal(&fds, 1);
}

size_t hello(union regmsg *m, uint32_t role, uint32_t flags)
{
	size_t len = regmsg_init(m, REGMSG_HELLO, 1);

	m->hello.role = role;
	m->hello.policy = REGMSG_POLICY_DISABLE;
	m->hello.flags = flags;
	strcpy(m->hello.name, "one");
	return len;
}

void enter(struct scene *s, uint32_t role, uint32_t flags)
{
	cleanup_fd int uffd = open_scene(s);
	union regmsg m;
	size_t len = hello(&m, role, flags);

	say(s, &m, len, uffd);
	expect_eq(hear(s, &m), REGMSG_WELCOME);
}

void get_ready(struct scene *s, uint32_t role)
{
	enter(s, role, 0);
	say_block(s, 2);
	expect_eq(answer(s, 2), 0);
	say_plain(s, REGMSG_READY, 3);
	expect_eq(answer(s, 3), 0);
}

void match(struct scene *s)
{
	char why[512];

	s->snapshot.n_blocks = 1;
	strcpy(s->snapshot.block[0].name, "ram");
	s->snapshot.block[0].length = LENGTH;
	s->snapshot.block[0].page_size = 4096;
	expect_eq(door_match(s->door, &s->snapshot, 0, why), 0);
}

void tell(struct scene *s, enum session_state state)
{
	s->snapshot.state = state;
	/* Faults are served from then on. */
	if (state >= SESSION_LOADING && state <= SESSION_COMPLETE)
		s->snapshot.listening_ns = 1;
	s->snapshot.n_sharers = s->door->clients->len;
	for (unsigned i = 0; i < s->door->clients->len; i++) {
		const struct client *c = g_ptr_array_index(s->door->clients, i);

		s->snapshot.sharer[i].id = c->id;
		s->snapshot.sharer[i].state = SHARER_ACTIVE;
	}
	door_tell(s->door, &s->snapshot);
}

void join(struct scene *s, uint32_t role)
{
	char why[512];

	get_ready(s, role);
	match(s);
	await(door_join(s->door, why) == 0);
	expect_eq(client(s)->state, CLIENT_JOINED);
}

void serve(struct scene *s, uint32_t role)
{
	union regmsg m;

	join(s, role);
	tell(s, SESSION_LOADING);
	expect_eq(hear(s, &m), REGMSG_LISTENING);
}

/* Its memory, as the first worker told it and as this one does. */
void expect_joined(struct scene *s)
{
	const struct mapping *m = &first(MESSAGE_MAP)->map.mapping;

	expect_eq(first(MESSAGE_JOIN)->join.pid, s->pid);
	expect_eq(first(MESSAGE_JOIN)->join.maps, 1);
	expect_eq(m->address, s->address);
	expect_eq(m->length, LENGTH);
	expect_eq(m->offset, 0);
	expect_eq(m->block, 0);
	expect(told(MESSAGE_JOIN) < told(MESSAGE_MAP));
}

unsigned count_fds(void)
{
	g_autoptr(GDir) dir = g_dir_open("/proc/self/fd", 0, NULL);
	unsigned n = 0;

	while (g_dir_read_name(dir))
		n++;
	return n;
}

/* As on_readable() does it, up to the moment at which it dies. */
void read_and_die(struct scene *s)
{
	struct pollfd p = { .fd = peer(s)->sock, .events = POLLIN };
	cleanup_fdpass struct fdpass fds;
	union regmsg m;

	expect_eq(poll(&p, 1, PATIENCE_S * 1000), 1);
	door_note_request(peer(s));
	expect(fdpass_recv(peer(s)->sock, &m, sizeof(m), &fds) > 0);
	restart(s);
}

void fill_client(struct client *c)
{
	strcpy(c->name, "filled");
	strcpy(c->problem, "nothing at all");
	c->token = 0x1122334455667788;
	c->policy = REGMSG_POLICY_IGNORE;
	c->told = c->told_before = TOLD_LISTENING | TOLD_PAUSED;
	c->noted = 77;
	c->noted_type = REGMSG_WANT;
	c->noted_offers = 5;
	c->noted_given = 6;
	for (unsigned i = 0; i < SHARER_MAPPINGS; i++) {
		c->given[i] = (struct given_mapping){ i % 2, 4096 * (i + 1), 8192 * i, i };
		c->proven[i] = (struct mapping){ 4096 * i, i + 3, 512 * i, i % 3, i % 2 };
	}
	c->n_given = c->n_proven = SHARER_MAPPINGS;
}
