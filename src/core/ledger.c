/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sixteen pages to a word, one compare-and-swap a change.  Why two threads need no lock is in
 * ledger.h; this is how the words keep that promise:
 *
 *   - what an operation does to a page depends on nothing but the page's own state, so a
 *     request and a claim are tables and one loop; a lost race re-reads the word and decides anew
 *   - a change releases, a read acquires: who finds a page PRESENT also sees what was written
 *     before it was published
 *   - ledger_set() stores plainly.  It is for the time before faults are served, when one thread
 *     has the ledger
 *
 * At 4 bits a page 256 GiB of 4 KiB pages cost 32 MiB.  Searches look at words, not at pages, so a
 * walk over a ledger with little in it runs at memory speed.
 *
 * The layout (header, then words in host order) is fixed by its version and holds no pointer: the
 * memory may be a file that the next process adopts.  Adopting trusts nothing but the memory's
 * size.
 */
#include "config.h"
#include "core/ledger.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/guard.h"

#define PER_WORD  16u
#define BITS	  4u
#define NIBBLE	  0xfull
#define EVERY_LOW 0x1111111111111111ull

/* What an operation turns each state into; the same state means "stays". */
typedef const unsigned char transition[PAGE_STATES];

static transition on_request = {
	[PAGE_NEVER] = PAGE_NEVER,	   [PAGE_MISSING] = PAGE_REQUESTED,
	[PAGE_REQUESTED] = PAGE_REQUESTED, [PAGE_PLACING] = PAGE_CONTESTED,
	[PAGE_CONTESTED] = PAGE_CONTESTED, [PAGE_PRESENT] = PAGE_PRESENT,
	[PAGE_STORED] = PAGE_STORED,	   [PAGE_ZERO] = PAGE_ZERO,
	[PAGE_LOST] = PAGE_LOST,	   [PAGE_REMOVED] = PAGE_REMOVED,
	[PAGE_UNPLACED] = PAGE_UNPLACED,
};
static transition on_claim = {
	[PAGE_NEVER] = PAGE_NEVER,	   [PAGE_MISSING] = PAGE_PLACING,
	[PAGE_REQUESTED] = PAGE_CONTESTED, [PAGE_PLACING] = PAGE_PLACING,
	[PAGE_CONTESTED] = PAGE_CONTESTED, [PAGE_PRESENT] = PAGE_PRESENT,
	[PAGE_STORED] = PAGE_STORED,	   [PAGE_ZERO] = PAGE_ZERO,
	[PAGE_LOST] = PAGE_LOST,	   [PAGE_REMOVED] = PAGE_REMOVED,
	[PAGE_UNPLACED] = PAGE_UNPLACED,
};
static_assert(ARRAY_LEN(on_request) == PAGE_STATES && ARRAY_LEN(on_claim) == PAGE_STATES,
	      "every state");

static unsigned shift_of(uint64_t page)
{
	return (unsigned)(page % PER_WORD) * BITS;
}

static uint64_t words_for(uint64_t pages)
{
	return pages / PER_WORD + (pages % PER_WORD != 0);
}

/**
 * ledger_size - bytes a ledger of @pages pages needs, its header included
 */
size_t ledger_size(uint64_t pages)
{
	return sizeof(struct ledger_header) + (size_t)words_for(pages) * sizeof(uint64_t);
}

static bool aligned(const void *memory)
{
	return memory && (uintptr_t)memory % sizeof(uint64_t) == 0;
}

/**
 * ledger_init - lay a fresh ledger into the caller's memory
 * @memory: zeroed, 8-byte aligned, stays the caller's and must outlive @l
 * @size: bytes, at least ledger_size(@pages)
 *
 * Every page is NEVER, which is the zero of the zeroed memory: nothing is written but the header.
 *
 * Return: 0, or -EINVAL for memory that is too small or not aligned.
 */
int ledger_init(struct ledger *l, void *memory, size_t size, uint64_t pages)
{
	if (!aligned(memory) || size < ledger_size(pages))
		return -EINVAL;
	l->header = memory;
	*l->header = (struct ledger_header){
		.magic = LEDGER_MAGIC, .version = LEDGER_VERSION,
		.header_size = sizeof(struct ledger_header), .pages = pages,
	};
	l->word = (uint64_t *)((uint8_t *)memory + sizeof(struct ledger_header));
	l->pages = pages;
	return 0;
}

/*
 * Is every nibble of the word a state?  Of 8 and above only 8, 9 and 10 are: bit 3 stands neither
 * beside bit 2 nor beside both bit 1 and bit 0.
 */
static bool word_valid(uint64_t word)
{
	static_assert(PAGE_STATES == 11, "8 | 2 | 1 and 8 | 4 are no states");
	return (word & (word << 1 | (word << 2 & word << 3)) & (EVERY_LOW << 3)) == 0;
}

