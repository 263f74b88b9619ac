/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a back-end shares, and the gate before its queues: nothing is open that nobody serves (F22,
 * P01, P15, P24).
 */
#include "config.h"

#include "postcopy/postcopy.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/memfd.h>

#include <criterion/criterion.h>

#include "peer.h"
#include "sys/fd.h"
#include "sys/fdpass.h"

#define LENGTH (16 * 4096)

/* The daemon's answer to one MAPPED, given by a thread. */
struct answer {
	struct peer *peer;
	enum regmsg_type type;
	int error;
	unsigned silent; /* close the socket instead, so often */
	union regmsg asked;
	bool closed; /* the mapping could not be touched when it was told of */
	pthread_t thread;
};

/* What /proc says of the access to, or with @flags of the advice on, what is mapped at @address. */
static bool maps_has(const void *address, const char *line, const char *text)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	char row[512], start[32];
	bool inside = false, found = false;

	snprintf(start, sizeof(start), "%lx-", (unsigned long)address);
	while (f && fgets(row, sizeof(row), f)) {
		inside |= strncmp(row, start, strlen(start)) == 0;
		if (inside && strncmp(row, line, strlen(line)) == 0) {
			found = strstr(row, text) != NULL;
			break;
		}
	}
	if (f)
		fclose(f);
	return found;
}

static bool has_access(const void *address, const char *access)
{
	char start[32];

	snprintf(start, sizeof(start), "%lx-", (unsigned long)address);
	return maps_has(address, start, access);
}

static void *answer_once(void *data)
{
	struct answer *a = data;
	union regmsg m;
	int reply = -1;

	for (unsigned left = a->silent; left > 0; left--) {
		while (!peer_receive(a->peer, &a->asked, &reply))
			usleep(1000);
		close_fd(&reply);
		a->silent = left - 1;
	}
	if (a->type == REGMSG_HELLO)
		return NULL;
	while (!peer_receive(a->peer, &a->asked, &reply))
		usleep(1000);
	a->closed = has_access((void *)(uintptr_t)a->asked.mapped.address, " ---s ");
	if (a->type == REGMSG_SERVED)
		regmsg_init(&m, REGMSG_SERVED, a->asked.head.serial);
	else
		regmsg_text(&m, a->type, a->asked.head.serial, a->error, "%s",
			    a->error ? "not served" : "");
	fdpass_send(reply, &m, m.head.size, NULL, 0);
	close_fd(&reply);
	return NULL;
}

static void answer_begin(struct answer *a)
{
	cr_assert_eq(pthread_create(&a->thread, NULL, answer_once, a), 0);
}

static void answer_end(struct answer *a)
{
	pthread_join(a->thread, NULL);
	cr_assert_eq(a->asked.head.type, REGMSG_MAPPED);
	cr_assert_eq(a->silent, 0);
	cr_assert(a->closed || a->type == REGMSG_HELLO, "it could be touched before the daemon had seen it");
}

static postcopy *backend(struct peer *p)
{
	struct postcopy_options o;
	union regmsg welcome, hello;
	postcopy *handle = NULL;
	char text[256] = "";
	int fd = -1;

	peer_init(p);
	o = peer_options(p, POSTCOPY_ROLE_SHARER);
	o.backend = 1;
	regmsg_init(&welcome, REGMSG_WELCOME, 1);
	peer_send(p, &welcome, -1);
	cr_assert_eq(postcopy_new_fd(&handle, p->client, &o, text), 0, "%s", text);
	p->client = -1;
	cr_assert(peer_receive(p, &hello, &fd));
	cr_assert(hello.hello.flags & REGMSG_HELLO_UNAWARE);
	cr_assert(hello.hello.flags & REGMSG_HELLO_KERNEL);
	close_fd(&fd);
	return handle;
}

