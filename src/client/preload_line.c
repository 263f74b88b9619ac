/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The connection of a program that does not know that it has one.
 *
 * It is not that of libpostcopy (conn.c), which keeps events in order for one thread that takes
 * them.  Here nobody takes anything: what the daemon says is kept as three facts, any thread may
 * read the socket at any time, and a thread that asks brings the socket for its own answer.  So
 * there is no lock, and nothing is allocated.
 *
 * The descriptors are kept out of the way of numbers that a program has its own ideas about, and
 * the socket is looked at before it is used: one that closes all it does not know, and opens
 * something else, must not find that we write into it.
 */
#include "config.h"

#include "client/preload.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include <linux/userfaultfd.h>

#include "sys/fd.h"
#include "sys/fdpass.h"
#include "sys/uffd_open.h"

/* descriptors of ours have at least this number, where the limit allows it */
#define FIRST_FD   200
#define HELLO_MS   30000
/* the daemon looks into /proc and may wait for its fault thread */
#define MAPPED_MS  60000
#define FEATURES   (UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MISSING_HUGETLBFS)

/**
 * preload_line_init - nothing is open
 */
void preload_line_init(struct preload_line *l)
{
	*l = (struct preload_line){ .sock = -1, .uffd = -1 };
}

/**
 * preload_line_close - close what is open; what was heard is forgotten
 */
