/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "stage.h"

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
#include "facts.h"
#include "forker.h"
#include "sys/clock.h"
#include "sys/fdpass.h"
#include "wire/cursor.h"
#include "wire/regmsg.h"

#define PAGE	4096u
#define LENGTH	((uint64_t)STAGE_PAGES * PAGE)
#define SECTION 3u
#define NAME	"m"
/* so that the whole package without PING 0x42 has two pages */
#define DEVICE	(2 * PAGE - 19)
#define STREAM_ROOM (STAGE_PAGES * (PAGE + 64) + 4096)

uint64_t stage_word(unsigned page)
{
	return stage_zero(page) ? 0 : (page + 1) * 0x9e3779b97f4a7c15ull;
}

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

/* --- the source --------------------------------------------------------------------------- */

static void write_all(int fd, const struct pen *p)
{
	size_t left = pen_used(p);

	expect(!p->bad);
	for (const uint8_t *at = p->start; left;) {
		ssize_t n = send(fd, at, left, MSG_NOSIGNAL);

		expect(n > 0);
		at += n;
		left -= (size_t)n;
	}
}

static void send_opening(struct stage *s)
{
	const struct qstream_block block = { .name = NAME, .length = LENGTH, .page_size = PAGE };
	uint8_t buf[1024];
	struct pen p = pen_init(buf, sizeof(buf));

	qstream_put_header(&p, "pc-q35-10.2");
	qstream_put_command(&p, QCMD_OPEN_RETURN_PATH, NULL, 0);
	qstream_put_ping(&p, 1);
	qstream_put_advise(&p, PAGE, PAGE);
	qstream_put_blocks(&p, SECTION, &block, 1, PAGE);
	write_all(s->main, &p);
}

static void put_page(struct pen *p, unsigned page)
{
	uint64_t word[PAGE / 8];

	qstream_put_page_head(p, (uint64_t)page * PAGE, NAME, stage_zero(page));
	if (stage_zero(page))
		return;
	for (size_t i = 0; i < ARRAY_LEN(word); i++)
		word[i] = stage_word(page);
	pen_bytes(p, word, sizeof(word));
}

static void send_switch_over(struct stage *s)
{
	const uint64_t owed[1][2] = { { 0,
					s->options.row_known ? STAGE_ROW_FIRST * PAGE : LENGTH } };
	static const uint8_t device[DEVICE] = "device state";
	uint8_t buf[sizeof(device) + STAGE_ROW_N * 64 + 1024];
	struct pen p = pen_init(buf, sizeof(buf));

	if (s->options.row_known) {
		qstream_put_ram_begin(&p, false, SECTION);
		for (unsigned i = STAGE_ROW_FIRST; i < STAGE_ROW_FIRST + STAGE_ROW_N; i++)
			put_page(&p, i);
		qstream_put_ram_end(&p, SECTION);
	}
	qstream_put_discard(&p, NAME, owed, 1);
	qstream_put_package(&p, device, sizeof(device), s->options.commit_ping);
	write_all(s->main, &p);
}

static void put_end(struct pen *p)
{
	qstream_put_ram_begin(p, true, SECTION);
	qstream_put_ram_end(p, SECTION);
	pen_u8(p, 0);
}

void stage_send_last(struct stage *s, unsigned first, unsigned n)
{
	cleanup_free uint8_t *buf = malloc(STREAM_ROOM);
	struct pen p = pen_init(buf, STREAM_ROOM);

	expect(buf);
	qstream_put_ram_begin(&p, false, SECTION);
	for (unsigned i = first; i < first + n; i++)
		put_page(&p, i);
	qstream_put_ram_end(&p, SECTION);
	put_end(&p);
	write_all(s->main, &p);
}

void stage_send(struct stage *s, bool urgent, unsigned first, unsigned n)
{
	cleanup_free uint8_t *buf = malloc(STREAM_ROOM);
	struct pen p = pen_init(buf, STREAM_ROOM);

	expect(buf);
	if (!urgent)
		qstream_put_ram_begin(&p, false, SECTION);
	for (unsigned i = first; i < first + n; i++)
		put_page(&p, i);
	if (!urgent)
		qstream_put_ram_end(&p, SECTION);
	write_all(urgent ? s->urgent : s->main, &p);
}

void stage_end(struct stage *s)
{
	uint8_t buf[64];
	struct pen p = pen_init(buf, sizeof(buf));

	put_end(&p);
	write_all(s->main, &p);
}

static void on_request(struct stage *s, const struct qreturn_message *m)
{
	unsigned first = (unsigned)(m->start / PAGE), n = m->length / PAGE;

	expect(first + n <= STAGE_PAGES && m->start % PAGE == 0 && n > 0);
	expect_eq(strcmp(m->name, NAME), 0);
	for (unsigned i = first; i < first + n; i++) {
		s->n_requested_twice += s->requested[i];
		s->n_requested += !s->requested[i];
		s->requested[i] = true;
	}
}

