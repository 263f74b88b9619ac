/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A main sharer that knows nothing of us: it says hello and nothing else, and somebody in the
 * daemon declares its memory, proves it, and says that it has loaded.  The door is real, so is the
 * program (a process with a userfaultfd of its own); what the session does is told by made-up
 * snapshots, so nothing is asked of the fault thread.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <glib.h>
#include <linux/userfaultfd.h>

#include "core/guard.h"
#include "daemon/door_native.h"
#include "facts.h"
#include "sys/fd.h"
#include "sys/fdpass.h"
#include "sys/maps.h"
#include "tap.h"
#include "wire/regmsg.h"

#define LENGTH	   (64u * 4096u)
#define PATIENCE_S 10

/* The program, its door, and the end of its socket that we borrowed. */
struct scene {
	struct faultloop *loop;
	struct door *door;
	unsigned changes;
	pid_t pid;
	int sock;			/* of the program: what the daemon sends arrives here */
	int file;			/* its memory */
	uint64_t shared, anonymous;	/* addresses there */
	struct snapshot snapshot;
};

struct places {
	uint64_t shared, anonymous;
};

static void on_changed(void *ctx)
{
	((struct scene *)ctx)->changes++;
}

/* The program: what something that was loaded into it would do, and then it sits there. */
static _Noreturn void program(const struct sockaddr_un *at, int file, int back, uint32_t flags)
{
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	int uffd = uffd_open(UFFD_FEATURE_MISSING_SHMEM, false);
	void *shared = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	void *anonymous = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			       -1, 0);
	struct places places = { (uintptr_t)shared, (uintptr_t)anonymous };
	union regmsg m;
	size_t len = regmsg_init(&m, REGMSG_HELLO, 1);

	expect(sock >= 0 && uffd >= 0 && shared != MAP_FAILED && anonymous != MAP_FAILED);
	expect_eq(connect(sock, (const struct sockaddr *)at, sizeof(*at)), 0);
	m.hello.role = REGMSG_ROLE_MAIN;
	m.hello.policy = REGMSG_POLICY_FAIL;
	m.hello.flags = flags;
	strcpy(m.hello.name, "vm");
	expect_eq(fdpass_send(sock, &m, len, &uffd, 1), (ssize_t)len);
	expect_eq(fdpass_send(back, &places, sizeof(places), &sock, 1), sizeof(places));
	for (;;)
		pause();
}

static void turn(struct scene *s)
{
	(void)s;
	while (g_main_context_iteration(NULL, FALSE))
		continue;
	usleep(1000);
}

/* The next packet that the daemon sent to the program; the type, 0 when there is none. */
static unsigned heard(struct scene *s, union regmsg *m)
{
	cleanup_fdpass struct fdpass fds;
	ssize_t n = fdpass_recv(s->sock, m, sizeof(*m), &fds);

	if (n == -EAGAIN)
		return 0;
	expect(n > 0);
	expect_eq(regmsg_check(m, (size_t)n, NULL), 0);
	expect_eq(fds.n, 0);
	return m->head.type;
}

static unsigned hear(struct scene *s, union regmsg *m)
{
	gint64 until = g_get_monotonic_time() + PATIENCE_S * G_USEC_PER_SEC;
	unsigned type;

	while ((type = heard(s, m)) == 0) {
		expect(g_get_monotonic_time() < until);
		turn(s);
	}
	return type;
}

static void open_scene(struct scene *s, uint32_t flags)
{
	const struct faultloop_options lo = { .max_package = 1 << 20, .max_waiters = 16 };
	const struct door_ops ops = { .changed = on_changed, .ctx = s };
	const struct door_limits limits = { .max_sharers = 4, .prove_timeout_s = 10 };
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), pair[2];
	struct places places;
	struct fdpass fds;
	union regmsg m;

	memset(s, 0, sizeof(*s));
	s->snapshot.package_fd = -1;
	/* An abstract name: nothing to remove. */
	snprintf(at.sun_path + 1, sizeof(at.sun_path) - 1, "postcopy-unaware-%d", (int)getpid());
	expect(listener >= 0 && bind(listener, (struct sockaddr *)&at, sizeof(at)) == 0 &&
	       listen(listener, 4) == 0);
	expect_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	s->file = memfd_create("ram", MFD_CLOEXEC);
	expect(s->file >= 0 && ftruncate(s->file, LENGTH) == 0);
	s->pid = fact_fork();
	if (s->pid == 0)
		program(&at, s->file, pair[1], flags);
	expect_eq(faultloop_start(&s->loop, &lo), 0);
	s->door = door_new(listener, &limits, s->loop, &ops, NULL, NULL);
	while (fdpass_recv(pair[0], &places, sizeof(places), &fds) == -EAGAIN)
		turn(s);
	s->sock = fdpass_steal(&fds, 0);
	s->shared = places.shared;
	s->anonymous = places.anonymous;
	expect_eq(hear(s, &m), REGMSG_WELCOME);
}