static int memory(void)
{
	int fd = memfd_create("ram", MFD_CLOEXEC);

	cr_assert_geq(fd, 0);
	cr_assert_eq(ftruncate(fd, LENGTH), 0);
	return fd;
}

static int take(postcopy *handle, enum postcopy_event_type type)
{
	struct postcopy_event e = { .size = sizeof(e) };
	int got = postcopy_dispatch(handle, &e);

	if (got == 1)
		cr_assert_eq(e.type, type, "event %u", e.type);
	return got;
}

static void *share(postcopy *handle, struct peer *p, int fd, enum regmsg_type type)
{
	struct answer a = { .peer = p, .type = type };
	void *at = NULL;

	answer_begin(&a);
	cr_assert_eq(postcopy_share(handle, fd, 0, LENGTH, &at), 0, "%s",
		     postcopy_strerror(handle));
	answer_end(&a);
	return at;
}

/* Told before LISTENING: closed until then.  Told after: open at once. */
Test(share, opens_with_listening)
{
	cleanup_fd int fd = memory();
	struct peer p;
	postcopy *handle = backend(&p);
	uint8_t *early, *late;

	cr_assert_eq(postcopy_queue_start(handle, 1), 0);
	early = share(handle, &p, fd, REGMSG_SERVED);
	cr_assert(has_access(early, " ---s "));
	cr_assert(maps_has(early, "VmFlags:", " nh"), "transparent huge pages are not off");
	cr_assert(maps_has(early, "VmFlags:", " dc"), "a child would inherit it");
	cr_assert_not(postcopy_queue_open(handle, 1));

	peer_event(&p, REGMSG_LISTENING);
	cr_assert_eq(take(handle, POSTCOPY_EVENT_LISTENING), 1);
	cr_assert(has_access(early, " rw-s "));
	cr_assert(postcopy_queue_open(handle, 1));
	late = share(handle, &p, fd, REGMSG_SERVED);
	cr_assert(has_access(late, " rw-s "));
	early[5] = 7;
	cr_assert_eq(late[5], 7);
	cr_assert_eq(postcopy_unshare(handle, early), 0);
	cr_assert_eq(postcopy_unshare(handle, early), -EINVAL);
	cr_assert(postcopy_queue_open(handle, 1));
	cr_assert_eq(postcopy_unshare(handle, late), 0);
	cr_assert_not(postcopy_queue_open(handle, 1), "open with nothing shared");
	postcopy_free(handle);
	peer_deinit(&p);
}

/* P01: only a queue that was started, whatever is there. */
Test(share, gate_is_by_queue)
{
	cleanup_fd int fd = memory();
	struct peer p;
	postcopy *handle = backend(&p);
	void *at;

	peer_event(&p, REGMSG_LISTENING);
	cr_assert_eq(take(handle, POSTCOPY_EVENT_LISTENING), 1);
	at = share(handle, &p, fd, REGMSG_RESULT); /* none of the daemon's business */
	for (unsigned queue = 0; queue < 300; queue++)
		cr_assert_not(postcopy_queue_open(handle, queue));
	cr_assert_eq(postcopy_queue_start(handle, 0), 0);
	cr_assert_eq(postcopy_queue_start(handle, 255), 0);
	cr_assert_eq(postcopy_queue_start(handle, 256), -EINVAL);
	cr_assert(strstr(postcopy_strerror(handle), "256"));
	for (unsigned queue = 0; queue < 300; queue++)
		cr_assert_eq(postcopy_queue_open(handle, queue), queue == 0 || queue == 255);
	cr_assert_eq(postcopy_queue_stop(handle, 0), 0);
	cr_assert_not(postcopy_queue_open(handle, 0));
	cr_assert(postcopy_queue_open(handle, 255));
	cr_assert_eq(postcopy_leave(handle), -EBUSY, "left with a region mapped");
	cr_assert_eq(postcopy_unshare(handle, at), 0);
	peer_result(&p, 3, 0, "");
	cr_assert_eq(postcopy_leave(handle), 0, "%s", postcopy_strerror(handle));
	postcopy_free(handle);
	peer_deinit(&p);
}

