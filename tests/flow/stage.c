/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "stage_parts.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/guard.h"
#include "daemon/record.h"
#include "facts.h"
#include "forker.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "sys/fdpass.h"
#include "wire/regmsg.h"

/* --- sharers ------------------------------------------------------------------------------ */

struct order {
	uint32_t first, n;
};

struct toucher {
	const uint64_t *page;
	struct stage_seen *seen;
};

static void *touch(void *arg)
{
	const struct toucher *t = arg;

	t->seen->first = *(const volatile uint64_t *)t->page;
	t->seen->last = t->page[PAGE / 8 - 1];
	atomic_store(&t->seen->done, true);
	return NULL;
}

/* A forked process has its parent's mappings, registered when the parent asked for fork events. */
static void fork_reader(const uint8_t *at, struct stage_seen *seen)
{
	struct toucher t = { (const uint64_t *)at, seen };

	if (fact_fork() > 0)
		return;
	touch(&t);
	_exit(0);
}

/*
 * The sharer's process: map, hand the descriptor over, then a thread for every page it is told;
 * told of none, it forks.
 */
static _Noreturn void live(int sock, const struct stage *s, unsigned who)
{
	bool forks = who && who == s->options.forks;
	void *where = forks ? forker_reserve(LENGTH) : NULL;
	int flags = (s->options.private ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED) |
		    (forks ? MAP_FIXED : 0);
	uint8_t *at = mmap(where, LENGTH, PROT_READ | PROT_WRITE, flags,
			   s->options.private ? -1 : s->memfd, 0);
	uint64_t address = (uintptr_t)at;
	int uffd = uffd_open(s->options.uffd_features, false);
	struct order o;

	expect(at != MAP_FAILED && uffd >= 0);
	if (forks)
		forker_start(where, LENGTH);
	expect_eq(fdpass_send(sock, &address, sizeof(address), &uffd, 1), sizeof(address));
	while (recv(sock, &o, sizeof(o), 0) == sizeof(o)) {
		if (o.n == 0)
			fork_reader(at + (size_t)o.first * PAGE, &s->seen[who][o.first]);
		for (uint32_t i = o.first; i < o.first + o.n; i++) {
			struct toucher *t = malloc(sizeof(*t));
			pthread_t thread;

			expect(t);
			*t = (struct toucher){ (const uint64_t *)(at + (size_t)i * PAGE),
					       &s->seen[who][i] };
			expect_eq(pthread_create(&thread, NULL, touch, t), 0);
		}
	}
	_exit(0);
}

static void start_sharer(struct stage *s, unsigned who)
{
	struct stage_sharer *m = &s->sharer[who];
	cleanup_fdpass struct fdpass fds;
	struct pollfd ready;
	unsigned can;
	int pair[2];

	expect_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	m->pid = fact_fork();
	if (m->pid == 0) {
		close(pair[0]);
		live(pair[1], s, who);
	}
	close(pair[1]);
	m->sock = pair[0];
	ready = (struct pollfd){ .fd = m->sock, .events = POLLIN };
	expect_eq(poll(&ready, 1, STAGE_PATIENCE_MS), 1);
	fdpass_init(&fds);
	expect_eq(fdpass_recv(m->sock, &m->address, sizeof(m->address), &fds), sizeof(m->address));
	m->uffd = fdpass_steal(&fds, 0);
	expect_eq(uffd_register(m->uffd, m->address, LENGTH, &can), 0);
}

void stage_map(struct stage *s, unsigned who)
{
	struct message map = { .kind = MESSAGE_MAP };

	map.map.id = who + 1;
	map.map.mapping = (struct mapping){ .address = s->sharer[who].address, .length = LENGTH,
					    .can_zero = true };
	faultloop_post(s->loop, &map);
}