void preload_line_close(struct preload_line *l)
{
	close_fd(&l->sock);
	close_fd(&l->uffd);
	preload_line_init(l);
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void move_up(int *fd)
{
	int high = fcntl(*fd, F_DUPFD_CLOEXEC, FIRST_FD);

	if (high < 0)
		return;
	close_fd(fd);
	*fd = high;
}

/* Until the socket is ready for @what: 0, -ETIMEDOUT, -errno. */
static int await(int sock, short what, int64_t deadline)
{
	struct pollfd pfd = { .fd = sock, .events = what };

	for (;;) {
		int64_t left = deadline - now_ms();
		int n = left > 0 ? poll(&pfd, 1, (int)left) : 0;

		if (n > 0)
			return 0;
		if (n == 0)
			return -ETIMEDOUT;
		if (errno != EINTR)
			return -errno;
	}
}

static int transmit(int sock, const union regmsg *m, int fd, int64_t deadline)
{
	for (;;) {
		ssize_t n = fdpass_send(sock, m, m->head.size, &fd, fd >= 0);
		int err;

		if (n >= 0)
			return 0;
		if (n != -EAGAIN)
			return (int)n;
		err = await(sock, POLLOUT, deadline);
		if (err < 0)
			return err;
	}
}

/* One good packet: 0.  -EAGAIN; -ECONNRESET at the end; -EPROTO for what cannot be understood. */
static int receive(int sock, union regmsg *m, struct fdpass *fds)
{
	ssize_t n = fdpass_recv(sock, m, sizeof(*m), fds);

	if (n == 0)
		return -ECONNRESET;
	if (n < 0)
		return (int)n;
	if (regmsg_check(m, (size_t)n, NULL) < 0 || fds->n != regmsg_fds(m)) {
		fdpass_close(fds);
		return -EPROTO;
	}
	return 0;
}

/* The next packet, however long it takes up to @deadline. */
static int await_packet(int sock, union regmsg *m, struct fdpass *fds, int64_t deadline)
{
	for (;;) {
		int ret = receive(sock, m, fds);

		if (ret != -EAGAIN)
			return ret;
		ret = await(sock, POLLIN, deadline);
		if (ret < 0)
			return ret;
	}
}

/* A call before anything else was said, so the next packet is its answer. */
static int ask(int sock, union regmsg *m, int fd, struct fdpass *fds)
{
	int64_t deadline = now_ms() + HELLO_MS;
	int ret = transmit(sock, m, fd, deadline);

	/* What the daemon said before it closed tells more than that it closed. */
	return ret == 0 || ret == -EPIPE ? await_packet(sock, m, fds, deadline) : ret;
}

static int no_answer(int err, const char *to, char *why)
{
	snprintf(why, PRELOAD_WHY, "no answer to %s from postcopyd: %s", to,
		 err == -ECONNRESET ? "it hung up" : strerror(-err));
	return err;
}

/*
 * A program without privilege borrows the device; the userfaultfd that comes of it is its own all
 * the same.
 */
static int borrow_uffd(int sock, char *why)
{
	cleanup_fdpass struct fdpass fds;
	union regmsg m;
	int ret;

	fdpass_init(&fds);
	regmsg_init(&m, REGMSG_ASK_DEVICE, 1);
	ret = ask(sock, &m, -1, &fds);
	if (ret < 0)
		return no_answer(ret, "ASK_DEVICE", why);
	if (m.head.type != REGMSG_DEVICE) {
		ret = m.head.type == REGMSG_RESULT || m.head.type == REGMSG_REFUSED ?
			      -m.text.error :
			      -EPROTO;
		snprintf(why, PRELOAD_WHY, "no right to a userfaultfd here, and none to borrow: %s",
			 ret == -EPROTO ? "postcopyd gave an answer to something else" :
					  m.text.text);
		return ret ? ret : -EPROTO;
	}
	ret = uffd_create_from(fds.fd[0], false);
	if (ret < 0)
		snprintf(why, PRELOAD_WHY,
			 "cannot make a userfaultfd from the borrowed /dev/userfaultfd: %s",
			 strerror(-ret));
	return ret;
}

/* Full ones only: with any other an access of the kernel to a missing page would fail. */
static int open_uffd(int sock, char *why)
{
	cleanup_fd int uffd = uffd_create(false);
	int ret;

	/* A sandbox may hide the call instead of refusing it. */
	if (uffd == -EPERM || uffd == -EACCES || uffd == -ENOSYS)
		uffd = borrow_uffd(sock, why);
	else if (uffd < 0)
		snprintf(why, PRELOAD_WHY, "cannot open a userfaultfd: %s", strerror(-uffd));
	if (uffd < 0)
		return uffd;
	/* Who waits is for people: a kernel that cannot tell will do. */
	ret = uffd_handshake(uffd, FEATURES | UFFD_FEATURE_THREAD_ID, NULL);
	if (ret == -EINVAL)
		ret = uffd_handshake(uffd, FEATURES, NULL);
	if (ret < 0) {
		snprintf(why, PRELOAD_WHY,
			 "this kernel's userfaultfd cannot serve shared memory: %s",
			 strerror(-ret));
		return ret;
	}
	return steal_fd(&uffd);
}

static int say_hello(struct preload_line *l, const struct preload_options *o, uint64_t parent,
		     char *why)
{
	cleanup_fdpass struct fdpass fds;
	union regmsg m;
	int ret;

	fdpass_init(&fds);
	regmsg_init(&m, REGMSG_HELLO, 2);
	m.hello.role = o->main ? REGMSG_ROLE_MAIN : REGMSG_ROLE_SHARER;
	m.hello.policy = o->policy;
	m.hello.flags = REGMSG_HELLO_KERNEL | REGMSG_HELLO_UNAWARE;
	m.hello.token = parent;
	strcpy(m.hello.name, o->name);
	ret = ask(l->sock, &m, l->uffd, &fds);
	if (ret < 0)
		return no_answer(ret, "HELLO", why);
	if (m.head.type == REGMSG_REFUSED) {
		snprintf(why, PRELOAD_WHY, "postcopyd refused: %s", m.text.text);
		return -m.text.error;
	}
	l->token = m.welcome.token;
	return m.head.type == REGMSG_WELCOME ? 0 : no_answer(-EPROTO, "HELLO", why);
}

static uint64_t inode_of(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode) ? st.st_ino : 0;
}

static int open_both(struct preload_line *l, const struct preload_options *o, uint64_t parent,
		     char *why)
{
	l->sock = fdpass_connect(o->path, HELLO_MS);
	if (l->sock < 0) {
		snprintf(why, PRELOAD_WHY, "cannot connect to postcopyd at %s: %s", o->path,
			 strerror(-l->sock));
		return l->sock;
	}
	move_up(&l->sock);
	l->sock_inode = inode_of(l->sock);
	l->uffd = open_uffd(l->sock, why);
	if (l->uffd < 0)
		return l->uffd;
	move_up(&l->uffd);
	return say_hello(l, o, parent, why);
}

