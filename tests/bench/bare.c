/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The rows to compare with: the least that any program could do for the same work, on the same
 * kernel, against the same source.
 *
 *   bare local     a userfaultfd round trip: poll, read, COPY; no network
 *   bare tcp       an 8 byte question and a 4 KiB answer over loopback TCP; no fault.
 *                  local + tcp is the floor
 *   bare urgent    poll, read, send, recv, COPY against postcopy-source's urgent channel;
 *                  optionally a second thread that receives and places the background stream of
 *                  the main channel (--background)
 *   bare bulk      receive and place the background stream; no fault
 *
 * Nothing here is robust on purpose: no ledger, no waiters, no second sharer, no error is survived.
 */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/guard.h"
#include "sys/clock.h"
#include "sys/fdpass.h"
#include "sys/mem.h"
#include "sys/uffd.h"
#include "toucher.h"
#include "wire/qreturn.h"
#include "wire/qstream.h"

#define PAGE	 4096u
#define BUFFER	 (4u << 20)

struct bare {
	uint64_t pages, count, seed;
	int cpu_handler, cpu_toucher;
	bool background;
	int memfd, uffd;
	/* of the toucher's mapping: the same address as ours, it is our child */
	uint64_t base;
	int main_fd, urgent_fd;
	struct qstream stream;
	struct mem_ring in;
	pthread_t thread;
	uint64_t placed, placing_ns;	/* by the background thread, and for how long */
};

static void die(const char *what)
{
	fprintf(stderr, "bare: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void place(const struct bare *b, uint64_t offset, const void *data)
{
	struct uffd_result r;

	uffd_place(&uffd_kernel_ops, b->uffd, UFFD_COPY, b->base + offset, PAGE, data, true, &r);
}

/* --- the measured process --------------------------------------------------------------------- */

static void child(const struct bare *b, int sock, const char *row)
{
	struct toucher t = {
		.base = (const uint8_t *)(uintptr_t)b->base,
		.pages = b->pages,
		.page_size = PAGE,
		.count = b->count,
		.seed = b->seed,
		.only_absent = b->background,
	};
	int uffd = uffd_open(0, false);
	unsigned can;
	char go;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	toucher_pin(b->cpu_toucher);
	if (uffd < 0 || uffd_register(uffd, b->base, b->pages * PAGE, &can) < 0)
		die("userfaultfd");
	fdpass_send(sock, "u", 1, &uffd, 1);
	if (read(sock, &go, 1) != 1)
		exit(1);
	if (b->count) {
		toucher_run(&t);
		toucher_print(&t, row);
	}
	(void)!write(sock, "d", 1);
	pause();
	exit(0);
}

/* Fork the toucher; its userfaultfd comes back. */
static pid_t start_child(struct bare *b, int *sock, const char *row)
{
	struct fdpass fds;
	int pair[2];
	char c;
	pid_t pid;

	b->memfd = memfd_create("bare", MFD_CLOEXEC);
	if (b->memfd < 0 || ftruncate(b->memfd, (off_t)(b->pages * PAGE)) < 0)
		die("memfd");
	b->base = (uint64_t)(uintptr_t)mmap(NULL, b->pages * PAGE, PROT_READ | PROT_WRITE,
					    MAP_SHARED | MAP_NORESERVE, b->memfd, 0);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) < 0)
		die("socketpair");
	fflush(stdout);
	pid = fork();
	if (pid == 0)
		child(b, pair[1], row);
	*sock = pair[0];
	fdpass_init(&fds);
	while (fdpass_recv(pair[0], &c, 1, &fds) == -EAGAIN)
		usleep(100);
	b->uffd = fdpass_steal(&fds, 0);
	return pid;
}

/* --- rows ------------------------------------------------------------------------------------- */

