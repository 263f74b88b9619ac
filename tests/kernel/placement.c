/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * COPY and ZEROPAGE into our own address space, private and shared memory alike (devices.md
 * 0.2/3-5, peers.md 9): what is placed, what the result field holds, what is refused.
 */
#include "config.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "scene.h"
#include "sys/uapi.h"
#include "tap.h"

/* A registered arena of @n missing pages. */
static uint8_t *arena(enum kind kind, unsigned n, int *uffd)
{
	uint8_t *p = k_map(kind, n, NULL);

	*uffd = k_uffd(0);
	expect_eq(k_register(*uffd, at(p), n * PAGE, NULL), 0);
	return p;
}

static void copy_places_and_wakes(enum kind kind)
{
	uint8_t *src = k_source(0x11, 1);
	struct moved m;
	struct actor a;
	int uffd;
	uint8_t *p = arena(kind, 4, &uffd);

	actor_start(&a, act_load, p + 2 * PAGE + 123);
	expect_eq(k_fault(uffd), at(p + 2 * PAGE));
	m = k_copy(uffd, at(p + 2 * PAGE), src, PAGE, 0);
	expect_eq(m.err, 0);
	expect_eq(m.field, PAGE);
	expect_eq(actor_result(&a), 0x11);
	k_quiet(uffd);
}

static void anon_copy_places_and_wakes(void)
{
	copy_places_and_wakes(ANON);
}

static void shmem_copy_places_and_wakes(void)
{
	copy_places_and_wakes(SHMEM);
}

/* O9: shared memory takes ZEROPAGE, too (devices.md 0.2/5). */
static void zero_places(void)
{
	for (enum kind k = ANON; k <= SHMEM; k++) {
		int uffd;
		uint8_t *p = arena(k, 4, &uffd);
		struct moved m = k_zero(uffd, at(p), 3 * PAGE, 0);

		expect_eq(m.err, 0);
		expect_eq(m.field, 3 * PAGE);
		for (unsigned i = 0; i < 3; i++)
			expect_eq(act_load(p + i * PAGE), 0);
		expect_eq(act_store(p), 0);
		expect_eq(act_load(p), 0x77);
		k_quiet(uffd);
	}
}

/*
 * O9: mincore() tells holes from pages, of whoever, in a range that is registered; to ask
 * instantiates nothing, and who touches the hole faults afterwards as before.
 */
static void holes_are_told(void)
{
	uint8_t *src = k_source(0x11, 1);
	unsigned char there[4];
	int fd = -1, uffd = k_uffd(0);
	uint8_t *p = k_map(SHMEM, 4, &fd);
	struct sharer other = sharer_start(fd, 4 * PAGE, SHARER_PLAIN);
	struct actor a;

	expect_eq(k_register(uffd, at(p), 4 * PAGE, NULL), 0);
	expect_eq(k_copy(uffd, at(p + PAGE), src, PAGE, 0).err, 0);
	sharer_load(&other, 2);
	expect_eq(sharer_byte(&other), 0);
	for (unsigned i = 0; i < 2; i++) {
		expect_eq(mincore(p, 4 * PAGE, there), 0);
		expect_eq(there[0] & 1, 0);
		expect_eq(there[1] & 1, 1);
		expect_eq(there[2] & 1, 1);	/* zeroes that somebody read are there, too */
		expect_eq(there[3] & 1, 0);
	}
	actor_start(&a, act_load, p);
	expect_eq(k_fault(uffd), at(p));
	expect_eq(k_copy(uffd, at(p), src, PAGE, 0).err, 0);
	expect_eq(actor_result(&a), 0x11);
	k_quiet(uffd);
	sharer_kill(&other);
}

static void registration_offers(void)
{
	const uint64_t want = 1 << _UFFDIO_WAKE | 1 << _UFFDIO_COPY | 1 << _UFFDIO_ZEROPAGE;

	for (enum kind k = ANON; k <= SHMEM; k++) {
		uint8_t *p = k_map(k, 1, NULL);
		uint64_t ioctls = 0;

		expect_eq(k_register(k_uffd(0), at(p), PAGE, &ioctls), 0);
		expect_eq(ioctls & want, want);
	}
}

/* design.md 11: place straight from the receive buffer. */
static void source_may_be_unaligned(void)
{
	uint8_t *src = k_source(0x11, 3);
	int uffd;
	uint8_t *p = arena(SHMEM, 2, &uffd);
	struct moved m;

	src[PAGE + 12] = 0x22;
	m = k_copy(uffd, at(p), src + 13, 2 * PAGE, 0);
	expect_eq(m.err, 0);
	expect_eq(m.field, 2 * PAGE);
	expect_eq(p[PAGE - 1], 0x22);
	expect_eq(memcmp(p, src + 13, 2 * PAGE), 0);
}

