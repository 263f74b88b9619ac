/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The ledger: every state under every operation, the borders of its words, memory that somebody
 * else wrote. Two threads at once are in test_ledger_race.c.
 */
#include "config.h"

#include "core/ledger.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "lib/rng.h"

#define PAGES 100

static void *fresh(struct ledger *l, uint64_t pages)
{
	void *memory = calloc(1, ledger_size(pages));

	cr_assert_not_null(memory);
	cr_assert_eq(ledger_init(l, memory, ledger_size(pages), pages), 0);
	return memory;
}

/* --- one operation, one page ------------------------------------------------------------- */

static const struct {
	enum page_state request, claim;		/* what they leave behind */
} after[PAGE_STATES] = {
	[PAGE_NEVER] = { PAGE_NEVER, PAGE_NEVER },
	[PAGE_MISSING] = { PAGE_REQUESTED, PAGE_PLACING },
	[PAGE_REQUESTED] = { PAGE_REQUESTED, PAGE_CONTESTED },
	[PAGE_PLACING] = { PAGE_CONTESTED, PAGE_PLACING },
	[PAGE_CONTESTED] = { PAGE_CONTESTED, PAGE_CONTESTED },
	[PAGE_PRESENT] = { PAGE_PRESENT, PAGE_PRESENT },
	[PAGE_STORED] = { PAGE_STORED, PAGE_STORED },
	[PAGE_ZERO] = { PAGE_ZERO, PAGE_ZERO },
	[PAGE_LOST] = { PAGE_LOST, PAGE_LOST },
	[PAGE_REMOVED] = { PAGE_REMOVED, PAGE_REMOVED },
	[PAGE_UNPLACED] = { PAGE_UNPLACED, PAGE_UNPLACED },
};

/* All pages hold @around; one is @state; the operation must not touch its neighbours. */
struct bed {
	struct ledger l;
	void *memory;
	uint64_t page;
	enum page_state around;
};

static void lay(struct bed *b, uint64_t page, enum page_state state, enum page_state around)
{
	b->memory = fresh(&b->l, PAGES);
	b->page = page;
	b->around = around;
	ledger_set(&b->l, 0, PAGES, around);
	ledger_set(&b->l, page, 1, state);
}

static void left(struct bed *b, enum page_state state)
{
	for (uint64_t page = 0; page < PAGES; page++)
		cr_assert_eq(ledger_get(&b->l, page), page == b->page ? state : b->around);
	free(b->memory);
}

#define EVERY_STATE(s) (enum page_state s = PAGE_NEVER; s < PAGE_STATES; s++)
#define EVERY_PLACE(p) (uint64_t p = 0; p < PAGES; p += p < 17 ? 1 : 13)

Test(ledger, request_in_every_state)
{
	struct bed b;

	for EVERY_STATE(s)
		for EVERY_PLACE(page)
			for EVERY_STATE(around) {
				lay(&b, page, s, around);
				cr_assert_eq(ledger_request(&b.l, page), s);
				left(&b, after[s].request);
			}
}

Test(ledger, claim_in_every_state)
{
	struct bed b;

	for EVERY_STATE(s)
		for EVERY_PLACE(page)
			for EVERY_STATE(around) {
				lay(&b, page, s, around);
				cr_assert_eq(ledger_claim(&b.l, page), s);
				cr_assert_eq(ledger_claimed(s), after[s].claim != s, "%s",
					     ledger_state_name(s));
				left(&b, after[s].claim);
			}
}

Test(ledger, move_in_every_state_to_every_state)
{
	struct bed b;

	for EVERY_STATE(is)
		for EVERY_STATE(from)
			for EVERY_STATE(to) {
				lay(&b, 33, is, PAGE_REMOVED);
				cr_assert_eq(ledger_move(&b.l, 33, from, to), is == from);
				left(&b, is == from ? to : is);
			}
}

Test(ledger, publish_tells_whether_somebody_waits)
{
	struct bed b;

	for EVERY_PLACE(page) {
		lay(&b, page, PAGE_PLACING, PAGE_CONTESTED);
		cr_assert_not(ledger_publish(&b.l, page));
		left(&b, PAGE_PRESENT);
		lay(&b, page, PAGE_CONTESTED, PAGE_PLACING);
		cr_assert(ledger_publish(&b.l, page));
		left(&b, PAGE_PRESENT);
	}
}

Test(ledger, a_page_that_somebody_waits_for_is_not_noted)
{
	struct bed b;

	for EVERY_PLACE(page) {
		lay(&b, page, PAGE_PLACING, PAGE_CONTESTED);
		cr_assert(ledger_note(&b.l, page));
		left(&b, PAGE_ZERO);
		lay(&b, page, PAGE_CONTESTED, PAGE_PLACING);
		cr_assert_not(ledger_note(&b.l, page));
		left(&b, PAGE_CONTESTED);
	}
}

Test(ledger, unclaim_of_a_claimed_page)
{
	struct bed b;

	for EVERY_STATE(to) {
		lay(&b, 16, PAGE_PLACING, PAGE_PRESENT);
		ledger_unclaim(&b.l, 16, to);
		left(&b, to);
		lay(&b, 16, PAGE_CONTESTED, PAGE_PRESENT);
		ledger_unclaim(&b.l, 16, to);
		left(&b, to);
	}
}