static struct door_block file_block(struct scene *s, const char *name)
{
	return (struct door_block){ .name = name, .length = LENGTH, .file = dup(s->file) };
}

/* The session gets to a state where everybody was proven and handed over. */
static void join(struct scene *s)
{
	char why[512];

	s->snapshot.n_blocks = 1;
	strcpy(s->snapshot.block[0].name, "ram");
	s->snapshot.block[0].length = LENGTH;
	s->snapshot.block[0].page_size = 4096;
	expect_eq(door_match(s->door, &s->snapshot, 0, why), 0);
	while (door_join(s->door, why) == 1)
		turn(s);
	expect_eq(door_join(s->door, why), 0);
	s->snapshot.n_sharers = 1;
	s->snapshot.sharer[0].id =
		((struct client *)g_ptr_array_index(door_clients(s->door), 0))->id;
	s->snapshot.sharer[0].state = SHARER_ACTIVE;
}

static void tell(struct scene *s, enum session_state state)
{
	s->snapshot.state = state;
	/* Faults are served from then on. */
	if (state >= SESSION_LOADING && state <= SESSION_COMPLETE)
		s->snapshot.listening_ns = 1;
	door_tell(s->door, &s->snapshot);
}

/* Everything is said, and an answer comes. */
static void ready(struct scene *s, struct client *c)
{
	gint64 until = g_get_monotonic_time() + PATIENCE_S * G_USEC_PER_SEC;
	unsigned before = s->changes;

	expect_eq(door_ready(s->door, c), 0);
	while (c->state == CLIENT_PROVING) {
		expect(g_get_monotonic_time() < until);
		turn(s);
	}
	expect(s->changes > before + 1);
}

static void declared_and_proven(void)
{
	struct door_block b;
	struct client *c;
	struct scene s;
	const char *why;
	uint64_t at;

	open_scene(&s, REGMSG_HELLO_UNAWARE | REGMSG_HELLO_KERNEL);
	c = door_unaware_main(s.door);
	expect(c && c->pid == s.pid && s.changes > 0);
	expect_eq(maps_proven(s.pid, s.shared, s.shared + LENGTH, &at), 0);
	b = file_block(&s, "ram");
	expect_eq(door_declare(s.door, c, &b, &why), 0);
	ready(&s, c);
	expect_eq(c->state, CLIENT_READY);
	expect_eq(maps_proven(s.pid, s.shared, s.shared + LENGTH, &at), 1);
	expect(door_has_main(s.door) && !door_unaware_main(s.door));
}

/*
 * It loads by other means, and may never read: nothing with a descriptor, nothing that wants an
 * answer.
 */
static void told_what_it_may_ignore(void)
{
	struct door_block b;
	struct client *c;
	struct scene s;
	const char *why;
	union regmsg m;

	open_scene(&s, REGMSG_HELLO_UNAWARE);
	c = door_unaware_main(s.door);
	b = file_block(&s, "ram");
	expect_eq(door_declare(s.door, c, &b, &why), 0);
	ready(&s, c);
	expect_eq(c->state, CLIENT_READY);
	join(&s);
	expect_eq(door_loaded(s.door, c), -EPROTO);
	tell(&s, SESSION_LOADING);
	expect_eq(hear(&s, &m), REGMSG_LISTENING);
	expect_eq(door_loaded(s.door, c), -EPROTO);
	s.snapshot.package_fd = s.file;
	tell(&s, SESSION_LOADING);
	expect_eq(door_loaded(s.door, c), 0);
	s.snapshot.running_told = true;
	tell(&s, SESSION_RUNNING);
	tell(&s, SESSION_COMPLETE);
	expect_eq(heard(&s, &m), 0);
	/* Until then nobody may think that all is over. */
	expect(!door_released(s.door));
	door_release(s.door);
	expect(!door_released(s.door));
	while (!c->released)
		turn(&s);
	tell(&s, SESSION_COMPLETE);
	expect(door_released(s.door));
	/* It never hangs up, and is not waited for; what it was told it can still read. */
	expect_eq(door_connected(s.door), 0);
	expect_eq(hear(&s, &m), REGMSG_COMPLETE);
	expect_eq(heard(&s, &m), 0);
}

static void private_memory_by_address(void)
{
	const struct door_block b = {
		.name = "vram", .length = LENGTH, .page_size = 4096, .file = -1
	};
	struct door_mapping where = { .block = "vram", .length = LENGTH };
	struct client *c;
	struct scene s;
	const char *why;
	uint64_t at;

	open_scene(&s, REGMSG_HELLO_UNAWARE);
	c = door_unaware_main(s.door);
	expect_eq(door_declare(s.door, c, &b, &why), 0);
	where.address = s.anonymous;
	where.block_offset = 4096;
	expect_eq(door_declare_mapping(c, &where, &why), -EINVAL);
	where.block_offset = 0;
	expect_eq(door_declare_mapping(c, &where, &why), 0);
	ready(&s, c);
	expect_eq(c->state, CLIENT_READY);
	expect_eq(maps_proven(s.pid, s.anonymous, s.anonymous + LENGTH, &at), 1);
}

