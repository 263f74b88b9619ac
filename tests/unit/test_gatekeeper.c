/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The gatekeeper and the fault thread's gates, without a fault thread: what is posted waits in a
 * row until the test lets some of it be done, and a snapshot is taken when the test says so.  So
 * orders and snapshots pass each other in any way they can.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>
#include <glib.h>

#include "core/guard.h"
#include "daemon/gatekeeper.h"

#define PAGES	 64
#define HUGE	 4
#define LENGTH	 ((uint64_t)PAGES * 4096)
#define POSTED	 64
#define IOVA(i)	 (0x100000ull * ((i) + 1))

static struct faultloop *f;
static struct gatekeeper *k;
static struct snapshot *s;
static struct gate_order *posted[POSTED];
static unsigned n_posted;
static void *ledger;

/* What the user was told, and what became of requests. */
static struct {
	unsigned maps, opens, done;
	uint64_t iova[POSTED];
	struct gate_span span;
	int error;
	uint64_t written;
} seen;

void faultloop_post(struct faultloop *loop, const struct message *m)
{
	cr_assert_eq(loop, f);
	cr_assert_eq(m->kind, MESSAGE_GATE);
	cr_assert_lt(n_posted, POSTED);
	posted[n_posted++] = m->gate;
}

/* --- the fault thread ------------------------------------------------------------------------- */

static void act(void)
{
	struct engine_action a;
	const struct engine_carrier nobody = { 0 };

	while (engine_next(&f->engine, &a))
		if (a.verb == ENGINE_PLACE)
			engine_placed(&f->engine, &a, a.n, PLACED, &nobody, 1);
}

static void come(uint64_t page, uint64_t n)
{
	for (uint64_t end = page + n; page < end; page++) {
		cr_assert_eq(engine_page(&f->engine, LANE_MAIN, page, (const uint8_t *)"", 1),
			     ENGINE_OK);
		act();
	}
}

static void do_some(unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		gates_order(f, posted[i]);
	n_posted -= n;
	memmove(posted, posted + n, n_posted * sizeof(posted[0]));
}

static void snap(void)
{
	gates_turn(f);
	memset(s, 0, sizeof(*s));
	s->now_ns = 1;
	s->state = f->engine.session.state;
	s->listening_ns = f->times.listening;
	s->n_blocks = f->engine.blocks.n;
	for (unsigned i = 0; i < s->n_blocks; i++) {
		memcpy(s->block[i].name, f->engine.blocks.block[i].name, sizeof(s->block[i].name));
		s->block[i].pages = f->engine.blocks.block[i].pages;
	}
	gates_fill(f, s);
}

static void look(void)
{
	gatekeeper_look(k, s);
	gatekeeper_collect(k);
}

/* Everything that follows from what was done until now. */
static void settle(void)
{
	do {
		do_some(n_posted);
		snap();
		look();
		while (g_main_context_iteration(NULL, FALSE))
			continue;
	} while (n_posted);
}

static void serve(void)
{
	uint64_t page;

	cr_assert_eq(engine_package(&f->engine, &page), 0);
	cr_assert_eq(session_feed(&f->engine.session, SESSION_ARMED), 1);
	f->times.listening = 1;
}

/* --- the user --------------------------------------------------------------------------------- */

static void on_map(void *ctx, const struct gate_span *span)
{
	cr_assert_eq(ctx, &seen);
	seen.iova[seen.maps++] = span->iova;
	seen.span = *span;
}

static void on_open(void *ctx)
{
	cr_assert_eq(ctx, &seen);
	seen.opens++;
}

static void on_done(void *ctx, int error, uint64_t written)
{
	cr_assert_eq(ctx, &seen);
	seen.done++;
	seen.error = error;
	seen.written = written;
}

static const struct gatekeeper_user user = { on_map, on_open, &seen };

static void map(int gate, const char *block, unsigned at, uint64_t first, uint64_t pages)
{
	struct gate_span span = {
		.iova = IOVA(at), .length = pages * 4096, .offset = first * 4096,
		.directions = GATE_READS | GATE_WRITES,
	};

	gatekeeper_map(k, gate, block, &span, on_done, &seen);
}

static int ended(void)
{
	cr_assert_geq(seen.done, 1);
	seen.done = 0;
	return seen.error;
}

static struct control_gate report(int gate)
{
	struct control_gate c;

	cr_assert(gatekeeper_report(k, gate, &c));
	return c;
}