static void post_sharer(struct stage *s, unsigned who)
{
	struct message join = { .kind = MESSAGE_JOIN };

	join.join.id = who + 1;
	join.join.pid = s->sharer[who].pid;
	join.join.main = who == STAGE_MAIN;
	join.join.policy = REGMSG_POLICY_DISABLE;
	join.join.uffd = dup(s->sharer[who].uffd);
	join.join.maps = 1;
	snprintf(join.join.name, sizeof(join.join.name), "sharer%u", who);
	faultloop_post(s->loop, &join);
	if (!s->options.late_map || who + 1 < s->options.sharers)
		stage_map(s, who);
}

void stage_touch(struct stage *s, unsigned who, unsigned first, unsigned n)
{
	const struct order o = { first, n };

	expect_eq(send(s->sharer[who].sock, &o, sizeof(o), 0), sizeof(o));
	for (unsigned i = first; i < first + n; i++)
		s->touched[i] = true;
}

void stage_fork(struct stage *s, unsigned who, unsigned page)
{
	stage_touch(s, who, page, 0);
}

bool stage_seen(const struct stage *s, unsigned who, unsigned page)
{
	return atomic_load(&s->seen[who][page].done);
}

/* --- the daemon's main thread -------------------------------------------------------------- */

uint64_t stage_deadline(void)
{
	return clock_ns() + STAGE_PATIENCE_MS * 1000000ull;
}

const struct snapshot *stage_look(struct stage *s)
{
	const struct message m = { .kind = MESSAGE_SNAPSHOT, .snapshot = s->snapshot };
	struct pollfd ready = { .fd = faultloop_notify_fd(s->loop), .events = POLLIN };
	struct snapshot *back = NULL;

	faultloop_post(s->loop, &m);
	for (uint64_t until = stage_deadline(); !back && clock_ns() < until;) {
		poll(&ready, 1, 100);
		back = faultloop_collect(s->loop, NULL);
	}
	expect(back);
	return back;
}

static void wait_need(struct stage *s, enum snapshot_need need)
{
	uint64_t until = stage_deadline();

	while (stage_look(s)->need != need) {
		expect(clock_ns() < until);
		usleep(1000);
	}
}

void stage_wait_state(struct stage *s, enum session_state state)
{
	uint64_t until = stage_deadline();

	while (stage_look(s)->state != state) {
		if (clock_ns() > until)
			fact_failed(__FILE__, __LINE__, "state is %s (%s), not %s",
				    session_state_name(s->snapshot->state), s->snapshot->reason,
				    session_state_name(state));
		stage_hear(s, 1);
	}
}

void stage_wait_zero(struct stage *s, uint64_t pages)
{
	uint64_t until = stage_deadline();

	while (stage_look(s)->block[0].zero != pages) {
		if (clock_ns() > until)
			fact_failed(__FILE__, __LINE__, "%llu pages are known to be zero, not %llu",
				    (unsigned long long)s->snapshot->block[0].zero,
				    (unsigned long long)pages);
		stage_hear(s, 1);
	}
}

void stage_wait_parked(struct stage *s, uint64_t threads)
{
	uint64_t until = stage_deadline();

	while (stage_look(s)->faults_in_flight != threads) {
		if (clock_ns() > until)
			fact_failed(__FILE__, __LINE__, "%llu threads wait, not %llu",
				    (unsigned long long)s->snapshot->faults_in_flight,
				    (unsigned long long)threads);
		stage_hear(s, 1);
	}
}

void stage_wait_shut(struct stage *s)
{
	uint64_t until = stage_deadline();

	while (!s->shut) {
		if (clock_ns() > until)
			fact_failed(__FILE__, __LINE__, "no SHUT; state %s, %llu owed, reason '%s'",
				    session_state_name(stage_look(s)->state),
				    (unsigned long long)s->snapshot->owed_left,
				    s->snapshot->reason);
		stage_hear(s, 10);
	}
	expect_eq(s->shut_value, 0);
}