/* What is not served is not mapped, and shuts the gate until everything was unshared. */
static void refused(unsigned silent, int error, int wanted)
{
	/* HELLO: no answer at all. */
	struct answer a = { .type = silent ? REGMSG_HELLO : REGMSG_RESULT,
			    .error = error,
			    .silent = silent };
	cleanup_fd int fd = memory();
	struct peer p;
	postcopy *handle = backend(&p);
	void *good, *bad = &a;

	a.peer = &p;
	cr_assert_eq(postcopy_queue_start(handle, 0), 0);
	peer_event(&p, REGMSG_LISTENING);
	cr_assert_eq(take(handle, POSTCOPY_EVENT_LISTENING), 1);
	good = share(handle, &p, fd, REGMSG_SERVED);
	cr_assert(postcopy_queue_open(handle, 0));
	answer_begin(&a);
	cr_assert_eq(postcopy_share(handle, fd, 0, LENGTH, &bad), wanted);
	answer_end(&a);
	cr_assert_null(bad);
	cr_assert_not(has_access((void *)(uintptr_t)a.asked.mapped.address, "s "),
		      "it is still mapped");
	cr_assert_not(postcopy_queue_open(handle, 0), "open beside what is not served");
	cr_assert_eq(postcopy_unshare(handle, good), 0);
	good = share(handle, &p, fd, REGMSG_SERVED);
	cr_assert(postcopy_queue_open(handle, 0), "shut for good");
	postcopy_free(handle);
	peer_deinit(&p);
}

/* A first region that is refused leaves nothing that the next table would suffer from. */
Test(share, refused_at_first)
{
	struct answer a = { .type = REGMSG_RESULT, .error = EACCES };
	cleanup_fd int fd = memory();
	struct peer p;
	postcopy *handle = backend(&p);
	void *at;

	a.peer = &p;
	cr_assert_eq(postcopy_queue_start(handle, 0), 0);
	peer_event(&p, REGMSG_LISTENING);
	cr_assert_eq(take(handle, POSTCOPY_EVENT_LISTENING), 1);
	answer_begin(&a);
	cr_assert_eq(postcopy_share(handle, fd, 0, LENGTH, &at), -EACCES);
	answer_end(&a);
	cr_assert_not(postcopy_queue_open(handle, 0));
	share(handle, &p, fd, REGMSG_SERVED);
	cr_assert(postcopy_queue_open(handle, 0));
	postcopy_free(handle);
	peer_deinit(&p);
}

Test(share, refused_by_the_daemon)
{
	refused(0, EACCES, -EACCES);
}

Test(share, daemon_hangs_up)
{
	refused(2, 0, -ECONNRESET);
}

/* Once is a daemon that was restarted, whose successor has the connection. */
Test(share, daemon_is_restarted)
{
	struct answer a = { .type = REGMSG_SERVED, .silent = 1 };
	cleanup_fd int fd = memory();
	struct peer p;
	postcopy *handle = backend(&p);
	void *at;

	a.peer = &p;
	answer_begin(&a);
	cr_assert_eq(postcopy_share(handle, fd, 0, LENGTH, &at), 0, "%s",
		     postcopy_strerror(handle));
	answer_end(&a);
	cr_assert_not_null(at);
	postcopy_free(handle);
	peer_deinit(&p);
}

