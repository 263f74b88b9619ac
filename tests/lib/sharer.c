/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The main thread is an event loop over the handle's descriptor, as a VMM would have one; it never
 * touches guest memory before the end, so it can always say what happens to the threads that do.
 */
#include "config.h"

#include "sharer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/guard.h"
#include "sys/fd.h"
#include "sys/uffd.h"

enum { EXIT_LOST = 2 };

struct sharer {
	struct sharer_options options;
	postcopy *handle;
	struct sharer_touch *touch;
	struct sharer_console console;
	int done_fd;		/* the threads have ended */
	bool may_touch;		/* by the daemon's word */
	bool touched, complete;
	uint64_t loaded_at_ms;	/* 0: nothing to say */
	int exit_code;		/* -1: go on */
};

static uint64_t now_ms(void)
{
	return sharer_report_now_ns() / 1000000;
}

static void report_text(const char *event, int error, const char *text)
{
	char quoted[1024];

	sharer_report(event, ",\"error\":%d,\"text\":%s", error,
		      sharer_report_quote(quoted, sizeof(quoted), text));
}

static int fail(const char *what, int err, const char *text)
{
	char both[512];

	snprintf(both, sizeof(both), "%s: %s", what, text && *text ? text : strerror(-err));
	report_text("error", -err, both);
	return err;
}

/* --- registration --- */

static int open_uffd(const struct sharer_options *o)
{
	int pair[2], fd = -1;

	switch (o->uffd) {
	case SHARER_UFFD_GOOD:
		return -1;
	case SHARER_UFFD_BLOCKING:
		fd = uffd_open(0, o->user_faults_only);
		if (fd >= 0)
			fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
		break;
	case SHARER_UFFD_RAW:
		fd = uffd_create(o->user_faults_only);
		break;
	case SHARER_UFFD_USER_ONLY:
		fd = uffd_open(0, true);
		break;
	case SHARER_UFFD_EVENTS:
		fd = uffd_open(UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP |
				       UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_THREAD_ID,
			       o->user_faults_only);
		break;
	case SHARER_UFFD_PIPE:
		if (pipe2(pair, O_CLOEXEC) == 0) {
			fd = pair[0];
			close(pair[1]);
		}
		break;
	}
	return fd;
}

static int say_hello(struct sharer *s)
{
	struct postcopy_options o = POSTCOPY_OPTIONS_INIT;
	char text[256] = "";
	int err;

	o.role = s->options.role;
	o.policy = s->options.policy;
	o.name = s->options.name;
	o.user_faults_only = s->options.user_faults_only;
	o.uffd = open_uffd(&s->options);
	err = postcopy_new(&s->handle, s->options.socket, &o, text);
	if (err)
		return fail("hello", err, text);
	sharer_report("joined", ",\"pid\":%d", getpid());
	return 0;
}

/* Where others find the memory; the path works for whoever may look into /proc/PID. */
static void publish(const struct sharer_block *b)
{
	char quoted[600];

	if (b->private)
		return;
	sharer_report_quote(quoted, sizeof(quoted), b->name);
	sharer_report("memfd", ",\"block\":%s,\"path\":\"/proc/%d/fd/%d\",\"size\":%" PRIu64,
		      quoted, getpid(), b->fd, b->size);
}

static int self_register(struct sharer *s, const struct sharer_block *b)
{
	unsigned can;
	int err;

	err = uffd_register(postcopy_uffd(s->handle), (uintptr_t)b->address, b->size, &can);
	if (err)
		return fail("UFFDIO_REGISTER", err, b->name);
	err = postcopy_map(s->handle, b->name, 0, b->address, b->size);
	return err ? fail("map", err, postcopy_strerror(s->handle)) : 0;
}

static int add_block(struct sharer *s, struct sharer_block *b)
{
	bool self = s->options.self_register && !b->private;
	struct postcopy_block block = {
		.size = sizeof(block),
		.fd = b->fd,
		.name = b->name,
		.length = b->size,
		.file_offset = b->offset,
		.page_size = b->private ? b->page_size : 0,
		.address = b->private || self ? b->address : NULL,
	};
	int err = postcopy_add_block(s->handle, &block);

	if (err)
		return fail(b->name, err, postcopy_strerror(s->handle));
	return self ? self_register(s, b) : 0;
}

static int map_all(struct sharer *s)
{
	for (unsigned i = 0; i < s->options.n_blocks; i++) {
		struct sharer_block *b = &s->options.block[i];
		int err = sharer_memory_map(b);

		if (err)
			return fail(b->name, err, NULL);
		publish(b);
	}
	return 0;
}