/* O2, O3: EEXIST, and -EEXIST in the field, for all four combinations. */
static void present_page_is_eexist(void)
{
	uint8_t *src = k_source(0x11, 1);

	for (enum kind k = ANON; k <= SHMEM; k++) {
		int uffd;
		uint8_t *p = arena(k, 2, &uffd);
		struct moved m;

		expect_eq(k_copy(uffd, at(p), src, PAGE, 0).err, 0);
		expect_eq(k_zero(uffd, at(p + PAGE), PAGE, 0).err, 0);
		for (unsigned i = 0; i < 2; i++) {
			m = k_copy(uffd, at(p + i * PAGE), src, PAGE, 0);
			expect_eq(m.err, EEXIST);
			expect_eq(m.field, -EEXIST);
			m = k_zero(uffd, at(p + i * PAGE), PAGE, 0);
			expect_eq(m.err, EEXIST);
			expect_eq(m.field, -EEXIST);
		}
		expect_eq(act_load(p), 0x11);
		expect_eq(act_load(p + PAGE), 0);
	}
}

/* O6: the call stops before the page, the next one tells why; nothing behind it is placed. */
static void partial_says_eagain_then_eexist(void)
{
	uint8_t *src = k_source(0x11, 8);

	for (enum kind k = ANON; k <= SHMEM; k++) {
		int uffd;
		uint8_t *p = arena(k, 8, &uffd);
		struct moved m;

		expect_eq(k_zero(uffd, at(p + 2 * PAGE), PAGE, 0).err, 0);
		m = k_copy(uffd, at(p), src, 8 * PAGE, 0);
		expect_eq(m.err, EAGAIN);
		expect_eq(m.field, 2 * PAGE);
		m = k_copy(uffd, at(p + 2 * PAGE), src, 6 * PAGE, 0);
		expect_eq(m.err, EEXIST);
		expect_eq(m.field, -EEXIST);
		m = k_copy(uffd, at(p + 3 * PAGE), src, 5 * PAGE, 0);
		expect_eq(m.err, 0);
		expect_eq(m.field, 5 * PAGE);
		expect_eq(act_load(p + 2 * PAGE), 0);
		expect_eq(act_load(p + 7 * PAGE), 0x11);
	}
}

static void partial_zero_is_the_same(void)
{
	int uffd;
	uint8_t *p = arena(ANON, 8, &uffd);
	struct moved m;

	expect_eq(k_copy(uffd, at(p + 5 * PAGE), k_source(0x11, 1), PAGE, 0).err, 0);
	m = k_zero(uffd, at(p), 8 * PAGE, 0);
	expect_eq(m.err, EAGAIN);
	expect_eq(m.field, 5 * PAGE);
	m = k_zero(uffd, at(p + 5 * PAGE), 3 * PAGE, 0);
	expect_eq(m.err, EEXIST);
}

/* A partial COPY wakes the waiters of what it placed. */
static void partial_wakes_its_part(void)
{
	int uffd;
	uint8_t *p = arena(SHMEM, 4, &uffd);
	struct actor a, b;

	actor_start(&a, act_load, p);
	expect_eq(k_fault(uffd), at(p));
	actor_start(&b, act_load, p + 3 * PAGE);
	expect_eq(k_fault(uffd), at(p + 3 * PAGE));
	expect_eq(k_zero(uffd, at(p + 2 * PAGE), PAGE, 0).err, 0);
	expect_eq(k_copy(uffd, at(p), k_source(0x11, 4), 4 * PAGE, 0).err, EAGAIN);
	expect_eq(actor_result(&a), 0x11);
	actor_asleep(&b);
}

static void bad_ranges_are_einval(void)
{
	uint8_t *src = k_source(0x11, 2);
	int uffd;
	uint8_t *p = arena(ANON, 2, &uffd);

	expect_eq(k_copy(uffd, at(p) + 1, src, PAGE, 0).err, EINVAL);
	expect_eq(k_copy(uffd, at(p), src, PAGE + 1, 0).err, EINVAL);
	expect_eq(k_copy(uffd, at(p), src, 0, 0).err, EINVAL);
	expect_eq(k_copy(uffd, at(p), src, PAGE, 1 << 30).err, EINVAL);
	expect_eq(k_zero(uffd, at(p) + 1, PAGE, 0).err, EINVAL);
	expect_eq(k_zero(uffd, at(p), 0, 0).err, EINVAL);
	expect_eq(k_wake(uffd, at(p) + 1, PAGE), EINVAL);
	expect_eq(k_wake(uffd, at(p), PAGE - 1), EINVAL);
	expect_eq(k_wake(uffd, at(p), 0), EINVAL);
	expect_eq(k_register(uffd, at(p) + 1, PAGE, NULL), EINVAL);
}