static void run_local(struct bare *b)
{
	static uint8_t page[PAGE];
	int sock;
	pid_t pid = start_child(b, &sock, "local");
	struct pollfd p[2] = { { .fd = b->uffd, .events = POLLIN },
			       { .fd = sock, .events = POLLIN } };

	memset(page, 1, sizeof(page));
	(void)!write(sock, "g", 1);
	for (;;) {
		struct uffd_event e[16];
		int n;

		poll(p, 2, -1);
		if (p[1].revents)
			break;
		n = uffd_read(b->uffd, e, 16);
		for (int i = 0; i < n; i++)
			place(b, (e[i].address & ~(uint64_t)(PAGE - 1)) - b->base, page);
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static int tcp_pair(int fd[2])
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t len = sizeof(addr);
	int l = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	if (bind(l, (struct sockaddr *)&addr, len) < 0 || listen(l, 1) < 0 ||
	    getsockname(l, (struct sockaddr *)&addr, &len) < 0)
		return -1;
	fd[0] = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(fd[0], (struct sockaddr *)&addr, len) < 0)
		return -1;
	fd[1] = accept(l, NULL, NULL);
	close(l);
	for (int i = 0; i < 2; i++)
		setsockopt(fd[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return 0;
}

static void run_tcp(struct bare *b)
{
	static uint8_t page[PAGE];
	struct toucher t = { .count = b->count, .sample = calloc(b->count, sizeof(*t.sample)) };
	uint64_t start, question = 0;
	int fd[2];
	pid_t pid;

	if (tcp_pair(fd) < 0)
		die("tcp");
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		toucher_pin(b->cpu_toucher);
		while (recv(fd[1], &question, 8, MSG_WAITALL) == 8)
			(void)!send(fd[1], page, PAGE, 0);
		exit(0);
	}
	start = clock_ns();
	for (uint64_t i = 0; i < b->count; i++) {
		uint64_t before = clock_ns();

		(void)!send(fd[0], &question, 8, 0);
		(void)!recv(fd[0], page, PAGE, MSG_WAITALL);
		t.sample[t.samples++] = clock_ns() - before;
	}
	t.elapsed_ns = clock_ns() - start;
	toucher_print(&t, "tcp");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* --- against postcopy-source ------------------------------------------------------------------ */

static void pong(const struct bare *b, uint32_t value)
{
	uint8_t m[QRETURN_MESSAGE_MAX];

	(void)!send(b->main_fd, m, qreturn_pong(m, value), 0);
}

static bool more(struct bare *b)
{
	ssize_t n = recv(b->main_fd, mem_ring_write(&b->in), mem_ring_room(&b->in), 0);

	if (n > 0)
		b->in.tail += (size_t)n;
	return n > 0;
}

static void take_package(struct bare *b, uint32_t size)
{
	while (mem_ring_used(&b->in) < size)
		if (!more(b))
			die("package");
	b->in.head += size;
	qstream_took(&b->stream, size);
	pong(b, 3);
	pong(b, QSTREAM_COMMIT_PING);
}

/* Everything up to the package. */
static void handshake(struct bare *b)
{
	struct qstream_record rec;

	for (;;) {
		int e = qstream_next(&b->stream, mem_ring_read(&b->in), mem_ring_used(&b->in),
				     &rec);

		if (e < 0) {
			fprintf(stderr, "bare: %s\n", b->stream.reason);
			exit(1);
		}
		if (e == QSTREAM_NEED_MORE && !more(b))
			die("handshake");
		b->in.head += rec.used;
		if (e == QSTREAM_PING)
			pong(b, rec.ping);
		if (e == QSTREAM_PACKAGED) {
			take_package(b, rec.packaged);
			return;
		}
	}
}

/* False at the stream's end. */
static bool take_main(struct bare *b)
{
	struct qstream_record rec;
	struct uffd_result r;
	int e = qstream_next(&b->stream, mem_ring_read(&b->in), mem_ring_used(&b->in), &rec);

	b->in.head += rec.used;
	if (e == QSTREAM_PAGE) {
		place(b, rec.page.offset, rec.page.data);
		b->placed++;
	} else if (e == QSTREAM_ZERO) {
		uffd_place(&uffd_kernel_ops, b->uffd, UFFD_ZERO, b->base + rec.page.offset, PAGE,
			   NULL, true, &r);
		b->placed++;
	} else if (e == QSTREAM_PING) {
		pong(b, rec.ping);
	}
	return e >= 0 && e != QSTREAM_EOF && (e != QSTREAM_NEED_MORE || more(b));
}

static void *background(void *arg)
{
	struct bare *b = arg;
	uint64_t start = clock_ns();

	while (take_main(b))
		;
	b->placing_ns = clock_ns() - start;
	return NULL;
}

static void print_stream(const struct bare *b)
{
	uint64_t ns = b->placing_ns ? b->placing_ns : 1;

	printf("bare-stream pages %" PRIu64 " ns %" PRIu64 " MiB_per_s %" PRIu64 "\n", b->placed,
	       b->placing_ns, b->placed * PAGE * 1000 / ns * 1000000 / 1048576);
	fflush(stdout);
}

/*
 * One page from the urgent channel: word, name unless CONTINUE, data; placed from where it was
 * received.
 */
static void take_urgent(struct bare *b, uint8_t *buf, const char *name)
{
	size_t have = 0, want = 8 + PAGE;
	uint64_t word;

	while (have < want) {
		ssize_t n = recv(b->urgent_fd, buf + have, want - have, 0);

		if (n <= 0)
			die("urgent channel");
		have += (size_t)n;
		if (have >= 8 && !(buf[7] & 0x20))
			want = 8 + 1 + strlen(name) + PAGE;
	}
	memcpy(&word, buf, 8);
	place(b, be64toh(word) & ~(uint64_t)(PAGE - 1), buf + want - PAGE);
}

static void serve(struct bare *b, int sock, const char *name)
{
	struct pollfd p[2] = { { .fd = b->uffd, .events = POLLIN },
			       { .fd = sock, .events = POLLIN } };
	static uint8_t buf[2 * PAGE];
	struct qreturn_writer w;

	qreturn_writer_init(&w);
	for (;;) {
		struct uffd_event e[16];
		uint8_t m[QRETURN_MESSAGE_MAX];
		int n;

		poll(p, 2, -1);
		if (p[1].revents)
			return;
		n = uffd_read(b->uffd, e, 16);
		for (int i = 0; i < n; i++) {
			uint64_t offset = (e[i].address & ~(uint64_t)(PAGE - 1)) - b->base;
			size_t len = qreturn_request(&w, m, 0, name, offset, PAGE);

			(void)!send(b->main_fd, m, len, 0);
			take_urgent(b, buf, name);
		}
	}
}

/* With a background stream faults and urgent pages come in any order. */
static void serve_both(struct bare *b, int sock, const char *name)
{
	struct pollfd p[3] = { { .fd = b->uffd, .events = POLLIN },
			       { .fd = b->urgent_fd, .events = POLLIN },
			       { .fd = sock, .events = POLLIN } };
	static uint8_t buf[2 * PAGE];
	struct qreturn_writer w;

	qreturn_writer_init(&w);
	for (;;) {
		struct uffd_event e[16];
		uint8_t m[QRETURN_MESSAGE_MAX];
		int n;

		poll(p, 3, -1);
		if (p[2].revents)
			return;
		if (p[1].revents)
			take_urgent(b, buf, name);
		n = p[0].revents ? uffd_read(b->uffd, e, 16) : 0;
		for (int i = 0; i < n; i++) {
			uint64_t offset = (e[i].address & ~(uint64_t)(PAGE - 1)) - b->base;

			(void)!send(b->main_fd, m, qreturn_request(&w, m, 0, name, offset, PAGE),
				    0);
		}
	}
}

static int listen_any(void)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t len = sizeof(addr);
	int l = socket(AF_INET, SOCK_STREAM, 0);

	if (bind(l, (struct sockaddr *)&addr, len) < 0 || listen(l, 4) < 0 ||
	    getsockname(l, (struct sockaddr *)&addr, &len) < 0)
		die("listen");
	printf("READY tcp:127.0.0.1:%d\n", ntohs(addr.sin_port));
	fflush(stdout);
	return l;
}

static void finish(struct bare *b)
{
	uint8_t m[QRETURN_MESSAGE_MAX];

	if (b->background) {
		pthread_join(b->thread, NULL);
		print_stream(b);
	}
	(void)!send(b->main_fd, m, qreturn_shut(m, 0), 0);
	while (recv(b->main_fd, m, sizeof(m), 0) > 0)
		;
}

static void accept_both(struct bare *b, bool urgent)
{
	int l = listen_any(), one = 1;

	qstream_init(&b->stream, QSTREAM_MAIN, NULL);
	if (mem_ring_init(&b->in, BUFFER) < 0)
		die("buffer");
	b->main_fd = accept(l, NULL, NULL);
	setsockopt(b->main_fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	handshake(b);
	if (urgent)
		b->urgent_fd = accept(l, NULL, NULL);
	close(l);
}

static void run_urgent(struct bare *b)
{
	const char *name = "m1";
	int sock;
	pid_t pid = start_child(b, &sock, b->background ? "bare-loaded" : "bare");

	accept_both(b, true);
	if (b->background && pthread_create(&b->thread, NULL, background, b) != 0)
		die("thread");
	(void)!write(sock, "g", 1);
	if (b->background)
		serve_both(b, sock, name);
	else
		serve(b, sock, name);
	finish(b);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void run_bulk(struct bare *b)
{
	int sock;
	pid_t pid;

	b->count = 0;
	pid = start_child(b, &sock, "bulk");
	(void)!write(sock, "g", 1);
	accept_both(b, false);
	background(b);
	print_stream(b);
	finish(b);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static int usage(void)
{
	fprintf(stderr,
		"usage: bare local|tcp|urgent|bulk PAGES COUNT SEED CPU_HANDLER CPU_TOUCHER [--background]\n"
		"CPUs: -1 leaves a process where it is.  urgent and bulk print READY ADDRESS for postcopy-source.\n");
	return 2;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(struct bare *);
	} rows[] = { { "local", run_local },
		     { "tcp", run_tcp },
		     { "urgent", run_urgent },
		     { "bulk", run_bulk } };
	struct bare b = { .uffd = -1 };

	if (argc < 7)
		return usage();
	b.pages = strtoull(argv[2], NULL, 0);
	b.count = strtoull(argv[3], NULL, 0);
	b.seed = strtoull(argv[4], NULL, 0);
	b.cpu_handler = atoi(argv[5]);
	b.cpu_toucher = atoi(argv[6]);
	b.background = argc > 7 && strcmp(argv[7], "--background") == 0;
	signal(SIGPIPE, SIG_IGN);
	toucher_pin(b.cpu_handler);
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++)
		if (strcmp(argv[1], rows[i].name) == 0) {
			rows[i].run(&b);
			return 0;
		}
	return usage();
}