static int join(struct sharer *s)
{
	int err = map_all(s);

	if (!err)
		err = say_hello(s);
	for (unsigned i = 0; !err && i < s->options.n_blocks; i++)
		err = add_block(s, &s->options.block[i]);
	if (err)
		return err;
	err = postcopy_ready(s->handle);
	if (err)
		return fail("ready", err, postcopy_strerror(s->handle));
	sharer_report_bare("ready");
	return 0;
}

/* --- touching --- */

static bool held(const struct sharer *s)
{
	return s->may_touch && s->options.hold && access(s->options.hold, F_OK) != 0;
}

static void maybe_touch(struct sharer *s)
{
	int err;

	if (!s->may_touch || s->touch || s->touched || s->options.threads == 0 || held(s))
		return;
	sharer_report("touching", ",\"threads\":%u,\"seed\":%" PRIu64, s->options.threads,
		      s->options.seed);
	err = sharer_touch_start(&s->touch, &s->options, s->done_fd);
	if (err) {
		fail("threads", err, NULL);
		s->exit_code = EXIT_FAILURE;
	}
}

static void leave(struct sharer *s)
{
	int err;

	for (unsigned i = 0; i < s->options.n_blocks; i++)
		sharer_memory_unmap(&s->options.block[i]);
	err = postcopy_leave(s->handle);
	if (err)
		fail("leave", err, postcopy_strerror(s->handle));
	else
		sharer_report_bare("left");
	s->exit_code = err ? EXIT_FAILURE : EXIT_SUCCESS;
}

static void on_touched(struct sharer *s)
{
	struct sharer_touched r;
	eventfd_t n;

	eventfd_read(s->done_fd, &n);
	sharer_touch_finish(s->touch, &r);
	s->touch = NULL;
	s->touched = true;
	sharer_report("touched",
		      ",\"pages\":%" PRIu64 ",\"faulted\":%" PRIu64
		      ",\"p50_us\":%.3f,\"p99_us\":%.3f"
		      ",\"max_us\":%.3f,\"elapsed_us\":%.1f",
		      r.pages, r.faulted, r.p50_us, r.p99_us, r.max_us, r.elapsed_us);
	if (s->options.leave_after)
		leave(s);
}

/* --- digests --- */

static void print_digest(FILE *file, const struct sharer_block *b)
{
	char quoted[600];

	sharer_report_quote(quoted, sizeof(quoted), b->name);
	if (file)
		fprintf(file, "{\"block\":%s,\"size\":%" PRIu64 ",\"xxh3_128\":\"%s\"}\n", quoted,
			b->size, b->digest);
	else
		sharer_report("digest", ",\"block\":%s,\"size\":%" PRIu64 ",\"xxh3_128\":\"%s\"",
			      quoted, b->size, b->digest);
}

static int write_file(const struct sharer_options *o)
{
	FILE *file = fopen(o->digest, "we");
	bool bad;

	if (!file)
		return -errno;
	for (unsigned i = 0; i < o->n_blocks; i++)
		print_digest(file, &o->block[i]);
	bad = ferror(file);
	return fclose(file) != 0 || bad ? -EIO : 0;
}

/* The file is whole before stdout says a word: who reads a digest there may open it. */
static int write_digests(struct sharer *s)
{
	struct sharer_options *o = &s->options;
	int err = 0;

	if (sharer_console_lost())
		return 0;
	for (unsigned i = 0; i < o->n_blocks; i++)
		sharer_memory_digest(o->block[i].address, o->block[i].size, o->block[i].digest);
	if (o->digest)
		err = write_file(o);
	for (unsigned i = 0; i < o->n_blocks; i++)
		print_digest(NULL, &o->block[i]);
	return err ? fail("digest", err, NULL) : 0;
}

/* Nothing waits any more, and nothing will change: say what is there. */
static void maybe_finish(struct sharer *s)
{
	if (!s->complete || s->touch || s->exit_code >= 0)
		return;
	s->complete = false;
	/* what was unmapped on the console cannot be read */
	if (!s->options.block[0].address)
		return;
	if (write_digests(s) != 0)
		s->exit_code = EXIT_FAILURE;
	else if (s->options.exit_after_complete)
		s->exit_code = EXIT_SUCCESS;
}

/* --- events --- */

static void send_wants(struct sharer *s)
{
	for (unsigned i = 0; i < s->options.n_wants; i++) {
		const struct sharer_want *w = &s->options.want[i];
		int err = postcopy_want(s->handle, w->block, w->offset, w->length, w->klass);

		report_text("wanted", -err, err ? postcopy_strerror(s->handle) : w->block);
	}
}