/* The text of the one blocker of that name, or NULL. */
static const char *blocker(const char *name)
{
	static struct blockers b;

	b.n = 0;
	gatekeeper_blockers(k, &b);
	for (unsigned i = 0; i < b.n; i++)
		if (strcmp(b.list[i].name, name) == 0)
			return b.list[i].text;
	return NULL;
}

static void set_up(void)
{
	const struct engine_limits limits = { .waiters = 4, .window = 16 };
	struct block_table *t;

	memset(&seen, 0, sizeof(seen));
	n_posted = 0;
	f = calloc(1, sizeof(*f));
	s = calloc(1, sizeof(*s));
	ledger = calloc(1, ledger_size(PAGES + HUGE));
	cr_assert(f && s && ledger);
	t = &f->engine.blocks;
	cr_assert_eq(engine_init(&f->engine, &limits), 0);
	cr_assert_eq(block_add(t, "ram", LENGTH, 4096, BLOCK_SHARED), 0);
	cr_assert_eq(block_add(t, "huge", (uint64_t)HUGE << 21, 2 << 20, BLOCK_SHARED), 1);
	cr_assert_eq(engine_use_ledger(&f->engine, ledger, ledger_size(PAGES + HUGE)), 0);
	session_feed(&f->engine.session, SESSION_ADVISE);
	for (unsigned i = 0; i < 2; i++)
		cr_assert_eq(engine_discard(&f->engine, i, 0, t->block[i].length), 0);
	k = gatekeeper_new(f);
}

static void tear_down(void)
{
	gates_free(f);
	gatekeeper_free(k);
	engine_deinit(&f->engine);
	free(ledger);
	free(s);
	free(f);
}

TestSuite(gatekeeper, .init = set_up, .fini = tear_down);

/* --- cases ------------------------------------------------------------------------------------ */

Test(gatekeeper, is_closed_until_all_is_there_and_mapped)	/* F47, S0-08, I1, I3 */
{
	int gate = gatekeeper_add(k, "net0", true, &user);

	map(gate, "ram", 0, 0, 8);
	gatekeeper_seal(k, gate);
	settle();
	cr_assert_eq(n_posted + seen.done, 0, "nothing is ordered before faults are served");
	serve();
	settle();
	cr_assert_eq(ended(), 0);
	cr_assert_eq(report(gate).pages_missing, 8);
	cr_assert_eq(report(gate).bytes, 8 * 4096);
	come(0, 7);
	settle();
	cr_assert_eq(seen.maps, 0);
	cr_assert_eq(report(gate).bytes_ready, 7 * 4096);
	come(7, 1);
	settle();
	cr_assert_eq(seen.maps, 1);
	cr_assert_eq(seen.span.block, 0);
	cr_assert_eq(seen.span.length, 8 * 4096);
	cr_assert_not(gatekeeper_open(k, gate));
	cr_assert_str_eq(blocker("gate:net0"), "0 of 1 ranges are mapped");
	cr_assert_eq(gatekeeper_mapped(k, gate, IOVA(0), 0), 0);
	settle();
	cr_assert(gatekeeper_open(k, gate));
	cr_assert_eq(seen.opens, 1);
	cr_assert_null(blocker("gate:net0"));
	settle();
	cr_assert_eq(seen.maps + seen.opens, 2, "each is told once");
}

Test(gatekeeper, is_closed_until_it_is_sealed)		/* S0-04 */
{
	int gate = gatekeeper_add(k, "net0", true, &user);

	serve();
	settle();
	cr_assert_not(gatekeeper_open(k, gate), "an unknown set");
	cr_assert_str_eq(blocker("gate:net0"),
			 "0 of 0 ranges are mapped; nobody said that these are all");
	gatekeeper_seal(k, gate);
	settle();
	cr_assert(gatekeeper_open(k, gate));
}

Test(gatekeeper, closes_again_for_what_is_declared_since)	/* I3 */
{
	int gate = gatekeeper_add(k, "net0", true, &user);

	gatekeeper_seal(k, gate);
	serve();
	settle();
	cr_assert(gatekeeper_open(k, gate));
	map(gate, "ram", 0, 0, 1);
	cr_assert_not(gatekeeper_open(k, gate), "before the order is done");
	snap();
	look();
	cr_assert_not(gatekeeper_open(k, gate), "a snapshot that does not know of it");
	settle();
	cr_assert_not(gatekeeper_open(k, gate));
	come(0, 1);
	settle();
	gatekeeper_mapped(k, gate, IOVA(0), 0);
	settle();
	cr_assert(gatekeeper_open(k, gate));
	cr_assert_eq(seen.opens, 2);
}

