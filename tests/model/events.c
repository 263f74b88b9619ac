/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What may happen next, one function per kind.  An event that is not possible now does nothing.
 */
#include "config.h"

#include "world.h"

#include <errno.h>
#include <string.h>

static uint64_t any_page(struct world *w)
{
	return rng_below(&w->rng, w->engine->blocks.pages);
}

static struct space *any_space(struct world *w, enum life life)
{
	unsigned start = (unsigned)rng_below(&w->rng, KERNEL_SPACES);

	for (unsigned i = 0; i < KERNEL_SPACES; i++) {
		struct space *s = &w->kernel.space[(start + i) % KERNEL_SPACES];

		if (s->life == life)
			return s;
	}
	return NULL;
}

/* Somewhere in what a space maps; most often in a page that is not there. */
static uint64_t any_address(struct world *w, const struct space *s)
{
	uint64_t address = 0, page = 0;

	for (unsigned tries = 0; tries < 10; tries++) {
		const struct mapping *m = &s->piece[rng_below(&w->rng, s->n_pieces)];

		address = m->address + rng_below(&w->rng, m->length);
		kernel_resolve(&w->kernel, s, address, &page);
		if (!w->kernel.page[page].present)
			break;
	}
	return address;
}

/* Some thread of some process touches memory, anywhere in a page. */
static void touch(struct world *w)
{
	struct space *s = any_space(w, SPACE_ALIVE);
	struct thread *t;

	if (!s || s->n_pieces == 0)
		return;
	t = &s->thread[rng_below(&w->rng, s->n_threads)];
	kernel_touch(&w->kernel, s, t, any_address(w, s), rng_percent(&w->rng, 50));
}

static void interrupt(struct world *w)
{
	struct space *s = any_space(w, SPACE_ALIVE);

	if (s)
		kernel_signal(&w->kernel, s, &s->thread[rng_below(&w->rng, s->n_threads)]);
}

static bool mail_room(const struct world *w)
{
	return w->n_batch < WORLD_BATCH && w->n_batch < engine_room(w->engine);
}

/* Read messages of one descriptor, as many as can be parked. */
static void read_mail(struct world *w)
{
	struct space *s = any_space(w, SPACE_ALIVE);
	unsigned n = (unsigned)rng_between(&w->rng, 1, KERNEL_THREADS);

	for (unsigned i = 0; s && i < s->n_threads && n > 0; i++) {
		struct thread *t = &s->thread[i];

		if (t->message != MESSAGE_QUEUED || !mail_room(w))
			continue;
		t->message = MESSAGE_READ;
		w->batch[w->n_batch++] = (struct mail){
			.ref = s->ref,
			.address = t->address,
			.sleep = t->sleep,
			.tid = t->tid,
			.write = t->write,
		};
		n--;
	}
}

static void fault(struct world *w, const struct mail *m)
{
	struct space *s = kernel_space(&w->kernel, m->ref);
	enum engine_outcome want, got;

	want = naive_fault(w, m, s);
	got = engine_fault(w->engine, m->ref, m->address, m->tid, m->write, w->now);
	must(w, got == want, "fault at %lx of sharer %u: outcome %d, not %d", m->address,
	     m->ref.slot, got, want);
	for (unsigned i = 0; s && i < s->n_threads; i++)
		if (s->thread[i].asleep && s->thread[i].sleep == m->sleep)
			s->thread[i].message = MESSAGE_TOLD;
}

/* Tell the engine of a message that was read, not always the oldest (several descriptors). */
static void tell(struct world *w)
{
	unsigned at =
		w->n_batch ? (unsigned)rng_below(&w->rng, w->n_batch < 3 ? w->n_batch : 3) : 0;
	struct mail m = w->batch[at];

	if (w->n_batch == 0)
		return;
	memmove(&w->batch[at], &w->batch[at + 1], (--w->n_batch - at) * sizeof(m));
	fault(w, &m);
}

