/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The thread of the background stream.  What it may touch of the engine is the ledger, by claim and
 * publish, and what never changes of the blocks; the rest it tells.  So it needs no lock, and the
 * fault thread never waits for it.
 *
 * A report costs the fault thread a wake-up, so pages that nobody waits for are reported in runs:
 * alike (same state before, same way of placing), consecutive, of one block.  A contested page goes
 * at once and alone, because its report is what wakes the threads that wait.  Before this thread
 * sleeps in recv() it tells what it has.
 *
 * It may wait for everything: for bytes, for room in the mailbox, for the kernel's memory.  While
 * the kernel wants a placement retried nothing further is received, which is how a destination
 * without memory slows its source down.  Of its waits in the main sharer's address space the fault
 * thread knows (stall.c).
 */
#include "config.h"
#include "daemon/bulklane.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/guard.h"
#include "core/probe.h"
#include "daemon/inject_desk.h"
#include "daemon/message.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "sys/mem.h"
#include "sys/sock.h"

#define TELL_BYTES     (4u << 20)	/* placed, before others than contested pages are told */
#define TELL_REPORTS   256
#define RETRY_US       1000

struct bulklane {
	pthread_t thread;
	struct lane lane;
	struct engine *engine;
	struct bulk_carrier carrier;
	struct placer placer;
	struct mailbox *outbox;
	struct engine_report run;	/* pages placed and not yet reported; n == 0: none */
	uint64_t untold_bytes;		/* placed since the bell was rung */
	unsigned untold;		/* reports in the mailbox since then */
	uint64_t duplicates;
	bool dry;			/* atomic: a placement waits for the pool of huge pages */
	bool runs;			/* the thread is to be joined */
	bool ending;			/* atomic: what is claimed is given up */
	bool stopping;			/* atomic: the same, and nobody listens */
	int beside;			/* atomic: the urgent lane's connection, borrowed; -1 */
};

/* --- reports ---------------------------------------------------------------------------------- */

/*
 * Waits while the mailbox is full.  When the session is over nobody empties it any more, hence
 * `stopping'.
 */
static void put(struct bulklane *b, struct bulk_message *m)
{
	m->bytes = b->lane.bytes;
	m->batches = b->lane.batches;
	m->duplicates = b->duplicates;
	m->fallbacks = b->placer.fallbacks;
	m->again = b->placer.again;
	while (!mailbox_put(b->outbox, m)) {
		mailbox_ring(b->outbox);
		usleep(50);
		b->placer.now = 0;	/* so long ago */
		if (__atomic_load_n(&b->stopping, __ATOMIC_RELAXED))
			return;
	}
}

static void ring_now(struct bulklane *b)
{
	mailbox_ring(b->outbox);
	b->untold = 0;
	b->untold_bytes = 0;
}

static bool is_ending(const struct bulklane *b)
{
	return __atomic_load_n(&b->ending, __ATOMIC_RELAXED);
}

static void flush_run(struct bulklane *b)
{
	struct bulk_message m = { .kind = BULK_REPORT, .report = b->run };

	if (b->run.n == 0)
		return;
	put(b, &m);
	b->untold++;
	b->run.n = 0;
}

static void flush_all(struct bulklane *b)
{
	flush_run(b);
	if (b->untold)
		ring_now(b);
}

/*
 * Add a placed page to the run, or begin another.  Somebody waits for a contested page, so it is
 * told at once.  The others only count: to wake the fault thread for each run of them would cost
 * more than to place it.
 */
static void report(struct bulklane *b, const struct engine_report *r)
{
	bool plain = !r->contested && r->result == PLACED;
	bool extends = plain && b->run.n && r->page == b->run.page + b->run.n &&
		       r->from == b->run.from && r->how == b->run.how;

	if (extends) {
		b->run.n += r->n;
	} else {
		flush_run(b);
		b->run = *r;
	}
	b->untold_bytes += r->n * b->placer.page_size;
	if (!plain || b->untold_bytes >= TELL_BYTES || b->untold >= TELL_REPORTS) {
		flush_run(b);
		ring_now(b);
	}
}