static void on_package(struct sharer *s, const struct postcopy_event *e)
{
	cleanup_fd int fd = e->package_fd;
	void *body = mmap(NULL, e->package_length, PROT_READ, MAP_SHARED, fd, 0);
	char digest[33] = "";

	if (body == MAP_FAILED) {
		fail("package", -errno, NULL);
		s->exit_code = EXIT_FAILURE;
		return;
	}
	sharer_memory_digest(body, e->package_length, digest);
	munmap(body, e->package_length);
	sharer_report("package",
		      ",\"bytes\":%" PRIu64 ",\"device_offset\":%" PRIu64
		      ",\"device_bytes\":%" PRIu64 ",\"seals\":%d,\"xxh3_128\":\"%s\"",
		      e->package_length, e->device_offset, e->device_length, fcntl(fd, F_GET_SEALS),
		      digest);
	s->loaded_at_ms = now_ms() + s->options.loaded_after_ms;
}

static void maybe_loaded(struct sharer *s)
{
	int err;

	if (s->loaded_at_ms == 0 || (!s->options.load_now && now_ms() < s->loaded_at_ms))
		return;
	s->loaded_at_ms = 0;
	err = s->options.load_fail ? postcopy_load_failed(s->handle, s->options.load_fail)
				   : postcopy_loaded(s->handle);
	if (err)
		fail("loaded", err, postcopy_strerror(s->handle));
	else
		sharer_report_bare(s->options.load_fail ? "load-failed" : "loaded");
}

/* COMPLETE cannot come any more. */
static void on_lost(struct sharer *s)
{
	if (s->options.exit_after_complete && !s->complete && s->exit_code < 0)
		s->exit_code = EXIT_LOST;
}

static void on_event(struct sharer *s, const struct postcopy_event *e)
{
	static const char *const names[] = {
		[POSTCOPY_EVENT_LISTENING] = "listening",
		[POSTCOPY_EVENT_RUNNING] = "running",
		[POSTCOPY_EVENT_COMPLETE] = "complete",
		[POSTCOPY_EVENT_PAUSED] = "paused",
		[POSTCOPY_EVENT_FAILED] = "failed",
		[POSTCOPY_EVENT_DISABLED] = "disabled",
		[POSTCOPY_EVENT_DISCONNECTED] = "disconnected",
	};

	if (e->type == POSTCOPY_EVENT_PACKAGE) {
		on_package(s, e);
		return;
	}
	if (e->type == POSTCOPY_EVENT_DMA_RANGE || e->type == POSTCOPY_EVENT_DMA_OPEN) {
		sharer_dma_event(&s->options, s->handle, e);
		return;
	}
	report_text(names[e->type], e->error, e->text);
	switch (e->type) {
	case POSTCOPY_EVENT_LISTENING:
		send_wants(s);
		s->may_touch |= s->options.touch_from_listening;
		break;
	case POSTCOPY_EVENT_RUNNING:
		s->may_touch = true;
		break;
	case POSTCOPY_EVENT_COMPLETE:
		s->complete = true;
		break;
	case POSTCOPY_EVENT_FAILED:
	case POSTCOPY_EVENT_DISABLED:
	case POSTCOPY_EVENT_DISCONNECTED:
		on_lost(s);
		break;
	default:
		break;
	}
}

static void drain_events(struct sharer *s)
{
	struct postcopy_event e = { .size = sizeof(e) };

	while (s->exit_code < 0 && s->handle && postcopy_dispatch(s->handle, &e) == 1)
		on_event(s, &e);
}

static int patience(const struct sharer *s)
{
	if (s->loaded_at_ms != 0) {
		uint64_t now = now_ms();

		return now < s->loaded_at_ms ? (int)(s->loaded_at_ms - now) : 0;
	}
	return held(s) ? 20 : -1;
}

static int run(struct sharer *s)
{
	while (s->exit_code < 0) {
		struct pollfd pfd[] = {
			{ .fd = s->handle ? postcopy_fd(s->handle) : -1, .events = POLLIN },
			{ .fd = s->done_fd, .events = POLLIN },
			{ .fd = s->options.console ? STDIN_FILENO : -1, .events = POLLIN },
		};

		if (poll(pfd, ARRAY_LEN(pfd), patience(s)) < 0 && errno != EINTR)
			return EXIT_FAILURE;
		if (pfd[2].revents)
			s->options.console = sharer_console_read(&s->console, &s->options,
								 &s->handle);
		drain_events(s);
		if (pfd[1].revents && s->exit_code < 0)
			on_touched(s);
		maybe_loaded(s);
		maybe_touch(s);
		maybe_finish(s);
	}
	return s->exit_code;
}

int main(int argc, char **argv)
{
	struct sharer s = { .exit_code = -1 };
	int err = sharer_options_parse(&s.options, argc, argv);

	if (err)
		return err > 0 ? EXIT_SUCCESS : 64;
	s.done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	err = s.done_fd < 0 ? -errno : join(&s);
	if (!err)
		err = run(&s);
	fflush(stdout);
	/* Threads may sit in a fault that nobody will answer: wait for none of them. */
	_exit(err < 0 ? EXIT_FAILURE : err);
}
