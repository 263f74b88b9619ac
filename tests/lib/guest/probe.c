// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The part of the self-checking guest that measures: how long each touch of its memory takes, as
 * the guest itself sees it.
 *
 * It visits every page that boot.S filled, in a scattered order, over and over; a visit is one
 * load, and the time of it goes into a histogram.  Whoever serves the guest's page faults is in
 * that time as a whole, and nothing else differs between one who does and another.  The time is the
 * processor's counter, which an emulated guest gets from the host as it is, but for an offset.
 *
 * Called by boot.S when all pages are filled and one has been visited; never returns.  What it
 * finds in a page is proven on the way.  The words at STATUS are read from outside, and so is the
 * histogram in the same page (tests/bench/qemu.py): bucket 16 * log2 + the four bits behind the
 * first one.
 */
#include <stdint.h>

#define PAGE 4096u
#define START (2u << 20)
#define STRIDE 9973u		/* prime, and no divisor of any number of pages */
#define SUB_BITS 4u

struct status {
	uint32_t magic, round, done, beat, errors, bad_page, bad_code;
};

#define STATUS ((volatile struct status *)0x8000)
/* the counter / 1024: how fast it is, its reader must find out */
#define CLOCK ((volatile uint32_t *)0x8030)
#define HISTOGRAM ((volatile uint32_t *)0x8100)

static uint64_t now(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}

static void note(uint64_t took)
{
	uint32_t t = took >> 32 ? UINT32_MAX : (uint32_t)took | 1u << SUB_BITS;
	uint32_t log = 31u - (uint32_t)__builtin_clz(t);

	HISTOGRAM[log << SUB_BITS | (t >> (log - SUB_BITS) & ((1u << SUB_BITS) - 1))]++;
}

/*
 * What boot.S put there: a page's second word is its address in a live page, the first one in the
 * others; or all is zero.
 */
static void prove(uint32_t at, uint32_t first, uint32_t second)
{
	uint32_t wanted = (at & 0x1f000u) == 0x1f000u ? 0 : at;

	if ((at & PAGE ? first : second) == wanted)
		return;
	STATUS->errors++;
	STATUS->bad_page = at;
	STATUS->bad_code = 1;
}

__attribute__((section(".entry"), noreturn)) void entry(void)
{
	uint32_t pages = (RINGS - START) / PAGE;

	for (uint32_t i = 0;; ) {
		volatile uint32_t *page = (volatile uint32_t *)(START + i * PAGE);
		uint64_t before = now(), after;
		uint32_t first = page[0];

		after = now();
		*CLOCK = (uint32_t)(after >> 10);
		note(after - before);
		prove(START + i * PAGE, first, page[1]);
		STATUS->beat++;
		if (++STATUS->done >= pages) {
			STATUS->done = 0;
			STATUS->round++;
		}
		i = (i + STRIDE) % pages;
	}
}