static void tell(struct bulklane *b, enum bulk_kind kind, uint32_t value)
{
	struct bulk_message m = { .kind = kind };

	if (kind == BULK_PING)
		m.ping = value;
	else
		m.error = (int)value;
	flush_run(b);
	put(b, &m);
	ring_now(b);
}

/* --- placing ---------------------------------------------------------------------------------- */

/* The main sharer's address space first: guest memory is the VMM's to pay for. */
static void add_main(const struct bulklane *b, struct placer_job *job, unsigned block,
		     uint64_t offset)
{
	const struct bulk_carrier *c = &b->carrier;

	for (unsigned i = 0; c->main_uffd >= 0 && i < c->n_mappings; i++) {
		const struct mapping *m = &c->mapping[i];

		if (m->block != block || offset < m->offset || offset - m->offset >= m->length)
			continue;
		job->rung[job->n++] = (struct placer_rung){
			.uffd = c->main_uffd, .address = mapping_address(m, offset),
			.room = m->length - (offset - m->offset), .can_zero = m->can_zero,
			.is_sharer = true, .sharer = c->main, .pid = c->main_pid,
		};
		return;
	}
}

/*
 * Waiters are not looked for: this thread does not know them.  A contested page is woken by the
 * fault thread's answer to the report.
 */
static void make_job(const struct bulklane *b, struct placer_job *job, unsigned block,
		     uint64_t offset)
{
	const struct bulk_carrier *c = &b->carrier;

	job->n = 0;
	add_main(b, job, block, offset);
	if (c->own[block].address)
		job->rung[job->n++] = (struct placer_rung){
			.uffd = c->own_uffd,
			.address = c->own[block].address + offset,
			.room = b->engine->blocks.block[block].length - offset,
			.can_zero = c->own[block].can_zero,
		};
}

/* The first @done pages of the run are there: publish them and tell. */
static void publish(struct bulklane *b, struct engine_report *r, uint64_t done, uint64_t page_size)
{
	uint64_t address = r->carrier.address;

	r->n = 1;
	if (done)
		inject_page(b->placer.faults, FAULTPLAN_AT_PLACED, r->page, done);
	for (uint64_t i = 0; i < done; i++, r->page++) {
		r->carrier.address = address + i * page_size;
		r->contested = ledger_publish(&b->engine->ledger, r->page);
		/*
		 * When it was placed matters to those who waited; reading the clock costs as much
		 * as all this.
		 */
		r->placed_ns = r->contested ? clock_ns() : 0;
		PROBE2(bulk_placed, r->page, r->contested);
		inject_page(b->placer.faults, FAULTPLAN_AT_PUBLISHED, r->page, 1);
		report(b, r);
	}
	r->contested = false;
}

/* Nobody mapped the block: its content stays in our store, and zeroes are what is there already. */
static void keep(struct bulklane *b, struct engine_report *r, const struct lane_page *p, uint64_t n,
		 unsigned block)
{
	const struct block *bl = &b->engine->blocks.block[block];
	uint8_t *to = b->carrier.own[block].store + block_offset(bl, r->page);

	if (p->data)
		memcpy(to, p->data, bl->page_size);
	publish(b, r, n, bl->page_size);
}

/* The fault thread is rung when it begins and when it ends, to tell. */
static void note_dry(struct bulklane *b, bool dry)
{
	if (dry == b->dry)
		return;
	__atomic_store_n(&b->dry, dry, __ATOMIC_RELAXED);
	mailbox_ring(b->outbox);
}

/* Told to end: the rest, up to @end, is claimed, and stays where the source has it. */
static void give_up(struct bulklane *b, struct engine_report *r, uint64_t end)
{
	if (r->page == end)
		return;
	r->result = PLACED_NOT;
	r->n = (uint32_t)(end - r->page);
	report(b, r);
	r->result = PLACED;
	r->page = end;
}

/*
 * Through the kernel, up to @end, however long it takes; what cannot be placed is reported as that.
 */