/* The daemon says COMPLETE and goes: nobody is asked any more, and nothing is closed. */
Test(share, after_the_end)
{
	cleanup_fd int fd = memory();
	struct peer p;
	postcopy *handle = backend(&p);
	void *at;

	peer_event(&p, REGMSG_LISTENING);
	peer_event(&p, REGMSG_COMPLETE);
	close_fd(&p.sock);
	cr_assert_eq(postcopy_queue_start(handle, 0), 0);
	cr_assert_eq(postcopy_share(handle, fd, 0, LENGTH, &at), 0, "%s",
		     postcopy_strerror(handle));
	cr_assert(has_access(at, " rw-s "));
	cr_assert(postcopy_queue_open(handle, 0));
	cr_assert_eq(take(handle, POSTCOPY_EVENT_LISTENING), 1);
	cr_assert_eq(take(handle, POSTCOPY_EVENT_COMPLETE), 1);
	cr_assert_eq(take(handle, POSTCOPY_EVENT_DISCONNECTED), 1);
	cr_assert(postcopy_queue_open(handle, 0));
	postcopy_free(handle);
	peer_deinit(&p);
}

/* It goes without that: what is shared stays, nothing more is, and the gate is shut. */
Test(share, daemon_dies)
{
	cleanup_fd int fd = memory();
	struct peer p;
	postcopy *handle = backend(&p);
	void *at;

	peer_event(&p, REGMSG_LISTENING);
	cr_assert_eq(take(handle, POSTCOPY_EVENT_LISTENING), 1);
	cr_assert_eq(postcopy_queue_start(handle, 0), 0);
	share(handle, &p, fd, REGMSG_SERVED);
	cr_assert(postcopy_queue_open(handle, 0));
	close_fd(&p.sock);
	cr_assert_eq(take(handle, POSTCOPY_EVENT_DISCONNECTED), 1);
	cr_assert_not(postcopy_queue_open(handle, 0));
	cr_assert_eq(postcopy_share(handle, fd, 0, LENGTH, &at), -ECONNRESET);
	cr_assert_null(at);
	postcopy_free(handle);
	peer_deinit(&p);
}

static void shut_by(enum regmsg_type type, enum postcopy_event_type event)
{
	cleanup_fd int fd = memory();
	struct peer p;
	postcopy *handle = backend(&p);
	union regmsg m;

	peer_event(&p, REGMSG_LISTENING);
	cr_assert_eq(take(handle, POSTCOPY_EVENT_LISTENING), 1);
	cr_assert_eq(postcopy_queue_start(handle, 0), 0);
	share(handle, &p, fd, REGMSG_SERVED);
	regmsg_text(&m, type, 0, EACCES, "over");
	peer_send(&p, &m, -1);
	cr_assert_eq(take(handle, event), 1);
	cr_assert_eq(postcopy_queue_open(handle, 0), event == POSTCOPY_EVENT_PAUSED);
	postcopy_free(handle);
	peer_deinit(&p);
}

Test(share, shut_when_not_served)
{
	shut_by(REGMSG_DISABLED, POSTCOPY_EVENT_DISABLED);
	shut_by(REGMSG_FAILED, POSTCOPY_EVENT_FAILED);
	shut_by(REGMSG_PAUSED, POSTCOPY_EVENT_PAUSED);
}

/* Offsets and lengths as VMMs send them, in the middle of pages, too. */
Test(share, whole_pages)
{
	struct answer a = { .type = REGMSG_SERVED };
	cleanup_fd int fd = memory();
	struct stat st;
	struct peer p;
	postcopy *handle = backend(&p);
	void *at;

	a.peer = &p;
	cr_assert_eq(fstat(fd, &st), 0);
	answer_begin(&a);
	cr_assert_eq(postcopy_share(handle, fd, 4096 + 512, 4096, &at), 0);
	answer_end(&a);
	cr_assert_eq(a.asked.mapped.file_offset, 4096);
	cr_assert_eq(a.asked.mapped.length, 2 * 4096);
	cr_assert_eq(a.asked.mapped.address + 512, (uintptr_t)at);
	cr_assert_eq(a.asked.mapped.dev, st.st_dev);
	cr_assert_eq(a.asked.mapped.inode, st.st_ino);
	postcopy_free(handle);
	peer_deinit(&p);
}