/**
 * ledger_adopt - take over a ledger that is there
 * @memory: written by ledger_init() of this or another process; may hold anything
 * @size: bytes; the page count in the header is believed only as far as they reach
 *
 * Return: 0, or -EBADMSG when it is no ledger of this version and size, or a page of it is in no
 * state; @l is then untouched.
 */
int ledger_adopt(struct ledger *l, void *memory, size_t size)
{
	struct ledger_header *h = memory;
	uint64_t *word, words;

	if (!aligned(memory) || size < sizeof(*h) || h->magic != LEDGER_MAGIC ||
	    h->version != LEDGER_VERSION || h->header_size != sizeof(*h))
		return -EBADMSG;
	words = words_for(h->pages);
	if (words > (size - sizeof(*h)) / sizeof(uint64_t))
		return -EBADMSG;
	word = (uint64_t *)((uint8_t *)memory + sizeof(*h));
	for (uint64_t i = 0; i < words; i++)
		if (!word_valid(word[i]))
			return -EBADMSG;
	*l = (struct ledger){ .header = h, .word = word, .pages = h->pages };
	return 0;
}

/**
 * ledger_commit - note that there is no way back to the source
 *
 * Written before the answer that commits leaves us, so that whoever adopts the ledger never runs a
 * VM beside the source's.
 */
void ledger_commit(struct ledger *l)
{
	__atomic_store_n(&l->header->committed, 1, __ATOMIC_SEQ_CST);
}

/**
 * ledger_committed - was ledger_commit() called on this ledger, by whatever process?
 */
bool ledger_committed(const struct ledger *l)
{
	return __atomic_load_n(&l->header->committed, __ATOMIC_SEQ_CST) != 0;
}

/**
 * ledger_get - the state of a page now
 *
 * Another thread may change it at once: only states that nothing leaves any more (PRESENT, as long
 * as the owner keeps the page) can be acted on; everything else goes through an operation that
 * returns what it found.
 */
enum page_state ledger_get(const struct ledger *l, uint64_t page)
{
	uint64_t word = __atomic_load_n(&l->word[page / PER_WORD], __ATOMIC_ACQUIRE);

	return (enum page_state)((word >> shift_of(page)) & NIBBLE);
}

/* Apply a transition to one page; the state it found. */
static enum page_state apply(struct ledger *l, uint64_t page, transition how)
{
	uint64_t *word = &l->word[page / PER_WORD], old, new;
	unsigned shift = shift_of(page), from;

	old = __atomic_load_n(word, __ATOMIC_ACQUIRE);
	do {
		from = (unsigned)((old >> shift) & NIBBLE);
		assert(from < PAGE_STATES);
		if (how[from] == from)
			return (enum page_state)from;
		new = (old & ~(NIBBLE << shift)) | ((uint64_t)how[from] << shift);
	} while (!__atomic_compare_exchange_n(word, &old, new, true, __ATOMIC_ACQ_REL,
					      __ATOMIC_ACQUIRE));
	return (enum page_state)from;
}

/**
 * ledger_move - one page from @from to @to, if it is @from
 *
 * Return: true when this call moved it.  False leaves the page as it is, in whatever state another
 * thread put it.
 */
bool ledger_move(struct ledger *l, uint64_t page, enum page_state from, enum page_state to)
{
	uint64_t *word = &l->word[page / PER_WORD], old, new;
	unsigned shift = shift_of(page);

	old = __atomic_load_n(word, __ATOMIC_ACQUIRE);
	do {
		if (((old >> shift) & NIBBLE) != (uint64_t)from)
			return false;
		new = (old & ~(NIBBLE << shift)) | ((uint64_t)to << shift);
	} while (!__atomic_compare_exchange_n(word, &old, new, true, __ATOMIC_ACQ_REL,
					      __ATOMIC_ACQUIRE));
	return true;
}

/**
 * ledger_set - @n pages from @page on to @to, whatever they were
 *
 * Not atomic: only before faults are served, when one thread has the ledger.
 */
void ledger_set(struct ledger *l, uint64_t page, uint64_t n, enum page_state to)
{
	uint64_t end = page + n;

	while (page < end && page % PER_WORD != 0) {
		unsigned shift = shift_of(page);

		l->word[page / PER_WORD] = (l->word[page / PER_WORD] & ~(NIBBLE << shift)) |
					   ((uint64_t)to << shift);
		page++;
	}
	for (; page + PER_WORD <= end; page += PER_WORD)
		l->word[page / PER_WORD] = EVERY_LOW * (uint64_t)to;
	for (; page < end; page++) {
		unsigned shift = shift_of(page);

		l->word[page / PER_WORD] = (l->word[page / PER_WORD] & ~(NIBBLE << shift)) |
					   ((uint64_t)to << shift);
	}
}