static void place_all(struct bulklane *b, struct engine_report *r, uint64_t end,
		      const uint8_t *data)
{
	const struct block *bl = block_of_page(&b->engine->blocks, r->page);
	unsigned block = (unsigned)(bl - b->engine->blocks.block);

	while (r->page < end && !is_ending(b)) {
		struct placer_job job = { .data = data,
					  .length = (end - r->page) << bl->page_shift,
					  .page = r->page };
		enum placer_outcome outcome;
		uint64_t done;
		int used;

		inject_page(b->placer.faults, FAULTPLAN_AT_CLAIMED, r->page, end - r->page);
		make_job(b, &job, block, block_offset(bl, r->page));
		outcome = placer_run(&b->placer, &job, &done, &used);
		r->carrier = (struct engine_carrier){ 0 };
		if (used >= 0 && job.rung[used].is_sharer)
			r->carrier = (struct engine_carrier){ true, job.rung[used].sharer,
							      job.rung[used].address };
		publish(b, r, done >> bl->page_shift, bl->page_size);
		note_dry(b, outcome == PLACER_RETRY && b->placer.dry);
		if (outcome == PLACER_RETRY && done == 0) {
			flush_all(b);
			usleep(RETRY_US);
			b->placer.now = 0;
		} else if (outcome == PLACER_EXISTS || outcome == PLACER_NOWHERE) {
			r->result = outcome == PLACER_EXISTS ? PLACED_EXISTS : PLACED_NOWHERE;
			r->n = 1;
			report(b, r);
			r->result = PLACED;
			r->page++;
		}
	}
	give_up(b, r, end);
}

/* The first @n pages of the run are noted: told as such. */
static void tell_noted(struct bulklane *b, struct engine_report *r, uint64_t n)
{
	if (n == 0)
		return;
	PROBE2(noted, r->page, n);
	r->how = HOW_NOTED;
	r->n = (uint32_t)n;
	report(b, r);
	r->page += n;
}

/*
 * Zeroes that nobody asked for, for a file that has holes there: it keeps them.  A page that
 * somebody came to wait for since it was claimed is placed.
 */
static void note_claimed(struct bulklane *b, struct engine_report *r, uint64_t end)
{
	for (uint64_t page = r->page; page < end; page++) {
		if (ledger_note(&b->engine->ledger, page))
			continue;
		tell_noted(b, r, page - r->page);
		r->how = HOW_ZERO;
		place_all(b, r, page + 1, NULL);
	}
	tell_noted(b, r, end - r->page);
}

static bool is_hole(const struct bulklane *b, const struct block *bl, uint64_t page, uint64_t n)
{
	uint64_t map = b->carrier.own[bl - b->engine->blocks.block].address;

	return map &&
	       mem_is_hole((uint8_t *)(uintptr_t)map + block_offset(bl, page), n << bl->page_shift);
}

/* Claimed pages [page, page+n), all from the same state: kept, noted or placed. */
static void place_claimed(struct bulklane *b, const struct lane_page *p, uint64_t page, uint64_t n,
			  enum page_state from)
{
	const struct block *bl = block_of_page(&b->engine->blocks, page);
	struct engine_report r = {
		.page = page,
		.lane = LANE_MAIN,
		.how = p->data ? HOW_COPY : HOW_ZERO,
		.from = (uint8_t)from,
		.result = PLACED,
		.arrived_ns = b->lane.arrived_ns,
	};

	if (page == bl->first)
		flush_run(b);		/* a report is about one block */
	b->placer.page_size = bl->page_size;
	if (bl->kind == BLOCK_HELD)
		keep(b, &r, p, n, (unsigned)(bl - b->engine->blocks.block));
	else if (!p->data && from == PAGE_MISSING && bl->sparse && is_hole(b, bl, page, n))
		note_claimed(b, &r, page + n);
	else
		place_all(b, &r, page + n, p->data);
}

/*
 * Claim what is still owed of the pages that came, and place (or note) it.  Runs of pages that
 * nobody asked for go in one piece; one that was asked for goes alone, so that its report is about
 * nothing else.
 */