/* A region in the middle of huge pages, as the low memory of a PC is: whole ones are mapped. */
Test(share, whole_huge_pages)
{
	struct answer a = { .type = REGMSG_SERVED };
	cleanup_fd int fd = memfd_create("ram", MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB);
	struct peer p;
	postcopy *handle = backend(&p);
	void *at;

	if (fd < 0)
		cr_skip_test("no huge pages of 2 MiB here");
	cr_assert_eq(ftruncate(fd, 4 << 20), 0);
	a.peer = &p;
	answer_begin(&a);
	cr_assert_eq(postcopy_share(handle, fd, 0xc0000, 0x150000, &at), 0, "%s",
		     postcopy_strerror(handle));
	answer_end(&a);
	cr_assert_eq(a.asked.mapped.file_offset, 0);
	cr_assert_eq(a.asked.mapped.length, 4 << 20);
	cr_assert_eq(a.asked.mapped.address + 0xc0000, (uintptr_t)at);
	cr_assert_eq(postcopy_unshare(handle, at), 0);
	postcopy_free(handle);
	peer_deinit(&p);
}

Test(share, what_cannot_be)
{
	struct postcopy_block b = { .size = sizeof(b), .name = "pc.ram", .length = LENGTH };
	cleanup_fd int fd = memory();
	struct postcopy_options o;
	struct peer p, q;
	postcopy *handle = backend(&p), *other;
	char text[256] = "";
	void *at;

	b.fd = fd;
	cr_assert_eq(postcopy_share(handle, -1, 0, LENGTH, &at), -EBADF);
	cr_assert_eq(postcopy_share(handle, fd, 0, 0, &at), -EINVAL);
	cr_assert_eq(postcopy_share(handle, fd, UINT64_MAX - 4096, 8192, &at), -EINVAL);
	cr_assert_eq(postcopy_share(handle, fd, 0, UINT64_MAX, &at), -EINVAL);
	cr_assert_eq(postcopy_add_block(handle, &b), -EPERM);
	postcopy_free(handle);
	peer_deinit(&p);

	peer_init(&q);
	other = peer_welcome(&q, POSTCOPY_ROLE_SHARER);
	cr_assert_eq(postcopy_share(other, fd, 0, LENGTH, &at), -EPERM);
	postcopy_free(other);
	peer_deinit(&q);

	peer_init(&q);
	o = peer_options(&q, POSTCOPY_ROLE_MAIN);
	o.backend = 1;
	cr_assert_eq(postcopy_new_fd(&other, q.client, &o, text), -EINVAL);
	q.client = -1;
	cr_assert(strstr(text, "main"), "%s", text);
	peer_deinit(&q);
}

/* More regions than there is room for are refused, not forgotten. */
Test(share, table_is_full)
{
	cleanup_fd int fd = memory();
	struct peer p;
	postcopy *handle = backend(&p);
	void *at;

	peer_event(&p, REGMSG_LISTENING);
	peer_event(&p, REGMSG_COMPLETE);
	for (unsigned i = 0; i < 64; i++)
		cr_assert_eq(postcopy_share(handle, fd, 0, 4096, &at), 0);
	cr_assert_eq(postcopy_share(handle, fd, 0, 4096, &at), -ENOSPC);
	postcopy_free(handle);
	peer_deinit(&p);
}

/* A child has nothing to touch. */
Test(share, children)
{
	cleanup_fd int fd = memory();
	struct peer p;
	postcopy *handle = backend(&p);
	volatile uint8_t *at;
	int status;
	pid_t pid;

	peer_event(&p, REGMSG_LISTENING);
	cr_assert_eq(take(handle, POSTCOPY_EVENT_LISTENING), 1);
	at = share(handle, &p, fd, REGMSG_SERVED);
	pid = fork();
	if (pid == 0) {
		signal(SIGSEGV, SIG_DFL);
		_exit(at[0]);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	postcopy_free(handle);
	peer_deinit(&p);
}
