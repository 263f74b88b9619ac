/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "scene.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "forker.h"
#include "sys/fdpass.h"
#include "sys/mem.h"
#include "sys/uffd_open.h"

#define MUST_COME_MS 10000
#define A_LITTLE_MS  30
#define UNTOUCHED    12345

/* --- ioctls --- */

struct moved k_copy(int uffd, uint64_t dst, const void *src, uint64_t len, uint64_t mode)
{
	struct uffdio_copy c = {
		.dst = dst, .src = at(src), .len = len, .mode = mode, .copy = UNTOUCHED
	};
	int err = ioctl(uffd, UFFDIO_COPY, &c) < 0 ? errno : 0;

	return (struct moved){ .err = err, .field = c.copy };
}

struct moved k_zero(int uffd, uint64_t dst, uint64_t len, uint64_t mode)
{
	struct uffdio_zeropage z = { .range = { dst, len }, .mode = mode, .zeropage = UNTOUCHED };
	int err = ioctl(uffd, UFFDIO_ZEROPAGE, &z) < 0 ? errno : 0;

	return (struct moved){ .err = err, .field = z.zeropage };
}

int k_wake(int uffd, uint64_t start, uint64_t len)
{
	struct uffdio_range r = { start, len };

	return ioctl(uffd, UFFDIO_WAKE, &r) < 0 ? errno : 0;
}

int k_register(int uffd, uint64_t start, uint64_t len, uint64_t *ioctls)
{
	struct uffdio_register r = { .range = { start, len },
				     .mode = UFFDIO_REGISTER_MODE_MISSING };

	if (ioctl(uffd, UFFDIO_REGISTER, &r) < 0)
		return errno;
	if (ioctls)
		*ioctls = r.ioctls;
	return 0;
}

int k_unregister(int uffd, uint64_t start, uint64_t len)
{
	struct uffdio_range r = { start, len };

	return ioctl(uffd, UFFDIO_UNREGISTER, &r) < 0 ? errno : 0;
}

int k_uffd(uint64_t features)
{
	int uffd = uffd_open(features, false);

	if (uffd < 0)
		fact_skip("no userfaultfd with features 0x%llx: %s", (unsigned long long)features,
			  strerror(-uffd));
	return uffd;
}

struct uffd_msg k_event(int uffd)
{
	struct pollfd p = { .fd = uffd, .events = POLLIN };
	struct uffd_msg m;

	expect_eq(poll(&p, 1, MUST_COME_MS), 1);
	expect_eq(p.revents, POLLIN);
	expect_eq(read(uffd, &m, sizeof(m)), sizeof(m));
	return m;
}

uint64_t k_fault(int uffd)
{
	struct uffd_msg m = k_event(uffd);

	expect_eq(m.event, UFFD_EVENT_PAGEFAULT);
	return m.arg.pagefault.address;
}

void k_quiet(int uffd)
{
	struct pollfd p = { .fd = uffd, .events = POLLIN };
	struct uffd_msg m;

	expect_eq(poll(&p, 1, A_LITTLE_MS), 0);
	expect_eq(read(uffd, &m, sizeof(m)), -1);
	expect_eq(errno, EAGAIN);
}

/* --- memory --- */

uint8_t *k_map(enum kind kind, unsigned n, int *fd)
{
	int blob = kind == SHMEM ? mem_blob_new("kernel-fact", n * PAGE) : -1;
	uint8_t *p = kind == SHMEM ? mem_map_shared(blob, 0, n * PAGE) : mem_map_private(n * PAGE);

	expect(p != NULL);
	expect(kind == SHMEM || madvise(p, n * PAGE, MADV_NOHUGEPAGE) == 0);
	if (fd)
		*fd = blob;
	return p;
}

uint8_t *k_source(uint8_t byte, unsigned n)
{
	uint8_t *p = mem_map_private(n * PAGE);

	expect(p != NULL);
	memset(p, byte, n * PAGE);
	return p;
}

int k_mount(const char *type, const char *options)
{
	char dir[] = "./mount.XXXXXX";
	int root, err = 0;

	expect(mkdtemp(dir) != NULL);
	if (unshare(CLONE_NEWNS) < 0 || mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("none", dir, type, 0, options) < 0)
		err = errno;
	root = err ? -1 : open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	expect(err || umount2(dir, MNT_DETACH) == 0);
	expect_eq(rmdir(dir), 0);
	if (err)
		fact_skip("cannot mount %s: %s", type, strerror(err));
	expect(root >= 0);
	return root;
}