static void take_pages(struct bulklane *b, const struct lane_page *p)
{
	uint64_t end = p->page + p->n, start = p->page;

	if (b->placer.faults)
		inject_content(b->placer.faults, p,
			       block_of_page(&b->engine->blocks, p->page)->page_size);

	for (uint64_t page = p->page; page < end; page++) {
		enum page_state found = ledger_claim(&b->engine->ledger, page);

		if (found == PAGE_MISSING)
			continue;
		if (page > start)
			place_claimed(b, p, start, page - start, PAGE_MISSING);
		start = page + 1;
		if (found == PAGE_REQUESTED)
			place_claimed(b, p, page, 1, found);
		else
			b->duplicates++;
	}
	if (end > start)
		place_claimed(b, p, start, end - start, PAGE_MISSING);
}

/* --- the thread ------------------------------------------------------------------------------- */

static int next_step(struct bulklane *b, struct lane_page *page)
{
	if (b->placer.faults)
		inject_record(b->placer.faults, &b->lane);
	return lane_next(&b->lane, &b->engine->blocks, true, page);
}

/* Everything that is complete in the buffer.  False when the stream is broken. */
static bool drain(struct bulklane *b)
{
	struct lane_page page;
	int step = LANE_MORE;

	while (!is_ending(b) && (step = next_step(b, &page)) > LANE_MORE) {
		if (step == LANE_PAGE)
			take_pages(b, &page);
		else if (b->lane.event == QSTREAM_PING)
			tell(b, BULK_PING, b->lane.rec.ping);
		else if (b->lane.event == QSTREAM_EOF)
			tell(b, BULK_ENDED, 0);
		lane_consume(&b->lane);
	}
	if (step < 0)
		tell(b, BULK_BROKEN, (uint32_t)-step);
	return step >= 0;
}

/*
 * A source that leaves TCP_NODELAY alone (the preempt channel of QEMU 7.2) may hold a demanded page
 * back until the one before it is acknowledged, and TCP takes 40 ms for that.  It goes on with the
 * background meanwhile: with each receive of that, what has come beside it is acknowledged, too.
 * For the fault thread it would be a system call a page.
 */
static void acknowledge_beside(const struct bulklane *b)
{
	int fd = __atomic_load_n(&b->beside, __ATOMIC_RELAXED);

	if (fd >= 0)
		sock_acknowledge(fd);
}

/* recv() with MSG_DONTWAIT first: only an empty socket is worth a report before sleeping. */
static ssize_t receive(struct bulklane *b)
{
	size_t most = lane_space(&b->lane);
	uint8_t *to = mem_ring_write(&b->lane.in);
	ssize_t n = recv(b->lane.fd, to, most, MSG_DONTWAIT);

	if (n < 0 && errno == EAGAIN) {
		/* The socket is empty: what was placed is told before going to sleep. */
		flush_all(b);
		n = recv(b->lane.fd, to, most, 0);
	}
	return n < 0 ? -errno : n;
}

/* It may wait, but not for longer than the session. */
static void rest(const struct bulklane *b, uint64_t ms)
{
	for (; ms && !__atomic_load_n(&b->stopping, __ATOMIC_RELAXED); ms--)
		usleep(1000);
}

static void *run(void *arg)
{
	struct bulklane *b = arg;

	pthread_setname_np(pthread_self(), "postcopyd-bulk");
	while (drain(b) && !b->lane.eof && !is_ending(b)) {
		ssize_t n = receive(b);

		if (n == -EINTR)
			continue;
		b->placer.now = clock_ns();
		lane_received(&b->lane, n, b->placer.now);
		if (b->placer.faults && n > 0)
			rest(b, inject_received(b->placer.faults, &b->lane, (size_t)n));
		acknowledge_beside(b);
	}
	if (b->lane.eof)
		tell(b, BULK_CLOSED, (uint32_t)b->lane.error);
	note_dry(b, false);
	tell(b, BULK_OVER, 0);
	return NULL;
}