/**
 * ledger_request - a fault met the page
 *
 * MISSING becomes REQUESTED (the caller asks the source, once: O4), PLACING becomes CONTESTED
 * (whoever places it will be told by ledger_publish()); every other state stays.
 *
 * Return: the state it found.
 */
enum page_state ledger_request(struct ledger *l, uint64_t page)
{
	return apply(l, page, on_request);
}

/**
 * ledger_claim - a lane has the content of the page and wants to place it
 *
 * MISSING becomes PLACING; REQUESTED becomes CONTESTED, because a page that was asked for may be
 * waited for; every other state stays.  ledger_claimed() of the result says whether the caller is
 * now the only one who may place the page.  If so it ends the claim with ledger_publish(),
 * ledger_note() or ledger_unclaim().
 *
 * Return: the state it found.
 */
enum page_state ledger_claim(struct ledger *l, uint64_t page)
{
	return apply(l, page, on_claim);
}

/**
 * ledger_unclaim - a claimed page could not be placed: it becomes @to
 */
void ledger_unclaim(struct ledger *l, uint64_t page, enum page_state to)
{
	if (!ledger_move(l, page, PAGE_PLACING, to) && !ledger_move(l, page, PAGE_CONTESTED, to))
		assert(!"only a claimed page can be given back");
}

/**
 * ledger_publish - the kernel said that a claimed page is there: PRESENT (O2)
 *
 * Return: true when a fault may wait for it.  A fault that comes after this call finds PRESENT, so
 * nobody is missed between the two.
 */
bool ledger_publish(struct ledger *l, uint64_t page)
{
	if (ledger_move(l, page, PAGE_PLACING, PAGE_PRESENT))
		return false;
	if (!ledger_move(l, page, PAGE_CONTESTED, PAGE_PRESENT))
		assert(!"only a claimed page can be published");
	return true;
}

/**
 * ledger_note - a claimed page is known to be zero, and may stay a hole until somebody touches it:
 * ZERO
 *
 * Return: false when a fault may wait for it: the page is claimed still, and has to be placed.
 */
bool ledger_note(struct ledger *l, uint64_t page)
{
	if (ledger_move(l, page, PAGE_PLACING, PAGE_ZERO))
		return true;
	assert(ledger_get(l, page) == PAGE_CONTESTED);
	return false;
}

/**
 * ledger_find - the first page of [from, end) in @state, or @end
 *
 * A search is no snapshot: pages behind it may change while it runs.
 */
uint64_t ledger_find(const struct ledger *l, uint64_t from, uint64_t end, enum page_state state)
{
	for (uint64_t page = from; page < end;) {
		uint64_t word = __atomic_load_n(&l->word[page / PER_WORD], __ATOMIC_ACQUIRE);
		/*
		 * nibbles that match become zero; skip the word at once when none is (may let a
		 * false match by, never hide one)
		 */
		uint64_t x = word ^ (EVERY_LOW * (uint64_t)state);
		uint64_t next = (page / PER_WORD + 1) * PER_WORD;

		if ((x - EVERY_LOW) & ~x & (EVERY_LOW << 3))
			for (; page < end && page < next; page++)
				if (((word >> shift_of(page)) & NIBBLE) == (uint64_t)state)
					return page;
		page = next;
	}
	return end;
}

/**
 * ledger_run - how many pages from @from on, below @end, are in @state
 */
uint64_t ledger_run(const struct ledger *l, uint64_t from, uint64_t end, enum page_state state)
{
	uint64_t page = from;

	while (page < end && ledger_get(l, page) == state)
		page++;
	return page - from;
}

/**
 * ledger_count - count the pages of [from, end) by state
 *
 * Exact only while no other thread changes them.
 */
void ledger_count(const struct ledger *l, uint64_t from, uint64_t end, uint64_t count[PAGE_STATES])
{
	uint64_t page = from;

	for (unsigned i = 0; i < PAGE_STATES; i++)
		count[i] = 0;
	while (page < end) {
		uint64_t word = __atomic_load_n(&l->word[page / PER_WORD], __ATOMIC_RELAXED);
		unsigned first = (unsigned)((word >> shift_of(page)) & NIBBLE);

		if (page % PER_WORD == 0 && end - page >= PER_WORD && word == EVERY_LOW * first) {
			count[first] += PER_WORD;
			page += PER_WORD;
		} else {
			count[first]++;
			page++;
		}
	}
}

/**
 * ledger_state_name - the word for a state in reports; static text, "?" for what is none
 */
const char *ledger_state_name(enum page_state state)
{
	static const char *const names[PAGE_STATES] = {
		"never-sent", "missing", "requested", "placing", "contested", "present", "stored",
		"zero", "lost",
		"removed", "unplaced",
	};

	return (unsigned)state < PAGE_STATES ? names[state] : "?";
}