void stage_wait_seen(struct stage *s, unsigned who, unsigned first, unsigned n)
{
	uint64_t until = stage_deadline();

	for (unsigned i = first; i < first + n; i++) {
		while (!stage_seen(s, who, i)) {
			if (clock_ns() > until)
				fact_failed(__FILE__, __LINE__, "sharer %u still waits for page %u",
					    who, i);
			usleep(500);
		}
		expect_eq(s->seen[who][i].first, stage_word(i));
		expect_eq(s->seen[who][i].last, stage_word(i));
	}
}

void stage_check_content(const struct stage *s)
{
	uint64_t word[PAGE / 8];

	for (unsigned page = 0; page < STAGE_PAGES; page++) {
		expect_eq(pread(s->memfd, word, PAGE, (off_t)page * PAGE), PAGE);
		for (size_t i = 0; i < ARRAY_LEN(word); i++)
			expect_eq(word[i], stage_word(page));
	}
}

unsigned stage_page_at(const struct stage *s, int uffd, uint64_t address)
{
	uint64_t own = (uintptr_t)s->loop->backing[0].map;

	if (uffd == s->loop->own_uffd)
		return address - own < LENGTH ? (unsigned)((address - own) / PAGE) : STAGE_PAGES;
	for (unsigned i = 0; i < s->options.sharers; i++)
		if (address - s->sharer[i].address < LENGTH &&
		    uffd == s->loop->roster.member[i].uffd)
			return (unsigned)((address - s->sharer[i].address) / PAGE);
	/* the bulk thread has a descriptor of its own for the main sharer */
	if (address - s->sharer[STAGE_MAIN].address < LENGTH)
		return (unsigned)((address - s->sharer[STAGE_MAIN].address) / PAGE);
	return STAGE_PAGES;
}

/* --- a session ----------------------------------------------------------------------------- */

static int make_lane(struct stage *s, bool urgent)
{
	int pair[2];

	expect_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	s->lane[urgent] = pair[1];
	return pair[0];
}

/* What is kept does not end with the fault thread. */
static void post_lane(struct stage *s, bool urgent)
{
	struct message m = { .kind = MESSAGE_LANE };

	if (s->lane[urgent] < 0)
		return;
	m.lane.urgent = urgent;
	m.lane.fd = s->options.kept ? dup(s->lane[urgent]) : steal_fd(&s->lane[urgent]);
	strcpy(m.lane.peer, "the test");
	faultloop_post(s->loop, &m);
}

static void answer_blocks(struct stage *s)
{
	struct message block = { .kind = MESSAGE_BLOCK };
	const struct message done = {
		.kind = MESSAGE_BLOCKS_DONE,
		.blocks_done = { .ledger = dup(s->ledger), .package = dup(s->package) },
	};

	block.block.kind = s->options.private ? BLOCK_PRIVATE : BLOCK_SHARED;
	block.block.file = dup(s->options.private ? s->store : s->memfd);
	faultloop_post(s->loop, &block);
	faultloop_post(s->loop, &done);
}

static void answer_arm(struct stage *s)
{
	const struct message armed = { .kind = MESSAGE_ARMED };

	for (unsigned i = 0; i < s->options.sharers; i++)
		post_sharer(s, i);
	faultloop_post(s->loop, &armed);
}

void stage_want(struct stage *s, enum request_class class, unsigned first, unsigned n)
{
	struct message want = { .kind = MESSAGE_WANT };

	want.want.offset = (uint64_t)first * PAGE;
	want.want.length = (uint64_t)n * PAGE;
	want.want.class = class;
	faultloop_post(s->loop, &want);
}

void stage_gone(struct stage *s, unsigned who)
{
	struct message gone = { .kind = MESSAGE_GONE };

	gone.gone.id = who + 1;
	gone.gone.how = SHARER_DEAD;
	gone.gone.error = EOWNERDEAD;
	strcpy(gone.gone.reason, "its process ended");
	faultloop_post(s->loop, &gone);
}

void stage_loaded(struct stage *s)
{
	const struct message loaded = { .kind = MESSAGE_LOADED };

	faultloop_post(s->loop, &loaded);
	stage_wait_state(s, SESSION_RUNNING);
}