/**
 * bulklane_start - hand the main lane to a thread of its own
 * @out: NULL, or one that was taken back; bulklane_stop() after either outcome
 * @lane: taken over with the bytes its buffer holds; closed in the caller on success
 * @engine: only its ledger's claims and the constant part of its blocks are used
 * @carrier: copied; main_uffd is owned from here on
 * @outbox: struct bulk_message slots
 *
 * Return: 0 or -errno; after a failure lane and carrier are still the caller's.
 */
int bulklane_start(struct bulklane **out, struct lane *lane, struct engine *engine,
		   const struct bulk_carrier *carrier, const struct placer *placer,
		   struct mailbox *outbox)
{
	struct bulklane *b = *out ? *out : calloc(1, sizeof(*b));
	int ret;

	if (!b)
		return -ENOMEM;
	*out = b;
	*b = (struct bulklane){ .lane = *lane };
	b->engine = engine;
	b->carrier = *carrier;
	b->placer = *placer;
	b->placer.thread = LANE_MAIN;
	b->placer.now = 0;
	b->placer.fallbacks = b->placer.again = b->placer.calls = 0;
	b->lane.bytes = b->lane.batches = 0;
	b->outbox = outbox;
	b->beside = -1;
	ret = -pthread_create(&b->thread, NULL, run, b);
	if (ret < 0) {
		*b = (struct bulklane){ .lane.fd = -1, .carrier.main_uffd = -1 };
		return ret;
	}
	b->runs = true;
	*lane = (struct lane){ .fd = -1 };
	return 0;
}

/**
 * bulklane_beside - what comes on the urgent lane is to be acknowledged at once; NULL is fine
 * @fd: its connection, -1: there is none yet; borrowed until bulklane_stop()
 */
void bulklane_beside(struct bulklane *b, int fd)
{
	if (b)
		__atomic_store_n(&b->beside, fd, __ATOMIC_RELAXED);
}

/**
 * bulklane_stream - the decoder, for the reason of a broken stream; only after BULK_BROKEN
 */
const struct qstream *bulklane_stream(const struct bulklane *b)
{
	return &b->lane.stream;
}

/**
 * bulklane_dry - does a placement wait for the pool of huge pages?
 */
bool bulklane_dry(const struct bulklane *b)
{
	return __atomic_load_n(&b->dry, __ATOMIC_RELAXED);
}

/**
 * bulklane_runs - is there a thread that was not taken back?  NULL is fine
 */
bool bulklane_runs(const struct bulklane *b)
{
	return b && b->runs;
}

/**
 * bulklane_end - tell the thread to end, and do not wait for it; NULL is fine
 *
 * A placement that is in the kernel ends first, however long that takes; its claims are the
 * thread's until BULK_OVER was taken from the mailbox.
 */
void bulklane_end(struct bulklane *b)
{
	if (!bulklane_runs(b))
		return;
	__atomic_store_n(&b->ending, true, __ATOMIC_RELAXED);
	shutdown(b->lane.fd, SHUT_RDWR);
}

/**
 * bulklane_take_back - join the thread and have its lane again; behind BULK_OVER, so at once
 * @lane: overwritten; its statistics begin anew, for they were told
 */
void bulklane_take_back(struct bulklane *b, struct lane *lane)
{
	pthread_join(b->thread, NULL);
	close_fd(&b->carrier.main_uffd);
	*lane = b->lane;
	lane->bytes = lane->batches = 0;
	b->lane = (struct lane){ .fd = -1 };
	b->runs = false;
}

/**
 * bulklane_stop - end the thread, join it, and free all; NULL is fine
 *
 * Only when the session is over: what the thread would still have told is not heard.
 */
void bulklane_stop(struct bulklane *b)
{
	if (!b)
		return;
	__atomic_store_n(&b->stopping, true, __ATOMIC_RELAXED);
	bulklane_end(b);
	if (b->runs)
		pthread_join(b->thread, NULL);
	close_fd(&b->carrier.main_uffd);
	lane_close(&b->lane);
	free(b);
}