Test(gatekeeper, hands_a_range_out_once)
{
	int gate = gatekeeper_add(k, "net0", true, &user);

	serve();
	for (unsigned i = 0; i < 20; i++)
		map(gate, "ram", i, i, 1);
	come(0, 20);
	settle();
	cr_assert_eq(seen.maps, SNAPSHOT_DUE, "no more than so many at a time");
	settle();
	cr_assert_eq(seen.maps, SNAPSHOT_DUE);
	cr_assert_eq(gatekeeper_mapped(k, gate, IOVA(19), 0), -ENOENT, "nobody was told to");
	cr_assert_eq(gatekeeper_mapped(k, gate, seen.iova[3], 0), 0);
	cr_assert_eq(gatekeeper_mapped(k, gate, seen.iova[3], 0), -ENOENT, "twice");
	snap();
	look();
	cr_assert_eq(seen.maps, SNAPSHOT_DUE, "the snapshot does not know of the answer");
	settle();
	cr_assert_eq(seen.maps, SNAPSHOT_DUE + 1);
	for (unsigned i = 0; i < seen.maps; i++) {
		gatekeeper_mapped(k, gate, seen.iova[i], 0);
		settle();
	}
	cr_assert_eq(seen.maps, 20);
	cr_assert_eq(report(gate).mapped, 20);
	for (unsigned i = 0; i < 20; i++)
		for (unsigned j = 0; j < i; j++)
			cr_assert_neq(seen.iova[i], seen.iova[j]);
}

Test(gatekeeper, stays_closed_where_something_could_not_be_mapped)	/* F47 */
{
	int gate = gatekeeper_add(k, "net0", true, &user);

	map(gate, "ram", 0, 0, 1);
	map(gate, "ram", 1, 1, 1);
	gatekeeper_seal(k, gate);
	serve();
	come(0, 2);
	settle();
	gatekeeper_mapped(k, gate, IOVA(0), 0);
	gatekeeper_mapped(k, gate, IOVA(1), -ENOMEM);
	settle();
	cr_assert_not(gatekeeper_open(k, gate));
	cr_assert_eq(report(gate).failed, 1);
	cr_assert_eq(report(gate).error, -ENOMEM);
	cr_assert_eq(report(gate).error_iova, IOVA(1));
	cr_assert_str_eq(blocker("gate:net0"),
			 "1 of 2 ranges are mapped; that at 0x200000 could not be: "
			 "Cannot allocate memory");
	gatekeeper_unmap(k, gate, IOVA(1), 4096, on_done, &seen);
	seen.done = 0;
	settle();
	cr_assert_eq(ended(), 0);
	cr_assert(gatekeeper_open(k, gate), "what could not be mapped is not reached");
}

Test(gatekeeper, says_what_a_request_is_wrong_in)
{
	int gate = gatekeeper_add(k, "net0", true, &user);
	struct gate_span span = { .iova = IOVA(0), .length = 4096, .directions = GATE_READS };

	cr_assert_eq(gatekeeper_add(k, "net0", true, &user), -EEXIST);
	cr_assert_eq(gatekeeper_add(k, "", true, &user), -EINVAL);
	cr_assert_eq(gatekeeper_find(k, "net0"), gate);
	cr_assert_eq(gatekeeper_find(k, "net1"), -ENOENT);
	map(gate, "rom", 0, 0, 1);
	serve();
	settle();
	cr_assert_eq(ended(), -ENOENT, "no such block");
	map(gate, "ram", 0, PAGES, 1);
	settle();
	cr_assert_eq(ended(), -EINVAL, "behind the end of the block");
	map(gate + 1, "ram", 0, 0, 1);
	settle();
	cr_assert_eq(ended(), -ENOENT, "no such gate");
	span.block = 1;
	gatekeeper_map(k, gate, NULL, &span, on_done, &seen);
	settle();
	cr_assert_eq(ended(), 0);
	map(gate, "ram", 0, 0, 1);
	settle();
	cr_assert_eq(ended(), -EEXIST, "the addresses are in use");
	for (unsigned i = 1; i < SNAPSHOT_GATES; i++) {
		char name[] = { (char)('a' + i), 0 };

		cr_assert_eq(gatekeeper_add(k, name, true, &user), (int)i);
	}
	cr_assert_eq(gatekeeper_add(k, "one more", true, &user), -ENOSPC);
	settle();
	cr_assert_eq(f->engine.n_gates, SNAPSHOT_GATES);
}