int k_file(int root, uint64_t len)
{
	int fd = openat(root, "ram", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	expect(fd >= 0);
	expect_eq(unlinkat(root, "ram", 0), 0);
	expect_eq(ftruncate(fd, (off_t)len), 0);
	return fd;
}

/* --- threads --- */

static void *actor_main(void *arg)
{
	struct actor *a = arg;

	a->result = a->act(a->page);
	atomic_store(&a->done, true);
	return NULL;
}

void actor_start(struct actor *a, int (*act)(uint8_t *page), uint8_t *page)
{
	a->act = act;
	a->page = page;
	atomic_init(&a->done, false);
	expect_eq(pthread_create(&a->thread, NULL, actor_main, a), 0);
}

void actor_asleep(struct actor *a)
{
	poll(NULL, 0, A_LITTLE_MS);
	expect(!atomic_load(&a->done));
}

int actor_result(struct actor *a)
{
	expect_eq(pthread_join(a->thread, NULL), 0);
	return a->result;
}

int act_load(uint8_t *page)
{
	return *(volatile uint8_t *)page;
}

int act_store(uint8_t *page)
{
	*(volatile uint8_t *)page = 0x77;
	return 0;
}

/* --- processes --- */

enum { ORDER_LOAD = 'l', ORDER_DROP = 'd' };

struct order {
	int what;
	uint64_t page;
};

/* What the sharer's threads need; one sharer is one process. */
struct stage {
	int sock;
	volatile uint8_t *base;
};

struct errand {
	struct stage *stage;
	uint64_t page;
};

static void *errand_main(void *arg)
{
	struct errand *e = arg;
	uint8_t byte = e->stage->base[e->page * PAGE];

	expect_eq(send(e->stage->sock, &byte, 1, MSG_NOSIGNAL), 1);
	return NULL;
}

static void errand_start(struct errand *e)
{
	pthread_t thread;

	expect_eq(pthread_create(&thread, NULL, errand_main, e), 0);
	pthread_detach(thread);
}

static _Noreturn void sharer_main(int sock, int fd, uint64_t len, unsigned what)
{
	int uffd = what & SHARER_OPENS ? k_uffd(0) : -1;
	struct stage stage = { .sock = sock };
	struct errand errands[16];
	unsigned n = 0;
	struct order o;
	void *where = NULL;
	uint64_t base;

	if (what == SHARER_FORKS)
		where = forker_reserve(len);
	stage.base = mmap(where, len, PROT_READ | PROT_WRITE,
			  (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED) |
				  (where ? MAP_FIXED : 0),
			  fd, 0);
	base = at(stage.base);
	expect(base != at(MAP_FAILED));
	if (what >= SHARER_REGISTERS)
		expect_eq(k_register(uffd, base, len, NULL), 0);
	if (what == SHARER_FORKS)
		forker_start(where, len);
	expect_eq(fdpass_send(sock, &base, sizeof(base), &uffd, uffd >= 0), sizeof(base));
	while (recv(sock, &o, sizeof(o), 0) == sizeof(o)) {
		if (o.what == ORDER_DROP) {
			uint8_t ack = 0;

			close(uffd);
			expect_eq(send(sock, &ack, 1, 0), 1);
			continue;
		}
		expect(n < ARRAY_LEN(errands));
		errands[n] = (struct errand){ .stage = &stage, .page = o.page };
		errand_start(&errands[n++]);
	}
	_exit(0);
}

static void must_come(int sock)
{
	struct pollfd p = { .fd = sock, .events = POLLIN };

	expect_eq(poll(&p, 1, MUST_COME_MS), 1);
}

struct sharer sharer_start(int fd, uint64_t len, unsigned what)
{
	struct sharer s = { .uffd = -1 };
	struct fdpass got;
	int sock[2];

	expect_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock), 0);
	s.pid = fact_fork();
	if (s.pid == 0) {
		close(sock[0]);
		sharer_main(sock[1], fd, len, what);
	}
	close(sock[1]);
	s.sock = sock[0];
	must_come(s.sock);
	expect_eq(fdpass_recv(s.sock, &s.base, sizeof(s.base), &got), sizeof(s.base));
	s.uffd = fdpass_steal(&got, 0);
	expect_eq(s.uffd >= 0, what != SHARER_PLAIN);
	return s;
}

static void sharer_order(const struct sharer *s, struct order o)
{
	expect_eq(send(s->sock, &o, sizeof(o), MSG_NOSIGNAL), sizeof(o));
}

void sharer_load(const struct sharer *s, uint64_t page)
{
	sharer_order(s, (struct order){ .what = ORDER_LOAD, .page = page });
}

void sharer_asleep(const struct sharer *s)
{
	struct pollfd p = { .fd = s->sock, .events = POLLIN };

	expect_eq(poll(&p, 1, A_LITTLE_MS), 0);
}

uint8_t sharer_byte(const struct sharer *s)
{
	uint8_t byte;

	must_come(s->sock);
	expect_eq(recv(s->sock, &byte, 1, 0), 1);
	return byte;
}

void sharer_drop_uffd(const struct sharer *s)
{
	sharer_order(s, (struct order){ .what = ORDER_DROP });
	expect_eq(sharer_byte(s), 0);
}

void sharer_kill(struct sharer *s)
{
	kill(s->pid, SIGKILL);
	expect_eq(waitpid(s->pid, NULL, 0), s->pid);
	close(s->sock);
}