static void bad_source_is_efault(void)
{
	int uffd;
	uint8_t *p = arena(ANON, 2, &uffd);
	struct moved m = k_copy(uffd, at(p), (void *)8, PAGE, 0);

	expect_eq(m.err, EFAULT);
	expect_eq(m.field, -EFAULT);
	expect_eq(k_copy(uffd, at(p), k_source(0x11, 1), PAGE, 0).err, 0);
}

/* What was never registered, what was unmapped, what crosses the end of the mapping. */
static void unregistered_is_enoent(void)
{
	uint8_t *src = k_source(0x11, 4);
	int uffd;
	uint8_t *p = arena(ANON, 4, &uffd), *other = k_map(ANON, 1, NULL);
	struct moved m = k_copy(uffd, at(other), src, PAGE, 0);

	expect_eq(m.err, ENOENT);
	expect_eq(m.field, -ENOENT);
	expect_eq(munmap(p + 2 * PAGE, 2 * PAGE), 0);
	expect_eq(k_copy(uffd, at(p + 2 * PAGE), src, PAGE, 0).err, ENOENT);
	expect_eq(k_copy(uffd, at(p), src, 4 * PAGE, 0).err, ENOENT);
	expect_eq(k_zero(uffd, at(p + 2 * PAGE), PAGE, 0).err, ENOENT);
	expect_eq(k_wake(uffd, at(p + 2 * PAGE), PAGE), 0);
}

static void registered_present_page_does_not_fault(void)
{
	for (enum kind k = ANON; k <= SHMEM; k++) {
		uint8_t *p = k_map(k, 2, NULL);
		int uffd = k_uffd(0);
		struct actor a;

		act_store(p);
		expect_eq(k_register(uffd, at(p), 2 * PAGE, NULL), 0);
		expect_eq(act_load(p), 0x77);
		k_quiet(uffd);
		actor_start(&a, act_load, p + PAGE);
		expect_eq(k_fault(uffd), at(p + PAGE));
		expect_eq(k_copy(uffd, at(p), k_source(1, 1), PAGE, 0).err, EEXIST);
		expect_eq(k_zero(uffd, at(p + PAGE), PAGE, 0).err, 0);
		expect_eq(actor_result(&a), 0);
	}
}

/* O3: the guest ballooned it away; a COPY would bring old content back, ZEROPAGE is the answer. */
static void private_page_can_be_dropped_and_zeroed(void)
{
	int uffd;
	uint8_t *p = arena(ANON, 1, &uffd);
	struct actor a;

	expect_eq(k_copy(uffd, at(p), k_source(0x11, 1), PAGE, 0).err, 0);
	expect_eq(madvise(p, PAGE, MADV_DONTNEED), 0);
	actor_start(&a, act_load, p);
	expect_eq(k_fault(uffd), at(p));
	expect_eq(k_wake(uffd, at(p), PAGE), 0);
	expect_eq(k_fault(uffd), at(p));
	expect_eq(k_zero(uffd, at(p), PAGE, 0).err, 0);
	expect_eq(actor_result(&a), 0);
}

static const struct fact facts[] = {
	{ "COPY places a private page and wakes its waiter", anon_copy_places_and_wakes },
	{ "COPY places a shared page and wakes its waiter", shmem_copy_places_and_wakes },
	{ "ZEROPAGE places zero pages, also in shared memory", zero_places },
	{ "O9 a hole of a registered file is told by mincore", holes_are_told },
	{ "registration offers COPY, ZEROPAGE, WAKE", registration_offers },
	{ "the source of COPY may be unaligned", source_may_be_unaligned },
	{ "a present page: EEXIST, -17 in the field", present_page_is_eexist },
	{ "a partial COPY: EAGAIN and bytes, then EEXIST", partial_says_eagain_then_eexist },
	{ "a partial ZEROPAGE: the same", partial_zero_is_the_same },
	{ "a partial COPY wakes the waiters of its part only", partial_wakes_its_part },
	{ "unaligned and empty ranges: EINVAL", bad_ranges_are_einval },
	{ "an unreadable source: EFAULT, nothing placed", bad_source_is_efault },
	{ "an unregistered or unmapped range: ENOENT", unregistered_is_enoent },
	{ "a page present at registration does not fault", registered_present_page_does_not_fault },
	{ "a private page dropped by the owner faults again",
	  private_page_can_be_dropped_and_zeroed },
};

int main(void)
{
	facts_run(facts, ARRAY_LEN(facts));
	return tap_done();
}