Test(gatekeeper, needs_a_huge_page_whole)
{
	int gate = gatekeeper_add(k, "net0", true, &user);

	map(gate, "huge", 0, 511, 2);		/* the last 4 KiB of one, the first of the next */
	serve();
	settle();
	cr_assert_eq(ended(), 0);
	cr_assert_eq(report(gate).pages_missing, 2);
	cr_assert_eq(report(gate).bytes, 2 << 21);
	come(PAGES, 1);
	settle();
	cr_assert_eq(seen.maps, 0);
	come(PAGES + 1, 1);
	settle();
	cr_assert_eq(seen.maps, 1);
}

Test(gatekeeper, asks_for_what_is_missing_and_not_for_zeroes)	/* S2-09, F48 */
{
	int gate = gatekeeper_add(k, "net0", true, &user);
	struct engine_request r;

	serve();
	f->engine.blocks.block[0].sparse = true;
	engine_zero_run(&f->engine, LANE_MAIN, 2, 4, 1);
	act();
	cr_assert_eq(ledger_get(&f->engine.ledger, 2), PAGE_ZERO, "noted");
	map(gate, "ram", 0, 0, 8);
	settle();
	cr_assert_eq(report(gate).pages_missing, 8);
	cr_assert(engine_next_request(&f->engine, &r, 1));
	cr_assert_eq(r.class, CLASS_DMA);
	cr_assert_eq(r.offset, 0);
	cr_assert_eq(r.length, 2 * 4096);
	while (engine_next_request(&f->engine, &r, 1) || f->engine.actions.n)
		act();
	settle();
	cr_assert_eq(report(gate).pages_missing, 4, "the zeroes are placed");
	come(0, 2);
	come(6, 2);
	settle();
	cr_assert_eq(seen.maps, 1);
}

Test(gatekeeper, walks_what_devices_may_have_written)		/* S0-09, S0-14, S0-15 */
{
	int gate = gatekeeper_add(k, "net0", true, &user);
	struct gate_span reads = { .iova = IOVA(1), .length = 4096, .directions = GATE_READS };

	serve();
	map(gate, "ram", 0, 0, 4);
	gatekeeper_map(k, gate, "ram", &reads, on_done, &seen);
	settle();
	gatekeeper_sync(k, gate, IOVA(0) + 4096, IOVA(2), on_done, &seen);
	settle();
	cr_assert_eq(ended(), 0);
	cr_assert_eq(seen.written, 3 * 4096, "that it reads is not written");
	gatekeeper_sync(k, gate, 0, 0, on_done, &seen);
	settle();
	cr_assert_eq(ended(), -EINVAL);
	gatekeeper_unmap(k, gate, IOVA(0), 4096, on_done, &seen);
	settle();
	cr_assert_eq(ended(), -EINVAL, "it cuts a range");
	gatekeeper_unmap(k, gate, IOVA(0), 4 * 4096, on_done, &seen);
	settle();
	cr_assert_eq(ended(), 0);
	cr_assert_eq(seen.written, 4 * 4096);
	cr_assert_eq(report(gate).ranges, 1);
}

Test(gatekeeper, names_a_set_that_was_declared_too_late)	/* F51, S2-02 */
{
	int gate = gatekeeper_add(k, "net0", false, &user);

	gatekeeper_seal(k, gate);
	serve();
	settle();
	cr_assert(gatekeeper_open(k, gate));
	gatekeeper_ran(k, gate);
	map(gate, "ram", 0, 0, 1);
	come(0, 1);
	settle();
	gatekeeper_mapped(k, gate, IOVA(0), 0);
	settle();
	cr_assert(report(gate).ran);
	cr_assert_str_eq(report(gate).blocker, "untracked-dma");
	cr_assert_str_eq(blocker("untracked-dma"),
			 "what device net0 reaches was declared after it ran: reset it");
	cr_assert_not(gatekeeper_open(k, gate));
	gatekeeper_reset(k, gate);
	settle();
	cr_assert_null(blocker("untracked-dma"));
	cr_assert(gatekeeper_open(k, gate));
}