Test(ledger, a_fault_between_claim_and_publish_is_told)
{
	struct ledger l;
	cleanup_free void *memory = fresh(&l, 16);

	ledger_set(&l, 0, 16, PAGE_MISSING);
	cr_expect(ledger_claimed(ledger_claim(&l, 3)));
	cr_expect_eq(ledger_request(&l, 3), PAGE_PLACING);
	cr_expect_not(ledger_claimed(ledger_claim(&l, 3)), "nobody else can place it");
	cr_expect(ledger_publish(&l, 3));
	cr_expect_eq(ledger_request(&l, 3), PAGE_PRESENT, "who comes later is answered at once");
	cr_expect_eq(ledger_request(&l, 4), PAGE_MISSING);
	cr_expect_eq(ledger_claim(&l, 4), PAGE_REQUESTED);
	cr_expect(ledger_publish(&l, 4), "who asked before waits");
	cr_expect_not_null(memory);
}

/* --- many pages, against an array -------------------------------------------------------- */

Test(ledger, set_at_every_border)
{
	struct ledger l;
	cleanup_free void *memory = fresh(&l, PAGES);

	for (uint64_t first = 0; first < 50; first++)
		for (uint64_t n = 0; n < 50; n++) {
			ledger_set(&l, 0, PAGES, PAGE_LOST);
			ledger_set(&l, first, n, PAGE_ZERO);
			for (uint64_t page = 0; page < PAGES; page++)
				cr_assert_eq(ledger_get(&l, page), page >= first && page < first + n
									   ? PAGE_ZERO
									   : PAGE_LOST);
		}
	cr_expect_not_null(memory);
}

static uint64_t naive_find(const unsigned char *a, uint64_t from, uint64_t end, enum page_state s)
{
	while (from < end && a[from] != s)
		from++;
	return from < end ? from : end;
}

static void compare_range(const struct ledger *l, const unsigned char *a, uint64_t from,
			  uint64_t end)
{
	uint64_t count[PAGE_STATES], want[PAGE_STATES] = { 0 };

	for EVERY_STATE(s) {
		uint64_t run = from;

		cr_assert_eq(ledger_find(l, from, end, s), naive_find(a, from, end, s));
		while (run < end && a[run] == s)
			run++;
		cr_assert_eq(ledger_run(l, from, end, s), run - from);
	}
	for (uint64_t page = from; page < end; page++)
		want[a[page]]++;
	ledger_count(l, from, end, count);
	cr_assert_arr_eq(count, want, sizeof(count));
}

Test(ledger, find_run_and_count_against_an_array)
{
	enum { MANY = 700 };
	struct rng rng = { .state = rng_seed() };
	unsigned char array[MANY];
	struct ledger l;
	cleanup_free void *memory = fresh(&l, MANY);

	memset(array, PAGE_NEVER, sizeof(array));
	for (unsigned round = 0; round < 20000; round++) {
		uint64_t first = rng_below(&rng, MANY), n = rng_below(&rng, MANY - first + 1), end;
		enum page_state s = (enum page_state)rng_below(&rng, PAGE_STATES);

		if (rng_percent(&rng, 70))
			n = n % 40;
		ledger_set(&l, first, n, s);
		memset(array + first, (int)s, n);
		first = rng_below(&rng, MANY);
		end = rng_between(&rng, first, MANY);
		compare_range(&l, array, first, end);
	}
	cr_expect_not_null(memory);
}

Test(ledger, find_in_nothing)
{
	struct ledger l;
	cleanup_free void *memory = fresh(&l, 32);

	cr_expect_eq(ledger_find(&l, 5, 5, PAGE_NEVER), 5);
	cr_expect_eq(ledger_find(&l, 9, 5, PAGE_NEVER), 5, "an empty range ends at its end");
	cr_expect_eq(ledger_run(&l, 5, 5, PAGE_NEVER), 0);
	cr_expect_eq(ledger_find(&l, 0, 32, PAGE_PRESENT), 32);
	cr_expect_not_null(memory);
}

/* --- memory ------------------------------------------------------------------------------ */

Test(ledger, the_layout_is_for_ever)
{
	struct ledger l;
	cleanup_free void *memory = fresh(&l, 33);
	const unsigned char *bytes = memory;

	cr_expect_eq(sizeof(struct ledger_header), 56);
	cr_expect_eq(offsetof(struct ledger_header, version), 8);
	cr_expect_eq(offsetof(struct ledger_header, header_size), 12);
	cr_expect_eq(offsetof(struct ledger_header, pages), 16);
	cr_expect_eq(offsetof(struct ledger_header, committed), 24);
	cr_expect_eq(ledger_size(33), 56 + 3 * 8);
	cr_expect_arr_eq(bytes, "PCLEDGER", 8);
	ledger_set(&l, 1, 1, PAGE_PRESENT);
	ledger_set(&l, 32, 1, PAGE_LOST);
	cr_expect_eq(bytes[56], PAGE_PRESENT << 4);
	cr_expect_eq(bytes[56 + 16], PAGE_LOST);
}

