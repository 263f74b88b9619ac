/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A daemon that does what the engine says, with a kernel that may refuse: it fills a part and wants
 * to be asked again, it has something there already, or it knows no place for the page.
 */
#include "config.h"

#include "world.h"

#include <errno.h>
#include <string.h>

static bool refuses(struct world *w, unsigned percent)
{
	return !w->ending && percent && rng_percent(&w->rng, percent);
}

/*
 * A space that lives and maps the page, from a random one on; at a random one of its addresses.
 * Whose it is must not matter to the engine.
 */
static struct space *find_carrier(struct world *w, uint64_t page, uint64_t *address)
{
	unsigned start = (unsigned)rng_below(&w->rng, KERNEL_SPACES);

	for (unsigned i = 0; i < KERNEL_SPACES; i++) {
		struct space *s = &w->kernel.space[(start + i) % KERNEL_SPACES];
		uint64_t second;

		if (s->life != SPACE_ALIVE ||
		    !kernel_address(&w->kernel, s, page, 0, address))
			continue;
		if (rng_percent(&w->rng, 50) && kernel_address(&w->kernel, s, page, 1, &second))
			*address = second;
		return s;
	}
	return NULL;
}

static void filled(struct world *w, uint64_t page, bool zero)
{
	struct kernel_page *k = &w->kernel.page[page];

	must(w, k->placed++ == 0, "page %lu placed twice", page);
	must(w, w->naive.page[page].zero == zero, "page %lu placed with another content", page);
	k->present = true;
	k->zero = zero;
}

/*
 * Place one page.  False: the kernel wants to be asked again.  A private page that nobody maps has
 * no place; a shared one goes through our own mapping then, which wakes nobody.
 */
bool daemon_fill(struct world *w, uint64_t page, bool zero, struct engine_carrier *carrier,
		 enum engine_result *result)
{
	const struct block *b = world_block(w, page);
	struct kernel_page *k = &w->kernel.page[page];
	struct space *s;

	*carrier = (struct engine_carrier){ .is_sharer = false };
	*result = PLACED;
	if (refuses(w, w->profile->again))
		return w->engine->stats.again++, false;
	if (b->kind == BLOCK_HELD)
		return filled(w, page, zero), true;
	s = find_carrier(w, page, &carrier->address);
	if ((!s && b->kind == BLOCK_PRIVATE) || refuses(w, w->profile->nowhere))
		return *result = PLACED_NOWHERE, true;
	if (refuses(w, w->profile->exists))
		k->present = k->foreign = true;
	if (k->present)
		return *result = PLACED_EXISTS, true;
	if (s) {
		carrier->is_sharer = true;
		carrier->sharer = s->ref;
		kernel_copy(&w->kernel, s, carrier->address, zero);
	}
	filled(w, page, zero);
	return true;
}

/* Go on with a run through its first page's carrier; false where that ends or the kernel stops. */
static bool fill_next(struct world *w, const struct engine_carrier *c, uint64_t page, uint64_t nth,
		      bool zero)
{
	struct space *s = c->is_sharer ? kernel_space(&w->kernel, c->sharer) : NULL;
	const struct block *b = world_block(w, page);
	uint64_t address = c->address + (nth << b->page_shift), there;

	if (refuses(w, w->profile->again) || w->kernel.page[page].present)
		return false;
	if (s && (!kernel_resolve(&w->kernel, s, address, &there) || there != page))
		return false;
	if (s)
		kernel_copy(&w->kernel, s, address, zero);
	filled(w, page, zero);
	return true;
}

static void put_off(struct world *w, const struct engine_action *a)
{
	must(w, w->n_later < WORLD_LATER, "too many retries");
	w->later[w->n_later++] = *a;
}

/* What we hold ourselves is not put off: it is again what it was, and is tried by another event. */
static void later_or_back(struct world *w, const struct engine_action *a)
{
	if (a->lane != LANE_STORE) {
		put_off(w, a);
		return;
	}
	engine_give_back(w->engine, a);
	naive_give_back(w, a);
}

static void told(struct world *w, const struct engine_action *was, uint64_t done,
		 enum engine_result result, const struct engine_carrier *carrier)
{
	struct engine_carrier c = *carrier;

	for (uint64_t i = 0; i < done; i++) {
		bool contested = w->naive.page[was->page + i].is == PAGE_CONTESTED;

		naive_present(w, was->page + i, was->lane, was->data ? HOW_COPY : HOW_ZERO);
		if (contested)
			naive_drain(w, was->page + i, &c, w->now);
		c.address += world_block(w, was->page)->page_size;
	}
	if (result != PLACED)
		naive_unplaced(w, was->page + done,
			   result == PLACED_EXISTS ? ENGINE_ALARM : ENGINE_UNPLACED);
}