static void on_message(struct stage *s, int type, const struct qreturn_message *m)
{
	expect(!s->shut);
	if (type == QRETURN_REQ_PAGES || type == QRETURN_REQ_PAGES_ID) {
		on_request(s, m);
	} else if (type == QRETURN_PONG) {
		expect(s->n_pongs < ARRAY_LEN(s->pong));
		s->pong[s->n_pongs++] = m->value;
	} else {
		expect_eq(type, QRETURN_SHUT);
		s->shut = true;
		s->shut_value = m->value;
	}
}

void stage_hear(struct stage *s, int ms)
{
	struct pollfd ready = { .fd = s->main, .events = POLLIN };
	struct qreturn_message m;
	ssize_t n;
	int type;

	if (s->hung_up || poll(&ready, 1, ms) < 1)
		return;
	n = recv(s->main, s->back + s->n_back, sizeof(s->back) - s->n_back, 0);
	s->hung_up = n <= 0;
	if (n > 0)
		s->n_back += (size_t)n;
	while ((type = qreturn_next(&s->reader, s->back, s->n_back, &m)) != QRETURN_NEED_MORE) {
		expect(type > 0);
		on_message(s, type, &m);
		s->n_back -= m.used;
		memmove(s->back, s->back + m.used, s->n_back);
	}
}

/* --- the daemon's main thread -------------------------------------------------------------- */

static uint64_t deadline(void)
{
	return clock_ns() + STAGE_PATIENCE_MS * 1000000ull;
}

const struct snapshot *stage_look(struct stage *s)
{
	const struct message m = { .kind = MESSAGE_SNAPSHOT, .snapshot = s->snapshot };
	struct pollfd ready = { .fd = faultloop_notify_fd(s->loop), .events = POLLIN };
	struct snapshot *back = NULL;

	faultloop_post(s->loop, &m);
	for (uint64_t until = deadline(); !back && clock_ns() < until;) {
		poll(&ready, 1, 100);
		back = faultloop_collect(s->loop, NULL);
	}
	expect(back);
	return back;
}

static void wait_need(struct stage *s, enum snapshot_need need)
{
	uint64_t until = deadline();

	while (stage_look(s)->need != need) {
		expect(clock_ns() < until);
		usleep(1000);
	}
}

void stage_wait_state(struct stage *s, enum session_state state)
{
	uint64_t until = deadline();

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
	uint64_t until = deadline();

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
	uint64_t until = deadline();

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
	uint64_t until = deadline();

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
	uint64_t until = deadline();

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

static int connect_lane(struct stage *s, bool urgent)
{
	struct message m = { .kind = MESSAGE_LANE };
	int pair[2];

	expect_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	m.lane.urgent = urgent;
	m.lane.fd = pair[1];
	strcpy(m.lane.peer, "the test");
	faultloop_post(s->loop, &m);
	return pair[0];
}

static void answer_blocks(struct stage *s)
{
	struct message block = { .kind = MESSAGE_BLOCK };
	const struct message done = { .kind = MESSAGE_BLOCKS_DONE,
				      .blocks_done = { .ledger = -1, .package = -1 } };

	block.block.kind = s->options.private ? BLOCK_PRIVATE : BLOCK_SHARED;
	block.block.file = s->options.private ? -1 : dup(s->memfd);
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

void stage_open(struct stage *s, const struct stage_options *options)
{
	struct faultloop_options lo = { .max_package = 1 << 20, .uffd_ops = options->ops,
					  .quiet_ms = options->quiet_ms,
					  .calm_ms = options->calm_ms };

	memset(s, 0, sizeof(*s));
	s->options = *options;
	s->options.sharers = options->sharers ? options->sharers : 2;
	lo.max_waiters = options->max_waiters ? options->max_waiters : 1024;
	s->urgent = -1;
	qreturn_reader_init(&s->reader);
	s->memfd = memfd_create("stage", MFD_CLOEXEC);
	expect(s->memfd >= 0 && ftruncate(s->memfd, (off_t)LENGTH) == 0);
	s->seen = mmap(NULL, STAGE_SHARERS * sizeof(s->seen[0]), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	s->snapshot = calloc(1, sizeof(*s->snapshot));
	expect(s->seen != MAP_FAILED && s->snapshot);
	for (unsigned i = 0; i < s->options.sharers; i++)
		start_sharer(s, i);
	expect_eq(faultloop_start(&s->loop, &lo), 0);
	if (options->watch)
		atomic_store(options->watch, s->loop);
	s->main = connect_lane(s, false);
	if (options->urgent)
		s->urgent = connect_lane(s, true);
	send_opening(s);
	wait_need(s, NEED_BLOCKS);
	answer_blocks(s);
	send_switch_over(s);
	wait_need(s, NEED_ARM);
	answer_arm(s);
	stage_wait_state(s, SESSION_LOADING);
	if (!options->hold_loaded)
		stage_loaded(s);
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
	munmap(s->seen, STAGE_SHARERS * sizeof(s->seen[0]));
	free(s->snapshot);
}