/* What a sharer's own words cannot do, words for it cannot do either. */
static void bad_declarations(void)
{
	struct door_block b;
	struct client *c;
	struct scene s;
	const char *why;

	open_scene(&s, REGMSG_HELLO_UNAWARE);
	c = door_unaware_main(s.door);
	b = file_block(&s, "ram");
	b.length = LENGTH * 2;
	expect_eq(door_declare(s.door, c, &b, &why), -EINVAL);
	expect(strstr(why, "do not fit"));
	b = file_block(&s, "ram");
	expect_eq(door_declare(s.door, c, &b, &why), 0);
	b = file_block(&s, "ram");
	expect_eq(door_declare(s.door, c, &b, &why), -EEXIST);
	expect(strstr(why, "declared before"));
	b = (struct door_block){ .name = "rom",
				 .length = LENGTH,
				 .file = open("/etc/passwd", O_RDONLY | O_CLOEXEC) };
	expect_eq(door_declare(s.door, c, &b, &why), -EINVAL);
	expect_eq(c->n_offers, 1);
	expect_eq(door_load_failed(s.door, c, "no"), -EPROTO);
	ready(&s, c);
	expect_eq(c->state, CLIENT_READY);
	b = file_block(&s, "more");
	expect_eq(door_declare(s.door, c, &b, &why), -EPROTO);
	expect_eq(fcntl(b.file, F_GETFD), -1);
}

/* Memory that is not where it was said to be: refused, with the reason. */
static void not_where_it_was_said(void)
{
	const struct door_block b = {
		.name = "vram", .length = LENGTH, .page_size = 4096, .file = -1
	};
	const struct door_mapping nowhere = { .block = "vram", .address = 4096, .length = LENGTH };
	struct client *c;
	struct scene s;
	const char *why;
	union regmsg m;

	open_scene(&s, REGMSG_HELLO_UNAWARE);
	c = door_unaware_main(s.door);
	expect_eq(door_declare(s.door, c, &b, &why), 0);
	expect_eq(door_declare_mapping(c, &nowhere, &why), 0);
	ready(&s, c);
	expect_eq(c->state, CLIENT_REFUSED);
	expect(strstr(c->problem, "cannot register") &&
	       strcmp(door_problem(s.door, "vm"), c->problem) == 0);
	tell(&s, SESSION_IDLE);
	expect_eq(hear(&s, &m), REGMSG_DISABLED);
}

/* What it says itself all the same has no effect. */
static void its_own_words(void)
{
	struct scene s;
	union regmsg m;
	size_t len;

	open_scene(&s, REGMSG_HELLO_UNAWARE);
	len = regmsg_init(&m, REGMSG_BLOCK, 2);
	m.block.length = LENGTH;
	strcpy(m.block.name, "ram");
	expect_eq(fdpass_send(s.sock, &m, len, &s.file, 1), (ssize_t)len);
	expect_eq(hear(&s, &m), REGMSG_RESULT);
	expect_eq(m.text.error, EPERM);
	len = regmsg_init(&m, REGMSG_READY, 3);
	expect_eq(fdpass_send(s.sock, &m, len, NULL, 0), (ssize_t)len);
	expect_eq(hear(&s, &m), REGMSG_RESULT);
	expect_eq(m.text.error, EPERM);
	expect(door_unaware_main(s.door) && door_unaware_main(s.door)->n_offers == 0);
}

/* One that speaks for itself is nobody's to speak for. */
static void aware_is_not_found(void)
{
	struct scene s;

	open_scene(&s, REGMSG_HELLO_KERNEL);
	expect(!door_unaware_main(s.door));
	expect_eq(door_connected(s.door), 1);
}

/* An exec closes the connection and leaves the process: nobody is there any more. */
static void its_connection_ends(void)
{
	gint64 until = g_get_monotonic_time() + PATIENCE_S * G_USEC_PER_SEC;
	struct scene s;

	open_scene(&s, REGMSG_HELLO_UNAWARE);
	expect(door_unaware_main(s.door));
	shutdown(s.sock, SHUT_RDWR);
	while (door_unaware_main(s.door)) {
		expect(g_get_monotonic_time() < until);
		turn(&s);
	}
	expect_eq(door_connected(s.door), 0);
}

static const struct fact facts[] = {
	{ "unaware: what is declared for it is proven", declared_and_proven },
	{ "unaware: it is told only what it may ignore", told_what_it_may_ignore },
	{ "unaware: private memory by its address", private_memory_by_address },
	{ "unaware: declarations that do not fit are refused", bad_declarations },
	{ "unaware: memory that is not where it was said to be", not_where_it_was_said },
	{ "unaware: it cannot declare anything itself", its_own_words },
	{ "unaware: one that is aware is not spoken for", aware_is_not_found },
	{ "unaware: its connection ends", its_connection_ends },
};

int main(void)
{
	facts_run(facts, ARRAY_LEN(facts));
	return tap_done();
}
