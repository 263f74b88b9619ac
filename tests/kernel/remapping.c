/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * mremap() of what is registered, where nobody asked for EVENT_REMAP: what of it is served
 * afterwards.  (client/preload_remap.c)
 */
#include "config.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "scene.h"
#include "sys/maps.h"
#include "tap.h"

#define PAGES 8
#define LEN   (PAGES * PAGE)

static bool registered(const uint8_t *p, uint64_t len)
{
	uint64_t first;
	int rc = maps_proven(getpid(), at(p), at(p) + len, &first);

	expect(rc >= 0);
	return rc == 1;
}

static uint8_t *arena(int *uffd, int *fd)
{
	uint8_t *p = k_map(SHMEM, PAGES, fd);

	*uffd = k_uffd(0);
	expect_eq(k_register(*uffd, at(p), LEN, NULL), 0);
	return p;
}

static uint8_t *away(uint8_t *p, uint64_t len, uint64_t new_len)
{
	void *to = mmap(NULL, new_len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	expect(to != MAP_FAILED);
	expect(mremap(p, len, new_len, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
	return to;
}

/* So a page that is missing reads as zero there, and is then zero for all who share the memory. */
static void moving_drops_it(void)
{
	int uffd, fd;
	uint8_t *p = arena(&uffd, &fd);

	p = away(p, LEN, LEN);
	expect(!registered(p, LEN));
	expect_eq(act_load(p + PAGE), 0);
	k_quiet(uffd);
	expect_eq(k_copy(uffd, at(p + 2 * PAGE), k_source(0x11, 1), PAGE, 0).err, ENOENT);
}

static void the_rest_keeps_it(void)
{
	int uffd, fd;
	uint8_t *p = arena(&uffd, &fd), *moved = away(p, LEN / 2, LEN / 2);
	struct actor a;

	expect(!registered(moved, LEN / 2));
	expect(registered(p + LEN / 2, LEN / 2));
	actor_start(&a, act_load, p + LEN / 2);
	expect_eq(k_fault(uffd), at(p + LEN / 2));
	expect_eq(k_zero(uffd, at(p + LEN / 2), PAGE, 0).err, 0);
	expect_eq(actor_result(&a), 0);
}

static void served_when_registered_again(void)
{
	int uffd, fd;
	uint8_t *p = arena(&uffd, &fd);
	struct actor a;

	p = away(p, LEN, LEN);
	expect_eq(k_register(uffd, at(p), LEN, NULL), 0);
	expect(registered(p, LEN));
	actor_start(&a, act_load, p + PAGE);
	expect_eq(k_fault(uffd), at(p + PAGE));
	expect_eq(k_copy(uffd, at(p + PAGE), k_source(0x11, 1), PAGE, 0).err, 0);
	expect_eq(actor_result(&a), 0x11);
}

/* Shrunk first, so that there is room behind it. */
static void growing_in_place_extends_it(void)
{
	int uffd, fd;
	uint8_t *p = arena(&uffd, &fd);
	struct actor a;

	expect(mremap(p, LEN, LEN / 2, 0) == p);
	expect(registered(p, LEN / 2));
	expect(mremap(p, LEN / 2, LEN, 0) == p);
	expect(registered(p, LEN));
	actor_start(&a, act_load, p + LEN - PAGE);
	expect_eq(k_fault(uffd), at(p + LEN - PAGE));
	expect_eq(k_zero(uffd, at(p + LEN - PAGE), PAGE, 0).err, 0);
	expect_eq(actor_result(&a), 0);
}

static void a_second_mapping_has_none(void)
{
	int uffd, fd;
	uint8_t *p = arena(&uffd, &fd), *second = mremap(p, 0, LEN, MREMAP_MAYMOVE);

	expect(second != MAP_FAILED);
	expect(!registered(second, LEN));
	expect(registered(p, LEN));
}

/* A mapping without access stays so where it goes, and a locked one is then not filled. */
static void closed_stays_closed_and_empty(void)
{
	int uffd, fd;
	uint8_t *p = arena(&uffd, &fd);
	uint64_t there;

	expect_eq(mprotect(p, LEN, PROT_NONE), 0);
	if (mlockall(MCL_FUTURE) < 0)
		fact_skip("no right to lock memory");
	(void)mlock(p, LEN / 2);
	expect(mremap(p, LEN, LEN / 2, 0) == p);
	p = away(p, LEN / 2, LEN);
	expect_eq(maps_present(getpid(), at(p), at(p) + LEN, &there), 0);
	expect_eq(there, 0);
	k_quiet(uffd);
}

static const struct fact facts[] = {
	{ "mremap drops the registration of what it moves: missing pages are zeroes there",
	  moving_drops_it },
	{ "of a mapping that is moved in part the rest keeps it", the_rest_keeps_it },
	{ "registered again in its new place, it is served there", served_when_registered_again },
	{ "what is grown in place is registered to its new end", growing_in_place_extends_it },
	{ "a second mapping, by an old size of 0, is not registered", a_second_mapping_has_none },
	{ "without access it is moved and grown without a page of it filled, locked or not",
	  closed_stays_closed_and_empty },
};

int main(void)
{
	facts_run(facts, ARRAY_LEN(facts));
	return tap_done();
}