/* One round of a placement; false when it has to wait. */
static bool place_some(struct world *w, struct engine_action *a)
{
	const struct block *b = world_block(w, a->page);
	struct engine_action was = *a;
	struct engine_carrier carrier;
	enum engine_result result;
	uint64_t done, left;

	if (!daemon_fill(w, a->page, !a->data, &carrier, &result))
		return false;
	done = result == PLACED;
	while (result == PLACED && done < a->n &&
	       fill_next(w, &carrier, a->page + done, done, !a->data))
		done++;
	left = engine_placed(w->engine, a, done, result, &carrier, w->now);
	told(w, &was, done, result, &carrier);
	done += result != PLACED;
	must(w, left == was.n - done && a->n == left && a->page == was.page + done,
	     "a run of %lu pages, %lu done, goes on at %lu with %lu", was.n, done, a->page, left);
	must(w, !was.data || a->data == was.data + (done << b->page_shift), "data of another page");
	return true;
}

/* Nothing is there; now and then the kernel cannot tell. */
bool daemon_is_hole(struct world *w, uint64_t page, uint64_t n)
{
	for (uint64_t end = page + n; page < end; page++)
		if (w->kernel.page[page].present)
			return false;
	return !refuses(w, w->profile->again);
}

/* Zeroes that may stay a hole.  False: they are placed like others. */
static bool note(struct world *w, struct engine_action *a)
{
	struct engine_carrier nobody = { .is_sharer = false };
	struct engine_action was = *a;

	if (!daemon_is_hole(w, a->page, a->n)) {
		a->how = PLACE_ZERO;
		return false;
	}
	must(w, engine_placed(w->engine, a, a->n, PLACED, &nobody, w->now) == 0, "a note goes on");
	naive_noted(w, &was);
	return true;
}

static void place(struct world *w, struct engine_action *a)
{
	if (a->how == PLACE_NOTE && refuses(w, w->profile->again)) {
		put_off(w, a);
		return;
	}
	if (a->how == PLACE_NOTE && note(w, a))
		return;
	while (a->n > 0) {
		if (!place_some(w, a) || (a->n && refuses(w, w->profile->again))) {
			later_or_back(w, a);
			return;
		}
	}
}

/*
 * A zero page where the page should be, through any space that maps it, or our own mapping; a
 * private one has one space.
 */
static int answer_through(struct world *w, const struct engine_action *a,
			  struct engine_carrier *carrier)
{
	struct kernel_page *k = &w->kernel.page[a->page];
	struct space *s = kernel_space(&w->kernel, a->sharer);

	*carrier = (struct engine_carrier){ .address = a->address };
	if (!s)
		return -ESRCH;
	if (world_block(w, a->page)->kind != BLOCK_PRIVATE)
		s = find_carrier(w, a->page, &carrier->address);
	carrier->is_sharer = s != NULL;
	if (s) {
		carrier->sharer = s->ref;
		return kernel_copy(&w->kernel, s, carrier->address, true);
	}
	if (k->present)
		return -EEXIST;
	k->present = k->zero = true;
	return 0;
}

static bool carried_there(const struct engine_action *a, const struct engine_carrier *c)
{
	return c->is_sharer && c->sharer.slot == a->sharer.slot &&
	       c->sharer.generation == a->sharer.generation && c->address == a->address;
}

/* O3: a zero page where the owner gave it back; a wake, unless that woke. */
static void answer(struct world *w, struct engine_action *a)
{
	struct engine_carrier carrier;
	int ret;

	if (refuses(w, w->profile->again)) {
		put_off(w, a);
		return;
	}
	ret = answer_through(w, a, &carrier);
	if (ret == 0) {
		must(w, w->kernel.page[a->page].punched, "page %lu was there and is not", a->page);
		w->naive.page[a->page].zero = true;
	}
	if (ret == -EEXIST || (ret == 0 && !carried_there(a, &carrier)))
		naive_answered(w, a);
	must(w,
	     engine_placed(w->engine, a, ret == 0,
			   ret == 0	    ? PLACED
			   : ret == -EEXIST ? PLACED_EXISTS
					    : PLACED_NOWHERE,
			   &carrier, w->now) == 0,
	     "an answer goes on");
}

/* In all its places of one space; how many there are. */
static unsigned poison_in(struct world *w, struct space *s, uint64_t page)
{
	uint64_t address;
	unsigned n = 0;

	for (; kernel_address(&w->kernel, s, page, n, &address); n++)
		must(w, kernel_poison(&w->kernel, s, address) != -ENOENT, "page %lu moved", page);
	return n;
}