/* The same message twice. */
static void repeat(struct world *w)
{
	if (w->n_batch == 0 || !mail_room(w))
		return;
	w->batch[w->n_batch] = w->batch[rng_below(&w->rng, w->n_batch)];
	w->n_batch++;
}

/* Messages that make no sense: of a sharer that never was, or an address that nobody maps. */
static void strange(struct world *w)
{
	struct space *s = any_space(w, SPACE_ALIVE);
	struct mail m = { .address = rng_below(&w->rng, 4096), .tid = 1 };
	uint64_t page;

	if (!mail_room(w))
		return;
	if (s && rng_percent(&w->rng, 50)) {
		m.ref = s->ref;
		if (s->n_pieces)
			m.address = s->piece[s->n_pieces - 1].address +
				    s->piece[s->n_pieces - 1].length;
		if (kernel_resolve(&w->kernel, s, m.address, &page))
			return;
	} else {
		m.ref.slot = (uint16_t)rng_below(&w->rng, SHARER_MAX * 2);
		m.ref.generation = 0;
	}
	fault(w, &m);
}

static void page_came(struct world *w, enum stats_lane lane, uint64_t page)
{
	bool zero = rng_percent(&w->rng, 30);
	enum engine_outcome want = naive_page(w, lane, page, zero);

	must(w,
	     engine_page(w->engine, lane, page, zero ? NULL : world_content(w, page), w->now) ==
		     want,
	     "page %lu on lane %d: not outcome %d", page, lane, want);
}

static void page(struct world *w)
{
	page_came(w, LANE_MAIN, any_page(w));
}

/* The urgent lane carries what was asked for; now and then something else, or the same again. */
static void urgent(struct world *w)
{
	uint64_t start = any_page(w), pages = w->engine->blocks.pages;

	for (uint64_t i = 0; i < pages; i++)
		if (w->naive.page[(start + i) % pages].is == PAGE_REQUESTED) {
			page_came(w, LANE_URGENT, (start + i) % pages);
			return;
		}
	if (rng_percent(&w->rng, 20))
		page_came(w, LANE_URGENT, start);
}

static void zero_run(struct world *w)
{
	uint64_t first = any_page(w);
	const struct block *b = world_block(w, first);
	uint64_t most = b->first + b->pages - first, n;

	n = rng_between(&w->rng, 1, most < ENGINE_RUN ? most : ENGINE_RUN);
	naive_zero_run(w, LANE_MAIN, first, n);
	engine_zero_run(w->engine, LANE_MAIN, first, n, w->now);
}

static void later(struct world *w)
{
	if (w->n_later)
		daemon_later(w, (unsigned)rng_below(&w->rng, w->n_later));
}

static void push(struct world *w)
{
	uint64_t max = rng_between(&w->rng, 1, 40), want = naive_push(w, max);
	uint64_t got = engine_push(w->engine, max, w->now);

	must(w, got == want, "%lu stored pages handed over, not %lu", got, want);
}

/* What was given back and is waited for. */
static void retry(struct world *w)
{
	uint64_t max = rng_between(&w->rng, 1, 40), want = naive_retry(w, max);
	uint64_t got = engine_retry(w->engine, max, w->now);

	must(w, got == want, "%lu pages tried again, not %lu", got, want);
}

static void request(struct world *w)
{
	daemon_request(w);
}

static void want_pages(struct world *w)
{
	unsigned block = (unsigned)rng_below(&w->rng, w->engine->blocks.n + 1);
	enum request_class class = rng_percent(&w->rng, 50) ? CLASS_DMA : CLASS_PREFETCH;
	const struct block *b = &w->engine->blocks.block[block];
	uint64_t offset, length;
	int want = -EINVAL;

	if (block == w->engine->blocks.n || rng_percent(&w->rng, 5)) {
		offset = block == w->engine->blocks.n ? 0 : b->length - 1;
		length = 2;
	} else {
		offset = rng_below(&w->rng, b->length);
		length = rng_between(&w->rng, 1, b->length - offset);
		want = naive_wants(w, block_page(b, offset),
				   block_page(b, offset + length - 1) - block_page(b, offset) + 1,
				   class);
	}
	must(w, engine_want(w->engine, block, offset, length, class) == want, "want: not %d", want);
}