static int open_once(struct preload_line *l, const struct preload_options *o, uint64_t parent,
		     char *why)
{
	int ret;

	preload_line_init(l);
	l->main = o->main;
	ret = open_both(l, o, parent, why);
	if (ret < 0)
		preload_line_close(l);
	return ret;
}

/**
 * preload_line_open - connect, open a userfaultfd, say hello
 * @parent: token of the process that we were forked from, 0
 * @why: PRELOAD_WHY bytes
 *
 * The userfaultfd stays open here, too: should the daemon die, it keeps missing pages from becoming
 * zeroes.  A daemon that was restarted while it read what we said knows nothing of us, and says so
 * (ERESTART): everything is said once more.
 *
 * Return: 0; else -errno, and nothing is open.
 */
int preload_line_open(struct preload_line *l, const struct preload_options *o, uint64_t parent,
		      char *why)
{
	int ret = open_once(l, o, parent, why);

	return ret == -ERESTART ? open_once(l, o, parent, why) : ret;
}

/* False once the number belongs to something else, or to nothing. */
static bool still_ours(const struct preload_line *l)
{
	return l->sock >= 0 && l->sock_inode && inode_of(l->sock) == l->sock_inode;
}

/**
 * preload_line_hear - take in what the daemon has said; never waits
 */
void preload_line_hear(struct preload_line *l)
{
	while (still_ours(l)) {
		cleanup_fdpass struct fdpass fds;
		union regmsg m;
		int ret = receive(l->sock, &m, &fds);

		if (ret == -EAGAIN)
			return;
		if (ret < 0)
			break;
		if (m.head.type == REGMSG_LISTENING)
			atomic_store(&l->listening, true);
		if (m.head.type == REGMSG_COMPLETE)
			atomic_store(&l->complete, true);
	}
	atomic_store(&l->ended, true);
}

static int read_answer(const union regmsg *m, char *why)
{
	if (m->head.type == REGMSG_SERVED)
		return 1;
	if (m->head.type != REGMSG_RESULT)
		return no_answer(-EPROTO, "MAPPED", why);
	if (m->text.error)
		snprintf(why, PRELOAD_WHY, "postcopyd refused: %s", m->text.text);
	return -m->text.error;
}

static int ask_mapped(struct preload_line *l, const struct preload_mapping *map, union regmsg *m,
		      int64_t deadline, char *why)
{
	cleanup_fd int mine = -1, theirs = -1;
	cleanup_fdpass struct fdpass fds;
	int pair[2], ret;

	fdpass_init(&fds);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		ret = -errno;
		snprintf(why, PRELOAD_WHY, "no socket for postcopyd's answer: %s", strerror(-ret));
		return ret;
	}
	mine = pair[0];
	theirs = pair[1];
	regmsg_init(m, REGMSG_MAPPED, 3);
	m->mapped.address = (uintptr_t)map->address;
	m->mapped.length = map->length;
	m->mapped.file_offset = (uint64_t)map->offset;
	m->mapped.dev = map->dev;
	m->mapped.inode = map->inode;
	ret = transmit(l->sock, m, theirs, deadline);
	/* Then the daemon has the only other end: should it die, that closes. */
	close_fd(&theirs);
	if (ret == 0)
		ret = await_packet(mine, m, &fds, deadline);
	return ret < 0 ? no_answer(ret, "MAPPED", why) : 0;
}

/**
 * preload_line_mapped - the program mapped a file and has not seen the address yet: may it?
 * @why: PRELOAD_WHY bytes
 *
 * The socket for the answer ends with the process that has read the question, so a daemon that was
 * restarted is asked once more; if there is none any more that ends at once.
 *
 * Return: 1, the daemon serves it; 0, it is no guest memory; -errno, it must go.
 */
int preload_line_mapped(struct preload_line *l, const struct preload_mapping *map, char *why)
{
	int64_t deadline = now_ms() + MAPPED_MS;
	union regmsg m;
	int ret = ask_mapped(l, map, &m, deadline, why);

	if (ret == -ECONNRESET)
		ret = ask_mapped(l, map, &m, deadline, why);
	return ret < 0 ? ret : read_answer(&m, why);
}