/* Who touched a page that was given up before it came: it is told, and nobody else. */
static void poison_late(struct world *w, struct engine_action *a)
{
	struct space *s = kernel_space(&w->kernel, a->sharer);
	const struct engine_carrier nobody = { .is_sharer = false };
	bool told = s && s->life == SPACE_ALIVE;

	if (refuses(w, w->profile->again)) {
		put_off(w, a);
		return;
	}
	if (told) {
		poison_in(w, s, a->page);
		naive_answered(w, a);
	}
	engine_placed(w->engine, a, told, told ? PLACED : PLACED_NOWHERE, &nobody, w->now);
}

/* A page is given up, in every space; unless it has content that nobody placed. */
static void poison(struct world *w, struct engine_action *a)
{
	const struct engine_carrier nobody = { .is_sharer = false };
	bool there = w->kernel.page[a->page].present;
	unsigned n = 0;

	for (unsigned i = 0; i < KERNEL_SPACES && !there; i++)
		if (w->kernel.space[i].life == SPACE_ALIVE)
			n += poison_in(w, &w->kernel.space[i], a->page);
	if (!there && n == 0) {
		later_or_back(w, a);
		return;
	}
	must(w,
	     engine_placed(w->engine, a, !there, there ? PLACED_EXISTS : PLACED, &nobody, w->now) ==
		     0,
	     "giving up goes on");
	if (there) {
		naive_unplaced(w, a->page, ENGINE_ALARM);
		return;
	}
	naive_given_up(w, a->page);
	naive_drain(w, a->page, NULL, w->now);
}

static void wake(struct world *w, const struct engine_action *a)
{
	enum page_state is = w->naive.page[a->page].is;
	struct space *s = kernel_space(&w->kernel, a->sharer);
	uint64_t address;

	must(w, is == PAGE_PRESENT || is == PAGE_LOST, "wake on page %lu that is %s", a->page,
	     ledger_state_name(is));
	must(w,
	     is == PAGE_LOST || w->kernel.page[a->page].present ||
		     w->kernel.page[a->page].punched,
	     "wake on page %lu that is not there", a->page);
	for (unsigned i = 0; s && kernel_address(&w->kernel, s, a->page, i, &address); i++)
		if (!a->address || address != a->address)
			kernel_wake(&w->kernel, s, address);
	engine_woken(w->engine, a, w->now);
	naive_woken(w, a);
}

static void perform(struct world *w, struct engine_action *a)
{
	if (a->verb == ENGINE_WAKE)
		wake(w, a);
	else if (a->verb == ENGINE_PLACE && a->how == PLACE_ANSWER)
		answer(w, a);
	else if (a->verb == ENGINE_PLACE && a->how == PLACE_POISON && a->from == PAGE_LOST)
		poison_late(w, a);
	else if (a->verb == ENGINE_PLACE && a->how == PLACE_POISON)
		refuses(w, w->profile->again) ? later_or_back(w, a) : poison(w, a);
	else if (a->verb == ENGINE_PLACE)
		place(w, a);
}

void daemon_act(struct world *w)
{
	struct engine_action a;

	while (engine_next(w->engine, &a)) {
		naive_expect(w, &a);
		if (a.verb == ENGINE_WAKE && refuses(w, w->profile->again))
			put_off(w, &a);
		else
			perform(w, &a);
	}
	must(w, w->naive.expect_n == 0, "verb %d on page %lu did not happen",
	     w->naive.expect[0].verb, w->naive.expect[0].page);
}

/* A retry. */
void daemon_later(struct world *w, unsigned index)
{
	struct engine_action a = w->later[index];

	w->later[index] = w->later[--w->n_later];
	perform(w, &a);
}

void daemon_request(struct world *w)
{
	struct engine_request r = { 0 }, want = { 0 };
	bool expected = naive_request(w, &want);

	must(w, engine_next_request(w->engine, &r, w->now) == expected, "a request %s",
	     expected ? "is missing" : "that nobody expects");
	must(w,
	     r.block == want.block && r.offset == want.offset && r.length == want.length &&
		     r.class == want.class,
	     "asked for block %u %lx+%lx class %d, not block %u %lx+%lx class %d", r.block,
	     r.offset, r.length, r.class, want.block, want.offset, want.length, want.class);
	must(w, r.class < CLASS_DMA || w->engine->requested <= w->engine->window,
	     "%lu pages asked for ahead", w->engine->requested);
}

void daemon_gone(struct world *w, struct space *s)
{
	engine_gone(w->engine, s->ref, w->now);
	naive_gone(w, s->ref);
	*s = (struct space){ .life = SPACE_NONE };
}