static void replay(struct world *w)
{
	naive_replay(w);
	engine_replay(w->engine);
}

/* It stops and says so. */
static void leave(struct world *w)
{
	struct space *s = any_space(w, SPACE_ALIVE);

	if (s)
		daemon_gone(w, s);
}

/* It dies; nobody has noticed yet. */
static void die(struct world *w)
{
	struct space *s = any_space(w, SPACE_ALIVE);

	if (s)
		kernel_die(s);
}

static void bury(struct world *w)
{
	struct space *s = any_space(w, SPACE_DEAD);

	if (s)
		daemon_gone(w, s);
}

/* The guest's balloon gives a page back. */
static void punch(struct world *w)
{
	uint64_t at = any_page(w);
	struct kernel_page *k = &w->kernel.page[at];

	if (w->naive.page[at].counted != PAGE_PRESENT || world_block(w, at)->kind == BLOCK_HELD)
		return;
	k->present = false;
	k->punched = true;
}

/* Somebody without a registration writes a page that is not there. */
static void stray(struct world *w)
{
	uint64_t at = any_page(w);
	enum page_state is = w->naive.page[at].is;

	if ((is == PAGE_MISSING || is == PAGE_ZERO) && world_block(w, at)->kind != BLOCK_HELD)
		w->kernel.page[at].present = w->kernel.page[at].foreign = true;
}

/* Somebody has waited long enough. */
static void poison(struct world *w)
{
	uint64_t before = w->now - rng_below(&w->rng, w->now < 20000 ? w->now + 1 : 20000);
	uint64_t max = rng_between(&w->rng, 1, 40), want = naive_poison(w, before, max), got;

	got = engine_poison(w->engine, before, max, w->now);
	must(w, got == want, "%lu pages given up, not %lu", got, want);
}

static void (*const events[EVENTS])(struct world *w) = {
	[EVENT_TOUCH] = touch,	      [EVENT_SIGNAL] = interrupt,
	[EVENT_READ] = read_mail,     [EVENT_TELL] = tell,
	[EVENT_REPEAT] = repeat,      [EVENT_STRANGE] = strange,
	[EVENT_PAGE] = page,	      [EVENT_URGENT] = urgent,
	[EVENT_ZERO_RUN] = zero_run,  [EVENT_BULK] = bulk_step,
	[EVENT_REPORT] = bulk_report, [EVENT_LATER] = later,
	[EVENT_PUSH] = push,	      [EVENT_RETRY] = retry,
	[EVENT_REQUEST] = request,    [EVENT_WANT] = want_pages,
	[EVENT_REPLAY] = replay,      [EVENT_JOIN] = world_join,
	[EVENT_LEAVE] = leave,	      [EVENT_DIE] = die,
	[EVENT_BURY] = bury,	      [EVENT_PUNCH] = punch,
	[EVENT_STRAY] = stray,	      [EVENT_GATE] = gates_event,
	[EVENT_POISON] = poison,
};
const char *const world_event_names[EVENTS] = {
	"touch", "signal", "read", "tell", "repeat", "strange", "page", "urgent",
	"zero run", "bulk", "report", "later", "push", "retry", "request", "want", "replay",
	"join", "leave", "die", "bury", "punch", "stray", "gate",
	"poison",
};

void world_event(struct world *w, enum event event)
{
	w->doing = world_event_names[event];
	w->now += rng_below(&w->rng, 1000);
	w->events++;
	events[event](w);
	daemon_act(w);
	check_world(w);
}