static void make_kept(struct stage *s)
{
	expect_eq(record_new(&s->record), 0);
	s->ledger = memfd_create("ledger", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	s->package = memfd_create("package", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	s->store = memfd_create("store", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	expect(s->ledger >= 0 && s->package >= 0 && s->store >= 0);
}

void stage_prepare(struct stage *s, const struct stage_options *options)
{
	memset(s, 0, sizeof(*s));
	s->options = *options;
	s->options.sharers = options->sharers ? options->sharers : 2;
	s->urgent = s->lane[0] = s->lane[1] = s->ledger = s->package = s->store = -1;
	if (options->kept)
		make_kept(s);
	qreturn_reader_init(&s->reader);
	s->memfd = memfd_create("stage", MFD_CLOEXEC);
	expect(s->memfd >= 0 && ftruncate(s->memfd, (off_t)LENGTH) == 0);
	s->seen = mmap(NULL, STAGE_SHARERS * sizeof(s->seen[0]), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	s->snapshot = calloc(1, sizeof(*s->snapshot));
	expect(s->seen != MAP_FAILED && s->snapshot);
	for (unsigned i = 0; i < s->options.sharers; i++)
		start_sharer(s, i);
	s->main = make_lane(s, false);
	if (options->urgent)
		s->urgent = make_lane(s, true);
}

static void start_loop(struct stage *s, const struct faultloop_adopt *left)
{
	const struct stage_options *o = &s->options;
	struct faultloop_options lo = { .max_package = 1 << 20, .uffd_ops = o->ops,
					.quiet_ms = o->quiet_ms, .calm_ms = o->calm_ms,
					.record = s->record, .adopt = left };

	lo.max_waiters = o->max_waiters ? o->max_waiters : 1024;
	expect_eq(faultloop_start(&s->loop, &lo), 0);
	if (o->watch)
		atomic_store(o->watch, s->loop);
}

void stage_left(const struct stage *s, struct faultloop_adopt *left)
{
	*left = (struct faultloop_adopt){
		.ledger = dup(s->ledger), .package = dup(s->package), .main = dup(s->lane[0]),
		.n_blocks = 1, .file = { dup(s->options.private ? s->store : s->memfd) },
	};
}

void stage_adopt(struct stage *s)
{
	const struct message adopted = { .kind = MESSAGE_ADOPTED };
	struct faultloop_adopt left;

	stage_left(s, &left);
	start_loop(s, &left);
	for (unsigned i = 0; i < s->options.sharers; i++)
		post_sharer(s, i);
	faultloop_post(s->loop, &adopted);
}

void stage_begin(struct stage *s)
{
	start_loop(s, NULL);
	post_lane(s, false);
	post_lane(s, true);
	stage_send_opening(s);
	wait_need(s, NEED_BLOCKS);
	answer_blocks(s);
	stage_send_switch_over(s);
	wait_need(s, NEED_ARM);
	answer_arm(s);
	stage_wait_state(s, SESSION_LOADING);
	if (!s->options.hold_loaded)
		stage_loaded(s);
}

void stage_open(struct stage *s, const struct stage_options *options)
{
	stage_prepare(s, options);
	stage_begin(s);
}

void stage_close(struct stage *s)
{
	for (unsigned i = 0; i < s->options.sharers; i++) {
		kill(s->sharer[i].pid, SIGKILL);
		waitpid(s->sharer[i].pid, NULL, 0);
		close(s->sharer[i].sock);
		close(s->sharer[i].uffd);
	}
	close(s->main);
	if (s->urgent >= 0)
		close(s->urgent);
	if (s->options.watch)
		atomic_store(s->options.watch, NULL);
	faultloop_stop(s->loop);
	close(s->memfd);
	close_fd(&s->ledger);
	close_fd(&s->package);
	close_fd(&s->store);
	close_fd(&s->lane[0]);
	close_fd(&s->lane[1]);
	record_free(s->record);
	munmap(s->seen, STAGE_SHARERS * sizeof(s->seen[0]));
	free(s->snapshot);
}