Test(gatekeeper, gives_nothing_out_once_the_source_is_lost)
{
	int gate = gatekeeper_add(k, "net0", true, &user);

	map(gate, "ram", 0, 0, 1);
	gatekeeper_seal(k, gate);
	serve();
	settle();
	session_feed(&f->engine.session, SESSION_SOURCE_LOST);
	cr_assert_eq(f->engine.session.state, SESSION_PAUSED);
	come(0, 1);
	settle();
	cr_assert_eq(seen.maps, 0);
	cr_assert_not(gatekeeper_open(k, gate));
	cr_assert_not(gatekeeper_waits(k));
}

Test(gatekeeper, refuses_what_comes_when_it_is_over)
{
	int gate = gatekeeper_add(k, "net0", true, &user);

	map(gate, "ram", 0, 0, 1);
	session_feed(&f->engine.session, SESSION_REFUSE);
	snap();
	look();
	cr_assert_eq(seen.done, 0, "not from inside the call");
	settle();
	cr_assert_eq(ended(), -ECANCELED);
	map(gate, "ram", 0, 0, 1);
	settle();
	cr_assert_eq(ended(), -ECANCELED);
	cr_assert_eq(f->engine.n_gates, 0);
}

Test(gatekeeper, gets_back_what_nobody_does_any_more)
{
	int gate = gatekeeper_add(k, "net0", true, &user);

	serve();
	map(gate, "ram", 0, 0, 1);
	snap();
	look();
	cr_assert_eq(n_posted, 2);
	for (unsigned i = 0; i < n_posted; i++)
		gates_return(f, posted[i], -ESHUTDOWN);
	n_posted = 0;
	settle();
	cr_assert_eq(ended(), -ESHUTDOWN);
	cr_assert_not(gatekeeper_open(k, gate));
	map(gate, "ram", 0, 0, 1);		/* freed while it is out */
	cr_assert_eq(n_posted, 1);
}

Test(gatekeeper, forgets_who_goes)
{
	int gate = gatekeeper_add(k, "net0", true, &user);

	map(gate, "ram", 0, 0, 1);
	gatekeeper_seal(k, gate);
	serve();
	come(0, 1);
	settle();
	cr_assert_eq(seen.maps, 1);
	map(gate, "ram", 1, 1, 1);
	seen.done = 0;
	gatekeeper_forget(k, &seen);
	settle();
	cr_assert_eq(seen.done, 0);
	cr_assert_eq(report(gate).failed, 1, "it will not say how that ended");
	come(1, 1);
	settle();
	cr_assert_eq(seen.maps, 1);
	cr_assert_eq(gatekeeper_add(k, "net0", true, &user), gate, "taken over");
}

Test(gatekeeper, F59_says_that_pages_are_lost)
{
	int gate = gatekeeper_add(k, "net0", true, &user);
	struct sharer_ref vmm;

	map(gate, "ram", 0, 0, 8);
	serve();
	cr_assert_eq(engine_join(&f->engine, true, &vmm), 0);
	engine_map(&f->engine, vmm, &(struct mapping){ .address = 4096, .length = LENGTH });
	engine_fault(&f->engine, vmm, 4 * 4096, 1, 0, 1);
	cr_assert_eq(engine_poison(&f->engine, 1, 1, 1), 1);
	act();
	settle();
	cr_assert_str_eq(blocker("gate:net0"),
			 "0 of 1 ranges are mapped; 1 pages are lost: it never opens");
}

Test(gatekeeper, says_how_long_it_will_take)			/* F48, S0-03 */
{
	int gate = gatekeeper_add(k, "net0", true, &user);

	map(gate, "ram", 0, 0, 48);
	serve();
	settle();
	s->now_ns = 1000000001;
	look();
	cr_assert_eq(report(gate).eta_ms, -1, "nobody knows yet");
	cr_assert_str_eq(blocker("gate:net0"),
			 "0 of 1 ranges are mapped; 48 of 48 pages are missing");
	come(0, 16);
	snap();
	s->now_ns = 3000000001;
	look();
	cr_assert_eq(report(gate).rate, 8 * 4096);
	cr_assert_eq(report(gate).eta_ms, 4000);
	cr_assert(gatekeeper_waits(k));
	snap();
	s->now_ns = 3000000002;
	look();
	cr_assert_eq(report(gate).rate, 8 * 4096, "over a second, not less");
	come(16, 32);
	snap();
	s->now_ns = 4000000002;
	look();
	cr_assert_eq(report(gate).eta_ms, 0);
	cr_assert_not(gatekeeper_waits(k));
}