Test(ledger, size_of_every_small_number_of_pages)
{
	for (uint64_t pages = 0; pages < 200; pages++) {
		size_t words = 0;

		while (words * 16 < pages)
			words++;
		cr_assert_eq(ledger_size(pages), sizeof(struct ledger_header) + words * 8);
	}
}

Test(ledger, init_refusals)
{
	static uint64_t memory[32];
	struct ledger l;

	cr_expect_eq(ledger_init(&l, NULL, 1 << 20, 1), -EINVAL);
	cr_expect_eq(ledger_init(&l, memory, ledger_size(17) - 1, 17), -EINVAL, "a byte short");
	cr_expect_eq(ledger_init(&l, (char *)memory + 4, sizeof(memory) - 4, 1), -EINVAL,
		     "not aligned");
	for (uint64_t less = 0; less < 20; less++)
		cr_expect_eq(ledger_init(&l, memory, sizeof(memory), UINT64_MAX - less), -EINVAL,
			     "2^64 - 1 - %lu pages in 256 bytes", less);
	cr_expect_eq(ledger_init(&l, memory, ledger_size(0), 0), 0);
}

Test(ledger, adopt_takes_over_what_was_written)
{
	struct ledger l, again;
	cleanup_free void *memory = fresh(&l, 50);

	for (uint64_t page = 0; page < 50; page++)
		ledger_set(&l, page, 1, (enum page_state)(page % PAGE_STATES));
	cr_expect_not(ledger_committed(&l));
	ledger_commit(&l);
	cr_assert_eq(ledger_adopt(&again, memory, ledger_size(50)), 0);
	cr_expect(ledger_committed(&again));
	cr_expect_eq(again.pages, 50);
	for (uint64_t page = 0; page < 50; page++)
		cr_assert_eq(ledger_get(&again, page), page % PAGE_STATES);
	cr_expect_eq(ledger_adopt(&again, memory, ledger_size(50) + 4096), 0,
		     "a bigger file is fine");
}

static void refused(uint64_t *memory, size_t size, const char *why)
{
	struct ledger l;

	cr_expect_eq(ledger_adopt(&l, memory, size), -EBADMSG, "%s", why);
}

Test(ledger, adopt_refuses_what_is_no_ledger)
{
	enum { SIZE = sizeof(struct ledger_header) + 4 * 8 };
	static uint64_t memory[SIZE / 8 + 1];
	struct ledger_header *h = (struct ledger_header *)memory, good;
	struct ledger l;

	cr_assert_eq(ledger_init(&l, memory, SIZE, 64), 0);
	good = *h;
	refused(NULL, SIZE, "no memory");
	refused(memory, 0, "empty");
	refused(memory, sizeof(good) - 1, "shorter than the header");
	for (size_t size = sizeof(good); size < SIZE; size++)
		refused(memory, size, "shorter than its pages");
	h->magic++;
	refused(memory, SIZE, "magic");
	*h = good;
	h->version++;
	refused(memory, SIZE, "version");
	*h = good;
	h->header_size -= 8;
	refused(memory, SIZE, "size of the header");
	h->header_size = UINT32_MAX;
	refused(memory, SIZE, "size of the header");
	*h = good;
	for (uint64_t less = 0; less < 40; less++) {
		h->pages = UINT64_MAX - less;
		refused(memory, SIZE, "more pages than there are numbers");
	}
	for (unsigned shift = 7; shift < 64; shift++) {
		h->pages = 1ull << shift;
		refused(memory, SIZE, "more pages than words");
	}
	h->pages = 65;
	refused(memory, SIZE, "one page too many");
	*h = good;
	cr_expect_eq(ledger_adopt(&l, memory, SIZE), 0);
	memmove((char *)memory + 4, memory, SIZE);
	refused((uint64_t *)((char *)memory + 4), SIZE, "not aligned");
}

/* A state that is none would be an index out of bounds later. */
Test(ledger, adopt_refuses_states_that_do_not_exist)
{
	struct ledger l;
	cleanup_free uint64_t *memory = fresh(&l, 40);
	uint64_t *word = memory + sizeof(struct ledger_header) / 8;

	for (uint64_t page = 0; page < 40; page++)
		for (unsigned state = 0; state < 16; state++) {
			word[page / 16] = (uint64_t)state << (page % 16 * 4);
			cr_assert_eq(ledger_adopt(&l, memory, ledger_size(40)),
				     state < PAGE_STATES ? 0 : -EBADMSG, "page %lu state %u", page,
				     state);
			word[page / 16] = 0;
		}
}

Test(ledger, every_state_has_a_name_of_its_own)
{
	for EVERY_STATE(s)
		for (unsigned k = 0; k < s; k++)
			cr_assert_str_neq(ledger_state_name(s), ledger_state_name(k));
	cr_assert_str_eq(ledger_state_name(PAGE_STATES), "?");
	cr_assert_str_eq(ledger_state_name((enum page_state)-1), "?");
}
